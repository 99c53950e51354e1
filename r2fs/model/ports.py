"""Ports: the engine's needs of the outer world, as Protocols. `tests/contract` tests every ObjectStore against the words
below.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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

# Called with the name of a place in the code, before and after steps that a crash must not separate: the
# crash suite ends the process in the call.
CrashPoint = Callable[[str], None]


def no_crash(name: str) -> None:
    """CrashPoint of a mount: does nothing."""


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds of a clock that never jumps."""
        ...

    def time(self) -> float:
        """Seconds since 1970. A person may set this clock, also back."""
        ...

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait until `event` is set (True), or for `seconds` (False)."""
        ...


CLOCK_REALTIME_COARSE = 5  # Linux: what file systems stamp times with; `time` does not name it


class SystemClock:
    monotonic = staticmethod(time.monotonic)

    # By the coarse clock that file systems use: a finer one would be ahead of a staged file's times.
    time = staticmethod(partial(time.clock_gettime, CLOCK_REALTIME_COARSE))

    def wait(self, event: Event, seconds: float) -> bool:
        return event.wait(seconds)


class Body(Protocol):
    """Bytes of one request. Can be sent again: `seek(0)` returns to the start of the body."""

    def __len__(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class Download(Protocol):
    """Open answer to GET. A context manager; an early exit closes the connection."""

    @property
    def info(self) -> ObjectInfo:
        """Info of the whole object, whatever the range of the request."""
        ...

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        """Body in order. Raises BodyDamaged if the body ends early, Unavailable if the connection stalls."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


