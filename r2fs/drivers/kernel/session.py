"""Session: the exchange of requests and answers over a descriptor of /dev/fuse.

Owns:    reading requests, answering each exactly once, requests that wait, INTERRUPT.
Never:   knows the meaning of a request: handlers do (name_handlers.py, file_handlers.py).
Threads: run() is the one dispatcher: a second one has no gain under the interpreter's lock (measured). A
         handler that cannot answer at once raises WouldWait and runs again on a lane, on a far one if it
         has to wait for the network. Any thread may write an answer.
Locks:   _lock guards _waiting alone; only answers are written under it.
Fails:   an R2fsError becomes its errno, an OSError its own; other errors are logged and become EIO.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.lanes import Lanes
from r2fs.drivers.kernel.negotiation import (
    MAX_WRITE,
    PAGE,
    WITHOUT_PASSTHROUGH,
    Offer,
    SessionState,
    answer_init,
)
from r2fs.drivers.kernel.signals import wants_to_stop
from r2fs.drivers.kernel.wire import Op
from r2fs.model import causes
from r2fs.model.errors import R2fsError, WouldFetch, WouldWait
from r2fs.model.ports import Caller

log = logging.getLogger(__name__)

Handler = Callable[[int, int, Caller, memoryview], None]
"""(unique, nodeid, caller, body). Answers through the session, once, as the last thing that it
does, or raises. `body` and `caller` are used again for the next request: copy what is kept."""

# Looks for a request before sleeping: waking across cores costs more. A look is an epoll_wait(2), of 1 µs; a read(2)
# that finds nothing takes five times as long, most of it for the text of Python's exception.
LOOKS: Final = 120
RECHECK_MS: Final = 200  # a killed program waits so long at most
OP_LIMIT: Final = 64  # above every opcode

GONE: Final = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN})  # unmounted, or aborted
# no request, or one that was withdrawn during the read
NOTHING: Final = frozenset({errno.EAGAIN, errno.ENOENT})
# No program waits for these, and their handlers ignore the caller: an OPEN is served first.
LATER: Final = frozenset({Op.RELEASE, Op.FORGET, Op.BATCH_FORGET})
LATER_EACH: Final = 16  # one of them is served after so many requests of a kind at the latest
# A program that closes one file opens the next: RELEASE is carried out while the program wakes from the answer
# to that OPEN (a fifth of an open's time), or after so many looks in vain.
LATER_LOOKS: Final = LOOKS // 2
BY_NODE: Final = frozenset({Op.GETATTR, Op.SETATTR, Op.OPEN})


@dataclass(slots=True, eq=False)
class Waiting:
    """A request on a lane. Member of Session._waiting until its answer is written or given up."""

    op: int
    unique: int
    nodeid: int
    caller: Caller
    body: memoryview
    cancelled: threading.Event
    started: bool = False
    signalled: bool = False  # interrupted by a signal that is no reason to stop


class Session:
    """One mounted descriptor. Each request is answered by the handler that route() was given for it.

    `ready` is called by the dispatcher when INIT has been answered, before any other request
    is read. On the descriptor of an earlier daemon INIT is past.
    """

    def __init__(
        self,
        fd: int,
        lanes: Lanes,
        offer: Offer = WITHOUT_PASSTHROUGH,
        ready: Callable[[SessionState], None] = lambda state: None,
    ) -> None:
        # constant
        self.fd = fd
        self._offer = offer
        self._ready = ready
        self._lanes = lanes
        self._handlers: list[Handler] = [self._unknown] * OP_LIMIT
        self.route({Op.INIT: self._init, Op.INTERRUPT: self._interrupt, Op.DESTROY: self._destroy})
        os.set_blocking(fd, False)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._look = select.epoll()
        self._look.register(fd, select.EPOLLIN)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._mute = False  # written once, by leave()
        # written by the dispatcher
        self._recheck_at = 0.0  # time.monotonic() of the next look at signalled requests; 0: none are
        self.counts = [0] * OP_LIMIT  # requests read, by opcode
        self._later: deque[tuple[int, int, int, Caller, memoryview]] = deque()
        self._looks = (
            0  # LOOKS after a request for the network: looks would take turns with the download's thread
        )
        # guarded by: _lock
        self._lock = threading.Lock()
        self._waiting: dict[int, Waiting] = {}  # by unique

    def route(self, handlers: Mapping[Op, Handler]) -> None:
        """Set the handlers of opcodes; before run(). The answer to other opcodes is ENOSYS."""
        for op, handler in handlers.items():
            self._handlers[op] = handler

    # ------------------------------------------------------------------ requests
    def run(self) -> None:
        """Answer requests until the mount has ended, or until stop()."""
        try:
            self._dispatch()
        finally:
            while self._later:
                self._answer(*self._later.popleft())

    def _dispatch(self) -> None:
        buffer = bytearray(MAX_WRITE + PAGE)
        view, buffers = memoryview(buffer), (buffer,)
        unpack, body_at, counts, limit = wire.IN_HEADER.unpack_from, wire.HEADER_SIZE, self.counts, OP_LIMIT
        fd, look, read, answer = self.fd, self._look.poll, os.readv, self._answer
        caller = Caller(may_wait=False, may_fetch=False)
        causes.serve(caller)
        looks, patience, later = 0, 0, self._later
        while True:
            if not look(0, 1):
                looks += 1
                if later and looks > patience:
                    answer(*later.popleft())
                    continue
                if looks < LOOKS:
                    continue
                looks = 0
                if not self._wait():
                    return
            try:
                n = read(fd, buffers)
            except OSError as e:
                if e.errno in GONE:
                    return
                if e.errno in NOTHING:
                    continue
                raise
            _, op, unique, nodeid, caller.uid, caller.gid, caller.pid, extensions, _ = unpack(buffer)
            looks = self._looks = 0
            if op >= limit:
                op = 0
            counts[op] += 1
            body = view[body_at : n - 8 * extensions]
            if op in LATER:
                later.append((op, unique, nodeid, caller, memoryview(bytes(body))))
                patience = LATER_LOOKS
            else:
                answer(op, unique, nodeid, caller, body)
                patience, looks = 0, self._looks
            if later and counts[op] % LATER_EACH == 0:  # requests of other kinds may never cease
                answer(*later.popleft())

    def stop(self) -> None:
        """End run() soon; the mount stays. From any thread."""
        os.eventfd_write(self._wake, 1)

    def leave(self) -> None:
        """Send no more answers; after run(). A successor gets the unanswered requests, and answers them."""
        self._mute = True

    def close(self) -> None:
        """Release the poll objects; after run(). The descriptor stays open: its owner closes it."""
        self._look.close()
        os.close(self._wake)

    def cancel_waiting(self) -> None:
        """Cancel the requests on lanes: their answers are not wanted any more."""
        with self._lock:
            for request in self._waiting.values():
                request.cancelled.set()

    def waiting(self) -> int:
        """Number of requests on lanes."""
        return len(self._waiting)

    def _wait(self) -> bool:
        """Wait for a request to read; False after stop() was called."""
        events: list[tuple[int, int]] = []
        if self._recheck_at and time.monotonic() >= self._recheck_at:
            self._recheck_signals()
        while not events:
            events = self._poll.poll(RECHECK_MS if self._recheck_at else None)
            if not events:
                self._recheck_signals()
        return all(fd != self._wake for fd, _ in events)

    def _answer(self, op: int, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        """Run the handler, and answer with the errno of its error."""
        try:
            self._handlers[op](unique, nodeid, caller, body)
        except WouldWait as wish:
            fetches = isinstance(wish, WouldFetch)
            if caller.may_fetch if fetches else caller.may_wait:
                log.error("%s waits for ever: WouldWait from a call that may wait", _name(op))
                self._fail(op, unique, errno.EIO)
            else:
                self._defer(op, unique, nodeid, caller, body, fetches)
        except R2fsError as e:
            if e.errno == errno.EIO:  # the program sees the errno alone
                log.warning("%s: %s", _name(op), e)
            # a missing node (not a name): ESTALE makes the kernel walk the path again
            gone = e.errno == errno.ENOENT and op in BY_NODE
            self._fail(op, unique, errno.ESTALE if gone else e.errno)
        except OSError as e:
            if e.errno in (None, errno.EIO):
                log.warning("%s: %s", _name(op), e)
            self._fail(op, unique, e.errno or errno.EIO)
        except Exception:
            log.exception("%s failed", _name(op))
            self._fail(op, unique, errno.EIO)

    # ------------------------------------------------------------------ answers
    def send(self, message: bytes) -> bool:
        """Write one whole answer, header included.

        False: the kernel no longer wants the answer, so the references or the open file that it grants
        must be released.
        """
        if self._mute:
            return False
        try:
            os.write(self.fd, message)
        except OSError as e:
            return self._not_taken(e)
        return True

    def send_data(self, unique: int, data: bytes | bytearray | memoryview) -> bool:
        """Answer with `data` as the body, without a copy."""
        if self._mute:
            return False
        head = wire.OUT_HEADER.pack(wire.OUT_SIZE + len(data), 0, unique)
        try:
            os.writev(self.fd, (head, data))
        except OSError as e:
            return self._not_taken(e)
        return True

    def done(self, unique: int) -> bool:
        """Answer without a body."""
        return self.send(wire.OUT_HEADER.pack(wire.OUT_SIZE, 0, unique))

    def error(self, unique: int, code: int) -> bool:
        if not 0 < code <= wire.MAX_ERRNO:
            code = errno.EIO
        return self.send(wire.OUT_HEADER.pack(wire.OUT_SIZE, -code, unique))

    def _fail(self, op: int, unique: int, code: int) -> None:
        if op not in wire.NO_REPLY:  # an answer with their unique would be a notification
            self.error(unique, code)

    @staticmethod
    def _not_taken(e: OSError) -> bool:
        if e.errno == errno.ENOENT or e.errno in GONE:
            return False
        raise e

    # ------------------------------------------------------------------ requests that wait
    def _defer(
        self, op: int, unique: int, nodeid: int, caller: Caller, body: memoryview, fetches: bool
    ) -> None:
        cancelled = caller.cancelled or threading.Event()
        patient = Caller(caller.uid, caller.gid, caller.pid, caller.umask, True, cancelled, fetches)
        request = Waiting(op, unique, nodeid, patient, memoryview(bytes(body)), cancelled)
        with self._lock:
            before = self._waiting.get(unique)  # deferred before, on a lane for shorter waits
            request.signalled = before is not None and before.signalled
            # Killed meanwhile: behind a full lane the kill would stay unseen.
            give_up = cancelled.is_set() and op != Op.FLUSH
            if give_up:
                self._waiting.pop(unique, None)
            else:
                self._waiting[unique] = request
        if give_up:
            self._fail(op, unique, errno.EINTR)
            return
        self._looks = LOOKS if fetches else 0
        lane = (self._lanes.far if fetches else self._lanes.near)[op]
        lane.submit(lambda: self._answer_on_lane(request))

    def _answer_on_lane(self, request: Waiting) -> None:
        with self._lock:
            if self._waiting.get(request.unique) is not request:  # given up before its turn
                return
            request.started = True
        causes.serve(request.caller, _name(request.op).lower())
        try:
            self._answer(request.op, request.unique, request.nodeid, request.caller, request.body)
        finally:
            with self._lock:
                if self._waiting.get(request.unique) is request:  # else the request waits on another lane
                    del self._waiting[request.unique]

    def _interrupt(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        """Cancel the interrupted request, if it waits. Not answered: ENOSYS would end interrupts for good.

        The interrupted request is on a lane or answered already: the kernel sends INTERRUPT
        only after the request was read, and one thread reads both.
        """
        with self._lock:
            request = self._waiting.get(wire.INTERRUPT_IN.unpack_from(body)[0])
        if request is not None:
            self._signalled(request)

    def _signalled(self, request: Waiting) -> None:
        if not wants_to_stop(request.caller.pid):
            with self._lock:  # the request may be on another lane by now
                self._waiting.get(request.unique, request).signalled = True
            self._recheck_at = time.monotonic() + RECHECK_MS / 1000
            return
        request.cancelled.set()
        with self._lock:
            current = self._waiting.get(request.unique)
            # close(2) must not lose its FLUSH: a FLUSH is carried out however late
            give_up = current is not None and not current.started and request.op != Op.FLUSH
            if give_up:
                del self._waiting[request.unique]
        if give_up:
            self.error(request.unique, errno.EINTR)

    def _recheck_signals(self) -> None:
        """Look again for a kill of callers with a harmless signal: INTERRUPT is sent once for a request."""
        with self._lock:
            watched = [r for r in self._waiting.values() if r.signalled and not r.cancelled.is_set()]
        self._recheck_at = 0.0
        for request in watched:
            self._signalled(request)

    # ------------------------------------------------------------------ the session's own requests
    def _init(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        out, state = answer_init(body, self._offer)
        self.send_data(unique, out)
        if state is not None:
            self._ready(state)

    def _destroy(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        self.done(unique)

    def _unknown(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        """Answer ENOSYS: the kernel then works without this request, and mostly sends it no more."""
        self.error(unique, errno.ENOSYS)


def _name(op: int) -> str:
    return Op(op).name if op in Op._value2member_map_ else f"opcode {op}"
