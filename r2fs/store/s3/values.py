"""Conversion between r2fs's values and boto3's arguments and fields: pure functions.

Owns:  the spelling of ETags, times, ranges and conditions, and the encoding of metadata as headers of ASCII: a value
       that is not plain printable ASCII travels as RFC 2047 encoded words (`=?UTF-8?B?…?=`), as AWS and R2 document
       for user metadata. Plain values, all of rclone's and s3fs's among them, travel unchanged.
Never: imports boto3; changes names of metadata, but for lower case.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import quopri
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from r2fs.model.errors import MalformedAnswer, Refused, StoreError
from r2fs.model.etags import bare, is_md5
from r2fs.model.keys import printable
from r2fs.model.metadata import MAX_TIME_NS
from r2fs.model.records import Condition, ObjectInfo, ObjectMeta
from r2fs.store.answers import StoredDamaged, server_text
from r2fs.store.bodies import Outgoing
from r2fs.store.s3.xml import Malformed

# Headers that a later write of the object must send again, or they are lost: boto3's names, and those of HTTP.
_KEPT = {
    "CacheControl": "cache-control",
    "ContentDisposition": "content-disposition",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "Expires": "expires",
    "WebsiteRedirectLocation": "website-redirect-location",
    "StorageClass": "storage-class",
}
# Storage classes whose objects can be read at once, without that of a plain PUT.
_CLASSES = frozenset(
    {
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER_IR",
        "REDUCED_REDUNDANCY",
        "EXPRESS_ONEZONE",
    }
)
LATEST_NS = MAX_TIME_NS - 86_400 * 10**9  # so that a later change can have a later time
_EPOCH = datetime.fromtimestamp(0, UTC)

_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})\Z", re.IGNORECASE)
_ETAG = re.compile(r"[!#-~]{1,256}\Z")  # without quotes: a value that If-Match can hold
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+\Z")  # RFC 9110: the name of a header
_WORD = re.compile(r"=\?(?:utf-8)\?([bq])\?([^?]*)\?=", re.IGNORECASE)
_WORD_BYTES = 45  # RFC 2047: a word has at most 75 characters; 45 bytes are 60 of base64
# Control characters are no XML, or become others, and Cloudflare's simulator strips white space at the ends.
_NOT_IN_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s\\Z")


def malformed(name: str, what: object) -> MalformedAnswer:
    """`name`: a key, or the bucket's URL."""
    return MalformedAnswer(
        f"{printable(name)}: the server's answer cannot be understood: {server_text(str(what))}"
    )


def sane_etag(text: str) -> str:
    """Return the ETag without quotes. Malformed for an empty or invalid one."""
    etag = bare(text.strip())
    if not _ETAG.match(etag):
        raise Malformed("an ETag that is none" if etag else "no ETag")
    return etag


def is_etag(text: str) -> bool:
    """True for an ETag without quotes and without the mark of a weak one."""
    return _ETAG.match(text) is not None and not text.startswith("W/")


def info_of(key: str, answer: Mapping[str, Any], size: int, md5_etags: bool = True) -> ObjectInfo:
    etag = etag_of(key, answer)
    return ObjectInfo(
        key=key,
        size=_possible(key, size),
        etag=etag,
        modified_ns=_modified_ns(key, answer),
        content_type=answer.get("ContentType"),
        metadata=decoded(answer.get("Metadata", {})),
        headers=kept_of(answer),
        md5=etag if md5_etags and tells_md5(etag, answer) else None,
    )


def etag_of(key: str, answer: Mapping[str, Any]) -> str:
    try:
        return sane_etag(answer.get("ETag", ""))
    except Malformed as error:
        raise malformed(key, error) from error


def _possible(key: str, size: int) -> int:
    if not 0 <= size < 2**63:
        raise malformed(key, f"no Content-Length, but {size}")
    return size


def _modified_ns(key: str, answer: Mapping[str, Any]) -> int:
    moment = answer.get("LastModified")
    if moment is None:
        raise malformed(key, "no Last-Modified")
    try:
        return ns(moment)
    except OverflowError as error:  # of the first or the last day that there is, in another time zone
        raise malformed(key, f"no Last-Modified, but {moment}") from error


