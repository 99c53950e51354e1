"""The form of a log line: one record is one line that begins as ours do, whatever it quotes.

Owns:  the escaping of names, answers and tracebacks in the log, and their redaction, for every logger at once.
Never: decides where lines go (logs.py), or which are written.

A name in the bucket or on the disk may hold a line end and what looks like the beginning of another record; so
may an exception's text. In a message every control character is escaped; the lines of a traceback are kept, each
set in, so that none of them begins as a record does.
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
        shown = copy.copy(record)  # other handlers get the record as it was
        shown.msg, shown.args = printable(redact(record.getMessage())), None
        if record.exc_info and not record.exc_text:
            shown.exc_text = self.formatException(record.exc_info)
        shown.exc_text = _set_in(shown.exc_text) if shown.exc_text else None
        shown.stack_info = _set_in(record.stack_info) if record.stack_info else None
        shown.exc_info = None  # exc_text has it
        return super().format(shown)


def _set_in(text: str) -> str:
    return "\n".join(SET_IN + printable(line) for line in redact(text).splitlines())
