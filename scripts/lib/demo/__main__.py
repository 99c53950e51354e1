"""scripts/demo: a bucket as a folder, for real programs; every byte compared with a local folder's.

The same work is done on a local folder and on the mount. What another S3 client then finds
in the bucket, and what a second mount with an empty cache reads, must be what the local
folder holds. Ends with 1 at any difference, and leaves nothing running.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.lib.demo import screen
from scripts.lib.demo.bucket import CHUNK, Bucket, DemoFailed, some_bucket
from scripts.lib.demo.mount import FRESHNESS_S, Mount

REPO = Path(__file__).resolve().parents[3]
STUDIO = "scripts.lib.demo.studio"


@dataclass
class Numbers:
    """What the run measured. Sizes in bytes, times in seconds."""

    local_work_s: float = 0.0
    mount_work_s: float = 0.0
    drain_s: float = 0.0
    drained: int = 0
    reads: dict[str, tuple[int, float]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    cache: dict[str, int] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0


class Demo:
    def __init__(self, bucket: Bucket, directory: Path, minutes: float) -> None:
        self.bucket = bucket
        self.minutes = minutes
        self.local = directory / "local"
        self.local.mkdir()
        self.mount = Mount(bucket, directory)
        self.numbers = Numbers()

    def run(self) -> None:
        self.seed()
        self.work_locally()
        screen.part(f"mount {self.bucket.url}")
        self.mount.mount()
        self.read_the_seed()
        self.work_on_the_mount()
        self.see_another_client()
        self.drain()
        self.compare_bucket()
        self.mount_again_with_an_empty_cache()
        self.read_all()
        self.mount.umount()
        screen.did("unmounted")

    # ------------------------------------------------------------------ the parts
    def seed(self) -> None:
        screen.part(f"bucket {self.bucket.name} at {self.bucket.endpoint_url}")
        catalog = {"samples": [{"id": n, "file": f"voices/{n:03}.wav"} for n in range(8)]}
        self.put_elsewhere("catalog/samples.json", json.dumps(catalog).encode(), "application/json")
        begun, size = time.monotonic(), 0
        for number in range(8):
            wav = tone(seconds=4, hertz=110 * (number + 1))
            self.put_elsewhere(f"voices/{number:03}.wav", wav, "audio/wav")
            size += len(wav)
        screen.did("another S3 client seeds 9 objects", size, time.monotonic() - begun)

    def put_elsewhere(self, name: str, body: bytes, content_type: str) -> None:
        """By the other S3 client; the local folder gets the same."""
        self.bucket.put(name, body, content_type)
        target = self.local / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(body)

    def work_locally(self) -> None:
        screen.part("the work on a local folder, to compare with")
        self.numbers.local_work_s = studio(self.local, self.minutes, show=False)
        screen.did("all of it", tree_size(self.local), self.numbers.local_work_s)

    def read_the_seed(self) -> None:
        for file in sorted(self.local.glob("voices/*")):
            if not filecmp.cmp(file, self.mount.folder / "voices" / file.name, shallow=False):
                raise DemoFailed(f"{file.name} reads differently through the mount")
        catalog = json.loads((self.mount.folder / "catalog" / "samples.json").read_text())
        screen.did(f"the seeded files are there: {len(catalog['samples'])} samples, equal")

    def work_on_the_mount(self) -> None:
        screen.part("the same work on the mount, by programs that know nothing of it")
        self.numbers.mount_work_s = studio(self.mount.folder, self.minutes, show=True)
        screen.did("all of it", None, self.numbers.mount_work_s)

    def see_another_client(self) -> None:
        """A file that somebody else puts into the bucket appears here."""
        self.put_elsewhere("voices/news.txt", b"from another client\n", "text/plain")
        begun = time.monotonic()
        there = self.mount.folder / "voices" / "news.txt"
        while not there.exists():
            if time.monotonic() - begun > 10 * FRESHNESS_S:
                raise DemoFailed(f"what another client wrote is not seen after {10 * FRESHNESS_S} s")
            time.sleep(0.05)
        if there.read_bytes() != b"from another client\n":
            raise DemoFailed("what another client wrote reads differently")
        screen.did("another client's new file is seen after", None, time.monotonic() - begun)

    def drain(self) -> None:
        screen.part("uploads")
        queue = self.mount.status()["queue"]
        begun = time.monotonic()
        self.mount.flush()
        self.numbers.drain_s = time.monotonic() - begun
        self.numbers.drained = queue["bytes"]
        screen.did("what was still owed is in the bucket", queue["bytes"], self.numbers.drain_s)

    def compare_bucket(self) -> None:
        screen.part("compare the bucket with the local folder, by the other S3 client")
        expected = {path.relative_to(self.local).as_posix(): path for path in all_files(self.local)}
        begun = time.monotonic()
        size = self.bucket.compare(expected)
        self.numbers.files, self.numbers.bytes = len(expected), size
        screen.did(f"{len(expected)} objects: names, bytes and types equal", size, time.monotonic() - begun)

    def mount_again_with_an_empty_cache(self) -> None:
        screen.part("unmount, empty the cache, mount again")
        self.count()
        self.mount.umount()
        self.mount.empty_cache()
        self.mount.mount()
        here = {path.relative_to(self.mount.folder) for path in all_files(self.mount.folder)}
        there = {path.relative_to(self.local) for path in all_files(self.local)}
        if here != there:
            raise DemoFailed(f"the folders differ: {sorted(map(str, here ^ there))}")
        screen.did(f"{len(here)} files are listed")

    def read_all(self) -> None:
        for which, folder in (
            ("cold", self.mount.folder),
            ("again", self.mount.folder),
            ("local", self.local),
        ):
            size, seconds = 0, 0.0
            for file in all_files(self.local):
                of_file, took = timed_compare(folder / file.relative_to(self.local), file)
                size, seconds = size + of_file, seconds + took
            self.numbers.reads[which] = size, seconds
        size, seconds = self.numbers.reads["cold"]
        screen.did("everything reads back, equal", size, seconds)
        self.count()

    def count(self) -> None:
        """Adds what this daemon has done so far: its counts end with it."""
        status: dict[str, Any] = self.mount.status()
        self.numbers.requests.update(status["requests"]["by_verb"])
        self.numbers.cache = status["cache"]

    # ------------------------------------------------------------------ the end
    def show(self) -> None:
        n = self.numbers
        rows = [
            ("files in the bucket", f"{n.files}"),
            ("bytes in the bucket", f"{n.bytes / 1e6:,.1f} MB"),
            ("the work: local / mount", f"{n.local_work_s:.2f} s / {n.mount_work_s:.2f} s"),
            ("uploaded after the work", f"{n.drained / 1e6:,.1f} MB in {n.drain_s:.2f} s"),
        ]
        names = {
            "cold": "read, cold (from the bucket)",
            "again": "read, again (from the cache)",
            "local": "read, local disk",
        }
        rows += [(names[which], screen.mb_per_s(*read)) for which, read in n.reads.items()]
        rows += [("cache hits / misses (second mount)", f"{n.cache['hits']} / {n.cache['misses']}")]
        rows += [(f"requests: {verb}", str(count)) for verb, count in sorted(n.requests.items())]
        screen.numbers("Numbers", rows)


# ------------------------------------------------------------------ helpers
def studio(folder: Path, minutes: float, *, show: bool) -> float:
    """The work, in a process of its own. Seconds."""
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", STUDIO, str(folder), str(minutes)], cwd=REPO, stdout=subprocess.PIPE, text=True
    ) as work:
        assert work.stdout is not None
        for line in work.stdout:
            if show:
                step = json.loads(line)
                screen.did(step["step"], step["bytes"], step["seconds"])
    if work.returncode:
        raise DemoFailed(f"the work on {folder} failed (see above)")
    return time.monotonic() - begun


def tone(seconds: float, hertz: int) -> bytes:
    """A WAV file."""
    import io

    import numpy
    import soundfile

    out = io.BytesIO()
    at = numpy.arange(int(seconds * 44_100)) / 44_100
    soundfile.write(out, 0.5 * numpy.sin(2 * numpy.pi * hertz * at), 44_100, format="WAV", subtype="PCM_16")
    return out.getvalue()


def all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def tree_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in all_files(folder))


def timed_compare(path: Path, expected: Path) -> tuple[int, float]:
    """Size of `path`, and the seconds that opening and reading it took; comparing is not in them."""
    size, seconds = 0, 0.0
    with expected.open("rb") as other:
        begun = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                seconds += time.perf_counter() - begun
                if other.read(len(chunk)) != chunk:
                    raise DemoFailed(f"{path} differs from {expected} near byte {size}")
                size += len(chunk)
                begun = time.perf_counter()
            seconds += time.perf_counter() - begun
        if other.read(1):
            raise DemoFailed(f"{path} is shorter than {expected}")
    return size, seconds


def still_running(mark: str) -> list[str]:
    """Command lines of processes that the demo started, by their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


