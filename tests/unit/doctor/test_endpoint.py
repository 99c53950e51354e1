"""The way to an endpoint: TLS by the certificates that boto3 trusts, and the clock by the answer's date."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from r2fs.doctor import endpoint
from r2fs.doctor.findings import Finding, Level
from r2fs.model.settings import Bucket
from r2fs.store.s3.reach import Endpoint


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(403)  # as S3 answers without a signature; with a date
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """URL of a server with TLS, and the file of its authority's certificate."""
    authority = trustme.CA()
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield f"https://127.0.0.1:{server.server_address[1]}", bundle
    server.shutdown()
    thread.join()
    server.server_close()


def checks(url: str) -> dict[str, Finding]:
    found = endpoint.checks(Endpoint(Bucket("s3", "takes", endpoint_url=url, region="auto")))
    return {each.check: each for each in found}


def test_a_trusted_certificate(secured: tuple[str, Path], monkeypatch: pytest.MonkeyPatch):
    url, bundle = secured
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    found = checks(url)
    assert {name: each.level for name, each in found.items()} == dict.fromkeys(
        ("dns", "connection", "tls", "clock"), Level.OK
    )
    assert found["tls"].text.startswith("TLSv1.")
    assert "certificate valid until" in found["tls"].text


def test_a_certificate_of_nobody_known(secured: tuple[str, Path]):
    found = checks(secured[0])
    assert list(found) == ["dns", "connection", "tls"]
    assert (found["tls"].level, found["tls"].exit_code) == (Level.FAILED, 11)
    assert "CERTIFICATE_VERIFY_FAILED" in found["tls"].text


def test_through_a_proxy_nothing_is_resolved_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    found = checks("https://no-such-host.invalid")
    assert list(found) == ["network"]


@pytest.mark.parametrize(
    ("off_s", "level"),
    [
        (0, Level.OK),
        (30, Level.OK),
        (120, Level.WARNING),
        (-120, Level.WARNING),
        (1000, Level.FAILED),
        (-1e6, Level.FAILED),
    ],
)
def test_the_clock(off_s: float, level: Level):
    now_s = time.time()
    assert endpoint.clock(formatdate(now_s, usegmt=True), now_s + off_s).level is level
    assert endpoint.clock(None, now_s).level is Level.WARNING


@pytest.mark.parametrize(
    ("host", "wrong"),
    [
        ("0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com", False),
        ("0123456789abcdef0123456789abcdef.eu.r2.cloudflarestorage.com", False),
        ("my-account.r2.cloudflarestorage.com", True),
        ("s3.amazonaws.com", False),
    ],
)
def test_account_ids(host: str, wrong: bool):
    assert (endpoint.account(host) is not None) == wrong


def test_a_bucket_is_looked_for_at_the_other_jurisdictions():
    host = "0123456789abcdef0123456789abcdef"
    here = Bucket("s3", "takes", endpoint_url=f"https://{host}.eu.r2.cloudflarestorage.com")
    found = {name: other.endpoint_url for name, other in endpoint.siblings(here)}
    assert found[""] == f"https://{host}.r2.cloudflarestorage.com"
    assert set(found) == {"", "fedramp", "us"}
    assert endpoint.siblings(Bucket("s3", "takes", endpoint_url="https://s3.example.com")) == []
