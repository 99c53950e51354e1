"""Extended attributes in user metadata: as s3fs stores them, and as other tools' plain metadata."""

from __future__ import annotations

import json
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2fs.model.errors import NotSupported
from r2fs.model.xattrs import attributes, size, with_attribute, without

# What s3fs 1.91 stored for `user.B` = 00 ff and `user.artist` = Björk, "x"
OF_S3FS = {
    "ctime": "1795246772",
    "xattr": "%7B%22user.B%22%3A%22AP8%3D%22%2C%22user.artist%22%3A%22QmrDtnJrLCAieCI%3D%22%7D",
}


def test_what_s3fs_stored() -> None:
    assert attributes(OF_S3FS) == {"user.B": b"\0\xff", "user.artist": 'Björk, "x"'.encode()}


def test_what_s3fs_reads() -> None:
    assert with_attribute({}, "user.B", b"\0\xff") == {"xattr": "%7B%22user.B%22%3A%22AP8%3D%22%7D"}


def test_an_attribute_is_in_one_place_only() -> None:
    after = with_attribute(OF_S3FS, "user.artist", b"Anna")
    assert after["artist"] == "Anna"
    assert attributes(after) == {"user.B": b"\0\xff", "user.artist": b"Anna"}
    assert without(without(after, "user.artist"), "user.B") == {"ctime": "1795246772"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user.note", b""),
        ("user.note", b" space"),
        ("user.note", b"two\nlines"),
        ("user.note", b"=?utf-8?b?eA==?="),
        ("user.note", b"\xff"),
        ("user.note", b"x" * 2000),
        ("user.Note", b"x"),
        ("user.my_note", b"x"),
        ("user.n\u00f6te", b"x"),
        ("user.a:b", b"x"),
        ("user.mtime", b"x"),
        ("user.xattr", b"x"),
        ("user.r2fs-attempt", b"x"),
    ],
)
def test_what_a_header_cannot_carry(name: str, value: bytes) -> None:
    stored = with_attribute({"mine": "1"}, name, value)
    assert stored.keys() == {"mine", "xattr"}
    assert attributes(stored) == {"user.mine": b"1", name: value}
    assert without(stored, name) == {"mine": "1"}


@pytest.mark.parametrize(
    "damaged", ["", "%7B", "[]", "%7B%22user.a%22%3A%22*%22%7D", "%7B%22user.a%22%3A1%7D"]
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(damaged: str) -> None:
    assert attributes({"xattr": damaged, "artist": "Anna"}) == {"user.artist": b"Anna"}


def test_sizes_are_those_that_travel() -> None:
    assert size({"ab": "cd"}) == 4
    assert size({"ab": "é"}) == 6


DEEP = quote('{"user.a":' * 1500 + "1" + "}" * 1500)
SURROGATE = quote('{"user.\\ud800":"QQ==","user.b":"Qg==","user.c":7,"trusted.x":"QQ=="}')


@pytest.mark.parametrize("damaged", ["%7B", "%5B%5D", DEEP], ids=("cut", "a list", "deep"))
def test_an_entry_that_cannot_be_read_is_kept_as_it_is(damaged: str) -> None:
    extra = {"xattr": damaged, "artist": "Anna"}
    assert attributes(extra) == {"user.artist": b"Anna"}
    assert with_attribute(extra, "user.note", b"x") == extra | {"note": "x"}
    assert without(extra, "user.artist") == {"xattr": damaged}
    with pytest.raises(NotSupported):
        with_attribute(extra, "user.Note", b"x")


def test_what_cannot_be_read_in_an_entry_is_kept_beside_what_can() -> None:
    extra = {"xattr": SURROGATE}
    assert attributes(extra) == {"user.b": b"B"}
    after = with_attribute(extra, "user.D", b"d")
    assert attributes(after) == {"user.b": b"B", "user.D": b"d"}
    kept = json.loads(unquote(without(without(after, "user.D"), "user.b")["xattr"]))
    assert kept == {"user.\ud800": "QQ==", "user.c": 7, "trusted.x": "QQ=="}


TEXT = st.text(max_size=20) | st.text(st.characters(categories=["Cs"]), max_size=3)
JSON = st.recursive(
    TEXT | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=5,
)


@settings(max_examples=30)
@given(
    st.dictionaries(TEXT, TEXT, max_size=4),
    st.dictionaries(TEXT.map("user.{}".format), JSON, max_size=4) | JSON,
    st.sampled_from(["user.x", "user.X", "user.\udcff"]),
    st.binary(max_size=10),
)
def test_metadata_of_any_kind(extra: dict[str, str], together: object, name: str, value: bytes) -> None:
    extra = {**extra, "xattr": quote(json.dumps(together), safe="")}
    for shown in attributes(extra):
        assert len(shown.encode("utf-8", "surrogateescape")) <= 255
    assert size(extra) > 0
    try:
        after = with_attribute(extra, name, value)
    except NotSupported:
        assert not isinstance(together, dict)
        return
    assert attributes(after)[name] == value
    assert name not in attributes(without(after, name))
