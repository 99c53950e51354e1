"""A small disk of our own, ext4 on a loop device: it can be filled, fail, and be looked at again.

Owns:    the image, the mount and their end: unmounted lazily, whoever still holds a file there.
Never:   touches another file system.
Fails:   for root where there are no loop devices; a test of anybody else's is skipped.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from r2fs.disk.filecalls import sync_file_system

MIB = 1 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D  # linux/ext4.h
END_S = 20.0  # how long whoever has ended may still hold files
NO_LOG_FLUSH = 2  # what is not on the disk yet never gets there


def need_root() -> None:
    """Everybody else leaves these to root; for root nothing is skipped."""
    if os.geteuid() != 0:
        pytest.skip("mounts a disk of its own, which takes root")


class LoopDisk:
    def __init__(self, base: Path, size: int = 64 * MIB) -> None:
        need_root()
        self.image, self.path = base / "disk.img", base / "disk"
        self.path.mkdir()
        with self.image.open("wb") as file:
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-i", "8192", str(self.image))
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.path))

    def unmount(self) -> None:
        """The name goes at once; the disk when the last file there is closed."""
        _run("umount", "-l", str(self.path))

    def repair(self) -> None:
        """As a person does it: off, checked, and on again. Fails where somebody still holds a file there.

        A lazy unmount would not do: while the old instance lives, mounting the image gives that one again.
        """
        deadline = time.monotonic() + END_S
        while (
            off := subprocess.run(
                ["umount", str(self.path)], capture_output=True, text=True, timeout=60, check=False
            )
        ).returncode != 0:
            assert time.monotonic() < deadline, f"{self.path} stays busy: {off.stderr}"
            time.sleep(0.05)
        checked = subprocess.run(
            ["e2fsck", "-p", "-f", str(self.image)], capture_output=True, text=True, timeout=60, check=False
        )
        assert checked.returncode in (0, 1), checked.stdout + checked.stderr
        self.mount()

    def sync(self) -> None:
        sync_file_system(self.path)

    # ---- faults
    def fill(self, leave: int = 0) -> Path:
        """Somebody else's file takes all the room but `leave` bytes."""
        filler = self.path / "filler"
        fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
        size, step = os.fstat(fd).st_size, 4 * MIB
        try:
            while step >= 4096:
                found = os.statvfs(self.path)
                free = found.f_bfree * found.f_frsize - leave
                step = min(step, free // 4096 * 4096)
                if step <= 0:
                    break
                try:
                    os.posix_fallocate(fd, size, step)
                    size += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2
        finally:
            os.close(fd)
        return filler

    def make_readonly(self) -> None:
        """The kernel finds an error, as it would on a bad disk, and lets nobody write any more."""
        (self._sysfs() / "trigger_fs_error").write_text("an error, says the test")

    def fail(self) -> None:
        """The disk is gone: every call is EIO, and what was not written to it is lost."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def _sysfs(self) -> Path:
        device = os.stat(self.path).st_dev
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
        return Path("/sys/fs/ext4") / block.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(subprocess.CalledProcessError):  # not mounted any more
            self.unmount()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
