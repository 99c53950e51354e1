"""Reports of commands that change objects one by one: counts, and the first failures.

The thread that does the work changes a report, others read it: each field by itself is true.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from r2fs.model.keys import printable

FAILURES_KEPT = 1000  # the count goes on


@dataclass(slots=True)
class BulkReport:
    """Outcome so far. Sizes are bytes."""

    found: int = 0  # objects and unsent files found so far
    listed: bool = False  # no more will be found
    done: int = 0  # objects changed or deleted, with `unsent`
    unchanged: int = 0  # objects that were already as wanted
    unsent: int = 0  # files removed before they had an object
    bytes: int = 0  # of what was done
    waiting: int = 0  # deletions that the mount's daemon still has to send
    failed: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)  # key and reason, of the first failures

    def fail(self, key: str, error: object) -> None:
        self.failed += 1
        if len(self.errors) < FAILURES_KEPT:
            self.errors.append((printable(key), str(error)))

    def did(self, size: int) -> None:
        self.done += 1
        self.bytes += size

    def add(self, other: BulkReport) -> None:
        """Add the counts and errors of a further report."""
        self.found += other.found
        self.done += other.done
        self.unchanged += other.unchanged
        self.unsent += other.unsent
        self.bytes += other.bytes
        self.waiting += other.waiting
        self.failed += other.failed
        self.errors += other.errors[: FAILURES_KEPT - len(self.errors)]
