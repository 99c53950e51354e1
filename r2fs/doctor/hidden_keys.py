"""Objects whose keys a mount cannot show, with the reasons, by the rules of names in model/keys.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from r2fs.model.keys import is_name, nfc, shown_name
from r2fs.model.records import ObjectInfo

NOT_A_NAME = "a part of the key cannot be a file name"
DIRECTORY_TOO = "a directory has the same name"
SAME_NAME = "another object has the same name"
BYTES_AT_DIRECTORY = "bytes at a directory's own key (readable as .r2fs-directory-object)"


@dataclass(slots=True)
class HiddenKeys:
    """Collects the keys of all pages of a listing."""

    prefix: str
    seen: int = 0
    _directories: set[str] = field(default_factory=set)  # paths in NFC
    _files: list[tuple[str, str]] = field(default_factory=list)  # path in NFC, key
    _hidden: dict[str, str] = field(default_factory=dict)

    def add(self, objects: Iterable[ObjectInfo]) -> None:
        for info in objects:
            self.seen += 1
            path = info.key[len(self.prefix) :]
            if path.endswith("/") or not path:
                self._add_marker(info, path[:-1])
            else:
                self._add_file(info, path)

    def _add_marker(self, info: ObjectInfo, path: str) -> None:
        if path and not all(map(is_name, path.split("/"))):
            self._hidden[info.key] = NOT_A_NAME
            return
        self._enter_directories(path.split("/") if path else [])
        if info.size:
            self._hidden[info.key] = BYTES_AT_DIRECTORY

    def _add_file(self, info: ObjectInfo, path: str) -> None:
        *above, last = path.split("/")
        name = shown_name(last, info.size)
        if not all(map(is_name, (*above, name))):
            self._hidden[info.key] = NOT_A_NAME
            return
        self._enter_directories(above)
        self._files.append((nfc("/".join((*above, name))), info.key))

    def _enter_directories(self, parts: list[str]) -> None:
        for number in range(1, len(parts) + 1):
            self._directories.add(nfc("/".join(parts[:number])))

    def found(self) -> dict[str, str]:
        """The keys that a mount does not show, each with the reason."""
        hidden, names = dict(self._hidden), set[str]()
        for path, key in self._files:
            if path in self._directories:
                hidden[key] = DIRECTORY_TOO
            elif path in names:
                hidden[key] = SAME_NAME
            names.add(path)
        return hidden
