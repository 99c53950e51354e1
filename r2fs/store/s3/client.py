"""The boto3 client: the settings that R2 needs (checksums, Expect, payload hashes, retries), and hooks.

boto3 is imported when a client is made, not with this module: many mounts need none, and the module stays that of the
program that runs, whatever is installed meanwhile.

Owns:    the headers that boto3 has no parameter for, the counting of boto3's requests, and their way past its parser.
Threads: a client may be used by any.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import logging
from collections.abc import Iterator, Mapping
from threading import local
from typing import TYPE_CHECKING, Any, Literal, cast

import botocore

from r2fs import __version__
from r2fs.model.settings import Bucket
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.request_log import Exchange
from r2fs.store.s3.requests import ADDED, escaped, key_of, takes_gzip
from r2fs.store.s3.session import HiddenKey, open_session
from r2fs.store.s3.wire import Came, Judge, Verdict

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from mypy_boto3_s3 import S3Client

    from r2fs.store.s3.session import Session

# At DEBUG these log every header, a session token among them, and nothing that helps a user.
for _name in ("boto3", "botocore", "urllib3"):
    logging.getLogger(_name).setLevel(logging.INFO)
# A header without a colon is a warning with a traceback there, for each answer that has one.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

POOL = 64  # connections kept: more than all transfer threads of a mount use at once

# Headers that boto3 parses as numbers and times, and that r2fs does not use: they may hold garbage.
UNREAD = frozenset(
    {
        "x-amz-missing-meta",
        "x-amz-mp-parts-count",
        "x-amz-tagging-count",
        "x-amz-object-lock-retain-until-date",
        "x-amz-object-size",
    }
)


def make_client(
    bucket: Bucket, counter: RequestCounter, connect_s: float, read_s: float, session: Session | None = None
) -> S3Client:
    """Return a client that sends nothing that R2 refuses."""
    from botocore.config import Config
    from botocore.handlers import add_expect_header

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
    events.register("before-parameter-build.s3.CopyObject", _take_headers)
    events.register("before-call.s3.CopyObject", _add_headers)
    for verb in ("DeleteObjects", "PutBucketCors", "PutBucketLifecycleConfiguration"):
        events.register_last(f"before-call.s3.{verb}", _sign_by_md5)
    if bucket.endpoint_url is not None:
        events.register("before-call.s3", _stay_here)

    sending = local()  # of the request that this thread sends: its key, then its Exchange
    hidden = HiddenKey(session)

    def count(request: AWSPreparedRequest, event_name: str, **_: object) -> None:
        hidden.look(request.headers.get("X-Amz-Security-Token"))
        size = int(request.headers.get("Content-Length") or 0) if request.method == "PUT" else 0
        sending.exchange = Exchange(counter, event_name.rpartition(".")[2], sending.key, request, size)

    def ended(response_dict: Mapping[str, Any] | None, exception: BaseException | None, **_: object) -> None:
        if response_dict is None:
            sending.exchange.failed(exception)
        else:
            sending.exchange.answered(int(response_dict["status_code"]), response_dict["headers"])

    def name(params: Mapping[str, Any], **_: object) -> None:
        sending.key = key_of(params)

    events.register("provide-client-params.s3", name)
    events.register("before-send.s3", count)
    events.register("response-received.s3", ended)
    for verb in ("GetObject", "HeadObject"):
        events.register(f"before-send.s3.{verb}", _accept_gzip)
    receiver: Any = _Receiver(client._endpoint, read_s)  # type: ignore[attr-defined]
    events.register_last("before-send.s3", receiver)
    return client


def _stay_here(params: dict[str, Any], **_: object) -> None:
    """Keep boto3 from following redirects of an endpoint other than AWS's own: it looks for the bucket's region by
    HEAD, for ever if the server redirects everything (http to https)."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _take_headers(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    context[ADDED] = params.pop(ADDED, {})


def _add_headers(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    params["headers"].update(context[ADDED])


def _accept_gzip(request: AWSPreparedRequest, **_: object) -> None:
    """Set Accept-Encoding after the signature, since proxies change this header."""
    if takes_gzip():
        request.headers["Accept-Encoding"] = "gzip"


def _sign_by_md5(params: dict[str, Any], **_: object) -> None:
    """Send Content-MD5, which every S3 server knows, in place of boto3's CRC."""
    params["context"].pop("checksum", None)
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


# ------------------------------------------------------------------ answers
class _Receiver:
    """Sends a request in botocore's place, and judges the answer."""

    def __init__(self, endpoint: Any, seconds: float) -> None:
        # constant
        self._endpoint = endpoint
        self._judge = Judge(seconds)

    def __call__(self, request: AWSPreparedRequest, event_name: str, **_: object) -> AWSResponse:
        from botocore.awsrequest import AWSResponse

        request.stream_output = True  # else the session reads the body whole
        heads: Any = request.headers
        for name, value in heads.items():
            if isinstance(value, bytes):  # as botocore leaves them: urllib3 fails on them at a 303
                heads[name] = value.decode("latin-1")
        came: AWSResponse = self._endpoint.http_session.send(request)
        response = AWSResponse(
            came.url, came.status_code, cast(Any, came.headers), cast(Any, _Body(came.raw))
        )
        verdict = self._judge.judge(request, event_name.rpartition(".")[2], cast(Came, response))
        if verdict.status < 300:
            for name in [name for name in response.headers if name.lower() in UNREAD]:
                del response.headers[name]
        return response if verdict.is_open else _made(response, verdict)


def _made(response: AWSResponse, verdict: Verdict) -> AWSResponse:
    """Return an answer for boto3, with the body that was read, or that of an error."""
    from botocore.awsrequest import AWSResponse

    body = _error_body(verdict) if verdict.code else verdict.body
    return AWSResponse(response.url, verdict.status, cast(Any, response.headers), _Whole(body))


def _error_body(verdict: Verdict) -> bytes:
    """Return an S3 error with the region that AWS names: boto3 sends the request again there."""
    where = f"<Region>{verdict.region}</Region>" if verdict.region else ""
    said = f"<Code>{escaped(verdict.code[:200])}</Code><Message>{escaped(verdict.message[:1000])}</Message>"
    return f"<Error>{said}{where}</Error>".encode()


class _Whole:
    """A body as AWSResponse reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        pass


class _Body:
    """A body of urllib3's. Its errors become those that http.client has for a body."""

    def __init__(self, raw: Any) -> None:
        # constant
        self._raw = raw

    def read1(self, size: int) -> bytes:
        import urllib3.exceptions

        try:
            data: bytes = self._raw.read1(size)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise TimeoutError(str(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise http.client.HTTPException(str(error)) from error
        return data

    def close(self) -> None:
        self._raw.close()
