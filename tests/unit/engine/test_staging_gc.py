"""What a power cut takes back must find its bytes: the order of commits and files. tests/power has the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r2fs.disk.journal.journal import Journal
from r2fs.disk.staging import MOVE_NS
from r2fs.model.records import Opened
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore
from tests.support.power import IN_PARTS, Power, Stop, stop_at, without_background


class Barriers:
    """What the rows said when the disk was waited for last: what a power cut leaves."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self._journal, self._plain = journal, journal.barrier
        self.synced: dict[str, bool] = {}
        self.note()
        monkeypatch.setattr(journal, "barrier", self.barrier)

    def barrier(self) -> None:
        self.note()
        self._plain()

    def note(self) -> None:
        self.synced = {str(row.key): row.synced for row in self._journal.read().inodes}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path, MemoryStore(), threads=False)


def staged(engine: Engine) -> set[str]:
    return {path.name for path in engine.staged_files()}


def send(engine: Engine) -> None:
    engine.run_due()


def write_synced(engine: Engine, path: str, data: bytes, flags: int = os.O_RDWR | os.O_CREAT) -> Opened:
    opened = engine.open(path, flags)
    engine.fs.write(engine.caller, opened.handle, 0, data)
    engine.fs.fsync(engine.caller, opened.handle, False)
    return opened


def row_synced(engine: Engine, key: str) -> bool:
    return {str(row.key): row.synced for row in engine.journal.read().inodes}[key]


def test_a_file_that_was_sent_stays_in_staging_until_the_disk_knows(engine: Engine) -> None:
    engine.write("take.wav", b"sent")
    (name,) = staged(engine)
    send(engine)
    assert staged(engine) == {name} == engine.staging_garbage()
    assert engine.read("take.wav") == b"sent"
    engine.sweep_staging()
    assert not staged(engine)
    assert not engine.journal.read().staging_gc
    assert engine.read("take.wav") == b"sent"


def test_a_file_that_was_replaced_stays_until_the_disk_knows(engine: Engine) -> None:
    engine.close(write_synced(engine, "take.wav", b"old"))
    (old,) = staged(engine)
    engine.write("take.wav.tmp", b"new")
    engine.rename("take.wav.tmp", "take.wav")
    assert (engine.core.staging.data_dir / old).read_bytes() == b"old"
    engine.sweep_staging()
    assert old not in staged(engine)
    assert engine.read("take.wav") == b"new"


def test_after_kill_9_what_was_leaving_leaves(engine: Engine, tmp_path: Path) -> None:
    engine.write("take.wav", b"sent")
    send(engine)
    engine.kill()
    after = Engine(tmp_path, engine.store, threads=False)
    assert after.staging_garbage() == staged(after) != set()
    after.sweep_staging()
    assert not staged(after)


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("by", ["open", "truncate", "open and cut"])
def test_that_bytes_are_synced_is_taken_back_before_they_change(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, sent: bool, by: str
) -> None:
    engine.close(write_synced(engine, "take.wav", b"synced"))
    assert row_synced(engine, "take.wav")
    disk = Barriers(engine.journal, monkeypatch)
    assert disk.synced == {"take.wav": True}
    if sent:
        send(engine)
    if by == "truncate":
        engine.truncate("take.wav", 3)
    else:
        engine.open("take.wav", os.O_RDWR | (os.O_TRUNC if by == "open and cut" else 0))
    assert disk.synced.get("take.wav", False) is False


def test_opened_for_writing_and_not_written_is_as_synced_as_before(engine: Engine) -> None:
    engine.close(write_synced(engine, "take.wav", b"synced"))
    engine.close(engine.open("take.wav", os.O_RDWR))
    assert row_synced(engine, "take.wav")


def test_what_is_written_after_the_last_fsync_is_not_synced(engine: Engine) -> None:
    opened = write_synced(engine, "take.wav", b"synced")
    engine.fs.write(engine.caller, opened.handle, 0, b"not")
    engine.close(opened)
    assert not row_synced(engine, "take.wav")
    opened = engine.open("take.wav")
    engine.fs.fsync(engine.caller, opened.handle, False)
    assert row_synced(engine, "take.wav")


