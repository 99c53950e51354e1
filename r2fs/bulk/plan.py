"""Plans of a migration: the copies to make, from a map or a rule.

Owns:  the rules of a map: one source may have several targets, two sources never share one.
Fails: BadMap, which names the first lines that are wrong and counts the rest.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from r2fs.model.errors import SettingsError
from r2fs.model.keys import MAX_KEY_BYTES, printable

SHOWN: Final = 5  # errors that are named
HEADS: Final = ("old", "new")


class BadMap(SettingsError):
    """The map or the rule cannot be carried out; nothing was done."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the map: copy `old` to `new`. `extra` is carried on into the results: a record's id, say."""

    line: int
    old: str
    new: str
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """The rows of one source."""

    source: str
    rows: tuple[Row, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.new for row in self.rows))


@dataclass(frozen=True, slots=True)
class Plan:
    moves: tuple[Move, ...]
    extra_heads: tuple[str, ...] = ()

    @property
    def copies(self) -> int:
        return sum(len(move.targets) for move in self.moves)


def read_map(text: str) -> tuple[list[Row], tuple[str, ...]]:
    """Rows of a CSV (RFC 4180) and the heads of its further columns.

    A first line that names the columns `old` and `new`, in any order, is a head; without one the first two columns
    are meant, in this order.
    """
    lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    rows: list[Row] = []
    places, heads = (0, 1), None
    try:
        for cells in lines:
            if not cells:
                continue
            if heads is None:
                named = [cell.strip().lower() for cell in cells]
                is_head = all(head in named for head in HEADS)
                places = (named.index("old"), named.index("new")) if is_head else places
                if is_head:
                    heads = _rest(cells, places)
                    continue
                heads = tuple(f"column {n + 1}" for n in range(2, len(cells)))
            if len(cells) <= max(places):
                raise BadMap(
                    f"line {lines.line_num}: {len(cells)} column, where an old and a new key are needed"
                )
            rows.append(Row(lines.line_num, cells[places[0]], cells[places[1]], _rest(cells, places)))
    except csv.Error as error:
        raise BadMap(f"line {lines.line_num}: {error}") from None
    return rows, heads or ()


def _rest(cells: Sequence[str], places: tuple[int, int]) -> tuple[str, ...]:
    return tuple(cell for number, cell in enumerate(cells) if number not in places)


def rows_of_rule(keys: Iterable[str], pattern: str, replacement: str) -> list[Row]:
    """A row for each key that `pattern` matches whole; `replacement` may name groups, as re.sub has them."""
    try:
        rule = re.compile(pattern)
        rule.sub(replacement, "")
    except (re.error, IndexError) as error:
        raise BadMap(f"--rule: {error}") from None
    rows = []
    for number, key in enumerate(keys, 1):
        match = rule.fullmatch(key)
        if match is None:
            continue
        rows.append(Row(number, key, match.expand(replacement)))
    return rows


def plan(rows: Sequence[Row], extra_heads: tuple[str, ...] = (), prefix: str = "") -> Plan:
    """The moves of `rows`. BadMap if any line of them cannot be carried out."""
    wrong = [f"line {row.line}: {why}" for row in rows if (why := _fault(row, prefix)) is not None]
    wrong += _shared_targets(rows)
    wrong += _chains(rows)
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise BadMap("; ".join(wrong[:SHOWN]) + more)
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.old, []).append(row)
    return Plan(tuple(Move(old, tuple(of_old)) for old, of_old in grouped.items()), extra_heads)


def _fault(row: Row, prefix: str) -> str | None:
    for head, key in zip(HEADS, (row.old, row.new), strict=True):
        if not key:
            return f"the {head} key is empty"
        if not key.startswith(prefix):
            return f"{printable(key)} is not below {printable(prefix)}, which the URL names"
        if len(key.encode(errors="replace")) > MAX_KEY_BYTES:
            return f"the {head} key is longer than {MAX_KEY_BYTES} bytes"
    return f"{printable(row.old)} is its own new key" if row.old == row.new else None


def _shared_targets(rows: Sequence[Row]) -> list[str]:
    first: dict[str, Row] = {}
    wrong = []
    for row in rows:
        other = first.setdefault(row.new, row)
        if other.old != row.old:
            wrong.append(f"lines {other.line} and {row.line}: both would become {printable(row.new)}")
    return wrong


def _chains(rows: Sequence[Row]) -> list[str]:
    """Faults of targets that are sources, too: the order would decide which bytes survive."""
    sources = {row.old: row for row in rows}
    return [
        f"line {row.line}: the new key {printable(row.new)} is the old key of line {sources[row.new].line}: "
        "move that one first, in a run of its own"
        for row in rows
        if row.new in sources and row.new != row.old
    ]
