"""plan_merge: what a LIST changes, decided before anything is."""

from __future__ import annotations

import pytest

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.listing_merge import MergePlan, merge_listing, plan_merge
from r2fs.engine.inodes.table import Tree
from r2fs.model.records import Kind, ObjectInfo
from r2fs.model.transitions import created, made
from tests.support.engine import Engine, MakeEngine

LATER = 1 << 40  # a tick after every change


def info(key: str, size: int = 1, etag: str = "e" * 32, modified_ns: int = 10**18) -> ObjectInfo:
    return ObjectInfo(key, size, etag, modified_ns)


def summary(plan: MergePlan) -> dict[str, object]:
    """The fields that are not empty, in short."""
    fields = {
        "marker": plan.marker and plan.marker.key,
        "refreshed": [node.name for node, _ in plan.refreshed],
        "objects": [one.key for one in plan.objects],
        "directories": plan.directories,
        "missing": sorted(node.name for node in plan.missing),
        "hidden": sorted(plan.hidden),
    }
    return {name: value for name, value in fields.items() if value}


@pytest.fixture
def engine(make: MakeEngine) -> Engine:
    return make()


@pytest.fixture
def tree(engine: Engine) -> Tree:
    return engine.inodes


@pytest.fixture
def top(engine: Engine, tree: Tree) -> Node:
    with engine.lock:
        node = tree.add(tree.root, "top", Kind.DIRECTORY, 0)
        merge_listing(tree, node, [info("top/a"), info("top/b")], ["top/sub/"], LATER)
    return node


BOTH = [info("top/a"), info("top/b")]


@pytest.mark.parametrize(
    ("objects", "prefixes", "expected"),
    [
        (BOTH, ["top/sub/"], {}),
        ([info("top/a")], ["top/sub/"], {"missing": ["b"]}),
        (BOTH, [], {"missing": ["sub"]}),
        ([*BOTH, info("top/c")], ["top/sub/"], {"objects": ["top/c"]}),
        ([info("top/a", modified_ns=2 * 10**18), BOTH[1]], ["top/sub/"], {"refreshed": ["a"]}),
        ([info("top/a", etag="f" * 32), BOTH[1]], ["top/sub/"], {"objects": ["top/a"]}),
        ([info("top/", size=0), *BOTH], ["top/sub/"], {"marker": "top/"}),
        ([info("top/"), *BOTH], ["top/sub/"], {"marker": "top/", "hidden": ["top/"]}),
        ([info("top/a", etag=""), BOTH[1]], ["top/sub/"], {}),
        ([*BOTH, info("top/c", etag="")], ["top/sub/"], {"hidden": ["top/c"]}),
        ([*BOTH, info("top/..")], ["top/sub/"], {"hidden": ["top/.."]}),
        # one name, two entries: a directory before a file, else the first
        ([*BOTH], ["top/a/", "top/sub/"], {"hidden": ["top/a"]}),
        ([*BOTH, info("top/é"), info("top/e\u0301")], ["top/sub/"], {"objects": ["top/é"], "hidden": ["top/e\u0301"]}),
        (BOTH, ["top/sub/", "top/z//"], {"hidden": ["top/z//"]}),
    ],
)  # fmt: skip
def test_entries(engine, tree, top, objects, prefixes, expected):
    with engine.lock:
        plan = plan_merge(tree, top, objects, prefixes, LATER)
    found = summary(plan)
    found.pop("directories", None)
    assert found == expected


def test_a_plan_changes_nothing(engine, tree, top):
    with engine.lock:
        before = dict(top.children()), tree.tick, tree.hidden
        plan_merge(tree, top, [info("top/"), info("top/new"), info("top/..")], ["top/other/"], LATER)
        assert (dict(top.children()), tree.tick, tree.hidden) == before
        engine.check_tree()


def test_names_changed_here_since_the_listing_began_stay(engine, tree, top):
    with engine.lock:
        began = tree.tick
        tree.touch(top.children()["a"])
        tree.touch(top.children()["b"])
        plan = plan_merge(tree, top, [info("top/a", modified_ns=2 * 10**18)], [], began)
        assert summary(plan) == {"missing": ["sub"]}
        tree.detach(top.children()["a"])
        merge_listing(tree, top, [info("top/a")], [], began)
        assert "a" not in top.children()  # removed here since


def test_a_directory_with_something_pending_below_stays(engine, tree, top):
    with engine.lock:
        node = tree.add(top.children()["sub"], "new", Kind.DIRECTORY, 0)
        pending = created(engine.pending_store.begin(node, "top/sub/new/", True, None))
        engine.pending_store.commit(node, made(pending, 0.0))
        assert summary(plan_merge(tree, top, [], [], LATER)) == {"missing": ["a", "b"]}
