"""What the kernel does with passthrough: the rules that r2fs/drivers/kernel/passthrough.py obeys.

These document the protocol, and notice when a kernel changes. Opens are granted as each test
says, however wrong, by kernel_daemon.ScriptedModes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from r2fs.drivers import kmount
from r2fs.drivers.kernel.wire import Init
from tests.mount.daemons import until
from tests.mount.kernel_rig import CommandFailed, KernelMount

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse"),
    pytest.mark.skipif(not kmount.privileged(), reason="passthrough needs CAP_SYS_ADMIN"),
]

Mounts = Callable[..., KernelMount]


@pytest.fixture
def kmounts(tmp_path: Path) -> Iterator[Mounts]:
    """`kmounts(script=[…], …)`: a mount with a file `f` in it, of 100 bytes."""
    made: list[KernelMount] = []

    def make(**options: Any) -> KernelMount:
        base = tmp_path / f"m{len(made)}"
        base.mkdir()
        serving = KernelMount(base, **{"script": [], **options})
        made.append(serving)
        (serving.root / "f").write_bytes(b"0123456789" * 10)
        serving.start()
        return serving

    yield make
    for serving in made:
        serving.end()


def opened(path: Path, flags: int = os.O_RDWR) -> int | None:
    """A descriptor, or None where the kernel says EIO."""
    try:
        return os.open(path, flags)
    except OSError as e:
        if e.errno != errno.EIO:
            raise
        return None


@contextmanager
def mapped(fd: int, length: int) -> Iterator[memoryview]:
    """A shared mapping that holds no descriptor: mmap.mmap would keep a duplicate open."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    try:
        yield memoryview((ctypes.c_char * length).from_address(address)).cast("B")
    finally:
        libc.munmap(address, length)


# ------------------------------------------------------------------ which modes go together
SECOND = ("cached", "keep", "direct", "pt", "direct+pt", "another id")
ALLOWED = {
    "cached": {"cached", "keep", "direct"},
    "keep": {"cached", "keep", "direct"},
    "direct": {"cached", "keep", "direct", "pt", "direct+pt"},
    "pt": {"pt", "direct+pt"},
    "direct+pt": {"pt", "direct+pt"},
}


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelMount]:
    serving = KernelMount(tmp_path_factory.mktemp("scripted"), script=[])
    try:
        serving.start()
        yield serving
    finally:
        serving.end()


@pytest.mark.parametrize("first", ALLOWED)
@pytest.mark.parametrize("second", SECOND)
def test_a_second_open_while_the_first_is_held(scripted: KernelMount, first: str, second: str) -> None:
    name = f"{first}, {second}"
    (scripted.root / name).write_bytes(b"content")
    scripted.ask("script", first, second)
    one = os.open(scripted.path / name, os.O_RDWR)
    two = opened(scripted.path / name)
    allowed = ALLOWED[first] | ({"another id"} if first == "direct" else set())
    assert (two is not None) == (second in allowed)
    os.close(one)
    if two is not None:
        assert os.pread(two, 20, 0) == b"content"
        os.close(two)


def test_the_mode_is_free_again_after_the_last_close(scripted: KernelMount) -> None:
    (scripted.root / "again").write_bytes(b"x")
    for mode in ("cached", "pt", "cached", "direct", "pt"):
        scripted.ask("script", mode)
        os.close(os.open(scripted.path / "again", os.O_RDWR))
        scripted.until_released()


def test_passthrough_never_keeps_pages(kmounts: Mounts) -> None:
    serving = kmounts(script=["pt+keep"])
    assert opened(serving.path / "f") is None


def test_a_closed_backing_id_serves_open_handles_only(kmounts: Mounts) -> None:
    serving = kmounts(script=["pt", "pt"])
    one = os.open(serving.path / "f", os.O_RDWR)
    serving.ask("unregister")
    assert os.pread(one, 4, 0) == b"0123"
    assert os.pwrite(one, b"abc", 0) == 3
    assert opened(serving.path / "f") is None
    os.close(one)
    assert (serving.root / "f").read_bytes()[:5] == b"abc34"


def test_shared_mapping_of_a_direct_file_forbids_passthrough(kmounts: Mounts) -> None:
    """The daemon cannot see the mapping: so a file that is still coming is not opened DIRECT_IO."""
    serving = kmounts(script=["direct", "pt", "direct", "pt"])
    one = os.open(serving.path / "f", os.O_RDWR)
    with mapped(one, 10):
        assert opened(serving.path / "f") is None
    os.close(one)
    serving = kmounts(script=["direct", "pt"], unwanted=int(Init.DIRECT_IO_ALLOW_MMAP))
    one = os.open(serving.path / "f", os.O_RDWR)
    with pytest.raises(OSError) as caught, mapped(one, 10):
        pass
    assert caught.value.errno == errno.ENODEV
    two = os.open(serving.path / "f", os.O_RDWR)
    os.close(one)
    os.close(two)


