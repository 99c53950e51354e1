from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2fs.model.pending import (
    BEFORE,
    NEXT,
    PENDING_STATES,
    SENDING,
    Event,
    ImpossibleTransition,
    State,
)
from r2fs.model.transitions import after

WRITTEN = {State.DIRTY, State.STALE_UPLOAD}  # the states of an inode with writers


def test_a_pair_that_is_not_in_the_table_raises():
    missing = 0
    for state, event in itertools.product([None, *State], Event):
        if (state, event) in NEXT:
            continue
        missing += 1
        with pytest.raises(ImpossibleTransition):
            after(state, event, State.CLEAN)
    assert missing > 50


def test_unchanged_leads_back_and_must_know_whereto():
    assert after(State.DIRTY, Event.CLOSE_UNCHANGED, State.PARKED) is State.PARKED
    with pytest.raises(ImpossibleTransition):
        after(State.DIRTY, Event.CLOSE_UNCHANGED)


def test_clean_is_reached_only_by_an_upload_or_by_proof():
    to_clean = {pair for pair, state in NEXT.items() if state is State.CLEAN}
    assert to_clean == {(State.UPLOADING, Event.PUT_OK)}
    assert {pair for pair, state in NEXT.items() if state == BEFORE} == {
        (state, Event.CLOSE_UNCHANGED) for state in WRITTEN
    }


def test_writers_come_and_go_only_by_their_events():
    coming = {Event.CREATE, Event.OPEN_WRITE}
    going = {Event.CLOSE_CHANGED, Event.CLOSE_UNCHANGED, Event.UNLINK, Event.REPLAY}
    for (state, event), following in NEXT.items():
        if following == BEFORE:
            continue
        if state not in WRITTEN and following in WRITTEN:
            assert event in coming, (state, event)
        if state in WRITTEN and following not in WRITTEN:
            assert event in going, (state, event)


def test_an_attempt_begins_by_claim_and_ends_by_its_outcome():
    outcomes = {Event.PUT_OK, Event.PUT_RETRY, Event.CONFLICT, Event.REFUSED}
    for (state, event), following in NEXT.items():
        if following == BEFORE:
            continue
        if state not in SENDING and following in SENDING:
            assert event is Event.CLAIM
        if state in SENDING and following not in SENDING:
            assert event in outcomes | {Event.UNLINK, Event.REPLAY, Event.ADOPT}
    for state in SENDING:
        assert all((state, outcome) in NEXT for outcome in outcomes)


def test_what_is_gone_stays_gone_and_everything_can_go():
    assert not [pair for pair in NEXT if pair[0] is State.GONE]
    assert all(after(state, Event.UNLINK) is State.GONE for state in State if state is not State.GONE)


def test_after_a_boot_everything_owed_is_queued_and_nobody_writes():
    for state in PENDING_STATES - {State.PARKED}:
        assert after(state, Event.REPLAY) is State.QUEUED


def test_every_state_can_be_reached_and_can_reach_clean():
    assert reachable({State.DIRTY}) == set(State)
    for state in PENDING_STATES:
        assert State.CLEAN in reachable({state})


def reachable(states: set[State]) -> set[State]:
    found = set(states)
    while True:
        more = {s for (state, _), s in NEXT.items() if state in found and isinstance(s, State)} - found
        if not more:
            return found
        found |= more


OUTCOMES = (Event.PUT_OK, Event.PUT_RETRY, Event.CONFLICT, Event.REFUSED)


class Model:
    """One file's life: `content` counts its contents, `stored` is the one that the bucket has."""

    def __init__(self) -> None:
        self.state, self.before = after(None, Event.CREATE), State.QUEUED
        self.content, self.claimed, self.stored = 1, 0, 0

    def step(self, event: Event) -> None:
        was, self.state = self.state, after(self.state, event, self.before)
        if event is Event.OPEN_WRITE:
            self.before = was
        if event in (Event.CLOSE_CHANGED, Event.RETARGET):
            self.content += 1
            if event is Event.RETARGET and self.before is State.CLEAN:
                self.before = State.QUEUED  # whoever opened it for writing: its new name is owed now
        if event is Event.CLAIM:
            self.claimed = self.content
        if event is Event.PUT_OK:
            self.stored = self.claimed
        if event in OUTCOMES and was is State.STALE_UPLOAD:
            # The attempt of which `before` tells is over.
            done = event is Event.PUT_OK and self.before is State.UPLOADING and self.stored == self.content
            self.before = State.CLEAN if done else State.QUEUED


@given(st.lists(st.sampled_from(Event), max_size=80))
def test_no_history_calls_clean_what_was_not_sent(events: list[Event]):
    model = Model()
    for event in events:
        if (model.state, event) in NEXT:
            model.step(event)
        if model.state is State.CLEAN:
            assert model.stored == model.content


def test_a_person_gives_up_only_what_is_closed_and_not_on_its_way():
    assert {state for state, event in NEXT if event is Event.DISCARD} == {State.QUEUED, State.PARKED}
