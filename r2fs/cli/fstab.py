"""Mounts by fstab and mount(8): options `-o a,b=c`, and the calls of the helpers.

Fails: SettingsError for a word that is neither understood nor ignored.

An fstab line:   r2://studio/takes  /mnt/takes  fuse.r2fs  _netdev,allow_other,cache_size=50G  0 0
Of it mount(8) makes `mount.r2fs SPEC DIR [-sfnv] [-o …]`, or through mount.fuse `r2fs SPEC DIR -o …`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from r2fs.model.errors import SettingsError
from r2fs.model.settings.options import BY_NAME, TABLE
from r2fs.model.settings.settings_file import near
from r2fs.model.settings.sources import Flag
from r2fs.model.settings.units import Switch

# Meant for mount(8), systemd or the kernel, or the behaviour of r2fs anyway.
_IGNORED = (
    "defaults auto noauto user nouser users nousers owner group nofail fail _netdev rw exec nosuid nodev async "
    "atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime "
    "silent loud iversion noiversion default_permissions nonempty auto_unmount sync dirsync mand nomand "
    "big_writes"
)
IGNORED = frozenset(_IGNORED.split())
IGNORED_PAIRS = ("x-", "X-", "comment", "subtype", "fsname", "dev", "suid", "helper", "uhelper", "context")
_SHORT = {"ro": "read_only"}
_VALUE_FLAGS = {"-o", "-t", "-N"}  # of mount(8), each with a value as the next word
_IGNORED_FLAGS = {"-s", "-n", "-v", "-r", "-w"}
_SPLIT = re.compile(r"((?:\\.|[^,\\])+)")  # a comma in a value is written \,


def flags_of(words: tuple[str, ...]) -> dict[str, Flag]:
    """Every `-o`, in order; a later word is stronger."""
    flags: dict[str, Flag] = {}
    for text in words:
        for part in _SPLIT.findall(text):
            name, given, value = re.sub(r"\\(.)", r"\1", part.strip()).partition("=")
            if (
                name in IGNORED
                or name.startswith(("x-", "X-"))
                or (given and name in IGNORED_PAIRS)
                or not name
            ):
                continue
            if name in ("suid", "dev"):
                raise SettingsError(f"-o {name}: a mount of r2fs is always nosuid and nodev")
            flags |= _flag(name, value if given else None)
    return flags


def _flag(word: str, value: str | None) -> Mapping[str, Flag]:
    name = _SHORT.get(word, word.replace("-", "_"))
    negated = name.startswith("no_") and name.removeprefix("no_") in BY_NAME
    option = BY_NAME.get(name.removeprefix("no_") if negated else name)
    if option is None or not (option.flag or option.secret):
        known = [*(o.name for o in TABLE if o.flag), *IGNORED, *_SHORT]
        raise SettingsError(f"-o {word}: there is no such option{near(word, known)}")
    if value is None and not isinstance(option.kind, Switch):
        raise SettingsError(f"-o {word} needs a value: -o {word}=…; allowed: {option.kind.allowed}")
    raw: object = not negated if value is None else value
    return {option.name: Flag(raw, f"option -o {word}")}


def helper_arguments(words: list[str]) -> list[str]:
    """mount(8)'s arguments as ours: `mount --background --unless-mounted SPEC DIR -o …`. Empty: a dry run (-f)."""
    plain, ours = [], []
    waiting = iter(words)
    for word in waiting:
        if word in _VALUE_FLAGS:
            value = next(waiting, None)
            if value is None:
                raise SettingsError(f"{word} needs a word after it")
            ours += ["-o", value] if word == "-o" else []
        elif word == "-f":
            return []
        elif word in _IGNORED_FLAGS or re.fullmatch(r"-[snvrw]+", word):
            ours += ["-o", "ro"] if "r" in word else []
        else:
            plain.append(word)
    if len(plain) != 2:
        raise SettingsError("usage of the mount helper: mount.r2fs SPEC DIR [-o …]")
    return ["mount", "--background", "--unless-mounted", *ours, "--", *plain]
