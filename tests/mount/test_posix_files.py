"""System calls that a table of steps cannot say: locks, mappings, allocation, extended attributes, many names."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.daemons import BucketMount, serve, until
from tests.support.servers import Simulator

KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE, INSERT = 1, 2, 8, 16, 32  # fallocate(2)
F_OFD_SETLK = 37
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users, which takes root")
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def serving(
    main_driver: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BucketMount]:
    base = tmp_path_factory.mktemp(f"{main_driver}-files")
    mount = BucketMount(
        base, main_driver, simulator.endpoint, f"{base.name}/", upload_delay="0s", local_patterns="*.local"
    )
    yield from serve(mount)


@contextmanager
def refused(*codes: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno in codes, f"{errno.errorcode[caught.value.errno or 0]}: {caught.value}"


def call(name: str, *args: object) -> int:
    done: int = getattr(libc, name)(*args)
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return done


# ------------------------------------------------------------------ what a bucket cannot have
def test_hard_links_are_refused(place: Path) -> None:
    (place / "f").touch()
    (place / "d").mkdir()
    with refused(errno.EPERM):
        os.link(place / "f", place / "g")
    with refused(errno.EPERM):
        os.link(place / "d", place / "e")
    with refused(errno.EEXIST):
        os.link(place / "f", place / "d")
    with refused(errno.ENOENT):
        os.link(place / "missing", place / "g")
    assert sorted(os.listdir(place)) == ["d", "f"]


def test_pipes_sockets_and_devices(place: Path) -> None:
    """Whatever opens them, the kernel does it by itself; a mount without device files refuses to open those."""
    device = os.makedev(259, 70_000)
    os.mkfifo(place / "pipe", 0o640)
    os.mkfifo(place / "other")
    with refused(errno.EEXIST):
        os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as calling:
        listening.bind(os.fspath(place / "socket"))
        listening.listen()
        calling.connect(os.fspath(place / "socket"))
    if os.geteuid() == 0:
        os.mknod(place / "character", stat.S_IFCHR | 0o600, device)
        os.mknod(place / "block", stat.S_IFBLK | 0o600, device)
    os.rename(place / "other", place / "renamed")
    os.chmod(place / "renamed", 0o600)
    shown = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(place)}
    assert stat.S_ISFIFO(shown["pipe"].st_mode) and stat.S_ISSOCK(shown["socket"].st_mode)
    assert shown["renamed"].st_mode == stat.S_IFIFO | 0o600
    assert not any(entry.is_file() for entry in os.scandir(place))
    if os.geteuid() == 0:
        os.chmod(place / "pipe", 0o6755)
        os.chown(place / "pipe", 65534, 65534)
        assert os.lstat(place / "pipe").st_mode == stat.S_IFIFO | 0o755
        assert shown["character"].st_rdev == shown["block"].st_rdev == device
        assert stat.S_ISCHR(shown["character"].st_mode) and stat.S_ISBLK(shown["block"].st_mode)
        with refused(errno.EACCES):
            os.open(place / "character", os.O_RDONLY)
    reading = os.open(place / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        (place / "pipe").write_bytes(b"a take")
        assert os.read(reading, 100) == b"a take"
    finally:
        os.close(reading)
    for name in shown:
        os.unlink(place / name)
    assert os.listdir(place) == []


def test_a_file_without_a_name_is_refused_as_programs_know(place: Path) -> None:
    with refused(errno.EOPNOTSUPP):
        os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)


# ------------------------------------------------------------------ open files
def test_past_the_page_cache(place: Path) -> None:
    page = mmap.mmap(-1, 8192)
    page.write(b"d" * 8192)
    fd = os.open(place / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    try:
        assert os.pwrite(fd, page, 0) == 8192
        os.ftruncate(fd, 5000)
        into = mmap.mmap(-1, 8192)
        assert os.preadv(fd, [into], 4096) == 904
        assert into[:904] == b"d" * 904
    finally:
        os.close(fd)
    assert (place / "direct").read_bytes() == b"d" * 5000


def test_kinds_of_allocation(place: Path) -> None:
    with (place / "f").open("w+b", buffering=0) as file:

        def allocate(mode: int, offset: int, length: int) -> None:
            call("fallocate", file.fileno(), mode, ctypes.c_long(offset), ctypes.c_long(length))

        file.write(b"x" * 20_000)
        allocate(KEEP_SIZE, 0, 100_000)
        assert os.fstat(file.fileno()).st_size == 20_000
        allocate(PUNCH_HOLE | KEEP_SIZE, 4096, 4096)
        allocate(ZERO_RANGE | KEEP_SIZE, 18_000, 10_000)
        wanted = b"x" * 4096 + bytes(4096) + b"x" * (18_000 - 8192) + bytes(2000)
        assert os.pread(file.fileno(), 30_000, 0) == wanted
        allocate(ZERO_RANGE, 19_000, 2000)
        assert os.fstat(file.fileno()).st_size == 21_000
        for mode in (COLLAPSE, INSERT):
            with refused(errno.EOPNOTSUPP):
                allocate(mode, 0, 4096)


def test_holes_and_data(place: Path) -> None:
    with (place / "f").open("w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"x", 1 << 20)
        os.ftruncate(file.fileno(), 2 << 20)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) in (0, 1 << 20)  # libfuse 2 asks nobody
        assert os.lseek(file.fileno(), 1 << 20, os.SEEK_HOLE) > 1 << 20
        with refused(errno.ENXIO):
            os.lseek(file.fileno(), 2 << 20, os.SEEK_DATA)


def test_copies_inside_the_mount(place: Path) -> None:
    data = os.urandom(300_000)
    (place / "a").write_bytes(data)
    with (place / "a").open("rb") as source, (place / "b").open("w+b", buffering=0) as target:
        left, at = len(data), 0
        while left:
            done = os.copy_file_range(source.fileno(), target.fileno(), left, at, at + 7)
            assert done > 0
            left, at = left - done, at + done
        assert os.pread(target.fileno(), 400_000, 0) == bytes(7) + data
        with refused(errno.EBADF):
            os.copy_file_range(target.fileno(), source.fileno(), 10)
    assert (place / "b").stat().st_size == 300_007


OTHER = """
import errno, fcntl, struct, sys
what, path = sys.argv[1:]
with open(path, "r+b") as file:
    try:
        if what == "flock":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif what == "posix":
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        elif what == "ofd":
            fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 5, 10, 0))
        elif what == "read":
            print(file.read().decode())
    except OSError as error:
        print(errno.errorcode[error.errno])
    else:
        print("ok")
