from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2fs.model import keys
from r2fs.model.errors import BadName, NameTooLong

WHEN_S = 1_795_262_400.0  # in November 2026
DAY = time.strftime("%Y-%m-%d", time.localtime(WHEN_S))


def test_names_become_nfc():
    assert keys.check_name("u\u0308bung.wav") == "übung.wav"
    assert keys.check_name("plain") == "plain"


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "😀" * 63])
def test_names_up_to_255_bytes(name: str):
    assert keys.check_name(name) == name


@pytest.mark.parametrize("name", ["a" * 256, "ü" * 128, "😀" * 64, "a" * 100_000])
def test_longer_names_are_refused(name: str):
    with pytest.raises(NameTooLong):
        keys.check_name(name)


def test_nfc_is_checked_for_its_own_length():
    # U+0958 is one character of three bytes that NFC spells with two characters of six.
    with pytest.raises(NameTooLong):
        keys.check_name("\u0958" * 80)


def test_a_name_that_is_not_utf_8_is_refused_and_safe_to_print():
    with pytest.raises(BadName) as refused:
        keys.check_name(b"\xff.wav".decode(errors="surrogateescape"))
    str(refused.value).encode()


def test_a_nul_is_no_name():
    with pytest.raises(BadName):
        keys.check_name("a\0b")


def test_keys_up_to_1024_bytes():
    assert keys.check_key("a/" * 512) == "a/" * 512
    with pytest.raises(NameTooLong):
        keys.check_key("ü" * 513)


@pytest.mark.parametrize("part", ["", ".", "..", "a\0", "a/b", "x" * 256, "\u0958" * 80])
def test_parts_that_cannot_be_shown(part: str):
    assert not keys.is_name(part)


@pytest.mark.parametrize("part", ["a", "...", " ", "-", "\n", "übung", "x" * 255])
def test_parts_that_can(part: str):
    assert keys.is_name(part)


@given(st.text())
def test_printable_text_is_safe_for_a_terminal_and_a_log(text: str):
    shown = keys.printable(text)
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize(
    ("prefix", "normal"),
    [("", ""), ("/", ""), ("a", "a/"), ("/a/b/", "a/b/"), ("a//b", "a/b/"), ("u\u0308", "ü/")],
)
def test_normal_prefix(prefix: str, normal: str):
    assert keys.normal_prefix(prefix) == normal
    assert keys.normal_prefix(normal) == normal


def test_conflict_names():
    name = keys.conflict_name("take.wav", "studio", WHEN_S)
    assert name == f"take (conflict of studio, {DAY}).wav"
    assert keys.conflict_name("take.wav", "studio", WHEN_S, 3).endswith(f"{DAY} 3).wav")
    assert keys.conflict_name(".profile", "h", WHEN_S) == f".profile (conflict of h, {DAY})"
    assert keys.conflict_name("README", "h", WHEN_S) == f"README (conflict of h, {DAY})"
    assert keys.conflict_name("a.b.tar.gz", "h", WHEN_S) == f"a.b.tar (conflict of h, {DAY}).gz"


@given(
    st.text(min_size=1, max_size=255).filter(lambda name: keys.is_name(name) and name.isprintable()),
    st.text(max_size=64).filter(str.isprintable),
    st.integers(1, 10_000),
)
def test_a_conflict_name_is_a_name(name: str, host: str, number: int):
    made = keys.conflict_name(name, host, WHEN_S, number)
    assert keys.is_name(made)
    assert keys.check_name(made) == keys.nfc(made)
    assert made != name


def test_conflict_names_of_long_names_differ_by_number_and_keep_the_extension():
    names = {keys.conflict_name("ü" * 125 + ".wav", "host", WHEN_S, number) for number in range(1, 30)}
    assert len(names) == 29
    assert all(name.endswith(".wav") for name in names)


@pytest.mark.parametrize("host", ["a/b", "x" * 300, ""])
def test_a_host_of_any_name(host: str):
    assert keys.is_name(keys.conflict_name("take.wav", host, WHEN_S))
