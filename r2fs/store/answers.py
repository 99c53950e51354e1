"""Errors for the refusals of an S3 server, by one table of codes and statuses; and a filter for text of a server.

Owns:  the table, which `tests/unit/store/test_answers.py` walks. The code of the XML body decides, if the table has it,
       else the HTTP status. HEAD has no body: boto3 then gives the status as the code, which the table does not have.
Never: imports boto3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

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
    QuotaUsedUp,
    RangeInvalid,
    Refused,
    StoreError,
    Throttled,
    TooLargeThere,
    Unavailable,
    UploadMissing,
)
from r2fs.model.keys import printable
from r2fs.model.redaction import SHOWN, redact_identifiers

CODE = 60  # characters of an error code that are shown; the longest of S3's have forty


class SignatureRejected(BadCredentials):
    """403 SignatureDoesNotMatch: a wrong secret; R2 now and then sends it for a right one. The store retries it."""


@dataclass(frozen=True, slots=True)
class Meaning:
    error: type[StoreError]
    says: str  # the event, in words; for Refused with the remedy


_KEY = Meaning(
    BadCredentials, "the access key was refused: check the access key id and the endpoint's account"
)
_SECRET = Meaning(SignatureRejected, "the signature was refused: check the secret access key")
_TOKEN = Meaning(BadCredentials, "the session token was refused or has expired: get new credentials")
_DENIED = Meaning(
    PermissionRefused,
    "not allowed with these credentials: check the token's permissions, and that it covers this bucket",
)
_CLOCK = Meaning(ClockSkewed, "this host's clock is wrong: set it (an NTP service keeps it right)")
_BUCKET = Meaning(
    BucketMissing, "there is no such bucket: check its name and the endpoint's account, or create it"
)
_REGION = Meaning(Refused, "the bucket is not served here: check the endpoint and the region")
_BUSY = Meaning(Throttled, "the bucket is busy")
_DOWN = Meaning(Unavailable, "the bucket cannot answer now")
_BODY = Meaning(BodyDamaged, "the body did not arrive whole")
_PARTS = Meaning(UploadMissing, "the parts of the multipart upload do not fit")
_LARGE = Meaning(TooLargeThere, "larger than the bucket allows")
_NAME = Meaning(Refused, "the bucket does not take this name: rename the file")
_QUOTA = Meaning(QuotaUsedUp, "the bucket's quota is used up: free space there or raise it")
_LOCKED = Meaning(
    ObjectLocked, "the object is locked: wait for the end of its retention, or change the bucket's lock rule"
)
_NOT_THERE = Meaning(NotImplementedThere, "this server does not offer the operation")

BY_CODE: dict[str, Meaning] = {
    "InternalError": _DOWN,
    "ServiceUnavailable": _DOWN,
    "OperationAborted": _DOWN,
    "SlowDown": _BUSY,
    "TooManyRequests": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "BandwidthLimitExceeded": _BUSY,
    # AWS: two conditional writes met; not carried out, to be sent again. R2 has no 409 for it.
    "ConditionalRequestConflict": _BUSY,
    "IncompleteBody": _BODY,
    "BadDigest": _BODY,
    "ClientDisconnect": _BODY,
    "RequestTimeout": _BODY,
    "XAmzContentSHA256Mismatch": _BODY,
    "XAmzContentChecksumMismatch": _BODY,
    "NoSuchKey": Meaning(ObjectMissing, "there is no such object"),
    "NoSuchUpload": Meaning(UploadMissing, "the multipart upload is gone"),
    "InvalidPart": _PARTS,
    "InvalidPartOrder": _PARTS,
    "EntityTooSmall": _PARTS,
    "PreconditionFailed": Meaning(PreconditionFailed, "the object is another version by now"),
    "InvalidRange": Meaning(RangeInvalid, "the object ends before that range"),
    "Unauthorized": _KEY,
    "InvalidAccessKeyId": _KEY,
    "NotSignedUp": _KEY,
    "SignatureDoesNotMatch": _SECRET,
    "ExpiredToken": _TOKEN,
    "InvalidToken": _TOKEN,
    "TokenRefreshRequired": _TOKEN,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AccountProblem": _DENIED,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "NoSuchBucket": _BUCKET,
    "InvalidBucketName": _BUCKET,
    "BucketAlreadyExists": Meaning(Refused, "the name is another account's bucket: choose another"),
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "InvalidRegionName": _REGION,
    "EntityTooLarge": _LARGE,
    "MaxMessageLengthExceeded": _LARGE,
    "MetadataTooLarge": Meaning(Refused, "too many extended attributes: R2 takes 8,192 bytes; remove some"),
    "InvalidObjectName": _NAME,
    "KeyTooLongError": _NAME,
    "QuotaExceeded": _QUOTA,
    "InsufficientStorage": _QUOTA,
    "XMinioStorageFull": _QUOTA,
    "ObjectLockedByBucketPolicy": _LOCKED,  # R2: 409
    "NotImplemented": _NOT_THERE,
    "MethodNotAllowed": _NOT_THERE,
}

BY_STATUS: dict[int, Meaning] = {
    301: _REGION,
    307: _REGION,
    308: _REGION,
    401: _KEY,
    403: _DENIED,
    404: BY_CODE["NoSuchKey"],
    405: _NOT_THERE,
    408: _BODY,
    409: _DOWN,
    411: _BODY,
    412: BY_CODE["PreconditionFailed"],
    413: _LARGE,
    416: BY_CODE["InvalidRange"],
    429: _BUSY,
    501: _NOT_THERE,
    507: _QUOTA,
}
_OTHER_REFUSAL = Meaning(Refused, "the bucket refuses the request; its reason follows")


def meaning_of(status: int, code: str) -> Meaning:
    """Return the table's meaning; without one, Unavailable for 5xx and else Refused."""
    known = BY_CODE.get(code) or BY_STATUS.get(status)
    if known is not None:
        return known
    return _DOWN if status >= 500 else _OTHER_REFUSAL


