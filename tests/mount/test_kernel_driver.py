"""The kernel driver over a mirror: modes of open files, the kernel's caches, waiting, the end."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.drivers import kmount
from r2fs.drivers.kernel.lanes import FETCH_THREADS
from r2fs.drivers.kernel.wire import Init
from tests.mount.daemons import REPO, end_all, until
from tests.mount.kernel_rig import CommandFailed, KernelMount
from tests.support.namespaces import WITHOUT_OTHER_MOUNTS

MIB = 1 << 20

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse"),
    pytest.mark.skipif(not kmount.privileged(), reason="these tests mount by mount(2), as root"),
]

Mounts = Callable[..., KernelMount]


@pytest.fixture
def kmounts(tmp_path: Path) -> Iterator[Mounts]:
    """`kmounts(stream=[names], valid_s=…, passthrough=…, settings={…})`: a served mirror."""
    made: list[KernelMount] = []

    def make(command: tuple[str, ...] = (), start: bool = True, **options: Any) -> KernelMount:
        base = tmp_path / f"m{len(made)}"
        base.mkdir()
        serving = KernelMount(base, command, **options)
        made.append(serving)
        (serving.root / "f").write_bytes(b"0123456789" * 10)
        if start:
            serving.start()
        return serving

    yield make
    end_all(made)


# ------------------------------------------------------------------ modes of open files
def test_complete_content_is_passed_through(kmounts: Mounts) -> None:
    serving = kmounts()
    with (serving.path / "f").open("rb") as one, (serving.path / "f").open("r+b") as two:
        assert one.read(3) == b"012"
        two.write(b"abc")
        two.flush()
        found = {"ino": serving.ino("f"), "mode": "passthrough", "why": "all bytes are here", "handles": 2}
        assert serving.ask("modes") == [found]
    serving.until_released()
    assert serving.ask("modes") == []
    assert (serving.root / "f").read_bytes()[:4] == b"abc3"
    assert serving.count("read") == serving.count("write") == 0


def test_content_that_is_still_coming_is_cached(kmounts: Mounts) -> None:
    serving = kmounts(stream=["f"])
    with (serving.path / "f").open("rb") as one:
        assert one.read() == b"0123456789" * 10
        assert serving.ask("modes")[0]["why"].startswith("some bytes are missing")
        serving.ask("stream")  # now it is
        with (serving.path / "f").open("rb") as two:
            assert two.read(3) == b"012"
            assert serving.mode("f") == "cached", "an inode has one mode while it is open"
    serving.until_released()
    with (serving.path / "f").open("rb"):
        assert serving.mode("f") == "passthrough"
        serving.ask("stream", "f")  # an engine that wants to slow writers, too late
        with (serving.path / "f").open("r+b", buffering=0) as three:
            three.write(b"x")
            assert serving.mode("f") == "passthrough"


def test_a_new_file_is_passed_through(kmounts: Mounts) -> None:
    serving = kmounts()
    with (serving.path / "new").open("wb", buffering=0) as file:
        file.write(b"x" * 10000)
        assert serving.mode("new") == "passthrough"
        assert os.fstat(file.fileno()).st_size == 10000
    assert (serving.path / "new").stat().st_size == 10000
    assert serving.count("write") == 0
    assert serving.ask("shares_pages")


def test_without_passthrough_the_page_cache_serves(kmounts: Mounts) -> None:
    serving = kmounts(passthrough=False)
    with (serving.path / "f").open("r+b", buffering=0) as file:
        assert file.read(10) == b"0123456789"
        file.write(b"abc")
        assert serving.ask("modes")[0]["mode"] == "cached"
        assert "switched off" in serving.ask("modes")[0]["why"]
    assert not serving.ask("shares_pages")
    assert (serving.root / "f").read_bytes()[10:14] == b"abc3"
    assert (serving.path / "f").read_bytes()[10:14] == b"abc3"


def test_fadvise_on_a_passthrough_file_leaves_nothing_stale(kmounts: Mounts) -> None:
    """It fills pages behind the mode's back; a later plain open must not believe them."""
    serving = kmounts()
    with (serving.path / "f").open("r+b", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        until("the READ", lambda: serving.count("read") > 0)
        file.write(b"NEW")
    serving.until_released()
    serving.ask("stream", "f")
    with (serving.path / "f").open("rb", buffering=0) as file:
        assert serving.mode("f") == "cached"
        assert file.read(6) == b"NEW345"


def test_pages_are_kept_while_the_version_is_the_same(kmounts: Mounts) -> None:
    serving = kmounts(passthrough=False)
    path = serving.path / "f"

    def reads() -> int:
        before = serving.count("read")
        with path.open("rb", buffering=0) as file:
            file.read(100)
        serving.until_released()
        return serving.count("read") - before

    assert [reads(), reads(), reads()] == [1, 0, 0]
    with path.open("r+b", buffering=0) as file:  # our own writes go through the pages
        file.write(b"own")
    serving.until_released()
    assert reads() == 0
    (serving.root / "f").write_bytes(b"by somebody else" * 10)
    serving.ask("forget_attributes", serving.ino("f"))
    assert reads() == 1
    assert path.read_bytes() == b"by somebody else" * 10


def test_sequential_reads_come_in_large_pieces(kmounts: Mounts) -> None:
    serving = kmounts(passthrough=False)
    (serving.root / "large").write_bytes(os.urandom(8 * MIB))
    assert (serving.path / "large").read_bytes() == (serving.root / "large").read_bytes()
    assert serving.count("read") <= 24, "the kernel's own 128 KiB would be 64"


def test_local_content_that_is_not_in_memory(kmounts: Mounts) -> None:
    """The dispatcher does not wait for the disk: such a READ goes to a lane."""
    serving = kmounts(passthrough=False)
    data = os.urandom(4 * MIB + 77)
    local = serving.root / "cold"
    with local.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert (serving.path / "cold").read_bytes() == data


def test_appends_of_two_writers(kmounts: Mounts) -> None:
    for passthrough in (True, False):
        serving = kmounts(passthrough=passthrough)
        with (serving.path / "f").open("ab", 0) as one, (serving.path / "f").open("ab", 0) as two:
            for _ in range(5):
                one.write(b"1")
                two.write(b"2")
        assert (serving.root / "f").read_bytes()[100:] == b"12" * 5


def test_set_id_bits_go_with_a_write(kmounts: Mounts) -> None:
    for passthrough in (True, False):
        serving = kmounts(passthrough=passthrough, settings={"allow_other": True})
        os.chmod(serving.path / "f", 0o6777)
        write = f"printf x >> {serving.path / 'f'}"
        for directory in (serving.base, *serving.base.parents[:-1]):
            if not directory.stat().st_mode & stat.S_IXOTH:
                directory.chmod(directory.stat().st_mode | 0o011)  # pytest's directories are 0700
        subprocess.run(["sh", "-c", write], user=65534, group=65534, extra_groups=[], check=True)
        assert (serving.root / "f").stat().st_mode & 0o7777 == 0o777
        until("the mount's mode", lambda: (serving.path / "f").stat().st_mode & 0o7777 == 0o777)  # noqa: B023


# ------------------------------------------------------------------ the kernel's caches
def settled_listing(path: Path) -> list[str]:
    """A listing that the kernel keeps.

    opendir(3) asks for attributes, since the READDIR before it has changed the time of last
    access, and a new mtime among them would drop the listing.
    """
    assert os.listdir(path) == os.listdir(path)
    return os.listdir(path)


def test_names_and_attributes_are_asked_for_once(kmounts: Mounts) -> None:
    serving = kmounts()
    for _ in range(5):
        os.stat(serving.path / "f")
        assert not (serving.path / "missing").exists()
    assert serving.count("lookup") == 2
    serving.ask("forget_attributes", serving.ino("f"))
    os.truncate(serving.root / "f", 7)
    until("the new size", lambda: os.stat(serving.path / "f").st_size == 7)
    assert serving.count("getattr") <= 2


def test_nothing_is_kept_where_nothing_is_valid(kmounts: Mounts) -> None:
    serving = kmounts(valid_s=0)
    for expected in (1, 2, 3):
        os.stat(serving.path / "f")
        assert not (serving.path / "missing").exists()
        assert serving.count("lookup") == 2 * expected


def test_forget_name_shows_what_is_new_and_hides_what_is_gone(kmounts: Mounts) -> None:
    serving = kmounts()
    assert settled_listing(serving.path) == ["f"]
    assert not (serving.path / "new").exists()
    os.rename(serving.root / "f", serving.root / "new")
    assert (serving.path / "f").exists(), "the kernel still believes it"
    assert not (serving.path / "new").exists()
    assert os.listdir(serving.path) == ["f"]
    for name in ("f", "new"):
        serving.ask("forget_name", 1, name)
    until("the new name", lambda: (serving.path / "new").exists())
    assert not (serving.path / "f").exists()
    until("the new listing", lambda: os.listdir(serving.path) == ["new"])


def test_what_is_gone_is_given_back_though_nobody_looks_at_its_name_again(kmounts: Mounts) -> None:
    serving = kmounts()
    (serving.root / "d").mkdir()
    (serving.root / "d/deep").touch()
    numbers = {name: os.stat(serving.path / name).st_ino for name in ("f", "d", "d/deep")}
    with (serving.path / "f").open("rb") as file:
        serving.ask("forget_name", numbers["d"], "deep", True)
        for name in ("d", "f"):
            serving.ask("forget_name", 1, name, True)
        until("the rest to be given back", lambda: list(serving.ask("known")) == [str(numbers["f"])])
        assert file.read() != b"", "who has it open keeps it"
    until("the file to be given back", lambda: not serving.ask("known"))
    assert (serving.path / "f").exists(), "its name is looked up anew"


def test_who_is_in_a_directory_stays_there_when_its_name_is_told_anew(kmounts: Mounts) -> None:
    """A listing may show a directory at the moment in which a program enters it."""
    serving = kmounts()
    (serving.root / "d").mkdir()
    with subprocess.Popen(["cat"], cwd=serving.path / "d", stdin=subprocess.PIPE) as child:
        os.stat(serving.path / "f")
        asked = serving.count("lookup")
        for name in ("d", "f"):  # in this order
            serving.ask("forget_name", 1, name)
        until("f to be asked for", lambda: os.stat(serving.path / "f") and serving.count("lookup") > asked)
        assert os.readlink(f"/proc/{child.pid}/cwd") == str(serving.path / "d"), "as getcwd(2) has it"
        child.communicate(timeout=30)


def test_a_name_that_the_kernel_does_not_have_still_drops_the_listing(kmounts: Mounts) -> None:
    serving = kmounts()
    assert settled_listing(serving.path) == ["f"]
    (serving.root / "new").touch()
    assert os.listdir(serving.path) == ["f"]
    serving.ask("forget_name", 1, "new")
    until("the new listing", lambda: sorted(os.listdir(serving.path)) == ["f", "new"])


def test_forget_content_drops_pages(kmounts: Mounts) -> None:
    serving = kmounts(passthrough=False)
    with (serving.path / "f").open("rb", buffering=0) as file:
        assert file.read(5) == b"01234"
        with (serving.root / "f").open("r+b") as local:
            local.write(b"NEW")
        assert os.pread(file.fileno(), 5, 0) == b"01234"
        serving.ask("forget_content", serving.ino("f"))
        until("the new content", lambda: os.pread(file.fileno(), 5, 0) == b"NEW34")


def test_a_warm_walk_asks_nothing(kmounts: Mounts) -> None:
    serving = kmounts()
    for directory in range(5):
        (serving.root / f"d{directory}").mkdir()
        for number in range(200):
            (serving.root / f"d{directory}" / f"file {number}").touch()

    def walk() -> int:
        return sum(len(files) for _, _, files in os.walk(serving.path)) + sum(
            entry.stat().st_size for d in range(5) for entry in os.scandir(serving.path / f"d{d}")
        )

    assert [walk(), walk(), walk()] == [1001] * 3  # see settled_listing
    before = serving.ask("requests")
    assert walk() == 1001
    assert serving.ask("requests") == before
    assert "lookup" not in before, "READDIRPLUS brings the attributes along"


def test_who_reads_names_alone_gets_no_attributes(kmounts: Mounts) -> None:
    """An inode here and one in the kernel for each of a hundred thousand names that nobody looks at."""
    serving = kmounts()
    (serving.root / "d").mkdir()
    for number in range(3000):
        (serving.root / "d" / f"file {number}").touch()
    assert len(os.listdir(serving.path / "d")) == 3000
    asked = serving.ask("requests")
    assert asked["readdirplus"] <= 2, "the first page, in case that somebody looks"
    assert asked["readdir"] >= 2
    assert sum(entry.stat().st_size for entry in os.scandir(serving.path / "d")) == 0


def test_a_kept_listing_expires(kmounts: Mounts) -> None:
    """The kernel would keep it for ever."""
    serving = kmounts(valid_s=1.0)
    listed = time.monotonic()
    assert settled_listing(serving.path) == ["f"]
    (serving.root / "new").touch()
    assert os.listdir(serving.path) == ["f"]
    until("the new listing", lambda: sorted(os.listdir(serving.path)) == ["f", "new"], 5)
    assert time.monotonic() - listed >= 0.9


def test_an_empty_listing_expires_too(kmounts: Mounts) -> None:
    serving = kmounts()
    (serving.root / "empty").mkdir()
    assert settled_listing(serving.path / "empty") == []
    (serving.root / "empty" / "new").touch()
    until("the new listing", lambda: os.listdir(serving.path / "empty") == ["new"], 5)


def test_references_are_given_back_exactly(kmounts: Mounts) -> None:
    serving = kmounts()
    path = serving.path
    (path / "d").mkdir()
    (path / "d" / "made").write_bytes(b"x")
    os.symlink("d", path / "link")
    os.mknod(path / "node")
    assert sorted(os.listdir(path)) == ["d", "f", "link", "node"]
    for name in ("f", "d", "d/made", "link", "node"):
        os.lstat(path / name)
    os.rename(path / "d" / "made", path / "moved")
    os.listdir(path / "d")
    assert len(serving.ask("known")) == 5
    serving.until_released()
    for name in ("f", "d", "link", "node", "moved"):
        (os.rmdir if name == "d" else os.unlink)(serving.root / name)
        serving.ask("forget_name", 1, name)
    until(
        "the names to go",
        lambda: not any(os.path.lexists(path / name) for name in ("f", "d", "link", "node", "moved")),
    )
    # MirrorVerbs fails an assertion where more is given back than was taken
    until("every reference", lambda: serving.ask("known") == {}, 10)


def test_two_readers_of_a_directory_that_changes(kmounts: Mounts) -> None:
    serving = kmounts()
    names = {f"a name of some length, number {number}" for number in range(3000)}
    for name in names:
        (serving.root / name).touch()
    one = os.scandir(serving.path)
    seen_by_one = {next(one).name for _ in range(100)}
    for name in list(names)[::2]:
        os.unlink(serving.path / name)
    (serving.path / "later").touch()
    kept = set(list(names)[1::2])
    assert kept <= {entry.name for entry in os.scandir(serving.path)} <= kept | {"f", "later"}
    seen_by_one |= {entry.name for entry in one}
    assert kept <= seen_by_one <= names | {"f", "later"}


# ------------------------------------------------------------------ requests that wait
Reader = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def reader(kmounts: Mounts) -> Iterator[Reader]:
    """`reader(path, before)`: a process that runs `before`, reads the file, and prints what it got.

    With O_DIRECT it waits for its own READ; else for a page, which others may be waiting for too.
    """
    made: list[subprocess.Popen[bytes]] = []

    def make(path: Path, before: str = "") -> subprocess.Popen[bytes]:
        code = f"import os, signal, sys; {before}\nfd = os.open(sys.argv[1], os.O_DIRECT); os.write(1, os.read(fd, 10))"
        command = [sys.executable, "-I", "-S", "-c", code, str(path)]
        made.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        return made[-1]

    yield make
    for process in made:
        process.kill()
        process.communicate(timeout=10)


def test_stuck_reads_hold_nothing_else_up(kmounts: Mounts) -> None:
    names = [f"stuck{number}" for number in range(FETCH_THREADS + 10)]
    serving = kmounts(stream=names)
    for name in names:
        (serving.root / name).write_bytes(b"at last")
    serving.ask("stick", *names)
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda n=name: got.append((serving.path / n).read_bytes()), daemon=True)
        for name in names
    ]
    for thread in threads:
        thread.start()
    until("all of them wait", lambda: serving.ask("waiting") >= len(names))
    (serving.path / "written").write_bytes(b"x" * 100_000)
    with (serving.path / "written").open("r+b") as file:
        os.fsync(file.fileno())
    assert (serving.path / "f").read_bytes() == b"0123456789" * 10
    assert len(os.listdir(serving.path)) == len(names) + 2
    os.mkdir(serving.path / "d")
    os.rename(serving.path / "d", serving.path / "e")
    assert got == []
    serving.ask("unstick", *names)
    for thread in threads:
        thread.join(20)
    assert got == [b"at last"] * len(names)


