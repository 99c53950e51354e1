"""A far server: a TCP proxy on loopback that adds a round trip, and knows nothing of what it carries.

    python -m scripts.lib.bench.far PORT SECONDS      prints its own port, then serves until SIGTERM

Owns:    the delay: half of it on each way, on every byte; a new connection costs one round trip more.
Never:   limits the bandwidth, but for the bytes that it holds on one connection's way.
Threads: none (asyncio), in a process of its own, so that it waits for nobody's interpreter lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK = 256 << 10
HELD = 256  # chunks on the way at most: 64 MiB, more than 1 GB/s has on its way in 40 ms
Way = asyncio.Queue[tuple[float, bytes]]


async def take(reader: asyncio.StreamReader, way: Way, delay_s: float, handshake_s: float) -> None:
    clock = asyncio.get_running_loop().time
    earliest = clock() + handshake_s + delay_s
    while data := await reader.read(CHUNK):
        await way.put((max(clock() + delay_s, earliest), data))
    await way.put((clock() + delay_s, b""))


async def give(way: Way, writer: asyncio.StreamWriter) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due, data = await way.get()
        if (left := due - clock()) > 0:
            await asyncio.sleep(left)
        if not data:
            writer.write_eof()
            return
        writer.write(data)
        await writer.drain()


async def serve(port: int, round_trip_s: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = Way(HELD), Way(HELD)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK)
            with contextlib.closing(upstream_writer):
                async with asyncio.TaskGroup() as both:
                    both.create_task(take(reader, there, round_trip_s / 2, round_trip_s))
                    both.create_task(give(there, upstream_writer))
                    both.create_task(take(upstream_reader, back, round_trip_s / 2, 0.0))
                    both.create_task(give(back, writer))
        except* OSError:
            pass  # either side may end a connection at any time
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
