"""Buckets of many objects that nobody stores: what their listings cost, in requests, nodes and bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2fs.engine.namespace import lines
from tests.support.engine import Engine
from tests.support.generated import Generated, GeneratedStore

MANY = 5_000


def test_the_first_names_come_without_the_numbers_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = list[str]()
    derived_of = lines.derived_of
    monkeypatch.setattr(
        lines, "derived_of", lambda key, name, etag: (computed.append(name), derived_of(key, name, etag))[1]
    )
    engine = Engine(tmp_path, GeneratedStore(Generated((MANY,))), threads=False, freshness_s=3600.0)
    try:
        listed = engine.fs.readdir(engine.caller, 1)
        first = next(listed.raw(0))
        assert (len(listed), first[0]) == (MANY, b"f0000.wav")
        assert 1 <= len(computed) <= 200
        assert not list(engine.inodes.root.children().nodes()), "a name alone needs no node"
        assert first[1] == engine.entry("f0000.wav").attributes.st_ino
    finally:
        engine.end()
