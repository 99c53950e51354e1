"""Bodies of requests, whose own errors (a cancelled upload, a failing disk) are told from the connection's.

HTTP libraries wrap both alike.
"""

from __future__ import annotations

from typing import IO, cast

from r2fs.model.errors import BodyDamaged
from r2fs.model.etags import EMPTY_MD5
from r2fs.model.ports import Body


class Outgoing:
    """A body from its start, as a file that records the error of a failed read. For one request at a time."""

    def __init__(self, body: Body, name: str) -> None:
        self._body = body
        self._name = name
        self._size = len(body)
        self.failure: BaseException | None = None
        body.seek(0)

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._body.read(size)
            if not data and size != 0 and self._body.tell() < self._size:
                # The server would wait for the rest until its timeout.
                raise BodyDamaged(f"{self._name}: the file became shorter while it was sent")
        except BaseException as error:
            self.failure = error
            raise
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        return self._body.tell()

    def file(self) -> IO[bytes] | bytes:
        """Return the body for an HTTP library, which would send an empty file in chunked encoding."""
        return cast("IO[bytes]", self) if self._size else b""

    @property
    def md5_hex(self) -> str | None:
        """MD5 of the whole body, known once it has been read; None: the body does not compute it."""
        if not self._size:
            return EMPTY_MD5
        value = getattr(self._body, "md5_hex", None)
        return value if isinstance(value, str) else None
