"""Attributes as user metadata, in the spellings of other tools."""

from __future__ import annotations

import pytest

from r2fs.model.metadata import MAX_TIME_NS, Facts, attributes_from, metadata_for, recalled, remembered
from r2fs.model.records import ObjectInfo

S_IFREG = 0o100000


def told(metadata: dict[str, str]) -> Facts:
    return attributes_from(ObjectInfo("take.wav", 0, "etag", 0, metadata=metadata))


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0.000000000"),
        (1_700_000_000_250_000_000, "1700000000.250000000"),
        (-1, "-0.000000001"),
        (-1_000_000_001, "-1.000000001"),
        (-7_000_000_000, "-7.000000000"),
        (MAX_TIME_NS, "9223372036.854775807"),
        (-MAX_TIME_NS, "-9223372036.854775807"),
    ],
)
def test_a_time_is_one_decimal_number(ns: int, text: str):
    meta = metadata_for(Facts(mtime_ns=ns), S_IFREG, "attempt", "audio/wav")
    assert meta.metadata["mtime"] == text
    assert told(dict(meta.metadata)).mtime_ns == ns


@pytest.mark.parametrize(
    "text", ["", "soon", "nan", "inf", "1700000000000", "99999999999", "9223372037", "1e999999999"]
)
def test_what_is_no_time_is_as_if_it_were_not_there(text: str):
    """Milliseconds, perhaps: no such time can be kept."""
    assert told({"mtime": text}).mtime_ns is None


def test_a_time_that_an_older_version_remembered_is_as_if_it_were_not_there():
    assert recalled({"mtime_ns": 1 << 69}).mtime_ns is None
    assert recalled(remembered(Facts(mtime_ns=-1))).mtime_ns == -1