def test_a_killed_reader_dies_at_once(kmounts: Mounts, reader: Reader) -> None:
    serving = kmounts(stream=["f"])
    serving.ask("stick", "f")
    waiting = reader(serving.path / "f")
    until("the read waits", lambda: serving.ask("waiting") > 0)
    waiting.kill()
    assert waiting.wait(10) == -signal.SIGKILL
    until("its file is closed", lambda: serving.ask("handles") == 0)


def test_a_reader_that_is_not_served_yet_can_be_killed(kmounts: Mounts, reader: Reader) -> None:
    """It waits behind others that the lane is full of."""
    names = [f"stuck{number}" for number in range(FETCH_THREADS + 1)]
    serving = kmounts(stream=names)
    for name in names:
        (serving.root / name).write_bytes(b"x")
    serving.ask("stick", *names)
    readers = [threading.Thread(target=(serving.path / name).read_bytes, daemon=True) for name in names[:-1]]
    for thread in readers:
        thread.start()
    until("the lane is full", lambda: serving.ask("waiting") >= FETCH_THREADS)
    last = reader(serving.path / names[-1])
    until("one more waits", lambda: serving.ask("waiting") > FETCH_THREADS)
    last.kill()
    assert last.wait(10) == -signal.SIGKILL
    serving.ask("unstick", *names)
    for thread in readers:
        thread.join(20)


