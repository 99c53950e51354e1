"""Close-to-open: a request for each open and each unknown name (`consistency = "close-to-open"`).

A file with pending state needs none: this host's version is the newer. After NEWS_WAIT_S, and while the bucket is away,
names are as known to `namespace/freshness.py`.

Threads: every public method is thread-safe; requests run on `jobs`. Locks: takes Core.lock; none during a request.
Fails:   Stale if the opened file was replaced or removed: the kernel then looks the name up again. WouldFetch,
         WouldWait, Interrupted. An error of the bucket is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from r2fs.engine.content.jobs import JobQueue
from r2fs.engine.inodes.inode import Node, Refresh
from r2fs.engine.inodes.protected import OBJECT_NAME
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.namespace.waits import AWAY
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.tally import is_local
from r2fs.model.errors import R2fsError, ReadFailed, Stale
from r2fs.model.keys import nfc, printable
from r2fs.model.ports import Caller
from r2fs.model.records import Kind

log = logging.getLogger(__name__)

ANSWER_S = 0.1  # from the answer to a lookup until the OPEN of the same open(2): milliseconds on a busy host
REMEMBERED = 1000  # answers; beyond, those older than ANSWER_S are dropped

Name = tuple[int, str]  # the directory's inode number, the name in NFC


class CloseToOpen:
    def __init__(self, records: Records, freshness: Freshness, jobs: JobQueue) -> None:
        # constant
        self._core = records.core
        self._tree = records.tree
        self._freshness = freshness
        self._jobs = jobs
        # guarded by: Core.lock
        self._answers: dict[Name, float] = {}  # Clock.monotonic() of answers that a following OPEN may use
        self._asking: set[Name] = set()  # in the background, while the bucket is away

    # ------------------------------------------------------------------ the verbs
    def before_lookup(self, caller: Caller, parent: int, name: str) -> None:
        """Look an unknown name up: a LIST of few keys shows a file, a directory or a link."""
        name = nfc(name)
        with self._core.lock:
            directory = self._tree.directory(parent)
            if not self._asks_locked(directory) or name in directory.children():
                return
            if name == OBJECT_NAME or is_local(name, self._core.settings.local_patterns):
                return
            if self._serves_locked(parent, name):
                return
        self._ask(caller, directory, name)
        with self._core.lock:
            if name in directory.children():
                self._answered_locked(parent, name)

    def before_open(self, caller: Caller, node: Node, fetches: Callable[[Node], bool]) -> None:
        """Compare the version of a clean file by HEAD, unless `fetches(node)`: the open then sends a GET with If-Match.

        Raises Stale if the name has another version by now.
        """
        with self._core.lock:
            directory, name = node.parent, node.name
            if directory is None or node.deleted or node.pending is not None or node.kind is not Kind.FILE:
                return
            if not self._asks_locked(directory) or node.base is None or node.read_only:
                return
            if self._serves_locked(directory.ino, name) or fetches(node):
                return
        self._ask(caller, directory, name)
        with self._core.lock:
            if _is_gone(node):
                self._answered_locked(directory.ino, name)
                raise Stale(f"{printable(name)} was replaced or removed")

    def opened(self, node: Node) -> None:
        """End the use of an answer: the next open sends a request."""
        with self._core.lock:
            if node.parent is not None:
                self._answers.pop((node.parent.ino, node.name), None)

    # ------------------------------------------------------------------ answers
    def _asks_locked(self, directory: Node) -> bool:
        self._core.assert_held()
        return self._core.settings.consistency == "close-to-open" and not directory.deleted

    def _serves_locked(self, parent: int, name: str) -> bool:
        """True if an answer of ANSWER_S ago was to this open(2)."""
        self._core.assert_held()
        answered_s = self._answers.get((parent, name))
        return answered_s is not None and self._core.clock.monotonic() - answered_s < ANSWER_S

    def _answered_locked(self, parent: int, name: str) -> None:
        self._core.assert_held()
        now_s = self._core.clock.monotonic()
        if len(self._answers) >= REMEMBERED:
            self._answers = {
                key: then_s for key, then_s in self._answers.items() if now_s - then_s < ANSWER_S
            }
        self._answers[parent, name] = now_s

    # ------------------------------------------------------------------ requests
    def _ask(self, caller: Caller, directory: Node, name: str) -> None:
        """Send a request, and wait for the answer; while the bucket is away, do not wait.

        A request under way does not serve: its answer may be older than another host's close.
        """
        with self._core.lock:
            away, key = self._freshness.outages.at(directory), (directory.ino, name)
            if away and key in self._asking:
                return
            if away:
                self._asking.add(key)
            else:
                caller.about_to_fetch()
            refresh = Refresh(self._core.clock.monotonic())
        self._jobs.submit(partial(self._run, refresh, directory, name))
        if not away:
            self._freshness.outages.wait(caller, refresh, directory)

    def _run(self, refresh: Refresh, directory: Node, name: str) -> None:
        """Job: look the name up in the bucket."""
        try:
            if self._core.stopping:
                raise ReadFailed(f"{printable(name)}: not looked up: the mount is stopping")
            self._freshness.look_up(refresh, directory, name)
        except R2fsError as error:
            refresh.error = error
            if not isinstance(error, AWAY) and not self._core.stopping:
                log.error("%s: shown as known: %s", printable(name), error)
        finally:
            with self._core.lock:
                self._asking.discard((directory.ino, name))
                self._freshness.outages.heard_locked(directory, refresh.error)
            refresh.done.set()


def _is_gone(node: Node) -> bool:  # a function: to mypy, `deleted` is still as above, before the request
    return node.deleted
