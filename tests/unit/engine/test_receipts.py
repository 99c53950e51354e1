"""Receipts: the object of a path, and whether the bucket holds exactly the bytes that the mount shows."""

from __future__ import annotations

import os

import pytest

from r2fs.model.errors import InvalidArgument, NotADirectory, NotFound
from r2fs.model.settings import Bucket
from tests.support.engine import MakeEngine
from tests.support.memory_store import MemoryStore


def test_a_path_is_located_without_a_request(make: MakeEngine, store: MemoryStore) -> None:
    store.set("users/anna/d/old.wav", b"old")
    engine = make(bucket=Bucket("s3", "b", "users/anna/"))
    engine.listdir("d")
    opened = engine.open("d/new.wav", os.O_WRONLY | os.O_CREAT)
    before = len(store.calls)
    receipts = engine.fs.receipts
    old, new = receipts.locate("d/old.wav"), receipts.locate("/d/./new.wav")
    assert (old.key, old.state, old.known) == ("users/anna/d/old.wav", "clean", True)
    assert old.etag == store.objects["users/anna/d/old.wav"].etag
    assert (new.key, new.state, new.etag) == ("users/anna/d/new.wav", "dirty", None)
    assert receipts.locate("d").is_dir
    unknown = receipts.locate("d/a/b.wav")
    assert (unknown.key, unknown.known) == ("users/anna/d/a/b.wav", False)
    with pytest.raises(NotADirectory, match=r"d/old\.wav"):
        receipts.locate("d/old.wav/x")
    assert len(store.calls) == before
    engine.close(opened)


def test_a_directory_is_located_by_the_spelling_of_the_bucket(make: MakeEngine, store: MemoryStore) -> None:
    store.tells_spellings_apart = True
    store.set("cafe\u0301/a.wav", b"a")
    engine = make()
    engine.listdir("caf\u00e9")
    assert engine.fs.receipts.locate("caf\u00e9/a.wav").key == "cafe\u0301/a.wav"


def test_a_receipt_for_what_the_bucket_holds(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.mkdir("d")
    for name in ("a", "b"):
        engine.write(f"d/{name}", name.encode())
    engine.drain()
    for paths in (["d"], ["d/a", "d/b"], []):
        receipt = engine.fs.receipts.check(paths)
        assert (receipt.checked, receipt.differing, receipt.changing) == (2, (), ())
    with pytest.raises(NotFound):
        engine.fs.receipts.check(["d/none"])


@pytest.mark.parametrize("named", ["d", "d/a"])
def test_what_another_host_made_of_it_is_no_receipt(make: MakeEngine, store: MemoryStore, named: str) -> None:
    engine = make(freshness_s=3600.0)
    engine.mkdir("d")
    engine.write("d/a", b"mine")
    engine.drain()
    store.set("d/a", b"theirs")
    (found,) = engine.fs.receipts.check([named]).differing
    assert found[0] == "d/a"
    assert "another version" in found[1]
    store.remove("d/a")
    (found,) = engine.fs.receipts.check([named]).differing
    assert "no object" in found[1]


def test_what_is_open_or_waits_is_not_compared(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("a", b"first")
    engine.drain()
    opened = engine.open("a", os.O_WRONLY)
    assert engine.fs.receipts.check(["a"]).changing == ("a",)
    engine.close(opened)
    engine.write("b", b"waits")
    assert engine.fs.receipts.check(["b"]).changing == ("b",)


def test_a_file_that_stays_here_has_no_receipt(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("x.db-wal", b"log")
    engine.write("x.db", b"rows")
    engine.drain()
    assert engine.fs.receipts.locate("x.db-wal").state == "local"
    with pytest.raises(InvalidArgument, match="stays on this host"):
        engine.fs.receipts.check(["x.db-wal"])
    assert engine.fs.receipts.check([]).checked == 1
