"""Schemas of the JSON that commands print: fields, types and units, for scripts that read them.

Owns:  the table SCHEMAS, by command, and its check. A field that is added, renamed or of another type is a change of
       the interface: this table changes with it, and CHANGELOG names it.

A schema is a type (`int` takes no bool, `float` takes int), `(schema, None)` for a value that may be null, `[schema]`
for a list, `{name: schema}` for an object with exactly these fields, or `{str: schema}` for one with any names.
"""

from __future__ import annotations

from typing import Any

TRANSFER = {
    "path": str, "verb": str, "state": str, "size": int, "sent": int, "rate": float, "age_s": float,
    "reason": (str, None), "failures": int,
}  # fmt: skip
QUEUE = {
    "files": int, "directories": int, "bytes": int, "deletes": int, "watched": int, "active": int, "parked": int,
    "conflicts": [str], "hidden": int, "oldest_s": float, "transfers": [TRANSFER], "uploaded": int,
    "uploaded_bytes": int, "failed": int, "last_error": (str, None), "last_error_at_s": (float, None),
    "directory_objects": [{"key": str, "etag": str, "size": int}], "parked_bytes": int, "left": int, "rate": float,
    "left_s": (float, None),
}  # fmt: skip
LIMIT = {
    "setting": str, "rate": (int, None), "until_s": (float, None), "then": (int, None), "waiting": int,
}  # fmt: skip
STATUS: dict[str, Any] = {
    "mount": {
        "mountpoint": str, "url": str, "name": str, "pid": int, "state": str, "read_only": bool, "driver": str,
        "cache_dir": str, "state_dir": str, "staging_dir": str, "held_by": (str, None), "why_not": (str, None),
        "started_at_s": float, "buckets": [{"name": str, "read_only": bool}],
    },
    "warnings": [str],
    "queue": QUEUE,
    "downloads": [TRANSFER],
    "cache": {
        "entries": int, "bytes": int, "limit": int, "hits": int, "misses": int, "evicted": int, "expired": int,
        "hit_rate": (float, None), "surplus": int,
    },
    "pins": {"paths": int, "sessions": int, "session_files": int, "here_bytes": int, "limit": int},
    "room": {
        "dirty": int, "dirty_limit": int, "writers": str, "disk_free": int, "disk_reserve": int,
        "disk_error": (str, None), "journal_reserve": int,
    },
    "aside": {"journals": [str], "orphans": [{"path": str, "size": int, "mtime_ns": int, "key": (str, None)}]},
    "damaged": [str],
    "requests": {
        "by_verb": {str: int}, "by_status": {str: int}, "class_a": int, "class_b": int, "free": int, "retries": int, "sent_bytes": int,
        "received_bytes": int, "total": int,
    },
    "bandwidth": {"up": LIMIT, "down": LIMIT},
    "health": {"answers": bool, "for_s": float, "reason": (str, None)},
    "kernel": {
        "open_files": ([{"path": (str, None), "ino": int, "mode": str, "why": str, "handles": int}], None),
        "requests": ({str: int}, None),
    },
}  # fmt: skip
STATUS_OF_A_MIRROR = {
    "mount": {
        "mountpoint": str, "url": str, "name": str, "pid": int, "state": str, "read_only": bool, "driver": str,
        "state_dir": str,
    },
    **{part: STATUS[part] for part in ("warnings", "queue", "downloads", "requests", "bandwidth", "health")},
    "cache": STATUS["cache"],
    "mirror": {
        "sent": int, "sent_bytes": int, "fetched": int, "fetched_bytes": int, "deleted": int, "removed": int,
        "conflicts": int, "failed": int, "to_fetch": int, "compared_at_s": (float, None), "error": (str, None),
        "skipped": {str: str}, "carries_removals": bool,
    },
}  # fmt: skip
NOT_MOUNTED = {
    "mount": {
        "mountpoint": (str, None), "url": (str, None), "endpoint": (str, None), "name": str, "state": str,
        "state_dir": str, "error": str,
    },
    "pending": {
        "files": int, "directories": int, "bytes": int, "deletes": int, "parked": int, "oldest_at_s": (float, None),
        "error": (str, None),
    },
    "command": (str, None),
    "keys": str,
}  # fmt: skip
FILE = {
    "path": str, "kind": str, "key": str, "url": (str, None), "state": str, "size": int, "cached": int, "etag": (str, None),
    "content_type": (str, None), "modified_at_s": float, "stored_at_s": (float, None), "open": int,
    "reason": (str, None), "failures": int, "pending_s": (float, None), "sent": int, "conflict_of": (str, None),
    "copies": [str], "pinned": bool, "whole": bool, "headers": {str: str}, "headers_known": bool,
    "unavailable": (str, None),
}  # fmt: skip
INFO = {
    **FILE,
    "history": [{"at_s": float, "event": str, "detail": str, "program": str}],
    "history_since_at_s": float,
}
FAILED = [{"path": str, "error": str}]
FAILED_ROWS = [{"line": int, "key": str, "reason": str}]
COUNTED = {"class_a": int, "class_b": int, "free": int, "dollars": float}
PROJECTED = {"class_a": float, "class_b": float, "free": float, "dollars": float}

