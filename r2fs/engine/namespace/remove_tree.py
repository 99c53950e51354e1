"""Removal of a whole tree: the objects below a directory by LISTs and batched deletes, and unsent files.

For each page of a LIST: one transaction has the delete of each object and the end of each file, the names disappear
from the mount, then one DELETE request is sent for the listed versions. After a kill at any point the next mount
carries out the deletes of the journal. No object is deleted in another version than listed or known here.

Locks: takes Core.lock for CHUNK names at a time; none during a request.
Fails: NotFound, IsADirectory, NotADirectory, ReadOnly, BadName before the first change; later StoreError and
       LocalError, with the outcome so far in the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from threading import Event

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.listing_merge import merge_object
from r2fs.engine.inodes.listing_pages import pages_of
from r2fs.engine.inodes.protected import check_writable, is_bucket_root
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.named_paths import parts_of
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import Interrupted, IsADirectory, NotADirectory, NotFound, NotPermitted, Stale
from r2fs.model.keys import nfc, printable, shown_name
from r2fs.model.ports import Caller
from r2fs.model.records import ObjectInfo, PendingDelete
from r2fs.model.reports import BulkReport

CHUNK = 200  # names removed in one transaction: programs wait meanwhile
SETTLE_S = 30.0  # longest wait for deletes blocked by an upload on its way
KERNEL_S = 5.0  # longest wait for the kernel's caches: programs see no removed name after the command
SLICE_S = 0.5  # between looks at a cancellation


@dataclass(frozen=True, slots=True)
class _Place:
    """The name to remove."""

    parent: Node | None  # None: the whole mount
    name: str
    key: str  # of a directory there, with its slash; the mount's prefix
    began: int  # Tree.tick


@dataclass(slots=True)
class _Task:
    place: _Place
    report: BulkReport
    cancelled: Event
    # Deletes blocked by another request, or failed once: key and size, by seq. The queue repeats or parks these.
    late: dict[int, tuple[str, int]] = field(default_factory=dict)


class TreeRemoval:
    def __init__(self, records: Records, names: Names, writeback: WriteBack) -> None:
        # constant
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._names = names
        self._queue = writeback.queue
        self._deletes = writeback.deletes

    def run(self, path: str, report: BulkReport, *, recursive: bool, dry_run: bool, cancelled: Event) -> None:
        """Remove `path`, relative to the mount; with `recursive` all names below, and a missing path is no error.

        `dry_run` counts, and changes nothing.
        """
        check_writable(self._core)
        parts = parts_of(path)
        if not parts and self._core.settings.bucket.several:
            raise NotPermitted("the root of a mount of several buckets: name the bucket to be emptied")
        found = self._find(parts, recursive)
        if found is None:
            return
        place, node = found
        check_writable(self._core, node or place.parent)
        task = _Task(place, report, cancelled)
        if node is not None and not node.is_dir:
            self._remove_file(node, task, dry_run)
        elif not recursive:
            raise IsADirectory(
                f"{printable(path or '/')} is a directory: -r removes it with all that is below"
            )
        else:
            if dry_run:
                self._count(task)
            else:
                self._remove_below(task)
            file = self._file_at(place) if not report.found else None
            if file is not None:
                self._remove_file(file, task, dry_run)
        self._settle(task)
        self._core.kernel.settle(KERNEL_S)

    def _find(self, parts: Sequence[str], recursive: bool) -> tuple[_Place, Node | None] | None:
        """Return the place of a path, and its node if known; None: the directory above is missing.

        The name is looked up as well: the directory above may lose its last name, and then needs an object.
        """
        if not parts:
            return _Place(None, "", self._tree.key(self._tree.root), self._tree.tick), self._tree.root
        parent = self._tree.root
        for part in parts[:-1]:
            with self._core.lock:
                child = parent.children().get(part)
            if child is None:
                try:
                    child = self._names.child(Caller(), parent.ino, part)
                except NotFound:
                    if not recursive:
                        raise
                    return None
            if not child.is_dir:
                raise NotADirectory(f"{printable(part)} is not a directory")
            parent = child
        if not recursive or not is_bucket_root(self._core, parent):
            try:
                self._names.child(Caller(), parent.ino, parts[-1])
            except NotFound:
                if not recursive:
                    raise
        with self._core.lock:
            prefix = self._core.settings.bucket.prefix
            node = parent.children().get(parts[-1])
            if node is not None and node.is_dir:
                key = self._tree.key(node)
            else:
                key = self._tree.check_key(prefix + "/".join(parts) + "/")
            return _Place(parent, parts[-1], key, self._tree.tick), node

    def _file_at(self, place: _Place) -> Node | None:
        """Return the file of a name without a directory; None: the name is free."""
        if place.parent is None:
            return None
        try:
            node = self._names.child(Caller(), place.parent.ino, place.name)
        except NotFound:
            return None
        return None if node.is_dir else node

    def _top_locked(self, place: _Place) -> Node | None:
        """Return the directory, while known. Raises Stale after a rename."""
        self._core.assert_held()
        if place.parent is None:
            return self._tree.root
        node = place.parent.children().get(place.name)
        if node is None or not node.is_dir:
            return None
        if nfc(self._tree.key(node)) != nfc(place.key):
            raise Stale(f"{printable(place.key)} was renamed while it was removed")
        return node

    # ------------------------------------------------------------------ a file
    def _remove_file(self, node: Node, task: _Task, dry_run: bool) -> None:
        report = task.report
        with self._core.lock:
            self._require_there_locked(node, task.place)
            listed = node.base is not None and node.pending is None
            key = node.base.key if listed and node.base is not None else self._tree.key(node)
        info = self._core.head(key)
        size = info.size if info is not None else _size(node)
        report.found += 1
        if dry_run:
            report.did(size)
            return
        with self._core.lock:
            directory = self._require_there_locked(node, task.place)
            with self._pending.transaction:
                self._names.withdraw(node)
                self._names.keep_directory(directory, leaving=node)
                row = self._row_locked(info, self._tree.tick) if info is not None else None
            self._core.crash_point("unlinked")
            self._vanish_locked([node])
            claimed = self._claim_locked(
                [row] if row is not None else [], {row.key: size} if row else {}, task
            )
        if info is None:
            report.unsent += 1
            report.did(size)
        elif claimed:
            self._send(claimed, {info.key: info}, task)

    def _require_there_locked(self, node: Node, place: _Place) -> Node:
        """Return the directory of a file at the path to be removed. Raises NotFound after a rename or removal."""
        self._core.assert_held()
        directory = place.parent
        if (
            directory is None
            or node.deleted
            or directory.children().get(place.name) is not node
            or nfc(self._tree.key(directory) + place.name + "/") != nfc(place.key)
        ):
            raise NotFound(f"{printable(place.name)} was renamed, removed or replaced meanwhile")
        return directory

    # ------------------------------------------------------------------ a directory
    def _remove_below(self, task: _Task) -> None:
        for began, objects in self._pages(task):
            rows, seen = list[PendingDelete](), {info.key: info for info in objects}
            for at in range(0, len(objects), CHUNK):
                rows += self._remove_names(objects[at : at + CHUNK], began, task)
            if rows:
                self._send(rows, seen, task)
        while self._sweep(task):
            self._check(task)

    def _pages(self, task: _Task) -> Iterator[tuple[int, Sequence[ObjectInfo]]]:
        """Yield each page of a LIST of all keys below, with the tick before its request."""
        pages = pages_of(self._core.store, task.place.key)
        while True:
            self._check(task)
            with self._core.lock:
                began = self._tree.tick
            page = next(pages, None)
            if page is None:
                return
            yield began, page.objects

    def _check(self, task: _Task) -> None:
        if task.cancelled.is_set() or self._core.stopping:
            raise Interrupted("interrupted: the rest is left as it is")

    def _remove_names(self, objects: Sequence[ObjectInfo], began: int, task: _Task) -> list[PendingDelete]:
        """Enter the delete of each object, and remove its name; return the deletes for one request."""
        leaving, rows, place = list[Node](), list[PendingDelete](), task.place
        with self._core.lock:
            top = self._top_locked(place)
            with self._pending.transaction:
                for info in objects:
                    directory = self._directory_locked(top, place.key, info) if top is not None else None
                    node = self._node_locked(directory, info, began)
                    if node is not None:
                        self._names.withdraw(node)
                        leaving.append(node)
                    row = self._row_locked(info, began)
                    if row is not None:
                        rows.append(row)
            self._core.crash_point("unlinked")
            for info in objects:
                if info.key.endswith("/") and top is not None:
                    directory = self._directory_locked(top, place.key, info)
                    if directory is not None and nfc(self._tree.key(directory)) == nfc(info.key):
                        self._tree.forget_marker(directory)
            self._vanish_locked(leaving)
            task.report.found += len(rows)
            return self._claim_locked(rows, {info.key: info.size for info in objects}, task)

    def _claim_locked(
        self, rows: Sequence[PendingDelete], sizes: Mapping[str, int], task: _Task
    ) -> list[PendingDelete]:
        """Claim the deletes without a blocker; the others are late."""
        self._core.assert_held()
        claimed = self._deletes.claim_locked(rows)
        now = {row.seq for row in claimed}
        task.late.update({row.seq: (row.key, sizes[row.key]) for row in rows if row.seq not in now})
        return claimed

    def _directory_locked(self, top: Node, prefix: str, info: ObjectInfo) -> Node | None:
        """Return the known directory with the object's name; for a key with a final `/`, the directory of this key."""
        self._core.assert_held()
        node = top
        for part in info.key[len(prefix) :].split("/")[:-1]:
            child = node.children().get(nfc(part))
            if child is None or not child.is_dir:
                return None
            node = child
        return node

    def _node_locked(self, directory: Node | None, info: ObjectInfo, began: int) -> Node | None:
        """Return the file or link of the object, brought to the listed version."""
        self._core.assert_held()
        if directory is None or info.key.endswith("/"):
            return None
        name = nfc(shown_name(info.key[info.key.rfind("/") + 1 :], info.size))
        node = directory.children().get(name)
        if node is not None and node.pending is None and node.base != info.version:
            merge_object(self._tree, directory, info, began)
            node = directory.children().get(name)
        if node is None or node.is_dir or nfc(self._tree.key(node)) != nfc(info.key):
            return None
        return node

    def _row_locked(self, info: ObjectInfo, began: int) -> PendingDelete | None:
        """Return the delete of this version; None: on its way or carried out, or of the old name of a renamed file."""
        self._core.assert_held()
        deletes = self._pending.deletes
        row = deletes.of_version(info.key, info.etag)
        if row is not None or deletes.hides(info.key, info.etag, began):
            return row if row is not None and row.after_ino is None else None
        return deletes.add(info.key, info.etag)

    def _vanish_locked(self, nodes: Sequence[Node]) -> None:
        """Remove names after the commit of their transaction, also from the kernel's caches."""
        self._core.assert_held()
        now, directories = self._core.now_ns(), dict[Node, None]()
        for node in nodes:
            parent = node.parent
            assert parent is not None
            if node.kernel_knows:
                self._tree.expire_name(parent, node.name, gone=True)
            node.ctime_ns = now
            self._tree.detach(node)
            directories[parent] = None
        for directory in directories:
            if not directory.deleted:
                self._names.stamp(directory, now)
                self._core.kernel.forget_content(directory.ino)

    def _send(self, rows: list[PendingDelete], seen: Mapping[str, ObjectInfo], task: _Task) -> None:
        self._deletes.delete_seen(rows, seen)
        with self._core.lock:
            for row in rows:
                size = seen[row.key].size
                if row.seq in self._pending.deletes.rows:
                    task.late[row.seq] = (row.key, size)
                else:
                    task.report.did(size)

    # ------------------------------------------------------------------ names without an object
    def _sweep(self, task: _Task) -> bool:
        """Remove CHUNK of the remaining nodes, unsent files for the most part; False: none are left."""
        with self._core.lock:
            top = self._top_locked(task.place)
            nodes = list(islice(self._leaves(top), CHUNK)) if top is not None else []
            with self._pending.transaction:
                for node in nodes:
                    if not node.is_dir and (node.pending is not None or node.touched > task.place.began):
                        self._count_file(node, task.report)
                    self._names.withdraw(node)
                    if node is top and node.parent is not None:
                        self._names.keep_directory(node.parent, leaving=node)
            self._core.crash_point("directory_removed")
            self._vanish_locked(nodes)
            return bool(nodes)

    def _leaves(self, top: Node) -> Iterator[Node]:
        """Yield all nodes at and below `top`, children before their parents, without roots of mount and buckets."""
        for child in list(top.children().values()):
            if child.is_dir:
                yield from self._leaves(child)
            else:
                yield child
        if not is_bucket_root(self._core, top):
            yield top

    def _settle(self, task: _Task) -> None:
        """Wait for the late deletes, and report their outcome."""
        report, deletes = task.report, self._pending.deletes
        if not task.late:
            return
        deadline_s = self._core.clock.monotonic() + SETTLE_S
        with self._core.lock:
            self._queue.drain_locked(True)
            try:
                while any(seq in deletes.rows and seq not in deletes.parked for seq in task.late):
                    rest_s = deadline_s - self._core.clock.monotonic()
                    if rest_s <= 0 or self._core.stopping or task.cancelled.is_set():
                        break
                    self._core.changed.wait(min(rest_s, SLICE_S))
            finally:
                self._queue.drain_locked(False)
            for seq, (key, size) in task.late.items():
                if seq in deletes.parked:
                    report.fail(key, deletes.parked[seq].reason)
                elif seq in deletes.rows:
                    report.waiting += 1
                else:
                    report.did(size)

    # ------------------------------------------------------------------ a dry run
    def _count(self, task: _Task) -> None:
        for began, objects in self._pages(task):
            with self._core.lock:
                for info in objects:
                    if not self._pending.deletes.hides(info.key, info.etag, began):
                        task.report.found += 1
                        task.report.did(info.size)
        with self._core.lock:
            top = self._top_locked(task.place)
            for node in self._leaves(top) if top is not None else ():
                if not node.is_dir and node.pending is not None and node.pending.expected_etag is None:
                    self._count_file(node, task.report)

    def _count_file(self, node: Node, report: BulkReport) -> None:
        report.found += 1
        report.unsent += 1
        report.did(_size(node))


def _size(node: Node) -> int:
    return node.pending.size if node.pending is not None and node.pending.staged is not None else node.size
