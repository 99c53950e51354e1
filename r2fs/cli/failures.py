"""Failures of single operands: a command names each, goes on, and ends with the exit code of the first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from r2fs.cli import show
from r2fs.model.errors import FileError, R2fsError
from r2fs.model.keys import printable
from r2fs.model.redaction import redact


class Failures:
    """The failures of one command so far. `code` is the exit code of the first; 0 without one."""

    def __init__(self) -> None:
        self.code = 0

    def note(self, error: R2fsError) -> None:
        """Name the failure on standard error."""
        show.complain(redact(str(error)))
        self.code = self.code or error.exit_code

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the failure of one operand, and go on."""
        try:
            yield
        except R2fsError as error:
            self.note(error)


@contextmanager
def named_in(mountpoint: str, paths: Sequence[str]) -> Iterator[None]:
    """Make the paths in errors of a daemon, which are relative to its mount, absolute."""
    try:
        yield
    except FileError as error:
        raise type(error)(in_full(mountpoint, paths, str(error))) from error


def in_full(mountpoint: str, paths: Sequence[str], text: str) -> str:
    """The text of a daemon's error with an absolute path: that of one of `paths`, else that of the mount.

    >>> in_full("/mnt", ["a/b"], "a/b: no such file"), in_full("/mnt", [""], "/ is not pinned itself")
    ('/mnt/a/b: no such file', '/mnt is not pinned itself')
    >>> in_full("/mnt", ["a/b"], "this mount is read-only")
    '/mnt: this mount is read-only'
    """
    if re.match(r"/[: ]", text):
        return mountpoint + text[1:]
    tops = {printable(path.partition("/")[0]) for path in paths if path}
    if any(text.startswith((f"{top}/", f"{top}: ", f"{top} ")) for top in tops):
        return os.path.join(mountpoint, text)
    return f"{mountpoint}: {text}"
