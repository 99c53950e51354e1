"""Check of a bucket before use, by one LIST of one key: its endpoint, its credentials, this host's clock.

Owns:    how the refusal of an S3 server is told from the answer of another server, and the clock's comparison.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions as boto_errors

from r2fs.model.errors import (
    BadCredentials,
    ClockSkewed,
    MalformedAnswer,
    ObjectMissing,
    Refused,
    Retryable,
    StoreError,
    Unavailable,
)
from r2fs.model.keys import printable
from r2fs.model.ports import Clock
from r2fs.model.settings import Bucket
from r2fs.store.answers import server_text
from r2fs.store.s3.clients import Clients
from r2fs.store.s3.listing import Asked, page_of
from r2fs.store.s3.wire import Answer

log = logging.getLogger(__name__)

TIMEOUT_S = 4.0  # a person waits for the answer
SKEW_S = 900.0  # R2 and AWS refuse signatures that are further off


class Checks:
    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        # constant
        self._url = bucket.url
        self._clock = clock
        endpoint = urlsplit(bucket.endpoint_url or "")
        self.host = endpoint.netloc or "AWS"
        self._doubled = endpoint.path.rstrip("/").endswith(f"/{bucket.name}")
        self._bucket = bucket.name

    def explained(self, error: StoreError) -> StoreError:
        """Return the error of a LIST with a remedy: an S3 server's refusal has an XML body with a code."""
        cause = error.__cause__
        if not isinstance(cause, boto_errors.ClientError):
            return error
        code, message = cause.response["Error"].get("Code", ""), cause.response["Error"].get("Message", "")
        if code.isdigit():
            return self.not_s3(Unavailable if int(code) >= 500 else Refused)
        if isinstance(error, ObjectMissing):  # taken for a GET: the endpoint's path has a bucket already
            return self.not_s3()
        if code == "InvalidArgument" and re.search("access key|authorization", message, re.IGNORECASE):
            # R2's way to say that a key id is none of its own, or that there is none.
            return BadCredentials(f"{self._url}: check the access key id ({code}: {server_text(message)})")
        return error

    def not_s3(self, error: type[StoreError] = Refused) -> StoreError:
        remedy = "check the endpoint URL"
        if self._doubled:
            remedy += (
                f", which ends before /{printable(self._bucket)}: the bucket is named in the mount's URL"
            )
        return error(f"{self._url}: {self.host} does not answer as an S3 server does: {remedy}")

    # ------------------------------------------------------------------ the clock
    def check_clock(self, date: str | None) -> None:
        """ClockSkewed where an answer's `date` is too far from this host's time."""
        off = self._off_s(date)
        if abs(off) > SKEW_S:
            raise ClockSkewed(f"{self._url}: this host's clock is {_text(off)}: set it")

    def dated(self, error: StoreError, answer: boto_errors.ClientError) -> StoreError:
        """A refusal for the clock says by how much it is off, and which way: the answer's Date tells."""
        if not isinstance(error, ClockSkewed):
            return error
        off = self._off_s(answer.response["ResponseMetadata"].get("HTTPHeaders", {}).get("date"))
        return ClockSkewed(f"{error}; it is {_text(off)}") if abs(off) >= 1 else error

    def _off_s(self, date: str | None) -> float:
        """Seconds by which this host's clock is ahead; 0 where the answer had no Date to compare it with."""
        try:
            return self._clock.time() - parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return 0.0


def _text(off_s: float) -> str:
    amount = f"{abs(off_s) / 60:.0f} minutes" if abs(off_s) >= 120 else f"{abs(off_s):.0f} seconds"
    return f"{amount} {'ahead of' if off_s > 0 else 'behind'} the bucket's"


Translated = Callable[[], AbstractContextManager[Answer]]


def check_bucket(bucket: Bucket, clients: Clients, checks: Checks, translated: Translated) -> None:
    """Send one LIST of one key. Raises StoreError's subclasses with a remedy, and ClockSkewed.

    Without boto3, if possible: the first request of a mount then finds a connection open, and boto3 makes no second
    client. Refusals are explained by boto3's answer, but for silence and throttling.
    """
    wanted: dict[str, Any] = {"Bucket": bucket.name, "Prefix": bucket.prefix, "MaxKeys": 1}

    def listed(send: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        with translated() as seen:
            answer = send()
            page_of(seen.read(), Asked(bucket.name, bucket.prefix))
        return answer

    requests = clients.requests()
    if requests is not None:
        try:
            answer = listed(lambda: requests.send("ListObjectsV2", wanted, TIMEOUT_S))
        except StoreError as error:
            if isinstance(error, Retryable) and not isinstance(error, MalformedAnswer):
                raise checks.explained(error) from error.__cause__
            log.debug("%s: by boto3, after %s", bucket.url, error)
        else:
            checks.check_clock(answer.get("Date"))
            return
    with translated():
        client = clients.make(TIMEOUT_S, TIMEOUT_S)
    try:
        answer = listed(lambda: client.list_objects_v2(**wanted))
    except MalformedAnswer as error:
        raise checks.not_s3() from error
    except StoreError as error:
        raise checks.explained(error) from error.__cause__
    finally:
        client.close()
    checks.check_clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
