"""Attributes as user metadata, in the spellings of other tools."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2fs.model.metadata import (
    MAX_TIME_NS,
    Facts,
    attributes_from,
    metadata_for,
    mode_of,
    recalled,
    remembered,
)
from r2fs.model.records import Kind, ObjectInfo

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


# ------------------------------------------------------------------ modes
FILE, DIRECTORY, LINK = "take.wav", "takes/", "take.rclonelink"


@pytest.mark.parametrize(
    ("text", "key", "mode"),
    [
        # rclone: octal, with the type
        ("100644", FILE, 0o644),
        ("100600", FILE, 0o600),
        ("100755", FILE, 0o755),
        ("0100664", FILE, 0o664),
        ("104755", FILE, 0o4755),
        ("40755", DIRECTORY, 0o755),
        ("40700", DIRECTORY, 0o700),
        ("120777", LINK, 0o777),
        # s3fs and r2fs before: decimal, with the type
        ("33188", FILE, 0o644),
        ("33152", FILE, 0o600),
        ("33261", FILE, 0o755),
        ("33060", FILE, 0o444),
        ("35309", FILE, 0o4755),
        ("16877", DIRECTORY, 0o755),
        ("16832", DIRECTORY, 0o700),
        ("16704", DIRECTORY, 0o500),
        ("41471", LINK, 0o777),
        # r2fs
        ("0100644", FILE, 0o644),
        ("0100600", FILE, 0o600),
        ("042750", DIRECTORY, 0o2750),
        ("0120777", LINK, 0o777),
        # people: without the type
        ("0644", FILE, 0o644),
        ("04755", FILE, 0o4755),
        ("644", FILE, 0o644),
        ("600", FILE, 0o600),
        ("755", FILE, 0o755),
        ("700", DIRECTORY, 0o700),
        ("384", FILE, 0o600),
        ("493", FILE, 0o755),
        ("0", FILE, 0),
        # in doubt: what both readings allow
        ("420", FILE, 0o420 & 0o644),
        ("400", FILE, 0o400),
        ("511", FILE, 0o511),
        ("4755", FILE, 0o755),
        ("4516", DIRECTORY, 0o516),
        # none
        *((text, FILE, None) for text in (
            "", "-1", "+33188", " 33188", "rw-r--r--", "0o644", "0x81a4", "9999999999", "4294967296", "65536",
            "200000", "0200000", "099", "1" * 5000, "\u0661",
        )),
    ],
)  # fmt: skip
def test_modes_of_other_tools(text: str, key: str, mode: int | None):
    found = attributes_from(ObjectInfo(key, 0, "etag", 0, metadata={"mode": text}))
    assert found.mode == mode
    assert found.extra == ({} if mode is not None else {"mode": text})


@pytest.mark.parametrize("text", ["10644", "010644", "4516"], ids=("rclone", "r2fs", "s3fs"))
def test_a_fifo_is_empty(text: str):
    found = attributes_from(ObjectInfo(FILE, 0, "etag", 0, metadata={"mode": text}))
    assert (found.kind, found.mode) == (Kind.FIFO, 0o644)
    assert attributes_from(ObjectInfo(FILE, 1, "etag", 0, metadata={"mode": text})).kind is None


@given(
    mode=st.integers(0, 0o7777),
    kind=st.sampled_from([(FILE, 0o100000), (DIRECTORY, 0o40000), (LINK, 0o120000)]),
)
def test_each_tool_reads_what_the_other_wrote(mode: int, kind: tuple[str, int]):
    key, bits = kind
    written = metadata_for(Facts(mode=mode), bits, "attempt", "audio/wav").metadata["mode"]
    assert int(written, 8) == int(f"0o{written[1:]}", 0) == bits | mode  # rclone; s3fs, as C reads it
    for text in (written, f"{bits | mode:o}", str(bits | mode)):
        assert attributes_from(ObjectInfo(key, 0, "etag", 0, metadata={"mode": text})).mode == mode


@given(st.from_regex(r"[0-9]{1,6}", fullmatch=True), st.sampled_from([FILE, DIRECTORY, LINK]))
def test_a_mode_is_never_wider_than_both_readings(text: str, key: str):
    mode = mode_of(text, key)
    if mode is not None:
        readings = [int(text)] + ([int(text, 8)] if not set(text) & set("89") else [])
        assert any(mode & ~reading == 0 for reading in readings)


# ------------------------------------------------------------------ owners
@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("0", 0), ("1000", 1000), ("00000000000000001000", 1000), ("4294967294", 4294967294), ("4294967295", None),
        ("4294967296", None), ("-1", None), ("1" * 21, None), ("99999999999999999999", None), ("root", None),
    ],
)  # fmt: skip
def test_owners_count_by_their_range(text: str, owner: int | None):
    """What is out of range is none, and is stored again as it was."""
    found = told({"uid": text, "gid": text})
    assert (found.uid, found.gid) == (owner, owner)
    again = metadata_for(found, S_IFREG, "attempt", "audio/wav").metadata
    assert owner is not None or (again["uid"], again["gid"]) == (text, text)


def test_what_an_older_version_remembered_out_of_range_is_as_if_it_were_not_there():
    found = recalled({"uid": 1 << 32, "gid": -1, "mode": 9999999999})
    assert (found.uid, found.gid, found.mode) == (None, None, None)


# ------------------------------------------------------------------ headers
def test_headers_travel_with_the_metadata():
    headers = {"cache-control": "no-cache", "expires": "0"}
    info = ObjectInfo("a", 0, "etag", 0, metadata={"cache-control": "mine"}, headers=headers)
    found = recalled(remembered(attributes_from(info)))
    again = metadata_for(found, S_IFREG, "attempt", "audio/wav")
    assert again.headers == headers
    assert dict(again.metadata) == {"cache-control": "mine", "r2fs-attempt": "attempt"}


ANY = (
    st.text(max_size=60)
    | st.text(st.characters(categories=["Cs"]), max_size=5)
    | st.from_regex(r"-?[0-9]{0,25}(\.[0-9]*)?")
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["mode", "uid", "gid", "mtime", "xattr", "note"]), ANY))
def test_metadata_of_any_kind_is_understood_or_kept(metadata: dict[str, str]):
    found = told(metadata)
    for owner in (found.uid, found.gid):
        assert owner is None or 0 <= owner < (1 << 32) - 1
    assert found.mode is None or 0 <= found.mode <= 0o7777
    assert found.mtime_ns is None or abs(found.mtime_ns) <= MAX_TIME_NS
    again = metadata_for(found, S_IFREG, "attempt", "audio/wav").metadata
    assert metadata.keys() <= again.keys()
    assert told(dict(again)) == replace(found, extra=told(dict(again)).extra)