# ------------------------------------------------------------------ what may be registered
@pytest.mark.parametrize("registered_as", [os.O_RDONLY, os.O_WRONLY, os.O_PATH], ids=["ro", "wo", "path"])
def test_the_kernel_opens_the_registered_file_again(kmounts: Mounts, registered_as: int) -> None:
    serving = kmounts(script=["pt"] * 9, registered_as=registered_as)
    path = serving.path / "f"
    with path.open("r+b", buffering=0) as file:
        assert file.read(3) == b"012"
        file.write(b"XY")
    with path.open("ab") as file:
        file.write(b"tail")
    assert path.read_bytes() == b"012XY" + b"0123456789"[5:] + b"0123456789" * 9 + b"tail"
    with path.open("wb"):  # O_TRUNC
        pass
    assert (serving.root / "f").read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"stack_depth": 1}, None),
        ({"stack_depth": 2}, None),
        ({"stack_depth": 0}, errno.EPERM),
        ({"stack_depth": 3}, errno.EPERM),
        ({"wanted": int(Init.WRITEBACK_CACHE)}, errno.EPERM),
    ],
    ids=["depth 1", "depth 2", "depth 0", "depth 3", "writeback"],
)
def test_what_INIT_must_say(kmounts: Mounts, options: dict[str, int], code: int | None) -> None:
    serving = kmounts(**options)
    assert serving.ask("flags") & Init.PASSTHROUGH, "offered in any case"
    if code is None:
        assert serving.ask("register", str(serving.root / "f")) > 0
        return
    with pytest.raises(CommandFailed) as caught:
        serving.ask("register", str(serving.root / "f"))
    assert caught.value.errno == code


@pytest.mark.parametrize(("depth", "code"), [(1, errno.ELOOP), (2, None)])
def test_overlayfs_costs_one_more_level(
    kmounts: Mounts, tmp_path: Path, depth: int, code: int | None
) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "below").write_bytes(b"x")
    (tmp_path / "upper" / "above").write_bytes(b"x")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    made = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"no overlayfs here: {made.stderr.decode().strip()}")
    try:
        assert kmount.file_system_of(tmp_path / "merged") == "overlay"
        serving = kmounts(stack_depth=depth)
        if code is None:
            assert serving.ask("register", str(tmp_path / "merged" / "below")) > 0
        else:
            with pytest.raises(CommandFailed) as caught:
                serving.ask("register", str(tmp_path / "merged" / "below"))
            assert caught.value.errno == code
        serving.end()
    finally:
        subprocess.run(["umount", "-l", tmp_path / "merged"], check=True)


# ------------------------------------------------------------------ what still reaches the daemon
def fadvise(fd: int, serving: KernelMount) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)


def seek_data(fd: int, serving: KernelMount) -> None:
    os.lseek(fd, 0, os.SEEK_DATA)


def isatty(fd: int, serving: KernelMount) -> None:
    assert not os.isatty(fd)


def copy_range(fd: int, serving: KernelMount) -> None:
    serving.ask("script", "pt")
    other = os.open(serving.path / "copy", os.O_WRONLY | os.O_CREAT)
    assert os.copy_file_range(fd, other, 100) == 100  # through us: between local files
    os.close(other)
    assert (serving.root / "copy").stat().st_size == 100


def truncate(fd: int, serving: KernelMount) -> None:
    os.ftruncate(fd, 50)
    assert os.fstat(fd).st_size == 50


