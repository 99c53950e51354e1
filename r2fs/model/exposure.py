"""Exposure of a mount's requests: by plain http to another machine others on the way read all of them.

Owns:  which hosts are this machine, and the sentence.
Never: resolves a name: that may take long, and the answer may be somebody else's.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from r2fs.model.settings import Bucket


def warning_of(bucket: Bucket) -> str | None:
    """The sentence for the person who mounts; None where requests are encrypted or do not leave this machine."""
    url = urlsplit(bucket.endpoint_url or "")
    if bucket.scheme != "s3" or url.scheme.lower() != "http" or is_this_machine(url.hostname or ""):
        return None
    keys = "" if bucket.credentials.anonymous else "the access key id, signatures, the session token and "
    return (
        f"{bucket.endpoint_url} is not encrypted: {keys}all files can be read and changed on the way; "
        f"use https, or reach that server by a tunnel"
    )


def is_this_machine(host: str) -> bool:
    """A loopback name or address, this host's own name, or an address of one of its interfaces."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower():
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False  # another name, which anybody may answer for
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((str(address), 0))  # refused for an address that no interface has
        except OSError:
            return False
    return True
