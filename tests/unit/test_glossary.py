"""The language of r2fs/ is held where it is: questions and retired words become fewer, never more."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lib import glossary

QUESTION_AND_WORDS = '''"""Whether a file is owed."""

# `owed` in backquotes is code; the ledger is prose
def is_facts(owed: int) -> int:
    """Return the number of files that `owes` names."""
    return owed + owed
'''


def found(tmp_path: Path, source: str) -> dict[tuple[str, str], list[str]]:
    package = tmp_path / "r2fs" / "engine" / "room"
    package.mkdir(parents=True)
    (package / "module.py").write_text(source)
    return glossary.collect(tmp_path)


def test_the_tree_has_no_more_than_is_allowed(capsys: pytest.CaptureFixture[str]):
    assert glossary.main([]) == 0, capsys.readouterr().err


def test_what_counts(tmp_path: Path):
    uses = found(tmp_path, QUESTION_AND_WORDS)
    assert {word: len(lines) for (package, word), lines in uses.items() if package == "r2fs/engine"} == {
        "question": 1,
        "owed": 2,  # in the first docstring, and one identifier however often it is used
        "ledger": 1,
        "facts": 1,
    }


@pytest.mark.parametrize(
    ("docstring", "is_one"),
    [
        ("Who has it open?", True),
        ("Is it here? Then True.", True),
        ("Whether the file is open.", True),
        ("True if the file is open.", False),
        ("Close the file.", False),
    ],
)
def test_a_docstring_that_asks(tmp_path: Path, docstring: str, is_one: bool):
    assert bool(found(tmp_path, f'"""{docstring}"""\n')) == is_one


def test_a_word_inside_another_is_another_word(tmp_path: Path):
    assert found(tmp_path, "allowed = flowed = sealant = artifacts = gateway = 1\n") == {}


def test_words_of_an_identifier(tmp_path: Path):
    uses = found(tmp_path, "KeptFacts = _owed = LEDGER_SIZE = 1\n")
    assert {word for _, word in uses} == {"facts", "owed", "ledger"}


def test_only_an_excess_is_told_with_its_places(tmp_path: Path):
    uses = found(tmp_path, QUESTION_AND_WORDS)
    allowed = {"r2fs/engine": {"question": 1, "owed": 1, "ledger": 5, "facts": 1}}
    first, *places = glossary.excess(uses, allowed)
    assert first == "r2fs/engine: owed: 2, allowed 1"
    assert [place.split(": ")[0] for place in places] == [
        "  r2fs/engine/room/module.py:1",
        "  r2fs/engine/room/module.py:4",
    ]
    assert "owed is retired: pending" in places[0]


def test_what_is_not_named_is_not_allowed(tmp_path: Path):
    assert "r2fs/engine: facts: 1, allowed 0" in glossary.excess(found(tmp_path, QUESTION_AND_WORDS), {})
