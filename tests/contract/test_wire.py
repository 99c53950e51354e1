"""What goes over the wire: R2 refuses, or waits on, much of what boto3 sends by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from r2fs import __version__
from r2fs.model.ports import SystemClock
from r2fs.model.records import Condition, ObjectMeta
from r2fs.store.retry import RetryingStore
from r2fs.store.s3.store import connect
from tests.support.bodies import BytesBody
from tests.support.faulty import FaultyProxy, Seen
from tests.support.servers import Endpoint

META = ObjectMeta("audio/wav", {"mtime": "1.5"})


@pytest.fixture
def store(seaweedfs: Endpoint, proxy: FaultyProxy) -> Iterator[RetryingStore]:
    store = connect(seaweedfs.settings(url=proxy.url), SystemClock())
    yield store
    store.close()


def everything(store: RetryingStore) -> None:
    etag = store.put("wire/a", BytesBody(b"data"), META)
    store.head("wire/a")
    with store.get("wire/a", if_match=etag, start=1, length=2) as download:
        b"".join(download.chunks())
    store.list_page("wire/")
    version = store.head("wire/a").version
    store.copy(version, "wire/b")
    store.copy(version, "wire/b", meta=META, condition=Condition.matches(store.head("wire/b").etag))
    upload = store.create_upload("wire/c", META)
    part = store.put_part("wire/c", upload, 1, BytesBody(os.urandom(1000)))
    store.complete_upload("wire/c", upload, [part])
    upload = store.create_upload("wire/c", META)
    store.copy_part("wire/c", upload, 1, version, 0, 4)
    store.abort_upload("wire/c", upload)
    store.delete("wire/c")
    store.delete_many(["wire/a", "wire/b"])


def integrity_headers(seen: Seen) -> list[str]:
    return [name for name in seen.headers if name == "content-md5" or name.startswith("x-amz-checksum-")]


def test_no_request_holds_what_r2_refuses(store: RetryingStore, proxy: FaultyProxy):
    everything(store)
    assert len(proxy.seen) > 15
    for seen in proxy.seen:
        assert "expect" not in seen.headers, seen
        assert "x-amz-trailer" not in seen.headers, seen
        assert "content-encoding" not in seen.headers, seen
        assert "transfer-encoding" not in seen.headers, seen
        assert "x-amz-sdk-checksum-algorithm" not in seen.headers, seen
        assert len(integrity_headers(seen)) <= 1, seen
        assert "x-amz-checksum-mode" not in seen.headers, seen
        assert f"r2fs/{__version__}" in seen.headers["user-agent"]


def test_bodies_are_not_hashed_before_they_are_sent(store: RetryingStore, proxy: FaultyProxy):
    body = BytesBody(os.urandom(100_000))
    store.put("wire/a", body, META)
    (seen,) = proxy.seen
    assert seen.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert integrity_headers(seen) == []
    assert seen.headers["content-length"] == "100000"


def test_a_batch_of_deletes_has_one_integrity_header(store: RetryingStore, proxy: FaultyProxy):
    store.delete_many(["wire/a", "wire/b"])
    (seen,) = proxy.seen
    assert integrity_headers(seen) == ["content-md5"]


def test_listings_are_encoded(store: RetryingStore, proxy: FaultyProxy):
    store.list_page("wire/", delimiter="/", start_after="wire/a")
    (seen,) = proxy.seen
    names = {pair.partition("=")[0] for pair in seen.path.partition("?")[2].split("&")}
    assert names == {"list-type", "prefix", "max-keys", "delimiter", "start-after", "encoding-type"}


def test_conditions_as_they_are_sent(store: RetryingStore, proxy: FaultyProxy):
    etag = store.put("wire/cond", BytesBody(b"data"), META)
    store.put("wire/cond", BytesBody(b"more"), META, condition=Condition.matches(etag))
    assert proxy.seen[-1].headers["if-match"] == f'"{etag}"'
    store.delete("wire/cond")
    store.put("wire/cond", BytesBody(b"more"), META, condition=Condition.absent())
    assert proxy.seen[-1].headers["if-none-match"] == "*"


def test_copies_carry_their_own_conditions_alone(store: RetryingStore, proxy: FaultyProxy):
    """The headers that boto3 has no parameter for, of many copies at once."""
    store.put("wire/a", BytesBody(b"data"), META)
    source = store.head("wire/a").version
    etags = {f"wire/copy{n}": store.put(f"wire/copy{n}", BytesBody(b"%d" % n), META) for n in range(8)}
    proxy.clear()
    barrier = threading.Barrier(16)

    def copy(number: int) -> None:
        barrier.wait()
        key = f"wire/copy{number % 8}"
        if number < 8:
            store.copy(source, key, condition=Condition.matches(etags[key]))
        else:
            store.copy(source, f"wire/plain{number}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(copy, range(16)))
    copies = [seen for seen in proxy.seen if "x-amz-copy-source" in seen.headers]
    assert len(copies) == 16
    for seen in copies:
        key = seen.path.removeprefix("/r2fs-test/")
        wanted = f'"{etags[key]}"' if key in etags else None
        assert seen.headers.get("cf-copy-destination-if-match") == wanted
        assert seen.headers.get("if-match") == wanted
        assert seen.headers["x-amz-copy-source-if-match"] == f'"{source.etag}"'
    store.delete_many([*etags, *(f"wire/plain{n}" for n in range(8, 16)), "wire/a"])


def test_a_copy_if_absent_says_so_in_r2s_way(store: RetryingStore, proxy: FaultyProxy):
    store.put("wire/a", BytesBody(b"data"), META)
    store.copy(store.head("wire/a").version, "wire/absent", condition=Condition.absent())
    assert proxy.seen[-1].headers["cf-copy-destination-if-none-match"] == "*"
    store.delete("wire/absent")


def test_a_change_of_metadata_keeps_the_other_headers(seaweedfs: Endpoint, store: RetryingStore):
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=seaweedfs.url,
        region_name="us-east-1",
        aws_access_key_id=seaweedfs.access_key,
        aws_secret_access_key=seaweedfs.secret_key,
    )
    client.put_object(
        Bucket=seaweedfs.bucket,
        Key="wire/kept",
        Body=b"data",
        CacheControl="max-age=60",
        ContentDisposition="attachment",
    )
    store.copy(store.head("wire/kept").version, "wire/kept", meta=META)
    answer = client.head_object(Bucket=seaweedfs.bucket, Key="wire/kept")
    assert (answer["CacheControl"], answer["ContentDisposition"]) == ("max-age=60", "attachment")
    assert answer["Metadata"] == {"mtime": "1.5"}
    client.delete_object(Bucket=seaweedfs.bucket, Key="wire/kept")
    client.close()


def test_requests_are_counted_as_they_are_sent(store: RetryingStore, proxy: FaultyProxy):
    everything(store)
    view = store.requests()
    assert sum(view.by_verb.values()) == len(proxy.seen) == view.total
    assert view.by_verb["PutObject"] == 1
    assert view.by_verb["DeleteObjects"] == 1
    assert view.sent_bytes == 4 + 1000
    assert view.received_bytes == 2


WITHOUT_BOTO3 = """
import sys
from r2fs.model.addresses import UrlRequest
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.s3.store import connect
from tests.contract.test_wire import everything

key = Credentials(sys.argv[3], sys.argv[4])
store = connect(Bucket("s3", sys.argv[2], endpoint_url=sys.argv[1], credentials=key), SystemClock(), None, lambda: key)
store.check()
everything(store)
assert not store.keys.renew(0)
store.presign("wire/a", UrlRequest(60))
store.close()
assert not {"boto3", "urllib3"} & set(sys.modules)
"""


def test_reading_and_writing_need_no_boto3(seaweedfs: Endpoint, proxy: FaultyProxy, tmp_path: Path):
    """Its import takes 40 MB and 0.3 s of CPU."""
    subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_BOTO3,
            proxy.url,
            seaweedfs.bucket,
            seaweedfs.access_key,
            seaweedfs.secret_key,
        ],
        env=os.environ | {"HOME": str(tmp_path)},
        check=True,
        timeout=60,
    )
    assert len(proxy.seen) > 15


def test_connections_are_used_again(store: RetryingStore, proxy: FaultyProxy):
    for _ in range(20):
        store.put("wire/a", BytesBody(b"data"), META)
        with store.get("wire/a") as download:
            assert b"".join(download.chunks()) == b"data"
    assert proxy.connections == 1
    store.delete("wire/a")
