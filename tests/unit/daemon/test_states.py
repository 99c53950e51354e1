"""State directories: found by what they are about, whatever they are called and wherever they lie."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from r2fs.daemon import state_directories
from r2fs.disk.journal.journal import Journal
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.mount_record import MountRecord
from r2fs.model.settings import Bucket, Settings, places
from tests.unit.disk.test_journal import row


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "ROOT_STATES", (tmp_path / "system",))
    return tmp_path / "system"


def settings(base: Path, endpoint: str | None = "https://h.example.org", prefix: str = "") -> Settings:
    bucket = Bucket("s3", "takes", prefix, endpoint, region="eu-west-1")
    own = places.slug(bucket)
    return Settings(bucket, base / "cache" / own, base / "state" / own, base / "run")


def record(of: Settings, mounted_s: float = 0.0) -> MountRecord:
    bucket = of.bucket
    command = ("r2fs", "mount", bucket.url, "/mnt/t")
    return MountRecord(
        bucket.scheme, bucket.name, bucket.prefix, bucket.endpoint_url, bucket.region, bucket.url, "/mnt/t", command,
        mounted_s=mounted_s,
    )  # fmt: skip


def journal(of: Settings, with_pending: bool = True, recorded: bool = False, mounted_s: float = 0.0) -> Path:
    made = Journal.open(of.state_dir)
    if with_pending:
        with made.transaction:
            made.put_inode(row(1, "precious.txt", staged="f"))
    made.close()
    if recorded:
        text = record(of, mounted_s).to_json()
        (of.state_dir / "mount.json").write_text(text)
    return of.state_dir


def environ(base: Path) -> dict[str, str]:
    return {"HOME": str(base / "home")}


# ------------------------------------------------------------------ which one a mount goes on with
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("https://h.example.org", "https://H.example.org:443/"),
        ("https://h.example.org:443", "https://h.example.org"),
        ("http://h.example.org", "https://h.example.org/"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/"),
        ("https://127.0.0.1:9000", "http://127.0.0.1:9000/"),
        (None, "https://s3.eu-west-1.amazonaws.com"),
        ("https://s3.amazonaws.com", None),
    ],
)
def test_another_spelling_of_the_endpoint_goes_on_with_the_same_state(tmp_path, then, now, recorded):
    path = journal(settings(tmp_path, then), recorded=recorded)
    given = settings(tmp_path, now)
    found = state_directories.settle(given)
    # The bucket, its address and its keys stay those of this mount, whatever is recorded there.
    assert found == replace(given, state_dir=path, cache_dir=tmp_path / "cache" / path.name)


@pytest.mark.parametrize("now", ["https://h.example.org:444", "https://other.example.org"])
def test_what_cannot_be_known_to_be_the_same_has_a_state_of_its_own(tmp_path, now):
    journal(settings(tmp_path), recorded=True)
    mine = settings(tmp_path, now)
    assert state_directories.settle(mine) == mine


def test_another_prefix_has_a_state_of_its_own(tmp_path):
    journal(settings(tmp_path), recorded=True)
    mine = settings(tmp_path, prefix="b/")
    assert state_directories.settle(mine) == mine


def test_of_two_states_the_one_that_owes_something_is_gone_on_with(tmp_path):
    mine, other = settings(tmp_path), settings(tmp_path, "https://h.example.org:443")
    journal(mine, with_pending=False)
    path = journal(other)
    assert state_directories.settle(mine).state_dir == path
    assert state_directories.settle(other).state_dir == path


def test_of_two_that_owe_something_each_spelling_has_its_own(tmp_path):
    mine, other = settings(tmp_path), settings(tmp_path, "https://h.example.org:443")
    assert journal(mine) != journal(other)
    assert state_directories.settle(mine) == mine
    assert state_directories.settle(other) == other


def test_of_two_that_owe_nothing_the_one_that_was_mounted_last(tmp_path):
    mine, other = settings(tmp_path), settings(tmp_path, "https://h.example.org:443")
    journal(mine, with_pending=False, recorded=True, mounted_s=5.0)
    path = journal(other, with_pending=False, recorded=True, mounted_s=6.0)
    assert state_directories.settle(mine).state_dir == path


def test_a_directory_without_a_journal_is_no_state(tmp_path):
    mine, other = settings(tmp_path), settings(tmp_path, "https://h.example.org:443")
    other.state_dir.mkdir(parents=True)
    assert state_directories.settle(mine) == mine


# ------------------------------------------------------------------ where they are found
def test_every_standard_place_is_looked_into(tmp_path, system):
    default = settings(tmp_path / "a")
    default = replace(default, state_dir=tmp_path / "home/.local/state/r2fs" / default.state_dir.name)
    unit = replace(default, state_dir=system / "takes" / default.state_dir.name)  # StateDirectory=r2fs/takes
    of_xdg = replace(default, state_dir=tmp_path / "xdg/r2fs" / default.state_dir.name)
    further = replace(default, state_dir=tmp_path / "further" / default.state_dir.name)
    paths = {journal(each, recorded=True) for each in (default, unit, of_xdg, further)}
    variables = environ(tmp_path) | {"XDG_STATE_HOME": str(tmp_path / "xdg")}
    found = state_directories.find(variables, [tmp_path / "further"])
    assert {state.path for state in found.states} == paths
    assert all(state.pending.files == 1 for state in found.states)
    assert (found.closed, found.missing) == ((), ())


def test_one_that_a_daemon_has_open_is_not_among_them_and_not_disturbed(tmp_path):
    mine = settings(tmp_path)
    made = Journal.open(mine.state_dir)
    assert state_directories.find(environ(tmp_path), [mine.state_dir.parent]).states == ()
    with made.transaction:
        made.put_inode(row(1, "a", staged="f"))
    made.close()
    assert len(state_directories.find(environ(tmp_path), [mine.state_dir.parent]).states) == 1


def test_a_state_in_a_place_of_its_own_is_found_until_it_owes_nothing(tmp_path):
    mine = settings(tmp_path / "usb")
    journal(mine)
    state_directories.write_record(mine, record(mine), environ(tmp_path))
    state_directories.write_record(mine, record(mine), environ(tmp_path))  # the next mount
    (found,) = state_directories.find(environ(tmp_path)).states
    assert found.path == mine.state_dir
    assert found.record is not None
    assert found.record.mounted_s > 0
    (tmp_path / "usb").rename(tmp_path / "away")
    gone = state_directories.find(environ(tmp_path))
    assert (gone.states, [path for path, link in gone.missing]) == ((), [mine.state_dir])
    gone.missing[0][1].unlink()  # as the message says
    assert state_directories.find(environ(tmp_path)).missing == ()
    (tmp_path / "away").rename(tmp_path / "usb")
    state_directories.forget(mine, environ(tmp_path))
    assert state_directories.find(environ(tmp_path)).states == ()


def test_a_full_disk_keeps_no_mount_from_coming_up(tmp_path, monkeypatch):
    def full(path, data, mode=0o600):
        raise OSError(errno.ENOSPC, "No space left on device")

    mine = settings(tmp_path)
    journal(mine)
    monkeypatch.setattr("r2fs.disk.filecalls.write_durably", full)
    state_directories.write_record(mine, record(mine), environ(tmp_path))
    assert state_directories.read_record(mine.state_dir) is None


def test_what_may_not_be_read_is_told(tmp_path, system, monkeypatch):
    system.mkdir()
    real = os.scandir

    def scandir(path):
        if Path(path) == system:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert state_directories.find(environ(tmp_path)).closed == (system,)


def test_another_users_state_is_not_read(tmp_path, monkeypatch):
    mine = settings(tmp_path)
    journal(mine, recorded=True)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert state_directories.find(environ(tmp_path), [mine.state_dir.parent]).states == ()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_a_record_that_is_no_file_is_none_and_keeps_nobody_waiting(tmp_path, make):
    make(tmp_path / "mount.json")
    assert state_directories.read_record(tmp_path) is None


# ------------------------------------------------------------------ what a mount says
@pytest.mark.parametrize(
    ("there", "recorded", "warned"),
    [
        ("https://h.example.org:9001", True, True),  # another port
        ("https://h.example.org:9001", False, False),  # nothing tells which bucket it is
        ("https://h.example.org", True, True),  # the same place, in another directory
        ("https://h.example.org", False, True),
    ],
)
@pytest.mark.expect_warnings("waits in another state directory")
def test_a_mount_names_what_waits_elsewhere_for_the_same_bucket(
    tmp_path, system, caplog, there, recorded, warned
):
    mine, other = settings(tmp_path), settings(tmp_path, there)
    other = replace(other, state_dir=system / "takes" / other.state_dir.name)
    journal(other, recorded=recorded)
    journal(mine)
    state_directories.warn_of_others(mine, environ(tmp_path))
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == warned
    if warned:
        assert str(other.state_dir) in said[0]
        assert "1 file" in said[0]
        assert (record(other).command_text if recorded else str(other.state_dir.parent)) in said[0]


def test_a_mount_says_nothing_of_other_buckets_and_of_what_owes_nothing(tmp_path, system, caplog):
    mine = settings(tmp_path)
    journal(mine)
    paid = settings(tmp_path, "https://h.example.org:9001")
    journal(paid, with_pending=False, recorded=True)
    journal(settings(tmp_path, prefix="other/"), recorded=True)
    state_directories.warn_of_others(mine, environ(tmp_path))
    assert not caplog.records


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    ("then", "now", "region"),
    [
        ("https://h.example.org", "https://h.example.org/takes", "auto"),  # its keys would begin with takes/
        (None, None, "us-gov-west-1"),
        (None, "https://s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        (None, None, "cn-north-1"),
    ],
)
def test_what_waits_for_one_place_is_not_sent_to_another(tmp_path, then, now, region, recorded):
    path = journal(settings(tmp_path, then), recorded=recorded)
    given = settings(tmp_path, now)
    bucket = replace(given.bucket, region=region)
    given = replace(given, bucket=bucket, state_dir=given.state_dir.with_name(places.slug(bucket)))
    assert state_directories.settle(given).state_dir == given.state_dir != path


def test_a_directory_that_was_recorded_for_another_bucket_is_not_used(tmp_path):
    then = settings(tmp_path, None)
    elsewhere = replace(then, bucket=replace(then.bucket, region="cn-north-1"))
    journal(then)
    (then.state_dir / "mount.json").write_text(record(elsewhere).to_json())
    with pytest.raises(DirectoryUnusable, match="another bucket"):
        state_directories.settle(then)
