"""Spent: the file `spent.json` of the state directory with the requests of a calendar month, for the next daemon's budget.

It is not synced: after a power cut, at most the last minutes are missing.

Fails:   never: a file that cannot be read counts as none, and one that cannot be written is logged.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import NamedTuple

from r2fs.model import owned_paths

log = logging.getLogger(__name__)

NAME = "spent.json"
MAX_BYTES = 1000


class Spent(NamedTuple):
    month: str  # "2026-11", in UTC
    class_a: int  # requests
    class_b: int


class SpentFile:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> Spent | None:
        """The last entry; None: there is none."""
        try:
            found = owned_paths.load_json(owned_paths.read_file(self._directory / NAME, MAX_BYTES))
            return Spent(str(found["month"]), int(found["class_a"]), int(found["class_b"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s: the month's requests are counted from now on: %s", NAME, error)
            return None

    def write(self, spent: Spent) -> None:
        try:
            with owned_paths.directory(self._directory) as directory:
                owned_paths.replace_file(directory, NAME, json.dumps(spent._asdict()).encode())
        except OSError as error:
            log.info("%s: not written: %s", NAME, error)
