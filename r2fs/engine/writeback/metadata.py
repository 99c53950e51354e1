"""Metadata of an upload: sent beside the bytes, merged with another host's, and kept after the answer.

Owns:      the metadata of each request of an attempt; the final row in the journal's table `attributes`.
Invariant: a field set by a program since the metadata were last seen stays; every other field is the other
           host's. Without metadata seen before, fields set on this host stay, and the others are the other host's.
Never:     sends bytes; replaces an object with unknown metadata without a HEAD.
Locks:     methods and functions named _locked need Core.lock; the others take it, and hold none during a request.
Fails:     StoreError, before the object is replaced.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from r2fs.disk.body import Gate
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.inode_numbers import derived
from r2fs.engine.inodes.stat import facts_of, fill, merged, shown_of, together
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import InodeChange
from r2fs.model.errors import R2fsError
from r2fs.model.keys import nfc, printable
from r2fs.model.metadata import (
    ATTEMPT,
    DEFAULT_TYPE,
    MAX_TIME_NS,
    SNIFF_BYTES,
    Facts,
    attributes_from,
    content_type,
    headers_of,
    metadata_for,
    of_new_bytes,
    remembered,
    without_header,
)
from r2fs.model.records import TYPE_BITS, KeptAttributes, Kind, ObjectInfo, ObjectMeta, Version

log = logging.getLogger(__name__)

GZIP = b"\x1f\x8b"  # RFC 1952: the first bytes of compressed data
BODILESS_TYPES = {Kind.DIRECTORY: "application/x-directory", Kind.SYMLINK: "text/plain"}


# ------------------------------------------------------------------ of the requests
class UploadMetadata:
    """The metadata of an attempt's requests."""

    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._pending = records.pending

    def completed(self, job: UploadJob) -> UploadJob:
        """Return the job with the metadata of the object to be replaced merged into its own."""
        if not job.known:
            return self._with_unread(job)
        if job.stored is not None and job.replaces_base:
            return self._with_news(job, job.stored)
        return job

    def _with_unread(self, job: UploadJob) -> UploadJob:
        """Add the base's metadata, of a file overwritten before a read of its metadata."""
        assert job.base is not None
        info = self._core.head(job.base.key)
        # The object may be an earlier attempt of this host, which took the metadata over.
        ours = job.expected_etag if job.key == job.base.key else None
        if info is None or info.etag not in (job.base.etag, ours):
            return self._as_learned(job)
        facts = together(attributes_from(info), job.facts)
        return replace(job, facts=replace(facts, extra=of_new_bytes(facts.extra)))

    def _as_learned(self, job: UploadJob) -> UploadJob:
        """Add the metadata that `UnreadMetadata` has read since the claim, before this host replaced the base."""
        with self._core.lock:
            node = self._pending.inodes.get(job.ino)
            if node is None or not node.metadata_known:
                return job  # the condition decides
            return replace(job, facts=facts_of(node))

    def _with_news(self, job: UploadJob, stored: Facts) -> UploadJob:
        """Merge another host's change of metadata alone: the ETag stays, and so the PUT's condition holds.

        With close-to-open, the HEAD of the open may have been sent just before.
        """
        info = self._core.recent_head(job.key, job.expected_etag)
        if info is None or info.etag != job.expected_etag:
            return job  # the condition decides
        there = attributes_from(info)
        facts = _merge(job, stored, replace(there, extra=of_new_bytes(there.extra)))
        if facts != job.facts:
            with self._core.lock:  # a begun upload has the metadata of its beginning
                self._core.journal.outdate_multipart(job.ino)
        return replace(job, facts=facts)

    def of_body(self, job: UploadJob) -> ObjectMeta:
        kind = job.facts.content_type or BODILESS_TYPES.get(job.kind, DEFAULT_TYPE)
        return metadata_for(job.facts, TYPE_BITS[job.kind], job.attempt, kind)

    def of_merge(self, job: UploadJob) -> ObjectMeta | None:
        """The metadata for a copy without a look at its source: only those changed since they were seen are named, and
        another host's stay. None: not all of them are known here, or one was removed, which R2's MERGE cannot do.

        The other fields of the metadata, Content-Type and the like, are sent as they are known.
        """
        now, seen = job.facts, job.stored
        if not job.known or seen is None or job.kind is not Kind.FILE:
            return None
        kind = now.content_type or content_type(job.name)
        if now.mtime_ns is None or (
            now.content_type is None and kind == DEFAULT_TYPE
        ):  # by its bytes, perhaps
            return None
        meta, there = (metadata_for(facts, TYPE_BITS[job.kind], job.attempt, kind) for facts in (now, seen))
        if not (there.metadata.keys() <= meta.metadata.keys() and meta.headers == there.headers):
            return None
        changed = {k: v for k, v in meta.metadata.items() if k == ATTEMPT or v != there.metadata.get(k)}
        return replace(meta, metadata=changed, merge=True)

    def of_copy(self, job: UploadJob, source: ObjectInfo) -> tuple[Facts, ObjectMeta]:
        """Return the metadata for a copy of `source`: fields unknown on this host are kept."""
        there = attributes_from(source)
        # Known metadata are complete: a removed extended attribute stays removed.
        if not job.known:
            facts = together(there, job.facts)
        else:
            facts = job.facts if job.stored is None else _merge(job, job.stored, there)
        if facts.mtime_ns is None:
            facts = replace(facts, mtime_ns=min(source.modified_ns, MAX_TIME_NS))
        named = DEFAULT_TYPE if job.kind is Kind.DIRECTORY else content_type(job.name)
        by_bytes = source.content_type if named == DEFAULT_TYPE and source.content_type else named
        meta = metadata_for(facts, TYPE_BITS[job.kind], job.attempt, facts.content_type or by_bytes)
        if job.known and job.stored is not None:  # a header removed here stays removed
            return facts, meta
        return facts, replace(meta, headers={**(source.headers or {}), **(meta.headers or {})})