def tells_md5(etag: str, answer: Mapping[str, Any]) -> bool:
    """True if `etag` is the MD5 of the bytes: not of an object in parts, nor of one encrypted by a key of its own."""
    plain = answer.get("ServerSideEncryption") in (None, "AES256") and "SSECustomerAlgorithm" not in answer
    return plain and is_md5(etag)


def kept_of(stored: Mapping[str, Any]) -> dict[str, str]:
    """Of an answer to HEAD or GET, by the names of HTTP."""
    found = {header: str(stored[name]) for name, header in _KEPT.items() if stored.get(name)}
    found.pop("expires", None)
    if stored.get("ExpiresString"):  # as it is stored: boto3's own value is a moment, or missing
        found["expires"] = stored["ExpiresString"]
    if found.get("storage-class") not in _CLASSES:
        found.pop("storage-class", None)
    encodings = [
        one for one in found.pop("content-encoding", "").split(",") if one.strip() not in ("", "aws-chunked")
    ]
    if encodings:  # without that of a transfer which some servers store along
        found["content-encoding"] = ",".join(encodings).strip()
    return {header: decode_value(value) for header, value in found.items()}


def described(kept: Mapping[str, str] | None) -> dict[str, Any]:
    """Return boto3's parameters for the result of `kept_of`."""
    asked: dict[str, Any] = {
        name: encode_value(kept[header]) for name, header in _KEPT.items() if kept and header in kept
    }
    if "Expires" in asked:
        asked["Expires"] = _moment(asked["Expires"])
    return asked


def described_object(key: str, meta: ObjectMeta, limit: int) -> dict[str, Any]:
    """Return boto3's parameters for type, metadata and headers. Refused past `limit` bytes of metadata."""
    metadata = encoded(meta.metadata)
    if sum(len(name) + len(value) for name, value in metadata.items()) > limit:
        raise Refused(
            f"{printable(key)}: more metadata than the {limit} bytes that the bucket takes: remove what other"
            " tools have stored with it"
        )
    return {"ContentType": meta.content_type, "Metadata": metadata, **described(meta.headers)}


def name_refused(key: str, error: StoreError) -> Refused:
    """Return the error for a 404 to a request that needs no object: the server has no route for such a path."""
    return Refused(f"{printable(key)}: the server does not take this name: rename the file ({error})")


def _moment(text: str) -> datetime:
    """Return the time of an Expires header. RFC 9111: an invalid date, `0` above all, means expired."""
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return _EPOCH


def ns(moment: datetime) -> int:
    """Return nanoseconds since 1970, within the journal's range: servers in Go send the year 1 for "not known"."""
    if moment.tzinfo is UTC:  # of listings: a thousand times a page
        since = moment - _EPOCH
        found = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    else:
        found = calendar.timegm(moment.utctimetuple()) * 10**9 + moment.microsecond * 1000
    return max(-LATEST_NS, min(found, LATEST_NS))


def length_of(answer: Mapping[str, Any]) -> int | None:
    """Return the bytes of the body, by its length or by its range (`bytes 0-9/1234`); None: neither is known."""
    if "ContentLength" in answer:
        return int(answer["ContentLength"])
    first, _, last = answer.get("ContentRange", "").partition("/")[0].removeprefix("bytes ").partition("-")
    return int(last) - int(first) + 1 if first.isdecimal() and last.isdecimal() else None


def total(content_range: str | None, length: int) -> int:
    """Return the object's size by `bytes 0-9/1234`, or `length` if the answer is the whole object.

    Malformed for an invalid range, or one of another length than the body's.
    """
    if content_range is None:
        return length
    found = _RANGE.match(content_range)
    first, last, size = map(int, found.groups()) if found else (0, -1, -1)
    if not first <= last < size:
        raise Malformed(f"no Content-Range, but {printable(content_range[:60])}")
    if last - first + 1 != length:
        raise Malformed(f"a Content-Length of {length} for {printable(content_range[:60])}")
    return size


