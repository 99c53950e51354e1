"""Parser of the XML in S3's answers: in one pass, without a tree; the form is checked while it is read.

Owns:    the form of each operation's document (its root, the fields that are read of it), and the bounds: elements in
         each piece, depth, rows, the length of a text.
Never:   expands entities: a document type is refused, S3 sends none. Imports boto3, or knows keys.
Fails:   Malformed; its text names the fault, and can follow a colon.

Namespaces and prefixes, comments, CDATA, processing instructions, attributes, unknown elements and the order
of elements make no difference. A field that comes twice, or that holds elements, is refused.

Rows of a listing come from most servers in one form: the same fields in the same order, in printable ASCII without
entities. One expression, made after the first row, then reads all of them in a quarter of the time, and the parser
reads the document with an empty row in their place. If a row has another form, the parser reads every element.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NoReturn
from xml.parsers import expat

from r2fs.model.keys import printable

PIECE = 64 << 10  # bytes that are parsed at once: no tag and no text is longer
DEPTH = 16  # S3's deepest document has five levels
ROWS = 10_000  # a page of LIST has 1,000 keys, and servers that know no limit send more
_ALIKE = "Contents"  # rows of a page that `_taken_out` finds at once
_REGION = re.compile(r"[a-z0-9-]{1,40}\Z")
_OPEN, _CLOSE = "<Contents>", "</Contents>"
_FIELD = re.compile(r"<([A-Za-z]{1,40})>([^<>&\"]*|(?:&quot;|&#34;)[^<>&\"]*(?:&quot;|&#34;))</\1>")
_TEXT = r"([ !#-%'-;=?-~]*)"
_QUOTE = "(?:&quot;|&#34;)?"
ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class Malformed(Exception):
    """An answer that differs from S3's documents. The text names the fault."""


@dataclass(frozen=True, slots=True)
class Table:
    """Fields of alike rows, by name; each as many texts as there are rows."""

    columns: dict[str, list[str]]
    count: int

    def rows(self) -> list[dict[str, str]]:
        names = tuple(self.columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]


@dataclass(frozen=True, slots=True)
class Form:
    """Form of an answer: the document that it must be, and the fields that are read of it."""

    roots: frozenset[str]
    fields: frozenset[str] = frozenset()  # children of the root
    # repeated children, and the fields that are read of each
    rows: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    root: str
    fields: Mapping[str, str]
    rows: list[tuple[str, dict[str, str]]]
    table: Table | None = None  # further rows, all of a listing's `Contents`, before the others

    def text(self, name: str) -> str:
        """The field's text, which must not be missing or empty."""
        found = self.fields.get(name)
        if not found:
            raise Malformed(f"no {name}")
        return found


def _form(root: str, *fields: str, **rows: set[str]) -> Form:
    return Form(frozenset({root}), frozenset(fields), {name: frozenset(of) for name, of in rows.items()})


# By S3's name of the operation. Operations that are not here answer by headers alone.
FORMS: Mapping[str, Form] = {
    "ListObjectsV2": _form(
        "ListBucketResult",
        "Name",
        "Prefix",
        "KeyCount",
        "IsTruncated",
        "NextContinuationToken",
        "EncodingType",
        Contents={"Key", "Size", "ETag", "LastModified"},
        CommonPrefixes={"Prefix"},
    ),
    "DeleteObjects": _form("DeleteResult", Deleted={"Key"}, Error={"Key", "Code", "Message"}),
    "CreateMultipartUpload": _form("InitiateMultipartUploadResult", "UploadId"),
    "CompleteMultipartUpload": _form("CompleteMultipartUploadResult", "ETag"),
    "CopyObject": _form("CopyObjectResult", "ETag"),
    "UploadPartCopy": _form("CopyPartResult", "ETag"),
    "GetBucketCors": _form("CORSConfiguration"),
    "GetBucketLifecycleConfiguration": _form("LifecycleConfiguration"),
    "ListMultipartUploads": _form("ListMultipartUploadsResult"),
    "ListBuckets": _form("ListAllMyBucketsResult"),
}
ERROR = _form("Error", "Code", "Message", "Region")
NESTED_ERROR = _form("ErrorResponse", Error={"Code", "Message"})  # as AWS's other services have it


def read_document(body: bytes, form: Form) -> Document:
    """The document, which is of `form` or an error's."""
    if _ALIKE in form.rows and (found := _with_alike_rows(body, form)) is not None:
        return found
    return _Reader((form, ERROR, NESTED_ERROR)).read(body)


def _with_alike_rows(body: bytes, form: Form) -> Document | None:
    """The document, by `_taken_out`; None where each element is to be read."""
    taken = _taken_out(body)
    if taken is None or not form.rows[_ALIKE] <= taken[1].columns.keys():
        return None
    try:
        found = _Reader((form, ERROR, NESTED_ERROR)).read(taken[0])
    except Malformed:
        return None  # read the whole again, for the error's place in it
    if [row for name, row in found.rows if name == _ALIKE] != [{}] or found.rows[0][0] != _ALIKE:
        return None
    return replace(found, rows=found.rows[1:], table=taken[1])


