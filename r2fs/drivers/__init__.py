"""Floor 3: what talks to the kernel. Every driver is a translation of requests into `Verbs`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from r2fs.model.errors import FuseMissing, SettingsError
from r2fs.model.settings import Settings
from r2fs.model.verbs import Verbs

log = logging.getLogger(__name__)


class Driver(Protocol):
    """A driver's class. `Service` builds one, serves in one thread and unmounts from another."""

    def __init__(self, fs: Verbs, settings: Settings, mountpoint: Path) -> None: ...

    def serve(self) -> None:
        """Mount, and answer until the mount is gone. FuseMissing or MountError if it cannot be made."""
        ...

    def unmount(self, lazy: bool = False) -> None:
        """From another thread; serve() returns then. Busy while something is open there, unless `lazy`."""
        ...


def choose(settings: Settings) -> type[Driver]:
    """The driver that the settings name; with `auto` the kernel driver, where it can run here.

    Imports only what is chosen: libfuse need not be there for the kernel driver.
    """
    from r2fs.drivers.kernel.kernel_driver import KernelDriver

    match settings.driver:
        case "kernel":
            return KernelDriver
        case "libfuse" | "libfuse2":
            return _libfuse(settings.driver)
        case "auto":
            try:
                KernelDriver.probe()
            except FuseMissing as error:
                log.info("the kernel driver cannot run here (%s): libfuse it is", error)
                return _libfuse("libfuse")
            return KernelDriver
    raise SettingsError(f"driver = {settings.driver!r}: must be auto, kernel, libfuse or libfuse2")


def _libfuse(name: str) -> type[Driver]:
    from r2fs.drivers.libfuse.libfuse_driver import Libfuse2Driver, LibfuseDriver

    return LibfuseDriver if name == "libfuse" else Libfuse2Driver
