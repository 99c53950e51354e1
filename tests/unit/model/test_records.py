from __future__ import annotations

import dataclasses
import inspect

import pytest

from r2fs.model import records, views
from r2fs.model.records import Attributes, Condition, Entry, Kind, ObjectInfo, Version

RECORDS = [
    c
    for module in (records, views)
    for _, c in inspect.getmembers(module, inspect.isclass)
    if dataclasses.is_dataclass(c) and c.__module__ == module.__name__
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_records_are_frozen_and_take_no_other_field(record: type):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(object.__new__(record), dataclasses.fields(record)[0].name, 0)
    assert not hasattr(object.__new__(record), "__dict__"), "slots"


def test_a_version_is_a_key_of_dictionaries():
    first, same = Version("k", "e", 3), Version("k", "e", 3)
    assert {first: 1}[same] == 1
    assert first != Version("k", "e", 4)


def test_what_is_told_of_an_object_names_its_version():
    assert ObjectInfo("k", 3, "e", 0).version == Version("k", "e", 3)


def test_an_entry_has_its_inodes_number():
    attributes = Attributes(17, Kind.FILE, 0, 0o644, 0, 0, 0, 0, 0, 1, 0, 99)
    assert Entry(attributes, 1.0).ino == 17


def test_a_condition_holds_for_its_version_or_for_no_object():
    assert [Condition.matches("e").holds(etag) for etag in ("e", "f", None)] == [True, False, False]
    assert [Condition.absent().holds(etag) for etag in ("e", None)] == [False, True]
