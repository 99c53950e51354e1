"""Settings of one mount, as frozen values: names, units and defaults.

`sources.py` gathers the values from a file, the environment and flags; `loading.py` makes these objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from r2fs.model import prices
from r2fs.model.settings.program_rules import ProgramRule
from r2fs.model.settings.timetable import OFF, Timetable

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

LOCAL_PATTERNS = ("*-wal", "*-shm", "*-journal")  # SQLite's side files


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials of a bucket. `repr` hides the secrets."""

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """Bucket, and the prefix that is mounted; or, without a name, the root of a mount of several buckets.

    The keys of a mount of several buckets begin with the bucket's name: `audiobooks/u/j/f` is `u/j/f` in `audiobooks`.
    """

    scheme: str  # "s3" (r2:// is s3:// with R2's endpoint), or "file"
    name: str  # the bucket; for file:// the absolute directory; empty for several buckets
    prefix: str = ""  # normal_prefix() form
    endpoint_url: str | None = None
    region: str = "auto"
    addressing: str = "path"  # "path" or "virtual"
    credentials: Credentials = field(default_factory=Credentials)
    request_timeout_s: float = 60.0  # a request is repeated after this time without a byte
    transport: str = "auto"  # "boto3": it sends every request
    md5_etags: bool = True  # a plain ETag (32 hexadecimal digits) is the MD5 of the bytes
    given: str = ""  # the URL in a person's spelling, with the bucket's name; empty: `address`
    # of several buckets
    members: tuple[Bucket, ...] = ()  # the named ones; with `every` those with settings of their own
    every: bool = False  # all buckets that the service lists for these credentials
    label: str = ""  # name of the mount in the settings file: part of its identity
    # of a bucket of several: what its table [buckets.NAME] has
    public_url: str | None = None
    read_only: bool = False

    @property
    def several(self) -> bool:
        return self.every or bool(self.members)

    def member(self, name: str) -> Bucket:
        """The bucket `name` of several, whether or not the service has one."""
        found = next((member for member in self.members if member.name == name), None)
        given = f"{self.url.partition('://')[0]}://{name}"
        return found or replace(self, name=name, given=given, members=(), every=False, label="")

    def split(self, key: str) -> tuple[str, str]:
        """The name of the bucket, and the key in it, of a key of this mount."""
        if not self.several:
            return self.name, key
        name, _, below = key.partition("/")
        return name, below

    def object_url(self, key: str) -> str:
        """The URL, for people, of an object of this mount."""
        if self.several:
            return f"{self.url.partition('://')[0]}://{key}"
        return f"{self.url.rstrip('/')}/{key.removeprefix(self.prefix)}"

    @property
    def url(self) -> str:
        """URL for people: status, log, mount table, messages."""
        return self.given or self.address

    @property
    def address(self) -> str:
        """URL in one form for one place: s3://B/ also for r2://B."""
        return (
            f"file://{self.name}" if self.scheme == "file" else f"{self.scheme}://{self.name}/{self.prefix}"
        )


@dataclass(frozen=True, slots=True)
class Settings:
    bucket: Bucket
    cache_dir: Path
    state_dir: Path
    run_dir: Path
    # cache
    cache_size: int = 10 * GIB  # bytes of clean content on disk
    min_free: int = (
        0  # bytes free on the cache's disk, for which clean content goes; 0: a reserve for writers
    )
    cache_ttl_s: float = 0.0  # age of clean content at its next download; 0: never
    freshness_s: float = 10.0  # largest age of a listing in use
    consistency: str = "freshness"  # "close-to-open": open and lookups of unknown names ask the bucket
    mtime: str = "listing"  # "exact": a HEAD for each file of another tool
    # reading
    read_timeout_s: float = 60.0  # then a read of missing bytes is EIO
    small_file: int = 4 * MIB  # files up to this size are fetched whole at their first read
    read_ahead: int = 128 * MIB  # the largest window ahead of a sequential reader
    download_threads: int = 24
    # writing
    upload_threads: int = 16  # files at once; of files from 8 MiB on a quarter
    part_threads: int = 4  # parts at once, of all large files together
    part_size: int = 16 * MIB
    multipart_threshold: int = 64 * MIB
    upload_delay_s: float = 1.0  # after close: write, tag, rename cost one PUT
    upload_deadline_s: float = 60.0  # longest delay of a file that is changed again and again
    dirty_limit: int = 20 * GIB  # bytes not yet in the bucket
    dirty_wait_s: float = 30.0  # longest wait of a writer past dirty_limit, before ENOSPC
    quota: int = 0  # bytes of the known files of the mount; 0: no limit
    stop_timeout_s: float = 300.0  # longest wait of a stop for uploads
    public_url: str | None = None  # public address of the bucket's objects; None: not known
    # the mount
    driver: str = "auto"  # "kernel", "libfuse", "libfuse2"
    read_only: bool = False
    allow_other: bool = False
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    host: str = ""  # for conflict names; filled with the host's name
    local_patterns: tuple[str, ...] = LOCAL_PATTERNS
    links: str = "follow"  # "inside": symbolic links that may lead out of the mount are not read
    noexec: bool = False  # the kernel runs no program from the mount
    # bandwidth, of all transfers together
    upload_limit: Timetable = OFF
    download_limit: Timetable = OFF
    programs: tuple[ProgramRule, ...] = ()  # the first that fits a program counts
    # limits past which `r2fs status` warns; 0: none
    warn_cache_size: int = 0  # bytes in the cache
    warn_queue: int = 0  # names with pending changes
    warn_hit_rate: int = 0  # percent of opens that the cache serves
    # of the requests of a calendar month (UTC), in US dollars; 0: none
    warn_cost: float = 0.0  # past which `r2fs status` warns
    prefetch_cost: float = 0.0  # past which nothing is fetched ahead of need
    # prices, in US dollars
    price_storage: float = prices.STORAGE  # per GB and month
    price_class_a: float = prices.CLASS_A  # per million requests
    price_class_b: float = prices.CLASS_B  # per million requests
    # the daemon
    take_over_s: float = 60.0  # longest wait of a mount for a new daemon after a kill; 0: none
    name: str = ""  # of the mount in the settings file; else empty
    log_level: str = "info"
    log_file: Path | None = None
    log_format: str = "text"  # "json": an object for each line
    log_misses: bool = False  # a line with the key for each miss of the cache
    metrics: str | None = None  # HOST:PORT on loopback, unix:/PATH, or a directory of textfiles; None: none
    staging: Path | None = None  # directory of unsent bytes, if not below state_dir

    @property
    def staging_dir(self) -> Path:
        """Directory of unsent bytes, on the file system of `cache_dir`: content moves between both by rename."""
        return self.staging or self.state_dir / "staging"
