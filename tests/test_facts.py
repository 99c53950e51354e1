"""Every fact of the five systems is met, by a test that has its number, or refused in SEMANTICS with the reason."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.systems.facts import FACTS

ROOT = Path(__file__).resolve().parent.parent
SEMANTICS = (ROOT / "SEMANTICS.md").read_text()
HEADING = "## Facts of the five systems that are refused or out of reach"
LEAST_WORDS = 8  # of a reason


@cache
def numbers_of_tests() -> frozenset[str]:
    """The numbers that tests' names begin with: V10 and R7 of `test_v10_r7_a_url_at_once`."""
    found: set[str] = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (run := re.match(r"test((?:_[vrtms]\d+)+)_", node.name)):
                found |= {number.upper() for number in run[1].split("_") if number}
    return frozenset(found)


def refused() -> dict[str, str]:
    """Reasons by number: the rows of SEMANTICS."""
    section = SEMANTICS.partition(HEADING)[2].partition("\n## ")[0]
    return {
        cells[0]: cells[2] for cells in re.findall(r"^\| ([VRTMS]\d+) \| (.+) \| (.+) \|$", section, re.M)
    }


@pytest.mark.parametrize("number", FACTS)
def test_every_fact_is_met_or_refused(number):
    answered = {
        *(["test"] if number in numbers_of_tests() else []),
        *(["SEMANTICS"] if number in refused() else []),
    }
    assert FACTS[number] <= answered, f"{number}: neither a test nor a row of SEMANTICS, as facts.py says"


def test_what_is_refused_is_a_fact_and_has_a_reason():
    assert {number for number, where in FACTS.items() if "SEMANTICS" in where} == set(refused())
    for number, reason in refused().items():
        assert len(reason.split()) >= LEAST_WORDS, f"{number}: no reason"


def test_no_fact_is_left_out():
    """How many facts of each system ask something of r2fs."""
    counts = {system: sum(number[0] == system for number in FACTS) for system in "VRTMS"}
    assert counts == {"V": 17, "R": 23, "T": 9, "M": 8, "S": 12}
