from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2fs.disk.cache import cache as cache_module
from r2fs.disk.cache import remembered as remembered_module
from r2fs.disk.cache import shelf as shelf_module
from r2fs.disk.cache import table
from r2fs.disk.cache import table as cache_table
from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.cache.table import Admission
from r2fs.model.ranges import RangeSet
from r2fs.model.records import Version
from tests.unit.disk.conftest import SetClock

KIB = 1 << 10
Open = Callable[..., CleanCache]


@pytest.fixture
def open_cache(tmp_path: Path, clock: SetClock) -> Iterator[Open]:
    opened: list[CleanCache] = []

    def open_cache(limit: int = 1 << 20, ttl: float = 0.0) -> CleanCache:
        opened.append(CleanCache(tmp_path / "cache", limit_bytes=limit, ttl_s=ttl, clock=clock))
        return opened[-1]

    (tmp_path / "staging").mkdir()
    yield open_cache
    for cache in opened:
        cache.close()


class Files:
    """Makes content and puts it in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made = 0

    def path(self) -> Path:
        self.made += 1
        return self.directory / f"f{self.made}"

    def put(self, cache: CleanCache, key: str, data: bytes = b"data", etag: str = "e1") -> Version:
        path, version = self.path(), Version(key, etag, len(data))
        path.write_bytes(data)
        assert cache.admit(version, path, size=len(data), present=None)
        path.unlink()
        return version

    def get(self, cache: CleanCache, version: Version) -> bytes | None:
        into = self.path()
        if cache.take(version, into) is None:
            assert not into.exists()
            return None
        data = into.read_bytes()
        into.unlink()
        return data


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "staging")


def content_files(tmp_path: Path) -> list[Path]:
    return [p for p in (tmp_path / "cache/content").rglob("*") if p.is_file() and len(p.parent.name) == 2]


# ------------------------------------------------------------------ hits and misses
def test_what_was_admitted_is_taken(open_cache: Open, files: Files):
    cache = open_cache()
    version = files.put(cache, "takes/07.wav", b"RIFF")
    assert files.get(cache, version) == b"RIFF"
    assert files.get(cache, Version("takes/07.wav", "e2", 4)) is None
    assert files.get(cache, Version("takes/08.wav", "e1", 4)) is None
    view = cache.view()
    assert (view.hits, view.misses, view.entries, view.bytes) == (1, 2, 1, 4096)
    assert cache.contains(version)
    assert cache.view().hits == 1, "contains is not counted"


def test_a_hit_costs_two_statements_and_a_miss_one(open_cache: Open, files: Files):
    cache = open_cache()
    version = files.put(cache, "a")
    executed: list[str] = []
    table = cache._content._table
    assert table is not None
    table._con.set_trace_callback(executed.append)
    assert files.get(cache, version)
    assert files.get(cache, Version("b", "e", 1)) is None
    statements = [sql.split()[0] for sql in dict.fromkeys(executed)]  # a trigger repeats its statement's text
    assert statements == ["SELECT", "UPDATE", "SELECT"]
    assert (cache.view().hits, cache.view().misses) == (1, 1)


def test_a_hit_is_the_same_file_not_a_copy(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    path = files.path()
    path.write_bytes(b"data")
    version = Version("k", "e", 4)
    assert cache.admit(version, path, size=4, present=None)
    into = files.path()
    assert cache.take(version, into)
    assert into.stat().st_ino == path.stat().st_ino
    assert path.stat().st_nlink == 3


def test_everything_persists(open_cache: Open, files: Files, clock: SetClock):
    cache = open_cache()
    version = files.put(cache, "k", b"abc")
    files.get(cache, version)
    cache.remember("k", "e1", {"mtime": "1.5", "mode": 420})
    cache.close()
    cache = open_cache()
    assert files.get(cache, version) == b"abc"
    assert cache.view().hits == 2
    assert cache.recall("k", "e1") == {"mtime": "1.5", "mode": 420}


def test_partial_content_keeps_its_ranges(open_cache: Open, files: Files):
    cache = open_cache()
    path, version = files.path(), Version("k", "e", 1 << 20)
    with path.open("wb") as file:
        file.truncate(1 << 20)
        file.seek(8192)
        file.write(b"x" * 4096)
    present = RangeSet([(8192, 12288)])
    assert cache.admit(version, path, size=1 << 20, present=present)
    assert cache.view().bytes <= 16384, "counts by its blocks"
    taken = cache.take(version, files.path())
    assert taken is not None and taken.present == present
    assert cache.contains(version) and not cache.contains(version, whole=True)
    assert cache.contains(files.put(cache, "other"), whole=True)


def test_a_further_open_of_the_same_content_is_a_hit(open_cache: Open):
    cache = open_cache()
    cache.count_hit()
    assert cache.view().hits == 1


def test_the_same_version_again_replaces(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    files.put(cache, "k", b"old!")
    version = files.put(cache, "k", b"new!")
    assert files.get(cache, version) == b"new!"
    assert cache.view().entries == 1
    assert len(content_files(tmp_path)) == 1


def test_drop_and_rekey(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    old, other = files.put(cache, "old", b"abc"), files.put(cache, "other", b"xyz")
    new = Version("new", "e9", 3)
    cache.rekey(old, new)
    assert files.get(cache, old) is None
    assert files.get(cache, new) == b"abc"
    cache.rekey(other, new)
    assert files.get(cache, new) == b"xyz"
    cache.rekey(Version("nothing", "e", 1), other)
    cache.rekey(new, new)
    cache.drop(new)
    cache.drop(new)
    assert files.get(cache, new) is None
    assert content_files(tmp_path) == []


def test_names_of_any_kind_are_keys(open_cache: Open, files: Files):
    cache = open_cache()
    keys = ["a\nb", 'quote"', "Übung/ü.wav", "\x01", "😀", "x" * 1024]
    versions = [files.put(cache, key, key.encode()) for key in keys]
    for version in versions:
        assert files.get(cache, version) == version.key.encode()


@pytest.mark.expect_warnings("the cached file was changed")
def test_a_file_that_was_written_to_is_a_miss(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    version = files.put(cache, "takes/07.wav", b"RIFF" * 100)
    (path,) = content_files(tmp_path)
    with path.open("r+b") as file:
        file.seek(7)
        file.write(b"\xff")
    assert files.get(cache, version) is None
    assert not path.exists()
    files.put(cache, "takes/07.wav", b"RIFF" * 100)
    assert files.get(cache, version) == b"RIFF" * 100


@pytest.mark.expect_warnings("the cached file was changed")
def test_a_file_that_was_lost_or_cut_is_a_miss(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    for damage in (Path.unlink, lambda path: os.truncate(path, 1)):
        version = files.put(cache, "k", b"abc")
        damage(content_files(tmp_path)[0])
        assert cache.contains(version)
        assert files.get(cache, version) is None
        assert not cache.contains(version)
        assert cache.view().entries == 0


def test_take_into_nowhere_is_the_callers_error(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    version = files.put(cache, "k")
    with pytest.raises(FileNotFoundError):
        cache.take(version, tmp_path / "nowhere/f")
    assert files.get(cache, version) == b"data"


# ------------------------------------------------------------------ the limit
def test_three_times_the_limit_goes_through(open_cache: Open, files: Files, tmp_path: Path):
    limit = 256 * KIB
    cache = open_cache(limit)
    rng = random.Random(7)
    put = 0
    while put < 3 * limit:
        size = rng.randrange(1, 40 * KIB)
        files.put(cache, f"k{put}", b"x" * size)
        put += size
        assert cache.view().bytes <= limit
        assert sum(p.stat().st_blocks * 512 for p in content_files(tmp_path)) <= limit
    view = cache.view()
    assert view.bytes > limit // 2
    assert view.evicted > 10
    assert len(content_files(tmp_path)) == view.entries


def test_the_least_recently_used_goes_first(open_cache: Open, files: Files):
    cache = open_cache(4 * 4096)
    versions = [files.put(cache, f"k{n}") for n in range(4)]
    files.get(cache, versions[0])
    files.put(cache, "k4")
    files.put(cache, "k5")
    assert [cache.contains(v) for v in versions] == [True, False, False, True]


def test_pinned_versions_are_passed_over(open_cache: Open, files: Files):
    cache = open_cache(40 * 4096)
    versions = [files.put(cache, f"k{n:02}") for n in range(40)]
    for version in versions[:35]:  # more than one batch of rows to pass over
        cache.pin(version)
    cache.pin(versions[0])
    for n in range(20):
        files.put(cache, f"new{n}")
    assert all(cache.contains(version) for version in versions[:35])
    for version in versions[:35]:
        cache.unpin(version)
    files.put(cache, "one more")
    assert cache.contains(versions[0]), "pinned twice, unpinned once"
    assert not cache.contains(versions[1])


def test_what_cannot_fit_is_refused_and_evicts_nothing(open_cache: Open, files: Files):
    cache = open_cache(10 * 4096)
    pinned, other = files.put(cache, "pinned", b"p" * 6 * 4096), files.put(cache, "other", b"o" * 4096)
    cache.pin(pinned)
    path = files.path()
    for blocks, key in ((11, "larger than the limit"), (5, "larger than what is not pinned")):
        path.write_bytes(b"x" * blocks * 4096)
        version = Version(key, "e", blocks * 4096)
        assert not cache.admit(version, path, size=version.size, present=None)
        assert not cache.contains(version)
    assert cache.contains(pinned) and cache.contains(other)
    assert not cache.make_room(5 * 4096)
    assert cache.contains(other)


def test_a_grown_entry_that_no_longer_fits_is_dropped(open_cache: Open, files: Files):
    cache = open_cache(8 * 4096)
    path, version = files.path(), Version("k", "e", 16 * 4096)
    with path.open("wb") as file:
        file.write(b"x" * 4096)
        file.truncate(version.size)
    assert cache.admit(version, path, size=version.size, present=RangeSet([(0, 4096)]))
    path.write_bytes(b"x" * version.size)
    assert not cache.admit(version, path, size=version.size, present=None)
    assert cache.view().bytes == 0


def test_open_content_counts_against_the_limit(open_cache: Open, files: Files):
    cache = open_cache(10 * 4096)
    versions = [files.put(cache, f"k{n}") for n in range(10)]
    cache.set_reserved(4 * 4096)
    assert cache.make_room(0)
    assert [cache.contains(v) for v in versions] == [False] * 4 + [True] * 6
    assert cache.view().bytes == 10 * 4096
    assert cache.make_room(2 * 4096)
    assert cache.view().entries == 4
    assert not cache.make_room(7 * 4096)


def test_many_expired_entries_go_in_parts(
    open_cache: Open, files: Files, clock: SetClock, monkeypatch: pytest.MonkeyPatch
):
    """A hundred thousand took eight seconds under the lock that each read takes."""
    cache = open_cache(ttl=100)
    for number in range(25):
        files.put(cache, f"k{number}")
    clock.now_s += 101
    monkeypatch.setattr(cache_module, "EXPIRE_AT_ONCE", 10)
    held = list[int]()
    plain = cache._expire_locked
    monkeypatch.setattr(
        cache, "_expire_locked", lambda rows, table: (held.append(len(rows)), plain(rows, table))[1]
    )
    assert cache.sweep() == 25
    assert held == [10, 10, 5]
    assert cache.view().entries == 0


def test_a_lower_limit_holds_from_the_first_sweep_and_spares_what_is_pinned(open_cache: Open, files: Files):
    cache = open_cache(10 * 4096)
    versions = [files.put(cache, f"k{n}") for n in range(10)]
    cache.close()
    cache = open_cache(3 * 4096)
    cache.set_pinned(["k0"], [])  # read from the journal, before anything is evicted
    cache.sweep()
    assert cache.view().entries == 3
    assert cache.contains(versions[0]) and cache.contains(versions[9])


def test_no_cache_at_all(open_cache: Open, files: Files):
    cache = open_cache(0)
    path = files.path()
    path.write_bytes(b"x")
    assert not cache.admit(Version("k", "e", 1), path, size=1, present=None)
    assert files.get(cache, Version("k", "e", 1)) is None


def test_evict_frees_disk_whatever_the_limit(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    versions = [files.put(cache, f"k{n}", b"x" * 8192) for n in range(4)]
    cache.pin(versions[0])
    assert cache.evict(8193) == 16384
    assert [cache.contains(v) for v in versions] == [True, False, False, True]
    assert cache.evict(1 << 30) == 8192
    assert len(content_files(tmp_path)) == 1


# ------------------------------------------------------------------ age
def test_age_runs_from_when_it_was_stored(open_cache: Open, files: Files, clock: SetClock):
    cache = open_cache(ttl=100)
    old, pinned = files.put(cache, "old"), files.put(cache, "pinned")
    cache.pin(pinned)
    clock.now_s += 60
    young = files.put(cache, "young")
    files.put(cache, "old")  # more of it, or all of it: its age goes on
    assert files.get(cache, old) == b"data"
    clock.now_s += 40
    assert not cache.contains(old)
    assert files.get(cache, old) is None
    assert files.get(cache, young) == b"data"
    assert files.get(cache, pinned) == b"data"
    cache.unpin(pinned)
    assert cache.sweep() == 1
    clock.now_s += 60
    assert cache.sweep() == 1
    view = cache.view()
    assert (view.entries, view.expired, view.hits, view.misses) == (0, 3, 3, 1)


def test_the_age_can_be_handed_back(open_cache: Open, files: Files, clock: SetClock):
    cache = open_cache(ttl=100)
    version, into = files.put(cache, "k"), files.path()
    taken = cache.take(version, into)
    assert taken is not None
    cache.drop(version)
    clock.now_s += 90
    assert cache.admit(version, into, size=4, present=None, stored_at_s=taken.stored_at_s)
    assert cache.contains(version)
    clock.now_s += 10
    assert not cache.contains(version)


def test_the_setting_of_now_decides(open_cache: Open, files: Files, clock: SetClock):
    cache = open_cache(ttl=0)
    version = files.put(cache, "k")
    clock.now_s += 1e6
    assert cache.sweep() == 0
    cache.close()
    cache = open_cache(ttl=1e5)
    assert not cache.contains(version)
    assert cache.sweep() == 1


def test_a_clock_that_was_set_back_makes_nothing_immortal(open_cache: Open, files: Files, clock: SetClock):
    cache = open_cache(ttl=100)
    version = files.put(cache, "k")
    clock.now_s -= 30
    assert cache.contains(version)
    clock.now_s -= 1e6
    assert not cache.contains(version)
    assert cache.sweep() == 1


# ------------------------------------------------------------------ loss and damage
def test_rm_rf_while_mounted(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    for _ in range(3):
        version = files.put(cache, "k", b"abc")
        into = files.path()
        assert cache.take(version, into)
        cache.remember("k", "e1", {"mtime": "1"})
        shutil.rmtree(tmp_path / "cache")
        assert files.get(cache, version) is None
        assert cache.recall("k", "e1") is None
        assert into.read_bytes() == b"abc"
        assert cache.view().entries == 0
    version = files.put(cache, "k", b"abc")
    assert files.get(cache, version) == b"abc"
    assert cache.view().hits == 4, "counters go on"


@pytest.mark.expect_warnings("the database|cannot be used")
def test_rm_rf_by_a_clean_up_that_runs_all_the_time(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    stop = threading.Event()

    def clean_up() -> None:
        while not stop.is_set():
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    cleaner = threading.Thread(target=clean_up)
    cleaner.start()
    path = files.path()
    path.write_bytes(b"data")
    for n in range(300):
        version = Version(f"k{n}", "e", 4)
        cache.admit(version, path, size=4, present=None)
        assert files.get(cache, version) in (None, b"data")
        cache.remember("k", "e", {"n": n})
        cache.recall("k", "e")
        cache.sweep()
    stop.set()
    cleaner.join(20)
    cache.view()


@pytest.mark.expect_warnings("cannot be opened")
@pytest.mark.parametrize("junk", [b"", b"this is no database" * 1000, None])
def test_a_damaged_database_is_begun_anew(
    open_cache: Open, files: Files, tmp_path: Path, junk: bytes | None, caplog: pytest.LogCaptureFixture
):
    cache = open_cache()
    version = files.put(cache, "k")
    cache.close()
    for shelf in ("content", "attributes"):
        database = tmp_path / "cache" / shelf / "cache.db"
        data = database.read_bytes()
        database.write_bytes(data[: len(data) // 2] if junk is None else junk)
    cache = open_cache()
    assert ("begins anew" in caplog.text) == (junk != b""), "nothing is no damage"
    cache.sweep()
    assert content_files(tmp_path) == []
    assert files.get(cache, version) is None
    files.put(cache, "k")
    assert files.get(cache, version) == b"data"
    assert cache.view().entries == 1


@pytest.mark.expect_warnings("is damaged")
def test_a_database_that_is_damaged_while_mounted(
    open_cache: Open, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    cache = open_cache()
    versions = [files.put(cache, f"k{n}") for n in range(500)]
    table = cache._content._table
    assert table is not None
    table.close()  # so that nothing of it is in memory
    with (tmp_path / "cache/content/cache.db").open("r+b") as database:
        size = database.seek(0, os.SEEK_END)
        database.seek(4096)
        database.write(os.urandom(size - 4096))
    for version in versions:
        assert files.get(cache, version) in (None, b"data")
        files.put(cache, version.key)
    assert files.get(cache, versions[-1]) == b"data"
    assert "is damaged" in caplog.text
    assert len(content_files(tmp_path)) == cache.view().entries


def test_what_is_not_ours_in_the_directory_stays(open_cache: Open, files: Files, tmp_path: Path):
    mine = [tmp_path / "cache" / name for name in ("content/song.wav", "content/ab/notes.txt", "x/ab/y")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    cache = open_cache()
    files.put(cache, "k")
    (tmp_path / "cache/content/cache.db").unlink()
    files.put(cache, "k")
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert len(content_files(tmp_path)) == 1 + 1  # and the notes


@pytest.mark.expect_warnings("cannot be used")
def test_a_directory_that_cannot_be_used(open_cache: Open, files: Files, tmp_path: Path, clock: SetClock):
    (tmp_path / "cache").write_text("a file")
    cache = open_cache()
    path = files.path()
    path.write_bytes(b"data")
    version = Version("k", "e", 4)
    assert not cache.admit(version, path, size=4, present=None)
    assert files.get(cache, version) is None
    cache.remember("k", "e", {})
    assert cache.recall("k", "e") is None
    assert cache.make_room(0)
    assert cache.evict(1) == 0
    (tmp_path / "cache").unlink()
    clock.now_s += shelf_module.RETRY_S
    assert cache.admit(version, path, size=4, present=None), "it is tried again"


def test_a_file_that_is_gone_keeps_out_no_other(open_cache: Open, files: Files):
    cache = open_cache()
    paths = [files.path() for _ in range(3)]
    versions = [Version(path.name, "e", 4) for path in paths]
    for path in paths[::2]:
        path.write_bytes(b"data")
    cache.admit_all(
        [Admission(version, path, 4, None) for version, path in zip(versions, paths, strict=True)]
    )
    assert [files.get(cache, version) for version in versions] == [b"data", None, b"data"]


@pytest.mark.expect_warnings("used by another mount")
def test_two_mounts_do_not_share_a_cache(open_cache: Open, files: Files, clock: SetClock):
    first = open_cache()
    version = files.put(first, "k")
    second = open_cache()
    assert files.get(second, version) is None
    assert files.get(first, version) == b"data"
    first.close()
    clock.now_s += shelf_module.RETRY_S
    assert files.get(second, version) == b"data"


def test_a_full_disk_costs_admissions_not_hits(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    versions = [files.put(cache, f"k{n}") for n in range(20)]
    table = cache._content._table
    assert table is not None
    ((pages,),) = table._sql("PRAGMA page_count").fetchall()
    table._sql(f"PRAGMA max_page_count = {pages}")  # what SQLite then says is what it says of a full disk
    path = files.path()
    path.write_bytes(b"data")
    refused = [
        not cache.admit(Version(f"new{n}" + "x" * 900, "e", 4), path, size=4, present=None) for n in range(50)
    ]
    assert any(refused)
    cache.admit_all([Admission(Version(f"more{n}" + "x" * 900, "e", 4), path, 4, None) for n in range(50)])
    assert all(files.get(cache, version) == b"data" for version in versions)
    assert len(content_files(tmp_path)) == cache.view().entries, "no file without a row"
    assert path.stat().st_nlink == cache.view().entries - len(versions) + 1


def test_hits_go_on_where_not_even_a_use_can_be_written(
    open_cache: Open, files: Files, monkeypatch: pytest.MonkeyPatch
):
    cache = open_cache()
    version = files.put(cache, "k")

    def full(*_: object, **__: object) -> None:
        error = cache_table.SQL.OperationalError("database or disk is full")
        error.sqlite_errorcode = cache_table.SQL.SQLITE_FULL
        raise error

    monkeypatch.setattr(cache_table.Table, "use", full)
    assert files.get(cache, version) == b"data"
    monkeypatch.setattr(cache_table.Table, "delete", full)
    assert cache.evict(1) == 4096, "the file goes first: then there is room"
    assert files.get(cache, version) is None
    monkeypatch.undo()
    assert files.get(cache, version) is None
    assert cache.view().entries == 0


# ------------------------------------------------------------------ ends, bad ones too
def die(cache: CleanCache) -> None:
    """What kill -9 leaves: no mark of a good end."""
    for shelf in (cache._content, cache._attributes):
        with shelf.lock:
            shelf._shut_locked()
            shelf._closed = True


def test_kill_9_keeps_the_cache_and_finds_orphans(open_cache: Open, files: Files, tmp_path: Path):
    cache = open_cache()
    version = files.put(cache, "k")
    die(cache)
    orphan = tmp_path / "cache/content/ab" / ("0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_text("linked, and then killed")
    cache = open_cache()
    assert files.get(cache, version) == b"data", "before the first sweep"
    cache.sweep()
    assert not orphan.exists()
    assert files.get(cache, version) == b"data"


def test_a_power_cut_drops_everything(
    open_cache: Open, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = open_cache()
    version = files.put(cache, "k")
    die(cache)
    monkeypatch.setattr(shelf_module, "boot_id", lambda: "another boot")
    cache = open_cache()
    assert files.get(cache, version) is None
    assert content_files(tmp_path) == []


def test_a_reboot_after_a_good_end_drops_nothing(
    open_cache: Open, files: Files, monkeypatch: pytest.MonkeyPatch
):
    cache = open_cache()
    version = files.put(cache, "k")
    cache.close()
    monkeypatch.setattr(shelf_module, "boot_id", lambda: "another boot")
    assert files.get(open_cache(), version) == b"data"


def test_a_closed_cache_misses(open_cache: Open, files: Files):
    cache = open_cache()
    version = files.put(cache, "k")
    cache.close()
    cache.close()
    assert files.get(cache, version) is None
    assert cache.view().entries == 0


def test_nothing_is_unpickled(open_cache: Open, files: Files):
    cache = open_cache()
    version = files.put(cache, "k")
    table = cache._content._table
    assert table is not None
    # Mode 4 is diskcache's pickle. Its bytes would make a file if they were loaded.
    evil = b"cposix\nsystem\n(S'touch evil'\ntR."
    table._sql("UPDATE Cache SET mode = 4, value = ?, filename = NULL", (evil,))
    assert files.get(cache, version) is None
    assert not Path("evil").exists()


# ------------------------------------------------------------------ attributes
def test_attributes_of_versions(open_cache: Open):
    cache = open_cache()
    assert cache.recall("k", "e") is None
    cache.remember("k", "e", {"mtime": "1", "mode": 0o644, "content_type": "audio/wav"})
    cache.remember("k", "e", {"mtime": "2"})
    assert cache.recall("k", "e") == {"mtime": "2"}
    assert cache.recall("k", "other") is None


def test_the_oldest_attributes_are_forgotten(open_cache: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remembered_module, "ATTRIBUTES_MAX", 100)
    monkeypatch.setattr(remembered_module, "TRIM_EVERY", 10)
    cache = open_cache()
    for n in range(300):
        cache.remember(f"k{n}", "e", {"n": n})
        cache.remember("kept", "e", {"n": n})
    assert cache.recall("k0", "e") is None
    assert cache.recall("kept", "e") == {"n": 299}
    assert cache.recall("k299", "e") == {"n": 299}
    assert sum(cache.recall(f"k{n}", "e") is not None for n in range(300)) <= 110


# ------------------------------------------------------------------ threads
def test_threads_share_it(open_cache: Open, tmp_path: Path):
    limit = 32 * 4096
    cache = open_cache(limit)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng, directory = random.Random(seed), tmp_path / f"staging{seed}"
        directory.mkdir()
        mine = Files(directory)
        try:
            for _ in range(300):
                key = f"k{rng.randrange(60)}"
                version = Version(key, "e1", 4)
                match rng.randrange(6):
                    case 0 | 1:
                        mine.put(cache, key, b"data")
                    case 2 | 3:
                        assert mine.get(cache, version) in (None, b"data")
                    case 4:
                        cache.pin(version)
                        assert cache.view().bytes <= limit
                        cache.unpin(version)
                    case _:
                        cache.drop(version)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    view = cache.view()
    assert view.bytes <= limit
    assert len(content_files(tmp_path)) == view.entries


# ------------------------------------------------------------------ names in memory
@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that a table was asked for."""
    read: list[str] = []
    plain = cache_table.Table.row

    def row(table: cache_table.Table, key: str) -> cache_table.Row | None:
        read.append(key)
        return plain(table, key)

    monkeypatch.setattr(cache_table.Table, "row", row)
    return read


