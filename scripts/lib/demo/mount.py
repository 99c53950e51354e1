"""The mount, by r2fs's own commands, as a person would type them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.lib.demo import screen
from scripts.lib.demo.bucket import Bucket, DemoFailed

R2FS = [sys.executable, "-m", "r2fs"]
DRAIN_S = 900  # the bucket may be far away
FRESHNESS_S = 2  # what another client writes is to be seen within this


class Mount:
    """One mount point with a cache, a state and a run directory of its own."""

    def __init__(self, bucket: Bucket, directory: Path) -> None:
        self.folder = directory / "bucket"
        self.cache = directory / "cache"
        self._bucket = bucket
        self._own = {"cache": self.cache, "state": directory / "state", "run": directory / "run"}
        self._mounted = False
        self.folder.mkdir(parents=True)

    def mount(self) -> None:
        command = ["mount", "--background", "--endpoint-url", self._bucket.endpoint_url]
        command += ["--region", self._bucket.region, f"--freshness={FRESHNESS_S}s"]
        for name in ("cache", "state"):
            command += [f"--{name}-dir", str(self._own[name])]
        self._run(*command, self._bucket.url, str(self.folder))
        self._mounted = True
        if not os.path.ismount(self.folder):
            raise DemoFailed(f"r2fs mount ended well, but {self.folder} is no mount point")

    def flush(self) -> None:
        """Waits until all is in the bucket. On a terminal r2fs shows a bar; elsewhere lines are printed."""
        command = [*R2FS, "flush", "--wait", "--timeout", f"{DRAIN_S}s", str(self.folder)]
        shown = None
        with subprocess.Popen(command, env=self._environment) as flush:
            while not sys.stderr.isatty() and flush.poll() is None:
                queue = self.status()["queue"]
                left = queue["files"], queue["bytes"]
                if left != shown:
                    screen.did(f"left: {left[0]} files", left[1])
                    shown = left
                try:
                    flush.wait(1.0)
                except subprocess.TimeoutExpired:
                    continue
        if flush.returncode:
            raise DemoFailed(f"r2fs flush ended with {flush.returncode}")

    def umount(self) -> None:
        self._run("umount", str(self.folder))
        self._mounted = False
        if os.path.ismount(self.folder):
            raise DemoFailed(f"r2fs umount ended well, but {self.folder} is still mounted")

    def empty_cache(self) -> None:
        shutil.rmtree(self.cache)

    def status(self) -> dict[str, Any]:
        output = self._run("status", "--json", str(self.folder), stdout=subprocess.PIPE)
        return dict(json.loads(output))

    def end(self) -> None:
        """If something went wrong: no mount is left behind, whatever it still owes."""
        if not self._mounted:
            return
        umount = [*R2FS, "umount", "--timeout", "5", str(self.folder)]
        subprocess.run(umount, env=self._environment, check=False)
        if os.path.ismount(self.folder):
            subprocess.run(["fusermount3", "-u", "-z", str(self.folder)], check=False)

    @property
    def _environment(self) -> dict[str, str]:
        others = ("R2_", "R2FS_", "AWS_", "STORAGE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        for name in ("AWS_CA_BUNDLE", "R2_SESSION_TOKEN"):
            if name in os.environ:
                kept[name] = os.environ[name]
        kept["R2_ACCESS_KEY_ID"] = self._bucket.access_key_id
        kept["R2_SECRET_ACCESS_KEY"] = self._bucket.secret_access_key
        kept["R2FS_RUN_DIR"] = str(self._own["run"])  # by which each command finds the daemon
        # what is recorded of unsent changes goes with them, and not into this user's home
        kept["XDG_STATE_HOME"] = str(self._own["state"])
        return kept

    def _run(self, *command: str, stdout: int | None = None) -> str:
        done = subprocess.run([*R2FS, *command], env=self._environment, check=False, stdout=stdout, text=True)
        if done.returncode:
            raise DemoFailed(f"r2fs {command[0]} ended with {done.returncode}")
        return done.stdout or ""