def leaves_nothing(directory: Path) -> None:
    if str(directory) in Path("/proc/self/mountinfo").read_text():
        raise DemoFailed(f"a mount is left below {directory}")
    end = time.monotonic() + 10
    while left := still_running(f"R2FS_DEMO_DIRECTORY={directory}"):
        if time.monotonic() > end:
            raise DemoFailed("still running:\n  " + "\n  ".join(left))
        time.sleep(0.05)


def interrupted(number: int, frame: object) -> None:
    """The first signal ends the demo through all its clean-up; further ones must not cut that short."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--minutes", type=float, help="length of the long mix (10; on a real bucket 2)")
    minutes = parser.parse_args().minutes
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupted)
    begun = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="r2fs-demo-", ignore_cleanup_errors=False) as name:
            directory = Path(name)
            os.environ["R2FS_DEMO_DIRECTORY"] = name
            with ExitStack() as stack:
                (directory / "server").mkdir()
                bucket = stack.enter_context(some_bucket(directory / "server"))
                demo = Demo(bucket, directory, minutes or (2 if bucket.real else 10))
                stack.callback(demo.mount.end)
                demo.run()
            leaves_nothing(directory)
            demo.show()
    except DemoFailed as error:
        screen.console.print(f"\n[bold red]the demo failed[/bold red]: {error}", markup=True)
        sys.exit(1)
    except KeyboardInterrupt:
        screen.console.print("\ninterrupted; everything that was started is ended")
        sys.exit(130)
    screen.part(f"All as it should be, in {time.monotonic() - begun:.1f} s. Nothing is left running.")


if __name__ == "__main__":
    main()
