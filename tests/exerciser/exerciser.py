"""Exerciser: what it does to the files of a directory, and what it expects of them.

Owns:    the files below its directory, its open descriptors and mappings.
Never:   depends on anything but seed, operations and directory: the same three do the same again.
Fails:   Difference, with the operations that led to it.

Every operation is checked by itself (what was read, how many bytes were written) and afterwards by
another way to the same file: another descriptor, a mapping, the name. Every FULL_CHECK operations
all bytes of all files are compared.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.exerciser.mapping import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate
from tests.exerciser.mapping import Mapping as SharedMapping

NAMES = 5
OPEN, MAPPED = 7, 3  # at most
LARGEST_IO = 96 << 10
FULL_CHECK = 250  # operations
REMEMBERED = 40  # operations that a failure shows
PAGE = mmap.PAGESIZE
REFUSED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})  # an operation that need not be there


class Difference(AssertionError):
    """The file system is not as the model has it."""


@dataclass(eq=False)
class File:
    """One file, whatever its name is now, or if it has none any more."""

    data: bytearray
    mtime_ns: int | None = None  # as set; None since something was written
    mapped: int = 0  # mappings that can write


@dataclass(eq=False)
class Open:
    descriptor: int
    file: File
    flags: int

    @property
    def reads(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def appends(self) -> bool:
        return bool(self.flags & os.O_APPEND)


@dataclass(eq=False)
class Mapped:
    mapping: SharedMapping
    file: File

    def within(self, chance: random.Random) -> tuple[int, int] | None:
        """A range that may be touched: in the mapping and in the file."""
        start, stop = self.mapping.start, min(self.mapping.start + self.mapping.length, len(self.file.data))
        if start >= stop:
            return None
        offset = chance.randrange(start, stop)
        return offset, min(stop - offset, chance.randrange(1, 9000))


def content(seed: int, name: str, size: int) -> bytes:
    """What a file that is there at the beginning holds."""
    return random.Random(f"{seed} {name}").randbytes(size)


@dataclass
class Exerciser:
    directory: Path
    seed: int
    existing: Mapping[str, int] = field(default_factory=dict)  # name: size of a file that is there already
    largest: int = 400 << 10  # bytes of a file
    pause_s: float = 0.0  # longest rest after everything was closed: what happens behind gets its turn

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._names: dict[str, File] = {
            name: File(bytearray(content(self.seed, name, size))) for name, size in self.existing.items()
        }
        self._all_names = [*self.existing, *(f"f{n}" for n in range(NAMES - len(self.existing)))]
        self._opens: list[Open] = []
        self._maps: list[Mapped] = []
        self._done: deque[str] = deque(maxlen=REMEMBERED)
        self._count = 0
        self._touched: tuple[File, int, int] | None = None  # what the last operation may have changed
        # doubles the weight of what most programs do
        usual: list[Callable[[], None]] = [
            self._read,
            self._write,
            self._write,
            self._append,
            self._map_write,
        ]
        rare = [self._fsync, self._unlink, self._fallocate, self._copy_range, self._times, self._close_all]
        self._operations: list[Callable[[], None]] = [
            *usual * 6,
            *[self._open, self._close, self._truncate, self._map, self._map_read] * 4,
            *[self._truncate_name, self._unmap, self._flush, self._stat, self._holes, self._advise, self._rename] * 2,
            *rare,
        ]  # fmt: skip

    # ------------------------------------------------------------------ running
    def run(self, operations: int) -> dict[str, str]:
        """SHA-256 of every file that is left. Raises Difference."""
        try:
            while self._count < operations:
                self._count += 1
                self._chance.choice(self._operations)()
                self._look_again()
                if self._count % FULL_CHECK == 0:
                    self._check_all()
            self._close_everything()
            self._check_all()
        except (Difference, OSError) as error:
            raise Difference(f"{self._story()}\n{type(error).__name__}: {error}") from error
        return {name: hashlib.sha256(file.data).hexdigest() for name, file in sorted(self._names.items())}

    def _story(self) -> str:
        files = ", ".join(f"{name}: {len(file.data)} bytes" for name, file in sorted(self._names.items()))
        what = f"seed {self.seed}, operation {self._count}, in {self.directory}\nfiles: {files}\nthe last operations:"
        return "\n  ".join([what, *self._done])

    def _did(self, what: str, file: File | None = None) -> None:
        names = [name for name, named in self._names.items() if named is file]
        self._done.append(
            f"{self._count}: {what}" + (f" of {names[0] if names else 'an unlinked file'}" if file else "")
        )

    # ------------------------------------------------------------------ choosing
    def _pick(self, fits: Callable[[Open], bool]) -> Open | None:
        fitting = [one for one in self._opens if fits(one)]
        return self._chance.choice(fitting) if fitting else None

    def _offset(self, file: File, beyond: bool = False) -> int:
        """Mostly anywhere; often at a page's edge or the end, where mistakes live."""
        end = len(file.data) + (
            self._chance.randrange(60_000) if beyond and self._chance.random() < 0.1 else 0
        )
        offset = self._chance.randint(0, end)
        match self._chance.randrange(5):
            case 0:
                offset -= offset % PAGE
            case 1:
                offset = len(file.data)
        return min(offset, self.largest - 1)

    def _some(self) -> bytes:
        size = self._chance.choice([1, 7, 100, PAGE, PAGE + 1, self._chance.randint(1, LARGEST_IO)])
        return (
            self._chance.randbytes(min(size, 64)) * (size // 64 + 1)
            if size > 64
            else self._chance.randbytes(size)
        )

    # ------------------------------------------------------------------ opening and closing
    def _open(self) -> None:
        name = self._chance.choice(self._all_names)
        flags = self._chance.choice([
            os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT,
            os.O_RDWR | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDWR | os.O_APPEND,
            os.O_RDWR | os.O_CREAT | os.O_EXCL,
        ])  # fmt: skip
        if len(self._opens) >= OPEN:
            self._close()
        self._did(f"open {name} {_spelled(flags)}")
        file, expected = self._names.get(name), None
        if file is None and not flags & os.O_CREAT:
            expected = errno.ENOENT
        elif file is not None and flags & os.O_EXCL:
            expected = errno.EEXIST
        try:
            descriptor = os.open(self.directory / name, flags, 0o644)
        except OSError as error:
            if error.errno != expected:
                raise
            return
        if expected is not None:
            os.close(descriptor)
            raise Difference(f"open of {name} should have failed with {errno.errorcode[expected]}")
        if file is None:
            file = self._names[name] = File(bytearray())
        if flags & os.O_TRUNC:
            self._changed(file, 0, 0)
            del file.data[:]
        self._opens.append(Open(descriptor, file, flags))

    def _close(self) -> None:
        if self._opens:
            one = self._opens.pop(self._chance.randrange(len(self._opens)))
            self._did("close", one.file)
            os.close(one.descriptor)

    def _close_all(self) -> None:
        self._close_everything()
        if self.pause_s:
            time.sleep(self._chance.random() * self.pause_s)

    def _close_everything(self) -> None:
        self._did("close everything")
        while self._maps:
            self._unmap()
        for one in self._opens:
            os.close(one.descriptor)
        self._opens.clear()

    # ------------------------------------------------------------------ bytes
    def _changed(self, file: File, offset: int, size: int) -> None:
        file.mtime_ns = None
        self._touched = file, offset, size

    def _read(self) -> None:
        one = self._pick(lambda one: one.reads)
        if one is not None:
            offset, size = self._offset(one.file, beyond=True), self._chance.randint(1, LARGEST_IO)
            self._did(f"read {size} at {offset}", one.file)
            self._compare(os.pread(one.descriptor, size, offset), one.file, offset, size, "a read")

    def _write(self) -> None:
        one = self._pick(lambda one: one.writes and not one.appends)
        if one is None:
            self._open()
            return
        data, offset = self._some(), self._offset(one.file, beyond=True)
        data = data[: self.largest - offset]
        self._did(f"write {len(data)} at {offset}", one.file)
        self._wrote(os.pwrite(one.descriptor, data, offset), data)
        self._store(one.file, offset, data)

    def _append(self) -> None:
        one = self._pick(lambda one: one.appends)
        if one is None or len(one.file.data) + LARGEST_IO > self.largest:
            return
        data = self._some()
        self._did(f"append {len(data)}", one.file)
        self._wrote(os.write(one.descriptor, data), data)
        self._store(one.file, len(one.file.data), data)

    def _wrote(self, count: int, data: bytes) -> None:
        if count != len(data):
            raise Difference(f"{count} of {len(data)} bytes were written")

    def _store(self, file: File, offset: int, data: bytes) -> None:
        old = len(file.data)
        if offset > old:
            file.data.extend(bytes(offset - old))
        file.data[offset : offset + len(data)] = data
        self._changed(file, min(old, offset), offset + len(data) - min(old, offset))

    def _truncate(self) -> None:
        one = self._pick(lambda one: one.writes)
        if one is not None:
            size = self._new_size(one.file)
            self._did(f"truncate to {size}", one.file)
            os.ftruncate(one.descriptor, size)
            self._cut(one.file, size)

    def _truncate_name(self) -> None:
        name = self._chance.choice(self._all_names)
        if (file := self._names.get(name)) is not None:
            size = self._new_size(file)
            self._did(f"truncate by name to {size}", file)
            os.truncate(self.directory / name, size)
            self._cut(file, size)

    def _new_size(self, file: File) -> int:
        change = self._chance.choice([0, 1, -1, self._chance.randint(-60_000, 60_000), -len(file.data)])
        return max(0, min(self.largest, len(file.data) + change))

    def _cut(self, file: File, size: int) -> None:
        old = len(file.data)
        del file.data[size:]
        file.data.extend(bytes(size - len(file.data)))
        self._changed(file, min(old, size), abs(old - size))

    def _fallocate(self) -> None:
        one = self._pick(lambda one: one.writes and not one.appends)
        if one is None:
            return
        offset, size = self._offset(one.file), self._chance.randint(1, 50_000)
        mode = self._chance.choice([0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE, ZERO_RANGE])
        size = min(size, self.largest - offset)
        self._did(f"fallocate {mode} {size} at {offset}", one.file)
        try:
            fallocate(one.descriptor, mode, offset, size)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            return
        stop = offset + size
        if mode in (0, ZERO_RANGE) and stop > len(one.file.data):
            one.file.data.extend(bytes(stop - len(one.file.data)))
        if mode & (PUNCH_HOLE | ZERO_RANGE):
            stop = min(stop, len(one.file.data))
            if offset < stop:
                one.file.data[offset:stop] = bytes(stop - offset)
        self._changed(one.file, offset, size)

    def _copy_range(self) -> None:
        to = self._pick(lambda one: one.writes and not one.appends)
        one = self._pick(lambda one: one.reads and to is not None and one.file is not to.file)
        if one is None or to is None:
            return
        at, offset = self._offset(one.file), self._offset(to.file)
        size = min(self._chance.randint(1, LARGEST_IO), self.largest - offset)
        self._did(f"copy_file_range {size} from {at} to {offset}", to.file)
        try:
            count = os.copy_file_range(one.descriptor, to.descriptor, size, at, offset)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            return
        data = bytes(one.file.data[at : at + count])
        if len(data) != count or (not count and at < len(one.file.data)):
            raise Difference(f"copy_file_range copied {count} bytes")
        if count:
            self._store(to.file, offset, data)

    def _fsync(self) -> None:
        one = self._pick(lambda one: one.writes)
        if one is not None:
            self._did("fsync", one.file)
            self._chance.choice([os.fsync, os.fdatasync])(one.descriptor)

    def _advise(self) -> None:
        one = self._pick(lambda one: one.reads)
        if one is not None:
            advice = self._chance.choice(
                [os.POSIX_FADV_DONTNEED, os.POSIX_FADV_WILLNEED, os.POSIX_FADV_RANDOM]
            )
            self._did(f"fadvise {advice}", one.file)
            os.posix_fadvise(one.descriptor, 0, 0, advice)

    def _holes(self) -> None:
        """What is no data is zeros, whatever the file system calls data."""
        one = self._pick(lambda one: one.reads)
        if one is None or not one.file.data:
            return
        offset = self._chance.randrange(len(one.file.data))
        self._did(f"seek data from {offset}", one.file)
        try:
            data = os.lseek(one.descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = len(one.file.data)
        hole = os.lseek(one.descriptor, offset, os.SEEK_HOLE)
        if any(one.file.data[offset:data]) or not offset <= hole <= len(one.file.data) or data < offset:
            raise Difference(f"from {offset} on: data at {data}, a hole at {hole}")

    # ------------------------------------------------------------------ mappings
    def _map(self) -> None:
        one = self._pick(lambda one: one.reads and len(one.file.data) > 0)
        if one is None:
            return
        if len(self._maps) >= MAPPED:
            self._unmap()
        start = self._chance.randrange(len(one.file.data)) // PAGE * PAGE
        length = min(len(one.file.data) - start, self._chance.randint(1, 300_000))
        writable = one.writes and self._chance.random() < 0.8
        self._did(f"map {length} at {start}{' for writing' if writable else ''}", one.file)
        self._maps.append(Mapped(SharedMapping(one.descriptor, start, length, writable), one.file))
        one.file.mapped += writable

    def _unmap(self) -> None:
        if self._maps:
            one = self._maps.pop(self._chance.randrange(len(self._maps)))
            self._did("unmap", one.file)
            one.file.mapped -= one.mapping.writable
            one.mapping.close()

    def _map_read(self) -> None:
        if self._maps:
            one = self._chance.choice(self._maps)
            if (found := one.within(self._chance)) is not None:
                self._did(f"read {found[1]} at {found[0]} of the mapping", one.file)
                self._compare(one.mapping.read(*found), one.file, *found, "a mapping")

    def _map_write(self) -> None:
        writable = [one for one in self._maps if one.mapping.writable]
        if not writable:
            self._map()
            return
        one = self._chance.choice(writable)
        if (found := one.within(self._chance)) is not None:
            offset, size = found
            self._did(f"write {size} at {offset} of the mapping", one.file)
            data = self._chance.randbytes(size)
            one.mapping.write(offset, data)
            one.file.data[offset : offset + size] = data
            self._changed(one.file, offset, size)

    def _flush(self) -> None:
        if self._maps:
            one = self._chance.choice(self._maps)
            self._did("msync", one.file)
            one.mapping.flush()

    # ------------------------------------------------------------------ names and attributes
    def _rename(self) -> None:
        old, new = self._chance.choice(self._all_names), self._chance.choice(self._all_names)
        if old in self._names:
            self._did(f"rename {old} to {new}")
            os.rename(self.directory / old, self.directory / new)
            self._names[new] = self._names[old] if old == new else self._names.pop(old)

    def _unlink(self) -> None:
        name = self._chance.choice(self._all_names)
        if name in self._names:
            self._did(f"unlink {name}")
            os.unlink(self.directory / name)
            del self._names[name]

    def _times(self) -> None:
        name = self._chance.choice(self._all_names)
        file = self._names.get(name)
        if file is not None and not file.mapped:
            ns = self._chance.randrange(10**18, 17 * 10**17)
            self._did(f"set the time to {ns}", file)
            os.utime(self.directory / name, ns=(ns, ns))
            file.mtime_ns = ns

    def _stat(self) -> None:
        name = self._chance.choice(self._all_names)
        self._did(f"stat {name}")
        try:
            found = os.stat(self.directory / name)
        except FileNotFoundError:
            found = None
        file = self._names.get(name)
        if (file is None) != (found is None):
            raise Difference(f"{name} is {'missing' if found is None else 'there'}")
        if file is not None and found is not None:
            self._compare_stat(found, file)

    # ------------------------------------------------------------------ comparing
    def _look_again(self) -> None:
        """What the operation changed, through another door."""
        if self._touched is None:
            return
        file, offset, size = self._touched
        self._touched = None
        one = self._pick(lambda one: one.reads and one.file is file)
        if one is not None:
            self._compare_stat(os.fstat(one.descriptor), file)
            start, size = max(0, offset - 50), min(size, LARGEST_IO) + 100
            self._compare(os.pread(one.descriptor, size, start), file, start, size, "what was just changed")
            return
        name = next((name for name, named in self._names.items() if named is file), None)
        if name is not None:
            self._compare_stat(os.stat(self.directory / name), file)

    def _check_all(self) -> None:
        if (found := sorted(os.listdir(self.directory))) != sorted(self._names):
            raise Difference(f"the directory holds {found}, and should hold {sorted(self._names)}")
        for name, file in sorted(self._names.items()):
            with open(self.directory / name, "rb", buffering=0) as opened:
                data = opened.read()
            self._compare(data, file, 0, len(file.data) + 1, name)
            self._compare_stat(os.stat(self.directory / name), file)
        for one in self._opens:
            self._compare_stat(os.fstat(one.descriptor), one.file)
            if one.reads:
                self._compare(os.pread(one.descriptor, 1 << 30, 0), one.file, 0, 1 << 30, "an open file")
        for mapped in self._maps:
            start = mapped.mapping.start
            size = min(mapped.mapping.length, len(mapped.file.data) - start)
            if size > 0:
                self._compare(mapped.mapping.read(start, size), mapped.file, start, size, "a mapping")

    def _compare(self, found: bytes, file: File, offset: int, size: int, what: str) -> None:
        wanted = bytes(file.data[offset : offset + size])
        if found == wanted:
            return
        at = next(
            (n for n, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
            min(len(found), len(wanted)),
        )
        raise Difference(
            f"{what}: {len(found)} bytes at {offset} instead of {len(wanted)}; from byte {offset + at} on "
            f"{found[at : at + 16].hex()} instead of {wanted[at : at + 16].hex()}"
        )

    def _compare_stat(self, found: os.stat_result, file: File) -> None:
        if found.st_size != len(file.data):
            raise Difference(f"the size is {found.st_size} instead of {len(file.data)}")
        if file.mtime_ns is not None and found.st_mtime_ns != file.mtime_ns:
            raise Difference(f"the time is {found.st_mtime_ns} instead of {file.mtime_ns}")


def _spelled(flags: int) -> str:
    names = ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND")
    return "|".join(
        [("O_RDONLY", "O_WRONLY", "O_RDWR")[flags & 3], *(n for n in names if flags & getattr(os, n))]
    )