def test_a_harmless_signal_ends_nothing(kmounts: Mounts, reader: Reader) -> None:
    """Programs do not expect EINTR from a file; but one that was signalled before can be killed."""
    serving = kmounts(stream=["f"])
    serving.ask("stick", "f")
    handled = "signal.signal(signal.SIGUSR1, lambda *a: None)"
    one, two = (reader(serving.path / "f", handled) for _ in range(2))
    until("both reads wait", lambda: serving.count("open") == 2 and serving.ask("waiting") > 0)
    for process in (one, two):
        process.send_signal(signal.SIGUSR1)
    until("INTERRUPT", lambda: serving.count("interrupt") >= 1)
    two.kill()
    assert two.wait(10) == -signal.SIGKILL
    serving.ask("unstick", "f")
    assert one.communicate(timeout=10)[0] == b"0123456789"
    assert one.returncode == 0


# ------------------------------------------------------------------ the mount itself
def test_options_of_the_mount(kmounts: Mounts) -> None:
    serving = kmounts(settings={"allow_other": True, "noexec": True})
    mounted = kmount.mounted_at(str(serving.path))
    assert mounted is not None
    assert (mounted.fstype, mounted.source) == ("fuse.r2fs", f"file://{serving.root}")
    line = next(
        text for text in Path("/proc/self/mountinfo").read_text().splitlines() if str(serving.path) in text
    )
    for option in ("nosuid", "nodev", "noexec", "default_permissions", "allow_other"):
        assert option in line
    knob = Path("/sys/class/bdi", mounted.device, "read_ahead_kb")
    assert knob.read_text().strip() == "1024"


