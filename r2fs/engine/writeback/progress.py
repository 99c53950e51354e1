"""Status: frozen views of what is owed, and waiting for it to be sent.

Owns:  what `status`, `flush` and a stop show and wait for.
Never: hands out live tables.
Locks: every public method takes Core.lock, and waits on Core.changed.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import nsmallest

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.scope import Scope
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.pending import SENDING, State
from r2fs.model.records import PendingDelete
from r2fs.model.views import QueueView, TransferView

SHOWN = 100  # transfers in a view: the ones on their way, then the oldest
PROGRESS_S = 0.25  # how often a waiter is told, and looks without a change
SHARE = 10  # a look at a hundred thousand files takes a while, under the lock: then not before so many whiles
LOOK_S = 0.01  # below this, every change is looked at

CLOSING_S = 1.0  # from FLUSH, which close() waits for, to RELEASE, which it does not

# The order of a view: what is on its way, what waits for a person, the rest.
RANK = {**dict.fromkeys((state.value for state in SENDING), 0), State.PARKED.value: 1}

WAITED_FOR = frozenset({State.QUEUED}) | SENDING  # DIRTY waits for its program, PARKED for a person


class Status:
    def __init__(self, records: Records, writeback: WriteBack) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._queue = writeback.queue
        self._deletes = writeback.deletes
        self._resolver = writeback.resolver

    def view(self) -> QueueView:
        with self._core.lock:
            now = self._core.clock.monotonic()
            pending = [node for node in self._pending.inodes.values() if not self._queue.rests(node)]
            oldest = nsmallest(
                SHOWN,
                pending,
                key=lambda node: (
                    RANK.get(node.state.value, len(RANK)),
                    node.pending.since_s if node.pending else now,
                ),
            )
            conflicts = sorted(self._tree.path(node) for node in self._tree.conflicts())
            directories = sum(node.is_dir for node in pending)
            watched = sum(row.watch_until_s is not None for row in self._pending.deletes.values())
            resolver, failures = self._resolver, self._queue.failures
            last_error = failures.last()
            transfers = [self._transfer(node, now) for node in oldest]
            transfers += [self._refused(seq, now) for seq in nsmallest(SHOWN, self._pending.refused)]
            transfers.sort(key=lambda transfer: RANK.get(transfer.state, len(RANK)))
            return QueueView(
                files=len(pending) - directories,
                directories=directories,
                bytes=sum(node.pending.size for node in pending if node.pending and node.pending.staged),
                deletes=len(self._pending.deletes) - watched,
                watched=watched,
                active=len(self._queue.uploads),
                parked=sum(node.state is State.PARKED for node in pending) + len(self._pending.refused),
                conflicts=tuple(conflicts),
                hidden=self._tree.hidden,
                directory_objects=tuple(sorted(self._tree.own_bytes(), key=lambda one: one.key)),
                oldest_s=max((now - node.pending.since_s for node in pending if node.pending), default=0.0),
                transfers=tuple(transfers[:SHOWN]),
                uploaded=resolver.uploaded - resolver.markers,
                uploaded_bytes=resolver.uploaded_bytes,
                failed=failures.count,
                last_error=last_error.text if last_error else None,
                last_error_s=last_error.at_s if last_error else None,
            )

    def _refused(self, seq: int, now: float) -> TransferView:
        row, (reason, since_s) = self._pending.deletes[seq], self._pending.refused[seq]
        path = row.key.removeprefix(self._core.settings.bucket.prefix)
        return TransferView(path, "delete", State.PARKED.value, 0, 0, 0.0, now - since_s, reason)

    def _transfer(self, node: Node, now: float) -> TransferView:
        pending = node.pending
        assert pending is not None
        upload = self._queue.uploads.get(node.ino)
        bytes_ = upload.bytes if upload is not None and pending.in_flight else None
        return TransferView(
            path=self._tree.path(node) + ("/" if node.is_dir else ""),
            verb="upload",
            state=pending.state.value,
            size=pending.size,
            sent=bytes_.gone(now, pending.size) if bytes_ else 0,
            rate=bytes_.rate(now, pending.size) if bytes_ else 0.0,
            age_s=now - pending.since_s,
            reason=pending.reason,
        )

    def wait(
        self,
        scope: Scope | None,
        timeout_s: float | None,
        progress: Callable[[QueueView], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        unless_refused: bool = False,
    ) -> bool:
        """Wait until the bucket is as the mount shows it, in `scope` (None: everywhere). False: something is left.

        What is open for writing and what is parked is not waited for. `unless_refused`: nor is a bucket that
        refuses everything, once it has done so again since the call.
        """
        clock, core, failures = self._core.clock, self._core, self._queue.failures
        refused = failures.refused
        deadline = None if timeout_s is None else clock.monotonic() + timeout_s
        told_s, told_took_s = float("-inf"), 0.0
        with core.lock:
            self._queue.hurry(True)
        try:
            while True:
                with core.lock:
                    began = clock.monotonic()
                    if not self._left(scope):
                        return True
                    if unless_refused and failures.refused > refused and failures.refusal() is not None:
                        if not self._queue.uploads:  # what is on its way may yet be taken
                            return False
                    took = clock.monotonic() - began
                    rest = PROGRESS_S if deadline is None else min(PROGRESS_S, deadline - clock.monotonic())
                    if rest <= 0 or cancelled() or core.stopping:
                        return False
                    core.changed.wait(rest)
                now = clock.monotonic()
                if progress is not None and now - told_s >= max(PROGRESS_S, SHARE * told_took_s):
                    progress(self.view())
                    told_s = clock.monotonic()
                    told_took_s = told_s - now
                if SHARE * took > LOOK_S:
                    clock.wait(core.ended, min(SHARE * took, PROGRESS_S))
        finally:
            with core.lock:
                self._queue.hurry(False)

    def retry(self, scope: Scope | None) -> int:
        """Release the parked files and deletes in `scope` (None: anywhere); returns their number.

        A file that may be torn or damaged is released only where it is named itself: a person has looked at it.
        """
        released = 0
        with self._core.lock:
            for named in scope.nodes if scope else [self._tree.root]:
                for node in self._tree.walk(named):
                    pending = node.pending
                    if pending is None or pending.state is not State.PARKED:
                        continue
                    if pending.doubt and node is not named:
                        continue
                    node.sync_failed = False
                    self._queue.release(node)
                    released += 1
            refused = [
                seq for seq in self._pending.refused if scope is None or scope.has(self._pending.deletes[seq])
            ]
            self._deletes.retry(refused)
        return released + len(refused)

    def parked(self, scope: Scope | None) -> tuple[TransferView, ...]:
        """Parked files and deletes in `scope` (None: anywhere), and parked ones that a delete there waits for."""
        with self._core.lock:
            now, pending_store = self._core.clock.monotonic(), self._pending
            rows = [row for row in pending_store.deletes.values() if scope is None or scope.has(row)]
            found = {node.ino: node for node in (scope.walk() if scope else pending_store.inodes.values())}
            renamed = (pending_store.inodes.get(row.after_ino) for row in rows if row.after_ino is not None)
            found |= {node.ino: node for node in renamed if node is not None}
            parked = [self._transfer(node, now) for node in found.values() if node.state is State.PARKED]
            return (
                *parked,
                *(self._refused(row.seq, now) for row in rows if row.seq in pending_store.refused),
            )

    def refusal(self) -> str | None:
        """Why the bucket refuses everything; None: it does not, as far as is known."""
        with self._core.lock:
            return self._queue.failures.refusal()

    def _left(self, scope: Scope | None) -> bool:
        rows = self._pending.deletes.values()
        if scope is None:
            return (
                any(self._is_waited_for(node) for node in self._pending.inodes.values())
                or bool(self._queue.uploads)
                or any(self._is_due(row) for row in rows)
            )
        return (
            any(self._is_waited_for(node) for node in scope.walk())
            or any(self._is_due(row) and scope.has(row) for row in rows)
            # removed while it was on its way: where it may have got to is to be looked at first
            or any(upload.node.deleted for upload in self._queue.uploads.values())
        )

    def _is_due(self, row: PendingDelete) -> bool:
        """Not the old name of a file that a program has open since its rename, or that is parked; nor a parked one."""
        if row.seq in self._pending.refused:
            return False
        node = self._pending.inodes.get(row.after_ino) if row.after_ino is not None else None
        waits = node is not None and not self._queue.rests(node)
        return row.watch_until_s is None and (not waits or (node is not None and self._is_waited_for(node)))

    def _is_waited_for(self, node: Node) -> bool:
        if node.state in WAITED_FOR:
            return not self._queue.rests(node)
        # The kernel tells of the last close() a moment after that has returned.
        return node.writers > 0 and self._core.clock.monotonic() - node.flushed_s < CLOSING_S
