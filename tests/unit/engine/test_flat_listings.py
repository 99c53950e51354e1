"""Walks and trees by flat listings: how many LISTs, and that the tree is what the bucket holds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.model.records import ListPage
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore

PAGE = 100  # keys in a page of these buckets


class SmallPages(MemoryStore):
    """Pages of PAGE keys; `order` may change that of the keys in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.order: Callable[[ListPage], ListPage] = lambda page: page

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        return self.order(
            super().list_page(
                prefix, delimiter=delimiter, start_after=start_after, token=token, limit=min(limit, PAGE)
            )
        )


class ByNames(SmallPages):
    """Sorts by names, as SeaweedFS does: all below `a/` comes before `a.`."""

    def list_page(self, prefix: str, *, start_after: str = "", **named: Any) -> ListPage:
        before = (key for key in self.keys() if key.split("/") <= start_after.split("/"))
        return super().list_page(prefix, start_after=max(before, default=""), **named)


@pytest.fixture
def store() -> SmallPages:
    return SmallPages()


@pytest.fixture
def make(tmp_path: Path, store: SmallPages) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make_engine(**changes: object) -> Engine:
        made.append(Engine(tmp_path / f"e{len(made)}", store, **{"freshness_s": 60.0, **changes}))  # type: ignore[arg-type]
        return made[-1]

    yield make_engine
    for engine in made:
        engine.end()


def fill(store: SmallPages, top: str, directories: int, files: int) -> dict[str, bytes | None]:
    """What a mount should show of it."""
    shown: dict[str, bytes | None] = {f"{top}/": None}
    for d in range(directories):
        shown[f"{top}/d{d:03}/"] = None
        for f in range(files):
            shown[f"{top}/d{d:03}/f{f}"] = b"%d %d" % (d, f)
            store.set(f"{top}/d{d:03}/f{f}", b"%d %d" % (d, f))
    return shown


def names(engine: Engine, path: str = "") -> set[str]:
    """Every path, as `find` would go through them: a directory, then what is in it."""
    found: set[str] = set()
    for entry in engine.fs.readdir(engine.caller, engine.entry(path).ino):
        inner = f"{path}/{entry.name}".lstrip("/")
        if entry.kind.value == "directory":
            found |= {inner + "/"} | names(engine, inner)
        else:
            found.add(inner)
    return found


def test_a_walk_needs_a_list_for_each_page_of_keys(make: Callable[..., Engine], store: SmallPages) -> None:
    shown = fill(store, "top", 90, 9)  # 810 keys: 9 pages
    assert names(make()) == set(shown)
    assert store.count("list") <= 2 + 9  # the root, a page of `top` that ends within a directory; then flat


def test_a_walk_of_a_deep_tree(make: Callable[..., Engine], store: SmallPages) -> None:
    paths = {f"a{a}/b{b}/c{c}/f{f}" for a in range(4) for b in range(5) for c in range(6) for f in range(3)}
    for path in paths:
        store.set(path, b"x")
    store.set("a1/b2/", b"")
    store.set("a1/b2/c-/z", b"x")  # sorts before the slash of a1/b2/c…
    assert {name for name in names(make()) if not name.endswith("/")} == {*paths, "a1/b2/c-/z"}
    assert store.count("list") <= 9  # one by one: 146; 361 keys are four pages


@pytest.mark.parametrize("server", [SmallPages, ByNames])
def test_a_walk_from_the_first_directory_on_lists_each_page_once(
    server: type[SmallPages], tmp_path: Path
) -> None:
    store = server()
    for d in range(20):
        for sub in range(5):
            for f in range(10):
                store.set(f"top/{d:02}/{sub}/{f}", b"x")  # 1,000 keys: 10 pages
    engine = Engine(tmp_path / "walk", store, freshness_s=60.0)
    assert sum(not name.endswith("/") for name in names(engine)) == 1000
    engine.end()
    assert store.count("list") == 2 + 10, "one of the root and one of `top` besides"


def test_many_files_before_the_first_directory_are_not_listed_twice(
    make: Callable[..., Engine], store: SmallPages
) -> None:
    for f in range(3 * PAGE):
        store.set(f"top/a{f:03}", b"x")
    store.set("top/z/f", b"x")
    engine = make()
    engine.listdir("top")
    before = store.count("list")
    assert engine.listdir("top/z") == ["f"]
    assert store.count("list") - before == 1


