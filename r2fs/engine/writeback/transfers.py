"""Transfers: frozen views of pending uploads and deletes.

Owns:  the view of an upload or delete, and the list of all in a scope: the part of the mount that a command names.
Never: hands out live tables.
Locks: methods named _locked need Core.lock; `pages` takes the lock for PAGE views at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r2fs.engine.inodes.inode import Node, is_below
from r2fs.engine.inodes.table import Tree
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.model.keys import SYMLINK_SUFFIX, nfc
from r2fs.model.pending import SENDING, State
from r2fs.model.records import PendingDelete
from r2fs.model.views import TransferView

PAGE = 200  # views made in a hold of the lock

# The order of views: on their way, waiting for a person, the rest.
RANK = {**dict.fromkeys((state.value for state in SENDING), 0), State.PARKED.value: 1}


class Scope:
    """The inodes and deletes of named paths. A removed path has keys, and no node. With Core.lock held.

    `nodes`: of the named paths that exist; `keys`: of all named paths, without a slash at the end.
    """

    def __init__(self, tree: Tree, nodes: Sequence[Node], keys: Sequence[str]) -> None:
        self._tree = tree
        self.nodes = nodes
        self._exact = frozenset(nfc(key) for key in keys) | frozenset(
            nfc(key) + SYMLINK_SUFFIX for key in keys
        )
        self._below = tuple(nfc(key) + "/" for key in keys)

    def walk(self) -> Iterator[Node]:
        """Yield all nodes that may have pending state."""
        for node in self.nodes:
            yield from self._tree.walk_nodes(node)

    def has(self, row: PendingDelete) -> bool:
        """True for a delete at or below a named path, or of the old name of a renamed node."""
        key = nfc(row.key)
        if key in self._exact or key.startswith(self._below):
            return True
        above = self._tree.find(row.after_ino) if row.after_ino is not None else None
        while above is not None and above not in self.nodes:
            above = above.parent
        return above is not None


class Transfers:
    def __init__(self, records: Records, queue: UploadQueue) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._queue = queue

    def upload_locked(self, node: Node, now: float) -> TransferView:
        """View of a pending inode. `now`: Clock.monotonic()."""
        self._core.assert_held()
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
            failures=pending.retry.failures,
        )

    def delete_locked(self, seq: int, now: float) -> TransferView:
        """View of a pending delete, parked or not; the age counts from the parking."""
        self._core.assert_held()
        row, refusal = self._pending.deletes.rows[seq], self._pending.deletes.parked.get(seq)
        path = row.key.removeprefix(self._core.settings.bucket.prefix)
        if refusal is None:
            return TransferView(path, "delete", State.QUEUED.value, 0, 0, 0.0, 0.0, None)
        return TransferView(
            path, "delete", State.PARKED.value, 0, 0, 0.0, now - refusal.since_s, refusal.reason
        )

    def pages(self, scope: Scope | None) -> Iterator[tuple[TransferView, ...]]:
        """Yield all pending uploads, then all pending deletes, in `scope` (None: anywhere): on their way, parked, oldest
        first. Watches for late uploads are left out."""
        with self._core.lock:
            nodes = [
                (RANK.get(node.state.value, len(RANK)), node.pending.since_s, node.ino)
                for node in self._pending.inodes.values()
                if node.pending is not None
                and not self._queue.is_local_only_locked(node)
                and (scope is None or any(is_below(node, top) for top in scope.nodes))
            ]
            seqs = [
                (row.seq not in self._pending.deletes.parked, row.seq)
                for row in self._pending.deletes.rows.values()
                if row.watch_until_s is None and (scope is None or scope.has(row))
            ]
        inos = [ino for _, _, ino in sorted(nodes)]
        for at in range(0, len(inos), PAGE):
            yield self._uploads(inos[at : at + PAGE])
        ordered = [seq for _, seq in sorted(seqs)]
        for at in range(0, len(ordered), PAGE):
            yield self._deletes(ordered[at : at + PAGE])

    def _uploads(self, inos: list[int]) -> tuple[TransferView, ...]:
        """Views of the inodes still pending."""
        with self._core.lock:
            now = self._core.clock.monotonic()
            found = (self._pending.inodes.get(ino) for ino in inos)
            return tuple(self.upload_locked(node, now) for node in found if node is not None)

    def _deletes(self, seqs: list[int]) -> tuple[TransferView, ...]:
        with self._core.lock:
            now = self._core.clock.monotonic()
            return tuple(self.delete_locked(seq, now) for seq in seqs if seq in self._pending.deletes.rows)
