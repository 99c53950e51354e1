"""The table of answers: walked, and held to the conventions that the retries rely on."""

from __future__ import annotations

import pytest

from r2fs.model.errors import (
    BadCredentials,
    BodyDamaged,
    BucketMissing,
    ClockSkewed,
    NotImplementedThere,
    ObjectLocked,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    RangeInvalid,
    Refused,
    StoreError,
    Throttled,
    TooLargeThere,
    Unavailable,
    UploadMissing,
)
from r2fs.store.answers import BY_CODE, BY_STATUS, SignatureRejected, error_of, meaning_of
from r2fs.store.s3.listing import not_deleted
from r2fs.store.s3.xml import Document, Malformed

# What R2 documents, or was seen to answer: (status, code) and what it must become.
R2_ANSWERS = [
    (500, "InternalError", Unavailable),
    (503, "ServiceUnavailable", Unavailable),
    (503, "SlowDown", Throttled),
    (429, "TooManyRequests", Throttled),
    (400, "IncompleteBody", BodyDamaged),
    (400, "BadDigest", BodyDamaged),
    (400, "ClientDisconnect", BodyDamaged),
    (403, "SignatureDoesNotMatch", SignatureRejected),
    (401, "Unauthorized", BadCredentials),
    (403, "AccessDenied", PermissionRefused),
    (404, "NoSuchBucket", BucketMissing),
    (404, "NoSuchKey", ObjectMissing),
    (404, "NoSuchUpload", UploadMissing),
    (400, "EntityTooSmall", UploadMissing),
    (400, "InvalidPart", UploadMissing),
    (400, "EntityTooLarge", TooLargeThere),
    (400, "MetadataTooLarge", Refused),
    (400, "InvalidObjectName", Refused),
    (400, "MalformedXML", Refused),
    (412, "PreconditionFailed", PreconditionFailed),
    (416, "InvalidRange", RangeInvalid),
    (501, "NotImplemented", NotImplementedThere),
    (403, "RequestTimeTooSkewed", ClockSkewed),
    (409, "ObjectLockedByBucketPolicy", ObjectLocked),
]


@pytest.mark.parametrize(("status", "code", "wanted"), R2_ANSWERS)
def test_what_r2_answers(status: int, code: str, wanted: type[StoreError]):
    error = error_of("takes/07.wav", status, code, "in the server's words")
    assert type(error) is wanted
    assert "takes/07.wav" in str(error)
    assert "in the server's words" in str(error)
    assert code in str(error)


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (401, BadCredentials),
        (403, PermissionRefused),
        (404, ObjectMissing),
        (412, PreconditionFailed),
        (416, RangeInvalid),
        (429, Throttled),
        (500, Unavailable),
        (501, NotImplementedThere),
        (503, Unavailable),
        (599, Unavailable),
        (400, Refused),
        (418, Refused),
    ],
)
def test_without_a_body_the_status_decides(status: int, wanted: type[StoreError]):
    """boto3 gives the status as the code of a HEAD's error."""
    error = error_of("key", status, str(status))
    assert type(error) is wanted
    assert str(error).count(str(status)) == 1


@pytest.mark.parametrize("code", BY_CODE)
def test_the_code_counts_more_than_the_status(code: str):
    assert meaning_of(400, code) is BY_CODE[code]
    assert meaning_of(503, code) is BY_CODE[code]


@pytest.mark.parametrize("meaning", [*BY_CODE.values(), *BY_STATUS.values()], ids=lambda m: m.error.__name__)
def test_every_row_can_be_raised_and_reads_as_a_sentence(meaning):
    error = meaning.error(f"key: {meaning.says}")
    assert isinstance(error, StoreError)
    assert not meaning.says.endswith(".")
    if isinstance(error, Refused) and not isinstance(error, NotImplementedThere | TooLargeThere):
        assert ":" in meaning.says, "a refusal names what to do"


def test_what_was_not_deleted():
    answer = Document(
        "DeleteResult",
        {},
        [
            ("Error", {"Key": "b", "Code": "ObjectLockedByBucketPolicy", "Message": "locked"}),
            ("Error", {"Key": "P\u00e4d", "Code": "InternalError"}),
            ("Error", {"Key": "gone", "Code": "NoSuchKey"}),
        ],
    )
    found = not_deleted(answer, ["a", "b", "Pa\u0308d", "gone"])
    assert {key: type(error) for key, error in found.items()} == {"b": ObjectLocked, "Pa\u0308d": Unavailable}
    with pytest.raises(Malformed, match="no key in place of a key"):
        not_deleted(Document("DeleteResult", {}, [("Error", {"Code": "AccessDenied"})]), ["a"])


def test_a_message_cannot_break_a_terminal():
    error = error_of("a\x1b[2Jb\nc", 400, "Odd", "x\x1b]0;y\x07\n" + "z" * 1000)
    assert str(error).isprintable()
    assert len(str(error)) < 400
