"""What no listing is, or what never ends: refused at the first repeat, told, and what was known stays shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2fs.engine.inodes.listing_pages import EMPTY, LARGEST, NAME_BYTES, Pages
from r2fs.model.errors import DirectoryNotEmpty, MalformedAnswer, R2fsError, ReadFailed
from r2fs.model.records import ListPage, ObjectInfo
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.support.listings import ScriptedListings

REASON = "bucket: the server's answer cannot be understood: html in place of ListBucketResult"


def page(*keys: str, token: str | None, prefixes: tuple[str, ...] = ()) -> ListPage:
    return ListPage(tuple(ObjectInfo(key, 1, "e" * 32, 10**18) for key in keys), prefixes, token)


def no_listing(prefix: str, token: str | None) -> ListPage:
    raise MalformedAnswer(REASON)


def same_token(prefix: str, token: str | None) -> ListPage:
    return page(f"{prefix}{'b' if token else 'a'}", token="on")


def same_page() -> Callable[[str, str | None], ListPage]:
    tokens = (str(n) for n in itertools.count())
    return lambda prefix, token: page(f"{prefix}a", f"{prefix}b", token=next(tokens))


def circle() -> Callable[[str, str | None], ListPage]:
    count = itertools.count()
    return lambda prefix, token: page(f"{prefix}{(n := next(count)) % 5}", token=str(n))


def same_directories() -> Callable[[str, str | None], ListPage]:
    tokens = (str(n) for n in itertools.count())
    return lambda prefix, token: page(token=next(tokens), prefixes=(f"{prefix}x/", f"{prefix}y/"))


def nothing() -> Callable[[str, str | None], ListPage]:
    tokens = (str(n) for n in itertools.count())
    return lambda prefix, token: page(token=next(tokens))


def backwards_for_ever() -> Callable[[str, str | None], ListPage]:
    count = itertools.count()
    return lambda prefix, token: page(f"{prefix}{9 - (n := next(count)) % 10}", token=str(n))


ENDLESS = {
    "the same token": (lambda: same_token, 2),
    "the same page": (same_page, 2),
    "a circle": (circle, 6),
    "the same directories": (same_directories, 2),
    "nothing": (nothing, EMPTY),
    "backwards": (backwards_for_ever, 11),
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bucket() -> ScriptedListings:
    bucket = ScriptedListings()
    for key in ("s/a", "s/b", "s/c", "s/sub/d", "t/e"):
        bucket.set(key, key.encode())
    return bucket


@pytest.fixture
def engine(tmp_path: Path, bucket: ScriptedListings, clock: ManualClock) -> Iterator[Engine]:
    engine = Engine(tmp_path, bucket, clock, threads=False, freshness_s=10.0)
    yield engine
    engine.stop()


@pytest.mark.expect_warnings
@pytest.mark.parametrize(
    ("make", "requests"), [(lambda: no_listing, 1), *ENDLESS.values()], ids=["none", *ENDLESS]
)
def test_what_was_known_stays_shown(
    engine: Engine,
    bucket: ScriptedListings,
    clock: ManualClock,
    make: Callable[[], Callable[[str, str | None], ListPage]],
    requests: int,
    caplog: pytest.LogCaptureFixture,
):
    assert engine.listdir("s") == ["a", "b", "c", "sub"]
    for _ in range(20):  # a mirroring delete looks again and again
        bucket.answering, bucket.lists = make(), 0
        clock.advance(11.0)
        assert engine.listdir("s") == ["a", "b", "c", "sub"]
        assert bucket.lists <= 3 * requests + 2, "the directory above, this one, and one name"
        for _ in range(50):
            assert engine.listdir("s") == ["a", "b", "c", "sub"]
            clock.advance(0.01)
        assert bucket.lists <= 3 * requests + 2, "it is not asked again at once"
    told = [
        r.getMessage() for r in caplog.records if r.levelname == "ERROR" and " s:" in f" {r.getMessage()}"
    ]
    assert any("the server's answer cannot be understood" in text for text in told)
    assert len(told) <= 3, "said once, and not each time"
    bucket.answering = None
    bucket.remove("s/a")
    clock.advance(11.0)
    assert engine.listdir("s") == ["b", "c", "sub"]


@pytest.mark.expect_warnings
@pytest.mark.parametrize(("make", "requests"), ENDLESS.values(), ids=ENDLESS)
def test_what_was_never_known_is_an_error_and_no_storm(
    engine: Engine,
    bucket: ScriptedListings,
    clock: ManualClock,
    make: Callable[[], Callable[[str, str | None], ListPage]],
    requests: int,
):
    assert engine.listdir("") == ["s", "t"]
    bucket.answering, bucket.lists = make(), 0
    for _ in range(100):  # a second
        with pytest.raises(ReadFailed, match="a listing without an end"):
            engine.listdir("s")
        clock.advance(0.01)
    assert bucket.lists <= 1 + requests, "a page of the tree, then the directory alone"
    bucket.answering = None
    clock.advance(6.0)
    assert engine.listdir("s") == ["a", "b", "c", "sub"]


@pytest.mark.expect_warnings
@pytest.mark.parametrize(("make", "requests"), ENDLESS.values(), ids=ENDLESS)
def test_a_rename_of_what_never_ends(
    engine: Engine,
    bucket: ScriptedListings,
    clock: ManualClock,
    make: Callable[[], Callable[[str, str | None], ListPage]],
    requests: int,
):
    """It needs all that is below, by listings that cross directories."""
    assert engine.listdir("") == ["s", "t"]
    bucket.answering, bucket.lists = make(), 0
    with pytest.raises(R2fsError):
        engine.rename("s", "u")
    assert bucket.lists <= 3 * requests
    bucket.answering = None
    clock.advance(11.0)
    assert engine.listdir("s") == ["a", "b", "c", "sub"]


@pytest.mark.expect_warnings
def test_deletes_that_are_looked_for_in_circles_wait(
    tmp_path: Path, bucket: ScriptedListings, clock: ManualClock
):
    """What the pages did not show is not taken for gone."""
    engine = Engine(tmp_path, bucket, clock, threads=False, freshness_s=10.0, upload_delay_s=0.0)
    rows = [f"s/{name}" for name in "abcdefgh"]
    count = itertools.count()
    bucket.answering = lambda prefix, token: page("s/a", token=str(next(count)) if bucket.lists < 2 else None)
    with pytest.raises(MalformedAnswer):
        engine.list_versions(rows)
    assert bucket.lists == 2
    engine.stop()


def test_an_object_without_an_etag_hides_itself_alone(
    engine: Engine, bucket: ScriptedListings, clock: ManualClock
):
    """No version tells it from another: what is known of its name stays, else it is hidden and counted."""
    assert engine.listdir("s") == ["a", "b", "c", "sub"]
    unknown = [ObjectInfo(key, 1, "", 10**18) for key in ("s/a", "s/z")]
    known = ObjectInfo("s/b", 1, "e" * 32, 10**18)
    odd = {"s/": ListPage((unknown[0], known, unknown[1]), (), None), "": ListPage((), ("s/",), None)}
    bucket.answering = lambda prefix, token: odd[prefix]
    clock.advance(11.0)
    assert engine.listdir("s") == ["a", "b"]
    assert engine.fs.queue_view().hidden == 1
    for name in ("a", "b"):
        engine.unlink(f"s/{name}")
    with pytest.raises(DirectoryNotEmpty):
        engine.rmdir("s")


# ------------------------------------------------------------------ the rule itself
def test_long_and_sparse_listings_are_no_circles():
    pages = Pages("s/", kept=True)
    for n in range(LARGEST - 1):
        assert pages.turn(page(f"s/{n:06d}", token=f"t{n}")) == f"t{n}"
    assert pages.turn(page("s/z", token=None)) is None
    sparse = Pages("s/")
    for n in range(100):
        sparse.turn(page(*(["s/" + str(n)] if n % EMPTY == 0 else []), token=str(n)))


def test_a_directory_at_the_end_of_one_page_and_the_beginning_of_the_next():
    pages = Pages("s/")
    pages.turn(page(token="1", prefixes=("s/a/", "s/b/")))
    pages.turn(page(token="2", prefixes=("s/b/", "s/c/")))
    assert pages.turn(page(token=None, prefixes=("s/c/",))) is None


def test_a_listing_that_is_kept_has_a_largest_size():
    pages = Pages("s/", kept=True)
    with pytest.raises(MalformedAnswer, match=rf"s/: .* more than {LARGEST} pages"):
        for n in range(LARGEST):
            pages.turn(page(f"s/{n}", token=str(n)))


@pytest.mark.parametrize(
    "entries", [["s/" + "x" * (3 << 20)], ["s/x"] * 20_000], ids=("long names", "many names")
)
def test_what_is_kept_of_a_listing_is_bounded_in_bytes(entries: list[str], monkeypatch: pytest.MonkeyPatch):
    """A page may be of 6 MiB: two thousand of them are more than a host has."""
    monkeypatch.setattr("r2fs.engine.inodes.listing_pages.MOST_BYTES", 32 << 20)
    pages, size = Pages("s/", kept=True), 0
    with pytest.raises(MalformedAnswer, match="32 MiB of memory"):
        for n in range(LARGEST // 2):
            pages.turn(page(f"s/{n}", *entries, token=str(n)))
            size += sum(NAME_BYTES + len(key) for key in entries)
            assert size <= 32 << 20


@pytest.mark.expect_warnings
def test_a_directory_whose_names_never_end_is_refused_and_what_was_known_stays(
    engine: Engine, bucket: ScriptedListings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    assert engine.listdir("s") == ["a", "b", "c", "sub"]
    monkeypatch.setattr("r2fs.engine.inodes.listing_pages.MOST_BYTES", 1 << 20)
    count = itertools.count()
    bucket.answering = lambda prefix, token: page(
        *(f"s/{next(count)}" for _ in range(500)), token=str(next(count))
    )
    clock.advance(11.0)
    bucket.lists = 0
    assert engine.listdir("s") == ["a", "b", "c", "sub"]
    assert bucket.lists <= 10
