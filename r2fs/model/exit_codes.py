"""Exit codes of commands. Each error class in model/errors.py has its own; 2 is wrong usage."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
REFUSED: Final = 10  # waiting does not help, a person has to act
OTHER_VERSION: Final = 12  # the bucket answers, and holds another version
PARTLY: Final = 13  # some of the objects failed
PARTLY_HERE: Final = 14  # some of the files are not on this host
DEFECT: Final = 70  # of r2fs
SOMETHING_LEFT: Final = 75  # changes are not yet in the bucket; "try again later" of sysexits.h
INTERRUPTED: Final = 130
