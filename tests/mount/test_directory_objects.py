"""Objects that hold bytes at the key of a directory, by the programs that meet them."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.mount.daemons import BucketMount, until
from tests.support.strict import StrictR2

BYTES = b"another tool's" * 1000
NAME = ".r2fs-directory-object"


def test_no_program_loses_its_bytes(r2: StrictR2, main_driver: str, tmp_path: Path) -> None:
    for key, data in (("d/", BYTES), ("d/file", b"x"), ("top/a/", BYTES)):
        r2.bucket.set(key, data)
    mount = BucketMount(tmp_path, main_driver, r2.endpoint, "", freshness="0.2s", upload_delay="0.1s")
    mount.allowed = ["at the key of a directory"]
    try:
        mount.start()
        path = mount.path
        assert subprocess.run(["cat", path / "d" / NAME], capture_output=True, check=True).stdout == BYTES
        with pytest.raises(PermissionError):
            os.unlink(path / "d" / NAME)
        with pytest.raises(PermissionError):
            (path / "d" / NAME).write_bytes(b"")
        os.chmod(path / "d", 0o700)
        os.utime(path / "d", (1, 1))
        os.rename(path / "top", path / "moved")
        removed = subprocess.run(["rm", "-r", path / "d"], capture_output=True, check=False)
        assert removed.returncode == 1
        assert b"not empty" in removed.stderr
        with pytest.raises(OSError) as caught:
            os.rmdir(path / "moved" / "a")
        assert caught.value.errno == errno.ENOTEMPTY
        mount.flush()
        until("the bytes", lambda: r2.bucket.keys() == ["d/", "moved/a/"], 10.0)
        assert r2.bucket.data("d/") == r2.bucket.data("moved/a/") == BYTES
        queue = mount.status()["queue"]
        assert {found["key"] for found in queue["directory_objects"]} == {"d/", "moved/a/"}
        assert mount.stop() == 0
    finally:
        mount.end()
        for key in list(r2.bucket.objects):
            r2.bucket.remove(key)
    assert mount.complaints() == []
