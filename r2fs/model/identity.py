"""Identity of a bucket: the normal form of its endpoint, and all spellings of one. Host names are not resolved.

A state directory is named after the spelling of its first mount (`places.slug`) and found by its identity.

Same service: scheme http or https, host in any case and with or without a final dot, the scheme's own
port or none, and slashes at the end. A path is part of the address, also if it is a bucket's name: requests
are then sent to other URLs. All regional hosts of Amazon's S3 are one service, except for the partitions
(China, GovCloud): within a partition a bucket's name is unique.
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
    """(scheme, service, bucket, prefix): equal for two spellings of one place.

    Several buckets: no bucket, and the mount's name in the settings file. Which buckets it has may change.
    """
    if bucket.scheme == "file":
        return "file", "", os.path.realpath(bucket.name), ""
    where = bucket.label if bucket.several else bucket.prefix
    return bucket.scheme, service(bucket.endpoint_url, bucket.region), bucket.name, where


def may_be_same(one: Bucket, other: Bucket) -> bool:
    """True for the same bucket and prefix at another address, which may be another name of the same service."""
    mine, theirs = identity(one), identity(other)
    return mine != theirs and one.scheme == "s3" and (mine[0], *mine[2:]) == (theirs[0], *theirs[2:])


def partition(region: str) -> str:
    """Amazon's partition by a region or a host: "us-gov"; "" for the standard partition."""
    found = _PARTITION.search(region)
    return found[1] if found else ""


def service(endpoint_url: str | None, region: str = "") -> str:
    """HOST[:PORT][/PATH] of an endpoint, in normal form; AWS's without an endpoint.

    >>> service("HTTPS://Acc.Example.com.:443//s3/")
    'acc.example.com/s3'
    """
    if not endpoint_url:
        return _aws(partition(region))
    try:
        parts = urlsplit(endpoint_url)
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:  # not a URL: the first request raises the error
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
    """`bucket` with each spelling of its endpoint after which a state directory may be named.

    For directories without a record of their mount; with a record, identities are compared.
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
