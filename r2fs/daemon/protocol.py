"""Control protocol: the messages between daemon and commands over the unix socket.

One request per connection, a JSON object on one line: {"op": "status", …}. Answers are JSON
objects, one a line; the last has "done": true. Any number before it report progress, and at
least one arrives every HEARTBEAT_S: silence means that the daemon hangs. A failure is
{"done": true, "error": SENTENCE, "kind": NAME OF A CLASS OF model/errors.py}. For a subclass defined elsewhere,
`kind` names its base in model/errors.py, whose exit code and errno it has.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r2fs.model import errors, owned_paths
from r2fs.model.errors import R2fsError
from r2fs.model.redaction import redact

HEARTBEAT_S = 1.0
SILENCE_S = 30.0  # a client gives up then; the daemon may be swapped out, or its disk slow
MAX_LINE = 1 << 20  # of a request: a list of paths
UNKNOWN = "this daemon does not know"  # how an answer to an operation of a newer r2fs begins
SIGNED_URL = "signed_url"  # the field of an answer that is not redacted

Message = dict[str, Any]


def encode(message: Mapping[str, object]) -> bytes:
    """A line. Secrets in it are redacted, but for SIGNED_URL: a URL that is signed with temporary credentials holds
    their token, and the user who asks for the URL is to have it."""
    text = redact(_json({name: value for name, value in message.items() if name != SIGNED_URL}))
    if SIGNED_URL in message:
        text = f'{text[:-1]}{"," if len(message) > 1 else ""}"{SIGNED_URL}":{_json(message[SIGNED_URL])}}}'
    return text.encode() + b"\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def decode(line: bytes) -> Message:
    """Decode a message. ValueError if it is not one JSON object."""
    message = owned_paths.load_json(line)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def failure(error: R2fsError) -> Message:
    known = (kind for kind in type(error).__mro__ if vars(errors).get(kind.__name__) is kind)
    return {"done": True, "error": str(error), "kind": next(known).__name__}


def raise_failure(message: Mapping[str, Any]) -> None:
    """Raise the error that `failure` wrote, as its class; return for any other message.

    A class unknown to this version of r2fs is raised as R2fsError.
    """
    if "error" not in message:
        return
    kind = vars(errors).get(str(message.get("kind")))
    known = isinstance(kind, type) and issubclass(kind, R2fsError)
    raise (kind if known and kind is not None else R2fsError)(str(message["error"]))


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for bind and connect: socket paths end at 108 bytes, the directory's descriptor does not.

    UnsafePath where another user may put sockets into the directory.
    """
    with owned_paths.directory(path.parent) as directory:
        yield f"/proc/self/fd/{directory}/{path.name}"


def peer_uid(connection: socket.socket) -> int:
    """The user of the process at the other end (SO_PEERCRED): for a server, of the process that called listen()."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end, as this process sees it; 0: of another PID namespace."""
    size = struct.calcsize("3i")
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)


def is_believed(connection: socket.socket) -> bool:
    """True if the other end's user is this one or root. Either end checks it before it sends anything."""
    return peer_uid(connection) in (0, os.geteuid())
