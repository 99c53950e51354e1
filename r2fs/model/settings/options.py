"""The table of settings: one row says all there is to say of a setting.

Owns:  names, kinds, variables, flags and help of every setting. The settings file, its
       template, the environment, the flags of `r2fs mount`, `-o` and `r2fs config show` are
       all made from it; defaults stand in `settings.py` alone.
Never: reads a file or the environment (that is `config.py`).

Every setting can be given as R2FS_<NAME>. `variables` are the names under which other tools
take the same thing, the stronger first.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from r2fs.model.settings import GIB, MIB, Bucket, Credentials, Settings
from r2fs.model.settings.units import (
    Choice,
    Count,
    Duration,
    FilePath,
    Kind,
    Mask,
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
    flag: bool = True  # `--name` and `-o name` are taken
    secret: bool = False  # never in argv, never shown

    @property
    def field(self) -> str:
        """Its name in Settings, Bucket or Credentials: times say their unit there."""
        return f"{self.name}_s" if isinstance(self.kind, Duration) else self.name

    @property
    def default(self) -> object:
        """None: nothing, or what `config.py` finds out about this host."""
        return _DEFAULTS.get(self.field)

    @property
    def flag_name(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def own_variable(self) -> str:
        return f"R2FS_{self.name.upper()}"


# Host dependent: config.py fills them. A settings object made by hand has Settings' own values.
_BY_HOST = ("uid", "gid", "host", "region", "name")
_DEFAULTS: dict[str, object] = {
    field.name: field.default
    for part in (Settings, Bucket, Credentials)
    for field in dataclasses.fields(part)
    if field.default is not dataclasses.MISSING and field.name not in _BY_HOST
}

_URL = Text("r2://BUCKET/PREFIX, s3://BUCKET/PREFIX or file:///DIRECTORY", r"(r2|s3|file)://[^\x00-\x1f]*")
_BUCKET_NAME = Text("a bucket's name: letters, digits, dots, hyphens", r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_ENDPOINT = Text(
    "https://HOST or http://HOST:PORT, without a user or password", r"https?://[^\s/@]+(/[^\s@?#]*)?"
)
_KEY = Text("letters, digits and signs without a space", r"[\x21-\x7e]+")

GROUPS: dict[str, tuple[Option, ...]] = {
    "Which bucket": (
        Option("url", _URL, f"What to mount: {_URL.allowed}.", flag=False),
        Option("mountpoint", FilePath(), "Where to mount it, if the command does not say.", flag=False),
        Option(
            "bucket",
            _BUCKET_NAME,
            "The bucket, where the URL names none.",
            ("R2_BUCKET", "R2_BUCKET_NAME", "STORAGE_BUCKET_NAME"),
        ),
        Option(
            "account_id",
            Text("the account's 32 hexadecimal digits", r"[0-9A-Za-z_-]{1,64}"),
            "Cloudflare account: makes the endpoint of r2:// URLs.",
            ("R2_ACCOUNT_ID",),
        ),
        Option(
            "jurisdiction",
            Choice(("", "eu", "fedramp", "us")),
            "Jurisdiction of the bucket, which answers only there.",
            ("R2_JURISDICTION",),
        ),
        Option(
            "endpoint_url",
            _ENDPOINT,
            "The S3 service. Default: R2 for r2://, AWS for s3://.",
            ("R2_ENDPOINT", "STORAGE_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        ),
        Option(
            "region",
            Text("a region's name", r"[A-Za-z0-9-]{1,64}"),
            "Region. Default: auto for R2, else us-east-1.",
            ("R2_REGION", "STORAGE_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
        ),
        Option(
            "addressing", Choice(("path", "virtual")), "Whether requests name the bucket in path or host."
        ),
        Option(
            "transport",
            Choice(("auto", "boto3")),
            "What sends requests. auto: the frequent ones without boto3, but through a proxy; boto3: all by it.",
        ),
        Option("request_timeout", Duration(1, 3600), "A request that is silent for so long is sent again."),
        Option(
            "md5_etags",
            Switch(),
            "ETags are MD5s, and bytes are compared with them; false for a server whose ETags are not.",
        ),
    ),
    "Who may use it. Variables, files of mode 0600 and systemd credentials are better than values here": (
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
        Option("access_key_id_file", FilePath(), "File that holds the access key id."),
        Option("secret_access_key_file", FilePath(), "File that holds the secret access key."),
        Option("session_token_file", FilePath(), "File that holds the session token."),
        Option("profile", Text("a profile's name"), "Profile of the AWS credentials file.", ("AWS_PROFILE",)),
        Option("anonymous", Switch(), "Send requests without a signature."),
    ),
    "Where things lie on this host; each mount gets a directory of its own below": (
        Option("cache_dir", FilePath(), "Clean content: deleting it costs time, nothing else."),
        Option("state_dir", FilePath(), "Journal and unsent files: never delete it."),
        Option("run_dir", FilePath(), "Control sockets."),
    ),
    "What is kept of the bucket": (
        Option("cache_size", Size(MIB, 1024 * TIB), "Largest size of the cache of clean content."),
        Option("cache_ttl", Duration(0, 3650 * DAY_S), "Age at which content is fetched again; 0: never."),
        Option("freshness", Duration(0, DAY_S), "How old a listing may be when it is believed."),
        Option(
            "mtime",
            Choice(("listing", "exact")),
            "Times and modes of other tools' files: as listed, or exact for one request each.",
        ),
    ),
    "Reading": (
        Option("read_timeout", Duration(1, DAY_S), "A read that takes the bucket longer is an error."),
        Option("small_file", Size(0, GIB), "Files up to this size come whole at their first read."),
        Option("read_ahead", Size(0, 4 * GIB), "Largest window ahead of a sequential reader."),
        Option("download_threads", Count(1, 128), "Downloads at once."),
    ),
    "Writing": (
        Option("upload_threads", Count(1, 64), "Files uploaded at once."),
        Option("part_threads", Count(1, 64), "Parts uploaded at once, of all large files together."),
        Option("part_size", Size(5 * MIB, MAX_PUT), "Part size of large files."),
        Option("multipart_threshold", Size(5 * MIB, MAX_PUT), "Files from this size go up in parts."),
        Option("upload_delay", Duration(0, 3600), "Wait after close: write, tag, rename cost one upload."),
        Option("upload_deadline", Duration(0, DAY_S), "Longest wait, however often a file is touched again."),
        Option("dirty_limit", Size(MIB, 1024 * TIB), "Bytes not yet in the bucket; past it writers wait."),
        Option("dirty_wait", Duration(0, 3600), "Longest wait of a writer past dirty_limit; then: no space."),
        Option(
            "quota", Size(0, 1024 * TIB), "Bytes that the mount may hold, and shows as its size; 0: no limit."
        ),
        Option("stop_timeout", Duration(0, 30 * DAY_S), "How long stopping waits for uploads."),
        Option("local_patterns", Patterns(), "Names of files that stay on this host."),
    ),
    "The mount": (
        Option(
            "driver",
            Choice(("auto", "kernel", "libfuse", "libfuse2")),
            "What talks to the kernel. auto: FUSE's protocol itself, else libfuse 3.",
        ),
        Option("read_only", Switch(), "Nothing can be changed through the mount."),
        Option("allow_other", Switch(), "Other users may use the mount."),
        Option("noexec", Switch(), "No program is run from the mount."),
        Option(
            "links",
            Choice(("follow", "inside")),
            "Symbolic links: all are followed, or only those that stay in the mount.",
        ),
        Option("uid", Owner(), "Owner of files for which the bucket names none. Default: who mounts."),
        Option("gid", Owner(group=True), "Group of such files. Default: of who mounts."),
        Option("umask", Mask(), "Permission bits that such files lack."),
    ),
    "The daemon": (
        Option(
            "take_over",
            Duration(0, DAY_S),
            "How long a mount waits for a new daemon when its own was killed; 0: it goes with it.",
        ),
        Option(
            "host", Text("a name", r"[^\x00-\x1f/]{1,64}"), "This host in conflict names. Default: its name."
        ),
        Option("log_level", Choice(("debug", "info", "warning", "error")), "What goes to the log."),
        Option(
            "log_file",
            FilePath(),
            "Log file. Default: standard error; with --background `r2fs.log` in state_dir.",
        ),
    ),
}

TABLE: tuple[Option, ...] = tuple(option for group in GROUPS.values() for option in group)
BY_NAME: dict[str, Option] = {option.name: option for option in TABLE}
KEY_PARTS = ("access_key_id", "secret_access_key", "session_token")
FAMILIES = ("AWS", "STORAGE", "R2")  # of other tools' variables, the weaker first