def job_of_copy(node: Node, attempt: str, source: Version, mtime_ns: int) -> UploadJob:
    """Return the job that makes the object of a new file, pending and empty, a copy of `source`."""
    assert node.pending is not None
    facts, key = replace(facts_of(node), mtime_ns=mtime_ns), node.pending.key
    return with_type(
        UploadJob(
            node.ino, node.kind, key, {nfc(key), nfc(source.key)}, node.name, attempt, node.pending.expected_etag, facts,
            known=True, stored=None, base=source, copy=True, body=None, fd=-1, size=0, gate=Gate(),
            sent=lambda count: None,
        )
    )  # fmt: skip


def with_type(job: UploadJob) -> UploadJob:
    """The job with a Content-Type by its name, else by its first bytes, unless set by a program."""
    facts = job.facts
    encoding = headers_of(facts.extra).get("content-encoding", "")
    if job.kind is not Kind.FILE or (facts.content_type is not None and encoding != "gzip"):
        return job
    kind = facts.content_type or content_type(job.name)
    if encoding == "gzip" or kind == DEFAULT_TYPE:  # else the bytes tell no more
        head = job.gate.pread(job.fd, SNIFF_BYTES, 0) if job.fd >= 0 else b""
        if encoding == "gzip" and not head.startswith(GZIP):  # written anew: no decoder would take the bytes
            facts = replace(facts, extra=without_header(facts.extra, "content-encoding"))
        kind = facts.content_type or content_type(job.name, head)
    return replace(job, facts=replace(facts, content_type=kind))


def _merge(job: UploadJob, stored: Facts, there: Facts) -> Facts:
    facts = merged(there, job.facts, stored, job.kind is Kind.DIRECTORY)
    if facts != job.facts:
        log.info("%s: another host has changed its metadata: both changes are kept", printable(job.key))
    return facts


# ------------------------------------------------------------------ of an object about to be replaced
class UnreadMetadata:
    """Metadata of a file overwritten before a read of its metadata, and renamed since: a HEAD before the upload of a
    new file replaces the object at the old name."""

    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._attempts = records.attempts
        self._pending = records.pending

    def before_replacing(self, key: str, by: Node) -> None:
        """Learn the metadata, before a request of `by` replaces the object at `key`."""
        with self._core.lock:
            if not self._lacking_locked(key, by):
                return
        info = self._core.head(key)
        if info is None:
            return
        with self._core.lock:
            for node in self._lacking_locked(key, by):
                self._learn_locked(node, info)

    def _lacking_locked(self, key: str, by: Node) -> list[Node]:
        self._core.assert_held()
        return [
            node
            for node in self._pending.based_on(key)
            if node is not by
            and not node.metadata_known
            and node.pending is not None
            and node.pending.changed
        ]

    def _learn_locked(self, node: Node, info: ObjectInfo) -> None:
        self._core.assert_held()
        if (
            node.base is None
            or node.base.etag != info.etag
            or self._attempts.is_ours(info.metadata, info.key)
        ):
            # Other bytes; or the same by another file of this host, with metadata of its own.
            node.metadata_known = True
            return
        facts = attributes_from(info)
        fill(node, replace(facts, extra=of_new_bytes(facts.extra)))
        node.metadata_known = True  # the only source
        try:
            assert node.pending is not None
            self._pending.commit(node, node.pending)
        except R2fsError:
            node.metadata_known = False  # not in its row: read again
            raise


