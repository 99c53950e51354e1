"""check(): what is wrong is told in one sentence, with what to do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    PermissionRefused,
    Refused,
    StoreError,
    Unavailable,
)
from r2fs.model.ports import SystemClock
from r2fs.model.records import ObjectMeta
from r2fs.model.settings import Bucket, Credentials
from r2fs.store import open_store
from r2fs.store.s3.store import S3Store
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock
from tests.support.faulty import FaultyProxy, answer, stall
from tests.support.servers import Endpoint, free_ports


def refusal(bucket: Bucket) -> StoreError:
    store = open_store(bucket, SystemClock())
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        store.check()
    assert time.monotonic() - begun < 15, "a person waits"
    store.close()
    assert "\n" not in str(caught.value)
    secret = bucket.credentials.secret_access_key
    assert not secret or secret not in str(caught.value)
    return caught.value


def test_all_is_well(server: Endpoint):
    store = open_store(server.settings(), SystemClock())
    store.check()
    assert store.requests().by_verb == {"ListObjectsV2": 1}
    store.close()


# moto checks no signatures: what is about keys runs on the other two.
@pytest.fixture(params=["seaweedfs", "simulator"])
def strict(request: pytest.FixtureRequest) -> Endpoint:
    endpoint: Endpoint = request.getfixturevalue(request.param)
    return endpoint


def test_wrong_secret(strict: Endpoint):
    error = refusal(replace(strict, secret_key="wr0ng-s3cr3t").settings())
    assert isinstance(error, BadCredentials)
    assert "check the secret access key" in str(error)


def test_wrong_key_id(strict: Endpoint):
    error = refusal(replace(strict, access_key="nobody").settings())
    assert isinstance(error, BadCredentials | PermissionRefused)
    assert "check the" in str(error)


def test_no_credentials(strict: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    error = refusal(replace(strict.settings(), credentials=Credentials()))
    assert isinstance(error, BadCredentials)
    assert "set an access key id" in str(error)


def test_anonymous(strict: Endpoint):
    error = refusal(replace(strict.settings(), credentials=Credentials(anonymous=True)))
    assert isinstance(error, BadCredentials | PermissionRefused)


def test_a_profile_that_is_not_there(seaweedfs: Endpoint):
    with pytest.raises(BadCredentials, match="profile"):
        open_store(replace(seaweedfs.settings(), credentials=Credentials(profile="nobody")), SystemClock())


def test_wrong_bucket(server: Endpoint):
    error = refusal(server.settings(name="no-such-bucket"))
    assert isinstance(error, BucketMissing)
    assert "no-such-bucket" in str(error)


def test_requests_to_a_missing_bucket_say_so(server: Endpoint):
    store = open_store(server.settings(name="no-such-bucket"), SystemClock())
    for request in (
        lambda: store.list_page(""),
        lambda: store.head("key"),
        lambda: store.get("key"),
        lambda: store.put("key", BytesBody(b"x"), ObjectMeta()),
    ):
        with pytest.raises(BucketMissing):
            request()
    store.close()


def test_nobody_listens():
    (port,) = free_ports(1)
    error = refusal(Endpoint(f"http://127.0.0.1:{port}").settings())
    assert isinstance(error, Unavailable)
    assert f"127.0.0.1:{port}" in str(error)


def test_a_host_without_a_name():
    error = refusal(Endpoint("http://no-such-host.invalid").settings())
    assert isinstance(error, Unavailable)
    assert "no-such-host.invalid" in str(error)


def test_a_server_that_does_not_answer(seaweedfs: Endpoint):
    with FaultyProxy(seaweedfs.url) as proxy:
        proxy.rule(stall(), times=None)
        assert isinstance(refusal(seaweedfs.settings(url=proxy.url)), Unavailable)


def test_tls_where_there_is_none(seaweedfs: Endpoint):
    error = refusal(seaweedfs.settings(url=seaweedfs.url.replace("http:", "https:")))
    assert isinstance(error, Unavailable)


def test_an_endpoint_that_is_no_url():
    with pytest.raises(Refused, match="endpoint"):
        open_store(Endpoint("no url").settings(), SystemClock())


def test_a_throttled_answer_is_tried_again(seaweedfs: Endpoint):
    with FaultyProxy(seaweedfs.url) as proxy:
        proxy.script(answer(503, "SlowDown"))
        store = open_store(seaweedfs.settings(url=proxy.url), SystemClock())
        store.check()
        assert store.requests().retries == 1
        store.close()


@contextmanager
def web_server(status: int, body: bytes, headers: dict[str, str] | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "text/html", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


PAGE = b"<html><head><title>Hello</title></head><body>a web page<br></body></html>"
XHTML = b"<?xml version='1.0'?><html><body/></html>"


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, PAGE), (200, XHTML), (404, PAGE), (403, PAGE), (405, b""), (400, b""), (502, PAGE)],
)
def test_not_an_s3_server(status: int, body: bytes):
    with web_server(status, body) as url:
        error = refusal(Endpoint(url).settings())
    assert "does not answer as an S3 server does" in str(error)
    assert url.removeprefix("http://") in str(error)


def test_not_an_http_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.sendall(b"220 mail.example.com ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            error = refusal(Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}").settings())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert isinstance(error, Unavailable)


@pytest.mark.parametrize(("off_s", "way"), [(1200.0, "20 minutes ahead of"), (-7200.0, "120 minutes behind")])
def test_a_clock_that_is_off(seaweedfs: Endpoint, off_s: float, way: str):
    """This host's clock as the port gives it; the request itself is signed by the true one."""
    store = S3Store(seaweedfs.settings(), clock=ManualClock(time.time() + off_s))
    with pytest.raises(ClockSkewed, match=way):
        store.check()
    store.close()


