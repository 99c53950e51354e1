"""What a journal owes, read without a trace in it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from r2fs.disk.journal import summary as journal_reading
from r2fs.disk.journal.journal import Journal
from r2fs.disk.journal.summary import PendingSummary, summary
from r2fs.model.records import PendingDelete
from tests.unit.disk.test_journal import row


def filled(state: Path) -> Journal:
    journal = Journal.open(state)
    with journal.transaction:
        journal.put_inode(row(1, "a/x.wav", staged="f1"))
        journal.put_inode(row(2, "a/notes-wal", staged="f2"))  # stays on this host
        journal.put_delete(PendingDelete(3, "old", "e", None, None))
        journal.put_delete(PendingDelete(4, "late", None, None, 99.0))  # only looked for
    return journal


def every_byte(state: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(state.rglob("*"))
        if path.is_file()
    }


def test_a_closed_journal(tmp_path):
    filled(tmp_path / "state").close()
    before = every_byte(tmp_path / "state")
    assert summary(tmp_path / "state") == PendingSummary(files=1, bytes=1, deletes=1, oldest_at_s=1.0)
    assert every_byte(tmp_path / "state") == before


def test_a_journal_whose_daemon_was_killed_is_read_whole_and_left_as_it_is(tmp_path):
    journal = filled(tmp_path / "alive")
    # as kill -9 would leave it: all of it is in the log
    shutil.copytree(tmp_path / "alive", tmp_path / "state")
    journal.close()
    assert (tmp_path / "state" / "journal.db-wal").stat().st_size
    before = every_byte(tmp_path / "state")
    assert summary(tmp_path / "state") == PendingSummary(files=1, bytes=1, deletes=1, oldest_at_s=1.0)
    assert every_byte(tmp_path / "state") == before


def test_who_holds_the_lock_is_known_without_taking_it(tmp_path):
    journal = Journal.open(tmp_path / "state")
    assert journal_reading.holder(tmp_path / "state") == os.getpid()
    journal.close()
    assert journal_reading.holder(tmp_path / "state") is None
    assert journal_reading.holder(tmp_path / "nothing") is None
    Journal.open(tmp_path / "state").close()


def test_an_empty_journal_owes_nothing(tmp_path):
    Journal.open(tmp_path / "state").close()
    assert not summary(tmp_path / "state").anything


@pytest.mark.parametrize("content", [b"", b"this is no database" * 1000])
def test_one_that_cannot_be_read_says_so(tmp_path, content):
    (tmp_path / "journal.db").write_bytes(content)
    found = summary(tmp_path)
    assert found.error
    assert found.anything


# ------------------------------------------------------------------ a start that fails
def abandoned(journal: Journal) -> None:
    journal.abandon()
    journal.close()


def test_a_void_journal_that_this_start_made_goes_with_all_its_files(tmp_path):
    journal = Journal.open(tmp_path / "state")
    assert (tmp_path / "state" / "reserve").exists()
    abandoned(journal)
    assert list((tmp_path / "state").iterdir()) == []
    Journal.open(tmp_path / "state").close()


def test_one_that_was_there_before_or_holds_anything_stays(tmp_path):
    Journal.open(tmp_path / "before").close()
    abandoned(Journal.open(tmp_path / "before"))
    assert (tmp_path / "before" / "journal.db").exists()
    abandoned(filled(tmp_path / "rows"))
    assert summary(tmp_path / "rows").files == 1
    journal = Journal.open(tmp_path / "bytes")
    (journal.staging.data_dir / "f1").write_bytes(b"unsent")
    abandoned(journal)
    assert (tmp_path / "bytes" / "staging" / "data" / "f1").read_bytes() == b"unsent"
    assert (tmp_path / "bytes" / "journal.db").exists()


def test_a_damaged_journal_that_was_set_aside_keeps_the_new_one(tmp_path, caplog):
    caplog.set_level("CRITICAL")
    state = tmp_path / "state"
    Journal.open(state).close()
    (state / "journal.db").write_bytes(b"damage" * 2000)
    abandoned(Journal.open(state))
    assert list(state.glob("journal.db.damaged-*"))
    assert (state / "journal.db").exists()


def test_a_lock_whose_file_was_taken_away_meanwhile_is_none(tmp_path, monkeypatch):
    """Between open and flock another start, which fails, removes the file: two daemons must not have one state."""
    import fcntl

    from r2fs.disk.journal import state_directory

    state = tmp_path / "state"
    state.mkdir()
    real = fcntl.flock
    taken: list[int] = []

    def flock(fd: int, how: int) -> None:
        real(fd, how)
        if not taken:
            taken.append(os.fstat(fd).st_ino)
            (state / "lock").unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    fd = state_directory.lock_state(state)
    try:
        assert os.fstat(fd).st_ino == (state / "lock").stat().st_ino
        with pytest.raises(Exception, match="in use by another"):
            state_directory.lock_state(state)
    finally:
        os.close(fd)


def test_reading_knows_the_columns_that_there_are(tmp_path):
    """The schema may get more; those that are read stay."""
    Journal.open(tmp_path / "state").close()
    with sqlite3.connect(tmp_path / "state" / "journal.db") as db:
        db.execute(journal_reading._ROWS)
        db.execute(journal_reading._DELETES)
    db.close()
