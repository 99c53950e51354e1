"""Mounting without libfuse: mount(2) with its privilege, else fusermount3; and unmounting.

Owns:  how a descriptor of /dev/fuse becomes a mount, and the one-sentence error where it does not.
Never: speaks the protocol on that descriptor; looks inside a mount (a stat of the own mount,
       in the thread that has to answer it, never returns).
Fails: FuseMissing, MountPointBad, MountPointStale, Busy.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r2fs.drivers import container
from r2fs.model.errors import Busy, FuseMissing, MountError, MountPointBad, MountPointStale
from r2fs.model.settings import Settings

DEVICE: Final = "/dev/fuse"
SUBTYPE: Final = "r2fs"
CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
HELPER: Final = "fusermount3"
HELPER_TIMEOUT_S: Final = 30.0  # mounting takes milliseconds; a helper that hangs must not hang the daemon
CAP_SYS_ADMIN: Final = 21
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of /proc/self/mountinfo. `device` is major:minor, as in /sys/class/bdi."""

    path: str
    device: str
    fstype: str
    source: str
    user: int | None = None  # FUSE: the uid that mounted


def mounts() -> list[Mounted]:
    """All mounts of this mount namespace, the topmost on a path last."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(" ")
            tail = fields[fields.index("-") + 1 :]
            found.append(Mounted(_plain(fields[4]), fields[2], tail[0], _plain(tail[1]), _user(tail[-1])))
    return found


def _user(options: str) -> int | None:
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name == "user_id" and value.isdigit():
            return int(value)
    return None


def mounted_at(path: str) -> Mounted | None:
    """The mount on exactly this path."""
    return next((m for m in reversed(mounts()) if m.path == path), None)


def mount_over(path: str) -> Mounted | None:
    """The innermost mount of r2fs above `path`. Sends no request to a mount."""
    over = [m for m in mounts() if m.fstype == f"fuse.{SUBTYPE}" and f"{path}/".startswith(f"{m.path}/")]
    return max(over, key=lambda m: len(m.path), default=None)


def file_system_of(path: Path) -> str:
    """The type of the file system that `path` lies on; empty if mountinfo does not show it."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    return next((m.fstype for m in reversed(mounts()) if m.device == number), "")


def check_possible() -> None:
    """Raises FuseMissing where this process has no way to mount."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise FuseMissing(f"{DEVICE} is not there: {container.fuse_remedy()}") from None
    except OSError as e:
        remedy = container.fuse_remedy() if container.is_one() else "ask for access to it"
        raise FuseMissing(f"{DEVICE} cannot be opened ({e.strerror}): {remedy}") from None
    if not privileged() and shutil.which(HELPER) is None:
        raise FuseMissing(f"{HELPER} is not installed: install the package fuse3, or mount as root")


def privileged() -> bool:
    """True if this process may call mount(2)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


def mount(path: str, settings: Settings) -> int:
    """Mount on `path`; the descriptor on which the kernel now speaks. INIT is its first request."""
    return mount_direct(path, settings) if privileged() else mount_by_helper(path, settings)


def mount_direct(path: str, settings: Settings) -> int:
    """By mount(2)."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        raise FuseMissing(f"{DEVICE} cannot be opened: {e.strerror}") from None
    options = [f"fd={fd}", "rootmode=40000", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    data = ",".join(options + _common_options(settings)).encode()
    flags = MS_NOSUID | MS_NODEV
    flags |= MS_RDONLY if settings.read_only else 0
    flags |= MS_NOEXEC if settings.noexec else 0
    source = os.fsencode(settings.bucket.url)
    try:
        with _pinned(path) as at:
            if _libc().mount(source, at.encode(), f"fuse.{SUBTYPE}".encode(), flags, data):
                raise _mount_error(path, ctypes.get_errno())
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def _pinned(path: str) -> Iterator[str]:
    """The directory that was looked at, and no other one: whoever may rename a directory on the way could put
    a link to /etc in its place between the look and the mount."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as e:
        raise MountPointBad(f"{path} cannot be mounted on: {e.strerror}") from None
    try:
        at = f"/proc/self/fd/{fd}"
        if (real := os.readlink(at)) != path:
            raise MountPointBad(f"{path} has become {real} while it was looked at: try again")
        yield at
    finally:
        os.close(fd)


