"""Boot: what the journal holds becomes nodes again, on top of a tree that knows nothing yet.

Owns:    how each row is read after a stop, a crash or a power cut.
Never:   deletes a staged byte: what has no row is set aside, what may be torn is parked.
Locks:   runs before any thread; takes Core.lock for form's sake.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.engine.recovery.handover import forget_leftovers, move_inherited, restore_nodes
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.amounts import counted, left
from r2fs.model.keys import SYMLINK_SUFFIX, conflict_name, nfc
from r2fs.model.metadata import recalled
from r2fs.model.pending import DOUBTFUL, TORN, Checkpoint, Durability, Hold, Pending, Staged
from r2fs.model.ranges import RangeSet
from r2fs.model.records import Inheritance, Kind, PendingInode, Proof
from r2fs.model.states import UNSEALED, State
from r2fs.model.transitions import (
    adopted,
    kept_beside,
    parked,
    released,
    replayed,
    with_staged,
    without_staged,
)

log = logging.getLogger(__name__)

NOTHING = Inheritance({}, {})
OPEN = frozenset(state.value for state in UNSEALED)  # somebody was writing
SEALED = frozenset(state.value for state in (State.QUEUED, State.UPLOADING, State.RESEALED))


class Replay:
    def __init__(
        self,
        records: Records,
        storage: Storage,
        writeback: WriteBack,
        inheritance: Inheritance | None = None,
    ) -> None:
        """`inheritance`: what a session that is taken over still has open."""
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = storage.contents
        self._staging_gc = storage.staging_gc
        self._queue = writeback.queue
        self._deletes = writeback.deletes
        self._inheritance = inheritance or NOTHING

    def run(self) -> None:
        rows = self._core.journal.read()
        with self._core.lock:
            self._clear_open()
            self._attempts.restore(rows.attempts)
            restore_nodes(self._tree, self._core.numbers, self._inheritance)
            for row in sorted(rows.inodes, key=_from_the_root_down):
                self._restore(row)
                self._core.crash_point("row_restored")
            for delete in rows.deletes:
                self._pending.adopt_delete(delete)
                self._deletes.add(delete)
            self._forsaken_attempts()
            staged = {row.staged for row in rows.inodes if row.staged}
            self._staging_gc.adopt(set(rows.staging_gc) - staged)
            forget_leftovers(self._tree, self._pending)
            self._orphans(staged | self._staging_gc.names())
        self._core.crash_point("restored")
        with self._core.lock:
            self._say_what_is_left()

    def _say_what_is_left(self) -> None:
        nodes, rows = self._pending.inodes.values(), self._pending.deletes.values()
        directories, watched = sum(n.is_dir for n in nodes), sum(r.watch_until_s is not None for r in rows)
        if nodes or len(rows) > watched:
            size = sum(node.pending.size for node in nodes if node.pending and node.pending.staged)
            text = left(len(nodes) - directories, directories, size, len(rows) - watched)
            log.info("still to be sent, of an earlier mount: %s", text)
        if watched:
            log.info("watching for a late upload of an earlier mount at %s", counted(watched, "key"))

    # ------------------------------------------------------------------ rows
    def _restore(self, row: PendingInode) -> None:
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
        node.mode, node.uid, node.gid = row.mode, row.uid, row.gid
        node.extra, node.content_type, node.target = row.extra, row.content_type or None, row.target
        node.base, node.size = row.base, row.size
        node.metadata_known = (
            row.base is None or row.content_type is not None
        )  # else the upload asks for what it lacks
        node.mtime_known = row.mtime_ns is not None
        if not row.staged and row.base is not None and not node.is_dir:
            node.size = row.base.size
        pending = self._pending_of(row)
        self._pending.adopt(node, pending, None if row.stored is None else recalled(row.stored))
        has_bytes = row.staged is None or self._staged(node, row, pending)
        if taken and node.pending is not None:
            self._pending.commit(node, kept_beside(node.pending, self._tree.key(node), row.key))
        if not has_bytes:
            return
        node.synced_on_disk = row.synced
        assert node.pending is not None
        pending, was = node.pending, pending.state
        if was is State.PARKED:
            if row.reason in DOUBTFUL:
                return  # a person decides
            pending = released(pending, keep_reason=True)  # what was in its way may be mended: once more
        if row.ino in self._inheritance.writers and was in UNSEALED:
            self._pending.commit(node, adopted(pending))
            return
        staged = pending.staged
        if self._untouched(node, row):
            self._pending.commit(node, None)
            if node.base is not None and staged is not None and not self._power_cut(row):
                self._contents.settled(node, staged.file)  # else its bytes may never have reached the disk
            return
        cut = self._is_cut(node, row)
        synced = row.synced and row.state not in OPEN
        if row.staged and not synced and not pending.changed and self._power_cut(row):
            self._without_staged(node, row.staged)
            return
        reason = row.reason if row.reason in DOUBTFUL else None  # it was opened since, and not made anew
        if row.staged and (cut or (not synced and self._power_cut(row))):
            reason = reason or TORN
        if staged is not None:
            durability = Durability.VOLATILE
            if synced and not cut:
                durability = Durability.SYNCED if row.own is None else Durability.SYNCED_OWN
            staged = replace(staged, durability=durability, boot=self._core.staging.boot)
        pending = replayed(pending, staged)
        # In one commit: of this boot's, and not parked, a torn file would be sent.
        self._pending.commit(node, pending if reason is None else parked(pending, Hold(reason)))
        if reason is not None:
            log.error("%s: %s; kept in staging, not published", row.key, reason)
            return
        self._queue.schedule(node)

    def _power_cut(self, row: PendingInode) -> bool:
        """Has the machine started anew since its bytes were last changed?"""
        return row.boot != self._core.staging.boot

    def _free_name(self, parent: Node, name: str) -> str:
        number = 1
        host, when = self._core.settings.host, self._core.clock.time()
        while (candidate := conflict_name(name, host, when, number)) in parent.children():
            number += 1
        return candidate

    def _pending_of(self, row: PendingInode) -> Pending:
        assert row.key is not None
        staged = checkpoint = None
        if row.staged is not None:
            durability = Durability.VOLATILE
            if row.synced:
                durability = Durability.SYNCED if row.own is None else Durability.SYNCED_OWN
            staged = Staged(
                row.staged,
                size=row.size,
                boot=row.boot,
                durability=durability,
                baseline=row.proof,
                lists_ranges=row.own is not None,
                base_limit=row.base_limit,
            )
        if row.before is not None:
            checkpoint = Checkpoint(State(row.before), changed=row.changed, modified=False)
        return Pending(
            key=row.key,
            seq=row.seq,
            state=State(row.state),
            changed=(row.changed or self._may_be_written(row)) and not _is_bare(row),
            expected_etag=row.expected_etag,
            since_s=self._core.clock.monotonic(),
            staged=staged,
            checkpoint=checkpoint,
            hold=None if row.reason is None else Hold(row.reason),
            conflict_of=row.conflict_of,
            closed_at_s=row.closed_at_s,
        )

    def _may_be_written(self, row: PendingInode) -> bool:
        """Somebody had it open for writing: do its times fail to prove that nobody wrote?"""
        if row.state not in OPEN or row.staged is None or row.own is not None:
            return False
        try:
            return self._proof(row) != row.proof
        except FileNotFoundError:
            return True

    def _proof(self, row: PendingInode) -> Proof:
        stat = self._core.staging.stat(row.staged or "")
        return Proof(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def _staged(self, node: Node, row: PendingInode, pending: Pending) -> bool:
        """The bytes of a row: sizes are the file's own; ranges of a file written in part come back."""
        assert row.staged is not None and pending.staged is not None
        path = self._core.staging.path(row.staged)
        try:
            found = path.stat()
        except FileNotFoundError:
            if self._power_cut(row) and not row.synced:
                if pending.changed:  # else nothing was written, and nothing is missing
                    log.error(
                        "%s: was not synced when the machine stopped, and never reached the disk", row.key
                    )
                # An attempt of it that the bucket has is the file's last good state, not a forsaken one.
                self._attempts.settle(row.ino)
                self._without_changes(node, row)
                return False
            log.error("%s: its bytes should be in %s, and are not", row.key, path)
            if pending.state is not State.PARKED:
                missing = Hold(f"{path} is missing")
                self._pending.commit(node, parked(replayed(pending, pending.staged), missing))
            return False
        size = found.st_size
        if row.own is not None:  # a write or a truncate past its row's end was never answered
            own = RangeSet(row.own)
            size = min(size, max(row.size, max((stop for _, stop in own), default=0)))
            node.content = SparseFile.adopt(path, size, own, own=own, base_limit=row.base_limit)
            node.content.set_times(found.st_atime_ns, found.st_mtime_ns)
        self._pending.note(node, with_staged(pending, replace(pending.staged, size=size)))
        node.size = size
        node.mtime_ns, node.ctime_ns, node.mtime_known = found.st_mtime_ns, found.st_ctime_ns, True
        return True

    def _without_changes(self, node: Node, row: PendingInode) -> None:
        """What was written last never reached the disk: the file is what it was before, if it was there."""
        assert node.pending is not None and row.staged is not None
        base = node.base
        written = node.pending.changed or row.before == State.CLEAN.value
        if base is None or (written and nfc(base.key) == nfc(node.pending.key)):
            self._pending.commit(node, None)
            if base is None:
                self._tree.detach(node)
        else:
            self._without_staged(node, row.staged)

    def _without_staged(self, node: Node, staged: str) -> None:
        """It owes a name or metadata: its bytes are those of its base, in the bucket, and not of this disk."""
        base = node.base
        assert base is not None
        if node.content is not None:
            node.content.close()
            node.content = None
        node.size = base.size
        assert node.pending is not None
        with self._pending.transaction():
            self._pending.commit(node, without_staged(node.pending))
            self._core.journal.put_staging_garbage(staged)
        self._staging_gc.adopt([staged])
        self._queue.schedule(node)

    def _untouched(self, node: Node, row: PendingInode) -> bool:
        """Opened for writing from CLEAN, and never written: nothing is owed."""
        if row.state != State.DIRTY.value or row.before != State.CLEAN.value or row.staged is None:
            return False
        if row.own is not None:
            return _is_bare(row)
        if row.proof is None:
            return False
        return self._proof(row) == row.proof

    def _is_cut(self, node: Node, row: PendingInode) -> bool:
        """Sealed, and of another size now: its disk failed or was taken away, while the machine went on."""
        if row.state not in SEALED:
            return False
        return node.size != row.size if row.own is None else node.size < row.size

    def _place(self, key: str, kind: Kind) -> tuple[Node, str]:
        """The parent directory, made on the way, and the name in it."""
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

    # ------------------------------------------------------------------ what has no row
    def _forsaken_attempts(self) -> None:
        """On its way when the daemon ended, of an inode that has left that key: may still appear."""
        for key in self._attempts.forsaken_keys():
            if self._pending.watched(key) is None:
                self._deletes.add(self._pending.add_delete(key, None, watch=True))

    def _clear_open(self) -> None:
        """Links of clean content: its bytes are in the bucket."""
        self._core.staging.clear_links({handle.file for handle in self._inheritance.handles.values()})

    def _orphans(self, known: set[str]) -> None:
        """Staged files without a row: the end of an upload that was not tidied, or of a damaged journal."""
        for name, size in self._core.staging.scan():
            if name in known:
                continue
            if not size:
                self._core.staging.remove(
                    name
                )  # a spare, or a file that nobody was told of: it holds nothing
            else:
                path = self._core.staging.set_aside(name)
                log.warning("a staged file without a journal row was set aside as %s", path)


def _from_the_root_down(row: PendingInode) -> tuple[int, int]:
    """A directory's own row before those of what is in it, which would make it anew."""
    assert row.key is not None
    return row.key.rstrip("/").count("/"), row.seq


def _is_bare(row: PendingInode) -> bool:
    """Opened for writing while nothing of it was here, and neither written nor cut: all is still the base's."""
    whole = row.base is not None and row.size == row.base_limit == row.base.size
    return row.own is not None and not row.own and whole
