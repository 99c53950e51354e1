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

    def listed(self, directory: Node) -> None:
        """All of it is known. With Core.lock held."""
        self._listed.add(directory)

    def save(self, everything: bool = False) -> None:
        """Keep what was listed since. `everything`: with all that was done here, at the end."""
        with self._core.lock:
            if everything:
                self._listed.update(n for n in self._tree.all_nodes() if n.is_dir and listing_of(n).whole)
                for one in self._tree.all_nodes():
                    if (
                        one.is_dir
                        and not listing_of(one).whole
                        and (one.children() or listing_of(one).probed)
                    ):
                        self._listings.drop(self._tree.key(one))  # seen in part, and perhaps changed
            listed, self._listed = self._listed, set()
        for directory in listed:
            with self._core.lock:
                if directory.deleted or not listing_of(directory).whole:
                    continue
                prefix, marker = self._tree.key(directory), listing_of(directory).marker
                children = list(directory.children().values())
            objects = [] if marker is None else [ObjectInfo(marker.key, marker.size, marker.etag, 0)]
            # What waits for its upload is in the journal.
            objects += [
                ObjectInfo(base.key, base.size, base.etag, _modified_ns(child))
                for child in children
                if (base := child.base) is not None and not child.is_dir and base.key.startswith(prefix)
            ]
            self._listings.keep(
                prefix, objects, [child.spelled or child.name for child in children if child.is_dir]
            )
        if everything:
            self._listings.keep(IN_ORDER, [], [])

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
                ) and not self._pending.deletes.hides(info.key, info.etag, began):
                    merge_object(self._tree, directory, info, began)
            for name in kept.below:
                if self._is_news(directory, name) and not self._pending.deletes.any_below(
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
