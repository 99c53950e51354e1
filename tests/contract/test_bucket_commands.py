"""Commands on a bucket without a mount, against real servers: migrate, bucket, CORS, lifecycle rules."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.support.commands import run_here
from tests.support.servers import Endpoint

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROOT = Path(__file__).resolve().parents[2]

# R21 and R28: the documents of a seed, but for its host.
CORS = [
    {
        "AllowedOrigins": ["https://app.example.com"],
        "AllowedMethods": ["GET", "HEAD"],
        "AllowedHeaders": ["*"],
        "MaxAgeSeconds": 3600,
    }
]
LIFECYCLE = {
    "Rules": [{"Expiration": {"Days": 90}, "Filter": {"Prefix": "audiobooks/"}, "Status": "Enabled"}]
}


class Commands:
    """`r2fs …` with a server's settings."""

    def __init__(self, endpoint: Endpoint, home: Path) -> None:
        logging.getLogger("botocore").setLevel(logging.INFO)
        self.endpoint = endpoint
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "R2FS_ENDPOINT_URL": endpoint.url,
            "R2FS_REGION": endpoint.region,
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        }
        self.s3: S3Client = boto3.client(
            "s3",
            endpoint_url=endpoint.url,
            region_name=endpoint.region,
            aws_access_key_id=endpoint.access_key,
            aws_secret_access_key=endpoint.secret_key,
        )

    def start(self, *words: object, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "r2fs", *map(str, words)],
            env=self.environment,
            cwd=ROOT,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: object) -> tuple[int, str, str]:
        done = run_here(self.environment, *words)
        return done.returncode, done.stdout, done.stderr

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.endpoint.bucket, Prefix=prefix)
        return [one["Key"] for one in found.get("Contents", ())]


@pytest.fixture
def r2fs(moto: Endpoint, tmp_path: Path) -> Commands:
    return Commands(moto, tmp_path)


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_r18_r22_a_bucket_is_checked_and_created(r2fs: Commands) -> None:
    name = f"manuscripts-{uuid.uuid4().hex[:8]}"
    missing = r2fs("bucket", "check", f"s3://{name}")
    assert missing[0] == 5
    assert "no such bucket" in missing[2]
    assert r2fs("bucket", "create", f"s3://{name}")[:2] == (0, f"s3://{name}: created\n")
    assert r2fs("bucket", "check", f"s3://{name}")[0] == 0
    assert r2fs("bucket", "create", f"s3://{name}")[1] == f"s3://{name}: is there already\n"


def test_r21_cors_rules_of_a_document(r2fs: Commands, tmp_path: Path) -> None:
    where = f"s3://{r2fs.endpoint.bucket}"
    assert json.loads(r2fs("bucket", "cors", "show", where)[1]) == []
    assert r2fs("bucket", "cors", "set", where, write(tmp_path / "cors.json", CORS)) == (0, "", "")
    assert r2fs.s3.get_bucket_cors(Bucket=r2fs.endpoint.bucket)["CORSRules"] == CORS
    shown = r2fs("bucket", "cors", "show", where)[1]
    again = tmp_path / "again.json"
    again.write_text(shown)
    assert r2fs("bucket", "cors", "set", where, again)[0] == 0
    assert r2fs("bucket", "cors", "clear", where)[0] == 0


def test_r28_a_lifecycle_prefix_that_matches_nothing_is_said(r2fs: Commands, tmp_path: Path) -> None:
    where = f"s3://{r2fs.endpoint.bucket}"
    code, _, said = r2fs("bucket", "lifecycle", "set", where, write(tmp_path / "rules.json", LIFECYCLE))
    assert code == 0
    assert "rule 1: no object of" in said
    assert "audiobooks/" in said
    (rule,) = json.loads(r2fs("bucket", "lifecycle", "show", where)[1])
    assert (rule["Expiration"], rule["Filter"]) == ({"Days": 90}, {"Prefix": "audiobooks/"})
    r2fs.s3.put_object(Bucket=r2fs.endpoint.bucket, Key="audiobooks/one", Body=b"1")
    assert r2fs("bucket", "lifecycle", "set", where, tmp_path / "rules.json")[2] == ""
    assert r2fs("bucket", "lifecycle", "clear", where)[0] == 0
    r2fs.s3.delete_object(Bucket=r2fs.endpoint.bucket, Key="audiobooks/one")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("[]", "a list of rules is needed"),
        ('{"Rules": 1}', "a list of rules is needed"),
        ('[{"AllowedOrigin": ["*"]}]', "AllowedOrigin"),
    ],
)
def test_a_document_that_s3_does_not_have(r2fs: Commands, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "cors.json").write_text(text)
    code, _, said = r2fs("bucket", "cors", "set", f"s3://{r2fs.endpoint.bucket}", tmp_path / "cors.json")
    assert code == 2
    assert "cors.json" in said
    assert says in said
    assert said.count("\n") == 1


