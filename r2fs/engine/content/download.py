"""Downloads: one range of a version, from the bucket into its local file, verified.

Owns:    the GET, the check of its answer's version, and the comparison of a whole object with its MD5.
Never:   mixes versions: an answer of another version is refused, whatever the server made of the condition; shows a
         reader bytes of a whole object that differ from its MD5.
Threads: `download` runs on download threads.
Locks:   `_lock`, a leaf, around the list for status; none during a request.
Fails:   StoreError; ReadFailed (wrong bytes, repeatedly); NoSpace and LocalError of the disk.

Compared is an object that one GET downloads (up to `small_file`) and of which the answer has the MD5: the ETag of a
single PUT without a key of its own (SSE-C, SSE-KMS). Its bytes are hidden until all are in the file. Ranges of larger
objects are protected by the connection's own checks alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from r2fs.engine.content.disk_space import DiskSpace
from r2fs.engine.content.source import Abandoned, Hedges, Piece, Source
from r2fs.engine.content.streaming import Streams
from r2fs.engine.content.windows import FIRST
from r2fs.engine.inodes.core import Core
from r2fs.model import causes
from r2fs.model.errors import (
    BadCredentials,
    BodyDamaged,
    FileError,
    LocalError,
    NoSpace,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    R2fsError,
    RangeInvalid,
    ReadFailed,
    ReadRefused,
    Stale,
    StoreError,
)
from r2fs.model.keys import printable
from r2fs.model.records import ObjectInfo, Version
from r2fs.model.views import DownloadView

log = logging.getLogger(__name__)

# Bytes of an answer that are written into the file at once. A virtual machine may have returned larger pieces of free
# memory to its host: a cold read then takes twice as long (measured on a machine with pieces from 128 KiB on).
CHUNK = 64 << 10
# With passthrough: larger writes make larger folios in the page cache, which the kernel then reads faster, by up to a
# third (measured on ext4).
SHARED_CHUNK = 256 << 10  # of a GET that a reader may wait for
# of a large GET, ahead of the reader: larger buffers stay in the heap, one a thread
SHARED_LARGE_CHUNK = 512 << 10
LARGE = 4 << 20  # bytes of such a GET
PREPARED = 256 << 10  # bytes of a GET from which on its disk is allocated before they arrive
BODY_RETRIES = 4  # answers cut in a row before the range is given up
WRONG_TRIES = 2  # answers with wrong bytes before the object is given up
SHOWN = 100  # damaged objects that status can name


class _Check:
    """MD5 of a whole object during its download."""

    def __init__(self, files: int) -> None:
        self.expected: str | None = None  # MD5; None: in no answer yet
        self.files = files  # SparseFile.files before the first hidden byte
        self.digest = hashlib.md5(usedforsecurity=False)

    @property
    def wrong(self) -> bool:
        return self.expected is not None and self.digest.hexdigest() != self.expected


@dataclass(slots=True)
class _UnderWay:
    """GETs of one file. guarded by: Downloader._lock"""

    since_s: float  # Clock.monotonic() at the first
    arrived: int  # bytes of earlier GETs of the file
    pieces: int = 0


class Downloader:
    def __init__(self, core: Core, streams: Streams, moved: Callable[[int], None], space: DiskSpace) -> None:
        # constant
        self._moved = moved  # called with the size of each chunk; may raise TooSlow
        self._core = core
        self.hedges = Hedges()
        self._streams = streams
        self._space = space
        # guarded by: _lock
        self._lock = Lock()
        self._damaged: dict[str, str] = {}  # by key: the reason
        self._under_way: dict[Source, _UnderWay] = {}

    def under_way(self) -> tuple[DownloadView, ...]:
        """Return a view of each file with a download under way, oldest first."""
        now_s = self._core.clock.monotonic()
        with self._lock:
            found = [(source, each.since_s, each.arrived) for source, each in self._under_way.items()]
        views = []
        for source, since_s, before in found:
            arrived, age_s = source.windows.rate.arrived - before, now_s - since_s
            here = min(source.version.size, max(arrived, source.content.here_bytes()))
            rate = arrived / age_s if age_s > 0 else 0.0
            views.append(DownloadView(source.ino, source.version.size, here, rate, age_s))
        return tuple(views)

    def damaged(self) -> tuple[str, ...]:
        """Return the reasons for objects whose bytes differed from their ETags at the last download."""
        with self._lock:
            return tuple(self._damaged.values())

    def download(self, source: Source, version: Version, piece: Piece) -> None:
        """Return when the piece is in the file. Raises Abandoned once no reader needs it."""
        with self._lock:
            each = self._under_way.get(source)
            if each is None:
                each = _UnderWay(self._core.clock.monotonic(), source.windows.rate.arrived)
                self._under_way[source] = each
            each.pieces += 1
        try:
            self._download(source, version, piece)
        finally:
            with self._lock:
                each.pieces -= 1
                if not each.pieces:
                    del self._under_way[source]

    def _download(self, source: Source, version: Version, piece: Piece) -> None:
        start, stop = piece.start, piece.stop
        reason = ": its local file was given up meanwhile"
        for left in reversed(range(WRONG_TRIES)):
            check = _Check(source.content.files) if (start, stop) == (0, version.size) else None
            self._download_pinned(source, version, piece, check)
            if check is None or check.expected is None:
                return
            if not check.wrong:
                if source.content.accept(start, stop, check.files):
                    if self._damaged:
                        self._note(version, None)
                    return
                continue
            reason = (
                f": the {version.size} bytes that came have the MD5"
                f" {check.digest.hexdigest()}, and its ETag is {check.expected}: store it anew, or set"
                " md5_etags = false if the ETags of this server are no MD5s"
            )
            if left:
                log.warning("%s%s; fetching it again", printable(version.key), reason)
            else:
                self._note(version, f"{printable(version.key)}{reason}")
        raise ReadFailed(f"{printable(version.key)}{reason}")

    def record(self, source: Source) -> None:
        """Record the download in the history, once all bytes are here."""
        with source.lock:
            whole, source.recorded = source.content.complete and not source.recorded, source.content.complete
        if whole:
            cause, version = causes.now(), source.version
            detail = f"{version.size} bytes ({cause.purpose})"
            self._core.history.note(source.ino, version.key, "downloaded", detail, cause.program)

    def _note(self, version: Version, reason: str | None) -> None:
        with self._lock:
            if reason is None:
                self._damaged.pop(version.key, None)
            elif len(self._damaged) < SHOWN:
                self._damaged[version.key] = reason

    def _download_pinned(self, source: Source, version: Version, piece: Piece, check: _Check | None) -> None:
        start, cut = piece.start, 0
        while start < piece.stop:
            end = self._get(source, version, piece, start, check)
            cut = 0 if end > start else cut + 1
            if cut > BODY_RETRIES:
                raise BodyDamaged(f"{version.key}: {cut} answers in a row were cut at byte {start}")
            start = end

    def _get(self, source: Source, version: Version, piece: Piece, start: int, check: _Check | None) -> int:
        """Send one GET; return its end, which is before the piece's if the answer was cut."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: asked for bytes %d to %d", printable(version.key), start, piece.stop)
        length = piece.stop - start
        size = self._chunk(length)
        with (
            source.measured(self._core.clock, self.hedges, piece, start, size) as measured,
            self._core.store.get(
                version.key, start=start, length=length, if_match=version.etag or None
            ) as download,
        ):
            _require(version, download.info)
            source.on_info(download.info)
            check = _compared(check, start, download.info)
            prepared = length >= PREPARED and check is None
            if prepared:
                source.content.prepare(start, piece.stop)
            try:
                for chunk in download.chunks(size):
                    measured.arrived(len(chunk), size, check is not None)
                    self._fill(source, start, chunk, check)
                    start += len(chunk)
                    self._moved(len(chunk))
                    if start < piece.stop and (self._core.stopping or source.is_abandoned(piece, start)):
                        raise Abandoned
            except BodyDamaged:
                log.info("%s: the answer was cut at byte %d; going on from there", version.key, start)
            finally:
                if prepared and start < piece.stop:
                    source.content.trim(start, piece.stop)
        return start

    def _chunk(self, length: int) -> int:
        # of a first read: a reader waits for each chunk
        if length <= FIRST or not self._core.kernel.shares_pages:
            return CHUNK
        return SHARED_LARGE_CHUNK if length >= LARGE else SHARED_CHUNK

    def _fill(self, source: Source, start: int, chunk: bytes, check: _Check | None) -> None:
        """Write a chunk. On a full disk: evict, then release parts of this file, then keep it in memory."""
        if check is not None:
            check.digest.update(chunk)
        write = source.content.fill if check is None else source.content.hold
        try:
            write(start, chunk)
            return
        except NoSpace:
            self._space.make(len(chunk))  # or another thread did just now
        try:
            write(start, chunk)
            return
        except NoSpace:
            gave = self._streams.give_way(source, start, len(chunk))
        if gave:
            try:
                write(start, chunk)
                return
            except NoSpace:
                log.debug("%s: giving back was not enough", printable(source.version.key))
        self._streams.to_memory(source, start if check is not None else 0)
        if check is not None:
            check.files = source.content.files
        write(start, chunk)


