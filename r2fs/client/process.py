"""A store in a process of its own: the backend where there is no mount.

Owns:    the choice of the interpreter, and the process, started by the first request and again if it ended.
Never:   imports boto3: the process does.
Threads: any number of requests at once; each has a connection of its own to the process.
Locks:   StoreClient._lock (a leaf), held while the process is started.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib import metadata
from typing import Any, BinaryIO

from r2fs.client import errors
from r2fs.client.backend import UrlWish
from r2fs.client.targets import Target, key_of
from r2fs.daemon.protocol import SIGNED_URL, Message, decode, encode, raise_failure
from r2fs.model.addresses import LONGEST_URL_S
from r2fs.model.keys import check_key, printable
from r2fs.model.settings import Bucket

PYTHON = "R2FS_PYTHON"  # the interpreter of an environment that has r2fs with all that it depends on
OLDEST_BOTO3 = (1, 36)
START_S = 60.0  # for the import of boto3 and the check of the bucket
END_S = 10.0
COPY_BYTES = 1 << 20
POLL_S = 1.0  # between looks at a bucket that is to confirm a version


class StoreClient:
    def __init__(self, bucket: Bucket, target: str | None, environ: Mapping[str, str]) -> None:
        # constant
        self._bucket = bucket
        self._target = target
        self._environ = environ
        # guarded by: _lock
        self._lock = threading.Lock()
        self._process: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._stored: dict[str, str | None] = {}  # by key: the ETag confirmed to this program; None: deleted

    def upload(self, source: BinaryIO, target: Target, content_type: str | None) -> str:
        key = self._key(target)
        with ExitStack() as closing:
            file = _with_descriptor(source, closing)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
            about = {"key": key, "content_type": content_type, "start": start, "size": max(0, size - start)}
            answer = self._ask("put", file.fileno(), **about)
        self._confirmed(key, str(answer["etag"]))
        return key

    def download(self, target: Target, destination: BinaryIO) -> None:
        destination.flush()
        self._ask("get", destination.fileno(), key=self._key(target))

    def url(self, target: Target, wish: UrlWish) -> str:
        if not wish.public and not 1 <= wish.expires_s <= LONGEST_URL_S:
            raise errors.InvalidTarget(f"a presigned URL lives from 1 s to {LONGEST_URL_S} s (7 days)")
        return str(self._ask("url", key=self._key(target), **asdict(wish))[SIGNED_URL])

    def delete(self, target: Target) -> None:
        key = self._key(target)
        self._ask("delete", key=key)
        self._confirmed(key, None)

    def exists(self, target: Target) -> bool:
        return self._etag(self._key(target)) is not None

    def wait(self, targets: list[Target], timeout_s: float | None) -> None:
        """Compare the bucket with what it has confirmed. While it does not answer, ask again until time is up."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for target in targets:
            key = self._key(target)
            while True:
                try:
                    etag = self._etag(key)
                    break
                except errors.Unavailable as error:
                    if deadline_s is not None and time.monotonic() >= deadline_s:
                        raise errors.NotConfirmed(str(error)) from None
                time.sleep(POLL_S)
            if key not in self._stored and etag is None:
                raise errors.NotFound(f"{printable(key)}: no such object in {self._bucket.url}")
            if etag != self._stored.get(key, etag):
                there = "no object" if etag is None else f"another version (ETag {etag})"
                raise errors.Replaced(f"{printable(key)}: the bucket has {there}")

    def close(self) -> None:
        """End the process. Requests under way get no answer."""
        with self._lock:
            self._end_locked()

    def _key(self, target: Target) -> str:
        address = key_of(target)
        if address.bucket not in (None, self._bucket.name) or not address.key.startswith(self._bucket.prefix):
            raise errors.InvalidTarget(f"{printable(os.fspath(target))} is not in {self._bucket.url}")
        with errors.translated():
            return check_key(address.key)

    def _etag(self, key: str) -> str | None:
        try:
            return str(self._ask("head", key=key)["etag"])
        except errors.NotFound:
            return None

    def _confirmed(self, key: str, etag: str | None) -> None:
        with self._lock:
            self._stored[key] = etag

    # ---- the process
    def _ask(self, op: str, fd: int | None = None, **arguments: object) -> Message:
        with self._lock:
            channel = self._channel_locked()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            try:
                with theirs:
                    descriptors = [theirs.fileno()] if fd is None else [theirs.fileno(), fd]
                    socket.send_fds(channel, [encode({**arguments, "op": op})], descriptors)
                with ours.makefile("rb") as lines:
                    line = lines.readline()
            except OSError as error:
                raise errors.Unavailable(f"the store process does not answer: {error}") from None
        if not line:
            raise errors.Unavailable("the store process ended before it answered")
        return _message(line)

    def _channel_locked(self) -> socket.socket:
        if self._process is not None and self._process[0].poll() is None:
            return self._process[1]
        self._end_locked()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                words = [*program(self._environ), "client-store", *([self._target] if self._target else [])]
                process = subprocess.Popen(
                    words, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=dict(self._environ)
                )
            self._process = process, ours
            ours.settimeout(START_S)
            first = ours.recv(1 << 16)
            ours.settimeout(None)
        except OSError as error:
            self._end_locked()
            ours.close()
            raise errors.Unavailable(f"the store process cannot be started: {error}") from None
        if not first:
            self._end_locked()
            raise errors.Misconfigured(
                f"the store process did not start ({' '.join(words)}): its message is on standard error; {PYTHON} names "
                "the interpreter of an environment with r2fs and its dependencies"
            )
        try:
            _message(first)
        except errors.Error:
            self._end_locked()
            raise
        return ours

    def _end_locked(self) -> None:
        if self._process is None:
            return
        process, channel = self._process
        self._process = None
        channel.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def program(environ: Mapping[str, str]) -> Sequence[str]:
    """The words that run r2fs with a boto3 it can use: $R2FS_PYTHON, this interpreter, or `r2fs` on the PATH."""
    if named := environ.get(PYTHON):
        return [named, "-m", "r2fs"]
    if has_boto3():
        return [sys.executable, "-m", "r2fs"]
    here = os.path.dirname(sys.executable)
    others = [each for each in environ.get("PATH", os.defpath).split(os.pathsep) if each != here]
    found = shutil.which("r2fs", path=os.pathsep.join(others))
    if found is None:
        raise errors.Misconfigured(
            f"there is no mount, and this environment has no boto3 from {'.'.join(map(str, OLDEST_BOTO3))} on: set {PYTHON} "
            "to the interpreter of an environment in which r2fs is installed with its dependencies"
        )
    return [found]


def has_boto3() -> bool:
    """True if this environment has a boto3 that r2fs can use."""
    try:
        version = metadata.version("boto3").split(".")
        return (int(version[0]), int(version[1])) >= OLDEST_BOTO3
    except (metadata.PackageNotFoundError, ValueError, IndexError):
        return False


def _message(line: bytes) -> dict[str, Any]:
    with errors.translated():
        message = decode(line)
        raise_failure(message)
    return message


def _with_descriptor(source: BinaryIO, closing: ExitStack) -> BinaryIO:
    """`source`, or a temporary file with its bytes where it is no plain file."""
    try:
        if stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            return source
    except OSError:  # bytes in memory
        pass
    file = closing.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
    shutil.copyfileobj(source, file, COPY_BYTES)
    file.flush()
    file.seek(0)
    return file
