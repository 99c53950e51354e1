"""Cache care: damaged files are found and dropped, clean content is removed; what is not in the bucket is never touched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from r2fs.disk.cache.table import Admission
from r2fs.engine.content import idle
from tests.mount.daemons import until
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

LATER = {"upload_delay_s": 3600.0, "upload_deadline_s": 3600.0}


def cached_files(engine: Engine) -> list[Path]:
    return [path for path in (engine.settings.cache_dir / "content").glob("??/*") if len(path.name) == 30]


def damage(path: Path) -> None:
    """Change a byte, and no time: as a bad disk does."""
    stat = path.stat()
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.expect_warnings("differs from its ETag")
def test_a_damaged_file_is_found_dropped_and_fetched_again(make: MakeEngine, store: MemoryStore) -> None:
    for name in ("a", "b"):
        store.set(name, name.encode() * 1000)
        store.set(f"{name}.part", os.urandom(9_000_000))
    engine = make()
    for name in ("a", "b"):
        engine.read(name)
    opened = engine.open("a.part")
    engine.fs.read(engine.caller, opened.handle, 0, 10)
    engine.close(opened)
    engine.retire_idle()
    assert engine.fs.cache_care.check().damaged == ()
    (path,) = [
        path for path in cached_files(engine) if path.read_bytes()[:1] == b"a" and path.stat().st_size == 1000
    ]
    damage(path)
    seen: list[int] = []
    view = engine.fs.cache_care.check(lambda view: seen.append(view.checked + view.skipped))
    assert (view.damaged, view.checked, view.bytes) == (("a",), 2, 2000)
    assert seen[-1] == view.checked + view.skipped
    assert engine.read("a") == b"a" * 1000
    assert engine.fs.cache_care.check().damaged == ()


def test_the_oldest_of_many_open_files_enter_the_cache_together(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "MOST", 64)
    for n in range(100):
        store.set(f"{n:03}", b"%03d" % n)
    engine, together = make(freshness_s=3600.0), list[int]()
    admit_all = engine.core.cache.admit_all

    def counted(files: Sequence[Admission]) -> None:
        together.append(len(files))
        admit_all(files)

    monkeypatch.setattr(engine.core.cache, "admit_all", counted)
    for n in range(100):
        engine.read(f"{n:03}")
    assert len(cached_files(engine)) == sum(together) >= 100 - 64
    assert 1 < max(together) <= idle.TOGETHER
    engine.retire_idle()
    assert max(together) <= idle.TOGETHER
    assert sorted(path.read_bytes() for path in cached_files(engine)) == [b"%03d" % n for n in range(100)]
    assert engine.fs.cache_care.check().checked == 100


@pytest.mark.expect_warnings("differs from its ETag")
def test_a_multipart_object_is_compared_by_the_digests_of_its_parts(
    make: MakeEngine, store: MemoryStore
) -> None:
    data = os.urandom(12 << 20)
    engine = make(part_size=5 << 20, multipart_threshold=6 << 20)
    engine.write("large", data)
    engine.drain()
    assert "-" in store.objects["large"].etag
    until("digests", lambda: engine.cache.recall_parts(store.head("large").version))
    view = engine.fs.cache_care.check()
    assert (view.checked, view.skipped, view.damaged) == (1, 0, ())
    (path,) = [path for path in cached_files(engine) if path.stat().st_size == 12 << 20]
    damage(path)
    assert engine.fs.cache_care.check().damaged == ("large",)
    assert engine.read("large") == data


def test_etags_that_are_no_md5_are_left_out(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a", b"a")
    engine = make()
    engine.read("a")
    with engine.lock:
        bucket = engine.settings.bucket
        engine.core.change_settings_locked(
            type(engine.settings)(
                **{
                    **{name: getattr(engine.settings, name) for name in engine.settings.__slots__},
                    "bucket": type(bucket)(bucket.scheme, bucket.name, md5_etags=False),
                }
            )
        )
    view = engine.fs.cache_care.check()
    assert (view.checked, view.skipped) == (0, 1)


def test_clear_leaves_open_files_and_pending_changes(make: MakeEngine, store: MemoryStore) -> None:
    for name in ("cold", "open"):
        store.set(name, name.encode() * 100)
    engine = make(**LATER)
    engine.read("cold")
    opened = engine.open("open")
    engine.fs.read(engine.caller, opened.handle, 0, 400)
    engine.write("mine", b"mine")
    before, after = engine.fs.cache_care.clear()
    assert (before.entries, after.entries) == (2, 1)
    assert not any(path.read_bytes() == b"cold" * 100 for path in cached_files(engine))
    gets = store.count("get")
    assert engine.fs.read(engine.caller, opened.handle, 0, 400) == b"open" * 100
    assert engine.read("mine") == b"mine"
    assert store.count("get") == gets
    engine.close(opened)
    assert engine.read("cold") == b"cold" * 100
    engine.drain()
    assert store.data("mine") == b"mine"


def test_a_check_ends_with_its_client(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a", b"a")
    engine = make()
    engine.read("a")
    engine.retire_idle()
    assert engine.fs.cache_care.check(cancelled=lambda: True).checked == 0
