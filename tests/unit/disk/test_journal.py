"""The journal on a disk that is full or damaged: what is carried out again, and what is set aside."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from r2fs.disk.journal.journal import GARBAGE_AT_ONCE, Journal
from r2fs.disk.journal.schema import VERSION
from r2fs.disk.reserve import DiskReserve
from r2fs.model.errors import LocalError, NoSpace, StateDamaged, StateLocked
from r2fs.model.records import Kind, MultipartState, Part, PendingDelete, PendingInode, Proof


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "state")
    yield journal
    journal.close()


def row(ino: int, key: str, staged: str | None = None) -> PendingInode:
    return PendingInode(
        ino=ino, key=key, kind=Kind.FILE, state="queued", before=None, seq=ino, mode=None, uid=None, gid=None,
        mtime_ns=0, extra={}, content_type=None, base=None, expected_etag=None, changed=True, staged=staged, size=1,
        own=None, base_limit=0, proof=None, closed_at_s=1.0, boot="boot", synced=False, reason=None,
        conflict_of=None, target=None, st_ino=None,
    )  # fmt: skip


def test_an_inode_takes_its_upload_in_parts_with_it(tmp_path: Path) -> None:
    upload = MultipartState("upload", 1, "a", "attempt", 5, Proof(1, 2, 3), (Part(1, "etag", 5),))
    journal = Journal.open(tmp_path / "state")
    journal.put_inode(row(1, "a"))
    journal.put_multipart(upload)
    journal.put_part(1, upload.parts[0])
    journal.close()
    journal = Journal.open(tmp_path / "state")
    assert journal.multipart(1) == upload
    with journal.transaction:
        journal.drop_inode(1)
    assert journal.multipart(1) is None
    journal.close()
    with sqlite3.connect(tmp_path / "state/journal.db") as database:
        assert database.execute("SELECT count(*) FROM multipart").fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM part").fetchone() == (0,)
    database.close()


class Full:
    """A connection whose disk is full: the statements that `full` names fail as SQLite's do."""

    def __init__(self, inner: sqlite3.Connection, *full: str) -> None:
        self.inner = inner
        self.full = list(full)
        self.code = sqlite3.SQLITE_FULL

    @property
    def in_transaction(self) -> bool:
        return self.inner.in_transaction

    def execute(self, sql: str, values: tuple[object, ...] = ()) -> Any:
        if self.full and sql.startswith(self.full[0]):
            del self.full[0]
            if self.inner.in_transaction:
                self.inner.execute("ROLLBACK")  # as SQLite does, when a commit finds no room
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = self.code
            raise error
        return self.inner.execute(sql, values)

    def close(self) -> None:
        self.inner.close()


# ------------------------------------------------------------------ a full disk
@pytest.mark.parametrize("fails", [["COMMIT"], ["INSERT OR REPLACE INTO pending_delete"], ["BEGIN"]])
@pytest.mark.expect_warnings("kept in reserve")
def test_on_a_full_disk_the_transaction_is_carried_out_again(journal: Journal, fails: list[str]):
    assert journal.reserve.held
    journal._database._connection = Full(journal._database._connection, *fails)  # type: ignore[assignment]
    with journal.transaction:
        journal.put_inode(row(1, "a"))
        journal.put_delete(PendingDelete(2, "b", "e", None, None))
        journal.put_inode(row(1, "c"))
    rows = journal.read()
    assert [inode.key for inode in rows.inodes] == ["c"]
    assert [delete.key for delete in rows.deletes] == ["b"]
    assert not journal.reserve.held
    assert not journal.reserve.path.exists()


@pytest.mark.expect_warnings("kept in reserve")
def test_on_a_full_disk_a_single_statement_is_carried_out_again(journal: Journal):
    journal._database._connection = Full(journal._database._connection, "INSERT")  # type: ignore[assignment]
    journal.put_inode(row(1, "a"))
    assert [inode.key for inode in journal.read().inodes] == ["a"]
    assert not journal.reserve.held


@pytest.mark.expect_warnings("kept in reserve")
@pytest.mark.parametrize(("fails", "rows"), [("COMMIT", 2), ("BEGIN", 2), ("INSERT", 2), ("INSERT", 1)])
def test_without_reserve_nothing_is_changed(journal: Journal, fails: str, rows: int):
    journal.put_inode(row(1, "a"))
    undone: list[int] = []
    journal._database._connection = Full(journal._database._connection, fails, fails, fails)  # type: ignore[assignment]
    for ino in (10, 20):
        with pytest.raises(NoSpace), journal.transaction:
            journal.on_rollback(lambda ino=ino: undone.append(ino))  # type: ignore[misc]
            for number in range(rows):
                journal.put_inode(row(ino + number, "b"))
        assert not journal.reserve.held
    assert undone == [10, 20]
    assert [inode.key for inode in journal.read().inodes] == ["a"]
    journal.put_inode(row(4, "d"))
    assert [inode.key for inode in journal.read().inodes] == ["a", "d"]


