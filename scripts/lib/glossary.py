"""Checks the language of r2fs/: no docstring begins with a question word, and no retired word returns.

    python -m scripts.lib.glossary          prints each excess; exit code 1 if there is one
    python -m scripts.lib.glossary --now    prints ALLOWED as the code is now, to lower it by

A retired word counts as a part of an identifier, once for each identifier of a file, and in comments and docstrings.
Text in backquotes is code, and does not count there.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from scripts.lib.figures.language import CODE, is_question

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "question"

# Retired word: what to write in its place. Words of the former language with an ordinary sense as well (left, known,
# lost, order, room, space, boot, watch, expect, passing, holes, probes, transfer, proof, gate, aside, claim, leaving,
# outcomes) are for a reader to judge.
RETIRED = {
    "owed": "pending",
    "owes": "has pending",
    "owing": "pending",
    "ledger": "PendingStore",
    "seal": "close",
    "sealed": "closed",
    "sealing": "write session, close",
    "bringing": "hydrate",
    "filling": "hydrate",
    "rewritten": "modified_since_start",
    "vouched": "synced_on_disk",
    "told": "an active verb; kernel_knows",
    "asked": "an active verb; requested",
    "coming": "materializing",
    "rests": "local_only",
    "facts": "metadata",
    "forsaken": "orphaned attempt",
    "succession": "handover",
    "inheritance": "handover",
    "ballast": "disk reserve",
    "hurry": "drain mode",
    "doubtful": "read_failed",
}

# Uses left in a package, each to become fewer. No entry: none is allowed. `--now` prints what is left.
ALLOWED: dict[str, dict[str, int]] = {
    "r2fs/daemon": {"inheritance": 3},
    "r2fs/disk": {"inheritance": 2, "sealed": 1, "told": 2},
    "r2fs/drivers": {"inheritance": 3},
    "r2fs/engine": {
        "asked": 8,
        "coming": 3,
        "doubtful": 6,
        "facts": 22,
        "inheritance": 7,
        "question": 2,
        "seal": 6,
        "sealed": 1,
        "told": 1,
    },
    "r2fs/model": {"doubtful": 2, "facts": 2, "inheritance": 1},
    "r2fs/store": {"asked": 19, "question": 11, "told": 5},
}

Use = tuple[str, str, str]  # package, word, "path:line: text"


def uses(path: Path, root: Path = ROOT) -> Iterator[Use]:
    """Questions and retired words of one file."""
    source = path.read_text()
    name = path.relative_to(root)
    package = "/".join(name.parts[:2])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is None:
                continue
            line = node.body[0].lineno
            first = text.splitlines()[0]
            if is_question(text):
                yield package, QUESTION, f"{name}:{line}: {first}"
            for word in _words(CODE.sub(" ", text)):
                yield package, word, f"{name}:{line}: {word} is retired: {RETIRED[word]}: {first}"
    seen: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        prose = token.type == tokenize.COMMENT
        if prose or (token.type == tokenize.NAME and token.string not in seen):
            seen.add(token.string)
            text = CODE.sub(" ", token.string) if prose else _apart(token.string)
            for word in _words(text):
                line = token.start[0]
                yield package, word, f"{name}:{line}: {word} is retired: {RETIRED[word]}: {token.string}"


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word in RETIRED]


def _apart(identifier: str) -> str:
    """Words of an identifier: `is_KeptFacts` → `is kept facts`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", identifier).replace("_", " ")


def excess(found: dict[tuple[str, str], list[str]], allowed: dict[str, dict[str, int]]) -> list[str]:
    """One line for each use of a word in a package that has more uses than allowed."""
    out = []
    for (package, word), lines in sorted(found.items()):
        most = allowed.get(package, {}).get(word, 0)
        if len(lines) > most:
            out.append(f"{package}: {word}: {len(lines)}, allowed {most}")
            out += [f"  {line}" for line in lines]
    return out


def collect(root: Path = ROOT) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted((root / "r2fs").rglob("*.py")):
        for package, word, line in uses(path, root):
            found[package, word].append(line)
    return found


def main(arguments: list[str]) -> int:
    found = collect()
    if "--now" in arguments:
        now: dict[str, dict[str, int]] = defaultdict(dict)
        for (package, word), lines in sorted(found.items()):
            now[package][word] = len(lines)
        for package, words in now.items():
            print(f'    "{package}": {words},'.replace("'", '"'))
        return 0
    lines = excess(found, ALLOWED)
    for line in lines:
        print(line, file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
