"""System calls on a mount: what any file system does, on every driver, over a mirror and over a bucket."""

from __future__ import annotations

import ctypes
import errno
import operator
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.daemons import MirrorMount, until

MIB = 1 << 20


@pytest.fixture(scope="module")
def serving(mounted):
    return mounted


@contextmanager
def refused(*codes: int):
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno in codes, f"{errno.errorcode[caught.value.errno or 0]}: {caught.value}"


# ------------------------------------------------------------------ content
def test_what_is_written_is_read(place):
    path = place / "file"
    path.write_bytes(b"hello")
    assert path.read_bytes() == b"hello"
    assert path.stat().st_size == 5


def test_large_file_in_large_and_small_pieces(place):
    data = os.urandom(5 * MIB + 12345)
    path = place / "large"
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), 3 * MIB):
            file.write(data[start : start + 3 * MIB])
    assert path.read_bytes() == data
    with path.open("rb", buffering=0) as file:
        file.seek(4 * MIB + 1)
        assert file.read(MIB) == data[4 * MIB + 1 : 5 * MIB + 1]
        assert file.read(10 * MIB) == data[5 * MIB + 1 :]
        assert file.read(1) == b""


def test_seek_back_and_patch_the_header(place):
    path = place / "patched"
    with path.open("wb") as file:
        file.write(b"????" + b"x" * 200_000)
        file.seek(0)
        file.write(b"RIFF")
    assert path.read_bytes() == b"RIFF" + b"x" * 200_000


def test_read_and_write_through_one_descriptor(place):
    with (place / "both").open("w+b", buffering=0) as file:
        file.write(b"abcdef")
        file.seek(2)
        assert file.read(2) == b"cd"
        file.write(b"XY")
        file.seek(0)
        assert file.read() == b"abcdXY"


def test_append(place):
    path = place / "log"
    path.write_bytes(b"one\n")
    for word in (b"two\n", b"three\n"):
        with path.open("ab") as file:
            file.write(word)
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_two_appenders_lose_nothing(place):
    path = place / "log"
    path.touch()

    def append(letter: bytes) -> None:
        with path.open("ab", buffering=0) as file:
            for _ in range(100):
                file.write(letter * 10)

    writers = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    content = path.read_bytes()
    assert len(content) == 2000
    assert content.count(b"a") == content.count(b"b") == 1000


def test_truncate_shrinks_and_grows(place):
    path = place / "file"
    path.write_bytes(b"0123456789")
    os.truncate(path, 4)
    assert path.read_bytes() == b"0123"
    os.truncate(path, 8)
    assert path.read_bytes() == b"0123\0\0\0\0"
    with path.open("r+b") as file:
        file.truncate(2)
        assert os.fstat(file.fileno()).st_size == 2
    assert path.read_bytes() == b"01"


def test_opening_with_truncation(place):
    path = place / "file"
    path.write_bytes(b"long content")
    path.write_bytes(b"short")
    assert path.read_bytes() == b"short"
    with path.open("rb") as reader:
        assert reader.read(2) == b"sh"
        path.open("wb").close()
        assert path.stat().st_size == 0


def test_a_file_with_a_hole(place):
    path = place / "sparse"
    with path.open("wb") as file:
        file.seek(3 * MIB)
        file.write(b"end")
    assert path.stat().st_size == 3 * MIB + 3
    content = path.read_bytes()
    assert content == bytes(3 * MIB) + b"end"


def test_an_empty_file(place):
    (place / "empty").touch()
    assert (place / "empty").read_bytes() == b""
    assert (place / "empty").stat().st_size == 0


def test_mapped_for_reading(place):
    data = os.urandom(300_000)
    (place / "mapped").write_bytes(data)
    assert mapped(place / "mapped", "read") == data.hex()[:64] + data.hex()[-64:]


def test_mapped_and_written(place):
    path = place / "mapped"
    path.write_bytes(b"." * 300_000)
    mapped(path, "write")
    content = path.read_bytes()
    assert content[:5] == b"start"
    assert content[-3:] == b"end"
    assert content[5:-3] == b"." * (300_000 - 8)


