"""The store's small helpers: counters, ETags, bodies, sizes of part copies."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from r2fs.model.errors import BodyDamaged
from r2fs.model.etags import bare, is_md5, multipart_etag
from r2fs.model.ports import Limits
from r2fs.model.records import Part
from r2fs.store.bigcopy import COPY_PART, part_size
from r2fs.store.bodies import Outgoing
from r2fs.store.counting import CLASS_A, CLASS_B, FREE, RequestCounter
from tests.support.bodies import BreakingBody, BytesBody, ShrinkingBody


def test_counters():
    counter = RequestCounter()
    counter.request("PutObject", "a", 100)
    counter.request("PutObject", "a", 11)
    counter.request("HeadObject")
    counter.request("DeleteObject")
    counter.retried()
    counter.received(7)
    view = counter.view()
    assert (view.class_a, view.class_b, view.free, view.total) == (2, 1, 1, 4)
    assert (view.retries, view.sent_bytes, view.received_bytes) == (1, 111, 7)
    assert view.by_verb == {"PutObject": 2, "HeadObject": 1, "DeleteObject": 1}
    counter.request("HeadObject")
    assert view.class_b == 1, "a view is a copy"
    with pytest.raises(TypeError):
        view.by_verb["PutObject"] = 0  # type: ignore[index]


def test_what_found_no_server_is_taken_back():
    counter = RequestCounter()
    counter.request("HeadObject")
    counter.not_sent(counter.request("PutObject", "takes/a", 100))
    assert counter.view().by_verb == {"HeadObject": 1}
    assert counter.view().sent_bytes == 0
    assert counter.by_directory()["takes"] == (0, 0, 0)
    assert [sent.verb for sent in counter.recent()] == ["HeadObject"]


def test_counters_of_many_threads():
    counter = RequestCounter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: counter.request("GetObject", "a", 1), range(4000)))
    assert counter.view().class_b == counter.view().sent_bytes == 4000


def test_a_verb_has_one_class():
    assert not CLASS_A & CLASS_B
    assert not (CLASS_A | CLASS_B) & FREE


def test_etags():
    assert bare('"abc"') == bare('W/"abc"') == bare("abc") == "abc"
    assert is_md5("0" * 32)
    assert not is_md5("0" * 32 + "-2")
    assert not is_md5("G" * 32)


def test_the_etag_of_a_multipart_upload():
    parts = [Part(n, hashlib.md5(data).hexdigest(), len(data)) for n, data in ((1, b"a"), (2, b"b"))]
    digests = hashlib.md5(b"a").digest() + hashlib.md5(b"b").digest()
    assert multipart_etag(parts) == hashlib.md5(digests).hexdigest() + "-2"
    assert multipart_etag([*parts, Part(3, "opaque", 1)]) is None


def test_a_body_is_sent_from_its_start():
    body = BytesBody(b"0123456789")
    body.seek(7)
    outgoing = Outgoing(body, "key")
    assert (outgoing.read(4), outgoing.read(100), outgoing.read(1)) == (b"0123", b"456789", b"")
    assert outgoing.md5_hex == hashlib.md5(b"0123456789").hexdigest()
    assert len(outgoing) == 10
    assert not isinstance(outgoing.file(), bytes)
    assert Outgoing(BytesBody(b""), "key").file() == b""


def test_why_a_body_failed_is_kept():
    failing = Outgoing(BreakingBody(b"0123456789", 4, lambda: OSError(5, "disk")), "key")
    assert failing.read(4) == b"0123"
    with pytest.raises(OSError):
        failing.read(4)
    assert isinstance(failing.failure, OSError)
    shrunk = Outgoing(ShrinkingBody(b"0123", 10), "takes/07.wav")
    shrunk.read(4)
    with pytest.raises(BodyDamaged, match=r"takes/07\.wav"):
        shrunk.read(4)
    assert isinstance(shrunk.failure, BodyDamaged)


def test_part_copies_are_equal_and_not_too_many():
    limits = Limits()
    assert part_size(6 << 30, limits) == COPY_PART
    largest = 5 << 40
    size = part_size(largest, limits)
    assert -(-largest // size) <= limits.max_parts
    assert size <= limits.max_part
    assert part_size(100, Limits(max_copy=10, min_part=20)) == 20