def test_names_that_are_not_there_cost_a_few_queries_at_most(
    open_cache: Open, files: Files, rows_read: list[str]
):
    """A large directory is listed: one lookup a name, of which the table has next to none."""
    cache = open_cache()
    files.put(cache, "kept", b"RIFF")
    cache.remember("kept", "e1", {"mode": 1})
    rows_read.clear()
    for n in range(2_000):
        assert cache.recall(f"k{n}", "e") is None
        assert not cache.contains(Version(f"k{n}", "e", 4))
        assert files.get(cache, Version(f"k{n}", "e", 4)) is None
    assert len(rows_read) <= 3 * table.LOAD_AFTER


def test_a_filter_that_is_loaded_hides_no_row(
    open_cache: Open, files: Files, monkeypatch: pytest.MonkeyPatch
):
    """Rows of an earlier session, rows made since, and rows under another name."""
    cache = open_cache()
    before = [files.put(cache, f"before{n}", b"RIFF") for n in range(50)]
    for version in before:
        cache.remember(version.key, version.etag, {"n": 1})
    cache.close()
    monkeypatch.setattr(table, "RELOAD_AFTER", 70)
    cache = open_cache()
    for n in range(2 * table.LOAD_AFTER):
        cache.recall(f"k{n}", "e")
        files.get(cache, Version(f"k{n}", "e", 4))
    since = [files.put(cache, f"since{n}", b"RIFF") for n in range(100)]
    for version in since:
        cache.remember(version.key, version.etag, {"n": 1})
    moved = Version("moved", "e9", 4)
    cache.rekey(since.pop(), moved)
    for n in range(2 * table.LOAD_AFTER):
        cache.recall(f"j{n}", "e")
        files.get(cache, Version(f"j{n}", "e", 4))
    for version in [*before, *since]:
        assert cache.recall(version.key, version.etag) == {"n": 1}
    for version in [*before, *since, moved]:
        assert files.get(cache, version) == b"RIFF"
        assert cache.bytes_of(version) == 4