def test_leaving_does_not_make_what_was_synced_look_written(engine: Engine) -> None:
    engine.write("take.wav", b"sent")
    send(engine)
    opened = write_synced(engine, "take.wav", b"anew", os.O_RDWR)
    engine.sweep_staging()
    engine.close(opened)
    assert row_synced(engine, "take.wav")


# ------------------------------------------------------------------ killed between the file and its row
def killed_while_it_opens(engine: Engine, point: str) -> None:
    """A program opens a clean file for writing, and gets no answer."""
    stop_at(engine, point)
    engine.commit_point = engine.crash_point
    with pytest.raises(Stop):
        engine.open("large.wav", os.O_RDWR)
    engine.crash_point = engine.commit_point = lambda name: None
    engine.kill()


@pytest.mark.parametrize("point", ["staged", "commit"])
@pytest.mark.parametrize("here", ["all", "some", "none"])
def test_what_nobody_has_written_to_is_removed_at_the_next_start(
    make: MakeEngine, large: bytes, point: str, here: str
) -> None:
    """It was set aside for a person: bytes of the bucket, or zeros where they had not come yet."""
    engine = without_background(make(threads=False, **IN_PARTS))
    if here != "none":
        opened = engine.open("large.wav")
        engine.fs.read(engine.caller, opened.handle, 0, len(large) if here == "all" else 1000)
        engine.close(opened)
    killed_while_it_opens(engine, point)
    (left,) = (path for path in engine.staged_files() if path.stat().st_size)
    after = make(**IN_PARTS)
    assert not left.exists()
    assert not after.core.staging.orphan_dir.exists()
    assert after.read("large.wav") == large


@pytest.mark.expect_warnings("was set aside as")
@pytest.mark.parametrize("but", ["written", "mtime set back", "power cut"])
def test_what_somebody_may_have_written_to_is_set_aside(
    make: MakeEngine, large: bytes, power: Power, but: str
) -> None:
    """A row that is lost, with a journal that a person has put back, leaves the only copy."""
    engine = without_background(make(threads=False, **IN_PARTS))
    assert engine.read("large.wav") == large
    killed_while_it_opens(engine, "commit")
    (left,) = (path for path in engine.staged_files() if path.stat().st_size)
    if but != "power cut":
        before = left.stat()
        ino, random, made_ns, *marks = left.name.split("-")  # moved there some time ago
        left = left.rename(left.with_name("-".join([ino, random, str(int(made_ns) - MOVE_NS), *marks])))
        with left.open("r+b") as file:
            file.write(b"HEAD")
        if but == "mtime set back":
            os.utime(left, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        power.cut(engine, names=False)
    bytes_left = left.read_bytes()
    after = make(**IN_PARTS)
    (aside,) = after.core.staging.orphan_dir.iterdir()
    assert aside.read_bytes() == bytes_left
    assert after.read("large.wav") == large


@pytest.mark.expect_warnings("was set aside as", "it begins anew")
def test_with_a_journal_that_begins_anew_nothing_counts_as_unwritten(
    make: MakeEngine, large: bytes, tmp_path: Path
) -> None:
    """An editor of tags is done within milliseconds of its open, and sets the mtime back: the row alone told of it."""
    engine = without_background(make(threads=False, **IN_PARTS))
    assert engine.read("large.wav") == large
    opened = engine.open("large.wav", os.O_RDWR)
    (name,) = staged(engine)
    path = engine.core.staging.data_dir / name
    before = path.stat()
    engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    engine.kill()
    (database,) = tmp_path.rglob("journal.db")
    database.write_bytes(b"no database" * 1000)
    after = make(**IN_PARTS)
    (aside,) = after.core.staging.orphan_dir.iterdir()
    assert aside.read_bytes() == b"HEAD" + large[4:]
