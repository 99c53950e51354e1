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
from typing import Any, TypeVar

from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node, Pending
from r2fs.engine.inodes.session_record import remember
from r2fs.engine.inodes.stat import facts_of, pin
from r2fs.engine.pending.delete_index import DeleteIndex, Refusal, prefixes
from r2fs.engine.pending.transaction import Transactions
from r2fs.model.keys import SYMLINK_SUFFIX, nfc
from r2fs.model.metadata import Facts, remembered
from r2fs.model.records import PendingDelete, PendingInode
from r2fs.model.states import UNSEALED, Event, State, after

LATE_ATTEMPT_S = 600.0  # an attempt whose end nobody saw may still appear: R2 drops an idle body after 15 s
REMEMBER_DELETES = 10_000  # done deletes kept, so that a LIST that began before them is not believed

T = TypeVar("T")

NODE_FIELDS = frozenset({"base", "mode", "uid", "gid", "mtime_ns", "extra", "content_type", "target"})


class PendingStore:
    def __init__(self, core: Core) -> None:
        self._core = core
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
        self.on_settled: Callable[[Node], None] = lambda node: (
            None
        )  # told when others may have waited for a node
        self.on_staging_garbage: Callable[[str, Node], None] = lambda staged, node: (
            None
        )  # told of a file without a row
        self.staged_bytes = 0  # bytes in staging, by the rows: what the dirty limit is measured against

    # ------------------------------------------------------------------ inodes
    def apply(self, node: Node, event: Event, **changes: Any) -> State:
        """Move `node` along the state table, with changes of Owed's fields and of NODE_FIELDS.

        A first CREATE, OPEN_WRITE or RETARGET needs at least key, changed and expected_etag.
        """
        old = node.pending
        start = old.state if old else None if event is Event.CREATE else State.CLEAN
        state = after(start, event, old.before if old else None)
        if event is Event.RETARGET and old is not None and old.before is not None:
            # Where nothing was written, the last close leads back to a state that still owes this.
            changes["before"] = after(old.before, Event.RETARGET)
        facts = {name: changes.pop(name) for name in NODE_FIELDS & changes.keys()}
        if state in (State.CLEAN, State.GONE):
            self._drop(node, facts)
            return state
        if old is None:
            pending = Pending(
                state=state,
                seq=self._journal.next_seq(),
                pending_since_s=self._core.clock.monotonic(),
                stored=_stored(node, changes["key"]),
                **{"boot": self._core.staging.boot, **changes},
            )
        else:
            pending = replace(old, state=state, **changes)
            if node.is_dir and pending.key != old.key:
                pending.stored = None
        with self.transaction():
            if old is None:
                self._void_refused(pending.key)
            self._write(node, pending, facts)
        return state

    def update(self, node: Node, **changes: Any) -> None:
        """Changes of an owing node that are no event."""
        assert node.pending is not None
        facts = {name: changes.pop(name) for name in NODE_FIELDS & changes.keys()}
        pending = replace(node.pending, **changes)
        self._write(node, pending, facts)

    def set_aside(self, node: Node, **changes: Any) -> None:
        """A QUEUED node is PARKED without an attempt. UPLOADING without one, nobody would come by again."""
        with self.transaction():
            self.apply(node, Event.CLAIM)
            self.apply(node, Event.REFUSED, **changes)

    def note_write(self, node: Node, size: int) -> None:
        """A program is about to be told that it wrote. Its bytes may all be here by now; what counts is what
        the row says: one that lists no range would be taken for that of a file nobody wrote to."""
        if node.pending is not None and node.pending.in_ranges:
            self.update(node, size=size)

    def acquit(self, node: Node) -> None:
        """At start: its row turns out to owe nothing, the bucket has it as it is."""
        self._drop(node, {})

    def _drop(self, node: Node, facts: Mapping[str, Any]) -> None:
        """The row goes; the staged file that it named stays until the disk knows (`content/staging_gc.py`)."""
        staged = node.pending.staged if node.pending else None
        with self.transaction():
            self._journal.drop_inode(node.ino)
            if staged is not None:
                self._journal.put_staging_garbage(staged)
                self.then(lambda: self.on_staging_garbage(staged, node))
            self._remember(node, None, facts)

    def adopt(self, node: Node, pending: Pending) -> None:
        """At start: the row is in the journal already."""
        self._remember(node, pending, {})

    def measured(self, node: Node, size: int) -> None:
        """The staged file's own size rules over its row's. In memory alone."""
        assert node.pending is not None and node.pending.staged is not None
        self.staged_bytes += size - node.pending.size
        node.pending.size = size

    def row(self, node: Node, pending: Pending, facts: Mapping[str, Any] | None = None) -> PendingInode:
        """The journal row of a node; `facts` are fields of the node about to change."""
        facts = facts or {}
        content = node.content
        own = None
        base_limit = pending.base_limit
        if pending.staged and content is not None and (pending.in_ranges or not content.complete):
            known = content.own_ranges()
            if known is not None:
                own, base_limit = tuple(known[0]), known[1]
        return PendingInode(
            ino=node.ino,
            key=pending.key,
            kind=node.kind,
            state=pending.state.value,
            before=pending.before.value if pending.before else None,
            seq=pending.seq,
            mode=facts.get("mode", node.mode),
            uid=facts.get("uid", node.uid),
            gid=facts.get("gid", node.gid),
            mtime_ns=facts.get("mtime_ns", node.mtime_ns if node.mtime_known else None),
            extra=facts.get("extra", node.extra),
            content_type=facts.get("content_type", node.content_type) or ("" if node.known else None),
            base=facts.get("base", node.base),
            expected_etag=pending.expected_etag,
            # Of a file that is open for writing: whether it was before. Times tell whether it has been since.
            changed=pending.was_changed
            if pending.state in UNSEALED and pending.proof is not None
            else pending.changed,
            staged=pending.staged,
            size=pending.size,
            own=own,
            base_limit=base_limit,
            proof=pending.proof,
            sealed_at_s=pending.sealed_at_s,
            boot=pending.boot,
            synced=pending.synced,
            reason=pending.reason,
            conflict_of=pending.conflict_of,
            target=facts.get("target", node.target),
            st_ino=node.st_ino or None,
            stored=None if pending.stored is None else remembered(pending.stored),
        )

    def _write(self, node: Node, pending: Pending, facts: Mapping[str, Any]) -> None:
        row = self.row(node, pending, facts)
        if pending.in_part and row.own is None:  # the rest is here meanwhile, and nobody has synced that
            pending = replace(pending, synced=False, in_part=False)
            row = self.row(node, pending, facts)
        pending.in_ranges = row.own is not None
        with self.transaction():
            self._journal.put_inode(row)
            self._remember(node, pending, facts)

    def _remember(self, node: Node, pending: Pending | None, facts: Mapping[str, Any]) -> None:
        before, known = node.pending, node.mtime_known
        earlier = {name: getattr(node, name) for name in facts}
        pinned, modified_ns = node.pinned, node.modified_ns

        def undo() -> None:
            self._set(node, before, earlier)
            node.mtime_known, node.pinned, node.modified_ns = known, pinned, modified_ns

        self.on_undo(undo)
        self._set(node, pending, facts)

    def _set(self, node: Node, pending: Pending | None, facts: Mapping[str, Any]) -> None:
        self._index_base(node, add=False)
        self.staged_bytes -= node.pending.size if node.pending and node.pending.staged else 0
        for name, value in facts.items():
            setattr(node, name, value)
        pin(node, facts)
        if "base" in facts:
            node.modified_ns = None  # this host wrote it: the next listing tells when
        node.mtime_known = node.mtime_known or "mtime_ns" in facts
        node.pending = pending
        if pending is None:
            self.inodes.pop(node.ino, None)
            remember(self._core, node)  # what its row said, nothing else says now
        else:
            self.inodes[node.ino] = node
            self.staged_bytes += pending.size if pending.staged else 0
        self._index_base(node, add=pending is not None or node.handles > 0)
        self.on_settled(node)
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

    def unwatch_base(self, node: Node) -> None:
        if node.pending is None:
            self._index_base(node, add=False)
        self.on_settled(node)

    def based_on(self, key: str) -> list[Node]:
        """Nodes whose base is the object at `key`, as far as anybody may still need it."""
        return list(self._base_users.get(nfc(key), ()))

    def keep_bytes(self, key: str, by: Node | None) -> None:
        """The object at `key` is about to go. Who has it open under another name and has not written to it would
        count on it again at the last close: on what is here, from now on."""
        for node in self.based_on(key):
            pending = node.pending
            if (
                node is not by
                and pending is not None
                and pending.state in UNSEALED
                and not pending.was_changed
            ):
                self.update(node, was_changed=True)

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


def _stored(node: Node, key: str) -> Facts | None:
    """Metadata that the bucket is known to have beside the node's bytes, or beside a directory's marker that stays."""
    there = node.base
    if node.listing is not None:
        there = node.listing.marker if node.listing.marker and node.listing.marker.key == key else None
    return facts_of(node) if node.known and there is not None else None


def _remember_last(memory: dict[str, T], key: str, value: T) -> None:
    """The newest last; beyond REMEMBER_DELETES the oldest goes."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > REMEMBER_DELETES:
        del memory[next(iter(memory))]