@pytest.mark.parametrize(("off_s", "says"), [(3600.0, "60 minutes ahead of"), (-5400.0, "90 minutes behind")])
def test_a_refusal_for_the_clock_says_by_how_much_and_which_way(off_s: float, says: str):
    body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"
    with web_server(403, body) as url:
        store = S3Store(Endpoint(url).settings(), clock=ManualClock(time.time() + off_s))
        with pytest.raises(ClockSkewed, match=f"it is {says} the bucket's"):
            store.check()
        store.close()


def test_an_endpoint_that_holds_the_buckets_name(server: Endpoint):
    """As the address that R2's dashboard shows."""
    error = refusal(server.settings(url=f"{server.url}/{server.bucket}"))
    assert isinstance(error, Refused)
    assert "does not answer as an S3 server does: check the endpoint URL" in str(error)
    assert f"ends before /{server.bucket}" in str(error)


def test_a_clock_that_is_a_little_off(seaweedfs: Endpoint):
    store = S3Store(seaweedfs.settings(), clock=ManualClock(time.time() + 600))
    store.check()
    store.close()


@pytest.mark.parametrize(
    ("status", "code", "wanted", "says"),
    [
        (403, "RequestTimeTooSkewed", ClockSkewed, "clock is wrong"),
        (401, "Unauthorized", BadCredentials, "access key"),
        (403, "AccessDenied", PermissionRefused, "check the token's permissions"),
        (301, "PermanentRedirect", Refused, "check the endpoint and the region"),
    ],
)
def test_what_only_r2_or_aws_answers(
    seaweedfs: Endpoint, status: int, code: str, wanted: type[StoreError], says: str
):
    with FaultyProxy(seaweedfs.url) as proxy:
        proxy.rule(answer(status, code), times=None)
        error = refusal(seaweedfs.settings(url=proxy.url))
    assert isinstance(error, wanted)
    assert says in str(error)


def test_redirects_are_not_followed(seaweedfs: Endpoint):
    """A server that redirects http to https answers 301 to everything."""
    with web_server(301, b"", {"Location": "https://127.0.0.1/"}) as url:
        error = refusal(Endpoint(url).settings())
    assert isinstance(error, Refused)


def test_a_key_id_of_the_wrong_length():
    """R2 answers 400 InvalidArgument to it."""
    body = (
        b"<?xml version='1.0'?><Error><Code>InvalidArgument</Code><Message>Credential access key has "
        b"length 20, should be 32</Message></Error>"
    )
    with web_server(400, body, {"Content-Type": "application/xml"}) as url:
        error = refusal(Endpoint(url).settings())
    assert isinstance(error, BadCredentials)
    assert "should be 32" in str(error)


def test_file_roots(tmp_path):
    root = tmp_path / "bucket"
    error = refusal(Bucket("file", str(root)))
    assert isinstance(error, BucketMissing)
    assert str(root) in str(error)
    root.write_text("a file")
    assert isinstance(refusal(Bucket("file", str(root))), BucketMissing)