KEY_WRITE_INTERVAL_S = 1.0  # R2 answers 429 to a second write of a key within this time
THROTTLED_S = 1.1 * KEY_WRITE_INTERVAL_S  # least pause after a 429: the server has a clock of its own


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the bucket, by default R2's. Sizes are bytes."""

    min_part: int = 5 << 20
    max_part: int = 5_363_000_000  # 4.995 GiB
    max_parts: int = 10_000
    max_put: int = 5_363_000_000
    max_copy: int = 5_363_000_000
    delete_batch: int = 1000
    max_metadata: int = 8192  # bytes of user metadata, names and values together
    key_write_interval_s: float = KEY_WRITE_INTERVAL_S
    # CopyObject as R2 has it: it heeds conditions on the destination, and takes the metadata directive MERGE.
    r2_copies: bool = False
    # CompleteMultipartUpload heeds a condition (R2: "Conditional operations"); other servers may ignore it.
    conditional_complete: bool = False
    conditional_put: bool = True  # PutObject heeds a condition
    part_copies: bool = True  # UploadPartCopy

    def part_size(self, size: int, wanted: int) -> int:
        """Size of the equal parts of an object of `size` bytes: `wanted`, or more if `max_parts` needs it.

        R2 refuses unequal parts: https://developers.cloudflare.com/r2/objects/multipart-objects/

        >>> Limits().part_size(100 << 30, 16 << 20) % (1 << 20)
        0
        """
        mib = 1 << 20
        least = -(-size // self.max_parts)
        return wanted if wanted >= least else -(-least // mib) * mib


class ObjectStore(Protocol):
    """A bucket. Every method is thread-safe and raises only StoreError's subclasses.

    A write raises PreconditionFailed if the key does not meet its `condition` (also a missing
    key under `Condition.matches`); so does `get` with `if_match`. If the server accepts no
    condition for an operation, the implementation sends a HEAD just before the request;
    SEMANTICS names the window between the two. The implementation repeats requests that are
    safe to repeat, and raises the last error.
    """

    @property
    def url(self) -> str:
        """URL for messages: `s3://bucket` or `file:///dir`, without secrets."""
        ...

    @property
    def limits(self) -> Limits: ...

    def connect_ahead(self, key: str, count: int) -> None:
        """Begin to open connections for `count` further requests about `key` or its neighbours, where the server is so far
        that this takes a while. "": about any key. No errors."""
        ...

    def check(self) -> None:
        """Check that the bucket can be used now with these credentials. Raises an error with the remedy."""
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
        """Send one LIST request. Keys in ascending UTF-8 order."""
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
        """Send one PUT of the whole body; returns the new ETag."""
        ...

    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        """Begin a multipart upload; returns its id."""
        ...

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part: ...

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        """Copy a range of `source` inside the bucket.

        The server may copy from another version: R2 takes no condition on the source here ("S3 API compatibility").
        The caller proves the version after its last part: by HEAD, or by the condition of `complete_upload`. Raises
        PreconditionFailed where the answer already tells of another version.
        """
        ...

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        condition: Condition | None = None,
    ) -> str:
        """Publish the object; returns the new ETag. Raises UploadMissing if the id is unknown or the parts do not fit."""
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Abort a multipart upload. No error for an unknown id."""
        ...

    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        """Copy an object of any size inside the bucket; returns the new ETag.

        `meta=None` keeps the source's metadata, else `meta` replaces them. Raises ObjectMissing or
        PreconditionFailed(source=True) if `source` does not exist in this version.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object. No error for a missing key."""
        ...

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        """Delete at most `limits.delete_batch` keys by one request; returns the errors, by key."""
        ...

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        """A URL that needs no credentials, made without a request. Refused where this bucket can have none."""
        ...

    def close(self) -> None: ...


class KernelCache(Protocol):
    """The kernel's caches of a mount, and their invalidation. Never blocks; any thread."""

    @property
    def shares_pages(self) -> bool:
        """True if the kernel caches complete content as pages of the local file itself (passthrough)."""
        ...

    def forget_name(self, parent: int, name: str, gone: bool = False) -> None:
        """Invalidate the name's entry (also a negative one) and the parent's listing. `gone`: the inode has lost the
        name for good, and the kernel gives its references back."""
        ...

    def forget_attributes(self, ino: int) -> None: ...

    def forget_content(self, ino: int) -> None:
        """Invalidate pages and attributes of a file, or the cached listing of a directory."""
        ...

    def settle(self, limit_s: float) -> None:
        """Wait until the kernel has all invalidations so far; `limit_s` seconds at most. The one method that blocks:
        not for a thread that answers the kernel, and not under a lock."""
        ...


class NoKernelCache:
    """KernelCache of a driver without notifications, which gives the kernel short times instead."""

    shares_pages = False

    def forget_name(self, parent: int, name: str, gone: bool = False) -> None:
        pass

    def forget_attributes(self, ino: int) -> None:
        pass

    def forget_content(self, ino: int) -> None:
        pass

    def settle(self, limit_s: float) -> None:
        pass


class SessionMemory(Protocol):
    """Memory that outlives the process, for a daemon that takes the session over. Never blocks; any thread.

    Written before each answer to the kernel: a call returns once kill -9 cannot undo the entry.
    """

    def node(self, node: KnownNode) -> None: ...
    def forget_node(self, ino: int) -> None: ...
    def handle(self, handle: KnownHandle) -> None: ...
    def forget_handle(self, fh: int) -> None: ...


@dataclass(slots=True)
class Caller:
    """Caller of a verb, and the waits that the caller allows.

    With `may_wait=False` a verb that needs the network, fsync or another slow operation raises
    WouldWait before any change of state; the driver then calls the verb again from a worker. With
    `may_fetch=False` the verb raises WouldFetch before a wait for the network: such a wait may take
    `read_timeout`, and must not delay callers that wait for the disk alone.
    """

    uid: int = 0
    gid: int = 0
    pid: int = 0
    umask: int = 0
    may_wait: bool = True
    cancelled: Event | None = None  # set by INTERRUPT
    may_fetch: bool = True

    def about_to_fetch(self) -> None:
        """Raise WouldFetch, WouldWait or Interrupted as needed before a wait for the network."""
        if not self.may_fetch:
            raise WouldFetch
        if not self.may_wait or self.cancelled is not None:
            self.about_to_wait()

    def about_to_wait(self) -> None:
        """Raise WouldWait or Interrupted as needed before a slow operation on this host."""
        if not self.may_wait:
            raise WouldWait
        if self.cancelled is not None and self.cancelled.is_set():
            raise Interrupted("the caller was interrupted")


def pages(store: ObjectStore, prefix: str) -> Iterator[ListPage]:
    """Yield each page of a listing of all objects below `prefix`; one LIST for each page, sent when the page is taken."""
    token = None
    while True:
        page = store.list_page(prefix, token=token)
        yield page
        token = page.token
        if token is None:
            return
