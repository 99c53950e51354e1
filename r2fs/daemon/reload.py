"""Reload: takes up a changed settings file in the running daemon.

Settings that cannot change while a mount is served are named in the log. A file with an error is not applied at all.
Threads: `run` in one that service.py starts; the file's watch in watchdog's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from threading import Event
from typing import Any, Final

from r2fs.daemon.log_format import set_level
from r2fs.daemon.parts import MirrorParts, Parts
from r2fs.daemon.stopping import Stopping
from r2fs.daemon.threads import Threads
from r2fs.disk.watch import FileWatch
from r2fs.model.errors import R2fsError
from r2fs.model.ports import Clock
from r2fs.model.settings import Bucket, Credentials, Settings
from r2fs.model.settings.options import TABLE

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.3  # after the first event: an editor writes, renames and removes
LIVE: Final = frozenset(
    {
        "cache_size", "min_free", "cache_ttl", "freshness", "read_timeout", "small_file", "read_ahead", "part_size",
        "multipart_threshold", "upload_delay", "upload_deadline", "dirty_limit", "dirty_wait", "quota",
        "upload_threads", "part_threads", "download_threads", "stop_timeout", "local_patterns", "upload_limit",
        "download_limit", "public_url", "log_level", "log_misses",
        "warn_cache_size", "warn_queue", "warn_hit_rate", "warn_cost", "prefetch_cost", "price_storage", "price_class_a",
        "price_class_b",
    }
)  # fmt: skip
PROGRAMS: Final = "programs"
NAMES: Final = {option.field: option.name for option in TABLE} | {PROGRAMS: "[programs]"}


@dataclass(frozen=True, slots=True)
class Changes:
    """Differences of two readings of the settings, by the settings' names."""

    live: dict[str, Any]  # field and new value, of what can be taken up now
    later: tuple[str, ...]  # what takes effect at the next start
    credentials: bool


def compare(old: Settings, new: Settings) -> Changes:
    """Differences of `new` from `old`, two readings from the same sources."""
    differing = {
        field.name: getattr(new, field.name)
        for field in fields(Settings)
        if getattr(old, field.name) != getattr(new, field.name)
    }
    bucket = differing.pop("bucket", None)
    before, now = _without_keys(old.bucket), _without_keys(new.bucket)
    later = [NAMES.get(name, name) for name in differing if not _is_live(name)]
    if bucket is not None and before != now:
        later.append("the bucket or the way to it")
    live = {name: value for name, value in differing.items() if _is_live(name)}
    return Changes(live, tuple(later), _keys(old.bucket) != _keys(new.bucket))


def _without_keys(bucket: Bucket) -> Bucket:
    members = tuple(map(_without_keys, bucket.members))
    return replace(bucket, credentials=Credentials(), members=members)


def _keys(bucket: Bucket) -> tuple[Credentials, ...]:
    return (bucket.credentials, *(member.credentials for member in bucket.members))


@dataclass(frozen=True, slots=True)
class Source:
    """Source of a mount's settings: the files, and their reading."""

    files: tuple[Path, ...]  # the settings file, and files of keys
    read: Callable[[], Settings]  # SettingsError
    later: str = "at r2fs restart"  # when other settings take effect


class Reload:
    def __init__(
        self, source: Source, parts: Parts | MirrorParts, stopping: Stopping, threads: Threads, clock: Clock
    ) -> None:
        # constant
        self._source = source
        self._parts = parts
        self._stopping = stopping
        self._threads = threads
        self._clock = clock
        self._changed = Event()
        # run()'s thread alone
        self._read: Settings | None = None  # as read last

    def run(self, ended: Event) -> None:
        """Watch the files, and reload after each change, until `ended`."""
        try:
            watch = FileWatch(self._source.files, self._changed.set)
            watch.start()
        except OSError as error:
            log.warning(
                "the settings file is not watched (%s): changes take effect %s", error, self._source.later
            )
            return
        try:
            self._read = self._source.read()
            while not ended.is_set():
                if self._clock.wait(self._changed, 1.0):
                    self._clock.wait(ended, SETTLE_S)
                    self._changed.clear()
                    self.reload()
        except R2fsError as error:  # changed to a wrong one since this daemon was started
            log.error(
                "the settings file is not watched: %s; a right one is taken up %s", error, self._source.later
            )
        finally:
            watch.stop()

    def reload(self) -> None:
        """Read the settings again and apply the changes."""
        try:
            new = self._source.read()
        except R2fsError as error:
            log.error("the settings stay as they are: %s", error)
            return
        changes = compare(self._read or new, new)
        self._read = new
        if changes.live:
            self._apply(replace(self._parts.engine.settings, **changes.live))
            shown = ", ".join(
                f"{NAMES[name]} = {_shown(name, value)}" for name, value in changes.live.items()
            )
            log.info("settings taken up: %s", shown)
        if changes.credentials:
            self._renew_key()
        if changes.later:
            log.warning("settings that take effect %s: %s", self._source.later, ", ".join(changes.later))

    def _apply(self, settings: Settings) -> None:
        self._parts.engine.change_settings(settings)
        self._threads.start_workers(list(self._parts.engine.workers()))
        self._parts.store.bandwidth.change(settings.upload_limit, settings.download_limit)
        self._stopping.change_timeout(settings.stop_timeout_s)
        set_level(settings.log_level, settings.log_misses)

    def _renew_key(self) -> None:
        keys = self._parts.store.keys
        if keys is not None and keys.renew(keys.generation):
            return  # the store says so
        log.warning(
            "the credentials of the settings have changed, and those in use go on until they are refused"
        )


def _is_live(field: str) -> bool:
    return field == PROGRAMS or NAMES.get(field) in LIVE


def _shown(field: str, value: object) -> str:
    if isinstance(value, tuple) and field == PROGRAMS:
        return ", ".join(rule.name for rule in value) or "none"
    option = next(option for option in TABLE if option.field == field)
    return "nothing" if value is None else option.kind.write(value)