FETCHED: dict[str, Any] = {  # of files downloaded ahead
    "files": int,
    "bytes": int,
    "here": int,
    "here_bytes": int,
    "fetched": int,
    "fetched_bytes": int,
    "rate": float,
    "left_s": (float, None),
    "stopped": (str, None),
    "failures": int,
    "failed": [[str]],
}

SCHEMAS: dict[str, Any] = {
    "status": [STATUS],
    "status DIR": STATUS,
    "status, a mirror": STATUS_OF_A_MIRROR,
    "status, not mounted": NOT_MOUNTED,
    "ls": [FILE],
    "info": INFO,
    "queue list": [TRANSFER],
    "queue retry": {"released": int},
    "queue export": {"exported": [{"path": str, "size": int}], "failed": FAILED, "to": str},
    "queue drop": {
        "dropped": [{"path": str, "size": int, "sha256": str, "in_bucket": bool}],
        "failed": FAILED,
    },
    "warm": [
        {
            "mountpoint": str,
            **FETCHED,
        }
    ],
    "pin": [
        {
            "mountpoint": str,
            "session": (str, None),
            "missing": [str],
            **FETCHED,
        }
    ],
    "pin --list": [
        {
            "mountpoint": str,
            "limit": int,
            "pins": [
                {
                    "path": str,
                    "session": (str, None),
                    "since_at_s": float,
                    "files": int,
                    "bytes": int,
                    "here_bytes": int,
                }
            ],
        }
    ],
    "limit": {"up": LIMIT, "down": LIMIT},
    "refresh": [{"mountpoint": str, "directories": int, "files": int, "failed": FAILED}],
    "mirror": {
        "sent": int,
        "sent_bytes": int,
        "fetched": int,
        "fetched_bytes": int,
        "objects_deleted": int,
        "files_removed": int,
        "conflicts": int,
        "not_mirrored": [{"name": str, "reason": str}],
        "failed_count": int,
        "failed": [{"name": str, "reason": str}],
    },
    "grant": {
        "access_key_id": str,
        "secret_access_key": str,
        "session_token": str,
        "bucket": str,
        "prefix": str,
        "read_only": bool,
        "expires": str,
        "variables": {str: str},
        "mount": str,
    },
    "evict": [{"mountpoint": str, "files": int, "bytes": int, "kept": int, "reasons": [[str]]}],
    "set": {
        "dry_run": bool,
        "changed_count": int,
        "unchanged_count": int,
        "failed_count": int,
        "waiting_count": int,
        "errors": [{"key": str, "reason": str}],
    },
    "rm": {
        "dry_run": bool,
        "deleted_count": int,
        "failed_count": int,
        "total_bytes": int,
        "not_uploaded_count": int,
        "waiting_count": int,
        "errors": [{"key": str, "reason": str}],
    },
    "doctor": {
        "target": (str, None),
        "findings": [{"check": str, "level": str, "text": str, "remedy": (str, None), "exit_code": int}],
        "exit_code": int,
    },
    "cache check": {"checked": int, "bytes": int, "skipped": int, "damaged": [str]},
    "cache clear": {"removed": int, "removed_bytes": int, "entries": int, "bytes": int},
    "cost": {
        "started_at_s": float,
        "since_s": float,
        "requests": {"since_start": COUNTED, "per_day": PROJECTED, "per_month": PROJECTED},
        "storage": {
            "objects": int,
            "bytes": int,
            "listed": bool,
            "dollars_per_month": float,
            "failed": [[str]],
        },
        "dollars_per_month": float,
        "prices": {"storage": float, "class_a": float, "class_b": float},
        "month": {
            "month": str,
            "class_a": int,
            "class_b": int,
            "dollars": float,
            "warn_cost": float,
            "prefetch_cost": float,
        },
        "by_directory": [{"directory": (str, None), **COUNTED}],
        "by_program": [{"program": str, **COUNTED}],
    },
    "cost --why": {
        "key": str,
        "requests": [
            {
                "at_s": float,
                "request": str,
                "class": str,
                "key": str,
                "program": str,
                "purpose": str,
                "sent_bytes": int,
                "status": (int, None),
                "took_s": (float, None),
            }
        ],
        "count": int,
        "dollars": float,
        "kept": int,
        "since_at_s": float,
    },
    "flush": [
        {
            "mountpoint": str,
            "sent": bool,
            "queue": QUEUE,
            "parked_count": int,
            "parked": [TRANSFER],
            "refusal": (str, None),
            "refusal_kind": (str, None),
        }
    ],
    "wait": [{"mountpoint": str, "exit_code": int, "checked": int, "reasons": [str]}],
    "key": [{"path": str, "key": str, "bucket": str, "etag": (str, None), "state": str}],
    "path": {"path": str, "mountpoint": str, "bucket": str},
    "url": {
        "url": str,
        "key": str,
        "bucket": str,
        "state": (str, None),
        "public": bool,
        "method": str,
        "expires": (str, None),
    },
    "migrate": {
        "copies": int,
        "confirmed": int,
        "confirmed_earlier": int,
        "bytes": int,
        "old_keys_deleted": int,
        "failed_count": int,
        "failed": FAILED_ROWS,
        "results": str,
    },
    "migrate --dry-run": {"copies": [{"old": str, "new": str}], "failed": FAILED_ROWS},
    "config show": {
        "file": str,
        "exists": bool,
        "mount": (str, None),
        "mounts": [str],
        "settings": {str: {"value": object, "source": str}},
        "programs": {str: {"comm": str, "read": str, "header": str, "prefetch": str}},
        "derived": {str: str},
        "buckets": {str: {str: {"value": object, "source": str}}},
    },
    "restart": [{"mountpoint": str, "pid": int, "version": str}],
    "umount": [{"mountpoint": str, "queue": QUEUE, "exit_code": int}],
}


def check(value: Any, schema: Any, where: str = "") -> None:
    """Raise AssertionError, with the place, unless `value` has the form of `schema`."""
    if isinstance(schema, tuple):
        if value is not None:
            check(value, schema[0], where)
    elif isinstance(schema, list):
        assert isinstance(value, list), f"{where}: {value!r} is no list"
        for number, each in enumerate(value):
            check(each, schema[0], f"{where}[{number}]")
    elif isinstance(schema, dict):
        assert isinstance(value, dict), f"{where}: {value!r} is no object"
        if str not in schema:
            assert set(value) == set(schema), f"{where}: fields {set(value) ^ set(schema)}"
        for name, each in value.items():
            check(each, schema.get(name, schema.get(str)), f"{where}.{name}")
    elif schema is object:
        pass  # of any type
    elif schema is float:
        assert isinstance(value, int | float), f"{where}: {value!r} is no number"
        assert not isinstance(value, bool), f"{where}: {value!r} is no number"
    else:
        assert type(value) is schema, f"{where}: {value!r} is no {schema.__name__}"
