"""Files of variables, as `.env`: KEY=VALUE, a line each. Blank lines, comments after `#`, `export `, and values bare or in
single or double quotes. Variables in values are not expanded, and no value is part of a message.

Fails: SettingsError with the file and the line's number.
"""

from __future__ import annotations

import re
from pathlib import Path

from r2fs.model import owned_paths
from r2fs.model.errors import SettingsError

MAX_BYTES = 1 << 20
_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>.*?)\s*")
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_SINGLE = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read(path: Path, patience_s: float) -> dict[str, str]:
    """The variables of the file at `path`. A later line is stronger than an earlier one of the same name."""
    try:
        text = owned_paths.read_named(path, MAX_BYTES, patience_s).decode()
    except owned_paths.UnsafePath as error:
        raise SettingsError(f"{error.strerror}, which no env_file is") from None
    except OSError as error:
        raise SettingsError(f"env_file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"env_file {path} is not UTF-8") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = None if match is None else _value(match["value"])
        if match is None or value is None:
            raise SettingsError(f"{where}, line {number}: not KEY=VALUE")
        found[match["name"]] = value
    return found


def _value(text: str) -> str | None:
    """The value; None for a quote without its end."""
    if text.startswith('"'):
        match = _DOUBLE.fullmatch(text)
        return match and re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), match["text"])
    if text.startswith("'"):
        match = _SINGLE.fullmatch(text)
        return match and match["text"]
    return "" if text.startswith("#") else re.sub(r"\s+#.*", "", text)
