"""A mount as the backend: bytes by plain files, everything else over the daemon's control socket.

Owns:    the path of a key; uploads under a name of their own until they are whole.
Threads: any; a Mounted is constant.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, BinaryIO

from r2fs.client import errors
from r2fs.client.backend import UrlWish
from r2fs.client.targets import Target, key_of, path_of
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.daemon.protocol import SIGNED_URL
from r2fs.daemon.receipt import Outcome, Receipt, confirm
from r2fs.model import amounts
from r2fs.model.errors import R2fsError
from r2fs.model.keys import printable

COPY_BYTES = 1 << 20
TYPE = "user.mime_type"  # the attribute that is the object's Content-Type


class Mounted:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def upload(self, source: BinaryIO, target: Target, content_type: str | None) -> str:
        """Write beside the target and rename: a program that dies leaves no half of a file under its name."""
        path = self._path(target)
        directory = os.path.dirname(path)
        part = os.path.join(directory, f".r2fs-{secrets.token_hex(8)}.part")
        with self._named(path):
            os.makedirs(directory, exist_ok=True)
            try:
                with open(part, "xb") as file:
                    shutil.copyfileobj(source, file, COPY_BYTES)
                    if content_type is not None:
                        os.setxattr(file.fileno(), TYPE, content_type.encode())
                os.replace(part, path)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part)
                raise
        found = self._ask("locate", path=self._within(path))
        return f"{found['bucket']}/{found['key']}" if found["several"] else str(found["key"])

    def download(self, target: Target, destination: BinaryIO) -> None:
        path = self._path(target)
        with self._named(path), open(path, "rb") as file:
            shutil.copyfileobj(file, destination, COPY_BYTES)

    def url(self, target: Target, wish: UrlWish) -> str:
        path = self._path(target)
        request = {"path": self._within(path), **asdict(wish)}
        try:
            return str(self._ask("url", **request)[SIGNED_URL])
        except errors.NotFound:  # perhaps not known yet: the mount has not looked into this directory
            with self._named(path):
                os.stat(path)
            return str(self._ask("url", **request)[SIGNED_URL])

    def delete(self, target: Target) -> None:
        path = self._path(target)
        with self._named(path):
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)

    def exists(self, target: Target) -> bool:
        path = self._path(target)
        try:
            with self._named(path):
                os.stat(path)
        except errors.NotFound:
            return False
        return True

    def wait(self, targets: list[Target], timeout_s: float | None) -> None:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        paths = [self._within(self._path(target)) for target in targets]
        with errors.translated():
            receipt = confirm(self._daemon, paths, deadline_s, lambda queue: None)
        if receipt.outcome is not Outcome.CONFIRMED:
            raise _unconfirmed(receipt)

    def close(self) -> None:
        """Close nothing: the mount is not this program's."""

    # ---- paths
    def _path(self, target: Target) -> str:
        """The absolute path of a target. A key without a bucket is BUCKET/KEY in a mount of several buckets."""
        path = path_of(target)
        if path is not None:
            return os.path.join(self._daemon.mountpoint, self._within(path))
        address = key_of(target)
        answer = self._ask("paths", key=address.key, bucket=address.bucket)
        if answer["several"] and address.bucket is None:
            bucket, _, key = address.key.partition("/")
            answer = self._ask("paths", key=key, bucket=bucket)
        if not answer["found"]:
            raise errors.InvalidTarget(
                f"{printable(os.fspath(target))} is not in the mount {self._daemon.mountpoint} of {self._daemon.url}"
            )
        paths = [os.path.join(self._daemon.mountpoint, path) for path in answer["found"][0]["paths"]]
        return next((path for path in paths[:-1] if os.path.lexists(path)), paths[-1])

    def _within(self, path: str) -> str:
        with errors.translated():
            try:
                return client.within_mount(path, self._daemon)
            except R2fsError as error:
                raise errors.InvalidTarget(str(error)) from None

    def _ask(self, op: str, **arguments: object) -> Mapping[str, Any]:
        with errors.translated():
            return client.ask_once(self._daemon, op, **arguments)

    @contextmanager
    def _named(self, path: str) -> Iterator[None]:
        """Raise errors of system calls as errors with a type; of EIO the daemon knows the cause."""
        try:
            yield
        except OSError as error:
            if isinstance(error, errors.Error):
                raise
            why = error.strerror or str(error)
            if error.errno == errno.EIO:
                why = self._cause() or why
            kind = errors.BY_ERRNO.get(error.errno or 0, errors.Error)
            raise kind(f"{printable(path)}: {why}") from None

    def _cause(self) -> str | None:
        """The reason, known to the daemon, for which the bucket does not answer."""
        try:
            health = client.ask_once(self._daemon, "status").get("health") or {}
        except R2fsError as error:
            return str(error)
        return health.get("reason")


def _unconfirmed(receipt: Receipt) -> errors.Error:
    answer = receipt.answer or {}
    match receipt.outcome:
        case Outcome.REPLACED:
            return errors.Replaced("; ".join(receipt.reasons))
        case Outcome.PARKED:
            first = answer["parked"][0]
            return errors.Refused(amounts.parked(answer["parked_count"], first["path"], first["reason"]))
        case Outcome.REFUSED:
            return errors.of_kind(str(answer.get("refusal_kind")), str(answer["refusal"]))
    left = answer.get("queue", {})
    last = left.get("last_error")
    text = "; ".join(receipt.reasons) or f"{left.get('left')} changes are not in the bucket yet"
    return errors.NotConfirmed(f"{text}{f': {last}' if last else ''}")
