"""Traces three paths through an engine on a store in memory and prints what they ran, as JSON.

Run by itself, with the tree to be measured first on the path: it imports `r2fs` and `tests.support` of that
tree and nothing of this package. Counts calls of functions of `r2fs` (engine, disk, model); a call crosses
where the nearest caller of `r2fs` is in another module. Lambdas, comprehensions and generators count for the
function that holds them. Waiting for the upload is done by a thread that is not traced;
what the engine's threads run after it, until they rest, counts too: otherwise the counts depend on timing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ASSERTIONS = frozenset({"assert_held"})  # no step of a walk: nothing follows from them


class Tracer:
    """Counts calls while `on`; installed before the engine's threads start."""

    def __init__(self, top: Path) -> None:
        self.on = False
        self._top = str(top) + "/"
        self._names: dict[str, str] = {}
        self.clear()

    def clear(self) -> None:
        self.modules: set[str] = set()
        self.functions: set[tuple[str, str, int]] = set()
        self.calls = self.crossing = 0

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if not self.on or event != "call":
            return
        code = frame.f_code
        module = self._module(code.co_filename)
        if not module or code.co_name.startswith("<") or code.co_name in ASSERTIONS:
            return
        caller = frame.f_back
        while caller is not None and not self._module(caller.f_code.co_filename):
            caller = caller.f_back
        self.modules.add(module)
        self.functions.add((module, code.co_name, code.co_firstlineno))
        self.calls += 1
        self.crossing += caller is not None and self._module(caller.f_code.co_filename) != module

    def _module(self, file: str) -> str:
        if file not in self._names:
            inside = file.startswith(self._top)
            self._names[file] = file[len(self._top) :].removesuffix(".py").replace("/", ".") if inside else ""
        return self._names[file]

    def result(self) -> dict[str, Any]:
        engine = sorted(m.removeprefix("engine.") for m in self.modules if m.startswith("engine."))
        return {
            "modules": len(self.modules),
            "engine modules": len(engine),
            "functions": len(self.functions),
            "calls": self.calls,
            "crossing %": round(100 * self.crossing / max(1, self.calls)),
            "of engine": engine,
        }


def settle(tracer: Tracer, quiet_s: float = 0.3, limit_s: float = 10.0) -> None:
    """Waits until the engine's threads have run nothing for `quiet_s`: spare files are made at first."""
    end_s = time.monotonic() + limit_s
    tracer.on = True
    while time.monotonic() < end_s:
        before = tracer.calls
        time.sleep(quiet_s)
        if tracer.calls == before:
            break
    tracer.on = False


def measure() -> dict[str, Any]:
    import r2fs
    from tests.support.engine import Engine
    from tests.support.memory_store import MemoryStore

    tracer = Tracer(Path(r2fs.__file__).resolve().parent)

    def traced(act: Callable[[], object], ends: Callable[[], bool] | None = None) -> dict[str, Any]:
        settle(tracer)
        tracer.clear()
        tracer.on = True
        sys.setprofile(tracer)
        try:
            act()
        finally:
            sys.setprofile(None)
        limit_s = time.monotonic() + 20
        while ends and not ends():
            assert time.monotonic() < limit_s, "the upload did not end within 20 s"
            time.sleep(0.002)
        if ends:
            settle(tracer)
        tracer.on = False
        return tracer.result()

    with tempfile.TemporaryDirectory(prefix="r2fs-figures-") as folder:
        store = MemoryStore()
        writer = Engine(Path(folder) / "writer", store)
        writer.mkdir("d")
        for name in ("a", "b", "c"):
            writer.write(f"d/{name}", b"x" * 5000)
        writer.drain()
        writer.stop()
        threading.setprofile(tracer)
        try:
            engine = Engine(Path(folder) / "reader", store, freshness_s=60.0)
        finally:
            threading.setprofile(None)
        fs, caller = engine.fs, engine.caller
        try:
            engine.listdir("d")
            ino = engine.entry("d/a").ino

            def read() -> None:
                opened = fs.open(caller, ino, 0)
                assert fs.read(caller, opened.handle, 0, 5000) == b"x" * 5000
                fs.release(opened.handle)

            out = {"read": traced(read)}

            opened = engine.open("d/new", 0o101)
            fs.write(caller, opened.handle, 0, b"y" * 5000)
            node = next(n for n in fs._tree.all_nodes() if n.name == "new")

            def close() -> None:
                fs.flush(caller, opened.handle)
                fs.release(opened.handle)

            out["close"] = traced(close, lambda: node.state.name == "CLEAN")
            parent, old = engine.parent("d")
            out["rename"] = traced(lambda: fs.rename(caller, parent, old, parent, "e", 0))
        finally:
            tracer.on = False
            engine.drain()
            engine.stop()
    return out


if __name__ == "__main__":
    print(json.dumps(measure()))
