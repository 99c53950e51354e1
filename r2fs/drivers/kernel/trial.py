"""Trial: a mount for a moment, on a directory of its own, to see what the kernel offers.

Owns:    the mount and its end, also after an error.
Never:   answers a request: INIT is read, and the connection ended.
Fails:   FuseMissing or MountError where no mount can be made.
"""

from __future__ import annotations

import os
import select
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from r2fs.drivers import kmount
from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.wire import Init
from r2fs.model.errors import MountError, R2fsError
from r2fs.model.settings import Bucket, Settings

PATIENCE_S = 5.0  # INIT is queued by mount(2) itself
NOTHING = Settings(Bucket("file", "/r2fs-doctor"), Path("/"), Path("/"), Path("/"))


@dataclass(frozen=True, slots=True)
class Offered:
    """INIT of this kernel: its version of the protocol and its flags."""

    version: tuple[int, int]
    flags: Init

    def has(self, flag: Init) -> bool:
        return bool(self.flags & flag)


def offered() -> Offered:
    """Mount, read INIT, and unmount."""
    with tempfile.TemporaryDirectory(prefix="r2fs-doctor-") as directory:
        path = os.path.realpath(directory)
        fd = kmount.mount(path, NOTHING)
        try:
            return _init(fd)
        finally:
            os.close(fd)  # ends the connection: no look at the mount can hang
            with suppress(R2fsError):  # a mount made by the helper ends with its descriptor
                kmount.unmount(path, lazy=True)


def _init(fd: int) -> Offered:
    waiting = select.poll()  # select() refuses descriptors from 1,024 on
    waiting.register(fd, select.POLLIN)
    if not waiting.poll(PATIENCE_S * 1000):
        raise MountError("the kernel sends no request to a new mount")
    request = memoryview(os.read(fd, wire.HEADER_SIZE + (1 << 20)))
    body = request[wire.HEADER_SIZE :]
    major, minor, _, flags = wire.INIT_IN_OLD.unpack_from(body)
    if flags & Init.INIT_EXT and len(body) >= wire.INIT_IN.size:
        flags |= wire.INIT_IN.unpack_from(body)[4] << 32
    return Offered((major, minor), Init(flags))