@pytest.mark.parametrize(
    ("what", "requests"),
    [
        (lambda fd, serving: os.pread(fd, 100, 0), {}),
        (lambda fd, serving: os.pwrite(fd, b"x" * 5000, 0), {}),
        (lambda fd, serving: os.fsync(fd), {"fsync": 1}),
        (lambda fd, serving: os.fdatasync(fd), {"fsync": 1}),
        (lambda fd, serving: os.posix_fallocate(fd, 0, 9000), {"fallocate": 1}),
        (seek_data, {"lseek": 1}),
        (truncate, {"setattr": 1}),
        (isatty, {"ioctl": 1}),
        (fadvise, {"read": 1}),
        (copy_range, {"copy_file_range_64": 1, "create": 1}),
        (lambda fd, serving: os.close(os.dup(fd)), {"flush": 1}),
    ],
    ids=[
        "read",
        "write",
        "fsync",
        "fdatasync",
        "fallocate",
        "lseek",
        "ftruncate",
        "isatty",
        "fadvise",
        "copy_file_range",
        "dup-close",
    ],
)
def test_requests_of_a_passthrough_file(
    kmounts: Mounts, what: Callable[[int, KernelMount], None], requests: dict[str, int]
) -> None:
    serving = kmounts(script=["pt"])
    fd = os.open(serving.path / "f", os.O_RDWR)
    before = serving.ask("requests")
    what(fd, serving)
    # attributes, and the capability that a write may have to drop, are asked for along the way
    ignored = {"getattr", "getxattr", "lookup", "flush", "release"} - requests.keys()

    def sent() -> dict[str, int]:
        after = serving.ask("requests")
        return {name: n - before.get(name, 0) for name, n in after.items() if name not in ignored}

    if "copy_file_range_64" not in serving.ask("requests"):  # before 7.45
        requests = {name.removesuffix("_64"): n for name, n in requests.items()}
    # fadvise does not wait for its READ
    until(f"{requests}, not {sent()}", lambda: {name: n for name, n in sent().items() if n} == requests)
    os.close(fd)


def test_stat_after_passthrough_io_asks_once(kmounts: Mounts) -> None:
    """However long attributes are valid. Size and times come from the answer, so it must be right."""
    serving = kmounts(script=["pt"])
    fd = os.open(serving.path / "f", os.O_RDWR)
    for io in (lambda: os.pread(fd, 1, 0), lambda: os.pwrite(fd, b"x" * 300, 0)):
        io()
        before = serving.count("getattr")
        for _ in range(3):
            os.fstat(fd)
        assert serving.count("getattr") == before + 1
    assert os.fstat(fd).st_size == 300
    assert os.lseek(fd, 0, os.SEEK_END) == 300
    os.close(fd)


def test_release_does_not_wait_for_a_mapping(kmounts: Mounts) -> None:
    serving = kmounts(script=["pt"])
    fd = os.open(serving.path / "f", os.O_RDWR)
    with mapped(fd, 100) as mapping:
        os.close(fd)
        until("RELEASE", lambda: serving.count("release") >= 1)
        before = serving.ask("requests")
        mapping[:5] = b"HELLO"
        assert (serving.root / "f").read_bytes()[:7] == b"HELLO56"
        assert serving.ask("requests") == before


def lease(path: Path) -> bool:
    """Is a read lease granted, that is: does nobody have the file open for writing?"""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def test_a_read_lease_sees_writers_and_mappings(kmounts: Mounts) -> None:
    serving = kmounts(script=["pt"] * 9)
    path, local = serving.path / "f", serving.root / "f"
    if not lease(local):
        pytest.skip("no leases on this file system")
    reader = os.open(path, os.O_RDONLY)
    assert lease(local)
    writer = os.open(path, os.O_RDWR)
    assert not lease(local)
    with mapped(writer, 100):
        os.close(writer)
        until("the writer's release", lambda: serving.ask("handles") == 1)
        assert not lease(local), "a writable mapping outlives close()"
    os.close(reader)
    serving.until_released()
    until("the lease", lambda: lease(local))


def test_a_registered_descriptor_that_may_write_is_a_writer(kmounts: Mounts) -> None:
    for registered_as, granted in ((os.O_PATH, True), (os.O_RDONLY, True), (os.O_RDWR, False)):
        serving = kmounts(script=["pt"], registered_as=registered_as)
        fd = os.open(serving.path / "f", os.O_RDONLY)
        assert lease(serving.root / "f") == granted
        os.close(fd)


def test_the_backing_file_may_lose_its_name(kmounts: Mounts) -> None:
    serving = kmounts(script=["pt"])
    fd = os.open(serving.path / "f", os.O_RDWR)
    os.unlink(serving.root / "f")
    assert os.pread(fd, 3, 0) == b"012"
    assert os.pwrite(fd, b"ab", 0) == 2
    assert os.pread(fd, 3, 0) == b"ab2"
    os.close(fd)


def test_open_files_outlive_the_daemon(kmounts: Mounts) -> None:
    serving = kmounts(script=["pt"])
    fd = os.open(serving.path / "f", os.O_RDWR)
    with mapped(fd, 100) as mapping:
        os.kill(serving.pid, signal.SIGKILL)
        serving.wait()
        assert os.pwrite(fd, b"still", 0) == 5
        assert os.pread(fd, 7, 0) == b"still56"
        mapping[:3] = b"map"
    assert (serving.root / "f").read_bytes()[:5] == b"mapll"
    for gone in (lambda: os.stat(serving.path / "f"), lambda: os.fsync(fd), lambda: os.close(fd)):
        with pytest.raises(OSError) as caught:
            gone()
        assert caught.value.errno == errno.ENOTCONN
