"""`r2fs doctor` beside a running daemon, after a killed one, and for changes that nobody sends."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.test_lifecycle import Rig


@pytest.fixture
def rig(tmp_path: Path, repo_root: Path) -> Iterator[Rig]:
    rig = Rig(repo_root, tmp_path)
    yield rig
    rig.end()


def doctor(rig: Rig, *words: object) -> tuple[int, list[dict[str, Any]]]:
    """Exit code, and the findings, without those of other mounts of this machine."""
    done = rig.r2fs("doctor", *words, "--json")
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, [
        each for each in findings if each["check"] != "mount" or str(rig.base) in each["text"]
    ]


def only(findings: list[dict[str, Any]], check: str) -> dict[str, Any]:
    (found,) = (each for each in findings if each["check"] == check)
    return found


def test_beside_a_daemon_and_after_it(rig: Rig):
    rig.mount("--upload-delay", "1h", "--upload-deadline", "1h", "--take-over", "0", "--cache-size", "1GiB")
    (rig.point / "precious.txt").write_text("precious")
    bundle = rig.base / "b.tar"
    code, found = doctor(rig, rig.point / "precious.txt", "--bundle", bundle)
    assert code == 0, found
    assert "not yet sent: 1 file" in only(found, "mount")["text"]
    assert only(found, "journal")["text"].endswith("whole, 1 entry")
    assert only(found, "permission to list")["level"] == "ok"
    with tarfile.open(bundle) as archive:
        names = archive.getnames()
        (log,) = (name for name in names if name.endswith("-r2fs.log"))
        assert b"mounted" in archive.extractfile(log).read()
        status = json.load(archive.extractfile("r2fs-doctor/status.json"))  # type: ignore[arg-type]
        assert status[0]["mount"]["mountpoint"] == str(rig.point)
    os.kill(rig.pid(), signal.SIGKILL)
    rig.until(lambda: only(doctor(rig)[1], "mount")["level"] == "failed")
    code, found = doctor(rig, rig.url)
    assert code == 9
    assert "its daemon has gone" in only(found, "mount")["text"]
    assert "r2fs umount" in only(found, "mount")["remedy"]
    rig.r2fs("umount", rig.point)
    code, found = doctor(rig, rig.url)
    assert code == 0
    waiting = only(found, "unsent changes")
    assert waiting["level"] == "warning"
    assert "r2fs mount" in waiting["remedy"]
    assert "1 file (8 B)" in waiting["text"]


def test_a_path_that_is_no_mount(rig: Rig):
    code, found = doctor(rig, rig.base / "nowhere")
    assert code == 8
    assert only(found, "mount")["level"] == "failed"


def test_people_read_findings_and_remedies(rig: Rig):
    done = rig.r2fs("doctor", rig.url)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0].startswith("ok       fuse")
    assert any(line.startswith("warning  permission to read") for line in lines)
    assert any(line.strip().startswith("→ store an object") for line in lines)
    assert lines[-1].endswith(" ok, 1 warning")
