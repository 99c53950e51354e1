"""The work that is measured, in a process of its own: plain calls on a path, whatever is mounted there.

    python -m scripts.lib.bench.work NAME '{"argument": …}'

Owns:  the loops and their clock. Prints one object of JSON: {"count", "seconds", …}; "begun" is
       CLOCK_MONOTONIC, which other processes can go on from.
Never: knows which system it measures. What is not the work (making data, checking it) is outside the clock.
Fails: WrongBytes where a system answered other bytes than those that were stored.
"""

from __future__ import annotations

import gc
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

BLOCK = 4096
CHUNK = 1 << 20
PASSES = 3  # warm work is done at least as often, and for PASSES_S; the fastest counts: what else runs on
PASSES_S = 0.4  # the machine makes it slower, and nothing makes it faster
RANDOM_S = 0.4
Result = dict[str, float]


class WrongBytes(Exception):
    """The system under test returned something else than was stored."""


# ------------------------------------------------------------------ contents: each 4 KiB block names itself
def block(number: int) -> bytes:
    return number.to_bytes(8, "little") * (BLOCK // 8)


def content(size: int, salt: int = 0) -> Iterator[bytes]:
    """A file's bytes, 1 MiB at a time. `salt` makes another file of it."""
    for start in range(0, size, CHUNK):
        numbers = range(start // BLOCK, (min(start + CHUNK, size) + BLOCK - 1) // BLOCK)
        yield b"".join(block(salt + number) for number in numbers)[: size - start]


def check(data: bytes | bytearray, offset: int, salt: int = 0) -> None:
    first, skip = divmod(offset, BLOCK)
    numbers = range(first, -(-(offset + len(data)) // BLOCK))
    expected = b"".join(block(salt + number) for number in numbers)[skip : skip + len(data)]
    if data != expected:
        wrong = next(at for at, pair in enumerate(zip(data, expected, strict=True)) if pair[0] != pair[1])
        raise WrongBytes(f"other bytes at offset {offset + wrong}")


def appears(path: str) -> Result:
    """Wait until a path is there; CLOCK_MONOTONIC then."""
    while not os.path.lexists(path):
        time.sleep(0.001)
    return {"at": time.monotonic()}


def ready(path: str) -> Result:
    """The mount answers."""
    os.stat(path)
    return {}


# ------------------------------------------------------------------ large files
def forget_pages(path: str) -> None:
    """The kernel's pages of this very path go; those of a cache file elsewhere stay."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def read(path: str, forget: bool = False, once: bool = False) -> Result:
    """Read a file from the first byte to the last. `forget`: as if it had not been read by this path."""
    return fastest(lambda: read_once(path), once, lambda: forget_pages(path) if forget else None)


def read_once(path: str) -> Result:
    buffer = bytearray(CHUNK)
    buffers = [buffer]
    size = 0
    begun = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    while done := os.readv(fd, buffers):
        size += done
    os.close(fd)
    seconds = time.perf_counter() - begun
    last = size % CHUNK or CHUNK
    check(buffer[:last], size - last)
    return {"count": size, "seconds": seconds}


def randomly(path: str, forget: bool = False) -> Result:
    """Read 4 KiB at random places, none twice."""
    offsets = [number * BLOCK for number in range(os.stat(path).st_size // BLOCK)]
    random.Random(BLOCK).shuffle(offsets)
    return fastest(
        lambda: randomly_once(path, offsets), before=lambda: forget_pages(path) if forget else None
    )


def randomly_once(path: str, offsets: list[int]) -> Result:
    buffer = bytearray(BLOCK)
    buffers = [buffer]
    count = 0
    fd = os.open(path, os.O_RDONLY)
    begun = time.perf_counter()
    while (seconds := time.perf_counter() - begun) < RANDOM_S and count < len(offsets):
        for offset in offsets[count : count + 256]:
            os.preadv(fd, buffers, offset)
        count += 256
    check(buffer, offset)
    os.close(fd)
    return {"count": min(count, len(offsets)), "seconds": seconds}


def ends(path: str, size: int) -> Result:
    """Open a file and read its first and last 64 KiB, as a player does that looks for tags."""
    begun = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    head = os.pread(fd, 65536, 0)
    tail = os.pread(fd, 65536, size - 65536)
    os.close(fd)
    seconds = time.perf_counter() - begun
    check(head, 0)
    check(tail, size - 65536)
    return {"count": 1, "seconds": seconds}


def write(path: str, size: int) -> Result:
    """Write a new file, 1 MiB at a time, and close it."""
    chunks = list(content(size))
    begun = time.perf_counter()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    for chunk in chunks:
        os.write(fd, chunk)
    os.close(fd)
    return {"count": size, "seconds": time.perf_counter() - begun, "begun": begun}


def write_and_read_back(path: str, size: int) -> Result:
    """write(), then at once read() of what was written."""
    written = write(path, size)
    again = read(path)
    if again["count"] != size:
        raise WrongBytes(f"{again['count']} bytes read back of {size}")
    return written | {"back_seconds": again["seconds"]}


# ------------------------------------------------------------------ small files
def create(directory: str, files: int, size: int) -> Result:
    """Create, write and close `files` files in a new directory."""
    body = b"".join(content(size))
    begun = time.perf_counter()
    os.mkdir(directory)
    for number in range(files):
        fd = os.open(f"{directory}/{number:05}.bin", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, body)
        os.close(fd)
    return {"count": files, "seconds": time.perf_counter() - begun, "begun": begun}


def remove(path: str, files: int) -> Result:
    """rm -r"""
    begun = time.perf_counter()
    subprocess.run(["rm", "-r", path], check=True)
    return {"count": files, "seconds": time.perf_counter() - begun, "begun": begun}


def small_paths(directory: str, files: int, shuffled: bool = False) -> list[str]:
    """In the order of their names, or in one that nobody can foresee."""
    paths = [f"{directory}/{number:05}.bin" for number in range(files)]
    if shuffled:
        random.Random(files).shuffle(paths)
    return paths


def read_small(path: str, expected: bytes) -> None:
    """Open, read, read (end of file), close."""
    fd = os.open(path, os.O_RDONLY)
    data = os.read(fd, CHUNK)
    if len(data) != len(expected) or os.read(fd, CHUNK):
        raise WrongBytes(f"{path}: {len(data)} bytes at once, of {len(expected)}")
    os.close(fd)
    if data != expected:
        raise WrongBytes(path)


def open_read_close(
    directory: str,
    files: int,
    size: int,
    once: bool = False,
    shuffled: bool = False,
    forget: bool = False,
) -> Result:
    """Read small files whole. `forget`: pages that the kernel has of them go first."""
    paths = small_paths(directory, files, shuffled)
    expected = b"".join(content(size))

    def each() -> int:
        for path in paths:
            read_small(path, expected)
        return files

    def before() -> None:
        for path in paths if forget else ():
            forget_pages(path)

    return fastest(timed(each), once, before)


def headers(directory: str, files: int) -> Result:
    """Open files in order and read the first 64 KiB of each, as a program does that fills a list of takes."""
    paths = small_paths(directory, files)
    begun = time.perf_counter()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        data = os.pread(fd, 65536, 0)
        os.close(fd)
    seconds = time.perf_counter() - begun
    check(data, 0)
    return {"count": files, "seconds": seconds}


def latencies(directory: str, files: int, size: int, readers: int) -> Result:
    """Read small files in no order, `readers` at once; how long one takes, in ms by share of the reads."""
    paths = small_paths(directory, files, shuffled=True)
    expected = b"".join(content(size))
    waiting = iter(paths)
    taken: list[float] = []
    begun = time.perf_counter()

    def one(path: str) -> None:
        start = time.perf_counter()
        read_small(path, expected)
        taken.append((time.perf_counter() - start) * 1000)

    with ThreadPoolExecutor(readers) as pool:
        for _ in pool.map(one, waiting):
            pass
    seconds = time.perf_counter() - begun
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {"count": files, "seconds": seconds} | {
        name: percentile(taken, share) for name, share in shares.items()
    }


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


# ------------------------------------------------------------------ names
def walk(directory: str, files: int, once: bool = False) -> Result:
    """List a tree and stat every entry, as find -ls, du and backups do."""
    return fastest(timed(lambda: expect(files, walk_below(directory))), once)


def names(directory: str, files: int) -> Result:
    """List a tree by names alone, as find does."""
    return fastest(timed(lambda: expect(files, names_below(directory))), once=True)


def names_below(directory: str) -> int:
    with os.scandir(directory) as entries:
        found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    below = [path for path, is_dir in found if is_dir]
    return len(found) - len(below) + sum(map(names_below, below))


def names_of_one(directory: str, files: int) -> Result:
    """List one directory by names alone."""
    return fastest(timed(lambda: expect(files, len(os.listdir(directory)))), once=True)


def walk_below(directory: str) -> int:
    found = 0
    below = []
    with os.scandir(directory) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            else:
                found += 1
    return found + sum(map(walk_below, below))


def tree_names(tops: int, subs: int, leaves: int) -> list[str]:
    """`tops` directories, `subs` in each, `leaves` files in each of those."""
    return [
        f"{top:02}/{sub:02}/{leaf:02}.bin"
        for top in range(tops)
        for sub in range(subs)
        for leaf in range(leaves)
    ]


def plant(directory: str, tops: int, subs: int, leaves: int) -> Result:
    """The tree, for the local disk."""
    for name in tree_names(tops, subs, leaves):
        path = Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100))
    return {}


def stat(directory: str, files: int) -> Result:
    """stat of every file of a tree, by path."""
    paths = [str(path) for path in Path(directory).rglob("*.bin")]
    expect(files, len(paths))

    def each() -> int:
        for path in paths:
            os.stat(path)
        return files

    return fastest(timed(each))


def expect(files: int, found: int) -> int:
    if found != files:
        raise WrongBytes(f"{found} files found, {files} are there")
    return files


def fastest(
    work: Callable[[], Result], once: bool = False, before: Callable[[], object] = lambda: None
) -> Result:
    """The best of several passes. `before` is outside the clock."""
    results: list[Result] = []
    end = time.perf_counter() + PASSES_S
    while not results or not (once or (len(results) >= PASSES and time.perf_counter() > end)):
        before()
        results.append(work())
    return max(results, key=lambda result: result["count"] / result["seconds"])


def timed(work: Callable[[], int]) -> Callable[[], Result]:
    """`work` counts what it did."""

    def measured() -> Result:
        begun = time.perf_counter()
        count = work()
        return {"count": count, "seconds": time.perf_counter() - begun}

    return measured


WORK: dict[str, Callable[..., Result]] = {
    function.__name__: function
    for function in (
        *(appears, ready, read, randomly, ends, write, write_and_read_back),
        *(create, remove, open_read_close, headers, latencies, walk, names, names_of_one, plant, stat),
    )
}


def main(name: str, arguments: str) -> None:
    from scripts.lib.bench.programs import PROGRAMS

    given: dict[str, Any] = json.loads(arguments)
    gc.disable()
    print(json.dumps((WORK | PROGRAMS)[name](**given)))


if __name__ == "__main__":
    main(*sys.argv[1:])
