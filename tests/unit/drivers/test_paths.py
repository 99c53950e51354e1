"""Names: paths to inodes, libfuse's hidden files, and what the kernel may keep. Without libfuse."""

from __future__ import annotations

import os
import threading

import pytest

from r2fs.drivers.libfuse import paths
from r2fs.drivers.libfuse.libfuse_driver import _door
from r2fs.drivers.libfuse.paths import PathTable, is_hidden
from r2fs.model.errors import NoSpace, NotFound, ReadFailed, Stale
from r2fs.model.ports import Caller
from r2fs.model.records import Opened
from r2fs.model.verbs import RENAME_EXCHANGE, ROOT
from tests.support.mirror import MirrorVerbs

HIDDEN = ".fuse_hidden000000a400000001"
CALLER = Caller(os.getuid(), os.getgid())


@pytest.fixture
def fs(tmp_path):
    os.makedirs(tmp_path / "d" / "sub")
    for name in ("a", "b", "d/f", "d/sub/g"):
        (tmp_path / name).write_text(name)
    fs = MirrorVerbs(tmp_path, valid_s=60.0)
    yield fs
    fs.close()


@pytest.fixture
def names(fs):
    return PathTable(fs, ttl_s=60.0)


def ino(fs, path: str) -> int:
    return (fs.root / path.lstrip("/")).stat().st_ino


# ------------------------------------------------------------------ resolving
def test_the_root(names, fs):
    assert names.ino(CALLER, "/") == ROOT
    assert names.find(CALLER, "/").ino == ROOT


def test_a_path_is_walked_once(names, fs):
    assert names.ino(CALLER, "/d/sub/g") == ino(fs, "d/sub/g")
    assert fs.calls["lookup"] == 3
    assert names.ino(CALLER, "/d/sub/g") == ino(fs, "d/sub/g")
    assert fs.calls["lookup"] == 3
    assert names.find(CALLER, "/d/sub/g").attributes.size == 7  # attributes are always of now
    assert fs.calls["lookup"] == 4


def test_what_is_told_as_changed_is_looked_up_again(names, fs):
    names.ino(CALLER, "/a")
    names.forget_name(ROOT, "a")
    names.ino(CALLER, "/a")
    assert fs.calls["lookup"] == 2


def test_a_name_in_another_normal_form_is_the_same(names, fs):
    (fs.root / "é").touch()
    assert names.ino(CALLER, "/e\u0301") == names.ino(CALLER, "/é")
    assert fs.calls["lookup"] == 1


def test_a_replaced_file_gives_the_old_reference_back(names, fs):
    old = names.find(CALLER, "/a").ino
    os.rename(fs.root / "b", fs.root / "a")
    assert names.find(CALLER, "/a").ino != old
    assert old not in fs.known()


def test_what_is_gone_is_given_back(names, fs):
    a, b = names.ino(CALLER, "/a"), names.ino(CALLER, "/b")
    names.opened(ROOT, "b", b, Opened(1, None, 1))
    for name in "ab":
        names.forget_name(ROOT, name, gone=True)
    assert list(fs.known()) == [b], "what is open stays"
    assert names.ino(CALLER, "/a") == a


def test_the_table_is_bounded(names, fs, monkeypatch):
    monkeypatch.setattr(paths, "MAX_DENTRIES", 10)
    names.opened(ROOT, "a", names.ino(CALLER, "/a"), Opened(1, None, 1))
    for number in range(50):
        (fs.root / str(number)).touch()
        names.find(CALLER, f"/{number}")
    assert len(fs.known()) == 10
    assert ino(fs, "a") in fs.known()  # what is open stays


def test_a_lookup_that_a_change_overtakes_is_not_remembered(names, fs, monkeypatch):
    found = fs.lookup

    def slow(caller, parent, name):
        entry = found(caller, parent, name)
        names.forget_name(ROOT, "other")
        return entry

    monkeypatch.setattr(fs, "lookup", slow)
    names.ino(CALLER, "/a")
    monkeypatch.undo()
    before = fs.calls["lookup"]
    names.ino(CALLER, "/a")
    assert fs.calls["lookup"] == before + 1


# ------------------------------------------------------------------ renaming
def test_what_is_below_a_renamed_directory_stays_known(names, fs):
    names.ino(CALLER, "/d/sub/g")
    names.rename(CALLER, ROOT, "d", ROOT, "e", 0)
    before = fs.calls["lookup"]
    assert names.ino(CALLER, "/e/sub/g") == ino(fs, "e/sub/g")
    assert fs.calls["lookup"] == before + 1  # of `e` alone
    with pytest.raises(NotFound):
        names.ino(CALLER, "/d/sub/g")


def test_an_exchange(names, fs):
    a, b = names.ino(CALLER, "/a"), names.ino(CALLER, "/b")
    names.rename(CALLER, ROOT, "a", ROOT, "b", RENAME_EXCHANGE)
    assert (names.ino(CALLER, "/a"), names.ino(CALLER, "/b")) == (b, a)


