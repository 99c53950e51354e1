"""Read lease: a test that no process can write to a local file now.

Owns:    F_SETLEASE. Linux grants a read lease only while no file descriptor and no shared mapping
         anywhere could write to the file (fcntl(2), "Leases"). An upload needs that proof: a program
         that closed its file may still write to it through a mapping, without any message where
         the kernel passes data through.
Never:   keeps a lease: it is given back at once. A later open for writing is answered by the engine,
         so that the proof holds until then; and a held lease would make the engine's own open for
         writing wait for the lease to break.
Fails:   softly on a file system without leases: its files count as not writable.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

F_SETSIG = 10  # Linux; the fcntl module does not name it
WITHOUT_LEASES = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES, errno.ENOLCK)


def open_unless_writable(path: Path) -> int | None:
    """Return an O_RDONLY descriptor of a file to which no process can write; None: one may."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _is_writable(fd):
            os.close(fd)
            return None
    except OSError:
        os.close(fd)
        raise
    return fd


def _is_writable(fd: int) -> bool:
    try:
        # A lease break is announced by SIGIO, which ends a process; SIGURG is ignored by default.
        fcntl.fcntl(fd, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EBUSY):
            return True
        if error.errno in WITHOUT_LEASES:
            return False
        raise
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
