"""TTS job results (T): one object for each job in one flat directory, its type, receipts, expiry."""

from __future__ import annotations

import base64
import logging
import os
from dataclasses import replace

import pytest

from r2fs import client
from tests.mount.daemons import BucketMount, serve, until
from tests.support.faulty import answer
from tests.systems.helpers import body, fetch, keys

NAME = "tts-audio-results"
OGG = b"OggS" + bytes(200_000)  # more than the 128 KiB of a Durable Object's value
SENT_BY_OTHERS = 1000


@pytest.fixture(scope="module")
def module_mount(seaweed, s3, tmp_path_factory):
    s3.create_bucket(Bucket=NAME)
    endpoint = replace(seaweed.endpoint, bucket=NAME)
    yield from serve(BucketMount(tmp_path_factory.mktemp("tts"), "kernel", endpoint, ""))


@pytest.fixture
def results(module_mount, monkeypatch, example):
    monkeypatch.setenv("R2FS_RUN_DIR", str(module_mount.run_dir))
    return example("tts_results").Results(module_mount.path, {})


def test_t1_t5_t6_t7_a_result_of_any_size_with_its_type(results, s3):
    """T1, T3, T5, T6, T7: the key is the job's id; completed means that the bucket has these bytes."""
    status, said = results.store("job-0001", base64.b64encode(OGG).decode(), "audio/ogg")
    assert (status, said["status"]) == (200, "completed")
    stored = s3.get_object(Bucket=NAME, Key="job-0001")
    assert (stored["Body"].read(), stored["ContentType"]) == (OGG, "audio/ogg")
    status, found = results.load("job-0001")
    assert (status, base64.b64decode(found["audio"]), found["mimeType"]) == (200, OGG, "audio/ogg")
    headers = fetch(client.url(results.mount / "job-0001"))[2]
    assert headers["content-type"] == "audio/ogg"


def test_t3_t12_1000_ids_in_one_directory(results, s3):
    """T3, T12: each is read right after another process has stored it; then all are listed."""
    for number in range(SENT_BY_OTHERS):
        s3.put_object(Bucket=NAME, Key=f"flat-{number:04}", Body=b"result %d" % number)
    assert (results.mount / "flat-0999").read_bytes() == b"result 999"
    until(
        "all", lambda: len([n for n in os.listdir(results.mount) if n.startswith("flat-")]) == SENT_BY_OTHERS
    )
    for number in range(0, SENT_BY_OTHERS, 50):
        assert client.download(results.mount / f"flat-{number:04}") == b"result %d" % number
    s3.put_object(Bucket=NAME, Key="just-now", Body=b"now")
    until("a result of just now", lambda: client.exists(results.mount / "just-now"), 5)


def test_t8_what_is_missing_is_404(results):
    assert results.load("never") == (404, {"error": "Audio result not found"})


def test_t11_what_has_expired_is_gone_with_its_content(results, s3):
    """T11: a lifecycle rule deletes as anybody else does."""
    results.store("old", base64.b64encode(b"old").decode(), "audio/wav")
    assert results.load("old")[0] == 200
    s3.delete_object(Bucket=NAME, Key="old")
    until("its end", lambda: results.load("old")[0] == 404, 10)
    assert not client.exists(results.mount / "old")


@pytest.mark.expect_warnings("job (far|new)")
def test_t7_t9_a_failed_store_is_500_and_not_completed(mount_of, bucket, proxy, example, s3, caplog):
    """T7, T8, T9: error classes are told apart; both are logged with the job's id. Nothing is lost by it."""
    mount = mount_of(bucket, url=proxy.url, read_timeout="1s", upload_delay="0s")
    mount.allowed = [" WARNING ", " ERROR "]
    s3.put_object(Bucket=bucket, Key="far", Body=b"far")
    assert os.listdir(mount.path) == ["far"]
    results = example("tts_results").Results(mount.path, {"far": {"mimeType": "audio/wav"}})
    for fault, kind in ((answer(403, "AccessDenied"), "AccessDenied"), (answer(503), "Unavailable")):
        proxy.rule(fault, method="GET", path="/far", times=None)
        with caplog.at_level(logging.ERROR):
            assert results.load("far") == (500, {"error": kind})
        assert "far" in caplog.text
        proxy.clear()
    proxy.rule(answer(403, "AccessDenied"), method="PUT", times=None)
    assert results.store("new", base64.b64encode(b"new").decode(), "audio/wav")[0] == 500
    assert "new" not in results.status
    assert keys(s3, bucket) == {"far": 3}
    proxy.clear()
    client.wait(mount.path / "new", timeout_s=60)  # kept meanwhile
    assert body(s3, bucket, "new") == b"new"