def test_a_mapping_changes_the_modification_time(place):
    """Else rsync and make would not see that the file is another."""
    path = place / "mapped"
    path.write_bytes(b"." * 300_000)
    written_ns = int(mapped(path, "extend"))
    until("the time of the last store", lambda: path.stat().st_mtime_ns >= written_ns)


def test_a_mapping_of_a_file_that_is_opened_for_appending(place):
    """Its pages go where they belong, through whatever descriptor the kernel finds."""
    path = place / "mapped"
    path.write_bytes(b"." * 10_000)
    mapped(path, "append")
    assert path.read_bytes() == b"start" + b"." * 9_995 + b"more"


def test_what_was_written_through_a_mapping_is_no_hole(place):
    path = place / "mapped"
    path.write_bytes(b"")
    os.truncate(path, MIB)
    assert int(mapped(path, "hole")) <= 500_000


def mapped(path: Path, what: str) -> str:
    """In a child: a page fault in this process would hold the interpreter for a driver in a thread."""
    return subprocess.run(
        [sys.executable, "-c", MAPPED, str(path), what],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


MAPPED = """
import mmap, os, sys, time
path, what = sys.argv[1:]
mode = "a+b" if what == "append" else "r+b"
with open(path, mode, buffering=0) as file, mmap.mmap(file.fileno(), 0) as memory:
    if what == "hole":
        memory[500_000:500_001] = b"x"
        print(os.lseek(file.fileno(), 0, os.SEEK_DATA))
        sys.exit()
    if what == "extend":
        memory.resize(400_000)
        os.fstat(file.fileno())
        time.sleep(0.05)
        print(time.clock_gettime_ns(5))  # the coarse clock, of which file times are taken
        memory[-1:] = b"!"
        sys.exit()
    if what == "append":
        memory[:5] = b"start"
        memory.flush()
        file.write(b"more")
    if what == "write":
        memory[:5] = b"start"
        memory[-3:] = b"end"
        memory.flush()
    print(memory[:32].hex() + memory[-32:].hex(), end="")
"""


def test_preallocation(place, driver):
    path = place / "allocated"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)  # libc writes zeros where the driver cannot
        file.write(b"start")
    assert path.stat().st_size == 100_000
    assert path.read_bytes() == b"start" + bytes(99_995)


def test_seeking_data_and_holes(place):
    path = place / "sparse"
    with path.open("w+b", buffering=0) as file:
        file.write(b"x" * 4096)
        file.truncate(MIB)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert 4096 <= os.lseek(file.fileno(), 0, os.SEEK_HOLE) <= MIB
        with refused(errno.ENXIO):
            os.lseek(file.fileno(), MIB, os.SEEK_DATA)


def test_fsync(place):
    with (place / "safe").open("wb") as file:
        file.write(b"safe")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    directory = os.open(place, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def test_copy_inside_the_mount(place):
    data = os.urandom(200_000)
    (place / "a").write_bytes(data)
    with (place / "a").open("rb") as source, (place / "b").open("wb") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), len(data)) > 0
    subprocess.run(["cp", place / "a", place / "c"], check=True, timeout=60)
    assert (place / "c").read_bytes() == data


