"""At level debug each request is a line in the log: what was asked, what came, how long it took. No secrets."""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from r2fs.model.errors import StoreError
from r2fs.model.ports import SystemClock
from r2fs.model.records import ObjectMeta
from r2fs.model.settings import Bucket, Credentials
from r2fs.store import open_store
from tests.support.bodies import BytesBody

LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"


class Server(BaseHTTPRequestHandler):
    """Refuses the first PUT with 503, takes the second."""

    puts = 0

    def do_GET(self) -> None:
        self.reply(200, LISTING)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).puts += 1
        self.reply(503 if self.puts == 1 else 200, b"")

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"5d41402abc4b2a76b9719d911017c592"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Server.puts = 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    keys = Credentials("key-id-of-mine", "geheim-geheim", "token-of-mine")
    yield Bucket("s3", "takes", "", f"http://127.0.0.1:{server.server_port}", "auto", credentials=keys)
    server.shutdown()
    thread.join()
    server.server_close()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "r2fs.store.s3.request_log"]


def test_each_request_is_told_and_no_secret(bucket, caplog):
    caplog.set_level(logging.DEBUG)
    store = open_store(bucket, SystemClock())
    store.uniform = lambda: 0.0  # no pause before the next attempt
    store.list_page("a/", delimiter="/")
    store.put("a/ü b.wav", BytesBody(b"hello"), ObjectMeta("audio/wav", {}))
    store.close()
    listed, refused, put = lines(caplog)
    number = r"in \d+ ms"
    assert re.fullmatch(
        rf"ListObjectsV2 GET /takes \(prefix=a/, delimiter=/, max-keys=1000\): 200 {number}, 0 bytes sent, "
        rf"{len(LISTING)} received, attempt 1",
        listed,
    ), listed
    assert re.fullmatch(
        rf"PutObject PUT /takes/a/ü b.wav: 503 {number}, 5 bytes sent, 0 received, attempt 1", refused
    )
    assert re.fullmatch(
        rf"PutObject PUT /takes/a/ü b.wav: 200 {number}, 5 bytes sent, 0 received, attempt 2", put
    )
    for secret in ("geheim", "token-of-mine", "key-id-of-mine", "Signature", "Authorization"):
        assert secret not in caplog.text


def test_what_nobody_answered_is_told_too(caplog):
    caplog.set_level(logging.DEBUG)
    nobody = Bucket(
        "s3", "takes", "", "http://127.0.0.1:9", "auto", credentials=Credentials("id", "geheim-geheim")
    )
    store = open_store(nobody, SystemClock())
    store.uniform = lambda: 0.0
    with pytest.raises(StoreError):
        store.check()
    store.close()
    said = lines(caplog)
    assert len(said) == 3  # one for each attempt
    assert "no answer (EndpointConnectionError)" in said[0]
    assert [line.rpartition(" ")[2] for line in said] == ["1", "2", "3"]


def test_at_a_higher_level_nothing_is_told(bucket, caplog):
    caplog.set_level(logging.INFO)
    store = open_store(bucket, SystemClock())
    store.list_page("")
    store.close()
    assert lines(caplog) == []


def test_the_flag_of_mount_is_enough(tmp_path, monkeypatch):
    """`--log-level debug` reaches these lines, and not those of boto3."""
    from r2fs.daemon import logs

    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root, own = logging.getLogger(), logging.getLogger("r2fs")
    before = root.level, own.level, list(root.handlers)
    try:
        logs.to_stderr("debug", {})
        logging.getLogger("r2fs.store.s3.request_log").debug("a request")
        logging.getLogger("botocore.auth").debug("a signature")
    finally:
        root.setLevel(before[0])
        own.setLevel(before[1])
        root.handlers[:] = before[2]
    assert "a request" in stream.getvalue()
    assert "a signature" not in stream.getvalue()
