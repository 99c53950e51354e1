"""Upload queue: when each pending inode and delete is due, what it waits for, and which uploads are on their way.

Owns:  due times, the pace of each key, the back-off of files and of the bucket, and how long uploads give way to a
       program that makes files.
Never: sends, or decides what an answer means; knows no thread.
Locks: every method is called with Core.lock held, but `next_due`, which takes it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from r2fs.disk.body import Gate
from r2fs.engine.content.local_only import LocalOnly
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.throughput import Throughput
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.waiting import PUT, Item, Token
from r2fs.engine.writeback.dependencies import Dependencies
from r2fs.engine.writeback.failures import Failures
from r2fs.engine.writeback.implied_directories import ImpliedDirectories
from r2fs.engine.writeback.schedule import Pace, Schedule
from r2fs.model.errors import R2fsError, Throttled
from r2fs.model.pending import Pending, State
from r2fs.model.ports import THROTTLED_S
from r2fs.model.records import PendingDelete
from r2fs.model.transitions import parked, released

log = logging.getLogger(__name__)

OUTAGE_FIRST_S, OUTAGE_CAP_S = 0.5, 15.0  # how long nothing is tried after "no answer": recovery is quick
RETRY_FIRST_S, RETRY_CAP_S = 1.0, 300.0  # per file; outlasts an outage without hammering the bucket
MAPPED_S = 1.0  # how often a file is asked for that a program closed and still has mapped for writing
PROBE_FIRST_S, PROBE_CAP_S = 60.0, 3600.0  # a parked file whose cause may pass: each costs a request
JOURNAL_RETRY_S = 2.0  # the journal could not be written (a full disk): when it is tried again
SAY_AGAIN_S = 60.0  # how often the same failure of the disk is said

# Each upload takes the interpreter's time from the programs' requests. While a program closes file after file:
QUIET_S = 0.1  # a pause of this length ends the burst, and uploads begin
GIVE_WAY_S = 5.0  # a burst that lasts longer is not waited for

Task = Callable[[], None]


@dataclass(slots=True, eq=False)
class Upload:
    """An attempt on its way, and what stops and measures it."""

    node: Node
    attempt: str
    key: str
    gate: Gate  # closed by the next writer: then no further byte is read
    bytes: Throughput = field(default_factory=Throughput)  # written by the sending threads without the lock


def is_transient(pending: Pending) -> bool:
    return pending.hold is not None and pending.hold.transient


class UploadQueue:
    def __init__(self, records: Records, local_only: LocalOnly) -> None:
        # constant
        self._core = core = records.core
        self._pending = records.pending
        self._local_only = local_only
        self.waiting = records.waiting
        # guarded by: Core.lock
        self.uploads: dict[int, Upload] = {}  # on their way, by inode number
        self.failures = Failures(core, records.pending)
        self.implied = ImpliedDirectories(records, self.rests)
        self.dependencies = Dependencies(records.pending, local_only.stays_here, self.implied.pending_above)
        self.pace = Pace(core.clock, core.store.limits.key_write_interval_s)
        self._schedule = Schedule()
        self._hurry = 0  # drains under way: nothing waits for its delay
        self._not_before = 0.0  # Clock.monotonic(): the outage's backoff
        self._outage_s = 0.0
        self._burst_s, self._scheduled_s = 0.0, float("-inf")  # Clock.monotonic(): see GIVE_WAY_S
        self._said, self._said_s = ("", ""), 0.0  # what was last said of the journal, Clock.monotonic()
        # Tasks that the journal could not take yet, and Clock.monotonic() when they are tried again.
        self._postponed: list[tuple[float, Task]] = []

    # ------------------------------------------------------------------ due times
    def schedule(self, node: Node) -> None:
        """A QUEUED node is due after the delay; one that has waited for its deadline, now."""
        pending = node.pending
        if pending is not None and pending.state is State.PARKED and is_transient(pending):
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
        """True for a file that stays on this host and needs nothing of the bucket any more."""
        return (
            self._local_only.stays_here(node) and node.pending is not None and not node.pending.lists_ranges
        )

    def add(self, item: Item, due: float) -> None:
        self._schedule.add(item, due)
        if self._schedule.next_due() == due:  # else a thread that waits for an earlier one looks again
            self.waiting.changed.notify()

    def drop(self, item: Item) -> None:
        self._schedule.remove(item)

    def block(self, item: Item, token: Token) -> None:
        """Until `token` is over."""
        self.waiting.block(item, token)

    def take(self, now: float) -> Item | None:
        """The item that is due the longest; None while the bucket does not answer, or nothing is due."""
        self._add_released(now)
        return self._schedule.take(now) if now >= self._not_before else None

    def _add_released(self, now: float) -> None:
        for item in self.waiting.released():
            self._schedule.add(item, now)

    def next_due(self) -> float | None:
        """Clock.monotonic() when there may be something to do; None: nothing is waited for."""
        with self._core.lock:
            self._add_released(self._core.clock.monotonic())
            due = self._schedule.next_due()
            times = [when for when, _ in self._postponed]
            return min([*times, max(due, self._not_before)] if due is not None else times, default=None)

    def quiet_at(self) -> float | None:
        """Clock.monotonic() until when uploads give way to a program; None: they need not."""
        now = self._core.clock.monotonic()
        if self.hurried or now - self._burst_s >= GIVE_WAY_S or now - self._scheduled_s >= QUIET_S:
            return None
        return self._scheduled_s + QUIET_S

    # ------------------------------------------------------------------ the journal cannot be written
    def put_off(self, item: Item, error: Exception) -> None:
        self.say("not sent yet, will be tried again: %s", error)
        self.add(item, self._core.clock.monotonic() + JOURNAL_RETRY_S)

    def postpone(self, task: Task) -> None:
        """Run once more when the journal may have room."""
        self._postponed.append((self._core.clock.monotonic() + JOURNAL_RETRY_S, task))
        self.waiting.changed.notify()

    def take_postponed(self, now: float) -> Task | None:
        if self._postponed and self._postponed[0][0] <= now:
            return self._postponed.pop(0)[1]
        return None

    def say(self, text: str, error: Exception) -> None:
        """A disk that fails does so for every file, every two seconds: said once a minute."""
        now = self._core.clock.monotonic()
        if (said := (text, str(error))) != self._said or now - self._said_s >= SAY_AGAIN_S:
            self._said, self._said_s = said, now
            log.error(text, error)

    # ------------------------------------------------------------------ on its way
    def begin(self, upload: Upload, keys: Iterable[str]) -> None:
        self.dependencies.begin(keys)
        self.uploads[upload.node.ino] = upload

    def ended(self, node: Node, attempt: str) -> None:
        if (upload := self.uploads.get(node.ino)) is not None and upload.attempt == attempt:
            del self.uploads[node.ino]

    def over(self, keys: Iterable[str]) -> None:
        """No request for these keys is on its way any more: what waited for that is due."""
        for key in keys:
            self.dependencies.end([key])
            self.waiting.key_settled(key)
        self.waiting.changed.notify_all()
        self._core.changed.notify_all()

    def stop_upload(self, node: Node) -> None:
        """The node is about to be written to, or loses its name: no further byte of an attempt is read."""
        if (upload := self.uploads.get(node.ino)) is not None:
            upload.gate.close()

    def stop_all(self) -> None:
        for upload in self.uploads.values():
            upload.gate.close()
        self.waiting.changed.notify_all()

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

    def keep_parked(self, node: Node) -> None:
        """Bytes that were torn or damaged are so still, whatever was written beside them: parked again."""
        pending = node.pending
        if pending is not None and pending.state is State.QUEUED and pending.hold and pending.doubt:
            self._pending.commit(node, parked(pending, pending.hold))

    def release(self, node: Node) -> None:
        """A parked file is sent once more: a person says so, or its cause may have passed."""
        assert node.pending is not None
        self._pending.commit(node, released(node.pending))
        self.schedule(node)

    def outage(self) -> None:
        """The bucket did not answer, or refuses everything: nothing is tried for a while."""
        self._outage_s = min(OUTAGE_CAP_S, max(OUTAGE_FIRST_S, self._outage_s * 2))
        self._not_before = self._core.clock.monotonic() + self._outage_s * random.uniform(0.5, 1.0)

    def missed(self, rows: list[PendingDelete], error: R2fsError) -> None:
        """Deletes were not carried out, for a reason that concerns the bucket."""
        self.failures.of_deletes((row.seq for row in rows), error)
        self.outage()

    def gone(self, keys: Iterable[str]) -> None:
        """The objects at `keys` were overwritten or deleted: no file that stays here can be read from them."""
        for key in keys:
            for node in self._pending.based_on(key):
                if self.rests(node):
                    with suppress(R2fsError):  # a disk that is full: it costs a look at each request there
                        self._pending.commit(node, node.pending, base=None)

    def recovered(self) -> None:
        self._outage_s = 0.0
        self.failures.answered()

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
            self.waiting.changed.notify_all()
