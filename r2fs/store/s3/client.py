"""The boto3 client: its settings, and what its exceptions mean. Part of `store/s3/store.py`.

Owns:    what R2 needs set (checksums, Expect, payload hashes, retries), the headers that boto3 has no
         parameter for, and the table of what boto3 raises where there was no S3 answer.
Never:   knows keys, versions or conditions. With `store/s3/store.py` the only modules that import boto3.
Threads: a client may be used by any. One whose key was replaced gives way to another between two requests.
Locks:   Clients._lock, a leaf, held while one is put in the other's place.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from threading import Lock, local
from typing import TYPE_CHECKING, Any, Literal

import botocore
import botocore.exceptions as boto_errors
import urllib3.exceptions
from boto3.session import Session
from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError

from r2fs import __version__
from r2fs.model import owned_paths
from r2fs.model.errors import BadCredentials, BodyDamaged, R2fsError, Refused, StoreError, Unavailable
from r2fs.model.keys import printable
from r2fs.model.redaction import hide
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.answers import error_of
from r2fs.store.bodies import Outgoing
from r2fs.store.counting import RequestCounter
from r2fs.store.s3 import request_log, wire
from r2fs.store.s3.values import malformed
from r2fs.store.s3.wire import Answer, receiving
from r2fs.store.s3.xml import Malformed
from r2fs.store.server_text import server_text

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

# At DEBUG these log every header, a session token among them, and nothing that helps a user.
for _name in ("boto3", "botocore", "urllib3"):
    logging.getLogger(_name).setLevel(logging.INFO)
# A header without a colon is a warning with a traceback there, for each answer that has one.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

AWS_FILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
    "BOTO_CONFIG": "~/.boto",
}
DETAIL = 300  # characters of an exception's text that are shown
POOL = 64  # connections kept: more than all transfer threads of a mount use at once

# Headers of the CopyObject that runs in this context: boto3 has no parameter for R2's own.
_copy_headers: ContextVar[Mapping[str, str] | None] = ContextVar("_copy_headers", default=None)

# Does the GET or HEAD that runs in this context take bytes that are stored packed as they are?
_takes_gzip: ContextVar[bool] = ContextVar("_takes_gzip", default=False)

# What is raised where there was no answer, or none to be understood. The first row that fits counts.
WITHOUT_ANSWER: tuple[tuple[tuple[type[Exception], ...], type[StoreError], str], ...] = (
    (
        (
            boto_errors.NoCredentialsError,
            boto_errors.PartialCredentialsError,
            boto_errors.CredentialRetrievalError,
            boto_errors.NoAuthTokenError,
            boto_errors.TokenRetrievalError,
            boto_errors.SSOError,
        ),
        BadCredentials,
        (
            "no usable credentials: set an access key id and a secret access key "
            "(R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY, or files of them), or a profile"
        ),
    ),
    (
        (boto_errors.ProfileNotFound, boto_errors.ConfigParseError, boto_errors.ConfigNotFound),
        BadCredentials,
        "the profile cannot be read from the AWS configuration: check its name and the file",
    ),
    (
        (boto_errors.SSLError,),
        Unavailable,
        "no TLS connection to {host}: check the endpoint (on R2, the account id in it) and the proxy",
    ),
    (
        (boto_errors.EndpointConnectionError, boto_errors.ProxyConnectionError),
        Unavailable,
        "{host} cannot be reached: check the endpoint (on R2, the account id in it) and the network",
    ),
    (
        (
            boto_errors.ConnectTimeoutError,
            boto_errors.ReadTimeoutError,
            urllib3.exceptions.ReadTimeoutError,
        ),
        Unavailable,
        "{host} does not answer",
    ),
    (
        (boto_errors.ResponseStreamingError, boto_errors.IncompleteReadError),
        BodyDamaged,
        "the answer of {host} was cut off",
    ),
    (
        (boto_errors.HTTPClientError, boto_errors.ConnectionError, urllib3.exceptions.HTTPError, OSError),
        Unavailable,
        "the connection to {host} broke",
    ),
    ((ResponseParserError,), Unavailable, "{host} does not answer as an S3 server does: check the endpoint"),
    (
        (boto_errors.BotoCoreError, ValueError),
        Refused,
        "the request cannot be made: check the name, the endpoint and the region",
    ),
)
EXPECTED: tuple[type[Exception], ...] = (
    boto_errors.ClientError,
    *(kind for kinds, _, _ in WITHOUT_ANSWER for kind in kinds),
)
# No server has seen a byte of a request that ended so: nobody bills it.
NOT_REACHED = (
    boto_errors.EndpointConnectionError,
    boto_errors.ConnectTimeoutError,
    boto_errors.ProxyConnectionError,
    boto_errors.SSLError,
)
UNREADABLE: tuple[type[Exception], ...] = (R2fsError, *EXPECTED)  # what reading a key anew may raise


def without_answer(error: BaseException, name: str, host: str) -> StoreError:
    """Our error for what boto3 raised without an S3 answer."""
    for kinds, ours, says in WITHOUT_ANSWER:
        if isinstance(error, kinds):
            detail = server_text(str(error), DETAIL)
            return ours(f"{printable(name)}: {says.format(host=host)} ({type(error).__name__}: {detail})")
    raise error


# What boto3's parser and hooks raise for a header that is not what its model says.
MISREAD: tuple[type[Exception], ...] = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)


@contextmanager
def translated(
    name: str,
    host: str,
    outgoing: Outgoing | None,
    dated: Callable[[StoreError, boto_errors.ClientError], StoreError],
) -> Iterator[Answer]:
    """One request, whose errors become ours. `name`: the key, or the bucket's URL. `dated` has the last word."""
    with receiving() as answer:
        try:
            yield answer
        except Malformed as error:
            raise malformed(name, error) from error
        except EXPECTED + MISREAD as error:
            if outgoing is not None and outgoing.failure is not None:
                raise outgoing.failure from None
            if isinstance(error, boto_errors.ClientError):
                raise dated(from_answer(error, name), error) from error
            if answer.arrived and isinstance(error, MISREAD):
                raise malformed(name, f"{type(error).__name__}: {error}") from error
            raise without_answer(error, name, host) from error


