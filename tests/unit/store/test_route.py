"""The route to a bucket: what the settings alone tell is what boto3 would do, and the rest is left to boto3."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore import configprovider
from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies
from hypothesis import given, settings
from hypothesis import strategies as st

from r2fs.model.errors import Unavailable
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.client import make_client
from r2fs.store.s3.clients import Clients
from r2fs.store.s3.route import (
    Route,
    is_proxied,
    route_of,
    route_of_settings,
    tls_context,
    trusted_by,
    trusted_by_environment,
    usual_certificates,
)

KEY = Credentials("id", "secret")
R2 = Bucket("s3", "takes", endpoint_url="https://account.r2.cloudflarestorage.com", credentials=KEY)


@pytest.fixture(scope="module", autouse=True)
def nothing_else_has_a_say(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
            patch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield


def by_boto(bucket: Bucket) -> Route | None:
    client = make_client(bucket, RequestCounter(), 1, 1)
    try:
        return route_of(client, bucket.name)
    finally:
        client.close()


ENDPOINTS = [
    "https://account.r2.cloudflarestorage.com",
    "https://account.eu.r2.cloudflarestorage.com/",
    "https://account.r2.cloudflarestorage.com:443",
    "http://127.0.0.1:8333",
    "http://127.0.0.1:80",
    "https://localhost:8333/base/path_2/",
    "http://minio.test",
    "http://" + "[::1]:9000",
    "https://" + "[2001:db8::2]/below",
    "https://s3.eu-central-003.example.com",
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("addressing", ["path", "virtual"])
def test_the_settings_tell_what_boto3_does(endpoint: str, addressing: str) -> None:
    for name, region in (("takes", "auto"), ("a-bucket-07", "us-east-1"), ("abc", "cn-north-1")):
        bucket = replace(R2, name=name, region=region, endpoint_url=endpoint, addressing=addressing)
        found = route_of_settings(bucket)
        assert found is not None
        assert found == by_boto(bucket)
        public = replace(bucket, credentials=Credentials(anonymous=True))
        assert route_of_settings(public) == by_boto(public) == replace(found, region="")


NAMES = st.one_of(
    st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True),
    st.sampled_from(["a--x-s3", "xn--abc", "a.b", "a..b", "1.2.3.4", "UPPER", "a_b", "arn:aws:s3:us-east-1:1:accesspoint/a",
                     "b" * 63, "b" * 64, "ab", "-ab", "a--b", "take-s3alias"]),
)  # fmt: skip
REGIONS = st.sampled_from(
    ["auto", "us-east-1", "aws-global", "us-gov-west-1", "Mars", "a b", "", "eu_1", "-a"]
)
ODD_ENDPOINTS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "HTTPS", "ftp"]),
    st.one_of(
        st.from_regex(r"[a-zA-Z0-9._-]{1,12}", fullmatch=True),
        st.sampled_from(["a..b", "[::1]", "[::1%25lo]", "[fe80::A]", "256.1.2.3", "1.2", "1.2.3.4", "host.", "user:pw@host",
                         "s3.eu-west-1.amazonaws.com", "s3-accelerate.amazonaws.com", "bücher.example"]),
    ),
    st.sampled_from(["", ":", ":0", ":443", ":80", ":8333", ":70000", ":x"]),
    st.sampled_from(["", "/", "//", "/a", "/a/", "/a//b", "/./a", "/../a", "/a%20b", "/a b", "/ä", "/a?x=1", "/a#f"]),
)  # fmt: skip


@settings(max_examples=150)
@given(endpoint=ODD_ENDPOINTS, name=NAMES, region=REGIONS, addressing=st.sampled_from(["path", "virtual"]))
def test_what_is_odd_is_left_to_boto3(endpoint: str, name: str, region: str, addressing: str) -> None:
    bucket = replace(R2, name=name, region=region, endpoint_url=endpoint, addressing=addressing)
    found = route_of_settings(bucket)
    if found is not None:
        assert found == by_boto(bucket)


@pytest.mark.parametrize(
    "changed",
    [
        {"endpoint_url": None},
        {"endpoint_url": "http://127.0.0.1:65536"},
        {"endpoint_url": "https://s3.eu-west-1.amazonaws.com"},
        {"credentials": Credentials()},
        {"credentials": Credentials(profile="mine")},
        {"credentials": Credentials("id", "secret", profile="mine")},
        {"credentials": Credentials("id", None)},
        {"name": "takes--use1-az4--x-s3"},
        {"region": "aws-global"},
    ],
    ids=str,
)
def test_what_boto3_alone_knows(changed: dict[str, Any]) -> None:
    assert route_of_settings(R2) is not None
    assert route_of_settings(replace(R2, **changed)) is None


@pytest.mark.parametrize(
    "variable",
    ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_USE_FIPS_ENDPOINT", "AWS_DATA_PATH", "HTTPS_PROXY"],
)
def test_variables_that_have_a_say(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert route_of_settings(R2) is None


CONFIG = """
[default]
region = eu-west-1
output = json
[profile work]
role_arn = arn:aws:iam::1:role/a
source_profile = default
"""
NAMES_IN_FILES = sorted(
    {
        name
        for rows in (
            configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES,
            configprovider.DEFAULT_PROXIES_CONFIG_VARS,
        )
        for first, *_ in rows.values()
        for name in (first if isinstance(first, list) else [first])
        if isinstance(name, str) and not name.startswith("csm_")  # opens a socket
    }
    | {"endpoint_url", "signature_version", "s3", "proxies"}
)


@pytest.fixture
def aws_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "config"
    path.write_text(CONFIG)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    return path


def test_a_file_for_the_aws_command_has_no_say(aws_config: Path) -> None:
    assert route_of_settings(R2) == by_boto(R2)


@pytest.mark.parametrize("name", NAMES_IN_FILES)
@pytest.mark.parametrize("value", ["true", "2"])
def test_no_setting_of_a_file_is_overlooked(aws_config: Path, name: str, value: str) -> None:
    """With it boto3 goes the same way and trusts the same, or it is asked."""
    aws_config.write_text(f"[default]\n{name} = {value}\n")
    found = route_of_settings(R2)
    if found is None:
        return
    try:
        client = make_client(R2, RequestCounter(), 1, 1)
    except (BotoCoreError, ValueError, AttributeError):
        return  # a value that boto3 refuses, for what r2fs does without
    assert (route_of(client, R2.name), trusted_by(client)) == (found, trusted_by_environment())
    client.close()


@pytest.mark.parametrize(
    "spelled", ["  CA_Bundle : /x", "s3 =\n  use_accelerate_endpoint = true", "use_fips_endpoint=1"]
)
def test_settings_in_any_spelling(aws_config: Path, spelled: str) -> None:
    aws_config.write_text(f"[default]\n{spelled}\n")
    assert route_of_settings(R2) is None


@pytest.mark.timeout(20)
def test_a_file_that_must_not_be_read_is_left_to_boto3(aws_config: Path) -> None:
    aws_config.unlink()
    os.mkfifo(aws_config)
    assert route_of_settings(R2) is None


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "HOME"])
def test_files_that_may_have_a_say(monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[default]\nuse_fips_endpoint = true\n")
    monkeypatch.setenv(variable, str(tmp_path if variable == "HOME" else tmp_path / ".aws/config"))
    assert route_of_settings(R2) is None


# ------------------------------------------------------------------ proxies and certificates
@pytest.mark.parametrize(
    "set_to",
    [
        {"HTTPS_PROXY": "http://localhost:1"},
        {"https_proxy": "http://localhost:1", "NO_PROXY": "example.com"},
        {"https_proxy": "http://localhost:1", "no_proxy": "r2.cloudflarestorage.com,localhost:8333"},
        {"http_proxy": "http://localhost:1", "no_proxy": "*"},
        {"ALL_PROXY": "http://localhost:1"},
        {"HTTP_PROXY": "http://localhost:1", "REQUEST_METHOD": "GET"},
        {"https_proxy": ""},
    ],
    ids=str,
)
def test_proxies_are_those_of_botocore(monkeypatch: pytest.MonkeyPatch, set_to: dict[str, str]) -> None:
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    for url in (*ENDPOINTS, "http://localhost:8333/a", "https://example.com", "http://sub.example.com"):
        assert is_proxied(url) == (url.partition(":")[0] in get_environ_proxies(url))


@pytest.mark.parametrize(
    "set_to",
    [
        {},
        {"AWS_CA_BUNDLE": "/a.pem"},
        {"REQUESTS_CA_BUNDLE": "/r.pem"},
        {"AWS_CA_BUNDLE": "/a.pem", "REQUESTS_CA_BUNDLE": "/r.pem"},
    ],
    ids=str,
)
def test_certificates_are_those_of_botocore(monkeypatch: pytest.MonkeyPatch, set_to: dict[str, str]) -> None:
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    client = make_client(R2, RequestCounter(), 1, 1)
    assert trusted_by(client) == trusted_by_environment()
    client.close()
    assert usual_certificates() == get_cert_path(True)


def test_without_certifi_botocores_own_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "certifi", None)
    assert Path(usual_certificates()).name == "cacert.pem"
    assert "botocore" in Path(usual_certificates()).parts
    assert Path(usual_certificates()).is_file()


def test_buckets_share_their_certificates_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(Path(usual_certificates()).read_bytes())
    first = tls_context(str(path))
    assert first is not None
    assert tls_context(str(path)) is first
    os.utime(path, (0, 0))
    assert tls_context(str(path)) not in (None, first)
    path.write_text("no certificate")
    assert tls_context(str(path)) is None
    path.unlink()
    assert tls_context(str(path)) is None


# ------------------------------------------------------------------ boto3, when it is needed
def test_a_boto3_that_is_being_replaced_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients(R2, RequestCounter(), 1, 1)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "boto3.session", None)
        with pytest.raises(Unavailable, match="boto3 cannot be imported"):
            _ = clients.current
    assert clients.current.meta.endpoint_url == R2.endpoint_url
    clients.close()


@pytest.mark.parametrize("known", [True, False], ids=["by the settings", "by boto3"])
def test_a_key_is_another_where_any_part_of_it_is(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not known:
        monkeypatch.setenv("AWS_DATA_PATH", "/nowhere")
    assert (route_of_settings(R2) is not None) == known
    given = [KEY]
    clients = Clients(R2, RequestCounter(), 1, 1, lambda: given[-1])
    assert not clients.renew(0)
    for key in (
        Credentials("id", "other"),
        Credentials("id", "other", "token"),
        Credentials("id2", "other", "token"),
    ):
        before = clients.requests()
        generation = clients.generation
        given.append(key)
        assert clients.renew(generation)
        assert not clients.renew(clients.generation)
        assert clients.requests() is not before
    clients.close()
