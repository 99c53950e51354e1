"""The model test's bucket: MemoryStore that knows who wrote what, with faults at chosen requests.

Owns:  who made each object, what of the engine's has ever been there, requests that arrive late.
Checks at every request: that the engine holds no lock, publishes nothing torn, and takes away no
version of another client that this host's programs had not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from r2fs.engine.pending.deletes import LATE_ATTEMPT_S
from r2fs.model.errors import BodyDamaged, Throttled, Unavailable
from r2fs.model.keys import nfc
from r2fs.model.ports import Body
from r2fs.model.records import Condition, ObjectMeta, Part, Version
from tests.support.memory_store import MemoryDownload, MemoryStore, Stored, read_whole

# What can happen to a request. `late`: no answer, and it is carried out when `deliver` is called.
REFUSED, THROTTLED, LOST, LATE, CUT = "refused", "throttled", "lost", "late", "cut"
T = TypeVar("T")

LATEST_S = LATE_ATTEMPT_S - 60.0  # after it was sent; r2fs watches from a little later on

FAULTS = (REFUSED, THROTTLED, LOST, LATE, CUT)


class Unlawful(AssertionError):
    """The engine did to the bucket what it must never do."""


def digest(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class ModelBucket(MemoryStore):
    was_away = False

    def __init__(self) -> None:
        super().__init__()
        self.foreign: set[str] = set()  # NFC keys whose object another client made
        self.landed: set[tuple[str, str]] = set()  # (NFC key, MD5) of all that the engine ever stored
        self.sealed: set[str] = {digest(b"")}  # MD5 of contents that no writer was at work on
        self.doomed: set[tuple[str, str]] = set()  # (NFC key, ETag): a program here saw it and changed it
        self.late: list[tuple[float, Callable[[], None]]] = []  # when sent, by `now`
        self.now: Callable[[], float] = lambda: 0.0  # Clock.monotonic()
        self.on_request: Callable[[str, str], str | None] = lambda name, key: None  # → a fault
        self.on_done: Callable[[str, str], None] = lambda name, key: None
        self._is_foreign = False

    # ---- another client
    @contextmanager
    def another_client(self) -> Iterator[None]:
        self._is_foreign = True
        try:
            yield
        finally:
            self._is_foreign = False

    def deliver(self) -> None:
        """What was sent and not answered arrives now, unless the server has given it up long ago."""
        late, self.late = self.late, []
        for request in [request for sent, request in late if self.now() < sent + LATEST_S]:
            try:
                request()
            except Exception as error:
                if isinstance(error, AssertionError):
                    raise

    # ---- the port, with faults
    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        fault = self._begin("put", key)
        data = read_whole(key, body)

        def carry_out() -> str:
            self._condition(key, condition)
            return self.store_version(key, data, meta)

        return self._carry_out("put", key, fault, carry_out)

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        condition: Condition | None = None,
    ) -> str:
        fault = self._begin("complete_upload", key)

        def carry_out() -> str:
            self.on_request, mine = (lambda name, key: None), self.on_request
            try:
                return super(ModelBucket, self).complete_upload(key, upload_id, parts, condition=condition)
            finally:
                self.on_request = mine

        return self._carry_out("complete_upload", key, fault, carry_out)

    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        fault = self._begin("copy", key)

        def carry_out() -> str:
            stored = self._source(source)
            self._condition(key, condition)
            return self.store_version(key, stored.data, meta or stored.meta)

        return self._carry_out("copy", key, fault, carry_out)

    def delete(self, key: str) -> None:
        fault = self._begin("delete", key)
        if fault == LATE:  # nothing could keep such a one from hitting a newer object: not part of the model
            fault = LOST
        self._carry_out("delete", key, fault, lambda: self.remove(key))

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> MemoryDownload:
        fault = self._begin("get", key)
        self.on_request, mine = (lambda name, key: None), self.on_request
        try:
            download = super().get(key, start=start, length=length, if_match=if_match)
        finally:
            self.on_request = mine
        return CutDownload(download) if fault == CUT else download

    def _call(self, name: str, key: str) -> None:
        self._begin(name, key)

    def _begin(self, name: str, key: str) -> str | None:
        self.calls.append((name, key))
        if len(self.calls) > 10_000:
            self.calls.clear()
        fault = self.on_request(name, key)
        if fault == REFUSED:
            raise Unavailable(f"{name} {key}: no answer")
        if fault == THROTTLED:
            raise Throttled(f"{name} {key}: slow down")
        if fault in (LOST, LATE) and name in (
            "head",
            "list",
            "get",
            "put_part",
            "create_upload",
            "delete_many",
        ):
            raise Unavailable(f"{name} {key}: no answer")
        return fault

    def _carry_out(self, name: str, key: str, fault: str | None, request: Callable[[], T]) -> T:
        if fault == LATE:
            self.late.append((self.now(), request))  # type: ignore[arg-type]
            raise Unavailable(f"{name} {key}: no answer, it is still on its way")
        result = request()
        if fault == LOST:
            raise Unavailable(f"{name} {key}: done, but the answer was lost")
        self.on_done(name, key)
        return result

    # ---- what happens to the bucket
    def store_version(self, key: str, data: bytes, meta: ObjectMeta, etag: str | None = None) -> str:
        old = self.objects.get(nfc(key))
        if self._is_foreign:
            self.foreign.add(nfc(key))
            self.sealed.add(digest(data))
        else:
            self._check_taken_away(key, old)
            if digest(data) not in self.sealed:
                raise Unlawful(f"{key}: published {data[:60]!r}…, which the file never was without a writer")
            self.landed.add((nfc(key), digest(data)))
            self.foreign.discard(nfc(key))
        return super().store_version(key, data, meta, etag)

    def remove(self, key: str) -> None:
        if not self._is_foreign:
            self._check_taken_away(key, self.objects.get(nfc(key)))
        self.foreign.discard(nfc(key))
        super().remove(key)

    def _check_taken_away(self, key: str, old: Stored | None) -> None:
        if old is None or nfc(key) not in self.foreign or key.endswith("/"):
            return
        if (nfc(key), old.etag) not in self.doomed:
            raise Unlawful(f"{key}: {old.data[:60]!r} of another client was taken away unseen")


class CutDownload(MemoryDownload):
    """Ends after half of what was asked for."""

    def __init__(self, whole: MemoryDownload) -> None:
        self.info = whole.info
        self.data = whole.data

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        if len(self.data) > 1:
            yield self.data[: len(self.data) // 2]
        raise BodyDamaged("cut")