def mount_by_helper(path: str, settings: Settings) -> int:
    """Mount by fusermount3, which is set-user-id: it mounts and passes the descriptor over a socket."""
    options = ["nosuid", "nodev", f"fsname={_escaped(settings.bucket.url)}", f"subtype={SUBTYPE}"]
    options += ["ro"] if settings.read_only else []
    options += ["noexec"] if settings.noexec else []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        command = [HELPER, "-o", ",".join(options + _common_options(settings)), "--", path]
        done = _run(command, path, (theirs.fileno(),), environment)
        if done.returncode:
            raise _helper_error(path, done.stderr)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise MountError(f"{HELPER} mounted {path} but passed no descriptor: unmount it with {HELPER} -u")
    os.set_inheritable(fds[0], False)
    return fds[0]


def unmount(path: str, lazy: bool = False) -> None:
    """Unmount `path`. With `lazy`: the name at once, open files when they are closed."""
    if not privileged():
        command = [HELPER, "-u", *(["-z"] if lazy else []), "--", path]
        done = _run(command, path, (), dict(os.environ))
        if done.returncode:
            raise _helper_error(path, done.stderr)
    elif _libc().umount2(os.fsencode(path), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)):
        raise _mount_error(path, ctypes.get_errno())


def abort(path: str) -> None:
    """End the connection of the FUSE mount on `path`, if permitted: every call that waits in it fails."""
    mounted = mounted_at(path)
    if mounted is None or not mounted.fstype.startswith("fuse"):
        return
    with suppress(OSError):  # no fusectl, or another user's mount: ends with its descriptors
        (CONNECTIONS / mounted.device.partition(":")[2] / "abort").write_text("1")


# ------------------------------------------------------------------ helpers
def _common_options(settings: Settings) -> list[str]:
    # default_permissions: the kernel checks modes and owners, and sends no ACCESS
    return ["default_permissions"] + (["allow_other"] if settings.allow_other else [])


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _run(
    command: list[str], path: str, fds: tuple[int, ...], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            pass_fds=fds,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HELPER_TIMEOUT_S,
        )
    except FileNotFoundError:
        raise FuseMissing(f"{HELPER} is not installed: install the package fuse3") from None
    except subprocess.TimeoutExpired:
        raise MountError(f"{HELPER} did not come back for {path}") from None


def _mount_error(path: str, code: int) -> MountError | Busy:
    reason = os.strerror(code)
    if code == errno.EBUSY:
        return Busy(f"{path} is in use: close the files and directories that programs have open there")
    if code == errno.ENOTCONN:
        return MountPointStale(f"{path} is a mount whose program has gone: umount -l {path}")
    if code == errno.EPERM:
        return FuseMissing(f"{path}: this process may not mount: run as root or install fuse3")
    if code == errno.ENODEV:
        return FuseMissing(f"the kernel has no FUSE: {container.fuse_remedy()}")
    if code == errno.EINVAL:
        return MountPointBad(f"{path} is not a mount point, or the kernel refuses the mount's options")
    return MountPointBad(f"{path}: {reason}")


def _helper_error(path: str, text: str) -> MountError | Busy:
    said = " ".join(text.split()).removeprefix(f"{HELPER}: ")
    lower = said.lower()
    if "busy" in lower:
        return _mount_error(path, errno.EBUSY)
    if "not connected" in lower:
        return _mount_error(path, errno.ENOTCONN)
    if "user_allow_other" in lower:
        return MountError("allow_other needs the line user_allow_other in /etc/fuse.conf")
    if DEVICE in said or "fuse device" in lower:
        return FuseMissing(
            f"{said.partition(', try ')[0]}: {container.fuse_remedy()}" if container.is_one() else said
        )
    return MountPointBad(f"{path}: {said}")


def _escaped(text: str) -> str:
    """Escape one value for fusermount3's list of options."""
    return text.replace("\\", "\\\\").replace(",", "\\,")


def _plain(field: str) -> str:
    """A field of mountinfo without its octal escapes (space, tab, newline, backslash)."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
