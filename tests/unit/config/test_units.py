"""Kinds of values: what is read, what is refused, and that what is written reads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2fs.model.settings.units import (
    Choice,
    Count,
    Duration,
    FilePath,
    Mask,
    Owner,
    Patterns,
    Size,
    Switch,
    Text,
    parse_duration,
    parse_size,
)

SIZES = {
    "0": 0,
    "1500": 1500,
    "10G": 10 << 30,
    "10GiB": 10 << 30,
    "10 gib": 10 << 30,
    "10Gi": 10 << 30,
    "10GB": 10 * 10**9,
    "1.5MiB": 3 << 19,
    "64K": 65536,
    "7B": 7,
    "2TiB": 2 << 40,
}
TIMES = {
    "0": 0.0,
    "90": 90.0,
    "30s": 30.0,
    "500ms": 0.5,
    "1h": 3600.0,
    "1h30m": 5400.0,
    "1m 30s": 90.0,
    "2d": 172800.0,
    "1w": 604800.0,
    "0.25": 0.25,
    "1.5h": 5400.0,
}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "ten", "10X", "-1", "1,5G", "10GiBB", "1e3"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), TIMES.items())
def test_times(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1x", "1h what", "5 minutes", "1h,30m"])
def test_what_is_no_time(text):
    with pytest.raises(ValueError):
        parse_duration(text)


DAY = Duration(0, 86400)
WRONG = [
    (Size(10, 100), "9"),
    (Size(10, 100), 101),
    (Size(10, 100), True),
    (Size(10, 100), 50.0),
    (DAY, "2d"),
    (DAY, "-1"),
    (DAY, "nan"),
    (DAY, float("inf")),
    (DAY, False),
    (DAY, ["1"]),
    (Count(1, 8), "0"),
    (Count(1, 8), "x"),
    (Count(1, 8), 2.0),
    (Count(1, 8), True),
    (Switch(), "maybe"),
    (Switch(), 2),
    (Choice(("a", "b")), "c"),
    (Choice(("a", "b")), 1),
    (Text(), 1),
    (Text(), "a\nb"),
    (Mask(), "999"),
    (Mask(), "1777"),
    (Mask(), -1),
    (Owner(), "no-such-user-here"),
    (Owner(), -1),
    (Owner(), str(2**32 - 1)),
    (FilePath(), ""),
    (FilePath(), "~no-such-user-here/x"),
    (FilePath(), 3),
    (Patterns(), [1]),
    (Patterns(), "a/b"),
    (Patterns(), 5),
]


@pytest.mark.parametrize(("kind", "raw"), WRONG)
def test_what_is_refused(kind, raw):
    with pytest.raises(ValueError):
        kind.parse(raw)
    assert kind.allowed


def test_a_mask_that_is_not_octal_is_told_in_words():
    with pytest.raises(ValueError, match="'999' is not octal"):
        Mask().parse("999")


RIGHT = [
    (Size(0, 1 << 40), 0, 0),
    (Size(0, 1 << 40), 5 << 30, 5 << 30),
    (Size(0, 1 << 40), "1500", 1500),
    (DAY, 90, 90.0),
    (DAY, "1h30m", 5400.0),
    (DAY, "500ms", 0.5),
    (DAY, 0, 0.0),
    (Count(1, 8), "8", 8),
    (Switch(), "YES", True),
    (Switch(), "off", False),
    (Switch(), True, True),
    (Switch(), 0, False),
    (Choice(("", "eu")), "EU", "eu"),
    (Mask(), "022", 0o022),
    (Mask(), "0o77", 0o77),
    (Mask(), 0o27, 0o27),
    (Owner(), "root", 0),
    (Owner(group=True), "root", 0),
    (Owner(), "1000", 1000),
    (Owner(), 1000, 1000),
    (FilePath(), "/a/b c", Path("/a/b c")),
    (Patterns(), "*.a, *.b,", ("*.a", "*.b")),
    (Patterns(), ["*.a"], ("*.a",)),
    (Patterns(), [], ()),
    (Text(), 'say "ä"', 'say "ä"'),
]


@pytest.mark.parametrize(("kind", "raw", "value"), RIGHT)
def test_what_is_read_is_written_so_that_it_reads_back(kind, raw, value):
    import tomllib

    assert kind.parse(raw) == value
    written = tomllib.loads(f"x = {kind.write(value)}")["x"]
    assert kind.parse(written) == value


def test_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/kim")
    assert FilePath().parse("~/x") == Path("/home/kim/x")
