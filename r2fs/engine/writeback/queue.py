"""Write-back: sends what the ledger owes, in an order that loses nothing.

Owns:    when each owed inode goes and what it waits for; the threads' loop, how long they give way to a
         program that makes files, and leave a bucket alone that does not answer.
Never:   sends bytes itself (`writeback/upload.py`), says what an answer means (`writeback/resolve.py`), or deletes
         (`writeback/delete_batches.py`); drops a staged byte that the bucket does not have.
Threads: `work` is the main of each upload thread, which hand what moves no bytes to the threads of `copies`.
         `take_due`, `next_due`, `stop` and `work` take the lock themselves; the rest is called with it held.
Locks:   Core.lock (30) for every decision; none while a request is on its way. What was decided
         is checked again after: the node may have been renamed, written or unlinked meanwhile.
Fails:   an attempt's error ends in a state: try again later, conflict, or PARKED. Where the journal cannot
         be written, what was decided comes again.

Two renames that wait for each other (a swap; `writeback/dependencies.py` has the rules) are resolved by
bringing one's bytes here.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Condition

from r2fs.disk.body import Gate
from r2fs.disk.durable import local_error
from r2fs.engine.content.durability import DiskSync
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.local_only import LocalOnly
from r2fs.engine.content.reader import Reader
from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import facts_of
from r2fs.engine.inodes.table import Tree
from r2fs.engine.inodes.throughput import Throughput
from r2fs.engine.jobs import JobQueue
from r2fs.engine.pending.store import InodeChange, PendingStore
from r2fs.engine.pending.upload_job import UploadJob
from r2fs.engine.writeback.attempts import Attempts
from r2fs.engine.writeback.bringing import Materializing
from r2fs.engine.writeback.delete_batches import Deletes
from r2fs.engine.writeback.dependencies import Dependencies, keys_of
from r2fs.engine.writeback.implied_directories import ImpliedDirectories
from r2fs.engine.writeback.kept_metadata import KeptMetadata
from r2fs.engine.writeback.resolve import Resolver
from r2fs.engine.writeback.schedule import DELETE, PUT, Item, Pace, Schedule
from r2fs.engine.writeback.upload import Uploader
from r2fs.model.errors import (
    LocalError,
    NoSpace,
    PreconditionFailed,
    R2fsError,
    StateDamaged,
    Throttled,
    Unavailable,
)
from r2fs.model.keys import nfc, printable
from r2fs.model.pending import UNSYNCED, InFlight, Pending
from r2fs.model.records import PendingDelete
from r2fs.model.states import UNSEALED, State
from r2fs.model.transitions import claimed, expecting, parked, released

log = logging.getLogger(__name__)

OUTAGE_FIRST_S, OUTAGE_CAP_S = 0.5, 15.0  # how long nothing is tried after "no answer": recovery is quick
RETRY_FIRST_S, RETRY_CAP_S = 1.0, 300.0  # per file; outlasts an outage without hammering the bucket
MAPPED_S = 1.0  # how often a file is asked for that a program closed and still has mapped for writing
PROBE_FIRST_S, PROBE_CAP_S = 60.0, 3600.0  # a parked file whose cause may pass: each costs a request
JOURNAL_RETRY_S = 2.0  # the journal could not be written (a full disk): when it is tried again
SAY_AGAIN_S = 60.0  # how often the same failure of the disk is said
THROTTLED_S = 1.1  # R2 takes one write of a key a second

# Each upload takes the interpreter's time from the programs' requests. While a program closes file after file:
QUIET_S = 0.1  # a pause of this length ends the burst, and uploads begin
GIVE_WAY_S = 5.0  # a burst that lasts longer is not waited for

COPY_THREADS = 16  # copies inside the bucket at once: a directory's rename is thousands of them

Task = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A task that moves no bytes between here and the bucket."""

    run: Task

    def __call__(self) -> None:
        self.run()


@dataclass(slots=True, eq=False)
class Upload:
    """An attempt on its way, and what stops and measures it."""

    node: Node
    attempt: str
    key: str
    gate: Gate  # closed by the next writer: then no further byte is read
    bytes: Throughput = field(default_factory=Throughput)  # written by the sending threads without the lock


def _is_transient(pending: Pending) -> bool:
    return pending.hold is not None and pending.hold.transient


