"""A bucket behind an S3 API, R2's first of all. With `s3_client.py` all that knows boto3.

Owns:    the requests and the conditions in them, and how boto3's answers become our values and errors.
Never:   retries (`store/retry.py` does), reads a body whole, sets a Content-Encoding that was not there.
Threads: every method is thread-safe; boto3's client is, and there is no state besides.
Fails:   StoreError's subclasses; what a Body raises while it is read comes out as it is.

Where R2 takes no condition, or nobody knows whether it does, a HEAD looks as well: before a
Complete and before a copy at the destination, after a part copy at the source. What may be
understood is sent nevertheless, so that a server that honours it leaves no window.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import botocore.exceptions as boto_errors

from r2fs.model.errors import (
    BadCredentials,
    BodyDamaged,
    BucketMissing,
    ClockSkewed,
    NotImplementedThere,
    ObjectMissing,
    PreconditionFailed,
    RangeInvalid,
    Refused,
    StoreError,
    Unavailable,
)
from r2fs.model.keys import printable
from r2fs.model.ports import Body, Clock, Limits
from r2fs.model.records import ListPage, ObjectInfo, ObjectMeta, Part, Version
from r2fs.model.settings import Bucket, Credentials
from r2fs.store import headers, s3_values
from r2fs.store.answers import error_of
from r2fs.store.bigcopy import copy_by_parts
from r2fs.store.bodies import Outgoing
from r2fs.store.counting import RequestCounter
from r2fs.store.etags import bare
from r2fs.store.retry import RetryingStore
from r2fs.store.s3_client import EXPECTED, Clients, from_answer, with_copy_headers, without_answer
from r2fs.store.s3_values import conditions, destination_headers, info_of, ns, total, verified

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0  # of one read of the socket, not of a whole transfer
CHECK_TIMEOUT_S = 4.0  # a person waits for the answer of check()
SKEW_S = 900.0  # R2 and AWS refuse signatures that are further off
BUCKET_SEEN_S = 60.0  # for so long a HEAD's 404 is taken for the key's, not the bucket's

# Keys that DeleteObjects may misread, since it names them in XML: control characters are no XML, or
# become others, and Cloudflare's simulator strips white space at the ends.
_NOT_IN_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s\\Z")


def connect(
    bucket: Bucket,
    clock: Clock,
    limits: Limits | None = None,
    credentials: Callable[[], Credentials] | None = None,
) -> RetryingStore:
    """The bucket, with retries and with its requests counted. Sends nothing yet."""
    counter = RequestCounter()
    store = S3Store(
        bucket,
        clock=clock,
        limits=limits,
        counter=counter,
        read_timeout_s=bucket.request_timeout_s,
        credentials=credentials,
    )
    return RetryingStore(store, clock, counter=counter, keys=store.keys)


class S3Store:
    """One bucket. See the head of the file; the contract is `ObjectStore`'s."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        clock: Clock,
        limits: Limits | None = None,
        counter: RequestCounter | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        credentials: Callable[[], Credentials] | None = None,
    ) -> None:
        # constant
        self._name = bucket.name
        self._prefix = bucket.prefix
        self.url = bucket.url
        self._clock = clock
        self._limits = limits or Limits()
        self._counter = counter or RequestCounter()
        self._host = urlsplit(bucket.endpoint_url).netloc if bucket.endpoint_url else "AWS"
        with self._translated():
            self._clients = Clients(bucket, self._counter, connect_timeout_s, read_timeout_s, credentials)
        # A float that any thread may set: when an answer last proved that the bucket exists.
        self._bucket_seen_s = float("-inf")

    @property
    def keys(self) -> Clients:
        return self._clients

    @property
    def _client(self) -> S3Client:
        return self._clients.current

    @property
    def limits(self) -> Limits:
        return self._limits

    @contextmanager
    def _translated(self, key: str = "", outgoing: Outgoing | None = None) -> Iterator[None]:
        name = key or self.url
        try:
            yield
        except EXPECTED as error:
            if outgoing is not None and outgoing.failure is not None:
                raise outgoing.failure from None
            if isinstance(error, boto_errors.ClientError):
                raise from_answer(error, name) from error
            raise without_answer(error, name, self._host) from error

    # ---- the bucket as a whole
    def check(self) -> None:
        """One LIST of one key, with short timeouts; the clock is compared by the answer's Date."""
        with self._translated():
            client = self._clients.make(CHECK_TIMEOUT_S, CHECK_TIMEOUT_S)
        try:
            with self._translated():
                asked: dict[str, Any] = {"Bucket": self._name, "Prefix": self._prefix, "MaxKeys": 1}
                answer: Mapping[str, Any] = client.list_objects_v2(**asked)
        except StoreError as error:
            raise self._explained(error) from error.__cause__
        finally:
            client.close()
        if "IsTruncated" not in answer and "KeyCount" not in answer:
            raise self._not_s3()
        self._check_clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))

    def _explained(self, error: StoreError) -> StoreError:
        """A LIST's refusal has an XML body with a code; one without does not come from an S3 server."""
        cause = error.__cause__
        if not isinstance(cause, boto_errors.ClientError):
            return error
        code, message = cause.response["Error"].get("Code", ""), cause.response["Error"].get("Message", "")
        if code.isdigit():
            return self._not_s3(Unavailable if int(code) >= 500 else Refused)
        if code == "InvalidArgument" and re.search("access key|authorization", message, re.IGNORECASE):
            # R2's way to say that a key id is none of its own, or that there is none.
            return BadCredentials(f"{self.url}: check the access key id ({code}: {printable(message)})")
        return error

    def _not_s3(self, error: type[StoreError] = Refused) -> StoreError:
        return error(f"{self.url}: {self._host} does not answer as an S3 server does: check the endpoint URL")

    def _check_clock(self, date: str | None) -> None:
        try:
            there = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return  # no Date, no comparison: a clock that is off is refused by the signature then
        off = self._clock.time() - there
        if abs(off) > SKEW_S:
            way = "ahead of" if off > 0 else "behind"
            raise ClockSkewed(
                f"{self.url}: this host's clock is {abs(off) / 60:.0f} minutes {way} the bucket's: set it"
            )

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        asked: dict[str, Any] = {"Bucket": self._name, "Prefix": prefix, "MaxKeys": limit}
        if delimiter:
            asked["Delimiter"] = delimiter
        if token is not None:
            asked["ContinuationToken"] = token
        elif start_after:
            asked["StartAfter"] = start_after
        with self._translated():
            answer = self._client.list_objects_v2(**asked)
        self._bucket_seen_s = self._clock.monotonic()
        return ListPage(
            tuple(
                ObjectInfo(o["Key"], o["Size"], bare(o.get("ETag", "")), ns(o["LastModified"]))
                for o in answer.get("Contents", ())
            ),
            tuple(p["Prefix"] for p in answer.get("CommonPrefixes", ())),
            _next_page(answer, self.url),
        )

    # ---- one object
    def head(self, key: str) -> ObjectInfo:
        return info_of(key, self._head(key))

    def _head(self, key: str) -> Mapping[str, Any]:
        try:
            with self._translated(key):
                answer = self._client.head_object(Bucket=self._name, Key=key)
        except ObjectMissing:
            self._require_bucket()
            raise
        self._bucket_seen_s = self._clock.monotonic()
        return answer

    def _require_bucket(self) -> None:
        """HEAD says 404 for a missing key and for a missing bucket alike. Which one is it?"""
        if self._clock.monotonic() - self._bucket_seen_s < BUCKET_SEEN_S:
            return
        try:
            with self._translated():
                self._client.head_bucket(Bucket=self._name)
        except ObjectMissing:
            raise BucketMissing(
                f"{self.url}: there is no such bucket: check its name, or create it"
            ) from None
        except StoreError:
            return  # not allowed to ask, or no answer: the key's own answer stands
        self._bucket_seen_s = self._clock.monotonic()

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> S3Download:
        if start < 0 or (length is not None and length <= 0):
            raise RangeInvalid(f"{printable(key)}: no bytes in that range")
        asked: dict[str, Any] = {"Bucket": self._name, "Key": key}
        ranged = start > 0 or length is not None
        if ranged:
            asked["Range"] = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
        if if_match is not None:
            asked["IfMatch"] = f'"{if_match}"'
        with self._translated(key):
            answer = self._client.get_object(**asked)
        download = S3Download(self, key, answer)
        try:
            download.require_range(start, length)
        except StoreError:
            download.close()
            raise
        return download

    def put(
        self, key: str, body: Body, meta: ObjectMeta, *, if_match: str | None = None, if_absent: bool = False
    ) -> str:
        outgoing = Outgoing(body, printable(key))
        asked = self._described(key, meta) | conditions(if_match, if_absent)
        try:
            with self._translated(key, outgoing):
                answer = self._client.put_object(Body=outgoing.file(), **asked)
        except ObjectMissing as error:
            if if_match is not None:  # AWS and moto: 404 where R2 says 412
                raise PreconditionFailed(str(error)) from error
            raise _name_refused(key, error) from error
        return verified(key, answer, outgoing)

    def _described(self, key: str, meta: ObjectMeta) -> dict[str, Any]:
        metadata = headers.encoded(meta.metadata)
        if headers.size(metadata) > self._limits.max_metadata:
            raise Refused(
                f"{printable(key)}: more metadata than the {self._limits.max_metadata} bytes that the bucket"
                " takes: remove what other tools have stored with it"
            )
        return {
            "Bucket": self._name,
            "Key": key,
            "ContentType": meta.content_type,
            "Metadata": metadata,
            **s3_values.described(meta.headers),
        }

    def delete(self, key: str) -> None:
        try:
            with self._translated(key):
                self._client.delete_object(Bucket=self._name, Key=key)
        except ObjectMissing:
            pass

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        if len(keys) > self._limits.delete_batch:
            raise Refused(f"{self.url}: at most {self._limits.delete_batch} keys in one delete request")
        failed: dict[str, StoreError] = {}
        for key in (k for k in keys if _NOT_IN_XML.search(k)):
            try:
                self.delete(key)
            except StoreError as refused:
                failed[key] = refused
        named = [k for k in keys if not _NOT_IN_XML.search(k)]
        if not named:
            return failed
        with self._translated():
            answer = self._client.delete_objects(
                Bucket=self._name, Delete={"Objects": [{"Key": key} for key in named], "Quiet": True}
            )
        for item in answer.get("Errors", ()):
            error = error_of(item.get("Key", ""), 0, item.get("Code", ""), item.get("Message", ""))
            if not isinstance(error, ObjectMissing):
                failed[item.get("Key", "")] = error
        return failed

    # ---- multipart
    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        try:
            with self._translated(key):
                return self._client.create_multipart_upload(**self._described(key, meta))["UploadId"]
        except ObjectMissing as error:
            raise _name_refused(key, error) from error

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        outgoing = Outgoing(body, printable(key))
        with self._translated(key, outgoing):
            answer = self._client.upload_part(
                Bucket=self._name,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=outgoing.file(),
            )
        return Part(number, verified(key, answer, outgoing), len(outgoing))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        try:
            with self._translated(f"{source.key} → {key}"):
                answer = self._client.upload_part_copy(
                    Bucket=self._name,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySource={"Bucket": self._name, "Key": source.key},
                    CopySourceRange=f"bytes={start}-{start + length - 1}",
                )
        except (RangeInvalid, Refused):
            self._require_source(source)  # says so if there is another version, and that is why
            raise
        # Cloudflare's simulator answers 501 to a condition on the source here. Instead: that version
        # still being there afterwards means that it was there all the time.
        self._require_source(source)
        return Part(number, bare(answer["CopyPartResult"].get("ETag", "")), length)

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_match: str | None = None,
        if_absent: bool = False,
    ) -> str:
        self._look_first(key, if_match, if_absent)
        listed = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        asked: dict[str, Any] = {"MultipartUpload": {"Parts": listed}} | conditions(if_match, if_absent)
        with self._translated(key):
            answer = self._client.complete_multipart_upload(
                Bucket=self._name, Key=key, UploadId=upload_id, **asked
            )
        return bare(answer["ETag"])

    def _look_first(self, key: str, if_match: str | None, if_absent: bool) -> None:
        """A HEAD in place of a condition that the server may ignore."""
        if if_match is None and not if_absent:
            return
        try:
            found: str | None = self.head(key).etag
        except ObjectMissing:
            found = None
        if found != if_match:
            raise PreconditionFailed(f"{printable(key)}: the object is another version by now")

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._translated(key):
            try:
                self._client.abort_multipart_upload(Bucket=self._name, Key=key, UploadId=upload_id)
            except self._client.exceptions.NoSuchUpload:
                pass

    # ---- copy
    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        if_match: str | None = None,
        if_absent: bool = False,
    ) -> str:
        self._look_first(key, if_match, if_absent)
        if source.size > self._limits.max_copy:
            return copy_by_parts(self, source, key, meta, if_match=if_match, if_absent=if_absent)
        asked: dict[str, Any] = {"Bucket": self._name, "Key": key}
        if meta is not None:
            if meta.headers is None:
                meta = replace(meta, headers=s3_values.kept_of(self._require_source(source)))
            asked = self._described(key, meta) | {"MetadataDirective": "REPLACE"}
        try:
            with self._translated(f"{source.key} → {key}"):
                with with_copy_headers(destination_headers(if_match, if_absent)):
                    answer = self._client.copy_object(
                        CopySource={"Bucket": self._name, "Key": source.key},
                        CopySourceIfMatch=f'"{source.etag}"',
                        **asked,
                    )
        except PreconditionFailed:
            self._require_source(source)  # says so if it is the source that changed
            raise
        return bare(answer["CopyObjectResult"]["ETag"])

    def _require_source(self, source: Version) -> Mapping[str, Any]:
        """HEAD of `source`; PreconditionFailed or ObjectMissing if it is not there in that version."""
        stored = self._head(source.key)
        if bare(stored["ETag"]) != source.etag:
            raise PreconditionFailed(
                f"{printable(source.key)}: the object to copy is another version by now", source=True
            )
        return stored

    def received(self, count: int) -> None:
        """A download's chunk arrived."""
        self._counter.received(count)

    def close(self) -> None:
        self._client.close()


