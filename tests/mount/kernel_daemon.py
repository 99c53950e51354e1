"""The kernel driver over MirrorVerbs, taken apart: `python -m tests.mount.kernel_daemon ROOT MOUNTPOINT OPTIONS`.

Owns:    the child's side of KernelMount (kernel_rig.py): JSON commands on standard input, one
         JSON answer each on standard output. OPTIONS is a JSON object; Daemon reads it.
Threads: the driver in the main thread, commands in another.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.kernel_driver import KernelDriver
from r2fs.drivers.kernel.negotiation import SessionState
from r2fs.drivers.kernel.passthrough import DeviceBacking, Grant, OpenModes
from r2fs.drivers.kernel.session import Session
from r2fs.drivers.kernel.wire import Init
from r2fs.model.ports import Caller
from r2fs.model.records import Inheritance, KnownHandle, KnownNode
from r2fs.model.settings import Bucket, Settings
from tests.support.mirror import MirrorVerbs

GRANTS = {
    "cached": 0,
    "keep": wire.FOPEN_KEEP_CACHE,
    "direct": wire.FOPEN_DIRECT_IO,
    "pt": wire.FOPEN_PASSTHROUGH,
    "pt+keep": wire.FOPEN_PASSTHROUGH | wire.FOPEN_KEEP_CACHE,
    "direct+pt": wire.FOPEN_PASSTHROUGH | wire.FOPEN_DIRECT_IO,
    "another id": wire.FOPEN_PASSTHROUGH,
}


class ScriptedModes(OpenModes):
    """Grants what the test says, however wrong, to see what the kernel makes of it."""

    def __init__(self, fd: int, script: list[str], registered_as: int) -> None:
        self.backing = DeviceBacking(fd)
        super().__init__(self.backing)
        self.script = script  # a mode for each open to come; "cached" afterwards
        self.registered_as = registered_as  # how the registered descriptor is opened
        self.ids: dict[int, int] = {}

    def enter(
        self, ino: int, local: int | None, version: int, writes: bool, file: tuple[int, int] | None = None
    ) -> Grant:
        mode = self.script.pop(0) if self.script else "cached"
        if not GRANTS[mode] & wire.FOPEN_PASSTHROUGH:
            return Grant(False, GRANTS[mode], 0)
        assert local is not None
        if ino not in self.ids or mode == "another id":
            self.ids[ino] = self.register(f"/proc/self/fd/{local}")
        return Grant(True, GRANTS[mode], self.ids[ino])

    def leave(self, ino: int, passthrough: bool) -> None:
        pass

    def register(self, path: str) -> int:
        fd = os.open(path, self.registered_as | os.O_CLOEXEC)
        try:
            return self.backing.register_descriptor(fd)
        finally:
            os.close(fd)


class ScriptedDriver(KernelDriver):
    modes: ScriptedModes

    def __init__(
        self, options: dict[str, Any], fs: MirrorVerbs, settings: Settings, mountpoint: Path
    ) -> None:
        super().__init__(fs, settings, mountpoint)
        self._options = options

    def _wanted(self) -> Init:
        wanted = super()._wanted() | Init(self._options.get("wanted", 0))
        return wanted & ~Init(self._options.get("unwanted", 0))

    def _open_modes(self, session: Session) -> OpenModes:
        script, registered_as = self._options.get("script", []), self._options.get("registered_as", os.O_PATH)
        self.modes = ScriptedModes(session.fd, list(script), registered_as)
        return self.modes

    def _stack_depth(self) -> int:
        return int(self._options.get("stack_depth", 1))


class PatientMirror(MirrorVerbs):
    """A stuck read ends when its caller is interrupted, as the engine's waiting does."""

    def read(self, caller: Caller, handle: int, offset: int, size: int) -> bytes:
        event = self.stuck.get(self._file(handle).node.name)
        caller.about_to_wait()
        while event is not None and not event.wait(0.02):
            caller.about_to_wait()
        return super().read(caller, handle, offset, size)


class Memory:
    """A SessionMemory that lives as long as this process: one driver follows another in it."""

    def __init__(self) -> None:
        self.handles: dict[int, KnownHandle] = {}

    def node(self, node: KnownNode) -> None:
        pass

    def forget_node(self, ino: int) -> None:
        pass

    def handle(self, handle: KnownHandle) -> None:
        self.handles[handle.fh] = handle

    def forget_handle(self, fh: int) -> None:
        self.handles.pop(fh, None)


