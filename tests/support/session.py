"""A session: what the kernel holds of a mount, and the engines that serve it one after another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from r2fs.model.records import Attributes, Inheritance, KnownHandle, KnownNode, Opened
from r2fs.model.verbs import ROOT
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore


class Session:
    """What the kernel holds of a mount, one engine after another: numbers and handles, and their log."""

    def __init__(self, base: Path, store: MemoryStore, **changes: object) -> None:
        self.base, self.store, self.changes = base, store, changes
        self.nodes: dict[int, KnownNode] = {}
        self.handles: dict[int, KnownHandle] = {}
        self.engine = Engine(base, store, memory=self, **changes)  # type: ignore[arg-type]

    # ---- the log: a SessionMemory
    def node(self, node: KnownNode) -> None:
        self.nodes.pop(node.ino, None)
        self.nodes[node.ino] = node

    def forget_node(self, ino: int) -> None:
        self.nodes.pop(ino, None)

    def handle(self, handle: KnownHandle) -> None:
        self.handles[handle.fh] = handle

    def forget_handle(self, fh: int) -> None:
        self.handles.pop(fh, None)

    # ---- the kernel
    def ino(self, path: str) -> int:
        """Looked up, and kept."""
        ino = ROOT
        for part in filter(None, path.split("/")):
            ino = self.engine.fs.lookup(self.engine.caller, ino, part).ino
        return ino

    def open(self, path: str, flags: int) -> Opened:
        """By passthrough, where the engine gives a descriptor."""
        parent, _, name = path.rpartition("/")
        fs, caller = self.engine.fs, self.engine.caller
        if flags & os.O_CREAT:
            entry, opened = fs.create(caller, self.ino(parent), name, 0o644, flags)
            ino = entry.ino
        else:
            ino = self.ino(path)
            opened = fs.open(caller, ino, flags)
        file = (0, 0)
        if opened.local is not None:
            found = os.fstat(opened.local)
            file = (found.st_dev, found.st_ino)
        backing_id = int(opened.local is not None)
        self.handle(KnownHandle(opened.handle, opened.handle, ino, flags, opened.handle, backing_id, file))
        return opened

    def close(self, opened: Opened) -> None:
        self.engine.fs.flush(self.engine.caller, opened.handle)
        self.forget_handle(opened.handle)
        self.engine.fs.release(opened.handle)

    def read(self, opened: Opened, size: int = 100) -> bytes:
        return self.engine.fs.read(self.engine.caller, opened.handle, 0, size)

    def attributes(self, ino: int) -> Attributes:
        return self.engine.fs.getattr(self.engine.caller, ino).attributes

    # ---- its daemons
    def kill(self, lose_cache: bool = False) -> None:
        """kill -9, and another one takes over."""
        self.engine.kill()
        if lose_cache:
            shutil.rmtree(self.base / "cache")
        self._take_over()

    def restart(self) -> None:
        """An orderly end that leaves everything to the next one, as `r2fs restart` asks for."""
        self.engine.end()
        self.engine.fs.close(leave=True)
        self._take_over()

    def _take_over(self) -> None:
        left = Inheritance(dict(self.nodes), dict(self.handles))
        self.engine = Engine(self.base, self.store, memory=self, inheritance=left, **self.changes)  # type: ignore[arg-type]

    def end(self) -> None:
        self.engine.end()
