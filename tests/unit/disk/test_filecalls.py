from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

import pytest

from r2fs.disk import filecalls
from r2fs.model.errors import FileTooLarge, LocalError, NoSpace


def test_write_durably_replaces_and_leaves_nothing_beside(tmp_path: Path):
    path = tmp_path / "f"
    filecalls.write_durably(path, b"old")
    filecalls.write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["f"]


def test_the_order_is_bytes_then_name_then_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        steps.append("fsync dir" if os.path.isdir(f"/proc/self/fd/{fd}") else "fsync file")
        real_fsync(fd)

    def replace(old: Path, new: Path) -> None:
        steps.append("replace")
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    filecalls.write_durably(tmp_path / "f", b"x")
    assert steps == ["fsync file", "replace", "fsync dir"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "f"
    filecalls.write_durably(path, b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        filecalls.write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_quarantine_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("r2fs.disk.filecalls.time.strftime", lambda *_: "STAMP")
    kept = []
    for number in range(3):
        (tmp_path / "journal.db").write_text(str(number))
        kept.append(filecalls.quarantine(tmp_path / "journal.db"))
    assert [path.name for path in kept] == [
        "journal.db.damaged-STAMP", "journal.db.damaged-STAMP-2", "journal.db.damaged-STAMP-3",
    ]  # fmt: skip
    assert [path.read_text() for path in kept] == ["0", "1", "2"]
    assert not (tmp_path / "journal.db").exists()


def test_quarantine_moves_directories(tmp_path: Path):
    for _ in range(2):
        (tmp_path / "d").mkdir()
        (tmp_path / "d/f").write_text("x")
        assert (filecalls.quarantine(tmp_path / "d") / "f").read_text() == "x"


def test_quarantine_of_what_is_not_there_says_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        filecalls.quarantine(tmp_path / "nothing")


def test_punch_hole_frees_blocks_and_keeps_the_size(tmp_path: Path):
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        filecalls.pwrite_all(fd, b"x" * 65536, 0)
        os.fsync(fd)
        before = filecalls.allocated_bytes(fd)
        filecalls.punch_hole(fd, 0, 32768)
        assert filecalls.allocated_bytes(fd) == before - 32768
        assert os.pread(fd, 65536, 0) == bytes(32768) + b"x" * 32768
        filecalls.punch_hole(fd, 0, 0)
    finally:
        os.close(fd)
    with pytest.raises(OSError) as failed:
        filecalls.punch_hole(fd, 0, 1)
    assert failed.value.errno == errno.EBADF


def test_pwrite_all_goes_on_after_a_short_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, memoryview(data)[:3], offset))
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        assert filecalls.pwrite_all(fd, b"0123456789", 5) == 10
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == bytes(5) + b"0123456789"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EFBIG, FileTooLarge), (errno.EIO, LocalError)],
)
def test_local_error_names_the_file(number: int, kind: type[Exception]):
    error = filecalls.local_error(OSError(number, os.strerror(number)), "takes/07.wav")
    assert type(error) is kind
    assert "takes/07.wav" in str(error)


def test_sync_and_boot_id(tmp_path: Path):
    filecalls.sync_file_system(tmp_path)
    assert len(filecalls.boot_id()) == 36


def flags_of(directory: Path) -> int:
    fd = os.open(directory, os.O_RDONLY)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, filecalls.FS_IOC_GETFLAGS, struct.pack("l", 0)))
    finally:
        os.close(fd)
    return int(flags)


def file_system_of(path: Path) -> str:
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next((fields[fields.index("-") + 1] for fields in mounts if fields[2] == number), "")


def test_ext4_spreads_new_subdirectories(tmp_path: Path):
    if file_system_of(tmp_path) != "ext4":
        pytest.skip("no ext4")
    before = flags_of(tmp_path)
    filecalls.spread_subdirectories(tmp_path)
    filecalls.spread_subdirectories(tmp_path)
    assert flags_of(tmp_path) == before | filecalls.FS_TOPDIR_FL
    (tmp_path / "below").mkdir()
    assert not flags_of(tmp_path / "below") & filecalls.FS_TOPDIR_FL


@pytest.mark.parametrize("failing", [filecalls.FS_IOC_GETFLAGS, filecalls.FS_IOC_SETFLAGS])
def test_another_file_system_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int):
    def ioctl(fd: int, request: int, data: bytes) -> bytes:
        if request == failing:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return bytes(8)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    filecalls.spread_subdirectories(tmp_path)
