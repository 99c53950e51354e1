"""The session: INIT, one answer for each request, requests that wait, INTERRUPT."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.kernel_driver import KernelDriver
from r2fs.drivers.kernel.lanes import COLD_THREADS, FETCH_THREADS, OPEN_THREADS, WRITE_THREADS, Lanes
from r2fs.drivers.kernel.negotiation import MAX_WRITE, WANTED, SessionState
from r2fs.drivers.kernel.session import Session
from r2fs.drivers.kernel.wire import Init, Op
from r2fs.model.errors import NoSpace, NotFound, ReadFailed, Stale, WouldFetch, WouldWait
from r2fs.model.ports import Caller
from tests.unit.drivers.conftest import TIMEOUT_S, FakeKernel


def raising(error: BaseException) -> Callable[..., None]:
    def handler(*request: Any) -> None:
        raise error

    return handler


# ------------------------------------------------------------------ INIT
def test_init(kernel: FakeKernel, session: Session) -> None:
    offered = int(~Init(0)) & (1 << 64) - 1
    body = wire.INIT_IN.pack(7, 99, 131072, offered & 0xFFFFFFFF, offered >> 32) + bytes(44)
    answer = kernel.ask(Op.INIT, body=body)
    major, minor, readahead, flags, background, congestion, max_write, gran, pages, _, flags2, depth, _ = (
        wire.INIT_OUT.unpack(answer.body)
    )
    assert (major, minor) == (7, wire.KERNEL_MINOR_VERSION)
    assert flags | flags2 << 32 == WANTED
    assert (max_write, pages * 4096, gran) == (MAX_WRITE, MAX_WRITE, 1)
    assert readahead >= 1 << 20
    assert 0 < congestion < background
    assert depth == 0, "passthrough was not wanted"
    kernel.ask(Op.STATX)  # the dispatcher tells of the session after it has answered
    (state,) = kernel.states
    assert state == SessionState(minor, int(WANTED), MAX_WRITE, 0)
    assert SessionState.from_json(state.to_json()) == state


def test_init_of_an_older_kernel(kernel: FakeKernel, session: Session) -> None:
    """Before 7.36 there is no second word of flags."""
    answer = kernel.ask(Op.INIT, body=wire.INIT_IN_OLD.pack(7, 31, 131072, int(Init.MAX_PAGES)))
    fields = wire.INIT_OUT.unpack(answer.body)
    assert (fields[1], fields[3], fields[10]) == (31, int(Init.MAX_PAGES), 0)
    kernel.ask(Op.STATX)  # the dispatcher tells of the session after it has answered
    assert not kernel.states[0].has(Init.PASSTHROUGH)


def test_init_of_another_major_version(kernel: FakeKernel, session: Session) -> None:
    answer = kernel.ask(Op.INIT, body=wire.INIT_IN_OLD.pack(8, 0, 0, 0))
    assert wire.INIT_OUT.unpack(answer.body)[:2] == (7, wire.KERNEL_MINOR_VERSION)
    assert kernel.states == []


# ------------------------------------------------------------------ answers
def test_what_nobody_answers_is_ENOSYS(kernel: FakeKernel, session: Session) -> None:
    for op in (Op.STATX, Op.COPY_FILE_RANGE, Op.TMPFILE, Op.OPENDIR, Op.ACCESS, 63, 64, 4096):
        assert kernel.ask(op).errno == errno.ENOSYS


@pytest.mark.parametrize(
    ("error", "op", "code"),
    [
        (NoSpace("x"), Op.WRITE, errno.ENOSPC),
        (NotFound("x"), Op.LOOKUP, errno.ENOENT),
        (NotFound("x"), Op.OPEN, errno.ESTALE),  # a node that is gone, not a name
        (NotFound("x"), Op.GETATTR, errno.ESTALE),
        (NotFound("x"), Op.SETATTR, errno.ESTALE),
        (Stale("x"), Op.OPEN, errno.ESTALE),
        (OSError(errno.EFBIG, "x"), Op.WRITE, errno.EFBIG),
        (OSError(524, "the kernel's own"), Op.WRITE, errno.EIO),
    ],
)
def test_errors(kernel: FakeKernel, session: Session, error: BaseException, op: Op, code: int) -> None:
    session.route({op: raising(error)})
    answer = kernel.ask(op)
    assert (answer.errno, answer.body) == (code, b"")


@pytest.mark.expect_warnings("READ: .*take.wav")
@pytest.mark.parametrize(
    "error", [ReadFailed("take.wav"), OSError(errno.EIO, "take.wav"), OSError("take.wav")]
)
def test_the_reason_for_EIO_is_in_the_log(
    kernel: FakeKernel, session: Session, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    session.route({Op.READ: raising(error)})
    assert kernel.ask(Op.READ).errno == errno.EIO
    assert "take.wav" in caplog.text


@pytest.mark.expect_warnings("WRITE failed")
def test_a_defect_is_EIO_and_ends_nothing(kernel: FakeKernel, session: Session) -> None:
    session.route({Op.WRITE: raising(ZeroDivisionError("defect"))})
    assert kernel.ask(Op.WRITE).errno == errno.EIO
    assert kernel.ask(Op.STATX).errno == errno.ENOSYS


@pytest.mark.expect_warnings("FORGET failed")
def test_what_wants_no_answer_gets_none(kernel: FakeKernel, session: Session) -> None:
    """An answer with the unique of a FORGET, which is 0, would be a notification."""
    session.route({Op.FORGET: raising(NotFound("x")), Op.BATCH_FORGET: raising(ValueError("FORGET failed"))})
    kernel.send(Op.FORGET)
    kernel.send(Op.BATCH_FORGET)
    kernel.send(Op.INTERRUPT, body=wire.INTERRUPT_IN.pack(4711))
    assert kernel.ask(Op.STATX).errno == errno.ENOSYS, "the next message is the next answer"


def test_a_resent_unique_is_echoed(kernel: FakeKernel, session: Session) -> None:
    assert kernel.ask(Op.STATX, unique=8 | wire.UNIQUE_RESEND).unique == 8 | wire.UNIQUE_RESEND


def test_extensions_are_no_part_of_the_body(kernel: FakeKernel, session: Session) -> None:
    seen: list[bytes] = []

    def handler(unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        seen.append(bytes(body))
        session.done(unique)

    session.route({Op.MKDIR: handler})
    body = b"name\0" + bytes(3) + b"extended"
    header = wire.IN_HEADER.pack(wire.HEADER_SIZE + len(body), Op.MKDIR, 2, 1, 0, 0, 0, 1, 0)
    kernel._kernel.send(header + body)
    assert kernel.receive().errno == 0
    assert seen == [b"name\0" + bytes(3)]


def test_nothing_is_read_before_a_request_is_there(
    kernel: FakeKernel, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read in vain costs Python an exception with the text of its errno: the dispatcher makes hundreds of looks."""
    reads, plain = Counter[str](), os.readv

    def readv(fd: int, buffers: Any) -> int:
        reads["begun"] += 1
        found = plain(fd, buffers)
        reads["ended"] += 1
        return found

    monkeypatch.setattr(os, "readv", readv)
    made = Session(kernel.daemon.fileno(), lanes)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        for _ in range(3):
            time.sleep(0.01)  # until it has gone to sleep
            kernel.ask(Op.STATX)
    finally:
        made.stop()
        thread.join(TIMEOUT_S)
        made.close()
    assert reads == {"begun": 3, "ended": 3}


