"""The verdict of each answer to an upload, at every combination of what it depends on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from r2fs.disk.body import Gate
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.writeback import verdict
from r2fs.engine.writeback.verdict import Verdict, View
from r2fs.model import errors
from r2fs.model.metadata import ATTEMPT, Facts, attributes_from
from r2fs.model.pending import SENDING, Checkpoint, InFlight, Pending, Retry, Staged, State, check
from r2fs.model.records import Kind, ObjectInfo, Version

KEY, ELSEWHERE = "takes/1.wav", "takes/2.wav"
MINE, OTHER = "mine", "other"  # attempts
BASE = Version(KEY, "e1", 5)
STATES = sorted(SENDING, key=lambda state: state.value)


def job(kind: Kind = Kind.FILE, copy: bool = False, base: Version | None = BASE, key: str = KEY) -> UploadJob:
    return UploadJob(
        1, kind, key, {key}, "1.wav", MINE, "e1", Facts(mode=0o600), True, None, base, copy,
        None, -1, 5, Gate(), lambda count: None,
    )  # fmt: skip


def pending(state: State, key: str, current: bool, failures: int = 0, changed: bool = True) -> Pending:
    return Pending(
        key, 1, state, changed, "e1", 0.0, Staged("1-1", size=5),
        checkpoint=Checkpoint(State.UPLOADING, True, False) if state is State.STALE_UPLOAD else None,
        in_flight=InFlight(MINE if current else OTHER, KEY),
        retry=Retry(failures),
    )  # fmt: skip


def view_of_pending(**options: object) -> Iterator[View]:
    """A view for each state, key and attempt that an answer may find."""
    for state, key, current in itertools.product(STATES, (KEY, ELSEWHERE), (True, False)):
        yield replace(View(pending(state, key, current)), **options)  # type: ignore[arg-type]
    yield replace(View(None), **options)  # type: ignore[arg-type]


def found(etag: str = "e2", size: int = 5, by: str | None = OTHER, key: str = KEY) -> ObjectInfo:
    return ObjectInfo(key, size, etag, 0, "audio/wav", {} if by is None else {ATTEMPT: by})


# ---- a success
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_success_is_committed_for_the_attempts_own_inode_alone(copy: bool, recorded: bool):
    for view in view_of_pending(recorded=recorded):
        decided = verdict.after_stored(job(copy=copy), BASE, view)
        if recorded:
            assert decided is verdict.Step.RECORDED
        elif view.pending is None or not view.is_current(job()):
            assert decided is verdict.Step.ORPHANED, "nobody's: the object is deleted"
        else:
            assert isinstance(decided, verdict.Commit)
            assert decided.moved is (view.pending.key != KEY)
            following = decided.following
            assert (following is None) is (view.pending.state is State.UPLOADING)
            if following is not None:
                check(following)
                assert following.in_flight is None
                assert following.expected_etag == ("e1" if decided.moved else BASE.etag)


# ---- 412 for a file
def refusals() -> Iterator[tuple[View, ObjectInfo | None, bool, Verdict]]:
    objects = (None, found(), found(by=None), found(by=MINE), found(etag="e1"), found(size=0))
    for info, ours, same, copy in itertools.product(objects, (False, True), (False, True), (False, True)):
        for view in view_of_pending(ours=ours, same_bytes=same):
            yield view, info, copy, verdict.after_refusal(job(copy=copy), info, view)


def test_an_object_of_another_host_is_kept_and_so_are_the_bytes_of_this_one():
    conflicts = 0
    for view, info, _, decided in refusals():
        theirs = (
            info is not None
            and info.metadata != {ATTEMPT: MINE}
            and not (view.ours or view.same_bytes or info.etag == "e1")
        )
        at_its_key = view.pending is not None and view.pending.key == KEY
        if theirs and at_its_key and view.is_current(job()):
            assert view.pending is not None
            wanted = (
                verdict.Step.CONFLICT_WHILE_OPEN
                if view.pending.state is State.STALE_UPLOAD
                else verdict.Step.KEEP_BOTH
            )
            assert decided == wanted
            conflicts += 1
        else:
            assert decided not in (verdict.Step.CONFLICT_WHILE_OPEN, verdict.Step.KEEP_BOTH)
    assert conflicts


def test_the_attempts_own_object_is_its_success():
    for _, info, _, decided in refusals():
        own = info is not None and info.metadata == {ATTEMPT: MINE}
        assert isinstance(decided, verdict.Stored) is own
        if isinstance(decided, verdict.Stored):
            assert info is not None
            assert decided == verdict.Stored(info.version, job().facts)


def test_an_earlier_attempts_object_is_a_success_if_it_says_the_same():
    """Its answer was lost. With other metadata it is sent anew, over the version that was found."""
    facts = attributes_from(found())
    for view in view_of_pending(ours=True, same_bytes=True):
        decided = verdict.after_refusal(replace(job(), facts=facts), found(), view)
        assert decided == verdict.Stored(found().version, facts)
        decided = verdict.after_refusal(replace(job(), facts=replace(facts, mode=0o640)), found(), view)
        assert decided == verdict.Again(verdict.expect(found().etag))


def test_the_next_attempt_expects_the_object_that_was_seen():
    for _, info, _, decided in refusals():
        if isinstance(decided, verdict.Again):
            assert decided.correction.expects
            assert decided.correction.expected_etag == (None if info is None else info.etag)


def test_metadata_of_another_host_at_the_same_bytes_are_merged():
    for view, info, _, decided in refusals():
        if isinstance(decided, verdict.Again) and info is not None:
            own = view.ours or info.etag == "e1" or view.has_moved(job())
            assert (decided.merge is not None) is not own


def test_an_expectation_of_the_old_key_says_nothing_of_the_new_one():
    moved, here = pending(State.UPLOADING, ELSEWHERE, True), pending(State.UPLOADING, KEY, True)
    correction = verdict.expect("e2")
    assert correction.apply(moved, moved=True).expected_etag == "e1"
    assert correction.apply(here, moved=False).expected_etag == "e2"


# ---- 412 for a directory
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("base", [None, Version("d/", "e1", 5), Version("old/", "e9", 5)])
def test_bytes_at_a_directorys_key_are_never_overwritten(copy: bool, size: int, base: Version | None):
    """What is sent next is a body only where the object found is empty; else a copy of it onto itself, or nothing."""
    made = replace(job(Kind.DIRECTORY, copy, base, "d/"), attempt=MINE)
    for etag, ours, failures, at in itertools.product(("e1", "e2"), (False, True), (0, 1), ("d/", "e/")):
        info = found(etag, size, key="d/")
        for state, current in itertools.product(STATES, (True, False)):
            value = pending(state, at, current, failures)
            decided = verdict.after_refusal(made, info, View(value, ours=ours, metadata_known=True))
            match decided:
                case verdict.Stored():
                    assert not size
                    assert not copy
                case verdict.Again(correction) if correction.expects:
                    if correction.changed is not None:
                        assert correction.changed is (not size)
                        assert correction.change.get("base") == info.version
                    else:
                        assert copy
                        assert base is not None
                        assert base.key != "d/"
                case verdict.Again():
                    assert at != "d/"
                    assert not ours
                case verdict.Park():
                    assert size
                    assert current
                case verdict.Step.NOTHING:
                    assert not current
                case other:
                    pytest.fail(f"{other}")


def test_a_server_that_refuses_its_own_etag_for_ever_is_believed_the_second_time():
    made = job(Kind.DIRECTORY, base=None, key="d/")
    info = found("e1", 0, key="d/")
    first = verdict.after_refusal(made, info, View(pending(State.UPLOADING, "d/", True)))
    assert isinstance(first, verdict.Again)
    second = verdict.after_refusal(made, info, View(pending(State.UPLOADING, "d/", True, failures=1)))
    assert isinstance(second, verdict.Stored)
    assert second.refuses_metadata


# ---- the source of a copy
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY])
def test_after_the_loss_of_a_source_bytes_of_this_host_are_sent_and_none_are_made_up(kind: Kind):
    for key, changed, own, here, info in itertools.product(
        (KEY, ELSEWHERE), (False, True), (False, True), (False, True), (None, found())
    ):
        made = job(kind, copy=True, key=key)
        for state, current in itertools.product(STATES, (True, False)):
            value = pending(state, key, current, changed=changed)._replace(
                in_flight=InFlight(MINE if current else OTHER, key),
            )
            decided = verdict.after_source_lost(made, info, View(value, own_copy=own, all_here=here))
            if not current:
                assert decided is verdict.Step.NOTHING
            elif kind is Kind.DIRECTORY:
                assert isinstance(decided, verdict.Again)
                assert decided.correction.change.get("base") == (info.version if info else None)
            elif changed:
                assert decided == verdict.Again()
            elif own and info is not None and key == KEY:
                assert isinstance(decided, verdict.Again)
                assert decided.rebased
                assert decided.correction.change.get("base") == info.version
            elif here and key != KEY:
                assert decided is verdict.Step.SEND_OWN
            else:
                assert decided is verdict.Step.FOLLOW_SOURCE


# ---- errors
def errors_of_an_upload() -> Iterator[Exception]:
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, errors.R2fsError):
            yield each("why")


def test_each_error_keeps_the_bytes_and_says_when_to_try_again():
    for error, failures in itertools.product(errors_of_an_upload(), (0, verdict.OWN_REFUSALS)):
        for view in view_of_pending():
            if view.pending is not None:
                view = replace(view, pending=view.pending._replace(retry=Retry(failures)))
            decided = verdict.after_error(job(), error, view)
            if not view.is_current(job()):
                assert decided is verdict.Step.NOTHING
                continue
            assert isinstance(decided, verdict.TryLater | verdict.Park), error
            if isinstance(error, (*errors.BUCKET_WIDE, errors.Unavailable)):
                assert isinstance(decided, verdict.TryLater)
                assert decided.pause is verdict.Pause.BUCKET
            elif isinstance(
                error, errors.Retryable | errors.LocalError | errors.NoSpace | errors.UploadMissing
            ):
                assert isinstance(decided, verdict.TryLater)
            else:
                assert isinstance(decided, verdict.Park)
                assert decided.hold.transient is isinstance(error, errors.QuotaUsedUp)
            if isinstance(decided, verdict.TryLater) and not isinstance(error, errors.BodyWithdrawn):
                assert decided.retry.failures == failures + 1


def test_a_file_that_alone_is_refused_is_parked_once_others_were_taken():
    error = errors.PermissionRefused("403")
    value = pending(State.UPLOADING, KEY, True)
    for failures, others in itertools.product(range(5), (0, 1)):
        refused = value._replace(retry=Retry(failures, refused_at=7))
        decided = verdict.after_error(job(), error, View(refused, uploaded=7 + others))
        alone = failures >= verdict.OWN_REFUSALS and others > 0
        assert isinstance(decided, verdict.Park) is alone


def test_an_attempt_without_a_clear_no_may_be_in_the_bucket():
    for error in errors_of_an_upload():
        if verdict.may_be_stored(error):
            assert not isinstance(error, errors.Refused | errors.PreconditionFailed | errors.Throttled), error
    assert verdict.may_be_stored(errors.Unavailable("no answer"))
    assert verdict.may_be_stored(errors.UploadMissing("the answer to Complete was lost"))
