"""Keys that a mount cannot show: as the engine hides them."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2fs.doctor import hidden_keys
from r2fs.doctor.hidden_keys import HiddenKeys
from r2fs.model.records import ObjectInfo, ObjectMeta
from tests.support.bodies import BytesBody
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore

OWN_OBJECT = ".r2fs-directory-object"
CASES = [
    ["a", "b/c", "d/"],
    ["a//b"],
    ["../x", "./y", "z"],
    ["take", "take/one"],
    ["n" * 256, "n" * 255],
    ["link.rclonelink", "link"],
    ["e\u0301", "\u00e9"],
    ["dir/with bytes/"],
]


@pytest.mark.expect_warnings("at the key of a directory")
@pytest.mark.parametrize("keys", CASES, ids=lambda keys: keys[0][:12])
def test_the_engine_hides_the_same_names(tmp_path: Path, keys: list[str]):
    store = MemoryStore()
    store.tells_spellings_apart = True
    for key in keys:
        store.put(key, BytesBody(b"bytes"), ObjectMeta())
    found = HiddenKeys("")
    found.add(store.list_page("").objects)
    engine = Engine(tmp_path, store)
    try:
        shown = [path for path, data in engine.tree().items() if data is not None]
    finally:
        engine.end()
    assert found.seen == len(keys)
    wanted = [key for key in keys if key not in found.found() and not key.endswith("/")]
    assert len([path for path in shown if not path.endswith(OWN_OBJECT)]) == len(wanted)


def test_each_hidden_key_has_its_reason():
    found = HiddenKeys("p/")
    found.add(
        ObjectInfo(f"p/{key}", 1, "e", 0)
        for key in ("a//b", "take", "take/one", "dir/", "e\u0301", "\u00e9", "good")
    )
    assert found.found() == {
        "p/a//b": hidden_keys.NOT_A_NAME,
        "p/dir/": hidden_keys.BYTES_AT_DIRECTORY,
        "p/take": hidden_keys.DIRECTORY_TOO,
        "p/\u00e9": hidden_keys.SAME_NAME,
    }
