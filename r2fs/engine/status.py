"""Status: frozen views of what is owed, and waiting for it to be sent.

Owns:  what `status`, `flush` and a stop show and wait for.
Never: hands out live tables.
Locks: every public method takes Core.lock, and waits on Core.changed.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import nsmallest

from r2fs.engine.core import Core
from r2fs.engine.ledger import Ledger
from r2fs.engine.node import DOUBTFUL, Node
from r2fs.engine.tree import Tree
from r2fs.engine.writeback import WriteBack
from r2fs.model.records import OwedDelete, QueueView, TransferView
from r2fs.model.states import SENDING, State

SHOWN = 100  # transfers in a view: the ones on their way, then the oldest
PROGRESS_S = 0.25  # how often a waiter is told, and looks without a change
SHARE = 10  # a look at a hundred thousand files takes a while, under the lock: then not before so many whiles
LOOK_S = 0.01  # below this, every change is looked at

CLOSING_S = 1.0  # from FLUSH, which close() waits for, to RELEASE, which it does not

WAITED_FOR = frozenset({State.QUEUED}) | SENDING  # DIRTY waits for its program, PARKED for a person


class Status:
    def __init__(self, core: Core, tree: Tree, ledger: Ledger, writeback: WriteBack) -> None:
        self._core = core
        self._tree = tree
        self._ledger = ledger
        self._writeback = writeback

    def view(self) -> QueueView:
        with self._core.lock:
            now = self._core.clock.monotonic()
            owing = [node for node in self._ledger.owing.values() if not self._writeback.rests(node)]
            oldest = nsmallest(
                SHOWN,
                owing,
                key=lambda node: (not node.sending, node.owed.first_owed_s if node.owed else now),
            )
            conflicts = sorted(self._tree.path(node) for node in self._tree.conflicts())
            return QueueView(
                files=len(owing),
                bytes=sum(node.owed.size for node in owing if node.owed and node.owed.staged),
                deletes=sum(row.watch_until_s is None for row in self._ledger.deletes.values()),
                active=len(self._writeback.active),
                parked=sum(node.state is State.PARKED for node in owing),
                conflicts=tuple(conflicts),
                hidden=self._tree.hidden,
                directory_objects=tuple(sorted(self._tree.own_bytes(), key=lambda one: one.key)),
                oldest_s=max((now - node.owed.first_owed_s for node in owing if node.owed), default=0.0),
                transfers=tuple(self._transfer(node, now) for node in oldest),
                uploaded=self._writeback.outcomes.uploaded,
                uploaded_bytes=self._writeback.outcomes.uploaded_bytes,
                failed=self._writeback.outcomes.failures,
                last_error=self._writeback.outcomes.last_error,
            )

    def _transfer(self, node: Node, now: float) -> TransferView:
        owed = node.owed
        assert owed is not None
        transfer = owed.transfer
        took = now - transfer.since_s if transfer else 0.0
        return TransferView(
            path=self._tree.path(node),
            state=owed.state.value,
            size=owed.size,
            sent=min(transfer.sent, owed.size) if transfer else 0,
            rate=transfer.sent / took if transfer and took > 0 else 0.0,
            age_s=now - owed.first_owed_s,
            reason=owed.reason,
        )

    def wait(
        self,
        nodes: list[Node] | None,
        timeout_s: float | None,
        progress: Callable[[QueueView], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Until these nodes (None: everything) are in the bucket. False: something is left."""
        clock, core = self._core.clock, self._core
        deadline = None if timeout_s is None else clock.monotonic() + timeout_s
        told_s, told_took_s = float("-inf"), 0.0
        with core.lock:
            self._writeback.hurry(True)
        try:
            while True:
                with core.lock:
                    began = clock.monotonic()
                    if not self._left(nodes):
                        return True
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
                self._writeback.hurry(False)

    def retry(self, nodes: list[Node]) -> int:
        """What is parked at and below `nodes` goes out once more; how many files that are.

        What may be torn or damaged goes only where it is named itself: a person has looked at it.
        """
        released = 0
        with self._core.lock:
            for named in nodes:
                for node in self._tree.walk(named):
                    owed = node.owed
                    if owed is None or owed.state is not State.PARKED:
                        continue
                    if owed.reason in DOUBTFUL and node is not named:
                        continue
                    node.sync_failed = False
                    self._writeback.release(node)
                    released += 1
        return released

    def _left(self, nodes: list[Node] | None) -> bool:
        if nodes is None:
            return (
                any(self._is_waited_for(node) for node in self._ledger.owing.values())
                or bool(self._writeback.active)
                or any(self._is_due(row) for row in self._ledger.deletes.values())
            )
        return any(self._is_waited_for(below) for node in nodes for below in self._tree.walk(node))

    def _is_due(self, row: OwedDelete) -> bool:
        """Not the old name of a file that a program has open since its rename, or that is parked."""
        node = self._ledger.owing.get(row.after_ino) if row.after_ino is not None else None
        waits = node is not None and not self._writeback.rests(node)
        return row.watch_until_s is None and (not waits or (node is not None and self._is_waited_for(node)))

    def _is_waited_for(self, node: Node) -> bool:
        if node.state in WAITED_FOR:
            return not self._writeback.rests(node)
        # The kernel tells of the last close() a moment after that has returned.
        return node.writers > 0 and self._core.clock.monotonic() - node.flushed_s < CLOSING_S
