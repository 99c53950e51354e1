"""What is said of a mount's session: who keeps it, or why nobody does."""

from __future__ import annotations

from r2fs.daemon.handover.takeover import TakeOver
from r2fs.daemon.systemd import ServiceManager
from r2fs.drivers.kernel.kernel_driver import KernelDriver
from tests.support.engine import settings_for


def test_a_mount_that_is_being_unmounted_had_no_trouble_with_its_log(tmp_path):
    settings = settings_for(tmp_path)
    settings.run_dir.mkdir(parents=True)
    takeover = TakeOver(settings, str(tmp_path / "mnt"), {}, ServiceManager({}), None)
    assert takeover.find(KernelDriver) is None
    assert takeover.open_log(KernelDriver) is not None
    takeover.end()
    assert takeover.describe() == {"held_by": None, "why_not": "it is being unmounted"}
