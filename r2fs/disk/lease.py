"""Read leases: proof that nobody can write to a local file, for as long as one is held.

Owns:    F_SETLEASE on a descriptor of its own. Linux grants a read lease only while no file
         descriptor and no shared mapping anywhere could write to the file (fcntl(2), "Leases").
         That is how the end of an upload is known to be the end: a program that closed its file
         may still write to it through a mapping, of which no message tells.
Never:   waits. Whoever is about to open the file for writing releases the lease first.
Fails:   softly: `Denied` is an answer, not an error. A file system without leases gives none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from enum import Enum
from pathlib import Path

F_SETSIG = 10  # Linux; the fcntl module does not name it


class Denied(Enum):
    WRITABLE = "somebody may still write to it"


class ReadLease:
    """An O_RDONLY descriptor, with a lease on it where the file system has leases."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, path: Path) -> ReadLease | Denied:
        """Raises FileNotFoundError and other errors of open(2)."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A lease break is announced by SIGIO, which ends a process; SIGURG is ignored by default.
            fcntl.fcntl(fd, F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EBUSY):
                os.close(fd)
                return Denied.WRITABLE
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES):
                os.close(fd)
                raise
        return cls(fd)

    def release(self) -> None:
        """Give the lease back; the descriptor stays readable until `close`. Idempotent."""
        if self.fd >= 0:
            try:
                fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES):
                    raise

    def close(self) -> None:
        """Closing the descriptor gives the lease back, too. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