def test_read_only(kmounts: Mounts) -> None:
    serving = kmounts(settings={"read_only": True})
    assert (serving.path / "f").read_bytes()[:3] == b"012"
    with pytest.raises(OSError) as caught:
        (serving.path / "new").touch()
    assert caught.value.errno == errno.EROFS


def test_what_was_negotiated(kmounts: Mounts) -> None:
    flags = kmounts().ask("flags")
    for wanted in (Init.PASSTHROUGH, Init.PARALLEL_DIROPS, Init.NO_OPENDIR_SUPPORT, Init.READDIRPLUS_AUTO):
        assert flags & wanted
    for unwanted in (Init.WRITEBACK_CACHE, Init.AUTO_INVAL_DATA, Init.POSIX_LOCKS):
        assert not flags & unwanted


def test_unmount_is_refused_while_in_use(kmounts: Mounts) -> None:
    serving = kmounts()
    with (serving.path / "f").open("rb") as file:
        with pytest.raises(CommandFailed, match=r"Busy: .*in use"):
            serving.ask("unmount")
        serving.ask("unmount", True)
        assert kmount.mounted_at(str(serving.path)) is None
        assert file.read(3) == b"012", "lazily: open files stay"
    assert serving.wait() == 0


def test_an_aborted_connection_ends_the_daemon(kmounts: Mounts) -> None:
    serving = kmounts(stream=["f"])
    with (serving.path / "f").open("rb") as file:
        serving.abort()
        assert serving.wait() == 0
        with pytest.raises(OSError) as caught:
            os.pread(file.fileno(), 10, 0)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: path.rmdir(), "MountPointBad.*does not exist"),
        (lambda path: (path.rmdir(), path.touch()), "MountPointBad.*not a directory"),
        (lambda path: (path / "x").touch(), "MountPointBad.*not empty"),
    ],
    ids=["missing", "a file", "not empty"],
)
def test_bad_mount_points(kmounts: Mounts, prepare: Callable[[Path], object], says: str) -> None:
    serving = kmounts(start=False)
    prepare(serving.path)
    serving.launch()
    assert serving.wait() == 1
    assert re.search(says, serving.log())
    serving.allowed.append("Traceback")  # of the test's own daemon
    if serving.path.is_file():
        serving.path.unlink()


