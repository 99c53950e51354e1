"""Mount namespaces of tests.

A new one has a copy of each mount of that moment, which keeps the FUSE connections of other tests open after their
unmount: their daemons then wait for its end.
"""

from __future__ import annotations

# First in a shell script that `unshare --mount` runs. An ordinary user's namespace may not unmount what it got.
WITHOUT_OTHER_MOUNTS = r"""
grep -E ' fuse(\.[^ ]+)? ' /proc/mounts | cut -d ' ' -f 2 | xargs -r -n 1 umount --lazy 2>/dev/null || true
"""
