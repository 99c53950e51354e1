"""Checks of this host's disk: the journal, the cache, and unsent changes of unmounted buckets. Read-only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from r2fs.daemon import state_directories
from r2fs.disk import check as checking
from r2fs.doctor.findings import Finding, failed, ok, warning
from r2fs.model import amounts
from r2fs.model.errors import StateDamaged
from r2fs.model.settings import Settings


def journal(settings: Settings) -> Finding:
    check, where = "journal", settings.state_dir
    found = checking.journal(where, settings.staging_dir)
    if found is None:
        return ok(check, f"{where} has none yet")
    if found.in_use:
        return ok(check, f"{where} is in use, and changes too often to be copied: not checked")
    if found.problems:
        return failed(
            check,
            f"{where}: {'; '.join(found.problems[:3])}",
            "keep the directory as it is; the next mount sets what is damaged aside and sends the rest",
            StateDamaged.exit_code,
        )
    text = f"{where}: whole, {amounts.counted(found.rows, 'entry')}"
    if found.damaged or found.orphans:
        return warning(
            check,
            f"{text}; set aside: {amounts.counted(len(found.damaged), 'damaged journal')}, {amounts.counted(found.orphans, 'file')}",
            "r2fs status names them: move the files that you want into the mount, then delete the others",
        )
    return ok(check, text)


def cache(settings: Settings) -> Finding:
    check, where = "cache", settings.cache_dir
    found = checking.cache(where)
    if found is None:
        return ok(check, f"{where} has none yet")
    if found.in_use:
        return ok(check, f"{where} is in use, and changes too often to be copied: not checked")
    if found.problems:
        return warning(
            check,
            f"{where}: {'; '.join(found.problems)}",
            "nothing is lost: unmount, delete this directory, and mount again",
        )
    return ok(check, f"{where}: whole, {amounts.counted(found.rows, 'file')}")


def unsent(environ: Mapping[str, str], further: tuple[Path, ...] = ()) -> Iterator[Finding]:
    """Changes in state directories of unmounted buckets."""
    found = state_directories.find(environ, further)
    for state in found.states:
        if state.pending.anything:
            yield warning(
                "unsent changes",
                f"{state_directories.pending_text(state.pending)} of {state.place} wait in {state.path}, and no mount sends them",
                f"to send: {state.remedy}",
            )
    for path in found.closed:
        yield warning("unsent changes", f"{path} is not readable by this user", "sudo r2fs doctor reads it")
    for path, link in found.missing:
        yield warning(
            "unsent changes",
            f"{os.fspath(path)} does not exist: its unsent changes are unknown",
            f"mount its disk, or if it was deleted: rm {os.fspath(link)}",
        )
