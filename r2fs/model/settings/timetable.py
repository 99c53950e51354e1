"""Bandwidth limits: bytes a second, the whole day or by a timetable in local time.

    10M                                     bytes a second (2^20); also 10MB, 10MiB/s, 80Mbit
    off                                     no limit; also 0
    Mo-Fr 08:00-20:00 = 5M, else off        the first rule that holds counts; else the last word; without it: off
    Mo,We 22:00-06:00 = off, else 1M        over midnight: the night after Monday, and after Wednesday

A time is that of the clock on this host's wall, `[from, to)`. Where it is set forward, the hour that is left out holds no
rule; where it is set back, a rule of the hour that comes twice holds twice.

Fails: `parse` raises ValueError; `sources.py` adds the setting, its source and `allowed`.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from r2fs.model.settings.units import TomlValue, parse_size, size_text

LEAST = 16 << 10  # bytes a second: with less, servers give up connections that wait for their turn
MOST = 1 << 40
DAY = 24 * 60  # minutes
WEEK = range(7)  # as time.struct_time numbers it: 0 is Monday
DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
OFFSETS = 15  # minutes: every zone's offset is a multiple of it
LOOK_AHEAD = 8 * DAY  # minutes: a week, and the hour of a changed clock

_BITS = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)bits?", re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))?")
_RULE = re.compile(r"([^=]*?)=([^,;=]*?)(?:[,;]|\Z|(?=\s+else\b))", re.IGNORECASE)
_ELSE = re.compile(r"else\b\s*=?\s*(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """Limit of some hours of some days. `stop` before or at `start`: on the next day."""

    days: tuple[int, ...]
    start: int  # minutes of the day
    stop: int  # minutes; DAY is midnight
    rate: int | None  # bytes a second; None: no limit

    def holds(self, day: int, minute: int) -> bool:
        if self.start < self.stop:
            return day in self.days and self.start <= minute < self.stop
        evening = day in self.days and minute >= self.start
        return evening or ((day - 1) % 7 in self.days and minute < self.stop)


@dataclass(frozen=True, slots=True)
class Timetable:
    """Limit by the time of the week. Without rules: `rest` at all times."""

    rules: tuple[Rule, ...] = ()
    rest: int | None = None  # bytes a second where no rule holds; None: no limit
    text: str = field(default="", compare=False)  # as given, with rules

    def __str__(self) -> str:
        return self.text or ("off" if self.rest is None else size_text(self.rest))

    @property
    def is_off(self) -> bool:
        """True if nothing is limited at any time."""
        return self.rest is None and all(rule.rate is None for rule in self.rules)

    def rate(self, at_s: float) -> int | None:
        """Return the bytes a second at a moment, seconds since 1970; None: no limit."""
        if not self.rules:
            return self.rest
        local = time.localtime(at_s)
        minute = local.tm_hour * 60 + local.tm_min
        for rule in self.rules:
            if rule.holds(local.tm_wday, minute):
                return rule.rate
        return self.rest

    def until(self, at_s: float) -> float | None:
        """Return the moment of the next change of `rate`, in seconds since 1970; None: there is none."""
        if all(rule.rate == self.rest for rule in self.rules):
            return None
        # A change is at a begin or an end, or where the clock on the wall is changed, at a multiple of OFFSETS: each
        # has one of few places within such a multiple, by whatever clock.
        minutes = {minute % OFFSETS for rule in self.rules for minute in (rule.start, rule.stop)} | {0}
        now, step_s = self.rate(at_s), 60 * OFFSETS
        first_s = (int(at_s) // step_s) * step_s
        for moment in range(first_s, first_s + 60 * LOOK_AHEAD, step_s):
            for minute in sorted(minutes):
                later = moment + 60 * minute
                if later > at_s and self.rate(later) != now:
                    return float(later)
        return None


OFF = Timetable()


@dataclass(frozen=True, slots=True)
class BandwidthLimit(TomlValue):
    """Kind of a setting: see the head of the file."""

    allowed: str = (
        'bytes a second from "16k" on, such as "10M" or "80Mbit"; "off"; or a timetable in local time, such as '
        '"Mo-Fr 08:00-20:00 = 5M, else off"'
    )

    def parse(self, raw: object) -> Timetable:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise ValueError(f"{raw!r} is no limit")
        text = " ".join(str(raw).split())
        if "=" not in text:
            return Timetable((), parse_rate(text))
        rules, end = list[Rule](), 0
        for match in _RULE.finditer(text):
            if match.start() != end or _ELSE.match(match[1].strip()):
                break
            rules.append(_rule(match[1].strip(), match[2].strip()))
            end = match.end()
        left = text[end:].strip()
        if not left:
            return Timetable(tuple(rules), None, text)
        last = _ELSE.fullmatch(left)
        if last is None:
            raise ValueError(
                f"{left!r} is neither a rule, DAYS HH:MM-HH:MM = RATE, nor `else RATE` at the end"
            )
        return Timetable(tuple(rules), parse_rate(last[1]), text)


def parse_rate(text: str) -> int | None:
    """Bytes a second; None for "off" and 0. Raises ValueError."""
    plain = text.strip().removesuffix("/s")
    if plain.lower() in ("off", "none", "0"):
        return None
    if bits := _BITS.fullmatch(plain):
        rate = int(float(bits[1]) * 1000 ** " kmg".index(bits[2].lower() or " ")) // 8
    else:
        try:
            rate = parse_size(plain)
        except ValueError:
            raise ValueError(f"{text.strip()!r} is no rate, such as 10M, 80Mbit or off") from None
    if not LEAST <= rate <= MOST:
        raise ValueError(f"{text.strip()!r} is outside {size_text(LEAST)} to {size_text(MOST)} a second")
    return rate


def _rule(when: str, rate: str) -> Rule:
    """A rule of the text "Mo-Fr 08:00-20:00"; days or hours may be left out."""
    words = re.sub(r"\s*([-,])\s*", r"\1", when).split()
    hours = [word for word in words if word[0].isdigit()]
    days = [word for word in words if not word[0].isdigit()]
    if not words or len(hours) > 1 or len(days) > 1 or words != [*days, *hours]:
        raise ValueError(
            f"{when!r} is no time: write DAYS HH:MM-HH:MM, as Mo-Fr 08:00-20:00, days or hours alone"
        )
    start, stop = _hours(hours[0]) if hours else (0, DAY)
    return Rule(_days(days[0]) if days else tuple(WEEK), start, stop, parse_rate(rate))


def _hours(text: str) -> tuple[int, int]:
    start, dash, stop = text.partition("-")
    if not dash:
        raise ValueError(f"{text!r} has no end: write HH:MM-HH:MM")
    begin, end = _minute(start), _minute(stop)
    if begin in (end, DAY):
        raise ValueError(f"{text!r} has no length; for whole days leave the hours out")
    return begin, end


def _minute(text: str) -> int:
    match = _CLOCK.fullmatch(text)
    minute = int(match[1]) * 60 + int(match[2] or 0) if match else DAY + 1
    if minute > DAY:
        raise ValueError(f"{text!r} is no time of day from 00:00 to 24:00")
    return minute


def _days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day(first)
        count = (_day(last) - begin) % 7 if dash else 0
        found |= {(begin + number) % 7 for number in range(count + 1)}
    return tuple(sorted(found))


def _day(text: str) -> int:
    named = [day for day, name in enumerate(_NAMES) if len(text) > 1 and name.startswith(text.lower())]
    if len(named) != 1:
        raise ValueError(f"{text!r} is no day of the week: {', '.join(DAYS)}")
    return named[0]