"""


def other(what: str, path: Path) -> str:
    """What another process comes to."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER, what, str(path)], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.split("\n")[0]


def test_locks_between_processes(place: Path) -> None:
    path = place / "locked"
    path.write_bytes(b"0123456789")
    with path.open("r+b") as file, path.open("r+b") as second:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert other("flock", path) == "EAGAIN"
        assert other("posix", path) == "ok", "the two kinds do not know of each other"
        fcntl.flock(file, fcntl.LOCK_UN)
        assert other("flock", path) == "ok"
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 0)
        assert other("posix", path) in ("EAGAIN", "EACCES")
        fcntl.lockf(file, fcntl.LOCK_UN, 10, 0)
        assert other("posix", path) == "ok"
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 20, 0)
        fcntl.fcntl(file, F_OFD_SETLK, lock)  # of this open file, not of this process
        with refused(errno.EAGAIN):
            fcntl.fcntl(second, F_OFD_SETLK, lock)
        assert other("ofd", path) == "EAGAIN"
        assert other("posix", path) in ("EAGAIN", "EACCES")


MAPPING = """
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
    memory[5000:5005] = b"hello"
    print("written", flush=True)
    sys.stdin.readline()
    assert memory[:5] == b"there", memory[:5]
    print("seen", flush=True)
"""


