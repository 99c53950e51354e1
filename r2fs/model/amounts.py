"""Amounts: sizes, durations and counts as text for people, in the log, the commands and the service manager."""

from __future__ import annotations

import math

CENT = 0.01
DAY_S = 86400


def size(count: float) -> str:
    """ "9 B", "1.5 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        digits = 0 if unit == "B" else 1
        if abs(round(value, digits)) < 1024:  # never "1024.0 KiB"
            return f"{value:.{digits}f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def seconds(value: float) -> str:
    """ "42 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * DAY_S:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // DAY_S} d {whole % DAY_S // 3600} h"


def counted(number: int, word: str) -> str:
    """ "1 file", "3 keys", "2 directories"."""
    if number == 1:
        return f"1 {word}"
    return f"{number} {word[:-1]}ies" if word.endswith(("ry", "ly", "ty", "py")) else f"{number} {word}s"


def parked(count: int, path: str, reason: str | None) -> str:
    """Number of parked names, with the reason of the first, at `path`. A reason that begins with the path names it once."""
    why = reason or ""
    named = why if why.startswith(path) else f"{path}: {why}"
    return f"{count} parked: {named}" + (f"; and {count - 1} more (see r2fs status)" if count > 1 else "")


def left(files: int, directories: int, bytes_: int, deletes: int) -> str:
    """Changes not yet in the bucket: "3 files (12.0 MiB), 1 directory, 1 deletion"; "nothing"."""
    parts = []
    if files:
        parts.append(f"{counted(files, 'file')} ({size(bytes_)})")
    if directories:
        parts.append(counted(directories, "directory"))
    if deletes:
        parts.append(counted(deletes, "deletion"))
    return ", ".join(parts) or "nothing"


def dollars(amount: float) -> str:
    """ "1.50 $"; below a cent two digits that count: "0.00045 $"."""
    if amount >= CENT or not amount:
        return f"{amount:.2f} $"
    places = min(1 - math.floor(math.log10(amount)), 12)
    return f"{amount:.{places}f}".rstrip("0").rstrip(".") + " $"
