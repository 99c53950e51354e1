"""Hydration: downloads missing bytes of one Source into its local file.

Owns:    ranges under way, each downloaded once; how far a sequential reader is read ahead of; the wait of a reader.
Never:   sends a GET (`content/download.py`), or decides how many bytes may be on the disk (`content/streaming.py`).
Threads: every public method is thread-safe; downloads run on the threads of `jobs`.
Locks:   a Source's lock (35) is taken inside none. No request and no wait under it.
Fails:   Stale (the version is no longer in the bucket), ReadFailed (not here within `read_timeout`: transient errors
         are retried until then, others raise at once), NoSpace, LocalError, Interrupted, WouldWait.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from r2fs.disk.open_file import ContentClosed
from r2fs.engine.content import windows
from r2fs.engine.content.download import Downloader, as_read_error
from r2fs.engine.content.jobs import AHEAD, SLOW, URGENT, DownloadQueue
from r2fs.engine.content.source import Abandoned, Piece, Source
from r2fs.engine.content.streaming import Streams
from r2fs.engine.content.windows import Ahead, Sequence
from r2fs.engine.inodes.core import Core
from r2fs.model.errors import (
    NotPermitted,
    ObjectMissing,
    PreconditionFailed,
    R2fsError,
    ReadFailed,
)
from r2fs.model.flow import current
from r2fs.model.keys import printable
from r2fs.model.ports import Caller
from r2fs.model.ranges import Range
from r2fs.model.settings.program_rules import ProgramRule

log = logging.getLogger(__name__)

RESEND_S = 1.0  # pause before a failed range is requested again; interval at which a waiting reader looks
PIECE = 8 << 20  # bytes of one GET of a file that is downloaded whole
AT_ONCE = 4  # such GETs of one file under way


class Reader:
    """Requests missing ranges of one Source, and waits for them."""

    def __init__(self, core: Core, jobs: DownloadQueue, streams: Streams, downloader: Downloader) -> None:
        self._core = core
        self._jobs = jobs
        self._streams = streams
        self._downloader = downloader
        # set by any thread
        # the sequence that the last bulk read of a file's begin was in
        self._bulk: Sequence | None = None
        # GETs that the line had room for, by the file whose rate was last known
        self._room = windows.FAR_GETS

    def ensure(self, source: Source, start: int, stop: int, caller: Caller) -> None:
        """Return when [start, stop) is in the file, and request what a sequential reader needs next.

        Raises WouldWait, Stale, ReadFailed, Interrupted.
        """
        content = source.content
        if content.complete:
            return
        stop = min(stop, content.size)
        missing = bool(content.missing(start, stop))
        if missing:
            caller.about_to_fetch()
            content.fail(None)  # an earlier failure may be over
        lost = missing and self._is_wanting(source, start, stop)
        first, ahead = self._plan(source, start, stop, lost)
        if not missing:
            self._fetch(source, ahead.range, AHEAD, ahead)
            return
        with self._wanting(source, start, stop):
            self._fetch(source, first, URGENT)
            if lost:
                self._fetch(source, self._tail(source, start, first[1]), URGENT)
            self._fetch(source, ahead.range, AHEAD, ahead)
            self._wait(source, start, stop, caller)

    def restrained(self, source: Source, start: int, stop: int, caller: Caller, rule: ProgramRule) -> None:
        """As `ensure`, but no more is requested than the read, and that as the program's rule says.

        Raises NotPermitted for bytes that the rule does not let the program fetch.
        """
        content = source.content
        stop = min(stop, content.size)
        if not content.missing(start, stop):
            return
        if not rule.allows(start, content.size):
            refused = NotPermitted(
                f"{printable(source.version.key)}: byte {start} is not on this host, and [programs.{rule.name}] lets"
                f" the program fetch the first {rule.header} bytes alone; r2fs warm fetches all"
            )
            log.info("%s", refused)
            raise refused
        caller.about_to_fetch()
        content.fail(None)
        priority = SLOW if rule.slow else URGENT
        # A GET costs, too. By multiples: each read would request a little ahead otherwise.
        end = stop if rule.exact else min(-(-stop // windows.FIRST) * windows.FIRST, content.size)
        with self._wanting(source, start, stop):
            self._fetch(source, (start, end), priority)
            self._wait(source, start, stop, caller, priority)

    def whole(self, source: Source, caller: Caller, priority: int = URGENT) -> None:
        """Return when the content is complete. `caller` has been allowed to wait for the network. Raises as `ensure`."""
        if source.content.complete:
            return
        source.content.fail(None)
        size = source.content.size
        for begin in range(0, size, PIECE):
            self.piece(source, begin, size, caller, priority)

    def begin(self, source: Source) -> int:
        """Request the first pieces of a whole file, ahead of need; return the number of GETs."""
        stop = min(AT_ONCE * PIECE, source.content.size)
        self._fetch(source, (0, stop), AHEAD)
        return -(-stop // PIECE)

    def piece(self, source: Source, begin: int, size: int, caller: Caller, priority: int = URGENT) -> None:
        """Return when the PIECE from `begin` on is in the file of `size` bytes; AT_ONCE of them are under way."""
        self._fetch(source, (begin, min(begin + PIECE, size)), priority)
        if begin + PIECE < size:
            self._fetch(source, (begin + PIECE, min(begin + AT_ONCE * PIECE, size)), priority)
        self._wait(source, begin, min(begin + PIECE, size), caller, priority)

    def bring(self, source: Source, start: int, stop: int) -> None:
        """Download up to PIECE bytes in this thread, unless a reader has requested some. Errors go to readers."""
        with source.lock:
            if source.coming or source.content.missing(start, stop) != [(start, stop)]:
                return
            piece = Piece(start, stop, urgent=False)
            source.add([piece])
        self._download(source, piece)

    @property
    def soonest_s(self) -> float:
        """Least time to the first bytes of a GET; 0: unknown."""
        return self._downloader.hedges.soonest_s()

    # ---- windows and requests
    @contextmanager
    def _wanting(self, source: Source, start: int, stop: int) -> Iterator[None]:
        """Keep [start, stop) from being released before the reader that waits for it has seen it."""
        with source.lock:
            source.wanted.append((start, stop))
        try:
            yield
        finally:
            with source.lock:
                source.wanted.remove((start, stop))

    def _plan(self, source: Source, start: int, stop: int, lost: bool) -> tuple[Range, Ahead]:
        """Return the range to request for a read of [start, stop), and the one to request ahead of it.

        `lost`: a byte of the read is neither in the file nor under way. A first read of what has been fetched ahead may
        be all that the program reads: nothing is requested ahead of it.
        """
        size = source.content.size
        if size <= min(self._core.settings.small_file, windows.FIRST):
            return (0, size), Ahead(None, (stop, stop))
        is_bulk = windows.is_bulk(start, stop)
        opens = is_bulk and (self._bulk is None or self._bulk.is_continued)
        with source.lock:
            ahead = source.windows.read(
                start, stop, size, self._widest(source), lost, self._gets(source), opens
            )
            if is_bulk:
                self._bulk = ahead.sequence
            if not lost and not source.begun and stop <= windows.FIRST:
                return (start, stop), Ahead(ahead.sequence, (stop, stop))
        begin, end = ahead.range
        # a GET costs, and its bytes do not: one for the read and what follows, none ahead
        if self._core.frugal:
            first = max(stop, min(end, _next_multiple(stop - 1, PIECE))) if lost else stop
            return (start, first), Ahead(ahead.sequence, (first, first))
        if not lost:
            return (start, stop), ahead
        # one GET: the read, and what follows
        first = min(max(stop, _next_multiple(start, min(ahead.piece, windows.PIECE))), max(stop, end))
        return (start, first), Ahead(ahead.sequence, (max(first, begin), end), ahead.piece)

    def _gets(self, source: Source) -> int:
        """Return the number of GETs of a window. With the Source's lock held."""
        if 0 < self.soonest_s <= windows.NEAR_S:
            return windows.NEAR_GETS
        rate = source.windows.rate
        if rate.bytes_per_s:
            self._room = rate.gets
        return self._room

    def _tail(self, source: Source, start: int, stop: int) -> Range:
        """Return the range at the end to request beside a first read from the begin; empty for any other read."""
        with source.lock:
            first, source.begun = not source.begun, True
        begin, end = windows.tail(source.version.key, source.content.size)
        wanted = first and start == 0 and stop < end and not self._core.frugal
        return (max(begin, stop), end) if wanted else (end, end)

    def _widest(self, source: Source) -> int:
        """Return the bytes of the largest window: of a file that streams, a part of those that may be on the disk."""
        widest = self._core.settings.read_ahead
        if source.content.streams:
            widest = min(widest, source.allowed // 4)
        rate = self._core.download_rate()
        if rate is not None:
            widest = min(widest, int(windows.AHEAD_S * rate))
        return max(widest, windows.FIRST)

    def _is_wanting(self, source: Source, start: int, stop: int) -> bool:
        """True if a part of [start, stop) is neither in the file nor under way."""
        with source.lock:
            gaps = source.content.missing(start, stop)
            return any(source.coming.missing(*gap) for gap in gaps)

    def _fetch(self, source: Source, wanted: Range, priority: int, ahead: Ahead | None = None) -> None:
        """Request the parts of a range that are neither in the file nor under way.

        `ahead`: the window of which the range is a part; None: a reader waits, or the file is downloaded whole.
        """
        start, stop = wanted
        if start >= stop:
            return
        if source.allowed < source.version.size:
            self._streams.admit(source, start, stop)
        if priority == AHEAD and source.content.streams:
            stop = min(stop, start + self._widest(source))
        size, sequence = (PIECE, None) if ahead is None else (ahead.piece, ahead.sequence)
        ranges: list[Range] = []
        with source.lock:
            for first, last in source.content.missing(start, stop):
                for begin, end in source.coming.missing(first, last):
                    while begin < end:
                        cut = min(begin - begin % size + size, end)
                        ranges.append((begin, cut))
                        begin = cut
            pieces = [Piece(begin, end, sequence, urgent=priority == URGENT) for begin, end in ranges]
            source.add(pieces)
        for piece in pieces:
            self._jobs.submit(partial(self._download, source, piece), priority)

    def _wait(self, source: Source, start: int, stop: int, caller: Caller, priority: int = URGENT) -> None:
        """Wait until [start, stop) is in the file. A range whose download failed is requested again.

        The limit of time is the bucket's: a limit of bandwidth may make it any longer.
        """
        content, limit = source.content, self._core.settings.read_timeout_s
        deadline = self._core.clock.monotonic() + limit
        sent_again = False
        while True:
            stopping = self._core.stopping
            left = 0.0 if stopping else max(0.0, deadline - self._core.clock.monotonic())
            pause_s = self._hasten(source, start, stop, priority == URGENT)
            # before the limit: a failure says more than "not in time"
            if content.wait_present(start, stop, min(left, pause_s or 0.0), caller.cancelled):
                return
            if stopping:
                raise ReadFailed(f"{source.version.key}: not fetched: the mount is stopping")
            if self._is_held(source, start, stop, priority):
                deadline = self._core.clock.monotonic() + limit
            elif not left:
                why = f": {source.trouble}" if source.trouble else ""
                raise ReadFailed(f"{printable(source.version.key)}: not fetched within {limit:g} s{why}")
            caller.about_to_fetch()
            if pause_s is not None:
                self._jobs.relieve()
                continue
            if source.trouble is not None or sent_again:  # a transient error: no GET follows another at once
                self._core.clock.wait(self._core.ended, min(left, RESEND_S))
            sent_again = True
            self._fetch(source, (start, stop), SLOW if priority == SLOW else URGENT)

    def _hasten(self, source: Source, start: int, stop: int, urgent: bool) -> float | None:
        """Send a second GET for each late one that [start, stop) waits for; if `urgent`, put its queued pieces before
        those that no reader waits for.

        Return the seconds until a GET may be late; None: a part of the range is neither in the file nor under way.
        """
        now_s, pause_s = self._core.clock.monotonic(), RESEND_S
        seconds: list[Piece] = []
        with source.lock:
            awaited = source.awaited(start, stop)
            queued = [piece for piece in awaited if urgent and piece.promote()]
            gaps = source.content.missing(start, stop)
            wanting = any(source.coming.missing(*gap) for gap in gaps)
            for piece in () if wanting or self._core.frugal else awaited:
                second, left_s = piece.hedge(self._downloader.hedges, now_s)
                pause_s = min(pause_s, pause_s if left_s is None else left_s)
                if second is not None:
                    seconds.append(second)
            if seconds:
                source.add(seconds)
        for second in seconds:
            log.info(
                "%s: no answer for bytes %d to %d so far: asked for a second time",
                printable(source.version.key),
                second.start,
                second.stop,
            )
        for piece in queued + seconds:
            self._jobs.submit(partial(self._download, source, piece), URGENT)
        return None if wanting else pause_s

    def _is_held(self, source: Source, start: int, stop: int, priority: int) -> bool:
        """True if a limit of bandwidth holds a piece that [start, stop) waits for, or others go before a slow one."""
        if priority != SLOW and self._core.download_rate() is None:
            return False
        with source.lock:
            return any(piece.held for piece in source.awaited(start, stop))

    def _download(self, source: Source, piece: Piece) -> None:
        """Job: download a piece into the file, unless another job does; waiting readers get its error."""
        flow = current()
        with source.lock:
            if not source.begin(piece, flow):
                return
        try:
            self._download_latest(source, piece)
        except Abandoned:
            log.debug("%s: bytes %d to %d: no reader needs them", source.version.key, piece.start, piece.stop)
        except R2fsError as error:
            self._failed(source, error)
        except ContentClosed:
            pass  # the last handle was closed during the download: no reader waits
        except OSError as error:
            log.error("%s: writing to the cache failed: %s", source.version.key, error)
            source.content.fail(
                ReadFailed(f"{source.version.key}: the cache's disk answered {error.strerror}")
            )
        finally:
            with source.lock:
                following = source.remove(piece)
                flow.urgent = True  # what the thread does next may be another's
            for each in following:
                self._jobs.submit(partial(self._download, source, each), AHEAD)
            self._downloader.record(source)

    def _download_latest(self, source: Source, piece: Piece) -> None:
        """Download a piece; where a copy of this host has replaced the object, from the copy: the same bytes."""
        version = source.version
        while not source.is_abandoned(piece, piece.start):
            try:
                self._downloader.download(source, version, piece)
                source.trouble = None
                return
            except (ObjectMissing, PreconditionFailed):
                if source.version == version:
                    source.on_lost(version)
                if source.version == version:
                    raise
                version = source.version

    def _failed(self, source: Source, error: R2fsError) -> None:
        if error.retry:  # a waiting reader requests it again, until its time limit
            if source.trouble is None:
                log.info("%s: not fetched yet: %s", printable(source.version.key), error)
            source.trouble = str(error)
        else:
            source.content.fail(as_read_error(source.version, error))


def _next_multiple(at: int, size: int) -> int:
    """Return the first multiple of `size` after `at`."""
    return at - at % size + size
