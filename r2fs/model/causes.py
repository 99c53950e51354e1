"""Causes: the program and the purpose of the requests that a thread sends to the bucket.

A driver names the caller that a thread answers; a job inherits the cause of the thread that has queued it. /proc is
read only when a request is about to be sent, a job to be queued or a change to be recorded.

Threads: the state is the thread's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from r2fs.model.programs import PROGRAMS

R2FS = "r2fs"  # the program of the daemon's own requests, and of those of r2fs commands
AHEAD = "ahead"  # the purpose of downloads ahead of need
CALL = "call"  # the purpose of a program's call where it is not known which FUSE request it is


class Cause(NamedTuple):
    program: str  # name of the process, 15 bytes at most; R2FS: no other
    purpose: str  # name of the FUSE request or of the command, AHEAD, CALL, "upload", "delete"; else the daemon's thread


class Asking(Protocol):
    """Caller of a FUSE request."""

    pid: int


class _Here(threading.local):
    cause: Cause | None = None
    caller: Asking | None = None
    purpose: str = CALL


_here = _Here()


def serve(caller: Asking, purpose: str = CALL) -> None:
    """Note that this thread answers `caller` from now on, for `purpose`. The caller's `pid` is read when it is needed."""
    _here.caller, _here.purpose, _here.cause = caller, purpose, None


def program() -> str | None:
    """Name of the program for which this thread works; None: for none."""
    if _here.cause is not None:
        return _here.cause.program
    return PROGRAMS.name(_here.caller.pid) if _here.caller is not None else None


def now() -> Cause:
    """The cause of what this thread does."""
    if _here.cause is not None:
        return _here.cause
    name = program()
    if name is not None:
        return Cause(name, _here.purpose)
    thread = threading.current_thread()
    return Cause(R2FS, "start" if thread is threading.main_thread() else thread.name.rstrip("-0123456789"))


@contextmanager
def caused_by(cause: Cause) -> Iterator[None]:
    """Set the cause of the block's work."""
    before, _here.cause = _here.cause, cause
    try:
        yield
    finally:
        _here.cause = before
