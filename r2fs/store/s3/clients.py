"""The two transports of a bucket, boto3's client and `Requests`, and the key that both sign with.

Owns:    the choice of transport for each request of METHODS. A read whose answer is not understood is sent again by boto3.
         A write is sent again only if AWS has refused it for its region, which boto3 finds: after any other answer
         that is not understood, `retry.py` finds out whether the write was done.
Threads: a client may be used by any. After a change of the key the next request goes by another.
Locks:   Clients._lock, a leaf, held while transports are replaced or closed; _Made._boto_lock, a leaf, held while boto3
         is imported and its client made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any

import botocore.exceptions as boto_errors

from r2fs.model.errors import R2fsError, Unavailable
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.client import make_client
from r2fs.store.s3.connections import Connections
from r2fs.store.s3.failures import EXPECTED
from r2fs.store.s3.requests import Requests
from r2fs.store.s3.route import (
    route_of,
    route_of_settings,
    tls_context,
    trusted_by,
    trusted_by_environment,
)
from r2fs.store.s3.session import key_source, open_session
from r2fs.store.s3.signing import Frozen, Signer, key_of_settings
from r2fs.store.s3.wire import Judge
from r2fs.store.s3.xml import Malformed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from r2fs.store.s3.session import Session

log = logging.getLogger(__name__)

# Methods of boto3's client, by operation: all that reading and writing needs.
METHODS: Mapping[str, str] = {
    "GetObject": "get_object",
    "HeadObject": "head_object",
    "ListObjectsV2": "list_objects_v2",
    "PutObject": "put_object",
    "UploadPart": "upload_part",
    "DeleteObject": "delete_object",
    "DeleteObjects": "delete_objects",
    "CopyObject": "copy_object",
    "CreateMultipartUpload": "create_multipart_upload",
    "UploadPartCopy": "upload_part_copy",
    "CompleteMultipartUpload": "complete_multipart_upload",
    "AbortMultipartUpload": "abort_multipart_upload",
    "HeadBucket": "head_bucket",
}
READS = frozenset({"GetObject", "HeadObject", "ListObjectsV2", "HeadBucket"})
ELSEWHERE = frozenset({301, 302, 307, 400})  # AWS's answers about a bucket of another region
ODD = 8  # answers that boto3 alone has understood, until it goes first

UNREADABLE: tuple[type[Exception], ...] = (R2fsError, *EXPECTED)  # errors of reading a key again


def _same(one: Frozen | None, other: Frozen | None) -> bool:
    """True if both are the same credentials, or none."""
    if one is None or other is None:
        return one is other
    return (one.access_key, one.secret_key, one.token) == (other.access_key, other.secret_key, other.token)


class _Made:
    """Both transports of one key. boto3 is imported, and its client made, when they are needed: many mounts never do."""

    def __init__(self, bucket: Bucket, counter: RequestCounter, timeouts_s: tuple[float, float]) -> None:
        # constant
        self._bucket = bucket
        self._counter = counter
        self._timeouts_s = timeouts_s
        # None: boto3 tells it
        self.route = route_of_settings(bucket) if bucket.transport != "boto3" else None
        self._boto_lock = RLock()  # held while boto3's session and its client are made, once
        # guarded by: _boto_lock
        self._session: Session | None = None
        self._client: S3Client | None = None
        # guarded by: Clients._lock; `is_made` is read without it
        self.is_made = False
        self.requests: Requests | None = None  # None: boto3 sends all

    def session(self) -> Session:
        with self._boto_lock:
            if self._session is None:
                self._session = open_session(self._bucket.credentials)
            return self._session

    def client(self) -> S3Client:
        with self._boto_lock:
            if self._client is None:
                try:
                    self._client = make_client(self._bucket, self._counter, *self._timeouts_s, self.session())
                except ImportError as error:  # the installed packages are being replaced
                    raise Unavailable(f"{self._bucket.url}: boto3 cannot be imported: {error}") from error
            return self._client

    def key(self) -> Frozen | None:
        """The key of this moment: botocore renews one that expires."""
        return self._key_source()()

    def _key_source(self) -> Callable[[], Frozen | None]:
        if self.route is None:
            return key_source(self.session())
        key = key_of_settings(self._bucket.credentials)
        return lambda: key

    def make_requests(self) -> Requests | None:
        """Make the transport without boto3; None: there is no way without it."""
        if self._bucket.transport == "boto3":
            return None
        route, trusted = self.route, trusted_by_environment()
        if route is None:
            client = self.client()
            route, trusted = route_of(client, self._bucket.name), trusted_by(client)
        context = tls_context(trusted) if route is not None and route.scheme == "https" else None
        if route is None or (route.scheme == "https" and context is None):
            return None
        connect_s, read_s = self._timeouts_s
        return Requests(
            route,
            Signer(self._key_source(), route.region) if route.region else None,
            Connections(route.address, context, connect_s, read_s),
            Judge(read_s),
            self._counter,
        )

    def publish_locked(self, requests: Requests | None) -> bool:
        """Set the transport without boto3. False: another thread was faster, or the key has been replaced."""
        if self.is_made:
            return False
        self.requests = requests
        self.is_made = True  # the last: it is read without the lock
        return True

    def close_locked(self) -> None:
        self.is_made = True
        if self._client is not None:  # one that is being made has no connections yet
            self._client.close()
        if self.requests is not None:
            self.requests.close()


class Clients:
    """See the head of the file.

    `credentials` reads the key where the settings had it from; a profile, and AWS's own places, are read anew by
    botocore.
    """

    def __init__(
        self,
        bucket: Bucket,
        counter: RequestCounter,
        connect_s: float,
        read_s: float,
        credentials: Callable[[], Credentials] | None = None,
    ) -> None:
        # constant
        self._counter = counter
        self._timeouts_s = connect_s, read_s
        self._credentials = credentials
        # guarded by: _lock, together; read without it
        self._lock = Lock()
        self._bucket = bucket
        self._made = _Made(bucket, counter, self._timeouts_s)
        if self._made.route is None:
            self._made.client()  # a wrong endpoint, profile or file of AWS is told before the first request
        self.generation = 0
        # counted by any thread; one that is lost makes no difference
        self._odd = 0

    @property
    def current(self) -> S3Client:
        return self._made.client()

    @property
    def credentials(self) -> Credentials:
        """The credentials of the settings, as last read."""
        return self._bucket.credentials

    def send(self, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send one of METHODS with boto3's arguments, and return the answer's fields by boto3's names."""
        requests = self.requests() if self._odd < ODD and asked.get("Key") != "" else None
        if requests is None:
            return self._by_boto(operation, asked)
        try:
            return requests.send(operation, asked)
        except Malformed:
            if operation not in READS:
                raise
        except boto_errors.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if self._bucket.endpoint_url is not None or status not in ELSEWHERE:
                raise
            if asked.get("Body"):
                asked["Body"].seek(0)
        answer = self._by_boto(operation, asked)
        self._odd += 1
        if self._odd == ODD:
            log.info("requests go by boto3 from now on: it understands answers that r2fs does not")
        return answer

    def _by_boto(self, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = getattr(self.current, METHODS[operation])(**asked)
        return answer

    def presign(self, operation: str, asked: Mapping[str, Any], expires_s: int) -> str:
        """Return a URL for one of METHODS, signed with the key in use."""
        requests = self.requests() if asked["Key"] else None
        url = None if requests is None else requests.presign(operation, asked, expires_s)
        if url is None:
            url = self.current.generate_presigned_url(
                METHODS[operation], Params=dict(asked), ExpiresIn=expires_s
            )
        return url

    def requests(self) -> Requests | None:
        """Return the requests without boto3, with the key in use; None: boto3 sends them all, or says why not.

        They are made at the first request: that needs a key, and looking for one may take a while.
        """
        made = self._made
        if made.is_made:
            return made.requests
        try:
            requests = made.make_requests()
        except EXPECTED:
            return None
        with self._lock:
            is_first = made.publish_locked(requests)
        if requests is not None and not is_first:
            requests.close()
        return made.requests

    def connect_ahead(self, count: int) -> None:
        """Begin to open connections for `count` further requests, with the key in use."""
        requests = self.requests()
        if requests is not None:
            requests.connect_ahead(count)

    def make(self, connect_s: float, read_s: float) -> S3Client:
        """Another client, with the key in use and timeouts of its own."""
        return make_client(self._bucket, self._counter, connect_s, read_s)

    def renew(self, since: int) -> bool:
        """Read the key again. True if another one is in use now than that of generation `since`."""
        if self.generation != since:
            return True
        bucket, old = self._bucket, self._made
        if bucket.credentials.anonymous:
            return False
        try:
            if self._credentials is not None:
                bucket = replace(bucket, credentials=self._credentials())
            made = _Made(bucket, self._counter, self._timeouts_s)
            if _same(old.key(), made.key()):
                return False
        except UNREADABLE as error:
            log.warning("%s: the key cannot be read again: %s", bucket.url, error)
            return False
        with self._lock:
            if self.generation == since:
                self._bucket, self._made, made = bucket, made, self._made
                self.generation += 1
                log.info("%s: the key was replaced: going on with the new one", bucket.url)
            made.close_locked()  # the old one, or a second that was made at the same time
        return True

    def close(self) -> None:
        with self._lock:
            self._made.close_locked()
