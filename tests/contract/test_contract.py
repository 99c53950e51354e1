"""The contract of ObjectStore (`r2fs/model/ports.py`), held over every store and server."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from r2fs.model.errors import (
    BodyDamaged,
    ObjectMissing,
    PreconditionFailed,
    RangeInvalid,
    Refused,
    UploadMissing,
)
from r2fs.model.ports import Limits, ObjectStore
from r2fs.model.records import Condition, ListPage, ObjectMeta, Version
from r2fs.store.bigcopy import require
from tests.contract.conftest import Place
from tests.support.bodies import BreakingBody, BytesBody, ShrinkingBody

PART = 5 << 20  # the least size of a part but the last
OTHER = "0" * 32  # an ETag that no object here has
WAV = ObjectMeta("audio/wav", {"mtime": "1763700000.123456789"})

ODD_NAMES = [
    "sp ace.wav",
    " leading and trailing ",
    "plus+plus.wav",
    "per%cent%2Fslash%00.wav",
    "question?mark&and=x.wav",
    "hash#tag.wav",
    "quotes\"'`.wav",
    "brackets[]{}()<>.wav",
    "colon:semi;comma,at@.wav",
    "tilde~star*caret^pipe|dollar$.wav",
    "ünïcödé „quoted“.wav",
    "日本語の音.wav",
    "emoji 🎧.wav",
    ".hidden",
    "...",
    "-dash",
]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def put(store: ObjectStore, key: str, data: bytes = b"x", meta: ObjectMeta = WAV) -> Version:
    etag = store.put(key, BytesBody(data), meta)
    return Version(key, etag, len(data))


def read(store: ObjectStore, key: str, **asked: object) -> bytes:
    with store.get(key, **asked) as download:  # type: ignore[arg-type]
        return b"".join(download.chunks())


def keys(page: ListPage) -> list[str]:
    return [info.key for info in page.objects]


def list_all(store: ObjectStore, prefix: str, *, limit: int = 1000, delimiter: str = "") -> list[ListPage]:
    pages, token = [], None
    while True:
        page = store.list_page(prefix, delimiter=delimiter, token=token, limit=limit)
        pages.append(page)
        assert len(page.objects) + len(page.prefixes) <= limit
        token = page.token
        if token is None:
            return pages
        assert len(pages) < 100


# ------------------------------------------------------------------ check
def test_check_passes(store: ObjectStore):
    store.check()


# ------------------------------------------------------------------ put, head, get
def test_put_stores_and_names_the_md5(store: ObjectStore, p: str):
    assert store.put(p + "a.wav", BytesBody(b"hello"), WAV) == md5(b"hello")
    assert read(store, p + "a.wav") == b"hello"


def test_head_tells_all(store: ObjectStore, p: str):
    before = time.time()
    put(store, p + "a.wav", b"hello")
    info = store.head(p + "a.wav")
    assert (info.key, info.size, info.etag) == (p + "a.wav", 5, md5(b"hello"))
    assert info.content_type == "audio/wav"
    assert dict(info.metadata or {}) == dict(WAV.metadata)
    assert before - 3 < info.modified_ns / 1e9 < time.time() + 3
    assert info.version == Version(p + "a.wav", md5(b"hello"), 5)


def test_head_of_a_missing_key(store: ObjectStore, p: str):
    with pytest.raises(ObjectMissing, match=r"nothing\.wav"):
        store.head(p + "nothing.wav")


def test_get_of_a_missing_key(store: ObjectStore, p: str):
    with pytest.raises(ObjectMissing, match=r"nothing\.wav"):
        store.get(p + "nothing.wav")


def test_a_key_below_an_object_is_missing(store: ObjectStore, p: str):
    put(store, p + "a")
    with pytest.raises(ObjectMissing):
        store.head(p + "a/b")


def test_a_put_replaces(store: ObjectStore, p: str):
    put(store, p + "a", b"one", ObjectMeta("a/b", {"old": "1"}))
    put(store, p + "a", b"three", ObjectMeta("c/d", {"new": "2"}))
    info = store.head(p + "a")
    assert (info.size, info.content_type, dict(info.metadata or {})) == (5, "c/d", {"new": "2"})
    assert read(store, p + "a") == b"three"


def test_an_empty_object(store: ObjectStore, p: str):
    assert store.put(p + "empty", BytesBody(b""), WAV) == md5(b"")
    assert store.head(p + "empty").size == 0
    assert read(store, p + "empty") == b""
    with pytest.raises(RangeInvalid):
        store.get(p + "empty", start=0, length=1)


def test_r6_a_body_is_sent_from_its_start_and_never_read_whole(store: ObjectStore, p: str):
    data = os.urandom(3 << 20)
    body = BytesBody(data)
    body.seek(len(data))
    store.put(p + "a", body, WAV)
    assert read(store, p + "a") == data
    assert body.largest_read <= 1 << 20


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (0, 10), (3, 4), (9, 1), (5, 100), (0, 100), (4, None), (9, None)]
)
def test_ranges(store: ObjectStore, p: str, start: int, length: int | None):
    data = b"0123456789"
    version = put(store, p + "a", data)
    with store.get(p + "a", start=start, length=length) as download:
        assert b"".join(download.chunks(3)) == data[start:][: length if length is not None else 10]
        assert download.info.version == version


@pytest.mark.parametrize(("start", "length"), [(10, 1), (10, None), (99, 5)])
def test_ranges_that_begin_at_or_past_the_end(store: ObjectStore, p: str, start: int, length: int | None):
    put(store, p + "a", b"0123456789")
    with pytest.raises(RangeInvalid):
        store.get(p + "a", start=start, length=length)


def test_get_tells_as_much_as_head(store: ObjectStore, p: str):
    put(store, p + "a", b"0123456789")
    with store.get(p + "a", start=2, length=3) as download:
        assert download.info == store.head(p + "a")


def test_get_of_one_version(store: ObjectStore, p: str):
    old = put(store, p + "a", b"old")
    assert read(store, p + "a", if_match=old.etag) == b"old"
    put(store, p + "a", b"new")
    with pytest.raises(PreconditionFailed):
        store.get(p + "a", if_match=old.etag)


def test_get_of_one_version_of_a_missing_key(store: ObjectStore, p: str):
    with pytest.raises((ObjectMissing, PreconditionFailed)):
        store.get(p + "nothing", if_match=OTHER)


def test_an_open_download_stays_one_version(store: ObjectStore, p: str):
    old = os.urandom(2 << 20)
    put(store, p + "a", old)
    with store.get(p + "a") as download:
        chunks = download.chunks(65536)
        got = next(chunks)
        put(store, p + "a", b"new")
        try:
            got += b"".join(chunks)
        except (BodyDamaged, PreconditionFailed):
            return  # that is an answer too: never a mixture
    assert got == old


def test_leaving_a_download_early(store: ObjectStore, p: str):
    put(store, p + "a", os.urandom(4 << 20))
    for _ in range(5):
        with store.get(p + "a") as download:
            assert len(next(download.chunks(1000))) == 1000
    assert store.head(p + "a").size == 4 << 20


def test_content_type_without_a_name_to_guess_from(store: ObjectStore, p: str):
    put(store, p + "job-17", b"x", ObjectMeta("audio/mpeg"))
    info = store.head(p + "job-17")
    assert info.content_type == "audio/mpeg"
    assert not info.metadata


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "ünïcödé „quoted“ 日本語 🎧",
        " spaces around ",
        "=?UTF-8?B?eA==?=",
        "a=?b",
        "x" * 900,
        "ü" * 300,
    ],
)
def test_metadata_comes_back_as_it_was(store: ObjectStore, p: str, value: str):
    put(store, p + "a", b"x", ObjectMeta("a/b", {"comment": value, "mode": "33188", "r2fs-attempt": "id-1"}))
    assert dict(store.head(p + "a").metadata or {}) == {
        "comment": value,
        "mode": "33188",
        "r2fs-attempt": "id-1",
    }


def test_metadata_names_are_lower_case(store: ObjectStore, p: str):
    put(store, p + "a", b"x", ObjectMeta("a/b", {"mixed-case": "1"}))
    assert set(store.head(p + "a").metadata or {}) == {"mixed-case"}


# ------------------------------------------------------------------ conditional put
def test_put_if_absent(store: ObjectStore, p: str):
    store.put(p + "a", BytesBody(b"one"), WAV, condition=Condition.absent())
    with pytest.raises(PreconditionFailed, match="a"):
        store.put(p + "a", BytesBody(b"two"), WAV, condition=Condition.absent())
    assert read(store, p + "a") == b"one"


def test_put_if_match(store: ObjectStore, p: str):
    first = put(store, p + "a", b"one")
    second = store.put(p + "a", BytesBody(b"two"), WAV, condition=Condition.matches(first.etag))
    with pytest.raises(PreconditionFailed):
        store.put(p + "a", BytesBody(b"three"), WAV, condition=Condition.matches(first.etag))
    assert store.head(p + "a").etag == second == md5(b"two")


def test_put_if_match_of_a_missing_key(store: ObjectStore, p: str):
    with pytest.raises(PreconditionFailed):
        store.put(p + "a", BytesBody(b"one"), WAV, condition=Condition.matches(OTHER))
    with pytest.raises(ObjectMissing):
        store.head(p + "a")


def test_put_if_absent_after_a_delete(store: ObjectStore, p: str):
    put(store, p + "a", b"one")
    store.delete(p + "a")
    store.put(p + "a", BytesBody(b"two"), WAV, condition=Condition.absent())
    assert read(store, p + "a") == b"two"


def race(writers: int, write: Callable[[int], object]) -> list[int]:
    """Who of `writers` won; the others must have met PreconditionFailed."""
    barrier = threading.Barrier(writers)

    def one(number: int) -> bool:
        barrier.wait()
        try:
            write(number)
            return True
        except PreconditionFailed:
            return False

    with ThreadPoolExecutor(writers) as pool:
        return [number for number, won in enumerate(pool.map(one, range(writers))) if won]


def test_one_of_many_creates(store: ObjectStore, p: str):
    won = race(8, lambda n: store.put(p + "a", BytesBody(b"%d" % n), WAV, condition=Condition.absent()))
    assert len(won) == 1
    assert read(store, p + "a") == b"%d" % won[0]


def test_one_of_many_replaces(store: ObjectStore, p: str):
    base = put(store, p + "a", b"base")
    won = race(
        8, lambda n: store.put(p + "a", BytesBody(b"%d" % n), WAV, condition=Condition.matches(base.etag))
    )
    assert len(won) == 1
    assert read(store, p + "a") == b"%d" % won[0]


# ------------------------------------------------------------------ bodies that fail
class CalledOff(Exception):
    pass


def test_what_a_body_raises_comes_out_and_nothing_is_stored(store: ObjectStore, p: str):
    put(store, p + "a", b"old")
    for error in (CalledOff, OSError):
        with pytest.raises(error):
            store.put(p + "a", BreakingBody(b"n" * (1 << 20), 300_000, error), WAV)
    assert read(store, p + "a") == b"old"


def test_a_body_that_shrinks_is_not_stored(store: ObjectStore, p: str):
    put(store, p + "a", b"old")
    with pytest.raises(BodyDamaged, match="shorter"):
        store.put(p + "a", ShrinkingBody(b"n" * 100_000, 200_000), WAV)
    assert read(store, p + "a") == b"old"


# ------------------------------------------------------------------ names
@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(store: ObjectStore, p: str, name: str):
    key = f"{p}d {name}/{name}"
    version = put(store, key, b"odd")
    assert store.head(key).version == version
    assert read(store, key) == b"odd"
    assert keys(store.list_page(p)) == [key]
    assert store.list_page(p, delimiter="/").prefixes == (f"{p}d {name}/",)
    assert keys(store.list_page(f"{p}d {name}/", delimiter="/")) == [key]
    store.copy(version, key + ".copy")
    assert read(store, key + ".copy") == b"odd"
    assert store.delete_many([key, key + ".copy"]) == {}
    assert keys(store.list_page(p)) == []


@pytest.mark.parametrize("name", ["new\nline", "tab\tbed", "carriage\rreturn", "bell\x07", "del\x7f"])
def test_names_with_control_characters(store: ObjectStore, p: str, name: str):
    version = put(store, p + name, b"odd")
    assert store.head(p + name).version == version
    assert read(store, p + name) == b"odd"
    assert keys(store.list_page(p)) == [p + name]
    assert store.delete_many([p + name]) == {}
    assert keys(store.list_page(p)) == []


def test_a_name_with_a_backslash(store: ObjectStore, p: str):
    put(store, p + "back\\slash", b"odd")
    assert keys(store.list_page(p)) == [p + "back\\slash"]


def test_v8_a_long_key(store: ObjectStore, p: str):
    key = p + "/".join(["n" * 200] * 4) + "/" + "é" * 90
    assert len(key.encode()) <= 1024
    put(store, key, b"long")
    assert read(store, key) == b"long"
    assert keys(store.list_page(p)) == [key]


# ------------------------------------------------------------------ listing
def test_a_listing_tells_size_etag_and_time(store: ObjectStore, p: str):
    put(store, p + "a.wav", b"hello")
    (info,) = store.list_page(p).objects
    assert (info.key, info.size, info.etag) == (p + "a.wav", 5, md5(b"hello"))
    assert abs(info.modified_ns / 1e9 - time.time()) < 60
    assert info.metadata is None


def test_a_listing_of_nothing(store: ObjectStore, p: str):
    page = store.list_page(p + "nothing")
    assert (page.objects, page.prefixes, page.token) == ((), (), None)


ORDERED = sorted(
    ["a", "a!", "a.txt", "a/b", "a/b/c", "a0", "Z", "z", "é", "日", "\uff5e", "🎧", "b c", "b-c", "b/c"],
    key=str.encode,
)


def test_the_order_is_that_of_utf8(store: ObjectStore, p: str):
    # `a` beside `a/b` is no pair that a directory can hold.
    wanted = [name for name in ORDERED if name not in ("a", "a/b/c")]
    for name in reversed(wanted):
        put(store, p + name)
    assert keys(store.list_page(p)) == [p + name for name in wanted]


def test_an_object_beside_a_directory_of_its_name(store: ObjectStore, p: str):
    put(store, p + "a", b"file")
    put(store, p + "a/b", b"below")
    assert keys(store.list_page(p)) == [p + "a", p + "a/b"]


def tree(store: ObjectStore, p: str) -> list[str]:
    names = ["1.wav", "a/1.wav", "a/2.wav", "a/deep/er/1.wav", "b/1.wav", "c.wav", "d/x/1", "d/y/1"]
    for name in names:
        put(store, p + name)
    return [p + name for name in names]


def test_a_flat_listing_crosses_directories(store: ObjectStore, p: str):
    names = tree(store, p)
    assert keys(store.list_page(p)) == names


def test_a_listing_by_delimiter(store: ObjectStore, p: str):
    tree(store, p)
    page = store.list_page(p, delimiter="/")
    assert keys(page) == [p + "1.wav", p + "c.wav"]
    assert page.prefixes == (p + "a/", p + "b/", p + "d/")
    page = store.list_page(p + "a/", delimiter="/")
    assert keys(page) == [p + "a/1.wav", p + "a/2.wav"]
    assert page.prefixes == (p + "a/deep/",)


def test_a_prefix_need_not_end_at_a_slash(store: ObjectStore, p: str):
    for name in ("take1.wav", "take2.wav", "tale.wav", "takes/1.wav", "other/take"):
        put(store, p + name)
    assert keys(store.list_page(p + "take")) == [p + "take1.wav", p + "take2.wav", p + "takes/1.wav"]
    page = store.list_page(p + "take", delimiter="/")
    assert keys(page) == [p + "take1.wav", p + "take2.wav"]
    assert page.prefixes == (p + "takes/",)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages(store: ObjectStore, p: str, limit: int):
    names = tree(store, p)
    pages = list_all(store, p, limit=limit)
    assert [key for page in pages for key in keys(page)] == names
    assert all(page.token is None for page in pages[-1:])


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_by_delimiter(store: ObjectStore, p: str, limit: int):
    tree(store, p)
    pages = list_all(store, p, limit=limit, delimiter="/")
    assert [key for page in pages for key in keys(page)] == [p + "1.wav", p + "c.wav"]
    assert [prefix for page in pages for prefix in page.prefixes] == [p + "a/", p + "b/", p + "d/"]


def test_more_than_a_page(store: ObjectStore, p: str):
    """Pages hold at most 1,000; what is written meanwhile may show or not, the rest must."""
    names = [f"{p}many/{number:04d}" for number in range(1003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: put(store, key), names))
    pages = list_all(store, p)
    assert [len(page.objects) for page in pages] == [1000, 3]
    assert [key for page in pages for key in keys(page)] == names
    assert store.delete_many(names[:1000]) == {}
    assert keys(store.list_page(p)) == names[1000:]


def test_start_after(store: ObjectStore, p: str):
    names = tree(store, p)
    assert keys(store.list_page(p, start_after=names[3])) == names[4:]
    assert keys(store.list_page(p, start_after=p + "a/2")) == names[2:]
    assert keys(store.list_page(p, start_after=names[0], limit=2)) == names[1:3]
    assert keys(store.list_page(p, start_after=names[-1])) == []


def test_what_was_just_written_is_listed(store: ObjectStore, p: str):
    for number in range(10):
        put(store, f"{p}{number}")
        assert len(store.list_page(p).objects) == number + 1
    for number in range(10):
        store.delete(f"{p}{number}")
        assert len(store.list_page(p).objects) == 9 - number


# ------------------------------------------------------------------ directories' markers
def test_a_marker_is_an_object(store: ObjectStore, p: str):
    put(store, p + "dir/", b"", ObjectMeta("application/x-directory"))
    info = store.head(p + "dir/")
    assert (info.size, info.etag) == (0, md5(b""))
    assert keys(store.list_page(p)) == [p + "dir/"]
    assert store.list_page(p, delimiter="/").prefixes == (p + "dir/",)
    assert keys(store.list_page(p + "dir/", delimiter="/")) == [p + "dir/"]


def test_a_marker_stays_when_files_come_and_go(store: ObjectStore, p: str):
    put(store, p + "dir/", b"")
    put(store, p + "dir/a")
    assert keys(store.list_page(p)) == [p + "dir/", p + "dir/a"]
    store.delete(p + "dir/a")
    assert keys(store.list_page(p)) == [p + "dir/"]
    store.delete(p + "dir/")
    assert keys(store.list_page(p)) == []


def test_a_marker_goes_and_files_stay(store: ObjectStore, p: str):
    put(store, p + "dir/", b"")
    put(store, p + "dir/a")
    store.delete(p + "dir/")
    assert keys(store.list_page(p)) == [p + "dir/a"]
    with pytest.raises(ObjectMissing):
        store.head(p + "dir/")


def test_a_directory_without_marker_goes_with_its_last_file(store: ObjectStore, p: str):
    put(store, p + "dir/sub/a")
    with pytest.raises(ObjectMissing):
        store.head(p + "dir/")
    store.delete(p + "dir/sub/a")
    page = store.list_page(p, delimiter="/")
    assert (page.objects, page.prefixes) == ((), ())


def test_head_of_a_directory_without_marker(store: ObjectStore, p: str):
    put(store, p + "dir/a")
    with pytest.raises(ObjectMissing):
        store.head(p + "dir")


def test_a_marker_keeps_its_metadata(store: ObjectStore, p: str):
    put(store, p + "dir/", b"", WAV)
    assert dict(store.head(p + "dir/").metadata or {}) == dict(WAV.metadata)


def test_a_marker_can_be_created_once(store: ObjectStore, p: str):
    store.put(p + "dir/", BytesBody(b""), WAV, condition=Condition.absent())
    with pytest.raises(PreconditionFailed):
        store.put(p + "dir/", BytesBody(b""), WAV, condition=Condition.absent())


def test_a_marker_can_be_copied(store: ObjectStore, p: str):
    version = put(store, p + "dir/", b"")
    store.copy(version, p + "other/")
    assert keys(store.list_page(p)) == [p + "dir/", p + "other/"]


# ------------------------------------------------------------------ delete
def test_delete(store: ObjectStore, p: str):
    put(store, p + "a")
    store.delete(p + "a")
    with pytest.raises(ObjectMissing):
        store.head(p + "a")


def test_delete_of_a_missing_key(store: ObjectStore, p: str):
    store.delete(p + "nothing")
    store.delete(p + "no/thing/")


def test_delete_many(store: ObjectStore, p: str):
    names = [f"{p}{number}" for number in range(5)]
    for key in names:
        put(store, key)
    assert store.delete_many([*names[:4], p + "nothing"]) == {}
    assert keys(store.list_page(p)) == names[4:]
    assert store.delete_many([]) == {}


def test_delete_many_takes_a_thousand(store: ObjectStore, p: str):
    with pytest.raises(Refused):
        store.delete_many([f"{p}{number}" for number in range(1001)])
    assert store.delete_many([f"{p}{number}" for number in range(1000)]) == {}


# ------------------------------------------------------------------ copy
def test_copy_keeps_what_is_stored_beside(store: ObjectStore, p: str):
    source = put(store, p + "a", b"data")
    etag = store.copy(source, p + "b/c")
    info = store.head(p + "b/c")
    assert (info.etag, info.size, info.content_type) == (etag, 4, "audio/wav")
    assert dict(info.metadata or {}) == dict(WAV.metadata)
    assert read(store, p + "b/c") == b"data"


def test_copy_with_other_metadata(store: ObjectStore, p: str):
    source = put(store, p + "a", b"data")
    store.copy(source, p + "b", meta=ObjectMeta("audio/flac", {"mode": "33188"}))
    info = store.head(p + "b")
    assert (info.content_type, dict(info.metadata or {})) == ("audio/flac", {"mode": "33188"})
    assert store.head(p + "a").content_type == "audio/wav"


def test_copy_onto_itself_changes_metadata(store: ObjectStore, p: str):
    source = put(store, p + "a", b"data")
    etag = store.copy(
        source, p + "a", meta=ObjectMeta("audio/flac", {"x": "ü"}), condition=Condition.matches(source.etag)
    )
    info = store.head(p + "a")
    assert (info.etag, info.content_type, dict(info.metadata or {})) == (etag, "audio/flac", {"x": "ü"})
    assert read(store, p + "a") == b"data"


HEADERS = {
    "cache-control": "max-age=60, public",
    "content-disposition": 'attachment; filename="take.wav"',
    "content-language": "de",
    "expires": "Wed, 21 Oct 2026 07:28:00 GMT",
}


def test_headers_come_back_and_go_along(store: ObjectStore, p: str):
    """Beside the type: by PUT, by parts, and by copies with and without other metadata."""
    source = put(store, p + "a", b"data", ObjectMeta("audio/wav", {}, HEADERS))
    store.copy(source, p + "b")
    store.copy(source, p + "c", meta=ObjectMeta("audio/flac", {"x": "1"}))
    store.copy(source, p + "d", meta=ObjectMeta("audio/flac", {}, {"cache-control": "no-cache"}))
    upload = store.create_upload(p + "e", ObjectMeta("audio/wav", {}, HEADERS))
    store.complete_upload(p + "e", upload, [store.put_part(p + "e", upload, 1, BytesBody(b"data"))])
    for key in "abce":
        assert dict(store.head(p + key).headers or {}) == HEADERS, key
    assert dict(store.head(p + "d").headers or {}) == {"cache-control": "no-cache"}
    with store.get(p + "a") as download:
        assert dict(download.info.headers or {}) == HEADERS


def test_copy_of_a_missing_source(store: ObjectStore, p: str):
    with pytest.raises(ObjectMissing):
        store.copy(Version(p + "a", OTHER, 3), p + "b")
    with pytest.raises(ObjectMissing):
        store.copy(Version(p + "a", OTHER, 3), p + "b", meta=WAV)


def test_copy_of_a_changed_source(store: ObjectStore, p: str):
    source = put(store, p + "a", b"old")
    put(store, p + "a", b"new")
    with pytest.raises(PreconditionFailed) as caught:
        store.copy(source, p + "b")
    assert caught.value.source
    with pytest.raises(ObjectMissing):
        store.head(p + "b")


def test_copy_of_a_changed_source_with_other_metadata(store: ObjectStore, p: str):
    source = put(store, p + "a", b"old")
    put(store, p + "a", b"new")
    with pytest.raises(PreconditionFailed) as caught:
        store.copy(source, p + "b", meta=WAV)
    assert caught.value.source


def test_copy_if_absent(store: ObjectStore, p: str):
    source = put(store, p + "a", b"data")
    store.copy(source, p + "b", condition=Condition.absent())
    with pytest.raises(PreconditionFailed) as caught:
        store.copy(source, p + "b", condition=Condition.absent())
    assert not caught.value.source


def test_copy_if_match(store: ObjectStore, p: str):
    source = put(store, p + "a", b"data")
    old = put(store, p + "b", b"old")
    store.copy(source, p + "b", condition=Condition.matches(old.etag))
    with pytest.raises(PreconditionFailed) as caught:
        store.copy(source, p + "b", condition=Condition.matches(old.etag))
    assert not caught.value.source
    with pytest.raises(PreconditionFailed):
        store.copy(source, p + "c", condition=Condition.matches(old.etag))
    assert read(store, p + "b") == b"data"


# ------------------------------------------------------------------ multipart
def test_multipart(store: ObjectStore, p: str):
    data = os.urandom(2 * PART + 1000)
    upload = store.create_upload(p + "big", WAV)
    parts = [
        store.put_part(p + "big", upload, number, BytesBody(data[at : at + PART]))
        for number, at in ((2, PART), (1, 0), (3, 2 * PART))
    ]
    assert [(part.number, part.size) for part in parts] == [(2, PART), (1, PART), (3, 1000)]
    with pytest.raises(ObjectMissing):
        store.head(p + "big")
    etag = store.complete_upload(p + "big", upload, sorted(parts, key=lambda part: part.number))
    info = store.head(p + "big")
    assert (info.etag, info.size, info.content_type) == (etag, len(data), "audio/wav")
    assert dict(info.metadata or {}) == dict(WAV.metadata)
    assert read(store, p + "big") == data
    assert read(store, p + "big", start=PART - 5, length=10, if_match=etag) == data[PART - 5 : PART + 5]
    assert [(o.size, o.etag) for o in store.list_page(p).objects] == [(len(data), etag)]


def test_multipart_with_one_part(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    part = store.put_part(p + "big", upload, 1, BytesBody(b"only"))
    store.complete_upload(p + "big", upload, [part])
    assert read(store, p + "big") == b"only"


def test_a_part_that_is_sent_again_counts(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    store.put_part(p + "big", upload, 1, BytesBody(b"first"))
    part = store.put_part(p + "big", upload, 1, BytesBody(b"second"))
    store.complete_upload(p + "big", upload, [part])
    assert read(store, p + "big") == b"second"


def test_an_upload_replaces_at_its_end(store: ObjectStore, p: str):
    put(store, p + "big", b"old")
    upload = store.create_upload(p + "big", WAV)
    part = store.put_part(p + "big", upload, 1, BytesBody(b"new"))
    assert read(store, p + "big") == b"old"
    store.complete_upload(p + "big", upload, [part])
    assert read(store, p + "big") == b"new"


def test_unequal_parts_do_not_fit(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    sizes = (PART, PART + 1, 10)
    parts = [
        store.put_part(p + "big", upload, number, BytesBody(bytes(size)))
        for number, size in enumerate(sizes, 1)
    ]
    with pytest.raises(UploadMissing):
        store.complete_upload(p + "big", upload, parts)


def test_small_parts_do_not_fit(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    parts = [store.put_part(p + "big", upload, number, BytesBody(b"small")) for number in (1, 2)]
    with pytest.raises(UploadMissing):
        store.complete_upload(p + "big", upload, parts)


def test_a_part_that_was_never_sent_does_not_fit(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    part = store.put_part(p + "big", upload, 1, BytesBody(b"data"))
    missing = type(part)(2, part.etag, part.size)
    with pytest.raises(UploadMissing):
        store.complete_upload(p + "big", upload, [part, missing])


def test_abort(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    part = store.put_part(p + "big", upload, 1, BytesBody(b"data"))
    store.abort_upload(p + "big", upload)
    store.abort_upload(p + "big", upload)
    with pytest.raises(UploadMissing):
        store.complete_upload(p + "big", upload, [part])
    with pytest.raises(ObjectMissing):
        store.head(p + "big")


def test_a_part_of_an_unknown_upload(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    store.abort_upload(p + "big", upload)
    with pytest.raises(UploadMissing):
        store.put_part(p + "big", upload, 1, BytesBody(b"data"))


def test_complete_if_absent(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    part = store.put_part(p + "big", upload, 1, BytesBody(b"mine"))
    put(store, p + "big", b"theirs")
    with pytest.raises(PreconditionFailed):
        store.complete_upload(p + "big", upload, [part], condition=Condition.absent())
    assert read(store, p + "big") == b"theirs"
    store.delete(p + "big")
    store.complete_upload(p + "big", upload, [part], condition=Condition.absent())
    assert read(store, p + "big") == b"mine"


def test_complete_if_match(store: ObjectStore, p: str):
    base = put(store, p + "big", b"base")
    upload = store.create_upload(p + "big", WAV)
    part = store.put_part(p + "big", upload, 1, BytesBody(b"mine"))
    theirs = put(store, p + "big", b"theirs")
    with pytest.raises(PreconditionFailed):
        store.complete_upload(p + "big", upload, [part], condition=Condition.matches(base.etag))
    assert read(store, p + "big") == b"theirs"
    store.complete_upload(p + "big", upload, [part], condition=Condition.matches(theirs.etag))
    assert read(store, p + "big") == b"mine"


def test_complete_if_match_of_a_missing_key(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    part = store.put_part(p + "big", upload, 1, BytesBody(b"mine"))
    with pytest.raises(PreconditionFailed):
        store.complete_upload(p + "big", upload, [part], condition=Condition.matches(OTHER))


def test_copied_parts(store: ObjectStore, p: str):
    data = os.urandom(2 * PART + 7)
    source = put(store, p + "base ü+%.wav", data)
    upload = store.create_upload(p + "big", WAV)
    parts = [
        store.copy_part(p + "big", upload, 1, source, 0, PART),
        store.put_part(p + "big", upload, 2, BytesBody(b"n" * PART)),
        store.copy_part(p + "big", upload, 3, source, 2 * PART, 7),
    ]
    assert [part.size for part in parts] == [PART, PART, 7]
    store.complete_upload(p + "big", upload, parts)
    assert read(store, p + "big") == data[:PART] + b"n" * PART + data[2 * PART :]


def test_a_part_of_a_changed_source(store: ObjectStore, p: str):
    source = put(store, p + "base", b"o" * 100)
    put(store, p + "base", b"n" * 100)
    upload = store.create_upload(p + "big", WAV)
    with pytest.raises(PreconditionFailed) as caught:
        store.copy_part(p + "big", upload, 1, source, 0, 100)  # may succeed: the caller proves the version
        require(store, source)
    assert caught.value.source


def test_a_part_of_a_source_that_became_shorter(store: ObjectStore, p: str):
    source = put(store, p + "base", b"o" * 100)
    put(store, p + "base", b"n" * 10)
    upload = store.create_upload(p + "big", WAV)
    with pytest.raises(PreconditionFailed) as caught:
        store.copy_part(p + "big", upload, 1, source, 50, 50)
        require(store, source)
    assert caught.value.source


def test_a_part_of_a_missing_source(store: ObjectStore, p: str):
    upload = store.create_upload(p + "big", WAV)
    with pytest.raises(ObjectMissing):
        store.copy_part(p + "big", upload, 1, Version(p + "nothing", OTHER, 10), 0, 10)


def test_a_large_object_is_copied_by_parts(place: Place, p: str):
    """As above 4.995 GiB, with a limit that a test can reach."""
    store = place.open(Limits(max_copy=PART))
    data = os.urandom(2 * PART + 9)
    source = put(store, p + "a", data)
    store.copy(source, p + "b", condition=Condition.absent())
    info = store.head(p + "b")
    assert (info.size, info.content_type) == (len(data), "audio/wav")
    assert dict(info.metadata or {}) == dict(WAV.metadata)
    assert read(store, p + "b") == data
    with pytest.raises(PreconditionFailed) as caught:
        store.copy(source, p + "b", condition=Condition.absent())
    assert not caught.value.source
    put(store, p + "a", b"changed")
    with pytest.raises(PreconditionFailed) as caught:
        store.copy(source, p + "c")
    assert caught.value.source
    store.close()


def test_a_directory_that_its_files_made_gets_an_object_of_its_own_and_stays(store: ObjectStore, p: str):
    """SeaweedFS has a directory there before: it refuses to make one, and the ETag that it shows of it."""
    put(store, f"{p}made/by")
    marker = ObjectMeta("application/x-directory", {"colour": "red"})
    try:
        store.put(f"{p}made/", BytesBody(b""), marker, condition=Condition.absent())
    except PreconditionFailed:
        shown = store.head(f"{p}made/")
        store.put(f"{p}made/", BytesBody(b""), marker, condition=Condition.matches(shown.etag))
    store.delete(f"{p}made/by")
    assert keys(store.list_page(f"{p}made/")) == [f"{p}made/"]


def test_a_condition_on_a_directorys_object_holds(store: ObjectStore, p: str):
    marker = ObjectMeta("application/x-directory", {"colour": "red"})
    etag = store.put(f"{p}own/", BytesBody(b""), marker, condition=Condition.absent())
    with pytest.raises(PreconditionFailed):
        store.put(f"{p}own/", BytesBody(b""), marker, condition=Condition.absent())
    with pytest.raises(PreconditionFailed):
        store.put(f"{p}own/", BytesBody(b""), marker, condition=Condition.matches("0" * len(etag)))
