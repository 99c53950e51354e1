"""The protocol's numbers, against the sizes that the kernel documents and, where it is installed, its header."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.wire import Init, Notify, Op

HEADER = Path("/usr/include/linux/fuse.h")

SIZES = {
    "IN_HEADER": 40, "OUT_HEADER": 16, "FORGET_IN": 8, "FORGET_ONE": 16, "BATCH_FORGET_IN": 8,
    "GETATTR_IN": 16, "SETATTR_IN": 88, "MKNOD_IN": 16, "MKDIR_IN": 8, "RENAME_IN": 8, "RENAME2_IN": 16,
    "LINK_IN": 8, "OPEN_IN": 8, "CREATE_IN": 16, "READ_IN": 40, "WRITE_IN": 40, "RELEASE_IN": 24,
    "FLUSH_IN": 24, "FSYNC_IN": 16, "SETXATTR_IN": 8, "GETXATTR_IN": 8, "FALLOCATE_IN": 32, "LSEEK_IN": 24,
    "INTERRUPT_IN": 8, "INIT_IN": 20, "INIT_IN_OLD": 16, "ENTRY_OUT": 128, "ATTR_OUT": 104, "OPEN_OUT": 16,
    "CREATE_OUT": 144, "WRITE_OUT": 8, "STATFS_OUT": 80, "GETXATTR_OUT": 8, "LSEEK_OUT": 8, "DIRENT": 24,
    "INIT_OUT": 64, "INVAL_INODE_OUT": 24, "INVAL_ENTRY_OUT": 16, "STORE_OUT": 24, "DELETE_OUT": 24,
    "PRUNE_OUT": 16, "BACKING_MAP": 16, "BACKING_ID": 4,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_sizes(name: str, size: int) -> None:
    assert getattr(wire, name).size == size


def test_answers_with_their_header_in_front() -> None:
    for whole, body in (
        (wire.ENTRY_REPLY, wire.ENTRY_OUT),
        (wire.ATTR_REPLY, wire.ATTR_OUT),
        (wire.OPEN_REPLY, wire.OPEN_OUT),
        (wire.CREATE_REPLY, wire.CREATE_OUT),
        (wire.WRITE_REPLY, wire.WRITE_OUT),
    ):
        assert whole.size == wire.OUT_SIZE + body.size


def test_device_ioctls() -> None:
    """_IOR and _IOW of magic 229: direction, size, magic, number."""
    read, write = 2 << 30, 1 << 30
    assert read | 4 << 16 | 229 << 8 | 0 == wire.DEV_IOC_CLONE
    assert write | wire.BACKING_MAP.size << 16 | 229 << 8 | 1 == wire.DEV_IOC_BACKING_OPEN
    assert write | wire.BACKING_ID.size << 16 | 229 << 8 | 2 == wire.DEV_IOC_BACKING_CLOSE


@pytest.fixture(scope="module")
def header() -> str:
    if not HEADER.exists():
        pytest.skip("the kernel's headers are not installed")
    return HEADER.read_text()


def test_opcodes_are_those_of_the_header(header: str) -> None:
    theirs = {name: int(n) for name, n in re.findall(r"^\s+FUSE_([A-Z0-9_]+)\s*= (\d+),", header, re.M)}
    known = {name: n for name, n in theirs.items() if name in Op.__members__}
    assert len(known) >= 45
    assert {name: int(Op[name]) for name in known} == known
    codes = {name.removeprefix("NOTIFY_"): n for name, n in theirs.items() if name.startswith("NOTIFY_")}
    for name in codes.keys() & Notify.__members__.keys():
        assert Notify[name] == codes[name]


def test_flags_are_those_of_the_header(header: str) -> None:
    shifted = re.findall(r"#define (FUSE_|FOPEN_|FATTR_)([A-Z0-9_]+)\s+\(1(?:ULL)? << (\d+)\)", header)
    compared = 0
    for prefix, name, bit in shifted:
        if prefix == "FUSE_" and name in Init.__members__:
            ours: int | None = Init[name]
        else:
            ours = getattr(wire, name if prefix == "FUSE_" else prefix + name, None)
        if ours is not None:
            compared += 1
            assert ours == 1 << int(bit), name
    assert compared >= 40
