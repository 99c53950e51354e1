"""Keys, paths and URLs of objects, each made from the others."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2fs.model.addresses import (
    Address,
    attachment,
    decoded,
    encoded,
    parse,
    path_below,
    public_url,
    token_end_s,
)
from r2fs.model.errors import BadName


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("u/j/f.wav", Address("u/j/f.wav")),
        ("r2://audiobooks/u/j/f.wav", Address("u/j/f.wav", "audiobooks")),
        ("s3://b", Address("", "b")),
        ("s3://b/", Address("", "b")),
        ("s3:/b/x", Address("s3:/b/x")),
        ("/leading", Address("/leading")),
    ],
)
def test_an_address_is_a_key_or_a_url(text: str, address: Address) -> None:
    assert parse(text) == address


@given(st.text(max_size=40).filter(lambda text: not any(0xD800 <= ord(c) <= 0xDFFF for c in text)))
def test_percent_encoding_is_undone(key: str) -> None:
    assert decoded(encoded(key)) == key
    assert "/" not in encoded(key)


def test_the_encoding_is_that_of_javascript() -> None:
    assert encoded("users/é (1)!'*~+&.wav") == "users%2F%C3%A9%20(1)!'*~%2B%26.wav"


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(BadName, match="UTF-8"):
        decoded("a%ff")


@pytest.mark.parametrize(
    ("key", "prefix", "path"),
    [
        ("a/b.wav", "", "a/b.wav"),
        ("users/anna/b.wav", "users/anna/", "b.wav"),
        ("users/annabel/b.wav", "users/anna/", None),
        ("users/anna/", "users/anna/", ""),
        ("a/", "", "a"),
        ("cafe\u0301.wav", "", "caf\u00e9.wav"),
    ],
)
def test_the_path_of_a_key(key: str, prefix: str, path: str | None) -> None:
    assert path_below(key, prefix) == path


@pytest.mark.parametrize("key", ["a//b", "../b", "a/./b", "/a", "a" * 256, "a/\0"])
def test_a_key_that_no_mount_can_show(key: str) -> None:
    with pytest.raises(BadName, match="cannot show"):
        path_below(key, "")


def test_a_public_url_is_the_base_and_the_key() -> None:
    assert (
        public_url("https://pub.example.com/", "u/a b#1?.mp3") == "https://pub.example.com/u/a%20b%231%3F.mp3"
    )
    assert (
        public_url("https://h.example.com/audiobooks", "u/é.mp3")
        == "https://h.example.com/audiobooks/u/%C3%A9.mp3"
    )


@given(st.text(max_size=40).filter(lambda text: not any(0xD800 <= ord(c) <= 0xDFFF for c in text)))
def test_a_download_name_cannot_end_its_field(name: str) -> None:
    field = attachment(name)
    plain, _, extended = field.removeprefix('attachment; filename="').partition('"')
    assert field.isascii()
    assert field.isprintable()
    assert "\\" not in plain
    assert (unquote(extended.removeprefix("; filename*=UTF-8''")) or plain) == name


def token(payload: object, prefix: str = "jwt/") -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    text = f"{prefix}{part({'alg': 'HS256'})}.{part(payload)}.signature"
    return base64.b64encode(text.encode()).decode()


def test_the_end_of_temporary_credentials_of_r2() -> None:
    assert token_end_s(token({"exp": 1_800_000_000, "sub": "ü?>~"})) == 1_800_000_000


@pytest.mark.parametrize(
    "text",
    ["", "FwoGZXIvYXdzEBY", "ü", token({}), token([]), token({"exp": "soon"}), token({"exp": 1}, "other/"),
     token({"exp": None}), base64.b64encode(b"jwt/only").decode(), base64.b64encode(b"jwt/\xff").decode()],
)  # fmt: skip
def test_tokens_of_another_form_say_nothing(text: str) -> None:
    assert token_end_s(text) is None


def test_quoting_of_a_public_key_is_undone_by_a_server() -> None:
    key = "takes/Ünï + 100%/a.wav"
    assert unquote(public_url("https://h.example.com", key).removeprefix("https://h.example.com/")) == key
    assert quote("~") == "~"
