"""Recall: what stat showed before, for nodes of which only a listing or a common prefix tells now.

Owns:    when rows of the journal's table `attributes` are read, written and forgotten. Files and objects of
         directories: with the commit that ends their upload (`keep`). What a directory shows besides, its
         times and its number: with the next upload in it, within a minute, and at the end.
Never:   asks the bucket; believes a row of another version, or one older than the object's metadata.
Locks:   every method is called with Core.lock held, but for `flush` and `load_children`.
Fails:   softly: a row that cannot be read or written costs a HEAD, and is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

from r2fs.disk.journal.attributes import AttributeRows
from r2fs.engine.core import Core
from r2fs.engine.inode_numbers import derived
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import EMPTY_MD5, fill, keeps_shown, outdate
from r2fs.engine.inodes.table import Tree
from r2fs.model.errors import R2fsError
from r2fs.model.keys import nfc, printable
from r2fs.model.metadata import Facts, recalled, remembered
from r2fs.model.records import KeptAttributes, ObjectInfo

log = logging.getLogger(__name__)

FEW = 4  # names of a directory that are looked up one by one; more of them by one query
BATCH = 1000  # rows written in one transaction: some 10 ms, in which other commits wait
NS = 10**9
# How much later than our own clock says may our own upload be by the bucket's clock? One that is further off
# is refused by the signature.
SKEW_S = 900.0

Write = Callable[[AttributeRows], None]


class AttributeCache:
    def __init__(self, core: Core, tree: Tree) -> None:
        self._core = core
        self._tree = tree
        self._rows = core.journal.attributes
        self._changed: set[Node] = set()  # directories that show other times than is kept
        self._later: list[Write] = []  # what reading has found out
        # Directories that show what a row says, and whose object's LastModified no listing of this mount has told yet.
        self._unseen: set[Node] = set()
        self._begun_ns = self._rows.begun_ns(core.now_ns())
        self._show(tree.root, self._read(tree.key(tree.root)))

    # ------------------------------------------------------------------ reading
    def load(self, node: Node) -> None:
        """The node's number, and what is kept of its version. Once for each node."""
        if not node.st_ino:
            key = self._tree.key(node)
            self._apply(node, key, self._read(key))
        elif node in self._unseen and node.modified_ns is not None:
            self._unseen.discard(node)
            self._compare(node, self._read(self._tree.key(node)))

    def load_children(self, directory: Node) -> None:
        """`load` for all that is known in a directory. Takes the lock, by and by."""
        with self._core.lock:
            missing = {self._key(child): child for child in directory.children().values() if not child.st_ino}
            if len(missing) <= FEW:
                for child in missing.values():
                    self.load(child)
                return
            above = self._tree.key(directory)
        gone: list[KeptAttributes] = []
        for rows in self._read_all(above):  # what is kept first: a number that is derived gives way
            with self._core.lock:
                for row in rows:
                    node = missing.pop(row.key, None)
                    if node is None:
                        gone.append(row)
                    elif not node.st_ino:
                        self._apply(node, row.key, row)
        left = list(missing.items())
        for start in range(0, len(left), BATCH):
            with self._core.lock:
                for key, node in left[start : start + BATCH]:
                    if not node.st_ino:
                        self._apply(node, key, None)
        if gone:
            self._forget_missing(directory, gone)

    def _key(self, child: Node) -> str:
        """As a row has it."""
        return nfc(child.base.key if child.base is not None and not child.is_dir else self._tree.key(child))

    def _forget_missing(self, directory: Node, rows: list[KeptAttributes]) -> None:
        """Those without a name: another host has deleted these objects."""
        with self._core.lock:
            if not _was_listed(directory):
                return
            there = {self._key(child) for child in directory.children().values()}
            for row in rows:
                if row.key not in there:
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
        elif row is not None and version is not None and (row.etag, row.size) == (version.etag, version.size):
            number = row.st_ino
            self._know(node, row)
        else:
            number = derived(key, version.etag) if version is not None else node.ino
            theirs = row is not None and version is not None and node.pending is None
            if row is not None and theirs and node.parent is not None and _was_listed(node.parent):
                self._later.append(_missed(row))
        node.st_ino = self._core.numbers.claim(number)

    def _show(self, directory: Node, row: KeptAttributes | None) -> None:
        """A directory's times. One that nobody is known to have changed is as old as what this host knows of the
        bucket: the time of a mount would be another each time.

        Its object says by no ETag whether another host has changed the rest: where that has to be exact, it is asked.
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
        """A listing has told when its object was stored. Later than the row? Then another host did."""
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
            # Later, whatever another host does is dated past what is believed above.
            if row.modified_ns is None and self._core.clock.time() < row.stored_s + 2 * SKEW_S:
                self._later.append(lambda rows: rows.confirm(row.key, row.etag, listed_ns, row.stored_s))

    # ------------------------------------------------------------------ writing
    def learned(self, info: ObjectInfo, facts: Facts) -> None:
        """HEAD told of a version's metadata: a row of it says the same from now on."""
        now_s = self._core.clock.time()
        self._later.append(
            lambda rows: rows.correct(info.key, info.etag, remembered(facts), info.modified_ns, now_s)
        )

    def changed(self, directory: Node) -> None:
        """A directory shows other times."""
        self._changed.add(directory)

    def take_along(self, top: Node, directory: Node, new_name: str) -> None:
        """Move the rows of directories at and below `top` to their new keys: they may have no object to copy, and keep
        number and times. In a transaction."""
        old_top, new_top = self._tree.key(top).rstrip("/"), self._tree.key(directory) + new_name
        self.load(top)
        for one in self._tree.walk(top):
            if one.is_dir:
                self.load_children(one)
                key = self._tree.key(one)
                self._rows.forget_number(key, one.st_ino)
                self._rows.put_shown(new_top + key[len(old_top) :], one.st_ino, one.mtime_ns, one.ctime_ns)

    def removed(self, directory: Node) -> None:
        """In the transaction that removes it."""
        self._rows.forget(self._tree.key(directory))

    def flush(self, everything: bool = False) -> None:
        """Write what has changed. `everything`: of all directories, at the end. Without the lock."""
        with self._core.lock:
            changed = [n for n in self._tree.all_nodes() if n.is_dir] if everything else list(self._changed)
            changed = [node for node in changed if is_news(node)]
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


def _is_of(row: KeptAttributes, listed_ns: int) -> bool:
    """True if the row describes the metadata that were stored at this LastModified."""
    if row.modified_ns is None:
        return listed_ns <= (row.stored_s + SKEW_S) * NS
    return listed_ns // NS == row.modified_ns // NS  # HEAD tells whole seconds


def _missed(row: KeptAttributes) -> Write:
    return partial(AttributeRows.missed, key=row.key, etag=row.etag, as_of_s=row.stored_s)


def _was_listed(directory: Node) -> bool:
    """By a LIST of this mount? What an earlier one last saw may be older than a row."""
    listing = directory.listing
    return listing is not None and listing.whole and listing.took_s > 0 and not directory.deleted


def is_news(directory: Node) -> bool:
    """True if its shown times differ from the kept ones."""
    shown = (directory.mtime_ns, directory.ctime_ns)
    return bool(directory.st_ino) and not directory.deleted and directory.kept_ns != shown
