"""`python -m tests.crash ROUNDS`: kill the daemon so often, and tell what was there after each kill.

Options: --driver kernel|libfuse (both), --seed WORD (a new one), --seaweed (a real S3 server for the bucket).
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.buckets import Folder, Server
from tests.crash.campaign import Campaign, killed, report
from tests.crash.points import POINTS
from tests.crash.rig import Bucket, Lost, Rig, Stats
from tests.support.servers import SeaweedFS

DRIVERS = ("kernel", "libfuse")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="kill -9, and compare.")
    parser.add_argument("rounds", type=int)
    parser.add_argument("--driver", choices=DRIVERS)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--seaweed", action="store_true")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: neither mount nor process is left
    base = Path(tempfile.mkdtemp(prefix="r2fs-crash-"))
    server = SeaweedFS(base) if given.seaweed else None
    total = Stats()
    try:
        for driver in [given.driver] if given.driver else DRIVERS:
            place = base / driver
            place.mkdir()
            bucket: Bucket = Server(server.endpoint, f"{driver}/") if server else Folder(place / "bucket")
            rounds = given.rounds if given.driver else -(-given.rounds // len(DRIVERS))
            total.add(play(Rig(place, driver, bucket, given.seed), driver, rounds, given.seed, total))
    except Lost as error:
        print(f"\nLOST (seed {given.seed}; everything is in {base}):\n{error}")
        sys.exit(1)
    finally:
        if server is not None:
            server.stop()
    print(report(total))
    few = [point for point in POINTS if killed(total, point) < 5]
    print(f"fewer than five kills at: {', '.join(few)}" if few else "each named point at least five times")
    print("nothing was lost, and nothing came back")
    shutil.rmtree(base)


def play(rig: Rig, driver: str, rounds: int, seed: str, before: Stats) -> Stats:
    print(f"{driver}: {rounds} rounds, seed {seed}")
    campaign, told = Campaign(seed, sites=True, before=before), time.monotonic()
    try:
        rig.begin()
        while rig.stats.rounds < rounds:
            rig.round(campaign.next_point(rig.stats))
            if time.monotonic() - told > 5:
                told, stats = time.monotonic(), rig.stats
                print(
                    f"  {stats.rounds} rounds, {stats.kills.total()} kills, {stats.files} files", flush=True
                )
    finally:
        rig.end()
    return rig.stats


if __name__ == "__main__":
    main()