# ------------------------------------------------------------------ creating
def test_exclusive_creation(place):
    path = place / "once"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
    with refused(errno.EEXIST):
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def test_exclusive_creation_has_one_winner(place):
    won: list[int] = []

    def race() -> None:
        try:
            os.close(os.open(place / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            won.append(1)
        except FileExistsError:
            pass

    racers = [threading.Thread(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(won) == 1


def test_mknod_makes_files_and_pipes(place):
    os.mknod(place / "made", stat.S_IFREG | 0o600)
    assert (place / "made").read_bytes() == b""
    os.mkfifo(place / "pipe")
    with subprocess.Popen(["sh", "-c", 'printf "a take" >"$1"', "sh", place / "pipe"]):
        assert (place / "pipe").read_bytes() == b"a take"


def test_hard_links_are_refused(place):
    (place / "a").touch()
    with refused(errno.EPERM, errno.EOPNOTSUPP):
        os.link(place / "a", place / "b")


def test_temporary_files(place):
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"scratch")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 7
        file.seek(0)
        assert file.read() == b"scratch"
    with tempfile.NamedTemporaryFile(dir=place) as named:
        assert os.path.exists(named.name)
    assert os.listdir(place) == []


# ------------------------------------------------------------------ attributes
def test_modes(place):
    path = place / "script"
    path.touch(mode=0o640)
    os.chmod(path, 0o750)
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    with path.open("r+b") as file:
        os.fchmod(file.fileno(), 0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_umask_is_applied_once(place):
    before = os.umask(0o027)
    try:
        os.close(os.open(place / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(place / "directory", 0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((place / "directory").stat().st_mode) == 0o750


def test_times(place):
    path = place / "old"
    path.touch()
    os.utime(path, ns=(1_000_000_000_123_456_789, 1_200_000_000_987_654_321))
    assert path.stat().st_mtime_ns == 1_200_000_000_987_654_321
    before = time.time_ns() - 50_000_000  # the kernel's clock for files is some milliseconds coarse
    os.utime(path)
    assert before <= path.stat().st_mtime_ns <= time.time_ns()


@pytest.mark.parametrize("seconds", [-(1 << 40), -7, 1 << 33, 1 << 40])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_times_far_away(place, make, seconds):
    """Before 1970, and so far away that only the nearest can be kept."""
    path = place / "far"
    make(path)
    os.utime(path, ns=(0, seconds * 10**9 + 1))
    found = path.stat().st_mtime_ns
    assert found == seconds * 10**9 + 1 if abs(seconds) <= 1 << 33 else (found > 0) == (seconds > 0)
    path.chmod(0o700)
    path.rename(place / "farther")
    assert (place / "farther").stat().st_mtime_ns == found


def test_time_of_an_open_file(place):
    with (place / "open").open("wb") as file:
        file.write(b"x")
        file.flush()
        os.utime(file.fileno(), ns=(10**18, 10**18))
        assert os.fstat(file.fileno()).st_mtime_ns == 10**18
    assert (place / "open").stat().st_mtime_ns == 10**18


def test_one_time_alone(place):
    path = place / "touched"
    path.touch()
    os.utime(path, ns=(10**18, 10**18))
    subprocess.run(["touch", "-a", path], check=True, timeout=60)
    assert path.stat().st_mtime_ns == 10**18
    subprocess.run(["touch", "-m", "-d", "2001-02-03 04:05:06 UTC", path], check=True, timeout=60)
    assert path.stat().st_mtime_ns == 981173106 * 10**9


def test_writing_changes_the_modification_time(place):
    path = place / "file"
    path.write_bytes(b"1")
    os.utime(path, ns=(10**18, 10**18))
    with path.open("ab") as file:
        file.write(b"2")
    assert path.stat().st_mtime_ns > 10**18


def test_owner(place):
    path = place / "owned"
    path.touch()
    os.chown(path, os.getuid(), -1)
    os.chown(path, -1, os.getgid())
    assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())


def test_inode_numbers(place):
    for name in "abc":
        (place / name).write_text(name)
    numbers = {entry.name: entry.inode() for entry in os.scandir(place)}
    assert numbers == {name: (place / name).stat().st_ino for name in "abc"}
    assert len(set(numbers.values())) == 3
    os.rename(place / "a", place / "d")
    assert (place / "d").stat().st_ino == numbers["a"]


def test_statfs(place):
    now = os.statvfs(place)
    assert now.f_blocks * now.f_frsize >= now.f_bavail * now.f_frsize > 0
    assert now.f_namemax == 255


def test_extended_attributes(place):
    path = place / "tagged"
    path.touch()
    try:
        os.setxattr(path, "user.artist", b"Anna \xff")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return
    assert os.getxattr(path, "user.artist") == b"Anna \xff"
    assert os.listxattr(path) == ["user.artist"]
    with refused(errno.ENODATA):
        os.getxattr(path, "user.other")
    os.removexattr(path, "user.artist")
    assert os.listxattr(path) == []


# ------------------------------------------------------------------ names
def test_missing_names(place):
    with refused(errno.ENOENT):
        os.stat(place / "nothing")
    with refused(errno.ENOENT):
        (place / "nothing" / "below").open("wb")
    (place / "file").touch()
    with refused(errno.ENOTDIR):
        os.stat(place / "file" / "below")


def test_a_name_that_was_missing_can_be_made(place):
    assert not (place / "late").exists()
    (place / "late").write_text("here")
    assert (place / "late").read_text() == "here"
    os.unlink(place / "late")
    assert not (place / "late").exists()


def test_directories(place):
    os.mkdir(place / "a")
    os.makedirs(place / "b" / "c" / "d")
    assert sorted(os.listdir(place)) == ["a", "b"]
    with refused(errno.EEXIST):
        os.mkdir(place / "a")
    with refused(errno.ENOTEMPTY):
        os.rmdir(place / "b")
    with refused(errno.EISDIR):
        (place / "a").open("wb")
    with refused(errno.EISDIR, errno.EPERM):
        os.unlink(place / "a")
    with refused(errno.ENOTDIR):
        (place / "f").touch()
        os.rmdir(place / "f")
    os.rmdir(place / "a")
    assert sorted(os.listdir(place)) == ["b", "f"]


def test_a_deep_path(place):
    deep = place.joinpath(*["directory"] * 40)
    os.makedirs(deep)
    (deep / "file").write_text("deep")
    assert (deep / "file").read_text() == "deep"
    assert sum(len(files) for _, _, files in os.walk(place)) == 1


ODD_NAMES = [
    "with space", " leading", "trailing ", "Grüße.txt", "日本語", "🎵.wav", "a\tb", "new\nline", "quote'\"",
    "back\\slash", "percent%20", "plus+and&", "-dash", "#hash?query", "*star*", "x" * 255, "é" * 127, "~", ".hidden",
    "comma,semi;colon:", "[brackets]{}", "e\u0301",
]  # fmt: skip


def test_odd_names(place, mounted):
    # SeaweedFS makes a backslash a slash: what was uploaded in time would show as a directory
    names = [name for name in ODD_NAMES if "\\" not in name or isinstance(mounted, MirrorMount)]
    for name in names:
        (place / name).write_bytes(name.encode())
    shown = set(os.listdir(place))
    for name in names:
        assert (place / name).read_bytes() == name.encode()
        os.rename(place / name, place / "renamed")
        os.rename(place / "renamed", place / name)
        os.unlink(place / name)
    assert len(shown) == len(names)
    assert os.listdir(place) == []


def test_names_that_cannot_be(place):
    with refused(errno.ENAMETOOLONG):
        (place / ("x" * 256)).touch()
    with refused(errno.EILSEQ, errno.EINVAL):
        os.open(os.fsencode(place) + b"/not \xff utf-8", os.O_CREAT | os.O_WRONLY)


def test_a_link_may_point_to_any_bytes(place):
    os.symlink(b"caf\xe9", os.fsencode(place / "old"))
    assert os.readlink(os.fsencode(place / "old")) == b"caf\xe9"


def test_a_long_directory(place):
    names = [f"take {number:04}.wav" for number in range(600)]
    for name in names:
        (place / name).touch()
    assert sorted(os.listdir(place)) == names
    assert sorted(entry.name for entry in os.scandir(place) if entry.stat().st_size == 0) == names
    listing = subprocess.run(["ls", "-l", place], check=True, capture_output=True, text=True, timeout=60)
    assert listing.stdout.count("take") == 600


def test_a_listing_while_files_go(place):
    for number in range(300):
        (place / str(number)).touch()
    seen = 0
    with os.scandir(place) as entries:
        for entry in entries:
            seen += 1
            os.unlink(entry)
    assert seen == 300
    assert os.listdir(place) == []


def test_rewinding_a_directory(place):
    (place / "one").touch()
    directory = os.open(place, os.O_RDONLY)
    try:
        assert os.listdir(directory) == ["one"]
        (place / "two").touch()
        assert sorted(os.listdir(directory)) == ["one", "two"]
    finally:
        os.close(directory)


def test_symbolic_links(place):
    (place / "target").write_text("there")
    try:
        os.symlink("target", place / "link")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return
    assert os.readlink(place / "link") == "target"
    assert (place / "link").read_text() == "there"
    os.unlink(place / "link")
    assert (place / "target").exists()


# ------------------------------------------------------------------ renaming
def test_rename_a_file(place):
    (place / "a").write_text("content")
    os.mkdir(place / "d")
    os.rename(place / "a", place / "d" / "b")
    assert not (place / "a").exists()
    assert (place / "d" / "b").read_text() == "content"


def test_rename_over_a_file(place):
    (place / "new").write_text("new")
    (place / "old").write_text("old")
    os.rename(place / "new", place / "old")
    assert os.listdir(place) == ["old"]
    assert (place / "old").read_text() == "new"


def test_rename_a_directory(place):
    os.makedirs(place / "d" / "sub")
    (place / "d" / "f").write_text("1")
    (place / "d" / "sub" / "g").write_text("2")
    os.rename(place / "d", place / "e")
    assert not (place / "d").exists()
    assert (place / "e" / "f").read_text() == "1"
    assert (place / "e" / "sub" / "g").read_text() == "2"
    os.mkdir(place / "d")
    assert os.listdir(place / "d") == []


def test_renames_that_are_refused(place):
    os.makedirs(place / "d" / "sub")
    (place / "f").touch()
    with refused(errno.EINVAL):
        os.rename(place / "d", place / "d" / "sub" / "x")
    with refused(errno.EISDIR):
        os.rename(place / "f", place / "d")
    with refused(errno.ENOTDIR):
        os.rename(place / "d", place / "f")
    os.mkdir(place / "e")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(place / "e", place / "d")
    os.rename(place / "d" / "sub", place / "e")  # onto an empty directory


def test_rename_flags(place, driver):
    NOREPLACE, EXCHANGE = 1, 2
    (place / "a").write_text("a")
    (place / "b").write_text("b")
    assert renameat2(place / "a", place / "b", NOREPLACE) == errno.EEXIST
    if driver == "libfuse2":  # which has no flags
        assert renameat2(place / "a", place / "c", NOREPLACE) == errno.EINVAL
        return
    assert renameat2(place / "a", place / "c", NOREPLACE) == 0
    assert (place / "c").read_text() == "a"
    code = renameat2(place / "b", place / "c", EXCHANGE)
    assert code in (0, errno.EINVAL)
    assert (place / "c").read_text() == ("a" if code else "b")


def renameat2(source: Path, target: Path, flags: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags)
    return ctypes.get_errno() if done else 0


def test_rename_while_open(place):
    with (place / "before").open("w+b", buffering=0) as file:
        file.write(b"one ")
        os.rename(place / "before", place / "after")
        file.write(b"two")
        assert os.fstat(file.fileno()).st_size == 7
        os.ftruncate(file.fileno(), 6)
        file.seek(0)
        assert file.read() == b"one tw"
    assert (place / "after").read_bytes() == b"one tw"
    assert os.listdir(place) == ["after"]


def test_rename_of_a_directory_with_open_files(place):
    os.mkdir(place / "d")
    with (place / "d" / "f").open("w+b", buffering=0) as file:
        file.write(b"1")
        os.rename(place / "d", place / "e")
        file.write(b"2")
        (place / "e" / "g").touch()
        assert os.fstat(file.fileno()).st_size == 2
    assert (place / "e" / "f").read_bytes() == b"12"


def test_atomic_save_while_somebody_reads(place):
    """The open reader keeps the old content, who opens anew gets the new."""
    path = place / "project.json"
    path.write_bytes(b"old" * 10_000)
    with path.open("rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        (place / "project.tmp").write_bytes(b"new")
        os.rename(place / "project.tmp", path)
        assert path.read_bytes() == b"new"
        reader.seek(0)
        assert reader.read() == b"old" * 10_000
        assert os.fstat(reader.fileno()).st_size == 30_000
    assert path.read_bytes() == b"new"
    assert os.listdir(place) == ["project.json"]


def test_a_saved_name_is_never_missing(place, driver):
    """While a file that others have open is saved again and again, its name is always there, and whole.

    The kernel looks once more after ESTALE, so no look may meet two renames: the next one waits until
    each reader has ended the look that it was at. libfuse itself answers an open of the file that a rename is just
    replacing: libfuse 2 with ENOENT, libfuse 3 with ESTALE, twice if it is slow.
    """
    raced = {"kernel": 0, "libfuse": errno.ESTALE, "libfuse2": errno.ENOENT}[driver]
    path = place / "project.json"
    path.write_bytes(b"0" * 1000)
    stop = threading.Event()
    ended, looks = threading.Condition(), [0, 0]
    wrong: list[str] = []

    def look(reader: int) -> None:
        while not stop.is_set():
            try:
                with path.open("rb") as file:
                    content = file.read()
                if len(content) != 1000 or len(set(content)) != 1:
                    wrong.append(f"{len(content)} bytes of {set(content)}")
            except OSError as error:
                if error.errno != raced:
                    wrong.append(str(error))
            with ended:
                looks[reader] += 1
                ended.notify()

    def await_looks() -> None:
        with ended:
            before = list(looks)
            assert ended.wait_for(lambda: all(map(operator.lt, before, looks)), 60)

    readers = [threading.Thread(target=look, args=(number,)) for number in range(len(looks))]
    for reader in readers:
        reader.start()
    try:
        for number in range(40):
            (place / "tmp").write_bytes(b"%d" % (number % 10) * 1000)
            os.rename(place / "tmp", path)
            await_looks()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []


# ------------------------------------------------------------------ open and unlinked
def test_an_unlinked_file_lives_while_it_is_open(place):
    path = place / "gone"
    with path.open("w+b", buffering=0) as file:
        file.write(b"still ")
        os.unlink(path)
        assert not path.exists()
        assert os.listdir(place) == []
        file.write(b"here")
        assert os.fstat(file.fileno()).st_size == 10
        assert os.fstat(file.fileno()).st_nlink == 0
        os.ftruncate(file.fileno(), 8)
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), ns=(10**18, 10**18))
        os.fsync(file.fileno())
        file.seek(0)
        assert file.read() == b"still he"
        assert os.fstat(file.fileno()).st_mtime_ns == 10**18
        time.sleep(1.2)  # past every time to live
        assert os.fstat(file.fileno()).st_size == 8
    assert os.listdir(place) == []


def test_the_name_of_an_unlinked_open_file_is_free(place):
    path = place / "name"
    with path.open("w+b", buffering=0) as old:
        old.write(b"old")
        os.unlink(path)
        path.write_bytes(b"new content")
        old.seek(0)
        assert old.read() == b"old"
        assert path.read_bytes() == b"new content"
    assert path.read_bytes() == b"new content"


def test_a_directory_whose_open_file_is_unlinked_can_go(place):
    os.mkdir(place / "d")
    with (place / "d" / "f").open("w+b", buffering=0) as file:
        file.write(b"x")
        os.unlink(place / "d" / "f")
        os.rmdir(place / "d")
        file.seek(0)
        assert file.read() == b"x"
    assert os.listdir(place) == []


def test_many_threads(place):
    """No file gets another's content, whatever the order."""

    def work(number: int) -> None:
        for turn in range(20):
            path = place / f"{number}"
            path.write_bytes(b"%d/%d" % (number, turn) * 100)
            os.rename(path, place / f"{number}.done")
            if (place / f"{number}.done").read_bytes() != b"%d/%d" % (number, turn) * 100:
                wrong.append(number)

    wrong: list[int] = []
    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert sorted(os.listdir(place)) == sorted(f"{number}.done" for number in range(6))


def test_a_tree_is_removed(place):
    for number in range(5):
        os.makedirs(place / f"d{number}" / "sub")
        (place / f"d{number}" / "sub" / "f").write_text("x")
    subprocess.run(["rm", "-rf", *place.iterdir()], check=True, timeout=60)
    assert os.listdir(place) == []
