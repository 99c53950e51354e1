"""A FUSE file system of one file, the disk image, that records each write and each flush.

`python -m tests.power.recorder IMAGE LOG MOUNTPOINT` serves IMAGE as MOUNTPOINT/image. The loop
driver turns what the file system above sends to its disk into these calls: a write is a write, and a
flush (REQ_OP_FLUSH, or what follows a forced write, since a loop device has no FUA) is an fsync.

Direct I/O: the image's file has no page cache of its own, so that a write is seen when it is
sent, and not whenever the cache likes. One thread: the order of the log is the order of arrival.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from typing import Any

import mfusepy

HEADER = struct.Struct("<cQI")  # kind, offset, length; a write's bytes follow
WRITE, FLUSH = b"w", b"f"
NAME = "/image"
PR_SET_IO_FLUSHER = 57  # prctl(2): memory that we ask for never waits for our own file system


class Recorder(mfusepy.Operations):  # type: ignore[misc]
    use_ns = True

    def __init__(self, image: str, log: str) -> None:
        self._image = os.open(image, os.O_RDWR)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._image).st_size

    def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path != NAME:
            raise mfusepy.FuseOSError(2)
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": self._size}

    def readdir(self, path: str, fh: Any) -> list[str]:
        return [".", "..", NAME[1:]]

    def open(self, path: str, fi: Any) -> int:
        fi.direct_io = 1
        return 0

    def read(self, path: str, size: int, offset: int, fi: Any) -> bytes:
        return os.pread(self._image, size, offset)

    def write(self, path: str, data: bytes, offset: int, fi: Any) -> int:
        self._note(HEADER.pack(WRITE, offset, len(data)) + data)
        return os.pwrite(self._image, data, offset)

    def fsync(self, path: str, datasync: int, fi: Any) -> int:
        self._note(HEADER.pack(FLUSH, 0, 0))
        return 0

    def _note(self, entry: bytes) -> None:
        if os.write(self._log, entry) != len(entry):
            os._exit(1)  # a log with a gap proves nothing


def main() -> None:
    image, log, mountpoint = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)
    mfusepy.FUSE(
        Recorder(image, log), mountpoint, raw_fi=True, foreground=True, nothreads=True, fsname="recorder"
    )


if __name__ == "__main__":
    main()
