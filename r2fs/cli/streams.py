"""Standard output and standard error: characters that the terminal's encoding lacks, and the log of a command.

Characters of tables that cannot be written become plain ones, others their escape, so that no output ends a command
by UnicodeEncodeError.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from r2fs.daemon.log_format import HANDLER, LineFormatter
from r2fs.model.keys import printable

if TYPE_CHECKING:
    from r2fs.model.settings import Settings

_NAME = "r2fs.plain"
_OF_BUCKETS = ("r2fs.daemon.starting", "r2fs.store.buckets")  # loggers of the modules that check them
_LINES = str.maketrans({"─": "-", "━": "-", "╺": "-", "╸": "-", "│": "|"})


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_LINES)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(_NAME, _plain)


def make_safe() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def can_write(text: str) -> bool:
    """True if standard output's encoding has every character of `text`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii", "strict")
    except UnicodeEncodeError:
        return False
    return True


class EarlyWarnings(logging.Handler):
    """Warnings before the log is open: written to standard error, and kept for a log in a file."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.set_name(HANDLER)  # `daemon/logs.py` removes handlers of this name when it installs the log
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)
        level = record.levelname.lower()
        print(f"r2fs: {level}: {printable(record.getMessage())}", file=sys.stderr)
        if record.exc_info:
            print(logging.Formatter().formatException(record.exc_info), file=sys.stderr)

    def replay(self) -> None:
        """Write the kept warnings to the log that is open now."""
        for record in self.kept:
            logging.getLogger(record.name).handle(record)
        self.kept.clear()


class _Terminal(logging.Handler):
    """Standard error as it is now."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def show_bucket_warnings() -> Callable[[], None]:
    """Write warnings about buckets to standard error, beside a log file, until the returned function is called."""
    handler = _Terminal(logging.WARNING)
    handler.setFormatter(LineFormatter("r2fs: warning: %(message)s"))
    loggers = [logging.getLogger(name) for name in _OF_BUCKETS]
    for logger in loggers:
        logger.addHandler(handler)

    def end() -> None:
        for logger in loggers:
            logger.removeHandler(handler)

    return end


early_warnings = EarlyWarnings()


def open_log(settings: Settings, level: str) -> None:
    """Log to the file of the settings, or else to standard error."""
    from r2fs.daemon import log_format, logs

    hidden, form = settings.bucket.credentials, settings.log_format
    if settings.log_file is not None:
        logs.to_file(settings.log_file, level, hidden, "--log-file", form=form)
        early_warnings.replay()
    else:
        logs.to_stderr(level, os.environ, hidden, form)
    log_format.set_level(level, settings.log_misses)


def install_early_warnings() -> None:
    root = logging.getLogger()
    if not any(handler.get_name() == HANDLER for handler in root.handlers):
        root.addHandler(early_warnings)
