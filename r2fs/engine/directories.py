"""Directories: keeps what the tree shows of the bucket within the freshness setting.

Owns:    when a LIST or HEAD is sent for a directory or a name, each once whoever asks.
Never:   changes what is pending here (`tree.py` merges); holds the lock over a request.
Threads: every public method is thread-safe.
Locks:   takes Core.lock; waits on a Listing's event outside it.
Fails:   ReadFailed where nothing is known and the bucket does not answer. What was known once
         is shown rather than an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from threading import Event

from r2fs.engine.core import Core
from r2fs.engine.ledger import Ledger
from r2fs.engine.node import Listing, Node
from r2fs.engine.tree import SYMLINK_SUFFIX, Tree
from r2fs.model.errors import ObjectMissing, R2fsError, ReadFailed, Retryable, Stale
from r2fs.model.keys import nfc, printable
from r2fs.model.ports import Caller
from r2fs.model.records import ObjectInfo

log = logging.getLogger(__name__)

STALE_RETRY_S = 5.0  # the bucket did not answer: what was known is believed for so long


class Directories:
    def __init__(self, core: Core, tree: Tree, ledger: Ledger, found: Callable[[ObjectInfo], None]) -> None:
        self._core = core
        self._tree = tree
        self._ledger = ledger
        self._store = core.store
        self._found = found  # told of what HEAD says of an object that may be this host's own

    # ------------------------------------------------------------------ freshness
    def age(self, directory: Node, name: str | None = None) -> float:
        """Seconds since what is known of the directory, or of the name alone, was asked."""
        listing = _listing(directory)
        known = listing.listed_at_s if listing.whole else float("-inf")
        if name is not None:
            known = max(known, listing.probed.get(name, float("-inf")))
        return self._core.clock.monotonic() - known

    def valid_s(self, directory: Node, name: str | None = None) -> float:
        """For how long it may still be believed."""
        return max(0.0, self._core.settings.freshness_s - self.age(directory, name))

    def born(self, directory: Node) -> None:
        """Made here a moment ago: nothing is in it. With Core.lock held."""
        listing = _listing(directory)
        listing.listed_at_s, listing.whole = self._core.clock.monotonic(), True

    # ------------------------------------------------------------------ making it fresh
    def ensure(self, caller: Caller, directory: Node, whole: bool = True, name: str | None = None) -> None:
        """Return when the directory (or at least `name` in it) is fresh. Without the lock."""
        while True:
            with self._core.lock:
                if directory.deleted:
                    raise Stale(f"{directory.name} is gone")
                if self.valid_s(directory, None if whole else name) > 0:
                    return
                caller.about_to_wait()
                listing = _listing(directory)
                mine = listing.refreshing is None
                event = listing.refreshing = listing.refreshing or Event()
            if mine:
                try:
                    self._refresh(directory, whole, name)
                finally:
                    with self._core.lock:
                        listing.refreshing = None
                    event.set()
                return
            self._core.clock.wait(event, 1.0)

    def _refresh(self, directory: Node, whole: bool, name: str | None) -> None:
        try:
            if (
                not whole
                and name is not None
                and not _listing(directory).whole
                and _listing(directory).probed
            ):
                self._probe(directory, name)  # a directory of more than one page: names one by one
            else:
                self._list(directory, whole, name)
        except Retryable as error:
            with self._core.lock:
                listing = _listing(directory)
                if not listing.whole:
                    raise ReadFailed(f"{self._tree.path(directory)}: could not be listed: {error}") from error
                log.info("%s: showing what was known: %s", printable(self._tree.path(directory)), error)
                listing.listed_at_s = (
                    self._core.clock.monotonic() - self._core.settings.freshness_s + STALE_RETRY_S
                )
        except R2fsError as error:
            log.error("%s: could not be listed: %s", printable(self._tree.path(directory)), error)
            raise

    def _list(self, directory: Node, whole: bool, name: str | None) -> None:
        with self._core.lock:
            prefix, began = self._tree.key(directory), self._tree.tick
            prefix = self._core.settings.bucket.prefix if directory is self._tree.root else prefix
        asked_at = self._core.clock.monotonic()
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        token = None
        while True:
            page = self._store.list_page(prefix, delimiter="/", token=token)
            objects += page.objects
            prefixes += page.prefixes
            token = page.token
            if token is None:
                break
            if not whole and name is not None:
                self._probe(directory, name)
                return
        prefixes = [p for p in prefixes if self._shows(directory, p, began)]
        self._clear_suspects(objects)
        with self._core.lock:
            if directory.deleted:
                return
            if self._tree.key(directory) != prefix:  # renamed meanwhile: the next call asks anew
                return
            self._tree.merge(directory, objects, prefixes, began)
            listing = _listing(directory)
            listing.listed_at_s, listing.whole = asked_at, True
            listing.probed.clear()

    def _shows(self, directory: Node, prefix: str, began: int) -> bool:
        """A prefix with deletes pending below it, or done since the LIST, may hold nothing else."""
        name = nfc(prefix.rstrip("/").rpartition("/")[2])
        with self._core.lock:
            if not self._ledger.deletes_below(prefix, began) or name in directory.children():
                return True
            began = self._tree.tick
        page = self._store.list_page(prefix)
        self._clear_suspects(page.objects)
        with self._core.lock:
            return page.token is not None or any(
                not self._ledger.hides(info.key, info.etag, began) for info in page.objects
            )

    def _clear_suspects(self, objects: Iterable[ObjectInfo]) -> None:
        """Objects that may be late attempts of this host's, of files that have gone since: HEAD tells."""
        with self._core.lock:
            suspects = [info for info in objects if self._ledger.is_suspect(info.key, info.etag)]
        for suspect in suspects:
            info = self._head(suspect.key)
            if info is not None:
                with self._core.lock:
                    self._found(info)

    def _probe(self, directory: Node, name: str) -> None:
        """One name of a directory that is too large to list for it: HEAD, then LIST below it."""
        with self._core.lock:
            key, began = self._tree.key(directory) + name, self._tree.tick
        asked_at = self._core.clock.monotonic()
        info = self._head(key) or self._head(key + SYMLINK_SUFFIX)
        below = None if info else self._store.list_page(key + "/", limit=1)
        with self._core.lock:
            if info is not None and self._ledger.is_suspect(info.key, info.etag):
                self._found(info)
            child = directory.children().get(name)
            if info is not None and not self._ledger.hides(info.key, info.etag, began):
                self._tree.saw_object(directory, info, began)
            elif below is not None and (below.objects or below.prefixes):
                self._tree.saw_prefix(directory, name, began)
            elif child is not None and child.touched <= began and not self._tree.owes_below(child):
                self._core.kernel.forget_name(directory.ino, name)
                self._tree.detach(child)
            probed = _listing(directory).probed
            if len(probed) > 10_000:
                probed.clear()
            probed[name] = asked_at

    def _head(self, key: str) -> ObjectInfo | None:
        try:
            return self._store.head(key)
        except ObjectMissing:
            return None

    # ------------------------------------------------------------------ everything below
    def load_below(self, caller: Caller, directory: Node) -> None:
        """Every directory below, fresh and whole: for a rename of the directory."""
        pending = [directory]
        while pending:
            one = pending.pop()
            self.ensure(caller, one)
            with self._core.lock:
                pending += [child for child in one.children().values() if child.is_dir]


def _listing(directory: Node) -> Listing:
    assert directory.listing is not None
    return directory.listing
