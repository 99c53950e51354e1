"""The names in docs/architecture.md and CONTRIBUTING.md are those of the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("docs/architecture.md", "CONTRIBUTING.md")
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")
FILE = re.compile(r"(r2fs|tests|scripts|docs)/[\w./-]*[\w]")


@cache
def defined() -> frozenset[str]:
    """Classes, functions, `Class.member` and `module.function` of r2fs."""
    found: set[str] = set()
    for path in (ROOT / "r2fs").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                found |= {node.name, f"{path.stem}.{node.name}"}
            if isinstance(node, ast.ClassDef):
                found.add(node.name)
                members = [
                    *node.body,
                    *(inner for inner in ast.walk(node) if isinstance(inner, ast.AnnAssign)),
                ]
                for member in members:
                    if isinstance(member, ast.FunctionDef):
                        found.add(f"{node.name}.{member.name}")
                    if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                        found.add(f"{node.name}.{member.target.id}")
    return frozenset(found)


def names() -> list[tuple[str, str]]:
    return [
        (document, name) for document in DOCUMENTS for name in CODE.findall((ROOT / document).read_text())
    ]


@pytest.mark.parametrize(("document", "name"), names())
def test_each_name_is_one_of_the_code(document: str, name: str):
    if FILE.match(name):
        assert (ROOT / name.split()[0]).exists(), f"{document}: {name} is not there"
    elif NAME.fullmatch(name):
        assert name in defined(), f"{document}: {name} is not defined"


def test_the_map_names_each_room():
    text = (ROOT / "docs/architecture.md").read_text()
    rooms = [path.parent.name for path in (ROOT / "r2fs/engine").glob("*/__init__.py")]
    assert len(rooms) == 7
    assert [room for room in rooms if f"{room}[" not in text] == []