class WriteBack:
    def __init__(
        self,
        core: Core,
        tree: Tree,
        pending_store: PendingStore,
        contents: Contents,
        reader: Reader,
        sender: Uploader,
    ):
        # constant
        self._core = core
        self._tree = tree
        self._pending = pending_store
        self._contents = contents
        self._uploader = sender
        self.attempts = Attempts(core, pending_store)
        self.durability = DiskSync(core, pending_store, contents)
        self._kept_metadata = KeptMetadata(core, pending_store, self.attempts)
        self.resolver = Resolver(core, tree, pending_store, contents, self.attempts, self.durability, self)
        self.local = LocalOnly(core, pending_store, contents, reader)
        self.implied = ImpliedDirectories(core, tree, pending_store, self.attempts, self.rests)
        self._materializing = Materializing(
            core, pending_store, contents, reader, self.local, self.durability, self.resolver, self
        )
        self.copies = JobQueue()  # for COPY_THREADS threads
        # guarded by: Core.lock
        self._schedule = Schedule()
        self._pace = Pace(core.clock, core.store.limits.key_write_interval_s)
        self._dependencies = Dependencies(pending_store, self.local.stays_here, self.implied.pending_above)
        self.deletes = Deletes(
            core,
            tree,
            pending_store,
            self.attempts,
            self.durability,
            self._schedule,
            self._dependencies,
            self,
        )
        self._work = Condition(core.lock)
        self._hurry = 0  # drains under way: nothing waits for its delay
        self._not_before = 0.0  # Clock.monotonic(): the outage's backoff
        self._outage_s = 0.0
        self._burst_s, self._scheduled_s = 0.0, float("-inf")  # Clock.monotonic(): see GIVE_WAY_S
        self._said, self._said_s = ("", ""), 0.0  # what was last said of the journal, Clock.monotonic()
        self.uploads: dict[int, Upload] = {}  # on their way, by inode number
        self._copying = 0  # copies handed on, and not ended
        self._unconcluded: list[
            tuple[float, Task]
        ] = []  # answers that the journal could not take yet, and when
        pending_store.on_settled, contents.may_be_copied = self.settled, self.attempts.may_be_copied
        self.on_unsealed: Callable[[Node], None] = lambda node: None  # files.py: seals it

    # ------------------------------------------------------------------ what the verbs call
    def schedule(self, node: Node) -> None:
        """A QUEUED node is due after the delay; one that has waited for its deadline, now."""
        pending = node.pending
        if pending is not None and pending.state is State.PARKED and _is_transient(pending):
            self.probe_later(node)
        if pending is None or pending.state is not State.QUEUED or self.rests(node):
            return
        settings, now = self._core.settings, self._core.clock.monotonic()
        if now - self._scheduled_s >= QUIET_S:
            self._burst_s = now
        self._scheduled_s = now
        delay = 0.0 if self.hurried else settings.upload_delay_s
        delay = max(0.0, min(delay, pending.since_s + settings.upload_deadline_s - now))
        self.add(Item(PUT, node.ino), now + delay)

    def rests(self, node: Node) -> bool:
        """Does it stay here, and need nothing of the bucket any more?"""
        return self.local.stays_here(node) and node.pending is not None and not node.pending.lists_ranges

    def add(self, item: Item, due: float) -> None:
        self._schedule.add(item, due)
        if self._schedule.next_due() == due:  # else whoever waits for an earlier one comes by
            self._work.notify()

    def settled(self, node: Node) -> None:
        """Whoever waits for the node is due. With Core.lock held."""
        if self._schedule.release(("ino", node.ino), self._core.clock.monotonic()):
            self._work.notify_all()

    # ------------------------------------------------------------------ the threads
    def work(self) -> None:
        while (task := self._next()) is not None:
            if isinstance(task, _Copy) and self._hand_on(task):
                continue
            try:
                task()
            except Exception:  # a defect: said, and the others go on
                log.exception("an upload thread met an unexpected error")

    def _hand_on(self, task: _Copy) -> bool:
        """To a thread for copies, if one is free: they take round trips, and no bandwidth."""
        with self._core.lock:
            if self._copying >= COPY_THREADS:
                return False
            self._copying += 1

        def run() -> None:
            try:
                task()
            finally:
                with self._core.lock:
                    self._copying -= 1

        if self.copies.submit(run):
            return True
        with self._core.lock:
            self._copying -= 1
        return False

    def stop(self) -> None:
        """Threads return after what they are at; what is on its way is cut off."""
        with self._core.lock:
            self._core.stopping = True
            self._core.ended.set()
            for upload in self.uploads.values():
                upload.gate.close()
            self._work.notify_all()
            self._core.changed.notify_all()
        self.copies.stop(COPY_THREADS)

    def _next(self) -> Task | None:
        with self._core.lock:
            while not self._core.stopping:
                due = self._quiet_at()
                if due is None:
                    task = self.take_due()
                    if task is not None:
                        return task
                    due = self.next_due()
                self._work.wait(None if due is None else max(0.0, due - self._core.clock.monotonic()))
            return None

    def _quiet_at(self) -> float | None:
        """Clock.monotonic() until when uploads give way to a program; None: they need not."""
        now = self._core.clock.monotonic()
        if self.hurried or now - self._burst_s >= GIVE_WAY_S or now - self._scheduled_s >= QUIET_S:
            return None
        return self._scheduled_s + QUIET_S

    def next_due(self) -> float | None:
        """Clock.monotonic() when `take_due` may have something; None: nothing is waited for."""
        with self._core.lock:
            due = self._schedule.next_due()
            times = [when for when, _ in self._unconcluded]
            return min([*times, max(due, self._not_before)] if due is not None else times, default=None)

    def take_due(self) -> Task | None:
        """The next thing that is due, claimed for whoever calls: the task is to be run. None: nothing is."""
        with self._core.lock:
            now = self._core.clock.monotonic()
            if self._unconcluded and self._unconcluded[0][0] <= now:
                self._work.notify()  # there may be more that is due
                return self._unconcluded.pop(0)[1]
            while now >= self._not_before and (item := self._schedule.take(now)) is not None:
                task = None
                try:
                    task = self._prepare(item, now)
                except (NoSpace, LocalError) as error:
                    self._later(item, error)
                if task is not None:
                    self._work.notify()  # there may be more that is due
                    return self._guarded(item, task)
            return None

    def _guarded(self, item: Item, task: Task) -> Task:
        """The task; where the journal cannot be written, it comes again."""

        def run() -> None:
            try:
                task()
            except (NoSpace, LocalError) as error:
                with self._core.lock:
                    self._later(item, error)

        return _Copy(run) if isinstance(task, _Copy) else run

    def _later(self, item: Item, error: Exception) -> None:
        self._say("not sent yet, will be tried again: %s", error)
        self.add(item, self._core.clock.monotonic() + JOURNAL_RETRY_S)

    def _say(self, text: str, error: Exception) -> None:
        """A disk that fails does so for every file, every two seconds: said once a minute."""
        now = self._core.clock.monotonic()
        if (said := (text, str(error))) != self._said or now - self._said_s >= SAY_AGAIN_S:
            self._said, self._said_s = said, now
            log.error(text, error)

    def seal_later(self, node: Node, error: Exception) -> None:
        """The last writer has closed, and the journal could not be told. With Core.lock held."""
        self._later(Item(PUT, node.ino), error)

    def _prepare(self, item: Item, now: float) -> Task | None:
        """What to do for a due item; None: nothing any more, or blocked."""
        if item.verb == DELETE:
            rows = self.deletes.prepare(item, now)
            return partial(self.deletes.carry_out, rows) if rows else None
        node = self._pending.inodes.get(item.number)
        if node is None or node.pending is None:
            return None
        if node.pending.state in UNSEALED and not node.writers:
            return lambda: self.on_unsealed(node)
        if node.pending.state is State.PARKED and _is_transient(node.pending):
            self._pending.commit(node, released(node.pending, keep_reason=True))
        # It may have been renamed since it was due.
        if node.pending.state is not State.QUEUED or self.rests(node):
            return None
        if node.sync_failed or node.pending.doubt is not None:  # what parks it had no room at its seal
            self.resolver.park_queued(node, UNSYNCED if node.sync_failed else str(node.pending.reason))
            return None
        try:
            content = self._contents.of(node) if node.pending.changed and node.pending.staged else None
        except StateDamaged as error:
            self.resolver.park_queued(node, str(error))
            return None
        if content is not None and (not content.complete or node.pending.lists_ranges):
            return partial(self._materializing.complete, node)
        if self.local.is_coming(node):
            return self._materializing.task(node)
        blocker = self._dependencies.put_blocker(node)
        if blocker is not None:
            if self._dependencies.in_a_ring(node, self._materializing.coming):
                return self._materializing.task(node)
            self._schedule.block(item, blocker)
            return None
        if self.implied.may_do_without(node):
            if self.implied.is_kept(node):
                self.implied.drop(node)
                return None
            if (child := self.implied.awaited(node)) is not None:  # released by each change of the child
                self._schedule.block(item, ("ino", child.ino))
                return None
        if (free := self._pace.free_at(node.pending.key)) > now:
            self._schedule.add(item, free)
            return None
        # A delete of what an earlier inode left at the key would take this one's object, too, where
        # both have the same bytes and so the same ETag: overwriting what it was meant for does its work.
        if self._pending.has_deletes(node.pending.key):
            with self._pending.transaction():
                left_there = self._pending.take_over_deletes(node.pending.key)
                if (
                    left_there is not None and node.pending.expected_etag is None
                ):  # else it knows of a newer one there
                    self._pending.commit(node, expecting(node.pending, left_there))
        self._pending.keep_bytes(node.pending.key, by=node)
        fd = None
        if content is not None:
            fd = self._contents.sealed_fd(node)
            if fd is None:  # a program closed it and still has it mapped: its end is not known yet
                self._schedule.add(item, now + MAPPED_S)
                return None
        try:
            claim = self._claim(node, fd)
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise
        attempt = partial(self._attempt, node, claim)
        return _Copy(attempt) if claim.copy else attempt

    # ------------------------------------------------------------------ one attempt
    def _claim(self, node: Node, fd: int | None) -> UploadJob:
        pending = node.pending
        assert pending is not None
        body = None
        if node.carries_body or node.is_dir:
            body = os.fsencode(node.target) if node.target is not None else b""
        copy = not pending.changed and node.base is not None
        size, change = None, InodeChange()
        if fd is not None:
            stat = os.fstat(fd)  # a mapping may have written after the last close
            size, change = stat.st_size, InodeChange(mtime_ns=stat.st_mtime_ns)
        with self._pending.transaction():
            resumed = self._uploader.resumable(node.ino, pending.key, fd)
            attempt = self.attempts.begin(node, pending.key, resumed, node.base if copy else None)
            self._pending.commit(node, claimed(pending, InFlight(attempt, pending.key), size), **change)
        self.implied.needs_object(node)
        self._dependencies.begin(keys_of(node))
        upload = self.uploads[node.ino] = Upload(node, attempt, pending.key, Gate())
        self._core.crash_point("claimed")

        def sent(count: int) -> None:
            upload.bytes.add(count, self._core.clock.monotonic())

        return UploadJob(
            node.ino, node.kind, pending.key, node.name, attempt, pending.expected_etag, facts_of(node),
            node.known or node.base is None, node.base_metadata, node.base, copy,
            body, -1 if fd is None else fd, size or 0, upload.gate, sent, self._contents.edits(node),
        )  # fmt: skip

    def _attempt(self, node: Node, claim: UploadJob) -> None:
        begun = False
        try:
            self.durability.before_replacing([claim.key], by=node)
            self._kept_metadata.before_replacing(claim.key, by=node)
            begun = True
            sent = self._uploader.send(claim)
            self._core.crash_point("sent")
        except PreconditionFailed as error:
            self._conclude(node, claim, lambda why=error: self.resolver.refuted(node, claim, why))  # type: ignore[misc]
        except OSError as error:
            ours = local_error(error, claim.key)
            self._conclude(node, claim, lambda: self.resolver.failed(node, claim, ours, begun))
        except R2fsError as error:
            self._conclude(node, claim, lambda why=error: self.resolver.failed(node, claim, why, begun))  # type: ignore[misc]
        except Exception as error:  # a defect: said, and the file is sent again
            log.exception("%s: the upload met an unexpected error", printable(claim.key))
            again = Unavailable(f"{printable(claim.key)}: {error!r}")
            self._conclude(node, claim, lambda: self.resolver.failed(node, claim, again, begun))
        else:
            self._conclude(node, claim, lambda: self.resolver.stored(node, claim, sent.version, sent.facts))

    def _conclude(self, node: Node, claim: UploadJob, decide: Task) -> None:
        """What the answer means. Where the journal cannot be written, the attempt stays open until it can."""
        concluded = True
        try:
            decide()
        except (NoSpace, LocalError) as error:
            with self._core.lock:
                self._say("an upload has ended, and the journal could not be told yet: %s", error)
            concluded = False
        finally:
            with self._core.lock:
                if concluded:
                    if claim.fd >= 0:
                        os.close(claim.fd)
                    self._over(node, claim)
                else:
                    again = self._core.clock.monotonic() + JOURNAL_RETRY_S
                    self._unconcluded.append((again, lambda: self._conclude(node, claim, decide)))
                    self._work.notify()

    def _over(self, node: Node, claim: UploadJob) -> None:
        if (upload := self.uploads.get(node.ino)) is not None and upload.attempt == claim.attempt:
            del self.uploads[node.ino]
        self.over({claim.key, claim.base.key} if claim.copy and claim.base else {claim.key})
        self._pace.wrote(claim.key)
        if node.content is not None and not node.handles and not node.sending:
            self._contents.closed(node)

    def over(self, keys: Iterable[str]) -> None:
        """No request for these keys is on its way any more: what waited for that is due."""
        now = self._core.clock.monotonic()
        for key in keys:
            self._dependencies.end([key])
            self._schedule.release(("key", nfc(key)), now)
        self._work.notify_all()
        self._core.changed.notify_all()

    def stop_upload(self, node: Node) -> None:
        """The node is about to be written to, or loses its name: no further byte of an attempt is read."""
        if (upload := self.uploads.get(node.ino)) is not None:
            upload.gate.close()

    # ------------------------------------------------------------------ trying again
    def retry_later(self, node: Node, error: Exception) -> None:
        """Another attempt after a backoff of this file's own."""
        pending = node.pending
        if pending is None or pending.state is not State.QUEUED:
            return
        wait = min(RETRY_CAP_S, RETRY_FIRST_S * 2 ** min(pending.retry.failures, 10)) * random.uniform(
            0.5, 1.0
        )
        wait = max(wait, THROTTLED_S) if isinstance(error, Throttled) else wait
        self.add(Item(PUT, node.ino), self._core.clock.monotonic() + wait)

    def probe_later(self, node: Node) -> None:
        """A parked file whose cause may have passed by then."""
        assert node.pending is not None
        wait = min(PROBE_CAP_S, PROBE_FIRST_S * 2 ** min(node.pending.retry.failures - 1, 10))
        self.add(Item(PUT, node.ino), self._core.clock.monotonic() + wait * random.uniform(0.75, 1.0))

    def seal_doubt(self, node: Node) -> None:
        """What was torn or damaged is so still, whatever was written into it: parked again. With Core.lock."""
        pending = node.pending
        if pending is not None and pending.state is State.QUEUED and pending.hold and pending.doubt:
            self._pending.commit(node, parked(pending, pending.hold))

    def release(self, node: Node) -> None:
        """A parked file goes out once more: a person says so, or its cause may have passed. With Core.lock."""
        assert node.pending is not None
        self._pending.commit(node, released(node.pending))
        self.schedule(node)

    def outage(self) -> None:
        """The bucket did not answer, or refuses everything: nothing is tried for a while."""
        self._outage_s = min(OUTAGE_CAP_S, max(OUTAGE_FIRST_S, self._outage_s * 2))
        self._not_before = self._core.clock.monotonic() + self._outage_s * random.uniform(0.5, 1.0)

    def missed(self, rows: list[PendingDelete], error: R2fsError) -> None:
        """Deletes were not carried out, for what is no matter of theirs."""
        self.resolver.failures.of_deletes((row.seq for row in rows), error)
        self.outage()

    def gone(self, keys: Iterable[str]) -> None:
        """A file that stays here began as one of these objects: nothing of it is there any more."""
        for key in keys:
            for node in self._pending.based_on(key):
                if self.rests(node):
                    with suppress(R2fsError):  # a disk that is full: it costs a look at each request there
                        self._pending.commit(node, node.pending, base=None)

    def recovered(self) -> None:
        self._outage_s = 0.0
        self.resolver.failures.answered()

    # ------------------------------------------------------------------ draining
    @property
    def hurried(self) -> bool:
        return self._hurry > 0

    def hurry(self, on: bool) -> None:
        """Nothing waits for its delay while somebody drains, and an outage's end is looked for at once."""
        self._hurry += 1 if on else -1
        if on:
            now = self._core.clock.monotonic()
            self._not_before = min(self._not_before, now)
            self._schedule.hasten(now)
            self._work.notify_all()
