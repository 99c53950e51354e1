"""Negotiation: INIT, the first request of a session, and its result.

Owns:  the limits and flags that this driver asks for.
Never: reads or writes the descriptor (session.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.wire import Init

MAX_WRITE: Final = 1 << 20  # bytes of one READ or WRITE; the kernel's limit is 256 pages
PAGE: Final = 4096
# Read-ahead and RELEASE requests in flight at once: stuck reads must not hold up RELEASE.
MAX_BACKGROUND: Final = 256
CONGESTED: Final = MAX_BACKGROUND * 3 // 4
READ_AHEAD: Final = 1 << 20  # twice as fast as the kernel's 128 KiB (measured)

WANTED: Final = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.BIG_WRITES
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO  # a listing without attributes costs a twentieth
    | Init.PARALLEL_DIROPS
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.NO_OPENDIR_SUPPORT
    | Init.EXPLICIT_INVAL_DATA
    | Init.HANDLE_KILLPRIV_V2
    | Init.INIT_EXT
    | Init.HAS_EXPIRE_ONLY
    | Init.DIRECT_IO_ALLOW_MMAP
    | Init.HAS_RESEND
)


@dataclass(frozen=True, slots=True)
class Offer:
    """Flags to ask for, and the number of file systems below this mount (passthrough; 0: none)."""

    wanted: Init
    stack_depth: int


WITHOUT_PASSTHROUGH: Final = Offer(WANTED, 0)


@dataclass(frozen=True, slots=True)
class SessionState:
    """Result of INIT: all that a daemon needs in order to continue the descriptor of another."""

    minor: int
    flags: int  # Init
    max_write: int
    stack_depth: int  # 0: no passthrough

    def has(self, flag: Init) -> bool:
        return bool(self.flags & flag)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> SessionState:
        return SessionState(**json.loads(text))


def answer_init(body: memoryview, offer: Offer) -> tuple[bytes, SessionState | None]:
    """The body of INIT's answer, and the agreement; None where the kernel has to ask again with our version.

    Source: process_init_reply() of Linux' fs/fuse/inode.c; flags above 31 bits are in `flags2`.
    """
    major, minor, readahead, flags = wire.INIT_IN_OLD.unpack_from(body)
    if major != wire.KERNEL_VERSION:
        return wire.INIT_OUT.pack(wire.KERNEL_VERSION, wire.KERNEL_MINOR_VERSION, *[0] * 11), None
    if flags & Init.INIT_EXT:
        flags |= wire.INIT_IN.unpack_from(body)[4] << 32
    flags &= offer.wanted
    depth = offer.stack_depth if flags & Init.PASSTHROUGH else 0
    minor = min(minor, wire.KERNEL_MINOR_VERSION)
    out = wire.INIT_OUT.pack(
        wire.KERNEL_VERSION, minor, max(readahead, READ_AHEAD), flags & 0xFFFFFFFF,
        MAX_BACKGROUND, CONGESTED, MAX_WRITE, 1, MAX_WRITE // PAGE, 0, flags >> 32, depth, 0,
    )  # fmt: skip
    return out, SessionState(minor, flags, MAX_WRITE, depth)