def part_of(start: int, length: int | None, if_match: str | None) -> dict[str, str]:
    """Return boto3's arguments for the range and the version of a GET."""
    asked = {}
    if start > 0 or length is not None:
        asked["Range"] = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
    if if_match is not None:
        asked["IfMatch"] = f'"{if_match}"'
    return asked


def place_of(delimiter: str, start_after: str, token: str | None) -> dict[str, str]:
    """Return boto3's arguments for where a LIST begins, and whether it goes below a delimiter."""
    asked = {"Delimiter": delimiter} if delimiter else {}
    if token is not None:
        asked["ContinuationToken"] = token
    elif start_after:
        asked["StartAfter"] = start_after
    return asked


def conditions(condition: Condition | None) -> dict[str, str]:
    """Arguments of boto3 for the condition of a PUT or a Complete."""
    if condition is None:
        return {}
    return {"IfNoneMatch": "*"} if condition.etag is None else {"IfMatch": f'"{condition.etag}"'}


def destination_headers(condition: Condition | None) -> dict[str, str]:
    """Headers for the condition of a copy: R2's own for the destination, and the common ones for other servers."""
    if condition is None:
        return {}
    if condition.etag is None:
        return {"cf-copy-destination-if-none-match": "*", "if-none-match": "*"}
    return {"cf-copy-destination-if-match": f'"{condition.etag}"', "if-match": f'"{condition.etag}"'}


def verified(key: str, answer: Mapping[str, Any], outgoing: Outgoing, md5_etags: bool = True) -> str:
    """Return the answer's ETag. StoredDamaged if it is the MD5 of other bytes than were read from the body."""
    etag = etag_of(key, answer)
    sent = outgoing.md5_hex
    if md5_etags and sent is not None and tells_md5(etag, answer) and etag != sent:
        raise StoredDamaged(f"{printable(key)}: the bucket stored other bytes than were sent", etag)
    return etag


def encoded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as headers. Refused for a name that no header can have."""
    out = {}
    for name, value in metadata.items():
        if not _TOKEN.match(name.lower()):
            raise Refused(f"{printable(name)}: not a name for S3 metadata: letters, digits and -_. will do")
        out[name.lower()] = encode_value(value)
    return out


def decoded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata from headers, also of other tools."""
    return {name.lower(): decode_value(value) for name, value in metadata.items()}


def encode_value(value: str) -> str:
    if value.isascii() and value.isprintable() and value == value.strip() and "=?" not in value:
        return value
    words, word = [], b""
    for character in value:
        char = character.encode("utf-8", "surrogatepass")
        if len(word) + len(char) > _WORD_BYTES:
            words.append(word)
            word = b""
        word += char
    return " ".join(f"=?UTF-8?B?{base64.b64encode(w).decode()}?=" for w in [*words, word])


def decode_value(value: str) -> str:
    if "=?" in value:
        return _decode_words(value)
    if not value.isascii():
        # Some tools send UTF-8 as it is; http.client reads headers as Latin-1.
        try:
            return value.encode("latin-1").decode()
        except UnicodeError:
            return value
    return value


def _decode_words(value: str) -> str:
    # White space between two encoded words is not part of the text.
    joined = re.sub(r"(\?=)\s+(=\?)", r"\1\2", value)
    pieces: list[bytes] = []
    at = 0
    try:
        for match in _WORD.finditer(joined):
            pieces += [joined[at : match.start()].encode(), _decode_word(*match.groups())]
            at = match.end()
        return b"".join([*pieces, joined[at:].encode()]).decode("utf-8", "surrogatepass")
    except (ValueError, binascii.Error):
        return value  # it only looked like encoded words


def _decode_word(kind: str, text: str) -> bytes:
    if kind in "bB":
        return base64.b64decode(text, validate=True)
    return quopri.decodestring(text.encode("latin-1"), header=True)


def fits_xml(key: str) -> bool:
    """False for a key that DeleteObjects may misread, since it names them in XML."""
    return _NOT_IN_XML.search(key) is None
