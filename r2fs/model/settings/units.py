"""Kinds of setting values: parsing from text, and writing as TOML.

`raw` is a string from a variable, a flag or the file, or a number, boolean or list from
the file. `write(value)` is TOML and parses back to the same value.

Fails: `parse` raises ValueError; `sources.py` adds the setting, the source and `allowed`.
"""

from __future__ import annotations

import grp
import json
import pwd
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)(b?)", re.IGNORECASE)
_STEP = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_POWERS = " kmgtp"
NumberT = TypeVar("NumberT", int, float)
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Kind(Protocol):
    @property
    def allowed(self) -> str:
        """Allowed values, in words that follow "allowed: "."""
        ...

    def parse(self, raw: object) -> object: ...
    def write(self, value: object) -> str: ...


class TomlValue:
    """Base of the kinds whose values are written as they are."""

    __slots__ = ()

    def write(self, value: object) -> str:
        return json.dumps(value, ensure_ascii=False, default=str)


def parse_size(text: str) -> int:
    """Bytes. "10G" and "10GiB" are 10 × 2^30, "10GB" is 10 × 10^9."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size")
    number, prefix, binary, byte = match.groups()
    base = 1000 if prefix and byte and not binary else 1024
    return int(float(number) * base ** _POWERS.index(prefix.lower() or " "))


def size_text(size: int) -> str:
    """The shortest exact form: "10GiB", "1500"."""
    for power, prefix in reversed([*enumerate("KMGTP", 1)]):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{prefix}iB"
    return str(size)


def parse_duration(text: str) -> float:
    """Seconds. "90", "90s", "1m30s", "500ms", "1h", "2d"."""
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        pass
    steps, end = 0.0, 0
    for match in _STEP.finditer(text):
        if text[end : match.start()].strip():
            break
        steps += float(match[1]) * _SECONDS[match[2].lower()]
        end = match.end()
    if not end or text[end:].strip():
        raise ValueError(f"{text!r} is no time")
    return steps


def duration_text(seconds: float) -> str:
    """The shortest exact form with one unit: "24h", "90s", "0.5s"."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds / _SECONDS[unit])}{unit}"
    return f"{seconds:g}s" if seconds else "0"


def _string(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} is no text")
    return raw


@dataclass(frozen=True, slots=True)
class Text(TomlValue):
    allowed: str = "a text"
    pattern: str = r"[^\x00-\x1f]*"

    def parse(self, raw: object) -> str:
        text = _string(raw)
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(f"{text!r} does not fit")
        return text


@dataclass(frozen=True, slots=True)
class Choice(TomlValue):
    values: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return ", ".join(value or '""' for value in self.values)

    def parse(self, raw: object) -> str:
        text = _string(raw).lower()
        if text not in self.values:
            raise ValueError(f"{raw!r} is none of them")
        return text


