"""Floor 3: the drivers, which speak to the kernel. Each translates requests to `Verbs`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from r2fs.model.errors import FuseMissing, SettingsError
from r2fs.model.settings import Settings

if TYPE_CHECKING:  # commands look for mounts in this package
    from r2fs.model.verbs import Verbs

log = logging.getLogger(__name__)


class Driver(Protocol):
    """A driver's class. `Service` builds one, serves in one thread and unmounts from another."""

    def __init__(self, fs: Verbs, settings: Settings, mountpoint: Path) -> None: ...

    def serve(self) -> None:
        """Mount, and answer until the mount has ended. FuseMissing or MountError if it cannot be made."""
        ...

    def unmount(self, lazy: bool = False) -> None:
        """Unmount from another thread; serve() then returns. Busy while a file is open there, unless `lazy`."""
        ...


def choose(settings: Settings) -> type[Driver]:
    """The driver named by the settings; with `auto` the kernel driver, if it can run on this host.

    Imports the chosen driver only: the kernel driver works without libfuse.
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
                log.info("the kernel driver cannot run here (%s): using libfuse", error)
                return _libfuse("libfuse")
            return KernelDriver
    raise SettingsError(f"driver = {settings.driver!r}: must be auto, kernel, libfuse or libfuse2")


def _libfuse(name: str) -> type[Driver]:
    from r2fs.drivers.libfuse.libfuse_driver import Libfuse2Driver, LibfuseDriver

    return LibfuseDriver if name == "libfuse" else Libfuse2Driver
