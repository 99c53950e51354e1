from __future__ import annotations

import os
import stat

import pytest

from r2fs.drivers.kernel import codec, wire
from r2fs.drivers.kernel.codec import DirectoryPage
from r2fs.model.directory_lines import encoded
from r2fs.model.records import Attributes, Entry, FileSystemStats, Kind

FILE = Attributes(
    ino=2**40 + 7, kind=Kind.FILE, size=123456789012, mode=0o4751, uid=1000, gid=2**32 - 2,
    mtime_ns=1_700_000_000_123_456_789, ctime_ns=1_700_000_001_000_000_001, atime_ns=5, nlink=1, blocks=99, st_ino=77,
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, (0, 0)),
        (-3.0, (0, 0)),
        (1.5, (1, 500_000_000)),
        (10, (10, 0)),
        (float("inf"), (codec.FOREVER_S, 0)),
        (1e300, (codec.FOREVER_S, 0)),
    ],
)
def test_validity(seconds: float, told: tuple[int, int]) -> None:
    assert codec.split(seconds) == told


def test_attributes() -> None:
    ino, size, blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, *rest = codec.attributes(FILE)
    assert (ino, size, blocks) == (77, 123456789012, 99)
    assert (mtime, mtime_ns) == (1_700_000_000, 123_456_789)
    assert (ctime, ctime_ns) == (1_700_000_001, 1)
    assert (atime, atime_ns) == (0, 5)
    assert mode == stat.S_IFREG | 0o4751
    assert rest == [1, 1000, 2**32 - 2, 0, codec.BLOCK_SIZE, 0]


def test_a_time_before_1970() -> None:
    fields = codec.attributes(FILE._replace(mtime_ns=-1))
    assert fields[4] == 2**64 - 1
    assert fields[7] == 999_999_999


def test_an_entry_reply() -> None:
    reply = codec.entry_reply(77, Entry(FILE, 2.25), 2.25)
    length, error, unique = wire.OUT_HEADER.unpack_from(reply)
    assert (length, error, unique) == (len(reply), 0, 77)
    nodeid, generation, valid, attr_valid, ns, attr_ns, ino, *_ = wire.ENTRY_OUT.unpack_from(
        reply, wire.OUT_SIZE
    )
    assert (nodeid, generation, ino) == (FILE.ino, 0, FILE.st_ino)
    assert (valid, ns) == (attr_valid, attr_ns) == (2, 250_000_000)


def test_a_negative_reply_is_a_node_of_number_0() -> None:
    fields = wire.ENTRY_OUT.unpack_from(codec.negative_reply(1, 3.5), wire.OUT_SIZE)
    assert fields[:6] == (0, 0, 3, 0, 500_000_000, 0)
    assert set(fields[6:]) == {0}


def test_statfs_counts_in_blocks() -> None:
    out = codec.statfs_out(FileSystemStats(total=10 << 20, free=1 << 20, files=5, files_free=3))
    assert wire.STATFS_OUT.unpack(out)[:8] == (2560, 256, 256, 5, 3, 4096, 255, 4096)


def test_names_that_are_not_utf8_travel_unchanged() -> None:
    raw = b"caf\xe9 \xff"
    assert encoded(codec.text(memoryview(raw))) == raw
    assert codec.text(raw) == os.fsdecode(raw)


@pytest.mark.parametrize("plus", [False, True])
def test_a_directory_page(plus: bool) -> None:
    fixed = wire.DIRENT.size + (wire.ENTRY_OUT.size if plus else 0)
    page = DirectoryPage(2 * (fixed + 8), plus)
    entry = wire.ENTRY_OUT.pack(*codec.entry_fields(Entry(FILE, 1.0), 1.0))
    for number, name in enumerate((b"12345678", b"1")):
        assert page.fits(name)
        page.add(name, 40 + number, Kind.DIRECTORY, number + 1, entry)
    assert not page.fits(b"")
    content = bytes(page.content())
    assert len(content) == 2 * (fixed + 8)
    at = fixed + 8 + (wire.ENTRY_OUT.size if plus else 0)
    assert wire.DIRENT.unpack_from(content, at) == (41, 2, 1, stat.S_IFDIR >> 12)
    assert content[at + wire.DIRENT.size :] == b"1" + bytes(7)
    if plus:
        assert content[: wire.ENTRY_OUT.size] == entry
