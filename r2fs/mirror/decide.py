"""Decision for one name, by the record of what was in step, the file and the object. Pure: no disk, no request, no clock.

A change wins over a removal; nothing is removed of which both sides were not in step before.
"""

from __future__ import annotations

from enum import Enum

from r2fs.disk.mirror_record import InStep
from r2fs.disk.plain_tree import Local


class Way(Enum):
    """Direction of changes."""

    BOTH = "both"
    UP = "up"  # from the directory to the bucket
    DOWN = "down"  # from the bucket to the directory


class Action(Enum):
    NOTHING = "nothing"
    FORGET = "forget"  # neither file nor object: the record's row goes
    UPLOAD = "upload"
    DOWNLOAD = "download"
    DELETE = "delete"  # the object
    REMOVE = "remove"  # the file
    LEAVE = "leave"  # removed on one side, and kept on the other: noted, so that neither is brought back
    COMPARE = "compare"  # changed on both sides, or never in step: equal bytes are in step, others a conflict

    @property
    def sends(self) -> bool:
        """True if the bucket is to be changed."""
        return self in (Action.UPLOAD, Action.DELETE, Action.COMPARE)


def decide(step: InStep, local: Local | None, etag: str | None, way: Way, delete: bool) -> Action:
    """`local` and `etag` are those of the file and of the object now; None: there is none.

    `delete`: a removal is carried to the other side.
    """
    here, there = local != step.local, etag != step.etag
    if local is None and etag is None:
        return Action.FORGET if here or there or step.attempt else Action.NOTHING
    if local is not None and etag is not None:
        return _of_both(here, there, way)
    if local is not None:
        return _of_a_file(here, there, way, delete)
    return _of_an_object(here, there, way, delete)


def _of_both(here: bool, there: bool, way: Way) -> Action:
    if here and there:
        return Action.COMPARE
    if here:
        return Action.NOTHING if way is Way.DOWN else Action.UPLOAD
    if there:
        return Action.NOTHING if way is Way.UP else Action.DOWNLOAD
    return Action.NOTHING


def _of_a_file(here: bool, there: bool, way: Way, delete: bool) -> Action:
    """A file without an object."""
    if way is Way.UP:
        return Action.UPLOAD
    if here:
        return Action.NOTHING if way is Way.DOWN else Action.UPLOAD
    if not there:
        return Action.NOTHING  # removed in the bucket before, and kept
    return Action.REMOVE if delete else Action.LEAVE


def _of_an_object(here: bool, there: bool, way: Way, delete: bool) -> Action:
    """An object without a file."""
    if way is Way.DOWN:
        return Action.DOWNLOAD
    if there:
        return Action.NOTHING if way is Way.UP else Action.DOWNLOAD
    if not here:
        return Action.NOTHING  # removed here before, and kept
    return Action.DELETE if delete else Action.LEAVE
