"""Tables [programs.NAME] of the settings file: names of processes, what is refused, and the first that fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2fs.daemon.reload import compare
from r2fs.model.errors import SettingsError
from r2fs.model.settings import Settings
from r2fs.model.settings.loading import load
from r2fs.model.settings.program_rules import TAIL, ProgramRule, chosen

KIB, MIB = 1 << 10, 1 << 20


def loaded(tmp_path: Path, tables: str) -> Settings:
    path = tmp_path / "config.toml"
    path.write_text('url = "file:///b"\n' + tables)
    return load(environ={"HOME": str(tmp_path)}, config_file=path)


def test_tables_are_rules_in_their_order(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        '[programs.thumbs]\ncomm = ["tumblerd", "gnome-thumbnail-*"]\nread = "header"\nheader = "64k"\n'
        '[programs.index]\ncomm = "tracker-*,baloo_file"\nread = "slow"\n'
        '[programs.scan]\ncomm = ["*"]\nprefetch = false\n',
    )
    assert settings.programs == (
        ProgramRule("thumbs", ("tumblerd", "gnome-thumbnail-*"), "header", 64 * KIB),
        ProgramRule("index", ("tracker-*", "baloo_file"), "slow"),
        ProgramRule("scan", ("*",), prefetch=False),
    )
    names = {comm: chosen(settings.programs, comm) for comm in ("tumblerd", "baloo_file", "reaper")}
    assert [rule.name if rule else None for rule in names.values()] == ["thumbs", "index", "scan"]


def test_the_kernel_keeps_15_bytes_of_a_name() -> None:
    rule = ProgramRule("a", ("tracker-miner-fs-3", "gnome-thumbnail-*"), "slow")
    assert rule.fits("tracker-miner-f")
    assert rule.fits("gnome-thumbnail")
    assert not rule.fits("tracker-miner")
    assert not rule.fits("gnome-thumbnai")


def test_a_rule_that_restrains_nothing_is_none() -> None:
    assert chosen((ProgramRule("a", ("*",)),), "cat") is None
    assert chosen((ProgramRule("a", ("dog",), "slow"),), "cat") is None


def test_what_a_header_only_program_may_fetch() -> None:
    rule, size = ProgramRule("a", ("*",), "header", 64 * KIB), 10 * MIB
    assert [rule.allows(at, size) for at in (0, 64 * KIB - 1, 64 * KIB, size - TAIL - 1, size - TAIL)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert (rule.allows_whole(64 * KIB), rule.allows_whole(64 * KIB + 1)) == (True, False)
    slow = ProgramRule("a", ("*",), "slow")
    assert slow.allows(MIB, size) and slow.allows_whole(size)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("[programs.a]\n", "comm is missing"),
        ('[programs.a]\nread = "slow"\n', "comm is missing"),
        ('[programs.a]\ncomm = ["/usr/bin/cat"]\n', "comm: a pattern is of a name"),
        ('[programs.a]\ncomm = ["x"]\nread = "never"\n', "allowed: all, header, slow"),
        ('[programs.a]\ncomm = ["x"]\nheader = "1"\n', "allowed: a size from 4KiB"),
        ('[programs.a]\ncomm = ["x"]\nprefetch = "maybe"\n', "allowed: true or false"),
        ('[programs.a]\ncomm = ["x"]\nread_ahead = 1\n', "read_ahead is none of its settings: comm, read,"),
        ("programs = 3\n", r"\[programs.NAME\]"),
        ("[programs]\na = 3\n", r"\[programs.NAME\]"),
    ],
)
def test_what_is_refused(tmp_path: Path, table: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as failed:
        loaded(tmp_path, table)
    assert str(tmp_path / "config.toml") in str(failed.value)


def test_the_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"config.toml:3: \[programs.a\]"):
        loaded(tmp_path, "\n[programs.a]\n")


def test_a_change_takes_effect_in_a_running_mount(tmp_path: Path) -> None:
    before, after = loaded(tmp_path, ""), loaded(tmp_path, '[programs.a]\ncomm = "x"\nread = "slow"\n')
    assert compare(before, after).live == {"programs": after.programs}
    assert not compare(before, after).later
