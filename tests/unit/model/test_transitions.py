"""Every transition at every value of Pending that a sequence of transitions can lead to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from r2fs.model import transitions as t
from r2fs.model.pending import (
    TORN,
    Durability,
    Hold,
    ImpossibleTransition,
    InFlight,
    Pending,
    Retry,
    Staged,
    State,
    Writes,
    check,
)
from r2fs.model.records import Proof

BASELINE, LATER = Proof(3, 1, 1), Proof(3, 2, 2)
FILE = Staged("file", size=3, boot="this")
Step = Callable[[Pending], Pending | None]


def clean(changed: bool, staged: Staged | None) -> Pending:
    return Pending("key", 1, State.CLEAN, changed, "etag", 0.0, staged)


def staged_of(pending: Pending) -> Staged:
    return pending.staged or FILE


def begin(pending: Pending) -> Pending:
    if pending.state is not State.CLEAN:
        raise ImpossibleTransition("there already")
    return t.created(pending)


def of_staged(change: Callable[[Staged], Staged], *, opened: bool | None = None) -> Step:
    """A change of the staged file, which a caller makes only of one that is (not) open."""

    def step(pending: Pending) -> Pending:
        if pending.staged is None or (opened is not None and pending.open is not opened):
            raise ImpossibleTransition("no such file")
        return t.with_staged(pending, change(pending.staged))

    return step


def reopen(baseline: Proof | Writes | None) -> Step:
    return lambda p: t.opened_for_writing(p, staged_of(p)._replace(baseline=baseline))


def only(condition: Callable[[Pending], bool], step: Step) -> Step:
    """What a caller asks before it takes the step."""

    def guarded(pending: Pending) -> Pending | None:
        if not condition(pending):
            raise ImpossibleTransition("not asked for")
        return step(pending)

    return guarded


EVENTS: dict[str, Step] = {
    "created": begin,
    "made": only(lambda p: p.staged is None and p.checkpoint is None, lambda p: t.made(p, 1.0)),
    **{f"opened, {baseline}": reopen(baseline) for baseline in (BASELINE, Writes.NONE, None)},
    "closed changed": only(lambda p: p.staged is not None, lambda p: t.closed_changed(p, staged_of(p), 1.0)),
    **{
        f"closed unchanged, synced {synced}": lambda p, synced=synced: t.closed_unchanged(p, synced)  # type: ignore[misc]
        for synced in (False, True)
    },
    "retargeted": t.retargeted,
    "renamed": lambda p: t.renamed(p, "other", None, 1),
    "unlinked": t.unlinked,
    "discarded": only(lambda p: p.in_flight is None, t.discarded),
    "claimed": lambda p: t.claimed(p, InFlight("attempt", p.key), 4),
    **{
        f"stored, {etag}, copy {copy}": lambda p, etag=etag, copy=copy: t.stored(  # type: ignore[misc]
            p, etag, not copy, False, False
        )
        for etag in ("new", None)
        for copy in (False, True)
    },
    "failed": lambda p: t.failed(p, "no answer", Retry(1)),
    "conflict seen": only(lambda p: p.state is State.STALE_UPLOAD, t.conflict_seen),
    "conflict renamed": only(
        lambda p: p.state is not State.STALE_UPLOAD, lambda p: t.conflict_renamed(p, "beside", p.key)
    ),
    **{
        f"refused, transient {transient}": lambda p, transient=transient: t.refused(p, Hold("no", transient))  # type: ignore[misc]
        for transient in (False, True)
    },
    "parked": only(lambda p: p.in_flight is None, lambda p: t.parked(p, Hold(TORN))),
    **{f"released, {keep}": lambda p, keep=keep: t.released(p, keep_reason=keep) for keep in (False, True)},  # type: ignore[misc]
    "replayed": only(lambda p: p.in_flight is None, lambda p: t.replayed(p, p.staged)),
    "adopted": only(lambda p: p.in_flight is None, t.adopted),
}
BESIDE: dict[str, Step] = {
    "expecting": lambda p: t.expecting(p, "another"),
    "held": lambda p: t.held(p, TORN),
    "interrupted changed": only(lambda p: p.checkpoint is not None, t.interrupted_changed),
    "materialized": only(
        lambda p: p.state is State.QUEUED and p.staged is not None, lambda p: t.materialized(p, "this")
    ),
    "sends own": only(lambda p: p.in_flight is not None, lambda p: t.sends_own(p, staged_of(p))),
    "corrected": only(lambda p: p.in_flight is not None, lambda p: t.corrected(p, "another", p.changed)),
    "withdrawn": of_staged(lambda s: t.withdrawn(s) if s.synced else s, opened=False),
    "restored": of_staged(t.restored, opened=False),
    "written": of_staged(t.written),
    "cut": of_staged(lambda s: t.cut(s, 0, 0), opened=True),
    "completed": of_staged(
        lambda s: t.completed(s, LATER if s.baseline is Writes.NONE else None), opened=True
    ),
    "synced": of_staged(lambda s: s._replace(durability=Durability.SYNCED, fsync_mark=LATER)),
    "synced in part": of_staged(lambda s: s._replace(durability=Durability.SYNCED_OWN, fsync_mark=7)),
}
# Steps after which nothing, or no file in staging, is left: each for the reason that its docstring gives.
MAY_END = {
    "unlinked",
    "discarded",
    *(name for name in EVENTS if name.startswith(("closed unchanged", "stored"))),
}


def plain(pending: Pending) -> Pending:
    """Without what no transition looks at, so that the values can be walked to the end."""
    staged = pending.staged and pending.staged._replace(size=0, base_limit=0, edits=None)
    return pending._replace(
        key="key",
        expected_etag="etag",
        conflict_of=None,
        closed_at_s=None,
        retry=Retry(),
        staged=staged,
    )


@cache
def reachable() -> frozenset[Pending]:
    start = [clean(changed, staged) for changed in (False, True) for staged in (None, FILE)]
    found: set[Pending] = set()
    waiting: list[Pending] = list(start)
    while waiting:
        pending = waiting.pop()
        for step in (EVENTS | BESIDE).values():
            if pending.state is State.CLEAN and step in BESIDE.values():
                continue
            try:
                following = step(pending)
            except ImpossibleTransition:
                continue
            if following is not None and (value := plain(following)) not in found:
                found.add(value)
                waiting.append(value)
    return frozenset(found)


def test_each_value_keeps_the_invariants():
    values = reachable()
    assert {value.state for value in values} == set(State) - {State.CLEAN, State.GONE}
    assert len(values) > 1000
    for value in values:
        check(value)


@pytest.mark.parametrize("name", EVENTS | BESIDE)
def test_no_step_drops_bytes(name):
    """A file in staging stays the inode's until the bucket has its bytes, it is unlinked, or nothing was written."""
    step, taken = (EVENTS | BESIDE)[name], 0
    for value in [*reachable(), *(clean(changed, None) for changed in (False, True))]:
        if value.state is State.CLEAN and (name in BESIDE or name in ("unlinked",)):
            continue
        try:
            following = step(value)
        except ImpossibleTransition:
            continue
        taken += 1
        if following is None:
            assert name in MAY_END, value
            by_person = name in ("unlinked", "discarded")
            assert value.state not in (State.QUEUED, State.PARKED) or by_person, value
        elif value.staged is not None:
            assert following.staged is not None, value
            assert following.staged.file == value.staged.file, value
    assert taken, f"{name} was never possible"


