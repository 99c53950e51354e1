"""State directories of this host: the search for them, their pending changes, and the choice of a mount's own.

A state is found by its record (`mount.json`), not by its name: the directory's name is a hash of one spelling of the
endpoint (`places.slug`), and mounts by other spellings use it too. Links in the standard place lead to states in other
places (--state-dir).

Never:   deletes or moves one; reads one of another user; disturbs a daemon (disk/journal/summary.py).
         Imports no SQLite unless a journal is to be read.
Fails:   softly where a directory cannot be read: its path is reported. `settle` with DirectoryUnusable.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from r2fs.model import amounts, identity, mount_record, owned_paths
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.mount_record import MountRecord
from r2fs.model.settings import LOCAL_PATTERNS, Settings, places

if TYPE_CHECKING:
    from r2fs.disk.journal.summary import PendingSummary

log = logging.getLogger(__name__)

JOURNAL = "journal.db"
FILES = (JOURNAL, f"{JOURNAL}-wal", "lock")  # bytes that are read
ELSEWHERE = ".elsewhere"  # in the default place: links to state directories in other places


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """A state directory that no daemon has open."""

    path: Path
    record: MountRecord | None  # None: written by an older r2fs
    pending: PendingSummary

    @property
    def place(self) -> str:
        """The bucket, in words."""
        if self.record is None:
            return f"a bucket that is not recorded (its directory: {self.path.name})"
        return f"{self.record.url}" + (f" at {self.record.endpoint}" if self.record.endpoint else "")

    @property
    def remedy(self) -> str:
        """The command that sends its pending changes."""
        if self.record is not None:
            return self.record.command_text
        return f"r2fs mount --state-dir {self.path.parent} … (the same bucket, prefix and endpoint as then)"


@dataclass(frozen=True, slots=True)
class FoundStates:
    states: tuple[StateDirectory, ...]
    closed: tuple[Path, ...]  # places and states that this user may not read
    # recorded places that are missing, each with the link that records it
    missing: tuple[tuple[Path, Path], ...]


# ------------------------------------------------------------------ search
def find(environ: Mapping[str, str], further: Iterable[Path] = ()) -> FoundStates:
    """Every state directory in the standard places, linked there, or in `further`, except those in use."""
    closed: list[Path] = []
    missing: list[tuple[Path, Path]] = []
    states = []
    bases = [*places.state_places(environ), *further]
    for path in dict.fromkeys(_candidates(bases, closed, missing)):
        if (state := _state(path)) is not None:
            states.append(state)
    return FoundStates(tuple(states), tuple(dict.fromkeys(closed)), tuple(dict.fromkeys(missing)))


def _candidates(
    bases: Iterable[Path], closed: list[Path], missing: list[tuple[Path, Path]]
) -> Iterator[Path]:
    """Directories with a journal: in a base, one level below (systemd's units), and behind its links."""
    for base in dict.fromkeys(bases):
        if not _is_safe(base, closed):
            continue
        for path in _below(base, closed):
            yield path
            yield from _below(path, closed)
        with suppress(OSError):
            for link in sorted((base / ELSEWHERE).iterdir()):
                target = Path(os.path.realpath(link))
                if not _is_safe(target, closed):
                    continue
                if (target / JOURNAL).exists():
                    yield target
                elif not target.exists():
                    missing.append((target, link))


def _is_safe(path: Path, closed: list[Path]) -> bool:
    """False where another user could have made the directory. A missing one is safe."""
    try:
        owned_paths.real_path(path)
    except PermissionError:
        # Where it cannot even be seen whether root has anything, as in every other user's /root, nothing is said.
        if path not in places.ROOT_STATES or os.path.lexists(path):
            closed.append(path)
        return False
    except OSError:
        return True
    return True


def _below(base: Path, closed: list[Path]) -> list[Path]:
    """Directories of this user in `base`, by name."""
    try:
        with os.scandir(base) as entries:
            found = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        own = [entry for entry in found if entry.stat(follow_symlinks=False).st_uid == os.geteuid()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        closed.append(base)
        return []
    return sorted(Path(entry.path) for entry in own if entry.name != ELSEWHERE)


def _state(path: Path) -> StateDirectory | None:
    """A state directory; None without a journal, or while a daemon has it open."""
    if not os.path.lexists(path / JOURNAL):
        return None
    from r2fs.disk.journal import summary as journal_reading

    try:
        owned_paths.make_sure(path)
        owned_paths.check_files(path, *FILES)
    except OSError as error:
        return StateDirectory(path, None, journal_reading.PendingSummary(error=error.strerror))
    if journal_reading.holder(path) is not None:
        return None
    record = read_record(path)
    patterns = LOCAL_PATTERNS if record is None else _patterns(record)
    pending = journal_reading.summary(path, patterns)
    if journal_reading.holder(path) is not None:
        return None  # a daemon has started meanwhile: the result may be incomplete
    return StateDirectory(path, record, pending)


def _patterns(record: MountRecord) -> tuple[str, ...]:
    from r2fs.model.settings.options import BY_NAME

    given = record.settings.get("local_patterns")
    if given is None:
        return LOCAL_PATTERNS
    found = BY_NAME["local_patterns"].kind.parse(given)
    assert isinstance(found, tuple)
    return found


# ------------------------------------------------------------------ the record
def read_record(path: Path) -> MountRecord | None:
    """The record of a state directory; None if missing or unreadable."""
    try:
        data = owned_paths.read_file(path / mount_record.NAME, mount_record.MAX_BYTES)
    except OSError:
        return None
    return mount_record.parse(data.decode(errors="replace"))


def write_record(settings: Settings, record: MountRecord, environ: Mapping[str, str]) -> None:
    """Write the record, with the state's lock held; and a link to the directory, if in no standard place."""
    from r2fs.disk.filecalls import write_durably

    record = replace(record, mounted_s=time.time())
    text = record.to_json().encode(errors="backslashreplace")
    try:
        write_durably(settings.state_dir / mount_record.NAME, text)
    except OSError as error:  # a full disk must not prevent a mount
        log.info("%s: %s is not written: %s", settings.state_dir, mount_record.NAME, error)
    link = _link_of(settings, environ)
    if link is None:
        return
    try:
        owned_paths.make_directory(link.parent)
        with suppress(FileExistsError):
            link.symlink_to(settings.state_dir)
    except OSError as error:
        log.info("r2fs status will not find %s once it is unmounted: %s", settings.state_dir, error)


def forget(settings: Settings, environ: Mapping[str, str]) -> None:
    """Remove the link to a state without pending changes, until its next mount."""
    link = _link_of(settings, environ)
    if link is not None:
        with suppress(OSError):
            link.unlink()


def _link_of(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """The link to the directory; None for a directory in a place that `find` searches."""
    path = settings.state_dir
    known = places.state_places(environ)
    if path.parent in known or path.parent.parent in known:
        return None
    import hashlib  # not for a status

    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:6]
    return places.own_states(environ) / ELSEWHERE / f"{path.name}-{digest}"


# ------------------------------------------------------------------ for a mount
def settle(settings: Settings) -> Settings:
    """`settings` with the state directory (and the cache's) that this bucket has by another spelling.

    Of several: one with pending changes, that of the own spelling first; else the last one mounted.
    Raises DirectoryUnusable where the directory was recorded for another bucket: its files must not be sent to this.
    """
    own = settings.state_dir
    if (record := read_record(own)) is not None and _is_of_another(own, identity.identity(settings.bucket)):
        raise DirectoryUnusable(
            f"the state directory {own} belongs to {record.url} (region {record.region}), which is another bucket:"
            " choose another by --state-dir"
        )
    found = [path for path in _of_same_place(settings) if (path / JOURNAL).exists()]
    if not found or found == [own]:
        return settings
    pending = [path for path in found if (state := _state(path)) is not None and state.pending.anything]
    chosen = pending[0] if pending else max(found, key=lambda path: (_mounted_s(path), path == own))
    if chosen == own:
        return settings
    log.info(
        "%s is known here by another spelling of its endpoint: going on with %s", settings.bucket.url, chosen
    )
    return replace(settings, state_dir=chosen, cache_dir=settings.cache_dir.with_name(chosen.name))


def _of_same_place(settings: Settings) -> list[Path]:
    """State directories beside the own one that may be this bucket's; the own one first, even if missing."""
    base, bucket = settings.state_dir.parent, settings.bucket
    found = [settings.state_dir]
    found += [base / places.slug(other) for other in identity.spellings(bucket)]
    mine = identity.identity(bucket)
    for path in _below(base, []):
        record = read_record(path)
        if record is not None and identity.identity(record.place()) == mine:
            found.append(path)
    return [path for path in dict.fromkeys(found) if not _is_of_another(path, mine)]


def _is_of_another(path: Path, mine: identity.Identity) -> bool:
    record = read_record(path)
    return record is not None and identity.identity(record.place()) != mine


def _mounted_s(path: Path) -> float:
    record = read_record(path)
    return 0.0 if record is None else record.mounted_s


def warn_of_others(settings: Settings, environ: Mapping[str, str]) -> None:
    """Warn of other state directories that hold files for this bucket: this mount does not send them."""
    mine = identity.identity(settings.bucket)
    alike = {settings.state_dir.parent / places.slug(other) for other in identity.spellings(settings.bucket)}
    for state in find(environ, [settings.state_dir.parent]).states:
        if state.path == settings.state_dir or not state.pending.anything:
            continue
        if state.record is None:
            same = state.path.name in {path.name for path in alike} | {settings.state_dir.name}
        else:
            place = state.record.place()
            same = identity.identity(place) == mine or identity.may_be_same(settings.bucket, place)
        if same:
            log.warning(
                "%s waits in another state directory, %s (%s), and is not sent by this mount; %s sends it",
                pending_text(state.pending),
                state.path,
                state.place,
                state.remedy,
            )


def pending_text(pending: PendingSummary) -> str:
    """ "3 files (12.0 MiB), 1 deletion"."""
    if pending.error is not None:
        return f"a journal that cannot be read ({pending.error})"
    return amounts.left(pending.files, pending.directories, pending.bytes, pending.deletes)
