"""A mirror that runs: its status, its cost, and a settings file that changes meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mount.daemons import until
from tests.support import schemas
from tests.support.commands import run_r2fs

SETTINGS = """
upload_limit = "{limit}"
upload_threads = {threads}
price_class_a = 9.0
host = "{host}"

[mount.takes]
url = "file://{bucket}"
"""


class RunningMirror:
    def __init__(self, base: Path, repo_root: Path) -> None:
        self.bucket, self.directory, self.file = base / "bucket", base / "dir", base / "config.toml"
        for path in (self.bucket / "a", self.directory):
            path.mkdir(parents=True)
        (self.bucket / "a" / "there.wav").write_bytes(b"there" * 100)
        self.environment = {
            **os.environ,
            "HOME": str(base),
            "XDG_RUNTIME_DIR": str(base / "run"),
            "R2FS_CONFIG": str(self.file),
        }
        self.settings()
        self.log = base / "log"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "r2fs", "mirror", str(self.directory), "takes", "--every", "1h"],
                env=self.environment,
                cwd=repo_root,
                stderr=log,
            )

    def settings(self, limit: str = "off", threads: object = 3, host: str = "here") -> None:
        new = self.file.with_suffix(".new")
        new.write_text(SETTINGS.format(limit=limit, threads=threads, host=host, bucket=self.bucket))
        new.rename(self.file)

    def until_log(self, text: str) -> None:
        until(text, lambda: self.child.poll() is not None or text in self.log.read_text(), 30)
        assert text in self.log.read_text()

    def answer(self, schema: str, *words: object) -> Any:
        """The JSON of a command, in the form of its schema."""
        done = run_r2fs(self.environment, *words, "--json")
        assert done.returncode == 0, done.stderr
        value = json.loads(done.stdout)
        schemas.check(value, schemas.SCHEMAS[schema], schema)
        return value

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.child.pid}/task"))


@pytest.fixture
def mirror(tmp_path: Path, repo_root: Path) -> Iterator[RunningMirror]:
    running = RunningMirror(tmp_path, repo_root)
    try:
        running.until_log("are kept in step")
        until("the download", (running.directory / "a" / "there.wav").exists)
        yield running
    finally:
        running.child.send_signal(signal.SIGTERM)
        try:
            assert running.child.wait(30) == 0
        finally:
            running.child.kill()
            running.child.wait(30)


def test_status_cost_and_a_changed_settings_file(mirror: RunningMirror) -> None:
    (mirror.directory / "a" / "new.wav").write_bytes(b"new" * 1000)
    until("the upload", (mirror.bucket / "a" / "new.wav").exists)
    assert run_r2fs(mirror.environment, "flush", "--wait", mirror.directory).returncode == 0
    status = mirror.answer("status, a mirror", "status", mirror.directory)
    assert (status["mirror"]["sent"], status["mirror"]["fetched"]) == (1, 1)

    cost = mirror.answer("cost", "cost", mirror.directory)
    assert (cost["storage"]["objects"], cost["storage"]["bytes"]) == (2, 3500)
    assert cost["prices"]["class_a"] == 9.0
    assert cost["month"]["class_a"] >= 2
    assert mirror.answer("cost", "cost", "--list", mirror.directory)["storage"]["bytes"] == 3500
    (of_a,) = (one for one in cost["by_directory"] if one["directory"] == "a")
    assert of_a["class_a"] >= 1
    why = mirror.answer("cost --why", "cost", "--why", mirror.directory / "a" / "new.wav")
    assert "PutObject" in {one["request"] for one in why["requests"]}

    before = mirror.threads()
    mirror.settings(limit="2M", threads=5, host="elsewhere")
    mirror.until_log("settings taken up")
    mirror.until_log("settings that take effect when the mirror is started again: host")
    assert mirror.answer("limit", "limit", mirror.directory)["up"]["rate"] == 2 << 20
    until("two more uploaders", lambda: mirror.threads() == before + 2)

    mirror.settings(limit="2M", threads="none")
    mirror.until_log("the settings stay as they are")
    assert mirror.answer("limit", "limit", mirror.directory)["up"]["rate"] == 2 << 20
