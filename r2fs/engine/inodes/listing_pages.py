"""Pages: the end of a listing that goes on page by page, also where the server knows none.

Owns:    what tells a listing that goes in circles from a long one: a token that was there before, a page that
         begins like an earlier one, pages with nothing in them; and how much of one may be kept in memory.
Never:   asks; judges the order of keys: servers have orders of their own.
Threads: one listing, one thread.
Fails:   MalformedAnswer at the first repeat, and past the bound.
"""

from __future__ import annotations

import sys

from r2fs.model.errors import MalformedAnswer
from r2fs.model.keys import printable
from r2fs.model.records import ListPage

EMPTY = 10  # pages in a row: a server that passes over what was deleted may send a few
LARGEST = 2_000  # pages, of a thousand names as a rule: a directory that no host's memory takes
MOST_BYTES = 1 << 30  # of memory, in as many pages: a server may put tens of thousands of names into one
NAME_BYTES = 400  # of memory that an entry takes beside its key: measured


class Pages:
    """Of one listing; each page is to be handed to `turn`, before anything is made of it.

    `what`: the prefix, for messages; the bucket's URL where that is empty. `kept`: its entries are kept until the
    last page, so there may be no more than LARGEST pages, of MOST_BYTES.
    """

    def __init__(self, what: str, kept: bool = False) -> None:
        # constant
        self._what = what
        self._kept = kept
        # of this listing's thread: hashes, since tokens and keys are as long as the server likes
        self._tokens: set[int] = set()
        self._firsts: set[int] = set()
        self._empty = 0
        self._bytes = 0

    def turn(self, page: ListPage) -> str | None:
        """The token of the next page; None: that was the last."""
        first = self._beginning(page)
        if first is not None:
            if hash(first) in self._firsts:
                raise self._endless(f"it comes to {printable(first[0][:60])} again")
            self._firsts.add(hash(first))
        if page.token is None:
            return None
        if hash(page.token) in self._tokens:
            raise self._endless("a NextContinuationToken comes again")
        self._tokens.add(hash(page.token))
        self._empty = self._empty + 1 if first is None else 0
        if self._empty >= EMPTY:
            raise self._endless(f"{EMPTY} pages in a row hold nothing")
        if self._kept:
            self._count(page)
        return page.token

    def _count(self, page: ListPage) -> None:
        keys = (*(info.key for info in page.objects), *page.prefixes)
        self._bytes += NAME_BYTES * len(keys) + sum(map(sys.getsizeof, keys))
        if self._bytes > MOST_BYTES:
            raise self._endless(f"names for more than {MOST_BYTES >> 20} MiB of memory")
        if len(self._tokens) >= LARGEST:
            raise self._endless(f"more than {LARGEST} pages")

    def _beginning(self, page: ListPage) -> tuple[str, ...] | None:
        """Keys by which a repeated page is recognised. A server may name a directory at the end of one page and the
        beginning of the next: one alone proves nothing."""
        if page.objects:
            return (page.objects[0].key,)
        return (page.prefixes[0], page.prefixes[-1], str(len(page.prefixes))) if page.prefixes else None

    def _endless(self, why: str) -> MalformedAnswer:
        return MalformedAnswer(
            f"{printable(self._what)}: the server's answer cannot be understood: a listing without an end: {why}"
        )