def error_in(document: Document) -> tuple[str, str] | None:
    """Code and message; None: it is no error's document, or one without a code."""
    fields: Mapping[str, str] = document.fields
    if document.root == "ErrorResponse":
        fields = next((row for name, row in document.rows if name == "Error"), {})
    elif document.root != "Error":
        return None
    code = fields.get("Code", "").strip()
    return (code, fields.get("Message", "")) if code else None


def error_of_body(body: bytes) -> tuple[str, str] | None:
    """Code and message, where `body` is an S3 error; None for a web page and all else."""
    try:
        return error_in(read_document(body, ERROR))
    except Malformed:
        return None


def region_of_error(body: bytes) -> str:
    """Of AWS's AuthorizationHeaderMalformed: where the bucket is; "" where it does not say, or no region."""
    try:
        region = read_document(body, ERROR).fields.get("Region", "")
    except Malformed:
        return ""
    return region if _REGION.match(region) else ""


def _taken_out(body: bytes) -> tuple[bytes, Table] | None:
    """Return the document with an empty row in place of the rows, and the rows; None: rows of several forms."""
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
    if count > ROWS or len(max(parts, key=len)) > PIECE:
        return None
    return f"{text[:start]}{_OPEN}{_CLOSE}{text[end:]}".encode("ascii"), Table(columns, count)


@lru_cache(16)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """The pattern of a row. The quotes of an ETag are no part of its text."""
    quote = [_QUOTE if name == "ETag" else "" for name in names]
    fields = (f"<{name}>{q}{_TEXT}{q}</{name}>" for name, q in zip(names, quote, strict=True))
    return re.compile(f"{_OPEN}{''.join(fields)}{_CLOSE}")


class _Reader:
    """One document. `forms` differ in their roots."""

    def __init__(self, forms: tuple[Form, ...]) -> None:
        self._forms = {root: form for form in forms for root in form.roots}
        self._wanted = " or ".join(sorted(forms[0].roots))
        self._root = ""
        self._form = forms[0]
        self._fields: dict[str, str] = {}
        self._rows: list[tuple[str, dict[str, str]]] = []
        self._row: dict[str, str] | None = None  # of the child of the root that is open
        self._row_name = ""
        self._leaf = ""  # the element whose text is collected; "": none is
        self._text: list[str] = []
        self._depth = 0
        self._events = 0
        parser = self._parser = expat.ParserCreate("utf-8")  # `_declaration` checks the document's encoding
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def read(self, body: bytes) -> Document:
        # AWS sends white space while it completes an upload: before the declaration it is not XML.
        view = memoryview(body.lstrip(b" \t\r\n"))
        try:
            for at in range(0, len(view), PIECE):
                before = self._events
                self._parser.Parse(view[at : at + PIECE], False)
                if self._events == before and len(view) > PIECE:
                    raise Malformed("a tag or a text of more than 64 KiB")
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise Malformed(_of_expat(error, self._wanted, bool(view))) from None
        return Document(self._root, self._fields, self._rows)

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ENCODINGS:
            raise Malformed(f"XML in {_short(encoding)}, which is not UTF-8")

    def _doctype(self, name: str, *_: object) -> NoReturn:
        raise Malformed(f"a document type ({_short(name)}) in place of {self._wanted}")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._events += 1
        if self._leaf:
            raise Malformed(f"elements in {self._leaf}")
        self._depth += 1
        name = tag.rpartition(":")[2]
        if self._depth == 2:
            if name in self._form.rows:
                self._row, self._row_name = {}, name
            elif name in self._form.fields:
                self._collect(name)
        elif self._depth == 3:
            if self._row is not None and name in self._form.rows[self._row_name]:
                self._collect(name)
        elif self._depth == 1:
            self._open(name)
        elif self._depth > DEPTH:
            raise Malformed("elements too deep")

    def _open(self, root: str) -> None:
        form = self._forms.get(root)
        if form is None:
            raise Malformed(f"{_short(root)} in place of {self._wanted}")
        self._root, self._form = root, form

    def _collect(self, name: str) -> None:
        self._leaf, self._text = name, []
        self._parser.CharacterDataHandler = self._text.append

    def _end(self, tag: str) -> None:
        self._events += 1
        if self._leaf:
            into = self._fields if self._row is None else self._row
            if self._leaf in into:
                raise Malformed(f"two of {self._leaf}")
            into[self._leaf] = "".join(self._text)
            self._leaf = ""
            self._parser.CharacterDataHandler = None
        elif self._depth == 2 and self._row is not None:
            self._rows.append((self._row_name, self._row))
            self._row = None
            if len(self._rows) > ROWS:
                raise Malformed(f"more than {ROWS} entries in one answer")
        self._depth -= 1


def _of_expat(error: expat.ExpatError, wanted: str, is_body: bool) -> str:
    if not is_body:
        return f"no body in place of {wanted}"
    return f"no {wanted}: {expat.ErrorString(error.code)} at byte {error.offset} of line {error.lineno}"


def _short(name: str) -> str:
    return printable(name[:40])