def test_only_evidence_or_a_copy_takes_back_that_bytes_are_to_be_sent():
    for value in reachable():
        if not value.changed:
            continue
        for name, step in (EVENTS | BESIDE).items():
            try:
                following = step(value)
            except ImpossibleTransition:
                continue
            if following is not None and not following.changed:
                assert name.startswith("closed unchanged") or (
                    name.startswith("stored") and value.state is State.RESEALED
                ), (name, value)


def test_an_unchanged_close_leads_back():
    for value in reachable():
        if value.open:
            continue
        opened = t.opened_for_writing(value, staged_of(value)._replace(baseline=BASELINE))
        back = t.closed_unchanged(opened, synced=False)
        assert back is not None
        assert (back.state, back.changed, back.key, back.hold, back.in_flight) == (
            value.state, value.changed, value.key, value.hold, value.in_flight
        )  # fmt: skip
        if value.staged is not None and back.staged is not None:
            assert back.staged.durability is (value.staged.withdrawn or value.staged.durability)


def test_of_a_clean_file_an_unchanged_close_leaves_nothing():
    opened = t.opened_for_writing(clean(False, None), FILE._replace(baseline=BASELINE))
    assert opened.changed, "a crash now finds a staged file: its bytes count"
    assert t.closed_unchanged(opened, synced=False) is None


def test_what_was_written_beside_an_attempt_is_sent_after_it():
    """PUT_OK says nothing of the bytes that a program writes meanwhile."""
    for value in reachable():
        if value.state is not State.STALE_UPLOAD:
            continue
        following = t.stored(value, "new", True, False, False)
        assert following is not None
        assert following.changed
        assert following.open
        assert following.checkpoint is not None
        closed = t.closed_changed(following, staged_of(following), 2.0)
        assert closed.state is State.QUEUED
        assert closed.changed


def test_a_doubt_outlasts_attempts_and_openings():
    for value in reachable():
        if value.doubt is None:
            continue
        for name in ("failed", "closed changed", "retargeted", "renamed", f"opened, {None}"):
            try:
                following = (EVENTS)[name](value)
            except ImpossibleTransition:
                continue
            assert following is not None
            assert following.doubt == value.doubt, name


def test_durability_is_never_claimed_for_what_may_be_written():
    """While a program may write, a row says "synced" only of what an fsync has seen since."""
    for value in reachable():
        if value.staged is None or value.open or not value.staged.synced:
            continue
        taken_back = t.with_staged(value, t.withdrawn(value.staged))
        opened = t.opened_for_writing(taken_back, staged_of(taken_back))
        assert opened.staged is not None
        assert not opened.staged.synced
