"""ObjectStore of a bucket behind an S3 API: R2 in the first place.

Owns:    the requests, and the conditions in them.
Never:   retries (`store/retry.py` does), reads a body whole, sets a Content-Encoding that was not there.
Threads: every method is thread-safe.
Fails:   StoreError's subclasses; an error that a Body raises while it is read is raised unchanged.

A condition that the server may ignore is checked by a HEAD too: before a Complete, after a part copy at the source,
and before a copy at the destination, unless the server is R2. The condition is sent nevertheless: a server that honours
it leaves no time between check and write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from r2fs.model.addresses import SignedUrl, UrlRequest, attachment, token_end_s
from r2fs.model.errors import (
    BucketMissing,
    ObjectLocked,
    ObjectMissing,
    PreconditionFailed,
    RangeInvalid,
    Refused,
    StoreError,
    UploadMissing,
)
from r2fs.model.keys import printable
from r2fs.model.ports import Body, Clock, Limits
from r2fs.model.records import Condition, ListPage, ObjectInfo, ObjectMeta, Part, Version
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.bodies import Outgoing
from r2fs.store.counting import RequestCounter
from r2fs.store.retry import RetryingStore
from r2fs.store.s3 import proof, values
from r2fs.store.s3.check import Checks, check_bucket
from r2fs.store.s3.clients import Clients
from r2fs.store.s3.download import Packed, S3Download, Wire, discard
from r2fs.store.s3.failures import translated
from r2fs.store.s3.listing import Asked, not_deleted, page_of
from r2fs.store.s3.requests import ADDED
from r2fs.store.s3.services import service_of
from r2fs.store.s3.values import (
    conditions,
    destination_headers,
    etag_of,
    info_of,
    length_of,
    total,
    verified,
)
from r2fs.store.s3.wire import Answer
from r2fs.store.s3.xml import Malformed

CONNECT_TIMEOUT_S = 10.0
BUCKET_SEEN_S = 60.0  # for so long a HEAD's 404 is taken for the key's, not the bucket's


def connect(
    bucket: Bucket,
    clock: Clock,
    limits: Limits | None = None,
    credentials: Callable[[], Credentials] | None = None,
    counter: RequestCounter | None = None,
) -> RetryingStore:
    """Return the bucket, with retries and with its requests counted. Nothing is sent yet."""
    store = S3Store(
        bucket,
        clock=clock,
        limits=limits,
        counter=(counter := counter or RequestCounter()),
        credentials=credentials,
    )
    return RetryingStore(store, clock, counter=counter, keys=store._clients)


class S3Store:
    """One bucket. See the head of the file; the contract is `ObjectStore`'s."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        clock: Clock,
        limits: Limits | None = None,
        counter: RequestCounter | None = None,
        credentials: Callable[[], Credentials] | None = None,
    ) -> None:
        # constant
        self._bucket = bucket
        self._name = bucket.name
        self._prefix = bucket.prefix
        self._md5_etags = bucket.md5_etags
        self.url = bucket.url
        self._clock = clock
        self.limits = limits or service_of(bucket.endpoint_url).limits
        self._counter = counter or RequestCounter()
        self._checks = Checks(bucket, clock)
        with self._translated():
            timeouts_s = CONNECT_TIMEOUT_S, bucket.request_timeout_s
            self._clients = Clients(bucket, self._counter, *timeouts_s, credentials)
        self._wire = Wire(self._translated, self._counter.received, clock)
        self._packed = Packed(self._translated)
        # A float that any thread may set: when an answer last proved that the bucket exists.
        self._bucket_seen_s = float("-inf")

    def _translated(self, key: str = "", outgoing: Outgoing | None = None) -> AbstractContextManager[Answer]:
        return translated(key or self.url, self._checks.host, outgoing, self._checks.dated)

    # ---- the bucket as a whole
    def connect_ahead(self, key: str, count: int) -> None:
        self._clients.connect_ahead(count)

    def check(self) -> None:
        """Send one LIST of one key, with short timeouts; the clock is compared with the answer's Date."""
        check_bucket(self._bucket, self._clients, self._checks, self._translated)

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
        with self._translated() as seen:
            self._clients.send("ListObjectsV2", asked | values.place_of(delimiter, start_after, token))
            page = page_of(seen.read(), Asked(self._name, prefix, token))
        self._bucket_seen_s = self._clock.monotonic()
        return page

    # ---- one object
    def head(self, key: str) -> ObjectInfo:
        answer = self._head(key)
        size = length_of(answer)
        return info_of(key, answer, self._listed_size(key) if size is None else size, self._md5_etags)

    def _head(self, key: str) -> Mapping[str, Any]:
        try:
            answer = self._packed.ask(key, lambda: self._clients.send("HeadObject", self._at(key)))
        except ObjectMissing:
            self._require_bucket()
            raise
        self._bucket_seen_s = self._clock.monotonic()
        return answer

    def _require_bucket(self) -> None:
        """Raise BucketMissing if the bucket is missing: to HEAD of a key the answer is 404 then too."""
        if self._clock.monotonic() - self._bucket_seen_s < BUCKET_SEEN_S:
            return
        try:
            with self._translated():
                self._clients.send("HeadBucket", {"Bucket": self._name})
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
        asked = self._at(key) | values.part_of(start, length, if_match)
        answer = self._packed.ask(key, lambda: self._clients.send("GetObject", asked))
        download = self._download(key, answer)
        try:
            download.require(start, length, if_match)
        except StoreError:
            download.close()
            raise
        return download

    def _download(self, key: str, answer: Mapping[str, Any]) -> S3Download:
        try:
            length = length_of(answer)
            if length is None:
                length = self._listed_size(key)
            info = info_of(key, answer, total(answer.get("ContentRange"), length), self._md5_etags)
        except BaseException as error:
            discard(answer)
            if isinstance(error, Malformed):
                raise values.malformed(key, error) from error
            raise
        return S3Download(self._wire, key, answer, info, length)

    def _listed_size(self, key: str) -> int:
        """Return the size of an object whose own answers lack it."""
        for found in self.list_page(key, limit=1).objects:
            if found.key == key:
                return found.size
        raise ObjectMissing(f"{printable(key)}: there is no such object")

    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        if not self.limits.conditional_put:
            self._look_first(key, condition)
        outgoing = Outgoing(body, printable(key))
        asked = self._described(key, meta) | conditions(condition)
        try:
            with self._translated(key, outgoing):
                answer = self._clients.send("PutObject", asked | {"Body": outgoing.file()})
        except PreconditionFailed:
            if condition is None or not self._is_made_by_files(key, condition):
                raise
            return self.put(key, body, meta)
        except ObjectLocked:
            self._look_first(key, condition)  # says so where the condition does not hold either
            raise
        except ObjectMissing as error:
            if condition is not None and condition.etag is not None:  # AWS and moto: 404 where R2 says 412
                raise PreconditionFailed(str(error)) from error
            raise values.name_refused(key, error) from error
        return proof.put(self.head, key, answer, outgoing, meta, self._md5_etags)

    def _is_made_by_files(self, key: str, condition: Condition) -> bool:
        """SeaweedFS shows a directory that its files have made by HEAD, and takes no condition on it but `*`."""
        etag = condition.etag
        if etag is None or not key.endswith("/"):
            return False
        info = self.head(key)
        return info.etag == etag and not info.size and not info.metadata

    def _described(self, key: str, meta: ObjectMeta) -> dict[str, Any]:
        return self._at(key) | values.described_object(key, meta, self.limits.max_metadata)

    def delete(self, key: str) -> None:
        try:
            with self._translated(key):
                self._clients.send("DeleteObject", self._at(key))
        except ObjectMissing:
            pass

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        if len(keys) > self.limits.delete_batch:
            raise Refused(f"{self.url}: at most {self.limits.delete_batch} keys in one delete request")
        failed: dict[str, StoreError] = {}
        many = self.limits.delete_batch > 1  # else a service without DeleteObjects
        named = [k for k in keys if many and values.fits_xml(k)]
        for key in set(keys).difference(named):
            try:
                self.delete(key)
            except StoreError as refused:
                failed[key] = refused
        if not named:
            return failed
        with self._translated() as seen:
            batch = {"Objects": [{"Key": key} for key in named], "Quiet": True}
            self._clients.send("DeleteObjects", {"Bucket": self._name, "Delete": batch})
            return failed | not_deleted(seen.read(), named)

    # ---- multipart
    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        try:
            with self._translated(key) as seen:
                self._clients.send("CreateMultipartUpload", self._described(key, meta))
                return seen.read().text("UploadId")
        except ObjectMissing as error:
            raise values.name_refused(key, error) from error

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        outgoing = Outgoing(body, printable(key))
        with self._translated(key, outgoing):
            asked = {"UploadId": upload_id, "PartNumber": number, "Body": outgoing.file()}
            answer = self._clients.send("UploadPart", self._at(key) | asked)
        return Part(number, verified(key, answer, outgoing, self._md5_etags), len(outgoing))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        try:
            with self._translated(f"{source.key} → {key}") as seen:
                asked = {
                    "UploadId": upload_id,
                    "PartNumber": number,
                    "CopySource": self._at(source.key),
                    "CopySourceRange": f"bytes={start}-{start + length - 1}",
                }
                self._clients.send("UploadPartCopy", self._at(key) | asked)
        except (RangeInvalid, Refused):
            self._require_source(source)  # says so if there is another version, and that is why
            raise
        return Part(number, etag_of(key, seen.read().fields), length)

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[Part], *, condition: Condition | None = None
    ) -> str:
        if not self.limits.conditional_complete:
            self._look_first(key, condition)
        listed = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        asked: dict[str, Any] = {"UploadId": upload_id, "MultipartUpload": {"Parts": listed}}
        with self._translated(key) as seen:
            self._clients.send("CompleteMultipartUpload", self._at(key) | asked | conditions(condition))
        return proof.complete(self.head, key, seen.read().fields, parts)

    def _look_first(self, key: str, condition: Condition | None) -> None:
        """Send a HEAD in place of a condition that the server may ignore."""
        if condition is None:
            return
        try:
            found: str | None = self.head(key).etag
        except ObjectMissing:
            found = None
        if not condition.holds(found):
            raise PreconditionFailed(f"{printable(key)}: the object is another version by now")

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            with self._translated(key):
                self._clients.send("AbortMultipartUpload", self._at(key) | {"UploadId": upload_id})
        except UploadMissing:
            pass

    # ---- copy
    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        if not self.limits.r2_copies:
            self._look_first(key, condition)
        asked = self._at(key)
        if meta is not None:
            if meta.headers is None:
                meta = replace(meta, headers=values.kept_of(self._require_source(source)))
            asked = self._described(key, meta) | {"MetadataDirective": "MERGE" if meta.merge else "REPLACE"}
        try:
            with self._translated(f"{source.key} → {key}") as seen:
                asked |= {"CopySource": self._at(source.key), "CopySourceIfMatch": f'"{source.etag}"'}
                self._clients.send("CopyObject", asked | {ADDED: destination_headers(condition)})
        except PreconditionFailed:
            self._require_source(source)  # says so if it is the source that changed
            raise
        return proof.copy(self.head, key, seen.read().fields, source)

    def _require_source(self, source: Version) -> Mapping[str, Any]:
        """HEAD of `source`; PreconditionFailed or ObjectMissing if it is not there in that version."""
        stored = self._head(source.key)
        if etag_of(source.key, stored) != source.etag:
            raise PreconditionFailed(
                f"{printable(source.key)}: the object to copy is another version by now", source=True
            )
        return stored

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        credentials = self._clients.credentials
        if credentials.anonymous:
            raise Refused(
                f"{printable(key)}: a mount without credentials signs no URL: mount with a key, or use --public"
            )
        params = self._at(key)
        if request.download_name is not None:
            params["ResponseContentDisposition"] = attachment(request.download_name)
        operation = "PutObject" if request.put else "GetObject"
        with self._translated(key):
            url = self._clients.presign(operation, params, request.expires_s)
        token = credentials.session_token
        temporary = token is not None or "X-Amz-Security-Token=" in url
        return SignedUrl(url, temporary, token_end_s(token) if token else None)

    def close(self) -> None:
        self._clients.close()

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._name, "Key": key}