def test_another_failure_leaves_the_reserve_alone(journal: Journal):
    full = Full(journal._database._connection, "INSERT")
    full.code = sqlite3.SQLITE_IOERR
    journal._database._connection = full  # type: ignore[assignment]
    with pytest.raises(LocalError, match="cannot be used"), journal.transaction:
        journal.put_inode(row(1, "a"))
    assert journal.reserve.held
    assert journal.read().inodes == ()


def test_a_failed_first_statement_is_not_forgotten(journal: Journal):
    """It fails with the second one; a caller that goes on after that commits nothing."""
    full = Full(journal._database._connection, "BEGIN")
    full.code = sqlite3.SQLITE_IOERR
    journal._database._connection = full  # type: ignore[assignment]
    with pytest.raises(LocalError), journal.transaction:
        journal.put_inode(row(1, "a"))
        with suppress(LocalError):
            journal.put_inode(row(2, "b"))
    assert journal.read().inodes == ()


def test_a_transaction_sees_its_own_statements(journal: Journal):
    with suppress(ZeroDivisionError), journal.transaction:
        journal.put_inode(row(1, "a"))
        assert [inode.key for inode in journal.read().inodes] == ["a"]
        raise ZeroDivisionError
    assert journal.read().inodes == ()


def test_a_single_change_is_one_statement(journal: Journal):
    executed: list[str] = []
    journal._database._connection.set_trace_callback(executed.append)
    with journal.transaction:
        journal.put_inode(row(1, "a"))
    with journal.transaction:
        pass
    assert [sql.partition(" ")[0] for sql in executed] == ["INSERT"]


def test_all_effects_of_a_commit_are_carried_out_in_order(journal: Journal):
    done: list[str] = []

    def fail() -> None:
        done.append("fails")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), journal.transaction:
        journal.put_inode(row(1, "a"))
        for effect in (lambda: done.append("first"), fail, lambda: done.append("last")):
            journal.on_commit(effect)
        assert not done
    assert done == ["first", "fails", "last"]
    assert [inode.key for inode in journal.read().inodes] == ["a"]


def test_the_reserve_occupies_its_room(tmp_path: Path):
    reserve = DiskReserve(tmp_path / "reserve")
    assert reserve.held == 0
    assert reserve.hold()
    assert reserve.hold(), "held already"
    found = reserve.path.stat()
    assert reserve.held == reserve.size == found.st_size <= found.st_blocks * 512
    assert DiskReserve(reserve.path).held == reserve.size, "an earlier daemon's"
    assert reserve.give_up()
    assert not reserve.give_up()
    assert not reserve.path.exists()
    os.truncate(_touched(reserve.path), reserve.size)
    assert DiskReserve(reserve.path).held == 0, "holes hold nothing"


def _touched(path: Path) -> Path:
    path.touch()
    return path


# ------------------------------------------------------------------ damage
def filled(state: Path, rows: int = 400) -> None:
    """Enough for several pages, all of them in the database and none in the log."""
    journal = Journal.open(state)
    with journal.transaction:
        for ino in range(1, rows + 1):
            journal.put_inode(row(ino, f"takes/{ino:03}.wav", staged=f"{ino}-1-{ino}"))
    journal.close()


def damage(path: Path) -> None:
    """The middle of it becomes noise."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(range(256)) * (size // 1024))


@pytest.mark.expect_warnings("is damaged")
def test_a_damaged_database_is_set_aside_and_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    state = tmp_path / "state"
    filled(state)
    damage(state / "journal.db")
    damaged = (state / "journal.db").read_bytes()
    journal = Journal.open(state)
    try:
        assert journal.read().inodes == ()
        (aside,) = journal.aside().journals
        assert (state / aside).read_bytes() == damaged
        (journal.staging.orphan_dir).mkdir()
        (journal.staging.orphan_dir / "400-1-400").write_bytes(b"kept")
        (orphan,) = journal.aside().orphans
        assert (orphan.size, orphan.key) == (4, "takes/400.wav"), "what could be read still tells its name"
        assert "only up to the damage" in caplog.text, "and of the others is said why not"
    finally:
        journal.close()


@pytest.mark.expect_warnings("is damaged")
@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"SQLite format 3\0" + bytes(8176)])
def test_what_is_no_database_is_set_aside(tmp_path: Path, content: bytes):
    state = tmp_path / "state"
    filled(state)
    (state / "journal.db").write_bytes(content)
    journal = Journal.open(state)
    journal.put_inode(row(1, "new"))
    journal.close()
    again = Journal.open(state)
    assert [inode.key for inode in again.read().inodes] == ["new"]
    assert len(again.aside().journals) == 1
    again.close()


@pytest.mark.expect_warnings("without its database")
@pytest.mark.parametrize("empty", [False, True])
def test_a_log_without_its_database_is_kept(tmp_path: Path, empty: bool):
    state = tmp_path / "state"
    filled(state)
    (state / "journal.db").rename(tmp_path / "elsewhere")
    if empty:
        (state / "journal.db").touch()
    (state / "journal.db-wal").write_bytes(b"what nobody has checkpointed yet")
    journal = Journal.open(state)
    (aside,) = journal.aside().journals
    assert (state / aside).read_bytes() == b"what nobody has checkpointed yet"
    journal.close()


def test_two_wait_for_the_log_and_the_disk_fails_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel tells one of them: the other is not told "safe" before the log has begun anew."""
    state = tmp_path / "state"
    journal = Journal.open(state)
    journal.put_staging_garbage("a staged file")
    plain, at_it, go_on = os.fsync, threading.Event(), threading.Event()

    def fsync(fd: int) -> None:
        if at_it.is_set() or not os.readlink(f"/proc/self/fd/{fd}").endswith("-wal"):
            plain(fd)
            return
        at_it.set()
        assert go_on.wait(10)
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(os, "fsync", fsync)
    told = list[str]()

    def wait() -> None:
        try:
            journal.barrier()
            told.append("safe")
        except LocalError:
            told.append("failed")

    first, second = threading.Thread(target=wait), threading.Thread(target=wait)
    first.start()
    assert at_it.wait(10)
    second.start()
    second.join(0.2)
    assert not told
    go_on.set()
    first.join(10)
    second.join(10)
    assert told == ["failed", "safe"]
    assert not (state / "journal.db-wal").stat().st_size
    journal.close()


