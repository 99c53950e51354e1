"""Static figures of a source tree: sizes, branches, constructors, imports, writers of state. Imports nothing of it.

A function's branches: one, and each If, IfExp, For, While, except handlers, match cases, the conditions of
comprehensions, and the operands of `and` and `or` beyond the first. A function inside another counts for itself.
A late assignment: to an attribute of an object other than `self`, where a class that is no dataclass has
that attribute assigned in its constructor and no dataclass has a field of that name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from scripts.lib.figures.language import Words

# What holds the pending state of an inode: its attribute there, its classes, and its store's untyped doors.
PENDING_ATTRIBUTES = frozenset({"pending", "owed"})
PENDING_STORES = frozenset({"_pending", "_ledger", "ledger"})
UNTYPED_DOORS = frozenset({"apply", "update"})

MOST_LINES, MOST_BRANCHES, MANY_ARGUMENTS = 400, 15, 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Figure:
    value: float | str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    module: str  # dotted, from the tree's root
    text: str
    tree: ast.Module


def read(root: Path, package: str) -> list[Source]:
    out = []
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        out.append(Source(module, text, ast.parse(text)))
    return out


def measure(root: Path) -> dict[str, Figure]:
    """All static figures of `r2fs` below `root`, by name."""
    everything = read(root, "r2fs")
    engine = [s for s in everything if (s.module + ".").startswith("r2fs.engine.")]
    return {
        **_common("r2fs", everything),
        **_common("engine", engine),
        **_imports(engine),
        **_writes(engine, everything),
    }


# ---- sizes and words
def _common(label: str, sources: list[Source]) -> dict[str, Figure]:
    lines = [len(s.text.splitlines()) for s in sources]
    functions = [(s.module, f) for s in sources for f in ast.walk(s.tree) if isinstance(f, Function)]
    lengths = [(f.end_lineno or f.lineno) - f.lineno + 1 for _, f in functions]
    long = tuple(f"{s.module} {n}" for s, n in zip(sources, lines, strict=True) if n > MOST_LINES)
    branchy = [(branches(f), f"{m.rpartition('.')[2]}.{f.name}") for m, f in functions]
    forks = tuple(f"{name} {n}" for n, name in sorted(branchy, reverse=True) if n > MOST_BRANCHES)
    wide = tuple(f"{name} {n}" for s in sources for name, n in constructors(s.tree) if n >= MANY_ARGUMENTS)
    words = [words_of(source) for source in sources]
    figures = {
        "files": Figure(len(sources)),
        "lines": Figure(sum(lines)),
        "file lines med / p90 / max": Figure(spread(lines)),
        f"files > {MOST_LINES} lines": Figure(len(long), long),
        "function lines med / p90 / max": Figure(spread(lengths)),
        f"functions > {MOST_BRANCHES} branches": Figure(len(forks), forks),
        f"constructors >= {MANY_ARGUMENTS} arguments": Figure(len(wide), wide),
        "question docstrings %": Figure(
            percent(sum(w.questions for w in words), sum(w.docstrings for w in words))
        ),
        "indefinite words %": Figure(percent(sum(w.indefinite for w in words), sum(w.words for w in words))),
    }
    return {f"{label}: {name}": figure for name, figure in figures.items()}


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


def spread(numbers: list[int]) -> str:
    if not numbers:
        return "–"
    ordered = sorted(numbers)
    return f"{median(ordered):.0f} / {ordered[int(0.9 * (len(ordered) - 1))]} / {ordered[-1]}"


@cache
def words_of(source: Source) -> Words:
    words = Words()
    words.add_source(source.text, source.tree)
    return words


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it."""
    waiting: list[ast.AST] = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Function):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def branches(function: Function) -> int:
    count = 1
    for node in own_nodes(function):
        if isinstance(
            node,
            ast.If | ast.IfExp | ast.For | ast.AsyncFor | ast.While | ast.ExceptHandler | ast.match_case,
        ):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += len(node.ifs)
    return count


