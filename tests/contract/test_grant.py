"""Temporary credentials: R2's signed here and checked by hand, STS of moto, and mounts' renewal by a command."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from r2fs.cli import grant as granting
from r2fs.model.addresses import token_end_s
from r2fs.model.errors import DirectoryUnusable, Refused
from r2fs.model.ports import SystemClock
from r2fs.model.records import ObjectMeta
from r2fs.model.settings import Bucket, Credentials
from r2fs.store import open_store
from r2fs.store.s3.grant import Wish, grant, policy
from r2fs.store.s3.session import frozen_key, open_session
from tests.mount.daemons import until
from tests.support.bodies import BytesBody
from tests.support.commands import run_r2fs
from tests.support.servers import Endpoint, Moto
from tests.support.strict import StrictR2

ACCOUNT = "0123456789abcdef0123456789abcdef"
HOST = f"{ACCOUNT}.eu.r2.cloudflarestorage.com"
PARENT = Credentials("parent-id", "parent-secret")
BUCKET = Bucket("s3", "takes", endpoint_url=f"https://{HOST}", credentials=PARENT)
NOW_S = 1_800_000_000.7


@pytest.fixture(autouse=True)
def no_aws_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def claims_of(token: str, secret: str) -> dict[str, Any]:
    """The claims of a session token of R2's, whose signature is checked."""
    text = base64.b64decode(token, validate=True).decode()
    assert text.startswith("jwt/")
    header, payload, signature = text.removeprefix("jwt/").split(".")
    assert json.loads(_plain(header)) == {"alg": "HS256", "typ": "JWT"}
    made = hmac.new(secret.encode(), f"{header}.{payload}".encode(), hashlib.sha256).digest()
    assert _plain(signature) == made
    return dict(json.loads(_plain(payload)))


def _plain(part: str) -> bytes:
    assert "=" not in part
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_r2_credentials_are_signed_here_without_a_request():
    made = grant(BUCKET, Wish("users/anna/", True, 3600), NOW_S)
    assert claims_of(made.session_token, "parent-secret") == {
        "bucket": "takes",
        "scope": "object-read-only",
        "sub": ACCOUNT,
        "iss": "parent-id",
        "aud": HOST,
        "iat": 1_800_000_000,
        "exp": 1_800_003_600,
        "paths": {"prefixPaths": ["users/anna/"], "objectPaths": []},
    }
    token = base64.b64decode(made.session_token).decode().removeprefix("jwt/")
    assert made.secret_access_key == hashlib.sha256(token.encode()).hexdigest()
    assert made.access_key_id == "parent-id"
    assert made.ends_s == token_end_s(made.session_token) == 1_800_003_600
    assert "secret" not in repr(made)
    whole = claims_of(grant(BUCKET, Wish("", False, 60), NOW_S).session_token, "parent-secret")
    assert (whole["scope"], "paths" in whole) == ("object-read-write", False)


def test_what_cannot_be_granted_says_why():
    wish = Wish("a/", True, 3600)
    for bucket, words in (
        (replace(BUCKET, credentials=replace(PARENT, session_token="t")), "temporary itself"),
        (replace(BUCKET, credentials=Credentials(anonymous=True)), "without a key"),
        (replace(BUCKET, endpoint_url="https://storage.googleapis.com"), "Google Cloud Storage has no"),
        (replace(BUCKET, endpoint_url="https://fra1.digitaloceanspaces.com"), "Spaces has no temporary"),
    ):
        with pytest.raises(Refused, match=words):
            grant(bucket, wish, NOW_S)
    with pytest.raises(Refused, match="7 days"):
        grant(BUCKET, Wish("a/", True, 604_801), NOW_S)
    with pytest.raises(Refused, match="a policy cannot name"):
        policy("takes", Wish("a*/", True, 3600))


@pytest.fixture(scope="module")
def moto() -> Iterator[Endpoint]:
    server = Moto()
    yield server.endpoint
    server.stop()


