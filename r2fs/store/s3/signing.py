"""AWS Signature Version 4 in the Authorization header or in a URL, the same as botocore's signers make for S3.

Owns:    the percent-encoding of keys and queries, the canonical request, and the signing key of one day.
Never:   reads a body: the signature says UNSIGNED-PAYLOAD, as boto3's does (`client.make_client`).
Fails:   NoCredentialsError; the errors of a refresh of the credentials; ValueError for a key that is not Unicode.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import quote

from botocore.exceptions import NoCredentialsError

from r2fs.model.redaction import hide
from r2fs.model.settings import Credentials

UNSIGNED = "UNSIGNED-PAYLOAD"
_UNRESERVED = "-_.~"  # RFC 3986, besides letters and digits
_PLAIN = re.compile(r"[A-Za-z0-9/._~-]*\Z")  # nothing to be encoded
_SPACES = re.compile("  |: | \n")
_ALGORITHM = "AWS4-HMAC-SHA256"


class Frozen(Protocol):
    """Credentials at one moment."""

    @property
    def access_key(self) -> str | None: ...
    @property
    def secret_key(self) -> str | None: ...
    @property
    def token(self) -> str | None: ...


class Static(NamedTuple):
    """Credentials of the settings."""

    access_key: str
    secret_key: str
    token: str | None


def key_of_settings(credentials: Credentials) -> Static | None:
    """Return the key that the settings hold; None: there is none, or a profile has it."""
    key_id, secret = credentials.access_key_id, credentials.secret_access_key
    return Static(key_id, secret, credentials.session_token) if key_id and secret else None


class _Key(NamedTuple):
    """Signing key of a day, and the credentials that it was made of."""

    day: str
    scope: str
    frozen: Frozen
    key: bytes


def encoded_key(key: str) -> str:
    """Return an object's key as part of a URL's path: nothing is normalised, slashes stay."""
    return key if _PLAIN.match(key) else quote(key, safe="/" + _UNRESERVED)


def encoded_query(pairs: Mapping[str, str]) -> str:
    """Return the query in its canonical form: encoded, and sorted by name."""
    if not pairs:
        return ""
    encoded = [(quote(name, safe=_UNRESERVED), quote(pairs[name], safe=_UNRESERVED)) for name in pairs]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


def _signature(key: _Key, stamp: str, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{_ALGORITHM}\n{stamp}\n{key.scope}\n{digest}"
    return hmac.digest(key.key, text.encode(), "sha256").hex()


class Signer:
    """`credentials` returns those of boto3's client, renewed if they were about to expire; None: there are none."""

    def __init__(self, credentials: Callable[[], Frozen | None], region: str, service: str = "s3") -> None:
        # constant
        self._credentials = credentials
        self._region = region
        self._service = service
        # set by any thread; a second one makes the same once more
        self._cached: _Key | None = None

    def sign(self, method: str, path: str, query: str, headers: dict[str, str]) -> None:
        """Add the signature over all of `headers` (names in lower case, `host` among them) to them.

        `path` and `query` are as they are sent: encoded, the query in its canonical form.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        cached = self._key(stamp[:8])
        headers["x-amz-content-sha256"] = UNSIGNED
        headers["x-amz-date"] = stamp
        if cached.frozen.token:
            headers["x-amz-security-token"] = cached.frozen.token
        fields = sorted(headers.items())
        listed = ";".join([name for name, _ in fields])
        lines = "\n".join(map(":".join, fields)) + "\n"
        if _SPACES.search(lines):  # white space at a value's ends does not count, and within it once
            lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in fields)
        signature = _signature(cached, stamp, f"{method}\n{path}\n{query}\n{lines}\n{listed}\n{UNSIGNED}")
        headers["authorization"] = (
            f"{_ALGORITHM} Credential={cached.frozen.access_key}/{cached.scope}, SignedHeaders={listed},"
            f" Signature={signature}"
        )

    def presign(self, method: str, path: str, query: Mapping[str, str], host: str, expires_s: int) -> str:
        """Return the encoded query of a URL that is valid for `expires_s` seconds: `query`, and its signature."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        cached = self._key(stamp[:8])
        signed = {
            **query,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{cached.frozen.access_key}/{cached.scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(expires_s),
            "X-Amz-SignedHeaders": "host",
        }
        if cached.frozen.token:
            signed["X-Amz-Security-Token"] = cached.frozen.token
        canonical = encoded_query(signed)
        text = f"{method}\n{path}\n{canonical}\nhost:{host}\n\nhost\n{UNSIGNED}"
        return f"{canonical}&X-Amz-Signature={_signature(cached, stamp, text)}"

    def _key(self, day: str) -> _Key:
        frozen, cached = self._credentials(), self._cached
        if frozen is None:
            raise NoCredentialsError
        if cached is not None and cached.day == day and cached.frozen == frozen:
            return cached
        # An answer may repeat them: they are hidden before one can.
        hide(frozen.secret_key, frozen.token, identifier=frozen.access_key)
        key = f"AWS4{frozen.secret_key}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        self._cached = cached = _Key(day, scope, frozen, key)
        return cached
