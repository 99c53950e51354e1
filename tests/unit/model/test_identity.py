"""Which spellings of an endpoint are one place, and which may be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from r2fs.model import identity, mount_record
from r2fs.model.mount_record import MountRecord
from r2fs.model.settings import Bucket, places


def at(endpoint: str | None, name: str = "takes", prefix: str = "a/") -> Bucket:
    return Bucket("s3", name, prefix, endpoint)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://h.example.org", "https://h.example.org/"),
        ("https://h.example.org", "HTTPS://H.Example.org:443//"),
        ("https://h.example.org", "http://h.example.org:80"),
        ("https://h.example.org", "HTTPS://h.example.org."),
        ("http://h.example.org:9000", "https://H.example.org:9000/"),
        ("HTTP://[::1]:9000", "HTTP://[0:0:0:0:0:0:0:1]:9000/"),
        (None, "https://s3.amazonaws.com"),
        (None, "https://s3.eu-west-1.amazonaws.com"),
        ("https://s3-eu-west-1.amazonaws.com", "https://s3.dualstack.eu-central-1.amazonaws.com/"),
    ],
)
def test_spellings_of_one_place(one, other):
    assert identity.identity(at(one)) == identity.identity(at(other))
    assert not identity.may_be_same(at(one), at(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://h.example.org:9000", "http://h.example.org:9001"),
        ("http://localhost:9000", "http://127.0.0.1:9000"),
        ("https://h.example.org/one", "https://h.example.org/two"),
        ("https://h.example.org", "https://h.example.org/takes"),
        ("https://s3.us-gov-west-1.amazonaws.com", "https://s3.us-west-1.amazonaws.com"),
        ("https://s3-fips.dualstack.us-gov-east-1.amazonaws.com", None),
        ("https://s3.cn-north-1.amazonaws.com.cn", None),
        ("https://s3-outposts.us-west-2.amazonaws.com", None),
        ("https://acc.r2.cloudflarestorage.com", "https://acc.eu.r2.cloudflarestorage.com"),
        (None, "https://s3.amazonaws.com.example.org"),
    ],
)
def test_what_only_a_look_could_tell_stays_different_and_may_be_the_same(one, other):
    assert identity.identity(at(one)) != identity.identity(at(other))
    assert identity.may_be_same(at(one), at(other))


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("us-gov-west-1", "https://s3.us-gov-east-1.amazonaws.com"),
        ("cn-north-1", "https://s3.cn-northwest-1.amazonaws.com.cn"),
    ],
)
def test_a_partition_of_amazon_has_buckets_of_its_own(region, endpoint):
    """The same name in another one is another bucket, whose files are not to be sent there."""
    here = replace(at(None), region=region)
    usual = replace(at(None), region="us-east-1")
    assert identity.identity(here) != identity.identity(usual)
    assert places.slug(here) != places.slug(usual)
    assert identity.identity(here) == identity.identity(at(endpoint))
    for one, other in ((here, usual), (usual, here)):
        assert places.slug(other) not in {places.slug(each) for each in identity.spellings(one)}
    by_address = replace(at(endpoint), region=region)
    assert places.slug(here) in {places.slug(each) for each in identity.spellings(by_address)}


@pytest.mark.parametrize(
    "endpoint", ["http://h.example.org:port", "HTTP://[bad", "http://h.example.org:99999999"]
)
def test_what_is_no_address_is_compared_as_it_is(endpoint):
    """The first request says what is wrong with it; nothing before that may fail."""
    assert identity.identity(at(endpoint)) == identity.identity(
        at(endpoint.upper().replace("HTTP", "http") + "/")
    )
    assert identity.identity(at(endpoint)) != identity.identity(at("http://h.example.org"))
    assert list(identity.spellings(at(endpoint)))


def test_another_bucket_or_prefix_is_another_place():
    here = at("https://h.example.org")
    for other in (replace(here, name="Takes"), replace(here, prefix="b/"), replace(here, prefix="")):
        assert identity.identity(here) != identity.identity(other)
        assert not identity.may_be_same(here, other)


def test_a_directory_by_a_link_is_the_same_place(tmp_path):
    (tmp_path / "bucket").mkdir()
    (tmp_path / "link").symlink_to("bucket")
    one, other = (Bucket("file", str(tmp_path / name)) for name in ("bucket", "link"))
    assert identity.identity(one) == identity.identity(other)
    assert places.slug(one) in {places.slug(each) for each in identity.spellings(other)}


@pytest.mark.parametrize(
    "named_after",
    [
        "https://h.example.org",
        "https://h.example.org:443",
        "http://h.example.org:80/",
        "http://H.example.org",
    ],
)
def test_a_directory_named_after_another_spelling_is_among_the_candidates(named_after):
    candidates = {places.slug(each) for each in identity.spellings(at("https://h.example.org/"))}
    assert places.slug(at(named_after)) in candidates


@pytest.mark.parametrize("named_after", ["http://127.0.0.1:9000", "https://127.0.0.1:9000/", None])
def test_candidates_with_a_port_of_their_own_and_of_amazon(named_after):
    given = "http://127.0.0.1:9000/" if named_after else "https://s3.amazonaws.com/"
    candidates = {places.slug(each) for each in identity.spellings(at(given))}
    assert places.slug(at(named_after)) in candidates


# ------------------------------------------------------------------ the record
RECORD = MountRecord(
    "s3", "takes", "a/", "https://h.example.org", "auto", "r2://takes/a", "/mnt/t", ("r2fs", "mount", "a b"),
    keys="access_key_id: variable R2_ACCESS_KEY_ID", name="t", version="1", mounted_s=12.5, settings={"umask": '"022"'},
)  # fmt: skip


def test_a_record_reads_back():
    assert mount_record.parse(RECORD.to_json()) == RECORD
    assert RECORD.command_text == "r2fs mount 'a b'"
    assert identity.identity(RECORD.place()) == identity.identity(at("http://h.example.org"))


@pytest.mark.parametrize("text", ["", "{}", "[1]", "nonsense", '{"scheme": 1}', "[" * 100_000])
def test_what_is_no_record_is_none(text):
    assert mount_record.parse(text) is None


def test_fields_of_a_newer_version_are_passed_over():
    assert mount_record.parse(RECORD.to_json().replace('"about"', '"colour"')) == RECORD
