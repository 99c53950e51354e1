"""S14: a user's mount with what `r2fs grant` prints, by R2's rules of a token: its signatures, its prefix, its scope."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2fs import client
from tests.mount.daemons import BucketMount, end_all
from tests.support.commands import run_r2fs
from tests.support.servers import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.support.strict import StrictR2

ACCOUNT = "0123456789abcdef0123456789abcdef"
GrantedMount = Callable[..., BucketMount]


@pytest.fixture
def r2() -> Iterator[StrictR2]:
    """Each request with a token is judged by the token."""
    with StrictR2(write_interval_s=0) as server:
        server.parents = {ACCESS_KEY: SECRET_KEY}
        server.tokens_only = True
        for name in ("anna", "annabel"):
            server.bucket.set(f"users/{name}/a.txt", name.encode())
        yield server
    assert server.faults == []


def variables(home: Path, *options: str) -> dict[str, str]:
    """The variables that `r2fs grant users/anna` prints for a shell; the parent's key is that command's alone."""
    parent = {"R2_ACCOUNT_ID": ACCOUNT, "R2_ACCESS_KEY_ID": ACCESS_KEY, "R2_SECRET_ACCESS_KEY": SECRET_KEY}
    where = f"r2://{BUCKET}/users/anna"
    done = run_r2fs({**os.environ, "HOME": str(home), **parent}, "grant", where, "--json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)["variables"]
    return found


@pytest.fixture
def granted_mount(r2: StrictR2, run_dir: Path, tmp_path: Path) -> Iterator[GrantedMount]:
    """A mount of `prefix` with granted variables in place of a permanent key."""
    made: list[BucketMount] = []

    def make(found: dict[str, str], prefix: str = "users/anna/") -> BucketMount:
        base = tmp_path / f"m{len(made)}"
        base.mkdir()
        parts = {"multipart_threshold": "8MiB", "part_size": "5MiB"}
        mount = BucketMount(base, "kernel", r2.endpoint, prefix, run_dir=run_dir, upload_delay="0s", **parts)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del mount._environment[name]
        mount._environment |= found
        made.append(mount)
        return mount

    yield make
    end_all(made)


def test_s14_a_granted_prefix_is_all_that_a_mount_needs(
    granted_mount: GrantedMount, r2: StrictR2, tmp_path: Path
):
    """Everything below the prefix, by every kind of request; no request is refused, and the neighbour's stays."""
    mount = granted_mount(variables(tmp_path))
    mount.start()
    assert (mount.path / "a.txt").read_bytes() == b"anna"
    (mount.path / "new").mkdir()
    for number in range(20):
        (mount.path / f"new/{number} ü.txt").write_bytes(b"%d" % number)
    (mount.path / "large.bin").write_bytes(os.urandom(12 << 20))
    client.wait(mount.path, timeout_s=60)
    (mount.path / "large.bin").rename(mount.path / "renamed.bin")
    (mount.path / "a.txt").chmod(0o600)
    client.wait(mount.path, timeout_s=60)
    shutil.rmtree(mount.path / "new")
    client.delete(mount.path / "a.txt")
    client.wait(mount.path, timeout_s=60)
    assert mount.r2fs("rm", "-r", "--yes", mount.path / "renamed.bin").returncode == 0
    (mount.path / "last.txt").write_bytes(b"last")
    assert mount.stop() == 0
    assert r2.bucket.keys() == ["users/anna/last.txt", "users/annabel/a.txt"]
    assert {
        code: count for code, count in r2.refusals.items() if code in ("AccessDenied", "Unauthorized")
    } == {}


def test_s14_what_a_grant_to_read_does_not_write(granted_mount: GrantedMount, r2: StrictR2, tmp_path: Path):
    """`--ro`: the bucket refuses, whatever the mount was told; what was written stays on this host."""
    mount = granted_mount(variables(tmp_path, "--ro"))
    mount.allowed = [" WARNING ", " ERROR "]
    mount.start()
    assert (mount.path / "a.txt").read_bytes() == b"anna"
    (mount.path / "b.txt").write_bytes(b"mine")
    with pytest.raises(client.AccessDenied):
        client.wait(mount.path / "b.txt", timeout_s=30)
    assert (mount.path / "b.txt").read_bytes() == b"mine"
    assert r2.bucket.keys() == ["users/anna/a.txt", "users/annabel/a.txt"]
    mount.kill()


def test_s14_a_mount_takes_the_next_grant_of_its_command(
    granted_mount: GrantedMount, r2: StrictR2, tmp_path: Path
):
    """A profile's `credential_process`: the first grant ends, with its parent key, and the mount signs with the next."""
    current, config = tmp_path / "current.json", tmp_path / "aws-config"
    config.write_text(f"[profile studio]\ncredential_process = cat {current}\n")

    def give(parent: str) -> None:
        keys = {"R2_ACCOUNT_ID": ACCOUNT, "R2_ACCESS_KEY_ID": parent, "R2_SECRET_ACCESS_KEY": SECRET_KEY}
        words = ("grant", f"r2://{BUCKET}/users/anna", "--credential-process", "--ttl", "5m")
        done = run_r2fs({**os.environ, "HOME": str(tmp_path), **keys}, *words)
        assert done.returncode == 0, done.stderr
        current.write_text(done.stdout)
        r2.keys, r2.parents = {parent: None}, {parent: SECRET_KEY}

    give(ACCESS_KEY)
    mount = granted_mount({"AWS_PROFILE": "studio", "AWS_CONFIG_FILE": str(config)})
    mount.start()
    (mount.path / "one.txt").write_bytes(b"1")
    client.wait(mount.path / "one.txt", timeout_s=60)
    give("another-parent")
    (mount.path / "two.txt").write_bytes(b"2")
    client.wait(mount.path / "two.txt", timeout_s=60)
    assert (mount.path / "a.txt").read_bytes() == b"anna"
    assert mount.stop() == 0
    assert r2.bucket.data("users/anna/two.txt") == b"2"


def test_s14_no_mount_beyond_a_grant(granted_mount: GrantedMount, tmp_path: Path):
    """Another user's prefix, the whole bucket, another secret, no token: exit code 4, all four at once."""
    found = variables(tmp_path)
    mounts = [
        granted_mount(found, "users/annabel/"),
        granted_mount(found, ""),
        granted_mount({**found, "R2_SECRET_ACCESS_KEY": "another"}),
        granted_mount({**found, "R2_SESSION_TOKEN": ""}),
    ]
    for mount in mounts:
        mount.launch()
    assert [mount.wait() for mount in mounts] == [4, 4, 4, 4]
