"""A driver over MirrorVerbs in a process of its own: `python -m tests.mount.serve_mirror DRIVER ROOT MOUNTPOINT`.

In the test process a page fault in a mapping of the mount would hold the interpreter's lock,
for which the driver would wait.

Owns:    the child's side of MirrorMount (daemons.py): one JSON command per line on standard input,
         one JSON answer per line on standard output.
Threads: the driver in the main thread, commands in another.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from r2fs import drivers
from r2fs.drivers import Driver
from r2fs.model.ports import Caller
from r2fs.model.settings import Bucket, Settings
from tests.support.mirror import MirrorVerbs


class Exploding(MirrorVerbs):
    """With a defect, for the test of what a driver makes of one."""

    def getxattr(self, caller: Caller, ino: int, name: str) -> bytes:
        if name == "user.explode":
            raise ZeroDivisionError("a defect")
        return super().getxattr(caller, ino, name)


@dataclass
class Commands:
    fs: MirrorVerbs
    driver: Driver
    answering: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        for line in sys.stdin:
            command, *words = json.loads(line)
            with self.answering:  # `unmount` ends the main thread: not before it is answered
                print(json.dumps(getattr(self, command)(*words)), flush=True)
        self.driver.unmount(lazy=True)

    def calls(self) -> dict[str, int]:
        return dict(self.fs.calls)

    def known(self) -> dict[int, int]:
        return self.fs.known()

    def handles(self) -> int:
        return self.fs.open_handles()

    def stick(self, name: str) -> None:
        """STREAM reads of files of that name wait from now on."""
        self.fs.stuck[name] = threading.Event()

    def unstick(self, name: str) -> None:
        self.fs.stuck[name].set()

    def unmount(self, lazy: bool) -> str | None:
        try:
            self.driver.unmount(lazy)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None


def main() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # a descriptor each node, as the service has it
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    kind, root, mountpoint, options = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    base = Path(mountpoint).parent
    settings = Settings(
        bucket=Bucket("s3", "mirror", "with a space,and comma/"),
        cache_dir=base,
        state_dir=base,
        run_dir=base,
        driver=kind,
        **json.loads(options),
    )
    valid_s = min(1.0, settings.freshness_s)  # as the engine's
    fs = Exploding(Path(root), stream=lambda name: name.startswith("stream"), valid_s=valid_s)
    driver = drivers.choose(settings)(fs, settings, Path(mountpoint))
    commands = Commands(fs, driver)
    threading.Thread(target=commands.run, name="commands", daemon=True).start()
    driver.serve()
    with commands.answering:
        fs.close()


if __name__ == "__main__":
    main()