# ------------------------------------------------------------------ of an answer
def learned_locked(
    core: Core, node: Node, job: UploadJob, version: Version, facts: Facts
) -> tuple[Facts | None, InodeChange]:
    """The attributes to be shown after an upload, and the new values of fields, by the stored metadata.

    Metadata learned by the upload are not shown: a look at a file changes no attribute.
    """
    core.assert_held()
    core.changed_here_locked(job.key)
    change = InodeChange(base=version, base_metadata=facts)
    learning = not node.metadata_known or not node.mtime_known
    pinned = shown_of(node) if node.shown and learning else node.pinned
    if node.metadata_known:
        # Metadata merged by the upload, but for fields changed since: the next attempt takes each difference
        # from the stored metadata for a change of this host.
        now = facts_of(node)
        both = merged(facts, now, job.facts, node.is_dir)
        news = _changes(now, both, with_time=job.facts.mtime_ns is not None)
        pinned = None if news else pinned
        change |= news
    if not node.mtime_known and facts.mtime_ns is not None:
        change["mtime_ns"] = facts.mtime_ns
    if node.content_type is None and facts.content_type != content_type(node.name):
        change["content_type"] = facts.content_type  # by its first bytes
    if not node.metadata_known:  # kept by the next upload, too
        fill(node, facts)
    return pinned, change


def found_at_key(node: Node, job: UploadJob, there: Facts) -> InodeChange:
    """Changes of a pending inode after a 412, where another host's object of the same bytes has the metadata `there`.

    Empty where the upload merges both: the inode's own metadata are not known, or a directory's were seen.
    """
    seen = node.base_metadata
    if not node.metadata_known or (node.is_dir and seen is not None) or job.copy:
        return InodeChange()
    now = facts_of(node)
    both = together(there, now) if seen is None else merged(there, now, seen, node.is_dir)
    change = _changes(now, both, with_time=node.is_dir)  # staged bytes have their own mtime
    change["base_metadata"] = there
    if both.content_type != now.content_type:
        change["content_type"] = both.content_type
    return change


def _changes(now: Facts, both: Facts, with_time: bool) -> InodeChange:
    change = InodeChange()
    if both.mode != now.mode:
        change["mode"] = both.mode
    if both.uid != now.uid:
        change["uid"] = both.uid
    if both.gid != now.gid:
        change["gid"] = both.gid
    if with_time and both.mtime_ns is not None and both.mtime_ns != now.mtime_ns:
        change["mtime_ns"] = both.mtime_ns
    if both.extra != now.extra:
        change["extra"] = both.extra
    return change


def keep_locked(records: Records, node: Node, version: Version, facts: Facts) -> None:
    """Write the stored attributes to the journal, in the upload's last transaction, for later mounts."""
    core, tree = records.core, records.tree
    core.assert_held()
    rows = core.journal.attributes
    if not node.st_ino:
        node.st_ino = core.numbers.claim(derived(version.key) if node.is_dir else node.ino)
    shown_ns = node.mtime_ns if node.is_dir else None
    rows.put(
        KeptAttributes(
            version.key, version.etag, version.size, node.st_ino, remembered(facts), node.ctime_ns, shown_ns,
            node.target, None, core.clock.time(),
        )
    )  # fmt: skip
    parent = node.parent
    if parent is not None and parent.has_new_times:
        rows.put_shown(tree.key(parent), parent.st_ino, parent.mtime_ns, parent.ctime_ns)
    for one in (node, parent):
        if one is not None and one.is_dir:
            records.pending.on_rollback(partial(setattr, one, "kept_ns", one.kept_ns))
            one.kept_ns = (one.mtime_ns, one.ctime_ns)  # at once: one row for several files of a directory
