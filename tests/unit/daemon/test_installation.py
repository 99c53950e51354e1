"""Files of a service: what is written, with which mode, and that nothing of another's is touched."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from r2fs.daemon import installation
from r2fs.daemon.installation import MARK, Place
from r2fs.model.errors import DirectoryUnusable

KEY = {"access_key_id": "ID", "secret_access_key": 's3cret"$`\\'}


@pytest.fixture(params=["system", "user"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "system":
        return installation.system_place(tmp_path)
    return installation.user_place({}, tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_unit_names_the_program(place: Place):
    path, written = installation.write_unit(place, ["/opt/r 2/bin/r2fs"])
    assert written
    assert mode(path) == 0o644
    text = path.read_text()
    assert text.startswith(MARK)
    (start,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    assert start.startswith('ExecStart="/opt/r 2/bin/r2fs" mount ')
    assert start.endswith("%i")


def test_the_unit_of_a_package_is_used(tmp_path: Path):
    place = installation.system_place(tmp_path)
    installation.write_unit(place, ["/opt/r2fs/bin/r2fs"])  # before there was a package
    place.packaged.mkdir(parents=True)
    (place.packaged / "r2fs@.service").write_text("[Unit]\n")
    found = installation.write_unit(place, [installation.PACKAGED_PROGRAM])
    assert found == (place.packaged / "r2fs@.service", False)
    assert not (place.units / "r2fs@.service").exists()
    assert installation.write_unit(place, ["/opt/r2fs/bin/r2fs"])[1]  # another program needs its own


def test_a_unit_of_somebody_elses_stays(place: Place):
    place.units.mkdir(parents=True)
    (place.units / "r2fs@.service").write_text("[Unit]\n")
    assert installation.write_unit(place, ["r2fs"]) == (place.units / "r2fs@.service", False)
    place.config.mkdir(parents=True)
    place.environment_file("takes").write_text("MINE=1\n")
    installation.write_credentials(place, "takes", KEY, {"region": "auto"})
    installation.remove(place, "takes")
    assert (place.units / "r2fs@.service").read_text() == "[Unit]\n"
    assert place.environment_file("takes").read_text() == "MINE=1\n"


def test_keys_are_in_private_files_alone(place: Place):
    files = installation.write_credentials(place, "takes", KEY, {"account_id": "0f" * 16})
    for path in files:
        assert mode(path) == 0o600
    text = place.environment_file("takes").read_text()
    assert ("s3cret" in text) == place.for_user
    assert f'R2FS_ACCOUNT_ID="{"0f" * 16}"' in text
    if not place.for_user:
        assert place.credential("takes", "secret_access_key").read_text() == KEY["secret_access_key"]


def test_an_environment_file_is_read_back_as_it_was_written(tmp_path: Path):
    """A shell's double quotes have the same escapes as systemd's."""
    place = installation.user_place({}, tmp_path)
    installation.write_credentials(place, "takes", KEY, {})
    script = f'. "{place.environment_file("takes")}"; printf %s "$R2FS_SECRET_ACCESS_KEY"'
    assert (
        subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
        == KEY["secret_access_key"]
    )


def test_without_variables_there_is_nothing_to_write(place: Place):
    assert installation.write_credentials(place, "takes", {}, {}) == []
    assert not place.config.exists()


def test_remove_takes_what_install_wrote(place: Place, tmp_path: Path):
    unit, _ = installation.write_unit(place, ["r2fs"])
    files = installation.write_credentials(place, "takes", KEY, {"region": "auto"})
    wants = place.units / "multi-user.target.wants"
    wants.mkdir()
    (wants / "r2fs@books.service").symlink_to(unit)
    assert set(installation.remove(place, "takes")) == set(files)
    assert unit.exists()  # books needs it
    (wants / "r2fs@books.service").unlink()
    assert installation.remove(place, "takes") == [unit]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_directory_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "etc").write_text("")
    with pytest.raises(DirectoryUnusable, match="cannot be written"):
        installation.write_unit(installation.system_place(tmp_path), ["r2fs"])


def test_a_link_in_the_place_of_the_new_file_is_not_followed(tmp_path: Path):
    place = installation.user_place({}, tmp_path)
    place.config.mkdir(parents=True)
    victim = tmp_path / "victim"
    os.symlink(victim, place.config / ".takes.env.new")
    installation.write_credentials(place, "takes", KEY, {})
    assert not victim.exists()
