"""Plain http: who mounts is told that keys and files can be read on the way, where they leave this machine."""

from __future__ import annotations

import socket

import pytest

from r2fs.model.settings import Bucket, Credentials
from r2fs.model.settings.setting_warnings import is_this_machine, of_plain_http

V4, V6, LOOP, LOOP6 = "192.0.2.1", "[2001:db8::1]", "127.3.2.1", "[::1]"
LOCAL, NAME = "localhost", "minio.localhost"
KEY = Credentials("id", "secret", "token")


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        (f"http://{V4}:9000", True),
        ("HTTP://minio.example.com", True),
        (f"http://{V6}/", True),
        ("http://localhost.example.com", True),
        (f"https://{V4}", False),
        ("http://localhost:9000", False),
        (f"http://{LOCAL.upper()}.", False),
        (f"http://{LOOP}:9000", False),
        (f"http://{LOOP6}:9000", False),
        (f"http://{NAME}", False),
        (f"http://{socket.gethostname()}:9000", False),
        (None, False),
    ],
)
def test_who_is_told(endpoint, told):
    warning = of_plain_http(Bucket("s3", "b", endpoint_url=endpoint, credentials=KEY))
    assert (warning is not None) == told
    if warning is not None:
        assert str(endpoint) in warning
        assert "access key id, signatures, the session token" in warning


def test_without_a_key_the_files_are_still_open():
    bucket = Bucket("s3", "b", endpoint_url=f"http://{V4}", credentials=Credentials(anonymous=True))
    assert "all files can be read" in str(of_plain_http(bucket))
    assert "key" not in str(of_plain_http(bucket))
    assert of_plain_http(Bucket("file", "/srv/b")) is None


def test_an_address_of_this_machine_is_this_machine():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        assert is_this_machine(probe.getsockname()[0])
    assert not is_this_machine("")
