"""Freshness: directories as the bucket has them, no older than the `freshness` setting.

A LIST or HEAD is one request for all callers. After NEWS_WAIT_S without an answer a known directory is shown as it was;
from then on, until the bucket answers again, callers do not wait: requests run in the background.

Threads: every public method is thread-safe; requests run on `jobs`. Locks: takes Core.lock; none during a request.
Fails:   ReadFailed where nothing is known and the bucket does not answer within `read_timeout`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from threading import Event

from r2fs.engine.content.idle import IdleFiles
from r2fs.engine.content.jobs import JobQueue
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import NEVER, Node, Refresh, listing_of
from r2fs.engine.inodes.listing_merge import merge_listing
from r2fs.engine.inodes.listing_pages import pages_of
from r2fs.engine.namespace.last_known import LastKnown
from r2fs.engine.namespace.name_lookup import NameLookup
from r2fs.engine.namespace.tree_listing import TreeListing
from r2fs.engine.namespace.waits import AWAY, Behind, Outages
from r2fs.engine.pending.records import Records
from r2fs.model.errors import MalformedAnswer, R2fsError, ReadFailed, Stale
from r2fs.model.keys import nfc, printable
from r2fs.model.ports import Caller
from r2fs.model.records import ObjectInfo

log = logging.getLogger(__name__)

PAGE_OF_NODES = 1000  # keys in one page of LIST
STALE_RETRY_S = 5.0  # validity of a known listing after a request without an answer


class Listed:
    """Directories with a new listing in which files are pinned, for `namespace/pins.py`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        # guarded by: Core.lock
        self._is_watched: Callable[[Node], bool] = lambda directory: False
        self._inos: set[int] = set()
        self.changed = Event()  # thread-safe

    def watch_locked(self, is_watched: Callable[[Node], bool]) -> None:
        """Note directories for which `is_watched` is true, from now on."""
        self._core.assert_held()
        self._is_watched = is_watched

    def note_locked(self, directory: Node) -> None:
        """Note a complete listing of the directory."""
        self._core.assert_held()
        if self._is_watched(directory):
            self._inos.add(directory.ino)
            self.changed.set()

    def take_locked(self) -> set[int]:
        """Return the inode numbers of the directories noted since the last call."""
        self._core.assert_held()
        taken, self._inos = self._inos, set()
        return taken


