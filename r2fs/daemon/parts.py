"""Parts of the daemon of one mount, or of one mirror, as built: the objects of control operations and of the shutdown."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from r2fs import drivers
from r2fs.daemon.handover.takeover import TakeOver
from r2fs.daemon.spending import Spending
from r2fs.engine.build import Engine
from r2fs.model.settings import Settings
from r2fs.model.values import dataclass

if TYPE_CHECKING:  # a mount needs none
    from r2fs.mirror.mirror import Mirror


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    environ: MutableMapping[str, str]
    engine: Engine
    store: Any
    driver: drivers.Driver
    takeover: TakeOver
    adopted: bool  # mounted by an earlier daemon
    spending: Spending


@dataclass(frozen=True, slots=True)
class MirrorParts:
    settings: Settings
    target: str  # the directory
    engine: Mirror
    store: Any
    spending: Spending
