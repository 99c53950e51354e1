"""A real mount, seen and repaired by the commands: ls, info, queue, cache, cost; and the schema of each --json."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.cli.main import COMMANDS
from r2fs.model.exit_codes import PARTLY
from tests.mount.daemons import until
from tests.support import schemas
from tests.test_documents import commands
from tests.unit.cli.test_lifecycle import Rig


@pytest.fixture
def rig(tmp_path: Path, repo_root: Path) -> Iterator[Rig]:
    rig = Rig(repo_root, tmp_path)
    (rig.bucket / "takes").mkdir()
    (rig.bucket / "takes" / "old.wav").write_bytes(b"old" * 1000)
    yield rig
    rig.end()


def said(rig: Rig, *words: object) -> str:
    """Standard output of a command that succeeds."""
    done = rig.r2fs(*words)
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout


def answer(rig: Rig, name: str, *words: object, code: int = 0) -> Any:
    """The JSON of a command, in the form of its schema."""
    done = rig.r2fs(*words, "--json")
    assert done.returncode == code, done.stderr
    value = json.loads(done.stdout)
    schemas.check(value, schemas.SCHEMAS[name], name)
    return value


def test_an_export_then_a_drop_and_the_rest_is_sent(rig: Rig) -> None:
    rig.mount("--upload-delay", "1h", "--upload-deadline", "1h")
    point, to = rig.point, rig.base / "export"
    to.mkdir()
    old, new = point / "takes" / "old.wav", point / "takes" / "new.wav"
    old.write_bytes(b"mine")
    new.write_bytes(os.urandom(3 << 20))
    os.symlink("new.wav", point / "takes" / "link.wav")
    os.utime(new, ns=(1, 1_500_000_000_123_456_789))
    listed = answer(rig, "queue list", "queue", "list", point)
    assert {one["path"] for one in listed} == {"takes/old.wav", "takes/new.wav", "takes/link.wav"}
    assert "takes/new.wav   queued   3.0 MiB" in said(rig, "queue", "list", point, new)

    # no drop without a copy, and no copy into the mount
    refused = rig.r2fs("queue", "drop", point, old, "--exported", to)
    assert (refused.returncode, "no exported copy" in refused.stderr) == (PARTLY, True)
    assert rig.r2fs("queue", "export", point, "--to", point).returncode == 8

    exported = answer(rig, "queue export", "queue", "export", point, "--to", to)
    assert (len(exported["exported"]), exported["failed"]) == (3, [])
    copy = to / "takes" / "new.wav"
    assert copy.read_bytes() == new.read_bytes()
    assert copy.stat().st_mtime_ns == new.stat().st_mtime_ns
    assert os.readlink(to / "takes" / "link.wav") == "new.wav"
    said(rig, "queue", "export", point, "--to", to)  # the same bytes again are no error

    # another content is neither replaced by an export nor dropped for the old one
    new.write_bytes(b"later")
    failed = answer(rig, "queue export", "queue", "export", point, "--to", to, code=PARTLY)["failed"]
    assert [one["path"] for one in failed] == ["takes/new.wav"]
    assert len(copy.read_bytes()) == 3 << 20
    dropped = answer(rig, "queue drop", "queue", "drop", point, old, new, "--exported", to, code=PARTLY)
    assert [(one["path"], one["in_bucket"]) for one in dropped["dropped"]] == [("takes/old.wav", True)]
    assert "export it again" in dropped["failed"][0]["error"]
    assert old.read_bytes() == b"old" * 1000
    assert new.read_bytes() == b"later"

    said(rig, "flush", "--wait", point)
    assert (rig.bucket / "takes" / "new.wav").read_bytes() == b"later"
    assert (rig.bucket / "takes" / "old.wav").read_bytes() == b"old" * 1000
    assert said(rig, "queue", "list", point) == "all is in the bucket\n"


def test_every_command_with_json_has_a_schema() -> None:
    named = {
        name.removeprefix("r2fs ")
        for name, command in commands().items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert named <= set(schemas.SCHEMAS)
    # and an output is held to each: `answer` and its like name the schema
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    held = set(re.findall(r'(?:answer\(\s*(?:rig, )?|SCHEMAS\[)"([^"]+)"', texts))
    assert set(schemas.SCHEMAS) <= held


def test_the_json_of_commands_without_a_mount(rig: Rig) -> None:
    if "mirror" in COMMANDS:
        local = rig.base / "local"
        local.mkdir()
        assert answer(rig, "mirror", "mirror", local, rig.url, "--once")["fetched"] == 1
    if "grant" in COMMANDS:
        rig.environ |= {"R2_ACCOUNT_ID": "a" * 32, "R2_ACCESS_KEY_ID": "id", "R2_SECRET_ACCESS_KEY": "secret"}
        answer(rig, "grant", "grant", "r2://studio/users/anna")


def test_every_json_has_its_schema_and_every_text_its_words(rig: Rig) -> None:
    rig.mount(
        "--upload-delay", "1h", "--upload-deadline", "1h", "--warn-queue", "1", "--public-url", "https://example.com"
    )  # fmt: skip
    point = rig.point
    takes, old = point / "takes", point / "takes" / "old.wav"
    old.read_bytes()
    (takes / "a.wav").write_bytes(b"a")
    (takes / "b.wav").write_bytes(b"b")

    # a close is told after close(2)
    until("both files are closed", lambda: "dirty" not in said(rig, "ls", takes))
    files = {file["path"]: file for file in answer(rig, "ls", "ls", takes)}
    assert [(file["state"], file["whole"]) for file in files.values()] == [
        ("queued", True),
        ("queued", True),
        ("clean", True),
    ]
    for word in ("old.wav   2.9 KiB   all    clean", "a.wav         1 B   all    queued"):
        assert word in said(rig, "ls", takes)
    assert answer(rig, "limit", "limit", point, "--up", "80Mbit")["up"]["rate"] == 10_000_000
    assert "upload limit   9.5 MiB/s" in said(rig, "status", point)
    assert answer(rig, "info", "info", old)["url"] == f"{rig.url}/takes/old.wav"
    for word in ("2.9 KiB (3000 bytes)", "on this host   all", "ETag"):
        assert word in said(rig, "info", old)
    assert rig.r2fs("info", takes / "none").returncode == 1
    assert rig.r2fs("ls", rig.base).returncode == 8

    status = answer(rig, "status DIR", "status", point)
    assert status["warnings"] == ["2 changes are pending, more than 1 (warn_queue)"]
    answer(rig, "status", "status")
    answer(rig, "queue retry", "queue", "retry", point)
    answer(rig, "cost", "cost", "--list", point)
    assert "1 object, 0.00 GB (listed)" in said(rig, "cost", point, "--list")
    answer(rig, "cost --why", "cost", "--why", old)
    answer(rig, "cache check", "cache", "check", point)
    assert answer(rig, "cache clear", "cache", "clear", point)["removed"] == 1
    answer(rig, "warm", "warm", takes)
    answer(rig, "evict", "evict", takes)
    answer(rig, "pin", "pin", old)
    answer(rig, "pin --list", "pin", "--list")
    assert "all, pinned" in said(rig, "ls", takes)
    rig.until(lambda: answer(rig, "status DIR", "status", point)["pins"]["here_bytes"] == 3000)
    assert "1 path: 2.9 KiB of" in said(rig, "status", point)
    shown = said(rig, "info", old)
    assert "all, pinned" in shown
    assert "downloaded" in shown.partition("time ")[2], "its history"
    said(rig, "unpin", old)
    schemas.check(json.loads(rig.r2fs("doctor", rig.url, "--json").stdout), schemas.SCHEMAS["doctor"])
    answer(rig, "key", "key", old)
    answer(rig, "path", "path", "takes/old.wav")
    with (takes / "open.wav").open("wb") as file:
        file.write(b"open")
        file.flush()
        refused = answer(
            rig, "queue drop", "queue", "drop", point, file.name, "--exported", rig.base, code=PARTLY
        )
        assert "no exported copy" in refused["failed"][0]["error"]
    answer(rig, "rm", "rm", "--dry-run", takes / "open.wav")
    answer(rig, "set", "set", "--dry-run", "--content-type", "audio/wav", old)
    if "refresh" in COMMANDS:
        answer(rig, "refresh", "refresh", "--wait", takes)
    answer(rig, "restart", "restart", point)
    answer(rig, "flush", "flush", "--wait", point)
    answer(rig, "wait", "wait", point)
    answer(rig, "url", "url", "--public", old)
    aside = rig.bucket.rename(rig.base / "aside")  # else an upload may end after the answer of umount
    (takes / "last.wav").write_bytes(b"last")
    answer(rig, "umount", "umount", "--timeout", "0", point, code=75)
    assert answer(rig, "status, not mounted", "status", point, code=75)["pending"]["files"] == 1
    aside.rename(rig.bucket)
    answer(rig, "config show", "config", "show", rig.url)
    rule = ("migrate", rig.url, "--rule", r"takes/(.*)\.wav", r"moved/\1.wav")
    answer(rig, "migrate --dry-run", *rule, "--dry-run", "--results", rig.base / "results.csv")
    answer(rig, "migrate", *rule, "--keep-old", "--results", rig.base / "results.csv")
    assert sorted(os.listdir(rig.bucket / "takes")) == ["a.wav", "b.wav", "old.wav", "open.wav"]
