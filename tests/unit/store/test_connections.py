"""Connections without boto3: when one is used again, what ends it, and whom TLS trusts."""

from __future__ import annotations

import datetime
import http.client
import io
import math
import select
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import botocore.exceptions as boto_errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2fs.model.errors import PermissionRefused, Unavailable
from r2fs.model.ports import SystemClock
from r2fs.model.records import ObjectMeta
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.s3 import connections
from r2fs.store.s3.store import S3Store
from tests.support.bodies import BytesBody
from tests.support.hostile import DATA, MD5, OBJECT, error

META = ObjectMeta("audio/wav", {})
FOUND = "".join(f"{name}: {value}\r\n" for name, value in OBJECT.headers)
HEAD_ANSWER = f"HTTP/1.1 200 OK\r\n{FOUND}\r\n".encode()
GET_ANSWER = HEAD_ANSWER + DATA
PUT_ANSWER = f'HTTP/1.1 200 OK\r\nETag: "{MD5}"\r\nContent-Length: 0\r\n\r\n'.encode()

AT_ONCE = 4
Talk = Callable[[int, socket.socket], None]


class Server:
    """`talk(number, sock)` has the connection of that number, from 0."""

    def __init__(self, talk: Talk, context: ssl.SSLContext | None = None) -> None:
        self._talk = talk
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.accepted = 0
        self.resumed: list[bool] = []
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, name="server", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(
                target=self._serve, args=(self.accepted, sock), name="server-one", daemon=True
            )
            self.accepted += 1
            self._open.append(sock)
            self._threads.append(thread)
            thread.start()

    def _serve(self, number: int, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            if self._context is None:
                self._talk(number, sock)
                return
            with self._context.wrap_socket(sock, server_side=True) as secured:
                self.resumed.append(bool(secured.session_reused))
                self._talk(number, secured)

    def serving(self) -> list[threading.Thread]:
        return self._threads[:AT_ONCE]

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in [self._acceptor, *self._threads]:
            thread.join(10)


def request_of(sock: socket.socket) -> bytes:
    """Head of one request; b"" at the connection's end. Its body is read too."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(1)
        if not data:
            return b""
        head += data
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            left = int(line.partition(b":")[2])
            while left:
                left -= len(sock.recv(min(left, 65536))) or left
    return head


def answering(*answers: bytes) -> Talk:
    """Each connection answers so, one after the other, and then stays open."""

    def talk(number: int, sock: socket.socket) -> None:
        for answer in answers:
            if not request_of(sock):
                return
            sock.sendall(answer)
        while request_of(sock):
            sock.sendall(answers[-1])

    return talk


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Server, S3Store]]]:
    made: list[tuple[Server, S3Store]] = []

    def serve(
        talk: Talk, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> tuple[Server, S3Store]:
        server = Server(talk, context)
        scheme = "http" if context is None else "https"
        bucket = Bucket(
            "s3",
            "bucket",
            endpoint_url=f"{scheme}://{host}:{server.port}",
            credentials=Credentials("id", "secret"),
            request_timeout_s=5.0,
        )
        store = S3Store(bucket, clock=SystemClock())
        assert store._clients.requests() is not None
        made.append((server, store))
        return server, store

    yield serve
    for server, store in made:
        store.close()
        server.stop()


def idle(store: S3Store) -> int:
    return len(connections_of(store)._idle)


def read(store: S3Store) -> bytes:
    with store.get("key") as download:
        return b"".join(download.chunks(5))


# ------------------------------------------------------------------ used again
def test_one_connection_carries_one_request_after_another(serve) -> None:
    server, store = serve(answering(GET_ANSWER))
    for _ in range(5):
        assert read(store) == DATA
    assert (server.accepted, idle(store)) == (1, 1)


def test_the_one_that_was_used_last_goes_first(serve) -> None:
    used: list[int] = []

    def talk(number: int, sock: socket.socket) -> None:
        while request_of(sock):
            used.append(number)
            sock.sendall(GET_ANSWER)

    _, store = serve(talk)
    with store.get("a") as first, store.get("b") as second:
        b"".join(second.chunks())
        b"".join(first.chunks())
    for _ in range(3):
        read(store)
    assert used == [0, 1, 0, 0, 0]
    assert idle(store) == 2


def test_a_connection_that_the_server_has_ended_is_not_used(serve) -> None:
    ended = threading.Event()

    def talk(number: int, sock: socket.socket) -> None:
        request_of(sock)
        sock.sendall(GET_ANSWER)
        sock.shutdown(socket.SHUT_WR)
        ended.set()
        request_of(sock)

    server, store = serve(talk)
    for _ in range(3):
        ended.clear()
        assert read(store) == DATA
        assert ended.wait(10)
    assert server.accepted == 3


@pytest.mark.parametrize(
    "answer",
    [
        GET_ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1),
        GET_ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + GET_ANSWER,
        b"HTTP/1.1 101 Switching\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "an interim answer", "another protocol"],
)
def test_what_does_not_leave_a_connection_as_it_was_ends_it(serve, answer: bytes) -> None:
    _, store = serve(answering(answer))
    with suppress(Unavailable):
        assert read(store) == DATA
    assert idle(store) == 0


def test_a_body_that_is_left_early_ends_its_connection(serve) -> None:
    server, store = serve(answering(GET_ANSWER))
    with store.get("key") as download:
        next(download.chunks(5))
    assert idle(store) == 0
    assert read(store) == DATA
    assert server.accepted == 2


def test_what_nobody_asked_for_is_no_answer_to_the_next_request(serve) -> None:
    """Bytes behind an answer's end, as of a body after HEAD."""
    sent = threading.Event()

    def talk(number: int, sock: socket.socket) -> None:
        request_of(sock)
        sock.sendall(HEAD_ANSWER)
        if number == 0:
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        sent.set()
        request_of(sock)

    _, store = serve(talk)
    assert store.head("key").etag == MD5
    assert sent.wait(10)
    with suppress(Unavailable):
        assert store.head("key").etag == MD5


def test_close_ends_what_is_idle_and_what_comes_back(serve) -> None:
    _, store = serve(answering(GET_ANSWER))
    read(store)
    download = store.get("key")
    store.close()
    assert b"".join(download.chunks()) == DATA
    assert idle(store) == 0


# ------------------------------------------------------------------ bodies
def test_a_server_may_refuse_before_it_has_read_the_body(serve) -> None:
    """It answers and ends the connection: what it says counts, not that nothing more can be sent."""
    refusal = error("AccessDenied")

    def talk(number: int, sock: socket.socket) -> None:
        while not sock.recv(65536).endswith(b"x"):
            pass
        sock.sendall(
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(refusal)
            + refusal
        )
        sock.shutdown(socket.SHUT_RDWR)

    _, store = serve(talk)
    with pytest.raises((PermissionRefused, Unavailable)):
        store.put("key", BytesBody(b"x" * (64 << 20)), META)
    assert idle(store) == 0


def test_a_file_that_grew_is_sent_as_long_as_was_said(serve) -> None:
    class Grown(BytesBody):
        def __len__(self) -> int:
            return len(DATA)

    server, store = serve(answering(PUT_ANSWER))
    assert store.put_part("key", "up", 1, Grown(DATA + b"more")).etag == MD5
    assert store.put_part("key", "up", 2, BytesBody(DATA)).etag == MD5
    assert server.accepted == 1


# ------------------------------------------------------------------ heads of answers
class Wire:
    """A socket from which `data` is read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def read_by(kind: type[http.client.HTTPResponse], head: bytes, method: str = "GET") -> tuple[Any, ...]:
    """Status, headers, framing and body as `kind` reads them, or its error."""
    response = kind(Wire(head + b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), method=method)  # type: ignore[arg-type]
    ends: list[bool] = []
    try:
        response.begin()
        received = connections.Received(response, ends.append)
        body = b"".join(iter(lambda: received.read1(3), b""))
    except (http.client.HTTPException, ValueError) as error:
        return type(error), str(error)
    finally:
        response.close()
    length, chunked = response.length, response.chunked
    return response.status, received.headers, body, length, chunked, response.will_close, ends


LIBRARY_READS = {
    "nothing": b"",
    "no colon": b"ETag: a\r\nno colon\r\nContent-Length: 5\r\n",
    "no name": b": a\r\nContent-Length: 5\r\n",
    "a space before the colon": b"Content-Length : 5\r\n",
    "a folded line": b"ETag: a\r\n b\r\nContent-Length: 5\r\n",
    "folded at the beginning": b" folded\r\nContent-Length: 5\r\n",
    "line feeds alone": b"ETag: a\nContent-Length: 5\n",
    "a carriage return alone": b"ETag: a\rb\r\nContent-Length: 5\r\n",
    "a NUL": b"ETag: a\0b\r\nContent-Length: 5\r\n",
    "a vertical tab": b"ETag: a\x0bTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "a unit separator": b"ETag: a\x1cb\r\nContent-Length: 5\r\n",
    "a name of Latin-1": b"\xe4: a\r\nContent-Length: 5\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 9\r\n",
    "the same length twice": b"Content-Length: 5\r\ncontent-length: 5\r\n",
    "a list of lengths": b"Content-Length: 5, 5\r\n",
    "a negative length": b"Content-Length: -5\r\n",
    "a length with a sign": b"Content-Length: +5\r\n",
    "a length with spaces": b"Content-Length: \t 5 \t \r\n",
    "an empty length": b"Content-Length:\r\n",
    "chunked": b"Transfer-Encoding: Chunked\r\n",
    "chunked, and a length": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "chunked, then identity": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "identity, then chunked": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "gzip and chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "close": b"CONNECTION: Close\r\nContent-Length: 5\r\n",
    "keep-alive, then close": b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: 5\r\n",
    "a multipart type": b'Content-Type: multipart/mixed; boundary="b"\r\nContent-Length: 5\r\n',
    "From, as of a mailbox": b"From me\r\nContent-Length: 5\r\n",
    "99 headers": b"".join(b"x-%d: a\r\n" % n for n in range(98)) + b"Content-Length: 5\r\n",
    "100 headers": b"".join(b"x-%d: a\r\n" % n for n in range(100)),
    "the longest line": b"ETag: " + b"a" * (65536 - 8) + b"\r\nContent-Length: 5\r\n",
    "a line that is too long": b"ETag: " + b"a" * (65536 - 7) + b"\r\n",
    "an endless line": b"a" * 200_000,
}


@pytest.mark.parametrize("version", [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 None"])
@pytest.mark.parametrize("lines", LIBRARY_READS.values(), ids=LIBRARY_READS.keys())
def test_a_head_is_read_as_http_client_reads_it(version: bytes, lines: bytes) -> None:
    for end in (b"\r\n", b"\n", b""):
        head = version + b"\r\n" + lines + end
        for method in ("GET", "HEAD"):
            assert read_by(connections._Response, head, method) == read_by(
                http.client.HTTPResponse, head, method
            )


LINE = st.builds(
    b"".join,
    st.tuples(
        st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"connection", b"ETag", b"x-amz-meta-a", b"", b" x"]),
        st.sampled_from([b": ", b":", b" :", b":\t ", b""]),
        st.sampled_from([b"5", b"chunked", b"close", b"keep-alive"]) | st.binary(max_size=12).map(
            lambda data: bytes(byte for byte in data if not 0x80 <= byte < 0xA0)
        ),
        st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n ", b"\r"]),
    ),
)  # fmt: skip


@given(lines=st.lists(LINE, max_size=6))
def test_any_head_is_read_as_http_client_reads_it(lines: list[bytes]) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(lines) + b"\r\n"
    assert read_by(connections._Response, head) == read_by(http.client.HTTPResponse, head)


def test_usual_heads_are_read_without_the_parser_of_email(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a letter whose UTF-8 has the byte 0x85, a line's end to that parser, ends no line."""
    monkeypatch.setattr(http.client, "parse_headers", None)
    head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-amz-meta-a: Å\r\nETag: x:y\r\n\r\n".encode()
    status, headers, *_ = read_by(connections._Response, head)
    assert (status, headers) == (200, {"content-length": "5", "x-amz-meta-a": "Ã\x85", "etag": "x:y"})


# ------------------------------------------------------------------ TLS
@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of localhost, signed by itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])  # a common name is no host
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


