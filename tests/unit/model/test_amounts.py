"""How amounts are written for a person."""

from __future__ import annotations

import pytest

from r2fs.model import amounts


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (9, "9 B"),
        (1536, "1.5 KiB"),
        (12 << 20, "12.0 MiB"),
        (1023.6, "1.0 KiB"),
        ((1 << 20) - 9, "1.0 MiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_sizes(count, said):
    assert amounts.size(count) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.4, "0 s"), (59.9, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (275_000, "3 d 4 h")],
)
def test_durations(value, said):
    assert amounts.seconds(value) == said


@pytest.mark.parametrize(
    ("number", "word", "said"),
    [(1, "file", "1 file"), (0, "file", "0 files"), (3, "key", "3 keys"), (2, "directory", "2 directories")],
)
def test_counts(number, word, said):
    assert amounts.counted(number, word) == said


def test_what_is_left():
    assert amounts.left(0, 0, 0, 0) == "nothing"
    assert amounts.left(1, 0, 9, 0) == "1 file (9 B)"
    assert amounts.left(3, 1, 12 << 20, 2) == "3 files (12.0 MiB), 1 directory, 2 deletions"


def test_what_is_parked_is_named_once():
    assert amounts.parked(1, "a.wav", "a.wav: it is locked") == "1 parked: a.wav: it is locked"
    assert (
        amounts.parked(3, "a.wav", "may be torn")
        == "3 parked: a.wav: may be torn; and 2 more (see r2fs status)"
    )