# ------------------------------------------------------------------ an ordinary user
PRIVATE_DEVICE = f"""
set -e
mount --make-rprivate /
{WITHOUT_OTHER_MOUNTS}
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
echo user_allow_other > "$1/fuse.conf"
mount --bind "$1/fuse.conf" /etc/fuse.conf
shift
exec "$@"
"""
AS_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]


def test_an_ordinary_user(kmounts: Mounts, tmp_path: Path) -> None:
    """Mounted by fusermount3, without passthrough. In a mount namespace where /dev/fuse lets users in."""
    for program in ("unshare", "setpriv", "fusermount3"):
        if subprocess.run(["which", program], capture_output=True).returncode:
            pytest.skip(f"{program} is not installed")
    probe = [*AS_NOBODY, sys.executable, "-c", "import tests.mount.kernel_daemon"]
    if subprocess.run(probe, cwd=REPO, capture_output=True).returncode:
        pytest.skip("an ordinary user may not read this Python or this repository")
    command = ("unshare", "-m", "sh", "-c", PRIVATE_DEVICE, "sh", str(tmp_path), *AS_NOBODY)
    serving = kmounts(command, start=False, settings={"allow_other": True})
    for directory in (tmp_path, *tmp_path.parents[:-1]):
        if not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(directory.stat().st_mode | 0o011)
    for path in (serving.base, serving.root, serving.path, serving.root / "f"):
        os.chown(path, 65534, 65534)
    serving.launch()
    path = Path(f"/proc/{serving.pid}/root{serving.path}")

    def answers() -> bool:
        assert serving.child.poll() is None, serving.log()
        try:
            return (path / "f").exists()
        except PermissionError:
            return False

    until("the mount", answers)
    with (path / "f").open("r+b", buffering=0) as file:
        assert file.read(10) == b"0123456789"
        file.write(b"abc")
        assert serving.ask("modes")[0]["mode"] == "cached"
        assert "CAP_SYS_ADMIN" in serving.ask("modes")[0]["why"]
    assert (serving.root / "f").read_bytes()[10:14] == b"abc3"
    assert serving.stop() == 0


