"""README as a newcomer runs it: its blocks of commands in a shell, on a local server, and what they print.

Every block is run here, or named in ELSEWHERE with the test that runs it. Paths below /srv, and ~, lie in a temporary
directory; the server is named by variables, as a newcomer's account is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from r2fs.cli.warm import line
from r2fs.drivers import kmount
from tests.mount.daemons import REPO, until
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

README = (REPO / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
RUN = {
    "export R2_ACCOUNT_ID=0123456789abcdef0123456789abcdef": "test_the_first_mount",
    "r2fs mount --background r2:// /srv/store --bucket manuscripts --bucket audiobooks": "test_several_buckets",
    "from r2fs import client": "test_python",
    "r2fs pin ~/studio/song/song.rpp": "test_pins",
    "r2fs mirror /srv/takes r2://studio/takes": "test_the_mirror",
    'cache_size = "20GiB"': "test_the_settings_file",
    'upload_limit = "Mo-Fr 08:00-20:00 = 5M, else off"': "test_the_settings_file",
    "[programs.thumbnailers]": "test_the_settings_file",
    "ok       connection             port 443 connects in 24 ms": "test_the_doctor",
}
ELSEWHERE = {
    "sudo apt-get install fuse3 python3-venv": "tests/test_packaging.py",
    "# For the system": "tests/systemd",
    "takes              /mnt/takes  r2fs  _netdev,nofail": "tests/systemd",
    "sudo mkdir -p /srv/r2fs/takes": "tests/container",
}
BUCKETS = ("my-bucket", "manuscripts", "audiobooks", "studio", "other")
OBJECTS = {
    "my-bucket": {
        "song/song.rpp": b'<REAPER_PROJECT 0.1\n  <SOURCE WAVE\n    FILE "vocals.wav"\n  >\n>\n',
        "song/vocals.wav": b"v" * 50_000,
        "kits/room/kick.wav": b"k" * 10_000,
        "archive/2024/take.wav": b"t" * 20_000,
    },
    "audiobooks": {"user123/job1/final.mp3": b"m" * 30_000},
    "manuscripts": {"draft.txt": b"once"},
    "studio": {"takes/01.wav": b"1" * 1000, "takes/02.wav": b"2" * 1000},
}


def block(first: str) -> str:
    """The block that begins with these words."""
    (found,) = (text for _, text in BLOCKS if text.startswith(first))
    return found


def shape(text: str) -> str:
    """The text with numbers masked, and runs of blanks as one."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,]*", "N", text)).strip()


