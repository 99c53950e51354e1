"""The session's log: what a successor reads of it, whenever its writer was killed."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2fs.disk import sessionlog
from r2fs.disk.sessionlog import CHUNK, HANDLE_LINE, NO_HANDLE_LINE, SessionLog, _line, read
from r2fs.model.records import Inheritance, KnownHandle, KnownNode

NODE = KnownNode(5, 1, "täke\n.wav", "file", ("a/täke", "etag", 7), 1, 2, None, 0, None, True, False)
HANDLE = KnownHandle(2**60 + 1, 2**60 + 2, 5, os.O_RDWR | os.O_APPEND, 40, 3, (64, 99))


@pytest.mark.parametrize("name", ["a.wav", 'q"uote\\', "täke\n", "\udcff"])
@pytest.mark.parametrize("base", [None, ("a/täke", "etag", 7)])
@pytest.mark.parametrize("value", [None, 0, 2**40])
def test_the_line_of_a_node_is_json(name: str, base: tuple[str, str, int] | None, value: int | None):
    for known, mtime_known in ((True, False), (False, True)):
        node = KnownNode(5, 1, name, "file", base, -1, 2, value, value, value, known, mtime_known, 9, value)
        assert sessionlog._node_line(node) == _line(sessionlog.NODE, *node)


@pytest.mark.expect_warnings("cannot be read")
def test_a_log_that_is_nobodys_is_not_believed(tmp_path: Path):
    log = SessionLog.create(tmp_path / "log")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    log.node(NODE)
    assert read(tmp_path / "log") is None, "nobody said whose session it is"


def test_the_last_word_counts(tmp_path: Path):
    log = SessionLog.create(tmp_path / "log")
    log.state("one")
    for ino in (5, 6, 7):
        log.node(NODE._replace(ino=ino))
    log.handle(HANDLE)
    log.handle(HANDLE._replace(fh=9, flags=os.O_RDONLY))
    log.node(NODE._replace(name="other", parent=0))
    log.forget_node(6)
    log.forget_handle(9)
    log.state("two")
    state, left = read(tmp_path / "log") or ("", Inheritance({}, {}))
    assert state == "two"
    assert left.nodes == {7: NODE._replace(ino=7), 5: NODE._replace(name="other", parent=0)}
    assert list(left.nodes) == [7, 5], "who was told of last has the name"
    assert left.handles == {HANDLE.fh: HANDLE}
    assert left.writers == {5}


def test_it_grows_and_is_tidied_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessionlog, "LARGE", 2 * CHUNK)
    path = tmp_path / "log"
    log = SessionLog.create(path)
    log.state("s")
    for number in range(10_000):
        log.handle(HANDLE._replace(fh=number))
        if number >= 10:
            log.forget_handle(number - 10)
    assert path.stat().st_size > 2 * CHUNK
    before = read(path)
    log.tidy()
    assert path.stat().st_size <= 2 * CHUNK
    assert read(path) == before
    log.node(NODE)
    after = read(path)
    assert after is not None
    assert after[1].nodes == {5: NODE}
    assert len(after[1].handles) == 10
    log.remove()
    assert not path.exists()
    log.node(NODE)
    log.tidy()


def test_a_successor_begins_with_what_counts(tmp_path: Path):
    path = tmp_path / "log"
    log = SessionLog.create(path)
    log.state("s")
    log.node(NODE)
    log.handle(HANDLE)
    log.close()
    state, left = read(path) or ("", Inheritance({}, {}))
    later = SessionLog.go_on(path, state, left)
    later.forget_handle(HANDLE.fh)
    assert read(path) == ("s", Inheritance({5: NODE}, {}))


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_record_that_was_cut_off_does_not_count(tmp_path_factory: pytest.TempPathFactory, cut: int):
    """Killed between the bytes of a record and its first one."""
    path = tmp_path_factory.mktemp("cut") / "log"
    log = SessionLog.create(path)
    log.state("s")
    log.node(NODE)
    end = len(path.read_bytes().rstrip(b"\0"))
    log.handle(HANDLE)
    log.close()
    with path.open("r+b") as file:
        file.seek(end)
        torn = bytearray(file.read(cut))
        if torn:
            torn[0] = 0
        file.seek(end)
        file.write(torn)
    found = read(path)
    assert found is not None
    assert found[1].nodes == {5: NODE}
    assert set(found[1].handles) <= {HANDLE.fh}


@pytest.mark.expect_warnings("no daemon can take this mount over")
def test_a_full_disk_ends_take_over_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = SessionLog.create(tmp_path / "log")

    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(10_000):
        log.handle(HANDLE._replace(fh=number))
    assert not log.usable
    assert not (tmp_path / "log").exists()


@pytest.mark.expect_warnings("cannot be read")
def test_another_programs_file_is_not_believed(tmp_path: Path):
    assert read(tmp_path / "none") is None
    (tmp_path / "other").write_bytes(b"\x01[1,2\n")
    assert read(tmp_path / "other") is None


WRITER = """
import sys
from pathlib import Path
from r2fs.disk.sessionlog import SessionLog
from r2fs.model.records import KnownHandle
log = SessionLog.create(Path(sys.argv[1]))
log.state("s")
number = 0
while True:
    number += 1
    log.handle(KnownHandle(number, number, 5, 2, number, 3, (64, 99)))
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_told(tmp_path: Path, repo_root: Path):
    writer = Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "log")], cwd=repo_root, stdout=PIPE, text=True
    )
    assert writer.stdout is not None
    for _ in range(3000):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    said = writer.communicate(timeout=60)[0].split("\n")
    last = int(said[-2]) if len(said) > 1 and said[-2] else 3000  # the last line may be cut
    found = read(tmp_path / "log")
    assert found is not None
    assert set(range(1, last + 1)) <= set(found[1].handles)


def test_lines_that_are_written_often_are_those_of_the_encoder():
    assert HANDLE_LINE % (*HANDLE[:-1], *HANDLE.file) == _line("h", *HANDLE)
    assert NO_HANDLE_LINE % HANDLE.fh == _line("h", HANDLE.fh)
