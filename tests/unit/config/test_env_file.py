"""Files of variables, as `.env`: their syntax, their place among the sources, and what they never do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r2fs.model.errors import SettingsError
from r2fs.model.settings.env_file import parse
from r2fs.model.settings.loading import load
from r2fs.model.settings.sources import Flag, gather

TEXT = """\
# storage of the worker
STORAGE_ENDPOINT_URL=https://account.r2.cloudflarestorage.com   # with the account
export STORAGE_BUCKET_NAME = "my bucket \\"x\\"\\n"
STORAGE_SECRET_ACCESS_KEY='a#b "c"'

EMPTY=
HASH=a#b
COMMENT= # nothing
"""


def test_lines_of_every_form():
    assert parse(TEXT, ".env") == {
        "STORAGE_ENDPOINT_URL": "https://account.r2.cloudflarestorage.com",
        "STORAGE_BUCKET_NAME": 'my bucket "x"\n',
        "STORAGE_SECRET_ACCESS_KEY": 'a#b "c"',
        "EMPTY": "",
        "HASH": "a#b",
        "COMMENT": "",
    }
    assert parse("\ufeffA=1\r\nA=2\r\n", ".env") == {"A": "2"}


@pytest.mark.parametrize("line", ["no assignment", "A B=1", "1A=x", 'A="open', "A='open", 'A="x" y'])
def test_a_wrong_line_is_named_without_its_text(line):
    with pytest.raises(SettingsError, match=r"x\.env, line 2: not KEY=VALUE") as caught:
        parse(f"OK=1\n{line}\n", "x.env")
    assert line not in str(caught.value)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def env(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


WORKER = (
    "STORAGE_ENDPOINT_URL=https://s3.example.com",
    "STORAGE_ACCESS_KEY_ID=id",
    "STORAGE_SECRET_ACCESS_KEY=secret",
    "STORAGE_BUCKET_NAME=music",
    "R2FS_CACHE_DIR=cache",
)


def test_m3_its_variables_count_as_variables(tmp_path, home):
    """M3: by a flag, or R2FS_ENV_FILE; relative paths in it are relative to it."""
    path = env(tmp_path / "app.env", *WORKER)
    for found in (
        load(None, environ=home, flags={"env_file": Flag(str(path), "flag --env-file")}),
        load(None, environ={**home, "R2FS_ENV_FILE": str(path)}),
    ):
        assert (found.bucket.name, found.bucket.endpoint_url) == ("music", "https://s3.example.com")
        assert found.bucket.credentials.secret_access_key == "secret"
        assert found.cache_dir.parent == tmp_path / "cache"
    source = gather(environ={**home, "R2FS_ENV_FILE": str(path)}).source("bucket")
    assert source == f"variable STORAGE_BUCKET_NAME of {path}"


def test_variables_of_the_process_are_stronger(tmp_path, home):
    path = env(tmp_path / "app.env", *WORKER, "STORAGE_REGION=far")
    values = gather(
        environ={**home, "R2FS_ENV_FILE": str(path), "STORAGE_REGION": "near", "STORAGE_ACCESS_KEY_ID": ""}
    )
    assert (values.get("region"), values.source("region")) == ("near", "variable STORAGE_REGION")
    assert values.get("access_key_id") == "id"


def test_t2_one_configuration_for_each_environment(tmp_path, home):
    """T2: a mount of the settings file for each, with a bucket and a file of keys of its own."""
    env(tmp_path / "dev.env", "R2_ACCESS_KEY_ID=dev", "R2_SECRET_ACCESS_KEY=d", "R2_ACCOUNT_ID=acc")
    env(tmp_path / "live.env", "R2_ACCESS_KEY_ID=live", "R2_SECRET_ACCESS_KEY=l", "R2_ACCOUNT_ID=acc")
    file = env(
        tmp_path / "config.toml",
        '[mount.dev]\nurl = "r2://tts-dev"\nenv_file = "dev.env"',
        '[mount.live]\nurl = "r2://tts-audio-results"\nenv_file = "live.env"',
    )
    for name, bucket in (("dev", "tts-dev"), ("live", "tts-audio-results")):
        found = load(name, environ=home, config_file=file)
        assert (found.bucket.name, found.bucket.credentials.access_key_id) == (bucket, name)


def test_no_env_file_is_read_unasked(tmp_path, home, monkeypatch):
    env(tmp_path / ".env", *WORKER)
    monkeypatch.chdir(tmp_path)
    assert gather(environ=home).get("bucket") is None


def test_what_cannot_be_read_is_an_error(tmp_path, home):
    for path, text in ((tmp_path / "none", "cannot be read"), (tmp_path, "cannot be read")):
        with pytest.raises(SettingsError, match=text):
            gather(environ={**home, "R2FS_ENV_FILE": str(path)})
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"A=\xff")
    with pytest.raises(SettingsError, match="not UTF-8"):
        gather(environ={**home, "R2FS_ENV_FILE": str(wrong)})


@pytest.mark.expect_warnings("every user can read it")
def test_a_readable_file_with_a_secret_is_warned_of(tmp_path, home, caplog):
    path = env(tmp_path / "app.env", *WORKER)
    path.chmod(0o644)
    gather(environ={**home, "R2FS_ENV_FILE": str(path)})
    assert f"{path} holds secret_access_key" in caplog.text
    assert "=secret" not in caplog.text
    os.chmod(path, 0o600)
