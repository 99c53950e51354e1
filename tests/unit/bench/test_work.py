"""The work of scripts/bench on a plain directory: it does what it says, and notices wrong bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lib.bench import programs, work
from scripts.lib.bench.work import WORK, WrongBytes

SIZE = 3 * work.CHUNK + 5000


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(b"".join(work.content(SIZE)))
    return path


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "PASSES_S", 0.0)
    monkeypatch.setattr(work, "PASSES", 2)
    monkeypatch.setattr(work, "RANDOM_S", 60.0)


def test_content_has_its_size_and_names_each_block(large: Path) -> None:
    data = large.read_bytes()
    assert len(data) == SIZE
    assert len({data[at : at + work.BLOCK] for at in range(0, SIZE, work.BLOCK)}) == -(-SIZE // work.BLOCK)


@pytest.mark.parametrize("forget", [False, True])
def test_reads_all_of_it(large: Path, forget: bool) -> None:
    assert work.read(str(large), forget)["count"] == SIZE
    assert work.randomly(str(large), forget)["count"] == SIZE // work.BLOCK
    assert work.ends(str(large), SIZE)["count"] == 1


@pytest.mark.parametrize("name", ["read", "ends"])
def test_wrong_bytes_are_noticed(large: Path, name: str) -> None:
    data = bytearray(large.read_bytes())
    data[SIZE - 100] ^= 1
    large.write_bytes(data)
    with pytest.raises(WrongBytes):
        WORK[name](str(large), **({"size": SIZE} if name == "ends" else {}))


def test_write_and_read_back(tmp_path: Path) -> None:
    done = work.write_and_read_back(str(tmp_path / "new"), SIZE)
    assert done["count"] == SIZE
    assert done["back_seconds"] > 0
    assert (tmp_path / "new").read_bytes() == b"".join(work.content(SIZE))


def test_small_files_live_and_die(tmp_path: Path) -> None:
    where = tmp_path / "many"
    assert work.create(str(where), files=7, size=100)["count"] == 7
    assert work.open_read_close(str(where), files=7, size=100)["count"] == 7
    (where / "00003.bin").write_bytes(b"short")
    with pytest.raises(WrongBytes):
        work.open_read_close(str(where), files=7, size=100)
    work.remove(str(where), files=7)
    assert not where.exists()


def test_small_files_in_no_order_and_several_at_once(tmp_path: Path) -> None:
    where = str(tmp_path / "many")
    work.create(where, files=20, size=100)
    in_order, shuffled = work.small_paths(where, 20), work.small_paths(where, 20, shuffled=True)
    assert sorted(shuffled) == in_order != shuffled
    assert work.small_paths(where, 20, shuffled=True) == shuffled, "another order for each system"
    assert work.open_read_close(where, files=20, size=100, shuffled=True, forget=True)["count"] == 20
    done = work.latencies(where, files=20, size=100, readers=4)
    assert done["p50"] <= done["p99"] <= done["p999"]
    (tmp_path / "many" / "00007.bin").write_bytes(b"x" * 100)
    with pytest.raises(WrongBytes):
        work.latencies(where, files=20, size=100, readers=4)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0)]
)
def test_percentile(share: float, expected: float) -> None:
    assert work.percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_headers(large: Path) -> None:
    large.rename(large.parent / "00000.bin")
    assert work.headers(str(large.parent), files=1)["count"] == 1
    (large.parent / "00000.bin").write_bytes(bytes(70_000))
    with pytest.raises(WrongBytes):
        work.headers(str(large.parent), files=1)


def test_programs_leave_what_they_were_given(tmp_path: Path) -> None:
    shape = {"tops": 1, "subs": 2, "leaves": 3}
    archive, repository = str(tmp_path / "archive.tar"), str(tmp_path / "repository")
    programs.make_archive(archive, **shape)
    programs.make_repository(repository, **shape)
    assert programs.tar(archive, str(tmp_path / "untarred"), files=6)["count"] == 6
    cloned = programs.clone(repository, str(tmp_path / "cloned"), files=6)
    assert cloned["count"] == 6
    assert cloned["files"] == programs.count_files(str(tmp_path / "cloned")) > 6
    assert programs.cp(archive, str(tmp_path / "copy"))["count"] == (tmp_path / "copy").stat().st_size
    assert (tmp_path / "copy").read_bytes() == Path(archive).read_bytes()
    with pytest.raises(WrongBytes):
        programs.clone(repository, str(tmp_path / "again"), files=7)


def test_a_token_is_seen_where_it_is_and_missed_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "TOKEN_S", 0.02)
    assert programs.token(str(tmp_path / "a"), str(tmp_path / "a"), 1)["count"] == 1
    with pytest.raises(WrongBytes):
        programs.token(str(tmp_path / "a"), str(tmp_path / "b"), 2)


def test_tree(tmp_path: Path) -> None:
    work.plant(str(tmp_path), tops=2, subs=3, leaves=4)
    assert work.walk(str(tmp_path), files=24)["count"] == 24
    assert work.stat(str(tmp_path), files=24)["count"] == 24
    with pytest.raises(WrongBytes):
        work.walk(str(tmp_path), files=25)
