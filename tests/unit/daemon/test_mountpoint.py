"""Mount point: what is refused before a mount, and who keeps one busy."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from r2fs.daemon import mountpoint
from r2fs.daemon.client import Daemon
from r2fs.daemon.prober import Prober
from r2fs.drivers import kmount
from r2fs.drivers.kmount import Mounted
from r2fs.model.errors import AlreadyMounted, MountPointBad, MountPointStale, SettingsError
from r2fs.model.settings import Bucket, Settings


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(mountpoint, "check_fuse", lambda allow_other, helper: None)
    (tmp_path / "mnt").mkdir()
    return Settings(
        bucket=Bucket("file", "/srv/b"),
        cache_dir=tmp_path / "cache",
        state_dir=tmp_path / "state",
        run_dir=tmp_path / "run",
    )


def test_an_empty_directory(settings, tmp_path):
    (tmp_path / "link").symlink_to("mnt")
    assert mountpoint.check(tmp_path / "link", settings) == tmp_path / "mnt"


def test_what_is_no_place_for_a_mount(settings, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for name, words in (("none", "does not exist"), ("file", "not a directory"), ("full", "not empty")):
        with pytest.raises(MountPointBad, match=words):
            mountpoint.check(tmp_path / name, settings)


@pytest.mark.parametrize("name", ["cache_dir", "state_dir", "run_dir"])
def test_our_own_directories_may_not_lie_in_the_mount(settings, tmp_path, name):
    inside = replace(settings, **{name: tmp_path / "mnt" / "x"})
    with pytest.raises(SettingsError, match=f"{name} .* lies in the mount point"):
        mountpoint.check(tmp_path / "mnt", inside)


def test_a_mount_of_ours_is_told_with_its_process(settings, tmp_path, monkeypatch):
    there = Mounted(str(tmp_path / "mnt"), "0:99", "fuse.r2fs", "r2://takes")
    monkeypatch.setattr(kmount, "mounted_at", lambda path: there)
    daemon = Daemon(4711, there.path, "", "", tmp_path)
    with pytest.raises(AlreadyMounted, match=r"r2://takes, process 4711.*r2fs umount"):
        mountpoint.check(tmp_path / "mnt", settings, [daemon])


def test_a_stale_mount_of_ours_is_taken_away(settings, tmp_path, monkeypatch):
    stale = iter([True, True, False])
    taken = []
    monkeypatch.setattr(mountpoint, "is_stale", lambda path: next(stale))
    there = Mounted(str(tmp_path / "mnt"), "0:99", "fuse.r2fs", "r2://takes")
    answers = iter([there, there])
    monkeypatch.setattr(kmount, "mounted_at", lambda path: next(answers, None))
    monkeypatch.setattr(kmount, "unmount", lambda path, lazy: taken.append((path, lazy)))
    mountpoint.check(tmp_path / "mnt", settings)
    assert taken == [(str(tmp_path / "mnt"), True)] * 2


def test_a_stale_mount_of_others_is_told(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(mountpoint, "is_stale", lambda path: True)
    there = Mounted(str(tmp_path / "mnt"), "0:99", "fuse.s3fs", "s3fs")
    monkeypatch.setattr(kmount, "mounted_at", lambda path: there)
    with pytest.raises(MountPointStale, match=r"s3fs \(fuse.s3fs\).*umount -l"):
        mountpoint.check(tmp_path / "mnt", settings)


def test_who_uses_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.chdir(tmp_path)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        deadline = 1000
        while not (found := mountpoint.users(tmp_path)) and deadline:
            deadline -= 1
        assert len(found) == 1
        assert found[0].endswith(f" ({child})")
        assert mountpoint.users(tmp_path / "other") == []
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_a_directory_answers(tmp_path):
    assert not mountpoint.is_stale(tmp_path)
    assert not mountpoint.is_ours(tmp_path)
    prober = Prober(tmp_path)
    try:
        assert prober.answers()
        assert prober.answers()
    finally:
        prober.close()
