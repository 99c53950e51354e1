"""Presigned URLs: what is signed, and for whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from r2fs.model.addresses import UrlRequest
from r2fs.model.errors import Refused
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Bucket, Credentials
from r2fs.store import open_store
from r2fs.store.s3.store import connect
from tests.unit.model.test_addresses import token

KEYS = Credentials("an-id", "a-hidden-secret")
BUCKET = Bucket("s3", "books", endpoint_url="https://account.r2.cloudflarestorage.com", credentials=KEYS)


@pytest.mark.parametrize("key", ["u/j/f.wav", "a b/é+%41#?.wav", "dir/", "a//b", "a/../b"])
def test_the_url_of_a_key(key: str) -> None:
    store = connect(BUCKET, SystemClock())
    signed = store.presign(key, UrlRequest(604_800))
    parts = urlsplit(signed.url)
    asked = parse_qs(parts.query)
    assert f"{parts.scheme}://{parts.netloc}" == BUCKET.endpoint_url
    assert unquote(parts.path) == f"/books/{key}"
    assert asked["X-Amz-Expires"] == ["604800"]
    assert asked["X-Amz-SignedHeaders"] == ["host"]
    assert asked["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert asked["X-Amz-Credential"][0].startswith("an-id/")
    assert "/auto/s3/" in asked["X-Amz-Credential"][0]
    assert (signed.temporary, signed.ends_s) == (False, None)
    assert "a-hidden-secret" not in signed.url
    assert store.requests().total == 0
    store.close()


def test_a_download_name_is_signed() -> None:
    store = connect(BUCKET, SystemClock())
    url = store.presign("k", UrlRequest(60, download_name='Ü "1".wav')).url
    (field,) = parse_qs(urlsplit(url).query)["response-content-disposition"]
    assert field.startswith('attachment; filename="_ _1_.wav"; filename*=')
    store.close()


def test_a_put_is_another_signature() -> None:
    store = connect(BUCKET, SystemClock())
    assert store.presign("k", UrlRequest(60, put=True)).url != store.presign("k", UrlRequest(60)).url
    store.close()


def test_temporary_credentials_say_their_end() -> None:
    given = replace(BUCKET, credentials=replace(KEYS, session_token=token({"exp": 1_900_000_000})))
    store = connect(given, SystemClock())
    signed = store.presign("k", UrlRequest(60))
    assert "X-Amz-Security-Token=" in signed.url
    assert (signed.temporary, signed.ends_s) == (True, 1_900_000_000)
    store.close()


def test_who_cannot_sign_says_so(tmp_path: Path) -> None:
    store = connect(replace(BUCKET, credentials=Credentials(anonymous=True)), SystemClock())
    with pytest.raises(Refused, match="--public"):
        store.presign("k", UrlRequest(60))
    store.close()
    local = open_store(Bucket("file", str(tmp_path)), SystemClock())
    with pytest.raises(Refused, match="public_url"):
        local.presign("k", UrlRequest(60))
    local.close()
