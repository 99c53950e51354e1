"""Pending store: the changes of each inode that the bucket lacks; written to the journal first, then to memory.

Owns:  every Pending, the index of the base objects that inodes need, and the upload items that wait for an inode or
       a key to be settled.
Never: sends a request (`writeback/queue.py`); moves a name (`inodes/table.py`).
Locks: Core.lock around every method; each change asserts that. Takes the journal's inside.
Keys:  in rows in the bucket's spelling; in the indexes in NFC, as R2 compares.
Fails: NoSpace or StateDamaged from the journal: memory is unchanged then.
       ImpossibleTransition: a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Condition
from typing import NamedTuple, TypedDict, Unpack

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node, remember
from r2fs.engine.inodes.stat import facts_of, pin
from r2fs.engine.pending.deletes import PendingDeletes
from r2fs.engine.pending.tally import Tally
from r2fs.model.keys import nfc
from r2fs.model.metadata import Facts, remembered
from r2fs.model.pending import OPEN_STATES, Durability, Pending, Staged, State, Writes
from r2fs.model.ranges import Range
from r2fs.model.records import PendingInode, Proof, Version
from r2fs.model.transitions import interrupted_changed, with_staged, written

DELETE, PUT = "delete", "put"


class Item(NamedTuple):
    """PUT of an inode, or DELETE of a row."""

    verb: str
    number: int  # inode number, or seq


Token = tuple[str, str | int]  # ("key", KEY) or ("ino", INO): must be settled before an item that waits


class Waiting:
    """Items of the upload queue that wait for an inode or a key."""

    def __init__(self, core: Core) -> None:
        self.changed = Condition(core.lock)  # an item may be due
        self.blocked: dict[Token, list[Item]] = {}
        self.released: list[Item] = []  # since the last `take_released`

    def block(self, item: Item, token: Token) -> None:
        """Delay `item` until `token` is settled."""
        self.blocked.setdefault(token, []).append(item)

    def inode_settled(self, ino: int) -> None:
        """Release the items that wait for the inode: each is looked at again."""
        self._release(("ino", ino))

    def key_settled(self, key: str) -> None:
        """Release the items that wait for the key, in NFC: no request for the key is on its way."""
        self._release(("key", key))

    def take_released(self) -> list[Item]:
        """Return the items released since the last call."""
        items, self.released = self.released, []
        return items

    def _release(self, token: Token) -> None:
        if items := self.blocked.pop(token, None):
            self.released += items
            self.changed.notify_all()


class InodeChange(TypedDict, total=False):
    """Fields of a Node that change together with its row."""

    base: Version | None
    mode: int | None
    uid: int | None
    gid: int | None
    mtime_ns: int
    extra: Mapping[str, str]
    content_type: str | None
    base_metadata: Facts | None


class PendingStore:
    def __init__(self, core: Core, staging_garbage: Callable[[str, Node], None]) -> None:
        """`staging_garbage` is called for each staged file after a commit has deleted the row."""
        # constant
        self._core = core
        self._journal = core.journal
        self._staging_garbage = staging_garbage
        self.transaction = core.journal.transaction  # several changes together; nests
        self.on_rollback, self.on_commit = core.journal.on_rollback, core.journal.on_commit
        self.deletes = PendingDeletes(core)
        self.waiting = Waiting(core)
        # guarded by: Core.lock
        self.inodes: dict[int, Node] = {}  # by inode number, oldest change first; changed by this class alone
        self._tally = Tally(core.settings.local_patterns)
        self._base_users: dict[str, set[Node]] = {}  # by key of the base: inodes that may need this object

    # ------------------------------------------------------------------ changes
    def begin(
        self, node: Node, key: str, changed: bool, expected_etag: str | None, staged: Staged | None = None
    ) -> Pending:
        """Return a value for an inode without pending state: a first transition and `commit` follow."""
        assert node.pending is None
        return Pending(
            key=key,
            seq=self._journal.next_seq(),
            state=State.CLEAN,
            changed=changed,
            expected_etag=expected_etag,
            since_s=self._core.clock.monotonic(),
            staged=staged,
        )

    def commit(self, node: Node, pending: Pending | None, **change: Unpack[InodeChange]) -> None:
        """Put `pending` in place, with changes of the inode's fields: the journal first, then memory, then effects.

        None: the inode is clean, and the row is deleted.
        """
        self._core.assert_held()
        if pending is None:
            self._drop(node, change)
            return
        old = node.pending
        if old is None or pending.state in OPEN_STATES:  # not by a close: the kernel does not say whose it is
            self._core.history.changed_locked(node.ino)
        if old is None and "base_metadata" not in change:
            change["base_metadata"] = _stored(node, pending.key)
        if old is not None and node.is_dir and pending.key != old.key:
            change["base_metadata"] = None
        with self.transaction:
            if old is None:
                self.deletes.void_parked(pending.key)
            own, base_limit = None, 0
            if pending.staged is not None:
                staged, own, base_limit = _listed(node, pending.staged)
                if staged is not pending.staged:
                    pending = with_staged(pending, staged)
            self._journal.put_inode(self._row(node, pending, change, own, base_limit))
            self._put(node, pending, change)

    def _drop(self, node: Node, change: InodeChange) -> None:
        """Delete the row; the staged file stays until the deletion is on the disk (`content/disk_space.py`)."""
        staged = node.pending.staged if node.pending else None
        with self.transaction:
            self._journal.drop_inode(node.ino)
            if staged is not None:
                self._journal.put_staging_garbage(staged.file)
                self.on_commit(lambda: self._staging_garbage(staged.file, node))
            self._put(node, None, change)

    def adopt(self, node: Node, pending: Pending, base_metadata: Facts | None) -> None:
        """Put in place, at start, the value of a journal row."""
        self._core.assert_held()
        self._set(node, pending, {"base_metadata": base_metadata})

    def note(self, node: Node, pending: Pending) -> None:
        """Put in place a value that differs only in fields that the row lacks, or may have later."""
        self._core.assert_held()
        before = node.pending
        assert before is not None
        self._tally.change(node, before, pending)
        node.pending = pending

    def note_write(self, node: Node, size: int) -> None:
        """Put a write into a row that lists ranges before the answer, even where no byte is missing any more.

        A row that lists none would be taken for that of a file without writes.
        """
        pending = node.pending
        if pending is not None and pending.staged is not None and pending.staged.lists_ranges:
            self.commit(node, with_staged(pending, pending.staged._replace(size=size)))

    def note_open_write(self, node: Node) -> None:
        """Record a write through this mount, which fstat need not show."""
        pending = node.pending
        if pending is not None and pending.staged is not None and pending.staged.baseline is Writes.NONE:
            self.note(node, with_staged(pending, written(pending.staged)))

    def _put(self, node: Node, pending: Pending | None, change: InodeChange) -> None:
        """Change memory, undone where the transaction fails; after the commit, the history has the event."""
        history, bases = self._core.history, (node.base, change.get("base", node.base))
        entry = history.entry_locked(node.ino, node.pending, pending, bases)
        before, mtime_known, base_metadata = node.pending, node.mtime_known, node.base_metadata
        earlier = {name: getattr(node, name) for name in change}
        pinned, modified_ns = node.pinned, node.modified_ns

        def undo() -> None:
            self._set(node, before, earlier)
            node.mtime_known, node.pinned, node.modified_ns = mtime_known, pinned, modified_ns
            node.base_metadata = base_metadata

        self.on_rollback(undo)
        self._set(node, pending, change)
        if entry is not None:
            self.on_commit(lambda: history.add(entry))

    def _set(self, node: Node, pending: Pending | None, change: Mapping[str, object]) -> None:
        if node.base is not None:
            self._index_base(node, node.base, add=False)
        for name, value in change.items():
            setattr(node, name, value)
        if node.pinned is not None:
            pin(node, change)
        if "base" in change:
            node.modified_ns = None  # of this host's object: the next listing has LastModified
        node.mtime_known = node.mtime_known or "mtime_ns" in change
        self._tally.change(node, node.pending, pending)
        node.pending = pending
        if pending is None:
            node.base_metadata = None
            self._core.history.settled_locked(node.ino)
            self.inodes.pop(node.ino, None)
            remember(self._core.memory, node)  # a successor finds no row of the inode
        else:
            self.inodes[node.ino] = node
        if node.base is not None:
            self._index_base(node, node.base, add=pending is not None or node.handles > 0)
        if self.waiting.blocked:
            self.waiting.inode_settled(node.ino)
        self._core.changed.notify_all()

    @property
    def staged_bytes(self) -> int:
        """Bytes in staging, by the rows: compared with the dirty limit."""
        return self._tally.staged_bytes

    def tally(self) -> Tally:
        """Return the sums over `inodes`, by the present settings."""
        self._core.assert_held()
        patterns = self._core.settings.local_patterns
        if self._tally.local_patterns != patterns:
            self._tally = Tally(patterns)
            for node in self.inodes.values():
                self._tally.change(node, None, node.pending)
        return self._tally

    def sort_by_age(self) -> None:
        """Put `inodes` in the order of their changes; rows of an earlier mount come from the root down."""
        self._core.assert_held()
        self.inodes = dict(sorted(self.inodes.items(), key=lambda item: _since_s(item[1])))

    # ------------------------------------------------------------------ rows
    def _row(
        self,
        node: Node,
        pending: Pending,
        change: InodeChange,
        own: tuple[Range, ...] | None,
        base_limit: int,
    ) -> PendingInode:
        """Return the journal row of a node with `change`, fields that are about to change."""
        staged, checkpoint = pending.staged, pending.checkpoint
        proof, changed = _evidence(pending)
        base_metadata = change.get("base_metadata", node.base_metadata)
        return PendingInode(
            ino=node.ino,
            key=pending.key,
            kind=node.kind,
            state=pending.state.value,
            before=checkpoint.state.value if checkpoint else None,
            seq=pending.seq,
            mode=change.get("mode", node.mode),
            uid=change.get("uid", node.uid),
            gid=change.get("gid", node.gid),
            mtime_ns=change.get("mtime_ns", node.mtime_ns if node.mtime_known else None),
            extra=change.get("extra", node.extra),
            content_type=change.get("content_type", node.content_type)
            or ("" if node.metadata_known else None),
            base=change.get("base", node.base),
            expected_etag=pending.expected_etag,
            changed=changed,
            staged=None if staged is None else staged.file,
            size=node.size if staged is None else staged.size,
            own=own,
            base_limit=base_limit,
            proof=proof,
            closed_at_s=pending.closed_at_s,
            boot=self._core.staging.boot if staged is None else staged.boot,
            synced=staged is not None and staged.synced,
            reason=pending.reason,
            conflict_of=pending.conflict_of,
            target=node.target,
            st_ino=node.st_ino or None,
            stored=None if base_metadata is None else remembered(base_metadata),
        )

    # ------------------------------------------------------------------ base objects
    def watch_base(self, node: Node) -> None:
        """Protect the base object of an open node with missing bytes."""
        self._core.assert_held()
        if node.base is not None:
            self._index_base(node, node.base, add=True)

    def unwatch_base(self, node: Node) -> None:
        """End `watch_base`; a pending node stays protected."""
        self._core.assert_held()
        if node.pending is None and node.base is not None:
            self._index_base(node, node.base, add=False)
        if self.waiting.blocked:
            self.waiting.inode_settled(node.ino)

    def based_on(self, key: str) -> list[Node]:
        """Return the nodes that may still need their base object at `key`."""
        return list(self._base_users.get(nfc(key), ())) if self._base_users else []

    def needing(self, key: str, other_than: Node | None = None) -> Node | None:
        """Return a node that would lose bytes if the object at `key` were replaced or deleted now."""
        for node in self._base_users.get(nfc(key), ()) if self._base_users else ():
            if node is not other_than and node.needs_base:
                return node
        return None

    def keep_bytes(self, key: str, by: Node | None) -> None:
        """Detach open, unmodified inodes from their base object at `key`, which is about to be overwritten (for the
        inode `by`) or deleted: an unchanged close must then upload the local bytes."""
        for node in self.based_on(key) if self._base_users else ():
            pending = node.pending
            if node is by or pending is None or pending.checkpoint is None or pending.checkpoint.changed:
                continue
            self.commit(node, interrupted_changed(pending))

    def pending_at(self, key: str) -> Node | None:
        """Return the node that is to be the object at `key`. Looks at every pending node: for rare cases."""
        key = nfc(key)
        return next((n for n in self.inodes.values() if n.pending and nfc(n.pending.key) == key), None)

    def _index_base(self, node: Node, base: Version, add: bool) -> None:
        if not (add or self._base_users):
            return
        key = nfc(base.key)
        if add:
            self._base_users.setdefault(key, set()).add(node)
        elif (users := self._base_users.get(key)) is not None:
            users.discard(node)
            if not users:
                del self._base_users[key]


def _since_s(node: Node) -> float:
    return node.pending.since_s if node.pending else 0.0


def _listed(node: Node, staged: Staged) -> tuple[Staged, tuple[Range, ...] | None, int]:
    """Return `staged` as in its row, the ranges that the row is to list (None: no byte is missing), and how many bytes
    of the base count. Without listed ranges, downloaded bytes count, which no fsync has covered."""
    content, own, base_limit = node.content, None, staged.base_limit
    if content is not None and (staged.lists_ranges or not content.complete):
        known = content.own_ranges()
        if known is not None:
            own, base_limit = tuple(known[0]), known[1]
    durability, lists_ranges = staged.durability, own is not None
    if durability is Durability.SYNCED_OWN and not lists_ranges:
        durability = Durability.VOLATILE
    if staged.lists_ranges != lists_ranges or staged.durability is not durability:
        staged = staged._replace(lists_ranges=lists_ranges, durability=durability)
    return staged, own, base_limit


def _evidence(pending: Pending) -> tuple[Proof | None, bool]:
    """Return the fstat baseline for the row, and whether the bytes differ from the base beside the evidence of fstat."""
    staged, checkpoint = pending.staged, pending.checkpoint
    if staged is None or not isinstance(staged.baseline, Proof):
        return None, pending.changed
    if pending.open:
        return staged.baseline, checkpoint is not None and checkpoint.changed
    return staged.baseline, pending.changed


def _stored(node: Node, key: str) -> Facts | None:
    """Return the metadata that the bucket is known to have beside the node's bytes, or with a directory's marker that
    stays."""
    there = node.base
    if node.listing is not None:
        there = node.listing.marker if node.listing.marker and node.listing.marker.key == key else None
    return facts_of(node) if node.metadata_known and there is not None else None
