"""Parts of a bucket that no listing of objects shows: unfinished multipart uploads, and the account's buckets.

Owns:    ListMultipartUploads below a prefix, and ListBuckets. By boto3, for diagnosis.
Never:   aborts an upload.
Fails:   StoreError's subclasses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from r2fs.model.ports import Clock
from r2fs.model.settings import Bucket
from r2fs.model.values import dataclass
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.check import Checks
from r2fs.store.s3.client import make_client
from r2fs.store.s3.failures import translated

TIMEOUT_S: Final = 10.0
PAGES: Final = 10  # of 1,000 uploads each


@dataclass(frozen=True, slots=True)
class Unfinished:
    key: str
    upload_id: str
    begun_s: float  # seconds since 1970


class Leftovers:
    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        # constant
        self._bucket = bucket
        self._checks = Checks(bucket, clock)
        with self._translated():
            self._client: Any = make_client(bucket, RequestCounter(), TIMEOUT_S, TIMEOUT_S)

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with translated(self._bucket.url, self._checks.host, None, self._checks.dated):
            yield

    def uploads(self) -> tuple[list[Unfinished], bool]:
        """Unfinished multipart uploads below the prefix, and whether these are all."""
        found: list[Unfinished] = []
        place: dict[str, str] = {}
        for _ in range(PAGES):
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
            return [str(each["Name"]) for each in self._client.list_buckets().get("Buckets", ())]
