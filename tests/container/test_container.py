"""The image and the compose example in contrib: built, started, asked and stopped by the steps that the files name.

Root alone can make the namespaces: for an ordinary user these are skipped, and CI runs as root.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.lib import deb
from scripts.lib import image as tree
from tests.container import containers
from tests.container.containers import Container, Host
from tests.support.servers import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.support.strict import StrictR2
from tests.support.users import require_root

ACCOUNT = "0123456789abcdef0123456789abcdef"
LARGEST = 60_000_000  # bytes of the image
PREFIX = "users/anna"
# What the image need not be able to import: libfuse is not in it, since root mounts without.
WITHOUT_LIBRARY = ("r2fs.drivers.libfuse",)
IMPORT_ALL = """
import importlib, pkgutil, sys, r2fs
for found in pkgutil.walk_packages(r2fs.__path__, "r2fs."):
    if not found.name.startswith(tuple(sys.argv[1:])) and not found.name.endswith("__main__"):
        importlib.import_module(found.name)
import boto3
for service in ("s3", "sts", "sso", "sso-oidc"):
    boto3.client(service, region_name="auto")
print(len(sys.modules))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_root()
    containers.require()
    return containers.build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def r2() -> Iterator[StrictR2]:
    """Takes temporary credentials alone."""
    with StrictR2(write_interval_s=0) as server:
        server.parents = {ACCESS_KEY: SECRET_KEY}
        server.tokens_only = True
        server.bucket.set(f"{PREFIX}/there.txt", b"there")
        yield server
    assert server.faults == []


@pytest.fixture
def host(image: Path, r2: StrictR2, tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path, image, {"R2_ENDPOINT": r2.url})
    for name, text in (("access_key_id", ACCESS_KEY), ("secret_access_key", SECRET_KEY)):
        (tmp_path / "secrets" / name).write_text(text)
        (tmp_path / "secrets" / name).chmod(0o600)
    yield host
    host.end()


def service(name: str) -> dict[str, object]:
    return containers.services({"BUCKET": BUCKET, "PREFIX": PREFIX, "R2_ACCOUNT_ID": ACCOUNT})[name]


def start(host: Host, name: str) -> Container:
    container = host.start(service(name), name)
    container.until_healthy()
    return container


# ------------------------------------------------------------------ the files
def test_the_image_begins_from_a_base_that_is_an_argument():
    found = containers.recipe(containers.CONTAINERFILE.read_text())
    assert [stage[0] for stage in found.stages] == [
        ("ARG", "BASE=debian:12-slim"),
        ("FROM", "${BASE} AS build"),
        ("FROM", "scratch"),
    ]
    assert found.of(-1, "COPY") == ["--from=build /image /"]
    assert found.words(-1, "ENTRYPOINT") == ["/usr/bin/r2fs"]
    # cache and state are of one volume: else staging would lie beside the cache, in no volume
    assert found.of(-1, "VOLUME") == ["/var/lib/r2fs"]
    for name in ("R2FS_CACHE_DIR", "R2FS_STATE_DIR"):
        assert found.environ[name].startswith("/var/lib/r2fs/")


def test_each_service_has_the_least_rights():
    found = containers.services({"BUCKET": "b", "R2_ACCOUNT_ID": ACCOUNT})
    assert {name: one.get("cap_add", []) for name, one in found.items()} == {
        "keys": [],
        "mount": ["SYS_ADMIN"],
        "mirror": [],
    }
    assert {name for name, one in found.items() if "devices" in one} == {"mount"}
    assert {name for name, one in found.items() if "secrets" in one} == {"keys"}
    assert found["keys"]["network_mode"] == "none"
    for one in found.values():
        assert one["cap_drop"] == ["ALL"]
        assert one["read_only"] is True
        assert "no-new-privileges:true" in one["security_opt"]
        assert not one.get("privileged")
    for name in ("mount", "mirror"):
        assert found[name]["stop_grace_period"] == "6m"
        assert any(str(volume).endswith(":/var/lib/r2fs") for volume in found[name]["volumes"])


def test_keys_beside_the_compose_file_get_into_no_image_and_no_package(tmp_path: Path):
    clone, target = tmp_path / "clone", tmp_path / "src"
    for directory in (clone, target):
        directory.mkdir()
    for entry in containers.REPO.iterdir():
        (clone / entry.name).touch()
    (clone / "contrib").unlink()
    shutil.copytree(containers.REPO / "contrib", clone / "contrib")
    (clone / "contrib/secrets").mkdir(exist_ok=True)
    (clone / "contrib/secrets/access_key_id").write_text(ACCESS_KEY)
    (clone / "contrib/.env").write_text(f"R2_SECRET_ACCESS_KEY={SECRET_KEY}")
    containers.context(target, clone)
    assert (target / "scripts").exists()
    assert not [path for path in target.rglob("*") if path.name in ("secrets", ".env", ".git")]
    assert [path.name for path in deb.examples(clone / "contrib")] == [
        "Containerfile", "compose.yaml", "r2fs-dashboard.json", "r2fs.rules.yml",
    ]  # fmt: skip


