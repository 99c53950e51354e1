"""Operations on named objects: their answers, and what is refused."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from r2fs.daemon.control import Request
from r2fs.daemon.object_operations import ObjectOperations
from r2fs.daemon.protocol import SIGNED_URL, decode, encode
from r2fs.model import redaction
from r2fs.model.addresses import SignedUrl
from r2fs.model.errors import InvalidArgument, IsADirectory, NotFound, SettingsError
from r2fs.model.settings import Bucket
from r2fs.model.views import LocatedView


class Locating:
    def __init__(self, **views: LocatedView) -> None:
        self.views = views

    def locate(self, path: str) -> LocatedView:
        return self.views.get(path, LocatedView(f"p/{path}", known=False))


def operations(public_url: str | None = None, signed: SignedUrl | None = None) -> ObjectOperations:
    views = {
        "file": LocatedView("p/file", state="queued"),
        "dir": LocatedView("p/dir/", state="clean", is_dir=True),
        "wal": LocatedView("p/wal", state="local"),
    }
    store = SimpleNamespace(
        presign=lambda key, wish: signed or SignedUrl(f"https://h.example.com/{key}?{wish.expires_s}")
    )
    settings = SimpleNamespace(bucket=Bucket("s3", "books", "p/"), public_url=public_url)
    engine = SimpleNamespace(receipts=Locating(**views), settings=settings)
    return ObjectOperations(SimpleNamespace(engine=engine, store=store))  # type: ignore[arg-type]


def request(**message: Any) -> Request:
    one, other = socket.socketpair()
    other.close()
    made = Request(one)
    made.message = message
    one.close()
    return made


def test_a_url_and_its_end() -> None:
    answer = operations().url(request(path="file", expires_s=60))
    assert answer[SIGNED_URL] == "https://h.example.com/p/file?60"
    assert (answer["key"], answer["bucket"], answer["state"], answer["public"]) == (
        "p/file",
        "books",
        "queued",
        False,
    )
    assert answer["credentials_end_s"] is None


def test_it_ends_with_the_credentials() -> None:
    answer = operations(signed=SignedUrl("u", True, 1000.0)).url(request(path="file"))
    assert (answer["ends_s"], answer["temporary"], answer["credentials_end_s"]) == (1000.0, True, 1000.0)


@pytest.mark.parametrize(
    ("message", "error", "says"),
    [
        ({"path": "none"}, NotFound, "--put"),
        ({"path": "dir"}, IsADirectory, "is a directory"),
        ({"path": "wal", "put": True}, InvalidArgument, "local_patterns"),
        ({"path": "file", "public": True}, SettingsError, "public_url"),
        ({"path": "file", "expires_s": 604801}, InvalidArgument, "7 days"),
        ({"path": "file", "expires_s": 0.5}, InvalidArgument, "from 1 s"),
        ({}, InvalidArgument, "path is a text"),
    ],
)
def test_what_has_no_url(message: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        operations().url(request(**message))


def test_a_name_that_is_not_there_can_be_uploaded_to() -> None:
    assert operations().url(request(path="none", put=True))["key"] == "p/none"


def test_a_public_url_is_below_the_setting() -> None:
    answer = operations("https://media.example.com").url(request(path="file", public=True))
    assert (answer[SIGNED_URL], answer["public"]) == ("https://media.example.com/p/file", True)


def test_paths_of_a_key() -> None:
    ask = operations().paths
    found = [{"bucket": "books", "paths": ["a.wav"]}]
    assert (
        ask(request(key="p/a.wav"))["found"] == found == ask(request(key="p/a.wav", bucket="books"))["found"]
    )
    assert ask(request(key="p/a.wav", bucket="other"))["found"] == []
    link = ask(request(key="p/l.rclonelink"))["found"]
    assert link == [{"bucket": "books", "paths": ["l", "l.rclonelink"]}]
    assert ask(request(key="elsewhere/a"))["found"] == []


def test_the_token_in_a_url_reaches_the_user_and_nothing_else_does() -> None:
    redaction.hide("a-token-of-temporary-credentials")
    line = encode(
        {"key": "a-token-of-temporary-credentials", SIGNED_URL: "u?a-token-of-temporary-credentials"}
    )
    assert decode(line) == {"key": "***", SIGNED_URL: "u?a-token-of-temporary-credentials"}
    assert json.loads(encode({SIGNED_URL: 'é"'})) == {SIGNED_URL: 'é"'}
