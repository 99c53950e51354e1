"""Checks of bucket, endpoint and clock, and their sentences: part of `store/s3/store.py`.

Owns:    how a LIST's refusal is told from an answer of something that is no S3 server, and the clock's comparison.
Never:   sends a request.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import botocore.exceptions as boto_errors

from r2fs.model.errors import BadCredentials, ClockSkewed, ObjectMissing, Refused, StoreError, Unavailable
from r2fs.model.keys import printable
from r2fs.model.ports import Clock
from r2fs.model.settings import Bucket
from r2fs.store.server_text import server_text

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
        """A LIST's refusal has an XML body with a code; one without does not come from an S3 server."""
        cause = error.__cause__
        if not isinstance(cause, boto_errors.ClientError):
            return error
        code, message = cause.response["Error"].get("Code", ""), cause.response["Error"].get("Message", "")
        if code.isdigit():
            return self.not_s3(Unavailable if int(code) >= 500 else Refused)
        if isinstance(
            error, ObjectMissing
        ):  # a LIST that was taken for a GET: there was a bucket in the path already
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
