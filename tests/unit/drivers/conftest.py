"""A kernel for the kernel driver: a socket pair that keeps message boundaries, as /dev/fuse does.

Owns:  sending requests, and telling answers from notifications.
Never: decides anything: a test says what the kernel asks.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.attribute_handlers import AttributeHandlers
from r2fs.drivers.kernel.directory_handlers import DirectoryHandlers
from r2fs.drivers.kernel.file_handlers import FileHandlers
from r2fs.drivers.kernel.lanes import Lanes
from r2fs.drivers.kernel.name_handlers import NameHandlers
from r2fs.drivers.kernel.negotiation import SessionState
from r2fs.drivers.kernel.notify import KernelNotifier
from r2fs.drivers.kernel.openfiles import OpenFiles
from r2fs.drivers.kernel.passthrough import OpenModes
from r2fs.drivers.kernel.session import Session
from r2fs.drivers.kernel.wire import Op
from tests.support.mirror import MirrorVerbs

TIMEOUT_S = 10.0


@dataclass
class Answer:
    unique: int
    errno: int
    body: bytes


class FakeKernel:
    """The kernel's end."""

    def __init__(self) -> None:
        self._kernel, self.daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._kernel.settimeout(TIMEOUT_S)
        self._uniques = itertools.count(2, 2)  # odd ones are interrupts, as in the kernel
        self.states: list[SessionState] = []

    def send(
        self, op: int, nodeid: int = wire.ROOT_ID, body: bytes = b"", unique: int = 0, pid: int = 0
    ) -> int:
        unique = unique or next(self._uniques)
        header = wire.IN_HEADER.pack(
            wire.HEADER_SIZE + len(body),
            op,
            unique,
            nodeid,
            os.getuid(),
            os.getgid(),
            pid or os.getpid(),
            0,
            0,
        )
        self._kernel.send(header + body)
        return unique

    def receive(self) -> Answer:
        """The next message, an answer or a notification (unique 0, errno is minus its code)."""
        message = self._kernel.recv(2 << 20)
        length, error, unique = wire.OUT_HEADER.unpack_from(message)
        assert length == len(message)
        return Answer(unique, -error, message[wire.OUT_SIZE :])

    def ask(self, op: int, nodeid: int = wire.ROOT_ID, body: bytes = b"", unique: int = 0) -> Answer:
        unique = self.send(op, nodeid, body, unique)
        answer = self.receive()
        assert answer.unique == unique
        return answer

    def silent(self, seconds: float = 0.05) -> bool:
        """Nothing comes."""
        self._kernel.settimeout(seconds)
        try:
            self._kernel.recv(1 << 16, socket.MSG_PEEK)
            return False
        except TimeoutError:
            return True
        finally:
            self._kernel.settimeout(TIMEOUT_S)

    def close(self) -> None:
        self._kernel.close()
        self.daemon.close()


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    fake = FakeKernel()
    yield fake
    fake.close()


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    made = Lanes()
    yield made
    made.stop()


@pytest.fixture
def session(kernel: FakeKernel, lanes: Lanes) -> Iterator[Session]:
    """Running in a thread of its own; tests add handlers by route()."""
    made = Session(kernel.daemon.fileno(), lanes, ready=kernel.states.append)
    thread = threading.Thread(target=made.run, name="dispatcher")
    thread.start()
    yield made
    made.stop()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    made.close()


class NoBacking:
    """A kernel that registers everything, and counts."""

    def __init__(self) -> None:
        self.registered: set[int] = set()
        self._ids = itertools.count(1)

    def register(self, local: int) -> int:
        number = next(self._ids)
        self.registered.add(number)
        return number

    def unregister(self, backing_id: int) -> None:
        self.registered.remove(backing_id)


@dataclass
class Served:
    """All handlers over a mirror of `root`."""

    kernel: FakeKernel
    session: Session
    fs: MirrorVerbs
    modes: OpenModes
    files: OpenFiles
    notifier: KernelNotifier
    root: Path
    directories: DirectoryHandlers

    def lookup(self, name: str, parent: int = wire.ROOT_ID) -> int:
        """The node id; counts a reference."""
        answer = self.kernel.ask(Op.LOOKUP, parent, name.encode() + b"\0")
        assert answer.errno == 0
        return int(wire.ENTRY_OUT.unpack(answer.body)[0])

    def open(self, nodeid: int, flags: int = os.O_RDWR) -> tuple[int, int, int]:
        """File handle, FOPEN flags, backing id."""
        answer = self.kernel.ask(Op.OPEN, nodeid, wire.OPEN_IN.pack(flags, 0))
        assert answer.errno == 0
        fh, fopen, backing_id = wire.OPEN_OUT.unpack(answer.body)
        return fh, fopen, backing_id


@pytest.fixture
def served(kernel: FakeKernel, session: Session, tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "f").write_bytes(b"content")
    fs = MirrorVerbs(tmp_path, valid_s=60.0)
    notifier, modes = KernelNotifier(), OpenModes(NoBacking())
    files = OpenFiles(fs, modes)
    session.route(NameHandlers(fs, session, notifier, modes).handlers())
    directories = DirectoryHandlers(fs, session, notifier)
    session.route(directories.handlers())
    session.route(AttributeHandlers(fs, session, notifier, files).handlers())
    session.route(FileHandlers(fs, session, notifier, modes, files).handlers())
    yield Served(kernel, session, fs, modes, files, notifier, tmp_path, directories)
    modes.check()
    fs.close()
