"""Paths that another user may have prepared: refused with a sentence, at once, and nothing is changed by the look."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from r2fs.model import owned_paths
from r2fs.model.owned_paths import UnsafePath
from tests.support.users import NOBODY, ROOT, acting_as, neighbours

pytestmark = pytest.mark.timeout(20)  # what is refused is not waited for


@pytest.fixture(params=[ROOT, NOBODY], ids=["root", "user"])
def two(request):
    with neighbours(request.param) as found:
        yield found


# ------------------------------------------------------------------ directories
def test_a_directory_of_another_user_is_refused(two):
    theirs = two.directory("r2fs-1", two.attacker, 0o777)
    with acting_as(two.victim):
        for use in (owned_paths.make_sure, owned_paths.make_directory):
            with pytest.raises(UnsafePath, match=rf"belongs to another user \(uid {two.attacker}\)"):
                use(theirs)
            with pytest.raises(UnsafePath, match="belongs to another user"):
                use(theirs / "below")
    assert not (theirs / "below").exists()


def test_a_link_of_another_user_is_not_followed_and_its_target_keeps_its_mode(two):
    target = two.directory("mine", two.victim, 0o755)
    link = two.shared / "link"
    link.symlink_to(target)
    two.give(link, two.attacker)
    with acting_as(two.victim), pytest.raises(UnsafePath, match="link belongs to another user"):
        owned_paths.make_directory(link)
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    two.give(link, two.victim)
    with acting_as(two.victim):
        owned_paths.make_directory(link / "below")  # as a cache on a larger disk is
    assert (target / "below").is_dir()


def test_a_directory_that_others_may_write_to_is_refused(two):
    for mode, what in ((0o777, "every user"), (0o775, "other users"), (0o1777, "other users")):
        path = two.directory(f"open-{mode:o}", two.victim, mode)
        with acting_as(two.victim):
            with pytest.raises(UnsafePath, match=f"can be written by {what}"):
                owned_paths.make_sure(path)
            if mode == 0o777:
                with pytest.raises(UnsafePath, match="can be written by every user"):
                    owned_paths.make_directory(path / "below")
            else:
                owned_paths.make_directory(path / "below")


def test_missing_ones_are_made_for_their_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        owned_paths.make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a", tmp_path / "a" / "b")} == {0o700}


def test_links_in_a_circle_and_upwards(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        owned_paths.real_path(tmp_path / "a")
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "up").symlink_to("../x/./y")
    assert owned_paths.real_path(tmp_path / "x" / "up") == str(tmp_path / "x" / "y")


# ------------------------------------------------------------------ files
def odd(kind: str, path: Path) -> None:
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "directory":
        path.mkdir()
    elif kind == "link to /dev/zero":
        path.symlink_to("/dev/zero")
    else:
        target = path.with_name("target")
        target.write_text("{}")
        path.symlink_to(target)


@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory", "link to /dev/zero", "link"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_APPEND])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind, flags):
    odd(kind, tmp_path / "card.json")
    with pytest.raises(UnsafePath, match=r"card.json is (not a regular file|a symbolic link)"):
        owned_paths.open_file(tmp_path / "card.json", flags)
    with pytest.raises(UnsafePath, match="is"):
        owned_paths.check_files(tmp_path, "card.json", "missing")


def test_files_of_another_user_and_files_that_everybody_may_write(two):
    path = two.home / "card.json"
    path.write_text("{}")
    two.give(path, two.attacker)
    path.chmod(0o644)
    with acting_as(two.victim), pytest.raises(UnsafePath, match="belongs to another user"):
        owned_paths.read_file(path, 100)
    two.give(path, two.victim)
    path.chmod(0o666)
    with acting_as(two.victim), pytest.raises(UnsafePath, match="every user"):
        owned_paths.read_file(path, 100)
    path.chmod(0o600)
    with acting_as(two.victim):
        assert owned_paths.read_file(path, 2) == b"{}"


def test_sizes_and_depths_are_bounded(tmp_path):
    path = tmp_path / "card"
    path.write_bytes(b"x" * 11)
    assert owned_paths.read_file(path, 11) == b"x" * 11
    with pytest.raises(UnsafePath, match="larger than 10 bytes"):
        owned_paths.read_file(path, 10)
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)  # a terabyte of holes
    with pytest.raises(UnsafePath, match="larger than 65536 bytes"):
        owned_paths.read_file(path, 1 << 16)
    with pytest.raises(ValueError, match="deeply"):
        owned_paths.load_json("[" * 200_000)


def test_a_second_name_is_told_where_others_may_make_names(tmp_path):
    (tmp_path / "a").write_text("")
    os.link(tmp_path / "a", tmp_path / "b")
    os.close(owned_paths.open_file(tmp_path / "a", os.O_RDONLY))
    with pytest.raises(UnsafePath, match="hard link"):
        owned_paths.open_file(tmp_path / "a", os.O_RDONLY, unlinked=True)


def test_replacing_goes_through_no_link(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "card.json").symlink_to("precious")
    (tmp_path / "card.json.new").symlink_to("precious")
    with owned_paths.directory(tmp_path) as fd:
        owned_paths.replace_file(fd, "card.json", b"new")
    assert (tmp_path / "precious").read_text() == "kept"
    assert (tmp_path / "card.json").read_text() == "new"
    assert not (tmp_path / "card.json").is_symlink()
    assert stat.S_IMODE((tmp_path / "card.json").stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", "card.json.new", "precious"]


# ------------------------------------------------------------------ what a person named
def test_what_a_person_named_may_be_a_pipe_but_is_bounded(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"key")
    os.close(writing)
    assert owned_paths.read_named(f"/dev/fd/{reading}", 10, 5.0) == b"key"
    os.close(reading)
    with pytest.raises(UnsafePath, match="larger than 1000 bytes"):
        owned_paths.read_named("/dev/zero", 1000, 5.0)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(TimeoutError, match="no data arrives"):
        owned_paths.read_named(fifo, 10, 0.01)
    with pytest.raises(UnsafePath, match="not a regular file"):
        owned_paths.read_named(fifo, 10, 5.0, trusted=True)


def test_a_pipe_may_be_written_in_pieces(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb", buffering=0) as pipe:
            for piece in (b"one", b"two"):
                pipe.write(piece)

    writer = threading.Thread(target=write)
    writer.start()
    assert owned_paths.read_named(fifo, 100, 10.0) == b"onetwo"
    writer.join()
