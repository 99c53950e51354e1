"""boto3's own exceptions, all of them, become ours; and the client is set as R2 needs it."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import botocore
import botocore.exceptions as boto_errors
import pytest

from r2fs.model.errors import BadCredentials, BodyDamaged, Refused, StoreError, Unavailable
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.client import make_client
from r2fs.store.s3.failures import EXPECTED, WITHOUT_ANSWER, without_answer
from r2fs.store.s3.store import connect
from tests.support.users import ROOT, neighbours

KEYS = Credentials(access_key_id="id", secret_access_key="hidden", session_token="hidden-too")
BUCKET = Bucket("s3", "bucket", endpoint_url="https://account.r2.cloudflarestorage.com", credentials=KEYS)


def all_subclasses(kind: type[Exception]) -> set[type[Exception]]:
    found = {kind}
    for below in kind.__subclasses__():
        found |= all_subclasses(below)
    return found


def made(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "in boto3's words")
    return error


BOTO = sorted(
    (k for k in all_subclasses(boto_errors.BotoCoreError) if k.__module__ == boto_errors.__name__),
    key=lambda k: k.__name__,
)


@pytest.mark.parametrize("kind", BOTO, ids=lambda k: k.__name__)
def test_every_exception_of_boto3_is_ours_in_the_end(kind: type[Exception]):
    assert issubclass(kind, EXPECTED)
    error = without_answer(made(kind), "takes/07.wav", "host.example.com")
    assert isinstance(error, StoreError)
    assert "takes/07.wav" in str(error)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (boto_errors.EndpointConnectionError, Unavailable),
        (boto_errors.ConnectTimeoutError, Unavailable),
        (boto_errors.ReadTimeoutError, Unavailable),
        (boto_errors.ConnectionClosedError, Unavailable),
        (boto_errors.ProxyConnectionError, Unavailable),
        (boto_errors.SSLError, Unavailable),
        (boto_errors.HTTPClientError, Unavailable),
        (ConnectionResetError, Unavailable),
        (TimeoutError, Unavailable),
        (boto_errors.ResponseStreamingError, BodyDamaged),
        (boto_errors.IncompleteReadError, BodyDamaged),
        (boto_errors.NoCredentialsError, BadCredentials),
        (boto_errors.PartialCredentialsError, BadCredentials),
        (boto_errors.ProfileNotFound, BadCredentials),
        (boto_errors.UnauthorizedSSOTokenError, BadCredentials),
        (boto_errors.ParamValidationError, Refused),
        (boto_errors.NoRegionError, Refused),
        (UnicodeEncodeError, Refused),
    ],
)
def test_what_becomes_what(kind: type[Exception], wanted: type[StoreError]):
    assert type(without_answer(made(kind), "key", "host.example.com")) is wanted


@pytest.mark.parametrize("row", WITHOUT_ANSWER, ids=lambda row: row[0][0].__name__)
def test_every_row_counts(row):
    """No row is hidden behind an earlier, wider one."""
    kinds, wanted, says = row
    for kind in kinds:
        error = without_answer(made(kind), "key", "host.example.com")
        assert type(error) is wanted
        assert says.format(host="host.example.com") in str(error)


def test_what_is_not_in_the_table_is_a_defect_and_comes_out():
    with pytest.raises(ZeroDivisionError):
        without_answer(ZeroDivisionError(), "key", "host.example.com")


def test_the_clients_settings():
    client = make_client(BUCKET, RequestCounter(), 3.0, 7.0)
    config: Any = client.meta.config
    assert config.request_checksum_calculation == "when_required"
    assert config.response_checksum_validation == "when_required"
    assert config.s3 == {"addressing_style": "path", "payload_signing_enabled": False}
    assert config.retries["total_max_attempts"] == 1
    assert (config.connect_timeout, config.read_timeout) == (3.0, 7.0)
    assert config.max_pool_connections >= 32
    assert config.tcp_keepalive
    assert client.meta.region_name == "auto"
    client.close()


def test_addressing_and_anonymity():
    virtual = make_client(replace(BUCKET, addressing="virtual"), RequestCounter(), 1, 1)
    config: Any = virtual.meta.config
    assert config.s3["addressing_style"] == "virtual"
    virtual.close()
    public = make_client(replace(BUCKET, credentials=Credentials(anonymous=True)), RequestCounter(), 1, 1)
    config = public.meta.config
    assert config.signature_version is botocore.UNSIGNED
    public.close()


def test_without_an_endpoint_it_is_aws():
    client = make_client(replace(BUCKET, endpoint_url=None, region="eu-central-1"), RequestCounter(), 1, 1)
    assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
    client.close()


def test_secrets_stay_hidden(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        store = connect(replace(BUCKET, endpoint_url="http://127.0.0.1:9"), SystemClock())
        with pytest.raises(Unavailable) as caught:
            store.check()
        store.close()
    assert "hidden" not in caplog.text
    assert "hidden" not in str(caught.value)
    assert "hidden" not in repr(BUCKET)
    assert store.url == "s3://bucket/"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("variable", ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"])
@pytest.mark.parametrize("kind", ["fifo", "theirs"])
def test_files_of_aws_that_another_user_prepared_are_not_read(monkeypatch, variable, kind):
    """botocore waits for a FIFO, and runs what a file calls `credential_process`."""
    with neighbours(ROOT) as two:
        path = two.shared / "config"
        if kind == "fifo":
            os.mkfifo(path)
        else:
            path.write_text(f"[default]\ncredential_process = touch {two.home}/ran\n")
            two.give(path, two.attacker)
        monkeypatch.setenv(variable, str(path))
        with pytest.raises(BadCredentials, match=rf"{path} (is not a regular file|belongs to another user)"):
            connect(replace(BUCKET, credentials=Credentials()), SystemClock())
        assert not list(two.home.iterdir())
