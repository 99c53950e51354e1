"""Upload job: everything that one attempt of an upload needs, copied under the lock.

Invariant: an upload thread reads the job and no node, so that a change made meanwhile cannot mix into the attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from r2fs.disk.body import Gate
from r2fs.model.metadata import Facts
from r2fs.model.ranges import Range
from r2fs.model.records import Condition, Kind, Version


@dataclass(frozen=True, slots=True)
class UploadJob:
    """Everything an attempt needs, taken under the lock when it was claimed."""

    ino: int
    kind: Kind
    key: str
    name: str
    attempt: str
    expected_etag: str | None
    facts: Facts
    known: bool  # the facts are all that the base's metadata says
    stored: Facts | None  # the base's metadata when they were last seen; None: not known
    base: Version | None
    copy: bool  # the bytes are the base's: copy them inside the bucket
    body: bytes | None  # a directory's or a symbolic link's
    fd: int  # of the staged file, ours to close; -1: there is none
    size: int
    gate: Gate
    sent: Callable[[int], None]
    edits: tuple[Range, ...] | None = None  # where the bytes differ from the base's; None: anywhere
    begun: bool = False  # the journal has a multipart upload of the inode, of these bytes or of earlier ones

    @property
    def condition(self) -> Condition:
        return Condition(self.expected_etag)

    @property
    def replaces_base(self) -> bool:
        """True if the object to be overwritten is the one that the file's metadata were read from."""
        if self.kind is Kind.DIRECTORY:
            return self.expected_etag is not None
        return self.base is not None and (self.base.key, self.base.etag) == (self.key, self.expected_etag)
