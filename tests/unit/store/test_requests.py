"""Requests without boto3: what is sent, and what is read of an answer, is as boto3 has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.etree.ElementTree import canonicalize

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import HTTPClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from r2fs.model.errors import BadCredentials, MalformedAnswer, PermissionRefused, Refused
from r2fs.model.records import ObjectMeta
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.s3 import signing
from r2fs.store.s3.clients import METHODS, ODD
from r2fs.store.s3.requests import _fields
from r2fs.store.s3.route import route_of
from r2fs.store.s3.signing import Signer, encoded_key, encoded_query
from r2fs.store.s3.store import S3Store
from r2fs.store.s3.xml import Malformed
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock
from tests.support.hostile import (
    KEY,
    OBJECT,
    PAGE,
    VERBS,
    Answers,
    Raw,
    all_good,
    answered_by,
    but,
    error,
    store_of,
    verb_of,
)

NOW = datetime(2026, 11, 29, 23, 59, 59, tzinfo=UTC)
ODD_KEYS = (
    "dir/", "a//b", "//", "/", "a/../b", "./a", "..", "a+b c%20%2F", "~-._!*'()", "ä/日本/\U0001f3b5", "a\nb\r\t\x01\x7f",
    "?x=1&y#z", "e\u0301", "\\", '"<&>', "k" * 1024,
)  # fmt: skip
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)


@pytest.fixture(scope="module", autouse=True)
def one_moment() -> Iterator[None]:
    """Both signers take this second for now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
        patch.setattr(
            signing,
            "time",
            SimpleNamespace(gmtime=lambda: NOW.utctimetuple(), strftime=time.strftime),
        )
        yield


# ------------------------------------------------------------------ signatures
def by_botocore(method: str, path: str, query: str, headers: dict[str, str], token: str | None) -> str:
    url = f"https://{headers['host']}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method=method, url=url, headers={n: v for n, v in headers.items() if n != "host"})
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
    S3SigV4Auth(BotoCredentials("id", "secret/+", token), "s3", "auto").add_auth(request)
    return str(request.headers["Authorization"])


@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE"]),
    key=KEYS,
    query=st.dictionaries(VALUES.filter(bool), KEYS, max_size=4),
    meta=st.dictionaries(st.from_regex(r"[a-z0-9.-]{1,10}", fullmatch=True), VALUES, max_size=4),
    token=st.sampled_from([None, "token/+="]),
)
@example("GET", "a  b", {}, {"spaces": "  a   b  "}, None)
@settings(max_examples=50)
def test_a_signature_is_botocores(
    method: str, key: str, query: dict[str, str], meta: dict[str, str], token: str | None
) -> None:
    path, sent = f"/bucket/{encoded_key(key)}", encoded_query(query)
    headers = {"host": "127.0.0.1:9000"} | {f"x-amz-meta-{name}": value for name, value in meta.items()}
    signer = Signer(lambda: BotoCredentials("id", "secret/+", token).get_frozen_credentials(), "auto")
    signed = dict(headers)
    signer.sign(method, path, sent, signed)
    assert signed["authorization"] == by_botocore(method, path, sent, headers, token)
    assert signed.get("x-amz-security-token") == token


def test_the_signing_key_changes_with_the_day_and_with_the_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = BotoCredentials("id", "secret/+", None)
    signer = Signer(lambda: current.get_frozen_credentials(), "auto")

    def signed() -> dict[str, str]:
        headers = {"host": "h"}
        signer.sign("GET", "/", "", headers)
        return headers

    before = signed()
    current = BotoCredentials("id", "another-secret", "and-a-token")
    assert before["authorization"] != signed()["authorization"]
    monkeypatch.setattr(
        signing, "time", SimpleNamespace(gmtime=lambda: time.gmtime(0), strftime=time.strftime)
    )
    earlier = signed()
    assert "/19700101/auto/s3/aws4_request" in earlier["authorization"]
    assert earlier["x-amz-date"] == "19700101T000000Z"