# ------------------------------------------------------------------ the image
def test_the_image_is_small_and_has_no_way_to_more_rights(image: Path):
    assert tree.size(image) < LARGEST
    programs = sorted(path.name for path in (image / "usr/bin").iterdir())
    assert programs == ["cat", "python3", "r2fs"]
    for path in image.rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID), path


def test_the_image_has_all_that_r2fs_imports(image: Path):
    done = subprocess.run(
        ["chroot", image, "/usr/bin/python3", "-c", f"import sys; sys.path.insert(0, '/usr/lib/r2fs')\n{IMPORT_ALL}", *WITHOUT_LIBRARY],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": "/", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


# ------------------------------------------------------------------ the services
def test_a_mount_without_a_key_sends_what_is_pending_when_it_is_stopped(host: Host, r2: StrictR2):
    keys = start(host, "keys")
    assert keys.ask("/usr/bin/python3", "-c", "import socket; print(socket.if_nameindex())").stdout == (
        "[(1, 'lo')]\n"
    )
    grant = host.base / "volumes/grants/credentials.json"
    assert stat.S_IMODE(grant.stat().st_mode) == 0o600
    mount = start(host, "mount")
    takes = Path("/srv/r2fs/takes")
    assert host.do("cat", takes / "there.txt") == "there"
    as_user = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")
    host.do("chmod", "777", takes)
    host.do(*as_user, "sh", "-c", f"echo mine > {takes}/mine.txt")
    assert host.do("stat", "-c", "%u", takes / "mine.txt") == "1000\n"

    # the key is in the side-car alone
    assert keys.memory_holds(SECRET_KEY.encode())
    assert not mount.memory_holds(SECRET_KEY.encode())
    for name in ("environ", "cmdline"):
        assert SECRET_KEY.encode() not in Path(f"/proc/{mount.pid}/{name}").read_bytes()
    volumes = [path for path in (host.base / "volumes").rglob("*") if path.is_file()]
    assert len(volumes) > 2
    assert not [path for path in volumes if SECRET_KEY.encode() in path.read_bytes()]

    host.do("sh", "-c", f"echo last > {takes}/last.txt")  # within upload_delay
    assert mount.stop() == 0
    assert r2.bucket.data(f"{PREFIX}/last.txt") == b"last\n"
    assert r2.bucket.data(f"{PREFIX}/mine.txt") == b"mine\n"
    assert "fuse.r2fs" not in host.do("cat", "/proc/self/mounts")
    assert keys.stop() == 0


def test_the_next_container_goes_on_after_a_kill(host: Host, r2: StrictR2):
    start(host, "keys")
    host.overrides = {**host.overrides, "R2FS_UPLOAD_DELAY": "1h", "R2FS_UPLOAD_DEADLINE": "1h"}
    mount = start(host, "mount")
    takes = Path("/srv/r2fs/takes")
    host.do("sh", "-c", f"echo unsent > {takes}/unsent.txt")
    mount.kill()
    assert host.ask("stat", takes).returncode != 0  # a dead mount, where the host sees it
    host.overrides = {"R2_ENDPOINT": r2.url}
    again = start(host, "mount")
    assert host.do("cat", takes / "unsent.txt") == "unsent\n"
    assert again.stop() == 0
    assert r2.bucket.data(f"{PREFIX}/unsent.txt") == b"unsent\n"
    assert "fuse.r2fs" not in host.do("cat", "/proc/self/mounts")


def test_a_mirror_has_no_device_and_no_capability(host: Host, r2: StrictR2):
    start(host, "keys")
    mirror = start(host, "mirror")
    status = Path(f"/proc/{mirror.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    data = host.base / "volumes/data"
    mirror.until("the bucket's file", lambda: (data / "there.txt").exists())
    (data / "here.txt").write_text("here")
    assert mirror.stop() == 0
    assert r2.bucket.data(f"{PREFIX}/here.txt") == b"here"


def test_a_mount_that_was_not_given_fuse_says_how(host: Host):
    start(host, "keys")
    mount = host.start({**service("mount"), "devices": []}, "mount")
    assert mount.wait() == 8
    assert "--device /dev/fuse --cap-add SYS_ADMIN" in mount.log()


def test_without_a_command_the_image_shows_its_help(host: Host):
    given = {name: value for name, value in service("keys").items() if name != "command"}
    container = host.start(given, "help")
    assert container.wait() == 0
    assert container.log().startswith("Usage: r2fs ")
