"""Changes of type and headers: what may be set, and what stays."""

from __future__ import annotations

import pytest

from r2fs.model.errors import InvalidArgument
from r2fs.model.header_change import HeaderChange

WAVE = b"RIFF\0\0\0\0WAVEfmt "
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("content_type", "headers", "guess"),
    [
        ("wav", {}, False),
        ("audio/wav\r\nX-Evil: 1", {}, False),
        ("a/" + "b" * 300, {}, False),
        ("audio/wav", {}, True),
        (None, {"cache-control": "a\nb"}, False),
        (None, {"content-disposition": "attachment; filename=ü"}, False),
        (None, {"content-language": "x" * 2000}, False),
        (None, {"storage-class": "STANDARD"}, False),
    ],
)
def test_what_cannot_be_set(content_type: str | None, headers: dict[str, str], guess: bool) -> None:
    with pytest.raises(InvalidArgument):
        HeaderChange(content_type, headers, guess)


@pytest.mark.parametrize(
    ("name", "stored", "head", "wanted"),
    [
        ("3f2a", OCTETS, WAVE, "audio/wav"),
        ("3f2a", "binary/octet-stream", WAVE, "audio/wav"),
        ("3f2a", None, WAVE, "audio/wav"),
        ("3f2a", "audio/x-own", WAVE, None),
        ("riddle", OCTETS, b"\0\1", None),
        ("a.json", OCTETS, b"", "application/json"),
    ],
)
def test_a_guess_replaces_what_says_nothing(
    name: str, stored: str | None, head: bytes, wanted: str | None
) -> None:
    change = HeaderChange(guess=True)
    assert change.type_for(name, stored, head) == wanted
    assert change.needs_bytes(name, stored) == (stored != "audio/x-own" and name != "a.json")


def test_a_type_that_is_given_replaces_any() -> None:
    change = HeaderChange("audio/mpeg")
    assert change.type_for("a", OCTETS) == change.type_for("a.wav", "audio/wav") == "audio/mpeg"
    assert change.type_for("a", "audio/mpeg") is None
    assert HeaderChange(OCTETS).type_for("a", "audio/wav") == OCTETS
    assert not change.needs_bytes("a", OCTETS)


def test_headers_are_set_and_removed_and_others_stay() -> None:
    change = HeaderChange(headers={"cache-control": "no-store", "content-disposition": ""})
    stored = {"content-disposition": "inline", "expires": "0"}
    assert change.headers_for(stored) == {"cache-control": "no-store", "expires": "0"}
    assert stored == {"content-disposition": "inline", "expires": "0"}
