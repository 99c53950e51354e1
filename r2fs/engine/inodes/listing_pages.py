"""Pages: the end of a listing in pages, also on a server with endless pages.

A token for the second time, a page that begins like an earlier one, and several empty pages in a row are refused by
MalformedAnswer. The order of keys is not looked at: servers have orders of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from r2fs.model.errors import MalformedAnswer
from r2fs.model.keys import printable
from r2fs.model.ports import ObjectStore
from r2fs.model.records import ListPage

EMPTY = 10  # pages in a row: a server that skips deleted objects may send a few
LARGEST = 2_000  # pages, of a thousand names as a rule: more than a host's memory holds
MOST_BYTES = 1 << 30  # of memory, in as many pages: a server may put tens of thousands of names into one
NAME_BYTES = 400  # of memory that an entry takes beside its key: measured


class Pages:
    """The pages of one listing. Pass each page to `turn` before its names are used.

    `what`: the prefix, or the bucket's URL where that is empty, for messages. `kept`: the entries stay in memory
    until the last page, so at most LARGEST pages of MOST_BYTES are taken.
    """

    def __init__(self, what: str, kept: bool = False) -> None:
        # constant
        self._what = what
        self._kept = kept
        # of this listing's thread: hashes, since a server sets no limit to the length of tokens
        self._tokens: set[int] = set()
        self._firsts: set[int] = set()
        self._empty = 0
        self._bytes = 0

    def turn(self, page: ListPage) -> str | None:
        """Return the token of the next page; None: this was the last. Raises MalformedAnswer."""
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
        """Return keys by which a repeated page is recognised. A server may put one directory at the end of a page and
        at the start of the next: a single prefix is no proof."""
        if page.objects:
            return (page.objects[0].key,)
        return (page.prefixes[0], page.prefixes[-1], str(len(page.prefixes))) if page.prefixes else None

    def _endless(self, why: str) -> MalformedAnswer:
        return MalformedAnswer(
            f"{printable(self._what)}: the server's answer cannot be understood: a listing without an end: {why}"
        )


def pages_of(
    store: ObjectStore,
    prefix: str,
    *,
    delimiter: str = "",
    start_after: str = "",
    limit: int = 1000,
    kept: bool = False,
) -> Iterator[ListPage]:
    """Yield the pages of a LIST; each is a request, sent when the page is taken. Raises StoreError."""
    pages, token = Pages(prefix or store.url, kept), None
    while True:
        after = "" if token else start_after
        page = store.list_page(prefix, delimiter=delimiter, start_after=after, token=token, limit=limit)
        token = pages.turn(page)
        yield page
        if token is None:
            return
