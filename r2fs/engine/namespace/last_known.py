"""Last known: directories as they were seen in an earlier mount, while the bucket cannot be asked.

Owns:    when listings are kept (in the cache: within a minute after a LIST, and at the end with what this host
         has done since), and how one becomes what the tree shows.
Never:   takes anything away, or puts a kept version in the place of one that is known: what was kept is older.
Threads: every method. Locks: takes Core.lock; none while the cache is read or written.
Fails:   softly: nothing is kept, or known.
"""

from __future__ import annotations

from r2fs.engine.inodes.inode import Node, listing_of
from r2fs.engine.inodes.listing_merge import merge_object, merge_prefix
from r2fs.engine.pending.records import Records
from r2fs.model.keys import is_name, nfc, shown_name
from r2fs.model.records import ObjectInfo

IN_ORDER = "\0"  # no key begins so: the mount before ended in order, with everything kept


class LastKnown:
    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._listings = records.core.cache.listings
        # A mount that was killed may have changed more than was kept: what it left is not believed.
        self._usable = self._listings.drop(IN_ORDER)
        if not self._usable:
            self._listings.clear()  # nor after this one, which need not list all of them anew
        self._listed: set[Node] = set()  # since they were kept; guarded by: Core.lock

    def listed_locked(self, directory: Node) -> None:
        """Note that all of the directory is known, to be kept."""
        self._core.assert_held()
        self._listed.add(directory)

    def save(self, everything: bool = False) -> None:
        """Keep what was listed since the last call. `everything`: at the end, with all that was done here."""
        with self._core.lock:
            if everything:
                self._note_all_locked()
            listed, self._listed = self._listed, set()
        for directory in listed:
            kept = self._contents(directory)
            if kept is not None:
                self._listings.keep(*kept)
        if everything:
            self._listings.keep(IN_ORDER, [], [])

    def _note_all_locked(self) -> None:
        """Keep each directory that is known as a whole; drop what is kept of one known in part, and perhaps changed."""
        self._core.assert_held()
        for node in self._tree.all_nodes():
            if node.is_dir and listing_of(node).whole:
                self._listed.add(node)
            elif node.is_dir and (node.children() or listing_of(node).probed):
                self._listings.drop(self._tree.key(node))

    def _contents(self, directory: Node) -> tuple[str, list[ObjectInfo], list[str]] | None:
        """The prefix, the objects and the names of directories to be kept; None: it is not known as a whole any more.

        What waits for its upload is in the journal.
        """
        with self._core.lock:
            listing = listing_of(directory)
            if directory.deleted or not listing.whole:
                return None
            prefix, marker = self._tree.key(directory), listing.marker
            children = list(directory.children().values())
        objects = [] if marker is None else [ObjectInfo(marker.key, marker.size, marker.etag, 0)]
        objects += [
            ObjectInfo(base.key, base.size, base.etag, _modified_ns(child))
            for child in children
            if (base := child.base) is not None and not child.is_dir and base.key.startswith(prefix)
        ]
        return prefix, objects, [child.spelled or child.name for child in children if child.is_dir]

    def has(self, directory: Node) -> bool:
        with self._core.lock:
            prefix = self._tree.key(directory)
        return self._usable and self._listings.has(prefix)

    def restore(self, directory: Node) -> bool:
        """Show what is kept of a directory of which less is known; False: nothing is."""
        with self._core.lock:
            prefix = self._tree.key(directory)
        kept = self._listings.find(prefix) if self._usable else None
        if kept is None:
            return False
        with self._core.lock:
            listing = listing_of(directory)
            if directory.deleted or self._tree.key(directory) != prefix:
                return False
            began = self._tree.tick
            for info in kept.objects:
                if info.key == prefix:
                    if listing.marker is None:
                        self._tree.saw_marker(directory, info.version)
                elif self._is_news(
                    directory, shown_name(info.key[len(prefix) :], info.size)
                ) and not self._pending.hides(info.key, info.etag, began):
                    merge_object(self._tree, directory, info, began)
            for name in kept.below:
                if self._is_news(directory, name) and not self._pending.deletes_below(
                    f"{prefix}{name}/", began
                ):
                    merge_prefix(self._tree, directory, name, began)
            listing.whole = True
            return True

    def _is_news(self, directory: Node, name: str) -> bool:
        listing = listing_of(directory)
        return is_name(name) and nfc(name) not in listing.children and nfc(name) not in listing.removed


def _modified_ns(node: Node) -> int:
    """LastModified, as far as it is known."""
    return node.ctime_ns if node.mtime_known else node.mtime_ns