# ------------------------------------------------------------------ requests
CREDENTIALS = Credentials("id", "secret/+", "token")
PLACES = {
    "path": Bucket("s3", "bucket", endpoint_url="http://127.0.0.1:9"),
    "virtual": Bucket("s3", "bucket", endpoint_url="http://localhost:9", addressing="virtual"),
    "below a path": Bucket("s3", "bucket", endpoint_url="http://127.0.0.1:9/cdn-cgi/local/r2/s3/"),
    "r2": Bucket("s3", "bucket", endpoint_url="https://account.r2.cloudflarestorage.com"),
    "r2, virtual": Bucket(
        "s3", "bucket", endpoint_url="https://account.r2.cloudflarestorage.com:443", addressing="virtual"
    ),
    "aws": Bucket("s3", "bucket", region="eu-central-1", addressing="virtual"),
    "aws, path": Bucket("s3", "buck.et", region="us-east-1"),
    "anonymous": Bucket("s3", "bucket", endpoint_url="http://127.0.0.1:9"),
    "ipv6": Bucket("s3", "bucket", endpoint_url="http://" + "[::1]:9"),
}
ASKED: dict[str, dict[str, Any]] = {
    "GetObject": {"Range": "bytes=0-4", "IfMatch": '"etag"'},
    "HeadObject": {},
    "PutObject": {
        "ContentType": "audio/wav",
        "Metadata": {"mtime": "1.5", "r2fs-attempt": "=?UTF-8?B?w6Q=?="},
        "CacheControl": "no-cache",
        "ContentDisposition": "attachment",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "Expires": datetime(2026, 10, 21, 1, 2, 3, tzinfo=UTC),
        "StorageClass": "STANDARD_IA",
        "WebsiteRedirectLocation": "/there",
        "IfNoneMatch": "*",
        "Body": b"data",
    },
    "UploadPart": {"UploadId": "up/+=&1", "PartNumber": 17, "Body": b"data"},
    "DeleteObject": {},
    "CreateMultipartUpload": {
        "ContentType": "audio/wav",
        "Metadata": {"mtime": "1.5"},
        "CacheControl": "no-cache",
    },
    "UploadPartCopy": {
        "UploadId": "up/+=&1",
        "PartNumber": 2,
        "CopySource": {"Bucket": "bucket", "Key": "a b/ä+%?&versionId=x"},
        "CopySourceRange": "bytes=5-9",
    },
    "CompleteMultipartUpload": {
        "UploadId": "up/+=&1",
        "MultipartUpload": {
            "Parts": [{"PartNumber": 1, "ETag": '"etag"'}, {"PartNumber": 10_000, "ETag": '"a<&>\'b"'}]
        },
        "IfMatch": '"etag"',
    },
    "AbortMultipartUpload": {"UploadId": "up/+=&1"},
    "CopyObject": {
        "CopySource": {"Bucket": "bucket", "Key": "a b/ä+%?&versionId=x"},
        "CopySourceIfMatch": '"etag"',
        "ContentType": "audio/wav",
        "Metadata": {"mtime": "1.5"},
        "MetadataDirective": "REPLACE",
        "Headers": {"cf-copy-destination-if-match": '"other"', "if-match": '"other"'},
    },
}
DELETED = ["a", "a b/ä+%", "<&>\"'", "\u00a0e\u0301\U0001f3b5", "]]>"]


class Recorded(Answers):
    """Answers that keep the requests."""

    def __init__(self) -> None:
        super().__init__(all_good)
        self.requests: list[Any] = []
        self.bodies: list[bytes] = []

    def send(self, request: Any, limit_s: float | None = None) -> Any:
        self.requests.append(request)
        body = request.body or b""
        self.bodies.append(body if isinstance(body, bytes) else body.read())
        return super().send(request)


@pytest.fixture(scope="module")
def both() -> Iterator[Callable[[str], tuple[S3Store, Recorded]]]:
    made: dict[str, tuple[S3Store, Recorded]] = {}

    def of(place: str) -> tuple[S3Store, Recorded]:
        if place not in made:
            keys = Credentials(anonymous=True) if place == "anonymous" else CREDENTIALS
            store = S3Store(replace(PLACES[place], credentials=keys), clock=ManualClock())
            made[place] = store, Recorded()
            answered_by(store, made[place][1])
        return made[place]

    yield of
    for store, _ in made.values():
        store.close()


# botocore adds these after the signature, or signs without them.
BY_BOTO_ALONE = {"amz-sdk-invocation-id", "amz-sdk-request", "user-agent", "content-length"}
BY_US_ALONE = {"host", "user-agent", "accept-encoding", "content-length"}


