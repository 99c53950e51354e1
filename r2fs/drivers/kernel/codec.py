"""Codec: the engine's records in the kernel's layout, and names from the kernel as `str`.

Owns:  the translation of Entry, DirEntry, FileSystemStats and names to and from wire.py.
Never: touches a descriptor; keeps state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from r2fs.drivers.kernel import wire
from r2fs.model.directory_lines import Line
from r2fs.model.records import TYPE_BITS, Attributes, Entry, FileSystemStats, Kind

NS: Final = 10**9
FOREVER_S: Final = 10**9  # the longest validity in an answer: 31 years
BLOCK_SIZE: Final = 4096  # st_blksize of plain files: programs use this as their buffer size

DIRENT_TYPE: Final[Mapping[Kind, int]] = {kind: bits >> 12 for kind, bits in TYPE_BITS.items()}
NO_ATTRIBUTES: Final = (0,) * wire.ATTR_FIELDS
NO_ENTRY: Final = bytes(wire.ENTRY_OUT.size)  # in READDIRPLUS: a name without attributes


def text(raw: memoryview | bytes) -> str:
    """Decode a name; bytes that are not UTF-8 become lone surrogates, as by os.fsdecode."""
    return str(raw, "utf-8", "surrogateescape")


def split(valid_s: float) -> tuple[int, int]:
    """Split seconds into whole seconds and nanoseconds, as the protocol has them."""
    if valid_s >= FOREVER_S:
        return FOREVER_S, 0
    if valid_s <= 0:
        return 0, 0
    whole = int(valid_s)
    return whole, int((valid_s - whole) * NS)


def attributes(a: Attributes) -> tuple[int, ...]:
    """The fields of fuse_attr."""
    atime, atime_ns = divmod(a.atime_ns, NS)
    mtime, mtime_ns = divmod(a.mtime_ns, NS)
    ctime, ctime_ns = divmod(a.ctime_ns, NS)
    mode = a.mode | TYPE_BITS[a.kind]
    mask = 0xFFFFFFFFFFFFFFFF  # times before 1970 travel as two's complement
    return (
        a.st_ino, a.size, a.blocks, atime & mask, mtime & mask, ctime & mask, atime_ns, mtime_ns, ctime_ns,
        mode, a.nlink, a.uid, a.gid, a.rdev, BLOCK_SIZE, 0,
    )  # fmt: skip


def entry_fields(entry: Entry, valid_s: float) -> tuple[int, ...]:
    """The fields of fuse_entry_out. Node ids are never reused, so the generation is 0."""
    whole, rest = split(valid_s)
    return (entry.attributes.ino, 0, whole, whole, rest, rest, *attributes(entry.attributes))


def entry_reply(unique: int, entry: Entry, valid_s: float) -> bytes:
    return wire.ENTRY_REPLY.pack(wire.ENTRY_REPLY.size, 0, unique, *entry_fields(entry, valid_s))


def negative_reply(unique: int, valid_s: float) -> bytes:
    """An entry with node id 0: the name does not exist, and the kernel may cache its absence."""
    whole, rest = split(valid_s)
    return wire.ENTRY_REPLY.pack(wire.ENTRY_REPLY.size, 0, unique, 0, 0, whole, 0, rest, 0, *NO_ATTRIBUTES)


def attr_reply(unique: int, entry: Entry, valid_s: float) -> bytes:
    whole, rest = split(valid_s)
    return wire.ATTR_REPLY.pack(
        wire.ATTR_REPLY.size, 0, unique, whole, rest, 0, *attributes(entry.attributes)
    )


def create_reply(unique: int, entry: Entry, valid_s: float, fh: int, fopen: int, backing_id: int) -> bytes:
    return wire.CREATE_REPLY.pack(
        wire.CREATE_REPLY.size, 0, unique, *entry_fields(entry, valid_s), fh, fopen, backing_id
    )


def statfs_out(s: FileSystemStats) -> bytes:
    blocks, free = s.total // s.block, s.free // s.block
    return wire.STATFS_OUT.pack(blocks, free, free, s.files, s.files_free, s.block, s.name_max, s.block, 0)


class DirectoryPage:
    """One answer to READDIR or READDIRPLUS, filled until the kernel's buffer is full."""

    __slots__ = ("_data", "_plus", "_size")

    def __init__(self, size: int, plus: bool) -> None:
        self._data = bytearray()
        self._size = size
        self._plus = plus

    def fits(self, name: bytes) -> bool:
        fixed = wire.DIRENT.size + (wire.ENTRY_OUT.size if self._plus else 0)
        return len(self._data) + ((fixed + len(name) + 7) & ~7) <= self._size

    def add(self, name: bytes, st_ino: int, kind: Kind, offset: int, entry: bytes = NO_ENTRY) -> None:
        """Add a name. `offset` is the position after this name; `entry` the packed fuse_entry_out."""
        data = self._data
        if self._plus:
            data += entry
        data += wire.DIRENT.pack(st_ino, offset, len(name), DIRENT_TYPE[kind])
        data += name
        data += bytes(-len(data) & 7)

    def add_names(self, lines: Iterable[Line], offset: int) -> int:
        """Add names without attributes until the page is full; return their number. `offset`: before the first."""
        parts: list[bytes] = []
        pack, left, count = wire.DIRENT.pack, self._size - len(self._data), 0
        extra = NO_ENTRY if self._plus else b""
        fixed = wire.DIRENT.size + len(extra)
        for name, number, kind in lines:
            length = len(name)
            left -= (fixed + length + 7) & ~7
            if left < 0:
                break
            count += 1
            parts += (
                extra,
                pack(number, offset + count, length, DIRENT_TYPE[kind]),
                name,
                bytes(-length & 7),
            )
        self._data += b"".join(parts)
        return count

    def content(self) -> bytearray:
        return self._data
