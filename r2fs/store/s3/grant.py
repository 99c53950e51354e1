"""Temporary credentials for a prefix: signed on this host for R2, by a security token service (STS) elsewhere.

Owns:   the claims of R2's token, and the policy for STS.
Never:  logs or keeps credentials; grants more than a bucket and a prefix.
Fails:  Refused where this service has no such credentials, or the parent key is temporary itself; BadCredentials and
        other StoreErrors of STS.

Source of R2's form: R2's documentation, "Temporary credentials" and "Authenticate against R2 with temporary credentials":
a JWT signed by HS256 with the parent's secret; the session token is the base64 of `jwt/` and the JWT, the secret is its
SHA-256 in hex, the key id is the parent's. STS: AWS's API reference, GetFederationToken and AssumeRole.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.parsers import ResponseParserError

from r2fs.model.addresses import R2_TOKEN
from r2fs.model.errors import BadCredentials, Refused
from r2fs.model.keys import printable
from r2fs.model.redaction import hide
from r2fs.model.settings import Bucket
from r2fs.model.settings.loading import R2_DOMAIN
from r2fs.store.s3.failures import translated
from r2fs.store.s3.services import service_of
from r2fs.store.s3.session import frozen_key, open_session
from r2fs.store.s3.xml import Malformed

if TYPE_CHECKING:
    from r2fs.store.s3.session import Session

LONGEST_R2_S = 604_800  # R2: `ttlSeconds`
SESSION_NAME = "r2fs-grant"
READ = ("s3:GetObject",)
WRITE = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")


@dataclass(frozen=True, slots=True)
class Wish:
    prefix: str  # a directory's, with its final slash; "" for the whole bucket
    read_only: bool
    ttl_s: int
    role: str | None = None  # of STS: the ARN of the role to assume


@dataclass(frozen=True, slots=True)
class Grant:
    """Temporary credentials. `repr` hides the secrets."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    ends_s: float  # Unix time

    def __repr__(self) -> str:
        return f"Grant({self.access_key_id}, until {self.ends_s:.0f})"


def grant(bucket: Bucket, wish: Wish, now_s: float) -> Grant:
    """Make credentials for `wish`. On R2 no request is sent."""
    if bucket.credentials.anonymous:
        raise Refused(f"{bucket.url}: without a key there is nothing to grant from")
    session = open_session(bucket.credentials)
    parent = frozen_key(session)
    if parent is None or parent.access_key is None or parent.secret_key is None:
        raise BadCredentials(f"{bucket.url}: there is no key to grant from: set access_key_id and its secret")
    if parent.token:
        raise Refused(
            f"{bucket.url}: the key is temporary itself: temporary credentials are granted from a permanent one"
        )
    host = urlsplit(bucket.endpoint_url or "").netloc
    made = (
        by_r2(host, parent.access_key, parent.secret_key, bucket.name, wish, now_s)
        if host.endswith("." + R2_DOMAIN)
        else _by_sts(session, bucket, host, wish)
    )
    hide(made.secret_access_key, made.session_token)
    return made


def by_r2(host: str, key_id: str, secret: str, bucket: str, wish: Wish, now_s: float) -> Grant:
    """Credentials signed on this host with the parent's secret, for the endpoint `host` (ACCOUNT.r2…)."""
    if wish.ttl_s > LONGEST_R2_S:
        raise Refused(f"R2's temporary credentials live up to {LONGEST_R2_S} s (7 days)")
    begin = int(now_s)
    claims: dict[str, Any] = {
        "bucket": bucket,
        "scope": "object-read-only" if wish.read_only else "object-read-write",
        "sub": host.partition(".")[0],
        "iss": key_id,
        "aud": host,
        "iat": begin,
        "exp": begin + wish.ttl_s,
    }
    if wish.prefix:
        claims["paths"] = {"prefixPaths": [wish.prefix], "objectPaths": []}
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    signature = hmac.digest(secret.encode(), signed.encode(), "sha256")
    token = f"{signed}.{_base64url(signature)}"
    return Grant(
        key_id,
        hashlib.sha256(token.encode()).hexdigest(),
        base64.b64encode(f"{R2_TOKEN}{token}".encode()).decode(),
        begin + wish.ttl_s,
    )


def _part(value: dict[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    """RFC 7515, section 2: without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _by_sts(session: Session, bucket: Bucket, host: str, wish: Wish) -> Grant:
    """AssumeRole of a named role, or of a server's own STS; GetFederationToken on AWS without a role."""
    service = service_of(bucket.endpoint_url)
    if not service.has_sts:
        raise Refused(
            f"{service.name} has no temporary credentials for S3 keys: make a key for the bucket in its console"
        )
    aws = not host or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    region = "us-east-1" if bucket.region == "auto" else bucket.region
    client = session.client("sts", region_name=region, endpoint_url=None if aws else bucket.endpoint_url)
    request: dict[str, Any] = {"Policy": policy(bucket.name, wish), "DurationSeconds": wish.ttl_s}
    try:
        with translated(f"{bucket.url}: temporary credentials", host or "AWS", None, lambda error, _: error):
            try:
                if aws and wish.role is None:
                    answer: Any = client.get_federation_token(Name=SESSION_NAME, **request)
                else:
                    # MinIO and Ceph ignore it
                    role = wish.role or f"arn:aws:iam::000000000000:role/{SESSION_NAME}"
                    answer = client.assume_role(RoleArn=role, RoleSessionName=SESSION_NAME, **request)
            except ResponseParserError as error:
                raise Malformed(str(error)) from error
    finally:
        client.close()
    found = answer["Credentials"]
    return Grant(
        found["AccessKeyId"],
        found["SecretAccessKey"],
        found["SessionToken"],
        found["Expiration"].timestamp(),
    )


def policy(bucket: str, wish: Wish) -> str:
    """The IAM policy of a prefix: list below it, and read, or read and write."""
    if any(sign in wish.prefix for sign in "*?$"):
        raise Refused(f"{printable(wish.prefix)}: a policy cannot name a prefix with *, ? or $")
    listing: dict[str, Any] = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}"],
    }
    if wish.prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": [f"{wish.prefix}*"]}}
    objects = {
        "Effect": "Allow",
        "Action": [*READ, *(() if wish.read_only else WRITE)],
        "Resource": [f"arn:aws:s3:::{bucket}/{wish.prefix}*"],
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [listing, objects]}, separators=(",", ":"))
