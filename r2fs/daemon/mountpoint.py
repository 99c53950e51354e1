"""Mount point: the checks of a directory before a mount, the removal of a mount without a daemon, the users of a mount.

Never: looks into a mount that may not answer.
Fails: FuseMissing, MountPointBad, MountPointStale, AlreadyMounted, MountError, SettingsError.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from r2fs.daemon.client import Daemon
from r2fs.drivers import kmount
from r2fs.drivers.mount_path import absolute, check_fuse, check_mount_point
from r2fs.model.errors import AlreadyMounted, MountError, MountPointStale, SettingsError
from r2fs.model.settings import Settings

log = logging.getLogger(__name__)

SILENT_S = 10.0  # for a mount with a live daemon, which may be busy
ASK = "import os, sys\ntry: os.statvfs(sys.argv[1])\nexcept OSError as e: sys.exit(e.errno)"
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.ESHUTDOWN)  # errnos of a mount without a daemon
OURS = f"fuse.{kmount.SUBTYPE}"


def check(path: Path, settings: Settings, daemons: Iterable[Daemon] = ()) -> Path:
    """Check all that is known before mounting `settings` on `path`; return its real path."""
    check_fuse(settings.allow_other, kmount.HELPER)
    while is_stale(path):
        detach_stale(path)  # several may be stacked
    real = Path(absolute(path))
    _check_not_ours(path, real, daemons)
    check_mount_point(path)
    _check_outside(path, real, settings)
    return real


def detach_stale(path: Path) -> None:
    """Unmount a mount of r2fs without a daemon. MountPointStale where the mount is another program's."""
    real = absolute(path)
    mounted = kmount.mounted_at(real)
    if mounted is None or mounted.fstype != OURS:
        what = f"{mounted.source} ({mounted.fstype})" if mounted else "a mount"
        raise MountPointStale(f"{path} has {what} on it, whose program has gone: umount -l {path}")
    kmount.unmount(real, lazy=True)
    log.info("%s: a mount without a daemon was removed", path)


def is_stale(path: Path) -> bool:
    """True for a mount whose daemon has ended. MountError if the mount does not answer at all."""
    mounted = kmount.mounted_at(absolute(path))
    if mounted is None or mounted.fstype != OURS:
        code = _ask(path)
    else:  # possibly unserved at the moment: the request must be one that can be given up
        code = _ask_apart(path)
    return code in GONE


def _ask(path: Path) -> int:
    """The errno of a stat and statvfs; 0 for an answer. stat alone may be answered from the kernel's cache."""
    try:
        os.stat(path)
        os.statvfs(path)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _ask_apart(path: Path) -> int:
    """_ask in a child process, which can be killed if its request is not read."""
    child = os.posix_spawn(
        sys.executable, [sys.executable, "-I", "-S", "-c", ASK, os.fspath(path)], os.environ
    )
    deadline = time.monotonic() + SILENT_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise MountError(
        f"{path} is mounted and does not answer: its daemon hangs, or has gone and another may take it over; "
        f"umount -f {path} ends it"
    )


def _check_not_ours(path: Path, real: Path, daemons: Iterable[Daemon]) -> None:
    mounted = kmount.mounted_at(str(real))
    if mounted is not None and mounted.fstype == OURS:
        pid = next((f", process {d.pid}" for d in daemons if d.mountpoint == str(real)), "")
        raise AlreadyMounted(
            f"{path} is mounted already ({mounted.source}{pid}): unmount it first (r2fs umount {path})"
        )


def _check_outside(path: Path, real: Path, settings: Settings) -> None:
    for name in ("cache_dir", "state_dir", "run_dir"):
        directory = Path(os.path.realpath(getattr(settings, name)))
        if directory == real or real in directory.parents:
            raise SettingsError(
                f"{name} ({directory}) lies in the mount point {path}: choose another place for it"
            )


# ------------------------------------------------------------------ while mounted
def is_ours(real: Path) -> bool:
    """True if r2fs is mounted on this path. Reads mountinfo, and sends no request to the mount (prober.py does)."""
    mounted = kmount.mounted_at(str(real))
    return mounted is not None and mounted.fstype == OURS


def users(path: Path, most: int = 5, asking: int = 0) -> list[str]:
    """Processes that use a mount, as "bash (1234)", `most` of them at most. Only those visible to this user; neither
    this process nor the one that asks, by its id."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (os.getpid(), asking):
            continue
        if uses(path, int(entry.name)):
            found.append(f"{_command(entry)} ({entry.name})")
            if len(found) == most:
                break
    return found


def uses(path: Path, pid: int) -> bool:
    """True if the process `pid` is seen to use a mount."""
    prefix = str(path).rstrip("/") + "/"
    return any(f"{link}/".startswith(prefix) for link in _links(Path(f"/proc/{pid}")))


def _links(process: Path) -> Iterator[str]:
    for name in ("cwd", "root", "exe"):
        try:
            yield os.readlink(process / name)
        except OSError:
            continue  # ended, or another user's
    try:
        names = os.listdir(process / "fd")
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(process / "fd" / name)
        except OSError:
            continue


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
