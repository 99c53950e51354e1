"""Administration of buckets, by boto3: create one; CORS and lifecycle rules; unfinished uploads; an account's buckets.

Owns:    the forms of the documents: the list of rules as S3 names their fields (CORSRule, LifecycleRule).
Never:   touches objects; aborts an upload.
Fails:   StoreError's subclasses; BadDocument for rules that S3 does not have, which are not sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Final

import botocore.exceptions as boto_errors

from r2fs.model.errors import BucketMissing, ObjectMissing, PermissionRefused, Retryable, SettingsError
from r2fs.model.keys import printable
from r2fs.model.ports import Clock
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.check import Checks
from r2fs.store.s3.client import make_client
from r2fs.store.s3.failures import translated

TIMEOUT_S: Final = 15.0
NAMES_TIMEOUT_S: Final = 4.0  # a program waits for the listing of the mount's root
NAMES_TRIES: Final = 3
NAMES_PAUSE_S: Final = 0.5
UPLOAD_PAGES: Final = 10  # of 1,000 uploads each
NOTHING_SET: Final = frozenset({"NoSuchCORSConfiguration", "NoSuchLifecycleConfiguration"})
NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # of a new bucket; R2 has no dots
AWS_DEFAULT_REGION: Final = "us-east-1"  # the one that CreateBucket must not name

Rules = Sequence[Mapping[str, Any]]


class BadDocument(SettingsError):
    """Rules that S3 does not have."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    begun_s: float  # seconds since 1970


class BucketAdmin:
    def __init__(
        self,
        bucket: Bucket,
        clock: Clock,
        counter: RequestCounter | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        # constant
        self._bucket = bucket
        self._checks = Checks(bucket, clock)
        with self._translated():
            self._client: Any = make_client(bucket, counter or RequestCounter(), timeout_s, timeout_s)

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with translated(self._bucket.url, self._checks.host, None, self._checks.dated):
            yield

    def create(self, location: str | None) -> bool:
        """Create the bucket. False: it was there, and belongs to these credentials.

        `location`: R2's hint (wnam, enam, weur, eeur, apac, oc), or a region of AWS; None: chosen by the service.
        """
        if NAME.fullmatch(self._bucket.name) is None:
            raise SettingsError(
                f"{printable(self._bucket.name)} is not a valid bucket name: 3 to 63 lower-case letters, digits and "
                "hyphens, first and last a letter or digit"
            )
        given: dict[str, Any] = {"Bucket": self._bucket.name}
        where = location or (self._bucket.region if self._bucket.endpoint_url is None else None)
        if where not in (None, "auto", AWS_DEFAULT_REGION):
            given["CreateBucketConfiguration"] = {"LocationConstraint": where}
        if self._is_there():  # some services answer a second CreateBucket as the first
            return False
        with self._translated():
            self._client.create_bucket(**given)
        return True

    def _is_there(self) -> bool:
        """False also for another account's bucket: CreateBucket then says so."""
        try:
            with self._translated():
                self._client.head_bucket(Bucket=self._bucket.name)
        except (ObjectMissing, BucketMissing, PermissionRefused):
            return False
        return True

    # ---- rules
    def cors(self) -> Rules:
        return self._rules(self._client.get_bucket_cors, "CORSRules")

    def set_cors(self, rules: Rules) -> None:
        self._set(self._client.put_bucket_cors, CORSConfiguration={"CORSRules": rules})

    def clear_cors(self) -> None:
        self._set(self._client.delete_bucket_cors)

    def lifecycle(self) -> Rules:
        return self._rules(self._client.get_bucket_lifecycle_configuration, "Rules")

    def set_lifecycle(self, rules: Rules) -> None:
        self._set(self._client.put_bucket_lifecycle_configuration, LifecycleConfiguration={"Rules": rules})

    def clear_lifecycle(self) -> None:
        self._set(self._client.delete_bucket_lifecycle)

    def _rules(self, call: Callable[..., Mapping[str, Any]], name: str) -> Rules:
        with self._translated():
            try:
                found: Rules = call(Bucket=self._bucket.name).get(name) or ()
            except boto_errors.ClientError as error:
                if error.response.get("Error", {}).get("Code") in NOTHING_SET:
                    return ()
                raise
        return found

    def _set(self, call: Callable[..., object], **document: Any) -> None:
        with self._translated():
            try:
                call(Bucket=self._bucket.name, **document)
            except boto_errors.ParamValidationError as error:
                raise BadDocument(printable(str(error.kwargs.get("report", error)))) from None

    # ---- listings
    def uploads(self) -> tuple[list[Unfinished], bool]:
        """Unfinished multipart uploads below the prefix, and whether these are all."""
        found: list[Unfinished] = []
        place: dict[str, str] = {}
        for _ in range(UPLOAD_PAGES):
            with self._translated():
                answer = self._client.list_multipart_uploads(
                    Bucket=self._bucket.name, Prefix=self._bucket.prefix, **place
                )
                found += [
                    Unfinished(each["Key"], each["UploadId"], each["Initiated"].timestamp())
                    for each in answer.get("Uploads", ())
                ]
                place = {
                    "KeyMarker": answer.get("NextKeyMarker", ""),
                    "UploadIdMarker": answer.get("NextUploadIdMarker", ""),
                }
            if not answer.get("IsTruncated") or not place["KeyMarker"]:
                return found, True
        return found, False

    def buckets(self) -> list[str]:
        """Names of the buckets that these credentials see. Most tokens of R2 may not list them."""
        with self._translated():
            return [str(each["Name"]) for each in self._client.list_buckets().get("Buckets") or ()]


def bucket_names(
    account: Bucket, clock: Clock, counter: RequestCounter, credentials: Callable[[], Credentials] | None
) -> list[str]:
    """Return the names of all buckets that the service lists for these credentials, read anew from the settings.

    PermissionRefused, with the way to name buckets, where the credentials may not list them.
    """
    if credentials is not None:
        account = replace(account, credentials=credentials())
    admin = BucketAdmin(account, clock, counter, NAMES_TIMEOUT_S)
    try:
        for _ in range(NAMES_TRIES - 1):
            try:
                return sorted(admin.buckets())
            except Retryable:
                clock.wait(Event(), NAMES_PAUSE_S)
        return sorted(admin.buckets())
    except PermissionRefused as error:
        raise PermissionRefused(
            f"these credentials may not list the account's buckets: name those to mount by --bucket ({error})"
        ) from error
    finally:
        admin.close()