def open_session(credentials: Credentials) -> Session:
    """Where a client's key comes from: a profile and AWS's own places are read when it is made."""
    _check_aws_files()
    return Session(
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.session_token,
        profile_name=credentials.profile,
    )


def _check_aws_files() -> None:
    """botocore reads these by itself, runs the `credential_process` that they name, and waits for a FIFO."""
    for variable, usual in AWS_FILES.items():
        path = os.path.expanduser(os.environ.get(variable) or usual)
        try:
            owned_paths.check_file(path, os.stat(path))
        except owned_paths.UnsafePath as error:
            raise BadCredentials(f"AWS's settings are not read: {error.strerror} ({variable})") from None
        except OSError:
            continue  # there is none, or it cannot be read: botocore says so if it needs it


def _same_key(one: Session, other: Session) -> bool:
    """Do both sign alike?"""
    mine, theirs = one.get_credentials(), other.get_credentials()
    if mine is None or theirs is None:
        return mine is theirs
    return bool(mine.get_frozen_credentials() == theirs.get_frozen_credentials())


def make_client(
    bucket: Bucket, counter: RequestCounter, connect_s: float, read_s: float, session: Session | None = None
) -> S3Client:
    """A client with everything switched as R2 needs it."""
    secrets = bucket.credentials
    style: Literal["path", "virtual"] = "virtual" if bucket.addressing == "virtual" else "path"
    config = Config(
        region_name=None if bucket.region == "auto" and bucket.endpoint_url is None else bucket.region,
        # Trailing checksums, boto3's default since 1.36, are refused by R2.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # The body is hashed by TLS or not at all: else each upload is read twice.
        s3={"addressing_style": style, "payload_signing_enabled": False},
        retries={"total_max_attempts": 1, "mode": "standard"},  # store/retry.py retries
        connect_timeout=connect_s,
        read_timeout=read_s,
        max_pool_connections=POOL,
        tcp_keepalive=True,
        user_agent_extra=f"r2fs/{__version__}",
        signature_version=botocore.UNSIGNED if secrets.anonymous else "s3v4",
    )
    session = session or open_session(secrets)
    client = session.client("s3", endpoint_url=bucket.endpoint_url, config=config)
    events = client.meta.events
    # R2 does not answer "Expect: 100-continue": each PUT would wait a second for it.
    events.unregister("before-call.s3", add_expect_header)
    events.register("before-call.s3.CopyObject", _add_copy_headers)
    for verb in ("DeleteObjects", "PutBucketCors", "PutBucketLifecycleConfiguration"):
        events.register_last(f"before-call.s3.{verb}", _sign_by_md5)
    if bucket.endpoint_url is not None:
        events.register("before-call.s3", _stay_here)

    body = local()  # length of the body that this thread sends
    hidden = _HiddenKey(session)

    def count(request: AWSPreparedRequest, event_name: str, **_: object) -> None:
        hidden.look(request.headers.get("X-Amz-Security-Token"))
        length = request.headers.get("Content-Length") or "0"
        body.length = int(length) if request.method == "PUT" else 0
        counter.request(event_name.rpartition(".")[2], body.length)

    def discount(exception: BaseException | None, event_name: str, **_: object) -> None:
        if isinstance(exception, NOT_REACHED):
            counter.not_sent(event_name.rpartition(".")[2], body.length)

    events.register("before-send.s3", count)
    events.register("response-received.s3", discount)
    for verb in ("GetObject", "HeadObject"):
        events.register(f"before-send.s3.{verb}", _accept_gzip)
    request_log.attach(events)
    wire.install(client, read_s)
    return client


