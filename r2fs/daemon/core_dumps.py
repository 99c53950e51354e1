"""Prevention of core dumps of this process, which holds a key. Source: core(5), prctl(2)."""

from __future__ import annotations

import ctypes
import logging
import os
import resource

log = logging.getLogger(__name__)

PR_SET_DUMPABLE = 4


def forbid() -> None:
    """Keep the key out of core files and crash handlers, and from other processes of this user that read memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    # A handler that core_pattern names runs whatever the limit is, but not for a process that is not dumpable.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("this process can leave core dumps: %s", os.strerror(ctypes.get_errno()))
