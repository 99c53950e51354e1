"""Frozen values for `r2fs status` and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from r2fs.model.records import Version

Failed = tuple[tuple[str, str], ...]  # buckets that gave no answer, and the reasons


@dataclass(frozen=True, slots=True)
class CacheView:
    entries: int
    bytes: int
    limit: int
    hits: int
    misses: int
    evicted: int
    expired: int


@dataclass(frozen=True, slots=True)
class RoomView:
    """Space left for writers: of the dirty limit, and of this host's disk. Sizes are bytes."""

    dirty: int  # not in the bucket yet, files open for writing included
    dirty_limit: int
    writers: str  # "free", "slowed", "waiting" (the dirty limit), "disk full"
    disk_free: int  # on the disk of staging and cache
    disk_reserve: int  # clean content is evicted below this number of free bytes
    disk_error: str | None  # error of the last statvfs; None: success
    journal_reserve: int  # kept in reserve for the journal; 0: in use, the disk is or was full


@dataclass(frozen=True, slots=True)
class OrphanView:
    """File of staging without a row in the journal, kept for a person."""

    path: str
    size: int
    mtime_ns: int
    key: str | None  # of its object, if a damaged journal still has the row; None: unknown


@dataclass(frozen=True, slots=True)
class AsideView:
    """Quarantine: damaged journals, and files of staging without a row."""

    journals: tuple[str, ...]  # damaged databases, beside the one in use
    orphans: tuple[OrphanView, ...]


@dataclass(frozen=True, slots=True)
class LocatedView:
    """The object of a path, as the mount knows it."""

    key: str
    known: bool = True  # False: no such name is known in the mount; `key` is that of a file under it
    state: str = ""  # of its upload, as the attribute `user.r2fs.state`
    is_dir: bool = False
    etag: str | None = None  # of the version in the bucket
    reason: str | None = None  # why it is parked


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """The comparison of files with the bucket. Paths are relative to the mount."""

    checked: int  # files compared
    differing: tuple[tuple[str, str], ...]  # path and difference
    changing: tuple[str, ...]  # not compared: changes of them are not in the bucket yet
    failed: Failed = ()  # of a mount of several, by path


@dataclass(frozen=True, slots=True)
class RefreshView:
    """Extent of the refresh of a path."""

    directories: int
    files: int  # known ones, links and special files included
    failed: Failed = ()  # of a mount of several, by path


@dataclass(frozen=True, slots=True)
class TransferView:
    """One upload in flight or waiting, or one parked delete."""

    path: str  # a directory's ends with a slash
    verb: str  # "upload" or "delete"
    state: str
    size: int
    sent: int  # bytes sent by this host; bytes in buffers are not counted
    rate: float  # bytes per second, of this attempt; 0: unknown, or no progress
    age_s: float  # since its close
    reason: str | None  # of the parking, or of the last attempt's failure
    failures: int = 0  # attempts in a row that failed


@dataclass(frozen=True, slots=True)
class DownloadView:
    """One file of which bytes are on their way to this host. Sizes are bytes."""

    ino: int
    size: int
    here: int  # bytes of it on this host; of a file that is compared as a whole, those that have come
    rate: float  # bytes a second, since its first GET of those under way
    age_s: float  # since this GET


@dataclass(frozen=True, slots=True)
class QueueView:
    files: int  # pending files, open ones included
    directories: int  # pending directory objects
    bytes: int
    deletes: int  # parked ones included
    watched: int  # late-attempt watches
    active: int
    parked: int  # files, directories and deletes
    conflicts: tuple[str, ...]  # paths of conflict copies, of any host, in known directories
    hidden: int  # keys in known directories that cannot be names, directory_objects included
    oldest_s: float
    transfers: tuple[TransferView, ...]
    uploaded: int  # files
    uploaded_bytes: int
    failed: int
    last_error: str | None  # of changes still pending
    last_error_at_s: float | None  # seconds since 1970
    directory_objects: tuple[Version, ...] = ()  # objects with bytes at the key of a directory
    parked_bytes: int = 0  # of parked files


@dataclass(frozen=True, slots=True)
class WarmView:
    """Progress, or the result, of a download of whole files into the cache. Sizes are bytes."""

    files: int  # at and below the paths
    bytes: int
    here: int  # files that were here before, or are this host's
    here_bytes: int
    fetched: int  # files downloaded by this run
    fetched_bytes: int  # those of files under way included
    rate: float  # bytes a second, of this run
    left_s: float | None  # seconds until all is here, at this rate; None: not known yet
    # "cache", "disk": no room there for the rest; "budget": prefetch_cost; "stop": the mount stops; None: not stopped
    stopped: str | None
    failures: int  # files
    failed: tuple[tuple[str, str], ...]  # of them the first: path and reason


