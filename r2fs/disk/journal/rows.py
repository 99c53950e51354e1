"""Rows of the table `inode`: PendingInode to the values of a row, and back.

Owns:  the order of columns and fields. schema.py says what a column means.
Never: touches the database.
"""

from __future__ import annotations

import json
import os

from r2fs.model.records import Kind, PendingInode, Proof, Version

INODE_COLUMNS = (
    "ino", "key", "kind", "state", "before", "seq", "mode", "uid", "gid", "mtime_ns", "extra", "content_type",
    "base_key", "base_etag", "base_size", "expected_etag", "changed", "staged", "size", "own", "base_limit", "proof",
    "closed_at_s", "boot", "synced", "reason", "conflict_of", "target", "st_ino", "stored",
)  # fmt: skip
PUT_INODE = (
    f"INSERT OR REPLACE INTO inode ({','.join(INODE_COLUMNS)}) VALUES ({','.join('?' * len(INODE_COLUMNS))})"
)
GET_INODES = f"SELECT {','.join(INODE_COLUMNS)} FROM inode ORDER BY seq"


def proof_text(proof: Proof) -> str:
    return json.dumps([proof.size, proof.mtime_ns, proof.ctime_ns])


def inode_values(row: PendingInode) -> tuple[object, ...]:
    base = (row.base.key, row.base.etag, row.base.size) if row.base else (None, None, None)
    return (
        row.ino, row.key, row.kind.value, row.state, row.before, row.seq, row.mode, row.uid, row.gid, row.mtime_ns,
        json.dumps(dict(row.extra)), row.content_type, *base, row.expected_etag, row.changed, row.staged, row.size,
        None if row.own is None else json.dumps(row.own), row.base_limit,
        row.proof and proof_text(row.proof), row.closed_at_s, row.boot, row.synced, row.reason, row.conflict_of,
        row.target if row.target is None or is_text(row.target) else os.fsencode(row.target),
        row.st_ino, None if row.stored is None else json.dumps(dict(row.stored)),
    )  # fmt: skip


def inode_row(values: tuple[object, ...]) -> PendingInode:
    field = dict(zip(INODE_COLUMNS, values, strict=True))
    base_key, base_etag, base_size = (field.pop(f"base_{part}") for part in ("key", "etag", "size"))
    field["kind"] = Kind(field["kind"])
    field["extra"] = json.loads(str(field["extra"]))
    field["base"] = Version(base_key, base_etag, base_size) if base_key is not None else None  # type: ignore[arg-type]
    if field["own"] is not None:
        field["own"] = tuple((start, stop) for start, stop in json.loads(str(field["own"])))
    if field["proof"] is not None:
        field["proof"] = Proof(*json.loads(str(field["proof"])))
    field["changed"], field["synced"] = bool(field["changed"]), bool(field["synced"])
    if field["stored"] is not None:
        field["stored"] = json.loads(str(field["stored"]))
    if isinstance(field["target"], bytes):
        field["target"] = os.fsdecode(field["target"])
    return PendingInode(**field)  # type: ignore[arg-type]


def is_text(target: str) -> bool:
    """True if a link's target, which may be any bytes, is UTF-8, as SQLite's text must be."""
    try:
        target.encode()
    except UnicodeEncodeError:
        return False
    return True
