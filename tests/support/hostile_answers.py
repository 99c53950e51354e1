"""Random answers of every verb: a good one with a few things wrong, or right and unexpected, and what may be
believed of it.

Owns:    the generator (`answer_to`), the judge of what the store made of an answer (`judge`), and random pages
         for the engine (`pages`). `random` may be hypothesis's own, which then shrinks.
Never:   changes the bytes of an object under its ETag: what comes of that is the download's matter.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from random import Random
from urllib.parse import quote, unquote_plus

from r2fs.model.errors import StoreError
from r2fs.model.records import ListPage
from r2fs.store.s3.listing import Asked, page_of
from r2fs.store.s3.xml import FORMS, Malformed, read_document
from tests.support.hostile import (
    DATA,
    MD5,
    NS,
    PAGE,
    VERBS,
    WHOLE,
    Raw,
    document,
    entry,
    error,
    listing,
)

STATUSES = (100, 101, 150, 199, 201, 202, 203, 204, 205, 206, 226, 300, 301, 302, 303, 304, 307, 308, 400, 401,
            402, 403, 404, 405, 407, 408, 409, 411, 412, 413, 416, 418, 429, 451, 500, 501, 502, 503, 504, 507,
            511, 599, 999)  # fmt: skip
CODES = ("NoSuchKey", "NoSuchBucket", "NoSuchUpload", "SlowDown", "AccessDenied", "Odd", "", "InternalError",
         "PreconditionFailed", "InvalidPart", "x" * 3000, "\x7f")  # fmt: skip
VALUES = ("", " ", "-1", "0", "1", "9" * 30, "NaN", "1e9", "1_0", "true", "false", "None", "[]", "2026-11-28",
          "Sat, 28 Nov 2026 10:00:00 GMT", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", '"', '"a" "b"',
          "é", "\x01", "x" * 5000, MD5, f'"{MD5}"', WHOLE, "a, b", "bytes 0-4/14", "bytes */5", "bytes 2-6/",
          "bytes 9-2/14", "takes/07.wav", "aws:kms", "gzip", "text/html")  # fmt: skip
HEADERS = ("ETag", "Last-Modified", "Content-Length", "Content-Range", "Content-Type", "x-amz-meta-mtime",
           "x-amz-meta-", "x-amz-meta-uid", "x-amz-missing-meta", "x-amz-mp-parts-count", "Expires", "Date",
           "x-amz-server-side-encryption", "x-amz-request-id", "Content-Encoding", "Location", "Connection",
           "x-amz-bucket-region", "x-amz-delete-marker", "Retry-After", "x-amz-checksum-crc32")  # fmt: skip
NAMES = ("a.wav", "b c.wav", "..", ".", "", "a//b", "/", "\x01", "a\nb", "é.wav", "e\u0301.wav", "x" * 300, "a/b/c.wav",
         "a", "a/", "d/e", "%", "+", "日本.flac", "\U0001f3b5.mp3", "~", "07.wav", "08.wav", "&amp;")  # fmt: skip
SCRAPS = (b"<", b">", b"&", b"&lt;", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?x?>", b"<a/>", b"</a>", b"\0",
          b"\xff", b"<!DOCTYPE x>", b"&x;", b"<Key>", b"</Key>", b"<Size>1</Size>", b"<b>", b"\xef\xbb\xbf", b"<Error/>",
          b"<IsTruncated>true</IsTruncated>", b"<Contents/>", b"<ETag/>", b" xmlns:x='y'")  # fmt: skip
NO_BODY = (b"", b" ", PAGE, b"{}", b"<html/>", b"<Error/>", b"<ListBucketResult/>", b"\0" * 50)


def answer_to(random: Random, verb: str) -> Raw:
    """A good answer to that verb, changed in up to three places."""
    raw = VERBS[verb].good
    if verb == "list":
        raw = replace(raw, body=_listing(random))
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        raw = random.choice(_CHANGES)(random, raw, verb)
    return raw


def _listing(random: Random) -> bytes:
    names = [random.choice(NAMES) for _ in range(random.randrange(5))]
    where = random.choice(("takes/",) * 12 + ("", "books/"))
    entries = [
        entry(quote(where + name, safe="/"), random.choice((0, 1, len(DATA), 2**62))) for name in names
    ]
    prefixes = [quote(where + random.choice(NAMES) + "/", safe="/") for _ in range(random.randrange(3))]
    token = random.choice((None, None, None, "on", "", "x" * 200))
    return listing(
        entries, prefixes, token=token, prefix=random.choice(("takes/",) * 9 + ("", "books/")),
        name=random.choice(("bucket",) * 9 + ("other", "")),
    )  # fmt: skip


def _status(random: Random, raw: Raw, verb: str) -> Raw:
    return replace(raw, status=random.choice(STATUSES))


def _header(random: Random, raw: Raw, verb: str) -> Raw:
    name, value = random.choice(HEADERS), random.choice(VALUES)
    how = random.randrange(3)
    if how == 0:
        return raw.having(**{name: None})
    return raw.having(**{name: value}) if how == 1 else replace(raw, headers=(*raw.headers, (name, value)))


def _order(random: Random, raw: Raw, verb: str) -> Raw:
    headers = list(raw.headers)
    random.shuffle(headers)
    return replace(raw, headers=tuple((name.swapcase(), value) for name, value in headers))


def _error(random: Random, raw: Raw, verb: str) -> Raw:
    status = random.choice((200, raw.status, *STATUSES))
    if verb in ("get", "range") and status < 300:
        return raw
    return replace(raw, status=status, body=error(random.choice(CODES)))


def _no_document(random: Random, raw: Raw, verb: str) -> Raw:
    if verb in ("get", "range"):
        return raw
    other = document(random.choice(sorted(root for form in FORMS.values() for root in form.roots)), "")
    return replace(raw, body=random.choice((*NO_BODY, other)))


def _field(random: Random, raw: Raw, verb: str) -> Raw:
    """One element's text, doubled, without it, or another's name."""
    if not raw.body.startswith(b"<") or verb in ("get", "range"):
        return raw
    tags = [
        b"Key",
        b"Size",
        b"ETag",
        b"LastModified",
        b"IsTruncated",
        b"Name",
        b"Prefix",
        b"UploadId",
        b"Contents",
    ]
    tag = random.choice(tags)
    start = raw.body.find(b"<" + tag + b">")
    end = raw.body.find(b"</" + tag + b">", start)
    if start < 0 or end < 0:
        return raw
    stop = end + len(tag) + 3
    element = raw.body[start:stop]
    value = random.choice(VALUES).replace("\x01", "&#1;").encode()
    new = random.choice(
        (b"", element * 2, b"<" + tag + b">" + value + b"</" + tag + b">", b"<" + tag + b"/>")
    )
    return replace(raw, body=raw.body[:start] + new + raw.body[stop:])


def _bytes(random: Random, raw: Raw, verb: str) -> Raw:
    if verb in ("get", "range") or not raw.body:
        return raw
    at = random.randrange(len(raw.body))
    how = random.randrange(3)
    if how == 0:
        return replace(raw, body=raw.body[:at])
    if how == 1:
        return replace(raw, body=raw.body[:at] + random.choice(SCRAPS) + raw.body[at:])
    return replace(raw, body=raw.body[:at] + bytes([random.randrange(256)]) + raw.body[at + 1 :])


def _legal(random: Random, raw: Raw, verb: str) -> Raw:
    if not raw.body.startswith(b"<") or verb in ("get", "range"):
        return raw
    old, new = random.choice(
        ((b"><", b"> <"), (b"><", b"><!-- <Key/> --><"), (f" {NS}".encode(), b""), (b"<?xml", b" \n<?xml"),
         (b"</ETag>", b"</ETag><Owner><ID>x</ID></Owner>"), (b"<Key>", b'<Key a="<">'), (b"<Key>", b"<Key a='b'>"),
         (b"UTF-8", b"utf-8"), (b"UTF-8", b"UTF-16"), (b"<Key>", b"<Key><![CDATA[]]>"), (b"<Size>", b"<x:Size>"))
    )  # fmt: skip
    return replace(raw, body=raw.body.replace(old, new))


def _length(random: Random, raw: Raw, verb: str) -> Raw:
    return replace(raw.having(content_length=None), length=False)


MD5_FORM = re.compile(r"[0-9a-f]{32}")

_CHANGES: tuple[Callable[[Random, Raw, str], Raw], ...] = (
    _status, _header, _header, _order, _error, _no_document, _field, _field, _bytes, _bytes, _legal, _length,
)  # fmt: skip


# ------------------------------------------------------------------ the judge
def judge(verb: str, raw: Raw, done: object) -> str:
    """What is wrong with `done`, which the store made of `raw`; "" if nothing is."""
    if isinstance(done, StoreError):
        text = str(done)
        return "" if text.isprintable() and len(text) < 1500 else f"a message of {len(text)} characters"
    is_gone = verb in ("delete", "abort") and (raw.status == 404 or b"NoSuch" in raw.body)
    if raw.status >= 300 and not is_gone:
        return f"a success by status {raw.status}"
    if verb == "list":
        return _judge_listing(raw, done)
    if verb in ("get", "range"):
        # Of an answer that says another length: the engine compares with the ETag what came in one GET.
        right = VERBS[verb].believed
        return "" if isinstance(right, bytes) and isinstance(done, bytes) and done in right else f"{done!r}"
    if verb == "copy" and isinstance(done, str) and not MD5_FORM.fullmatch(done):
        # A server may give a copy an ETag of any form (parts, encryption), and then says so itself.
        return "" if done in _held(raw) else f"an ETag that nobody has said: {done!r}"
    if verb in ("put", "copy", "complete"):  # the key holds DATA, with its MD5 as ETag
        return "" if done in (VERBS[verb].believed, MD5) else f"an ETag that nothing proves: {done!r}"
    if verb in ("head", "part", "copy_part", "create"):
        return "" if isinstance(done, str) and done and done in _held(raw) else f"made up: {done!r}"
    if verb == "delete_many":
        return "" if isinstance(done, dict) and set(done) <= {"takes/07.wav", "takes/08.wav"} else f"{done!r}"
    return "" if done is None else f"{done!r}"


def _held(raw: Raw) -> str:
    """All that an answer says: its body as it came, its texts as XML, and its headers."""
    root = _read_otherwise(raw.body)
    texts = [] if root is None else ["".join(one.itertext()) for one in root.iter()]
    return "\n".join([raw.body.decode(errors="replace"), *texts, *(value for _, value in raw.headers)])


def _read_otherwise(body: bytes) -> ET.Element | None:
    """The document by another reader of XML; None: it is none."""
    try:
        # Without the namespace, in which ElementTree takes no `}`; whatever it is called, it makes no difference.
        return ET.fromstring(re.sub(rb' xmlns="[^"<>]*"', b"", body.lstrip(b" \r\n\t"), count=1))
    except (ET.ParseError, ValueError, LookupError):
        return None


def _judge_listing(raw: Raw, done: object) -> str:
    """By another reader of XML."""
    root = _read_otherwise(raw.body)
    if root is None:
        return "a listing of what is no XML"
    if _local(root.tag) != "ListBucketResult":
        return f"a listing of {root.tag}"
    url = any(_local(one.tag) == "EncodingType" and one.text == "url" for one in root)
    keys = [
        unquote_plus(one.text or "") if url else one.text or ""
        for contents in root
        if _local(contents.tag) == "Contents"
        for one in contents
        if _local(one.tag) == "Key"
    ]
    if keys != done:
        return f"{done!r} in place of {keys!r}"
    return "" if all(key.startswith("takes/") for key in keys) else f"keys of elsewhere: {keys!r}"


def _local(tag: str) -> str:
    return tag.rpartition("}")[2].rpartition(":")[2]


# ------------------------------------------------------------------ for the engine
def pages(random: Random, prefix: str, token: str | None) -> ListPage:
    """What LIST of `prefix` answers: of odd names, in circles, cut, or none."""
    names = [prefix + random.choice(NAMES) for _ in range(random.randrange(6))]
    below = [prefix + random.choice(NAMES) + "/" for _ in range(random.randrange(3))]
    following = random.choice((None, None, None, None, "on", str(random.randrange(5)), str(random.random())))
    body = listing(
        [entry(quote(name, safe="/"), random.choice((0, 1, 5))) for name in names],
        [quote(name, safe="/") for name in below],
        prefix=quote(prefix, safe="/"),
        token=following,
    )
    if random.randrange(4) == 0:
        body = _bytes(random, Raw(body=body), "list").body
    document = read_document(body, FORMS["ListObjectsV2"])
    if document.root != "ListBucketResult":
        raise Malformed(document.root)
    return page_of(document, Asked("bucket", prefix, token))