NOTHING_WARMED = WarmView(0, 0, 0, 0, 0, 0, 0.0, None, None, 0, ())  # while directories are listed


@dataclass(frozen=True, slots=True)
class PinView:
    """A pin, and the files at and below it that the mount knows. Sizes are bytes."""

    path: str  # relative to the mount; a directory's ends with `/`
    session: str | None  # path of the session file that refers to it; None: pinned for itself
    since_at_s: float  # seconds since 1970
    files: int
    bytes: int
    here_bytes: int  # on this host


@dataclass(frozen=True, slots=True)
class PinsView:
    """All pins of a mount together. Sizes are bytes."""

    paths: int  # pinned for themselves
    sessions: int  # session files
    session_files: int  # pinned as what these refer to, the session files included
    here_bytes: int  # of complete pinned files on this host, as last looked after
    limit: int  # of pinned files


@dataclass(frozen=True, slots=True)
class EvictView:
    """Result of an eviction. Sizes are bytes."""

    files: int  # whose content is no longer here
    bytes: int  # of the cache, freed
    kept: int  # files
    reasons: tuple[tuple[str, str], ...]  # of them the first: path and reason


@dataclass(frozen=True, slots=True)
class EventView:
    """An action of this mount on a file."""

    at_s: float  # seconds since 1970
    event: str  # in words
    detail: str  # ETag, key, reason or size; empty: none
    program: str  # for which it was done; empty: for none that is known


@dataclass(frozen=True, slots=True)
class FileView:
    """One file or directory: its bytes on this host, and its object."""

    path: str  # relative to the mount
    kind: str
    key: str
    url: str | None  # scheme://BUCKET/KEY; None: of a directory that no object is stored for
    state: str  # of its upload, as the attribute `user.r2fs.state`
    size: int  # bytes
    cached: int  # of these, bytes on this host
    etag: str | None  # of the version in the bucket
    content_type: str | None  # None: of a directory
    modified_at_s: float  # mtime, seconds since 1970
    stored_at_s: float | None  # LastModified; None: not listed since this host wrote it
    open: int  # handles of programs
    reason: str | None  # of the parking, or of the last attempt's failure
    failures: int  # attempts in a row that failed
    pending_s: float | None  # seconds since its first change that the bucket lacks
    sent: int  # bytes sent of the attempt on its way
    conflict_of: str | None  # path of the file that another host wrote at the same time
    copies: tuple[str, ...]  # paths of its conflict copies
    pinned: bool = False  # kept on this host, by `r2fs pin`
    headers: Mapping[str, str] = field(default_factory=dict)  # stored with the object, such as cache-control
    headers_known: bool = True  # False: `headers` are not known yet

    @property
    def whole(self) -> bool:
        """True if all bytes are on this host."""
        return self.cached >= self.size


@dataclass(frozen=True, slots=True)
class ShareView:
    """The files known at and below a directory. Sizes are bytes."""

    path: str  # relative to the mount
    files: int
    bytes: int
    here_bytes: int  # of these, on this host
    pending: int  # changes that the bucket lacks, those of directories included
    listed: bool  # all names in it are known


@dataclass(frozen=True, slots=True)
class Export:
    """Bytes of a file that were copied out of the mount."""

    size: int
    sha256: str  # in hexadecimal digits


@dataclass(frozen=True, slots=True)
class ObjectsView:
    """Number and bytes of objects."""

    objects: int
    bytes: int
    failed: Failed = ()  # of a mount of several, by name


@dataclass(frozen=True, slots=True)
class CacheCheckView:
    """Comparison of cached files with their ETags."""

    checked: int  # files of which the ETag was compared
    bytes: int  # of these
    skipped: int  # files that are partly here, or whose ETag is no MD5
    damaged: tuple[str, ...]  # keys of files that differed, and were dropped


@dataclass(frozen=True, slots=True)
class LimitView:
    """Limit of bandwidth of one direction. Rates are bytes a second; None: no limit."""

    setting: str  # as the settings have it
    rate: int | None  # now
    until_s: float | None  # seconds since 1970 of its next change; None: it stays
    then: int | None  # the rate from then on
    waiting: int  # transfers that wait for their turn
