"""The daemon of `r2fs mount`, which ends itself by SIGKILL at a named point: `python -m tests.crash.daemon JSON`.

Owns:    the hook. Each point that is passed is a line in a file, which outlives the process.
Never:   is part of the product: nothing in r2fs kills itself.

A commit of the journal is known by the function that asked for it as well: `commit@files._seal`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2fs.daemon import service
from r2fs.engine.fs import FileSystem
from r2fs.model.ports import Caller
from r2fs.model.records import FileSystemStats
from r2fs.model.settings import Bucket, Credentials, Settings
from r2fs.store.local import store

PASSED, KILLED = ".", "!"  # the first character of a line in the file of points
NEVER = ("", 0)
COMMITS = ("commit", "committed")
# Floors of the engine that only carry out what another module has decided.
CARRIERS = frozenset(
    {"r2fs.engine.pending.store", "r2fs.engine.pending.deletes", "r2fs.engine.pending.attempts"}
)


class Killer:
    """The hook: the process ends when it passes `armed`'s point for the so many'th time."""

    def __init__(self, points: Path, armed: tuple[str, int]) -> None:
        self._file = os.open(points, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._armed = armed

    def arm(self, name: str, times: int) -> None:
        with self._lock:
            self._armed = (name, times)

    def __call__(self, name: str) -> None:
        whole = f"{name}@{_site()}" if name in COMMITS else name
        os.write(self._file, f"{PASSED}{whole}\n".encode())
        with self._lock:
            wanted, times = self._armed
            if wanted not in (name, whole):
                return
            self._armed = (wanted, times - 1)
            if times > 1:
                return
            os.write(self._file, f"{KILLED}{whole}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # not reached


def _site() -> str:
    """Who decided on the transaction that is committed: `module.function` of the engine."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("r2fs.engine.") and module not in CARRIERS:
            return f"{module.removeprefix('r2fs.engine.')}.{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "journal"


def die_when_asked() -> None:
    """A point of the suite's own: while the daemon answers a program that asks whether it is there."""
    answer = FileSystem.statfs

    def statfs(self: FileSystem, caller: Caller) -> FileSystemStats:
        self._core.crash_point("statfs")
        return answer(self, caller)

    FileSystem.statfs = statfs  # type: ignore[method-assign]


def settings_of(given: dict[str, Any]) -> Settings:
    bucket = dict(given.pop("bucket"))
    if keys := bucket.pop("credentials", None):
        bucket["credentials"] = Credentials(**keys)
    for name in ("cache_dir", "state_dir", "run_dir"):
        given[name] = Path(given[name])
    return Settings(bucket=Bucket(**bucket), uid=os.getuid(), gid=os.getgid(), **given)


def _listen(killer: Killer) -> None:
    """Each line on standard input arms anew: "NAME TIMES". Its end is that of who started us: ours, too."""
    for line in sys.stdin:
        name, times = line.split()
        killer.arm(name, int(times))
        print(f"armed {name}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    given = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    # Small parts, so that many uploads have several: `Limits` is what a file:// bucket takes.
    store.LIMITS = replace(store.LIMITS, min_part=given["settings"]["part_size"])
    killer = Killer(Path(given["points"]), tuple(given["armed"]))
    die_when_asked()
    launch = service.Launch(os.environ)
    mount = service.Service(settings_of(given["settings"]), Path(given["target"]), launch, crash_point=killer)
    threading.Thread(target=_listen, args=(killer,), name="armed from outside", daemon=True).start()
    sys.exit(mount.run(lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main()
