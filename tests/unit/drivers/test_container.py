"""In a container no module can be loaded: the remedy is the container's."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from r2fs.drivers import container, kmount
from r2fs.model.errors import FuseMissing


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(container, "ROOT", tmp_path)
    for name in container.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
    return tmp_path


@pytest.mark.parametrize(
    "sign",
    [
        ".dockerenv",
        "run/.containerenv",
        "run/systemd/container",
        "cgroup",
        "container",
        "KUBERNETES_SERVICE_HOST",
    ],
)
def test_a_container_is_told_its_own_remedy(root, monkeypatch, sign):
    assert container.fuse_remedy() == "load the kernel module fuse (modprobe fuse)"
    if sign == "cgroup":
        (root / "proc/self/cgroup").write_text("12:pids:/docker/0123\n")
    elif sign in container.VARIABLES:
        monkeypatch.setenv(sign, "x")
    else:
        (root / sign).parent.mkdir(parents=True, exist_ok=True)
        (root / sign).touch()
    assert "--device /dev/fuse --cap-add SYS_ADMIN" in container.fuse_remedy()
    assert "modprobe" not in container.fuse_remedy()


def test_every_error_that_lacks_the_device_says_it(root, monkeypatch):
    (root / ".dockerenv").touch()
    monkeypatch.setattr(kmount, "DEVICE", str(root / "nothing"))
    with pytest.raises(FuseMissing, match="--device /dev/fuse"):
        kmount.check_possible()
    assert "--device /dev/fuse" in str(kmount._mount_error("/mnt", errno.ENODEV))
    said = str(kmount._helper_error("/mnt", "fusermount3: fuse device not found, try 'modprobe fuse' first"))
    assert "modprobe" not in said
    assert "--device /dev/fuse" in said
