"""Addresses of objects: keys, paths below a mount, and URLs; each made from the others, without a request."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from r2fs.model.errors import BadName
from r2fs.model.keys import is_name, nfc, printable

# SigV4 query URLs live from 1 s to 7 days (R2: "Presigned URLs"; AWS: "Authenticating Requests: Query Parameters").
LONGEST_URL_S: Final = 604_800
R2_TOKEN: Final = "jwt/"  # a temporary credential's session token is base64 of this and a JWT


@dataclass(frozen=True, slots=True)
class UrlRequest:
    """A presigned URL to be made: GET of an object, or PUT of one."""

    expires_s: int
    put: bool = False
    download_name: str | None = None  # the name under which a browser saves the answer


@dataclass(frozen=True, slots=True)
class SignedUrl:
    url: str
    temporary: bool = False  # signed with temporary credentials, with which it ends
    ends_s: float | None = None  # Unix time at which these end, where they say so


@dataclass(frozen=True, slots=True)
class Address:
    """An object as a person names it. `bucket` is None where the text names a key alone."""

    key: str
    bucket: str | None = None


def parse(text: str) -> Address:
    """Parse a key, or a URL: r2://BUCKET/KEY, s3://BUCKET/KEY. A bare text is a key as it stands."""
    match = re.match(r"(?:r2|s3)://([^/]+)/?", text)
    return Address(text[match.end() :], match[1]) if match else Address(text)


def encoded(key: str) -> str:
    """The key as JavaScript's encodeURIComponent writes it: `/` is `%2F`."""
    return quote(key, safe="!'()*~")


def decoded(text: str) -> str:
    """The key of a percent-encoded text. BadName where the bytes are not UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise BadName(f"{printable(text)}: not the percent-encoding of UTF-8") from None


def path_below(key: str, prefix: str) -> str | None:
    """The path, relative to the mount of `prefix`, under which the object `key` is shown; None: it is not in the mount.

    BadName for a key without a path: a part that no file name can be.
    """
    key = nfc(key)
    if not key.startswith(prefix):
        return None
    below = key.removeprefix(prefix).removesuffix("/")
    if not below:
        return ""
    parts = below.split("/")
    if not all(map(is_name, parts)):
        raise BadName(f"{printable(key)}: a mount cannot show this key: a part of it is no file name")
    return "/".join(parts)


def public_url(base: str, key: str) -> str:
    """The URL of `key` at a public bucket's address: an r2.dev subdomain, a custom domain, or a path below one."""
    return f"{base.rstrip('/')}/{quote(key, safe='/~')}"


def attachment(name: str) -> str:
    """A Content-Disposition that saves the body as `name` (RFC 6266; RFC 8187 for what is not ASCII)."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\' else "_" for c in name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def token_end_s(token: str) -> float | None:
    """The Unix time at which temporary credentials of R2 end; None for a token of another form.

    Source: R2's documentation, "Temporary access credentials": the session token is the base64 of `jwt/` and a JWT,
    whose payload holds `exp` (RFC 7519, section 4.1.4). The signature is R2's to check.
    """
    try:
        text = _base64(token).decode("ascii")
        if not text.startswith(R2_TOKEN):
            return None
        payload = json.loads(_base64(text.split(".")[1]))
        return float(payload["exp"])
    except (ValueError, LookupError, TypeError, OverflowError):
        return None


def _base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_" if set(text) & set("-_") else None)
