"""What people type first, and wrongly: help as help, near names, options that are given twice, plain locales."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import pytest

from r2fs.cli import usage
from r2fs.cli.main import COMMANDS, SECTIONS, main


@pytest.mark.parametrize(("words", "heads"), [((), "Usage: r2fs "), (("config",), "Usage: r2fs config ")])
def test_without_a_command_the_help_looks_like_help(r2fs, words, heads):
    said = r2fs(*words)
    shown = said.out + said.err
    assert said.code in (0, 2)
    assert shown.startswith(heads)
    assert shown.count("\n") > 8
    assert ("\nCommands:\n" if words else "\nMount and set up:\n") in shown


def test_the_help_lists_every_command_once_under_the_headings_of_the_readme(r2fs, repo_root):
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)
    readme = (repo_root / "README.md").read_text()
    assert [f"\n### {title}\n" in readme for title in SECTIONS] == [True] * len(SECTIONS)
    shown = r2fs("--help").out
    assert [len(re.findall(rf"^  {name} ", shown, re.MULTILINE)) for name in COMMANDS] == [1] * len(COMMANDS)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["unmount"], "r2fs umount"),
        (["list"], "r2fs ls"),
        (["version"], "r2fs --version"),
        (["help"], "r2fs --help"),
        (["moutn"], "r2fs mount"),
        (["Status"], "r2fs status"),
        (["sync"], "r2fs flush"),
        (["config", "shwo"], "r2fs config show"),
        (["config", "help"], "r2fs config --help"),
    ],
)
def test_a_command_that_there_is_not_names_the_one_that_is_meant(r2fs, typed, meant):
    said = r2fs(*typed)
    assert said.code == 2
    assert f"is {meant}" in said.err
    assert said.err.count("\n") == 1


def test_a_name_that_is_like_none_names_none(r2fs):
    assert r2fs("xyzzy").err == "r2fs: there is no command 'xyzzy' (r2fs --help has more)\n"


def test_what_other_tools_call_a_command_leads_to_one_that_there_is():
    assert {name for name in usage.CALLED_OTHERWISE.values() if not name.startswith("--")} <= set(COMMANDS)
    assert not set(usage.CALLED_OTHERWISE) & set(COMMANDS)


# ------------------------------------------------------------------ twice
@pytest.mark.parametrize(
    "words",
    [
        ("mount", "--region", "a", "--region", "b", "r2://", "/mnt"),
        ("mount", "--cache-size=1G", "file:///b", "/mnt", "--cache-size", "1G"),
        ("mount", "--read-only", "--no-read-only", "file:///b", "/mnt"),
        ("config", "show", "--region", "a", "--region", "b"),
        ("config", "show", "--config", "a", "--config", "b"),
        ("flush", "--timeout", "1s", "--timeout", "2s"),
        ("umount", "--timeout", "1s", "/x", "--timeout", "2s"),
    ],
)
def test_an_option_that_is_given_twice_is_an_error(r2fs, words):
    said = r2fs(*words)
    assert said.code == 2
    assert "is given 2 times: give it once" in said.err


def test_o_may_be_repeated_and_its_later_word_is_stronger_as_for_mount(r2fs):
    said = r2fs("config", "show", "--json", "-o", "cache_size=1G", "-o", "ro,cache_size=2G")
    assert said.json["settings"]["cache_size"]["value"] == 2 << 30
    assert said.json["settings"]["read_only"]["value"] is True
    assert r2fs("flush", "--wait", "--wait", "--json").code == 0


# ------------------------------------------------------------------ what is said of a target
@pytest.mark.parametrize("path", ["/srv/bucket", "./bucket", "../b"])
def test_a_path_is_told_the_url_of_a_directory(r2fs, path):
    said = r2fs("mount", path, "/mnt")
    assert said.code == 2
    assert f"file://{os.path.abspath(path)}" in said.err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("file:/srv/bucket", "is file:///srv/bucket meant?"),
        ("r2:my-bucket", "is r2://my-bucket meant?"),
        ("r2:/my-bucket/takes", "is r2://my-bucket/takes meant?"),
        ("S3//my-bucket", "is s3://my-bucket meant?"),
        ("https://abc.r2.cloudflarestorage.com/b", "endpoint_url (--endpoint-url)"),
    ],
)
def test_what_is_almost_a_url_is_told_the_url_that_is_meant(r2fs, typed, meant):
    said = r2fs("mount", typed, "/mnt")
    assert said.code == 2
    assert meant in said.err


def test_a_mount_of_nothing_is_told_how_it_is_given(r2fs):
    said = r2fs("mount")
    assert said.code == 2
    assert "as in r2fs mount r2://BUCKET DIR" in said.err


def test_without_an_endpoint_the_way_without_a_server_is_named(r2fs, monkeypatch):
    """As where STORAGE_ENDPOINT_URL is not set on a developer's machine."""
    for name in list(os.environ):
        if name.startswith(("R2_", "STORAGE_", "AWS_", "R2FS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STORAGE_BUCKET_NAME", "audio")
    for words in (("mount", "r2://audio", "/mnt"), ("mount", "r2://", "/mnt"), ("mount", "/mnt")):
        said = r2fs(*words)
        assert said.code == 2
        assert "file:///DIRECTORY" in said.err


# ------------------------------------------------------------------ locales
@pytest.fixture
def in_a_locale(monkeypatch):
    """in_a_locale("ascii", "status", …) → exit code, standard output and standard error of the console script."""

    def _in_a_locale(encoding: str, *words: object) -> tuple[object, bytes, bytes]:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", out)
            patched.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as ended:
                main([*map(str, words)])
        return ended.value.code, out.buffer.getvalue(), err.buffer.getvalue()

    return _in_a_locale


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_tables_and_names_in_a_locale_without_unicode(in_a_locale, home, encoding):
    path = home / "c.toml"
    path.write_text('[mount.t]\nurl = "file:///srv/ä…音"\n', encoding="utf-8")
    code, out, err = in_a_locale(encoding, "config", "show", "t", "--config", path)
    assert (code, err) == (0, b"")
    text = out.decode(encoding)
    assert "\n------" in text
    assert "\\u2026\\u97f3" in text  # exactly, and not as something that is another name
    assert ("ä" in text) is (encoding == "iso-8859-1")
    _, out, _ = in_a_locale(encoding, "config", "show", "t", "--json", "--config", path)
    assert json.loads(out.decode(encoding))["settings"]["url"]["value"] == "file:///srv/ä…音"


@pytest.mark.parametrize(
    "words", [["--help"], ["umount", "--help"], ["flush", "--help"], ["mount", "音", "/mnt"]]
)
def test_no_output_ends_by_an_encoding(in_a_locale, words):
    code, out, err = in_a_locale("ascii", *words)
    assert code in (0, 2)
    assert b"UnicodeEncodeError" not in err
    assert b"\\u2026" not in out  # our own words are plain


# ------------------------------------------------------------------ warnings before there is a log
@pytest.mark.parametrize("overruled", [{}, {"R2_ACCESS_KEY_ID": "k", "R2_SECRET_ACCESS_KEY": "other-other"}])
def test_a_warning_says_that_it_is_one(repo_root, home, overruled):
    path = home / "c.toml"
    path.write_text('access_key_id = "id"\nsecret_access_key = "geheim-geheim"\n')
    path.chmod(0o644)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("R2_", "AWS_", "STORAGE_", "R2FS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "r2fs", "config", "show", "--config", path],
        cwd=repo_root, env={**environ, "HOME": str(home), **overruled}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert (
        done.stderr
        == f"r2fs: warning: {path} holds secret_access_key and every user can read it: chmod 600 it\n"
    )


# ------------------------------------------------------------------ completion
def completed(*words: str) -> list[str]:
    from click.shell_completion import BashComplete

    from r2fs.cli.main import cli

    *before, last = words
    found = BashComplete(cli, {}, "r2fs", "_R2FS_COMPLETE").get_completions(before, last)
    return [f"{item.type},{item.value}" for item in found]


def test_a_shell_completes_commands_names_and_paths(home):
    (home / ".config" / "r2fs").mkdir(parents=True)
    (home / ".config" / "r2fs" / "config.toml").write_text('[mount.takes]\nurl = "file:///b"\n')
    assert completed("um") == ["plain,umount"]
    assert completed("mount", "ta") == ["plain,takes"]
    assert completed("mount", "/m") == ["dir,/m"]
    for command in ("umount", "status", "flush", "restart"):
        assert completed(command, "/st") == ["file,/st"]
    assert completed("mount", "--cache-dir", "/c") == ["file,/c"]


def test_parsing_a_command_looks_at_no_path(monkeypatch):
    """On a mount that nobody serves stat(2) would hang: `r2fs mount` has to come to taking it over."""
    import click

    from r2fs.cli.main import COMMANDS, cli

    words = {
        "mount": ["takes", "/mnt/t", "--cache-dir", "/mnt/t/c"],
        "config": ["show", "/mnt/t"],
        "completion": ["bash"],
    }
    context = click.Context(cli, info_name="r2fs", obj={"debug": False})
    commands = {name: cli.get_command(context, name) for name in COMMANDS}
    asked: list[object] = []
    with monkeypatch.context() as patched:
        for call in ("stat", "lstat", "access"):
            patched.setattr(os, call, lambda path, *given, **named: asked.append(os.fspath(path)))
        for name, command in commands.items():
            assert command is not None
            command.make_context(name, words.get(name, ["/mnt/t/a"]), parent=context)
    assert [path for path in asked if str(path).startswith("/mnt/t")] == []
    parameters = [p for name in COMMANDS for p in getattr(commands[name], "params", ())]
    looking = [p.name for p in parameters if isinstance(p.type, click.Path) and p.name != "config_file"]
    assert looking == []
