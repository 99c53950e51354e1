"""Upload queue: when each pending inode and delete is due, and which uploads are on their way.

Owns:  due times, rebuilt from the journal at start; the pace of each key; the back-off of each file; how long uploads
       give way to a program that makes files; the rate of each upload on its way.
Never: sends, or decides the meaning of an answer; knows no thread.
Locks: methods named _locked need Core.lock, and so do the private ones; `next_due` takes it.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from r2fs.disk.body import Gate
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import PUT, Item, Token
from r2fs.engine.writeback.implied_directories import ImpliedDirectories
from r2fs.engine.writeback.schedule import Dependencies, Failures, Pace, Schedule
from r2fs.model.errors import R2fsError, Throttled
from r2fs.model.keys import nfc
from r2fs.model.pending import Pending, State
from r2fs.model.ports import THROTTLED_S
from r2fs.model.records import PendingDelete
from r2fs.model.transitions import parked, released

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_CAP_S = 1.0, 300.0  # per file; outlasts an outage without hammering the bucket
PROBE_FIRST_S, PROBE_CAP_S = 60.0, 3600.0  # a parked file with a transient cause: each attempt is billed
JOURNAL_RETRY_S = 2.0  # after a failed write of the journal (a full disk)
REPEAT_LOG_S = 60.0  # least time between two log lines of the same disk failure
# Small files wait for round trips, large ones for bandwidth: more of them at once are only slower each.
LARGE, LARGE_UPLOADS = 8 << 20, 4  # bytes; least number at once, else a quarter of the threads

# Each upload takes the interpreter's time from the programs' requests. While a program closes file after file:
BURST_S = 0.02  # two files closed within this time begin a burst
QUIET_S = 0.1  # a pause of this length ends the burst, and uploads begin
GIVE_WAY_S = 5.0  # uploads wait for the end of a burst this long at most

MARK_S = 1.0  # between two marks
MARKS = 9  # the latest: the rate is that of eight seconds
BUFFERS_MAX = 32 << 20  # bytes in the buffers of a few connections, at most
STALLED_S = 5.0  # without progress: no rate

Task = Callable[[], None]


class Throughput:
    """Bytes of an upload that have left this host, and their rate. `add` in any sending thread, without a lock.

    A byte counts as sent when it is in a socket's buffer. Buffers, the receiver's included, take megabytes at once and
    then as much as the line carries. So the rate is the median over the seconds after the first, and bytes of the first
    second beyond that rate count as still buffered.
    """

    def __init__(self) -> None:
        self.sent = 0  # bytes, in buffers or beyond
        self._begun_s = 0.0  # of the first byte; times are Clock.monotonic()
        self._last_s = 0.0  # of the last byte
        self._first: tuple[float, int] | None = None  # the first mark
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)  # the first and later marks

    def add(self, count: int, now_s: float) -> None:
        if not self.sent:
            self._begun_s = now_s
        self.sent += count
        self._last_s = now_s
        if now_s - (self._marks[-1][0] if self._marks else self._begun_s) >= MARK_S:
            self._first = self._first or (now_s, self.sent)
            self._marks.append((now_s, self.sent))

    def rate(self, now_s: float, size: int) -> float:
        """Return bytes a second; 0 while unknown or stalled."""
        if self.sent < size and now_s - self._last_s >= STALLED_S:
            return 0.0
        return self._rate()

    def _rate(self) -> float:
        slopes = [(b - a) / (until - since) for (since, a), (until, b) in pairwise(list(self._marks))]
        return median(slopes) if slopes else 0.0

    def gone(self, now_s: float, size: int) -> int:
        """Estimate the bytes of `size` that have left this host; never all: only the answer proves that."""
        rate = self._rate()
        if not rate or self._first is None:
            return 0
        first_s, swallowed = self._first
        buffered = min(max(0.0, swallowed - rate * (first_s - self._begun_s)), BUFFERS_MAX)
        drained = rate * (now_s - self._last_s) if self.sent >= size else 0.0
        return max(0, min(int(self.sent - buffered + drained), size - 1))


@dataclass(slots=True, eq=False)
class Upload:
    """An attempt on its way, with its means to stop and to measure."""

    node: Node
    attempt: str
    key: str
    size: int  # bytes of its body
    gate: Gate  # closed by the next writer: then no further byte is read
    bytes: Throughput = field(default_factory=Throughput)  # written by the sending threads without the lock


def is_transient(pending: Pending) -> bool:
    return pending.hold is not None and pending.hold.transient


class UploadQueue:
    def __init__(self, records: Records) -> None:
        # constant
        self._core = core = records.core
        self._pending = records.pending
        self.waiting = records.pending.waiting
        # guarded by: Core.lock
        self.uploads: dict[int, Upload] = {}  # on their way, by inode number
        self.failures = Failures(core, records.pending)
        self.implied = ImpliedDirectories(records, self.is_local_only_locked)
        self.dependencies = Dependencies(records, self.implied)
        self.pace = Pace(core.clock, core.store.limits.key_write_interval_s)
        self.schedule = Schedule(core, records.pending, self.failures)
        self._drains = 0  # under way: due times have no delay
        self._burst_s: float | None = None  # Clock.monotonic(): begin of the burst, see GIVE_WAY_S
        self._scheduled, self._scheduled_s = 0, float("-inf")  # the last inode, Clock.monotonic()
        self._logged, self._logged_s = ("", ""), 0.0  # the last disk failure in the log, Clock.monotonic()
        # Tasks that the journal could not take yet, and Clock.monotonic() of their next try.
        self._postponed: list[tuple[float, Task]] = []

    # ------------------------------------------------------------------ due times
    def schedule_locked(self, node: Node) -> None:
        """Make a QUEUED node due after the delay; past its deadline, now."""
        self._core.assert_held()
        pending = node.pending
        if pending is not None and pending.state is State.PARKED and is_transient(pending):
            self.probe_later_locked(node)
        if pending is None or pending.state is not State.QUEUED or self.is_local_only_locked(node):
            return
        settings, now = self._core.settings, self._core.clock.monotonic()
        self._note_burst(node, now)
        delay = 0.0 if self.draining else settings.upload_delay_s
        delay = max(0.0, min(delay, pending.since_s + settings.upload_deadline_s - now))
        self.add_locked(Item(PUT, node.ino), now + delay)

    def _note_burst(self, node: Node, now: float) -> None:
        """A burst begins with a directory, which its first file may keep in the bucket, or with the second of two files:
        a file alone, saved and renamed perhaps, has no pause."""
        since_s = now - self._scheduled_s
        if since_s >= QUIET_S:
            self._burst_s = None
        if self._burst_s is None and (node.is_dir or (since_s < BURST_S and node.ino != self._scheduled)):
            self._burst_s = now
        self._scheduled, self._scheduled_s = node.ino, now

    def schedule_all_locked(self) -> None:
        """Schedule each pending node under changed settings: `local_patterns` may match its name no more."""
        self._core.assert_held()
        for node in list(self._pending.inodes.values()):
            self.schedule_locked(node)

    def is_local_only_locked(self, node: Node) -> bool:
        """True for a file that stays on this host and needs nothing of the bucket any more."""
        self._core.assert_held()
        return node.ino in self._pending.tally().local

    def add_locked(self, item: Item, due: float) -> None:
        self._core.assert_held()
        if self.schedule.add(item, due):  # else the waiting thread has an earlier time already
            self.waiting.changed.notify()

    def take_locked(self, now: float, bucket: str | None = None) -> Item | None:
        """Remove and return the item due longest (of `bucket`, if given); None: nothing is due, or the pause after an
        outage lasts."""
        self._core.assert_held()
        if self.waiting.released:
            self._add_released_locked(now)
        return self.schedule.take(now, bucket)

    def _add_released_locked(self, now: float) -> None:
        self._core.assert_held()
        for item in self.waiting.take_released():
            self.schedule.add(item, now)

    def next_due(self) -> float | None:
        """Clock.monotonic() of the next due item or task; None: the queue is empty."""
        with self._core.lock:
            if self.waiting.released:
                self._add_released_locked(self._core.clock.monotonic())
            due = self.schedule.next_due()
            if not self._postponed:
                return due
            times = [when for when, _ in self._postponed]
            return min(times if due is None else [*times, due])

    def quiet_at_locked(self) -> float | None:
        """Clock.monotonic() of the end of the pause for a program that makes files; None: no pause."""
        self._core.assert_held()
        now = self._core.clock.monotonic()
        if self._burst_s is None or self.draining or now - self._burst_s >= GIVE_WAY_S:
            return None
        until_s = self._scheduled_s + QUIET_S
        return until_s if until_s > now else None

    # ------------------------------------------------------------------ failed writes of the journal
    def put_off_locked(self, item: Item, error: Exception) -> None:
        """Repeat `item` after JOURNAL_RETRY_S."""
        self.log_locked("not sent yet, will be tried again: %s", error)
        self.add_locked(item, self._core.clock.monotonic() + JOURNAL_RETRY_S)

    def postpone_locked(self, task: Task) -> None:
        """Run `task` after JOURNAL_RETRY_S."""
        self._core.assert_held()
        self._postponed.append((self._core.clock.monotonic() + JOURNAL_RETRY_S, task))
        self.waiting.changed.notify()

    def take_postponed_locked(self, now: float) -> Task | None:
        self._core.assert_held()
        if self._postponed and self._postponed[0][0] <= now:
            return self._postponed.pop(0)[1]
        return None

    def log_locked(self, text: str, error: Exception) -> None:
        """Log a disk failure at ERROR, the same one at most every REPEAT_LOG_S: each file meets it every two seconds."""
        self._core.assert_held()
        now = self._core.clock.monotonic()
        if (line := (text, str(error))) != self._logged or now - self._logged_s >= REPEAT_LOG_S:
            self._logged, self._logged_s = line, now
            log.error(text, error)

    # ------------------------------------------------------------------ on their way
    def begin_locked(self, upload: Upload, keys: Iterable[str]) -> None:
        """Note an attempt. No other request for `keys` begins before `over_locked`."""
        self._core.assert_held()
        self.dependencies.begin_locked(keys)
        self.uploads[upload.node.ino] = upload

    def crowded_locked(self, size: int) -> Token | None:
        """The key of a large upload that a file of `size` bytes has to wait for; None: no need."""
        self._core.assert_held()
        if size < LARGE:
            return None
        large = [upload.key for upload in self.uploads.values() if upload.size >= LARGE]
        places = max(LARGE_UPLOADS, self._core.settings.upload_threads // 4)
        return ("key", nfc(large[0])) if len(large) >= places else None

    def ended_locked(self, job: UploadJob) -> None:
        """Forget the attempt, unless a later one has taken its place, and end its requests."""
        self._core.assert_held()
        if (upload := self.uploads.get(job.ino)) is not None and upload.attempt == job.attempt:
            del self.uploads[job.ino]
        self.over_locked(job.keys)

    def over_locked(self, keys: Collection[str]) -> None:
        """The requests for these keys, in NFC, have ended: items that waited for them are due."""
        self._core.assert_held()
        self.dependencies.end_locked(keys)
        for key in keys if self.waiting.blocked else ():
            self.waiting.key_settled(key)
        self._core.changed.notify_all()

    def stop_upload_locked(self, node: Node) -> None:
        """Let the node's attempt read no further byte: the node is about to be written to, or loses its name."""
        self._core.assert_held()
        if (upload := self.uploads.get(node.ino)) is not None:
            upload.gate.close()

    def stop_all_locked(self) -> None:
        """Let no attempt read a further byte."""
        self._core.assert_held()
        for upload in self.uploads.values():
            upload.gate.close()
        self.waiting.changed.notify_all()

    # ------------------------------------------------------------------ further attempts
    def retry_later_locked(self, node: Node, error: Exception) -> None:
        """Make a QUEUED node due after its own back-off."""
        self._core.assert_held()
        pending = node.pending
        if pending is None or pending.state is not State.QUEUED:
            return
        wait_s = min(RETRY_CAP_S, RETRY_FIRST_S * 2 ** min(pending.retry.failures, 10))
        wait_s *= random.uniform(0.5, 1.0)
        if isinstance(error, Throttled):
            wait_s = max(wait_s, THROTTLED_S)
        self.add_locked(Item(PUT, node.ino), self._core.clock.monotonic() + wait_s)

    def probe_later_locked(self, node: Node) -> None:
        """Make a parked node with a transient cause due after its own back-off."""
        assert node.pending is not None
        wait_s = min(PROBE_CAP_S, PROBE_FIRST_S * 2 ** min(node.pending.retry.failures - 1, 10))
        self.add_locked(
            Item(PUT, node.ino), self._core.clock.monotonic() + wait_s * random.uniform(0.75, 1.0)
        )

    def keep_parked_locked(self, node: Node) -> None:
        """Park a closed node again whose bytes may be torn or damaged: bytes written beside them change nothing."""
        self._core.assert_held()
        pending = node.pending
        if pending is not None and pending.state is State.QUEUED and pending.hold and pending.doubt:
            self._pending.commit(node, parked(pending, pending.hold))

    def release_locked(self, node: Node) -> None:
        """Send a parked node once more, by a person's order."""
        self._core.assert_held()
        assert node.pending is not None
        self._pending.commit(node, released(node.pending))
        self.schedule_locked(node)

    def missed_locked(self, rows: list[PendingDelete], error: R2fsError) -> None:
        """Pause after deletes that failed for a reason of the whole bucket."""
        self.failures.of_deletes_locked(rows, error)
        self.failures.outage_locked(rows[0].key)

    def gone_locked(self, keys: Iterable[str]) -> None:
        """Drop the objects at `keys`, overwritten or deleted now, as bases of files that stay on this host."""
        self._core.assert_held()
        for key in keys:
            for node in self._pending.based_on(key):
                if self.is_local_only_locked(node):
                    with suppress(R2fsError):  # a full disk: each further request at the key looks again
                        self._pending.commit(node, node.pending, base=None)

    # ------------------------------------------------------------------ draining
    @property
    def draining(self) -> bool:
        return self._drains > 0

    def drain_locked(self, on: bool) -> None:
        """Begin or end a drain: due times have no delay, and a pause after an outage ends."""
        self._core.assert_held()
        self._drains += 1 if on else -1
        if on:
            now = self._core.clock.monotonic()
            self.failures.end_pause_locked()
            self.schedule.hasten(now)
            self.waiting.changed.notify_all()
