"""examples/auto_shorts.py: scenes, output, a project's deletion, and old keys moved by a CSV."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from r2fs import client
from tests.systems.helpers import body, keys


def test_s1_s2_s3_s9_s11_the_example(example, mount_of, bucket, s3, seaweed, monkeypatch, tmp_path):
    """S1, S2, S3, S6, S9, S10, S11: the new layout, its deletion, and one old key that belongs to two scenes."""
    mount = mount_of(bucket)
    storage = example("auto_shorts").Storage(mount.path)
    media = tmp_path / "clip 1.mp4"
    media.write_bytes(b"clip")
    project = storage.project(None, "p45")
    key = storage.upload_scene(media, project, "s1", "video")
    assert key == "users/default/projects/p45/scenes/s1/video/clip 1.mp4"
    assert storage.upload_output(media, project) == "users/default/projects/p45/output/clip 1.mp4"
    with pytest.raises(ValueError, match="none of"):
        storage.upload_scene(media, project, "s1", "film")
    s3.put_object(Bucket=bucket, Key="narration.mp3", Body=b"narration")
    rows = [f"narration.mp3,users/u/projects/p/scenes/{scene}/audio/narration.mp3" for scene in ("s1", "s2")]
    old_to_new = tmp_path / "keys.csv"
    old_to_new.write_text("\n".join([*rows, "gone.mp3,users/u/x.mp3", ""]))
    endpoint = seaweed.endpoint
    for name, value in (
        ("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
        ("AWS_ACCESS_KEY_ID", endpoint.access_key),
        ("AWS_SECRET_ACCESS_KEY", endpoint.secret_key),
        ("AWS_ENDPOINT_URL", endpoint.url),
    ):
        monkeypatch.setenv(name, value)
    failed = storage.migrate(f"s3://{bucket}", old_to_new)
    assert [each["key"] for each in failed] == ["gone.mp3"]
    client.wait(mount.path, timeout_s=60)
    there = keys(s3, bucket)
    assert len(there) == 4
    assert body(s3, bucket, "users/u/projects/p/scenes/s2/audio/narration.mp3") == b"narration"
    report = storage.delete(project)
    assert (report["deleted_count"], report["failed_count"], report["total_bytes"]) == (2, 0, 8)
    client.wait(mount.path, timeout_s=60)
    assert len(keys(s3, bucket)) == 2
