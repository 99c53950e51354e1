"""scripts/bench works: on real mounts, with the peers that are installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scripts.lib.bench.cases import CASES, NoSuchCase, chosen
from scripts.lib.bench.far import Distance, proxy
from scripts.lib.bench.results import MEASURES
from scripts.lib.bench.systems import SYSTEMS

SECONDS = 240


def bench(repo: Path, tmp_path: Path, *arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "scripts.lib.bench", "--quick", "--directory", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--json", str(tmp_path / "report.json"), *arguments],
        cwd=repo,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as child:
        try:
            output, _ = child.communicate(timeout=SECONDS)
        except BaseException:
            child.terminate()  # it unmounts and ends what it started
            raise
    assert child.returncode == 0, output
    assert "Has to show" in output
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"], "something is left behind"
    report: dict[str, object] = json.loads((tmp_path / "report.json").read_text())
    return report


@pytest.mark.timeout(SECONDS + 30)
def test_some_cases_near_and_over_tls_at_a_distance(repo_root: Path, tmp_path: Path) -> None:
    cases = "write,cold-small,far-headers,far-small"
    report = bench(repo_root, tmp_path, "--systems", "local", "bare", "r2fs-kernel", "--only", cases)
    measures, far = report["measures"], report["far"]
    assert isinstance(measures, dict)
    assert isinstance(far, dict)
    assert set(measures["cold-small"]["systems"]) == {"local", "bare", "r2fs-kernel"}
    assert measures["cold-small"]["systems"]["r2fs-kernel"]["requests"]["GET"] == 20
    assert measures["cold-small"]["systems"]["r2fs-kernel"]["cost_to_floor"] >= 1.0
    assert measures["write"]["systems"]["r2fs-kernel"]["requests"]["PUT"] == 1
    assert set(measures) == {"write", "back", "sent", "cold-small", "far-headers", "far-small"}
    assert set(measures["far-small"]["systems"]) == {"bare", "r2fs-kernel"}
    assert measures["far-headers"]["systems"]["r2fs-kernel"]["requests"]["GET"] >= 5
    assert far["ceiling_mb_per_s"] > 0


@pytest.mark.timeout(60)
def test_the_proxy_changes_no_byte_and_passes_the_end_on() -> None:
    sent = os.urandom(3_000_000)

    def echo() -> None:
        with listener.accept()[0] as sock:
            while data := sock.recv(1 << 16):
                sock.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=echo, daemon=True)
        server.start()
        distance = Distance(round_trip_s=0.002, stall_one_in=2, stall_s=0.01)
        with proxy(listener.getsockname()[1], distance) as port:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                writer = threading.Thread(target=lambda: (sock.sendall(sent), sock.shutdown(socket.SHUT_WR)))
                writer.start()
                received = b"".join(iter(lambda: sock.recv(1 << 16), b""))
                writer.join()
        server.join()
    assert received == sent


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 30)
def test_every_case_and_system(repo_root: Path, tmp_path: Path) -> None:
    missing = [need for system in SYSTEMS.values() if (need := system.missing())]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}: scripts/bench installs it")
    report = bench(repo_root, tmp_path)
    measures = report["measures"]
    assert isinstance(measures, dict)
    assert set(measures) == set(MEASURES)
    assert set(measures["read-again"]["systems"]) == {*SYSTEMS} - {"bare"}


def test_cases_fill_all_rows() -> None:
    filled = [measure for case in CASES.values() for measure in case.measures]
    assert sorted(filled) == sorted(MEASURES)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["cold-small"], ["cold-small"]),
        (["drained", "stall-p99"], ["files", "stalls"]),  # rows
        (["far-small*"], ["far-small", "far-small-random"]),
        (
            ["cold-small-random", "cold-small"],
            ["cold-small", "cold-small-random"],
        ),  # in the order of the cases
    ],
)
def test_rows_and_cases_are_chosen_by_name(patterns: list[str], names: list[str]) -> None:
    assert [case.name for case in chosen(patterns)] == names


def test_a_name_that_is_none_is_said() -> None:
    with pytest.raises(NoSuchCase, match="no case or row is called cold-smal"):
        chosen(["tree", "cold-smal"])
    assert len(chosen(None)) == len(CASES)
