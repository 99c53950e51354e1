"""Mounts for tests: a daemon in a process of its own, its log, and its end.

Owns:    the processes that it starts and the mounts that these make: every one is unmounted (lazily,
         if it must be) and ended by its pid.
Never:   looks into a mount whose daemon may hang without a time limit.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from r2fs.daemon import client
from r2fs.drivers import kmount
from tests.support.commands import run_r2fs
from tests.support.servers import Endpoint

DRIVERS = ("kernel", "libfuse", "libfuse2")
REPO = Path(__file__).resolve().parents[2]
READY_S = 40.0  # two cores that other tests share
END_S = 30.0
LOG_RECORD = re.compile(r"\n(?=\d{4}-\d\d-\d\d )")
LOG_LINE = re.compile(r" (WARNING|ERROR|CRITICAL) |^Traceback|^fuse: ")


def until(what: str, done: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Polls until `done()` is true, and returns it; fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (found := done()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.02)
    return found


class Mount:
    """A child process that serves a mount. Subclasses say which."""

    def __init__(self, base: Path, command: list[str], environment: Mapping[str, str]) -> None:
        self.base = base
        self.path = base / "mnt"
        with suppress(FileExistsError):  # asks nothing of a dead mount that may be there
            os.mkdir(self.path)
        self.log_path = base / f"log{len(list(base.glob('log*')))}"
        self.allowed: list[str] = []  # patterns of warnings that this test expects
        self._command = command
        self._environment = dict(environment)
        self._log: IO[bytes] = self.log_path.open("ab")
        self._child: subprocess.Popen[str] | None = None

    # ---- life
    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            cwd=REPO,
            text=True,
        )

    def wait_ready(self) -> None:
        target = os.path.realpath(self.path.parent) + "/mnt"
        deadline = time.monotonic() + READY_S
        while not self._answers(target):
            code = self.child.poll()
            assert code is None, f"the daemon ended with {code}:\n{self.log()}"
            if time.monotonic() > deadline:
                self.end()
                raise AssertionError(f"no mount within {READY_S:.0f} s:\n{self.log()}")
            time.sleep(0.01)

    def _answers(self, target: str) -> bool:
        if kmount.mounted_at(target) is None:
            return False
        try:
            os.statvfs(self.path)  # asks the daemon, not the kernel's cache
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):  # an older, dead mount
                raise
            return False
        # and not the directory below, between the end of a dead mount and the new one
        return os.stat(self.path).st_dev != os.stat(self.base).st_dev

    @property
    def child(self) -> subprocess.Popen[str]:
        assert self._child is not None
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    def wait(self, timeout_s: float = END_S) -> int:
        return self.child.wait(timeout_s)

    def r2fs(self, *words: object) -> subprocess.CompletedProcess[str]:
        """A command that finds this mount's daemon."""
        return run_r2fs(self._environment, *words)

    def start_r2fs(self, *words: object) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return subprocess.Popen(
            [sys.executable, "-m", "r2fs", *map(str, words)],
            env=self._environment,
            cwd=REPO,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def stop(self) -> int:
        """An orderly end."""
        raise NotImplementedError

    def kill(self) -> None:
        """As a crash would end it; the dead mount goes as well."""
        self.child.kill()
        self.child.wait(END_S)
        self._detach()
        self._close_pipes()

    def end(self) -> None:
        """Whatever state it is in: afterwards there is neither mount nor process."""
        if self._child is not None and self._child.poll() is None:
            try:
                self.stop()
            except (AssertionError, OSError, subprocess.TimeoutExpired):
                self._child.kill()
                self._child.wait(END_S)
        self._detach()
        self._close_pipes()
        self._log.close()

    def _detach(self) -> None:
        target = os.path.realpath(self.path.parent) + "/mnt"
        while kmount.mounted_at(target) is not None:
            kmount.unmount(target, lazy=True)

    def _close_pipes(self) -> None:
        for pipe in (self.child.stdin, self.child.stdout) if self._child else ():
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass

    # ---- its log
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """The records of the log, tracebacks with them, with a line that no test allows."""
        return [
            record
            for record in LOG_RECORD.split(self.log())
            if any(map(self._unexpected, record.split("\n")))
        ]

    def _unexpected(self, line: str) -> bool:
        return bool(LOG_LINE.search(line)) and not any(re.search(p, line) for p in self.allowed)


class MirrorMount(Mount):
    """A driver over MirrorVerbs, which mirrors the directory `root`."""

    def __init__(self, base: Path, driver: str, **settings: Any) -> None:
        self.root = base / "root"
        self.root.mkdir()
        os.chmod(self.root, 0o755)
        command = [
            sys.executable,
            "-m",
            "tests.mount.serve_mirror",
            driver,
            str(self.root),
            str(base / "mnt"),
        ]
        super().__init__(base, [*command, json.dumps(settings)], os.environ)

    def ask(self, command: str, *words: object) -> Any:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps([command, *words]) + "\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def calls(self, name: str) -> int:
        return int(self.ask("calls").get(name, 0))

    def stop(self) -> int:
        assert self.child.stdin is not None
        self.child.stdin.close()
        return self.wait()


class BucketMount(Mount):
    """`r2fs mount` in the foreground. Settings are given as variables, R2FS_<NAME>."""

    program = "r2fs"  # the module that is run

    def __init__(
        self,
        base: Path,
        driver: str,
        endpoint: Endpoint,
        prefix: str,
        url: str | None = None,
        **settings: Any,
    ) -> None:
        values = {
            "driver": driver,
            "endpoint_url": url or endpoint.url,
            "region": endpoint.region,
            "cache_dir": base / "cache",
            "state_dir": base / "state",
            "run_dir": base / "run",
            "freshness": "500ms",
            "upload_delay": "200ms",
            "host": "studio",
            **settings,
        }
        variables = {f"R2FS_{name.upper()}": str(value) for name, value in values.items()}
        keys = {"AWS_ACCESS_KEY_ID": endpoint.access_key, "AWS_SECRET_ACCESS_KEY": endpoint.secret_key}
        command = [
            sys.executable,
            "-m",
            self.program,
            "mount",
            f"s3://{endpoint.bucket}/{prefix}",
            str(base / "mnt"),
        ]
        super().__init__(base, command, {**os.environ, "HOME": str(base), **keys, **variables})
        self.prefix = prefix
        self.run_dir = Path(values["run_dir"])

    def stop(self) -> int:
        """As systemd does it: uploads are waited for."""
        self.child.send_signal(signal.SIGTERM)
        return self.wait()

    # ---- its control socket
    def daemon(self) -> client.Daemon:
        environ = {"R2FS_RUN_DIR": str(self.run_dir)}
        return next(d for d in client.daemons(environ) if d.pid == self.pid)

    def status(self) -> dict[str, Any]:
        return client.ask_once(self.daemon(), "status")

    def flush(self, timeout_s: float = 30.0) -> None:
        """Everything that is closed is in the bucket. The kernel tells of a close a moment after it."""

        def sent() -> bool:
            queue = client.ask_once(self.daemon(), "flush", paths=[], timeout_s=timeout_s)["queue"]
            return not queue["left"]

        until("everything in the bucket", sent, timeout_s)

    def until_state(
        self, what: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float = 20.0
    ) -> None:
        until(what, lambda: holds(self.status()), timeout_s)


class CachedMount(BucketMount):
    """By the kernel driver, and everything through the page cache."""

    program = "tests.mount.without_passthrough"

    def __init__(self, base: Path, endpoint: Endpoint, prefix: str, **settings: Any) -> None:
        super().__init__(base, "kernel", endpoint, prefix, **settings)


def serve(mount: Any) -> Iterator[Any]:
    """The body of a fixture: an orderly stop is part of the test, the end comes in any case."""
    try:
        mount.start()
        yield mount
        mount.stop()
    finally:
        mount.end()


def end_all(made: Collection[Mount]) -> None:
    """The end of a fixture that makes mounts: none may have complained."""
    for mount in made:
        mount.end()
    complaints = [line for mount in made for line in mount.complaints()]
    assert not complaints, "\n".join(complaints)
