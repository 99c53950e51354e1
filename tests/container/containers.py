"""The image and the services of contrib, run without a container engine: the same steps, each read from the files.

Owns:   a `host`: a mount namespace with /srv/r2fs of shared propagation, the volumes, and every container in it.
Never:  asks a registry, or builds a distribution: the image is made of the interpreter and the packages here, by the
        program that the Containerfile runs.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are not needed for one call

from tests.support.namespaces import WITHOUT_OTHER_MOUNTS

REPO = Path(__file__).resolve().parents[2]
CONTAINERFILE = REPO / "contrib/Containerfile"
IGNORE = REPO / ".dockerignore"
COMPOSE = REPO / "contrib/compose.yaml"
RUNTIME = Path(__file__).with_name("runtime.py")
PATIENCE_S = 60.0

HOST = """
set -e
mount --make-rprivate /
{without_other_mounts}
mount -t tmpfs -o mode=755 r2fs-host /srv
mount --make-shared /srv
mkdir -p /srv/r2fs/takes
echo ready
exec sleep infinity
"""


# ------------------------------------------------------------------ Containerfile
@dataclass(frozen=True)
class Recipe:
    """Instructions of a Containerfile; `stages`: of each FROM on."""

    stages: list[list[tuple[str, str]]]

    def of(self, stage: int, name: str) -> list[str]:
        return [text for word, text in self.stages[stage] if word == name]

    def words(self, stage: int, name: str) -> list[str]:
        """The last instruction of this name, in its JSON form."""
        found: list[str] = json.loads(self.of(stage, name)[-1])
        return found

    @property
    def environ(self) -> dict[str, str]:
        """ENV of the last stage."""
        return dict(pair.split("=", 1) for text in self.of(-1, "ENV") for pair in shlex.split(text))


def recipe(text: str) -> Recipe:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: list[list[tuple[str, str]]] = [[]]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return Recipe(stages)


def context(target: Path, clone: Path = REPO) -> None:
    """What COPY . gives to the first stage, by the ignore file."""
    lines = [line for line in IGNORE.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    kept = [line[1:] for line in lines if line.startswith("!")]
    dropped = [line.removeprefix("**/") for line in lines[1:] if not line.startswith("!")]

    def ignored(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in dropped)]

    for name in kept:
        if (clone / name).is_dir():
            shutil.copytree(clone / name, target / name, ignore=ignored)
        else:
            shutil.copy(clone / name, target / name)


def build(base: Path) -> Path:
    """Run the last step of the first stage over what COPY gives it. The steps before it install what is installed here."""
    (base / "src").mkdir()
    context(base / "src")
    step = shlex.split(recipe(CONTAINERFILE.read_text()).of(1, "RUN")[-1])
    assert step == ["/venv/bin/python", "-m", "scripts.lib.image", "/image"], step
    image = base / "image"
    done = subprocess.run(
        [sys.executable, *step[1:-1], image],
        cwd=base / "src",
        env={**os.environ, "PYTHONPATH": str(base / "src")},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return image


# ------------------------------------------------------------------ compose
def services(given: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Services of the compose file, with the variables of `given`."""

    def value(match: re.Match[str]) -> str:
        found = given.get(match["name"], "")
        assert found or match["rest"] != ":?", f"{match['name']} is not set"
        return found

    text = re.sub(r"\$\{(?P<name>\w+)(?P<rest>:[?-])?[^}]*\}", value, COMPOSE.read_text())
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