# ------------------------------------------------------------------ take-over
def test_another_driver_takes_the_session_over(kmounts: Mounts, reader: Reader) -> None:
    serving = kmounts(stream=["plain", "stuck"])
    for name in ("plain", "stuck"):
        (serving.root / name).write_bytes(b"0123456789" * 10)
    serving.ask("stick", "stuck")
    directory = os.open(serving.path, os.O_RDONLY | os.O_DIRECTORY)
    passed = (serving.path / "f").open("r+b", buffering=0)
    plain = (serving.path / "plain").open("r+b", buffering=0)
    assert plain.read(10) == b"0123456789"
    in_flight = reader(serving.path / "stuck")
    until("a read is in flight", lambda: serving.ask("waiting") > 0)
    serving.ask("take_over")
    # open files go on, in the mode that they have
    assert passed.read(3) == b"012"
    passed.write(b"new")
    assert os.fstat(passed.fileno()).st_size == 100
    plain.write(b"NEW")
    os.fsync(plain.fileno())
    assert os.pread(plain.fileno(), 5, 9) == b"9NEW3"
    # a request that the first one left comes again
    serving.ask("unstick", "stuck")
    assert in_flight.communicate(timeout=10)[0] == b"0123456789"
    # further opens fit the mode of those from before
    for name in ("f", "plain"):
        with (serving.path / name).open("r+b", buffering=0) as again:
            again.read(1)
    serving.ask("stream")
    with (serving.path / "plain").open("rb", buffering=0) as again:
        assert again.read(1) == b"0"
    assert sorted(os.listdir(directory)) == ["f", "plain", "stuck"]
    (serving.path / "made").write_bytes(b"after")
    for file in (passed, plain):
        file.close()
    os.close(directory)
    assert (serving.root / "f").read_bytes()[:7] == b"012new6"
    assert (serving.root / "plain").read_bytes()[10:14] == b"NEW3"
    assert serving.stop() == 0
