"""Name lookup: one name of a directory with many pages, by HEAD and a short LIST.

The whole directory is listed after as many lookups within `freshness` as the LIST has pages: a single stat lists no
large directory, and a hundred thousand send few requests.

Threads: `ask` runs on a job; the rest is called with Core.lock held.
Locks:   takes Core.lock; none during a request.
Fails:   StoreError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from r2fs.engine.inodes.inode import Listing, Node, listing_of
from r2fs.engine.inodes.listing_merge import merge_object, merge_prefix
from r2fs.engine.inodes.listing_pages import pages_of
from r2fs.engine.pending.records import Records
from r2fs.model.keys import SYMLINK_SUFFIX, is_link, spellings
from r2fs.model.records import ObjectInfo

REMEMBERED = 10_000  # names of a directory with a time of their own
NEIGHBOURS = 100  # keys in a LIST for one name: longer ones with the same beginning may precede `name.rclonelink` and `name/`
SLACK = 2  # a directory may have grown since its pages were counted


class NameLookup:
    def __init__(
        self,
        records: Records,
        clear_suspects: Callable[[Iterable[ObjectInfo]], None],
    ) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._clear_suspects = clear_suspects

    # ------------------------------------------------------------------ cost
    def pages_worth_locked(self, listing: Listing) -> int:
        """Return how many pages of LIST may be read for one name; 0: ask for the name alone."""
        self._core.assert_held()
        if listing.pages <= 1:
            return 1
        now, believed_s = self._core.clock.monotonic(), self._core.settings.freshness_s
        if now - listing.probe_window_s > believed_s:
            listing.probe_count, listing.probe_window_s = 0, now
        if listing.took_s >= believed_s or listing.probe_count < listing.pages:
            return 0
        return SLACK * listing.pages

    def gave_up_locked(self, listing: Listing, pages: int) -> None:
        """Note a directory of more than `pages` pages."""
        self._core.assert_held()
        listing.pages, listing.probe_count = pages + 1, 0
        listing.probe_window_s = self._core.clock.monotonic()

    def listed_locked(self, listing: Listing, pages: int, took_s: float) -> None:
        """Note the cost of a LIST of the whole directory."""
        self._core.assert_held()
        listing.pages, listing.took_s, listing.probe_count = pages, took_s, 0

    # ------------------------------------------------------------------ requests
    def ask(
        self,
        directory: Node,
        name: str,
        shown: Callable[[str, list[str], int], list[str]],
        counted: bool,
    ) -> None:
        """Look the name up in the bucket, and merge the answer into the tree.

        `shown(prefix, directories, tick)` returns the directories in `prefix` visible in the mount. `counted`: towards
        the LIST of the whole directory.
        """
        with self._core.lock:
            listing, above = listing_of(directory), self._tree.key(directory)
            began, child = self._tree.tick, directory.children().get(name)
            expected = self._tree.key(child) if child is not None and not child.is_dir else None
        sent_at_s = self._core.clock.monotonic()
        info = self._core.head(expected) if expected is not None else None
        info, below = (info, []) if info is not None else self._look(above, name)
        self._clear_suspects([info] if info is not None else [])
        below = shown(above, below, began)
        with self._core.lock:
            if directory.deleted or self._tree.key(directory) != above:
                return  # renamed: the answer is of another name
            if below:
                merge_prefix(self._tree, directory, below[0][len(above) : -1], began)
            else:
                self._show_locked(directory, name, info, began)
            listing.probe_count += counted
            if len(listing.probed) > REMEMBERED:
                listing.probed.clear()
            if sent_at_s >= listing.forgotten_s:
                listing.probed[name] = sent_at_s

    def _show_locked(self, directory: Node, name: str, info: ObjectInfo | None, began: int) -> None:
        """Show the object, or no name, unless this host has changed the name since."""
        self._core.assert_held()
        child = directory.children().get(name)
        if info is not None and not self._pending.deletes.hides(info.key, info.etag, began):
            merge_object(self._tree, directory, info, began)
        elif child is not None and child.touched <= began and not self._tree.is_pending_below(child):
            self._tree.gone(child)

    def _look(self, above: str, name: str) -> tuple[ObjectInfo | None, list[str]]:
        """Look up an unknown name: the object, or the prefix of a directory."""
        if name.isascii():  # the bucket may list other names in another spelling
            key = above + name
            page = self._core.store.list_page(key, delimiter="/", limit=NEIGHBOURS)
            found = {info.key: info for info in page.objects}
            info = found.get(key) or _link(found.get(key + SYMLINK_SUFFIX))
            below = [one for one in page.prefixes if one == key + "/"]
            if info is not None or below or page.token is None:
                return info, below
        for key in (above + spelling for spelling in spellings(name)):
            info = self._core.head(key) or _link(self._core.head(key + SYMLINK_SUFFIX))
            if info is not None:
                return info, []
            if self._holds_any(key + "/"):
                return None, [key + "/"]
        return None, []

    def _holds_any(self, prefix: str) -> bool:
        """True if an object is below the prefix. An empty page may be followed by others."""
        return any(page.objects for page in pages_of(self._core.store, prefix, limit=1))


def _link(info: ObjectInfo | None) -> ObjectInfo | None:
    return info if info is not None and is_link(info.key, info.size) else None
