"""What a program was told, and when: which states a name may be in after a cut.

Owns:  for each path the changes that a program made, each with the disk's position when it began;
       and the acknowledgements: from which position on which change survives.
Never: knows the engine.

A position is how long the disk's log was. A change that began after the cut never was; an
acknowledgement that came before it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class Change:
    begin: int
    after: bytes | None  # None: the name is gone
    writes: bool  # changes bytes: a cut before its fsync may leave a mixture
    moved_to: tuple[str, int] | None = None  # a rename took the file there, as that change
    synced: bool = False  # its bytes are
    closed: int | None = None  # position when the last close had returned


@dataclass
class Found:
    """One name after the cut."""

    data: bytes
    torn: bool  # set aside as "may be torn"


@dataclass
class History:
    position: Callable[[], int]
    changes: dict[str, list[Change]] = field(default_factory=dict)
    acks: list[tuple[int, str, int]] = field(default_factory=list)  # position, path, which change
    barriers: list[int] = field(default_factory=list)  # positions at which all names were safe
    sealed: set[str] = field(default_factory=set)  # digests of contents that a file was closed with

    # ------------------------------------------------------------------ writing it
    def started(self, path: str, after: bytes | None, writes: bool, begin: int | None = None) -> Change:
        change = Change(self.position() if begin is None else begin, after, writes)
        self.changes.setdefault(path, []).append(change)
        return change

    def synced(self, path: str) -> None:
        """fsync of the file has returned."""
        self.now(path).synced = True
        self._acknowledge(path)
        self.barriers.append(self.position())

    def directory_synced(self) -> None:
        """fsync of the directory has returned: names are safe, and the bytes of those that are synced."""
        for path in self.changes:
            change = self.now(path)
            if change.after is None or change.synced:
                self._acknowledge(path)
        self.barriers.append(self.position())

    def closed(self, path: str) -> None:
        change = self.now(path)
        assert change.after is not None
        change.closed = self.position()
        self.sealed.add(digest(change.after))

    def renamed(self, old: str, new: str, begin: int) -> None:
        source = self.now(old)
        assert source.after is not None
        target = self.started(new, source.after, source.writes and not source.synced, begin)
        target.synced, target.closed = source.synced, self.position()
        gone = self.started(old, None, False, begin)
        gone.moved_to = (new, len(self.changes[new]) - 1)

    def existed(self, path: str, data: bytes) -> None:
        """In the bucket before anything else."""
        change = self.started(path, data, False, 0)
        change.synced, change.closed = True, 0
        self.sealed.add(digest(data))
        self.acks.append((0, path, 0))

    def now(self, path: str) -> Change:
        return self.changes[path][-1]

    def names(self) -> list[str]:
        return sorted(path for path in self.changes if self.now(path).after is not None)

    def _acknowledge(self, path: str) -> None:
        self.acks.append((self.position(), path, len(self.changes[path]) - 1))

    # ------------------------------------------------------------------ judging a cut
    def judge(self, cut: int, found: Mapping[str, Found], bucket: Mapping[str, bytes]) -> list[str]:
        """What is wrong with what a cut at that position left; `bucket`: by key, what it held then."""
        wrong = [
            why
            for path in self.changes
            if (why := self._judge_name(path, cut, found.get(path), bucket.get(path)))
        ]
        for path in self.changes:
            first = self._acknowledged(path, cut)
            if first is not None and self.changes[path][first].after is not None:
                if not self._survives(path, first, cut, found):
                    wrong.append(
                        f"{path}: {text(self.changes[path][first].after)} was fsynced, and is nowhere"
                    )
        strange = {path for path in found if path not in self.changes and " (conflict of " not in path}
        return wrong + [f"{path}: nobody made it" for path in sorted(strange)]

    def _judge_name(self, path: str, cut: int, here: Found | None, sent: bytes | None) -> str | None:
        first, legal = self._acknowledged(path, cut), self._legal(path, cut)
        if here is None:
            if None in [change.after for change in legal] or first is None:
                return None
            return f"{path}: is gone, should be {' or '.join(text(change.after) for change in legal)}"
        if any(change.after == here.data for change in legal):
            return None
        if here.torn and any(change.writes for change in (legal[1:] if first is not None else legal)):
            return None
        if here.data == sent and _made_anew(legal):
            return None  # nothing of the new file had reached the disk, and doubt deletes nothing
        return (
            f"{path}: holds {text(here.data)}{' (may be torn)' if here.torn else ''}, should be "
            f"{' or '.join(text(change.after) for change in legal) or 'nothing'}"
        )

    def must_be_sent(self, cut: int) -> dict[str, bytes]:
        """Synced, closed, its names safe since, and not touched again: these go to the bucket by themselves."""
        out = {}
        for path in self.changes:
            started = [change for change in self.changes[path] if change.begin <= cut]
            if not started or started[-1].after is None:
                continue
            last = started[-1]
            if last.synced and last.closed is not None and self._acknowledged(path, cut) == len(started) - 1:
                if any(last.closed < barrier <= cut for barrier in self.barriers) or last.closed == 0:
                    out[path] = last.after or b""
        return out

    def _acknowledged(self, path: str, cut: int) -> int | None:
        return max((which for at, name, which in self.acks if name == path and at <= cut), default=None)

    def _legal(self, path: str, cut: int) -> list[Change]:
        """The change that was acknowledged last, and those that had begun since."""
        started = [change for change in self.changes[path] if change.begin <= cut]
        return started[self._acknowledged(path, cut) or 0 :]

    def _survives(self, path: str, which: int, cut: int, found: Mapping[str, Found]) -> bool:
        change = self.changes[path][which]
        here = found.get(path)
        if here is not None and here.data == change.after:
            return True
        later = [other for other in self.changes[path][which + 1 :] if other.begin <= cut]
        if not later:
            return False
        if later[0].moved_to is not None:
            return self._survives(*later[0].moved_to, cut, found)
        return True  # written or removed since: `_judge_name` says what may be there


def _made_anew(changes: list[Change]) -> bool:
    """Is there a removal among them, and a new file after it?"""
    gone = [change.after is None for change in changes]
    return True in gone and not all(gone[gone.index(True) :])


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def text(data: bytes | None) -> str:
    return "nothing" if data is None else f"{len(data)} bytes {data[:12]!r}…{digest(data)[:6]}"
