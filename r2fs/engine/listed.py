"""Listed: what the entries of a LIST are among names, before `tree.py` merges them.

Owns:  which spelling of a directory is shown, and whether a node is what was listed.
Never: changes a node.
"""

from __future__ import annotations

from collections.abc import Iterable

from r2fs.engine.node import Node
from r2fs.model.keys import is_name, nfc
from r2fs.model.records import ObjectInfo


def directory_names(prefix: str, prefixes: Iterable[str], hidden: set[str]) -> dict[str, str]:
    """Directories by the name that is shown (NFC), and how the bucket spells each. The others go to `hidden`.

    A server that tells spellings apart may have two of one name: that in NFC is shown.
    """
    names: dict[str, str] = {}
    for raw in sorted((one[len(prefix) : -1] for one in prefixes), key=lambda raw: (raw != nfc(raw), raw)):
        if not is_name(raw) or nfc(raw) in names:
            hidden.add(f"{prefix}{raw}/")
        else:
            names[nfc(raw)] = raw
    return names


def is_as_listed(node: Node, info: ObjectInfo) -> bool:
    """Is it a file that owes nothing, and whose version this is?"""
    base = node.base
    return (
        base is not None
        and node.owed is None
        and base.key == info.key
        and base.etag == info.etag
        and base.size == info.size
    )
