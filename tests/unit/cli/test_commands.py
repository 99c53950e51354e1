"""The door: version, help, one-sentence errors, exit codes; `config`; what is imported."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import pytest

from r2fs import __version__
from r2fs.cli import main as door
from r2fs.model.errors import R2fsError, StateLocked
from r2fs.model.settings.options import TABLE


def test_version_and_help(r2fs):
    assert re.fullmatch(
        rf"r2fs {re.escape(__version__)}( \(commit [0-9a-f]{{12,}}\))?\nLinux [^\n]+\n", r2fs("--version").out
    )
    said = r2fs("--help")
    assert said.code == 0
    assert [name in said.out for name in door.COMMANDS] == [True] * len(door.COMMANDS)
    for name in door.COMMANDS:
        assert r2fs(name, "--help").code == 0


def test_every_setting_that_may_be_a_flag_is_one(r2fs):
    words = r2fs("mount", "--help").out.split()
    for option in TABLE:
        assert (option.flag_name in words) is (option.flag and not option.secret), option.name


@pytest.mark.parametrize(
    "words",
    [
        ["dance"],
        ["mount"],
        ["mount", "--nonsense", "x"],
        ["umount"],
        ["status", "a", "b"],
        ["config", "dance"],
        ["mount", "file:///b", "/mnt", "--cache-size"],
        ["mount", "file:///b", "/mnt", "--cache-size", "big"],
        ["mount", "nosuch", "/mnt"],
        ["mount", "r2://b", "/mnt"],
        ["mount", "file:///b"],
    ],
)
def test_wrong_usage_is_one_sentence(r2fs, words):
    said = r2fs(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("r2fs: ")
    assert said.err.count("\n") == 1


class Broken:
    def __init__(self, error):
        self.error = error

    def main(self, *args, **given):
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StateLocked("the state is locked"), 7, "r2fs: the state is locked\n"),
        (R2fsError("two\nlines \x1b[1m"), 1, "r2fs: two lines \\x1b[1m\n"),
        (KeyboardInterrupt(), 130, "r2fs: interrupted\n"),
        (
            ZeroDivisionError("x"),
            70,
            "r2fs: unexpected error: ZeroDivisionError('x') (with --debug: where)\n",
        ),
    ],
)
def test_errors_are_one_sentence_and_a_code(r2fs, monkeypatch, error, code, said):
    monkeypatch.setattr(door, "cli", Broken(error))
    found = r2fs("status")
    assert (found.code, found.out, found.err) == (code, "", said)


@pytest.mark.expect_warnings("unexpected error")
def test_a_defect_shows_its_traceback_with_debug(r2fs, monkeypatch, caplog):
    monkeypatch.setattr(door, "cli", Broken(ZeroDivisionError("x")))
    assert r2fs("--debug", "status").code == 70
    assert "Traceback" in caplog.text


def test_a_pipe_that_is_closed(repo_root):
    done = subprocess.run(
        f"{sys.executable} -m r2fs config show | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode in (0, 1, 141)  # all was taken, click noticed, or the last flush did


def test_called_as_a_mount_helper(r2fs):
    assert r2fs("takes", "/mnt", "-f", program="mount.r2fs").code == 0
    said = r2fs("takes", "/mnt", "-o", "rw,_netdev", program="mount.fuse.r2fs")
    assert said.err.startswith("r2fs: 'takes' is neither a URL")
    assert r2fs("takes", "/mnt", "-o", "rw").err == said.err


# ------------------------------------------------------------------ config
def test_init_path_and_show(r2fs, home):
    path = home / ".config" / "r2fs" / "config.toml"
    assert r2fs("config", "path").out == f"{path}\n"
    assert r2fs("config", "init").out == f"{path}\n"
    said = r2fs("config", "init")
    assert said.code == 2
    assert "not overwritten" in said.err
    other = home / "other.toml"
    assert r2fs("config", "init", "--config", other).code == 0
    assert other.exists()
    assert f"# settings file: {path}\n" in r2fs("config", "show").out


def test_show_tells_value_and_source(r2fs, home, monkeypatch):
    path = home / "c.toml"
    path.write_text('cache_size = "1GiB"\n[mount.takes]\nurl = "r2://studio"\nfreshness = "1m"\n')
    monkeypatch.setenv("R2FS_CONFIG", str(path))
    monkeypatch.setenv("R2_ACCOUNT_ID", "acc")
    monkeypatch.setenv("R2_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "geheim")
    said = r2fs("config", "show", "takes", "--part-size", "8M", "-o", "ro")
    assert said.code == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in said.out.splitlines() if line.strip()}
    assert rows["url"] == f'"r2://studio" {path}:3 [mount.takes]'
    assert rows["cache_size"] == f'"1GiB" {path}:1'
    assert rows["freshness"] == f'"1m" {path}:4 [mount.takes]'
    assert rows["account_id"] == '"acc" variable R2_ACCOUNT_ID'
    assert rows["part_size"] == '"8MiB" flag --part-size'
    assert rows["read_only"] == "true option -o ro"
    assert rows["upload_threads"] == "16 default"
    assert rows["secret_access_key"] == "(hidden) variable R2_SECRET_ACCESS_KEY"
    assert rows["endpoint"].startswith("https://acc.r2.cloudflarestorage.com")
    assert "geheim" not in said.out
    data = r2fs("config", "show", "takes", "--json")
    assert "geheim" not in data.out
    assert data.json["mounts"] == ["takes"]
    assert data.json["settings"]["cache_size"] == {"value": 1 << 30, "source": f"{path}:1"}
    assert set(data.json["settings"]) == {option.name for option in TABLE}


def test_show_tells_what_a_bucket_has_of_its_own(r2fs, home):
    path = home / "c.toml"
    path.write_text('[buckets.books]\nread_only = true\nsecret_access_key = "geheim"\naccess_key_id = "id"\n')
    path.chmod(0o600)
    said = r2fs("config", "show", "s3://books+texts", "--config", path)
    rows = [" ".join(line.split()) for line in said.out.splitlines()]
    assert f"books: read_only true {path}:2 [buckets.books]" in rows
    assert f"books: secret_access_key (hidden) {path}:3 [buckets.books]" in rows
    assert "mounts s3://books+texts derived from these" in rows
    data = r2fs("config", "show", "s3://books+texts", "--json", "--config", path)
    assert data.json["buckets"]["books"]["read_only"] == {
        "value": True,
        "source": f"{path}:2 [buckets.books]",
    }
    assert "geheim" not in said.out + data.out


def test_show_of_values_that_make_no_mount_says_why(r2fs):
    said = r2fs("config", "show", "r2://studio")
    assert said.code == 0
    assert "r2:// needs the Cloudflare account" in said.out


def test_show_of_a_wrong_value(r2fs, monkeypatch):
    monkeypatch.setenv("R2FS_DRIVER", "fast")
    said = r2fs("config", "show")
    assert said.code == 2
    assert said.err == (
        "r2fs: driver: 'fast' is none of them (variable R2FS_DRIVER); allowed: auto, kernel, libfuse, libfuse2\n"
    )


# ------------------------------------------------------------------ imports
def test_commands_that_only_ask_are_light(repo_root, home):
    code = textwrap.dedent(
        """
        import sys
        from r2fs.cli.main import run
        from r2fs.model.settings import places
        places.ROOT_STATES = ()  # what this machine's root has left there is no matter of this test
        for words in ("status /", "flush", "umount /", "config show", "config path"):
            run("r2fs", words.split())
        heavy = {"boto3", "botocore", "diskcache", "mfusepy", "fuse", "sqlite3"} & set(sys.modules)
        ours = {name for name in sys.modules if name.startswith(("r2fs.store", "r2fs.engine", "r2fs.disk"))}
        assert not heavy | ours, heavy | ours
        """
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, check=True, stdout=subprocess.DEVNULL, timeout=60
    )
