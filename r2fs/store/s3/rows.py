"""Rows of a listing by one expression: a page takes a quarter of the time.

Owns:    the form of `Contents` by most servers: the same fields in the same order, row behind row, in printable ASCII
         without entities. The first row makes the pattern.
Never:   judges a document: xml.py reads the rest, with an empty row in place of the rows. With the empty row in a wrong
         place (a comment, say), or one row of another form, xml.py reads every element.
"""

from __future__ import annotations

import re
from functools import lru_cache

from r2fs.model.values import dataclass

_OPEN, _CLOSE = "<Contents>", "</Contents>"
_FIELD = re.compile(r"<([A-Za-z]{1,40})>([^<>&\"]*|(?:&quot;|&#34;)[^<>&\"]*(?:&quot;|&#34;))</\1>")
_TEXT = r"([ !#-%'-;=?-~]*)"
_QUOTE = "(?:&quot;|&#34;)?"


@dataclass(frozen=True, slots=True)
class Table:
    """Fields of alike rows, by name; each as many texts as there are rows."""

    columns: dict[str, list[str]]
    count: int

    def rows(self) -> list[dict[str, str]]:
        names = tuple(self.columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]


def taken_out(body: bytes, most: int, longest: int) -> tuple[bytes, Table] | None:
    """Return the document with an empty row in place of the rows, and the rows; None: rows of several forms.

    `most`: rows; `longest`: characters of a text.
    """
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        return None
    start, end = text.find(_OPEN), text.rfind(_CLOSE) + len(_CLOSE)
    first = text[start + len(_OPEN) : text.find(_CLOSE)]
    fields = _FIELD.findall(first) if 0 <= start < end else []
    names = tuple(name for name, _ in fields)
    if not names or len(set(names)) < len(names) or first != "".join(f"<{n}>{t}</{n}>" for n, t in fields):
        return None
    # The text between two rows (must be empty), then the fields of the next row, and so on.
    parts = _pattern(names).split(text[start:end])
    step = len(names) + 1
    if len(parts) <= step or any(parts[::step]):
        return None
    columns = {name: parts[at + 1 :: step] for at, name in enumerate(names)}
    count = len(parts) // step
    if count > most or len(max(parts, key=len)) > longest:
        return None
    return f"{text[:start]}{_OPEN}{_CLOSE}{text[end:]}".encode("ascii"), Table(columns, count)


@lru_cache(16)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """The pattern of a row. The quotes of an ETag are no part of its text."""
    quote = [_QUOTE if name == "ETag" else "" for name in names]
    fields = (f"<{name}>{q}{_TEXT}{q}</{name}>" for name, q in zip(names, quote, strict=True))
    return re.compile(f"{_OPEN}{''.join(fields)}{_CLOSE}")
