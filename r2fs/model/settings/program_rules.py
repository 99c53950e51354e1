"""Rules for programs: bytes that a thumbnailer or an indexer may fetch, by the name of the process; from the tables
[programs.NAME] of the settings file.

Fails: `rule_of` raises ValueError that names the setting and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from r2fs.model.settings.units import Choice, Kind, Patterns, Size, Switch

COMM = 15  # bytes of a process's name that the kernel keeps
TAIL = 128 << 10  # bytes at the end: players' and thumbnailers' indexes of media files
ALL, HEADER, SLOW = "all", "header", "slow"

KINDS: Mapping[str, Kind] = {
    "comm": Patterns('names of processes, as `ps -o comm` shows them: ["tumblerd", "tracker-*"]'),
    "read": Choice((ALL, HEADER, SLOW)),
    "header": Size(4 << 10, 1 << 30),
    "prefetch": Switch(),
}


@dataclass(frozen=True, slots=True)
class ProgramRule:
    """Rule for processes with names that fit a pattern of `comm`. Files on this host are read by all programs."""

    name: str  # of the table
    comm: tuple[str, ...]
    read: str = ALL  # HEADER: begin and end alone are fetched; SLOW: after what others wait for
    header: int = 1 << 20  # bytes at the begin of a file, for HEADER
    prefetch: bool = True  # False: nothing is fetched but what is read

    def shown(self) -> dict[str, str]:
        """The settings of the table, each in TOML."""
        return {setting: kind.write(getattr(self, setting)) for setting, kind in KINDS.items()}

    @property
    def ahead(self) -> bool:
        """True if more bytes may be fetched than are read."""
        return self.prefetch and self.read == ALL

    @property
    def slow(self) -> bool:
        """True if other programs go first."""
        return self.read == SLOW

    @property
    def passes_by(self) -> bool:
        """True if the program reads all files alike: no sign of a person's need."""
        return self.read != ALL

    @property
    def exact(self) -> bool:
        """True if each byte that is fetched counts."""
        return self.read == HEADER

    def allows(self, start: int, size: int) -> bool:
        """True if missing bytes of a read from `start` on may be fetched, of a file of `size` bytes."""
        return self.read != HEADER or start < self.header or start >= size - TAIL

    def allows_whole(self, size: int) -> bool:
        return self.read != HEADER or size <= self.header

    def fits(self, comm: str) -> bool:
        return any(
            fnmatchcase(comm, pattern) or (len(comm) >= COMM and fnmatchcase(comm, pattern[:COMM]))
            for pattern in self.comm
        )


def rule_of(name: str, table: Mapping[str, object]) -> ProgramRule:
    """The rule of a table [programs.NAME]. Raises ValueError."""
    values = {}
    for setting, raw in table.items():
        if setting not in KINDS:
            raise ValueError(f"{setting} is none of its settings: {', '.join(KINDS)}")
        try:
            values[setting] = KINDS[setting].parse(raw)
        except ValueError as error:
            raise ValueError(f"{setting}: {error}; allowed: {KINDS[setting].allowed}") from None
    if not values.get("comm"):
        raise ValueError(f"comm is missing: {KINDS['comm'].allowed}")
    return ProgramRule(name, **values)  # type: ignore[arg-type]


def chosen(rules: Sequence[ProgramRule], comm: str) -> ProgramRule | None:
    """Return the first rule that fits a process's name; None: no rule, or one that restrains nothing."""
    found = next((rule for rule in rules if rule.fits(comm)), None)
    return None if found is None or found.ahead else found
