"""The power fails at every place of a recorded run: what was acknowledged is there, nothing torn is sent."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from r2fs.disk import filecalls
from r2fs.model.errors import Stale
from r2fs.model.pending import TORN
from tests.power.disk import Cuts, recorded_disk
from tests.power.history import Found, digest
from tests.power.workload import Workload
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore

pytestmark = pytest.mark.expect_warnings

SHORT_CUTS = 30
LONG_CUTS = 200
LONG_SEEDS = range(1, 7)


@dataclass
class Tally:
    """What the cuts found; a proof in which nothing happened is none."""

    cuts: int = 0
    names: int = 0
    torn: int = 0
    sent: int = 0
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)


def look(engine: Engine) -> dict[str, Found]:
    """Every name, as a program sees it, and whether it is set aside."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            return _look(engine)
        except Stale:  # a rename's source that had been copied and deleted already: not settled yet
            if time.monotonic() > deadline:
                raise


def _look(engine: Engine) -> dict[str, Found]:
    reasons = {t.path: t.reason or "" for t in engine.fs.queue_view().transfers if t.state == "parked"}
    return {
        path: Found(data or b"", TORN in reasons.get(path, ""))
        for path, data in engine.tree().items()
        if not path.endswith("/")
    }


def start_again(work: Workload, cut: int, where: Path, tally: Tally, name: str) -> None:
    """The next boot: what is shown at once, then what goes to the bucket."""
    bucket = work.bucket.at(cut)
    before = {key: stored.data for key, stored in bucket.objects.items()}
    engine = Engine(where / "r2fs", bucket)
    try:
        found = look(engine)
        wrong = work.history.judge(cut, found, before)
        engine.fs.drain(30.0)
        wrong += judge_bucket(work, cut, before, bucket, look(engine))
    finally:
        engine.kill()
    tally.cuts += 1
    tally.names += len(found)
    tally.torn += sum(one.torn for one in found.values())
    tally.sent += len(work.history.must_be_sent(cut))
    tally.acknowledged += sum(at <= cut for at, _, _ in work.history.acks)
    tally.wrong += [f"{name}: {why}" for why in wrong]


def judge_bucket(
    work: Workload, cut: int, before: dict[str, bytes], bucket: MemoryStore, found: dict[str, Found]
) -> list[str]:
    wrong = []
    for key, stored in bucket.objects.items():
        if digest(stored.data) not in work.history.sealed:
            wrong.append(f"{key}: published as {stored.data[:20]!r}…, which no file was ever closed as")
    for path, data in work.history.must_be_sent(cut).items():
        if path not in bucket.objects or bucket.data(path) != data:
            wrong.append(f"{path}: was synced and closed, and is not in the bucket")
    for path, one in found.items():
        if one.torn and path in before and bucket.objects[path].data != before[path]:
            wrong.append(f"{path}: is set aside, and its good object was replaced")
        if not one.torn and (path not in bucket.objects or bucket.data(path) != one.data):
            wrong.append(f"{path}: is not in the bucket as it is shown")
    return wrong


def cut_somewhere(seed: int, actions: int, cuts: int, base: Path, monkeypatch: pytest.MonkeyPatch) -> Tally:
    """One recorded run, and `cuts` of its places; prints what was found."""
    rng = random.Random(seed)
    with recorded_disk(base / "disk") as disk:
        work = Workload(disk, seed)
        work.run(actions)
    tally = Tally()
    boot_id = base / "boot_id"
    boot_id.write_text("the-next-boot\n")
    monkeypatch.setattr(filecalls, "BOOT_ID", boot_id)
    record = Cuts(disk, base / "cuts")
    places = [n for n in record.places() if record.position(n) >= work.mounted]
    for count in sorted(rng.sample(places, min(cuts, len(places)))):
        with record.cut(count, rng) as where:
            start_again(work, record.position(count), where, tally, f"seed {seed}, cut {count}")
    print(f"seed {seed}: {len(record.places())} writes and flushes, {len(record.flushes())} flushes, {tally}")
    return tally


def judge(tally: Tally) -> None:
    assert not tally.wrong, "\n".join(tally.wrong)
    assert tally.cuts and tally.acknowledged and tally.sent and tally.torn, f"proves nothing: {tally}"


@pytest.mark.timeout(300)
def test_the_power_fails_here_and_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(cut_somewhere(0, 60, SHORT_CUTS, tmp_path, monkeypatch))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_the_power_fails_everywhere(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(cut_somewhere(seed, 150, LONG_CUTS, tmp_path, monkeypatch))
