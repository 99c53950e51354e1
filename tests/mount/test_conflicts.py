"""Two daemons at one bucket, on the same names: both contents stay, and people see and settle it by rm and mv.

Every order of the steps is played without mounts by `tests/model/test_conflicts.py`; here are the ways
that people meet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.daemons import BucketMount, until
from tests.support.strict import StrictR2

LONG_S = 60.0


@pytest.fixture(scope="module")
def pair(r2: StrictR2, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BucketMount, BucketMount]]:
    """Nothing is sent before a test says so."""
    made = []
    try:
        for host in ("anna", "bert"):
            base = tmp_path_factory.mktemp(host)
            settings = {"host": host, "upload_delay": "1h", "upload_deadline": "1h", "freshness": "100ms"}
            mount = BucketMount(base, "auto", r2.endpoint, "", **settings)
            mount.allowed = [" WARNING "]
            made.append(mount)
            mount.start()
        yield made[0], made[1]
        assert [mount.stop() for mount in made] == [0, 0]
    finally:
        for mount in made:
            mount.end()


def agree(r2: StrictR2, *mounts: BucketMount) -> dict[str, bytes]:
    """What is in the bucket, once it is what every host sees."""
    for mount in mounts:
        mount.flush(LONG_S)
    names = sorted(r2.bucket.contents())
    until("the same on both", lambda: all(sorted(os.listdir(m.path)) == names for m in mounts), LONG_S)
    return r2.bucket.contents()


def conflicts(mount: BucketMount) -> list[str]:
    return list(mount.status()["queue"]["conflicts"])


@pytest.fixture(autouse=True)
def empty(r2: StrictR2, pair: tuple[BucketMount, BucketMount]) -> Iterator[None]:
    yield
    for name in os.listdir(pair[0].path):
        os.unlink(pair[0].path / name)
    assert agree(r2, *pair) == {}


def both_write(r2: StrictR2, pair: tuple[BucketMount, BucketMount]) -> str:
    """Anna is first; the name of the copy of what Bert wrote."""
    for mount in pair:
        (mount.path / "mix.wav").write_bytes(f"of {mount.base.name.rstrip('0123456789')}".encode())
    found = agree(r2, *pair)
    assert sorted(found.values()) == [b"of anna", b"of bert"]
    assert found["mix.wav"] == b"of anna"
    (copy,) = set(found) - {"mix.wav"}
    assert copy.startswith("mix (conflict of bert, ")
    assert copy.endswith(").wav")
    assert f"kept as {copy}" in pair[1].log()
    for mount in pair:
        assert conflicts(mount) == [copy], "both hosts' people are told"
        assert (mount.path / copy).read_bytes() == b"of bert"
    return copy


def test_the_copy_is_deleted(r2: StrictR2, pair: tuple[BucketMount, BucketMount]):
    anna, bert = pair
    copy = both_write(r2, pair)
    os.unlink(anna.path / copy)
    assert conflicts(anna) == []
    assert agree(r2, *pair) == {"mix.wav": b"of anna"}
    until("bert's status", lambda: conflicts(bert) == [], LONG_S)


def test_the_copy_is_taken(r2: StrictR2, pair: tuple[BucketMount, BucketMount]):
    anna, bert = pair
    copy = both_write(r2, pair)
    os.rename(bert.path / copy, bert.path / "mix.wav")
    assert conflicts(bert) == []
    assert agree(r2, *pair) == {"mix.wav": b"of bert"}
    until("anna's status", lambda: conflicts(anna) == [], LONG_S)


def test_the_copy_gets_a_name_of_its_own(r2: StrictR2, pair: tuple[BucketMount, BucketMount]):
    anna, bert = pair
    copy = both_write(r2, pair)
    os.rename(anna.path / copy, anna.path / "mix two.wav")
    assert agree(r2, *pair) == {"mix.wav": b"of anna", "mix two.wav": b"of bert"}
    assert conflicts(anna) == []
    until("bert's status", lambda: conflicts(bert) == [], LONG_S)


def begun(r2: StrictR2, pair: tuple[BucketMount, BucketMount]) -> None:
    (pair[0].path / "take.wav").write_bytes(b"first")
    assert agree(r2, *pair) == {"take.wav": b"first"}


def edit(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


def test_one_edits_what_the_other_deletes(r2: StrictR2, pair: tuple[BucketMount, BucketMount]):
    """The edit was seen by nobody who deleted: it stays, under its name."""
    anna, bert = pair
    begun(r2, pair)
    edit(bert.path / "take.wav", b"edits")
    os.unlink(anna.path / "take.wav")
    assert agree(r2, anna, bert) == {"take.wav": b"edits"}
    edit(bert.path / "take.wav", b"again")
    os.unlink(anna.path / "take.wav")
    assert agree(r2, bert, anna) == {"take.wav": b"again"}
    assert "not deleted: the bucket holds another version" in anna.log()
    assert conflicts(anna) == conflicts(bert) == []


def test_one_edits_what_the_other_renames(r2: StrictR2, pair: tuple[BucketMount, BucketMount]):
    anna, bert = pair
    begun(r2, pair)
    edit(bert.path / "take.wav", b"edits")
    os.rename(anna.path / "take.wav", anna.path / "final.wav")
    assert agree(r2, anna, bert) == {"final.wav": b"first", "take.wav": b"edits"}


def test_both_change_one_file(r2: StrictR2, pair: tuple[BucketMount, BucketMount]):
    begun(r2, pair)
    for mount, data in zip(pair, (b"ANNA", b"BERT"), strict=True):
        edit(mount.path / "take.wav", data)
    found = agree(r2, *pair)
    assert sorted(found.values()) == [b"ANNAt", b"BERTt"]
    assert found["take.wav"] == b"ANNAt"
    assert len(conflicts(pair[1])) == 1


def test_who_takes_turns_has_no_conflict(r2: StrictR2, pair: tuple[BucketMount, BucketMount]):
    for turn in range(2):
        for mount in pair:
            with (mount.path / "log").open("ab") as file:
                file.write(b"%d" % turn)
            agree(r2, *pair)
            until("the same size on both", lambda: len({size_of(m) for m in pair}) == 1, LONG_S)
    assert agree(r2, *pair) == {"log": b"0011"}


def size_of(mount: BucketMount) -> int:
    return (mount.path / "log").stat().st_size


def test_both_save_over_one_file(r2: StrictR2, pair: tuple[BucketMount, BucketMount]):
    """As programs save: a new file, renamed over the old one."""
    begun(r2, pair)
    for mount, data in zip(pair, (b"of anna", b"of bert"), strict=True):
        (mount.path / ".take.tmp").write_bytes(data)
        os.rename(mount.path / ".take.tmp", mount.path / "take.wav")
    found = agree(r2, *pair)
    assert sorted(found.values()) == [b"of anna", b"of bert"]
    assert len(conflicts(pair[0])) == 1