def of_server(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_certificate_of_the_bundle_is_trusted_and_a_session_resumed(
    serve, certificate: Path, monkeypatch: pytest.MonkeyPatch, newest: ssl.TLSVersion
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    context = of_server(certificate)
    context.maximum_version = newest
    ending = GET_ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)

    def talk(number: int, sock: socket.socket) -> None:
        for answer in (GET_ANSWER, ending):
            request_of(sock)
            sock.sendall(answer)

    server, store = serve(talk, context, "localhost")
    for _ in range(4):
        assert read(store) == DATA
    assert server.resumed == [False, True]


@pytest.mark.parametrize(("host", "trusted"), [("localhost", False), ("127.0.0.1", True)])
def test_no_other_certificate_is(
    serve, certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool
) -> None:
    """Nobody vouches for it, or it is of another host."""
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    _, store = serve(answering(GET_ANSWER), of_server(certificate), host)
    with pytest.raises(Unavailable, match="no TLS connection"):
        read(store)
    assert store._counter.view().total == 0


def test_old_tls_is_not_spoken(serve, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    context = of_server(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    _, store = serve(answering(GET_ANSWER), context, "localhost")
    with pytest.raises(Unavailable, match="no TLS connection"):
        read(store)


# ------------------------------------------------------------------ the first that comes
def connections_of(store: S3Store) -> connections.Connections:
    requests = store._clients.requests()
    assert requests is not None
    kept: connections.Connections = requests._connections  # type: ignore[assignment]
    return kept


def kept_of(store: S3Store) -> list[socket.socket]:
    return list(connections_of(store)._idle)


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if is_so():
            return
        time.sleep(0.001)
    raise AssertionError("not within 10 s")


class Opening:
    """Connections are opened once `go` has as many permits, and refused where `refused` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.go = threading.Semaphore(0)
        self.refused = False
        self.is_ended = False  # by the server, as soon as it is there
        self.made: list[socket.socket] = []
        connected = connections.Connections._connected

        def open_one(kept: connections.Connections, url: str) -> socket.socket:
            self.begun += 1
            assert self.go.acquire(timeout=20)
            if self.refused:
                raise boto_errors.EndpointConnectionError(endpoint_url=url)
            sock = connected(kept, url)
            self.made.append(sock)
            assert not self.is_ended or has_come(sock)
            return sock

        monkeypatch.setattr(connections.Connections, "_connected", open_one)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Opening:
    return Opening(monkeypatch)


class Reading:
    """A GET by a thread of its own."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self.data = b""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            self.data = read(self._store)
        except Unavailable as error:
            self.error = error

    def end(self) -> Reading:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self


def test_a_request_takes_what_another_gives_back_before_its_own_is_opened(serve, opening: Opening) -> None:
    server, store = serve(answering(GET_ANSWER))
    opening.go.release()
    first = store.get("first")
    second = Reading(store)
    until(lambda: opening.begun == 2)
    assert b"".join(first.chunks()) == DATA
    assert second.end().data == DATA
    assert (server.accepted, idle(store)) == (1, 1)
    opening.go.release()
    until(lambda: idle(store) == 2)
    assert not connections_of(store)._opening
    assert kept_of(store)[-1] is opening.made[0], "one that was used goes first"


def test_what_is_being_opened_is_waited_for_by_the_next(serve, opening: Opening) -> None:
    """No more are opened than requests were under way at once."""
    server, store = serve(answering(GET_ANSWER))
    opening.go.release()
    first = store.get("first")
    second = Reading(store)
    until(lambda: opening.begun == 2)
    b"".join(first.chunks())
    second.end()
    with store.get("third") as third:  # the connection that was used
        fourth = Reading(store)
        until(lambda: bool(connections_of(store)._waiting))
        opening.go.release()
        assert fourth.end().data == DATA
        assert b"".join(third.chunks()) == DATA
    assert (opening.begun, server.accepted, idle(store)) == (2, 2, 2)


@pytest.mark.parametrize("served", [True, False], ids=["another came", "nothing came"])
def test_an_error_is_the_requests_only_if_nothing_else_came(serve, opening: Opening, served: bool) -> None:
    _, store = serve(answering(GET_ANSWER))
    opening.go.release()
    with store.get("first") as first:
        second = Reading(store)
        until(lambda: opening.begun == 2)
        opening.refused = True
        if served:
            b"".join(first.chunks())
            second.end()
        opening.go.release()
        second.end()
        until(lambda: not connections_of(store)._opening)
    assert (second.data, second.error is None) == ((DATA, True) if served else (b"", False))
    assert not connections_of(store)._waiting


def test_what_the_server_has_ended_is_given_to_nobody(serve, opening: Opening) -> None:
    ended = threading.Event()

    def talk(number: int, sock: socket.socket) -> None:
        request_of(sock)
        sock.sendall(GET_ANSWER)
        if number == 0:
            sock.shutdown(socket.SHUT_RDWR)
            ended.set()
        request_of(sock)

    server, store = serve(talk)
    opening.go.release()
    first = store.get("first")
    assert ended.wait(10)
    assert has_come(opening.made[0])
    second = Reading(store)
    until(lambda: opening.begun == 2)
    assert b"".join(first.chunks()) == DATA
    opening.go.release()
    assert second.end().data == DATA
    assert (server.accepted, idle(store)) == (2, 1)


def test_a_new_one_that_the_server_has_ended_is_an_error(serve, opening: Opening) -> None:
    _, store = serve(lambda number, sock: None)
    opening.is_ended = True
    opening.go.release()
    assert Reading(store).end().error is not None


def test_a_request_waits_no_longer_than_for_one_of_its_own(serve, opening: Opening) -> None:
    """What it waited for is the next one's, then."""
    _, store = serve(answering(GET_ANSWER))
    with pytest.raises(boto_errors.ConnectTimeoutError):
        connections_of(store)._first(store.url, 0.0)
    assert not connections_of(store)._waiting
    later = Reading(store)
    until(lambda: bool(connections_of(store)._waiting))
    opening.go.release()
    assert (later.end().data, opening.begun) == (DATA, 1)


@pytest.mark.parametrize("taken", [False, True], ids=["just before", "just after it was taken"])
def test_what_comes_as_a_request_gives_up_is_kept(
    serve, opening: Opening, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """By Ctrl-C, or at the end of its time; what was taken from the queue when the signal came is lost."""
    _, store = serve(answering(GET_ANSWER))

    class Late(SimpleQueue[object]):
        def get(self, block: bool = True, timeout: float | None = None) -> object:
            if timeout is None:
                return super().get()
            opening.go.release()
            until(lambda: not self.empty())
            if taken:
                super().get()
                raise KeyboardInterrupt
            raise Empty

    monkeypatch.setattr(connections, "SimpleQueue", Late)
    with pytest.raises(KeyboardInterrupt if taken else boto_errors.ConnectTimeoutError):
        connections_of(store)._first(store.url, 20.0)
    [made] = opening.made
    assert kept_of(store) == ([] if taken else [made])
    made.close()


def test_what_is_opened_after_close_is_closed(serve, opening: Opening) -> None:
    _, store = serve(answering(GET_ANSWER))
    store._clients.connect_ahead(1)
    until(lambda: opening.begun == 1)
    store.close()
    opening.go.release()
    until(lambda: not connections_of(store)._opening)
    assert (idle(store), opening.made[0].fileno()) == (0, -1)


def test_without_threads_a_request_opens_its_own(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, store = serve(answering(GET_ANSWER))
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "connect":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert read(store) == DATA
    assert (server.accepted, idle(store)) == (1, 1)


# ------------------------------------------------------------------ before they are needed
def has_come(sock: socket.socket) -> bool:
    """True as soon as there is something to read, within 10 s; the number of a descriptor may be above select's limit."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(10_000))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_opened_ahead_are_used(
    serve, certificate: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """A server of TLS 1.3 sends tickets after the handshake: what can be read of such a connection is no end of it."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    server, store = serve(answering(GET_ANSWER), of_server(certificate) if tls else None, "localhost")
    for _ in range(2):
        store._clients.connect_ahead(AT_ONCE)
    until(lambda: idle(store) == AT_ONCE)
    for sock in kept_of(store) if tls else ():
        assert has_come(sock), "its tickets"
    with ExitStack() as stack:
        found = [stack.enter_context(store.get(f"{n}")) for n in range(AT_ONCE)]
        assert [b"".join(one.chunks()) for one in found] == [DATA] * AT_ONCE
    assert server.accepted == AT_ONCE


@pytest.mark.parametrize(("far_s", "opened"), [(0.0, AT_ONCE), (math.inf, 1)], ids=["far", "near"])
def test_a_near_servers_are_opened_when_they_are_needed(
    serve, monkeypatch: pytest.MonkeyPatch, far_s: float, opened: int
) -> None:
    monkeypatch.setattr(connections, "FAR_S", far_s)
    _, store = serve(answering(GET_ANSWER))
    read(store)
    store._clients.connect_ahead(AT_ONCE)
    until(lambda: not connections_of(store)._opening)
    assert idle(store) == opened


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_one_that_the_server_has_ended_is_not(
    serve, certificate: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))

    def talk(number: int, sock: socket.socket) -> None:
        if number >= AT_ONCE:
            answering(GET_ANSWER)(number, sock)

    server, store = serve(talk, of_server(certificate) if tls else None, "localhost")
    store._clients.connect_ahead(AT_ONCE)
    until(lambda: idle(store) == AT_ONCE)
    for sock in kept_of(store):
        assert has_come(sock)
    for thread in server.serving():
        thread.join(10)
    assert read(store) == DATA
    assert (server.accepted, idle(store)) == (AT_ONCE + 1, 1)


def test_without_a_server_none_is_opened(serve) -> None:
    server, store = serve(answering(GET_ANSWER))
    server.stop()
    store._clients.connect_ahead(1)
    until(lambda: not connections_of(store)._opening)
    assert idle(store) == 0
