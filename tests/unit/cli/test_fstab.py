"""fstab's words, and mount(8)'s ways to call."""

from __future__ import annotations

import pytest

from r2fs.cli.fstab import flags_of, helper_arguments
from r2fs.cli.main import COMMANDS, is_bare_mount
from r2fs.model.errors import SettingsError
from r2fs.model.settings.loading import load


def raw(*words: str) -> dict[str, object]:
    return {name: flag.raw for name, flag in flags_of(words).items()}


def test_words_of_fstab_that_are_not_for_us():
    words = "rw,_netdev,noauto,nofail,user=kim,defaults,nosuid,nodev,relatime,x-systemd.automount,x-gvfs-hide"
    assert raw(words, "comment=hi there,subtype=r2fs,") == {}


def test_settings():
    assert raw("ro,allow_other,cache_size=50G", "uid=1000,cache-ttl=24h") == {
        "read_only": True,
        "allow_other": True,
        "cache_size": "50G",
        "uid": "1000",
        "cache_ttl": "24h",
    }


def test_the_last_word_wins_and_says_where_it_stood():
    flags = flags_of(("cache_size=1G", "cache_size=2G"))
    assert flags["cache_size"].raw == "2G"
    assert flags["cache_size"].source == "option -o cache_size"


def test_values_with_commas():
    assert raw(r"local_patterns=*.a\,*.b,ro") == {"local_patterns": "*.a,*.b", "read_only": True}


def test_switches_can_be_switched_off_or_given_a_value():
    assert raw("no_allow_other,read_only=no,noexec") == {
        "allow_other": False,
        "read_only": "no",
        "noexec": True,
    }


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cach_size=1G", "there is no such option (is cache_size"),
        ("cache_size", "needs a value"),
        ("suid", "nosuid and nodev"),
        ("dev", "nosuid and nodev"),
        ("access_key_id=x", "there is no such option"),
        ("url=r2://x", "there is no such option"),
    ],
)
def test_words_that_are_refused(word, said):
    with pytest.raises(SettingsError) as caught:
        flags_of((word,))
    assert said in str(caught.value)


def test_a_secret_among_the_words_is_refused():
    with pytest.raises(SettingsError, match="cannot be an argument") as caught:
        load("file:///b", flags=flags_of(("secret_access_key=geheim",)), environ={"HOME": "/nonexistent"})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (
            ["r2://b", "/mnt", "-o", "rw,_netdev"],
            ["mount", "--background", "--unless-mounted", "-o", "rw,_netdev", "--", "r2://b", "/mnt"],
        ),
        (
            ["-o", "ro", "takes", "/mnt"],
            ["mount", "--background", "--unless-mounted", "-o", "ro", "--", "takes", "/mnt"],
        ),
        (
            ["takes", "/mnt", "-sn", "-v"],
            ["mount", "--background", "--unless-mounted", "--", "takes", "/mnt"],
        ),
        (
            ["takes", "/mnt", "-r"],
            ["mount", "--background", "--unless-mounted", "-o", "ro", "--", "takes", "/mnt"],
        ),
        (
            ["takes", "/mnt", "-t", "fuse.r2fs"],
            ["mount", "--background", "--unless-mounted", "--", "takes", "/mnt"],
        ),
        (["takes", "/mnt", "-f"], []),
    ],
)
def test_as_a_mount_helper(words, ours):
    assert helper_arguments(words) == ours


@pytest.mark.parametrize("words", [[], ["takes"], ["a", "b", "c"], ["takes", "/mnt", "-o"]])
def test_a_helper_called_wrong(words):
    with pytest.raises(SettingsError):
        helper_arguments(words)


@pytest.mark.parametrize(
    ("words", "bare"),
    [
        (["takes", "/mnt", "-o", "rw"], True),
        (["mount", "takes", "-o", "rw"], False),
        (["status", "/mnt"], False),
        (["--help"], False),
        (["takes", "/mnt"], False),
        ([], False),
    ],
)
def test_mount_fuse_names_no_command(words, bare):
    assert is_bare_mount(words, COMMANDS) is bare


def test_several_buckets_in_fstab():
    found = load(
        "s3://", flags=flags_of(("_netdev,bucket=audiobooks:manuscripts",)), environ={"HOME": "/nonexistent"}
    )
    assert [member.name for member in found.bucket.members] == ["audiobooks", "manuscripts"]
