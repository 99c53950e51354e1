"""The figures of the code's structure, each on a small tree with known values."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts.lib.figures import __main__ as program
from scripts.lib.figures import traced
from scripts.lib.figures.language import Words, is_question
from scripts.lib.figures.static import Figure, branches, circles, constructors, floors, measure

TREE = {
    "r2fs/__init__.py": "",
    "r2fs/engine/__init__.py": "",
    "r2fs/engine/core.py": '"""Lock of the engine."""\n\nLIMIT = 1\n',
    "r2fs/engine/store/queue.py": (
        "from r2fs.engine.core import LIMIT\n\n\n"
        "class Queue:\n"
        "    def __init__(self, a, b, c, *, d, e, f):\n"
        "        self.on_settled = None\n\n"
        "    def send(self, node):\n"
        "        self._pending.update(node, size=1)\n"
    ),
    "r2fs/engine/files.py": (
        "from r2fs.engine.core import LIMIT\n"
        "from r2fs.engine.store.queue import Queue\n\n\n"
        "def wire(queue, node):\n"
        '    """Is it wired?"""\n'
        "    queue.on_settled = print  # it goes there\n"
        "    node.pending.size = 1\n"
        "    node.other = 2\n"
    ),
    "r2fs/engine/long.py": "X = 1\n" * 401,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_each_static_figure_of_a_small_tree(tree: Path):
    found = measure(tree)
    values = {
        name.removeprefix("engine: "): f.value for name, f in found.items() if name.startswith("engine")
    }
    assert found["r2fs: files"].value == 6
    assert values == {
        "files": 5,
        "lines": 401 + 3 + 9 + 9,
        "file lines med / p90 / max": "9 / 9 / 401",
        "files > 400 lines": 1,
        "function lines med / p90 / max": "2 / 2 / 5",
        "functions > 15 branches": 0,
        "constructors >= 6 arguments": 1,
        "question docstrings %": 50.0,
        "indefinite words %": 40.0,
        "modules": 4,
        "import arrows among modules": 3,
        "floors of modules": 3,
        "import circles among modules": 0,
        "rooms": 4,
        "import arrows among rooms": 3,
        "floors of rooms": 3,
        "import circles among rooms": 0,
        "attributes assigned from outside": 1,
        "writers of pending state": 2,
    }
    assert found["engine: attributes assigned from outside"].names == ("files: queue.on_settled",)
    assert found["engine: writers of pending state"].names == ("files", "store.queue")


def test_branches_are_counted_as_the_docstring_says():
    source = """
def f(a):
    if a and b or c: pass
    for x in [y for y in a if y]: pass
    while a: pass
    try: pass
    except OSError: pass
    match a:
        case 1: pass
        case _: pass
    def inner():
        if a: pass
    return 1 if a else 2
"""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert branches(function) == 1 + 3 + 2 + 1 + 1 + 2 + 1


def test_constructors_of_dataclasses_are_not_counted():
    source = "class A:\n    x: int\nclass B:\n    def __init__(self, a, *, b=1): ..."
    assert list(constructors(ast.parse(source))) == [("B", 2)]


@pytest.mark.parametrize(
    ("docstring", "asks"),
    [("Who has it.", True), ("Safe here? Then go.", True), ("Return the size.", False), ("A row.", False)],
)
def test_question_docstrings(docstring: str, asks: bool):
    assert is_question(docstring) is asks


def test_words_in_code_are_not_counted():
    words = Words()
    source = "# `it` is sent\n"
    words.add_source(source, ast.parse(source))
    assert (words.words, words.indefinite) == (2, 0)


def test_circles_and_floors():
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == 3


def test_a_limit_that_is_passed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program, "LIMITS", {"a": 1, "b": 1, "c": 1})
    found = program.passed({"a": Figure(1), "b": Figure(2, ("names",))})
    assert found == ["b: 2, limit 1 (names)", "c: missing, limit 1"]


def test_a_tree_that_cannot_be_run_gives_a_reason(tree: Path):
    figure = program.traced(tree)["(a) cold read: calls"]
    assert figure.value == "–"
    assert "Error" in figure.names[0]


def test_the_three_paths_are_traced(repo_root: Path):
    found = program.traced(repo_root)
    for path in program.PATHS.values():
        for name in program.TRACED:
            value = found[f"{path}: {name}"].value
            assert isinstance(value, int) and value > 0, found
    assert traced.Tracer(repo_root).result()["calls"] == 0
