"""Commands for many objects, without a mount, against R2's rules: how many requests, what fails, what a kill leaves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2fs.model.records import ObjectMeta
from tests.contract.test_bucket_commands import Commands
from tests.support.strict import StrictR2


@pytest.fixture
def r2() -> Iterator[StrictR2]:
    with StrictR2(write_interval_s=0.0) as server:
        yield server
    assert server.faults == []


@pytest.fixture
def r2fs(r2: StrictR2, tmp_path: Path) -> Commands:
    return Commands(r2.endpoint, tmp_path)


@pytest.fixture
def where(r2: StrictR2) -> str:
    return f"s3://{r2.endpoint.bucket}"


# ------------------------------------------------------------------ rm
def test_ten_thousand_objects_take_ten_lists_and_ten_deletes(
    r2: StrictR2, r2fs: Commands, where: str
) -> None:
    for n in range(10_000):
        r2.bucket.set(f"users/a/projects/p45/scenes/{n % 100}/audio/{n}.mp3", b"x" * 500)
    r2.bucket.set("users/a/projects/p456/output/a.mp4", b"kept")
    code, out, err = r2fs("rm", "-r", f"{where}/users/a/projects/p45")
    assert (code, out, err) == (0, "deleted 10000 objects (5.00 MB); 0 failed\n", "")
    assert r2.bucket.contents() == {"users/a/projects/p456/output/a.mp4": b"kept"}
    sent = {name: r2.requests[name] for name in ("list", "delete_many", "delete", "head")}
    assert sent == {"list": 10, "delete_many": 10, "delete": 0, "head": 1}


def test_s4_keys_that_end_in_a_slash_and_hold_bytes(r2: StrictR2, r2fs: Commands, where: str) -> None:
    for key in ("p/", "p/s/1/", "p/s/1/a.mp3", "p//b", "p"):
        r2.bucket.set(key, b"12345")
    assert r2fs("rm", f"{where}/p/")[:2] == (0, "deleted 1 object (5 B); 0 failed\n")
    assert len(r2.bucket.keys()) == 4
    code, out, _ = r2fs("rm", "-r", "--json", f"{where}/p/")
    assert (code, json.loads(out)["deleted_count"]) == (0, 3)
    assert r2.bucket.contents() == {"p": b"12345"}
    assert r2fs("rm", "-r", f"{where}/p")[1].startswith("deleted 1 object")


def test_s6_s8_what_failed_is_reported(r2: StrictR2, r2fs: Commands, where: str) -> None:
    for n in range(40):
        r2.bucket.set(f"p/{n:02}", b"x" * 1_000_000 if n == 39 else b"")
    r2.bucket.locked.update(f"p/{n:02}" for n in range(7))
    code, out, err = r2fs("rm", "-r", f"{where}/p/")
    assert code == 13
    assert out == "deleted 33 objects (1.00 MB); 7 failed\n"
    said = err.splitlines()
    assert len(said) == 6
    assert "p/00" in said[0]
    assert said[5] == "r2fs: and 2 more failed (--json lists more)"
    code, out, err = r2fs("rm", "-r", "--json", f"{where}/p/")
    report = json.loads(out)
    assert (code, report["deleted_count"], report["failed_count"], report["total_bytes"]) == (13, 0, 7, 0)
    assert [error["key"] for error in report["errors"]] == [f"p/{n:02}" for n in range(7)]
    r2.bucket.locked.clear()
    assert r2fs("rm", "-r", f"{where}/p/")[0] == 0
    assert r2.bucket.keys() == []
    code, out, err = r2fs("rm", "-r", f"{where}/p/")
    assert (code, err) == (0, f"r2fs: {where}/p/: nothing is there\n")


def test_s7_a_whole_bucket_needs_a_word_more(r2: StrictR2, r2fs: Commands, where: str) -> None:
    r2.bucket.set("a", b"1")
    code, out, err = r2fs("rm", "-r", where)
    assert (code, out) == (2, "")
    assert "--yes" in err
    assert r2fs("rm", "-r", where, "--dry-run")[:2] == (0, "would delete 1 object (1 B); 0 failed\n")
    assert r2.bucket.keys() == ["a"]
    assert r2fs("rm", "-r", where, "--yes")[0] == 0
    assert r2.bucket.keys() == []


def test_what_is_not_there_and_who_may_not(r2: StrictR2, r2fs: Commands, where: str) -> None:
    r2.bucket.set("d/a", b"1")
    code, _, err = r2fs("rm", f"{where}/d")
    assert code == 1
    assert "no such object" in err
    r2.there = False
    assert r2fs("rm", "-r", f"{where}/d")[0] == 5
    r2.there = True
    r2fs.environment["AWS_ACCESS_KEY_ID"] = "another"
    assert r2fs("rm", "-r", f"{where}/d")[0] == 4
    assert r2.bucket.keys() == ["d/a"]


def test_killed_in_the_middle_a_repeat_finishes(r2: StrictR2, r2fs: Commands, where: str) -> None:
    for n in range(5000):
        r2.bucket.set(f"p/{n}", b"whole")

    def slowly(name: str, key: str) -> None:
        if name == "delete_many":
            time.sleep(0.2)

    r2.bucket.after = slowly
    process = r2fs.start("rm", "-r", f"{where}/p")
    while len(r2.bucket.keys()) == 5000:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=30)
    assert set(r2.bucket.contents().values()) <= {b"whole"}
    assert r2fs("rm", "-r", f"{where}/p")[0] == 0
    assert r2.bucket.keys() == []


# ------------------------------------------------------------------ migrate
def test_a_thousand_keys_and_a_kill_in_the_middle(
    r2: StrictR2, r2fs: Commands, where: str, tmp_path: Path
) -> None:
    for n in range(1000):
        r2.bucket.store_version(f"old/{n}", b"%d" % n, ObjectMeta("audio/mpeg", {"n": str(n)}))
    (tmp_path / "map.csv").write_text("".join(f"old/{n},users/default/{n}.mp3\n" for n in range(1000)))
    words = ("migrate", where, "--map", tmp_path / "map.csv", "--json")
    process = r2fs.start(*words)
    while r2.requests["copy"] < 400:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=30)
    time.sleep(0.2)  # requests that the server had already
    before = r2.requests["copy"]
    code, out, _ = r2fs(*words)
    report = json.loads(out)
    assert (code, report["failed_count"]) == (0, 0)
    assert report["confirmed"] + report["confirmed_earlier"] == 1000
    assert r2.bucket.contents() == {f"users/default/{n}.mp3": b"%d" % n for n in range(1000)}
    assert r2.bucket.metadata("users/default/7.mp3")["n"] == "7"
    repeated = before - report["confirmed_earlier"]
    assert r2.requests["copy"] <= 1000 + repeated
    assert repeated <= 32


# ------------------------------------------------------------------ set
WAVE = b"RIFF\0\0\0\0WAVEfmt "


def test_t4_types_of_objects_that_a_worker_wrote(r2: StrictR2, r2fs: Commands, where: str) -> None:
    """Keys without a name's type, and a type that says nothing."""
    octets = "application/octet-stream"
    for key, data, kind in (
        ("results/3f2a", WAVE, octets),
        ("results/77ab", b"ID3\4", octets),
        ("results/text.json", b"{}", octets),
        ("results/told", WAVE, "audio/x-own"),
        ("results/riddle", b"\0\1\2", octets),
        ("results/sub/", b"", "application/x-directory"),
    ):
        r2.bucket.store_version(
            key, data, ObjectMeta(kind, {"who": "a-worker"}, {"cache-control": "no-cache"})
        )
    words = ("set", "-r", "--guess-type", f"{where}/results")
    assert r2fs(*words, "--dry-run")[:2] == (0, "would change 3 objects; 2 were as wanted; 0 failed\n")
    assert r2.requests["copy"] == 0
    assert r2fs(*words) == (0, "changed 3 objects; 2 were as wanted; 0 failed\n", "")
    assert {one.key: one.meta.content_type for one in r2.bucket.objects.values()} == {
        "results/3f2a": "audio/wav",
        "results/77ab": "audio/mpeg",
        "results/text.json": "application/json",
        "results/told": "audio/x-own",
        "results/riddle": octets,
        "results/sub/": "application/x-directory",
    }
    meta = r2.bucket.objects["results/3f2a"].meta
    assert (meta.metadata, meta.headers) == ({"who": "a-worker"}, {"cache-control": "no-cache"})
    assert r2.bucket.data("results/3f2a") == WAVE
    assert r2fs(*words)[1] == "changed 0 objects; 5 were as wanted; 0 failed\n"


