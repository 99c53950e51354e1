"""Bodies of GETs, whose length, range and rate are checked while they are read; and GET and HEAD of packed objects.

Threads: `Packed` is thread-safe; a download is for one thread at a time.
Fails:   BodyDamaged (ended early), Unavailable (silent), TooSlow (below FLOOR), NotImplementedThere (another range than
         was requested, or no length).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import ResponseStreamingError

from r2fs.model.errors import (
    BodyDamaged,
    NotImplementedThere,
    PreconditionFailed,
    StoreError,
    TooSlow,
)
from r2fs.model.keys import printable
from r2fs.model.ports import Clock
from r2fs.model.records import ObjectInfo
from r2fs.store.s3.requests import accepting_gzip
from r2fs.store.s3.values import length_of
from r2fs.store.s3.wire import receive

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKED_KEYS = 4096  # remembered, so that a second request is not needed each time
FLOOR = 1 << 10  # bytes a second: a slower body counts as silent, and is requested again
STRETCH_S = 20.0  # of waiting for bytes: the period over which the rate is judged
TURN_S = 1.0  # the longest wait for a full chunk


class Packed:
    """Keys of objects that are stored with `Content-Encoding: gzip`, as far as their answers showed it.

    Cloudflare unpacks such an object for a client that does not accept gzip, and then leaves its length out. The
    file holds the packed bytes, as the bucket does.
    """

    def __init__(self, translated: Callable[[str], AbstractContextManager[object]]) -> None:
        # constant
        self._translated = translated
        # changed by single operations of set; losing a key costs a request
        self._keys: set[str] = set()

    def ask(self, key: str, send: Callable[[], Any]) -> Mapping[str, Any]:
        """Return the answer to GET or HEAD. One without a length is requested again, with gzip accepted."""
        if key not in self._keys:
            with self._translated(key):
                answer: Mapping[str, Any] = send()
            if length_of(answer) is not None:
                return answer
            discard(answer)
        with accepting_gzip(), self._translated(key):
            answer = send()
        if length_of(answer) is not None and key not in self._keys:
            if len(self._keys) >= PACKED_KEYS:
                self._keys.clear()
            self._keys.add(key)
        return answer


def discard(answer: Mapping[str, Any]) -> None:
    """Close the connection of an answer whose body is not needed."""
    if (body := answer.get("Body")) is not None:
        body.close()


@dataclass(frozen=True, slots=True)
class Wire:
    """Parts of the store that a download uses: error translation, counting, the clock."""

    translated: Callable[[str], AbstractContextManager[object]]  # boto3's errors become ours, about this key
    received: Callable[[int], None]  # counts bytes
    clock: Clock


class S3Download:
    """A body of `left` bytes. If the answer gives no length, the server must end it after exactly as many."""

    def __init__(self, wire: Wire, key: str, answer: Mapping[str, Any], info: ObjectInfo, left: int) -> None:
        # constant
        self._wire = wire
        self._key = key
        self._body: Any = answer["Body"]
        self._raw = getattr(self._body, "_raw_stream", self._body)  # boto3 has it in one that waits for all
        self._range: str | None = answer.get("ContentRange")
        self._sized = length_of(answer) is not None
        self.info = info
        # changed by `chunks` alone
        self._left = left
        self._waited_s = 0.0  # in this stretch
        self._came = 0  # bytes, in this stretch

    def require(self, start: int, length: int | None, if_match: str | None) -> None:
        """Check that the answer is of this version and of this range, up to the object's end.

        Raises PreconditionFailed, NotImplementedThere.
        """
        if if_match is not None and self.info.etag != if_match:
            # A proxy's cache, or a server that ignores the condition.
            raise PreconditionFailed(
                f"{printable(self._key)}: the server sent another version than was asked for"
            )
        begin = int(self._range.split()[1].split("-")[0]) if self._range else 0
        wanted = self.info.size - start if length is None else min(length, self.info.size - start)
        if begin != start or (self._left != wanted and length is not None):
            raise NotImplementedThere(
                f"{printable(self._key)}: the server does not send ranges of objects"
                if self._range is None
                else f"{printable(self._key)}: the server sent another range than was asked for"
            )

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        while self._left:
            with self._wire.translated(self._key):
                data = self._read(min(size, self._left))
            if not data:
                if not self._sized:
                    raise self._unusable("shorter")
                raise BodyDamaged(f"{printable(self._key)}: the answer ended {self._left} bytes early")
            self._left -= len(data)
            self._wire.received(len(data))
            if not self._left and not self._sized and self._has_more():
                raise self._unusable("longer")
            yield data

    def _has_more(self) -> bool:
        with self._wire.translated(self._key):
            return bool(self._read(1))

    def _unusable(self, how: str) -> StoreError:
        return NotImplementedThere(
            f"{printable(self._key)}: the server sends it without its length, and {how} than the listing says:"
            " it unpacks it on the way; store it anew without Content-Encoding"
        )

    def _read(self, size: int) -> bytes:
        """Read up to `size` bytes: fewer after TURN_S, or at the end. The socket's timeout bounds each wait."""
        clock, pieces, got, waited_s = self._wire.clock, list[bytes](), 0, 0.0
        begun_s = clock.monotonic()
        while got < size and waited_s < TURN_S:
            data = receive(self._raw, size - got, self._key, _cut)
            if not data:
                break
            pieces.append(data)
            got += len(data)
            waited_s = clock.monotonic() - begun_s
        self._judge(waited_s, got)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _judge(self, waited_s: float, came: int) -> None:
        """Raise TooSlow for a body below FLOOR: single bytes keep within each timeout of the socket."""
        self._waited_s += waited_s
        self._came += came
        if self._waited_s < STRETCH_S:
            return
        if self._came < FLOOR * self._waited_s:
            raise TooSlow(
                f"{printable(self._key)}: the answer comes too slowly: {self._came} bytes in {self._waited_s:.0f} s"
            )
        self._waited_s, self._came = 0.0, 0

    def close(self) -> None:
        """Return the connection to the pool if the body has been read to its end; else close it."""
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _cut(url: str, error: Exception) -> Exception:
    return ResponseStreamingError(error=error)
