"""Staging: names that clash with none, and directories that go only when they are empty."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from r2fs.disk.sparse_file import SparseFile
from r2fs.disk.staging import Staging
from r2fs.model.errors import LocalError, NoSpace


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    staging = Staging(tmp_path / "staging")
    staging.make()
    return staging


def linked(staging: Staging, ino: int, data: bytes) -> tuple[Path, tuple[int, int]]:
    path = staging.link_path(ino)
    path.write_bytes(data)
    found = path.stat()
    return path, (found.st_dev, found.st_ino)


def test_a_new_file_is_empty_complete_and_of_now(staging):
    staging.spares._files = [staging.spares._make()]
    os.utime(staging.spares._files[0][0], (1, 1))
    file = staging.create()
    assert (file.complete, file.size, staging.holds(file.path)) == (True, 0, True)
    assert staging.stat(file.path.name).st_mtime > 1
    file.close()


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, NoSpace), (errno.EIO, LocalError)])
def test_a_disk_that_fails_is_one_of_our_errors(staging, monkeypatch, number, raised):
    def refuse() -> tuple[Path, int]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(staging.spares, "_make", refuse)
    with pytest.raises(raised):
        staging.create()


def test_a_file_moves_from_open_to_data_and_keeps_its_bytes(staging):
    path, _ = linked(staging, 5, b"take")
    file = SparseFile.adopt(path, 4, None)
    name = staging.adopt(file, 5)
    assert name.startswith("5-")
    assert staging.path(name).read_bytes() == file.read(0, 4) == b"take"
    assert not path.exists()
    assert list(staging.scan()) == [(name, 4)]
    staging.set_times(name, 1_000, 2_000)
    assert staging.stat(name).st_mtime_ns == 2_000
    staging.remove(name)
    staging.remove(name)
    assert list(staging.scan()) == []
    file.close()


def test_two_daemons_make_different_names(tmp_path):
    """After a take-over links of the daemon before are still in open/."""
    one, two = Staging(tmp_path), Staging(tmp_path)
    assert len({staging.link_path(5) for staging in (one, two) for _ in range(100)}) == 200


def test_links_of_files_that_are_still_open_stay(staging):
    kept, file = linked(staging, 1, b"a")
    linked(staging, 2, b"b")
    assert staging.links()[file] == kept
    staging.clear_links({file, (0, 0)})
    assert list(staging.links().values()) == [kept]
    staging.unlink(kept)
    staging.unlink(kept)
    assert staging.links() == {}


def test_an_orphan_is_kept_and_the_directories_with_it(staging):
    assert staging.is_empty()
    staging.path("9-x").write_bytes(b"unsent")
    assert not staging.is_empty()
    path = staging.set_aside("9-x")
    assert [(found, stat.st_size) for found, stat in staging.orphans()] == [(path, 6)]
    assert not staging.is_empty()
    with pytest.raises(OSError, match="not empty"):
        staging.remove_directories()
    assert path.read_bytes() == b"unsent"
    path.unlink()
    staging.remove_directories()
    staging.remove_directories()
    assert not staging.directory.exists()


def test_the_directories_are_made_once_and_nothing_is_left_beside(staging):
    staging.path("kept").write_bytes(b"")
    staging.make()
    assert sorted(os.listdir(staging.directory)) == ["data", "open"]
    assert os.listdir(staging.data_dir) == ["kept"]
    assert staging.open_dir.stat().st_mode & 0o777 == 0o700


def test_a_link_that_a_person_has_made_stays(tmp_path):
    (tmp_path / "staging").mkdir(mode=0o700)
    (tmp_path / "staging" / "open").symlink_to(tmp_path / "elsewhere")
    Staging(tmp_path / "staging").make()
    assert (tmp_path / "staging" / "open").is_symlink()
    assert (tmp_path / "elsewhere").is_dir()
