"""warm, evict and pin, by the commands, on a mount: counted by the requests that reach the server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.mount.daemons import BucketMount
from tests.support.faulty import FaultyProxy

MIB = 1 << 20


@pytest.fixture(scope="session")
def driver() -> str:
    """The commands ask the daemon: one driver is enough."""
    return "kernel"


def cached(mount: BucketMount, path: str) -> int:
    return int(os.getxattr(mount.path / path, "user.r2fs.cached"))


def test_a_tree_is_warmed_read_without_the_server_and_evicted(
    mounts: Callable[..., BucketMount], proxy: FaultyProxy
) -> None:
    writer = mounts("writer")
    for n in range(30):
        path = writer.path / "kit" / f"{n % 3}" / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(20_000))
    (writer.path / "long.wav").write_bytes(os.urandom(12 * MIB))
    assert writer.r2fs("flush", "--wait", writer.path).returncode == 0

    reader = mounts("reader", url=proxy.url, cache_size="11M", upload_delay="1h")
    said = reader.r2fs("warm", reader.path / "kit")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith(f"{reader.path}: 30 files (585.9 KiB) are here: 30 downloaded (585.9 KiB)")
    before = len(proxy.seen)
    for n in range(30):
        name = f"kit/{n % 3}/{n}.wav"
        assert (reader.path / name).read_bytes() == (writer.path / name).read_bytes()
    assert [seen for seen in proxy.seen[before:] if seen.method == "GET" and ".wav" in seen.path] == []

    too_large = reader.r2fs("warm", reader.path)
    assert (
        too_large.returncode == 14 and "long.wav: 12582912 bytes are more than cache_size" in too_large.stderr
    )

    with open(reader.path / "kit/0/0.wav", "rb"):
        (reader.path / "new.wav").write_bytes(b"new")
        result = json.loads(reader.r2fs("evict", "--json", reader.path).stdout)
        assert (result[0]["files"], sorted(result[0]["reasons"])) == (
            29,
            [["kit/0/0.wav", "open"], ["new.wav", "not in the bucket yet"]],
        )
    assert (cached(reader, "kit/1/1.wav"), cached(reader, "kit/0/0.wav")) == (0, 20_000)
    assert (reader.path / "new.wav").read_bytes() == b"new"


def test_a_pinned_session_is_ready_in_a_later_mount_without_the_server(
    mounts: Callable[..., BucketMount], proxy: FaultyProxy
) -> None:
    writer = mounts("writer")
    song = writer.path / "song"
    (song / "Media").mkdir(parents=True)
    for name in ("kick.wav", "bass.wav", "unused.wav"):
        (song / "Media" / name).write_bytes(os.urandom(50_000))
    lines = "".join(f"<SOURCE WAVE\n FILE Media/{name}.wav\n>\n" for name in ("kick", "bass", "gone"))
    (song / "song.rpp").write_text(f"<REAPER_PROJECT 0.1\n{lines}>\n")
    assert writer.r2fs("flush", "--wait", writer.path).returncode == 0

    reader = mounts("reader", url=proxy.url)
    said = reader.r2fs("pin", reader.path / "song/song.rpp")
    assert said.returncode == 14
    assert said.stderr == "r2fs: song/song.rpp refers to Media/gone.wav, which is not in the mount\n"
    assert said.stdout.startswith(f"{reader.path}: 3 files (")
    refused = reader.r2fs("pin", "--no-wait", reader.path / "none")
    assert refused.returncode == 1
    reader.kill()

    again = mounts("reader", url=proxy.url)
    before = len(proxy.seen)
    pins = json.loads(again.r2fs("pin", "--list", "--json").stdout)[0]["pins"]
    assert [(pin["path"], pin["session"]) for pin in pins] == [
        ("song/Media/bass.wav", "song/song.rpp"),
        ("song/Media/kick.wav", "song/song.rpp"),
        ("song/song.rpp", None),
    ]
    assert json.loads(again.r2fs("evict", "--json", again.path).stdout)[0]["files"] == 0
    for name in ("kick.wav", "bass.wav"):
        assert (again.path / "song/Media" / name).read_bytes() == (song / "Media" / name).read_bytes()
    assert [seen for seen in proxy.seen[before:] if seen.method == "GET" and ".wav" in seen.path] == []
    assert again.r2fs("unpin", again.path / "song/song.rpp").stdout == f"{again.path}: 3 pins removed\n"
