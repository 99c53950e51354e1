"""Replay: restores inodes, attempts and pending deletes from the journal, into an empty tree, at start.

Never:   deletes a byte that only this host has: staged files without a row are set aside, torn ones are parked.
Locks:   runs before any thread; takes Core.lock, as the stores require.
Fails:   as the journal and the staging directory do: then the start fails, and the next one replays the same rows.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from r2fs.disk.sparse_file import SparseFile
from r2fs.disk.staging import ino_of
from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import EPOCH_SHIFT
from r2fs.engine.pending.records import Records
from r2fs.engine.recovery.classify import (
    Evidence,
    FileStat,
    Park,
    Queue,
    Step,
    Unchanged,
    Verdict,
    WithoutStaged,
    classify,
    pending_of,
    size_of,
)
from r2fs.engine.recovery.handover import forget_leftovers, move_inherited, restore_nodes
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.amounts import counted, left
from r2fs.model.keys import SYMLINK_SUFFIX, conflict_name, nfc
from r2fs.model.metadata import recalled
from r2fs.model.pending import Durability, Hold, Pending, State
from r2fs.model.ranges import RangeSet
from r2fs.model.records import Inheritance, Kind, PendingInode
from r2fs.model.transitions import (
    adopted,
    kept_beside,
    parked,
    released,
    replayed,
    without_staged,
)

log = logging.getLogger(__name__)

NOTHING = Inheritance({}, {})


class Replay:
    def __init__(
        self,
        records: Records,
        storage: Storage,
        writeback: WriteBack,
        inheritance: Inheritance | None = None,
    ) -> None:
        """`inheritance`: inodes and open files of a session that is taken over."""
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._staged_files = storage.staged_files
        self._staging_gc = storage.staging_gc
        self._queue = writeback.queue
        self._deletes = writeback.deletes
        self._inheritance = inheritance or NOTHING

    def run(self) -> None:
        """Restore all. Called once."""
        rows = self._core.journal.read()
        with self._core.lock:
            self._clear_open()
            self._attempts.restore(rows.attempts)
            restore_nodes(self._tree, self._core.numbers, self._inheritance)
            for row in sorted(rows.inodes, key=_from_the_root_down):
                self._restore(row)
                self._core.crash_point("row_restored")
            self._pending.sort_by_age()
            for delete in rows.deletes:
                self._pending.deletes.adopt(delete)
                self._deletes.add_locked(delete)
            self._watch_orphaned_attempts()
            staged = {row.staged for row in rows.inodes if row.staged}
            self._staging_gc.adopt(set(rows.staging_gc) - staged)
            forget_leftovers(self._tree, self._pending)
            self._set_aside_unknown(staged | self._staging_gc.names())
        self._core.crash_point("restored")
        with self._core.lock:
            self._log_unsent()

    def _log_unsent(self) -> None:
        tally, watched = self._pending.tally(), self._pending.deletes.watches
        deletes = len(self._pending.deletes.rows) - watched
        if tally.files or tally.directories or deletes:
            text = left(tally.files, tally.directories, tally.bytes, deletes)
            log.info("still to be sent, of an earlier mount: %s", text)
        if watched:
            log.info("watching for a late upload of an earlier mount at %s", counted(watched, "key"))

    # ---- rows
    def _restore(self, row: PendingInode) -> None:
        """Restore the inode of a row, and carry its verdict out."""
        seen = self._evidence(row)
        verdict = classify(row, seen)
        node, taken = self._node_of(row)
        pending = pending_of(row, seen, self._since_s(row))
        self._pending.adopt(node, pending, None if row.stored is None else recalled(row.stored))
        if seen.file is not None:
            self._restore_content(node, row, seen.file)
        if row.staged is None or seen.file is not None:
            node.synced_on_disk = row.synced
        self._apply(node, row, verdict)
        if taken and node.pending is not None:
            # Last: torn bytes are parked before any other commit gives their row the size found.
            self._pending.commit(node, kept_beside(node.pending, self._tree.key(node), pending.key))
        if node.state is State.QUEUED:
            self._queue.schedule_locked(node)

    def _since_s(self, row: PendingInode) -> float:
        """Return Clock.monotonic() at the row's last close: its age counts on."""
        clock = self._core.clock
        age_s = 0.0 if row.closed_at_s is None else clock.time() - row.closed_at_s
        return clock.monotonic() - max(0.0, age_s)

    def _evidence(self, row: PendingInode) -> Evidence:
        file = None
        if row.staged is not None:
            with suppress(FileNotFoundError):
                found = self._core.staging.stat(row.staged)
                file = FileStat(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_atime_ns)
        return Evidence(self._core.staging.boot, file, row.ino in self._inheritance.writers)

    def _node_of(self, row: PendingInode) -> tuple[Node, bool]:
        """Return the inode of the row at its name, and True if another row has that name already."""
        assert row.key is not None
        parent, name = self._place(row.key, row.kind)
        node, there = self._tree.find(row.ino), parent.children().get(name)
        if there is not None and there is not node and there.kernel_knows and there.pending is None:
            self._tree.detach(there)  # inherited, and replaced a moment before the daemon ended
        taken = parent.children().get(name, node) is not node
        if taken:
            name = self._free_name(parent, name)
            log.error("%s: two rows of the journal name it; the later one is kept as %s", row.key, name)
        mtime_ns = row.mtime_ns or self._core.now_ns()
        if node is None:
            node = self._tree.add(parent, name, row.kind, mtime_ns, ino=row.ino)
        else:
            move_inherited(self._tree, node, parent, name)
            node.mtime_ns = mtime_ns
        if not node.st_ino:
            node.st_ino = self._core.numbers.claim(row.st_ino or row.ino)
        self._restore_fields(node, row)
        return node, taken

    def _restore_fields(self, node: Node, row: PendingInode) -> None:
        node.mode, node.uid, node.gid = row.mode, row.uid, row.gid
        node.extra, node.content_type, node.target = row.extra, row.content_type or None, row.target
        node.base, node.size = row.base, row.size
        # Where False, the upload fetches the metadata that the row lacks.
        node.metadata_known = row.base is None or row.content_type is not None
        node.mtime_known = row.mtime_ns is not None
        if not row.staged and row.base is not None and not node.is_dir:
            node.size = row.base.size

    def _restore_content(self, node: Node, row: PendingInode, file: FileStat) -> None:
        """Take size and times from the staged file; open one that was written in part with its ranges."""
        size = size_of(row, file)
        if row.own is not None:
            path, own = self._core.staging.path(row.staged or ""), RangeSet(row.own)
            node.content = SparseFile.adopt(path, size, own, own=own, base_limit=row.base_limit)
            node.content.set_times(file.atime_ns, file.mtime_ns)
        node.size = size
        node.mtime_ns, node.ctime_ns, node.mtime_known = file.mtime_ns, file.ctime_ns, True

    def _free_name(self, parent: Node, name: str) -> str:
        number = 1
        host, when = self._core.settings.host, self._core.clock.time()
        while (candidate := conflict_name(name, host, when, number)) in parent.children():
            number += 1
        return candidate

    # ---- verdicts
    def _apply(self, node: Node, row: PendingInode, verdict: Verdict) -> None:
        pending = node.pending
        assert pending is not None
        match verdict:
            case Step.DOUBTFUL:
                pass
            case Step.ADOPT:
                self._pending.commit(node, adopted(pending))
            case Unchanged(keeps_file):
                self._pending.commit(node, None)
                if keeps_file and row.staged is not None:
                    self._staged_files.settled((node, row.staged))
            case Step.MISSING:
                self._park_missing(node, row, pending)
            case Step.NEVER_STORED:
                self._report_never_stored(row, pending)
                self._pending.commit(node, None)
                if node.base is None:
                    self._tree.detach(node)
            case WithoutStaged(never_stored):
                if never_stored:
                    self._report_never_stored(row, pending)
                self._drop_staged(node, row, pending)
            case Queue(durability):
                self._pending.commit(node, self._replayed(pending, durability))
            case Park(reason, durability):
                # In one commit: of this boot's, and not parked, a torn file would be sent.
                self._pending.commit(node, parked(self._replayed(pending, durability), Hold(reason)))
                log.error("%s: %s; kept in staging, not published", row.key, reason)

    def _replayed(self, pending: Pending, durability: Durability) -> Pending:
        if pending.state is State.PARKED:  # the cause may have ended: tried once more
            pending = released(pending, keep_reason=True)
        staged = pending.staged
        if staged is not None:
            staged = staged._replace(durability=durability, boot=self._core.staging.boot)
        return replayed(pending, staged)

    def _park_missing(self, node: Node, row: PendingInode, pending: Pending) -> None:
        path = self._core.staging.path(row.staged or "")
        log.error("%s: its bytes should be in %s, and are not", row.key, path)
        if pending.state is not State.PARKED:
            missing = Hold(f"{path} is missing")
            self._pending.commit(node, parked(replayed(pending, pending.staged), missing))

    def _report_never_stored(self, row: PendingInode, pending: Pending) -> None:
        if pending.changed:  # else no write is missing
            log.error("%s: was not synced when the machine stopped, and never reached the disk", row.key)
        # An attempt that reached the bucket is the file's last good state, not to be deleted.
        self._attempts.settle(row.ino)

    def _drop_staged(self, node: Node, row: PendingInode, pending: Pending) -> None:
        """Let the base's bytes, in the bucket, take the place of the staged file."""
        assert node.base is not None and row.staged is not None
        if node.content is not None:
            node.content.close()
            node.content = None
        node.size = node.base.size
        with self._pending.transaction:
            self._pending.commit(node, without_staged(pending))
            self._core.journal.put_staging_garbage(row.staged)
        self._staging_gc.adopt([row.staged])

    def _place(self, key: str, kind: Kind) -> tuple[Node, str]:
        """Return the parent directory and the name of a key; create the directories above that do not exist."""
        relative = key.removeprefix(self._core.settings.bucket.prefix).rstrip("/")
        *above, name = relative.split("/")
        parent = self._tree.root
        for spelled in above:
            part = nfc(spelled)
            child = parent.children().get(part)
            if child is None or not child.is_dir:
                if child is not None and child.kernel_knows:
                    self._tree.detach(child)
                child = self._tree.add(parent, part, Kind.DIRECTORY, self._core.now_ns())
                child.touched, child.spelled = 0, spelled if spelled != part else None
            parent = child
        return parent, nfc(name.removesuffix(SYMLINK_SUFFIX) if kind is Kind.SYMLINK else name)

    # ---- leftovers without a row
    def _watch_orphaned_attempts(self) -> None:
        """Watch keys at which an object may still appear: its upload was under way when the daemon ended, and its
        inode has another key now, or none."""
        for key in self._attempts.orphaned_keys():
            if self._pending.deletes.watched(key) is None:
                self._deletes.add_locked(self._pending.deletes.add(key, None, watch=True))

    def _clear_open(self) -> None:
        """Remove links of clean files that no inherited handle needs: their bytes are in the bucket."""
        self._core.staging.clear_links({handle.file for handle in self._inheritance.handles.values()})

    def _set_aside_unknown(self, known: set[str]) -> None:
        """Move staged files without a row to quarantine: files of a damaged journal, above all. Those that nobody has
        written to are removed."""
        for name, size in self._core.staging.scan():
            if name in known:
                continue
            # A spare, or of a create or an open for writing that was never answered.
            if not size or self._is_unwritten(name):
                self._core.staging.remove(name)
            else:
                path = self._core.staging.set_aside(name)
                log.warning("a staged file without a journal row was set aside as %s", path)

    def _is_unwritten(self, name: str) -> bool:
        """True if nobody has written to a staged file without a row: no row was ever made for it.

        False for a file of a run that this journal does not know: it has begun anew since, or a person has put an earlier
        one back. The row is lost then, and a quick editor of tags leaves size, mtime and time of the move as they were.
        """
        run, staging = ino_of(name) >> EPOCH_SHIFT, self._core.staging
        return 0 < run < self._core.journal.epoch and staging.is_unwritten(name)


def _from_the_root_down(row: PendingInode) -> tuple[int, int]:
    """Sort key: a directory's own row before the rows below it, which would create it without its number."""
    assert row.key is not None
    return row.key.rstrip("/").count("/"), row.seq
