"""Read-ahead windows: the range to download ahead of each read of a file, by its reads so far. Pure.

Owns:    the sequences of reads of one file, each with its window, and the measured rate of its downloads.
Never:   downloads, or knows which bytes are in the file.
Locks:   none: a Source's is held by the caller.

The first read of a sequence requests at most FIRST bytes: a program that reads a header alone gets it soon, and pays for
no more. The second one opens a window of SECOND bytes; so does a first one of FIRST bytes or more at the file's begin,
as programs that copy cause it, unless the last such was followed by no other read. Once PIECE bytes have been
read in a row, the window holds what arrives in AHEAD_S at the measured rate: on a fast line enough that no connection
pauses, on a slow one so little that other readers wait no longer than that.

A window comes by several GETs at once. They end at multiples of their size, as the blocks do in which servers store
objects: a part of a block costs a server as much as all of it (measured: SeaweedFS serves 256 MiB by GETs of 16 MiB for
half the CPU of GETs of 4 MiB). A far server sends faster over more connections, a near one does not. On each of them
TCP starts slowly, so that the first window comes from a far server by as many GETs as later ones will use connections.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from r2fs.model.ranges import Range

FIRST = 512 << 10  # bytes: a fast link's rate times its latency
SECOND = 16 << 20  # bytes of the window at the second read in a row
MOST = 128 << 20  # bytes of the largest window
AHEAD_S = 2.0  # of a line's rate: the most that is requested ahead, so that other readers wait no longer
OPENING = 1 << 20  # bytes of the smallest GET of a first window
PIECE = 4 << 20  # bytes of the smallest GET of a later one: shorter ones end while TCP still starts slowly
LARGEST_PIECE = 16 << 20  # bytes: larger ones cost a server hardly less
NEAR_S = 0.02  # time to the first byte up to which a server is near
NEAR_GETS = 4  # of a window on a near server
FAR_GETS = 16  # of a window on a far one, where each connection has its own limit of rate
# Bytes a second for each GET: on a slower line fewer are sent, of which the reader's has a larger share.
GET_RATE = 256 << 10
NEAR = 2 << 20  # bytes: the kernel's own read-ahead, twice; its reads arrive in any order
SEQUENCES = 4  # of one file: several readers, or parts of a file that are read in turn
# A media file's index is at its end as often as at its begin: a player's first read brings both.
BOTH_ENDS = 4 << 20  # bytes of a file from which on that is worth a GET
TAIL = 128 << 10  # bytes at the end
_SUFFIXES = (
    "3gp aac aif aiff ape arw avi avif bwf caf cr2 cr3 dng flac flv heic heif jp2 jpeg jpg m2ts m4a m4b "
    "m4v mka mkv mov mp3 mp4 mpeg mpg mts mxf nef oga ogg ogv opus png psd raf rf64 rw2 tif tiff ts w64 "
    "wav webm webp wma wmv wv"
)
MEDIA = frozenset(_SUFFIXES.split())
SAMPLES = 8  # by which the rate is known
SAMPLE_S = 0.05  # of a GET: twice as much arrives in the next round trip, while TCP starts


class Rate:
    """Measured bytes a second of a file's downloads together.

    Each SAMPLE_S of a GET, or a shorter GET, is a sample: the bytes of all GETs that arrived during it, by its duration
    (as TCP's BBR measures).
    """

    def __init__(self) -> None:
        self.arrived = 0  # bytes of all GETs so far
        self._rates: deque[float] = deque(maxlen=SAMPLES)

    def add(self, size: int) -> None:
        self.arrived += size

    def sample(self, arrived_before: int, seconds: float) -> None:
        """Count a sample that took `seconds`. `arrived_before`: `arrived` at its begin."""
        if seconds > 0 and self.arrived > arrived_before:
            self._rates.append((self.arrived - arrived_before) / seconds)

    @property
    def bytes_per_s(self) -> float:
        """The highest rate of the last samples; 0 before the first."""
        return max(self._rates, default=0.0)

    @property
    def gets(self) -> int:
        """GETs at once that the line has room for, a power of two; FAR_GETS while its rate is unknown."""
        if not self._rates:
            return FAR_GETS
        wanted = min(max(1, int(self.bytes_per_s / GET_RATE)), FAR_GETS)
        return 1 << (wanted.bit_length() - 1)


def tail(key: str, size: int) -> Range:
    """Return the range at the end of a file to request beside its first bytes; empty unless it is a large media file."""
    _, dot, suffix = key.rpartition("/")[2].rpartition(".")
    return (size - TAIL if size > BOTH_ENDS and dot and suffix.lower() in MEDIA else size), size


def is_bulk(start: int, stop: int) -> bool:
    """True for a first read of [start, stop) that is longer than a header's.

    The kernel makes one of FIRST bytes of a program's read of 256 KiB, as by cp(1).
    """
    return start == 0 and stop >= FIRST


def piece_of(window: int, gets: int, least: int) -> int:
    """Return the bytes of each GET of a window that comes by `gets` of them or fewer: a power of two."""
    wanted = min(max(least, window // gets), LARGEST_PIECE, window // 2)
    return 1 << (wanted.bit_length() - 1)


@dataclass(eq=False, slots=True)
class Sequence:
    """Reads that follow each other."""

    begun: int  # end of the first read
    expected: int  # offset of the next read
    requested: int  # end of the range requested ahead
    window: int = FIRST
    cancelled: int = 0  # counts cancellations: a piece of an earlier count is not needed

    @property
    def is_continued(self) -> bool:
        """True if a read followed the first one."""
        return self.expected > self.begun

    def distance(self, start: int) -> int | None:
        """Bytes between the expected read and one at `start`; None: that one does not continue the sequence."""
        distance = abs(start - self.expected)
        return distance if distance <= max(self.window, NEAR) else None


@dataclass(frozen=True, slots=True)
class Ahead:
    """Range to request ahead of a read, by GETs that end at multiples of `piece` bytes.

    `sequence`: that of the read; None: of a file that is downloaded whole.
    """

    sequence: Sequence | None
    range: Range
    piece: int = PIECE


class Windows:
    def __init__(self) -> None:
        self._sequences: list[Sequence] = []  # the last used last
        self.rate = Rate()

    def read(self, start: int, stop: int, size: int, limit: int, lost: bool, gets: int, opens: bool) -> Ahead:
        """Return the range to request ahead of a read of [start, stop); empty: nothing.

        `size`: of the file. `limit`: bytes of the largest window; up to FIRST nothing is requested ahead of a hit.
        `lost`: a byte of the read is neither in the file nor requested, though the sequence may have requested it
        before. `gets`: of a window, at most. `opens`: a first read opens a window.
        """
        sequence = self._continued(start)
        if sequence is None:
            sequence, advances = self._begun(stop), True
            if not opens:
                sequence.requested = min(max(stop, start + FIRST), size)
                return Ahead(sequence, (stop, sequence.requested))
        else:
            advances = stop > sequence.expected
            sequence.expected = max(stop, sequence.expected)
        self._sequences.remove(sequence)
        self._sequences.append(sequence)
        if not advances or limit <= FIRST:  # read again, or out of order; or the user wants none
            return Ahead(sequence, (stop, min(max(stop, start + FIRST), size) if lost else stop))
        if lost:
            sequence.requested = stop
        is_first = sequence.window <= FIRST
        is_long = sequence.expected - sequence.begun >= PIECE
        wanted = int(self.rate.bytes_per_s * AHEAD_S) if is_long else 0
        sequence.window = min(max(SECOND, wanted), limit, MOST, gets * LARGEST_PIECE)
        piece = piece_of(sequence.window, gets, PIECE)
        begin, end = max(sequence.requested, stop), min(stop + sequence.window, size)
        if end < size:
            end -= end % piece
        sequence.requested = max(begin, end)
        if is_first:
            piece = piece_of(sequence.window, gets, OPENING)
        return Ahead(sequence, (begin, sequence.requested), piece)

    def _continued(self, start: int) -> Sequence | None:
        near = [(at, one) for one in self._sequences if (at := one.distance(start)) is not None]
        return min(near, key=lambda each: each[0])[1] if near else None

    def _begun(self, stop: int) -> Sequence:
        """Begin a sequence. What the others have requested ahead may be cancelled: the reader is elsewhere."""
        for other in self._sequences:
            other.cancelled += 1
        del self._sequences[: max(0, len(self._sequences) - SEQUENCES + 1)]
        self._sequences.append(Sequence(stop, stop, stop, FIRST))
        return self._sequences[-1]
