"""Check of a bucket before use: one LIST of one key, with short timeouts.

Owns:    the choice of transport: without boto3 where possible. The first request of a mount then finds a connection
         open, and boto3 makes no second client. Refusals are explained by boto3's answer, but for silence and throttling.
Fails:   StoreError's subclasses, with a remedy; ClockSkewed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from r2fs.model.errors import MalformedAnswer, Retryable, StoreError
from r2fs.model.settings import Bucket
from r2fs.store.s3.check import Checks
from r2fs.store.s3.clients import Clients
from r2fs.store.s3.listing import Asked, page_of
from r2fs.store.s3.wire import Answer

log = logging.getLogger(__name__)

TIMEOUT_S = 4.0  # a person waits for the answer

Translated = Callable[[], AbstractContextManager[Answer]]


def check_bucket(bucket: Bucket, clients: Clients, checks: Checks, translated: Translated) -> None:
    wanted: dict[str, Any] = {"Bucket": bucket.name, "Prefix": bucket.prefix, "MaxKeys": 1}
    try:
        answered, date = _by_requests(bucket, clients, translated, wanted)
    except Retryable as error:
        if not isinstance(error, MalformedAnswer):
            raise checks.explained(error) from error.__cause__
        answered, date = False, None
    except StoreError as error:
        log.debug("%s: by boto3, after %s", bucket.url, error)
        answered, date = False, None
    if not answered:
        date = _by_boto(bucket, clients, checks, translated, wanted)
    checks.check_clock(date)


def _by_requests(
    bucket: Bucket, clients: Clients, translated: Translated, wanted: Mapping[str, Any]
) -> tuple[bool, str | None]:
    """Return True and the answer's Date; False: boto3 alone knows the way."""
    with translated() as seen:
        requests = clients.requests()
        if requests is None:
            return False, None
        answer = requests.send("ListObjectsV2", wanted, TIMEOUT_S)
        page_of(seen.read(), Asked(bucket.name, bucket.prefix))
    return True, answer.get("Date")


def _by_boto(
    bucket: Bucket, clients: Clients, checks: Checks, translated: Translated, wanted: Mapping[str, Any]
) -> str | None:
    """Return the answer's Date."""
    with translated():
        client = clients.make(TIMEOUT_S, TIMEOUT_S)
    try:
        with translated() as seen:
            answer: Mapping[str, Any] = client.list_objects_v2(**wanted)
            page_of(seen.read(), Asked(bucket.name, bucket.prefix))
    except MalformedAnswer as error:
        raise checks.not_s3() from error
    except StoreError as error:
        raise checks.explained(error) from error.__cause__
    finally:
        client.close()
    date: str | None = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return date
