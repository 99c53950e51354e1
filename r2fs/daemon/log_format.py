"""Form of a log line: one record is one line with the beginning of a record, whatever text it quotes.

Owns:  the escaping of names, answers and tracebacks in the log, and their redaction, for every logger at once.
Never: chooses the destination (logs.py) or the level of lines.

A name in the bucket or on the disk, or an exception's text, may hold a line end and the likeness of another
record. In a message every control character is escaped; the lines of a traceback are kept, each
indented, so that none of them begins as a record does.
"""

from __future__ import annotations

import copy
import logging

from r2fs.model.keys import printable
from r2fs.model.redaction import redact

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
