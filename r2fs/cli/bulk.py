"""Commands that change many objects (rm, set): their paths and URLs, their report, their exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from r2fs.bulk.removal import Target
from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.failures import Failures, named_in
from r2fs.cli.progress import BulkProgress
from r2fs.cli.storing import settings_at, store_of
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.daemon.protocol import Message, raise_failure
from r2fs.model import amounts
from r2fs.model.errors import NotFound, SettingsError
from r2fs.model.exit_codes import DONE, PARTLY, SOMETHING_LEFT
from r2fs.model.keys import printable
from r2fs.model.ports import ObjectStore
from r2fs.model.reports import BulkReport

ERRORS_SHOWN = 5
SCHEMES = ("r2://", "s3://", "file://")


Work = Callable[[ObjectStore, Target, BulkReport, Callable[[BulkReport], None]], None]


@dataclass(slots=True)
class BulkCommand:
    """One command: `prepare` its paths, then `run`."""

    operation: str  # of the daemon, for paths in a mount
    arguments: Mapping[str, Any]  # further ones of that operation
    work: Work  # for a bucket without a mount
    recursive: bool
    dry_run: bool
    config_file: Path | None
    report: BulkReport = field(default_factory=BulkReport)  # of all paths
    failures: Failures = field(default_factory=Failures)
    urls: list[str] = field(default_factory=list)
    mounted: dict[Daemon, list[str]] = field(default_factory=dict)  # paths relative to the mount

    def prepare(self, paths: Sequence[str]) -> None:
        """Sort `paths` into URLs and paths of mounts. A path outside of all mounts is a failure of the command."""
        self.urls = [path for path in paths if path.startswith(SCHEMES)]
        named = [path for path in paths if not path.startswith(SCHEMES)]
        self.mounted = by_daemon(named, known_daemons(started=True), self.failures) if named else {}

    def run(
        self, word: str, figures: Mapping[str, str], conclude: Callable[[BulkReport], None], as_json: bool
    ) -> int:
        """Return the exit code. The report is printed even after an error or an interrupt.

        `figures`: for --json, name and field of the report of each count; `conclude` prints them for people.
        """
        try:
            with BulkProgress(word, quiet=as_json) as progress:
                for url in self.urls:
                    with self.failures.noted():
                        self._url(url, progress)
                for daemon, within in self.mounted.items():
                    for path in within:
                        with self.failures.noted():
                            self._in_mount(daemon, path, progress)
        finally:
            if self.report.found or (sys.exc_info()[0] is None and not self.failures.code):
                if as_json:
                    counts = {name: getattr(self.report, of) for name, of in figures.items()}
                    errors = [{"key": key, "reason": why} for key, why in self.report.errors]
                    show.as_json({"dry_run": self.dry_run, **counts, "errors": errors})
                else:
                    conclude(self.report)
                    complain_of(self.report.errors, self.report.failed, "(--json lists more)")
        if self.failures.code:
            return self.failures.code
        if self.report.failed:
            return PARTLY
        return SOMETHING_LEFT if self.report.waiting else DONE

    def _url(self, url: str, progress: BulkProgress) -> None:
        bucket, key = bucket_of(url)
        settings = settings_at(bucket, self.config_file)
        with self._part(url) as one, store_of(settings, bucket, self.config_file, check=False) as store:
            self.work(store, Target.of(key, self.recursive), one, lambda now: self._show(now, progress))

    def _in_mount(self, daemon: Daemon, path: str, progress: BulkProgress) -> None:
        answer: Message = {}
        given = {"path": path, "recursive": self.recursive, "dry_run": self.dry_run, **self.arguments}
        with self._part(os.path.join(daemon.mountpoint, path)) as one, named_in(daemon.mountpoint, [path]):
            for answer in client.ask(daemon, self.operation, **given):
                _fill(one, answer["report"])
                self._show(one, progress)
            raise_failure(answer["stopped"] or {})

    @contextmanager
    def _part(self, operand: str) -> Iterator[BulkReport]:
        """Yield the report of one operand, and add it to that of all. Raises NotFound for an object that is not there."""
        one = BulkReport()
        try:
            yield one
        finally:
            self.report.add(one)
        if not one.found and not self.recursive:
            raise NotFound(f"{printable(operand)}: there is no such object (-r takes all that is below it)")
        if not one.found:
            show.complain(f"{operand}: nothing is there")

    def _show(self, now: BulkReport, progress: BulkProgress) -> None:
        """Show the progress with `now`, the report of one operand."""
        before, done = (one.done + one.unchanged + one.failed for one in (self.report, now))
        progress.show(before + done, before + now.found if now.listed else None, amounts.size(now.bytes))


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


def _fill(report: BulkReport, counts: Mapping[str, Any]) -> None:
    """Take over the counts of a daemon's answer; the errors are in its last one."""
    for one in fields(report):
        if one.name in counts:
            setattr(report, one.name, counts[one.name])


def complain_of(errors: Sequence[tuple[str, str]], count: int, more: str) -> None:
    """Print the first failures, and the number of the others. The key is left out where the reason has it."""
    for key, why in errors[:ERRORS_SHOWN]:
        show.complain(why if key in why else f"{key}: {why}")
    if count > ERRORS_SHOWN:
        show.complain(f"and {count - ERRORS_SHOWN} more failed {more}")
