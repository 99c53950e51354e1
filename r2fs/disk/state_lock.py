"""The state directory's lock: one daemon at a time, and its pid for whoever comes second.

Owns:  the file `lock` of the state directory.
Never: removes it: another process may wait for the same file.
Fails: StateLocked, and OSError where the directory cannot be written.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from r2fs.model import owned_paths
from r2fs.model.errors import StateLocked

PID_BYTES = 20  # of the lock file: written over in place, which needs no room on a full disk


def lock_state(state_dir: Path) -> int:
    """The descriptor that holds the lock: closing it gives the lock back."""
    fd = owned_paths.open_file(state_dir / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StateLocked(
            f"the state directory {state_dir} is in use by another r2fs (pid {pid}): "
            "unmount that one first, or give this mount a --state-dir of its own"
        ) from None
    os.pwrite(fd, f"{os.getpid():<{PID_BYTES}}\n".encode(), 0)
    return fd