class S3Download:
    """An open answer to GET. One thread at a time."""

    def __init__(self, store: S3Store, key: str, answer: Mapping[str, Any]) -> None:
        self._store = store
        self._key = key
        self._body: StreamingBody = answer["Body"]
        self._left = int(answer["ContentLength"])
        self._range = answer.get("ContentRange")
        self.info = info_of(key, answer, size=total(self._range, self._left))

    def require_range(self, start: int, length: int | None) -> None:
        """The answer must begin at `start` and hold what was asked for, as far as there is any."""
        begin = int(self._range.split()[1].split("-")[0]) if self._range else 0
        wanted = self.info.size - start if length is None else min(length, self.info.size - start)
        if begin != start or (self._left != wanted and length is not None):
            raise NotImplementedThere(
                f"{printable(self._key)}: the server does not send ranges of objects"
                if self._range is None
                else f"{printable(self._key)}: the server sent another range than was asked for"
            )

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        while self._left:
            with self._store._translated(self._key):
                data = self._body.read(min(size, self._left))
            if not data:
                raise BodyDamaged(f"{printable(self._key)}: the answer ended {self._left} bytes early")
            self._left -= len(data)
            self._store.received(len(data))
            yield data

    def close(self) -> None:
        """Of an answer that was read to its end the connection goes back to the pool; else it ends."""
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _name_refused(key: str, error: StoreError) -> Refused:
    """A 404 for what needs no object to be there: the server's routes do not know such a path."""
    return Refused(f"{printable(key)}: the server does not take this name: rename the file ({error})")


def _next_page(answer: Mapping[str, Any], url: str) -> str | None:
    """None: that was the last. A server that says that there is more, and not where, has not answered."""
    if not answer.get("IsTruncated"):
        return None
    token: str | None = answer.get("NextContinuationToken")
    if token is None:
        raise Unavailable(f"{url}: a listing was cut, and nothing says where it goes on")
    return token
