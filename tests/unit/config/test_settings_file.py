"""The template: every setting is in it, and what it shows as default is the default."""

from __future__ import annotations

import re
import stat
import tomllib

import pytest

from r2fs.model.errors import SettingsError
from r2fs.model.settings.options import BY_NAME, TABLE
from r2fs.model.settings.program_rules import KINDS
from r2fs.model.settings.settings_file import read, template, write_template
from r2fs.model.settings.sources import gather


def test_the_template_is_toml_and_changes_nothing(tmp_path):
    path = tmp_path / "sub" / "config.toml"
    write_template(path)
    assert tomllib.loads(path.read_text()) == {}
    environ = {"HOME": "/nonexistent"}
    fresh, named = gather(environ=environ), gather(environ=environ, config_file=path)
    assert {o.name: fresh.shown(o) for o in TABLE} == {o.name: named.shown(o) for o in TABLE}


def test_the_template_holds_every_setting_with_its_default(tmp_path):
    values = re.findall(r"^# ([a-z0-9_]+) = (.+)$", template().split("# ---- One table")[0], re.MULTILINE)
    assert set(re.findall(r"^# ([a-z0-9_]+) =", template(), re.MULTILINE)) == set(BY_NAME) | set(KINDS)
    uncommented = "\n".join(f"{name} = {value}" for name, value in values)
    path = tmp_path / "config.toml"
    path.write_text(uncommented)
    read_back = gather(environ={"HOME": "/nonexistent"}, config_file=path)
    for name, _ in values:
        assert read_back.get(name) == BY_NAME[name].default, name


def test_a_file_is_never_overwritten(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("mine")
    with pytest.raises(SettingsError, match="not overwritten"):
        write_template(path)
    assert path.read_text() == "mine"


def test_the_template_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "config.toml"
    write_template(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_where_a_file_cannot_be_written():
    with pytest.raises(SettingsError, match="cannot be written"):
        write_template(BY_NAME["cache_dir"].kind.parse("/proc/none/config.toml"))  # type: ignore[arg-type]


def test_lines_are_found_in_odd_files(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        '# url = "no"\n\n[ mount . a ] # here\n  url = "file:///a"\n[mount."b"]\n"url" = "file:///b"\n'
        'local_patterns = [\n  "*.x",\n]\n\n[mount]\nc.url = "file:///c"\n'.replace("[mount]\n", "").replace(
            "c.url", "[mount.c]\nurl"
        )
    )
    mounts = read(path, must_exist=True).mounts
    where = {name: values["url"].where for name, values in mounts.items()}
    assert where == {
        "a": f"{path}:4 [mount.a]",
        "b": f"{path}:6 [mount.b]",
        "c": f"{path}:12 [mount.c]",
    }


def test_a_directory_for_a_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read(tmp_path, must_exist=True)
