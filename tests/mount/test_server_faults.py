"""What programs and operators see when the server fails, and that all goes on without a restart.

One mount for the whole module, over a proxy that fails on script, over the strict double of R2.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.daemons import BucketMount, until
from tests.support.faulty import Fault, FaultyProxy, answer, cut_answer, cut_request, drop, lose_answer, stall
from tests.support.strict import StrictR2

LONG_S = 60.0  # of everything that is polled for: the machine may be busy


@pytest.fixture(scope="module")
def driver() -> str:
    """The server's faults end below the drivers."""
    return "auto"


@pytest.fixture(scope="module")
def way(r2: StrictR2) -> Iterator[FaultyProxy]:
    with FaultyProxy(r2.url) as proxy:
        yield proxy


class Keys:
    """The two files that the mount has its key from."""

    def __init__(self, directory: Path) -> None:
        self.id, self.secret = directory / "id", directory / "secret"
        self.secret.touch(0o600)

    def write(self, key_id: str, secret: str = "a-secret-of-tests") -> None:
        self.secret.write_text(secret)
        self.id.write_text(key_id)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, r2: StrictR2) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.write(r2.endpoint.access_key)
    return keys


@pytest.fixture(scope="module")
def only_mount(
    driver: str,
    r2: StrictR2,
    way: FaultyProxy,
    keys: Keys,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BucketMount]:
    settings = {
        "request_timeout": "1s",
        "read_timeout": "1s",
        "freshness": "100ms",
        "access_key_id_file": keys.id,
        "secret_access_key_file": keys.secret,
    }
    mount = BucketMount(tmp_path_factory.mktemp("faults"), driver, r2.endpoint, "", way.url, **settings)
    mount.allowed = [" WARNING ", " ERROR "]
    try:
        mount.start()
        yield mount
        assert mount.stop() == 0
    finally:
        mount.end()


@pytest.fixture
def mount(only_mount: BucketMount, way: FaultyProxy) -> Iterator[BucketMount]:
    """All is well before each test and after it; `here` is cached and `there` is not."""
    until("an empty queue", lambda: only_mount.status()["queue"]["left"] == 0, LONG_S)
    yield only_mount
    way.clear()
    only_mount.flush(LONG_S)


@pytest.fixture
def place(mount: BucketMount, r2: StrictR2, request: pytest.FixtureRequest) -> Path:
    """A directory of this test's own, listed: `here.wav` is cached, `there.wav` is not."""
    directory = mount.path / f"{request.node.name.translate(str.maketrans('[]', '--'))}"
    key = f"{directory.name}/"
    r2.bucket.set(key + "here.wav", b"cached")
    r2.bucket.set(key + "there.wav", b"far away" * 1000)
    until("the directory", lambda: appears(directory), LONG_S)
    assert sorted(os.listdir(directory)) == ["here.wav", "there.wav"]
    assert (directory / "here.wav").read_bytes() == b"cached"
    return directory


def appears(path: Path) -> bool:
    return path.name in os.listdir(path.parent) and path.exists()


