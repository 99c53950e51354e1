"""The table of settings: one row for each, with its name, kind, variables, flag and help.

The settings file, its template, the environment, the flags of `r2fs mount`, `-o` and `r2fs config show` are
made from this table. Defaults are in `settings/__init__.py` alone.

Every setting has a variable R2FS_<NAME>. `variables` are the variables of other tools for the same
value, the stronger first.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from r2fs.model.settings import GIB, MIB, Bucket, Credentials, Settings
from r2fs.model.settings.timetable import BandwidthLimit
from r2fs.model.settings.units import (
    BucketNames,
    Choice,
    Count,
    Duration,
    FilePath,
    Kind,
    Mask,
    Number,
    Owner,
    Patterns,
    Size,
    Switch,
    Text,
)

TIB = GIB << 10
DAY_S = 86400.0
MAX_PUT = 5_363_000_000  # R2's largest part and single PUT


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    kind: Kind
    help: str
    variables: tuple[str, ...] = ()
    flag: bool = True  # has `--name` and `-o name`
    secret: bool = False  # never in argv, never shown

    @property
    def field(self) -> str:
        """Name in Settings, Bucket or Credentials, with the unit of times."""
        return f"{self.name}_s" if isinstance(self.kind, Duration) else self.name

    @property
    def default(self) -> object:
        """Default value; None for no default, or for a default of this host (`sources.py`)."""
        return _DEFAULTS.get(self.field)

    @property
    def flag_name(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def own_variable(self) -> str:
        return f"R2FS_{self.name.upper()}"


# Filled by sources.py from this host. A Settings object made by hand has the defaults of its class.
_BY_HOST = ("uid", "gid", "host", "region", "name")
_DEFAULTS: dict[str, object] = {
    field.name: field.default
    for part in (Settings, Bucket, Credentials)
    for field in dataclasses.fields(part)
    if field.default is not dataclasses.MISSING and field.name not in _BY_HOST
}

_URL = Text("r2://BUCKET/PREFIX, s3://BUCKET/PREFIX or file:///DIRECTORY", r"(r2|s3|file)://[^\x00-\x1f]*")
_ENDPOINT = Text(
    "https://HOST or http://HOST:PORT, without a user or password", r"https?://[^\s/@]+(/[^\s@?#]*)?"
)
_METRICS = Text(
    "a loopback address as 127.0.0.1:9464, unix:/PATH of a socket, or the /DIRECTORY of a textfile collector",
    r"(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|localhost|\[::1\]):\d{1,5}|(unix:)?/[^\x00-\x1f]+",
)
_BYTES = Size(0, 1024 * TIB)
_DOLLARS = Number(0, 10**6)
_SHORT = Duration(0, 3600)  # of a wait
_KEY = Text("letters, digits and signs without a space", r"[\x21-\x7e]+")

GROUPS: dict[str, tuple[Option, ...]] = {
    "Bucket": (
        Option("url", _URL, f"Bucket to mount: {_URL.allowed}.", flag=False),
        Option("mountpoint", FilePath(), "Directory to mount on, if the command names none.", flag=False),
        Option(
            "bucket",
            BucketNames(),
            "Bucket, if the URL names none; several are directories of the mount.",
            ("R2_BUCKET", "R2_BUCKET_NAME", "STORAGE_BUCKET_NAME"),
        ),
        Option(
            "account_id",
            Text("the account's 32 hexadecimal digits", r"[0-9A-Za-z_-]{1,64}"),
            "Cloudflare account, for the endpoint of r2:// URLs.",
            ("R2_ACCOUNT_ID",),
        ),
        Option(
            "jurisdiction",
            Choice(("", "eu", "fedramp", "us")),
            "Jurisdiction in which the bucket was made; part of its endpoint.",
            ("R2_JURISDICTION",),
        ),
        Option(
            "endpoint_url",
            _ENDPOINT,
            "URL of the S3 service. Default: R2 for r2://, AWS for s3://.",
            ("R2_ENDPOINT", "STORAGE_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        ),
        Option(
            "region",
            Text("a region's name", r"[A-Za-z0-9-]{1,64}"),
            "Region. Default: auto for R2, else us-east-1.",
            ("R2_REGION", "STORAGE_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
        ),
        Option(
            "addressing",
            Choice(("path", "virtual")),
            "Place of the bucket's name in requests: path or host name.",
        ),
        Option(
            "request_timeout", Duration(1, 3600), "Time without a byte, after which a request is sent again."
        ),
        Option(
            "transport",
            Choice(("auto", "boto3")),
            "Transport. auto: reading and writing without boto3, except through a proxy; boto3: all by boto3.",
        ),
        Option(
            "md5_etags", Switch(), "Compare bytes with ETags as MD5; false for a server with other ETags."
        ),
    ),
    "Credentials. Prefer variables, files of mode 0600 or systemd credentials to values in this file": (
        Option(
            "access_key_id",
            _KEY,
            "Access key id.",
            ("R2_ACCESS_KEY_ID", "STORAGE_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
            flag=False,
        ),
        Option(
            "secret_access_key",
            _KEY,
            "Secret access key.",
            ("R2_SECRET_ACCESS_KEY", "STORAGE_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
            flag=False,
            secret=True,
        ),
        Option(
            "session_token",
            _KEY,
            "Session token of temporary credentials.",
            ("R2_SESSION_TOKEN", "AWS_SESSION_TOKEN"),
            flag=False,
            secret=True,
        ),
        Option("access_key_id_file", FilePath(), "File with the access key id."),
        Option("secret_access_key_file", FilePath(), "File with the secret access key."),
        Option("session_token_file", FilePath(), "File with the session token."),
        Option("profile", Text("a profile's name"), "Profile of the AWS credentials file.", ("AWS_PROFILE",)),
        Option(
            "env_file", FilePath(), "File of variables, as `.env`; variables of the process are stronger."
        ),
        Option("anonymous", Switch(), "Send requests without a signature."),
    ),
    "Directories; each mount has a directory of its own in them": (
        Option("cache_dir", FilePath(), "Directory of the cache. Deleting it costs time, nothing else."),
        Option("state_dir", FilePath(), "Directory of journal and unsent files. Never delete it."),
        Option("run_dir", FilePath(), "Directory of control sockets."),
    ),
    "Cache": (
        Option("cache_size", Size(MIB, 1024 * TIB), "Largest size of the cache of clean content."),
        Option(
            "min_free",
            _BYTES,
            "Free space on the cache's disk below which clean content is evicted; 0: 256 MiB, while programs write.",
        ),
        Option("cache_ttl", Duration(0, 3650 * DAY_S), "Age at which content is fetched again; 0: never."),
        Option("freshness", Duration(0, DAY_S), "Largest age of a listing in use."),
        Option(
            "consistency",
            Choice(("freshness", "close-to-open")),
            "Other hosts' changes: within freshness, or also at each open and lookup of an unknown name.",
        ),
        Option(
            "mtime",
            Choice(("listing", "exact")),
            "Times and modes of other tools' files: as listed, or exact by one request for each.",
        ),
    ),
    "Reading": (
        Option("read_timeout", Duration(1, DAY_S), "Longest wait of a read for the bucket; then: I/O error."),
        Option("small_file", Size(0, GIB), "Files up to this size are fetched whole at their first read."),
        Option("read_ahead", Size(0, 4 * GIB), "Largest read-ahead of a sequential reader."),
        Option("download_threads", Count(1, 128), "Number of downloads at once."),
    ),
    "Writing": (
        Option(
            "upload_threads",
            Count(1, 64),
            "Number of files uploaded at once; of files from 8 MiB on, a quarter.",
        ),
        Option(
            "part_threads", Count(1, 64), "Number of parts uploaded at once, of all large files together."
        ),
        Option("part_size", Size(5 * MIB, MAX_PUT), "Part size of large files."),
        Option(
            "multipart_threshold", Size(5 * MIB, MAX_PUT), "Files from this size on are uploaded in parts."
        ),
        Option("upload_delay", _SHORT, "Delay of an upload after close: write, tag, rename cost one upload."),
        Option(
            "upload_deadline", Duration(0, DAY_S), "Longest delay of a file that is changed again and again."
        ),
        Option(
            "dirty_limit",
            Size(MIB, 1024 * TIB),
            "Limit of bytes not yet in the bucket; at the limit, writers wait.",
        ),
        Option("dirty_wait", _SHORT, "Longest wait of a writer at dirty_limit; then: no space left."),
        Option("quota", _BYTES, "Largest size of the mount's files, shown as its size; 0: no limit."),
        Option("stop_timeout", Duration(0, 30 * DAY_S), "Longest wait for uploads when the mount stops."),
        Option("local_patterns", Patterns(), "Names of files that stay on this host."),
    ),
    'Bandwidth: bytes a second, as "10M" or "80Mbit"; "off"; or by local time, "Mo-Fr 08:00-20:00 = 5M, else off"': (
        Option(
            "upload_limit",
            BandwidthLimit(),
            "Limit of all uploads together, in bytes a second; by a timetable, too.",
        ),
        Option(
            "download_limit",
            BandwidthLimit(),
            "Limit of all downloads together; what programs wait for goes first.",
        ),
    ),
    "URLs": (
        Option(
            "public_url",
            Text("https://HOST/PATH, without a query", r"https?://[^\s/?#@]+(/[^\s?#]*)?"),
            "Public address of the bucket's objects: its r2.dev subdomain or a custom domain.",
            ("R2_PUBLIC_URL",),
        ),
    ),
    "The mount": (
        Option(
            "driver",
            Choice(("auto", "kernel", "libfuse", "libfuse2")),
            "FUSE driver. auto: the kernel's protocol itself, else libfuse 3.",
        ),
        Option("read_only", Switch(), "Refuse changes through the mount."),
        Option("allow_other", Switch(), "Let other users use the mount."),
        Option("noexec", Switch(), "Run no programs from the mount."),
        Option(
            "links",
            Choice(("follow", "inside")),
            "Symbolic links: follow all, or only links inside the mount.",
        ),
        Option("uid", Owner(), "Owner of files without an owner in the bucket. Default: the mounting user."),
        Option("gid", Owner(group=True), "Group of such files. Default: the mounting user's group."),
        Option("umask", Mask(), "Permission bits removed from files without a mode in the bucket."),
    ),
    "Warnings of `r2fs status`": (
        Option("warn_cache_size", _BYTES, "Warn of a cache above this size; 0: never."),
        Option("warn_queue", Count(0, 10**9), "Warn of more pending changes than this; 0: never."),
        Option("warn_hit_rate", Count(0, 100), "Warn of fewer cache hits than this percentage; 0: never."),
    ),
    "Budget and prices of `r2fs cost`, in dollars": (
        Option("warn_cost", _DOLLARS, "Warn if the requests of a month cost more than this; 0: never."),
        Option(
            "prefetch_cost",
            _DOLLARS,
            "Cost of a month's requests from which on nothing is fetched ahead of need; 0: no limit.",
        ),
        Option("price_storage", Number(0, 1000), "Price of a GB of storage for a month."),
        Option("price_class_a", _DOLLARS, "Price of a million requests of class A."),
        Option("price_class_b", _DOLLARS, "Price of a million requests of class B."),
    ),
    "The daemon": (
        Option(
            "take_over",
            Duration(0, DAY_S),
            "Longest wait of a mount for a new daemon after its own was killed; 0: none.",
        ),
        Option(
            "host",
            Text("a name", r"[^\x00-\x1f/]{1,64}"),
            "This host's name in conflict names. Default: its host name.",
        ),
        Option(
            "log_level", Choice(("debug", "info", "warning", "error")), "Lowest level of messages in the log."
        ),
        Option(
            "log_file",
            FilePath(),
            "Log file. Default: standard error; with --background `r2fs.log` in state_dir.",
        ),
        Option("log_format", Choice(("text", "json")), "Form of a line in the log; json: one object."),
        Option("log_misses", Switch(), "Log each file that is not in the cache, with its key."),
        Option("metrics", _METRICS, f"Metrics for Prometheus: {_METRICS.allowed}."),
    ),
}

TABLE: tuple[Option, ...] = tuple(option for group in GROUPS.values() for option in group)
BY_NAME: dict[str, Option] = {option.name: option for option in TABLE}
# What a table [buckets.NAME] may have.
OF_A_BUCKET = frozenset(
    {
        "account_id", "jurisdiction", "endpoint_url", "region", "addressing", "transport", "request_timeout", "md5_etags",
        *(option.name for title, options in GROUPS.items() if title.startswith("Credentials") for option in options),
        "public_url", "read_only",
    }
)  # fmt: skip
KEY_PARTS = ("access_key_id", "secret_access_key", "session_token")
FAMILIES = ("AWS", "STORAGE", "R2")  # of other tools' variables, the weaker first
