"""Logging of the daemon and the commands.

Owns:  where log lines go (standard error, the journal, a file), their form, and the filter
       through which no secret passes.
Never: logs anything itself.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from r2fs.daemon.systemd import JournalFormatter, stderr_is_journal
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.settings import MIB, Credentials

FILE_BYTES, FILES = 5 * MIB, 2  # a log file and one older one
SHORTEST = 8  # a secret of a test server may be a word or a letter: taking it out garbles every line
LIBRARY_LEVEL = logging.WARNING  # boto3 and its like log requests with their signatures below it


class SecretFilter(logging.Filter):
    """Takes known secrets out of messages and tracebacks, whoever wrote them there."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._secrets: tuple[str, ...] = ()  # replaced, never changed: any thread may log
        self.hide(credentials)

    def hide(self, credentials: Credentials) -> None:
        """These, too, from now on."""
        secrets = (credentials.secret_access_key, credentials.session_token)
        new = [secret for secret in secrets if secret and len(secret) >= SHORTEST]
        self._secrets = tuple(dict.fromkeys([*self._secrets, *new]))

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._secrets:
            return True
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        text = record.getMessage()
        for secret in self._secrets:
            text = text.replace(secret, "***")
            record.exc_text = record.exc_text and record.exc_text.replace(secret, "***")
        record.msg, record.args = text, None
        return True


def to_stderr(level: str, environ: Mapping[str, str], credentials: Credentials | None = None) -> None:
    """Log lines on standard error; a journal gets their priority and adds the time itself."""
    handler = logging.StreamHandler(sys.stderr)
    names = "%(name)s: " if level.upper() == "DEBUG" else ""  # of modules: they tell a user nothing
    if stderr_is_journal(environ):
        handler.setFormatter(JournalFormatter(f"{names}%(message)s"))
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {names}%(message)s"))
    _install(handler, level, credentials)


def to_file(path: Path, level: str, credentials: Credentials, flag: str) -> None:
    """Log lines in a file that rotates; raises DirectoryUnusable, naming the `flag` that chose the place."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES - 1)
    except OSError as error:
        raise DirectoryUnusable(
            f"the log file {path} cannot be written ({error.strerror}): make it writable, or choose another by {flag}"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"))
    _install(handler, level, credentials)


def hide(credentials: Credentials) -> None:
    """A key that was read later than the log was opened."""
    for handler in logging.getLogger().handlers:
        for each in handler.filters:
            if isinstance(each, SecretFilter):
                each.hide(credentials)


def _install(handler: logging.Handler, level: str, credentials: Credentials | None) -> None:
    """Take the place of what an earlier call installed; other handlers stay."""
    if credentials is not None:
        handler.addFilter(SecretFilter(credentials))
    root = logging.getLogger()
    for old in [old for old in root.handlers if getattr(old, "_r2fs", False)]:
        root.removeHandler(old)
        old.close()
    handler._r2fs = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(LIBRARY_LEVEL)
    logging.getLogger("r2fs").setLevel(level.upper())
