from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from r2fs.drivers import container, kmount
from r2fs.model.errors import Busy, FuseMissing, MountError, MountPointBad, MountPointStale


def test_mounts_are_read_as_the_kernel_writes_them() -> None:
    root = kmount.mounted_at("/")
    assert root is not None
    assert root.fstype
    assert any(m.path == "/proc" and m.fstype == "proc" for m in kmount.mounts())
    assert kmount.mounted_at("/no/such/mount") is None


def test_octal_escapes() -> None:
    assert kmount._plain(r"a\040b\011c\012d\134e") == "a b\tc\nd\\e"
    assert kmount._plain(r"a\134040b") == r"a\040b", "each escape once"


def test_the_file_system_of_a_path(tmp_path: Path) -> None:
    assert kmount.file_system_of(Path("/proc")) == "proc"
    assert kmount.file_system_of(tmp_path / "missing") == ""


def test_values_in_a_list_of_options() -> None:
    assert kmount._escaped("s3://bucket/a,b\\c/") == "s3://bucket/a\\,b\\\\c/"


@pytest.fixture(autouse=True)
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "is_one", lambda: False)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.EBUSY, Busy, "in use"),
        (errno.ENOTCONN, MountPointStale, "umount -l"),
        (errno.EPERM, FuseMissing, "root"),
        (errno.ENODEV, FuseMissing, "modprobe"),
        (errno.EINVAL, MountPointBad, "mount point"),
        (errno.ENOENT, MountPointBad, "No such file"),
    ],
)
def test_errors_of_mount(code: int, kind: type[Exception], says: str) -> None:
    error = kmount._mount_error("/mnt/point", code)
    assert type(error) is kind
    assert says in str(error)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fusermount3: failed to unmount /mnt: Device or resource busy", Busy),
        ("fusermount3: bad mount point /mnt: Transport endpoint is not connected", MountPointStale),
        (
            "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
            MountError,
        ),
        ("fusermount3: failed to open /dev/fuse: Permission denied", FuseMissing),
        ("fusermount3: fuse device not found, try 'modprobe fuse' first", FuseMissing),
        ("fusermount3: entry for /mnt not found in /etc/mtab", MountPointBad),
    ],
)
def test_errors_of_the_helper(text: str, kind: type[Exception]) -> None:
    error = kmount._helper_error("/mnt", text)
    assert type(error) is kind
    assert "fusermount3: " not in str(error)


def test_without_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kmount, "DEVICE", str(tmp_path / "fuse"))
    with pytest.raises(FuseMissing, match="modprobe fuse"):
        kmount.check_possible()


def test_without_a_helper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fuse").touch()
    monkeypatch.setattr(kmount, "DEVICE", str(tmp_path / "fuse"))
    monkeypatch.setattr(kmount, "privileged", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FuseMissing, match="fuse3"):
        kmount.check_possible()
    with pytest.raises(FuseMissing, match="fuse3"):
        kmount.unmount(str(tmp_path))


def test_unmounting_what_is_not_mounted(tmp_path: Path) -> None:
    if not kmount.privileged():
        pytest.skip("fusermount3 has its own words")
    with pytest.raises(MountPointBad):
        kmount.unmount(os.fspath(tmp_path))


def test_a_mount_point_that_became_another_directory_is_not_mounted_on(tmp_path: Path) -> None:
    """Who may rename a directory on the way puts a link in its place, after it was looked at."""
    (tmp_path / "home" / "mnt").mkdir(parents=True)
    (tmp_path / "etc" / "mnt").mkdir(parents=True)
    path = str(tmp_path / "home" / "mnt")
    with kmount._pinned(path) as at:
        assert os.path.samefile(at, path)
    (tmp_path / "home").rename(tmp_path / "away")
    (tmp_path / "home").symlink_to("etc")
    with (
        pytest.raises(MountPointBad, match=r"has become .*/etc/mnt while it was looked at"),
        kmount._pinned(path),
    ):
        pass
    (tmp_path / "home").unlink()
    with pytest.raises(MountPointBad, match="No such file"), kmount._pinned(path):
        pass
    assert not any(m.path.startswith(str(tmp_path)) for m in kmount.mounts())


def test_the_mount_that_a_path_lies_in(monkeypatch: pytest.MonkeyPatch) -> None:
    of = [("/m", "fuse.r2fs", 1000), ("/m/inner", "fuse.r2fs", 0), ("/mm", "ext4", None)]
    monkeypatch.setattr(
        kmount, "mounts", lambda: [kmount.Mounted(p, "0:1", f, "s3://b", u) for p, f, u in of]
    )
    found = {path: kmount.mount_over(path) for path in ("/m", "/m/a/b", "/m/inner/x", "/mm", "/", "/mx")}
    assert {path: m and m.user for path, m in found.items()} == {
        "/m": 1000, "/m/a/b": 1000, "/m/inner/x": 0, "/mm": None, "/": None, "/mx": None,
    }  # fmt: skip
    assert kmount._user("rw,user_id=1000,group_id=5") == 1000
    assert kmount._user("rw,relatime") is None
