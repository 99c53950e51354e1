"""A disk whose power can be cut: an ext4 on a loop device on the recording file system.

Owns:  the image, the recorder's process, the loop devices and the mounts, and their end.
Fails: a machine without loop devices or FUSE fails here: a proof that is skipped is none
       (but users who are not root leave it to root).

A cut at a position of the log leaves: all that was written before the last flush before it, and
of what was written since, any subset of its blocks. The device owes nobody an order among
these, nor that a write of several blocks arrives as a whole.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.power.recorder import FLUSH, HEADER
from tests.support.loopdisk import need_root

BLOCK = 4096  # what a disk writes as a whole or not at all
IMAGE_BYTES = 24 << 20
WITHIN_S = 60.0
SYNC_FILE_RANGE_WRITE = 2  # sync_file_range(2): begin to write out; neither metadata nor a flush

_libc = ctypes.CDLL(None, use_errno=True)


class Entry(NamedTuple):
    end: int  # position in the log after it
    flush: bool
    offset: int
    data: bytes


def run(*command: str | os.PathLike[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(str(part) for part in command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def write_out(fd: int) -> None:
    """What memory pressure or a writeback timer does to one file: its pages go to the disk, no flush."""
    if _libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass
class Disk:
    base: Path  # holds before.img, image, log
    mountpoint: Path

    def position(self) -> int:
        """How much has been written to the log: what is before it was sent to the device before now."""
        return os.stat(self.base / "log").st_size

    def entries(self) -> list[Entry]:
        """A record that was cut off is one that nobody was told of."""
        log, at, found = (self.base / "log").read_bytes(), 0, []
        while at + HEADER.size <= len(log):
            kind, offset, length = HEADER.unpack_from(log, at)
            begin, at = at + HEADER.size, at + HEADER.size + length
            if at > len(log):
                break
            found.append(Entry(at, kind == FLUSH, offset, log[begin:at]))
        return found


@contextmanager
def recorded_disk(base: Path) -> Iterator[Disk]:
    """A mounted ext4 whose every block write and flush is in the log. Ended whatever happens."""
    need_root()
    base.mkdir()
    before, image = base / "before.img", base / "image"
    with before.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    run("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-J", "size=4", "-E", options, before)
    shutil.copy(before, image)
    (base / "log").touch()
    served, mountpoint = base / "served", base / "disk"
    served.mkdir()
    mountpoint.mkdir()
    recorder = subprocess.Popen(
        [sys.executable, "-m", "tests.power.recorder", image, base / "log", served],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.DEVNULL,
    )
    try:
        _await(served / "image", recorder)
        with _loop_mount(served / "image", mountpoint, "commit=1"):
            yield Disk(base, mountpoint)
    finally:
        subprocess.run(
            ["fusermount3", "-u", "-z", served], check=False, capture_output=True, timeout=WITHIN_S
        )
        try:
            recorder.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            recorder.kill()
            recorder.wait(WITHIN_S)


def _await(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not path.exists():
        assert process.poll() is None, "the recorder ended"
        assert time.monotonic() < deadline, "the recorder does not serve its file"
        time.sleep(0.01)


@contextmanager
def _loop_mount(image: Path, mountpoint: Path, options: str) -> Iterator[None]:
    device = run("losetup", "--find", "--show", image)
    try:
        run("mount", "-t", "ext4", "-o", options, device, mountpoint)
        try:
            yield
        finally:
            if subprocess.run(["umount", mountpoint], check=False, capture_output=True).returncode:
                run("umount", "-l", mountpoint)
    finally:
        run("losetup", "--detach", device)


# ------------------------------------------------------------------ cutting
class Cuts:
    """Disks as a cut leaves them, one after the other in the log's order."""

    def __init__(self, disk: Disk, where: Path) -> None:
        self._entries = disk.entries()
        self._durable = where / "durable.img"  # all that was flushed before the last cut
        self._image = where / "cut.img"
        self._mountpoint = where / "cut"
        self._mountpoint.mkdir(parents=True)
        self._done = 0  # entries that are in `_durable`
        shutil.copy(disk.base / "before.img", self._durable)

    def places(self) -> list[int]:
        """Every number of entries that a cut may find sent: before and after each flush, and between."""
        return list(range(1, len(self._entries) + 1))

    def flushes(self) -> list[int]:
        return [number for number, entry in enumerate(self._entries, 1) if entry.flush]

    def position(self, count: int) -> int:
        return self._entries[count - 1].end

    @contextmanager
    def cut(self, count: int, rng: random.Random) -> Iterator[Path]:
        """The file system after `count` entries were sent and the power failed. Counts must not fall."""
        flushed = next((n for n in range(count, 0, -1) if self._entries[n - 1].flush), 0)
        with self._durable.open("r+b", buffering=0) as durable:
            for entry in self._entries[self._done : flushed]:
                durable.seek(entry.offset)
                durable.write(entry.data)
        self._done = max(self._done, flushed)
        run("cp", "--sparse=always", self._durable, self._image)
        share = rng.choice([0.0, 0.5, 0.9, 1.0])
        with self._image.open("r+b", buffering=0) as image:
            for entry in self._entries[flushed:count]:
                for at in range(0, len(entry.data), BLOCK):
                    if rng.random() < share:
                        image.seek(entry.offset + at)
                        image.write(entry.data[at : at + BLOCK])
        with _loop_mount(self._image, self._mountpoint, "barrier=0"):  # nobody cuts this one's power
            yield self._mountpoint
