"""A mount by the kernel driver whose daemon does as the test says, and cannot outlive it.

Owns:    the watchdog: a test that would hang in the kernel (a process that waits for an answer
         cannot be killed) ends by aborting the FUSE connection.
Never:   serves from the test's own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from r2fs.drivers import kmount
from tests.mount.daemons import Mount, until

WATCHDOG_S = 60.0
CONNECTIONS = Path("/sys/fs/fuse/connections")


class CommandFailed(AssertionError):
    def __init__(self, text: str, code: int | None) -> None:
        super().__init__(text)
        self.errno = code


class KernelMount(Mount):
    """`options` are those of kernel_daemon.Daemon."""

    def __init__(self, base: Path, command: tuple[str, ...] = (), **options: Any) -> None:
        self.root = base / "root"
        self.root.mkdir(exist_ok=True)
        os.chmod(self.root, 0o755)
        words = [sys.executable, "-m", "tests.mount.kernel_daemon", str(self.root), str(base / "mnt")]
        super().__init__(base, [*command, *words, json.dumps(options)], os.environ)
        self._watchdog: threading.Timer | None = None

    def wait_ready(self) -> None:
        self._watchdog = threading.Timer(WATCHDOG_S, self.abort)
        self._watchdog.daemon = True
        self._watchdog.start()
        super().wait_ready()

    def ask(self, command: str, *words: object) -> Any:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps([command, *words]) + "\n")
        self.child.stdin.flush()
        said = json.loads(self.child.stdout.readline())
        if "error" in said:
            raise CommandFailed(said["error"], said["errno"])
        return said["answer"]

    def count(self, request: str) -> int:
        """How many requests of this kind the kernel has sent."""
        return int(self.ask("requests").get(request, 0))

    def ino(self, name: str) -> int:
        """The node id of a name of the mount's root."""
        return os.lstat(self.root / name).st_ino

    def mode(self, name: str) -> str | None:
        """How the file is open: "passthrough", "cached", or not at all."""
        return next((m["mode"] for m in self.ask("modes") if m["ino"] == self.ino(name)), None)

    def until_released(self) -> None:
        """RELEASE is asynchronous."""
        until("all files are released", lambda: self.ask("handles") == 0)

    def stop(self) -> int:
        assert self.child.stdin is not None
        self.child.stdin.close()
        return self.wait()

    def end(self) -> None:
        super().end()
        if self._watchdog is not None:
            self._watchdog.cancel()

    def abort(self) -> None:
        """Every waiting caller gets an error, the daemon too."""
        mounted = kmount.mounted_at(os.path.realpath(self.base) + "/mnt")
        if mounted is None:
            return
        if not (CONNECTIONS / "1").parent.is_dir() or not any(CONNECTIONS.iterdir()):
            subprocess.run(["mount", "-t", "fusectl", "none", CONNECTIONS], check=False, capture_output=True)
        knob = CONNECTIONS / mounted.device.partition(":")[2] / "abort"
        if knob.exists():
            knob.write_text("1")
        kmount.unmount(mounted.path, lazy=True)
