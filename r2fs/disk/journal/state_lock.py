"""Lock of the state directory: one daemon at a time, with its pid for the message to a second one.

Owns:  the file `lock` of the state directory.
Never: removes it, since another process may wait for it (state_directory.py does, with the lock held).
Fails: StateLocked, and OSError where the directory cannot be written.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from r2fs.model import mount_record
from r2fs.model.errors import StateLocked
from r2fs.model.owned_paths import open_file, read_file

PID_BYTES = 20  # of the lock file: written over in place, which needs no room on a full disk


def lock_state(state_dir: Path) -> int:
    """Take the lock; return the descriptor that holds it: closing that gives the lock back."""
    path = state_dir / "lock"
    while True:
        fd = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StateLocked(
                f"the state directory {state_dir} is in use by another r2fs (pid {pid}){_mounted_on(state_dir)}: "
                "unmount that one first, or give this mount a --state-dir of its own"
            ) from None
        if _is_named(fd, path):
            break
        # A start that failed has just removed it: the lock of a file without a name excludes nobody.
        os.close(fd)
    os.pwrite(fd, f"{os.getpid():<{PID_BYTES}}\n".encode(), 0)
    return fd


def _mounted_on(state_dir: Path) -> str:
    """Return the mountpoint in the record of the lock's holder, as text; "" before it is written."""
    try:
        data = read_file(state_dir / mount_record.NAME, mount_record.MAX_BYTES)
    except OSError:
        return ""
    record = mount_record.parse(data.decode(errors="replace"))
    return "" if record is None else f", mounted on {record.mountpoint}"


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
