"""Attribute cache: stat of earlier mounts, for nodes of which a LIST returns the name alone.

Rows of files and objects of directories are written with the commit that ends their upload; a directory's times and
number with the next upload below, within a minute, and at the end. A row of another version, or older than the object's
metadata, is not used.

Locks: Core.lock around every method but `flush` and `load_children`, which take the lock.
Fails: softly: a row that cannot be read or written costs a HEAD, and is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from r2fs.disk.journal.attributes import AttributeRows
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.inode_numbers import derived
from r2fs.engine.inodes.stat import fill, keeps_shown, outdate
from r2fs.engine.inodes.table import Tree
from r2fs.model.errors import R2fsError
from r2fs.model.etags import EMPTY_MD5
from r2fs.model.keys import nfc, printable
from r2fs.model.metadata import Facts, recalled, remembered
from r2fs.model.records import KeptAttributes, ObjectInfo, Version

log = logging.getLogger(__name__)

FEW = 4  # names of a directory with a query for each; for more a single query
BATCH = 1000  # rows of a transaction: some 10 ms, in which other commits wait
NS = 10**9
SKEW_S = 900.0  # between this host's clock and the bucket's, at most: beyond, signatures are refused

Write = Callable[[AttributeRows], None]


class AttributeCache:
    def __init__(self, core: Core, tree: Tree) -> None:
        self._core = core
        self._tree = tree
        self._rows = core.journal.attributes
        self._changed: set[Node] = set()  # directories with other times than their rows
        self._later: list[Write] = []  # findings of reads, written by `flush`
        self._unseen: set[Node] = set()  # directories shown by a row, of LastModified unknown to this mount
        self._begun_ns = self._rows.begun_ns(core.now_ns())
        self._show(tree.root, self._read(tree.key(tree.root)))

    # ------------------------------------------------------------------ reading
    def load(self, node: Node) -> None:
        """Give the node its number, and the attributes of the row of its version. Once for each node."""
        self._core.assert_held()
        if not node.st_ino:
            key = self._tree.key(node)
            self._apply(node, key, self._read(key))
        elif node.inherited:
            node.inherited = False
            self._know_inherited(node)
        elif node in self._unseen and node.modified_ns is not None:
            self._unseen.discard(node)
            self._compare(node, self._read(self._tree.key(node)))

    def load_children(self, directory: Node) -> None:
        """`load` all known children of a directory. Takes the lock for a batch at a time."""
        with self._core.lock:
            children = directory.children()
            missing = {self._key(child): child for child in children.nodes() if not child.st_ino}
            unread = children.unread
            packed = len(children.packed) if unread else 0
            above = self._tree.key(directory)
            if len(missing) + packed <= FEW:
                self._load_few(directory, missing.values(), above)
                return
        gone: list[KeptAttributes] = []
        for rows in self._read_all(above):  # numbers of rows first: a derived number gives way
            with self._core.lock:
                for row in rows:
                    node = missing.pop(row.key, None) or self._packed_of(directory, above, row)
                    if node is None:
                        gone.append(row)
                    elif not node.st_ino:
                        self._apply(node, row.key, row)
        with self._core.lock:
            children.were_read(unread)  # a LIST may have added others meanwhile
        left = list(missing.items())
        for start in range(0, len(left), BATCH):
            with self._core.lock:
                for key, node in left[start : start + BATCH]:
                    if not node.st_ino:
                        self._apply(node, key, None)
        if gone:
            self._forget_missing(directory, gone)

    def _key(self, child: Node) -> str:
        """Return the key of the child's row."""
        return nfc(child.base.key if child.base is not None and not child.is_dir else self._tree.key(child))

    def _load_few(self, directory: Node, nodes: Iterable[Node], above: str) -> None:
        """`load` these children, and the packed ones that have a row."""
        children = directory.children()
        for child in nodes:
            self.load(child)
        for name in list(children.packed) if children.unread else ():
            if self._read(above + name) is not None:
                self.load(children[name])
        children.were_read(children.unread)

    def _packed_of(self, directory: Node, above: str, row: KeptAttributes) -> Node | None:
        """Return the node of a file that was packed until now, if the row is of that."""
        children, name = directory.children(), row.key.removeprefix(nfc(above))
        return children[name] if name in children.packed else None

    def _forget_missing(self, directory: Node, rows: list[KeptAttributes]) -> None:
        """Delete the rows of objects that another host has deleted."""
        with self._core.lock:
            if not _was_listed(directory):
                return
            children, above = directory.children(), nfc(self._tree.key(directory))
            listed = {self._key(child) for child in children.nodes()}
            for row in rows:
                if row.key not in listed and row.key.removeprefix(above) not in children.packed:
                    self._later.append(_missed(row))

    def _read(self, key: str) -> KeptAttributes | None:
        try:
            return self._rows.get(key)
        except R2fsError as error:
            log.error("%s: what is kept of its attributes cannot be read: %s", printable(key), error)
            return None

    def _read_all(self, key: str) -> Iterator[list[KeptAttributes]]:
        try:
            yield from self._rows.in_directory(key)
        except R2fsError as error:
            log.error("%s: what is kept of attributes in it cannot be read: %s", printable(key), error)

    def _apply(self, node: Node, key: str, row: KeptAttributes | None) -> None:
        version = node.base
        if node.is_dir:
            number = row.st_ino if row is not None else derived(key)
            self._show(node, row)
        elif row is not None and _is_of_version(row, version):
            number = row.st_ino
            self._know(node, row)
        else:
            number = derived(key, version.etag) if version is not None else node.ino
            theirs = row is not None and version is not None and node.pending is None
            if row is not None and theirs and node.parent is not None and _was_listed(node.parent):
                self._later.append(_missed(row))
        node.st_ino = self._core.numbers.claim(number)

    def _show(self, directory: Node, row: KeptAttributes | None) -> None:
        """Set a directory's times. Without a row, the time of the state directory's first use: that of the mount would
        differ each time.

        The ETag of an empty object does not change with its metadata: where stat must be exact, HEAD is sent.
        """
        marker = directory.listing.marker if directory.listing else None
        known = directory.metadata_known or not keeps_shown(self._core.settings)
        if row is not None and row.metadata and not directory.pending and not known:
            if row.etag == (marker.etag if marker else EMPTY_MD5):
                fill(directory, recalled(row.metadata))
                self._unseen.add(directory)
        if row is not None and row.shown_ns is not None and not directory.pending:
            directory.mtime_ns, directory.ctime_ns = row.shown_ns, row.ctime_ns or row.shown_ns
        elif not directory.mtime_known and directory.mtime_ns == directory.atime_ns:
            directory.mtime_ns = directory.ctime_ns = directory.atime_ns = self._begun_ns
        directory.kept_ns = (directory.mtime_ns, directory.ctime_ns)

    def _compare(self, directory: Node, row: KeptAttributes | None) -> None:
        """Drop the row's metadata if a listing shows that another host has stored the directory's object since."""
        seen_ns = directory.modified_ns
        if row is None or seen_ns is None or directory.pending is not None or not directory.metadata_known:
            return
        if not _is_of(row, seen_ns):
            self._later.append(lambda rows: rows.correct(row.key, row.etag, {}, seen_ns, row.stored_s))
            outdate(directory)
            self._core.kernel.forget_attributes(directory.ino)
        elif row.modified_ns is None:
            self._later.append(lambda rows: rows.confirm(row.key, row.etag, seen_ns, row.stored_s))

    def _know(self, node: Node, row: KeptAttributes) -> None:
        """Apply the attributes stored with a file's or link's version, unless another host has changed them since."""
        if node.target is None:
            node.target = row.target
        if node.metadata_known or node.mtime_known or node.pending is not None:
            return
        listed_ns = node.mtime_ns
        if not _is_of(row, listed_ns):
            self._later.append(lambda rows: rows.correct(row.key, row.etag, {}, listed_ns, row.stored_s))
        elif row.metadata:
            fill(node, recalled(row.metadata))
            node.ctime_ns = listed_ns if row.ctime_ns is None else row.ctime_ns
            # After that time any change by another host has a later LastModified than accepted above.
            if row.modified_ns is None and self._core.clock.time() < row.stored_s + 2 * SKEW_S:
                self._later.append(lambda rows: rows.confirm(row.key, row.etag, listed_ns, row.stored_s))

    def _know_inherited(self, node: Node) -> None:
        """Apply further metadata and the stored kind, which the record of the daemon before leaves out."""
        if node.metadata_known or node.pending is not None:
            return
        row, seen_ns = self._read(self._key(node)), node.modified_ns
        if row is not None and _is_of_version(row, node.base) and row.metadata:
            if seen_ns is None or _is_of(row, seen_ns):
                fill(node, recalled(row.metadata))

    # ------------------------------------------------------------------ writing
    def learned(self, info: ObjectInfo, facts: Facts) -> None:
        """Correct the row of a version by HEAD's answer."""
        now_s = self._core.clock.time()
        self._later.append(
            lambda rows: rows.correct(info.key, info.etag, remembered(facts), info.modified_ns, now_s)
        )

    def changed(self, directory: Node) -> None:
        """Mark a directory as changed, for `flush`."""
        self._core.assert_held()
        self._changed.add(directory)

    def take_along(self, top: Node, directory: Node, new_name: str) -> None:
        """Move the rows of directories at and below `top` to their new keys, so that directories without an object keep
        number and times, too. In a transaction."""
        old_top, new_top = self._tree.key(top).rstrip("/"), self._tree.key(directory) + new_name
        self.load(top)
        for node in self._tree.walk_nodes(top):
            if node.is_dir:
                self.load_children(node)
                key = self._tree.key(node)
                self._rows.forget_number(key, node.st_ino)
                self._rows.put_shown(new_top + key[len(old_top) :], node.st_ino, node.mtime_ns, node.ctime_ns)

    def removed(self, directory: Node) -> None:
        """Delete the row, in the transaction that removes the directory."""
        self._rows.forget(self._tree.key(directory))

    def flush(self, everything: bool = False) -> None:
        """Write changed rows; `everything`: of all directories, at the end. Takes the lock."""
        with self._core.lock:
            changed = [n for n in self._tree.all_nodes() if n.is_dir] if everything else list(self._changed)
            changed = [node for node in changed if node.has_new_times]
            self._changed.clear()
            self._unseen = {node for node in self._unseen if not node.deleted}
            later, self._later = self._later, []
            for node in changed:
                key, *shown = self._tree.key(node), node.st_ino, node.mtime_ns, node.ctime_ns
                later.append(lambda rows, key=key, shown=shown: rows.put_shown(key, *shown))  # type: ignore[misc]
                node.kept_ns = (node.mtime_ns, node.ctime_ns)
        for start in range(0, len(later), BATCH):
            try:
                self._rows.put_all(later[start : start + BATCH])
            except R2fsError as error:
                log.error("attributes of %d objects could not be kept: %s", len(later) - start, error)
                with self._core.lock:
                    for node in changed:
                        node.kept_ns = None
                return


def _is_of_version(row: KeptAttributes, version: Version | None) -> bool:
    return version is not None and (row.etag, row.size) == (version.etag, version.size)


def _is_of(row: KeptAttributes, listed_ns: int) -> bool:
    """True if the row describes the metadata that were stored at this LastModified."""
    if row.modified_ns is None:
        return listed_ns <= (row.stored_s + SKEW_S) * NS
    return listed_ns // NS == row.modified_ns // NS  # HEAD has whole seconds


def _missed(row: KeptAttributes) -> Write:
    return partial(AttributeRows.missed, key=row.key, etag=row.etag, as_of_s=row.stored_s)


def _was_listed(directory: Node) -> bool:
    """True after a LIST by this mount: the kept listing of an earlier mount may be older than a row."""
    listing = directory.listing
    return listing is not None and listing.whole and listing.took_s > 0 and not directory.deleted
