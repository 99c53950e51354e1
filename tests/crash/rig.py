"""Rig: one state directory and one bucket, over many kills: start, work, kill, compare, again.

Owns:    the processes that it starts and the mount: `end()` leaves neither.
Never:   looks into a mount whose daemon may hang but through calls that a test's time limit ends.

A round: programs work in the mount; the daemon is killed, at a moment or at a point; perhaps it is
killed once more while it starts; what the mount shows is compared with the manifests; everything is
sent, and what the bucket holds is compared with them. The daemon that was compared last serves
the next round.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from r2fs.daemon import client
from r2fs.drivers import kmount
from tests.crash.daemon import KILLED, NEVER
from tests.crash.manifest import DIRECTORY, FILE, LINK, Manifest, View, difference
from tests.crash.points import POINTS, START
from tests.crash.rivals import Rivals

REPO = Path(__file__).resolve().parents[2]
AREAS = ("a", "b", "c")
PATIENCE_S = 60.0  # two cores that others share
LINGER_S = 0.8  # how long uploads may take to reach an armed point after the programs' last call
LATE_S = 40.0  # a PUT whose daemon was killed may still arrive; the daemon looks for it after 10 s
COMPLAINT = re.compile(r" (WARNING|ERROR|CRITICAL) |^Traceback|^fuse: ")
EXPECTED = (
    "set aside as",  # a staged file whose row had just gone
    "another host wrote it first",  # rivals
)


def _readable(stream: IO[str], within_s: float) -> bool:
    """By poll(2): descriptors of a process that runs many tests pass select(2)'s 1,024."""
    waiting = select.poll()
    waiting.register(stream, select.POLLIN | select.POLLHUP)
    return bool(waiting.poll(within_s * 1000))


class Lost(AssertionError):
    """What was acknowledged is not there, or what was not is."""


class Bucket(Protocol):
    """The bucket as another client sees it."""

    small_parts: bool
    directories: bool  # does an empty one stay?

    def settings(self) -> dict[str, Any]:
        """Of model.settings.Bucket."""
        ...

    def view(self, area: str) -> View: ...
    def put(self, name: str, data: bytes) -> None: ...


@dataclass
class Stats:
    rounds: int = 0  # that count: something was acknowledged in them
    empty: int = 0
    acknowledged: int = 0
    files: int = 0  # compared, the mount's and the bucket's
    kills: Counter[str] = field(default_factory=Counter)  # at which point; "a moment"
    passes: Counter[str] = field(default_factory=Counter)
    undecided: Counter[str] = field(default_factory=Counter)  # calls under way at a kill: old, new, in part

    def add(self, other: Stats) -> None:
        self.rounds += other.rounds
        self.empty += other.empty
        self.acknowledged += other.acknowledged
        self.files += other.files
        self.kills.update(other.kills)
        self.passes.update(other.passes)
        self.undecided.update(other.undecided)


