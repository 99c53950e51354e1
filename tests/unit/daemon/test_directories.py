"""Directories: made, private, and staging where content can be linked."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from r2fs.daemon import directories
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.settings import Bucket, Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(
        bucket=Bucket("file", "/srv/b"),
        cache_dir=tmp_path / "cache" / "b-1",
        state_dir=tmp_path / "state" / "b-1",
        run_dir=tmp_path / "run",
    )


def modes(*paths: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in paths}


def test_they_are_made_for_their_owner_alone(settings):
    before = os.umask(0)
    try:
        ready = directories.prepare(settings)
    finally:
        os.umask(before)
    assert ready.staging is None
    assert ready.staging_dir == settings.state_dir / "staging"
    assert modes(settings.cache_dir, settings.state_dir, settings.run_dir) == {0o700}
    assert not list(settings.cache_dir.iterdir())
    assert not list(settings.state_dir.iterdir())


def test_a_start_that_fails_leaves_the_run_directory_to_another_that_is_about_to_use_it(settings, tmp_path):
    with pytest.raises(RuntimeError), directories.made_by_a_start(settings):
        directories.prepare(settings)
        raise RuntimeError
    assert sorted(tmp_path.iterdir()) == [settings.run_dir]


def test_ones_that_others_may_enter_are_closed(settings):
    settings.state_dir.mkdir(parents=True, mode=0o755)
    directories.prepare(settings)
    assert modes(settings.state_dir) == {0o700}


@pytest.mark.parametrize("what", ["cache", "state", "run"])
def test_one_that_cannot_be_made_is_named_with_its_flag(settings, tmp_path, what):
    from dataclasses import replace

    (tmp_path / "file").write_text("")
    wrong = replace(settings, **{f"{what}_dir": tmp_path / "file" / "x"})
    with pytest.raises(DirectoryUnusable, match=f"the {what} directory .* cannot be written .*--{what}-dir"):
        directories.prepare(wrong)


# ------------------------------------------------------------------ the cache on another file system
@pytest.fixture
def elsewhere(settings, monkeypatch):
    """Links between the cache's base and the state fail as between two file systems."""
    real = os.link

    def link(source, target, **given):
        on_cache = [".staging" in str(p) or "/cache" in str(p) for p in (source, target)]
        if on_cache[0] != on_cache[1]:
            raise OSError(18, "Invalid cross-device link")
        real(source, target, **given)

    monkeypatch.setattr(os, "link", link)
    return settings


def beside(settings: Settings) -> Path:
    return settings.cache_dir.parent.with_name("cache.staging") / settings.cache_dir.name


def test_staging_lies_beside_the_cache_and_is_recorded(elsewhere):
    ready = directories.prepare(elsewhere)
    assert ready.staging_dir == beside(elsewhere)
    recorded = elsewhere.state_dir / "staging"
    assert recorded.is_symlink()
    assert recorded.resolve() == ready.staging_dir
    assert modes(ready.staging_dir) == {0o700}
    assert directories.prepare(elsewhere).staging_dir == ready.staging_dir


def test_unsent_bytes_of_before_are_not_left_behind(elsewhere):
    data = elsewhere.state_dir / "staging" / "data"
    data.mkdir(parents=True)
    (data / "take").write_text("unsent")
    with pytest.raises(DirectoryUnusable, match=r"unsent files are in .*--cache-dir of before"):
        directories.prepare(elsewhere)
    assert (data / "take").read_text() == "unsent"


def test_an_empty_staging_moves(elsewhere):
    staging = elsewhere.state_dir / "staging"
    (staging / "data").mkdir(parents=True)
    (staging / "open").mkdir()
    (staging / "open" / "link").write_text("clean content")
    assert directories.prepare(elsewhere).staging_dir == beside(elsewhere)


def test_back_on_one_file_system(elsewhere, monkeypatch):
    directories.prepare(elsewhere)
    (beside(elsewhere) / "data").mkdir()
    monkeypatch.undo()
    monkeypatch.setattr(directories, "_linkable", lambda source, target: ".staging" not in str(target))
    assert directories.prepare(elsewhere).staging is None
    assert not (elsewhere.state_dir / "staging").exists()


def test_a_disk_that_is_not_there_is_told(elsewhere):
    staging = directories.prepare(elsewhere).staging_dir
    staging.rename(staging.with_name("gone"))
    with pytest.raises(
        DirectoryUnusable, match=r"unsent files are in .*, which does not exist: mount its disk"
    ):
        directories.prepare(elsewhere)


def test_a_file_system_without_links(settings, monkeypatch):
    def link(source, target, **given):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(DirectoryUnusable, match="no hard links"):
        directories.prepare(settings)
    assert not list(settings.cache_dir.iterdir())


def test_a_real_second_file_system(settings, tmp_path):
    from dataclasses import replace

    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "r2fs-test", disk], capture_output=True, timeout=30)
    if done.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        top = replace(settings, cache_dir=disk / "b-1")
        with pytest.raises(DirectoryUnusable, match="top of a file system"):
            directories.prepare(top)
        below = replace(settings, cache_dir=disk / "cache" / "b-1")
        assert directories.prepare(below).staging_dir == disk / "cache.staging" / "b-1"
    finally:
        subprocess.run(["umount", disk], check=True, timeout=30)


def test_v4_a_cache_in_a_checkout_needs_no_care(settings, tmp_path):
    """VoiceBeat's is `cache`, relative, in its git checkout: neither git nor a backup takes it, and both take the rest."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    directories.prepare(settings)
    directories.mark_cache(settings)
    directories.mark_cache(settings)
    (settings.cache_dir / "content").mkdir()
    (settings.cache_dir / "content" / "bytes").write_bytes(b"x")
    (tmp_path / "app.py").write_text("")
    left = subprocess.run(
        ["git", "-C", tmp_path, "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True
    ).stdout
    assert left == "?? app.py\n"
    names = subprocess.run(
        ["tar", "-c", "--exclude-caches-all", "-C", tmp_path, "."], check=True, capture_output=True
    ).stdout
    assert b"app.py" in names and b"content/bytes" not in names
    assert modes(*settings.cache_dir.glob("[C.]*")) == {0o600}
    assert not list(settings.state_dir.glob("[C.]*")), "unsent bytes are for the backup"


def test_a_cache_that_cannot_be_marked_is_no_failure(settings):
    directories.mark_cache(settings)
    assert not settings.cache_dir.exists()
