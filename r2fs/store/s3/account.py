"""The buckets of an account: ListBuckets, by boto3.

Never:   touches a bucket.
Fails:   StoreError's subclasses. Where the credentials may not list buckets, the message says how to name them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any, Final

from r2fs.model.errors import PermissionRefused, Retryable
from r2fs.model.ports import Clock
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.check import Checks
from r2fs.store.s3.client import make_client
from r2fs.store.s3.failures import translated

TIMEOUT_S: Final = 4.0  # a program waits for the listing of the mount's root
TRIES: Final = 3
PAUSE_S: Final = 0.5


def bucket_names(
    account: Bucket, clock: Clock, counter: RequestCounter, credentials: Callable[[], Credentials] | None
) -> list[str]:
    """The names of all buckets that the service lists for these credentials, the settings' as they are now."""
    if credentials is not None:
        account = replace(account, credentials=credentials())
    checks = Checks(account, clock)
    with translated(account.url, checks.host, None, checks.dated):
        client: Any = make_client(account, counter, TIMEOUT_S, TIMEOUT_S)
    try:
        for left in range(TRIES - 1, -1, -1):
            try:
                with translated(account.url, checks.host, None, checks.dated):
                    answer = client.list_buckets()
                    return sorted(str(found["Name"]) for found in answer.get("Buckets") or ())
            except Retryable:
                if not left:
                    raise
                clock.wait(Event(), PAUSE_S)
        raise AssertionError("the last try returns or raises")
    except PermissionRefused as error:
        raise PermissionRefused(
            f"these credentials may not list the account's buckets: name those to mount by --bucket ({error})"
        ) from error
    finally:
        client.close()