class Freshness:
    def __init__(
        self,
        records: Records,
        idle: IdleFiles,
        jobs: JobQueue,
        found: Callable[[ObjectInfo], None],
    ) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._idle = idle
        self._jobs = jobs
        self._found = found  # called with the HEAD of an object, perhaps of this host
        self._name_lookup = NameLookup(records, self._clear_suspects)
        self.last = LastKnown(records)
        self.listed = Listed(records.core)
        self._tree_listing = TreeListing(
            records,
            self._clear_suspects,
            lambda one: self.valid_s(one) > 0,
            self._listed_locked,
        )
        self.outages = Outages(records.core)
        self._behind = Behind(records.core, jobs)

    # ------------------------------------------------------------------ freshness
    def age(self, directory: Node, name: str | None = None) -> float:
        """Return the age in seconds of the listing, or of the name's own lookup if younger."""
        listing = listing_of(directory)
        known = listing.listed_at_s if listing.whole else NEVER
        if name is not None and name in listing.probed:
            known = max(known, listing.probed[name])
        return self._core.clock.monotonic() - known

    def valid_s(self, directory: Node, name: str | None = None) -> float:
        """Return the seconds for which the listing, or the name, stays fresh."""
        return max(0.0, self._core.settings.freshness_s - self.age(directory, name))

    def made_locked(self, directory: Node) -> None:
        """Note a new directory of this host: known, and empty."""
        self._core.assert_held()
        listing = listing_of(directory)
        listing.listed_at_s, listing.whole = self._core.clock.monotonic(), True

    # ------------------------------------------------------------------ requests and waiting
    def ensure(self, caller: Caller, directory: Node, name: str | None = None, patient: bool = True) -> None:
        """Wait until the directory (or the `name` alone) is fresh, or known while the bucket does not answer.

        Unless `patient`, a directory that an earlier mount has saved is shown so after a while, or at once
        (`waits.py`). Raises Stale for a removed directory, ReadFailed where nothing is known.
        """
        mine = False
        while not mine:  # another caller's request may not cover this name
            with self._core.lock:
                if self.is_fresh_locked(directory, name, patient):
                    return
                known = self._is_known_locked(directory, name)
                refused = self._refused_locked(directory)
                if refused is not None:
                    self._believe(directory, name, known, refused)
                    return
                at_once = known and self.outages.at(directory)
                if at_once:
                    self._believe(directory, name, known)
                else:
                    caller.about_to_fetch()
                refresh, mine = self._begin_locked(directory)
            if at_once:
                self._send(refresh, directory, name, mine, False)
                return
            saved = self._is_saved(directory, known)
            limit_s = None if patient or not saved else self._saved_wait_s(directory, name)
            self._send(refresh, directory, name, mine, limit_s == 0.0)
            with self._behind.counted(limit_s):
                self.outages.wait(caller, refresh, directory, known or saved, limit_s)
            if not refresh.is_answered(AWAY):
                self._believe(directory, name, known, refresh.error or "no answer")
                return
            if mine and refresh.error is not None:
                raise refresh.error

    def _send(self, refresh: Refresh, directory: Node, name: str | None, mine: bool, behind: bool) -> None:
        """Send the request unless it is on its way; `behind`: after those for other saved directories."""
        if mine and behind:
            self._behind.add(refresh, partial(self._run_behind, refresh, directory, name))
        elif mine or not (refresh.begun or behind):
            run = partial(self._run, refresh, directory, name if mine else None)
            self._jobs.submit(partial(self._behind.once, refresh, run))

    def _is_saved(self, directory: Node, known: bool) -> bool:
        """True if an earlier mount has saved the directory, and no answer has come since."""
        return listing_of(directory).provisional or (not known and self.last.has(directory))

    def _saved_wait_s(self, directory: Node, name: str | None) -> float:
        return self._behind.wait_s(self.last.pages(directory) if name is None else 1)

    def is_fresh_locked(self, directory: Node, name: str | None, patient: bool) -> bool:
        """True if `ensure` would return at once. Raises Stale."""
        self._core.assert_held()
        if directory.deleted:
            raise Stale(f"{directory.name} is gone")
        provisional = listing_of(directory).provisional and patient and not self.outages.at(directory)
        fresh = self.valid_s(directory, name) > 0 and not provisional
        if fresh:
            self._tree_listing.step_locked(directory)
        return fresh

    def _refused_locked(self, directory: Node) -> str | None:
        """Return the fault of the last answer while a retry is too early; else None."""
        self._core.assert_held()
        listing = listing_of(directory)
        if listing.refreshing is None and self._core.clock.monotonic() < listing.refused_until_s:
            return listing.refused
        return None

    def _begin_locked(self, directory: Node) -> tuple[Refresh, bool]:
        """Return the request on its way for the directory, and True for a new one, which the caller submits."""
        self._core.assert_held()
        listing = listing_of(directory)
        if listing.refreshing is not None:
            return listing.refreshing, False
        listing.refreshing = Refresh(self._core.clock.monotonic())
        return listing.refreshing, True

    def absent_valid_s(self, directory: Node, name: str) -> float:
        """Return the seconds for which the kernel may hold a name as absent."""
        if self._core.settings.consistency == "close-to-open":
            return 0.0
        return self.valid_s(directory, name)

    def _is_known_locked(self, directory: Node, name: str | None) -> bool:
        """True if the directory or name was seen before; in an outage, also in an earlier mount."""
        self._core.assert_held()
        listing = listing_of(directory)
        if listing.whole or name in listing.probed:
            return True
        return self.outages.at(directory) and self.last.restore(directory)

    def _believe(
        self, directory: Node, name: str | None, known: bool, reason: R2fsError | str | None = None
    ) -> None:
        """Show the directory as known, or as saved by an earlier mount, for STALE_RETRY_S.

        Raises ReadFailed for `reason` if neither exists.
        """
        if not known and not self.last.restore(directory):
            raise ReadFailed(f"{self._tree.path(directory)}: could not be listed: {reason}")
        if isinstance(reason, R2fsError):
            log.info("%s: showing what was known: %s", printable(self._tree.path(directory)), reason)
        with self._core.lock:
            listing = listing_of(directory)
            shown_from = self._core.clock.monotonic() - self._core.settings.freshness_s + STALE_RETRY_S
            if listing.whole:
                listing.listed_at_s = max(listing.listed_at_s, shown_from)
            elif name is not None and name in listing.probed:
                listing.probed[name] = max(listing.probed[name], shown_from)

    def _run(self, refresh: Refresh, directory: Node, name: str | None) -> None:
        """Job: list the directory, or look up a name."""
        self._answer(refresh, directory, partial(self._refresh, refresh, directory, name))

    def _run_behind(self, refresh: Refresh, directory: Node, name: str | None) -> None:
        """Job: as `_run`, for a saved directory, unless a LIST that crosses directories was faster."""
        with self._core.lock:  # what is believed in an outage stays provisional
            faster = name is None and self.valid_s(directory) > 0 and not listing_of(directory).provisional
        ask = partial(self._refresh, refresh, directory, name)
        self._answer(refresh, directory, (lambda: None) if faster else ask)

    def _answer(self, refresh: Refresh, directory: Node, ask: Callable[[], object]) -> None:
        """Ask the bucket, and end `refresh` with the error, if any."""
        try:
            if self._core.stopping:
                raise ReadFailed(f"{self._tree.path(directory)}: not listed: the mount is stopping")
            ask()
        except R2fsError as error:
            refresh.error = error
            if self._is_news(directory, error) and not self._core.stopping:
                log.error("%s: could not be listed: %s", printable(self._tree.path(directory)), error)
        except BaseException:
            refresh.error = ReadFailed(f"{self._tree.path(directory)}: could not be listed")
            raise
        finally:
            with self._core.lock:
                self.outages.heard_locked(directory, refresh.error)
                listing = listing_of(directory)
                listing.refreshing = None
                # No retry at once: malformed answers are fast.
                is_none = isinstance(refresh.error, MalformedAnswer)
                listing.refused = str(refresh.error) if is_none else None
                listing.refused_until_s = self._core.clock.monotonic() + STALE_RETRY_S if is_none else 0.0
                self._tree_listing.step_locked(directory)
                self._idle.retire_nameless()  # the bucket has their objects no more
            refresh.done.set()

    def _is_news(self, directory: Node, error: R2fsError) -> bool:
        """True if the error is to be logged: outages are by the store's health, a malformed answer once."""
        if isinstance(error, MalformedAnswer):
            return listing_of(directory).refused != str(error)
        return not isinstance(error, AWAY)

    def _refresh(self, refresh: Refresh, directory: Node, name: str | None) -> None:
        listing = listing_of(directory)
        saved = self.last.pages(directory) if name is not None and not listing.whole else 1
        with self._core.lock:
            listing.pages = max(listing.pages, saved)
            pages = None if name is None else self._name_lookup.pages_worth_locked(listing)
            walk = None if pages == 0 else self._tree_listing.walk_locked(directory, name is None)
        if name is not None and pages == 0:
            self.look_up(refresh, directory, name, counted=True)
        elif walk is None or not self._tree_listing.read_on(refresh, walk, directory, name is None):
            self._list(refresh, directory, pages, name)

    def look_up(self, refresh: Refresh, directory: Node, name: str, counted: bool = False) -> None:
        """Look up one name in the bucket. `counted`: towards the LIST of the whole directory. Raises StoreError."""
        self._name_lookup.ask(
            directory,
            name,
            lambda prefix, below, began: self._shown(refresh, directory, prefix, below, began),
            counted,
        )

    def _list(self, refresh: Refresh, directory: Node, pages: int | None, name: str | None) -> None:
        """List the directory; beyond `pages` pages, look up `name` alone."""
        with self._core.lock:
            prefix, began = self._tree.key(directory), self._tree.tick
        sent_at_s, read = self._core.clock.monotonic(), 0
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        for page in pages_of(self._core.store, prefix, delimiter="/", kept=True):
            read += 1
            refresh.heard_s = self._core.clock.monotonic()
            objects += page.objects
            prefixes += page.prefixes
            if read == pages and page.token is not None and name is not None:
                with self._core.lock:
                    self._name_lookup.gave_up_locked(listing_of(directory), read)
                self.look_up(refresh, directory, name, counted=True)
                return
        prefixes = self._shown(refresh, directory, prefix, prefixes, began)
        self._clear_suspects(objects)
        with self._core.lock:
            if directory.deleted or self._tree.key(directory) != prefix:  # renamed: the next call lists again
                return
            merge_listing(self._tree, directory, objects, prefixes, began)
            listing = listing_of(directory)
            listing.listed(sent_at_s)
            self._name_lookup.listed_locked(listing, read, self._core.clock.monotonic() - sent_at_s)
            self._listed_locked(directory)

    def _listed_locked(self, directory: Node) -> None:
        """Note that all names of the directory are known."""
        self._core.assert_held()
        self.last.listed_locked(directory)
        self.listed.note_locked(directory)

    def _shown(
        self, refresh: Refresh, directory: Node, prefix: str, below: list[str], began: int
    ) -> list[str]:
        """Return `below` without directories that may be empty: deletes below are pending, or done since the LIST.
        An empty bucket is shown."""
        if not prefix and self._core.settings.bucket.several:
            return below
        with self._core.lock:
            children = directory.children()
            may_be_empty = []
            for one in below:
                child = children.get(nfc(one[len(prefix) : -1]))
                # a file of the same name may just have replaced a directory
                if self._pending.deletes.any_below(one, began) and (child is None or not child.is_dir):
                    may_be_empty.append(one)
        gone = set(may_be_empty) - self._tree_listing.living(refresh, prefix, may_be_empty)
        return [one for one in below if one not in gone]

    def _clear_suspects(self, objects: Iterable[ObjectInfo]) -> None:
        """Send a HEAD for each object that may be a late attempt of this host, for a file removed since."""
        with self._core.lock:
            suspects = [info for info in objects if self._pending.deletes.is_suspect(info.key, info.etag)]
        for suspect in suspects:
            info = self._core.head(suspect.key)
            if info is not None:
                with self._core.lock:
                    self._found(info)

    # ------------------------------------------------------------------ whole trees
    def load_below(self, caller: Caller, directory: Node) -> None:
        """Make every directory at and below this one fresh, for a rename; known ones stay as they are in an outage."""
        all_buckets = directory.parent is None and self._core.settings.bucket.several
        flat = not all_buckets and self._is_cheaper_flat(directory)
        listed = self._load_flat(caller, directory) if flat else set()
        pending = [directory]
        while pending:
            one = pending.pop()
            if one not in listed:
                self.ensure(caller, one)
            with self._core.lock:
                pending += [child for child in one.children().nodes() if child.is_dir]

    def _is_cheaper_flat(self, directory: Node) -> bool:
        """True if flat LISTs, of a thousand keys each, take fewer requests than one for each stale directory."""
        with self._core.lock:
            if not listing_of(directory).whole:
                return True
            known = stale = 0
            for one in self._tree.walk_nodes(directory):
                known += 1 + (len(one.children().packed) if one.is_dir else 0)
                if one.is_dir and self.valid_s(one) <= 0:
                    stale += 1 if listing_of(one).whole else PAGE_OF_NODES
            return stale > 1 + known // PAGE_OF_NODES

    def _load_flat(self, caller: Caller, directory: Node) -> set[Node]:
        """Return the directories that flat LISTs made fresh; none without an answer."""
        listed: set[Node] = set()
        with self._core.lock:
            listing = listing_of(directory)
            if self.outages.at(directory) or listing.refreshing is not None or directory.deleted:
                return listed
            caller.about_to_fetch()
            refresh, _ = self._begin_locked(directory)
            known = listing.whole

        def ask() -> None:
            listed.update(self._tree_listing.load(refresh, directory))

        self._jobs.submit(partial(self._answer, refresh, directory, ask))
        self.outages.wait(caller, refresh, directory, known)
        return listed if refresh.done.is_set() and refresh.error is None else set()
