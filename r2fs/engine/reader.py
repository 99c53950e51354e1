"""Reader: brings missing ranges of a version from the bucket into its local file, each once.

Owns:    which ranges are on their way, and how far ahead of a sequential reader to go.
Never:   mixes versions: every GET is pinned by If-Match to the version that the file began as.
Threads: every public method is thread-safe; fetches run on `jobs`, started by service.py.
Locks:   a Source's own lock (rank 35) inside none; no request under it.
Fails:   Stale (the version is gone from the bucket), ReadFailed (not here within the time limit).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from r2fs.disk.content import Content
from r2fs.engine.core import Core
from r2fs.engine.jobs import AHEAD, URGENT, JobQueue
from r2fs.model.errors import (
    BodyDamaged,
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
from r2fs.model.ranges import Range, RangeSet
from r2fs.model.records import ObjectInfo, Version

log = logging.getLogger(__name__)

# Bytes of an answer that are written into the file at once. A virtual machine may have given larger pieces of free
# memory than this back to its host: a cold read then takes twice as long (measured where that begins at 128 KiB).
CHUNK = 64 << 10
# Where the kernel reads the file without us: what is written in larger pieces lies in larger folios of the page
# cache, and is read faster ever after, by up to a third (measured on ext4).
SHARED_CHUNK = 256 << 10  # somebody may wait for the first of them
SHARED_LARGE_CHUNK = 1 << 20  # of a large GET, which runs ahead
PIECE = 8 << 20  # bytes of one GET of a large window: several run at once
FIRST_WINDOW = 512 << 10  # the smallest fetch of a large file: one request's worth of a fast link's latency
NEAR = 2 << 20  # bytes: the kernel's own read-ahead, twice
BODY_RETRIES = 4  # answers cut in a row before the range is given up


@dataclass(eq=False)
class Source:
    """Where the missing ranges of one content come from."""

    version: Version  # another one only for the same bytes: a rename's copy has got there
    content: Content  # constant
    on_info: Callable[[ObjectInfo], None]  # constant: told of each answer's metadata
    on_lost: Callable[[Version], None]  # constant: told that the bucket has this version no more
    lock: threading.Lock = field(default_factory=threading.Lock)
    # guarded by: lock
    coming: RangeSet = field(default_factory=RangeSet)
    window: int = FIRST_WINDOW
    expected: int = 0  # where a sequential reader reads next

    def is_near(self, start: int) -> bool:
        """Does a read there go on with the sequence? The kernel's reads ahead come in any order."""
        return abs(start - self.expected) <= max(self.window, NEAR)


