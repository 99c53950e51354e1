"""AWS Signature Version 4 in the Authorization header, as botocore's signer makes it for S3.

Owns:    the percent-encoding of keys and queries, the canonical request, and the signing key of one day.
Never:   reads a body: it is UNSIGNED-PAYLOAD, as `client.make_client` sets boto3's.
Threads: any; the cached key is replaced as a whole.
Fails:   NoCredentialsError; what a refresh of the credentials raises; ValueError for a key that is not Unicode.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import quote

from botocore.exceptions import NoCredentialsError

from r2fs.model.redaction import hide

UNSIGNED = "UNSIGNED-PAYLOAD"
_UNRESERVED = "-_.~"  # RFC 3986, besides letters and digits
_ALGORITHM = "AWS4-HMAC-SHA256"


class Frozen(Protocol):
    """Credentials at one moment."""

    @property
    def access_key(self) -> str | None: ...
    @property
    def secret_key(self) -> str | None: ...
    @property
    def token(self) -> str | None: ...


class _Key(NamedTuple):
    """Signing key of a day, and the credentials that it was made of."""

    day: str
    frozen: Frozen
    key: bytes


def encoded_key(key: str) -> str:
    """An object's key as a part of a URL's path: nothing is normalised, slashes stay."""
    return quote(key, safe="/" + _UNRESERVED)


def encoded_query(pairs: Mapping[str, str]) -> str:
    """The query in its canonical form: encoded, and sorted by name. No name comes twice."""
    encoded = [(quote(name, safe=_UNRESERVED), quote(pairs[name], safe=_UNRESERVED)) for name in pairs]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


class Signer:
    """`credentials` gives those that boto3's own client signs with, renewed by then; None: there are none."""

    def __init__(self, credentials: Callable[[], Frozen | None], region: str, service: str = "s3") -> None:
        # constant
        self._credentials = credentials
        self._region = region
        self._service = service
        # set by any thread; a second one makes the same once more
        self._cached: _Key | None = None

    def signed(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> dict[str, str]:
        """`headers` (names in lower case, `host` among them) with the signature over all of them.

        `path` and `query` are as they are sent: encoded, the query in its canonical form.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        cached = self._key(stamp[:8])
        signed = {**headers, "x-amz-content-sha256": UNSIGNED, "x-amz-date": stamp}
        if cached.frozen.token:
            signed["x-amz-security-token"] = cached.frozen.token
        names = sorted(signed)
        listed = ";".join(names)
        # White space within a value counts once.
        lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in names)
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{listed}\n{UNSIGNED}"
        scope = f"{cached.day}/{self._region}/{self._service}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = hmac.digest(cached.key, f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}".encode(), "sha256")
        signed["authorization"] = (
            f"{_ALGORITHM} Credential={cached.frozen.access_key}/{scope}, SignedHeaders={listed},"
            f" Signature={signature.hex()}"
        )
        return signed

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
        self._cached = cached = _Key(day, frozen, key)
        return cached