class Daemon:
    """Its public methods are the commands."""

    def __init__(self, root: Path, mountpoint: Path, options: dict[str, Any]) -> None:
        self._streamed: set[str] = set(options.get("stream", ()))
        self._fs = PatientMirror(
            root, stream=self._streamed.__contains__, valid_s=options.get("valid_s", 3600.0)
        )
        self._mountpoint = mountpoint
        self._settings = Settings(
            bucket=Bucket("file", str(root)),
            cache_dir=root.parent,
            state_dir=root.parent,
            run_dir=root.parent,
            **options.get("settings", {}),
        )
        self._memory = Memory()
        self._driver: KernelDriver
        if "script" in options:
            self._driver = ScriptedDriver(options, self._fs, self._settings, mountpoint)
        else:
            self._driver = self._new_driver(options.get("passthrough", True))
        self._successor: KernelDriver | None = None
        self._answering = threading.Lock()

    def _new_driver(self, passthrough: bool) -> KernelDriver:
        return KernelDriver(
            self._fs, self._settings, self._mountpoint, passthrough=passthrough, memory=self._memory
        )

    def run(self) -> None:
        threading.Thread(target=self._obey, name="commands", daemon=True).start()
        self._driver.serve()
        while self._successor is not None:
            fd, state = self._driver.fileno(), self._driver.state()
            assert state is not None
            again = SessionState.from_json(state.to_json())
            self._driver, self._successor = self._successor, None
            self._driver.adopt(fd, again, Inheritance({}, dict(self._memory.handles)))
            self._driver.serve()
        with self._answering:
            self._fs.close()

    def _obey(self) -> None:
        for line in sys.stdin:
            name, *words = json.loads(line)
            command: Callable[..., object] = getattr(self, name)
            with self._answering:  # `unmount` ends the main thread: not before it is answered
                try:
                    answer: object = {"answer": command(*words)}
                except Exception as e:
                    answer = {"error": f"{type(e).__name__}: {e}", "errno": getattr(e, "errno", None)}
                print(json.dumps(answer), flush=True)
        self._driver.unmount(lazy=True)

    # ---- what it looks like inside
    def modes(self) -> object:
        return [asdict(mode) for mode in self._driver.mode_of_open_files()]

    def requests(self) -> dict[str, int]:
        return self._driver.requests()

    def calls(self) -> dict[str, int]:
        return dict(self._fs.calls)

    def known(self) -> dict[int, int]:
        return self._fs.known()

    def handles(self) -> int:
        return self._fs.open_handles()

    def waiting(self) -> int:
        session = self._driver._session
        return session.waiting() if session else 0

    def flags(self) -> int:
        state = self._driver.state()
        return state.flags if state else 0

    # ---- how the file system is to behave
    def valid(self, seconds: float) -> None:
        self._fs.valid_s = seconds

    def stream(self, *names: str) -> None:
        """From now on, opens of these files are STREAM."""
        self._streamed.clear()
        self._streamed.update(names)

    def stick(self, *names: str) -> None:
        """STREAM reads of these files wait from now on, whoever calls."""
        for name in names:
            self._fs.stuck[name] = threading.Event()

    def unstick(self, *names: str) -> None:
        for name in names:
            self._fs.stuck[name].set()

    # ---- what the kernel is told
    def forget_name(self, parent: int, name: str, gone: bool = False) -> None:
        self._fs.kernel_cache.forget_name(parent, name, gone)

    def forget_attributes(self, ino: int) -> None:
        self._fs.kernel_cache.forget_attributes(ino)

    def forget_content(self, ino: int) -> None:
        self._fs.kernel_cache.forget_content(ino)

    def shares_pages(self) -> bool:
        return self._fs.kernel_cache.shares_pages

    # ---- scripted opens
    def script(self, *modes: str) -> None:
        assert isinstance(self._driver, ScriptedDriver)
        self._driver.modes.script = list(modes)

    def register(self, path: str) -> int:
        assert isinstance(self._driver, ScriptedDriver)
        return self._driver.modes.register(path)

    def unregister(self) -> None:
        assert isinstance(self._driver, ScriptedDriver)
        for backing_id in self._driver.modes.ids.values():
            self._driver.modes.backing.unregister(backing_id)

    # ---- its end
    def unmount(self, lazy: bool = False) -> None:
        self._driver.unmount(lazy)

    def take_over(self) -> None:
        """Another driver goes on with the session, as after a restart; returns when it serves."""
        before = self._driver
        self._successor = successor = self._new_driver(True)
        before.detach()
        assert successor.ready.wait(20)


def main() -> None:
    root, mountpoint, options = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    Daemon(Path(root), Path(mountpoint), json.loads(options)).run()


if __name__ == "__main__":
    main()