def told(request: Any, but: set[str]) -> dict[str, str]:
    texts = {
        name.lower(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
    }
    return {name: value for name, value in texts.items() if name not in but | {"authorization"}}


def as_read(body: bytes) -> str:
    """A document's canonical form."""
    return canonicalize(body.decode()) if body.startswith(b"<") else body.decode()


def same_request(store: S3Store, session: Recorded, operation: str, asked: dict[str, Any]) -> None:
    """By boto3 and without it: the same method, place and headers."""
    requests, client = store._clients.requests(), store._clients.current
    assert requests is not None
    session.requests.clear()
    session.bodies.clear()
    requests.send(operation, asked | ({"Body": BytesBody(asked["Body"])} if "Body" in asked else {}))
    getattr(client, METHODS[operation])(**asked)
    ours, theirs = session.requests
    there, here = urlsplit(theirs.url), urlsplit(ours.url)
    assert (ours.method, here.scheme, here.path) == (theirs.method, there.scheme, there.path or "/")
    assert ours.headers["host"] == botocore.auth._host_from_url(theirs.url)
    assert ours.target == ours.url.partition(ours.headers["host"])[2]
    assert sorted(here.query.split("&")) == sorted(there.query.replace("+", "%20").split("&"))
    assert told(ours, BY_US_ALONE) == told(theirs, BY_BOTO_ALONE)
    sent, wanted = session.bodies
    assert ours.headers.get("content-length", "0") == str(len(sent))
    assert as_read(sent) == as_read(wanted)


@pytest.mark.parametrize("place", PLACES)
def test_requests_go_where_boto3s_go_with_what_they_say(both: Any, place: str) -> None:
    store, session = both(place)
    bucket = PLACES[place].name
    for operation, asked in ASKED.items():
        same_request(store, session, operation, {"Bucket": bucket, "Key": "takes/07 ä+%.wav", **asked})
    for prefix, more in (
        ("", {}),
        ("ä b/+&%", {"Delimiter": "/", "StartAfter": "ä"}),
        ("a", {"ContinuationToken": "=/+ "}),
    ):
        same_request(
            store, session, "ListObjectsV2", {"Bucket": bucket, "Prefix": prefix, "MaxKeys": 1000, **more}
        )
    same_request(store, session, "HeadBucket", {"Bucket": bucket})
    batch = {"Objects": [{"Key": key} for key in DELETED], "Quiet": True}
    same_request(store, session, "DeleteObjects", {"Bucket": bucket, "Delete": batch})


@pytest.mark.parametrize("place", [place for place in PLACES if place != "anonymous"])
def test_urls_are_those_of_boto3(both: Any, place: str) -> None:
    store, _ = both(place)
    clients, bucket = store._clients, PLACES[place].name
    for key in (*ODD_KEYS, "takes/07 ä+%.wav"):
        for operation, more in (
            ("GetObject", {}),
            ("GetObject", {"ResponseContentDisposition": "attachment; filename*=UTF-8''t%C3%A4ke%20+7.wav"}),
            ("PutObject", {}),
        ):
            asked = {"Bucket": bucket, "Key": key, **more}
            ours = urlsplit(clients.presign(operation, asked, 3600))
            theirs = urlsplit(
                clients.current.generate_presigned_url(METHODS[operation], Params=asked, ExpiresIn=3600)
            )
            place_of_boto = (theirs.scheme, theirs.netloc.removesuffix(":443"), theirs.path)
            assert (ours.scheme, ours.netloc, ours.path) == place_of_boto
            assert dict(parse_qsl(ours.query)) == dict(parse_qsl(theirs.query))


@pytest.mark.parametrize("place", ["path", "virtual"])
@given(key=KEYS, meta=st.dictionaries(st.from_regex(r"[a-z0-9.-]{1,10}", fullmatch=True), VALUES, max_size=3))
def test_any_key_is_spelled_as_boto3_spells_it(both: Any, place: str, key: str, meta: dict[str, str]) -> None:
    store, session = both(place)
    asked = {"Bucket": "bucket", "Key": key, "Metadata": meta, "Body": b""}
    same_request(store, session, "PutObject", asked)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys(both: Any, key: str) -> None:
    for place in ("path", "virtual", "below a path"):
        store, session = both(place)
        same_request(store, session, "GetObject", {"Bucket": "bucket", "Key": key})


def test_a_header_cannot_be_smuggled_in() -> None:
    store, session = store_of(all_good)
    for kind in ("audio/wav\r\nx-amz-acl: public-read", "audio/wav\n", "ä", "\0"):
        with pytest.raises(Refused):
            store.put(KEY, BytesBody(b"x"), ObjectMeta(kind, {}))
    assert session.sent == []
    store.close()


def test_a_key_that_is_no_unicode_is_refused() -> None:
    store, session = store_of(all_good)
    for call in (store.head, store.get, store.delete):
        with pytest.raises(Refused):
            call("a\ud800b")
        with pytest.raises(Refused):
            call("")
    assert session.sent == []
    store.close()


# ------------------------------------------------------------------ answers
HEADER = st.sampled_from(
    ["ETag", "Last-Modified", "Content-Length", "Content-Range", "Content-Type", "Cache-Control", "Content-Disposition",
     "Content-Encoding", "Content-Language", "Expires", "x-amz-meta-a", "X-Amz-Meta-B", "x-amz-storage-class",
     "x-amz-server-side-encryption", "x-amz-server-side-encryption-customer-algorithm",
     "x-amz-website-redirect-location", "x-amz-request-id"]
)  # fmt: skip
TEXT = st.one_of(
    VALUES.map(str.strip),
    st.sampled_from(["5", "-1", "0", "bytes 0-4/14", '"etag"', 'W/"etag"', "Sat, 28 Nov 2026 10:00:00 GMT",
                     "Sat, 28 Nov 2026 11:00:00 +0100", "Saturday, 28-Nov-26 10:00:00 GMT"]),
)  # fmt: skip


@pytest.mark.expect_warnings('Failed to parse the "Expires"')  # botocore's
@settings(max_examples=50)
@given(heads=st.lists(st.tuples(HEADER, TEXT), max_size=8))
@example([("Last-Modified", "Sat, 28 Nov 2026 11:00:00 +0100"), ("Last-Modified", "")])
def test_fields_of_an_answer_are_boto3s(both: Any, heads: list[tuple[str, str]]) -> None:
    """Or the answer is not understood, and boto3 is asked."""
    store, session = both("path")
    session.answering = lambda request: Raw(200, (*heads, ("Content-Length", "14")))
    try:
        ours = store._clients.requests().send("HeadObject", {"Bucket": "bucket", "Key": "k"})
        theirs = store._clients.current.head_object(Bucket="bucket", Key="k")
    except (Malformed, ValueError, HTTPClientError):
        return
    finally:
        session.answering = all_good
    theirs["Metadata"] = {name.lower(): value for name, value in theirs["Metadata"].items()}
    assert {name: theirs.get(name) for name in ours} == ours


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "14, 15"},
        {"content-length": "-1"},
        {"content-length": "١٢"},
        {"content-length": "9" * 20},
        {"last-modified": "soon"},
        {"last-modified": ""},
    ],
)
def test_what_is_not_understood_is_said_so(headers: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        _fields(headers)


def test_a_length_that_makes_no_sense_is_no_matter_of_a_write() -> None:
    odd = VERBS["put"].good.having(content_length="many")
    store, session = store_of(but("put", odd))
    assert VERBS["put"].call(store) == VERBS["put"].believed
    assert len(session.sent) == 1
    store.close()


# ------------------------------------------------------------------ asking boto3
ISO = OBJECT.having(last_modified="2026-11-28T10:00:00Z")  # boto3 reads such a time, and we do not


@pytest.mark.parametrize("verb", ["head", "get"])
def test_a_read_that_is_not_understood_is_asked_again_by_boto3(verb: str) -> None:
    store, session = store_of(but(verb, replace(VERBS[verb].good, headers=ISO.headers)))
    for number in range(1, 20):
        assert VERBS[verb].call(store) == VERBS[verb].believed
        assert len(session.sent) == min(number, ODD) + number  # then boto3 is asked first
    assert store._counter.view().total == len(session.sent)
    store.close()


WRITES = ["put", "part", "delete", "delete_many", "create", "copy_part", "complete", "abort", "copy"]


@pytest.mark.parametrize("verb", WRITES)
def test_a_write_whose_answer_is_not_understood_is_not_sent_again(verb: str) -> None:
    """Whether it was done is not known."""
    store, session = store_of(lambda request: Raw(200, (), PAGE) if request.method != "HEAD" else Raw(404))
    with pytest.raises(MalformedAnswer):
        VERBS[verb].call(store)
    assert [method for method, _ in session.sent if method != "HEAD"] == [VERBS[verb].method]
    store.close()


def test_a_refusal_is_believed_at_once() -> None:
    store, session = store_of(lambda request: Raw(403, (), error("AccessDenied")))
    for verb in ("list", "get", *WRITES):
        session.sent.clear()
        with pytest.raises(PermissionRefused):
            VERBS[verb].call(store)
        assert len([method for method, _ in session.sent if method != "HEAD"]) == 1
    store.close()


@pytest.mark.parametrize("verb", ["list", "get", *WRITES])
def test_a_bucket_of_another_region_is_found_by_boto3(verb: str) -> None:
    wrong = error("AuthorizationHeaderMalformed").replace(b"</Error>", b"<Region>eu-west-1</Region></Error>")
    store = S3Store(
        Bucket("s3", "bucket", region="us-east-1", addressing="virtual", credentials=CREDENTIALS),
        clock=ManualClock(),
    )
    answers = Answers(lambda r: verb_of(r).good if "eu-west-1" in r.url else Raw(400, (), wrong))
    answered_by(store, answers)
    assert VERBS[verb].call(store) == VERBS[verb].believed
    store.close()


# ------------------------------------------------------------------ ways that are boto3's alone
def is_by_boto(bucket: Bucket) -> bool:
    store = S3Store(replace(bucket, credentials=CREDENTIALS), clock=ManualClock())
    try:
        return store._clients.requests() is None
    finally:
        store.close()


def test_a_proxy_is_left_to_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_by_boto(PLACES["r2"])
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:3128")
    assert is_by_boto(PLACES["r2"])
    assert not is_by_boto(PLACES["path"])  # http
    monkeypatch.setenv("NO_PROXY", "r2.cloudflarestorage.com")
    assert not is_by_boto(PLACES["r2"])


def test_access_points_and_other_signatures_are_left_to_boto3() -> None:
    assert is_by_boto(
        Bucket("s3", "arn:aws:s3:eu-central-1:123456789012:accesspoint/mine", region="eu-central-1")
    )
    assert is_by_boto(Bucket("s3", "takes--euc1-az1--x-s3", region="eu-central-1", addressing="virtual"))


def test_the_setting_leaves_all_to_boto3() -> None:
    assert is_by_boto(replace(PLACES["r2"], transport="boto3"))


def test_certificates_that_cannot_be_read_are_boto3s_to_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    assert is_by_boto(PLACES["r2"])


def test_without_a_key_boto3_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    store = S3Store(replace(PLACES["path"], credentials=Credentials()), clock=ManualClock())
    with pytest.raises(BadCredentials, match="set an access key id"):
        store.head(KEY)
    store.close()


def test_of_two_threads_that_make_the_transport_one_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(replace(PLACES["path"], credentials=CREDENTIALS), clock=ManualClock())
    clients = store._clients
    make, found = clients._made.make_requests, []

    def make_requests() -> Any:
        monkeypatch.setattr(clients._made, "make_requests", make)
        found.append(clients.requests())  # the other thread, which is faster
        found.append(make())
        return found[1]

    monkeypatch.setattr(clients._made, "make_requests", make_requests)
    assert clients.requests() is found[0]
    assert [one._connections._is_closed for one in found] == [False, True]
    store.close()
    assert found[0]._connections._is_closed


def test_the_way_to_the_bucket() -> None:
    store = S3Store(replace(PLACES["below a path"], credentials=CREDENTIALS), clock=ManualClock())
    route = route_of(store._clients.current, "bucket")
    assert route is not None
    assert (route.scheme, route.address, route.base) == (
        "http",
        ("127.0.0.1", 9),
        "/cdn-cgi/local/r2/s3/bucket",
    )
    assert (route.host, route.region) == ("127.0.0.1:9", "auto")
    store.close()