def error_of(name: str, status: int, code: str, message: str = "") -> StoreError:
    """Return the error for an answer about `name` (a key, or the bucket's URL)."""
    meaning = meaning_of(status, code)
    said = server_text(code, CODE) if code != str(status) else ""
    answer = " ".join(part for part in (str(status or ""), said) if part)
    detail = f" ({answer}: {server_text(message)})" if message else f" ({answer})"
    return meaning.error(f"{printable(name)}: {meaning.says}{detail}")


class StoredDamaged(BodyDamaged):
    """A PUT was answered with the ETag of other bytes than were sent: the stored object is damaged.

    `etag`: of that object, so that the next attempt replaces no other.
    """

    def __init__(self, message: str, etag: str) -> None:
        super().__init__(message)
        self.etag = etag


SENTENCE: Final = 200  # characters that are shown

# A signature is another one for each request, so that no table can hold it.
_SIGNING = re.compile(
    r"(?P<name>signature|credential|authorization|security-token)(?P<is>\s*[=:]\s*)[^\s,;&<>\"']+"
    r"|(?<![0-9A-Za-z])[0-9A-Fa-f]{64}(?![0-9A-Za-z])",
    re.IGNORECASE,
)


def server_text(text: str, limit: int = SENTENCE) -> str:
    """Return one printable line, cut to `limit` characters, without secrets, key ids and signatures.

    A server's answer may be of any length, move a terminal's cursor, and repeat the key, the token and the signature
    of the request. Names of this host are left alone: a key of 64 hexadecimal digits is a name like any other.
    """
    text = redact_identifiers(" ".join(text[: 100 * limit].split()))
    text = printable(_SIGNING.sub(_without_signature, text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _without_signature(found: re.Match[str]) -> str:
    return f"{found['name']}{found['is']}{SHOWN}" if found["name"] else SHOWN
