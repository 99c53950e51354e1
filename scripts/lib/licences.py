"""Licences of what an installed r2fs imports, by the packages' own metadata, against those that are allowed.

    python -m scripts.lib.licences      prints a line for each package; exit code 1 if one is not allowed

Asks nobody: it reads what is installed. Extras (tests, demo, benchmarks) are not passed on and not looked at.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Allowed by their SPDX names: each lets r2fs be used, changed and passed on under the MIT licence.
ALLOWED = frozenset({"MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0", "0BSD"})

# How packages without an SPDX expression write them.
SPELLINGS = {
    "mit license": "MIT",
    "isc license (iscl)": "ISC",
    "isc license": "ISC",
    "bsd license": "BSD-3-Clause",
    "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "python software foundation license": "PSF-2.0",
}


def required(names: list[str]) -> Iterator[metadata.Distribution]:
    """The packages themselves and all that they need, without extras; each once."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        yield found
        waiting += [_name(text) for text in found.requires or [] if _is_needed(text)]


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _is_needed(requirement: str) -> bool:
    """Not an extra's, and, where it is for other systems or versions, only if it is here."""
    _, _, marker = requirement.partition(";")
    if "extra" in marker:
        return False
    if not marker:
        return True
    try:
        metadata.distribution(_name(requirement))
    except metadata.PackageNotFoundError:
        return False
    return True


def licences_of(found: metadata.Distribution) -> list[str]:
    """SPDX names, any of which may be chosen; of an expression with AND alone, the first that is not allowed, else the last."""
    if expression := _field(found, "License-Expression"):
        if " AND " in expression and " OR " not in expression:
            names = expression.split(" AND ")
            return [next((name for name in names if name not in ALLOWED), names[-1])]
        return [expression] if " AND " in expression else expression.split(" OR ")
    classifiers = [
        text for text in found.metadata.get_all("Classifier") or () if text.startswith("License ::")
    ]
    texts = [text.rpartition(" :: ")[2] for text in classifiers] or [_field(found, "License") or "none told"]
    return [SPELLINGS.get(text.lower(), text.splitlines()[0]) for text in texts]


def _field(found: metadata.Distribution, name: str) -> str:
    return str((found.metadata.get_all(name) or [""])[0])


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    refused = 0
    for found in sorted(
        required([_name(text) for text in project["dependencies"]]), key=lambda d: d.name.lower()
    ):
        licences = licences_of(found)
        allowed = bool(ALLOWED.intersection(licences))
        refused += not allowed
        print(f"{'      ' if allowed else 'NOT:  '}{found.name} {found.version}: {' or '.join(licences)}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
