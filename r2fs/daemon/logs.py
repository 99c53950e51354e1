"""Log handlers of the daemon and the commands: standard error, the journal, or a file."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from r2fs.daemon.log_format import HANDLER, JsonFormatter, LineFormatter, set_level
from r2fs.daemon.systemd import JournalFormatter, JournalJsonFormatter, stderr_is_journal
from r2fs.model import owned_paths, redaction
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.settings import MIB, Credentials

log = logging.getLogger(__name__)

FILE_BYTES, FILES = 5 * MIB, 2  # a log file and one older one
LIBRARY_LEVEL = logging.WARNING  # below this level boto3 and its like log requests with their signatures


class PrivateFile(logging.handlers.RotatingFileHandler):
    """A log file and the older ones beside it: mode 0600 each, and never another user's file."""

    def __init__(self, path: str) -> None:
        for number in range(1, FILES):  # an earlier r2fs left these readable for others
            with suppress(OSError):  # missing, or another user's: the next rotation takes the name
                os.close(_open_privately(f"{path}.{number}", os.O_RDONLY))
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        fd = _open_privately(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return open(fd, "a", encoding="utf-8", errors="backslashreplace")

    def doRollover(self) -> None:
        """Rotate the files; if their names cannot be changed, the file grows further and no record is lost."""
        try:
            super().doRollover()
        except OSError:
            self.maxBytes = 0
            self.stream = self.stream or self._open()
            log.warning("%s cannot be rotated, and keeps growing", self.baseFilename, exc_info=True)


def _open_privately(path: str, flags: int) -> int:
    fd = owned_paths.open_file(path, flags, unlinked=True)
    found = os.fstat(fd)
    if found.st_uid == os.geteuid() and found.st_mode & 0o077:
        os.fchmod(fd, 0o600)
    return fd


def to_stderr(
    level: str, environ: Mapping[str, str], credentials: Credentials | None = None, form: str = "text"
) -> None:
    """Log to standard error; for a journal with the priority and without the time."""
    handler = logging.StreamHandler(sys.stderr)
    names = "%(name)s: " if level.upper() == "DEBUG" else ""  # of modules: of no use to a user
    journal = stderr_is_journal(environ)
    if form == "json":
        handler.setFormatter(JournalJsonFormatter() if journal else JsonFormatter())
    elif journal:
        handler.setFormatter(JournalFormatter(f"{names}%(message)s"))
    else:
        handler.setFormatter(LineFormatter(f"%(asctime)s %(levelname)-7s {names}%(message)s"))
    _install(handler, level, credentials)


def to_file(
    path: Path, level: str, credentials: Credentials, flag: str, make: bool = False, form: str = "text"
) -> None:
    """Log to a file that rotates. DirectoryUnusable, naming the `flag` that chose the place.

    `make`: make the directory, which is r2fs's own. A directory named by the user has to exist.
    """
    try:
        handler = PrivateFile(os.path.join(owned_paths.real_path(path.parent, make), path.name))
    except FileNotFoundError:
        raise DirectoryUnusable(
            f"the log file {path} cannot be written: there is no directory {path.parent}: make it, or choose "
            f"another place by {flag}"
        ) from None
    except OSError as error:
        raise DirectoryUnusable(
            f"the log file {path} cannot be written ({error.strerror}): make it writable, or choose another by {flag}"
        ) from error
    text = LineFormatter("%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    _install(handler, level, credentials)


def hide(credentials: Credentials) -> None:
    """Redact a key that was read after the log was opened."""
    redaction.hide(
        credentials.secret_access_key, credentials.session_token, identifier=credentials.access_key_id
    )


def _install(handler: logging.Handler, level: str, credentials: Credentials | None) -> None:
    """Replace the handlers of an earlier call; other handlers stay."""
    if credentials is not None:
        hide(credentials)
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == HANDLER]:
        root.removeHandler(old)
        old.close()
    handler.set_name(HANDLER)
    root.addHandler(handler)
    root.setLevel(LIBRARY_LEVEL)
    # It warns at each HEAD of an `Expires` that is no time: the store keeps the stored text.
    logging.getLogger("botocore.handlers").setLevel(logging.ERROR)
    set_level(level, with_misses=False)
