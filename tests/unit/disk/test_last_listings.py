"""The cache's rows of what directories held: their bound, and that they are lost softly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from r2fs.disk.cache import last_listings
from r2fs.disk.cache.cache import CleanCache
from r2fs.model.ports import SystemClock
from r2fs.model.records import ObjectInfo


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CleanCache]:
    cache = CleanCache(tmp_path / "cache", limit_bytes=1 << 20, ttl_s=0.0, clock=SystemClock())
    yield cache
    cache.close()


def objects(prefix: str, count: int) -> list[ObjectInfo]:
    return [ObjectInfo(f"{prefix}{n}", n, f"etag {n}", n + 1) for n in range(count)]


def test_they_come_back_as_they_were(cache: CleanCache, tmp_path: Path) -> None:
    kept = objects("p/M\u00e4rz/", 3)
    cache.listings.keep("p/M\u00e4rz/", kept, ["below"], {"\u00e4": b"", "b": b"\0" * 255})
    cache.listings.keep("", [], [])
    cache.close()
    again = CleanCache(tmp_path / "cache", limit_bytes=1 << 20, ttl_s=0.0, clock=SystemClock())
    assert again.listings.has("") and not again.listings.has("p/")
    assert again.listings.find("p/M\u00e4rz/") == (
        tuple(kept),
        ("below",),
        ["\u00e4", "b"],
        [b"", b"\0" * 255],
    )
    assert again.listings.find("") == ((), (), [], [])
    assert again.listings.find("p/") is None
    again.close()


def test_the_longest_unchanged_go_first(cache: CleanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_listings, "ENTRIES_MAX", 30)
    monkeypatch.setattr(last_listings, "DIRECTORY_MAX", 20)
    for number in range(4):
        cache.listings.keep(f"{number}/", objects(f"{number}/", 9), [])
    assert [cache.listings.has(f"{number}/") for number in range(4)] == [False, True, True, True]
    cache.listings.keep("1/", objects("1/", 9), [])  # unchanged
    cache.listings.keep("2/", objects("2/", 10), [])
    cache.listings.keep("large/", objects("large/", 21), [])
    assert [cache.listings.has(one) for one in ("1/", "2/", "3/", "large/")] == [False, True, True, False]
    cache.listings.keep("1/", objects("1/", 1), [])  # kept again after it went
    assert cache.listings.has("1/")


def test_attributes_of_versions_are_no_listings(cache: CleanCache) -> None:
    cache.remember("listing", "e", {"mode": 1})
    cache.listings.keep("listing", objects("listing", 2), [])
    assert cache.recall("listing", "e") == {"mode": 1}
