"""Findings: the results of checks, with the remedy of each error class, and the exit code of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    DaemonUnreachable,
    FuseMissing,
    MountPointBad,
    PermissionRefused,
    R2fsError,
    Refused,
    Retryable,
    SettingsError,
)


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check. `remedy` is empty for a check that is ok."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    exit_code: int = 0  # of the command, if this is the first failed check


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, Level.WARNING, text, remedy)


def failed(check: str, text: str, remedy: str, exit_code: int = R2fsError.exit_code) -> Finding:
    return Finding(check, Level.FAILED, text, remedy, exit_code)


def exit_code(findings: Iterable[Finding]) -> int:
    """Exit code of the first failed check; 0 if none failed."""
    return next((each.exit_code for each in findings if each.level is Level.FAILED), 0)


REMEDIES: Final[tuple[tuple[type[R2fsError], str], ...]] = (
    (ClockSkewed, "set the clock, and let an NTP service keep it right (timedatectl set-ntp true)"),
    (
        MountPointBad,
        "name a directory of a mount (r2fs status lists them), a URL as r2://BUCKET, or a mount's NAME",
    ),
    (
        FuseMissing,
        "install fuse3, load the module (modprobe fuse), or give the container /dev/fuse; r2fs mirror needs no FUSE",
    ),
    (DaemonUnreachable, "do what the text names; r2fs status lists all mounts"),
    (
        BucketMissing,
        "check the bucket's name, the account in the endpoint and the jurisdiction; r2fs bucket create makes it",
    ),
    (
        PermissionRefused,
        (
            "on R2, give the token the permission Object Read & Write for this bucket (Object Read only for a "
            "read-only mount); a token for another bucket or account is refused in the same way"
        ),
    ),
    (
        BadCredentials,
        "compare key id, secret and account with those of the token; r2fs config show prints the sources",
    ),
    (Retryable, "check the endpoint, the network and the proxy, and try again"),
    (Refused, "remove the cause that the bucket names"),
    (SettingsError, "correct the value; r2fs config show prints each with its source"),
)

DEFAULT: Final = "do what the text names; README has the messages under Troubleshooting"


def of_error(check: str, error: R2fsError, says: str = "") -> Finding:
    """The failed check of an error, with the remedy of its class. `says` goes before the error's own text."""
    if isinstance(error, BucketMissing) and str(error).startswith("file://"):
        return failed(check, f"{says}{error}", "correct the path, or make the directory", error.exit_code)
    remedy = next((text for kind, text in REMEDIES if isinstance(error, kind)), DEFAULT)
    return failed(check, f"{says}{error}", remedy, error.exit_code)
