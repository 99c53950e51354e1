"""r2fs.client: objects of a bucket for Python programs, without boto3 in their process.

    from r2fs import client

    client.upload("take.wav", "segments/7.wav")
    client.wait("segments/7.wav", timeout_s=60)      # the bucket holds exactly these bytes
    address = client.url("segments/7.wav", expires_s=3600)

The functions use the mount of a path, or the bucket of the settings; `Client` names one. `AsyncClient` is for asyncio.
Errors are in `r2fs.client.errors`. Only the standard library is imported, so that the package installs without its
dependencies: pip install --no-deps.
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from threading import Lock
from typing import overload

from r2fs.client.aio import AsyncClient
from r2fs.client.client import HOUR_S, Client
from r2fs.client.errors import (
    AccessDenied,
    BucketMissing,
    Error,
    InvalidTarget,
    Misconfigured,
    NotConfirmed,
    NotFound,
    Refused,
    Replaced,
    Unavailable,
)
from r2fs.client.targets import Source, Target, path_of

__all__ = [
    "upload", "download", "url", "delete", "exists", "wait", "Client", "AsyncClient", "Source", "Target",
    "Error", "NotFound", "AccessDenied", "Unavailable", "NotConfirmed", "Refused", "BucketMissing", "Replaced",
    "InvalidTarget", "Misconfigured",
]  # fmt: skip

_lock = Lock()
_of_settings: list[Client] = []  # at most one; guarded by: _lock


def _client(target: Target) -> Client:
    """The client of the mount that a path is in, or else of the settings."""
    if path_of(target) is not None:
        return Client(target)
    with _lock:
        if not _of_settings:
            _of_settings.append(Client())
            atexit.register(_of_settings[0].close)
        return _of_settings[0]


def upload(source: Source, target: Target, *, content_type: str | None = None) -> str:
    """Call Client.upload."""
    return _client(target).upload(source, target, content_type=content_type)


@overload
def download(target: Target) -> bytes: ...
@overload
def download(target: Target, destination: str | os.PathLike[str]) -> Path: ...
def download(target: Target, destination: str | os.PathLike[str] | None = None) -> bytes | Path:
    """Call Client.download."""
    found = _client(target)
    return found.download(target) if destination is None else found.download(target, destination)


def url(
    target: Target,
    *,
    expires_s: float = HOUR_S,
    public: bool = False,
    put: bool = False,
    download: str | None = None,
) -> str:
    """Call Client.url."""
    return _client(target).url(target, expires_s=expires_s, public=public, put=put, download=download)


def delete(target: Target) -> None:
    """Call Client.delete."""
    _client(target).delete(target)


def exists(target: Target) -> bool:
    """Call Client.exists."""
    return _client(target).exists(target)


def wait(*targets: Target, timeout_s: float | None = None) -> None:
    """Call Client.wait; the targets are of one mount, or all keys."""
    if targets:
        _client(targets[0]).wait(*targets, timeout_s=timeout_s)
