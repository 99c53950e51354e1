"""Extended attributes in user metadata: as s3fs stores them, and as other tools' plain metadata."""

from __future__ import annotations

import pytest

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
