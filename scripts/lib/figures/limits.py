"""The aim of each figure, and the limit that scripts/check holds it to: what holds today, lowered as it falls."""

from __future__ import annotations

AIMS: dict[str, float] = {
    "r2fs: files > 400 lines": 0,
    "r2fs: functions > 15 branches": 0,
    "r2fs: question docstrings %": 2,
    "r2fs: indefinite words %": 5,
    "engine: lines": 8000,
    "engine: files > 400 lines": 0,
    "engine: functions > 15 branches": 0,
    "engine: constructors >= 6 arguments": 3,
    "engine: question docstrings %": 2,
    "engine: indefinite words %": 5,
    "engine: import arrows among rooms": 31,
    "engine: floors of rooms": 7,
    "engine: import circles among modules": 0,
    "engine: import circles among rooms": 0,
    "engine: attributes assigned from outside": 0,
    "engine: writers of pending state": 1,
    "(a) cold read: engine modules": 8,
    "(a) cold read: modules of writeback": 0,
    "(b) close to ETag: modules": 24,
    "(b) close to ETag: crossing %": 40,
}

# Static figures only: scripts/check runs no engine. Lines have no limit until their aim is reached.
LIMITS: dict[str, float] = {
    "r2fs: files > 400 lines": 0,
    "r2fs: functions > 15 branches": 0,
    "r2fs: constructors >= 6 arguments": 0,
    "r2fs: question docstrings %": 1,
    "r2fs: indefinite words %": 5,
    "engine: files > 400 lines": 0,
    "engine: functions > 15 branches": 0,
    "engine: constructors >= 6 arguments": 0,
    "engine: question docstrings %": 1,
    "engine: indefinite words %": 4,
    "engine: import arrows among rooms": 31,
    "engine: floors of rooms": 7,
    "engine: import circles among modules": 0,
    "engine: import circles among rooms": 0,
    "engine: attributes assigned from outside": 0,
    "engine: writers of pending state": 1,
}
