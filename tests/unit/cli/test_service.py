"""`r2fs service`, `r2fs completion`, `r2fs --version`, and the man pages, without a systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from r2fs.cli import service, version
from r2fs.daemon import installation
from scripts.lib import man


@pytest.fixture
def as_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As an ordinary user with a settings file, on a machine without systemd."""
    monkeypatch.setattr(service, "BOOTED", home / "nowhere")
    monkeypatch.setattr(service, "_place", lambda: installation.user_place(os.environ, home))
    config = home / ".config" / "r2fs" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        '[mount.takes]\nurl = "s3://studio"\nmountpoint = "/mnt/takes"\n[mount.bare]\nurl = "s3://b"\n'
    )
    config.chmod(0o600)
    return config


def test_install_writes_unit_and_key_and_says_which(r2fs, as_user: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("R2_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "a-s3cret-of-takes")
    monkeypatch.setenv("R2FS_LOCAL_PATTERNS", "*.tmp,*.part")
    said = r2fs("service", "install", "takes", "--no-start")
    assert said.code == 0
    assert "a-s3cret" not in said.out + said.err
    text = (as_user.parent / "takes.env").read_text()
    assert 'R2FS_SECRET_ACCESS_KEY="a-s3cret-of-takes"' in text
    assert 'R2FS_LOCAL_PATTERNS="*.tmp,*.part"' in text
    assert f"{as_user.parent / 'takes.env'}: written" in said.out
    again = r2fs("service", "install", "takes")
    assert again.code == 8
    assert "systemd does not run here" in again.err
    removed = r2fs("service", "remove", "takes")
    assert removed.code == 0
    assert f"{as_user.parent / 'takes.env'}: removed" in removed.out
    assert as_user.exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [("nosuch", "has no [mount.nosuch]"), ("bare", "needs a mountpoint"), ("../etc", "no mount's name")],
)
def test_what_cannot_be_a_service_is_told_before_anything_is_written(
    r2fs, as_user: Path, name: str, says: str
):
    said = r2fs("service", "install", name)
    assert said.code == 2
    assert says in said.err
    assert [path.name for path in as_user.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(r2fs, shell: str):
    said = r2fs("completion", shell)
    assert said.code == 0
    assert f"{shell}_complete" in said.out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=said.out, text=True).returncode == 0


def test_completion_by_bash(r2fs, repo_root: Path, tmp_path: Path):
    program = tmp_path / "bin" / "r2fs"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nPYTHONPATH={repo_root} exec {sys.executable} -c 'from r2fs.cli.main import main; main()' \"$@\"\n"
    )
    program.chmod(0o755)
    script = tmp_path / "completion"
    script.write_text(r2fs("completion", "bash").out)
    ask = f'. {script}; COMP_WORDS=(r2fs doc); COMP_CWORD=1; _r2fs_completion r2fs; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", ask],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
    )
    assert done.stdout.split() == ["doctor"], done


def test_the_version_says_the_commit_if_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(version, "PACKAGE", tmp_path / "r2fs")
    monkeypatch.setattr(version, "BUILT", tmp_path / "r2fs" / "_commit")
    assert "commit" not in version.text()
    (tmp_path / "r2fs").mkdir()
    (tmp_path / "r2fs" / "_commit").write_text("0123456789ab\n")
    assert version.text().endswith(" (commit 0123456789ab)")


def test_the_version_of_a_clone_is_its_commit(repo_root: Path):
    if not (repo_root / ".git").exists():
        assert version.commit() is None  # an archive
    else:
        assert re.fullmatch(r"[0-9a-f]{12,}", version.commit() or "")


def test_man_pages_say_what_the_help_says(tmp_path: Path):
    pages = man.pages()
    assert {"r2fs.1", "r2fs-mount.1", "r2fs-service-install.1", "mount.r2fs.8"} <= set(pages)
    for name, text in pages.items():
        assert text.startswith(".TH "), name
        for line in text.splitlines():
            assert not line.startswith("'"), (name, line)
            assert not line.startswith(".") or re.match(r"\.(TH|SH|TP|PP|BR?|nf|fi)\b", line), (name, line)
    assert "\\-\\-write\\-test" in pages["r2fs-doctor.1"]
    assert "cache_size" in pages["mount.r2fs.8"]
    assert ".B 75\n" in pages["r2fs.1"]
    # paragraphs are filled, and examples stay as they are
    assert "\n.nf\nExamples:\n  eval " in pages["r2fs-grant.1"]
    assert "reach only a prefix of a bucket.\n.SH SYNOPSIS" in pages["r2fs-grant.1"]
    assert not re.search(r"^    PREFIX is", pages["r2fs-grant.1"], re.MULTILINE)


def test_the_remedies_of_a_missing_settings_file_and_of_nothing_to_remove(
    r2fs, as_user: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    assert "no file of it to remove" in r2fs("service", "remove", "takes").out
    monkeypatch.setattr(service, "_place", installation.system_place)
    file = home / "etc" / "config.toml"
    assert f"r2fs config init --config {file} writes one" in r2fs("service", "install", "takes").err


@pytest.mark.parametrize(
    ("shell", "words", "shown"),
    [
        ("bash", 'eval "$(r2fs completion bash)"; complete -p r2fs', "complete -o nosort -F _r2fs_completion r2fs\n"),
        ("zsh", 'autoload -Uz compinit; compinit -u -D; eval "$(r2fs completion zsh)"; print $_comps[r2fs]', "_r2fs_completion\n"),
        ("fish", 'r2fs completion fish | source; complete -C "r2fs umo"', "umount\t"),
    ],
)  # fmt: skip
def test_each_shell_loads_its_completion(tmp_path: Path, repo_root: Path, shell: str, words: str, shown: str):
    assert shutil.which(shell), f"{shell} is not installed here: scripts/test installs it"
    program = tmp_path / "r2fs"
    lines = (
        "import sys",
        f"sys.path.insert(0, {str(repo_root)!r})",
        "from r2fs.cli.main import main",
        "main()",
    )
    program.write_text("\n".join((f"#!{sys.executable}", *lines, "")))
    program.chmod(0o755)
    environ = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [shell, "-fc" if shell == "zsh" else "-c", words],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(shown), done.stdout
