"""Ledger: what this host owes the bucket; each change goes to the journal first, then to memory.

Owns:  every Owed record, the pending deletes, and the indexes that order them.
Never: sends anything (`writeback/queue.py`); moves names (`inodes/table.py`).
Locks: every method is called with Core.lock held; takes the journal's inside.
Keys:  rows have them as the bucket spells them; the indexes compare them as R2 does, in NFC.
Fails: NoSpace or StateDamaged from the journal: memory is unchanged then.
       ImpossibleTransition: a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypedDict, TypeVar, Unpack

from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.session_record import remember
from r2fs.engine.inodes.stat import facts_of, pin
from r2fs.engine.pending.delete_index import DeleteIndex, Refusal, prefixes
from r2fs.engine.pending.transaction import Transactions
from r2fs.engine.pending.waiting import Waiting
from r2fs.model.keys import SYMLINK_SUFFIX, nfc
from r2fs.model.metadata import Facts, remembered
from r2fs.model.pending import Durability, Pending, Staged, State, Writes
from r2fs.model.ranges import Range
from r2fs.model.records import PendingDelete, PendingInode, Proof, Version
from r2fs.model.transitions import interrupted_changed, with_staged, written

LATE_ATTEMPT_S = 600.0  # an attempt whose end nobody saw may still appear: R2 drops an idle body after 15 s
REMEMBER_DELETES = 10_000  # done deletes kept, so that a LIST that began before them is not believed

T = TypeVar("T")


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
    def __init__(self, core: Core, waiting: Waiting, staging_garbage: Callable[[str, Node], None]) -> None:
        """`staging_garbage` is called for each staged file whose row is gone, after the commit."""
        self._core = core
        self._waiting = waiting
        self._staging_garbage = staging_garbage
        self._journal = core.journal
        self._transactions = Transactions(core.journal)
        self.transaction = self._transactions.transaction  # several changes together; nests
        self.on_undo, self.then = self._transactions.on_undo, self._transactions.then
        self.inodes: dict[int, Node] = {}  # by inode number
        self._index = DeleteIndex()
        self.deletes, self.refused = self._index.rows, self._index.parked  # by seq
        self.claimed: set[int] = set()  # seqs of deletes on their way
        self._cleared: dict[str, str] = {}  # key: ETag of a version that is no late attempt
        self._done: dict[str, tuple[str, int]] = {}  # key: (ETag, tick) of deletes carried out
        self._done_below: dict[str, int] = {}  # prefix: tick of the last delete carried out below it
        self._base_users: dict[str, set[Node]] = {}  # nodes whose base is this key and that may need it
        self.staged_bytes = 0  # bytes in staging, by the rows: what the dirty limit is measured against

    # ------------------------------------------------------------------ inodes
    def begin(
        self, node: Node, key: str, changed: bool, expected_etag: str | None, staged: Staged | None = None
    ) -> Pending:
        """A value for an inode of which nothing is pending yet: the first transition and `commit` put it in place."""
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

        None: nothing is pending any more, and the row goes.
        """
        if pending is None:
            self._drop(node, change)
            return
        old = node.pending
        if old is None and "base_metadata" not in change:
            change["base_metadata"] = _stored(node, pending.key)
        if old is not None and node.is_dir and pending.key != old.key:
            change["base_metadata"] = None
        with self.transaction():
            if old is None:
                self._void_refused(pending.key)
            own, _ = ranges = self._own_ranges(node, pending.staged)
            if pending.staged is not None:
                pending = with_staged(pending, _as_listed(pending.staged, own is not None))
            self._journal.put_inode(self._row(node, pending, change, *ranges))
            self._remember(node, pending, change)

    def note(self, node: Node, pending: Pending) -> None:
        """Put in place a value that differs in what the row does not tell, or need not tell yet."""
        before = node.pending
        assert before is not None
        self.staged_bytes += pending.size - before.size
        node.pending = pending

    def note_write(self, node: Node, size: int) -> None:
        """A write is about to be answered: a row that lists ranges lists what it wrote, even where all bytes are
        here by now. One that lists none would be taken for that of a file nobody wrote to."""
        pending = node.pending
        if pending is not None and pending.staged is not None and pending.staged.lists_ranges:
            self.commit(node, with_staged(pending, replace(pending.staged, size=size)))

    def note_open_write(self, node: Node) -> None:
        """A program writes through this mount: fstat need not tell."""
        pending = node.pending
        if pending is not None and pending.staged is not None and pending.staged.baseline is Writes.NONE:
            self.note(node, with_staged(pending, written(pending.staged)))

    def _drop(self, node: Node, change: InodeChange) -> None:
        """The row goes; the staged file that it named stays until the disk knows (`content/staging_gc.py`)."""
        staged = node.pending.staged if node.pending else None
        with self.transaction():
            self._journal.drop_inode(node.ino)
            if staged is not None:
                self._journal.put_staging_garbage(staged.file)
                self.then(lambda: self._staging_garbage(staged.file, node))
            self._remember(node, None, change)

    def adopt(self, node: Node, pending: Pending, base_metadata: Facts | None) -> None:
        """At start: the row is in the journal already."""
        self._remember(node, pending, {"base_metadata": base_metadata})

    def row(self, node: Node, pending: Pending) -> PendingInode:
        """The journal row of a node as it is now."""
        return self._row(node, pending, {}, *self._own_ranges(node, pending.staged))

    def _row(
        self,
        node: Node,
        pending: Pending,
        change: InodeChange,
        own: tuple[Range, ...] | None,
        base_limit: int,
    ) -> PendingInode:
        """The row with `change`, fields of the node about to change."""
        staged, checkpoint = pending.staged, pending.checkpoint
        proof = staged.baseline if staged is not None and isinstance(staged.baseline, Proof) else None
        changed = pending.changed
        if pending.open and proof is not None:  # fstat tells whether it has changed since
            changed = checkpoint is not None and checkpoint.changed
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

    def _own_ranges(self, node: Node, staged: Staged | None) -> tuple[tuple[Range, ...] | None, int]:
        """The ranges that the row is to list, and how many bytes of the base count; None: all bytes are here."""
        content = node.content
        if staged is None:
            return None, 0
        if content is not None and (staged.lists_ranges or not content.complete):
            known = content.own_ranges()
            if known is not None:
                return tuple(known[0]), known[1]
        return None, staged.base_limit

    def _remember(self, node: Node, pending: Pending | None, change: InodeChange) -> None:
        before, mtime_known, base_metadata = node.pending, node.mtime_known, node.base_metadata
        earlier = {name: getattr(node, name) for name in change}
        pinned, modified_ns = node.pinned, node.modified_ns

        def undo() -> None:
            self._set(node, before, earlier)
            node.mtime_known, node.pinned, node.modified_ns = mtime_known, pinned, modified_ns
            node.base_metadata = base_metadata

        self.on_undo(undo)
        self._set(node, pending, change)

    def _set(self, node: Node, pending: Pending | None, change: Mapping[str, object]) -> None:
        self._index_base(node, add=False)
        self.staged_bytes -= node.pending.size if node.pending else 0
        for name, value in change.items():
            setattr(node, name, value)
        pin(node, change)
        if "base" in change:
            node.modified_ns = None  # this host wrote it: the next listing tells when
        node.mtime_known = node.mtime_known or "mtime_ns" in change
        node.pending = pending
        if pending is None:
            node.base_metadata = None
            self.inodes.pop(node.ino, None)
            remember(self._core, node)  # what its row said, nothing else says now
        else:
            self.inodes[node.ino] = node
            self.staged_bytes += pending.size
        self._index_base(node, add=pending is not None or node.handles > 0)
        self._waiting.inode_settled(node.ino)
        self._core.changed.notify_all()

    # ------------------------------------------------------------------ who needs what
    def pending_at(self, key: str) -> Node | None:
        """The node that is to be the object at `key`. Looks at all that is owed: for rare occasions."""
        key = nfc(key)
        return next((n for n in self.inodes.values() if n.pending and nfc(n.pending.key) == key), None)

    def _index_base(self, node: Node, add: bool) -> None:
        if node.base is None:
            return
        key = nfc(node.base.key)
        if add:
            self._base_users.setdefault(key, set()).add(node)
        elif (users := self._base_users.get(key)) is not None:
            users.discard(node)
            if not users:
                del self._base_users[key]

    def watch_base(self, node: Node) -> None:
        """An open node whose bytes are not all here: its base's key must not be written or deleted."""
        self._index_base(node, add=True)

    def settle(self, node: Node) -> None:
        """What waited for the inode is looked at again."""
        self._waiting.inode_settled(node.ino)

    def unwatch_base(self, node: Node) -> None:
        if node.pending is None:
            self._index_base(node, add=False)
        self._waiting.inode_settled(node.ino)

    def based_on(self, key: str) -> list[Node]:
        """Nodes whose base is the object at `key`, as far as anybody may still need it."""
        return list(self._base_users.get(nfc(key), ()))

    def keep_bytes(self, key: str, by: Node | None) -> None:
        """The object at `key` is about to go. Who has it open under another name and has not written to it would
        count on it again at the last close: on what is here, from now on."""
        for node in self.based_on(key):
            pending = node.pending
            if node is by or pending is None or pending.checkpoint is None or pending.checkpoint.changed:
                continue
            self.commit(node, interrupted_changed(pending))

    def needing(self, key: str, other_than: Node | None = None) -> Node | None:
        """A node that would lose bytes if the object at `key` were replaced or deleted now."""
        for node in self._base_users.get(nfc(key), ()):
            if node is not other_than and node.needs_base:
                return node
        return None

    # ------------------------------------------------------------------ deletes
    def add_delete(
        self, key: str, etag: str | None, after: Node | None = None, watch: bool = False
    ) -> PendingDelete:
        until = self._core.clock.time() + LATE_ATTEMPT_S if watch else None
        row = PendingDelete(self._journal.next_seq(), key, etag, after.ino if after else None, until)
        with self.transaction():
            if not watch:
                self._void_refused(key, etag)
            self._journal.put_delete(row)
            self.adopt_delete(row)
            self.on_undo(lambda: self._index.remove(row.seq))
        return row

    def adopt_delete(self, row: PendingDelete) -> None:
        self._index.add(row)

    def park_delete(self, seq: int, reason: str) -> None:
        """Stop trying a delete that the bucket refuses. What it was meant for is no longer hidden."""
        self._index.park(seq, Refusal(reason, self._core.clock.monotonic()))
        self._core.changed.notify_all()

    def release_delete(self, seq: int) -> PendingDelete:
        """Make a parked delete an ordinary one; the caller schedules it."""
        return self._index.release(seq)

    def is_refused(self, key: str, etag: str) -> bool:
        """True if a parked delete is meant for this very version."""
        return any(self.deletes[seq].etag == etag for seq in self._index.parked_at(key))

    def _void_refused(self, key: str, etag: str | None = None) -> None:
        """Drop parked deletes at `key` (of version `etag`; None: of any): the name that they were meant for was
        shown again, and is used or deleted anew. In a transaction."""
        for seq in self._index.parked_at(key):
            if etag is None or self.deletes[seq].etag == etag:
                self.drop_delete(seq)

    def drop_delete(self, seq: int, tick: int | None = None) -> None:
        """It is done (`tick` says when, for listings on their way), void, or taken back."""
        row, refusal = self.deletes[seq], self.refused.get(seq)
        with self.transaction():
            self._journal.drop_delete(seq)
            if tick is not None and row.etag is not None:
                self._journal.attributes.forget(row.key, row.etag)
            self.on_undo(lambda: self._index.add(row, refusal))
            self._index.remove(seq)
        if tick is not None and row.etag is not None:
            self.carried_out(row.key, row.etag, tick)
        self._core.changed.notify_all()

    def has_deletes(self, key: str) -> bool:
        """Is anything pending at that very key?"""
        return self._index.any_at(key)

    def has_deleted(self, key: str) -> bool:
        """True if a delete at or below `key` (without a slash at the end) is pending or was carried out lately."""
        at = (key, key + SYMLINK_SUFFIX, key + "/")
        return any(self._index.any_at(one) or nfc(one) in self._done for one in at) or self.deletes_below(
            at[2], 0
        )

    def take_over_deletes(self, key: str) -> str | None:
        """A new object is to be at `key`: deletes not yet on their way are void; the ETag to expect there.

        Overwriting is one request where delete and put would be two, and leaves no moment
        in which the name is missing.
        """
        expected_etag = None
        for seq in self._index.at(key):
            row = self.deletes[seq]
            if seq not in self.claimed and row.watch_until_s is None:
                expected_etag = row.etag or expected_etag
                self.drop_delete(seq)
        return expected_etag

    def watched(self, key: str) -> PendingDelete | None:
        """The row that waits for an attempt at `key` whose end nobody has seen yet."""
        for seq in self._index.at(key):
            if self.deletes[seq].watch_until_s is not None:
                return self.deletes[seq]
        return None

    def hides(self, key: str, etag: str | None, began: int) -> bool:
        """Is the delete of this version pending, or done since tick `began`?"""
        for seq in self._index.at(key):
            if self.deletes[seq].etag == etag and seq not in self.refused:
                return True
        done = self._done.get(nfc(key))
        return done is not None and done[1] > began and done[0] == etag

    def is_suspect(self, key: str, etag: str) -> bool:
        """May this object be a late attempt of this host's? Who sees it asks by HEAD, and calls `cleared`."""
        return self.watched(key) is not None and self._cleared.get(nfc(key)) != etag

    def cleared(self, key: str, etag: str) -> None:
        """This version is none, or is one whose delete is pending by itself."""
        self.then(lambda: _remember_last(self._cleared, nfc(key), etag))

    def suspect_again(self, key: str) -> None:
        """A node leaves the key: an attempt of its that was there by right is none any more."""
        self._cleared.pop(nfc(key), None)

    def carried_out(self, key: str, etag: str, tick: int) -> None:
        """This version was deleted: listings that began before do not know."""
        _remember_last(self._done, nfc(key), (etag, tick))
        for prefix in prefixes(key):
            _remember_last(self._done_below, prefix, tick)

    def deletes_below(self, prefix: str, began: int) -> bool:
        """Are there deletes below it that are pending, or done since tick `began`?"""
        return self._index.any_below(prefix) or self._done_below.get(nfc(prefix), 0) > began


def _as_listed(staged: Staged, lists_ranges: bool) -> Staged:
    """As its row says. Once that lists no ranges, nobody has synced those that were downloaded."""
    durability = staged.durability
    if durability is Durability.SYNCED_OWN and not lists_ranges:
        durability = Durability.VOLATILE
    return replace(staged, lists_ranges=lists_ranges, durability=durability)


def _stored(node: Node, key: str) -> Facts | None:
    """Metadata that the bucket is known to have beside the node's bytes, or beside a directory's marker that stays."""
    there = node.base
    if node.listing is not None:
        there = node.listing.marker if node.listing.marker and node.listing.marker.key == key else None
    return facts_of(node) if node.metadata_known and there is not None else None


def _remember_last(memory: dict[str, T], key: str, value: T) -> None:
    """The newest last; beyond REMEMBER_DELETES the oldest goes."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > REMEMBER_DELETES:
        del memory[next(iter(memory))]