def test_a_shared_mapping_and_those_who_read(place: Path) -> None:
    """In a child: a page fault in this process would hold the interpreter's lock."""
    path = place / "mapped"
    path.write_bytes(b"." * 10_000)
    child = subprocess.Popen(
        [sys.executable, "-c", MAPPING, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "written\n"
        assert other("read", path)[5000:5005] == "hello"
        with path.open("r+b", buffering=0) as file:
            file.write(b"there")
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == "seen\n"
        assert child.wait(60) == 0
    assert path.read_bytes() == b"there" + b"." * 4995 + b"hello" + b"." * 4995


def test_a_running_program_is_not_written(place: Path) -> None:
    program = place / "sleep"
    shutil.copy(shutil.which("sleep") or "", program)
    child = subprocess.Popen([program, "60"])
    try:
        until("it runs", lambda: os.readlink(f"/proc/{child.pid}/exe") == str(program.resolve()))
        with refused(errno.ETXTBSY):
            program.open("r+b")
        with refused(errno.ETXTBSY):
            os.truncate(program, 0)
    finally:
        child.kill()
        child.wait(60)


# ------------------------------------------------------------------ names
def test_two_spellings_are_one_file(place: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    (place / decomposed).write_text("one")
    assert os.listdir(place) == [composed]
    assert (place / composed).read_text() == "one"
    (place / composed).write_text("two")
    assert (place / decomposed).read_text() == "two"
    assert (place / composed).stat().st_ino == (place / decomposed).stat().st_ino
    with refused(errno.EEXIST):
        os.mkdir(place / composed)
    os.rename(place / decomposed, place / "plain")
    assert os.listdir(place) == ["plain"]


def test_deep_trees_and_the_longest_key(place: Path, serving: BucketMount, main_driver: str) -> None:
    """A bucket's keys have 1,024 bytes: what is deeper is too long, and harms nothing."""
    room = 1024 - len(f"{serving.prefix}{place.name}/")
    name = "abcdefghi" if main_driver == "kernel" else "p" * 99  # libfuse walks every path from the root
    path = place
    while room > len(name) + 11:
        path, room = path / name, room - len(name) - 1
        path.mkdir()
    (path / ("f" * room)).write_text("the longest")
    with refused(errno.ENAMETOOLONG):
        (path / ("f" * (room + 1))).touch()
    with refused(errno.ENAMETOOLONG):
        (path / ("d" * room)).mkdir()  # its key ends with a slash
    with refused(errno.ENAMETOOLONG):
        os.rename(path / ("f" * room), path / ("f" * (room + 1)))
    with refused(errno.ENAMETOOLONG):
        os.symlink("x", path / ("s" * (room - 5)))
    (place / name / name).rename(place / "x")
    found = place / "x"
    while (found / name).exists():
        found /= name
    assert (found / ("f" * room)).read_text() == "the longest"
    shutil.rmtree(place / "x")
    shutil.rmtree(place / name)
    assert os.listdir(place) == []


def many(place: Path, count: int) -> None:
    """None of them is for the bucket: it is the directory that is tried."""
    names = {f"{number:06}.local" for number in range(count)}
    for name in sorted(names):
        os.close(os.open(place / name, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(place)) == names
    gone = set(sorted(names)[::2])
    with os.scandir(place) as entries:
        first = {entry.name for _, entry in zip(range(count // 2), entries, strict=False)}
        for name in gone:
            os.unlink(place / name)
        rest = {entry.name for entry in entries}
    assert names - gone <= first | rest, "who reads while others remove misses none that stays"
    assert set(os.listdir(place)) == names - gone
    for name in names - gone:
        os.unlink(place / name)
    assert os.listdir(place) == []


def test_many_files_in_a_directory(place: Path, main_driver: str) -> None:
    many(place, 1500 if main_driver == "kernel" else 500)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_files_in_a_directory(place: Path) -> None:
    many(place, 100_000)


# ------------------------------------------------------------------ attributes that last
def test_extended_attributes(place: Path) -> None:
    path = place / "f.wav"
    path.touch()
    (place / "d").mkdir()
    for one in (path, place / "d"):
        os.setxattr(one, "user.note", b"one", os.XATTR_CREATE)
        with refused(errno.EEXIST):
            os.setxattr(one, "user.note", b"two", os.XATTR_CREATE)
        with refused(errno.ENODATA):
            os.setxattr(one, "user.other", b"two", os.XATTR_REPLACE)
        os.setxattr(one, "user.Raw_", b"\0\xff", 0)
        assert os.listxattr(one) == ["user.Raw_", "user.note"]
        assert (os.getxattr(one, "user.note"), os.getxattr(one, "user.Raw_")) == (b"one", b"\0\xff")
        room = ctypes.create_string_buffer(2)
        with refused(errno.ERANGE):
            call("getxattr", os.fsencode(one), b"user.note", room, 2)
        os.removexattr(one, "user.note")
        with refused(errno.ENODATA):
            os.removexattr(one, "user.note")
        with refused(errno.ENOSPC):
            os.setxattr(one, "user.large", bytes(9000))
        for name in ("trusted.x", "security.x"):  # to others than root the kernel itself says EPERM
            with refused(errno.EPERM if os.geteuid() else errno.EOPNOTSUPP):
                os.setxattr(one, name, b"1")
        with refused(errno.EPERM):
            os.setxattr(one, "user.r2fs.etag", b"1")
    assert os.getxattr(path, "user.mime_type") == b"audio/wav"
    os.setxattr(path, "user.mime_type", b"audio/x-mine")
    assert os.getxattr(path, "user.mime_type") == b"audio/x-mine"
    assert os.getxattr(path, "user.r2fs.state") in (b"queued", b"uploading", b"resealed", b"clean")
    with path.open("rb") as file:
        assert os.getxattr(file.fileno(), "user.Raw_") == b"\0\xff"


def seen(path: Path) -> list[int]:
    found = os.lstat(path)
    return [found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_size]


@ROOT_ONLY
def test_attributes_over_a_remount_without_a_cache(
    tmp_path: Path, engine_driver: str, simulator: Simulator
) -> None:
    """Mode, owner, times and extended attributes of files, links and directories are in the bucket."""

    def mounted() -> BucketMount:
        mount = BucketMount(
            tmp_path,
            engine_driver,
            simulator.endpoint,
            f"last-{engine_driver}/",
            upload_delay="0s",
            mtime="exact",
        )
        mount.start()
        return mount

    mount = mounted()
    try:
        (mount.path / "d").mkdir()
        (mount.path / "d" / "f").write_bytes(b"content")
        os.symlink("d/f", mount.path / "link")
        for name, mode in (("d/f", 0o4751), ("d", 0o2711)):
            os.chown(mount.path / name, 1001, 1002)
            os.chmod(mount.path / name, mode)
            os.setxattr(mount.path / name, "user.note", name.encode())
            os.utime(mount.path / name, ns=(1, 1_234_567_890_123_456_789))
        os.lchown(mount.path / "link", 77, 88)
        os.utime(mount.path / "link", ns=(1, 987_654_321_000_000_001), follow_symlinks=False)
        wanted = {name: seen(mount.path / name) for name in ("d/f", "d", "link")}
        assert mount.stop() == 0
        mount.end()
        shutil.rmtree(tmp_path / "cache")
        mount = mounted()
        assert {name: seen(mount.path / name) for name in wanted} == wanted
        assert wanted["d/f"][:4] == [stat.S_IFREG | 0o4751, 1001, 1002, 1_234_567_890_123_456_789]
        assert os.getxattr(mount.path / "d", "user.note") == b"d"
        assert os.getxattr(mount.path / "d/f", "user.note") == b"d/f"
        assert os.readlink(mount.path / "link") == "d/f"
        assert mount.stop() == 0
    finally:
        mount.end()
    assert mount.complaints() == []


# ------------------------------------------------------------------ names that stay on this host
MOVES = {
    "mv": lambda old, new: subprocess.run(["mv", old, new], check=True),
    "mv -n": lambda old, new: subprocess.run(["mv", "-n", old, new], check=True),
    "shutil.move": shutil.move,
    "cp": lambda old, new: (subprocess.run(["cp", "-p", old, new], check=True), os.unlink(old)),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_programs_move_a_file_to_a_local_name_and_back(
    place: Path, serving: BucketMount, move: Callable[[Path, Path], object]
) -> None:
    """rename(2) is EXDEV for a file that the bucket has, as between two file systems: they copy, and remove."""
    wav, local, content = place / "take.wav", place / "take.local", os.urandom(300_000)
    wav.write_bytes(content)
    os.utime(wav, (1_500_000_000, 1_500_000_000))
    serving.flush()
    with refused(errno.EXDEV):
        os.rename(wav, local)
    assert os.listdir(place) == ["take.wav"]
    move(wav, local)
    assert os.listdir(place) == ["take.local"]
    assert local.read_bytes() == content
    assert local.stat().st_mtime == 1_500_000_000
    assert os.getxattr(local, "user.r2fs.state") == b"local"
    move(local, wav)
    serving.flush()
    assert os.listdir(place) == ["take.wav"]
    assert wav.read_bytes() == content
    assert os.getxattr(wav, "user.r2fs.state") == b"clean"


def test_a_directory_is_moved_with_its_local_files(place: Path, serving: BucketMount) -> None:
    (place / "d").mkdir()
    (place / "d" / "sent.wav").write_bytes(b"sent")
    (place / "d" / "here.local").write_bytes(b"here")
    serving.flush()
    os.rename(place / "d", place / "e.local")
    serving.flush()
    assert {path.name: path.read_bytes() for path in (place / "e.local").iterdir()} == {
        "sent.wav": b"sent",
        "here.local": b"here",
    }
    assert os.getxattr(place / "e.local" / "here.local", "user.r2fs.state") == b"local"


def test_a_quota_is_what_df_shows(tmp_path: Path, engine_driver: str, simulator: Simulator) -> None:
    mount = BucketMount(tmp_path, engine_driver, simulator.endpoint, f"quota-{engine_driver}/", quota="1MiB")

    def free() -> int:
        found = os.statvfs(mount.path)
        assert found.f_blocks * found.f_frsize == 1 << 20
        return found.f_bavail * found.f_frsize

    try:
        mount.start()
        (mount.path / "half").write_bytes(bytes(512 * 1024))
        until("half of it is used", lambda: free() == 512 * 1024)
        (mount.path / "rest").write_bytes(bytes(512 * 1024))
        until("all of it is used", lambda: free() == 0)
        with refused(errno.ENOSPC):
            (mount.path / "more").touch()
        assert (mount.path / "half").stat().st_blocks == 1024
        os.unlink(mount.path / "half")
        until("half of it is free", lambda: free() == 512 * 1024)
        (mount.path / "more").touch()
        assert mount.stop() == 0
    finally:
        mount.end()
