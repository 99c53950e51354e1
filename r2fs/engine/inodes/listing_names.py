"""Listed: what the entries of a LIST are among names, before `inodes/table.py` merges them.

Owns:  which spelling of a directory is shown.
Never: changes a node.
"""

from __future__ import annotations

from collections.abc import Iterable

from r2fs.model.keys import is_name, nfc


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
