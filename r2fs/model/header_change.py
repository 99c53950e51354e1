"""Changes of an object's Content-Type and headers, beside the same bytes: which may be set, to which values.

Fails: InvalidArgument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from r2fs.model.errors import InvalidArgument
from r2fs.model.metadata import DEFAULT_TYPE, content_type

SETTABLE = ("cache-control", "content-disposition", "content-language")
# Types that servers and Workers give where nobody has said one.
GENERIC = frozenset({None, "", DEFAULT_TYPE, "binary/octet-stream"})
_TYPE = re.compile(r"[!-~]+/[ -~]*[!-~]")
_MAX_TYPE = 255
_HEADER = re.compile(r"[!-~]([ -~]*[!-~])?")
_MAX_HEADER = 1024


def check_type(value: str) -> str:
    if not _TYPE.fullmatch(value) or len(value) > _MAX_TYPE:
        raise InvalidArgument(f"{value!r} is no Content-Type: one like audio/wav is needed")
    return value


def check_header(name: str, value: str) -> str:
    """A value of ASCII on one line. Text in other letters has a form of its own: `filename*=UTF-8''…` (RFC 6266)."""
    if not _HEADER.fullmatch(value) or len(value) > _MAX_HEADER:
        raise InvalidArgument(f"{name}: 1 to {_MAX_HEADER} characters of ASCII are needed, not {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """`headers`: by name; an empty value removes. `guess`: a generic type is replaced by that of name or bytes."""

    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    guess: bool = False

    def __post_init__(self) -> None:
        if self.content_type is not None:
            check_type(self.content_type)
        for name, value in self.headers.items():
            if name not in SETTABLE:
                raise InvalidArgument(f"{name} cannot be set: {', '.join(SETTABLE)} can")
            if value:
                check_header(name, value)
        if self.guess and self.content_type is not None:
            raise InvalidArgument("a type is given, or guessed: not both")

    def needs_bytes(self, name: str, stored: str | None) -> bool:
        """True if the first bytes are needed to guess the type of an object with the type `stored`."""
        return self.guess and stored in GENERIC and content_type(name) == DEFAULT_TYPE

    def type_for(self, name: str, stored: str | None, head: bytes = b"") -> str | None:
        """The new type; None: it stays."""
        wanted = self.content_type
        if self.guess and stored in GENERIC:
            wanted = content_type(name, head)
        return wanted if wanted not in (None, stored) and not (self.guess and wanted in GENERIC) else None

    def headers_for(self, stored: Mapping[str, str]) -> dict[str, str]:
        """All headers of an object that has `stored`."""
        changed = {**stored, **self.headers}
        return {name: value for name, value in changed.items() if value}