@dataclass(frozen=True, slots=True)
class Switch(TomlValue):
    allowed: str = "true or false"

    def parse(self, raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        text = str(raw).lower()
        if text not in _YES + _NO:
            raise ValueError(f"{raw!r} is neither")
        return text in _YES


@dataclass(frozen=True, slots=True)
class _Bounded(TomlValue, Generic[NumberT]):
    """Base of the kinds of numbers, from `least` to `most`."""

    least: NumberT
    most: NumberT

    def within(self, value: NumberT, raw: object) -> NumberT:
        if not self.least <= value <= self.most:  # also not-a-number
            raise ValueError(f"{raw!r} is outside")
        return value


class Count(_Bounded[int]):
    @property
    def allowed(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def parse(self, raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise ValueError(f"{raw!r} is no whole number")
        return self.within(int(raw), raw)


class Number(_Bounded[float]):
    @property
    def allowed(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"

    def parse(self, raw: object) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise ValueError(f"{raw!r} is no number")
        return self.within(float(raw), raw)


class Size(_Bounded[int]):
    @property
    def allowed(self) -> str:
        return f'a size from {size_text(self.least)} to {size_text(self.most)}, such as "10GiB" or "500M"'

    def parse(self, raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise ValueError(f"{raw!r} is no size")
        return self.within(raw if isinstance(raw, int) else parse_size(raw), raw)

    def write(self, value: object) -> str:
        assert isinstance(value, int)
        text = size_text(value)
        return text if text.isdigit() else f'"{text}"'


class Duration(_Bounded[float]):
    @property
    def allowed(self) -> str:
        least, most = duration_text(self.least), duration_text(self.most)
        return f'a time from {least} to {most}, such as "90s", "15m" or "24h"'

    def parse(self, raw: object) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise ValueError(f"{raw!r} is no time")
        return self.within(parse_duration(raw) if isinstance(raw, str) else float(raw), raw)

    def write(self, value: object) -> str:
        assert isinstance(value, float)
        return f'"{duration_text(value)}"'


@dataclass(frozen=True, slots=True)
class FilePath(TomlValue):
    allowed: str = "a path; ~ is the home directory"

    def parse(self, raw: object) -> Path:
        text = _string(raw)
        if not text or "\0" in text:
            raise ValueError(f"{raw!r} is no path")
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise ValueError(f"{raw!r}: there is no such home directory") from None


@dataclass(frozen=True, slots=True)
class Mask:
    allowed: str = 'permission bits in octal, such as "022"'

    def parse(self, raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise ValueError(f"{raw!r} is no mask")
        if isinstance(raw, str) and re.fullmatch("(?:0o)?[0-7]+", raw) is None:
            raise ValueError(f"{raw!r} is not octal")
        mask = raw if isinstance(raw, int) else int(raw.removeprefix("0o"), 8)
        if not 0 <= mask <= 0o777:
            raise ValueError(f"{raw!r} is outside")
        return mask

    def write(self, value: object) -> str:
        return f'"{value:03o}"'


@dataclass(frozen=True, slots=True)
class Owner(TomlValue):
    """A user's or a group's number; names are looked up on this host."""

    group: bool = False

    @property
    def allowed(self) -> str:
        return f"a {'group' if self.group else 'user'}'s number or name"

    def parse(self, raw: object) -> int:
        if isinstance(raw, str) and not raw.isdigit():
            try:
                return grp.getgrnam(raw).gr_gid if self.group else pwd.getpwnam(raw).pw_uid
            except KeyError:
                raise ValueError(f"{raw!r} is unknown here") from None
        if isinstance(raw, bool) or not isinstance(raw, int | str) or not 0 <= int(raw) < 2**32 - 1:
            raise ValueError(f"{raw!r} is no such number")
        return int(raw)


@dataclass(frozen=True, slots=True)
class BucketNames:
    """Names of buckets. The value is a tuple; ("*",) are all buckets of the account."""

    allowed: str = "a bucket's name: letters, digits, dots, hyphens; several: NAME:NAME, or a list; *: all"
    pattern: str = r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"

    def parse(self, raw: object) -> tuple[str, ...]:
        parts = raw.split(":") if isinstance(raw, str) else raw
        if not isinstance(parts, list | tuple) or not parts:
            raise ValueError(f"{raw!r} is no bucket's name")
        names = tuple(dict.fromkeys(_string(part) for part in parts))
        if names != ("*",) and not all(re.fullmatch(self.pattern, name) for name in names):
            raise ValueError(f"{':'.join(names)!r} does not fit")
        return names

    def write(self, value: object) -> str:
        assert isinstance(value, tuple)
        return json.dumps(value[0] if len(value) == 1 else list(value))


@dataclass(frozen=True, slots=True)
class Patterns(TomlValue):
    allowed: str = 'file name patterns: ["*-wal", "*.tmp"], or comma-separated outside the file'

    def parse(self, raw: object) -> tuple[str, ...]:
        parts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{raw!r} is no list of texts")
        if any("/" in part for part in parts):
            raise ValueError("a pattern is of a name, and has no slash")
        return tuple(part.strip() for part in parts if part.strip())
