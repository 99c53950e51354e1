"""A memory store whose LISTs are answered by the test."""

from __future__ import annotations

from collections.abc import Callable

from r2fs.model.records import ListPage
from tests.support.memory_store import MemoryStore

MOST = 10_000  # LISTs: who asks more often does so without end

Answering = Callable[[str, str | None], ListPage]  # of the prefix and the token


class ScriptedListings(MemoryStore):
    """`answering` answers each LIST, where it is set; `lists` counts them."""

    def __init__(self, answering: Answering | None = None) -> None:
        super().__init__()
        self.answering = answering
        self.lists = 0

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        self.lists += 1
        assert self.lists < MOST, "nobody asks so often"
        if self.answering is not None:
            return self.answering(prefix, token)
        return super().list_page(
            prefix, delimiter=delimiter, start_after=start_after, token=token, limit=limit
        )