def test_s9_s12_a_map_and_its_results(seaweedfs: Endpoint, tmp_path: Path) -> None:
    r2fs = Commands(seaweedfs, tmp_path)
    prefix = f"{uuid.uuid4().hex}/"
    for name in ("a b.wav", "ü.wav", "shared.mp3"):
        r2fs.s3.put_object(
            Bucket=seaweedfs.bucket, Key=prefix + name, Body=name.encode(), ContentType="audio/x-x"
        )
    new = f"{prefix}users/default/projects/p/scenes"
    table = [
        ["scene", "old", "new"],
        ["1", f"{prefix}a b.wav", f"{new}/1/audio/a b.wav"],
        ["2", f"{prefix}ü.wav", f"{new}/2/audio/ü.wav"],
        ["2", f"{prefix}shared.mp3", f"{new}/2/video/shared.mp3"],
        ["3", f"{prefix}shared.mp3", f"{new}/3/video/shared.mp3"],
    ]
    path = tmp_path / "map.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(table)
    where = f"s3://{seaweedfs.bucket}"
    code, out, _ = r2fs("migrate", where, "--map", path, "--dry-run")
    assert code == 0
    assert out.count(" -> ") == 4
    assert len(r2fs.keys(prefix)) == 3
    code, out, err = r2fs("migrate", where, "--map", path)
    assert (code, err) == (0, "")
    assert "4 of 4 copies confirmed" in out
    assert sorted(r2fs.keys(prefix)) == sorted(row[2] for row in table[1:])
    stored = r2fs.s3.get_object(Bucket=seaweedfs.bucket, Key=f"{new}/2/audio/ü.wav")
    assert (stored["Body"].read(), stored["ContentType"]) == ("ü.wav".encode(), "audio/x-x")
    with (tmp_path / "map.csv.results.csv").open(newline="") as file:
        results = list(csv.DictReader(file))
    assert {(row["scene"], row["new"]) for row in results} == {(row[0], row[2]) for row in table[1:]}


def test_a_rule_and_what_fails(seaweedfs: Endpoint, tmp_path: Path) -> None:
    r2fs = Commands(seaweedfs, tmp_path)
    prefix = f"{uuid.uuid4().hex}/"
    for key in ("flat_1.wav", "flat_2.wav", "new/2.wav"):
        r2fs.s3.put_object(Bucket=seaweedfs.bucket, Key=prefix + key, Body=key.encode())
    where = f"s3://{seaweedfs.bucket}/{prefix}"
    rule = (rf"{prefix}flat_(\d+)\.wav", rf"{prefix}new/\1.wav")
    assert r2fs("migrate", where, "--rule", *rule)[0] == 2
    code, out, _ = r2fs("migrate", where, "--rule", *rule, "--results", tmp_path / "results", "--json")
    report = json.loads(out)
    assert code == 13
    assert (report["confirmed"], report["failed_count"], report["old_keys_deleted"]) == (1, 1, 1)
    assert "not replaced" in report["failed"][0]["reason"]
    assert sorted(r2fs.keys(prefix)) == [f"{prefix}{key}" for key in ("flat_2.wav", "new/1.wav", "new/2.wav")]


def test_killed_it_goes_on(seaweedfs: Endpoint, tmp_path: Path) -> None:
    r2fs = Commands(seaweedfs, tmp_path)
    prefix = f"{uuid.uuid4().hex}/"
    count = 150
    for number in range(count):
        r2fs.s3.put_object(Bucket=seaweedfs.bucket, Key=f"{prefix}old/{number}", Body=b"%d" % number)
    path = tmp_path / "map.csv"
    path.write_text("".join(f"{prefix}old/{n},{prefix}new/{n}\n" for n in range(count)))
    results = tmp_path / "map.csv.results.csv"
    words = ("migrate", f"s3://{seaweedfs.bucket}", "--map", path)
    process = r2fs.start(*words)
    deadline = time.monotonic() + 60
    while (results.read_bytes().count(b"\n") if results.exists() else 0) < 20:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    code, out, err = r2fs(*words, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["confirmed"] + report["confirmed_earlier"] == count
    assert report["confirmed_earlier"] >= 19
    found = r2fs.s3.list_objects_v2(Bucket=seaweedfs.bucket, Prefix=prefix)["Contents"]
    assert sorted(one["Key"] for one in found) == sorted(f"{prefix}new/{n}" for n in range(count))
    assert results.read_text().count("\n") == count + 1
