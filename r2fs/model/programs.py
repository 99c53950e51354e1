"""Programs: the name of the process behind a thread id of a FUSE request, from /proc.

Owns:    descriptors of /proc/PID/comm of the last HELD threads: a name costs 2 µs, and 45 µs at a thread's first (measured).
Never:   takes another thread's name for its process's: a thread of ffmpeg is named `dec0:0:pcm`.
Threads: every method is thread-safe.
Locks:   `_lock`, a leaf.
Fails:   never: a process that cannot be seen, of another PID namespace or ended, has the name UNKNOWN.

The name is that of a process now: a child of a shell has the shell's name until its execve().
"""

from __future__ import annotations

import os
from threading import Lock

UNKNOWN = "unknown"
HELD = 32  # threads
COMM = 64  # bytes: longer than any name of the kernel, of 15 bytes or, of its own threads, 63


class Programs:
    def __init__(self, proc: str = "/proc") -> None:
        # constant
        self._proc = proc
        # guarded by: _lock
        self._lock = Lock()
        self._held: dict[int, int] = {}  # descriptor by thread id, the last used last

    def name(self, tid: int) -> str:
        """Name of the process of the thread `tid`, of 15 bytes at most, as `ps -o comm` shows it."""
        if tid <= 0:
            return UNKNOWN
        with self._lock:
            descriptor = self._held.pop(tid, None)
            if descriptor is not None:
                try:
                    found = os.pread(descriptor, COMM, 0)
                except OSError:  # ESRCH: that process has ended, and the id is another thread's
                    os.close(descriptor)
                else:
                    self._held[tid] = descriptor
                    return _text(found)
            return self._open_locked(tid)

    def _open_locked(self, tid: int) -> str:
        try:
            descriptor = os.open(f"{self._proc}/{self._process(tid)}/comm", os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError):
            return UNKNOWN
        try:
            found = os.pread(descriptor, COMM, 0)
        except OSError:
            os.close(descriptor)
            return UNKNOWN
        self._held[tid] = descriptor
        if len(self._held) > HELD:
            os.close(self._held.pop(next(iter(self._held))))
        return _text(found)

    def _process(self, tid: int) -> int:
        with open(f"{self._proc}/{tid}/status", "rb", buffering=0) as status:
            return int(status.read(512).partition(b"\nTgid:")[2].split(maxsplit=1)[0])

    def close(self) -> None:
        with self._lock:
            while self._held:
                os.close(self._held.popitem()[1])


def _text(comm: bytes) -> str:
    """The name as printable text: a process names itself as it likes."""
    name = comm.decode("utf-8", errors="replace").rstrip("\n")
    if not name.isprintable():
        name = "".join(sign if sign.isprintable() else "?" for sign in name)
    return name or UNKNOWN


PROGRAMS = Programs()  # of this process
