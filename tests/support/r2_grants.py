"""How R2 judges a request with temporary credentials: the signatures of the request and of the token, end and scope.

Owns:    `Granted`, what a token allows, and `granted`, the check of one request's signatures.
Never:   shares code with r2fs/store/s3/grant.py, which makes the tokens.
Source:  R2's documentation, "Temporary credentials"; AWS's reference, "Signature Version 4", single chunk. That a token
         with prefixes allows no HeadBucket and no LIST outside of them is the stricter reading.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

READS = ("get", "head", "list")


class NotGranted(Exception):
    """R2 would answer 403."""


@dataclass(frozen=True, slots=True)
class Granted:
    bucket: str
    read_only: bool
    prefixes: tuple[str, ...]  # (): all of the bucket

    def check(self, bucket: str, operation: str, key: str) -> None:
        """NotGranted, or the request may go on. `key`: of LIST, its prefix."""
        if bucket != self.bucket:
            raise NotGranted(f"the token is for {self.bucket}")
        if self.read_only and operation not in READS:
            raise NotGranted(f"{operation} with a token that reads only")
        self.check_key(key)

    def check_key(self, key: str) -> None:
        if self.prefixes and not key.startswith(self.prefixes):
            raise NotGranted(f"{key!r} is outside of {self.prefixes}")


def granted(
    method: str, path: str, query: str, heads: Mapping[str, str], key_id: str, parent_secret: str
) -> Granted:
    """What the request's token allows. `path` and `query` as they were sent; `heads` with names in lower case."""
    text = base64.b64decode(heads["x-amz-security-token"], validate=True).decode()
    token = text.removeprefix("jwt/")
    head, payload, signature = token.split(".")
    made = hmac.digest(parent_secret.encode(), f"{head}.{payload}".encode(), "sha256")
    if not text.startswith("jwt/") or _plain(signature) != made:
        raise NotGranted("the token is not signed by the parent's secret")
    claims = json.loads(_plain(payload))
    if claims["iss"] != key_id or not claims["iat"] - 60 <= time.time() < claims["exp"]:
        raise NotGranted("the token is of another key, or has ended")
    if not _is_signed(method, path, query, heads, hashlib.sha256(token.encode()).hexdigest()):
        raise NotGranted("the request is not signed by the token's secret")
    return Granted(
        claims["bucket"],
        claims["scope"].endswith("read-only"),
        tuple(claims.get("paths", {}).get("prefixPaths", ())),
    )


def _is_signed(method: str, path: str, query: str, heads: Mapping[str, str], secret: str) -> bool:
    """Signature Version 4 in the Authorization header."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/(.+), SignedHeaders=(.+), Signature=(\w+)", heads["authorization"]
    )
    if found is None or "x-amz-security-token" not in found[2].split(";"):
        return False
    signed = "".join(f"{name}:{' '.join(heads[name].split())}\n" for name in found[2].split(";"))
    pairs = sorted(pair if "=" in pair else f"{pair}=" for pair in query.split("&") if pair)
    request = "\n".join((method, path, "&".join(pairs), signed, found[2], heads["x-amz-content-sha256"]))
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = b"AWS4" + secret.encode()
    for part in found[1].split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join(("AWS4-HMAC-SHA256", heads["x-amz-date"], found[1], digest))
    return hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), found[3])


def _plain(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
