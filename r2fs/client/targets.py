"""Targets: the ways in which a program names an object.

A `Path`, or a text that begins with `/`, is a path in a mount. Any other text is a key, or a URL r2://BUCKET/KEY.
"""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import BinaryIO, TypeAlias

from r2fs.client.errors import InvalidTarget
from r2fs.model.addresses import Address, parse
from r2fs.model.keys import printable

Target: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def path_of(target: Target) -> str | None:
    """The path of a target that is one; None for a key or a URL."""
    text = os.fspath(target)
    return text if isinstance(target, PurePath) or text.startswith("/") else None


def key_of(target: Target) -> Address:
    """The key of a target. InvalidTarget for a path."""
    if path_of(target) is not None:
        raise InvalidTarget(
            f"{printable(os.fspath(target))} is a path, and is in no mount of r2fs: without a mount, objects are named "
            "by their keys"
        )
    found = parse(os.fspath(target))
    if not found.key:
        raise InvalidTarget(f"{printable(os.fspath(target))!r} names no object")
    return found
