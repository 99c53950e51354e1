"""Settings of one mount: the frozen values that the rest of r2fs is built from.

Owns:  names, units and defaults. `model/settings/config.py` fills them from a file, the environment
       and flags, and says where each came from.
Never: reads a file or the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

LOCAL_PATTERNS = ("*-wal", "*-shm", "*-journal")  # SQLite's side files


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the bucket. `repr` hides the secrets."""

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """Which bucket, and which part of it."""

    scheme: str  # "s3" (r2:// is s3:// with R2's endpoint), or "file"
    name: str  # the bucket; for file:// the absolute directory
    prefix: str = ""  # normal_prefix() form
    endpoint_url: str | None = None
    region: str = "auto"
    addressing: str = "path"  # "path" or "virtual"
    credentials: Credentials = field(default_factory=Credentials)
    request_timeout_s: float = 60.0  # a request without a byte for so long is given up, and sent again
    md5_etags: bool = True  # a plain ETag (32 hexadecimal digits) is the MD5 of the bytes
    given: str = ""  # the URL as a person wrote it, with the bucket's name; empty: `address`

    @property
    def url(self) -> str:
        """For people: status, log, mount table, messages."""
        return self.given or self.address

    @property
    def address(self) -> str:
        """One form for one place: r2://B is s3://B/, too."""
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
    cache_ttl_s: float = 0.0  # age at which clean content is fetched again; 0: never
    freshness_s: float = 10.0  # how old a listing may be when it is believed
    mtime: str = "listing"  # "exact": a HEAD for each file of another tool
    # reading
    read_timeout_s: float = 60.0  # then a read of what is not here is EIO
    small_file: int = 4 * MIB  # up to here a file comes whole, at its first read
    read_ahead: int = 32 * MIB  # the largest window ahead of a sequential reader
    download_threads: int = 8
    # writing
    upload_threads: int = 4  # files at once
    part_threads: int = 4  # parts at once, of all large files together
    part_size: int = 16 * MIB
    multipart_threshold: int = 64 * MIB
    upload_delay_s: float = 1.0  # after close: write, tag, rename cost one PUT
    upload_deadline_s: float = 60.0  # however often it is touched again
    dirty_limit: int = 20 * GIB  # bytes not yet in the bucket
    dirty_wait_s: float = 30.0  # how long a writer waits for uploads past that, before ENOSPC
    quota: int = 0  # bytes that the mount may hold, as far as it knows; 0: no limit
    stop_timeout_s: float = 300.0  # how long stopping waits for uploads
    # the mount
    driver: str = "auto"  # "kernel", "libfuse", "libfuse2"
    read_only: bool = False
    allow_other: bool = False
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    host: str = ""  # for conflict names; filled with the host's name
    local_patterns: tuple[str, ...] = LOCAL_PATTERNS
    links: str = "follow"  # "inside": a symbolic link that may lead out of the mount is not read
    noexec: bool = False  # the kernel runs no program from the mount
    # the daemon
    take_over_s: float = 60.0  # how long a mount whose daemon was killed waits for the next; 0: not at all
    name: str = ""  # of the mount in the settings file; else empty
    log_level: str = "info"
    log_file: Path | None = None
    staging: Path | None = None  # where unsent bytes lie, if not below state_dir

    @property
    def staging_dir(self) -> Path:
        """Unsent bytes: on the file system of `cache_dir`, since content moves between them by rename."""
        return self.staging or self.state_dir / "staging"