def test_misses_that_no_table_counted_persist(open_cache: Open, files: Files):
    cache = open_cache()
    for n in range(100):
        files.get(cache, Version(f"k{n}", "e", 4))
    assert cache.view().misses == 100
    cache.close()
    assert open_cache().view().misses == 100


def test_what_many_downloads_say_is_written_together(
    open_cache: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache()
    begun: list[int] = []
    run = cache._attributes.run
    monkeypatch.setattr(cache._attributes, "run", lambda work, other: (begun.append(1), run(work, other))[1])
    for number in range(remembered_module.BATCH * 2 + 1):
        cache.remember_later(f"k{number}", "e", {"mode": number})
        if (number + 1) % remembered_module.BATCH:  # else it is in the table already
            assert cache.recall(f"k{number}", "e") == {"mode": number}
    assert len(begun) == 2
    cache.remember(f"k{remembered_module.BATCH * 2}", "e", {"mode": -1})  # what is newer counts
    monkeypatch.undo()
    cache.close()
    again = open_cache()
    assert again.recall("k0", "e") == {"mode": 0}
    assert again.recall(f"k{remembered_module.BATCH * 2}", "e") == {"mode": -1}


def test_what_was_not_written_yet_is_at_the_end(open_cache: Open) -> None:
    cache = open_cache()
    cache.remember_later("k", "e", {"mode": 1})
    cache.close()
    assert open_cache().recall("k", "e") == {"mode": 1}


@pytest.mark.parametrize("key", ["takes/01.wav", 't\u00e4ke "1"\n', "not UTF-8: \udcff", "\U0001f3b5"])
def test_names_of_rows_are_json(key: str) -> None:
    assert table.row_name(key, "9f") == json.dumps(["9f", key])
    assert table.version_of(table.row_name(key, "9f")) == ("9f", key)
