"""Mount path: its resolution, the checks before a mount, and its read-ahead.

Owns:    the error sentences of a mount that cannot be made.
Never:   mounts or unmounts (kmount.py, libfuse).
Threads: functions without state: any thread.
Fails:   MountPointBad, MountPointStale, AlreadyMounted, FuseMissing, MountError.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from r2fs.drivers import kmount
from r2fs.drivers.kmount import SUBTYPE, check_possible, mounted_at, privileged
from r2fs.model.errors import AlreadyMounted, FuseMissing, MountError, MountPointBad, MountPointStale
from r2fs.model.owned_paths import MAX_LINKS, resolved

FUSE_CONF = Path("/etc/fuse.conf")


def absolute(mountpoint: str | os.PathLike[str]) -> str:
    """The path as mountinfo has it: without symbolic links, like realpath(3).

    Sends no request to a FUSE mount, on the way or at the end: a mount without a daemon would
    not answer. Names inside a mount are kept as they are written.
    """
    mounted = {m.path for m in kmount.mounts() if m.fstype.startswith("fuse")}
    links, reachable = 0, True

    def link_at(path: str) -> str | None:
        nonlocal links, reachable
        reachable = reachable and path not in mounted
        target = _link(path) if reachable and links < MAX_LINKS else None
        links += target is not None
        return target

    return resolved(mountpoint, link_at)


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def check_mount_point(mountpoint: Path) -> None:
    """Raise MountPointBad, MountPointStale or AlreadyMounted where no mount can be made."""
    try:
        info = os.stat(mountpoint)
    except OSError as error:
        raise _unusable(mountpoint, error.errno or errno.EIO) from None
    if not stat.S_ISDIR(info.st_mode):
        raise MountPointBad(f"{mountpoint} is not a directory")
    there = mounted_at(absolute(mountpoint))
    if there is not None and there.fstype == f"fuse.{SUBTYPE}":
        raise AlreadyMounted(f"{mountpoint} already has {there.source} mounted on it")
    if os.path.samefile(mountpoint, "/"):
        raise MountPointBad("/ cannot be a mount point")
    _check_inside(mountpoint)


def _unusable(mountpoint: Path, code: int) -> MountPointBad | MountPointStale:
    if code in (errno.ENOTCONN, errno.ECONNABORTED):
        return MountPointStale(
            f"{mountpoint} is a dead mount, left by a daemon that has ended: "
            f"`umount -l {mountpoint}` (as a user `fusermount3 -uz {mountpoint}`) removes it"
        )
    if code == errno.ENOENT:
        return MountPointBad(f"{mountpoint} does not exist: make the directory first")
    return MountPointBad(f"{mountpoint} cannot be used: {os.strerror(code)}")


def _check_inside(mountpoint: Path) -> None:
    try:
        with os.scandir(mountpoint) as found:
            first = next(found, None)
    except PermissionError:
        raise MountPointBad(f"{mountpoint} cannot be read by this user") from None
    if first is not None:
        raise MountPointBad(
            f"{mountpoint} is not empty, and a mount would hide what is in it: choose an empty directory"
        )
    if not privileged() and not os.access(mountpoint, os.W_OK):
        raise MountPointBad(f"{mountpoint} is not writable by this user, which fusermount3 asks for")


def check_fuse(allow_other: bool, helper: str) -> None:
    """Raise FuseMissing or MountError where this user cannot mount through libfuse. A user needs `helper`."""
    check_possible()
    if privileged():
        return
    if shutil.which(helper) is None:
        raise FuseMissing(f"{helper} is not installed: install the package fuse3, or mount as root")
    if allow_other and not _users_may_allow_other():
        raise MountError(f"allow_other needs the line user_allow_other in {FUSE_CONF}, which root can add")


def _users_may_allow_other() -> bool:
    try:
        lines = FUSE_CONF.read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def set_readahead(target: str, size: int) -> bool:
    """Let the kernel read `size` bytes ahead of a sequential reader. False where only root could."""
    mounted = mounted_at(target)
    if mounted is None:
        return False
    try:
        Path(f"/sys/class/bdi/{mounted.device}/read_ahead_kb").write_text(str(size >> 10))
    except OSError:
        return False
    return True