def test_an_answer_that_is_not_taken(session: Session, kernel: FakeKernel) -> None:
    """ENOENT: the request was aborted. What the answer granted is then taken back."""
    read_end, write_end = os.pipe()
    os.close(write_end)
    for code, taken in ((errno.ENOENT, False), (errno.ENODEV, False)):
        assert Session._not_taken(OSError(code, "x")) is taken
    with pytest.raises(OSError):
        Session._not_taken(OSError(errno.EINVAL, "x"))
    os.close(read_end)


# ------------------------------------------------------------------ requests that wait
class Slow:
    """A handler that has to wait, until `gate` opens or its caller is interrupted."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.gate = threading.Event()
        self.bodies: list[bytes] = []
        self.callers: list[Caller] = []

    def __call__(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        caller.about_to_wait()
        self.bodies.append(bytes(body))
        self.callers.append(caller)
        while not self.gate.wait(0.005):
            caller.about_to_wait()
        self.session.send_data(unique, bytes(body))


@pytest.fixture
def slow(session: Session) -> Slow:
    made = Slow(session)
    session.route({Op.READ: made, Op.OPEN: made, Op.FLUSH: made})
    return made


def test_who_waits_holds_nobody_up(kernel: FakeKernel, session: Session, slow: Slow) -> None:
    waiting = {kernel.send(Op.READ, body=bytes([number]) * 8): number for number in range(20)}
    assert kernel.ask(Op.STATX).errno == errno.ENOSYS
    assert session.waiting() == 20
    slow.gate.set()
    for _ in range(20):
        answer = kernel.receive()
        assert answer.body == bytes([waiting.pop(answer.unique)]) * 8, "the arguments were copied"
    assert waiting == {}
    assert all(caller.may_wait and caller.pid == os.getpid() for caller in slow.callers)
    assert len(set(map(id, slow.callers))) == 20


class Cold:
    """OPEN of a file that the bucket has (an odd inode), which waits until `gate` opens; or of one that is here."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.gate = threading.Event()
        self.calls: Counter[tuple[int, str]] = Counter()  # by inode, and how patient the caller was

    def __call__(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        self.calls[nodeid, f"{caller.may_wait:d}{caller.may_fetch:d}"] += 1
        caller.about_to_wait()  # for the disk
        if nodeid % 2:
            caller.about_to_fetch()
            while not self.gate.wait(0.005):
                caller.about_to_fetch()
        self.session.send_data(unique, bytes(body))


def test_what_is_here_does_not_wait_for_what_is_not(kernel: FakeKernel, session: Session) -> None:
    """More opens than there are threads wait for a server that hangs: an append to a cached file goes on."""
    cold = Cold(session)
    session.route({Op.OPEN: cold})
    waiting = {kernel.send(Op.OPEN, 1, body=b"cold") for _ in range(OPEN_THREADS + COLD_THREADS + 1)}
    assert kernel.ask(Op.OPEN, 2, body=b"here").body == b"here"
    assert session.waiting() >= len(waiting), "the answer is written before its request is forgotten"
    cold.gate.set()
    while waiting:
        answer = kernel.receive()
        assert answer.body == b"cold"
        waiting.remove(answer.unique)
    assert not waiting
    deadline = time.monotonic() + 10
    # a request is forgotten after its answer is written
    while session.waiting() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert session.waiting() == 0
    assert cold.calls[2, "11"] == 0, "it was never where the network is waited for"


def test_interrupted_on_its_way_from_one_lane_to_another(kernel: FakeKernel, session: Session) -> None:
    cold = Cold(session)
    session.route({Op.OPEN: cold})
    gone = 2**22 + 1  # no such process: it has been killed
    unique = kernel.send(Op.OPEN, 1, pid=gone)
    while not cold.calls[1, "11"]:
        time.sleep(0.001)
    kernel.send(Op.INTERRUPT, unique=unique | 1, body=wire.INTERRUPT_IN.pack(unique))
    answer = kernel.receive()
    assert (answer.unique, answer.errno) == (unique, errno.EINTR)


def test_killed_just_before_it_moves_to_a_lane_that_is_full(kernel: FakeKernel, session: Session) -> None:
    """It is let go at once: behind downloads that are stuck nobody would look whether it was killed."""
    gate, here = threading.Event(), threading.Event()
    stuck: list[int] = []

    def handler(unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        caller.about_to_wait()
        if nodeid == 2 and not caller.may_fetch:
            here.set()
            assert caller.cancelled is not None and caller.cancelled.wait(10)
            raise WouldFetch
        caller.about_to_fetch()
        stuck.append(unique)
        gate.wait(20)
        session.done(unique)

    session.route({Op.OPEN: handler})
    others = {kernel.send(Op.OPEN, 1) for _ in range(COLD_THREADS)}
    while len(stuck) < COLD_THREADS:
        time.sleep(0.001)
    unique = kernel.send(Op.OPEN, 2, pid=2**22 + 1)
    assert here.wait(10)
    kernel.send(Op.INTERRUPT, unique=unique | 1, body=wire.INTERRUPT_IN.pack(unique))
    try:
        answer = kernel.receive()
        assert (answer.unique, answer.errno) == (unique, errno.EINTR)
        assert not gate.is_set() and kernel.silent()
    finally:
        gate.set()
    assert {kernel.receive().unique for _ in others} == others


@pytest.mark.expect_warnings("waits for ever")
def test_a_verb_that_would_wait_though_it_may(kernel: FakeKernel, session: Session) -> None:
    session.route({Op.READ: raising(WouldWait())})
    assert kernel.ask(Op.READ).errno == errno.EIO


def test_interrupt_of_who_wants_to_stop(kernel: FakeKernel, session: Session, slow: Slow) -> None:
    gone = 2**22 + 1  # no such process: it has been killed
    unique = kernel.send(Op.READ, pid=gone)
    kernel.send(Op.INTERRUPT, unique=unique | 1, body=wire.INTERRUPT_IN.pack(unique))
    answer = kernel.receive()
    assert (answer.unique, answer.errno) == (unique, errno.EINTR)


def test_interrupt_of_who_goes_on(kernel: FakeKernel, session: Session, slow: Slow) -> None:
    """This process has no signal pending that ends it."""
    unique = kernel.send(Op.READ, body=b"12345678")
    kernel.send(Op.INTERRUPT, unique=unique | 1, body=wire.INTERRUPT_IN.pack(unique))
    assert kernel.silent()
    slow.gate.set()
    assert kernel.receive().body == b"12345678"


def test_a_kill_after_a_harmless_signal(kernel: FakeKernel, session: Session, slow: Slow) -> None:
    """The kernel sends one INTERRUPT for a request, so the session looks again by itself."""
    blocked = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", blocked], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        unique = kernel.send(Op.READ, pid=process.pid)
        kernel.send(Op.INTERRUPT, unique=unique | 1, body=wire.INTERRUPT_IN.pack(unique))
        assert kernel.silent(0.3)
        process.send_signal(signal.SIGTERM)
        answer = kernel.receive()
        assert (answer.unique, answer.errno) == (unique, errno.EINTR)
        process.kill()


def test_who_has_not_begun_is_let_go(kernel: FakeKernel, session: Session, slow: Slow) -> None:
    """Behind a lane full of stuck downloads; but close(2) does not lose its FLUSH."""
    gone = 2**22 + 1
    kernel.states.clear()
    fetching = [kernel.send(Op.READ) for _ in range(FETCH_THREADS + 12)]
    flushing = [kernel.send(Op.FLUSH) for _ in range(WRITE_THREADS + 4)]
    read, flush = kernel.send(Op.READ, pid=gone), kernel.send(Op.FLUSH, pid=gone)
    for unique in (read, flush):
        kernel.send(Op.INTERRUPT, unique=unique | 1, body=wire.INTERRUPT_IN.pack(unique))
    answer = kernel.receive()
    assert (answer.unique, answer.errno) == (read, errno.EINTR)
    assert kernel.silent()
    slow.gate.set()
    rest = {kernel.receive().unique for _ in range(len(fetching) + len(flushing) + 1)}
    assert rest == {*fetching, *flushing, flush}
    assert kernel.silent()


def test_cancelling_what_waits(kernel: FakeKernel, session: Session, slow: Slow) -> None:
    kernel.send(Op.READ)
    kernel.ask(Op.STATX)
    session.cancel_waiting()
    assert kernel.receive().errno == errno.EINTR


@pytest.mark.parametrize(("links", "remembered"), [("follow", True), ("inside", False)])
def test_links_that_are_confined_are_not_remembered_by_the_kernel(links: str, remembered: bool) -> None:
    """A directory that moves changes where they lead."""
    driver: Any = SimpleNamespace(_passthrough=True, _settings=SimpleNamespace(links=links))
    assert bool(KernelDriver._wanted(driver) & Init.CACHE_SYMLINKS) == remembered
    assert KernelDriver._wanted(driver) & Init.PASSTHROUGH
