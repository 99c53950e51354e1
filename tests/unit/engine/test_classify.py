"""Verdict on a journal row at start: every combination of row and evidence, without a disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from r2fs.engine.recovery.classify import (
    Evidence,
    FileStat,
    Park,
    Queue,
    Step,
    Unchanged,
    WithoutStaged,
    classify,
    is_changed,
    pending_of,
    size_of,
)
from r2fs.model.pending import (
    DOUBTFUL,
    OPEN_STATES,
    PENDING_STATES,
    SENDING,
    TORN,
    UNSYNCED,
    Durability,
    State,
    check,
)
from r2fs.model.records import Kind, PendingInode, Proof, Version

NOW, BEFORE = "this boot", "the boot before"
SIZE = 10
PROOF = Proof(SIZE, 1, 1)
AS_OPENED, WRITTEN, SHORTER = FileStat(SIZE, 1, 1), FileStat(SIZE, 2, 2), FileStat(SIZE - 1, 2, 2)
BASE, ELSEWHERE = Version("key", "etag", SIZE), Version("old key", "etag", SIZE)
ROW = PendingInode(
    ino=2,
    key="key",
    kind=Kind.FILE,
    state=State.QUEUED.value,
    before=None,
    seq=1,
    mode=None,
    uid=None,
    gid=None,
    mtime_ns=None,
    extra={},
    content_type="",
    base=BASE,
    expected_etag="etag",
    changed=True,
    staged="file",
    size=SIZE,
    own=None,
    base_limit=0,
    proof=None,
    closed_at_s=None,
    boot=NOW,
    synced=False,
    reason=None,
    conflict_of=None,
    target=None,
    st_ino=None,
)
OPEN = ROW._replace(state=State.DIRTY.value, before=State.CLEAN.value, changed=False, proof=PROOF)
BARE = OPEN._replace(own=(), base_limit=SIZE, proof=None, changed=True)
UNCHANGED_NAME = ROW._replace(changed=False, base=ELSEWHERE)  # renamed, opened and closed without a write
HERE = Evidence(NOW, WRITTEN)
Case = tuple[PendingInode, Evidence]


def cases() -> Iterator[Case]:
    """Every row that a journal can hold, as far as a verdict depends on it, with every state of the machine."""
    for state, staged, base, changed in itertools.product(
        sorted(PENDING_STATES, key=lambda state: state.value), (True, False), (None, BASE, ELSEWHERE), (0, 1)
    ):
        sends_nothing = base is None and not changed
        if sends_nothing or (not staged and (state in OPEN_STATES or base is None)):
            continue
        reasons = (TORN, UNSYNCED, "refused") if state is State.PARKED else (None, TORN, "refused")
        before = (None, State.CLEAN, State.QUEUED, State.PARKED) if state in OPEN_STATES else (None,)
        ranges = ((None, 0), ((), SIZE), (((0, 4),), SIZE)) if staged and base else ((None, 0),)
        for reason, was, (own, limit), synced, proof, boot, file, writer in itertools.product(
            reasons,
            before,
            ranges,
            (False, True) if staged else (False,),
            (None, PROOF) if state in OPEN_STATES else (None,),
            (NOW, BEFORE),
            (None, AS_OPENED, WRITTEN, SHORTER) if staged else (None,),
            (False, True),
        ):
            row = ROW._replace(
                state=state.value,
                before=None if was is None else was.value,
                staged="file" if staged else None,
                base=base,
                changed=bool(changed),
                reason=reason,
                own=own,
                base_limit=limit,
                synced=synced,
                proof=proof if own is None else None,
                boot=boot,
            )
            if is_written_by_store(row):
                yield row, Evidence(NOW, file, writer)


def is_written_by_store(row: PendingInode) -> bool:
    """False for rows that PendingStore never writes: while open, `changed` is False only beside a proof, and a new
    file has neither proof nor base."""
    if State(row.state) not in OPEN_STATES:
        return True
    return row.changed if row.proof is None else row.before is not None


ALL = list(cases())


def kind(row: PendingInode, seen: Evidence) -> Step | type:
    """The verdict, without the values that it has."""
    verdict = classify(row, seen)
    return verdict if isinstance(verdict, Step) else type(verdict)


def those(*verdicts: Step | type) -> Iterator[Case]:
    found = [(row, seen) for row, seen in ALL if kind(row, seen) in verdicts]
    assert found, "a rule about nothing"
    yield from found


def is_power_cut(row: PendingInode, seen: Evidence) -> bool:
    return row.boot != seen.boot


def is_open(row: PendingInode) -> bool:
    return State(row.state) in OPEN_STATES


# ---- rules of SEMANTICS.md
def test_every_row_has_a_verdict_and_every_verdict_a_row():
    assert {kind(row, seen) for row, seen in ALL} == {*Step, Unchanged, WithoutStaged, Queue, Park}


def test_bytes_that_a_power_cut_may_have_torn_are_never_queued():
    for row, seen in those(Queue):
        if row.staged is not None and is_power_cut(row, seen):
            assert row.synced and not is_open(row), row


def test_a_closed_file_of_another_size_is_never_queued():
    for row, seen in those(Queue):
        if seen.file is not None and not is_open(row) and row.state != State.PARKED.value:
            assert seen.file.size >= row.size, row
            assert row.own is not None or seen.file.size == row.size, row


def test_bytes_in_doubt_are_never_queued():
    assert all(row.reason not in DOUBTFUL for row, _ in those(Queue))
    for row, seen in those(Park):
        verdict = classify(row, seen)
        assert isinstance(verdict, Park) and verdict.reason in DOUBTFUL
        assert verdict.reason == row.reason or row.reason not in DOUBTFUL, "a known doubt is not replaced"


def test_a_file_that_exists_is_given_up_only_if_nothing_was_written():
    for row, seen in those(Unchanged, WithoutStaged):
        if seen.file is None:
            continue
        assert row.base is not None or isinstance(classify(row, seen), Unchanged)
        bare = row.own == () and row.size == row.base_limit
        proven = is_open(row) and row.own is None and seen.file.proof == row.proof
        assert bare or proven or (not row.changed and not is_open(row)), (row, seen)


def test_a_file_that_exists_is_never_taken_for_one_that_was_not_stored():
    for row, seen in those(Step.NEVER_STORED, Step.MISSING):
        assert row.staged is not None and seen.file is None


def test_only_a_power_cut_before_the_sync_excuses_a_missing_file():
    for row, seen in ALL:
        if row.staged is None or seen.file is not None:
            continue
        excused = is_power_cut(row, seen) and not row.synced
        assert kind(row, seen) in ((Step.NEVER_STORED, WithoutStaged) if excused else (Step.MISSING,))


def test_a_new_name_is_not_forgotten_while_its_bytes_are_in_the_bucket():
    """A copy under the new name is pending: its base lies at another key."""
    for row, _ in those(Step.NEVER_STORED):
        assert row.base is None or row.base.key == row.key, row
    for row, _ in those(WithoutStaged):
        assert row.base is not None


def test_only_an_inherited_writer_keeps_a_file_open():
    for row, seen in ALL:
        adopted = classify(row, seen) is Step.ADOPT
        lacks_file = row.staged is not None and seen.file is None
        assert adopted == (seen.has_writer and is_open(row) and not lacks_file)


def test_bytes_are_called_synced_only_if_an_fsync_covers_them_as_they_are():
    for row, seen in those(Queue, Park):
        verdict = classify(row, seen)
        assert isinstance(verdict, (Queue, Park))
        if verdict.durability is not Durability.VOLATILE:
            assert row.synced and not is_open(row) and seen.file is not None
            assert (verdict.durability is Durability.SYNCED_OWN) == (row.own is not None)


def test_a_copy_of_the_base_is_a_cached_file_only_without_a_power_cut():
    for row, seen in those(Unchanged):
        assert classify(row, seen) == Unchanged(row.base is not None and not is_power_cut(row, seen))


def test_the_verdict_does_not_depend_on_an_attempt_on_its_way():
    for row, seen in ALL:
        if State(row.state) in SENDING - OPEN_STATES:
            assert classify(row, seen) == classify(row._replace(state=State.QUEUED.value), seen)


def test_the_row_as_read_breaks_no_invariant_of_pending():
    for row, seen in ALL:
        pending = pending_of(row, seen, 0.0)
        if not (pending.staged is not None and pending.in_flight is None and pending.open):
            check(pending)
        assert pending.changed == is_changed(row, seen)
        assert pending.staged is None or seen.file is None or pending.size == size_of(row, seen.file)


# ---- examples
@pytest.mark.parametrize(
    ("row", "seen", "verdict"),
    [
        pytest.param(ROW, HERE, Queue(Durability.VOLATILE), id="closed"),
        pytest.param(ROW._replace(synced=True), HERE, Queue(Durability.SYNCED), id="closed and synced"),
        pytest.param(
            ROW._replace(synced=True, own=((0, 4),)), HERE, Queue(Durability.SYNCED_OWN), id="synced in part"
        ),
        pytest.param(
            ROW._replace(synced=True, boot=BEFORE), HERE, Queue(Durability.SYNCED), id="synced, power cut"
        ),
        pytest.param(
            ROW._replace(boot=BEFORE), HERE, Park(TORN, Durability.VOLATILE), id="not synced, power cut"
        ),
        pytest.param(
            ROW._replace(synced=True), Evidence(NOW, SHORTER), Park(TORN, Durability.VOLATILE), id="shortened"
        ),
        pytest.param(OPEN, HERE, Queue(Durability.VOLATILE), id="written, killed"),
        pytest.param(
            OPEN._replace(synced=True, boot=BEFORE),
            HERE,
            Park(TORN, Durability.VOLATILE),
            id="open, power cut",
        ),
        pytest.param(OPEN, Evidence(NOW, AS_OPENED), Unchanged(True), id="opened, killed"),
        pytest.param(
            OPEN._replace(boot=BEFORE), Evidence(NOW, AS_OPENED), Unchanged(False), id="opened, power cut"
        ),
        pytest.param(BARE, HERE, Unchanged(True), id="opened without bytes, killed"),
        pytest.param(OPEN, Evidence(NOW, AS_OPENED, has_writer=True), Step.ADOPT, id="take-over"),
        pytest.param(ROW, Evidence(NOW, None), Step.MISSING, id="file missing"),
        pytest.param(
            ROW._replace(synced=True, boot=BEFORE),
            Evidence(NOW, None),
            Step.MISSING,
            id="synced, file missing",
        ),
        pytest.param(
            ROW._replace(boot=BEFORE), Evidence(NOW, None), Step.NEVER_STORED, id="edit never stored"
        ),
        pytest.param(
            ROW._replace(boot=BEFORE, base=None),
            Evidence(NOW, None),
            Step.NEVER_STORED,
            id="file never stored",
        ),
        pytest.param(
            ROW._replace(boot=BEFORE, base=ELSEWHERE),
            Evidence(NOW, None),
            WithoutStaged(True),
            id="renamed, edit never stored",
        ),
        pytest.param(
            UNCHANGED_NAME._replace(boot=BEFORE), HERE, WithoutStaged(False), id="renamed only, power cut"
        ),
        pytest.param(
            ROW._replace(state=State.PARKED.value, reason=TORN), HERE, Step.DOUBTFUL, id="parked as torn"
        ),
        pytest.param(
            ROW._replace(state=State.PARKED.value, reason="refused"),
            HERE,
            Queue(Durability.VOLATILE),
            id="parked as refused",
        ),
        pytest.param(
            OPEN._replace(before=State.PARKED.value, changed=True, reason=UNSYNCED),
            HERE,
            Park(UNSYNCED, Durability.VOLATILE),
            id="damaged, reopened",
        ),
        pytest.param(
            ROW._replace(staged=None, changed=False, base=ELSEWHERE, boot=BEFORE),
            Evidence(NOW, None),
            Queue(Durability.VOLATILE),
            id="renamed in the bucket",
        ),
    ],
)
def test_example(row: PendingInode, seen: Evidence, verdict: object):
    assert classify(row, seen) == verdict


def test_bytes_past_the_listed_ranges_do_not_count():
    """Their write was never answered."""
    row = ROW._replace(size=4, own=((2, 6),))
    assert size_of(row, FileStat(SIZE, 2, 2)) == 6
    assert size_of(row, FileStat(5, 2, 2)) == 5
    assert size_of(row._replace(own=None), FileStat(SIZE, 2, 2)) == SIZE
