"""Record of a mount, kept in its state directory as `mount.json`: bucket and settings of its journal.

It holds no key, secret or token, only the source of keys. daemon/state_directories.py writes the file.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field
from typing import Any

from r2fs.model.settings import Bucket

NAME = "mount.json"
MAX_BYTES = 1 << 16
ABOUT = "r2fs: journal and unsent files of one bucket. `r2fs status` shows unsent changes."


@dataclass(frozen=True, slots=True)
class MountRecord:
    scheme: str
    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    url: str  # as given to the mount
    mountpoint: str
    command: tuple[str, ...]  # mounts the same again; without keys
    keys: str = ""  # the source of the key, in words
    name: str = ""  # of the mount in the settings file
    version: str = ""  # of the writing r2fs
    mounted_s: float = 0.0  # seconds since 1970
    settings: dict[str, str] = field(default_factory=dict)  # other than defaults, as TOML; no secrets

    def place(self) -> Bucket:
        """The bucket, without the fields that its identity does not need."""
        several = not self.bucket
        label = self.name if several else ""
        return Bucket(
            self.scheme, self.bucket, self.prefix, self.endpoint, self.region, every=several, label=label
        )

    @property
    def command_text(self) -> str:
        return shlex.join(self.command)

    def to_json(self) -> str:
        return json.dumps({"about": ABOUT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def parse(text: str) -> MountRecord | None:
    """Parse a record; None for other text. Unknown fields, of a newer r2fs, are ignored."""
    try:
        found: dict[str, Any] = json.loads(text)
        return MountRecord(
            **{name: str(found[name]) for name in ("scheme", "bucket", "prefix", "region", "url")},
            endpoint=None if found["endpoint"] is None else str(found["endpoint"]),
            mountpoint=str(found["mountpoint"]),
            command=tuple(str(word) for word in found["command"]),
            **{name: str(found.get(name, "")) for name in ("keys", "name", "version")},
            mounted_s=float(found.get("mounted_s", 0.0)),
            settings={str(k): str(v) for k, v in dict(found.get("settings", {})).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
