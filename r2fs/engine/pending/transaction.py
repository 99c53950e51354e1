"""Transactions: a change of the journal and of memory together, or neither.

Owns:  what is to be undone in memory if the journal's commit fails, and what is to be done (files
       removed, the tree changed) only once it has succeeded.
Never: decides what changes.
Locks: every method is called with Core.lock held; takes the journal's inside.
Fails: what the journal raises, with memory as it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from r2fs.disk.journal.journal import Journal

Action = Callable[[], object]


class Transactions:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open = False
        self._undo: list[Action] = []
        self._then: list[Action] = []

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nests: the outermost commits."""
        if self._open:
            yield
            return
        self._open = True
        try:
            with self._journal.transaction():
                yield
        except BaseException:
            for undo in reversed(self._undo):
                undo()
            self._then.clear()
            raise
        finally:
            self._open = False
            self._undo.clear()
        actions, self._then = self._then, []
        with ExitStack() as committed:  # each of them, also after one that failed: the journal has them all
            for action in reversed(actions):
                committed.callback(action)

    def on_undo(self, undo: Action) -> None:
        """Memory has changed; `undo` reverses that. Outside a transaction the journal has it already."""
        if self._open:
            self._undo.append(undo)

    def then(self, action: Action) -> None:
        """After the commit; at once where no transaction is open."""
        if self._open:
            self._then.append(action)
        else:
            action()