def _compared(check: _Check | None, start: int, info: ObjectInfo) -> _Check | None:
    """Return the check, with the MD5 that the first answer says; None: there is none to compare with."""
    if check is not None and start == 0:
        check.expected = info.md5
    return check if check is not None and check.expected is not None else None


def _require(version: Version, info: ObjectInfo) -> None:
    """Raise PreconditionFailed unless the answer is of the file's version."""
    if (version.etag and info.etag != version.etag) or info.size != version.size:
        raise PreconditionFailed(
            f"{printable(version.key)}: the answer is of another version ({info.etag}, {info.size} bytes)"
            f" than was asked for ({version.etag}, {version.size} bytes)"
        )


def as_read_error(version: Version, error: R2fsError) -> FileError:
    """Return the error of a read for that of its download; a person hears of one that is not another host's doing."""
    if isinstance(error, ObjectMissing | PreconditionFailed | RangeInvalid):
        return Stale(f"{version.key}: the version that was opened is no longer in the bucket")
    if isinstance(error, NoSpace):
        log.error("%s: could not be read: there is no room on this disk for it: %s", version.key, error)
    elif isinstance(error, StoreError | LocalError | ReadFailed):
        log.error("%s: could not be read: %s", version.key, error)
    if isinstance(error, ReadFailed):
        return error
    kind = ReadRefused if isinstance(error, BadCredentials | PermissionRefused) else ReadFailed
    return kind(f"{version.key}: {error}")