def test_r12_r26_headers_are_set_and_removed(r2: StrictR2, r2fs: Commands, where: str) -> None:
    for n in range(30):
        r2.bucket.store_version(f"books/{n}.mp3", b"%d" % n, ObjectMeta("audio/mpeg", {"n": str(n)}))
    r2.bucket.locked.add("books/7.mp3")
    words = ("set", "-r", f"{where}/books", "--cache-control", "public, max-age=3600")
    code, out, err = r2fs(*words, "--content-disposition", 'attachment; filename="a.mp3"', "--json")
    report = json.loads(out)
    assert (code, report["changed_count"], report["failed_count"]) == (13, 29, 1), err
    assert report["errors"][0]["key"] == "books/7.mp3"
    assert r2.bucket.objects["books/3.mp3"].meta.headers == {
        "cache-control": "public, max-age=3600",
        "content-disposition": 'attachment; filename="a.mp3"',
    }
    assert r2.bucket.metadata("books/3.mp3") == {"n": "3"}
    r2.bucket.locked.clear()
    assert r2fs("set", "-r", f"{where}/books", "--content-disposition", "")[0] == 0
    assert r2.bucket.objects["books/3.mp3"].meta.headers == {"cache-control": "public, max-age=3600"}
    assert r2fs("set", f"{where}/books/3.mp3", "--content-type", "audio/mp4")[0] == 0
    assert r2.bucket.objects["books/3.mp3"].meta.content_type == "audio/mp4"
    code, _, err = r2fs("set", f"{where}/books/3.mp3", "--content-type", "mp4")
    assert code == 2
    assert "audio/wav is needed" in err


@pytest.mark.parametrize("answer", ["n", "y"])
def test_s7_a_person_is_asked(r2: StrictR2, r2fs: Commands, where: str, answer: str) -> None:
    r2.bucket.set("a", b"1")
    ours, theirs = os.openpty()
    try:
        process = r2fs.start("rm", "-r", where, stdin=theirs)
        os.write(ours, f"{answer}\n".encode())
        _, err = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert f"Delete all that is in {where}? [y/N]" in err
    assert (process.returncode, r2.bucket.keys()) == ((0, []) if answer == "y" else (130, ["a"]))
