"""Programs: the name of the process behind a thread id of a FUSE request, from /proc.

Descriptors of /proc/PID/comm of the last HELD threads stay open: a name costs 2 µs (measured), for a thread that is not
its process's first a second read, and 45 µs at a thread's first. The name is that of a process now: a child of a shell
has the shell's name until its execve().

Never:   takes another thread's name for its process's: a thread of ffmpeg is named `dec0:0:pcm`; takes the process of a
         thread that has ended for that of another one, which has got its id.
Threads: every method is thread-safe.
Locks:   `_lock`, a leaf.
Fails:   never: a process that cannot be seen, of another PID namespace or ended, has the name UNKNOWN.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
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
        # descriptors by thread id, the last used last: its process's name; and its own, if it is not the first thread
        self._held: dict[int, tuple[int, ...]] = {}

    def name(self, tid: int) -> str:
        """Name of the process of the thread `tid`, of 15 bytes at most, as `ps -o comm` shows it."""
        if tid <= 0:
            return UNKNOWN
        with self._lock:
            descriptors = self._held.pop(tid, None) or self._opened(tid)
            found = _read(descriptors)
            if found is None and descriptors:  # that thread has ended, and the id is another one's
                descriptors = self._opened(tid)
                found = _read(descriptors)
            if found is None:
                return UNKNOWN
            self._held[tid] = descriptors
            if len(self._held) > HELD:
                _close(self._held.pop(next(iter(self._held))))
            return _text(found)

    def _opened(self, tid: int) -> tuple[int, ...]:
        """Descriptors of the thread; none where it cannot be seen."""
        found: list[int] = []
        try:
            process = self._process(tid)
            for number in (process,) if process == tid else (process, tid):
                found.append(os.open(f"{self._proc}/{number}/comm", os.O_RDONLY | os.O_CLOEXEC))
        except (OSError, ValueError):
            _close(found)
            return ()
        return tuple(found)

    def _process(self, tid: int) -> int:
        with open(f"{self._proc}/{tid}/status", "rb", buffering=0) as status:
            return int(status.read(512).partition(b"\nTgid:")[2].split(maxsplit=1)[0])

    def close(self) -> None:
        with self._lock:
            while self._held:
                _close(self._held.popitem()[1])


def _read(descriptors: Sequence[int]) -> bytes | None:
    """Return the process's name; None where process or thread has ended (ESRCH, or nothing to read): then the
    descriptors are closed."""
    try:
        names = [os.pread(descriptor, COMM, 0) for descriptor in descriptors]
    except OSError:
        names = []
    if not names:
        _close(descriptors)
        return None
    return names[0]


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _text(comm: bytes) -> str:
    """The name as printable text: a process names itself as it likes."""
    name = comm.decode("utf-8", errors="replace").rstrip("\n")
    if not name.isprintable():
        name = "".join(sign if sign.isprintable() else "?" for sign in name)
    return name or UNKNOWN


PROGRAMS = Programs()  # of this process
