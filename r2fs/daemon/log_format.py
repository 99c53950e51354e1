"""Format of a log line: redacted, and one record to a line, whatever text the record quotes.

A name in the bucket or on the disk, or an exception's text, may contain a line end and text that looks like another
record. In a message every control character is escaped; the lines of a traceback are kept, each
indented, so that none of them begins as a record does.
"""

from __future__ import annotations

import copy
import json
import logging

from r2fs.model.keys import printable
from r2fs.model.redaction import redact

MISSES = "r2fs.misses"  # the logger of misses of the cache
FIELDS = ("event", "key")  # of a record's `extra`, in JSON
HANDLER = "r2fs"  # the name of each log handler that r2fs installs
SET_IN = "    "


class LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)  # other handlers get the record unchanged
        shown.msg, shown.args = printable(redact(record.getMessage())), None
        if record.exc_info and not record.exc_text:
            shown.exc_text = self.formatException(record.exc_info)
        shown.exc_text = _set_in(shown.exc_text) if shown.exc_text else None
        shown.stack_info = _set_in(record.stack_info) if record.stack_info else None
        shown.exc_info = None  # in exc_text already
        return super().format(shown)


def _set_in(text: str) -> str:
    return "\n".join(SET_IN + printable(line) for line in redact(text).splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time_s` (seconds since 1970), `level`, `logger`, `message`, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, object] = {
            "time_s": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(redact(record.getMessage())),
        }
        found |= {name: redact(str(vars(record)[name])) for name in FIELDS if name in vars(record)}
        if record.exc_info:
            found["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(found)


def set_level(level: str, with_misses: bool) -> None:
    """Set the level of r2fs's loggers; misses of the cache are logged if wished, or with all else at level debug."""
    logging.getLogger("r2fs").setLevel(level.upper())
    shown = with_misses or level.upper() == "DEBUG"
    logging.getLogger(MISSES).setLevel(logging.INFO if shown else logging.WARNING)
