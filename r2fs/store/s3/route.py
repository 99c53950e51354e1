"""Route to a bucket: host, path, region and trusted certificates, found by a URL that boto3's client presigns.

Owns:    the choice of routes that boto3 alone can take: through a proxy, to an access point or a directory bucket of
         AWS, and with other signatures.
Never:   sends a request.
Fails:   botocore's exceptions if there is no credential to sign the URL with.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_KEY = "k"
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Route:
    scheme: str
    address: tuple[str, int]  # host name and port of the server
    base: str  # path of the bucket: "" where the host names it
    region: str  # "" where requests are not signed

    @property
    def host(self) -> str:
        """The Host header."""
        name, port = self.address
        name = f"[{name}]" if ":" in name else name
        return name if port == PORTS[self.scheme] else f"{name}:{port}"


def route_of(client: S3Client, bucket: str) -> Route | None:
    """Return the route; None: boto3 alone can take it."""
    if bucket.startswith("arn:") or bucket.endswith("--x-s3"):  # directory buckets have sessions
        return None
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": _KEY}, ExpiresIn=60)
    parts = urlsplit(url)
    if parts.scheme not in PORTS or parts.hostname is None or parts.scheme in get_environ_proxies(url):
        return None
    region = ""
    if parts.query:
        query = parse_qs(parts.query)
        scope = query.get("X-Amz-Credential", [""])[0].split("/")
        if query.get("X-Amz-Algorithm") != ["AWS4-HMAC-SHA256"] or scope[-2:] != ["s3", "aws4_request"]:
            return None
        region = scope[-3]
    base = parts.path.removesuffix(f"/{_KEY}")
    if unquote(base) != base or not parts.path.endswith(f"/{_KEY}"):
        return None
    return Route(parts.scheme, (parts.hostname, parts.port or PORTS[parts.scheme]), base, region)


def tls_context(client: S3Client) -> ssl.SSLContext | None:
    """Return a context that trusts the same certificates as boto3's session; None: boto3 alone knows them."""
    session: Any = client._endpoint.http_session  # type: ignore[attr-defined]
    trusted: Any = getattr(session, "_verify", None)  # True, or a file's name
    if not trusted:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # asks for a certificate of the host's name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    try:
        context.load_verify_locations(get_cert_path(trusted))
    except OSError:
        return None  # boto3 reports the error of the file
    return context