def reads(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def new_log(mount: BucketMount) -> Callable[[], str]:
    """What is logged from now on."""
    begin = len(mount.log())
    return lambda: mount.log()[begin:]


def shown(mount: BucketMount, *words: object) -> str:
    """What `r2fs status` prints."""
    done = mount.r2fs("status", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lives_on(mount: BucketMount, place: Path, reason: str) -> None:
    """While the bucket is away: the cached reads, the last listing is shown, and what is written is kept."""
    (place / "new.wav").write_bytes(b"kept")
    assert (place / "new.wav").read_bytes() == b"kept"
    assert (place / "here.wav").read_bytes() == b"cached"
    assert sorted(os.listdir(place)) == ["here.wav", "new.wav", "there.wav"]
    until("status tells", lambda: not mount.status()["health"]["answers"], LONG_S)
    health, queue = mount.status()["health"], mount.status()["queue"]
    assert reason in health["reason"]
    assert (queue["left"], queue["parked"], queue["conflicts"]) == (1, 0, [])
    assert "unavailable" in shown(mount)
    with pytest.raises(OSError) as caught:
        (place / "there.wav").read_bytes()
    assert caught.value.errno in (errno.EIO, errno.EACCES)


def recovers(mount: BucketMount, place: Path, r2: StrictR2, log: Callable[[], str]) -> None:
    key = f"{place.name}/new.wav"
    until("the upload", lambda: r2.bucket.contents().get(key) == b"kept", LONG_S)
    until("the way back", lambda: mount.status()["health"]["answers"], LONG_S)
    until("the read", lambda: reads(place / "there.wav", b"far away" * 1000), LONG_S)
    r2.bucket.set(f"{place.name}/news.wav", b"news")
    until("news", lambda: appears(place / "news.wav"), LONG_S)
    assert "the bucket does not answer" in log()
    assert "the bucket answers again" in log()
    assert "unavailable" not in shown(mount, place)


STORMS = {
    "503": (answer(503, "ServiceUnavailable"), "ServiceUnavailable"),
    "429": (answer(429, "TooManyRequests"), "TooManyRequests"),
    "reset": (drop(), "127.0.0.1"),
    "stall": (stall(), "does not answer"),
}


SHORT = ("503", "stall")  # the two that differ most: an answer at once, and none at all


@pytest.mark.parametrize(
    "storm", [storm if storm in SHORT else pytest.param(storm, marks=pytest.mark.long) for storm in STORMS]
)
def test_a_storm(mount: BucketMount, way: FaultyProxy, r2: StrictR2, place: Path, storm: str):
    fault, reason = STORMS[storm]
    log = new_log(mount)
    way.rule(fault, times=None)
    lives_on(mount, place, reason)
    way.clear()
    recovers(mount, place, r2, log)


def test_a_bucket_that_disappears_and_comes_back(mount: BucketMount, r2: StrictR2, place: Path):
    log = new_log(mount)
    r2.there = False
    try:
        lives_on(mount, place, "there is no such bucket")
    finally:
        r2.there = True
    recovers(mount, place, r2, log)


def test_a_key_that_expires_and_is_replaced(mount: BucketMount, r2: StrictR2, place: Path, keys: Keys):
    """The new key is written into the files that the settings name; nobody restarts anything."""
    log = new_log(mount)
    r2.keys = {"the-new-id": None}
    try:
        lives_on(mount, place, "access key")
        keys.write("the-new-id", "the-new-secret")
        recovers(mount, place, r2, log)
        assert "the key was replaced" in log()
        assert "the-new-secret" not in mount.log()
    finally:
        keys.write(r2.endpoint.access_key)
        r2.keys = {r2.endpoint.access_key: None}


def test_a_file_that_was_refused_goes_out_when_a_person_says_so(
    mount: BucketMount, way: FaultyProxy, r2: StrictR2, place: Path
):
    way.rule(answer(400, "InvalidObjectName"), method="PUT", path="odd.wav", times=None)
    (place / "odd.wav").write_bytes(b"kept")
    (place / "good.wav").write_bytes(b"sent")
    until("it is parked", lambda: mount.status()["queue"]["parked"] == 1, LONG_S)
    until("the others go on", lambda: r2.bucket.contents().get(f"{place.name}/good.wav") == b"sent", LONG_S)
    assert "does not take this name" in shown(mount, place)
    way.clear()
    refused = mount.r2fs("flush", "--wait", place)
    assert (refused.returncode, "odd.wav" in refused.stderr) == (10, True)
    done = mount.r2fs("flush", "--wait", "--retry", place)
    assert done.returncode == 0, done.stderr
    assert r2.bucket.contents()[f"{place.name}/odd.wav"] == b"kept"


def test_a_flush_returns_when_the_bucket_is_as_the_mount_shows_it(
    mount: BucketMount, r2: StrictR2, place: Path, way: FaultyProxy
):
    way.latency_s = 0.2
    (place / "new.wav").write_bytes(b"new")
    os.rename(place / "here.wav", place / "moved.wav")
    os.unlink(place / "there.wav")
    done = mount.r2fs("flush", "--wait", place)
    found = {key: data for key, data in r2.bucket.contents().items() if key.startswith(place.name)}
    way.latency_s = 0.0
    assert (done.returncode, done.stderr) == (0, "")
    assert found == {f"{place.name}/new.wav": b"new", f"{place.name}/moved.wav": b"cached"}


def test_a_delete_that_is_refused_is_told_and_nobody_waits_for_it(
    mount: BucketMount, r2: StrictR2, place: Path
):
    key = f"{place.name}/there.wav"
    r2.bucket.locked.add(key)
    os.unlink(place / "there.wav")
    done = mount.r2fs("flush", "--wait", place)
    assert done.returncode == 10
    assert key in done.stderr and "the object is locked" in done.stderr
    assert key in shown(mount, place)
    until("the name", lambda: appears(place / "there.wav"), LONG_S)
    assert (place / "there.wav").read_bytes() == b"far away" * 1000
    r2.bucket.locked.clear()
    assert mount.r2fs("flush", "--wait", "--retry", place).returncode == 0
    assert key not in r2.bucket.contents()
    until("the name has gone", lambda: not appears(place / "there.wav"), LONG_S)


CUTS: dict[str, tuple[Fault, str]] = {
    "downloads": (cut_answer(100_000), "GET"),
    "uploads": (cut_request(100_000), "PUT"),
    "lost answers": (lose_answer(), "PUT"),
}


@pytest.mark.parametrize("cut", CUTS)
def test_bodies_that_are_cut_and_answers_that_are_lost(
    mount: BucketMount, way: FaultyProxy, r2: StrictR2, place: Path, cut: str
):
    """No program notices, and nothing is taken for another host's work."""
    fault, method = CUTS[cut]
    data = os.urandom(1 << 20)
    r2.bucket.set(f"{place.name}/far.wav", data)
    until("the file", lambda: appears(place / "far.wav"), LONG_S)
    way.rule(fault, method=method, path=".wav", times=2)
    assert (place / "far.wav").read_bytes() == data
    (place / "new.wav").write_bytes(data[::-1])
    mount.flush(LONG_S)
    assert r2.bucket.contents()[f"{place.name}/new.wav"] == data[::-1]
    assert mount.status()["queue"]["conflicts"] == []
    assert set(os.listdir(place)) == {"far.wav", "here.wav", "new.wav", "there.wav"}
    assert [seen.fault for seen in way.seen].count(fault) == 2


def test_what_is_known_is_shown_though_the_server_is_silent(
    mount: BucketMount, way: FaultyProxy, r2: StrictR2, place: Path
):
    """The first who looks waits for a bounded time, the next not at all."""
    asked = len(way.seen)
    way.rule(stall(), times=None)
    begun = time.monotonic()

    def shown_though_it_was_asked_for() -> bool:
        assert sorted(os.listdir(place)) == ["here.wav", "there.wav"]
        return any("list-type" in seen.path for seen in way.seen[asked:])

    until("a LIST that stalls", shown_though_it_was_asked_for)
    assert sorted(os.listdir(place)) == ["here.wav", "there.wav"]
    assert (place / "there.wav").stat().st_size == 8000
    assert time.monotonic() - begun < 30  # a request alone may take its minute


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_server_that_stalls_for_a_minute(
    driver: str, way: FaultyProxy, r2: StrictR2, keys: Keys, tmp_path: Path
):
    """With the settings as they come: requests that are silent for a minute, each."""
    r2.bucket.set("minute/here.wav", b"cached")
    mount = BucketMount(
        tmp_path, driver, r2.endpoint, "", way.url,
        access_key_id_file=keys.id, secret_access_key_file=keys.secret,
    )  # fmt: skip
    mount.allowed = [" WARNING ", " ERROR "]
    mount.start()
    try:
        place = mount.path / "minute"
        assert (place / "here.wav").read_bytes() == b"cached"
        way.rule(stall(60), times=None)
        begun = time.monotonic()
        for number in range(20):
            (place / f"{number}.wav").write_bytes(b"%d" % number)
            assert (place / "here.wav").read_bytes() == b"cached"
            assert len(os.listdir(place)) == number + 2
        assert time.monotonic() - begun < 45
        until("status tells", lambda: not mount.status()["health"]["answers"], 300)
        way.clear()
        wanted = {"minute/here.wav": b"cached"} | {f"minute/{n}.wav": b"%d" % n for n in range(20)}
        until("the uploads", lambda: wanted.items() <= r2.bucket.contents().items(), 200)
        assert mount.stop() == 0
    finally:
        way.clear()
        mount.end()


OUTAGE_S = 600.0
LIMIT = 32 << 20  # of bytes that wait for their upload
PIECE = 256 << 10


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_minutes_without_a_bucket(
    driver: str, way: FaultyProxy, r2: StrictR2, keys: Keys, tmp_path: Path
):
    """Writers go on up to the dirty limit, then get ENOSPC; afterwards all is there, by one PUT for each file."""
    mount = BucketMount(
        tmp_path, driver, r2.endpoint, "outage/", way.url, dirty_limit=LIMIT,
        access_key_id_file=keys.id, secret_access_key_file=keys.secret,
    )  # fmt: skip
    mount.allowed = [" WARNING ", " ERROR "]
    mount.start()
    try:
        assert os.listdir(mount.path) == []
        way.rule(drop(), times=None)
        written: dict[str, bytes] = {}
        refused = 0
        ends = time.monotonic() + OUTAGE_S
        while time.monotonic() < ends:
            name, data = f"{len(written)}.wav", os.urandom(PIECE)
            try:
                (mount.path / name).write_bytes(data)
                written[f"outage/{name}"] = data
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                refused += 1
        assert refused
        assert len(written) * PIECE >= LIMIT
        way.clear()
        until("the uploads", lambda: written.items() <= r2.bucket.contents().items(), 300)
        (mount.path / "later.wav").write_bytes(b"there is room again")
        mount.flush(LONG_S)
        puts = [
            seen.path.partition("?")[0] for seen in way.seen if seen.method == "PUT" and seen.status == 200
        ]
        assert sorted(puts) == sorted([*(f"/{r2.endpoint.bucket}/{key}" for key in written), puts[-1]])
        print(f"{len(written)} files, {refused} writers got ENOSPC, {len(puts)} PUTs")
        assert mount.stop() == 0
    finally:
        way.clear()
        mount.end()
