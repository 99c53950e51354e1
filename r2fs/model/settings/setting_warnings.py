"""Warnings about settings in force: misspelled variables, readable secrets, requests by plain http. Host names are not
resolved: a look-up may take long.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from r2fs.model.settings import Bucket
from r2fs.model.settings.options import BY_NAME, TABLE
from r2fs.model.settings.settings_file import SettingsFile, near

log = logging.getLogger(__name__)

OTHERS = 0o007
NOT_SETTINGS = {"R2FS_PYTHON"}  # of r2fs.client


def of_misspelled(environ: Mapping[str, str]) -> None:
    known = {option.own_variable for option in TABLE} | NOT_SETTINGS
    for variable in environ:
        if variable.startswith("R2FS_") and variable not in known and (hint := near(variable, known, 0.85)):
            log.warning("the variable %s is no setting%s", variable, hint)


def of_readable_secrets(file: SettingsFile, mount: str, key_files: Mapping[str, Sequence[Path]]) -> None:
    """Warn about files of secrets that every user can read, also if another source has precedence."""
    named = {
        *file.shared,
        *file.mounts.get(mount, {}),
        *(name for own in file.buckets.values() for name in own),
    }
    held = [(file.path, option.name) for option in TABLE if option.secret and option.name in named]
    held += [(path, part) for part, paths in key_files.items() if BY_NAME[part].secret for path in paths]
    for path, name in held:
        if _is_open(path):
            log.warning("%s holds %s and every user can read it: chmod 600 it", path, name)


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        return False  # an unreadable file is an error where its value is needed


def of_plain_http(bucket: Bucket) -> str | None:
    """Warning for the person who mounts; None if requests are encrypted or do not leave this machine."""
    if bucket.members:
        return next((warning for one in bucket.members if (warning := of_plain_http(one)) is not None), None)
    url = urlsplit(bucket.endpoint_url or "")
    if bucket.scheme != "s3" or url.scheme.lower() != "http" or is_this_machine(url.hostname or ""):
        return None
    keys = "" if bucket.credentials.anonymous else "the access key id, signatures, the session token and "
    return (
        f"{bucket.endpoint_url} is not encrypted: {keys}all files can be read and changed on the way; "
        f"use https, or reach that server by a tunnel"
    )


def is_this_machine(host: str) -> bool:
    """True for a loopback name or address, this host's own name, or an address of one of its interfaces."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower():
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False  # another name, whose address another machine may have
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((str(address), 0))  # refused unless an interface has the address
        except OSError:
            return False
    return True