def constructors(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Each class with an `__init__` of its own, and its arguments but `self`."""
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.ClassDef):
            continue
        for init in owner.body:
            if isinstance(init, ast.FunctionDef) and init.name == "__init__":
                a = init.args
                yield owner.name, len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs) - 1


# ---- imports
def _imports(engine: list[Source]) -> dict[str, Figure]:
    modules = imports(engine)
    rooms: dict[str, set[str]] = {}
    for source, targets in modules.items():
        for target in (source, *targets):
            rooms.setdefault(room(target), set())
        rooms[room(source)] |= {room(t) for t in targets} - {room(source)}
    out = {}
    for label, arrows in (("modules", modules), ("rooms", rooms)):
        found = circles(arrows)
        out[f"engine: {label}"] = Figure(len(arrows))
        out[f"engine: import arrows among {label}"] = Figure(sum(map(len, arrows.values())))
        out[f"engine: floors of {label}"] = Figure(floors(arrows) if not found else "–")
        out[f"engine: import circles among {label}"] = Figure(len(found), tuple(map(" ↔ ".join, found)))
    return out


def room(module: str) -> str:
    return ".".join(module.split(".")[:3])


def imports(sources: list[Source]) -> dict[str, set[str]]:
    """Which of these modules each of them imports; imports for the type checker alone are left out."""
    known = {s.module for s in sources}
    out: dict[str, set[str]] = {}
    for source in sources:
        targets: set[str] = set()
        for node in _at_run_time(source.tree):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= inner & known or {node.module}
        if targets or len(source.tree.body) > 1:  # an `__init__` that holds a docstring alone is no module
            out[source.module] = (targets & known) - {source.module}
    return out


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_run_time(child)


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach one another."""
    reach = {m: _reached(arrows, m) for m in arrows}
    groups = {tuple(sorted(n for n in reach[m] if m in reach.get(n, ()))) for m in arrows if m in reach[m]}
    return [list(group) for group in sorted(groups)]


def _reached(arrows: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(arrows.get(start, ()))
    while waiting:
        if (module := waiting.pop()) not in seen:
            seen.add(module)
            waiting.extend(arrows.get(module, ()))
    return seen


def floors(arrows: Mapping[str, set[str]]) -> int:
    """The number of modules on the longest path; there must be no circle."""
    known: dict[str, int] = {}

    def height(module: str) -> int:
        if module not in known:
            known[module] = 1 + max(map(height, arrows.get(module, ())), default=0)
        return known[module]

    return max(map(height, arrows), default=0)


# ---- writers of state
def _writes(engine: list[Source], everything: list[Source]) -> dict[str, Figure]:
    late = tuple(late_assignments(engine, everything))
    writers = tuple(s.module.removeprefix("r2fs.engine.") for s in engine if writes_pending(s.tree))
    return {
        "engine: attributes assigned from outside": Figure(len(late), late),
        "engine: writers of pending state": Figure(len(writers), writers),
    }


def assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node


def late_assignments(engine: Iterable[Source], everything: Iterable[Source]) -> Iterator[str]:
    fields: set[str] = set()
    of_dataclasses: set[str] = set()
    for source in everything:
        for owner in ast.walk(source.tree):
            if not isinstance(owner, ast.ClassDef):
                continue
            if any("dataclass" in ast.unparse(d) for d in owner.decorator_list):
                of_dataclasses |= {
                    s.target.id
                    for s in owner.body
                    if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
                }
            for init in owner.body:
                if isinstance(init, ast.FunctionDef) and init.name == "__init__":
                    fields |= {a.attr for a in assigned(init) if _is_self(a.value)}
    for source in engine:
        for target in assigned(source.tree):
            if not _is_self(target.value) and target.attr in fields - of_dataclasses:
                yield f"{source.module.rpartition('.')[2]}: {ast.unparse(target)}"


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def writes_pending(tree: ast.Module) -> bool:
    for target in assigned(tree):
        if target.attr in PENDING_ATTRIBUTES and not _is_self(target.value):
            return True
        if _last_name(target.value) in PENDING_ATTRIBUTES:
            return True
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in UNTYPED_DOORS
        and _last_name(node.func.value) in PENDING_STORES
        for node in ast.walk(tree)
    )
