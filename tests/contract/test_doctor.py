"""`r2fs doctor` against real servers: each cause has a check, an exit code and a remedy of its own."""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import boto3
import pytest

from r2fs.cli.main import run
from r2fs.daemon import client
from r2fs.doctor import rights
from r2fs.drivers import kmount
from r2fs.model.exit_codes import DEFECT
from r2fs.store.s3.admin import BucketAdmin
from r2fs.store.s3.reach import Answered
from tests.support.canned import Canned, Request, head
from tests.support.faulty import FaultyProxy, answer
from tests.support.servers import Endpoint, free_ports

FIELDS = {"check", "level", "text", "remedy", "exit_code"}
SECRET = "a-s3cret-that/must+not=appear"


@dataclass
class Doctor:
    """`r2fs doctor …` in this process, with a home of its own and no mounts but its own."""

    home: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: object) -> tuple[int, str]:
        self.capsys.readouterr()
        code = run("r2fs", ["doctor", *map(str, words)])
        captured = self.capsys.readouterr()
        assert code != DEFECT, captured.err
        return code, captured.out

    def json(self, *words: object) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code, and the findings by their check."""
        code, out = self(*words, "--json")
        answered = json.loads(out)
        assert set(answered) == {"target", "findings", "exit_code"}
        assert answered["exit_code"] == code
        for finding in answered["findings"]:
            assert set(finding) == FIELDS
            assert finding["level"] in ("ok", "warning", "failed")
            assert (finding["level"] == "ok") == (finding["remedy"] == "")
            assert (finding["level"] == "failed") == (finding["exit_code"] != 0)
        return code, {finding["check"]: finding for finding in answered["findings"]}

    def use(self, endpoint: Endpoint) -> None:
        self.monkeypatch.setenv("R2FS_ENDPOINT_URL", endpoint.url)
        self.monkeypatch.setenv("R2FS_REGION", endpoint.region)
        self.monkeypatch.setenv("AWS_ACCESS_KEY_ID", endpoint.access_key)
        self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", endpoint.secret_key)


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Doctor]:
    logging.getLogger("botocore").setLevel(logging.INFO)
    for name in list(os.environ):
        if name.startswith("XDG_") or "proxy" in name.lower():
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr("r2fs.model.settings.places.ROOT_STATES", (tmp_path / "system-states",))
    monkeypatch.setattr(client, "run_dirs", lambda environ: [tmp_path / "run" / "r2fs"])
    mounts = kmount.mounts
    monkeypatch.setattr(kmount, "mounts", lambda: [m for m in mounts() if not m.fstype.endswith("r2fs")])
    level, handlers = logging.getLogger("r2fs").level, list(logging.getLogger().handlers)
    yield Doctor(tmp_path, monkeypatch, capsys)
    logging.getLogger("r2fs").setLevel(level)
    logging.getLogger().handlers[:] = handlers


def s3(endpoint: Endpoint) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint.url,
        region_name=endpoint.region,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
    )


def test_all_is_well_and_the_probe_object_is_deleted(doctor: Doctor, seaweedfs: Endpoint):
    doctor.use(seaweedfs)
    s3(seaweedfs).put_object(Bucket=seaweedfs.bucket, Key="well/take.wav", Body=b"RIFF")
    code, found = doctor.json(f"s3://{seaweedfs.bucket}/well", "--write-test")
    assert code == 0, found
    assert list(found)[:5] == ["fuse", "kernel", "driver", "cache directory", "state directory"]
    for check in (
        "dns", "connection", "tls", "clock", "permission to list", "permission to read", "permission to write",
        "permission to delete", "presigned url", "public access", "unfinished uploads", "hidden objects", "journal",
        "cache", "mount",
    ):  # fmt: skip
        assert found[check]["level"] == "ok", found[check]
    assert "206" in found["presigned url"]["text"]
    listed = s3(seaweedfs).list_objects_v2(Bucket=seaweedfs.bucket, Prefix="well/")["Contents"]
    assert [each["Key"] for each in listed] == ["well/take.wav"]


def test_without_write_test_nothing_is_stored(doctor: Doctor, seaweedfs: Endpoint):
    doctor.use(seaweedfs)
    with FaultyProxy(seaweedfs.url) as proxy:
        doctor.monkeypatch.setenv("R2FS_ENDPOINT_URL", proxy.url)
        code, found = doctor.json(f"s3://{seaweedfs.bucket}/nothing-here")
        assert {seen.method for seen in proxy.seen} <= {"GET", "HEAD"}
    assert code == 0
    assert found["permission to read"]["level"] == "warning"
    assert "404" in found["presigned url"]["text"]


# ------------------------------------------------------------------ R22, R23, R24, R25
def refusing(status: str, code: str, date_off_s: float = 0.0) -> Callable[[Request], Iterator[bytes]]:
    """Reply of a server that answers HEAD, with a date, and refuses all else."""

    def reply(request: Request) -> Iterator[bytes]:
        date = formatdate(time.time() + date_off_s, usegmt=True)
        if request.method == "HEAD":
            yield head("200 OK", Content_Length="0", Date=date)
            return
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        yield head(status, Content_Type="application/xml", Content_Length=str(len(body)), Date=date) + body

    return reply


def web_page(request: Request) -> Iterator[bytes]:
    yield head("200 OK", Content_Length="4", Date=formatdate(usegmt=True))
    yield b"" if request.method == "HEAD" else b"page"


ANSWERED = Answered(403, formatdate(usegmt=True), 0.0)


@pytest.mark.parametrize(
    ("case", "check", "code"),
    [
        ("no bucket", "bucket", 5),
        ("wrong key id", "credentials", 4),
        ("wrong secret", "credentials", 4),
        ("no key", "credentials", 4),
        ("wrong permission", "permission to list", 4),
        ("clock is off", "clock", 6),
        ("clock is refused", "clock", 6),
        ("wrong host", "dns", 11),
        ("wrong port", "connection", 11),
        ("no TLS there", "tls", 11),
        ("a web page", "endpoint", 3),
        ("wrong account", "account", 4),
        ("wrong setting", "settings", 2),
    ],
)
def test_each_cause_is_told_apart(
    doctor: Doctor, seaweedfs: Endpoint, monkeypatch: pytest.MonkeyPatch, case: str, check: str, code: int
):
    doctor.use(seaweedfs)
    target, canned = f"s3://{seaweedfs.bucket}", None
    match case:
        case "no bucket":
            target = "s3://no-such-bucket"
        case "wrong key id":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        case "wrong secret":
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        case "no key":
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.delenv(name)
            monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        case "wrong permission":
            canned = Canned(refusing("403 Forbidden", "AccessDenied"))
        case "clock is off":
            canned = Canned(refusing("200 OK", "unused", date_off_s=-7200))
        case "clock is refused":
            canned = Canned(refusing("403 Forbidden", "RequestTimeTooSkewed"))
        case "wrong host":
            monkeypatch.setenv("R2FS_ENDPOINT_URL", "http://no-such-host.invalid")
        case "wrong port":
            monkeypatch.setenv("R2FS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
        case "no TLS there":
            monkeypatch.setenv("R2FS_ENDPOINT_URL", seaweedfs.url.replace("http:", "https:"))
        case "a web page":
            canned = Canned(web_page)
        case "wrong account":
            target = "r2://takes"
            monkeypatch.delenv("R2FS_ENDPOINT_URL")
            monkeypatch.setenv("R2_ACCOUNT_ID", "my-account")
            monkeypatch.setattr("r2fs.store.s3.reach.Endpoint.addresses", lambda self: ["192.0.2.7"])
            monkeypatch.setattr("r2fs.store.s3.reach.Endpoint.connect_s", lambda self: 0.01)
            monkeypatch.setattr("r2fs.store.s3.reach.Endpoint.tls", lambda self: ("TLSv1.3", "never"))
            monkeypatch.setattr("r2fs.store.s3.reach.Endpoint.ask", lambda self, url: ANSWERED)
        case "wrong setting":
            monkeypatch.setenv("R2FS_CACHE_SIZE", "much")
    if canned is not None:
        with canned:
            monkeypatch.setenv("R2FS_ENDPOINT_URL", str(canned.settings().endpoint_url))
            exit_code, found = doctor.json(target)
    else:
        exit_code, found = doctor.json(target)
    assert (exit_code, found[check]["level"]) == (code, "failed"), found
    assert found[check]["remedy"]
    assert [name for name, each in found.items() if each["level"] == "failed"] == [check]
    if case == "no bucket":  # R25: another bucket or account than meant
        assert f"these credentials see the buckets {seaweedfs.bucket}" in found[check]["text"]
    if case.startswith("clock is off"):
        assert "2 h 0 min ahead of" in found[check]["text"]


def test_r24_a_presigned_url_that_is_refused(doctor: Doctor, seaweedfs: Endpoint):
    doctor.use(seaweedfs)
    s3(seaweedfs).put_object(Bucket=seaweedfs.bucket, Key="signed/take.wav", Body=b"RIFF")
    with FaultyProxy(seaweedfs.url) as proxy:
        proxy.rule(answer(403, "AccessDenied"), path="X-Amz-Expires=", times=None)
        doctor.monkeypatch.setenv("R2FS_ENDPOINT_URL", proxy.url)
        code, found = doctor.json(f"s3://{seaweedfs.bucket}/signed")
    assert code == 4
    assert "403" in found["presigned url"]["text"]
    assert found["permission to read"]["level"] == "ok"


def test_r11_r20_objects_that_anybody_can_read(doctor: Doctor, moto: Endpoint):
    doctor.use(moto)
    s3(moto).put_object(Bucket=moto.bucket, Key="open/take.wav", Body=b"RIFF", ACL="public-read")
    code, found = doctor.json(f"s3://{moto.bucket}/open")
    assert code == 0
    assert found["public access"]["level"] == "warning"


def test_a_bucket_that_may_only_be_read(doctor: Doctor, seaweedfs: Endpoint):
    doctor.use(seaweedfs)
    s3(seaweedfs).put_object(Bucket=seaweedfs.bucket, Key="half/take.wav", Body=b"RIFF")
    with FaultyProxy(seaweedfs.url) as proxy:
        proxy.rule(answer(403, "AccessDenied"), method="PUT", times=None)
        doctor.monkeypatch.setenv("R2FS_ENDPOINT_URL", proxy.url)
        code, found = doctor.json(f"s3://{seaweedfs.bucket}/half", "--write-test")
    assert code == 4
    assert found["permission to write"]["level"] == "failed"
    assert found["permission to read"]["level"] == "ok"
    assert "permission to delete" not in found


def test_a_probe_object_that_cannot_be_deleted_is_named(doctor: Doctor, seaweedfs: Endpoint):
    doctor.use(seaweedfs)
    with FaultyProxy(seaweedfs.url) as proxy:
        proxy.rule(answer(403, "AccessDenied"), method="DELETE", times=None)
        doctor.monkeypatch.setenv("R2FS_ENDPOINT_URL", proxy.url)
        code, found = doctor.json(f"s3://{seaweedfs.bucket}/stays", "--write-test")
    assert code == 4
    (left,) = s3(seaweedfs).list_objects_v2(Bucket=seaweedfs.bucket, Prefix="stays/")["Contents"]
    assert left["Key"] in found["permission to delete"]["text"]


# ------------------------------------------------------------------ what the bucket holds
def test_unfinished_uploads_are_counted_with_their_age(doctor: Doctor, seaweedfs: Endpoint):
    doctor.use(seaweedfs)
    client_ = s3(seaweedfs)
    for number in range(3):
        client_.create_multipart_upload(Bucket=seaweedfs.bucket, Key=f"parts/{number}.wav")
    where = f"s3://{seaweedfs.bucket}/parts"
    _, found = doctor.json(where)
    assert found["unfinished uploads"]["level"] == "ok"
    assert found["unfinished uploads"]["text"].startswith("3 multipart uploads, the oldest ")
    uploads = BucketAdmin.uploads
    old = 2 * 86400.0

    def older(self: BucketAdmin) -> Any:
        return [type(u)(u.key, u.upload_id, u.begun_s - old) for u in uploads(self)[0]], True

    doctor.monkeypatch.setattr(BucketAdmin, "uploads", older)
    code, found = doctor.json(where)
    assert code == 0
    assert found["unfinished uploads"]["level"] == "warning"
    assert "2 d" in found["unfinished uploads"]["text"]
    assert "AbortIncompleteMultipartUpload" in found["unfinished uploads"]["remedy"]


def test_objects_that_a_mount_cannot_show(doctor: Doctor, moto: Endpoint):
    doctor.use(moto)
    for key in ("odd/a//b", "odd/../c", "odd/d", "odd/d/e", "odd/whole.wav"):
        s3(moto).put_object(Bucket=moto.bucket, Key=key, Body=b"x")
    _, found = doctor.json(f"s3://{moto.bucket}/odd")
    assert found["hidden objects"]["text"].startswith("3 of 5 objects cannot be shown")


def test_a_bucket_of_another_jurisdiction_is_found(monkeypatch: pytest.MonkeyPatch):
    from r2fs.model.errors import BucketMissing
    from r2fs.model.settings import Bucket

    asked = []

    class Store:
        def __init__(self, bucket: Bucket) -> None:
            self.host = str(bucket.endpoint_url)

        def check(self) -> None:
            asked.append(self.host)
            if ".eu." not in self.host:
                raise BucketMissing("there is no such bucket")

        def close(self) -> None: ...

    account = "0123456789abcdef" * 2
    bucket = Bucket("s3", "takes", endpoint_url=f"https://{account}.r2.cloudflarestorage.com")
    monkeypatch.setattr(rights, "open_store", lambda bucket, clock: Store(bucket))
    (finding,) = rights.BucketChecks(bucket, Store(bucket), None).run(False)  # type: ignore[arg-type]
    assert (finding.check, finding.exit_code) == ("jurisdiction", 5)
    assert 'jurisdiction = "eu"' in finding.remedy
    assert len(asked) == 2


# ------------------------------------------------------------------ the bundle
def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}


def test_the_bundle_holds_what_helps_and_no_secret(doctor: Doctor, seaweedfs: Endpoint):
    doctor.use(seaweedfs)
    other, token = "another-mounts-s3cret", "a-token-of-somebody-else"
    config = doctor.home / "config.toml"
    config.write_text(
        f'[mount.takes]\nurl = "s3://{seaweedfs.bucket}"\n'
        f'[mount.books]\nurl = "s3://books"\naccess_key_id = "BOOKSKEYID"\nsecret_access_key = "{other}"\n'
    )
    config.chmod(0o600)
    doctor.monkeypatch.setenv("R2FS_LOG_FILE", str(doctor.home / "own.log"))
    doctor.monkeypatch.setenv("MY_API_TOKEN", token)
    url = s3(seaweedfs).generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    (doctor.home / "own.log").write_text(
        f"began\nsecret {seaweedfs.secret_key} {other} {token}\nAuthorization: {SECRET}\nsee {url}\n"
    )
    bundle = doctor.home / "bundle.tar.gz"
    code, _ = doctor("takes", "--config", config, "--bundle", bundle)
    assert code == 0
    assert bundle.stat().st_mode & 0o777 == 0o600
    found = contents(bundle)
    names = {name.removeprefix("r2fs-doctor/") for name in found}
    assert {"findings.json", "settings.json", "status.json", "host.json"} <= names
    (log,) = (text for name, text in found.items() if name.endswith("own.log"))
    assert b"began" in log
    whole = b"\n".join(found.values()) + bundle.read_bytes()
    signature = url.partition("Signature=")[2].partition("&")[0]
    for secret in (seaweedfs.secret_key, other, token, SECRET, signature, seaweedfs.access_key):
        assert secret.encode() not in whole, secret
    assert json.loads(found["r2fs-doctor/settings.json"])["settings"]["url"]["value"]
    again, _ = doctor("takes", "--config", config, "--bundle", bundle)
    assert again == 7
    assert contents(bundle) == found


def test_a_bundle_with_a_secret_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from r2fs.doctor import bundle
    from r2fs.model import redaction
    from r2fs.model.errors import R2fsError

    redaction.hide("a-s3cret-that-stays")
    monkeypatch.setattr(redaction, "redact_for_others", lambda text: text)
    given = bundle.Contents((), {"told": "a-s3cret-that-stays"}, (), (), ())
    with pytest.raises(R2fsError, match="no bundle is written"):
        bundle.write(tmp_path / "b.tar", given, {})
    assert not (tmp_path / "b.tar").exists()


def test_plain_tar_can_be_read_without_gzip(doctor: Doctor, tmp_path: Path):
    (tmp_path / "bucket").mkdir()
    code, out = doctor(f"file://{tmp_path}/bucket", "--bundle", tmp_path / "b.tar")
    assert code == 0
    assert out.splitlines()[-1].endswith("1 warning")
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "b.tar").read_bytes()), mode="r:") as archive:
        assert archive.getnames()[0] == "r2fs-doctor/findings.json"