@dataclass
class Newcomer:
    """A shell of a newcomer, with a home of its own and the variables of an account."""

    home: Path
    environment: dict[str, str]

    def run(self, script: str, code: int = 0) -> str:
        """Standard output of the commands, of which none may fail."""
        text = script.replace("/srv/", f"{self.home}/srv/").replace("/mnt/", f"{self.home}/mnt/")
        done = subprocess.run(
            ["bash", "-euc", text],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, (text, done.stdout, done.stderr)
        return done.stdout

    @contextmanager
    def mount(self, target: str) -> Iterator[None]:
        """Mount my-bucket on a directory of the home."""
        (self.home / target).mkdir(parents=True, exist_ok=True)
        self.run(f"r2fs mount --background r2://my-bucket {target}")
        yield
        self.run(f"r2fs umount {target}")


@pytest.fixture(scope="module")
def newcomer(
    seaweed: SeaweedFS, s3: S3Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Newcomer]:
    base = tmp_path_factory.mktemp("newcomer")
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket)
        for key, data in OBJECTS.get(bucket, {}).items():
            s3.put_object(Bucket=bucket, Key=key, Body=data)
    for directory in ("home", "home/srv/store", "home/srv/takes", "home/plain", "home/mnt", "bin"):
        (base / directory).mkdir(parents=True)
    command = base / "bin" / "r2fs"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m r2fs "$@"\n')
    command.chmod(0o755)
    ours = ("R2", "AWS_", "STORAGE_", "XDG_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    endpoint = seaweed.endpoint
    environment |= {
        "HOME": str(base / "home"),
        "PATH": f"{base / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPO),
        "XDG_RUNTIME_DIR": str(base / "run"),
        "R2FS_ENDPOINT_URL": endpoint.url,
        "R2_ACCESS_KEY_ID": endpoint.access_key,
        "R2_SECRET_ACCESS_KEY": endpoint.secret_key,
    }
    (base / "run").mkdir(mode=0o700)
    one = Newcomer(base / "home", environment)
    yield one
    for each in [m.path for m in kmount.mounts() if m.path.startswith(f"{base}/")]:
        subprocess.run([command, "umount", each], env=environment, check=True, timeout=60)
    assert "nothing is mounted" in one.run("r2fs status")
    for bucket in BUCKETS:  # other tests have buckets of these names
        for found in s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
            s3.delete_object(Bucket=bucket, Key=found["Key"])
        s3.delete_bucket(Bucket=bucket)


def test_each_block_is_run():
    known = {**RUN, **ELSEWHERE}
    for language, text in BLOCKS:
        if language != "mermaid":
            assert [first for first in known if text.startswith(first)], text.splitlines()[0]
    for first in known:
        block(first)
    for name in RUN.values():
        assert name in globals()
    for path in ELSEWHERE.values():
        assert (REPO / path).exists()


def test_the_first_mount(newcomer: Newcomer, s3: S3Client) -> None:
    text = block("export R2_ACCOUNT_ID")
    keys = re.compile(r"^export R2_(ACCESS_KEY_ID|SECRET_ACCESS_KEY)=…\n", re.M)
    assert len(keys.findall(text)) == 2
    newcomer.run(keys.sub("", text))
    assert s3.head_object(Bucket="my-bucket", Key="tone.wav")["ContentLength"] > 200_000


def test_several_buckets(newcomer: Newcomer) -> None:
    text = block("r2fs mount --background r2:// /srv/store")
    said = re.findall(r"(?<=# ).+", text)
    assert newcomer.run(text).split() == " ".join(said).split()
    newcomer.run("r2fs umount /srv/store")


def test_pins(newcomer: Newcomer) -> None:
    with newcomer.mount("studio"):
        said = newcomer.run(block("r2fs pin"))
    listed = said[said.index("pinned") :]
    for path in ("song/song.rpp", "song/vocals.wav", "kits/"):
        assert f"{newcomer.home}/studio/{path}" in listed
    assert said.count("are here") + said.count("is here") == 3


def test_lines_of_progress_are_as_shown():
    (shown,) = re.findall(r"lines such as `(.+?)`", README)
    mib = 1 << 20
    view = {
        "files": 48, "here": 10, "fetched": 2, "bytes": 310.2 * mib, "here_bytes": 90 * mib, "fetched_bytes": 6 * mib,
        "left_s": 9.7, "rate": 22.1 * mib,
    }  # fmt: skip
    assert line(view) == shown


def test_python(newcomer: Newcomer) -> None:
    (newcomer.home / "take.wav").write_bytes(b"RIFF")
    (newcomer.home / "example.py").write_text(
        block("from r2fs import client").replace("/mnt/", f"{newcomer.home}/mnt/") + "print(link)\n"
    )
    with newcomer.mount("mnt/takes"):
        link = newcomer.run(f"{sys.executable} example.py")
    assert link.startswith(newcomer.environment["R2FS_ENDPOINT_URL"])
    assert "/my-bucket/segments/7.wav?" in link


def test_the_mirror(newcomer: Newcomer) -> None:
    text = block("r2fs mirror").replace("…", newcomer.environment["R2FS_ENDPOINT_URL"])
    first, *others = text.splitlines()
    plain = newcomer.home / "plain"
    target = newcomer.home / "srv" / "takes"
    command = first.partition("#")[0].replace("/srv/", f"{newcomer.home}/srv/")
    serving = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        env=newcomer.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until("the first pass", lambda: sorted(os.listdir(target))[-2:] == ["01.wav", "02.wav"])
        (target / "03.wav").write_bytes(b"3" * 1000)
        newcomer.run("r2fs umount srv/takes")
        assert serving.wait(30) == 0
    finally:
        serving.kill()
        serving.wait(30)
    newcomer.run("\n".join(others))
    assert sorted(each.name for each in plain.glob("*.wav")) == ["01.wav", "02.wav", "03.wav"]


def test_the_settings_file(newcomer: Newcomer) -> None:
    texts = [block(first) for first, name in RUN.items() if name == "test_the_settings_file"]
    head, _, mounts = texts[0].partition("\n\n")
    settings = newcomer.home / "config.toml"
    settings.write_text(f"{head}\n{texts[1]}\n{mounts}\n{texts[2]}")
    tomllib.loads(settings.read_text())
    shown = newcomer.run(f"R2FS_CONFIG={settings} r2fs config show takes")
    for value in ('cache_size "20GiB"', 'cache_ttl "1d"', 'upload_limit "Mo-Fr 08:00-20:00 = 5M'):
        assert value in re.sub(" +", " ", shown)


def test_the_doctor(newcomer: Newcomer) -> None:
    """As in the example: the secret is wrong."""
    said = newcomer.run("R2_SECRET_ACCESS_KEY=wrong r2fs doctor r2://my-bucket", code=4)
    for shown in block("ok       connection").splitlines():
        assert shape(shown) in map(shape, said.splitlines()), said
