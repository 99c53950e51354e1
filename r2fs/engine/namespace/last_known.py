"""Last known: listings of an earlier mount, shown while the bucket does not answer or its first LIST is on its way.

They are saved in the cache within a minute after a LIST, and at the end with this host's own changes. A saved listing,
which is older, removes no node and replaces no known version. The root of a mount of named buckets is neither saved nor
shown: its directories are those of the settings.

Locks: takes Core.lock. Fails: softly: nothing is saved, or found.
"""

from __future__ import annotations

from collections.abc import Iterator

from r2fs.disk.cache.last_listings import Kept
from r2fs.engine.inodes.children import unpack
from r2fs.engine.inodes.inode import Node, listing_of
from r2fs.engine.inodes.listing_merge import merge_object, merge_prefix, packed_line
from r2fs.engine.pending.records import Records
from r2fs.model.keys import is_name, nfc, shown_name
from r2fs.model.records import ObjectInfo

LINE_MAX = 255  # bytes of a packed file that is saved as such
PAGE = 1000  # names in a page of LIST
IN_ORDER = "\0"  # no key begins so: the mount before ended in order, with all listings saved


class LastKnown:
    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._listings = records.core.cache.listings
        # Listings of a killed mount are not used: later changes may be missing.
        self._usable = self._listings.drop(IN_ORDER)
        if not self._usable:
            self._listings.clear()  # nor by the next mount, if this one is killed
        # Of the earlier mount's last change: a directory in its listings is there, whatever was deleted below.
        self._last_seq = records.core.journal.last_seq
        self._listed: set[Node] = set()  # since the last save; guarded by: Core.lock

    def listed_locked(self, directory: Node) -> None:
        """Save the directory, of which all is known, at the next call of `save`."""
        self._core.assert_held()
        self._listed.add(directory)

    def save(self, everything: bool = False) -> None:
        """Save the listings since the last call. `everything`: at the end, with all changes of this host."""
        with self._core.lock:
            if everything:
                self._note_all_locked()
            listed, self._listed = self._listed, set()
        for directory in listed:
            kept = self._contents(directory)
            if kept is not None:
                self._listings.keep(*kept)
        if everything:
            for prefix in self._listings.prefixes():
                if self._is_gone(prefix):
                    self._listings.drop(prefix)
            self._listings.keep(IN_ORDER, [], [])

    def _note_all_locked(self) -> None:
        """Save each directory that is known as a whole; drop saved ones known in part, and perhaps changed."""
        self._core.assert_held()
        for node in self._tree.all_nodes():
            if node.is_dir and listing_of(node).whole:
                self._listed.add(node)
            elif node.is_dir and (node.children() or listing_of(node).probed):
                self._listings.drop(self._tree.key(node))

    def _contents(self, directory: Node) -> tuple[str, list[ObjectInfo], list[str], dict[str, bytes]] | None:
        """Return prefix, objects, names of directories and packed files to be saved; None: no longer known as a whole.

        Pending nodes are in the journal; the object of one that was renamed is no file of its own.
        """
        with self._core.lock:
            listing = listing_of(directory)
            if directory.deleted or not listing.whole or self._is_settled(directory):
                return None
            prefix, marker = self._tree.key(directory), listing.marker
            children, packed = list(listing.children.nodes()), dict(listing.children.packed)
        objects = [] if marker is None else [ObjectInfo(marker.key, marker.size, marker.etag, 0)]
        for child in children:
            base = child.base
            if base is None or child.is_dir or not base.key.startswith(prefix):
                continue
            if nfc(shown_name(base.key[len(prefix) :], base.size)) == nfc(child.name):
                info = ObjectInfo(base.key, base.size, base.etag, _modified_ns(child))
                line = packed_line(info, prefix + child.name, child.name)
                if line is None:
                    objects.append(info)
                else:  # the next mount shows it as it shows a name that nobody has looked at
                    packed[child.name] = line
        for name in [name for name, line in packed.items() if len(line) > LINE_MAX]:
            objects.append(_info(prefix, name, packed.pop(name)))
        return prefix, objects, [child.spelled or child.name for child in children if child.is_dir], packed

    def has(self, directory: Node) -> bool:
        with self._core.lock:
            prefix = self._tree.key(directory)
        return self._usable and not self._is_settled(directory) and self._listings.has(prefix)

    def restore(self, directory: Node) -> bool:
        """Merge the saved listing of a directory into the tree; False: none was saved."""
        with self._core.lock:
            prefix = self._tree.key(directory)
        kept = self._listings.find(prefix) if self.has(directory) else None
        if kept is None:
            return False
        with self._core.lock:
            listing = listing_of(directory)
            if directory.deleted or self._tree.key(directory) != prefix:
                return False
            began = self._tree.tick
            for info in (*kept.objects, *self._add_packed(directory, prefix, kept, began)):
                if info.key == prefix:
                    if listing.marker is None:
                        self._tree.saw_marker(directory, info.version)
                elif self._is_news(
                    directory, shown_name(info.key[len(prefix) :], info.size)
                ) and not self._pending.deletes.hides(info.key, info.etag, began):
                    merge_object(self._tree, directory, info, began, prefix)
            for name in kept.below:
                below = f"{prefix}{name}/"
                # shown also if all in it is to go
                is_bucket = not prefix and self._core.settings.bucket.several
                if self._is_news(directory, name) and (
                    is_bucket or not self._pending.deletes.any_added_below(below, self._last_seq)
                ):
                    merge_prefix(self._tree, directory, name, began)
            listing.whole = listing.provisional = True
            return True

    def _add_packed(self, directory: Node, prefix: str, kept: Kept, began: int) -> Iterator[ObjectInfo]:
        """Add the packed files at once, where this host knows nothing of the directory yet; else yield them."""
        listing = listing_of(directory)
        known = len(listing.children) or listing.removed or listing.absent or listing.any_absent
        if not known and not self._pending.deletes.any_below(prefix, began):
            listing.children.add_all_packed(prefix, kept.names, kept.lines)
            return
        for name, line in zip(kept.names, kept.lines, strict=True):
            yield _info(prefix, name, line)

    def pages(self, directory: Node) -> int:
        """Return the pages of a LIST of the saved directory, at least 1."""
        with self._core.lock:
            prefix = self._tree.key(directory)
        return 1 + (self._listings.count(prefix) - 1) // PAGE if self._usable else 1

    def _is_gone(self, prefix: str) -> bool:
        """True for a directory that is not in the known listing above it: renamed, or removed."""
        with self._core.lock:
            node = self._tree.root
            for part in prefix.removeprefix(self._tree.key(node)).split("/")[:-1]:
                child = node.children().get(nfc(part))
                if child is None or not child.is_dir:
                    return listing_of(node).whole
                node = child
            return False

    def _is_settled(self, directory: Node) -> bool:
        """True for the root of a mount of named buckets, which is listed without a request."""
        bucket = self._core.settings.bucket
        return directory is self._tree.root and bucket.several and not bucket.every

    def _is_news(self, directory: Node, name: str) -> bool:
        listing = listing_of(directory)
        return is_name(name) and nfc(name) not in listing.children and nfc(name) not in listing.removed


def _info(prefix: str, name: str, line: bytes) -> ObjectInfo:
    etag, size, modified_ns = unpack(line)
    return ObjectInfo(prefix + name, size, etag, modified_ns)


def _modified_ns(node: Node) -> int:
    """Return LastModified, as far as known, in ns."""
    return node.ctime_ns if node.mtime_known else node.mtime_ns
