"""Plans of a migration: what a map may say, and what is refused before anything is done."""

from __future__ import annotations

import pytest

from r2fs.bulk.plan import BadMap, Row, plan, read_map, rows_of_rule


@pytest.mark.parametrize(
    ("text", "rows", "heads"),
    [
        ("a,b\n", [Row(1, "a", "b")], ()),
        ("\ufeffold,new\na,b\n\nc,d\n", [Row(2, "a", "b"), Row(4, "c", "d")], ()),
        ("id,New,OLD\n7,b,a\n", [Row(2, "a", "b", ("7",))], ("id",)),
        ('"a,1","b ""x"""\r\n', [Row(1, "a,1", 'b "x"')], ()),
        ("a,b,7\n", [Row(1, "a", "b", ("7",))], ("column 3",)),
        ("", [], ()),
    ],
)
def test_a_map(text: str, rows: list[Row], heads: tuple[str, ...]) -> None:
    assert read_map(text) == (rows, heads)


@pytest.mark.parametrize("text", ["a\n", "old,new\na\n", 'a,"b\n', 'a,"b"c\n'])
def test_what_is_no_map(text: str) -> None:
    with pytest.raises(BadMap, match="line"):
        read_map(text)


def test_s11_one_source_may_have_several_targets() -> None:
    """S11: one old key may belong to two scenes."""
    made = plan([Row(1, "a", "x"), Row(2, "b", "y"), Row(3, "a", "z"), Row(4, "a", "x", ("again",))])
    assert [(move.source, move.targets) for move in made.moves] == [("a", ("x", "z")), ("b", ("y",))]
    assert made.copies == 3


@pytest.mark.parametrize(
    ("rows", "prefix", "says"),
    [
        ([Row(1, "a", "x"), Row(2, "b", "x")], "", "lines 1 and 2: both would become x"),
        ([Row(1, "a", "b"), Row(2, "b", "c")], "", "line 1: the new key b is the old key of line 2"),
        ([Row(1, "a", "b"), Row(2, "b", "a")], "", "old key"),
        ([Row(1, "a", "a")], "", "its own new key"),
        ([Row(1, "", "a")], "", "the old key is empty"),
        ([Row(1, "a", "")], "", "the new key is empty"),
        ([Row(1, "a", "é" * 513)], "", "longer than 1024 bytes"),
        ([Row(1, "u/a", "v/a")], "u/", "v/a is not below u/"),
        ([Row(n, "", "") for n in range(1, 9)], "", "and 3 more"),
    ],
)
def test_what_cannot_be_carried_out(rows: list[Row], prefix: str, says: str) -> None:
    with pytest.raises(BadMap, match=says):
        plan(rows, prefix=prefix)


def test_a_rule_names_groups() -> None:
    keys = ["s1_intro.wav", "s2_out.wav", "other.txt", "s1_intro.wav.bak"]
    rows = rows_of_rule(keys, r"s(\d+)_(.*)\.wav", r"users/default/scenes/\1/audio/\2.wav")
    assert [(row.old, row.new) for row in rows] == [
        ("s1_intro.wav", "users/default/scenes/1/audio/intro.wav"),
        ("s2_out.wav", "users/default/scenes/2/audio/out.wav"),
    ]


@pytest.mark.parametrize(("pattern", "new"), [("(", "x"), ("a", r"\1"), ("a", r"\g<b>")])
def test_a_rule_that_is_none(pattern: str, new: str) -> None:
    with pytest.raises(BadMap, match="--rule"):
        rows_of_rule(["a"], pattern, new)
