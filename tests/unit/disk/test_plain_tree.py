"""A plain tree: nothing that a program wrote is replaced or removed, and no link leads out of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2fs.disk import plain_tree
from r2fs.disk.plain_tree import OUT, OWN, WHOLE, Changed, Local, Obstructed, PlainTree
from r2fs.model.errors import LocalError


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[PlainTree]:
    (tmp_path / "tree").mkdir()
    made = PlainTree(tmp_path / "tree", "tag")
    yield made
    made.close()


@pytest.fixture(params=["renameat2", "without"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a file system or a C library without renameat2(2)."""
    if request.param == "without":
        monkeypatch.setattr(plain_tree, "renameat2", lambda *_: False)


def whole(tree: PlainTree, data: bytes) -> tuple[str, Local]:
    part, fd = tree.new_file()
    os.write(fd, data)
    os.close(fd)
    name = tree.new_name(WHOLE)
    tree.complete(part, name)
    return name, tree.evidence(name)


def own(tree: PlainTree) -> list[str]:
    return sorted(os.listdir(tree.root / OWN))


@pytest.mark.usefixtures("either")
def test_a_new_file(tree: PlainTree) -> None:
    name, made = whole(tree, b"new")
    placed = tree.place(name, made, "a/b/c", None)
    assert (tree.root / "a/b/c").read_bytes() == b"new"
    assert placed == tree.stat("a/b/c")
    assert own(tree) == []


@pytest.mark.usefixtures("either")
def test_a_new_file_replaces_none(tree: PlainTree) -> None:
    name, made = whole(tree, b"new")
    (tree.root / "a").write_bytes(b"a program's")
    with pytest.raises(Changed):
        tree.place(name, made, "a", None)
    assert (tree.root / "a").read_bytes() == b"a program's"
    assert tree.discard_own(name, made)
    assert own(tree) == []


@pytest.mark.usefixtures("either")
def test_the_expected_file_is_replaced(tree: PlainTree) -> None:
    (tree.root / "a").write_bytes(b"old")
    expected = tree.stat("a")
    name, made = whole(tree, b"new")
    assert tree.place(name, made, "a", expected) == tree.stat("a")
    assert (tree.root / "a").read_bytes() == b"new"
    assert own(tree) == []


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("how", ["written", "replaced", "removed", "a directory"])
def test_another_file_is_not_replaced(tree: PlainTree, how: str) -> None:
    path = tree.root / "a"
    path.write_bytes(b"old")
    expected = tree.stat("a")
    name, made = whole(tree, b"new")
    if how == "written":
        path.write_bytes(b"a program's")
    elif how == "replaced":
        (tree.root / "b").write_bytes(b"a program's")
        os.replace(tree.root / "b", path)
    else:
        path.unlink()
        if how == "a directory":
            path.mkdir()
    with pytest.raises(Changed):
        tree.place(name, made, "a", expected)
    if how == "a directory":
        assert path.is_dir()
    else:
        assert (path.read_bytes() if path.exists() else None) == (
            None if how == "removed" else b"a program's"
        )
    assert tree.discard_own(name, made)
    assert own(tree) == []


def test_another_file_is_not_removed(tree: PlainTree) -> None:
    (tree.root / "a").write_bytes(b"old")
    expected = tree.stat("a")
    assert expected is not None
    (tree.root / "a").write_bytes(b"a program's")
    with pytest.raises(Changed):
        tree.remove("a", tree.new_name(OUT), expected)
    assert (tree.root / "a").read_bytes() == b"a program's"
    assert own(tree) == []


def test_a_removal_takes_empty_directories_along(tree: PlainTree) -> None:
    (tree.root / "a/b").mkdir(parents=True)
    (tree.root / "a/b/c").write_bytes(b"c")
    (tree.root / "a/d").write_bytes(b"d")
    expected = tree.stat("a/b/c")
    assert expected is not None
    tree.remove("a/b/c", tree.new_name(OUT), expected)
    assert sorted(os.listdir(tree.root / "a")) == ["d"]


@pytest.mark.usefixtures("either")
def test_a_rename_replaces_none(tree: PlainTree) -> None:
    (tree.root / "a").write_bytes(b"a")
    (tree.root / "b").write_bytes(b"b")
    with pytest.raises(Changed):
        tree.rename("a", "b")
    tree.rename("a", "d/c")
    assert (tree.root / "b").read_bytes() == b"b"
    assert (tree.root / "d/c").read_bytes() == b"a"


LINKED: dict[str, Callable[[PlainTree], object]] = {
    "stat": lambda tree: tree.stat("link/file"),
    "open": lambda tree: tree.open("link/file"),
    "place": lambda tree: tree.place(*whole(tree, b"new"), "link/new", None),
    "rename": lambda tree: tree.rename("here", "link/new"),
    "make_directory": lambda tree: tree.make_directory("link/new"),
}


@pytest.mark.parametrize("call", LINKED)
def test_no_link_leads_out(tree: PlainTree, tmp_path: Path, call: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"secret")
    (tree.root / "here").write_bytes(b"here")
    os.symlink(tmp_path / "outside", tree.root / "link")
    with pytest.raises(Obstructed):
        LINKED[call](tree)
    assert os.listdir(tmp_path / "outside") == ["file"]


def test_a_file_in_the_place_of_a_directory(tree: PlainTree) -> None:
    """A name below it is missing, as for any program; it cannot be made either."""
    (tree.root / "a").write_bytes(b"a")
    assert tree.stat("a/b") is None
    name, made = whole(tree, b"new")
    with pytest.raises(Obstructed):
        tree.place(name, made, "a/b", None)


def test_a_link_is_no_file(tree: PlainTree) -> None:
    os.symlink("a", tree.root / "link")
    with pytest.raises(Obstructed, match="symbolic link"):
        tree.stat("link")
    with pytest.raises(Obstructed):
        tree.open("link")


def test_files_of_another_mirror_are_left(tree: PlainTree) -> None:
    other = PlainTree(tree.root, "other")
    part, fd = other.new_file()
    os.close(fd)
    assert list(tree.left()) == []
    assert list(other.left()) == [part]
    other.close()


def test_the_id_is_of_the_directory_at_the_path(tree: PlainTree) -> None:
    made = tree.make_id()
    tree.require_id(made)
    os.rename(tree.root, tree.root.with_name("elsewhere"))
    with pytest.raises(LocalError):
        tree.require_id(made)
