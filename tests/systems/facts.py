"""The facts of the five systems' documents that ask something of r2fs, and where each is answered.

Owns:   `FACTS`: the numbers of the facts that the first reading of these documents had left out, or held in part.
Source: the systems' own documents: V VoiceBeat, R Rohimaya, T TTS job results, M AI Music Generator, S Auto Shorts.

TEST       a test whose name begins with its number: `test_v14_…`, `test_r7_r24_…`
SEMANTICS  refused, or out of a mount's reach: a row of SEMANTICS.md with the reason
BOTH       one part is tested, another is refused
"""

from __future__ import annotations

TEST, SEMANTICS = frozenset({"test"}), frozenset({"SEMANTICS"})
BOTH = TEST | SEMANTICS


def _tested(system: str, *numbers: int) -> dict[str, frozenset[str]]:
    return {f"{system}{number}": TEST for number in numbers}


FACTS: dict[str, frozenset[str]] = {
    **_tested("V", 3, 4, 5, 8, 10, 11, 12, 14, 15, 16, 17, 19, 20, 21, 22, 26),
    **_tested("R", 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 20, 21, 22, 24, 26, 28, 30),
    **_tested("T", 1, 2, 3, 4, 6, 7, 9, 11, 12),
    **_tested("M", 1, 3, 4, 6, 7, 8, 10),
    **_tested("S", 1, 3, 4, 5, 8, 10, 11, 13, 15, 16, 17),
    "V25": SEMANTICS,
    "R29": SEMANTICS,
    "R31": SEMANTICS,
    "M11": SEMANTICS,
    "S12": BOTH,
}
