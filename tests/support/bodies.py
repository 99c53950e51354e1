"""Bodies for requests of tests."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable


class BytesBody:
    """`data` as a Body. Knows its MD5 once it was read to the end, as the engine's bodies do."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._data = data
        self.md5_hex: str | None = None
        self.largest_read = 0

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.largest_read = max(self.largest_read, len(data))
        if self._file.tell() == len(self._data):
            self.md5_hex = hashlib.md5(self._data).hexdigest()
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class BreakingBody(BytesBody):
    """Raises `error` once `after` bytes were read, as often as it is sent."""

    def __init__(self, data: bytes, after: int, error: Callable[[], BaseException]) -> None:
        super().__init__(data)
        self._after = after
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        if self.tell() >= self._after:
            raise self._error()
        return super().read(min(size, self._after - self.tell()) if size >= 0 else self._after)


class ShrinkingBody(BytesBody):
    """Ends before its length: the file was truncated while it was sent."""

    def __init__(self, data: bytes, claimed: int) -> None:
        super().__init__(data)
        self._claimed = claimed

    def __len__(self) -> int:
        return self._claimed
