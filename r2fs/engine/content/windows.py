"""Read-ahead windows: the range to download ahead of each read of a file, by its reads so far. Pure.

Owns:    the sequences of reads of one file, each with its window, and the measured rate of its downloads.
Never:   downloads, or knows which bytes are in the file.
Locks:   none: a Source's is held by the caller.

The first read of a sequence requests at most FIRST bytes: a program that reads a header alone gets it soon, and pays for
no more. The second one opens a window of SECOND bytes, in pieces. After each half of it that is read, the window
doubles, up to the caller's limit, as long as the last doubling raised the rate, or the window is shorter than twice the
rate times the time to the first byte: what a connection needs to be busy without a pause.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from r2fs.model.ranges import Range
from r2fs.model.values import dataclass

FIRST = 512 << 10  # bytes: a fast link's rate times its latency
PIECE = (
    4 << 20
)  # bytes of one GET of a window: several run at once; shorter ones end while TCP still starts slowly
SECOND = 4 * PIECE
MOST = 128 << 20  # bytes of the largest window
MOST_GETS = 16  # pieces of a window
NEAR = 2 << 20  # bytes: the kernel's own read-ahead, twice; its reads arrive in any order
SEQUENCES = 4  # of one file: several readers, or parts of a file that are read in turn
RISE = 1.25  # a higher rate than before by this factor is worth a larger window
# A media file's index is at its end as often as at its begin: a player's first read brings both.
BOTH_ENDS = 4 << 20  # bytes of a file from which on that is worth a GET
TAIL = 128 << 10  # bytes at the end
MEDIA = frozenset(
    [
        "3gp",
        "aac",
        "aif",
        "aiff",
        "ape",
        "avi",
        "avif",
        "bwf",
        "caf",
        "dng",
        "flac",
        "flv",
        "heic",
        "heif",
        "jp2",
        "jpeg",
        "jpg",
        "m2ts",
        "m4a",
        "m4b",
        "m4v",
        "mka",
        "mkv",
        "mov",
        "mp3",
        "mp4",
        "mpeg",
        "mpg",
        "mts",
        "mxf",
        "nef",
        "oga",
        "ogg",
        "ogv",
        "opus",
        "png",
        "psd",
        "raf",
        "rf64",
        "rw2",
        "tif",
        "tiff",
        "ts",
        "w64",
        "wav",
        "webm",
        "webp",
        "wma",
        "wmv",
        "wv",
        "arw",
        "cr2",
        "cr3",
    ]
)
SAMPLES = 8  # GETs by which rate and time to the first byte are known


class Rate:
    """Measured bytes a second of a file's downloads together, and their time to the first byte.

    Each GET is a sample: the bytes of all GETs that arrived during it, by its duration (as TCP's BBR measures).
    """

    def __init__(self) -> None:
        self._arrived = 0
        self._rates: deque[float] = deque(maxlen=SAMPLES)
        self._first_byte_s: deque[float] = deque(maxlen=SAMPLES)

    @property
    def arrived(self) -> int:
        """Bytes of all GETs so far."""
        return self._arrived

    def add(self, size: int) -> None:
        self._arrived += size

    def first_byte(self, seconds: float) -> None:
        self._first_byte_s.append(seconds)

    def ended(self, arrived_before: int, seconds: float) -> None:
        """Count a GET that took `seconds`. `arrived_before`: `arrived` at its begin."""
        if seconds > 0 and self._arrived > arrived_before:
            self._rates.append((self._arrived - arrived_before) / seconds)

    @property
    def bytes_per_s(self) -> float:
        """The highest rate of the last samples; 0 before the first."""
        return max(self._rates, default=0.0)

    @property
    def busy(self) -> int:
        """Bytes that must be requested ahead to keep the connections busy: twice the rate times the time to first byte."""
        if not self._first_byte_s:
            return 0
        return int(2 * self.bytes_per_s * median(self._first_byte_s))


def tail(key: str, size: int) -> Range:
    """Return the range at the end of a file to request beside its first bytes; empty unless it is a large media file."""
    _, dot, suffix = key.rpartition("/")[2].rpartition(".")
    return (size - TAIL if size > BOTH_ENDS and dot and suffix.lower() in MEDIA else size), size


@dataclass(eq=False, slots=True)
class Sequence:
    """Reads that follow each other."""

    expected: int  # offset of the next read
    requested: int  # end of the range requested ahead
    window: int
    grown_at: int  # `expected` when the window last grew
    rate: float = 0.0  # bytes a second when the window last grew
    cancelled: int = 0  # counts cancellations: a piece of an earlier count is not needed

    @property
    def piece(self) -> int:
        """Bytes of one GET of the window."""
        return max(PIECE, -(-self.window // MOST_GETS))

    def distance(self, start: int) -> int | None:
        """Bytes between the expected read and one at `start`; None: that one does not continue the sequence."""
        distance = abs(start - self.expected)
        return distance if distance <= max(self.window, NEAR) else None


@dataclass(frozen=True, slots=True)
class Ahead:
    """Range to request ahead of a read, and the sequence of the read; None: of a file that is downloaded whole."""

    sequence: Sequence | None
    range: Range


class Windows:
    def __init__(self) -> None:
        self._sequences: list[Sequence] = []  # the last used last
        self.rate = Rate()

    def read(self, start: int, stop: int, size: int, limit: int, lost: bool) -> Ahead:
        """Return the range to request ahead of a read of [start, stop); empty: nothing.

        `size`: of the file. `limit`: bytes of the largest window; up to FIRST nothing is requested ahead of a hit. `lost`: a byte of the read is neither in the file nor requested, though
        the sequence may have requested it before.
        """
        sequence = self._continued(start)
        if sequence is None:
            return self._begun(start, stop, size)
        self._sequences.remove(sequence)
        self._sequences.append(sequence)
        advances = stop > sequence.expected
        sequence.expected = max(stop, sequence.expected)
        if not advances or limit <= FIRST:  # read again, or out of order; or the user wants none
            return Ahead(sequence, (stop, min(max(stop, start + FIRST), size) if lost else stop))
        if lost:
            sequence.requested = stop
        self._grow(sequence, limit)
        begin, end = max(sequence.requested, stop), min(stop + sequence.window, size)
        more = end - begin
        if end < size:
            if not lost and more < PIECE and more <= sequence.window // 2:
                return Ahead(sequence, (stop, stop))  # later, by a larger GET
            # In whole pieces: one more if the limit allows it.
            if more > sequence.piece and (rest := more % sequence.piece):
                up = end + sequence.piece - rest
                end = min(up, size) if up - stop <= min(limit, MOST) else end - rest
        sequence.requested = max(begin, end)
        return Ahead(sequence, (begin, sequence.requested))

    def _continued(self, start: int) -> Sequence | None:
        near = [(at, one) for one in self._sequences if (at := one.distance(start)) is not None]
        return min(near, key=lambda each: each[0])[1] if near else None

    def _begun(self, start: int, stop: int, size: int) -> Ahead:
        """Begin a sequence. What the others have requested ahead may be cancelled: the reader is elsewhere."""
        for other in self._sequences:
            other.cancelled += 1
        del self._sequences[: max(0, len(self._sequences) - SEQUENCES + 1)]
        end = min(max(stop, start + FIRST), size)
        self._sequences.append(Sequence(stop, end, FIRST, stop))
        return Ahead(self._sequences[-1], (stop, end))

    def _grow(self, sequence: Sequence, limit: int) -> None:
        rate = self.rate.bytes_per_s
        if sequence.window < SECOND:
            sequence.window, sequence.grown_at = SECOND, sequence.expected
        elif sequence.expected - sequence.grown_at >= sequence.window // 2 and (
            rate > RISE * sequence.rate or self.rate.busy > sequence.window
        ):
            sequence.window *= 2
            sequence.grown_at, sequence.rate = sequence.expected, rate
        sequence.window = min(sequence.window, max(limit, FIRST), MOST)
