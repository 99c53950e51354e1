"""A far server: a TCP proxy on loopback that delays, caps and stalls what it carries, and reads none of it.

    python -m scripts.lib.bench.far PORT '{"round_trip_s": 0.04, …}'      prints its own port, then serves

Owns:    the sockets and timers; link.py says when each byte is due. Because it sees bytes and not requests,
         TLS goes through it as it is, and its handshake takes as many round trips as on a real line.
Never:   changes a byte.
Threads: none (asyncio), in a process of its own, so that it waits for nobody's interpreter lock. Its own
         ceiling is measured by `ceiling_mb_per_s` and printed with the results.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, cast

from scripts.lib.bench.link import Line, Stalls, Way

HELD = 8 << 20  # bytes on one way of one connection: 400 MB/s at 20 ms
EARLY_S = 0.0005  # what is due so soon goes now: a timer of its own would be later
END = b""


@dataclass(frozen=True)
class Distance:
    """How far away the server is."""

    round_trip_s: float = 0.040
    bytes_per_s: float | None = 60e6  # of each connection and way
    stall_one_in: int | None = None  # answers
    stall_s: float = 0.0

    def __str__(self) -> str:
        cap = f", {self.bytes_per_s / 1e6:.0f} MB/s a connection, slow start" if self.bytes_per_s else ""
        stalls = f", 1 of {self.stall_one_in} answers {self.stall_s:g} s late" if self.stall_one_in else ""
        return f"{self.round_trip_s * 1000:.0f} ms of round trip{cap}{stalls}"


class Side(asyncio.Protocol):
    """One of the two connections of a pair: takes bytes in, and gives out what is due for its peer.

    `_other` is bound once, when both exist; what arrives before is kept.
    """

    def __init__(self, way: Way, stalls: Stalls | None) -> None:
        # constant
        self._loop = asyncio.get_running_loop()
        self._way = way  # of what arrives here
        self._stalls = stalls  # only of the server's side
        self._due: deque[tuple[float, bytes | memoryview]] = deque()  # for the other side
        # state
        self._transport: asyncio.Transport | None = None
        self._other: Side | None = None
        self._early: list[bytes] = []
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None
        self._full = False  # the other's socket takes no more
        self._asked = False  # the other side has sent something since our last byte

    def pair(self, other: Side) -> None:
        self._other = other
        for data in self._early:
            self.data_received(data)
        self._early.clear()
        self._deliver()

    # ---- asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.set_write_buffer_limits(1 << 20)

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)  # the server is being reached: a millisecond
            return
        now = self._loop.time()
        if self._stalls is not None and self._asked:
            self._asked = False
            if late := self._stalls.next_answer():
                self._way.hold(now + late)
        self._other.asked()
        view, at = memoryview(data), 0
        for due, size in self._way.arrivals(now, len(data)):
            self._due.append((due, view[at : at + size]))
            at += size
        self._held += len(data)
        if self._held > HELD and self._transport is not None:
            self._transport.pause_reading()
        self._deliver()

    def eof_received(self) -> bool:
        last = self._due[-1][0] if self._due else self._loop.time()
        self._due.append((last, END))
        self._deliver()
        return True  # the other way stays open

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None or not self._due:
            self._end_other()
        else:
            self._due.append((self._due[-1][0], END))
            self._deliver()

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.stop_delivering()

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.go_on_delivering()

    # ---- from the other side
    def asked(self) -> None:
        self._asked = True

    def stop_delivering(self) -> None:
        self._full = True

    def go_on_delivering(self) -> None:
        self._full = False
        self._deliver()

    def put(self, data: bytes | memoryview) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if data:
            self._transport.write(data)
        elif self._transport.can_write_eof():
            with suppress(OSError):  # it may have gone meanwhile
                self._transport.write_eof()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # ---- what is due
    def _deliver(self) -> None:
        if self._timer is None and self._other is not None:
            self._on_time()

    def _on_time(self) -> None:
        self._timer = None
        assert self._other is not None
        now = self._loop.time() + EARLY_S
        while self._due and not self._full and self._due[0][0] <= now:
            _, data = self._due.popleft()
            self._held -= len(data)
            self._other.put(data)
        if self._transport is not None:
            if self._transport.is_closing():
                if not self._due:
                    self._end_other()
            elif self._held <= HELD // 2:
                self._transport.resume_reading()
        if self._due and not self._full:
            self._timer = self._loop.call_at(self._due[0][0], self._on_time)

    def _end_other(self) -> None:
        if self._other is not None:
            self._other.close()


async def serve(port: int, distance: Distance) -> None:
    loop = asyncio.get_running_loop()
    line = Line(distance.round_trip_s, distance.bytes_per_s)
    stalls = Stalls(distance.stall_one_in, distance.stall_s)
    pairs: set[asyncio.Task[None]] = set()

    async def reach(client: Side) -> None:
        try:
            _, server = await loop.create_connection(
                lambda: Side(Way(line, loop.time() - line.round_trip_s), stalls), "127.0.0.1", port
            )
        except OSError:
            client.close()
            return
        server.pair(client)
        client.pair(server)

    def accepted() -> Side:
        client = Side(Way(line, loop.time()), None)
        task = loop.create_task(reach(client))
        pairs.add(task)
        task.add_done_callback(pairs.discard)
        return client

    listener = await loop.create_server(accepted, "127.0.0.1", 0, backlog=512)
    print(listener.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    listener.close()


@contextmanager
def proxy(port: int, distance: Distance) -> Iterator[int]:
    """A proxy process before `port`; its own port."""
    argv = [sys.executable, "-m", "scripts.lib.bench.far", str(port), json.dumps(asdict(distance))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline())
        finally:
            child.terminate()


# ------------------------------------------------------------------ its own ceiling
def ceiling_mb_per_s(distance: Distance, connections: int = 16, seconds: float = 1.0) -> float:
    """MB/s that the proxy carries at most, all connections together: from a source that costs nothing.

    The first second is not counted: it is slow start.
    """
    source = socket.create_server(("127.0.0.1", 0), backlog=connections)
    count = [0]
    over = threading.Event()
    threads = []

    def run(work: Any, *given: Any) -> None:
        def quietly() -> None:
            with suppress(OSError):
                work(*given)

        threads.append(threading.Thread(target=quietly))
        threads[-1].start()

    def give(sock: socket.socket) -> None:
        zeros = bytes(1 << 20)
        with sock:
            sock.recv(1)
            while not over.is_set():
                sock.sendall(zeros)

    def take(port: int) -> None:
        buffer = bytearray(1 << 20)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"?")
            while not over.is_set() and (size := sock.recv_into(buffer)):
                count[0] += size

    with proxy(source.getsockname()[1], distance) as port, source:
        for _ in range(connections):
            run(take, port)
            run(give, source.accept()[0])
        time.sleep(1.0)
        before, begun = count[0], time.monotonic()
        time.sleep(seconds)
        rate = (count[0] - before) / (time.monotonic() - begun) / 1e6
        over.set()
    for thread in threads:
        thread.join(10)
    return rate


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), Distance(**json.loads(sys.argv[2]))))
