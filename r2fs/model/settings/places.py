"""Places on this host: the default paths of settings file, cache, state and sockets, and the name of a mount's own
directory below each, by the XDG base directories and systemd's directory variables. No directory is made here.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from r2fs.model.identity import partition
from r2fs.model.settings import Bucket

SYSTEM_FILE = Path("/etc/r2fs/config.toml")
# State directories of system units, `sudo r2fs mount` and fstab; the first is systemd's StateDirectory=r2fs/NAME.
ROOT_STATES = (Path("/var/lib/r2fs"), Path("/root", ".local/state/r2fs"))
SLUG_CHARS = 40  # of the readable part: with the hash, far below the 108 bytes of a socket's address

# setting: systemd's variable, XDG's variable, XDG's default below the home directory
_BASES = {
    "cache_dir": ("CACHE_DIRECTORY", "XDG_CACHE_HOME", ".cache"),
    "state_dir": ("STATE_DIRECTORY", "XDG_STATE_HOME", ".local/state"),
    "config_dir": ("CONFIGURATION_DIRECTORY", "XDG_CONFIG_HOME", ".config"),
}


def home(environ: Mapping[str, str]) -> Path:
    """$HOME, else the user's entry; `/` for a user without one."""
    if named := environ.get("HOME"):
        return Path(named)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def base_dir(setting: str, environ: Mapping[str, str]) -> tuple[Path, str]:
    """Default of `cache_dir` or `state_dir`, and the variable that set it (or "")."""
    systemd, xdg, below_home = _BASES[setting]
    if given := environ.get(systemd, "").split(":")[0]:  # systemd lists several, colon-separated
        return Path(given), systemd
    if os.path.isabs(environ.get(xdg, "")):  # the XDG standard: relative paths are ignored
        return Path(environ[xdg]) / "r2fs", xdg
    return home(environ) / below_home / "r2fs", ""


def own_states(environ: Mapping[str, str]) -> Path:
    """This user's default place of state directories, without systemd's variables."""
    return base_dir("state_dir", {**environ, "STATE_DIRECTORY": ""})[0]


def state_places(environ: Mapping[str, str]) -> list[Path]:
    """Directories to search for state directories of this user and of the system."""
    found = [own_states(environ), home(environ) / ".local/state/r2fs", *ROOT_STATES]
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        found.insert(0, Path(given))
    return list(dict.fromkeys(found))


def run_dir(environ: Mapping[str, str]) -> tuple[Path, str]:
    """Default of `run_dir`, and its variable. Without a session's directory: /run for root, else the temporary one."""
    if given := environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return Path(given), "RUNTIME_DIRECTORY"
    if os.path.isabs(environ.get("XDG_RUNTIME_DIR", "")):
        return Path(environ["XDG_RUNTIME_DIR"]) / "r2fs", "XDG_RUNTIME_DIR"
    if os.getuid() == 0:
        return Path("/run/r2fs"), ""
    import tempfile  # not for a status

    return Path(environ.get("TMPDIR") or tempfile.gettempdir()) / f"r2fs-{os.getuid()}", ""


def settings_file(environ: Mapping[str, str]) -> Path:
    """Default settings file: the first existing of $R2FS_CONFIG, the user's, the system's."""
    if named := environ.get("R2FS_CONFIG"):
        return Path(named)
    own = base_dir("config_dir", environ)[0] / "config.toml"
    return SYSTEM_FILE if not is_there(own) and is_there(SYSTEM_FILE) else own


def is_there(path: Path) -> bool:
    """True if `path` exists, or may exist in a closed directory: reading it then raises the error."""
    try:
        return path.exists()
    except PermissionError:
        return True


def slug(bucket: Bucket) -> str:
    """A mount's directory name: readable, and distinct for each endpoint, bucket and prefix."""
    endpoint = (bucket.endpoint_url or partition(bucket.region)).lower().rstrip("/")
    identity = "\n".join((bucket.scheme, endpoint, bucket.name, bucket.prefix))
    if bucket.several:  # no bucket's name and prefix are an empty name
        identity += bucket.label
        text = f"buckets-{bucket.label}"
    else:
        text = bucket.name.rpartition("/")[2] if bucket.scheme == "file" else f"{bucket.name}-{bucket.prefix}"
    import hashlib  # not for a status

    readable = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:SLUG_CHARS].rstrip("-.")
    return f"{readable or 'root'}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
