"""Status: frozen views of pending uploads and deletes, and the wait for their end.

Owns:  the views of `status`, `flush` and a stop, and their condition.
Never: hands out live tables.
Locks: every public method takes Core.lock, and waits on Core.changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from heapq import nsmallest
from itertools import islice

from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.transfers import RANK, Scope
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import R2fsError
from r2fs.model.pending import OPEN_STATES, SENDING, State
from r2fs.model.records import PendingDelete
from r2fs.model.views import QueueView, TransferView

SHOWN = 100  # transfers in a view: on their way first, then the oldest
PROGRESS_S = 0.25  # between two reports of progress, and between two looks without a change
SHARE = 10  # a look at a hundred thousand files holds the lock for long: the pause after is this multiple
LOOK_S = 0.01  # shorter pauses are left out: every change is looked at

CLOSING_S = 1.0  # from FLUSH, during close(), to RELEASE, which the kernel sends after

WAITED_FOR = frozenset({State.QUEUED}) | SENDING  # DIRTY waits for its program, PARKED for a person


class Status:
    def __init__(self, records: Records, writeback: WriteBack) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._queue = writeback.queue
        self._deletes = writeback.deletes
        self._resolver = writeback.resolver
        self._transfers = writeback.transfers

    def view(self) -> QueueView:
        with self._core.lock:
            now, tally, deletes = self._core.clock.monotonic(), self._pending.tally(), self._pending.deletes
            waiting = self._oldest_waiting_locked(SHOWN)
            parked = nsmallest(SHOWN, tally.parked.values(), key=_since_s)
            first = [*sorted(tally.sending.values(), key=_since_s), *parked, *waiting]
            transfers = [self._transfers.upload_locked(node, now) for node in first[:SHOWN]]
            transfers += [self._transfers.delete_locked(seq, now) for seq in nsmallest(SHOWN, deletes.parked)]
            transfers.sort(key=lambda transfer: RANK.get(transfer.state, len(RANK)))
            resolver, failures = self._resolver, self._queue.failures
            last_error = failures.last_locked()
            return QueueView(
                files=tally.files,
                directories=tally.directories,
                bytes=tally.bytes,
                deletes=len(deletes.rows) - deletes.watches,
                watched=deletes.watches,
                active=len(self._queue.uploads),
                parked=len(tally.parked) + len(deletes.parked),
                conflicts=tuple(sorted(self._tree.path(node) for node in self._tree.conflicts())),
                hidden=self._tree.hidden,
                directory_objects=tuple(sorted(self._tree.own_bytes(), key=lambda one: one.key)),
                oldest_s=now - min(map(_since_s, first), default=now),
                transfers=tuple(transfers[:SHOWN]),
                uploaded=resolver.uploaded - resolver.markers,
                uploaded_bytes=resolver.uploaded_bytes,
                failed=failures.count,
                last_error=last_error.text if last_error else None,
                last_error_at_s=last_error.at_s if last_error else None,
                parked_bytes=tally.parked_bytes,
            )

    def _oldest_waiting_locked(self, count: int) -> list[Node]:
        """Return the oldest of the inodes that are neither sent nor parked."""
        self._core.assert_held()
        tally, inodes = self._pending.tally(), self._pending.inodes
        others = (
            node
            for ino, node in inodes.items()
            if ino not in tally.local and ino not in tally.sending and ino not in tally.parked
        )
        return list(islice(others, count))

    def wait(
        self,
        scope: Scope | None,
        timeout_s: float | None,
        progress: Callable[[QueueView], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        unless_refused: bool = False,
    ) -> bool:
        """Wait until the bucket is as the mount shows it, in `scope` (None: everywhere). False: uploads are left.

        Files that are open for writing or parked are not waited for. `unless_refused`: the wait ends, too, once
        each bucket with something left refuses everything, and has done so again since the call.
        """
        clock, core, failures = self._core.clock, self._core, self._queue.failures
        deadline = None if timeout_s is None else clock.monotonic() + timeout_s
        reported_s, report_took_s = float("-inf"), 0.0
        with core.lock:
            refused = failures.refusals_locked()
            self._queue.drain_locked(True)
        try:
            while True:
                with core.lock:
                    began = clock.monotonic()
                    if not self._is_left_locked(scope):
                        return True
                    if unless_refused and self._is_refused_locked(scope, refused):
                        return False
                    took = clock.monotonic() - began
                    rest = PROGRESS_S if deadline is None else min(PROGRESS_S, deadline - clock.monotonic())
                    if rest <= 0 or cancelled() or core.stopping:
                        return False
                    core.changed.wait(rest)
                now = clock.monotonic()
                if progress is not None and now - reported_s >= max(PROGRESS_S, SHARE * report_took_s):
                    progress(self.view())
                    reported_s = clock.monotonic()
                    report_took_s = reported_s - now
                if SHARE * took > LOOK_S:
                    clock.wait(core.ended, min(SHARE * took, PROGRESS_S))
        finally:
            with core.lock:
                self._queue.drain_locked(False)

    def retry(self, scope: Scope | None) -> int:
        """Release the parked files and deletes in `scope` (None: anywhere); returns their number.

        A file that may be torn or damaged is released only under its own name: a person has looked at it.
        """
        released = 0
        with self._core.lock:
            for named in scope.nodes if scope else [self._tree.root]:
                for node in self._tree.walk_nodes(named):
                    pending = node.pending
                    if pending is None or pending.state is not State.PARKED:
                        continue
                    if pending.doubt and node is not named:
                        continue
                    node.sync_failed = False
                    self._queue.release_locked(node)
                    released += 1
            refused = [
                seq
                for seq in self._pending.deletes.parked
                if scope is None or scope.has(self._pending.deletes.rows[seq])
            ]
            self._deletes.retry_locked(refused)
        return released + len(refused)

    def parked(self, scope: Scope | None) -> tuple[TransferView, ...]:
        """Parked files and deletes in `scope` (None: anywhere), and parked files that a delete in `scope` waits for."""
        with self._core.lock:
            now, pending_store = self._core.clock.monotonic(), self._pending
            rows = [row for row in pending_store.deletes.rows.values() if scope is None or scope.has(row)]
            found = {node.ino: node for node in (scope.walk() if scope else pending_store.inodes.values())}
            renamed = (pending_store.inodes.get(row.after_ino) for row in rows if row.after_ino is not None)
            found |= {node.ino: node for node in renamed if node is not None}
            parked = [
                self._transfers.upload_locked(node, now)
                for node in found.values()
                if node.state is State.PARKED
            ]
            return (
                *parked,
                *(
                    self._transfers.delete_locked(row.seq, now)
                    for row in rows
                    if row.seq in pending_store.deletes.parked
                ),
            )

    def refusal(self, buckets: Collection[str] = ()) -> R2fsError | None:
        """A bucket's refusal of all requests (none named: of any); None: not known to refuse all."""
        with self._core.lock:
            return self._queue.failures.refusal_locked(buckets)

    def _is_refused_locked(self, scope: Scope | None, before: Mapping[str, int]) -> bool:
        """True if all that is left in `scope` is refused. An upload on its way may yet be taken."""
        self._core.assert_held()
        failures, split = self._queue.failures, self._core.settings.bucket.split
        if before == failures.refusals_locked():
            return False
        nodes = scope.walk() if scope else self._pending.inodes.values()
        rows = self._pending.deletes.rows.values()
        keys = [node.pending.key for node in nodes if node.pending and self._is_waited_for_locked(node)]
        keys += [row.key for row in rows if self._is_due_locked(row) and (scope is None or scope.has(row))]
        buckets = {split(key)[0] for key in keys}
        if any(split(upload.key)[0] in buckets for upload in self._queue.uploads.values()):
            return False
        return bool(buckets) and all(failures.refuses_again_locked(one, before) for one in buckets)

    def _is_left_locked(self, scope: Scope | None) -> bool:
        """True while an upload or delete in `scope` is waited for."""
        self._core.assert_held()
        rows = self._pending.deletes.rows.values()
        if scope is None:
            return (
                any(self._is_waited_for_locked(node) for node in self._pending.inodes.values())
                or bool(self._queue.uploads)
                or any(self._is_due_locked(row) for row in rows)
            )
        return (
            any(self._is_waited_for_locked(node) for node in scope.walk())
            or any(self._is_due_locked(row) and scope.has(row) for row in rows)
            # removed while on its way: its object is to be looked for first
            or any(upload.node.deleted for upload in self._queue.uploads.values())
        )

    def _is_due_locked(self, row: PendingDelete) -> bool:
        """True for a delete that is waited for: not a parked one, nor the old name of a file that is open for writing
        since its rename, or parked."""
        self._core.assert_held()
        if row.seq in self._pending.deletes.parked:
            return False
        node = self._pending.inodes.get(row.after_ino) if row.after_ino is not None else None
        waits = node is not None and not self._queue.is_local_only_locked(node)
        return row.watch_until_s is None and (
            not waits or (node is not None and self._is_waited_for_locked(node))
        )

    def _is_waited_for_locked(self, node: Node) -> bool:
        self._core.assert_held()
        # the journal failed: closed by a later attempt
        never_closed = node.state in OPEN_STATES and not node.writers
        if node.state in WAITED_FOR or never_closed:
            return not self._queue.is_local_only_locked(node)
        # The kernel sends RELEASE a moment after the last close() has returned.
        return node.writers > 0 and self._core.clock.monotonic() - node.flushed_s < CLOSING_S


def _since_s(node: Node) -> float:
    assert node.pending is not None
    return node.pending.since_s
