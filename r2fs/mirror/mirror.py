"""Mirror: keeps a directory and a prefix in step, by passes and by events of the directory.

Threads: every public method; `workers` names the work of each thread, which the service starts.
Locks:   self._lock (leaf).
Fails:   as its parts, from `open`; later errors belong to a name, or to a pass, and are logged.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from r2fs.disk.mirror_record import InStep
from r2fs.disk.plain_tree import OWN, Obstructed
from r2fs.disk.watch import TreeWatch
from r2fs.mirror.names import LocalOnly, NotMirrored
from r2fs.mirror.passes import Passes
from r2fs.mirror.queue import Counts, Item, Verb, WorkQueue
from r2fs.mirror.receipts import MirrorReceipts
from r2fs.mirror.settle import Later, Parts, Rules, Settler
from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    LocalError,
    NoSpace,
    PermissionRefused,
    R2fsError,
    StoreError,
)
from r2fs.model.keys import printable
from r2fs.model.ports import Clock
from r2fs.model.settings import Settings
from r2fs.model.views import QueueView, TransferView

log = logging.getLogger(__name__)

OF_THE_BUCKET = (BadCredentials, PermissionRefused, BucketMissing, ClockSkewed)  # refuse every request
PASSING = (*OF_THE_BUCKET, LocalError, NoSpace)  # besides what is tried again anyway
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 15.0
# at a directory that an event named: what appears in it before it is watched has no event
LOOKS, LOOK_AGAIN_S = 2, 1.0
ONCE_TRIES = 3  # of a name, with --once
TICK_S = 0.2  # between two looks at directories that events named, and two reports of progress


@dataclass(frozen=True, slots=True)
class PassView:
    """The last pass. `at_s`: seconds since 1970; None: none has ended yet."""

    at_s: float | None = None
    error: str | None = None


class Mirror:
    def __init__(self, parts: Parts, rules: Rules, clock: Clock, every_s: float | None) -> None:
        """`every_s`: time between two passes; None: one pass, and a name that fails is given up after some tries."""
        # constant
        self._parts = parts
        self._clock = clock
        self._every_s = every_s
        self._queue = WorkQueue(clock)
        self.carries_removals = rules.delete
        self._settler = Settler(parts, rules, self._touch_new)
        self._passes = Passes(parts, self._settler, self._queue)
        self.receipts = MirrorReceipts(parts, self._queue)
        self._stopping = threading.Event()
        self._draining = threading.Event()
        self._looking = threading.Event()  # set: a directory is to be looked at
        self.compared = threading.Event()  # the first pass has ended
        self._watch: TreeWatch | None = None
        self._pass_lock = threading.Lock()  # one pass at a time
        # guarded by: _lock
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._last = PassView()
        self._refusal: R2fsError | None = None

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._parts.settings

    def change_settings(self, settings: Settings) -> None:
        """Replace limits, times and patterns; `daemon/reload.py` says which settings these can be."""
        self._parts.settings = settings
        self._parts.names.change_patterns(settings.local_patterns)
        self._queue.resize(settings.upload_threads)

    # ------------------------------------------------------------------ life
    def open(self) -> None:
        """Take the tree; the record begins anew for another tree. Settle the files and uploads of a killed mirror."""
        tree, record = self._parts.tree, self._parts.record
        tree_id = tree.read_id() or tree.make_id()
        if record.tree_id() != tree_id:
            record.begin(tree_id)
        self._settler.recover()

    def watch(self) -> None:
        """Begin to watch the directory. Without it, as where the kernel has no watches left, passes find changes."""
        try:
            watch = TreeWatch(self._parts.tree.root, self._touched)
            watch.start()
            self._watch = watch
        except OSError as error:
            log.warning(
                "%s cannot be watched (%s): changes are found by passes", self._parts.tree.root, error
            )

    def workers(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Name and work of each thread."""
        for number in range(self._parts.settings.upload_threads):
            yield f"mirror-{number}", self._work
        if self._every_s is not None:
            yield "mirror-passes", self._pass_again_and_again
            yield "mirror-looks", self._look_at_directories

    def stop(self) -> None:
        self._stopping.set()
        self._looking.set()
        self._queue.stop()
        if self._watch is not None:
            self._watch.stop()

    # ------------------------------------------------------------------ events
    def _touched(self, path: str, is_directory: bool) -> None:
        """An event of the directory; in watchdog's thread."""
        below = os.path.relpath(path, self._parts.tree.root)
        if below in (OWN, "..") or below.startswith((f"{OWN}/", "../")):
            return
        if is_directory:
            with self._lock:
                self._paths.add("" if below == "." else below)
            self._looking.set()
            return
        self._touch(below)

    def _touch(self, path: str) -> None:
        delay_s = 0.0 if self._draining.is_set() else self._parts.settings.upload_delay_s
        try:
            name = self._parts.names.of_path(path)
            local = self._parts.tree.stat(path)
        except LocalOnly:
            return
        except (NotMirrored, LocalError) as error:
            self._passes.skipped.add(path, str(error))
            return
        if local == self._parts.record.get(name).local:
            return
        verb = Verb.DELETE if local is None else Verb.UPLOAD
        self._queue.touch(name, verb, 0 if local is None else local.size, delay_s)

    def _touch_new(self, name: str) -> None:
        self._queue.touch(name, Verb.UPLOAD, 0)

    def _look_at_directories(self) -> None:
        while not self._stopping.is_set():
            self._looking.wait()
            self._clock.wait(self._stopping, TICK_S)  # a tree that is being copied names many
            self._looking.clear()
            with self._lock:
                paths, self._paths = self._paths, set()
            for _ in range(LOOKS):
                with suppress(LocalError):  # the pass says so
                    self._passes.run_here(sorted(paths))
                self._clock.wait(self._stopping, LOOK_AGAIN_S)

    # ------------------------------------------------------------------ passes
    def _pass_again_and_again(self) -> None:
        assert self._every_s is not None
        while not self._stopping.is_set() and not self._draining.is_set():
            error = self.compare()
            self._clock.wait(self._stopping, min(self._every_s, LONGEST_RETRY_S) if error else self._every_s)

    def compare(self) -> R2fsError | None:
        """One pass. Returns its error, which is logged once."""
        try:
            with self._pass_lock:
                work = self._passes.run(self._stopping.is_set)
        except (StoreError, LocalError) as error:
            with self._lock:
                known, self._last = self._last.error, PassView(self._last.at_s, str(error))
                self._refusal = error if isinstance(error, OF_THE_BUCKET) else self._refusal
            if known != str(error):
                log.error("the directory and the bucket were not compared: %s", error)
            return error
        with self._lock:
            self._last, self._refusal = PassView(self._clock.time()), None
        log.debug("compared: %d names to be brought into step", work)
        self.compared.set()
        return None

    # ------------------------------------------------------------------ work
    def _work(self) -> None:
        while (item := self._queue.take()) is not None:
            self._work_on(item)

    def _work_on(self, item: Item) -> None:
        name = item.name
        waited_s = self._clock.monotonic() - item.since_s
        late = waited_s > self._parts.settings.upload_deadline_s  # changed again and again
        try:
            counts = self._settler.step(name, item.hint, item.hurried or late or self._draining.is_set())
        except Later as wait:
            self._queue.later(name, wait.seconds, is_open=wait.is_open)
        except (NotMirrored, Obstructed) as error:
            self._passes.skipped.add(self._parts.names.path(name), str(error))
            self._queue.done(name, Counts())
        except R2fsError as error:
            self._failed(item, error)
        except Exception as error:
            log.exception("%s: not brought into step", printable(name))
            self._queue.park(name, repr(error))
        else:
            if counts != Counts():
                with self._lock:
                    self._refusal = None
            self._queue.done(name, counts)

    def _failed(self, item: Item, error: R2fsError) -> None:
        passing = error.retry or isinstance(error, PASSING)
        with self._lock:
            self._refusal = error if isinstance(error, OF_THE_BUCKET) else None
        if passing and not (self._every_s is None and item.tries + 1 >= ONCE_TRIES):
            if not error.retry and item.reason != str(error):  # the log has the bucket's outage
                log.error("%s: tried again: %s", printable(item.name), error)
            delay_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(item.tries, 10))
            self._queue.later(item.name, delay_s, str(error), failed=True)
            return
        if item.reason != str(error):
            log.error("%s: parked: %s", printable(item.name), error)
        self._queue.park(item.name, str(error))

    # ------------------------------------------------------------------ status, flush, stop
    def queue_view(self) -> QueueView:
        return self._queue.view(tuple(self._parts.record.conflicts()), len(self._passes.skipped.all()))

    def counts(self) -> Counts:
        return self._queue.counts

    def pass_view(self) -> PassView:
        with self._lock:
            return self._last

    def skipped(self) -> dict[str, str]:
        """Names that are not mirrored, with the reason."""
        return self._passes.skipped.all()

    def downloads(self) -> tuple[int, tuple[TransferView, ...]]:
        """Number of objects still to come down, and those on their way."""
        return self._queue.downloads()

    def refusal(self, paths: Sequence[str] = ()) -> R2fsError | None:
        """The error of a bucket that refuses every request, whatever the paths: there is one bucket."""
        with self._lock:
            return self._refusal

    def run_once(self, progress: Callable[[int, int, Counts], None]) -> list[tuple[str, str]]:
        """One pass and its work; returns the names that failed, with the reason."""
        self._draining.set()  # no delay
        if (error := self.compare()) is not None:
            raise error
        total = len(self._queue)
        while not self._queue.wait(
            lambda items: all(i.is_open or i.state == "parked" for i in items), TICK_S
        ):
            left = len(self._queue)
            total = max(total, left)
            progress(total - left, total, self._queue.counts)
        return [(i.name, i.reason or "a program has it open for writing") for i in self._queue.items()]

    def drain(
        self, timeout_s: float | None, progress: Callable[[QueueView], None] | None = None
    ) -> QueueView:
        """Send pending changes, `timeout_s` seconds at most; downloads are left to the next mirror."""
        self._draining.set()
        try:
            self._passes.run_here([""])
        except LocalError as error:
            log.error("%s", error)
        self._queue.drop_downloads()
        self.flush_paths([], timeout_s, progress)
        return self.queue_view()

    def flush_paths(
        self,
        paths: Sequence[str],
        timeout_s: float | None,
        progress: Callable[[QueueView], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Send pending changes at and below `paths` (none: all). False: a change is parked or refused, or the time is up."""
        deadline_s = None if timeout_s is None else self._clock.monotonic() + timeout_s
        names = self._named(paths)
        with suppress(LocalError):  # the pass says so
            self._passes.run_here(paths or [""])
        self._queue.retry([item.name for item in self._queue.items() if _is_in(item, names)])
        while True:
            if self._queue.wait(lambda items: not _is_pending(items, names, parked=False), TICK_S):
                return not _is_pending(self._queue.items(), names, parked=True)
            if progress is not None:
                progress(self.queue_view())
            over = deadline_s is not None and self._clock.monotonic() >= deadline_s
            if over or cancelled() or self.refusal() is not None or self._stopping.is_set():
                return False

    def _named(self, paths: Sequence[str]) -> list[str]:
        """Names of paths; [] is all. Raises InvalidArgument for one that is not mirrored."""
        located = [path.strip("/") for path in paths]
        return [] if "" in located else [self._parts.names.of_path(path) for path in located]

    def retry_parked(self, paths: Sequence[str]) -> None:
        names = self._named(paths)
        self._queue.retry([item.name for item in self._queue.items() if _is_in(item, names)], parked=True)

    def parked_at(self, paths: Sequence[str]) -> list[TransferView]:
        names = self._named(paths)
        view = self.queue_view()
        return [t for t in view.transfers if t.state == "parked" and _is_below(t.path, names)]

    def known(self) -> dict[str, InStep]:
        return self._parts.record.all()


def _is_below(name: str, names: Sequence[str]) -> bool:
    return not names or any(name == one or name.startswith(f"{one}/") for one in names)


def _is_in(item: Item, names: Sequence[str]) -> bool:
    return _is_below(item.name, names)


def _is_pending(items: Iterable[Item], names: Sequence[str], parked: bool) -> bool:
    """True if the bucket lacks an item at or below `names` that can be sent now; with `parked` parked ones, too."""
    return any(
        item.verb is not Verb.DOWNLOAD
        and not item.is_open
        and (parked or item.state != "parked")
        and _is_in(item, names)
        for item in items
    )
