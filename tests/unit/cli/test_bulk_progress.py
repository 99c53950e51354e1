"""Progress of bulk commands: a bar with rate and time left on a terminal, plain lines without one."""

from __future__ import annotations

import io
import sys

import pytest

from r2fs.cli.progress import BulkProgress


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with BulkProgress("deleted", quiet=False, clock=clock) as progress:
        progress.show(10, 1000)
        clock.now_s += 9
        progress.show(90, 1000)
        clock.now_s += 1
        progress.show(100, 1000, "1.0 MiB")
        clock.now_s += 1
        progress.show(110, 1000)
        clock.now_s += 9
        progress.show(200, None, "2.0 MiB")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "deleted 100 of 1000, 10/s, 1 min 30 s left 1.0 MiB",
        "deleted 200, 10/s 2.0 MiB",
    ]


def test_none_beside_json(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with BulkProgress("deleted", quiet=True, clock=clock) as progress:
        clock.now_s += 60
        progress.show(10, 1000)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with BulkProgress("deleted", quiet=False, clock=clock) as progress:
        clock.now_s += 2
        progress.show(50, None, "1.0 MiB")
        progress.show(100, 1000, "[2.0 MiB]")
    shown = terminal.getvalue()
    assert "100/1000" in shown
    assert "50/s deleted [2.0 MiB]" in shown
