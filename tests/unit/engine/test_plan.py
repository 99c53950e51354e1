"""What is next for a queued inode, at every combination of what it depends on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from r2fs.engine.writeback.plan import Action, Defer, Park, Step, View, Wait, plan
from r2fs.model.pending import TORN, UNSYNCED, Hold, Pending, Staged, State

BUSY, CHILD, LARGE = ("key", "takes/1.wav"), 7, ("key", "takes/film.mov")


def pending(hold: Hold | None) -> Pending:
    return Pending("takes/1.wav", 1, State.QUEUED, True, None, 0.0, Staged("1-1"), hold=hold)


def cases() -> Iterator[tuple[Pending, View, Action]]:
    holds = (None, Hold("no answer"), Hold(TORN), Hold(UNSYNCED))
    flags = itertools.product((False, True), repeat=7)
    for hold, (sync_failed, missing, incomplete, blocked, ring, late, crowded) in itertools.product(
        holds, flags
    ):
        for kept, awaited in itertools.product((False, True), (None, CHILD)):
            view = View(
                now_s=10.0,
                free_at_s=11.0 if late else 10.0,
                sync_failed=sync_failed,
                missing="its file is not there" if missing else None,
                incomplete=incomplete,
                kept_by_child=kept,
                awaited_child=awaited,
                blocker=BUSY if blocked else None,
                in_ring=ring,
                crowded=LARGE if crowded else None,
            )
            yield pending(hold), view, plan(pending(hold), view)


def test_bytes_in_doubt_are_parked_with_their_reason():
    for value, view, action in cases():
        doubt = view.sync_failed or value.doubt is not None or view.missing is not None
        assert isinstance(action, Park) is doubt, (value, view)
        if isinstance(action, Park) and not view.sync_failed:
            assert action.reason == (value.doubt or view.missing)


def test_it_is_sent_only_whole_alone_and_in_its_time():
    sent = 0
    for _, view, action in cases():
        if action is Step.SEND:
            sent += 1
            assert not (view.incomplete or view.kept_by_child)
            assert view.blocker is None
            assert view.awaited_child is None
            assert view.free_at_s <= view.now_s
            assert view.crowded is None
        elif isinstance(action, Wait):
            assert (action.token == LARGE) is (action.token == view.crowded)
    assert sent


def test_missing_bytes_come_before_what_is_waited_for():
    for _, view, action in cases():
        if isinstance(action, Park):
            continue
        if view.incomplete:
            assert action is Step.HYDRATE, view


def test_of_a_ring_one_is_brought_here_and_else_the_blocker_is_waited_for():
    for _, view, action in cases():
        if isinstance(action, Park) or view.incomplete or view.blocker is None:
            continue
        assert action == (Step.MATERIALIZE if view.in_ring else Wait(BUSY)), view


def test_a_directory_needs_no_object_of_its_own_beside_one_below_it():
    for _, view, action in cases():
        if isinstance(action, Park) or view.incomplete or view.blocker is not None:
            continue
        if view.kept_by_child:
            assert action is Step.DROP
        elif view.awaited_child is not None:
            assert action == Wait(("ino", CHILD))
        elif view.free_at_s > view.now_s:
            assert action == Defer(view.free_at_s)
        elif view.crowded is not None:
            assert action == Wait(LARGE)
