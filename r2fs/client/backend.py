"""Backend: the protocol that Client has with a mount, or with a store in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from r2fs.client.targets import Target


@dataclass(frozen=True, slots=True)
class UrlWish:
    expires_s: float
    public: bool
    put: bool
    download: str | None


class Backend(Protocol):
    """Every method raises client.errors.Error alone, and may be called from any thread."""

    def upload(self, source: BinaryIO, target: Target, content_type: str | None) -> str:
        """Store the rest of `source`; returns the key."""
        ...

    def download(self, target: Target, destination: BinaryIO) -> None:
        """Write the object's bytes to a file with a descriptor."""
        ...

    def url(self, target: Target, wish: UrlWish) -> str: ...

    def delete(self, target: Target) -> None: ...

    def exists(self, target: Target) -> bool: ...

    def wait(self, targets: list[Target], timeout_s: float | None) -> None: ...

    def close(self) -> None: ...
