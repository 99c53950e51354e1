"""Manifest: what programs were told is done, in a file outside of the mount.

Owns:    the file's lines, and the reference: the names and bytes that follow from them.
Never:   looks into a mount.

A line is written before each call and one after it has returned; after a kill, what became of the
call that was under way is a line, too (`came`). Nothing else may differ from the reference.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

Op = dict[str, Any]
PAGE = 4096  # where the kernel may part a write in two

FILE, DIRECTORY, LINK = "file", "directory", "link"
REMOVED = -1  # of a rename over an open file: libfuse removes that one first, then renames
Shown = tuple[str, bytes, int]  # kind, bytes or target, permission bits (0: not compared)
View = dict[str, Shown]


@lru_cache(maxsize=64)
def pattern(fill: int, size: int) -> bytes:
    """Bytes that are known by two numbers."""
    return random.Random(fill).randbytes(size)


@dataclass(eq=False)
class Node:
    kind: str
    data: bytearray = field(default_factory=bytearray)
    mode: int = 0


class Reference:
    """Names and bytes, as POSIX has them, of one area: one thread's own directory."""

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.handles: dict[int, tuple[Node, bool]] = {}  # number: file, is it open for appending

    def view(self) -> View:
        return {path: (node.kind, bytes(node.data), node.mode) for path, node in self.names.items()}

    def below(self, path: str) -> list[str]:
        return [name for name in self.names if name.startswith(f"{path}/")]

    def children(self, path: str) -> set[str]:
        start = f"{path}/" if path else ""
        return {
            rest for name in self.names if name.startswith(start) and "/" not in (rest := name[len(start) :])
        }

    def apply(self, op: Op, only: int | None = None) -> None:
        """`only`: of a write, so many bytes."""
        getattr(self, f"_{op['do']}")(op, only)

    def crash(self) -> None:
        self.handles.clear()

    def _open(self, op: Op, only: int | None) -> None:
        node = self.names.get(op["path"])
        if node is None:
            node = self.names[op["path"]] = Node(FILE, mode=0o644)
        elif op["flags"] & os.O_TRUNC:
            node.data.clear()
        self.handles[op["h"]] = (node, bool(op["flags"] & os.O_APPEND))

    def _write(self, op: Op, only: int | None) -> None:
        node, appends = self.handles[op["h"]]
        data = pattern(op["fill"], op["size"])[op.get("skip", 0) :][:only]
        at = len(node.data) if appends else op["at"]
        if data and at > len(node.data):
            node.data += bytes(at - len(node.data))
        node.data[at : at + len(data)] = data

    def _ftruncate(self, op: Op, only: int | None) -> None:
        _resize(self.handles[op["h"]][0].data, op["size"])

    def _truncate(self, op: Op, only: int | None) -> None:
        _resize(self.names[op["path"]].data, op["size"])

    def _fsync(self, op: Op, only: int | None) -> None:
        pass

    def _close(self, op: Op, only: int | None) -> None:
        del self.handles[op["h"]]

    def _rename(self, op: Op, only: int | None) -> None:
        old, new = op["path"], op["new"]
        if only == REMOVED:
            del self.names[new]
            return
        for name in [old, *self.below(old)]:
            self.names[new + name[len(old) :]] = self.names.pop(name)

    def _unlink(self, op: Op, only: int | None) -> None:
        del self.names[op["path"]]

    _rmdir = _unlink

    def _mkdir(self, op: Op, only: int | None) -> None:
        self.names[op["path"]] = Node(DIRECTORY)

    def _symlink(self, op: Op, only: int | None) -> None:
        self.names[op["path"]] = Node(LINK, bytearray(op["target"].encode()))

    def _chmod(self, op: Op, only: int | None) -> None:
        self.names[op["path"]].mode = op["mode"]


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data += bytes(size - len(data))


