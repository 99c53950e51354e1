"""Names of a mirror, in NFC: the key of a path, the path of a key, and the names that are not mirrored.

Threads: every method: the tables are changed by single assignments.
Fails:   NotMirrored, with the reason.
"""

from __future__ import annotations

import re
from fnmatch import translate

from r2fs.disk.plain_tree import OWN
from r2fs.model.errors import BadName, NameTooLong, R2fsError
from r2fs.model.keys import check_key, check_name, is_name, nfc, printable


class NotMirrored(R2fsError):
    """The name stays on its side; the message says why."""


class LocalOnly(NotMirrored):
    """A name of `local_patterns`: meant to stay, and worth no line in the log."""


class Names:
    def __init__(self, prefix: str, patterns: tuple[str, ...]) -> None:
        # constant
        self._prefix = prefix
        self.change_patterns(patterns)
        # names whose path or key is not NFC
        self._paths: dict[str, str] = {}
        self._keys: dict[str, str] = {}

    def change_patterns(self, patterns: tuple[str, ...]) -> None:
        """Replace `local_patterns`; the next pass follows."""
        self._local = re.compile("|".join(map(translate, patterns)) or r"(?!)").match

    def of_path(self, path: str) -> str:
        """The name of a path below the directory."""
        parts = path.split("/")
        self._check(path, parts)
        try:
            name = "/".join(map(check_name, parts))
            check_key(self._prefix + name)
        except (BadName, NameTooLong) as error:
            raise NotMirrored(str(error)) from None
        if name == path:
            self._paths.pop(name, None)
        else:
            self._paths[name] = path
        return name

    def of_key(self, key: str) -> str:
        """The name of an object's key; a directory's object has the name of the directory."""
        path = key.removeprefix(self._prefix)
        parts = path.removesuffix("/").split("/")
        self._check(path, parts)
        if not all(map(is_name, parts)):
            raise NotMirrored(f"{printable(key)} cannot be a path")
        name = nfc("/".join(parts))
        if name == path or path.endswith("/"):
            self._keys.pop(name, None)
        else:
            self._keys[name] = key
        return name

    def _check(self, path: str, parts: list[str]) -> None:
        if parts[0] == OWN:
            raise NotMirrored(f"{printable(path)} is the mirror's own")
        if self._local(parts[-1]):
            raise LocalOnly(f"{printable(path)} stays where it is (local_patterns)")

    def path(self, name: str) -> str:
        return self._paths.get(name, name)

    def key(self, name: str) -> str:
        return self._keys.get(name) or self._prefix + name
