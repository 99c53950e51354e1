"""Answers to GET and HEAD that are not what they should be: of another version, without a length, drip by drip."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from r2fs.model.errors import NotImplementedThere, PreconditionFailed, TooSlow
from r2fs.model.ports import SystemClock
from r2fs.model.records import ObjectMeta, Version
from r2fs.store.retry import Policy, RetryingStore
from r2fs.store.s3 import download as s3_download
from r2fs.store.s3.store import S3Store
from tests.support.canned import Canned, Request, chunked, head
from tests.support.clocks import ManualClock

DATA = gzip.compress(b"a page of text " * 100)
ETAG = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
ABOUT = {"ETag": f'"{ETAG}"', "Last_Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}
LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>1</KeyCount>'
    f"<Contents><Key>page.html</Key><Size>{len(DATA)}</Size><ETag>&quot;{ETAG}&quot;</ETag>"
    "<LastModified>2026-11-28T10:00:00.000Z</LastModified></Contents></ListBucketResult>"
).encode()


def listing() -> list[bytes]:
    return [head(Content_Length=str(len(LISTING)), Content_Type="application/xml"), LISTING]


class Server:
    """One object, answered for by `get` and `head`; a LIST tells it as it is."""

    def __init__(self) -> None:
        self.sized = False  # always
        self.sized_for_gzip = True  # for who takes gzip
        self.body = DATA
        self.about = dict(ABOUT)

    def __call__(self, request: Request) -> Iterable[bytes]:
        if "list-type=2" in request.path:
            return listing()
        packed = "gzip" in request.headers.get("accept-encoding", "")
        about = dict(self.about)
        if self.sized or (packed and self.sized_for_gzip):
            about |= {"Content_Length": str(len(self.body)), "Content_Encoding": "gzip"}
            body = self.body
        elif request.method == "HEAD":
            body = b""
        else:
            about["Transfer_Encoding"] = "chunked"
            body = chunked(self.body)
        return [head(**about), b"" if request.method == "HEAD" else body]


@pytest.fixture
def answers() -> Server:
    return Server()


@pytest.fixture
def server(answers: Server) -> Iterator[Canned]:
    with Canned(answers) as server:
        yield server


@pytest.fixture
def store(server: Canned) -> Iterator[S3Store]:
    store = S3Store(replace(server.settings(), request_timeout_s=5.0), clock=SystemClock())
    yield store
    store.close()


def fetch(store: S3Store) -> bytes:
    with store.get("page.html", start=0, length=len(DATA), if_match=ETAG) as download:
        assert download.info.size == len(DATA)
        return b"".join(download.chunks(1000))


# ------------------------------------------------------------------ without a length
def test_what_is_stored_packed_is_read_as_it_is_stored(store: S3Store, server: Canned) -> None:
    assert fetch(store) == DATA
    assert [seen.headers["accept-encoding"] for seen in server.seen] == ["identity", "gzip"]
    assert fetch(store) == DATA
    assert len(server.seen) == 3, "asked rightly at once from then on"


def test_a_head_without_a_length(store: S3Store) -> None:
    assert store.head("page.html").size == len(DATA)


def test_the_listing_knows_the_length_where_nothing_else_does(
    store: S3Store, answers: Server, server: Canned
) -> None:
    answers.sized_for_gzip = False
    assert store.head("page.html").size == len(DATA)
    assert fetch(store) == DATA


@pytest.mark.parametrize("body", [DATA[:-1], DATA + b"x", b""], ids=["shorter", "longer", "empty"])
def test_what_was_unpacked_on_the_way_is_refused_at_once(
    store: S3Store, answers: Server, body: bytes
) -> None:
    answers.sized_for_gzip = False
    answers.body = body
    retrying = RetryingStore(store, SystemClock(), policy=Policy(attempts=3, base_s=0.0))
    with retrying.get("page.html", start=0, length=len(DATA), if_match=ETAG) as download:
        with pytest.raises(NotImplementedThere, match=r"page\.html: .* without its length"):
            b"".join(download.chunks(1000))
    assert retrying.requests().retries == 0


def test_a_copy_of_what_has_no_length(store: S3Store, answers: Server, server: Canned) -> None:
    """As a rename has it, or a change of mode: its HEAD has no length to fail for."""
    answers.sized_for_gzip = False
    plain, copied = answers.__call__, b"<CopyObjectResult><ETag>&quot;new&quot;</ETag></CopyObjectResult>"

    def reply(request: Request) -> Iterable[bytes]:
        if request.method == "PUT":
            return [head(Content_Length=str(len(copied))), copied]
        return plain(request)

    server.reply = reply
    source = Version("page.html", ETAG, len(DATA))
    assert store.copy(source, "other.html", meta=ObjectMeta("text/html", {})) == "new"


# ------------------------------------------------------------------ of another version
def test_another_version_than_was_asked_for(store: S3Store, answers: Server) -> None:
    """Who answers does not heed If-Match."""
    answers.sized = True
    answers.about["ETag"] = '"another"'
    with pytest.raises(PreconditionFailed, match=r"page\.html"):
        store.get("page.html", start=0, length=100, if_match=ETAG)


def test_a_weak_etag_is_the_same_version(store: S3Store, answers: Server) -> None:
    answers.sized = True
    answers.about["ETag"] = f'W/"{ETAG}"'
    assert fetch(store) == DATA


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, True),
        ({"x_amz_server_side_encryption": "AES256"}, True),
        ({"x_amz_server_side_encryption": "aws:kms"}, False),
        ({"x_amz_server_side_encryption_customer_algorithm": "AES256"}, False),
        ({"ETag": f'"{ETAG}-2"'}, False),
    ],
    ids=["plain", "SSE-S3", "SSE-KMS", "SSE-C", "in parts"],
)
def test_whether_an_etag_is_the_md5_of_the_bytes(
    store: S3Store, answers: Server, headers: dict[str, str], told: bool
) -> None:
    answers.about |= headers
    assert store.head("page.html").md5 == (ETAG if told else None)


def test_a_server_whose_etags_are_no_md5s(server: Canned) -> None:
    store = S3Store(server.settings(md5_etags=False), clock=SystemClock())
    assert store.head("page.html").md5 is None
    store.close()


# ------------------------------------------------------------------ drip by drip
class Ticking(ManualClock):
    """Each look at it takes a while."""

    step_s = 25.0

    def monotonic(self) -> float:
        self.advance(self.step_s)
        return super().monotonic()


def test_a_body_that_drips_counts_as_silent(server: Canned, answers: Server) -> None:

    def reply(request: Request) -> Iterator[bytes]:
        yield head(Content_Length=str(len(DATA)), **ABOUT)
        for at in range(len(DATA)):
            yield DATA[at : at + 1]

    server.reply = reply
    store = S3Store(server.settings(), clock=Ticking())
    got = b""
    with store.get("page.html") as download, pytest.raises(TooSlow, match="too slowly"):
        for data in download.chunks(64 << 10):
            got += data
    assert got == DATA[: len(got)]
    store.close()


def test_a_slow_body_that_goes_on_is_read(server: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thin line shared by many: above the floor nobody is in a hurry."""
    monkeypatch.setattr(s3_download, "FLOOR", 0)
    server.reply = lambda request: [
        head(Content_Length=str(len(DATA)), **ABOUT),
        *(DATA[n : n + 9] for n in range(0, len(DATA), 9)),
    ]
    store = S3Store(server.settings(), clock=Ticking())
    with store.get("page.html") as download:
        assert b"".join(download.chunks(64 << 10)) == DATA
    store.close()
