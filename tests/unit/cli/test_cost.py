"""`r2fs cost` of a real mount: which program, directory and file its requests are of."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.test_lifecycle import Rig
from tests.unit.cli.test_repair import answer, said


@pytest.fixture
def rig(tmp_path: Path, repo_root: Path) -> Iterator[Rig]:
    rig = Rig(repo_root, tmp_path)
    (rig.bucket / "kits").mkdir()
    (rig.bucket / "kits" / "kick.wav").write_bytes(b"kick" * 1000)
    yield rig
    rig.end()


def test_libfuse_names_the_program_too(rig: Rig) -> None:
    rig.mount("--driver", "libfuse")
    subprocess.run(["cat", rig.point / "kits" / "kick.wav"], check=True, stdout=subprocess.DEVNULL)
    by_program = {one["program"]: one for one in answer(rig, "cost", "cost", rig.point)["by_program"]}
    assert by_program["cat"]["class_b"] >= 1, by_program


def test_requests_by_program_directory_and_file(rig: Rig) -> None:
    rig.mount()
    kick, take = rig.point / "kits" / "kick.wav", rig.point / "takes" / "1.wav"
    take.parent.mkdir()
    subprocess.run(["cat", kick], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["dd", "if=/dev/zero", f"of={take}", "bs=1k", "count=9", "status=none"], check=True)
    said(rig, "flush", "--wait", rig.point)

    figures = answer(rig, "cost", "cost", rig.point)
    by_program = {one["program"]: one for one in figures["by_program"]}
    assert by_program["cat"]["class_b"] >= 1, by_program
    assert by_program["dd"]["class_a"] >= 1, by_program
    by_directory = {one["directory"]: one for one in figures["by_directory"]}
    assert by_directory["kits"]["class_b"] >= 1
    assert by_directory["takes"]["class_a"] >= 1
    assert sum(one["class_a"] for one in by_program.values()) == figures["requests"]["since_start"]["class_a"]
    assert "(files of the directory itself)" in said(rig, "cost", "--by", "directory", rig.point / "kits")

    why = answer(rig, "cost --why", "cost", "--why", take)
    assert [(one["request"], one["class"], one["program"], one["purpose"]) for one in why["requests"]][-1] == (
        "PutObject", "A", "dd", "upload",
    )  # fmt: skip
    assert {one["key"] for one in why["requests"]} == {"takes/1.wav"}
    read = answer(rig, "cost --why", "cost", "--why", kick)["requests"]
    assert [(one["request"], one["program"]) for one in read if one["class"] == "B"] == [("GetObject", "cat")]
    below = answer(rig, "cost --why", "cost", "--why", kick.parent)
    assert below["count"] > len(read), "the LIST of the directory"
    text = " ".join(said(rig, "cost", "--why", take).split())
    assert "PutObject A dd upload" in text
    assert "of the last 5,000 of this mount" in text
    refused = rig.r2fs("cost")
    assert (refused.returncode, "--why PATH alone" in refused.stderr) == (2, True)


def test_a_budget_warns_stops_what_is_ahead_of_need_and_outlasts_the_mount(rig: Rig) -> None:
    limits = ("--warn-cost", "0.0000001", "--prefetch-cost", "0.0000001")
    rig.mount(*limits)
    kick = rig.point / "kits" / "kick.wav"
    kick.read_bytes()
    warnings = answer(rig, "status DIR", "status", rig.point)["warnings"]
    assert [sentence.rpartition("(")[2] for sentence in warnings] == [
        "warn_cost)", "prefetch_cost): nothing is fetched ahead of need",
    ]  # fmt: skip
    rig.until(lambda: "nothing is fetched ahead of need any more" in rig.log())
    refused = rig.r2fs("warm", rig.point)
    assert (refused.returncode, "raise prefetch_cost" in refused.stderr) == (14, True), refused.stderr
    month = answer(rig, "cost", "cost", rig.point)["month"]
    assert month["class_a"] + month["class_b"] >= 2
    assert "(prefetch_cost)" in said(rig, "cost", rig.point)
    said(rig, "umount", rig.point)
    rig.mount(*limits)
    after = answer(rig, "cost", "cost", rig.point)
    assert after["month"]["class_b"] > after["requests"]["since_start"]["class_b"]
