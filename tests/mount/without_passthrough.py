"""`r2fs` as an ordinary user's kernel offers it: `python -m tests.mount.without_passthrough mount …`."""

from __future__ import annotations

from pathlib import Path

from r2fs import drivers
from r2fs.cli.main import main
from r2fs.drivers import Driver
from r2fs.drivers.kernel.kernel_driver import KernelDriver
from r2fs.model.settings import Settings
from r2fs.model.verbs import Verbs


class CachedDriver(KernelDriver):
    def __init__(self, fs: Verbs, settings: Settings, mountpoint: Path) -> None:
        super().__init__(fs, settings, mountpoint, passthrough=False)


def choose(settings: Settings) -> type[Driver]:
    return CachedDriver


if __name__ == "__main__":
    drivers.choose = choose
    main()
