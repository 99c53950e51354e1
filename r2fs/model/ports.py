"""Ports: what the engine asks of the world, as Protocols.

Owns:  the contracts of ObjectStore, Clock, Body and KernelCache. `tests/contract` holds
       every ObjectStore to the words below.
Never: implements anything but the trivial system clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol, Self

from r2fs.model.addresses import SignedUrl, UrlRequest
from r2fs.model.errors import Interrupted, StoreError, WouldFetch, WouldWait
from r2fs.model.records import (
    Condition,
    KnownHandle,
    KnownNode,
    ListPage,
    ObjectInfo,
    ObjectMeta,
    Part,
    Version,
)

# Told where the program is, by name, before and after what a crash must not tear: the crash suite's
# ends the process there.
CrashPoint = Callable[[str], None]


def no_crash(name: str) -> None:
    """What a mount has for a CrashPoint."""


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def time(self) -> float:
        """Seconds since 1970: may be set, back too."""
        ...

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait until `event` is set (True), or for so long (False)."""
        ...


_CLOCK_REALTIME_COARSE = 5  # Linux; `time` does not name it


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        """The clock that file systems stamp times with: a finer one would be ahead of a staged file's."""
        return time.clock_gettime(_CLOCK_REALTIME_COARSE)

    def wait(self, event: Event, seconds: float) -> bool:
        return event.wait(seconds)


class Body(Protocol):
    """The bytes of one request. Can be sent again: `seek(0)` goes back to its own start."""

    def __len__(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class Download(Protocol):
    """An open answer to GET. A context manager; leaving it early closes the connection."""

    @property
    def info(self) -> ObjectInfo:
        """Of the whole object, whatever range was asked for."""
        ...

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        """The body in order. Raises BodyDamaged if it ends early, Unavailable if it stalls."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


KEY_WRITE_INTERVAL_S = 1.0  # R2 answers 429 to a second write of a key within it
THROTTLED_S = (
    1.1 * KEY_WRITE_INTERVAL_S
)  # least pause after a 429; the server measures the interval by its own clock


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the bucket (R2's where nothing else is known). Sizes are bytes."""

    min_part: int = 5 << 20
    max_part: int = 5_363_000_000  # 4.995 GiB
    max_parts: int = 10_000
    max_put: int = 5_363_000_000
    max_copy: int = 5_363_000_000
    delete_batch: int = 1000
    max_metadata: int = 8192  # bytes of user metadata, names and values together
    key_write_interval_s: float = KEY_WRITE_INTERVAL_S


class ObjectStore(Protocol):
    """A bucket. Every method is thread-safe and raises only StoreError's subclasses.

    A write with a `condition` that the key does not meet raises PreconditionFailed (a
    missing key under `Condition.matches` too); so does `get` with `if_match`. Where the server
    takes no condition for an operation, the implementation sends a HEAD just before it;
    SEMANTICS names the window between the two. The implementation retries what is safe to
    retry, and raises what still fails.
    """

    @property
    def url(self) -> str:
        """For messages: `s3://bucket` or `file:///dir`, without secrets."""
        ...

    @property
    def limits(self) -> Limits: ...

    def check(self) -> None:
        """Can this bucket be used with these credentials, now? Raises what is wrong, with the remedy."""
        ...

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        """One LIST request. Keys in ascending UTF-8 order."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Raises ObjectMissing."""
        ...

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Download:
        """Raises ObjectMissing, PreconditionFailed, RangeInvalid (start at or past the end)."""
        ...

    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        """One PUT of the whole body; the new ETag."""
        ...

    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        """A multipart upload's id."""
        ...

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part: ...

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        """Copy a range of `source` inside the bucket. PreconditionFailed if it is another version by now."""
        ...

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        condition: Condition | None = None,
    ) -> str:
        """The new ETag. UploadMissing if the id is unknown or the parts do not fit."""
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """An unknown id is fine."""
        ...

    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        """Copy inside the bucket, of any size; the new ETag.

        `meta=None` keeps the source's metadata; else it replaces it. ObjectMissing or
        PreconditionFailed(source=True) if `source` is not there in that version.
        """
        ...

    def delete(self, key: str) -> None:
        """A missing key is fine."""
        ...

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        """At most `limits.delete_batch` keys in one request; what failed, by key."""
        ...

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        """A URL that needs no credentials, made without a request. Refused where this bucket can have none."""
        ...

    def close(self) -> None: ...


class KernelCache(Protocol):
    """What the kernel remembers of a mount, and how to make it forget. Never blocks; any thread."""

    @property
    def shares_pages(self) -> bool:
        """Is what it remembers of complete content the local file's own pages (passthrough)?"""
        ...

    def forget_name(self, parent: int, name: str, gone: bool = False) -> None:
        """The name's entry (a negative one too), and the parent's listing. `gone`: what had the name has lost it
        for good, and its inode is to be given back."""
        ...

    def forget_attributes(self, ino: int) -> None: ...

    def forget_content(self, ino: int) -> None:
        """Pages and attributes of a file, or the cached listing of a directory."""
        ...


class NoKernelCache:
    """For a driver that cannot notify: it gives the kernel short times instead."""

    shares_pages = False

    def forget_name(self, parent: int, name: str, gone: bool = False) -> None:
        pass

    def forget_attributes(self, ino: int) -> None:
        pass

    def forget_content(self, ino: int) -> None:
        pass


class SessionMemory(Protocol):
    """Outlives the process: a daemon that takes the session over reads it. Never blocks; any thread.

    What the kernel is told is put here first: each call returns once kill -9 cannot undo it.
    """

    def node(self, node: KnownNode) -> None: ...
    def forget_node(self, ino: int) -> None: ...
    def handle(self, handle: KnownHandle) -> None: ...
    def forget_handle(self, fh: int) -> None: ...


@dataclass(slots=True)
class Caller:
    """Who asks, and whether the answer may take its time.

    With `may_wait=False` a verb that needs the network, fsync or another slow thing raises
    WouldWait before it has changed anything; the driver then calls it again from a worker. With
    `may_fetch=False` it raises WouldFetch before it waits for the network: that may take as long as
    `read_timeout`, and who waits for this host's disk alone must not stand behind it.
    """

    uid: int = 0
    gid: int = 0
    pid: int = 0
    umask: int = 0
    may_wait: bool = True
    cancelled: Event | None = None  # set by INTERRUPT
    may_fetch: bool = True

    def about_to_fetch(self) -> None:
        """Call before the network is waited for."""
        if not self.may_fetch:
            raise WouldFetch
        self.about_to_wait()

    def about_to_wait(self) -> None:
        """Call before anything slow on this host."""
        if not self.may_wait:
            raise WouldWait
        if self.cancelled is not None and self.cancelled.is_set():
            raise Interrupted("the caller was interrupted")
