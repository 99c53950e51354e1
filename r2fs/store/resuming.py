"""Downloads that continue after a broken connection, from the next byte of the same version.

Threads: a download is for one thread at a time.
Fails:   the last error of the inner store; PreconditionFailed for another version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

from r2fs.model.errors import PreconditionFailed, StoreError, TooSlow
from r2fs.model.keys import printable
from r2fs.model.ports import Download, ObjectStore
from r2fs.store.token_bucket import Bandwidth

SLOW_TRIES = 3  # of one download that was too slow each time: others may need its thread


class Attempts(Protocol):
    def after(self, error: StoreError) -> None: ...


class Repeating(Protocol):
    """A store with a policy for repeated requests."""

    @property
    def bandwidth(self) -> Bandwidth: ...
    @property
    def inner(self) -> ObjectStore: ...
    def tries(self) -> Attempts: ...


class Resuming:
    """A download that continues after an error, as long as the object is the same version."""

    def __init__(self, store: Repeating, key: str, start: int, stop: int, opened: Download) -> None:
        # constant
        self._store = store
        self._key = key
        self.info = opened.info
        # one thread at a time
        self._next = start
        self._stop = stop
        self._opened: Download | None = opened

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        tries, slow = self._store.tries(), 0
        while self._next < self._stop:
            try:
                down = self._store.bandwidth.down
                for data in down.receiving(self._open(), size, self._stop - self._next):
                    self._next += len(data)
                    if self._next < self._stop:
                        tries = self._store.tries()  # bytes arrive: attempts are counted anew
                    yield data
                return
            except StoreError as error:
                self._leave()
                slow += isinstance(error, TooSlow)  # bytes of a slow answer arrive, too
                if slow >= SLOW_TRIES:
                    raise
                tries.after(error)

    def _open(self) -> Download:
        if self._opened is None:
            self._opened = self._store.inner.get(
                self._key, start=self._next, length=self._stop - self._next, if_match=self.info.etag or None
            )
            if self._opened.info.version != self.info.version:  # whatever the server made of the condition
                self._leave()
                raise PreconditionFailed(
                    f"{printable(self._key)}: the object became another version while it was read"
                )
        return self._opened

    def _leave(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._leave()
