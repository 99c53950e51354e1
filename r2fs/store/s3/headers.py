"""Encoding for the wire: user metadata as HTTP headers, of ASCII alone; keys in XML.

Owns:  the encoding: a value that is not plain printable ASCII travels as RFC 2047 encoded
       words (`=?UTF-8?B?…?=`), which is what AWS and R2 document for user metadata. Plain values,
       all that rclone and s3fs write under their own names among them, travel as they are.
Never: changes names, but for lower case: header names have none.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from collections.abc import Mapping

from r2fs.model.errors import Refused
from r2fs.model.keys import printable

_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+\Z")  # RFC 9110: what a header's name may hold
_WORD = re.compile(r"=\?(?:utf-8)\?([bq])\?([^?]*)\?=", re.IGNORECASE)
_WORD_BYTES = 45  # RFC 2047: a word has at most 75 characters; 45 bytes are 60 of base64


def encoded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Ready to be sent. Refused for a name that no header can have."""
    out = {}
    for name, value in metadata.items():
        if not _TOKEN.match(name.lower()):
            raise Refused(f"{printable(name)}: not a name for S3 metadata: letters, digits and -_. will do")
        out[name.lower()] = encode_value(value)
    return out


def size(metadata: Mapping[str, str]) -> int:
    """Bytes of names and values, as servers count them."""
    return sum(len(name) + len(value) for name, value in metadata.items())


def decoded(metadata: Mapping[str, str]) -> dict[str, str]:
    """As it was before `encoded`, or as another tool meant it."""
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


# Control characters are no XML, or become others, and Cloudflare's simulator strips white space at the ends.
_NOT_IN_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s\\Z")


def fits_xml(key: str) -> bool:
    """False for a key that DeleteObjects may misread, since it names them in XML."""
    return _NOT_IN_XML.search(key) is None