@dataclass
class Host:
    """Where the containers run, with an /srv of its own. In `base`: `volumes`, and the `secrets` of compose."""

    base: Path
    image: Path
    # variables of services with a network: where the bucket is
    overrides: Mapping[str, str] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("volumes", "secrets", "roots"):
            (self.base / name).mkdir()
        script = HOST.format(without_other_mounts=WITHOUT_OTHER_MOUNTS)
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", script],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def words(self, *words: object) -> list[str]:
        return ["nsenter", f"--target={self.process.pid}", "--mount", *map(str, words)]

    def ask(self, *words: object) -> subprocess.CompletedProcess[str]:
        """A program of the host, which sees what the containers mount."""
        return subprocess.run(self.words(*words), capture_output=True, text=True, timeout=PATIENCE_S)

    def do(self, *words: object) -> str:
        done = self.ask(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def start(self, service: Mapping[str, Any], name: str) -> Container:
        container = Container(self, service, f"{name}-{len(self.containers)}")
        self.containers.append(container)
        return container

    def end(self) -> None:
        for container in self.containers:
            container.end()
        self.process.kill()
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Container:
    """One service's process 1 in namespaces of its own."""

    def __init__(self, host: Host, service: Mapping[str, Any], name: str) -> None:
        image = recipe(CONTAINERFILE.read_text())
        self.service, self._host = service, host
        self._environ = {
            **image.environ,
            **service["environment"],
            **({} if service.get("network_mode") == "none" else host.overrides),
            "container": "oci",
            "R2FS_TEST_SESSION": os.environ["R2FS_TEST_SESSION"],
        }
        self.stop_signal = signal.Signals[image.of(-1, "STOPSIGNAL")[0]]
        options = service["security_opt"]
        root = host.base / "roots" / name
        root.mkdir()
        assert service["cap_drop"] == ["ALL"]
        config = {
            "root": str(root),
            "image": str(host.image),
            "devices": service.get("devices", []),
            "binds": self._binds(),
            "tmpfs": service.get("tmpfs", []),
            "read_only": service["read_only"],
            "capabilities": service.get("cap_add", []),
            "no_new_privileges": "no-new-privileges:true" in options,
            "command": [*image.words(-1, "ENTRYPOINT"), *service.get("command", image.words(-1, "CMD"))],
            "environ": self._environ,
        }
        path = host.base / f"{name}.json"
        path.write_text(json.dumps(config))
        self.log_path = host.base / f"{name}.log"
        network = ["--net"] if service.get("network_mode") == "none" else []
        isolated = ["unshare", "--mount", "--propagation=unchanged", "--pid", "--ipc", "--uts", *network]
        with self.log_path.open("wb") as log:
            self._outer = subprocess.Popen(
                host.words(*isolated, "--fork", "--kill-child", sys.executable, RUNTIME, path),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _binds(self) -> list[tuple[str, str, list[str]]]:
        """Source, target and options of each volume and secret."""
        found = []
        for entry in self.service.get("volumes", []):
            if isinstance(entry, str):
                volume, target, *options = entry.split(":")
                source = self._host.base / "volumes" / volume
                source.mkdir(exist_ok=True, mode=0o700)
            else:
                source, target, options = (
                    Path(entry["source"]),
                    entry["target"],
                    [entry["bind"]["propagation"]],
                )
            found.append((str(source), target, options))
        if secrets := self.service.get("secrets"):
            assert sorted(secrets) == sorted(path.name for path in (self._host.base / "secrets").iterdir())
            found.append((str(self._host.base / "secrets"), "/run/secrets", ["ro"]))
        return found

    # ------------------------------------------------------------------ inside
    @property
    def pid(self) -> int:
        """Process 1, by its number here; LookupError before it is there."""
        waiting = [self._outer.pid]
        while waiting:
            pid = waiting.pop()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                continue
            if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                return pid
        raise LookupError(f"no process 1:\n{self.log()}")

    def ask(self, *words: object) -> subprocess.CompletedProcess[str]:
        """A command inside, as `docker exec` runs it."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--wd"]
        return subprocess.run(
            [*enter, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=self._environ,
        )

    def is_healthy(self) -> bool:
        """The service's health check."""
        kind, *words = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        try:
            return self.ask(*words).returncode == 0
        except LookupError:
            return False

    def until(self, what: str, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert self._outer.poll() is None, f"{what}: the container has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"{what}:\n{self.log()}"
            time.sleep(0.05)

    def until_healthy(self) -> None:
        self.until("not healthy", self.is_healthy)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def memory_holds(self, what: bytes) -> bool:
        """True if any process of the container has these bytes in its memory."""
        inside = os.stat(f"/proc/{self.pid}/ns/pid").st_ino
        found = [p for p in map(int, filter(str.isdigit, os.listdir("/proc"))) if _namespace(p) == inside]
        assert found
        return any(_memory_holds(pid, what) for pid in found)

    # ------------------------------------------------------------------ its end
    def stop(self) -> int:
        """The stop signal to process 1; its exit code."""
        os.kill(self.pid, self.stop_signal)
        return self._outer.wait(PATIENCE_S)

    def wait(self) -> int:
        return self._outer.wait(PATIENCE_S)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._outer.wait(PATIENCE_S)

    def end(self) -> None:
        if self._outer.poll() is None:
            try:
                self.kill()
            except LookupError:
                self._outer.kill()
                self._outer.wait(PATIENCE_S)


def _namespace(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None  # it has ended


def _memory_holds(pid: int, what: bytes) -> bool:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory, open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            span, mode, *_ = line.split()
            if not mode.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                if what in os.pread(memory.fileno(), end - start, start):
                    return True
            except OSError:
                continue  # a mapping of a device
    return False


def require(programs: Sequence[str] = ("unshare", "nsenter", "setpriv", "ldd")) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    assert not missing, f"not installed: {missing}"
