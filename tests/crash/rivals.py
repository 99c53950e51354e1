"""Rivals: another host writes a name just before this one's upload of it arrives; both contents must stay.

Owns:  the directory of such names, and what is expected of it: the other host's bytes under the name,
       this host's under a conflict name.
Never: asks more of a close() that was never acknowledged than that it harms nothing.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.crash.rig import Bucket

AT_ONCE = 3


class Rivals:
    name = "rivals"

    def __init__(self, mount: Path, bucket: Bucket) -> None:
        self._root = mount / self.name
        self._bucket = bucket
        self._number = 0
        self._theirs: dict[str, bytes] = {}  # by name
        self._ours: dict[str, bytes] = {}  # by name: closed here

    def work(self, rng: random.Random) -> None:
        """A few names, until the mount is gone."""
        try:
            for _ in range(AT_ONCE):
                self._one(rng)
        except (OSError, StopIteration):
            return

    def _one(self, rng: random.Random) -> None:
        self._number += 1
        name = f"{self._number}.wav"
        os.listdir(self._root)  # what it now knows holds for a second: the name is free
        theirs, ours = rng.randbytes(300), rng.randbytes(200)
        self._bucket.put(f"{self.name}/{name}", theirs)
        self._theirs[name] = theirs
        try:
            file = os.open(self._root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return  # seen after all
        try:
            os.write(file, ours)
        finally:
            os.close(file)
        self._ours[name] = ours

    def missing(self) -> list[str]:
        found = self._bucket.view(self.name)
        said = []
        for name, theirs in self._theirs.items():
            stem = name.removesuffix(".wav")
            copies = [
                data for path, (_, data, _) in found.items() if path.startswith(f"{stem} (conflict of ")
            ]
            if found.get(name, ("", b"", 0))[1] != theirs:
                said.append(f"{self.name}/{name}: the other host's bytes are not there")
            if name in self._ours and copies != [self._ours[name]]:
                said.append(f"{self.name}/{name}: {len(copies)} conflict copies, or others' bytes in it")
        return said
