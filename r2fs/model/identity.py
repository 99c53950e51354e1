"""Identity of a bucket: which spellings of an endpoint name one and the same service.

Owns:  the normal form of an endpoint, and the spellings that mean the same as a given one. A state
       directory is named after the spelling of its first mount (`places.slug`) and found by this.
Never: resolves a host name, or asks anybody. What only a look-up could tell stays different.

Same service: scheme http or https, host in any case and with or without a final dot, the scheme's own
port or none, and slashes at the end. A path is part of the address, the bucket's name at its end too: from
there every request goes to another place. Every regional host of Amazon's S3 is one service, but for the
partitions (China, GovCloud): within each of them a bucket's name is unique.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from r2fs.model.settings import Bucket

AWS = "s3.amazonaws.com"
_AWS_HOST = re.compile(
    r"s3(?!-(?:outposts|accesspoint|object-lambda|control))([.-][a-z0-9-]+)*\.amazonaws\.com(\.cn)?"
)
_PARTITION = re.compile(r"(?<![a-z0-9])(cn|us-gov|us-iso[a-z]?|eu-iso[a-z]|eusc)-")
_OWN_PORT = {"http": 80, "https": 443}

Identity = tuple[str, str, str, str]


def identity(bucket: Bucket) -> Identity:
    """(scheme, service, bucket, prefix): equal for two spellings of one place."""
    if bucket.scheme == "file":
        return "file", "", os.path.realpath(bucket.name), ""
    return bucket.scheme, service(bucket.endpoint_url, bucket.region), bucket.name, bucket.prefix


def may_be_same(one: Bucket, other: Bucket) -> bool:
    """Same bucket and prefix by another service's address, which may be another name of the same one."""
    mine, theirs = identity(one), identity(other)
    return mine != theirs and one.scheme == "s3" and (mine[0], *mine[2:]) == (theirs[0], *theirs[2:])


def partition(region: str) -> str:
    """Of Amazon's, by a region or a host: "us-gov"; "" for the one that nearly all are in."""
    found = _PARTITION.search(region)
    return found[1] if found else ""


def service(endpoint_url: str | None, region: str = "") -> str:
    """HOST[:PORT][/PATH] of an endpoint, in one spelling; AWS's where there is none.

    >>> service("HTTPS://Acc.Example.com.:443//s3/")
    'acc.example.com/s3'
    """
    if not endpoint_url:
        return _aws(partition(region))
    try:
        parts = urlsplit(endpoint_url)
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:  # no address at all, which the first request tells
        return endpoint_url.lower().rstrip("/")
    if _AWS_HOST.fullmatch(host):
        return _aws(partition(host))
    path = [part for part in parts.path.split("/") if part]
    own = port is None or port == _OWN_PORT.get(parts.scheme.lower())
    return "/".join([host if own else f"{host}:{port}", *path])


def _aws(partition: str) -> str:
    return f"s3.{partition}.amazonaws.com" if partition else AWS


def _host(name: str) -> str:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower().rstrip(".")
    return f"[{address}]" if address.version == 6 else str(address)


def spellings(bucket: Bucket) -> Iterator[Bucket]:
    """`bucket` by the other spellings of its endpoint after which a state directory may have been named.

    For directories that hold no record of their mount; one with a record is compared by identity.
    """
    if bucket.scheme == "file":
        yield replace(bucket, name=os.path.realpath(bucket.name))
        return
    address = service(bucket.endpoint_url, bucket.region)
    hosts: list[str | None] = [address]
    if address == service(None, bucket.region):
        hosts += [None, f"s3.{bucket.region}.amazonaws.com"]
    host, _, path = address.partition("/")
    if ":" not in host.rpartition("]")[2]:
        hosts += [f"{host}:{port}/{path}".rstrip("/") for port in _OWN_PORT.values()]
    for name in hosts:
        if name is None:
            yield replace(bucket, endpoint_url=None)
            continue
        for scheme in _OWN_PORT:
            yield replace(bucket, endpoint_url=f"{scheme}://{name}")
