"""What is asked of the bucket before a mount."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from r2fs.daemon import starting
from r2fs.model import mount_record
from r2fs.model.errors import BadCredentials, BucketMissing, ClockSkewed, StoreError, Throttled, Unavailable
from tests.support.engine import settings_for


class Bucket:
    def __init__(self, error: StoreError | None) -> None:
        self._error = error

    def check(self) -> None:
        if self._error is not None:
            raise self._error


@pytest.fixture
def mounted_before(tmp_path: Path) -> None:
    state = settings_for(tmp_path).state_dir
    state.mkdir()
    (state / mount_record.NAME).write_text("{}")


def test_a_bucket_that_answers(tmp_path: Path) -> None:
    assert starting.answers(Bucket(None), settings_for(tmp_path))


def test_without_an_earlier_mount_no_answer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()  # made by hand, or by a start that failed
    with pytest.raises(Unavailable):
        starting.answers(Bucket(Unavailable("no answer")), settings_for(tmp_path))


@pytest.mark.usefixtures("mounted_before")
@pytest.mark.expect_warnings("mounted without the bucket")
@pytest.mark.parametrize("error", [Unavailable("no answer"), Throttled("busy")])
def test_after_an_earlier_mount_it_is_gone_on_with(tmp_path: Path, error: StoreError) -> None:
    assert not starting.answers(Bucket(error), settings_for(tmp_path))


@pytest.mark.usefixtures("mounted_before")
@pytest.mark.parametrize("error", [BadCredentials, BucketMissing, ClockSkewed])
def test_what_a_person_has_to_mend_is_told_all_the_same(tmp_path: Path, error: type[StoreError]) -> None:
    with pytest.raises(error):
        starting.answers(Bucket(error("wrong")), settings_for(tmp_path))


def test_the_heap_is_bounded_where_the_libc_can(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, int]] = []
    monkeypatch.setattr(
        starting.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda *values: called.append(values))
    )
    starting.bound_heap()
    assert (starting.M_ARENA_MAX, 2) in called
    monkeypatch.setattr(starting.ctypes, "CDLL", lambda name: SimpleNamespace())
    starting.bound_heap()
    assert len(called) == 3


HOLES = """
import sys
from r2fs.daemon import starting

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

starting.bound_heap()
blocks = [b"x" * 60_000 + str(number).encode() for number in range(400)]
del blocks[::2]
before = resident()
starting.trim_heap()
sys.exit(before - resident() < 8_000_000)
"""


def test_memory_between_blocks_in_use_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-c", HOLES], check=True, timeout=60)
    monkeypatch.setattr(starting.ctypes, "CDLL", lambda name: SimpleNamespace())
    starting.trim_heap()


def test_garbage_is_collected_from_the_start_of_the_engine_on():
    gc.disable()
    try:
        starting.freeze_modules()
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.enable()
