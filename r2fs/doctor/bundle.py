"""Bundle: an archive of findings, settings, status and logs, without secrets.

Never: overwrites a file; writes a member that holds a secret of this process.
Fails: R2fsError, and no archive is left.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from r2fs import __version__
from r2fs.daemon import state_directories
from r2fs.doctor.findings import Finding
from r2fs.drivers import kmount
from r2fs.model import owned_paths, redaction
from r2fs.model.errors import LocalError, R2fsError

LOG_BYTES: Final = 1 << 20  # of the end of each log
JOURNAL_LINES: Final = 2000
LIBRARIES: Final = ("boto3", "botocore", "urllib3", "click", "rich", "diskcache", "mfusepy", "watchdog")
# Variables that settings are read from, or that decide about places and proxies: their names alone are written.
VARIABLES: Final = re.compile(r"^(R2|R2FS|STORAGE|AWS|XDG)_|_proxy$|^(HOME|LANG|LC_ALL|NOTIFY_SOCKET)$", re.I)
SECRET_NAME: Final = re.compile(r"SECRET|TOKEN|PASSWORD|PRIVATE|SIGNATURE", re.I)


@dataclass(frozen=True, slots=True)
class Contents:
    findings: tuple[Finding, ...]
    settings: Mapping[str, Any]  # as `r2fs config show --json` prints them
    status: tuple[Mapping[str, Any], ...]  # answers of daemons
    log_files: tuple[Path, ...]
    state_dirs: tuple[Path, ...]


def write(path: Path, contents: Contents, environ: Mapping[str, str]) -> None:
    """Write the archive, mode 0600; compressed if its name ends with gz."""
    for name, value in environ.items():
        if SECRET_NAME.search(name):
            redaction.hide(value)
    with ExitStack() as closing:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError(f"the bundle {path} cannot be written: {error.strerror}") from None
        undo = closing.enter_context(ExitStack())
        undo.callback(path.unlink)
        with os.fdopen(fd, "wb") as raw, ExitStack() as packing:
            out: Any = (
                packing.enter_context(gzip.GzipFile(fileobj=raw, mode="wb"))
                if path.suffix.endswith("gz")
                else raw
            )
            archive = packing.enter_context(tarfile.open(fileobj=out, mode="w"))
            for name, text in _members(contents, environ):
                _add(archive, name, text)
        undo.pop_all()


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    plain = redaction.redact_for_others(text)
    if redaction.leaked(plain):
        raise R2fsError(f"{name} would hold a secret: no bundle is written")
    data = plain.encode(errors="backslashreplace")
    member = tarfile.TarInfo(f"r2fs-doctor/{name}")
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(data))


def _members(contents: Contents, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "findings.json", _json([asdict(each) for each in contents.findings])
    yield "settings.json", _json(contents.settings)
    yield "status.json", _json(contents.status)
    yield "host.json", _json(_host(environ))
    units = set[str]()
    for number, directory in enumerate(dict.fromkeys(contents.state_dirs)):
        record = state_directories.read_record(directory)
        if record is not None:
            yield f"mounts/{number}-{directory.name}.json", record.to_json()
            units.update(word for word in record.command if word.endswith(".service"))
    logs = [each / "r2fs.log" for each in contents.state_dirs]
    for number, log_file in enumerate(dict.fromkeys((*logs, *contents.log_files))):
        for older in ("", ".1"):
            text = _tail(Path(f"{log_file}{older}"))
            if text is not None:
                yield f"logs/{number}-{log_file.parent.name}-{log_file.name}{older}", text
    yield from ((f"logs/{unit}.txt", _journal(unit)) for unit in sorted(units))


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def _host(environ: Mapping[str, str]) -> dict[str, object]:
    return {
        "r2fs": __version__,
        "python": sys.version,
        "system": platform.uname()._asdict(),
        "libraries": dict(_versions(LIBRARIES)),
        "uid": os.getuid(),
        "privileged": kmount.privileged(),
        "mounts": [each.path for each in kmount.mounts() if each.fstype.startswith("fuse")],
        "variables": sorted(name for name in environ if VARIABLES.search(name)),
    }


def _versions(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "missing"


def _tail(path: Path) -> str | None:
    """The end of a log file of a trusted user; None without one."""
    try:
        fd = owned_paths.open_file(path, os.O_RDONLY)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - LOG_BYTES))
        return file.read(LOG_BYTES).decode(errors="replace")


def _journal(unit: str) -> str:
    """The last lines of a unit in the journal of systemd."""
    program = shutil.which("journalctl")
    if program is None:
        return "journalctl is not installed\n"
    words = [program, "--no-pager", "--lines", str(JOURNAL_LINES), "--unit", unit]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=15)
    except subprocess.TimeoutExpired:
        return "journalctl gave no answer\n"
    return done.stdout + done.stderr