class Rig:
    def __init__(self, base: Path, driver: str, bucket: Bucket, seed: str) -> None:
        self.base = base
        self.bucket = bucket
        self.stats = Stats()
        self.mount = base / "mnt"
        self.mount.mkdir()
        (base / "manifests").mkdir()
        self.rng = random.Random(seed)
        self._seed = seed
        self._areas = {name: Manifest(base / "manifests" / name) for name in AREAS}
        self._rivals = Rivals(self.mount, bucket)
        self._settings = {
            "bucket": bucket.settings(),
            **{f"{what}_dir": str(base / what) for what in ("cache", "state", "run")},
            "driver": driver,
            "freshness_s": 1.0,
            "mtime": self.rng.choice(["listing", "exact"]),
            "upload_delay_s": 0.05,
            "upload_deadline_s": 1.0,
            "part_size": 64 << 10 if bucket.small_parts else 5 << 20,
            "multipart_threshold": 256 << 10 if bucket.small_parts else 6 << 20,
            "small_file": self.rng.choice([0, 4 << 20]),
            "host": "studio",
            "take_over_s": 0.0,  # each kill takes the mount away: test_takeover.py has the other case
        }
        self._points_file = base / "points"
        self._points_file.touch()
        self._points_read = 0
        self._log = (base / "log").open("ab")
        self._log_read = 0
        self._daemon: subprocess.Popen[str] | None = None
        self._writer: subprocess.Popen[str] | None = None

    # ------------------------------------------------------------------ life
    def begin(self) -> None:
        assert self._start(NEVER)
        for name in (*AREAS, self._rivals.name):
            (self.mount / name).mkdir()
        self._writer = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.writer", self.mount, self.base / "manifests", *AREAS],
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._drain()

    def end(self) -> None:
        """Neither process nor mount is left. May be called again."""
        for process in (self._daemon, self._writer):
            if process is not None:
                process.kill()
                self._close(process)
        self._daemon = self._writer = None
        target = os.path.realpath(self.mount)
        while kmount.mounted_at(target) is not None:
            kmount.unmount(target, lazy=True)
        for manifest in self._areas.values():
            manifest.close()
        self._areas = {}
        self._log.close()

    @property
    def daemon(self) -> subprocess.Popen[str]:
        assert self._daemon is not None
        return self._daemon

    def _start(self, armed: tuple[str, int]) -> bool:
        """The next daemon, once it answers; False: it was killed before. Takes a dead mount away by itself."""
        given = {
            "settings": self._settings,
            "target": str(self.mount),
            "points": str(self._points_file),
            "armed": armed,
        }
        self._daemon = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.daemon", json.dumps(given)],
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        line = self._line(self._daemon, "the mount")
        if line == "ready":
            return True
        self._ended()
        return False

    def _line(self, process: subprocess.Popen[str], what: str) -> str:
        """The next line that it says; "" at its end."""
        assert process.stdout is not None
        if not _readable(process.stdout, PATIENCE_S):
            raise Lost(f"{what}: nothing for {PATIENCE_S:.0f} s")
        return process.stdout.readline().strip()

    def _arm(self, name: str, times: int) -> None:
        assert self.daemon.stdin is not None
        self.daemon.stdin.write(f"{name} {times}\n")
        self.daemon.stdin.flush()
        while (line := self._line(self.daemon, "arming")) and line != f"armed {name}":
            pass

    def _kill(self) -> None:
        self.daemon.kill()
        self._ended()

    def _ended(self) -> None:
        code = self.daemon.wait(PATIENCE_S)
        self._close(self.daemon)
        self._daemon = None
        at = self._read_points()
        if code != -9:
            raise Lost(f"the daemon ended by itself, with {code}:\n{self.log()[-3000:]}")
        self.stats.kills[at or "a moment"] += 1

    def _close(self, process: subprocess.Popen[str]) -> None:
        process.wait(PATIENCE_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass

    def _read_points(self) -> str | None:
        """Count what was passed; where it ended, if that was at a point."""
        with self._points_file.open("rb") as file:
            file.seek(self._points_read)
            data = file.read()
        self._points_read += len(data)
        killed = None
        for line in data.decode().splitlines():
            if line[0] == KILLED:
                killed = line[1:]
            else:
                self.stats.passes[line[1:]] += 1
        return killed

    def log(self) -> str:
        return (self.base / "log").read_text(errors="replace")

    # ------------------------------------------------------------------ a round
    def round(self, point: str | None) -> bool:
        """One kill and more, and all that follows; did it count? `point` None: at random moments."""
        before = self._acknowledged()
        at_start = point is not None and POINTS.get(point) == START
        self._work(None if at_start else point)
        if at_start or self.rng.random() < 0.25:
            self.kill_at_start(point if at_start else None)
        self.recover()
        counts = self._acknowledged() > before
        self.stats.rounds += counts
        self.stats.empty += not counts
        return counts

    def recover(self) -> None:
        """The next daemon: what it shows, and, once it has sent everything, what the bucket holds."""
        if not self._start(NEVER):
            raise Lost("the daemon was killed, and not by us")
        self._compare_mount()
        self._drain()
        self._compare_bucket()
        self._complaints()

    def _acknowledged(self) -> int:
        return sum(manifest.acknowledged for manifest in self._areas.values())

    def _work(self, point: str | None) -> None:
        rng = self.rng
        if point is not None:
            self._arm(point, self._times(point))
        many = point is not None and "part" in point
        order = {
            "seed": f"{self._seed} {self.stats.rounds + self.stats.empty}",
            "count": rng.randint(4, 14),
            "directories": self.bucket.directories,
            "pause_s": rng.choice([0.0, 0.01, 0.05]),
            "big": (0.4 if many else 0.05) if self.bucket.small_parts else (0.15 if many else 0.0),
            "swaps": 0.5 if point == "materialised" else 0.0,  # names in a ring are what it takes
            "sizes": [300_000, 420_000] if self.bucket.small_parts else [6 << 20, 11 << 20],
        }
        assert self._writer is not None
        assert self._writer.stdin is not None
        self._writer.stdin.write(json.dumps(order) + "\n")
        self._writer.stdin.flush()
        if point == "conflict_journalled" or rng.random() < 0.1:
            self._rivals.work(rng)
        if point is None:
            time.sleep(rng.random() * rng.choice([0.05, 0.3, 0.8]))
            self._kill()
        word = self._line(self._writer, "the programs")
        if word != "done":
            raise Lost("the writer ended by itself")
        if point is not None:
            self._wait_for_death()
        for name, manifest in self._areas.items():
            manifest.catch_up()
            if manifest.wrong:
                raise Lost(f"{name}: {manifest.wrong}")

    def _times(self, point: str) -> int:
        """A passing that most rounds come to."""
        rounds = max(1, self.stats.rounds)
        passes = sum(n for name, n in self.stats.passes.items() if point in (name, name.split("@")[0]))
        return self.rng.randint(1, max(1, min(40, int(0.7 * passes / rounds))))

    def _wait_for_death(self) -> None:
        deadline = time.monotonic() + LINGER_S
        while self.daemon.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self._kill()

    def kill_at_start(self, point: str | None, times: int | None = None) -> None:
        """Killed again while it takes up what the last one left, or while it sends that."""
        rng = self.rng
        if self._daemon is not None:
            self._kill()
        chosen = point or rng.choice(["commit", "committed", "sent", "put_committed", "delete_looked"])
        if not self._start((chosen, times or rng.randint(1, 3 if point else 6))):
            return
        time.sleep(rng.random() * 0.2)
        self._kill()

    # ------------------------------------------------------------------ comparing
    def _compare_mount(self) -> None:
        for name, manifest in self._areas.items():
            shown = self._shown(self.mount / name)
            self.stats.files += len(shown)
            came: int | bool | None = None
            differences: list[str] = []
            for choice, view in manifest.possible(self._settings["driver"] != "kernel"):
                found = difference(view, shown)
                if not found:
                    came = choice
                    break
                differences = differences or found
            if came is None:
                raise Lost(
                    f"{name}: {manifest.pending or 'nothing'} was under way:\n" + "\n".join(differences)
                )
            if manifest.pending is not None:
                word = "old" if came is False else "new" if came is True else "in part"
                self.stats.undecided[f"{manifest.pending['do']}: {word}"] += 1
            manifest.came(came)
        self.stats.acknowledged = self._acknowledged()

    def _shown(self, root: Path) -> View:
        """What a program sees below a directory."""
        found: View = {}
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            for entry in os.scandir(root / directory):
                path = f"{directory}/{entry.name}".lstrip("/")
                if entry.is_symlink():
                    found[path] = (LINK, os.readlink(entry.path).encode(), 0)
                elif entry.is_dir():
                    found[path] = (DIRECTORY, b"", 0)
                    waiting.append(path)
                else:
                    mode = entry.stat().st_mode & 0o7777 if self._settings["mtime"] == "exact" else 0
                    found[path] = (FILE, Path(entry.path).read_bytes(), mode)
        return found

    def _compare_bucket(self) -> None:
        def compare() -> str:
            said = []
            for name, manifest in self._areas.items():
                ((_, expected),) = manifest.possible()
                found = self.bucket.view(name)
                self.stats.files += len(found)
                said += [f"{name}/{line}" for line in difference(expected, found)]
            return "\n".join(said + self._rivals.missing())

        self._poll(compare, "the bucket is not what was acknowledged", LATE_S)

    def _drain(self) -> None:
        """Everything is in the bucket. The kernel tells of a close a moment after it."""

        def left() -> str:
            queue = self._ask("flush", paths=[], timeout_s=PATIENCE_S)["queue"]
            return f"{queue['left']} left: {queue}" if queue["left"] else ""

        self._poll(left, "not everything was sent", PATIENCE_S)

    def _ask(self, operation: str, **words: object) -> dict[str, Any]:
        environ = {"R2FS_RUN_DIR": str(self.base / "run")}
        daemon = next(d for d in client.daemons(environ) if d.pid == self.daemon.pid)
        return client.ask_once(daemon, operation, **words)

    def _poll(self, wrong: Callable[[], str], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while said := wrong():
            if time.monotonic() > deadline:
                raise Lost(f"{what}:\n{said}")
            time.sleep(0.1)

    def _complaints(self) -> None:
        with (self.base / "log").open("rb") as file:
            file.seek(self._log_read)
            data = file.read()
        self._log_read += len(data)
        lines = data.decode(errors="replace").splitlines()
        said = [
            line for line in lines if COMPLAINT.search(line) and not any(text in line for text in EXPECTED)
        ]
        if said:
            raise Lost("the daemon complains:\n" + "\n".join(said[:20]))