def test_a_rename_that_fails_leaves_all_as_it_was(names, fs):
    a = names.ino(CALLER, "/a")
    with pytest.raises(NotFound):
        names.rename(CALLER, ROOT, "nothing", ROOT, "a", 0)
    assert names.ino(CALLER, "/a") == a
    assert not names._renaming


# ------------------------------------------------------------------ unlinked while open
def test_hiding_is_unlinking(names, fs):
    a = names.ino(CALLER, "/a")
    dentry, *_ = names.opened(ROOT, "a", a, Opened(1, None, 1))
    names.hide(CALLER, ROOT, "a", HIDDEN)
    assert not (fs.root / "a").exists()
    assert names.ino(CALLER, f"/{HIDDEN}") == a
    assert names.find(CALLER, f"/{HIDDEN}").attributes.nlink == 0
    names.closed(dentry, direct=False)
    assert a not in fs.known()
    with pytest.raises(Stale):  # not NotFound: the kernel is to look for the name again
        names.find(CALLER, f"/{HIDDEN}")


def test_a_hidden_name_that_never_was_is_free(names):
    """libfuse asks before it hides."""
    with pytest.raises(NotFound):
        names.find(CALLER, f"/{HIDDEN}")
    assert is_hidden(HIDDEN)
    assert not is_hidden(".fuse_hidden notes")


def test_hiding_that_fails(names, fs):
    names.ino(CALLER, "/a")
    os.unlink(fs.root / "a")
    with pytest.raises(NotFound):
        names.hide(CALLER, ROOT, "a", HIDDEN)
    assert not names._hides


def test_who_looks_for_a_hidden_name_waits_for_the_rename(names, fs, monkeypatch):
    """libfuse hides the target of a rename first: for a moment there is no file of that name."""
    monkeypatch.setattr(paths, "RETURN_S", 30.0)
    names.opened(ROOT, "a", names.ino(CALLER, "/a"), Opened(1, None, 1))
    names.hide(CALLER, ROOT, "a", HIDDEN)
    found: list[int] = []
    looker = threading.Thread(target=lambda: found.append(names.find(CALLER, "/a").ino))
    looker.start()
    looker.join(0.1)
    assert looker.is_alive()
    names.rename(CALLER, ROOT, "b", ROOT, "a", 0)
    looker.join(10)
    assert found == [ino(fs, "a")]


def test_who_looks_for_an_unlinked_name_does_not_wait_long(names, monkeypatch):
    monkeypatch.setattr(paths, "RETURN_S", 0.1)
    names.opened(ROOT, "a", names.ino(CALLER, "/a"), Opened(1, None, 1))
    names.hide(CALLER, ROOT, "a", HIDDEN)
    missing: list[str] = []

    def look() -> None:
        try:
            names.find(CALLER, "/a")
        except NotFound as error:
            missing.append(str(error))

    looker = threading.Thread(target=look)
    looker.start()
    looker.join(10)
    assert len(missing) == 1


# ------------------------------------------------------------------ pages
def opened(names, version: int):
    return names.opened(ROOT, "a", names.ino(CALLER, "/a"), Opened(version, None, version))


def test_pages_are_kept_for_the_same_version_alone(names):
    for version, kept in ((1, False), (1, True), (2, False), (2, True), (1, False)):
        dentry, keep, direct = opened(names, version)
        assert (keep, direct) == (kept, False)
        names.closed(dentry, direct)


def test_a_new_version_is_read_past_the_pages_of_an_open_one(names):
    old, *_ = opened(names, 1)
    dentry, keep, direct = opened(names, 2)
    assert (keep, direct) == (False, True)
    names.closed(dentry, direct)
    assert opened(names, 1)[1:] == (True, False)
    names.closed(old, direct=False)
    names.closed(old, direct=False)
    assert opened(names, 2)[1:] == (False, False)


def test_pages_move_with_a_renamed_file(names):
    dentry, *_ = opened(names, 1)
    names.closed(dentry, direct=False)
    names.rename(CALLER, ROOT, "a", ROOT, "z", 0)
    assert names.opened(ROOT, "z", names.ino(CALLER, "/z"), Opened(2, None, 1))[1]


# ------------------------------------------------------------------ the one door
@pytest.mark.expect_warnings
def test_every_error_becomes_an_errno(caplog):
    def raising(error: BaseException) -> int:
        def callback() -> int:
            raise error

        return _door(callback)

    assert raising(NotFound("x")) == -2
    assert raising(NoSpace("x")) == -28
    assert caplog.text == ""
    assert raising(ReadFailed("take.wav: the server is away")) == -5
    assert "take.wav: the server is away" in caplog.text
    assert raising(OSError(28, "No space left")) == -28
    assert raising(OSError("no number")) == -5
    assert raising(ZeroDivisionError("a defect")) == -5
    assert "Traceback" in caplog.text
    assert raising(SystemExit(1)) == -5
    assert _door(lambda: None) == 0
    assert _door(lambda: 7) == 7