def test_a_barrier_is_shared_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those who come while one is at it share the next; where nothing is new, nobody waits for the disk."""
    journal = Journal.open(tmp_path / "state")
    journal.put_staging_garbage("a staged file")
    plain, syncs, at_it, go_on = os.fsync, list[int](), threading.Event(), threading.Event()

    def fsync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("-wal"):
            syncs.append(fd)
            at_it.set()
            assert go_on.wait(10)
        plain(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    first = threading.Thread(target=journal.barrier)
    first.start()
    assert at_it.wait(10)
    journal.put_staging_garbage("another")
    others = [threading.Thread(target=journal.barrier) for _ in range(5)]
    for other in others:
        other.start()
    go_on.set()
    for thread in (first, *others):
        thread.join(10)
    assert len(syncs) == 2
    journal.barrier()
    assert len(syncs) == 2
    journal.put_staging_garbage("a third")
    journal.barrier()
    assert len(syncs) == 3
    journal.close()


def test_after_a_failed_sync_the_log_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel tells once; then all goes to the database, and the log begins anew."""
    state = tmp_path / "state"
    journal = Journal.open(state)
    journal.put_staging_garbage("a staged file")
    plain, failed = os.fsync, iter([True])

    def fsync(fd: int) -> None:
        if next(failed, False):
            raise OSError(errno.EIO, "the disk failed")
        plain(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LocalError):
        journal.barrier()
    assert (state / "journal.db-wal").stat().st_size
    journal.barrier()
    assert not (state / "journal.db-wal").stat().st_size
    with sqlite3.connect(f"file:{state}/journal.db?immutable=1", uri=True) as database:
        assert database.execute("SELECT staged FROM staging_garbage").fetchall() == [("a staged file",)]
    journal.close()


@pytest.mark.parametrize(
    ("version", "whose"), [(VERSION + 1, "a newer r2fs"), (VERSION - 1, "an earlier r2fs")]
)
def test_a_journal_of_another_schema_is_refused_and_left_alone(tmp_path: Path, version: int, whose: str):
    state = tmp_path / "state"
    filled(state, 3)
    with sqlite3.connect(state / "journal.db") as database:
        database.execute("UPDATE fact SET value = ? WHERE name = 'schema'", (str(version),))
        database.execute("DROP TABLE part")  # as one that the other version does not have
    database.close()
    with pytest.raises(StateDamaged, match=whose):
        Journal.open(state)
    with sqlite3.connect(state / "journal.db") as database:
        assert database.execute("SELECT value FROM fact WHERE name = 'schema'").fetchone() == (str(version),)
        assert database.execute("SELECT count(*) FROM inode").fetchone() == (3,)
        assert not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'part'").fetchall()
    database.close()
    assert list(state.glob("*damaged*")) == []


# ------------------------------------------------------------------ two daemons
def test_a_second_daemon_is_refused_with_the_pid_of_the_first(tmp_path: Path, journal: Journal):
    with pytest.raises(StateLocked, match=f"in use by another r2fs \\(pid {os.getpid()}\\)"):
        Journal.open(tmp_path / "state")
    other = "import sys; from pathlib import Path; from r2fs.disk.journal.journal import Journal; "
    other += "Journal.open(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", other, str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "StateLocked" in done.stderr
    journal.put_inode(row(1, "still ours"))


def test_thousands_of_removed_files_are_forgotten_and_no_other(journal: Journal):
    names = [f"{number}-a" for number in range(2 * GARBAGE_AT_ONCE + 1)]
    for name in [*names, "kept"]:
        journal.put_staging_garbage(name)
    journal.drop_staging_garbage(names)
    journal.drop_staging_garbage([])
    assert journal.read().staging_gc == ("kept",)
