"""Reader: brings missing ranges of a version from the bucket into its local file, each once.

Owns:    which ranges are on their way, how far ahead of a sequential reader to go, and how long is waited.
Never:   fetches itself (`content/download.py`), or decides how much may be here at once (`content/streaming.py`).
Threads: every public method is thread-safe; fetches run on `jobs`, started by service.py.
Locks:   a Source's own lock (rank 35) inside none; no request under it.
Fails:   Stale (the version is gone from the bucket), ReadFailed (not here within the time limit: what may pass,
         an outage say, is tried until then; what will not is told at once).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from r2fs.engine.content.disk_space import DiskSpace
from r2fs.engine.content.download import Fetching
from r2fs.engine.content.source import FIRST_WINDOW, Source
from r2fs.engine.content.streaming import Streams
from r2fs.engine.core import Core
from r2fs.engine.jobs import AHEAD, URGENT, DownloadQueue
from r2fs.model.errors import (
    FileError,
    LocalError,
    NoSpace,
    ObjectMissing,
    PreconditionFailed,
    R2fsError,
    RangeInvalid,
    ReadFailed,
    Stale,
    StoreError,
)
from r2fs.model.keys import printable
from r2fs.model.ports import Caller
from r2fs.model.ranges import Range
from r2fs.model.records import Version

log = logging.getLogger(__name__)

RESEND_S = (
    1.0  # before what failed and may pass is sent for again; how often who waits looks whether it is coming
)
PIECE = 8 << 20  # bytes of one GET of a large window: several run at once


class Reader:
    def __init__(self, core: Core, jobs: DownloadQueue, space: DiskSpace) -> None:
        self._core = core
        self._settings = core.settings
        self._jobs = jobs
        self.streams = Streams(core)
        self.fetching = Fetching(core, self.streams, jobs.moved, space)

    def ensure(self, source: Source, start: int, stop: int, caller: Caller) -> None:
        """Return when [start, stop) is in the file. Raises WouldWait, Stale, ReadFailed, Interrupted."""
        stop = min(stop, source.content.size)
        if not source.content.missing(start, stop):
            self._go_ahead(source, start, stop)
            return
        caller.about_to_fetch()
        source.content.fail(None)  # what failed before may work now
        begin, end = self._plan(source, start, stop)
        if end > stop and not self._is_wanting(source, stop, stop + (end - stop) // 2):
            end = stop  # enough is on its way: many small requests at its end would be dearer than one later
        with self._wanting(source, start, stop):
            self._fetch(source, begin, max(stop, min(end, stop + PIECE)), URGENT)
            self._fetch(source, stop, end, AHEAD)
            self._wait(source, start, stop, caller)

    def whole(self, source: Source, caller: Caller) -> None:
        """Return when the content is complete. Raises as `ensure`."""
        if source.content.complete:
            return
        caller.about_to_fetch()
        source.content.fail(None)
        size = source.content.size
        for begin in range(0, size, PIECE):  # bounded: what is waited for is one piece at a time
            self._fetch(source, begin, min(begin + PIECE, size), URGENT)
            self._fetch(source, begin + PIECE, min(begin + 4 * PIECE, size), URGENT)
            self._wait(source, begin, min(begin + PIECE, size), caller)

    # ------------------------------------------------------------------ inside
    @contextmanager
    def _wanting(self, source: Source, start: int, stop: int) -> Iterator[None]:
        """Somebody waits for [start, stop): it is not given back before it was here once."""
        with source.lock:
            source.wanted.append((start, stop))
        try:
            yield
        finally:
            with source.lock:
                source.wanted.remove((start, stop))

    def _plan(self, source: Source, start: int, stop: int) -> Range:
        """What to fetch for a read of [start, stop): a window that doubles while reads are sequential."""
        size = source.content.size
        if size <= self._settings.small_file:
            return 0, size
        with source.lock:
            if not source.is_near(start):
                source.window, source.expected = FIRST_WINDOW, stop
            elif stop > source.expected:
                source.window = min(source.window * 2, self._widest(source))
                source.expected = stop
            return start, min(size, max(stop, start + source.window))

    def _widest(self, source: Source) -> int:
        """Bytes of the largest window. Of what streams: less than what may be here at once."""
        widest = self._settings.read_ahead
        if source.content.streams:
            widest = min(widest, source.allowed // 4)
        return max(widest, FIRST_WINDOW)

    def _go_ahead(self, source: Source, start: int, stop: int) -> None:
        """A sequential reader that finds its bytes here: keep half a window in front of it."""
        if source.content.complete:
            return
        with source.lock:
            if not source.is_near(start) or stop <= source.expected:
                return
            source.expected = stop
            ahead = min(source.content.size, stop + source.window // 2)
            window = source.window
        if window > FIRST_WINDOW and self._is_wanting(source, stop, ahead):
            with source.lock:
                source.window = min(window * 2, self._widest(source))
            self._fetch(source, stop, min(source.content.size, stop + window), AHEAD)

    def _is_wanting(self, source: Source, start: int, stop: int) -> bool:
        """Is there anything in [start, stop) that is neither here nor coming?"""
        with source.lock:
            gaps = source.content.missing(start, stop)
            return any(source.coming.missing(*gap) for gap in gaps)

    def _fetch(self, source: Source, start: int, stop: int, priority: int) -> None:
        """Send for the parts of [start, stop) that are neither here nor coming."""
        if start >= stop:
            return
        self.streams.admit(source, start, stop)
        if priority == AHEAD and source.content.streams:
            stop = min(stop, start + self._widest(source))
        pieces: list[Range] = []
        with source.lock:
            for first, last in source.content.missing(start, stop):
                for begin, end in source.coming.missing(first, last):
                    pieces += [(at, min(at + PIECE, end)) for at in range(begin, end, PIECE)]
            for begin, end in pieces:
                source.coming.add(begin, end)
        for begin, end in pieces:
            self._jobs.submit(lambda b=begin, e=end: self._bring(source, b, e), priority)  # type: ignore[misc]

    def _wait(self, source: Source, start: int, stop: int, caller: Caller) -> None:
        """Until it is here. What another reader had sent for and lost is sent for again."""
        content, limit = source.content, self._settings.read_timeout_s
        deadline = self._core.clock.monotonic() + limit
        sent_again = False
        while content.missing(start, stop):
            if self._core.stopping:
                raise ReadFailed(f"{source.version.key}: not fetched: the mount is stopping")
            left = deadline - self._core.clock.monotonic()
            if left <= 0:
                why = f": {source.trouble}" if source.trouble else ""
                raise ReadFailed(f"{printable(source.version.key)}: not fetched within {limit:g} s{why}")
            coming = not self._is_wanting(source, start, stop)
            if content.wait_present(start, stop, min(left, RESEND_S) if coming else 0.0, caller.cancelled):
                return
            caller.about_to_fetch()
            if coming:
                self._jobs.relieve()
                continue
            if (
                source.trouble is not None or sent_again
            ):  # what failed may pass; no GET follows another at once
                self._core.clock.wait(self._core.ended, min(left, RESEND_S))
            sent_again = True
            self._fetch(source, start, stop, URGENT)

    def _bring(self, source: Source, start: int, stop: int) -> None:
        """One job: GET [start, stop) into the file; a failure is told to whoever waits."""
        try:
            version = source.version
            while True:
                try:
                    self.fetching.bring(source, version, start, stop)
                    source.trouble = None
                    break
                except (ObjectMissing, PreconditionFailed):
                    if source.version == version:
                        raise
                    version = source.version  # renamed meanwhile: the same bytes under another key
        except R2fsError as error:
            if isinstance(error, ObjectMissing | PreconditionFailed):
                source.on_lost(version)
            if error.retry:  # whoever waits sends for it again, for as long as a read may take
                if source.trouble is None:
                    log.info("%s: not fetched yet: %s", printable(source.version.key), error)
                source.trouble = str(error)
            else:
                source.content.fail(_as_read_error(source.version, error))
        except ValueError:
            if not source.content.closed:
                raise
            # Nobody waits for it any more: the last handle went while its bytes were on their way.
        except OSError as error:
            log.error("%s: writing to the cache failed: %s", source.version.key, error)
            source.content.fail(
                ReadFailed(f"{source.version.key}: the cache's disk answered {error.strerror}")
            )
        finally:
            with source.lock:
                source.coming.remove(start, stop)


def _as_read_error(version: Version, error: R2fsError) -> FileError:
    if isinstance(error, ObjectMissing | PreconditionFailed | RangeInvalid):
        return Stale(f"{version.key}: the version that was opened is no longer in the bucket")
    if isinstance(error, NoSpace):
        log.error("%s: could not be read: there is no room on this disk for it: %s", version.key, error)
    elif isinstance(error, StoreError | LocalError | ReadFailed):
        log.error("%s: could not be read: %s", version.key, error)
    return error if isinstance(error, ReadFailed) else ReadFailed(f"{version.key}: {error}")
