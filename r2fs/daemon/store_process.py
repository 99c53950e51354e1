"""Store process: serves r2fs.client where there is no mount, in `r2fs client-store`.

The channel is a socket of packets. Each packet is a request in the form of `protocol.py`, with two descriptors: of the
connection for the answer, and of the file with the bytes, or for them. The first packet of the process itself says
that it is ready, or why not. It ends when the other end is closed. An answer says what the bucket has confirmed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from r2fs import __version__
from r2fs.daemon.control import Spawn
from r2fs.daemon.protocol import SIGNED_URL, Message, decode, encode, failure
from r2fs.disk.body import FileBody
from r2fs.model.addresses import UrlRequest, public_url
from r2fs.model.errors import InvalidArgument, R2fsError, SettingsError, StoreError
from r2fs.model.metadata import SNIFF_BYTES, content_type
from r2fs.model.ports import ObjectStore
from r2fs.model.records import ObjectMeta
from r2fs.model.settings import Settings

log = logging.getLogger(__name__)

MAX_REQUEST = 1 << 16  # bytes; a key and a few words are far less
DESCRIPTORS = 2


def ready(channel: socket.socket) -> None:
    channel.send(encode({"version": __version__, "done": True}))


def unusable(channel: socket.socket, error: R2fsError) -> None:
    channel.send(encode(failure(error)))


class StoreProcess:
    def __init__(self, store: ObjectStore, settings: Settings, spawn: Spawn) -> None:
        self._store = store
        self._settings = settings
        self._spawn = spawn
        self._operations: Mapping[str, Callable[[Message, int], Mapping[str, object]]] = {
            "put": self._put,
            "get": self._get,
            "head": self._head,
            "delete": self._delete,
            "url": self._url,
        }

    def run(self, channel: socket.socket) -> None:
        """Answer requests until the other end is closed."""
        while True:
            line, descriptors, _, _ = socket.recv_fds(channel, MAX_REQUEST, DESCRIPTORS)
            if not line:
                return
            self._spawn("client-request", partial(self._serve, line, descriptors))

    def _serve(self, line: bytes, descriptors: list[int]) -> None:
        with ExitStack() as closing:
            for fd in descriptors[1:]:
                closing.callback(os.close, fd)
            connection = closing.enter_context(socket.socket(fileno=descriptors[0]))
            connection.sendall(encode(self._answer(line, descriptors[-1])))

    def _answer(self, line: bytes, fd: int) -> Mapping[str, Any]:
        try:
            message = decode(line)
            operation = self._operations.get(str(message.get("op")))
            if operation is None:
                raise InvalidArgument(f"this store process does not know {message.get('op')!r}")
            return {**operation(message, fd), "done": True}
        except R2fsError as error:
            return failure(error)
        except OSError as error:
            return failure(R2fsError(f"the file of the bytes: {error.strerror or error}"))
        except Exception as error:
            log.exception("a request of the program failed")
            return failure(R2fsError(f"the request could not be carried out: {error!r}"))

    def _put(self, message: Message, fd: int) -> Mapping[str, object]:
        key, start, size = str(message["key"]), int(message["start"]), int(message["size"])
        kind = message["content_type"] or content_type(key, os.pread(fd, SNIFF_BYTES, start))
        return {"etag": _upload(self._store, key, fd, start, size, ObjectMeta(str(kind)), self._settings)}

    def _get(self, message: Message, fd: int) -> Mapping[str, object]:
        with open(fd, "wb", closefd=False) as file, self._store.get(str(message["key"])) as answer:
            file.writelines(answer.chunks())
            return {"etag": answer.info.etag}

    def _head(self, message: Message, fd: int) -> Mapping[str, object]:
        found = self._store.head(str(message["key"]))
        return {"etag": found.etag, "size": found.size}

    def _delete(self, message: Message, fd: int) -> Mapping[str, object]:
        self._store.delete(str(message["key"]))
        return {}

    def _url(self, message: Message, fd: int) -> Mapping[str, object]:
        key, base = str(message["key"]), self._settings.public_url
        if message["public"]:
            if base is None:
                raise SettingsError(
                    f"{self._settings.bucket.url}: no public address is known: set public_url (R2_PUBLIC_URL)"
                )
            return {SIGNED_URL: public_url(base, key)}
        wish = UrlRequest(int(message["expires_s"]), bool(message["put"]), message["download"])
        return {SIGNED_URL: self._store.presign(key, wish).url}


def _upload(
    store: ObjectStore, key: str, fd: int, start: int, size: int, meta: ObjectMeta, settings: Settings
) -> str:
    """Store `size` bytes of `fd` from `start` on; return the ETag. A failed upload leaves neither object nor parts."""
    if size < settings.multipart_threshold:
        return store.put(key, FileBody(fd, start, size), meta)
    part_size = store.limits.part_size(size, settings.part_size)
    upload_id = store.create_upload(key, meta)
    try:
        parts = [
            store.put_part(
                key, upload_id, number, FileBody(fd, start + at, min(part_size, size - at))
            )
            for number, at in enumerate(range(0, size, part_size), 1)
        ]  # fmt: skip
        return store.complete_upload(key, upload_id, parts)
    except BaseException:
        with suppress(StoreError):  # the bucket's own rule ends it
            store.abort_upload(key, upload_id)
        raise
