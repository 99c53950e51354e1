"""Parts of a mount's daemon, and of a mirror's, for operations, reload and shutdown."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from r2fs import drivers
from r2fs.daemon.handover.takeover import TakeOver
from r2fs.daemon.spending import Spending
from r2fs.engine.build import Engine
from r2fs.model.settings import Settings

if TYPE_CHECKING:  # a mount needs none
    from r2fs.mirror.mirror import Mirror


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings  # those of the start; `engine.settings` are those in force
    target: str  # the mount point
    environ: MutableMapping[str, str]
    engine: Engine
    store: Any
    driver: drivers.Driver
    takeover: TakeOver
    adopted: bool  # mounted by an earlier daemon
    spending: Spending
    mounted: Event = field(default_factory=Event)  # set once the mount answers
    started_at_s: float = field(default_factory=time.time)  # since 1970


@dataclass(frozen=True, slots=True)
class MirrorParts:
    target: str  # the directory
    engine: Mirror
    store: Any
    spending: Spending
    started_at_s: float = field(default_factory=time.time)