def test_elsewhere_sts_makes_them(moto: Endpoint, monkeypatch: pytest.MonkeyPatch):
    bucket = replace(moto.settings(), name="takes")
    made = grant(bucket, Wish("users/anna/", False, 900), time.time())
    assert made.session_token
    assert 600 < made.ends_s - time.time() <= 901
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    of_aws = grant(replace(bucket, endpoint_url=None), Wish("users/anna/", True, 900), time.time())
    assert of_aws.access_key_id not in (made.access_key_id, bucket.credentials.access_key_id)
    said = json.loads(policy("takes", Wish("users/anna/", True, 900)))
    assert said["Statement"][0]["Condition"] == {"StringLike": {"s3:prefix": ["users/anna/*"]}}
    assert said["Statement"][1] == {
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": ["arn:aws:s3:::takes/users/anna/*"],
    }


# ------------------------------------------------------------------ the command
def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    keys = {"R2_ACCESS_KEY_ID": "parent-id", "R2_SECRET_ACCESS_KEY": "parent-secret"}
    return {**os.environ, "HOME": str(tmp_path), "R2_ACCOUNT_ID": ACCOUNT, **keys, **more}


def test_the_variables_are_for_a_shell(tmp_path: Path):
    """The secret is on standard output alone, and the variables are those that a mount reads."""
    done = run_r2fs(
        environ(tmp_path, R2_BUCKET="takes"), "--debug", "grant", "users/anna", "--ro", "--ttl", "2h"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("r2fs mount r2://takes/users/anna DIR --read-only")
    shell = subprocess.run(
        ["sh", "-c", 'eval "$1"; echo "$R2_ACCOUNT_ID $R2_ACCESS_KEY_ID $R2_SECRET_ACCESS_KEY $R2_SESSION_TOKEN"']
        + ["sh", done.stdout],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    account, key_id, secret, token = shell.stdout.split()
    assert (account, key_id) == (ACCOUNT, "parent-id")
    claims = claims_of(token, "parent-secret")
    assert claims["paths"]["prefixPaths"] == ["users/anna/"]
    assert claims["exp"] - claims["iat"] == 7200
    for hidden in (secret, token, "parent-secret"):
        assert hidden not in done.stderr
    assert "parent-secret" not in done.stdout


def test_json_and_what_is_refused(tmp_path: Path):
    said = json.loads(run_r2fs(environ(tmp_path), "grant", "r2://takes/x y", "--json").stdout)
    assert (said["bucket"], said["prefix"], said["read_only"]) == ("takes", "x y/", False)
    assert said["mount"] == "r2fs mount 'r2://takes/x y' DIR"
    assert datetime.fromisoformat(said["expires"]).tzinfo == UTC
    assert said["variables"]["R2_SESSION_TOKEN"] == said["session_token"]
    for words, text in (
        ("/mnt/takes", "is a path"),
        ("file:///tmp", "is a directory"),
        ("a", "no bucket is named"),
    ):
        done = run_r2fs(environ(tmp_path), "grant", words)
        assert (done.returncode, text in done.stderr) == (2, True), done.stderr


def test_a_profile_runs_it_as_its_credential_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in environ(tmp_path).items():
        monkeypatch.setenv(name, value)
    words = f"{sys.executable} -m r2fs grant r2://takes/anna --ro --credential-process"
    (tmp_path / "config").write_text(f"[profile anna]\ncredential_process = {words}\n")
    found = frozen_key(open_session(Credentials(profile="anna")))
    assert found is not None
    assert claims_of(found.token or "", "parent-secret")["scope"] == "object-read-only"


def test_credentials_of_a_command_are_renewed_before_they_end(tmp_path: Path):
    """A command's credentials, with an end: the store signs with new ones, and no request is refused."""
    current = tmp_path / "current.json"
    (tmp_path / "config").write_text(f"[profile studio]\ncredential_process = cat {current}\n")

    def give(key_id: str, token: str, seconds: float) -> None:
        end = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
        keys = {"AccessKeyId": key_id, "SecretAccessKey": "s", "SessionToken": token, "Expiration": end}
        current.write_text(json.dumps({"Version": 1, **keys}))

    with StrictR2() as r2:
        settings = replace(r2.endpoint.settings(), credentials=Credentials(profile="studio"))
        give("one", "token-one", 300)  # botocore asks again in the last ten minutes
        r2.keys = {"one": "token-one"}
        store = open_store(settings, SystemClock())
        try:
            store.put("a", BytesBody(b"1"), ObjectMeta())
            give("two", "token-two", 3600)
            r2.keys = {"two": "token-two"}
            assert store.head("a").size == 1
            assert sum(r2.refusals.values()) == 0
        finally:
            store.close()
        assert r2.faults == []


# ------------------------------------------------------------------ --renew
@pytest.fixture
def signals_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granting.signal, "pthread_sigmask", lambda how, mask: set())


def test_a_renewed_file_is_always_whole_and_private(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signals_as_before: None,
    capsys: pytest.CaptureFixture[str],
):
    """Written at once, after a quarter of the life, and soon after a failure; the last credentials stay meanwhile."""
    file, seen, waits = tmp_path / "grants.json", [], []
    answers: Iterator[str | Exception] = iter(["one", Refused("the service is away"), "two"])

    def make() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        seen.append(file.read_text())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        return len(waits) == 3

    monkeypatch.setattr(granting, "_stopped_within", wait)
    granting.renew(make, file, 3600)
    assert seen == ["one", "one", "two"]
    assert waits == [900, granting.RETRY_S, 900]
    assert "the service is away" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_first_grant_of_a_renewal_must_succeed(tmp_path: Path, signals_as_before: None):
    def refuse() -> str:
        raise Refused("no")

    with pytest.raises(Refused):
        granting.renew(refuse, tmp_path / "grants.json", 3600)
    with pytest.raises(DirectoryUnusable, match="cannot be written"):
        granting.renew(lambda: "{}", tmp_path / "nix" / "grants.json", 3600)


def test_renew_ends_by_a_signal_and_leaves_the_file(tmp_path: Path):
    file = tmp_path / "grants.json"
    words = ("grant", "r2://takes/anna", "--renew", file)
    process = subprocess.Popen([sys.executable, "-m", "r2fs", *words], env=environ(tmp_path))
    until("a grant", file.exists)
    process.terminate()
    assert process.wait(30) == 0
    made = json.loads(file.read_text())
    assert set(made) == {"Version", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"}
    assert claims_of(made["SessionToken"], "parent-secret")["paths"]["prefixPaths"] == ["anna/"]
    done = run_r2fs(environ(tmp_path), *words, "--ttl", "19m")
    assert (done.returncode, "--ttl is 20m or more" in done.stderr) == (2, True), done.stderr
