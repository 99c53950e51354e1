"""A home of its own for every test, `r2fs(…)` in this process, and daemons that answer from a script."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from r2fs.cli.main import run
from r2fs.daemon import client
from r2fs.daemon.control import ControlServer

PATIENCE_S = 20.0


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the settings, caches or daemons of who runs it."""
    for name in list(os.environ):
        if name.startswith(("XDG_", "R2FS_CONFIG")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr("r2fs.model.settings.places.SYSTEM_FILE", tmp_path / "etc" / "config.toml")
    monkeypatch.setattr("r2fs.model.settings.places.ROOT_STATES", (tmp_path / "system-states",))
    monkeypatch.setattr(client, "run_dirs", lambda environ: [tmp_path / "run" / "r2fs"])
    return tmp_path


@pytest.fixture
def r2fs(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """r2fs("status", …) → exit code and output."""

    def _r2fs(*words: object, program: str = "r2fs") -> Said:
        capsys.readouterr()
        code = run(program, [str(word) for word in words])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return _r2fs


def queue(**given: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "files": 0, "directories": 0, "bytes": 0, "deletes": 0, "watched": 0, "active": 0, "parked": 0,
        "conflicts": [], "hidden": 0, "oldest_s": 0.0, "transfers": [], "uploaded": 0, "uploaded_bytes": 0,
        "failed": 0, "last_error": None, "last_error_at_s": None,
    }  # fmt: skip
    view = {**empty, **given}
    return {**view, "left": view["files"] + view["directories"] + view["deletes"]}


def flushed(
    sent: bool, parked: Sequence[dict[str, Any]] = (), refusal: str | None = None, **given: Any
) -> dict[str, Any]:
    """The last answer to a flush."""
    return {
        "sent": sent, "queue": queue(**given), "parked_count": len(parked), "parked": list(parked), "refusal": refusal,
    }  # fmt: skip


@pytest.fixture
def daemon(home: Path) -> Iterator[Callable[..., Path]]:
    """daemon("takes", op=function, …) → the mount point of a daemon that answers so."""
    servers = []

    def spawn(name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread

    def _daemon(name: str, **operations: Any) -> Path:
        run_dir, point = home / "run" / "r2fs", home / name
        run_dir.mkdir(parents=True, exist_ok=True)
        point.mkdir()
        server = ControlServer(run_dir, name, operations, spawn)
        server.open({"pid": os.getpid(), "mountpoint": str(point), "url": f"r2://{name}", "name": name})
        servers.append((server, spawn("control", server.run)))
        return point

    yield _daemon
    for server, thread in servers:
        server.stop()
        thread.join(PATIENCE_S)
        server.close()