def test_directories_picked_here_and_there_cost_one_list_each(
    make: Callable[..., Engine], store: SmallPages
) -> None:
    fill(store, "top", 60, 4)
    engine = make()
    engine.listdir("top")
    before = store.count("list")
    picked = random.Random(1).sample(range(60), 15)
    for d in picked:
        assert len(engine.listdir(f"top/d{d:03}")) == 4
    assert store.count("list") - before <= len(picked)


def test_directories_larger_than_a_page_cost_no_more_than_by_themselves(
    make: Callable[..., Engine], store: SmallPages
) -> None:
    shown = fill(store, "top", 6, 250)  # 3 pages each
    assert names(make()) == set(shown)
    assert store.count("list") <= 2 + 6 * 3 + 7  # one more for each directory, `top` among them


def test_what_is_pending_here_stays_on_top_of_a_walk(make: Callable[..., Engine], store: SmallPages) -> None:
    shown = fill(store, "top", 30, 4)
    engine = make(threads=False, freshness_s=0.0)
    engine.unlink("top/d011/f2")
    engine.write("top/d012/new", b"mine")
    engine.rename("top/d020", "top/d021b")
    store.set("top/d013/theirs", b"x")
    store.remove("top/d014/f0")
    for d in range(4):
        engine.unlink(f"top/d017/f{d}")
    engine.rmdir("top/d017")
    gone = ("top/d020/", "top/d017/", "top/d011/f2", "top/d014/f0")
    want = {path for path in shown if not path.startswith(gone)}
    want |= {"top/d012/new", "top/d013/theirs", "top/d021b/", *(f"top/d021b/f{f}" for f in range(4))}
    assert names(engine) == want
    assert names(engine) == want


def test_keys_that_cannot_be_names_do_no_harm_to_a_walk(
    make: Callable[..., Engine], store: SmallPages
) -> None:
    shown = fill(store, "top", 12, 3)
    for key in ("top/d003//x", "top/d004/../x", "top/d005/./y", "top/" + "n" * 300 + "/x", "top//"):
        store.set(key, b"x")
    assert names(make()) == set(shown)


def test_a_server_with_an_order_of_its_own_is_listed_one_by_one(
    make: Callable[..., Engine], store: SmallPages
) -> None:
    shown = fill(store, "top", 30, 6)

    def shuffled(page: ListPage) -> ListPage:
        objects = list(page.objects)
        random.Random(2).shuffle(objects)
        return ListPage(tuple(objects), page.prefixes, page.token)

    store.order = shuffled
    assert names(make()) == set(shown)


def test_a_cold_tree_is_renamed_after_a_list_for_each_page(
    make: Callable[..., Engine], store: SmallPages
) -> None:
    shown = fill(store, "top", 90, 9)
    store.set("top/d001/empty/", b"")
    engine = make(threads=False)
    engine.rename("top", "other")
    assert store.count("list") <= 2 + 9
    before = store.count("list")
    want = {"other" + path[3:] for path in shown} | {"other/d001/empty/"}
    assert names(engine) == want
    assert store.count("list") - before <= 1


def test_the_old_name_of_a_large_directory_does_not_come_back(
    make: Callable[..., Engine], store: SmallPages
) -> None:
    fill(store, "top", 30, 10)
    engine = make(threads=False, freshness_s=0.0)
    engine.rename("top", "other")
    assert engine.listdir() == ["other"]
    store.set("top/d029/theirs", b"x")
    assert engine.listdir() == ["other", "top"]
    assert engine.listdir("top") == ["d029"]
    assert engine.listdir("top/d029") == ["theirs"]


def test_removing_a_tree_costs_few_requests(make: Callable[..., Engine], store: SmallPages) -> None:
    shown = fill(store, "top", 60, 10)
    engine = make(upload_delay_s=0.3)
    for d in range(60):
        for name in engine.listdir(f"top/d{d:03}"):
            engine.unlink(f"top/d{d:03}/{name}")
        engine.rmdir(f"top/d{d:03}")
    engine.rmdir("top")
    engine.drain()
    assert store.keys() == []
    assert store.count("delete_many") + store.count("delete") <= 10
    assert store.count("head") <= 10
    assert store.count("list") <= len(shown) // 10
