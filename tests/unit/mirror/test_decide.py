"""The table of decisions, in all combinations: a removal wins over nothing, and neither side's change is lost."""

from __future__ import annotations

from itertools import product

import pytest

from r2fs.disk.mirror_record import InStep
from r2fs.disk.plain_tree import Local
from r2fs.mirror.decide import Action, Way, decide

OLD, NEW = Local(1, 1, 1, 1), Local(2, 2, 2, 2)
ALL = list(product((None, OLD), (None, "old"), (None, OLD, NEW), (None, "old", "new"), Way, (False, True)))


def said(
    known: Local | None, etag: str | None, local: Local | None, now: str | None, **rules: object
) -> Action:
    way, delete = rules.get("way", Way.BOTH), rules.get("delete", False)
    return decide(InStep(known, etag), local, now, way, delete)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("local", "etag", "action"),
    [
        (OLD, "old", Action.NOTHING),
        (NEW, "old", Action.UPLOAD),
        (OLD, "new", Action.DOWNLOAD),
        (NEW, "new", Action.COMPARE),
        (None, "new", Action.DOWNLOAD),
        (NEW, None, Action.UPLOAD),
        (None, None, Action.FORGET),
        (None, "old", Action.LEAVE),
        (OLD, None, Action.LEAVE),
    ],
)
def test_of_a_name_that_was_in_step(local: Local | None, etag: str | None, action: Action) -> None:
    assert said(OLD, "old", local, etag) is action


def test_of_a_new_name() -> None:
    assert said(None, None, NEW, None) is Action.UPLOAD
    assert said(None, None, None, "new") is Action.DOWNLOAD
    assert said(None, None, NEW, "new") is Action.COMPARE
    assert said(None, None, None, None) is Action.NOTHING


def test_removals_are_carried_over_if_wished() -> None:
    assert said(OLD, "old", None, "old", delete=True) is Action.DELETE
    assert said(OLD, "old", OLD, None, delete=True) is Action.REMOVE


def test_a_removal_that_was_left_stays_left() -> None:
    """Neither brought back nor, with --delete from now on, carried over: it was decided once."""
    for delete in (False, True):
        assert said(None, "old", None, "old", delete=delete) is Action.NOTHING
        assert said(OLD, None, OLD, None, delete=delete) is Action.NOTHING


def test_one_way_brings_what_the_other_side_lacks() -> None:
    assert said(None, "old", None, "old", way=Way.DOWN) is Action.DOWNLOAD
    assert said(OLD, None, OLD, None, way=Way.UP) is Action.UPLOAD


@pytest.mark.parametrize(("known", "etag", "local", "now", "way", "delete"), ALL)
def test_nothing_is_lost(
    known: Local | None, etag: str | None, local: Local | None, now: str | None, way: Way, delete: bool
) -> None:
    action = decide(InStep(known, etag), local, now, way, delete)
    if action is Action.DELETE:
        assert delete and way is not Way.DOWN and local is None and known is not None and now == etag
    if action is Action.REMOVE:
        assert delete and way is not Way.UP and now is None and etag is not None and local == known
    if action is Action.UPLOAD and now is not None:
        assert now == etag  # what it replaces was seen here
    if action is Action.DOWNLOAD and local is not None:
        assert local == known  # what it replaces was in the bucket
    if way is Way.UP:
        assert action not in (Action.DOWNLOAD, Action.REMOVE)
    if way is Way.DOWN:
        assert action not in (Action.UPLOAD, Action.DELETE)
