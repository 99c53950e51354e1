"""Takes the picture of `r2fs ui` in the README: python -m tests.mount.ui_picture docs/ui.png [--light] [--size 1440x1480]

Two hosts work on one bucket, one of them over a slow line: uploads are on their way, and both have recorded one take.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.mount.daemons import BucketMount, until
from tests.mount.test_ui import page_of, tone
from tests.support.browser import Browser
from tests.support.faulty import FaultyProxy
from tests.support.strict import StrictR2

RATE = 11025
SLOW_S = 0.7  # before each request, while the picture is taken
SHOWN_S = 60  # of requests in the chart
MIB = 1 << 20
SIZES = {
    "album/drums": (9, 3.1), "album/vocals": (6, 4.4), "album/strings": (5, 2.2), "interviews": (7, 3.3),
    "kits/tape": (11, 0.7), "kits/room": (8, 0.9), "mixes": (4, 6.0),
}  # fmt: skip
HERE = {
    "drums": 1.0,
    "vocals": 0.67,
    "tape": 1.0,
    "room": 0.4,
    "mixes": 0.5,
}  # shares of the names in a directory
NEW = {
    "mixes/side B.wav": 70,
    "interviews/session 12.wav": 38,
    "interviews/room tone.wav": 12,
    "album/idea.flac": 9,
}


def host(base: Path, name: str, server: StrictR2, url: str | None = None, **settings: str) -> BucketMount:
    (base / name).mkdir()
    mount = BucketMount(
        base / name, "auto", server.endpoint, "", url, host=name, freshness="20s", cache_size="400MiB",
        multipart_threshold="5MiB", part_size="5MiB", part_threads="2", **settings,
    )  # fmt: skip
    mount.start()
    return mount


def prepare(studio: BucketMount, booth: BucketMount) -> None:
    """A tree, of which the studio has a part; and a conflict."""
    for number, (directory, (count, size)) in enumerate(SIZES.items()):
        os.makedirs(booth.path / directory, exist_ok=True)
        for at in range(count):
            data = os.urandom(int(size * MIB * (1 + 0.35 * math.sin(number + at))))
            (booth.path / directory / f"take {at + 1:02d}.wav").write_bytes(data)
    (booth.path / "notes.txt").write_text("bring the ribbon microphone\n")
    booth.flush(60)
    for path, _, names in os.walk(studio.path):
        share = HERE.get(os.path.basename(path), 0.0)
        for name in sorted(names)[: round(share * len(names))]:
            Path(path, name).read_bytes()
    vocals = "album/vocals/chorus.wav"
    for mount, seconds, hertz, pulse in ((studio, 21.0, 220.0, 0.9), (booth, 19.2, 196.0, 1.3)):
        tone(mount.base / "new.wav", seconds, hertz, pulse, RATE)
    for mount in (studio, booth):  # before either has heard of the other's
        shutil.copyfile(mount.base / "new.wav", mount.path / vocals)
    studio.flush(60)
    booth.flush(60)
    studio.r2fs("refresh", studio.path)
    until("the conflict", lambda: any("conflict" in n for n in os.listdir((studio.path / vocals).parent)))
    for name in os.listdir((studio.path / vocals).parent):
        if "chorus" in name:
            (studio.path / vocals).with_name(name).read_bytes()


def take(target: Path, size: tuple[int, int], *arguments: str) -> None:
    with ExitStack() as stack:
        base = Path(tempfile.gettempdir()) / "r2fs"
        base.mkdir()  # its name is in the picture
        stack.callback(shutil.rmtree, base)
        server = stack.enter_context(StrictR2())
        proxy = stack.enter_context(FaultyProxy(server.endpoint.url))
        studio = host(base, "studio", server, proxy.url)
        stack.callback(studio.end)
        booth = host(base, "booth", server, upload_delay="2s")
        stack.callback(booth.end)
        prepare(studio, booth)
        url, _ = stack.enter_context(page_of(studio, studio.path))
        page = stack.enter_context(Browser(base / "profile", *arguments))
        page.resize(*size)
        page.go(url)
        page.until_text("#conflicts", "chorus.wav")
        for moment in range(SHOWN_S):  # some life in the chart of requests
            if moment == SHOWN_S // 2:
                proxy.latency_s = SLOW_S
                for name, mib in NEW.items():
                    (studio.path / name).write_bytes(os.urandom(mib * MIB))
            if moment % 9 == 0:
                studio.start_r2fs("refresh", "--wait", "-r", studio.path).wait(60)
            done = page.run(
                "return +(document.querySelector('#transfers .moves [aria-valuenow]')?.getAttribute('aria-valuenow') || 0)"
            )
            if moment > SHOWN_S // 2 and done > 40:
                break
            time.sleep(1)
        target.write_bytes(page.picture())
        proxy.latency_s = 0.0
        for line in page.console():
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--size", default="1440x1480")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    take(given.target, (width, height), *([] if given.light else ["--force-dark-mode"]))


if __name__ == "__main__":
    main()
