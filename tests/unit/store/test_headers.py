from __future__ import annotations

import email.header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2fs.model.errors import Refused
from r2fs.store.s3.values import decode_value, decoded, encode_value, encoded


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_value_comes_back(value: str):
    sent = encode_value(value)
    assert sent.isascii()
    assert sent.isprintable()
    assert sent == sent.strip()
    assert decode_value(sent) == value


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda v: not v.isascii()))
def test_the_words_are_those_of_rfc_2047(value: str):
    sent = encode_value(value)
    assert all(len(word) <= 75 for word in sent.split(" "))
    parts = email.header.decode_header(sent)
    assert "".join(b.decode(c or "ascii") if isinstance(b, bytes) else b for b, c in parts) == value


@pytest.mark.parametrize("value", ["1763700000.123456789", "33188", "a b", "~!@#$%^&*()_+{}|:<>?", ""])
def test_plain_values_travel_as_they_are(value: str):
    """rclone and s3fs read and write these under the same names."""
    assert encode_value(value) == value


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("=?UTF-8?Q?caf=C3=A9_au_lait?=", "café au lait"),
        ("=?utf-8?b?w7w=?= and more", "ü and more"),
        ("=?UTF-8?B?w7w=?= =?UTF-8?B?w7w=?=", "üü"),
        ("Ã¼", "ü"),  # UTF-8 that http.client read as Latin-1
        ("=?UTF-8?B?!!!?=", "=?UTF-8?B?!!!?="),
        ("=?UTF-8?B?/w==?=", "=?UTF-8?B?/w==?="),
        ("=?latin-1?Q?x?=", "=?latin-1?Q?x?="),
    ],
)
def test_what_other_tools_send(sent: str, meant: str):
    assert decode_value(sent) == meant


def test_names():
    assert encoded({"Mode": "1", "r2fs-attempt": "x"}) == {"mode": "1", "r2fs-attempt": "x"}
    assert decoded({"Mtime": "1"}) == {"mtime": "1"}
    for name in ("", "two words", "ü", "a:b", "line\nbreak"):
        with pytest.raises(Refused):
            encoded({name: "1"})
