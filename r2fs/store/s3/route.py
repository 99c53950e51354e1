"""Route to a bucket: host, path, region and trusted certificates.

Owns:    the choice of routes that boto3 alone can take: through a proxy, to an access point or a directory bucket of
         AWS, and with other signatures. Where endpoint and key are in the settings and nothing else has a say, the route
         is made here, and boto3 is not imported; else a URL that boto3's client presigns tells it.
Never:   sends a request.
Fails:   botocore's exceptions if there is no credential to sign the URL with.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import botocore

from r2fs.model import owned_paths
from r2fs.model.settings import Bucket
from r2fs.store.s3.session import aws_files
from r2fs.store.s3.signing import key_of_settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_KEY = "k"
PORTS = {"http": 80, "https": 443}

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_ENDPOINT = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_LABEL}(\.{_LABEL})*|\[[0-9a-f:]+\])"
    r"(:(?P<port>[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?"
    r"(?P<base>(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)/?\Z"
)
_IP = re.compile(r"[0-9]+(\.[0-9]+){3}\Z|\[")
_REGION = re.compile(rf"(?!aws-){_LABEL}\Z")
# `--` marks kinds of buckets that AWS alone has.
_NAME = re.compile(r"[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]\Z")
# Settings of AWS's files that make another route of the same, or other certificates.
_SETTING = re.compile(rb"^\s*(ca_bundle|data_path|s3|services|use_\w+)\s*[=:]", re.MULTILINE | re.IGNORECASE)
# Variables by which botocore reads other settings, or makes another route of the same.
_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_DATA_PATH",
)


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


def is_proxied(url: str) -> bool:
    """True if the environment names a proxy for `url`."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):  # saves an import of 0.4 MB
        return False
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    return parts.scheme in getproxies() and not proxy_bypass(parts.netloc)


def _has_a_say(path: str) -> bool:
    """True if AWS's file may hold settings of a route, or must not be read."""
    try:
        owned_paths.check_file(path, os.stat(path))
        return _SETTING.search(Path(path).read_bytes()) is not None
    except FileNotFoundError:
        return False
    except OSError:  # boto3 tells, if it needs the file
        return True


def _is_decided_elsewhere() -> bool:
    """True if variables or files for AWS's tools may decide the route, too."""
    return any(name in os.environ for name in _VARIABLES) or any(map(_has_a_say, aws_files().values()))


def route_of_settings(bucket: Bucket) -> Route | None:
    """Return the route that boto3 would take, where the settings alone decide it; None: boto3's client tells it."""
    found = _ENDPOINT.match(bucket.endpoint_url or "")
    if (
        found is None
        or not (bucket.credentials.anonymous or key_of_settings(bucket.credentials))
        or bucket.credentials.profile is not None
        or found["host"].endswith((".amazonaws.com", ".amazonaws.com.cn"))
        or not _REGION.match(bucket.region)
        or not _NAME.match(bucket.name)
        or is_proxied(found[0])
        or _is_decided_elsewhere()
    ):
        return None
    host, base = found["host"], found["base"]
    if bucket.addressing == "virtual" and not _IP.match(host):
        host = f"{bucket.name}.{host}"
    else:
        base = f"{base}/{bucket.name}"
    port = int(found["port"] or PORTS[found["scheme"]])
    region = "" if bucket.credentials.anonymous else bucket.region
    return Route(found["scheme"], (host.strip("[]"), port), base, region)


def route_of(client: S3Client, bucket: str) -> Route | None:
    """Return the route that boto3's client takes; None: boto3 alone can take it."""
    if bucket.startswith("arn:") or bucket.endswith("--x-s3"):  # directory buckets have sessions
        return None
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": _KEY}, ExpiresIn=60)
    parts = urlsplit(url)
    if parts.scheme not in PORTS or parts.hostname is None or is_proxied(url):
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


# ------------------------------------------------------------------ certificates
def trusted_by(client: S3Client) -> Any:
    """Return the certificates that boto3's session trusts: True for the usual ones, or a file's name."""
    session: Any = client._endpoint.http_session  # type: ignore[attr-defined]
    return getattr(session, "_verify", None)


def trusted_by_environment() -> Any:
    """Return the certificates that boto3 would trust where AWS's files name none: True, or a file's name."""
    return os.environ.get("AWS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE", True))


def usual_certificates() -> str:
    """Return the file of the certificates that botocore trusts."""
    try:
        return str(import_module("certifi").where())
    except ImportError:
        return str(Path(botocore.__file__).with_name("cacert.pem"))


def tls_context(trusted: Any) -> ssl.SSLContext | None:
    """Return a context that trusts these certificates; None: boto3 alone knows them."""
    if not trusted:
        return None
    path = usual_certificates() if trusted is True else trusted
    try:
        return _context(path, os.stat(path).st_mtime_ns)
    except OSError:
        return None  # boto3 reports the error of the file


@lru_cache(1)  # of several buckets: reading the usual certificates takes 13 ms, and they take 0.7 MB
def _context(path: str, changed_ns: int) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # asks for a certificate of the host's name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.load_verify_locations(path)
    return context
