"""Headers of many files: Content-Type, Cache-Control and others of all files below a path, by one command.

One HEAD for unknown metadata, one GET of a few bytes to guess a type; the copies inside the bucket are write-back's.

Threads: `run`, on a thread for waits of the network; requests run on the threads of listings.
Locks:   takes Core.lock; none during a request.
Fails:   NotFound, IsADirectory, ReadOnly before the first change. Failures of single files are in the report.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Event, Lock

from r2fs.engine.content.jobs import JobQueue
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.protected import check_writable
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.local_copies import LocalCopies
from r2fs.engine.namespace.xattrs import ExtendedAttributes
from r2fs.engine.pending.records import Records
from r2fs.model.errors import Interrupted, IsADirectory, NotFound, R2fsError, StoreError
from r2fs.model.header_change import GENERIC, HeaderChange
from r2fs.model.keys import printable
from r2fs.model.metadata import DEFAULT_TYPE, SNIFF_BYTES, content_type
from r2fs.model.ports import Caller
from r2fs.model.records import Version
from r2fs.model.reports import BulkReport

log = logging.getLogger(__name__)

TYPES_KEPT = 10_000  # types by the first bytes
AT_ONCE = 4  # threads of listings in use: the others serve programs

Files = Iterator[tuple[Node, str]]


class HeaderChanges:
    def __init__(
        self,
        records: Records,
        names: Names,
        copies: LocalCopies,
        xattrs: ExtendedAttributes,
        jobs: JobQueue,
    ) -> None:
        # constant
        self._core = records.core
        self._names = names
        self._copies = copies
        self._xattrs = xattrs
        self._jobs = jobs
        # guarded by: Core.lock
        self._types: dict[Version, str] = {}  # by the first bytes, of objects without a type

    def run(
        self,
        path: str,
        change: HeaderChange,
        report: BulkReport,
        *,
        recursive: bool,
        dry_run: bool,
        cancelled: Event,
    ) -> None:
        """Change the file at `path`, relative to the mount; with `recursive` all files below. `dry_run`: count alone."""
        check_writable(self._core)
        tops = self._copies.tops([path])
        if not tops:
            raise NotFound(f"{printable(path)}: no such file or directory")
        check_writable(self._core, tops[0])
        if tops[0].is_dir and not recursive:
            raise IsADirectory(f"{printable(path or '/')} is a directory: -r changes the files below it")
        found = self._copies.files(tops, Caller(cancelled=cancelled))
        with self._core.lock:
            files = [file for file in found if self._has_object(file[0])]
        report.found += len(files)
        report.listed = True
        self._in_parallel(_Work(iter(files), change, report, cancelled, dry_run))
        if cancelled.is_set() or self._core.stopping:
            raise Interrupted("interrupted: the rest is left as it is")

    def shown_type(self, caller: Caller, node: Node, stored: str) -> str:
        """Return the type for a program: as stored; by the first bytes, if neither type nor name has a meaning."""
        if stored not in GENERIC or content_type(node.name) != DEFAULT_TYPE:
            return stored
        with self._core.lock:
            version = node.base
            known = self._types.get(version) if version is not None else None
        if known is None:
            caller.about_to_fetch()
            try:
                known = content_type(node.name, self._head(node, HeaderChange(guess=True)))
            except StoreError as error:
                log.info("%s: its type is not known yet: %s", printable(node.name), error)
                return stored
            with self._core.lock:
                if version is not None:
                    self._types[version] = known
                    if len(self._types) > TYPES_KEPT:
                        del self._types[next(iter(self._types))]
        return stored if known == DEFAULT_TYPE else known

    def _has_object(self, node: Node) -> bool:
        return not node.read_only and not self._xattrs.is_local(node)

    def _in_parallel(self, work: _Work) -> None:
        ended = [Event() for _ in range(AT_ONCE)]

        def job(done: Event) -> None:
            try:
                while (file := work.take()) is not None and not self._core.stopping:
                    self._change(*file, work)
            finally:
                done.set()

        for done in ended:
            self._jobs.submit(lambda done=done: job(done))  # type: ignore[misc]
        for done in ended:
            while not done.wait(0.5) and not self._core.stopping:
                pass

    def _change(self, node: Node, path: str, work: _Work) -> None:
        try:
            caller = Caller(cancelled=work.cancelled)
            self._names.learn(caller, node)
            head = self._head(node, work.change)
            with self._core.lock:
                if node.deleted:
                    raise NotFound(f"{path} was removed meanwhile")
                changed = self._xattrs.change_headers(node, work.change, head, work.dry_run)
                size = node.size
            work.count(size if changed else None)
        except R2fsError as error:
            work.fail(path, error)

    def _head(self, node: Node, change: HeaderChange) -> bytes:
        """Return the first bytes, if needed for the type; none of an unsent file: its upload reads them."""
        with self._core.lock:
            version = node.base
            if version is None or node.pending is not None or not version.size:
                return b""
            if not change.needs_bytes(node.name, node.content_type):
                return b""
            if node.content is not None and node.content.complete:
                return node.content.read(0, SNIFF_BYTES)
        with self._core.store.get(version.key, length=SNIFF_BYTES, if_match=version.etag) as download:
            return b"".join(download.chunks())


class _Work:
    """The files of one command, taken by several threads, and its report."""

    def __init__(
        self, files: Files, change: HeaderChange, report: BulkReport, cancelled: Event, dry_run: bool
    ) -> None:
        # constant
        self.dry_run = dry_run
        self.change = change
        self.cancelled = cancelled
        # guarded by: _lock
        self._lock = Lock()
        self._files = files
        self._report = report

    def take(self) -> tuple[Node, str] | None:
        with self._lock:
            return None if self.cancelled.is_set() else next(self._files, None)

    def count(self, size: int | None) -> None:
        """Count a changed file, or with None an unchanged one."""
        with self._lock:
            if size is None:
                self._report.unchanged += 1
            else:
                self._report.did(size)

    def fail(self, path: str, error: R2fsError) -> None:
        with self._lock:
            self._report.fail(path, error)
