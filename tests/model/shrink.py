"""Shrinking: the shortest list of operations that still fails, found by leaving parts out (ddmin)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Operations = list[dict[str, Any]]


def shrink(operations: Operations, fails: Callable[[Operations], bool], tries: int = 400) -> Operations:
    """`fails` runs a list on a new world. The result fails, and lacks what it does not need."""
    left = tries

    def still(candidate: Operations) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(candidate)

    size = max(1, len(operations) // 2)
    while True:
        shorter = _pass(operations, size, still)
        if size > 1:
            size //= 2
        elif len(shorter) == len(operations):
            break
        operations = shorter
    return _without_plans(operations, still)


def _pass(operations: Operations, size: int, still: Callable[[Operations], bool]) -> Operations:
    """Leave out runs of `size` operations, from the end to the beginning."""
    stop = len(operations)
    while stop > 0:
        start = max(0, stop - size)
        candidate = operations[:start] + operations[stop:]
        if candidate and still(candidate):
            operations = candidate
        stop = start
    return operations


def _without_plans(operations: Operations, still: Callable[[Operations], bool]) -> Operations:
    for number in range(len(operations)):
        for simpler in _simpler(operations[number]):
            candidate = [*operations[:number], simpler, *operations[number + 1 :]]
            if still(candidate):
                operations = candidate
    return operations


def _simpler(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same operation with less of its plan."""
    plan = operation.get("plan", {})
    if not plan:
        return
    yield {name: value for name, value in operation.items() if name != "plan"}
    for number, what in plan.items():
        yield operation | {"plan": {n: w for n, w in plan.items() if n != number}}
        if isinstance(what, list) and len(what) > 1:
            for n in range(len(what)):
                yield operation | {"plan": plan | {number: what[:n] + what[n + 1 :]}}


def listing(operations: Sequence[dict[str, Any]]) -> str:
    """As it can be pasted into test_regressions.py."""
    return "[\n" + "".join(f"    {operation!r},\n" for operation in operations) + "]"
