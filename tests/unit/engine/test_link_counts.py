"""Link counts and listings: they agree with the tree, whoever changed it and whatever became of the daemon."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest.mock import patch

import pytest

from r2fs.model.errors import Exists, NotFound
from r2fs.model.records import KnownNode
from r2fs.model.verbs import RENAME_EXCHANGE, ROOT
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore
from tests.support.session import Session

TREE: tuple[str, ...] = ("d", "d/a", "d/b", "d/b/deep", "d/c", "e")


def links(one: Session, path: str) -> int:
    """What stat says once the directory has been listed, the kernel's number of it still in use."""
    ino = one.ino(path)
    one.engine.fs.readdir(one.engine.caller, ino)
    return one.attributes(ino).nlink


def expected(paths: tuple[str, ...]) -> dict[str, int]:
    below = [path.rpartition("/")[0] for path in paths]
    return {path: 2 + below.count(path) for path in ("", *paths)}


@pytest.mark.parametrize("take_over", ["kill", "restart"])
@pytest.mark.parametrize("sent", [True, False], ids=["sent", "owed"])
def test_directories_can_be_counted_and_removed_after_each_take_over(
    session: Callable[..., Session], store: MemoryStore, take_over: str, sent: bool
):
    store.set("d/c/theirs.wav", b"theirs")
    one = session(upload_delay_s=0.0 if sent else 60.0)
    for path in TREE:
        if path not in ("d", "d/c"):
            one.engine.mkdir(path)
    one.engine.write("d/a/take.wav", b"take")
    if sent:
        one.engine.drain()
    for path in TREE:
        one.ino(path)
    left = TREE
    for gone in ("d/b/deep", "d/b", "e"):
        getattr(one, take_over)()
        one.engine.check_tree()
        assert {path: links(one, path) for path in ("", *left)} == expected(left)
        one.engine.rmdir(gone)
        left = tuple(path for path in left if path != gone)
        assert {path: links(one, path) for path in ("", *left)} == expected(left)
    getattr(one, take_over)()
    assert {path: links(one, path) for path in ("", *left)} == expected(left)
    one.engine.unlink("d/a/take.wav")
    one.engine.unlink("d/c/theirs.wav")
    for gone in ("d/a", "d/c", "d"):
        one.engine.rmdir(gone)
    assert links(one, "") == 2
    one.engine.drain()
    assert not store.keys()


@pytest.mark.parametrize("take_over", ["kill", "restart"])
def test_names_that_moved_are_counted_where_they_are_after_a_take_over(
    session: Callable[..., Session], store: MemoryStore, take_over: str
):
    one = session()
    for path in TREE:
        one.engine.mkdir(path)
    one.engine.write("take.wav", b"take")
    for path in (*TREE, "take.wav"):
        one.ino(path)
    one.engine.rename("d/b", "e/b")
    one.engine.rename("take.wav", "d/c", RENAME_EXCHANGE)
    getattr(one, take_over)()
    now = ("d", "d/a", "e", "e/b", "e/b/deep", "take.wav")
    one.engine.check_tree()
    assert {path: links(one, path) for path in ("", *now)} == expected(now)
    one.engine.drain()
    getattr(one, take_over)()
    assert {path: links(one, path) for path in ("", *now)} == expected(now)


def test_a_log_that_contradicts_itself_gives_a_tree(session: Callable[..., Session], store: MemoryStore):
    """Two numbers of one name, a directory below itself, a file as a parent: the last told holds a name."""
    for key in ("d/x/a", "d/y/b", "f"):
        store.set(key, key.encode())
    one = session()
    x, y, d, f = (one.ino(path) for path in ("d/x", "d/y", "d", "f"))

    def change(ino: int, **fields: object) -> None:
        known: KnownNode = one.nodes[ino]._replace(**fields)  # type: ignore[arg-type]
        one.node(known)

    change(y, name="x")
    one.kill()
    one.engine.check_tree()
    assert (one.attributes(x).nlink, one.ino("d/x"), links(one, "d/x")) == (0, y, 2)
    change(d, parent=y)
    one.kill()
    one.engine.check_tree()
    assert links(one, "") == 3
    change(one.ino("d"), parent=f)
    one.kill()
    one.engine.check_tree()
    assert links(one, "") == 3


MAKES: dict[str, Callable[[Engine, int], object]] = {
    "mkdir": lambda engine, parent: engine.fs.mkdir(engine.caller, parent, "name", 0o755),
    "symlink": lambda engine, parent: engine.fs.symlink(engine.caller, parent, "name", "there"),
    "create": lambda engine, parent: engine.fs.create(engine.caller, parent, "name", 0o644, 0),
}


def once_the_name_was_free(engine: Engine, act: Callable[[], None]) -> AbstractContextManager[object]:
    """`act` happens between the look for a name and what is made of it."""
    names = engine.names
    looked = names.child

    def and_then_another(*args: object) -> object:
        try:
            return looked(*args)  # type: ignore[arg-type]
        except NotFound:
            names.child = looked  # type: ignore[method-assign]
            act()
            raise

    return patch.object(names, "child", and_then_another)


@pytest.mark.parametrize("kind", MAKES)
def test_two_programs_that_make_one_name_do_not_both_get_it(
    make: Callable[..., Engine], store: MemoryStore, kind: str
):
    """Both saw that it was free; the directory's lock in the kernel is not all hosts' and not each driver's."""
    engine = make()
    with once_the_name_was_free(engine, lambda: engine.mkdir("name")), pytest.raises(Exists):
        MAKES[kind](engine, ROOT)
    engine.check_tree()
    assert engine.entry("").attributes.nlink == 3
    engine.drain()
    assert store.keys() == ["name/"]


@pytest.mark.parametrize("kind", MAKES)
def test_nothing_is_made_in_a_directory_that_was_removed_meanwhile(
    make: Callable[..., Engine], store: MemoryStore, kind: str
):
    engine = make()
    engine.mkdir("d")
    engine.drain()
    parent = engine.entry("d").ino
    engine.fs.lookup(engine.caller, ROOT, "d")
    with once_the_name_was_free(engine, lambda: engine.rmdir("d")), pytest.raises(NotFound):
        MAKES[kind](engine, parent)
    engine.check_tree()
    engine.drain()
    assert not store.keys()
