"""Headers that are kept, between boto3's names and those of HTTP, and the encoding of metadata in headers."""

from __future__ import annotations

import email.header
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2fs.model.errors import Refused
from r2fs.store.s3.values import (
    LATEST_NS,
    decode_value,
    decoded,
    described,
    encode_value,
    encoded,
    kept_of,
    ns,
)


def test_what_is_kept_is_sent_again() -> None:
    answer = {
        "CacheControl": "no-cache",
        "ContentDisposition": "attachment",
        "Expires": datetime(2026, 10, 21, tzinfo=UTC),
        "ExpiresString": "Wed, 21 Oct 2026 00:00:00 GMT",
        "ContentType": "audio/wav",
        "WebsiteRedirectLocation": "/there",
        "StorageClass": "STANDARD_IA",
    }
    kept = kept_of(answer)
    assert kept["expires"] == "Wed, 21 Oct 2026 00:00:00 GMT"
    asked = described(kept)
    assert asked == {name: answer[name] for name in asked}
    assert answer.keys() - asked.keys() == {"ExpiresString", "ContentType"}


@pytest.mark.parametrize("text", ["0", "-1", "never"])
def test_an_expiry_that_is_no_date_is_one_that_is_over(text: str) -> None:
    assert described({"expires": text})["Expires"] == datetime.fromtimestamp(0, UTC)


@pytest.mark.parametrize("name", ["STANDARD", "GLACIER", "DEEP_ARCHIVE", "SOMETHING"])
def test_a_class_that_cannot_be_read_at_once_is_not_asked_for(name: str) -> None:
    assert kept_of({"StorageClass": name}) == {}


@pytest.mark.parametrize(
    ("stored", "kept"), [("gzip", "gzip"), ("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("", None)]
)
def test_the_encoding_of_a_transfer_is_not_that_of_the_object(stored: str, kept: str | None) -> None:
    assert kept_of({"ContentEncoding": stored}).get("content-encoding") == kept


def test_what_is_not_ascii_travels_as_metadata_does() -> None:
    kept = {"content-disposition": 'attachment; filename="ü.wav"'}
    sent = described(kept)["ContentDisposition"]
    assert sent.isascii()
    assert kept_of({"ContentDisposition": sent}) == kept


def test_a_time_that_no_integer_of_the_journal_holds_is_the_nearest_that_it_does() -> None:
    """Servers in Go send the year 1 where they do not know; SQLite would refuse it, and end the thread that asks."""
    assert ns(datetime(1, 1, 1, tzinfo=UTC)) == -LATEST_NS
    assert ns(datetime(9999, 12, 31, tzinfo=UTC)) == LATEST_NS
    assert ns(datetime(2026, 11, 28, 10, 0, 0, 500, tzinfo=UTC)) == 1_795_860_000_000_500_000
    assert -(2**63) < -LATEST_NS < LATEST_NS + 2 < 2**63


# ------------------------------------------------------------------ metadata in headers
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
