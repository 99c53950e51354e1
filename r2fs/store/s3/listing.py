"""Pages of listings, and results of a batch of deletes, from the documents of the answers.

Owns:    the conditions on a listing: it is of this bucket and this prefix; it says whether more follows, and from
         where; each object has a key, a size, a time, and an ETag that is valid or empty.
Never:   judges the order of keys: servers have orders of their own.
Fails:   Malformed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_plus

from r2fs.model.errors import ObjectMissing, StoreError
from r2fs.model.etags import bare
from r2fs.model.keys import nfc, printable
from r2fs.model.records import ListPage, ObjectInfo
from r2fs.store.answers import error_of
from r2fs.store.s3.values import is_etag, ns, sane_etag
from r2fs.store.s3.xml import Document, Malformed, Table

LARGEST = 2**63 - 1  # bytes that a file can have
MOST_DIGITS = len(str(LARGEST))
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z\Z", re.ASCII)
TOKEN = 16 << 10  # characters: it goes into a URL


@dataclass(frozen=True, slots=True)
class Asked:
    """Bucket, prefix and token that the LIST was sent with."""

    bucket: str
    prefix: str
    token: str | None = None


def page_of(document: Document, asked: Asked) -> ListPage:
    fields = document.fields
    plain = unquote_plus if fields.get("EncodingType") == "url" else str
    _require_same(fields, asked, plain)
    objects, prefixes = _of_table(document.table, plain, asked) if document.table else [], []
    for name, row in document.rows:
        if name == "Contents":
            objects.append(_object(row, plain(_field(row, "Key", " of an object")), asked))
        else:
            prefixes.append(_within(asked, plain(_field(row, "Prefix", " of a common prefix"))))
    count = fields.get("KeyCount", "")
    if count.isascii() and count.isdigit() and int(count[:9]) > 0 and not document.rows and not objects:
        raise Malformed(f"none of the {count[:9]} keys that it counts")
    return ListPage(tuple(objects), tuple(prefixes), _next(fields, asked))


def not_deleted(document: Document, keys: Sequence[str]) -> dict[str, StoreError]:
    """Return the errors of a batch of `keys`, by key. A quiet answer names no others.

    Malformed for an error that names none of the keys: it may be the error of any.
    """
    exact, spelled = set(keys), {nfc(key): key for key in keys}
    failed: dict[str, StoreError] = {}
    told: set[str] = set()
    for name, row in document.rows:
        named = row.get("Key", "")
        key = named if named in exact else spelled.get(nfc(named))
        if key is None:
            raise Malformed(f"{_short(named) or 'no key'} in place of a key that was to be deleted")
        told.add(nfc(key))
        if name == "Error":
            error = error_of(key, 0, row.get("Code", ""), row.get("Message", ""))
            if not isinstance(error, ObjectMissing):
                failed[key] = error
    if any(name == "Deleted" for name, _ in document.rows):  # one that is not quiet names them all
        missing = next((key for key in keys if nfc(key) not in told), None)
        if missing is not None:
            raise Malformed(f"nothing of {_short(missing)}")
    return failed


def _require_same(fields: Mapping[str, str], asked: Asked, plain: Callable[[str], str]) -> None:
    name = fields.get("Name")
    alias = asked.bucket.startswith("arn:") or asked.bucket.endswith("-s3alias")  # an access point's bucket
    if name is not None and name != asked.bucket and not alias:
        raise Malformed(f"the listing of another bucket ({_short(name)})")
    prefix = fields.get("Prefix")
    # SeaweedFS writes keys as a URL, and the prefix as it is.
    if prefix is not None and nfc(asked.prefix) not in (nfc(prefix), nfc(plain(prefix))):
        raise Malformed(f"the listing of another prefix ({_short(plain(prefix))})")
    if fields.get("IsTruncated") not in ("true", "false"):
        raise Malformed("no IsTruncated" if "IsTruncated" not in fields else "an IsTruncated that is neither")


def _of_table(table: Table, plain: Callable[[str], str], asked: Asked) -> list[ObjectInfo]:
    """Return the same as `_object` for each row, which is called if any column has an unusual value."""
    columns, prefix = table.columns, asked.prefix
    keys = [plain(key) if "%" in key or "+" in key else key for key in columns["Key"]]
    sizes, etags, times = columns["Size"], columns["ETag"], columns["LastModified"]
    if (
        all(key.startswith(prefix) for key in keys)
        and all(map(str.isdigit, sizes))
        and len(max(sizes, key=len)) < MOST_DIGITS
        and all(map(is_etag, etags))
        and all(map(_UTC.match, times))
    ):
        try:
            moments = [ns(datetime.fromisoformat(time)) for time in times]
        except ValueError:
            moments = []
        if moments:
            return list(map(ObjectInfo, keys, map(int, sizes), etags, moments))
    return [_object(row, plain(_field(row, "Key", " of an object")), asked) for row in table.rows()]


def _object(row: Mapping[str, str], key: str, asked: Asked) -> ObjectInfo:
    _within(asked, key)
    etag = row.get("ETag", "").strip()
    try:
        return ObjectInfo(
            key,
            _size(_field(row, "Size")),
            # SeaweedFS lists directories that it made for their files without an ETag.
            sane_etag(etag) if bare(etag) else "",
            _time_ns(_field(row, "LastModified")),
        )
    except Malformed as error:
        raise Malformed(f"{error} of {_short(key)}") from None


def _field(row: Mapping[str, str], name: str, of: str = "") -> str:
    text = row.get(name)
    if text is None or (not text and name != "Key"):  # an object with an empty key is not shown
        raise Malformed(f"no {name}{of}")
    return text


def _within(asked: Asked, key: str) -> str:
    if not key.startswith(asked.prefix) and not nfc(key).startswith(nfc(asked.prefix)):
        raise Malformed(f"{_short(key)}, which does not begin with {_short(asked.prefix)}")
    return key


def _size(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > LARGEST:
        raise Malformed(f"{_short(text)} as the Size")
    return int(text)


def _time_ns(text: str) -> int:
    text = text.strip()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            raise Malformed(f"{_short(text)} as the LastModified") from None
    try:
        return ns(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except OverflowError:  # of the first or the last day that there is, in another time zone
        raise Malformed(f"{_short(text)} as the LastModified") from None


def _next(fields: Mapping[str, str], asked: Asked) -> str | None:
    """Return the token of the next page; None after the last. IsTruncated alone decides, as S3 documents it."""
    if fields["IsTruncated"] == "false":
        return None
    token = fields.get("NextContinuationToken")
    if not token:
        raise Malformed("a listing that was cut, and no NextContinuationToken")
    if len(token) > TOKEN:
        raise Malformed("a NextContinuationToken that is too long")
    if token == asked.token:
        raise Malformed("the NextContinuationToken that was just sent: it would never end")
    return token


def _short(text: str) -> str:
    return printable(text if len(text) <= 60 else text[:59] + "…")
