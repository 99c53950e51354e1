"""Calls by mount(8) as a helper: `mount.r2fs SPEC DIR [-sfnv] [-o …]`, and through mount.fuse `r2fs SPEC DIR -o …`.

Owns:  these forms of call, as words of `r2fs mount`.
Never: reads the words of `-o` (fstab.py does); imports settings, which most commands need not.
Fails: SettingsError for other words.
"""

from __future__ import annotations

import re
from collections.abc import Container

from r2fs.model.errors import SettingsError

HELPER_NAMES = ("mount.r2fs", "mount.fuse.r2fs")

_VALUE_FLAGS = {"-o", "-t", "-N"}  # of mount(8), each with a value as the next word
_IGNORED_FLAGS = {"-s", "-n", "-v", "-r", "-w"}


def is_bare_mount(words: list[str], commands: Container[str]) -> bool:
    """mount.fuse calls `r2fs SPEC DIR -o …`: two words before any option, the first no command."""
    return (
        len(words) >= 3
        and not words[0].startswith("-")
        and not words[1].startswith("-")
        and words[0] not in commands
        and "-o" in words[2:]
    )


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