class Reader:
    def __init__(self, core: Core, jobs: JobQueue) -> None:
        self._core = core
        self._settings = core.settings
        self._jobs = jobs
        self.make_room: Callable[[int], bool] = lambda size: False  # room.py: evicts, for a full disk

    def ensure(self, source: Source, start: int, stop: int, caller: Caller) -> None:
        """Return when [start, stop) is in the file. Raises WouldWait, Stale, ReadFailed, Interrupted."""
        stop = min(stop, source.content.size)
        if not source.content.missing(start, stop):
            self._go_ahead(source, start, stop)
            return
        caller.about_to_wait()
        source.content.fail(None)  # what failed before may work now
        begin, end = self._plan(source, start, stop)
        if end > stop and not self._is_wanting(source, stop, stop + (end - stop) // 2):
            end = stop  # enough is on its way: many small requests at its end would be dearer than one later
        self._fetch(source, begin, max(stop, min(end, stop + PIECE)), URGENT)
        self._fetch(source, stop, end, AHEAD)
        self._wait(source, start, stop, caller)

    def whole(self, source: Source, caller: Caller) -> None:
        """Return when the content is complete. Raises as `ensure`."""
        if source.content.complete:
            return
        caller.about_to_wait()
        source.content.fail(None)
        size = source.content.size
        for begin in range(0, size, PIECE):  # bounded: what is waited for is one piece at a time
            self._fetch(source, begin, min(begin + PIECE, size), URGENT)
            self._fetch(source, begin + PIECE, min(begin + 4 * PIECE, size), URGENT)
            self._wait(source, begin, min(begin + PIECE, size), caller)

    # ------------------------------------------------------------------ inside
    def _plan(self, source: Source, start: int, stop: int) -> Range:
        """What to fetch for a read of [start, stop): a window that doubles while reads are sequential."""
        size = source.content.size
        if size <= self._settings.small_file:
            return 0, size
        with source.lock:
            if not source.is_near(start):
                source.window, source.expected = FIRST_WINDOW, stop
            elif stop > source.expected:
                source.window = min(source.window * 2, max(self._settings.read_ahead, FIRST_WINDOW))
                source.expected = stop
            return start, min(size, max(stop, start + source.window))

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
                source.window = min(window * 2, max(self._settings.read_ahead, FIRST_WINDOW))
            self._fetch(source, stop, min(source.content.size, stop + window), AHEAD)

    def _is_wanting(self, source: Source, start: int, stop: int) -> bool:
        """Is there anything in [start, stop) that is neither here nor coming?"""
        with source.lock:
            gaps = source.content.missing(start, stop)
            return any(source.coming.missing(*gap) for gap in gaps)

    def _fetch(self, source: Source, start: int, stop: int, priority: int) -> None:
        """Send for the parts of [start, stop) that are neither here nor coming."""
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
        while content.missing(start, stop):
            if self._core.stopping:
                raise ReadFailed(f"{source.version.key}: not fetched: the mount is stopping")
            left = deadline - self._core.clock.monotonic()
            if left <= 0:
                raise ReadFailed(f"{source.version.key}: not fetched within {limit:g} s")
            if not content.wait_present(start, stop, min(left, 1.0), caller.cancelled):
                caller.about_to_wait()
                self._fetch(source, start, stop, URGENT)

    def _bring(self, source: Source, start: int, stop: int) -> None:
        """One job: GET [start, stop) into the file; a failure is told to whoever waits."""
        try:
            version = source.version
            while True:
                try:
                    self._bring_pinned(source, version, start, stop)
                    break
                except (ObjectMissing, PreconditionFailed):
                    if source.version == version:
                        raise
                    version = source.version  # renamed meanwhile: the same bytes under another key
        except R2fsError as error:
            if isinstance(error, ObjectMissing | PreconditionFailed):
                source.on_lost(version)
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

    def _bring_pinned(self, source: Source, version: Version, start: int, stop: int) -> None:
        cut = 0
        while start < stop:
            here = self._bring_once(source, version, start, stop)
            cut = 0 if here > start else cut + 1
            if cut > BODY_RETRIES:
                raise BodyDamaged(f"{version.key}: {cut} answers in a row were cut at byte {start}")
            start = here

    def _bring_once(self, source: Source, version: Version, start: int, stop: int) -> int:
        """One GET; where it ended, which is before `stop` if the answer was cut."""
        log.debug("%s: asked for bytes %d to %d", printable(version.key), start, stop)
        with self._core.store.get(
            version.key, start=start, length=stop - start, if_match=version.etag or None
        ) as download:
            source.on_info(download.info)
            try:
                for chunk in download.chunks(self._chunk(stop - start)):
                    self._fill(source, start, chunk)
                    start += len(chunk)
            except BodyDamaged:
                log.info("%s: the answer was cut at byte %d; going on from there", version.key, start)
        return start

    def _chunk(self, length: int) -> int:
        if not self._core.kernel.shares_pages:
            return CHUNK
        return SHARED_LARGE_CHUNK if length >= PIECE else SHARED_CHUNK

    def _fill(self, source: Source, start: int, chunk: bytes) -> None:
        try:
            source.content.fill(start, chunk)
        except NoSpace:
            self.make_room(len(chunk))  # or somebody else did just now
            source.content.fill(start, chunk)


def _as_read_error(version: Version, error: R2fsError) -> FileError:
    if isinstance(error, ObjectMissing | PreconditionFailed | RangeInvalid):
        return Stale(f"{version.key}: the version that was opened is no longer in the bucket")
    if isinstance(error, NoSpace):
        log.error("%s: could not be read: there is no room on this disk for it: %s", version.key, error)
    elif isinstance(error, StoreError | LocalError):
        log.error("%s: could not be read: %s", version.key, error)
    return ReadFailed(f"{version.key}: {error}")
