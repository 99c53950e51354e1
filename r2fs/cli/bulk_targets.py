"""Targets and reports of the bulk commands: a path in a mount, or a URL of objects in a bucket.

Never: sends a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r2fs.cli import show
from r2fs.model.errors import NotFound, SettingsError
from r2fs.model.keys import printable
from r2fs.model.reports import BulkReport

PARTLY = 13  # exit code: some of the objects failed
ERRORS_SHOWN = 5
SCHEMES = ("r2://", "s3://", "file://")


def is_url(text: str) -> bool:
    return text.startswith(SCHEMES)


def bucket_of(url: str) -> tuple[str, str]:
    """The URL of the bucket, and the key: r2://BUCKET and KEY of r2://BUCKET/KEY. A key keeps its slashes.

    >>> bucket_of("r2://studio/takes/")
    ('r2://studio', 'takes/')
    """
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return url, ""
    name, _, key = rest.partition("/")
    if not name:
        raise SettingsError(f"{url} names no bucket: {scheme}://BUCKET/KEY")
    return f"{scheme}://{name}", key


def report_in(fields: Mapping[str, Any]) -> BulkReport:
    """The report of a daemon's answer."""
    return BulkReport(
        found=fields["found"],
        done=fields["done"],
        unchanged=fields["unchanged"],
        unsent=fields["unsent"],
        bytes=fields["bytes"],
        waiting=fields["waiting"],
        failed=fields["failed"],
        listed=fields["listed"],
        errors=[(key, why) for key, why in fields["errors"]],
    )


def check_found(path: str, one: BulkReport, recursive: bool) -> None:
    """Say that nothing was found: NotFound for a single object."""
    if not one.found and not recursive:
        raise NotFound(f"{printable(path)}: there is no such object (-r takes all that is below it)")
    if not one.found:
        show.complain(f"{path}: nothing is there")


def complain_of(report: BulkReport) -> None:
    """Print the first errors."""
    for key, why in report.errors[:ERRORS_SHOWN]:
        show.complain(why if key in why else f"{key}: {why}")
    if report.failed > ERRORS_SHOWN:
        show.complain(f"and {report.failed - ERRORS_SHOWN} more failed (--json lists more)")