class _HiddenKey:
    """The key that a client signs with is known as a secret before an answer can repeat it, wherever it came from."""

    def __init__(self, session: Session) -> None:
        # constant
        self._session = session
        # of whichever thread comes first: a second one hides the same once more
        self._token: object = self  # of the last request; no token is None

    def look(self, token: object) -> None:
        """`token`: of the request that has just been signed. A role's is another one each hour."""
        if token == self._token:
            return
        found = self._session.get_credentials()
        frozen = found and found.get_frozen_credentials()
        if frozen:
            hide(frozen.secret_key, frozen.token, identifier=frozen.access_key)
        self._token = token


class Clients:
    """The client in use, and another one as soon as its key is refused and there is a new one.

    `credentials` reads the key where the settings had it from; a profile, and AWS's own places, are
    read anew by themselves.
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
        # guarded by: _lock, together; `current` and `generation` are read without it
        self._lock = Lock()
        self._bucket = bucket
        self._session = open_session(bucket.credentials)
        self.generation = 0
        self.current = make_client(bucket, counter, connect_s, read_s, self._session)

    @property
    def credentials(self) -> Credentials:
        return self._bucket.credentials

    def make(self, connect_s: float, read_s: float) -> S3Client:
        """Another client, with the key in use and timeouts of its own."""
        return make_client(self._bucket, self._counter, connect_s, read_s)

    def renew(self, since: int) -> bool:
        """Is another key in use now than that of generation `since`? Looks where the key came from."""
        if self.generation != since:
            return True
        bucket, old = self._bucket, self._session
        if bucket.credentials.anonymous:
            return False
        try:
            if self._credentials is not None:
                bucket = replace(bucket, credentials=self._credentials())
            session = open_session(bucket.credentials)
            if _same_key(old, session):
                return False
            client = make_client(bucket, self._counter, *self._timeouts_s, session)
        except UNREADABLE as error:
            log.warning("%s: the key cannot be read again: %s", bucket.url, error)
            return False
        with self._lock:
            if self.generation == since:
                self._bucket, self._session = bucket, session
                self.current, client = client, self.current
                self.generation += 1
                log.info("%s: the key was replaced: going on with the new one", bucket.url)
        client.close()  # of the old one, or of a second that was made at the same time
        return True


def _stay_here(params: dict[str, Any], **_: object) -> None:
    """boto3 looks for a bucket's region by HEAD when it is redirected: of a server that redirects
    everything (http to https) it asks for ever. Redirects are for AWS's own endpoints."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _add_copy_headers(params: dict[str, Any], **_: object) -> None:
    params["headers"].update(_copy_headers.get() or {})


def _accept_gzip(request: AWSPreparedRequest, **_: object) -> None:
    """Past the signature: proxies change this header. Without it http.client asks for `identity`."""
    if _takes_gzip.get():
        request.headers["Accept-Encoding"] = "gzip"


def _sign_by_md5(params: dict[str, Any], **_: object) -> None:
    """The one integrity header that every S3 server knows, in place of boto3's CRC."""
    params["context"].pop("checksum", None)
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


@contextmanager
def with_copy_headers(added: Mapping[str, str]) -> Iterator[None]:
    """CopyObject sends these as well, in this context alone."""
    token = _copy_headers.set(added)
    try:
        yield
    finally:
        _copy_headers.reset(token)


@contextmanager
def accepting_gzip(wanted: bool) -> Iterator[None]:
    """GetObject and HeadObject say that they take gzip, in this context alone. Nothing is unpacked here."""
    token = _takes_gzip.set(wanted)
    try:
        yield
    finally:
        _takes_gzip.reset(token)


def from_answer(error: boto_errors.ClientError, name: str) -> StoreError:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = error.response.get("Error", {})
    return error_of(name, status, said.get("Code", ""), said.get("Message", ""))
