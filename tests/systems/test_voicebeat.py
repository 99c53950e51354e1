"""VoiceBeat (V): segments by soundfile, layers by pydub, a catalogue, a cache with a time to live, URLs at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import soundfile

from r2fs import client
from tests.mount.daemons import BucketMount, serve, until
from tests.support.faulty import answer
from tests.systems.helpers import body, fetch, keys

# pydub leaves its sources open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

NAME = "voicebeat-audio"
RATE = 8000
SEGMENTS, LAYERS = 400, 20


@pytest.fixture(scope="module")
def module_mount(seaweed, s3, tmp_path_factory):
    """One mount for the tests that leave it as it is. Nothing is sent before somebody waits for it."""
    s3.create_bucket(Bucket=NAME)
    endpoint = replace(seaweed.endpoint, bucket=NAME)
    yield from serve(
        BucketMount(tmp_path_factory.mktemp("voicebeat"), "kernel", endpoint, "", upload_delay="1h")
    )


@pytest.fixture
def beats(module_mount, monkeypatch):
    monkeypatch.setenv("R2FS_RUN_DIR", str(module_mount.run_dir))
    return module_mount


def temporary_segment(number: int) -> Path:
    """As its SegmentationService makes one: by soundfile, in a NamedTemporaryFile."""
    samples = numpy.sin(numpy.arange(RATE // 40) * (0.02 + number / 1000)) * 0.5
    with tempfile.NamedTemporaryFile(suffix=".wav", delete=False) as file:
        soundfile.write(file.name, samples, RATE)
    return Path(file.name)


def gets(mount) -> int:
    return mount.status()["requests"]["by_verb"].get("GetObject", 0)


def test_v2_v14_v18_400_segments_and_20_layers(beats, example, s3, tmp_path):
    """V1, V10, V14, V18: each source is gone at once, nobody waits for the network, everything arrives."""
    storage = example("voicebeat").Storage(beats.path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    contents = {}
    for number in range(SEGMENTS):
        made = temporary_segment(number)
        contents[f"segments/s{number}.wav"] = made.read_bytes()
        storage.put_file(made, f"segments/s{number}.wav")
        assert not made.exists()
    per_layer = SEGMENTS // LAYERS
    for number in range(LAYERS):
        parts = [f"s{each}" for each in range(number * per_layer, (number + 1) * per_layer)]
        storage.layer(f"l{number}", parts, scratch)
        data, rate = soundfile.read(beats.path / f"layers/l{number}.wav")
        assert (len(data), rate) == (per_layer * (RATE // 40), RATE)
    storage.client.wait(beats.path, timeout_s=60)
    there = keys(s3, NAME)
    assert len([key for key in there if key.startswith(("segments/s", "layers/l"))]) == SEGMENTS + LAYERS
    assert {key: there[key] for key in contents} == {key: len(data) for key, data in contents.items()}
    for key in ("segments/s0.wav", "segments/s399.wav"):
        assert body(s3, NAME, key) == contents[key]
    assert s3.head_object(Bucket=NAME, Key="layers/l19.wav")["ContentType"] == "audio/wav"
    assert gets(beats) == 0, "what was written here is read here"


def test_v10_v11_v13_v21_a_url_at_once_or_once_it_is_there(beats, example, tmp_path):
    """V10, V11, V13, V21 (R21: its rules of CORS): in the background the URL comes before the object; else the object before the URL."""
    storage = example("voicebeat").Storage(beats.path)
    url = storage.put_file(temporary_segment(1), "segments/pending.wav")
    assert "X-Amz-Expires=3600" in url
    assert fetch(url)[0] == 404
    assert beats.status()["queue"]["left"] >= 1
    now = storage.put_file(temporary_segment(2), "segments/now.wav", background=False)
    status, data, headers = fetch(now, Range="bytes=0-3")
    assert (status, data, headers["content-type"]) == (206, b"RIFF", "audio/wav")
    storage.client.wait("segments/pending.wav")  # by its key
    assert fetch(url)[1] == (beats.path / "segments/pending.wav").read_bytes()


def test_v12_no_public_url_is_invented(beats, example, tmp_path):
    storage = example("voicebeat").Storage(beats.path)
    storage.put_file(temporary_segment(1), "segments/1.wav")
    with pytest.raises(client.Misconfigured, match="public_url"):
        storage.client.url("segments/1.wav", public=True)


def test_v5_v17_a_time_to_live_takes_only_what_is_in_the_bucket(mount_of, bucket, proxy, s3):
    """V5: counted from when it was stored; then a miss. V17: what was never sent is not touched."""
    mount = mount_of(bucket, url=proxy.url, cache_ttl="2s", upload_delay="0s")
    mount.allowed = ["the bucket cannot answer", "the bucket answers", "the bucket does not answer"]
    s3.put_object(Bucket=bucket, Key="segments/far.wav", Body=b"far" * 100)
    until("the segment", (mount.path / "segments/far.wav").exists)
    assert (mount.path / "segments/far.wav").read_bytes() == b"far" * 100
    first = gets(mount)
    proxy.rule(answer(503), method="PUT", times=None)
    (mount.path / "segments/new.wav").write_bytes(b"new" * 100)
    until("the end of its time", lambda: mount.status()["cache"]["expired"] >= 1, 30)
    assert (mount.path / "segments/far.wav").read_bytes() == b"far" * 100
    assert gets(mount) > first
    assert (mount.path / "segments/new.wav").read_bytes() == b"new" * 100
    proxy.clear()
    client.wait(mount.path, timeout_s=60)
    assert body(s3, bucket, "segments/new.wav") == b"new" * 100


def test_v7_rm_rf_cache_loses_nothing(beats, s3):
    """V7: at any time, also while uploads wait; V4: the directory may be relative to a checkout."""
    (beats.path / "seven").mkdir()
    for number in range(20):
        (beats.path / f"seven/{number}.wav").write_bytes(bytes([number]) * 1000)
        if number % 5 == 0:
            shutil.rmtree(beats.base / "cache", ignore_errors=True)
    shutil.rmtree(beats.base / "cache", ignore_errors=True)
    assert (beats.path / "seven/7.wav").read_bytes() == b"\x07" * 1000
    client.wait(beats.path, timeout_s=60)
    assert {key: body(s3, NAME, key) for key in keys(s3, NAME) if key.startswith("seven/")} == {
        f"seven/{number}.wav": bytes([number]) * 1000 for number in range(20)
    }


def test_v15_uploads_are_repeated_and_outlive_the_daemon(mount_of, bucket, proxy, s3):
    """V15: theirs printed the failure, dropped the file, and lost the queue with the process."""
    mount = mount_of(bucket, url=proxy.url, upload_delay="0s", take_over="0")
    mount.allowed = [" WARNING "]
    proxy.rule(answer(500), method="PUT", times=None)
    (mount.path / "1.wav").write_bytes(b"one")
    until("a failed upload", lambda: mount.status()["queue"]["failed"] > 0, 40)
    mount.kill()
    proxy.clear()
    again = mount_of(bucket, url=proxy.url)
    client.wait(again.path, timeout_s=60)
    assert body(s3, bucket, "1.wav") == b"one"


def test_v16_only_what_is_missing_is_file_not_found(mount_of, bucket, proxy, s3):
    """V16: theirs made FileNotFoundError of every download error."""
    mount = mount_of(bucket, url=proxy.url, read_timeout="1s", freshness="1m")
    mount.allowed = [" WARNING ", " ERROR "]
    s3.put_object(Bucket=bucket, Key="a.wav", Body=b"a" * 100)
    assert os.listdir(mount.path) == ["a.wav"]
    with pytest.raises(FileNotFoundError):
        (mount.path / "b.wav").read_bytes()
    for fault, code, kind in (
        (answer(403, "AccessDenied"), errno.EACCES, client.AccessDenied),
        (answer(503), errno.EIO, client.Unavailable),
    ):
        proxy.rule(fault, method="GET", path="/a.wav", times=None)
        with pytest.raises(OSError) as caught:
            (mount.path / "a.wav").read_bytes()
        assert caught.value.errno == code
        with pytest.raises(kind):
            client.download(mount.path / "a.wav")
        proxy.clear()
    until("the file", lambda: _reads(mount.path / "a.wav"), 30)


def _reads(path: Path) -> bool:
    try:
        return path.read_bytes() == b"a" * 100
    except OSError:
        return False


def test_v19_starts_with_the_bucket_away(example, mount_of, bucket, proxy):
    """V19: the catalogue is read before anything is served; V2: it names the key of each sample."""
    mount = mount_of(bucket, url=proxy.url)
    storage = example("voicebeat").Storage(mount.path)
    sample = mount.path / "samples/kicks/Kick (1).wav"
    sample.parent.mkdir(parents=True)
    sample.write_bytes(temporary_segment(3).read_bytes())
    (mount.path / "catalog").mkdir()
    (mount.path / "catalog/samples.json").write_text(
        json.dumps({"kick": {"r2_key": "samples/kicks/Kick (1).wav"}})
    )
    client.wait(mount.path)
    assert mount.stop() == 0
    mount.end()
    proxy.rule(answer(503), times=None)
    again = mount_of(bucket, url=proxy.url)
    again.allowed = [" WARNING "]
    storage = example("voicebeat").Storage(again.path)
    assert soundfile.read(storage.sample("kick"))[1] == RATE
    proxy.clear()


def test_v20_the_same_class_on_a_local_directory_and_back(example, mount_of, beats, tmp_path):
    """V20: development without R2, and the same tree of plain files after a roll-back."""
    storage = example("voicebeat").Storage(beats.path)
    for number in range(3):
        storage.put_file(temporary_segment(number), f"segments/{number}.wav")
    plain = tmp_path / "plain"
    subprocess.run(["cp", "-a", f"{beats.path}/.", plain], check=True)
    local = mount_of(plain, "development", run_dir=beats.run_dir)
    back = example("voicebeat").Storage(local.path)
    assert {"0.wav", "1.wav", "2.wav"} <= set(os.listdir(local.path / "segments"))
    assert (local.path / "segments/1.wav").read_bytes() == (beats.path / "segments/1.wav").read_bytes()
    (tmp_path / "scratch").mkdir()
    with pytest.raises(client.Refused, match="public_url"):  # a directory signs no URL
        back.layer("l", ["0", "1"], tmp_path / "scratch")
    back.client.wait(local.path)
    assert (plain / "layers/l.wav").stat().st_size > 44


def test_v22_v23_the_figures_of_its_monitoring(beats, s3):
    """V22, V23: hit rate, queue, cache size, failed uploads, each as a number for an alert."""
    s3.put_object(Bucket=NAME, Key="far.wav", Body=bytes(5000))
    until("the file", (beats.path / "far.wav").exists)
    for _ in range(3):
        (beats.path / "far.wav").read_bytes()
    (beats.path / "mine.wav").write_bytes(b"x")
    until("the queue", lambda: beats.status()["queue"]["files"] >= 1)
    said = json.loads(beats.r2fs("status", beats.path, "--json").stdout)
    found = said if isinstance(said, dict) else said[0]
    assert found["queue"]["failed"] == 0
    assert found["cache"]["bytes"] >= 5000
    assert 0 <= found["cache"]["hit_rate"] <= 1


def test_m4_its_program_has_no_boto3(beats, example, repo_root):
    """The example's storage class runs where boto3 cannot be imported."""
    blocked = "import sys\nfor name in ('boto3', 'botocore', 'urllib3', 'mfusepy', 'click'): sys.modules[name] = None\n"
    code = f"{blocked}from r2fs import client\nclient.upload(b'x', {str(beats.path / 'x.wav')!r})\nclient.wait({str(beats.path / 'x.wav')!r})"
    subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True, timeout=60)
