"""Siblings: the files of a directory to download next, while a program opens its files in the order of their names, or
all of them in any order.

Owns:    the last opens in a few directories, and how much the program reads of a file; the names chosen there and not
         opened since; the number that never were.
Never:   downloads (`content/prefetch.py`), or keeps a reference to an inode.
Locks:   every method is called with Core.lock held.

A run begins at the second open in order: 1 to GAP names after the one before; in a directory of MANY names or more, at
the first open, if that is of one of its first GAP names. It first chooses FIRST names, so that two neighbours opened by
chance cost two GETs. Each chosen name that is opened widens the window, up to MOST names.
Any other open ends the run; an open of one of the GAP names before changes nothing, since threads overtake each other.
New names are chosen once half of the window has been opened, so that most opens cost no search.
Names chosen in vain are surplus. A directory with more surplus than half of its names has to show a longer run first.

A program that opens SCATTERED files and a SHARE of all names, none of which follows the one before, may be about to open
all of them, shuffled: as many further names as it has opened files that were not here, so that at most half of all
downloads are surplus. It ends with ORDERLY opens in order, or where far fewer of these names are opened than by chance.

A program that fills a list of takes reads the beginnings of its files alone. The reads of the last file tell how much
of the next ones is worth a download; the first read of a run that tells anything chooses names by itself.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice, takewhile

log = logging.getLogger(__name__)

GAP = 3  # names: of files that a program passes over, such as those of another type
MANY = 8  # names of a directory whose first one is hardly opened by chance
FIRST = 2  # names chosen at the begin of a run
STEP = 8  # names in the window after the first that was opened; then it doubles
MOST = 64  # names in the largest window
WARY = 8  # factor of the opens in order that are needed, after too much surplus
SCATTERED = 16  # opens out of order
SHARE = 32  # names of the directory for each open
ORDERLY = 4  # opens in order: by chance next to never
EVIDENCE = 8.0  # names chosen in any order that chance would have opened, before this is judged
UNLUCKY = 4  # times fewer were opened
DIRECTORIES = 8  # remembered; the least recently used is forgotten first
LARGEST = 100_000  # names of a directory: their sorting takes some milliseconds
HEAD = 512 << 10  # bytes: a program that reads no further reads beginnings
TAIL = 128 << 10  # bytes at the end, which many readers of media headers look at, too


@dataclass(slots=True, eq=False)
class Reads:
    """Extent of the reads of the file opened last in a run; until its first read, of those of the file before.

    Reads past the daemon (passthrough) are not known.
    """

    name: str = ""
    head: int | None = 0  # bytes read from the begin on; 0: unknown; None: more than the beginning
    tail: bool = False  # bytes of the end were read

    def add(self, name: str, size: int, start: int, stop: int) -> None:
        """Note a read of [start, stop) of a file of `size` bytes."""
        if name != self.name:
            self.name, self.head, self.tail = name, 0, False
        if self.head is None:
            return
        if stop <= min(HEAD, size - 1):
            self.head = max(self.head, stop)
        elif size > HEAD and start >= size - TAIL:
            self.tail = True
        else:
            self.head = None


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """One choice of a name; the same name chosen again is another."""

    directory: int  # inode number
    name: str
    size: int  # bytes to download, from the begin on
    tail: bool  # and the last TAIL bytes of a larger file


@dataclass(slots=True, eq=False)
class _Directory:
    last: str  # the furthest name opened in this run
    names: list[str] = field(default_factory=list)  # sorted, as of the second open or later
    at: int = 0  # index of `last` in `names`, or of the first name behind it
    run: int = 0  # opens in order
    needed: int = 1  # of them before a name is chosen
    window: int = FIRST  # names after `last`
    looked: str = ""  # names up to this one have been considered in this run, for `looked_for`
    looked_for: int | None = 0  # `reads.head` then
    reads: Reads = field(default_factory=Reads)
    ahead: dict[str, Chosen] = field(default_factory=dict)  # in order; neither opened nor given up
    bytes: int = 0  # of `ahead`
    doubt: int = 1  # factor of the opens for each name that is chosen in any order
    jumps: int = 0  # opens out of order since the last ones in order
    opens: int = 0  # of files that were not here, or fetched ahead
    scattered: int = 0  # names chosen in any order
    hits: int = 0  # of these, opened; without those that were judged
    expected: float = 0.0  # of these, opened if all names are equally likely; likewise
    count: int = 0  # names chosen since the surplus was last judged too much
    surplus: int = 0  # of them

    @property
    def is_shuffled(self) -> bool:
        """True while names are chosen in any order."""
        return self.jumps >= SCATTERED * self.doubt and 0 < len(self.names) <= SHARE * self.opens

    def take(self, name: str) -> Chosen | None:
        chosen = self.ahead.pop(name, None)
        if chosen is not None:
            self.bytes -= chosen.size
        return chosen

    def index(self, name: str, children: Collection[str]) -> int | None:
        """Return the index of `name` in `names`. None: the directory is too large."""
        names, at = self.names, self.at + 1
        if at < len(names) and names[at] == name:  # in order
            return at
        at = bisect_left(names, name)
        if at == len(names) or names[at] != name:  # the first run, or a new name
            if len(children) > LARGEST:
                return None
            self.names = sorted(children)
            at, self.at = bisect_left(self.names, name), bisect_left(self.names, self.last)
        return at

    def move(self, name: str, at: int | None) -> None:
        """Note the open of `name`, whose index is `at`; None: unknown."""
        self.last, self.at = name, bisect_left(self.names, name) if at is None else at

    def end_run(self) -> None:
        self.run, self.window, self.looked, self.reads = 0, FIRST, "", Reads()
        self.ahead.clear()
        self.bytes = 0


class Siblings:
    def __init__(self) -> None:
        self._directories: OrderedDict[int, _Directory] = OrderedDict()  # by inode number
        self.surplus = 0  # names chosen and not opened, in all directories

    def __contains__(self, ino: int) -> bool:
        """True for a directory that is remembered."""
        return ino in self._directories

    def shows_reads(self, ino: int) -> bool:
        """True if a run in directory `ino` reads beginnings alone, or has yet to show how much it reads."""
        directory = self._directories.get(ino)
        return directory is not None and directory.run > 0 and directory.reads.head is not None

    def read(self, ino: int, name: str, size: int, start: int, stop: int) -> bool:
        """Note a read of [start, stop) of a file of `size` bytes in directory `ino`. True: names are to be chosen."""
        directory = self._directories.get(ino)
        if directory is None or directory.last != name:
            return False
        directory.reads.add(name, size, start, stop)
        if directory.looked_for != 0 or not directory.reads.head:
            return False
        directory.looked, directory.looked_for = "", directory.reads.head
        return directory.run >= directory.needed

    def opened(self, ino: int, name: str, cold: bool, children: Collection[str]) -> bool:
        """Note an open in directory `ino`. True: names are to be chosen.

        `cold`: bytes are missing on this host; a directory is remembered from its first cold open on.
        """
        directory = self._directories.get(ino)
        if directory is None:
            return cold and self._remember(ino, name, children)
        self._directories.move_to_end(ino)
        waiting = len(directory.ahead)
        hit = directory.take(name) is not None
        if name == directory.last:
            return False
        directory.opens += cold or hit
        at = directory.index(name, children)
        steps = None if at is None else at - directory.at
        if steps is not None and -GAP <= steps <= 0:
            return False
        directory.move(name, at)
        in_order = steps is not None and 0 < steps <= GAP
        directory.run = directory.run + 1 if in_order else 0
        if not in_order:
            directory.jumps += cold or hit
        if directory.is_shuffled and directory.run < ORDERLY:
            return self._is_worth_it(ino, directory, waiting, hit)
        if not in_order:
            self._give_up(ino, directory, len(directory.ahead))
            directory.end_run()
            return False
        return self._goes_on(ino, directory, hit)

    def _goes_on(self, ino: int, directory: _Directory, hit: bool) -> bool:
        """Widen the window of a run, which an open in order has continued. True: names are to be chosen."""
        if directory.is_shuffled:
            self._end_scattered(directory)
            directory.run = ORDERLY
        if directory.run >= ORDERLY:
            directory.jumps = 0
        if hit:
            directory.window = min(MOST, max(STEP, 2 * directory.window))
        if directory.ahead:
            self._give_up_passed(ino, directory, directory.at)
        if directory.looked_for != directory.reads.head:
            directory.looked, directory.looked_for = "", directory.reads.head
        elif 2 * len(directory.ahead) > directory.window:
            return False
        return directory.run >= directory.needed

    def choose(self, ino: int, size_of: Callable[[str, Reads], int], limit: int) -> list[Chosen]:
        """Return the names to download next in directory `ino`, in order.

        `size_of`: bytes to download of a name that may be chosen, else 0. `limit`: bytes chosen and not opened, at most.
        """
        directory = self._directories[ino]
        chosen: list[Chosen] = []
        names, at = directory.names, directory.at
        begin, end, most = bisect_right(names, directory.looked), at + 1 + directory.window, MOST
        if directory.is_shuffled:
            end, most = begin + MOST, max(0, directory.opens // directory.doubt - directory.scattered)
        else:
            begin = max(at + 1, begin)
        for name in names[begin:end]:
            size = 0 if name in directory.ahead else size_of(name, directory.reads)
            if len(chosen) == most or (size and directory.bytes + size > limit):
                break
            directory.looked = name
            if size:
                directory.ahead[name] = Chosen(ino, name, size, directory.reads.tail)
                directory.bytes += size
                chosen.append(directory.ahead[name])
        if directory.is_shuffled:
            directory.scattered += len(chosen)
        else:
            directory.count += len(chosen)
        return chosen

    def _is_worth_it(self, ino: int, directory: _Directory, waiting: int, hit: bool) -> bool:
        """Note an open in any order, with `waiting` names chosen before; end it where hardly any of these is opened."""
        directory.hits += hit
        directory.expected += waiting / max(1, len(directory.names) - directory.opens)
        if directory.expected < EVIDENCE:
            return True
        unlucky = UNLUCKY * directory.hits < directory.expected
        directory.hits, directory.expected = 0, 0.0
        if unlucky:
            log.debug("inode %d: files fetched ahead of opens in no order, in vain", ino)
            directory.doubt *= WARY
            self._end_scattered(directory)
        return not unlucky

    def _end_scattered(self, directory: _Directory) -> None:
        self.surplus += len(directory.ahead)
        directory.end_run()

    def _remember(self, ino: int, name: str, children: Collection[str]) -> bool:
        """True if a run begins."""
        directory = self._directories[ino] = _Directory(name)
        if len(self._directories) > DIRECTORIES:
            oldest, forgotten = self._directories.popitem(last=False)
            self._give_up(oldest, forgotten, len(forgotten.ahead))
        if not MANY <= len(children) <= LARGEST:
            return False
        if len(list(islice((one for one in children if one < name), GAP))) == GAP:
            return False
        directory.names = sorted(children)
        directory.at = bisect_left(directory.names, name)
        directory.run = 1
        return True

    def _give_up_passed(self, ino: int, directory: _Directory, at: int) -> None:
        """Give up the names that a run has passed over: those more than GAP before index `at`."""
        furthest = directory.names[max(0, at - GAP)]
        passed = list(takewhile(lambda name: name < furthest, directory.ahead))
        for name in passed:
            directory.take(name)
        self._give_up(ino, directory, len(passed))

    def _give_up(self, ino: int, directory: _Directory, count: int) -> None:
        """Count surplus; end the run if it is too much."""
        if not count:
            return
        self.surplus += count
        directory.surplus += count
        if 2 * directory.surplus > directory.count:
            log.debug(
                "inode %d: %d of %d files fetched ahead in vain", ino, directory.surplus, directory.count
            )
            directory.needed *= WARY
            directory.count = directory.surplus = 0
            directory.end_run()

    # ---- a choice's way
    def wants(self, chosen: Chosen) -> bool:
        """True unless the name has been opened or given up since."""
        directory = self._directories.get(chosen.directory)
        return directory is not None and directory.ahead.get(chosen.name) is chosen

    def skipped(self, chosen: Chosen) -> None:
        """Forget a choice that needs no download."""
        if self.wants(chosen):
            directory = self._directories[chosen.directory]
            directory.take(chosen.name)
            if directory.is_shuffled:
                directory.scattered -= 1
            else:
                directory.count -= 1

    def failed(self, chosen: Chosen) -> None:
        """End the run of a directory: a download failed. Its other choices are no surplus.

        The next run has to be longer: a file that always fails would be requested at each open before it.
        """
        if self.wants(chosen):
            directory = self._directories[chosen.directory]
            if directory.is_shuffled:
                directory.doubt *= WARY
            else:
                directory.count -= len(directory.ahead)
                directory.needed *= WARY
            directory.end_run()
