"""Watching files: each way in which a settings file gets new content is noticed, and reading it is not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2fs.disk.watch import FileWatch

PATIENCE_S = 10.0
Watch = Callable[..., threading.Event]


@pytest.fixture
def watch() -> Iterator[Watch]:
    started: list[FileWatch] = []

    def _watch(*files: Path) -> threading.Event:
        changed = threading.Event()
        started.append(FileWatch(files, changed.set))
        started[-1].start()
        return changed

    yield _watch
    for one in started:
        one.stop()


def test_written_in_place(watch: Watch, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("a")
    changed = watch(path)
    path.write_text("b")
    assert changed.wait(PATIENCE_S)


def test_replaced_by_a_rename(watch: Watch, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("a")
    (tmp_path / "other").write_text("b")
    changed = watch(path)
    os.rename(tmp_path / "other", path)
    assert changed.wait(PATIENCE_S)


def test_made_and_removed(watch: Watch, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    changed = watch(path)
    path.write_text("a")
    assert changed.wait(PATIENCE_S)
    changed.clear()
    path.unlink()
    assert changed.wait(PATIENCE_S)


def test_the_target_of_a_link_is_written(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real"
    target.write_text("a")
    (tmp_path / "config.toml").symlink_to(target)
    changed = watch(tmp_path / "config.toml")
    target.write_text("b")
    assert changed.wait(PATIENCE_S)


def test_a_volume_of_kubernetes_is_exchanged(watch: Watch, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "config.toml").symlink_to("..data/config.toml")
    changed = watch(tmp_path / "config.toml")
    (tmp_path / "..new").symlink_to("two")
    os.rename(tmp_path / "..new", tmp_path / "..data")
    assert changed.wait(PATIENCE_S)


def test_reading_it_and_other_files_are_no_change(watch: Watch, tmp_path: Path) -> None:
    path, last = tmp_path / "config.toml", tmp_path / "last"
    path.write_text("a")
    changed = watch(path)
    marked = watch(last)
    path.read_text()
    (tmp_path / "config.toml.swp").write_text("x")
    last.write_text("x")
    assert marked.wait(PATIENCE_S)  # events come in their order: those before were looked at
    assert not changed.is_set()


def test_a_directory_that_is_not_there(watch: Watch, tmp_path: Path) -> None:
    assert not watch(tmp_path / "none" / "config.toml").is_set()