class Manifest:
    """One area's file. The writer and who compares each have one of their own on the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reference = Reference()
        self.pending: Op | None = None  # begun, and no word of its end
        self.acknowledged = 0
        self.wrong: str | None = None  # what the writer saw that cannot be
        self._read = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        os.close(self._fd)

    # ---- the writer's side: of a write, "skip" bytes of the pattern are in the file already
    def begin(self, op: Op) -> None:
        self._add(op)

    def done(self, only: int | None = None) -> None:
        """`only`: a write that returned so many bytes; the rest is another."""
        self._add({"done": True, "only": only})

    def say_wrong(self, what: str) -> None:
        self._add({"wrong": what})

    # ---- the other side
    def came(self, only: int | bool | None) -> None:
        """What became of the call under way: True, False, or so many bytes of it. All files are closed."""
        self._add({"came": only})

    def _add(self, line: dict[str, Any]) -> None:
        os.write(self._fd, json.dumps(line).encode() + b"\n")
        self.catch_up()

    def catch_up(self) -> None:
        """Take in what is in the file and not yet in the reference."""
        lines = b""
        while data := os.pread(self._fd, 1 << 20, self._read + len(lines)):
            lines += data
        whole = lines.rpartition(b"\n")[0]
        if not whole:
            return
        self._read += len(whole) + 1
        for line in whole.split(b"\n"):
            self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        if "do" in line:
            self.pending = line
        elif "done" in line:
            assert self.pending is not None
            self.reference.apply(self.pending, line["only"])
            self.pending = None
            self.acknowledged += 1
        elif "came" in line:
            if self.pending is not None and line["came"] is not False:
                only = None if line["came"] is True else line["came"]
                self.reference.apply(self.pending, only)
            self.pending = None
            self.reference.crash()
        else:
            self.wrong = line["wrong"]

    # ---- comparing
    def possible(self, in_two_steps: bool = False) -> Iterator[tuple[int | bool, View]]:
        """What may be there: what was acknowledged, without and with the call that was under way.

        `in_two_steps`: the driver is libfuse, to which a rename over an open file is two calls.
        """
        yield False, self.reference.view()
        if self.pending is None:
            return
        yield True, self._with(None)
        for only in self._cuts() if self.pending["do"] == "write" else ():
            yield only, self._with(only)
        if in_two_steps and self.pending["do"] == "rename" and self._is_open(self.pending["new"]):
            yield REMOVED, self._with(REMOVED)

    def _is_open(self, path: str) -> bool:
        node = self.reference.names.get(path)
        return any(node is open_one for open_one, _ in self.reference.handles.values())

    def _cuts(self) -> list[int]:
        """A write is carried out in pieces that end at pages of the file."""
        assert self.pending is not None
        node, appends = self.reference.handles[self.pending["h"]]
        at = len(node.data) if appends else self.pending["at"]
        return list(range(PAGE - at % PAGE, self.pending["size"] - self.pending.get("skip", 0), PAGE))

    def _with(self, only: int | None) -> View:
        assert self.pending is not None
        after = copy.deepcopy(self.reference)
        after.apply(self.pending, only)
        return after.view()


def difference(expected: View, found: View) -> list[str]:
    """In words, a few."""
    said = [f"{path} is missing" for path in sorted(expected.keys() - found.keys())]
    said += [f"{path} should not be there" for path in sorted(found.keys() - expected.keys())]
    for path in sorted(expected.keys() & found.keys()):
        (kind, data, mode), (kind2, data2, mode2) = expected[path], found[path]
        if kind != kind2:
            said.append(f"{path} is a {kind2}, not a {kind}")
        elif data != data2:
            at = next((n for n, (a, b) in enumerate(zip(data, data2, strict=False)) if a != b), "the end")
            said.append(f"{path}: {len(data2)} bytes, not {len(data)}, or others from byte {at} on")
        elif mode and mode2 and mode != mode2:
            said.append(f"{path}: mode {mode2:o}, not {mode:o}")
    return said
