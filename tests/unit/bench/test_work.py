"""The work of scripts/bench on a plain directory: it does what it says, and notices wrong bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lib.bench import work
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


def test_tree(tmp_path: Path) -> None:
    work.plant(str(tmp_path), tops=2, subs=3, leaves=4)
    assert work.walk(str(tmp_path), files=24)["count"] == 24
    assert work.stat(str(tmp_path), files=24)["count"] == 24
    with pytest.raises(WrongBytes):
        work.walk(str(tmp_path), files=25)
