"""One take is kept: the file has its bytes, no other take is lost, and nothing is done to a take that nobody has seen."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from r2fs.disk import filecalls
from r2fs.model.errors import Busy, InvalidArgument
from r2fs.model.keys import conflict_name, conflict_origin, other_take_name
from r2fs.ui import takes
from tests.unit.cli.test_asking import status

COPY = "mix (conflict of bert, 2026-11-21).wav"
SECOND = "mix (conflict of anna, 2026-11-22 2).wav"


@pytest.fixture(params=["renameat2", "without"])
def there(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file and a conflict copy; also where renameat2(2) has no flags, as with libfuse 2."""
    if request.param == "without":
        monkeypatch.setattr(takes, "renameat2", lambda *_: False)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mix.wav").write_bytes(b"of anna")
    (tmp_path / "d" / COPY).write_bytes(b"of bert!")
    return tmp_path


def seen(root: Path, *names: str) -> dict[str, str]:
    return {f"d/{name}": takes._evidence(os.lstat(root / "d" / name)) for name in names}


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "d").iterdir()}


def keep(root: Path, kept: str, evidence: dict[str, str], delete: bool = False) -> takes.Kept:
    return takes.keep(str(root), "d/mix.wav", f"d/{kept}", evidence, delete)


def test_the_copy_is_kept_and_the_other_take_too(there):
    done = keep(there, COPY, seen(there, "mix.wav", COPY))
    assert done == takes.Kept("mix.wav", ("mix (other take).wav",), ())
    assert contents(there) == {"mix.wav": b"of bert!", "mix (other take).wav": b"of anna"}


def test_the_file_is_kept_and_the_copy_gets_a_name_of_its_own(there):
    (there / "d" / "mix (other take).wav").write_bytes(b"earlier")
    done = keep(there, "mix.wav", seen(there, "mix.wav", COPY))
    assert done.aside == ("mix (other take 2).wav",)
    assert contents(there) == {
        "mix.wav": b"of anna",
        "mix (other take).wav": b"earlier",
        "mix (other take 2).wav": b"of bert!",
    }


@pytest.mark.parametrize(
    ("kept", "left", "gone"), [("mix.wav", b"of anna", COPY), (COPY, b"of bert!", "mix.wav")]
)
def test_the_other_take_is_deleted_where_the_person_says_so(there, kept, left, gone):
    done = keep(there, kept, seen(there, "mix.wav", COPY), delete=True)
    assert (done.aside, len(done.deleted)) == ((), 1)
    assert contents(there) == {"mix.wav": left}


def test_of_three_one_is_kept(there):
    (there / "d" / SECOND).write_bytes(b"of anna later")
    done = keep(there, SECOND, seen(there, "mix.wav", COPY, SECOND))
    assert len(done.aside) == 2
    assert sorted(contents(there).values()) == [b"of anna", b"of anna later", b"of bert!"]
    assert contents(there)["mix.wav"] == b"of anna later"


def test_a_copy_whose_file_is_gone_gets_the_name(there):
    (there / "d" / "mix.wav").unlink()
    assert keep(there, COPY, seen(there, COPY), delete=True) == takes.Kept("mix.wav", (), ())
    assert contents(there) == {"mix.wav": b"of bert!"}


def test_a_file_made_meanwhile_is_not_replaced(there):
    evidence = seen(there, COPY)
    with pytest.raises(Busy, match="was made meanwhile"):
        keep(there, COPY, evidence)
    assert contents(there) == {"mix.wav": b"of anna", COPY: b"of bert!"}


@pytest.mark.parametrize("changed", ["mix.wav", COPY])
@pytest.mark.parametrize("kept", ["mix.wav", COPY])
@pytest.mark.parametrize("how", ["written", "replaced", "removed"])
def test_nothing_is_done_once_a_take_has_changed(there, changed, kept, how):
    evidence = seen(there, "mix.wav", COPY)
    path = there / "d" / changed
    if how == "written":
        path.write_bytes(b"newer bytes")
    elif how == "replaced":
        (there / "new").write_bytes(path.read_bytes())
        os.rename(there / "new", path)
    else:
        path.unlink()
    before = contents(there)
    with pytest.raises(Busy, match="nothing was done"):
        keep(there, kept, evidence, delete=True)
    assert contents(there) == before


@pytest.mark.parametrize("changed", ["mix.wav", COPY])
def test_a_change_at_the_last_moment_is_lost_by_no_exchange(tmp_path, monkeypatch, changed):
    """Between the comparison and the rename another program saves."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mix.wav").write_bytes(b"of anna")
    (tmp_path / "d" / COPY).write_bytes(b"of bert!")
    evidence, real = seen(tmp_path, "mix.wav", COPY), filecalls.renameat2
    calls: list[int] = []

    def late(*words):
        if not calls:
            calls.append((tmp_path / "d" / changed).write_bytes(b"saved just now"))
        return real(*words)

    monkeypatch.setattr(takes, "renameat2", late)
    with pytest.raises(Busy):
        keep(tmp_path, COPY, evidence, delete=True)
    found = contents(tmp_path)
    assert found[changed] == b"saved just now"
    assert len(found) == 2


@pytest.mark.parametrize("why", ["removed", "refused"])
def test_the_name_comes_back_if_the_copy_cannot_get_it(tmp_path, monkeypatch, why):
    """Where two names cannot be exchanged, the file has another name for a moment."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mix.wav").write_bytes(b"of anna")
    (tmp_path / "d" / COPY).write_bytes(b"of bert!")
    evidence, real = seen(tmp_path, "mix.wav", COPY), os.rename
    monkeypatch.setattr(takes, "renameat2", lambda *_: False)

    def late(old, new, **words):
        if old == COPY:
            if why == "refused":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            (tmp_path / "d" / COPY).unlink()
        real(old, new, **words)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises((Busy, OSError)):
        keep(tmp_path, COPY, evidence, delete=True)
    assert contents(tmp_path)["mix.wav"] == b"of anna"


def test_a_take_that_changes_at_the_last_moment_is_not_deleted(there, monkeypatch):
    evidence, real = seen(there, "mix.wav", COPY), takes._set_aside

    def late(directory, name, original):
        moved = real(directory, name, original)
        (there / "d" / moved).write_bytes(b"saved just now")
        return moved

    monkeypatch.setattr(takes, "_set_aside", late)
    done = keep(there, "mix.wav", evidence, delete=True)
    assert (done.aside, done.deleted) == (("mix (other take).wav",), ())
    assert contents(there) == {"mix.wav": b"of anna", "mix (other take).wav": b"saved just now"}


@pytest.mark.parametrize(
    "path", ["d/other.wav", "e/mix.wav", "mix.wav", "d/mix (conflict of bert, soon).wav", "d"]
)
def test_only_the_takes_of_one_file_are_touched(there, path):
    (there / "d" / "other.wav").write_bytes(b"another song")
    before = contents(there)
    with pytest.raises(InvalidArgument):
        takes.keep(str(there), "d/mix.wav", "d/mix.wav", {**seen(there, "mix.wav"), path: "1-1-1"}, True)
    with pytest.raises(InvalidArgument):
        takes.keep(str(there), "d/mix.wav", path, seen(there, "mix.wav", COPY), True)
    assert contents(there) == before


def test_a_take_that_is_a_link_is_moved_and_never_followed(there):
    (there / "target.wav").write_bytes(b"elsewhere")
    (there / "d" / COPY).unlink()
    (there / "d" / COPY).symlink_to(there / "target.wav")
    keep(there, "mix.wav", seen(there, "mix.wav", COPY), delete=True)
    assert contents(there) == {"mix.wav": b"of anna"}
    assert (there / "target.wav").read_bytes() == b"elsewhere"


# ------------------------------------------------------------------ by the page
@pytest.fixture
def mounted(daemon, ping):
    """The state of the copy, whether it is a mirror, and the mount point."""
    state: dict[str, Any] = {"of copy": "clean", "status": {}}

    def file(request):
        path = request.text("path")
        return {"path": path, "whole": True, "state": state["of copy"] if "conflict" in path else "clean", "open": 0}  # fmt: skip

    point = daemon(
        "takes",
        ping=ping,
        file=file,
        status=lambda r: {**status("/mnt", conflicts=[f"d/{COPY}"]), **state["status"]},
    )
    (point / "d").mkdir()
    (point / "d" / "mix.wav").write_bytes(b"of anna")
    (point / "d" / COPY).write_bytes(b"of bert!")
    return point, state


def choice(page, kept, then):
    (file,) = page.ask("takes?mount=takes").json["files"]
    of = {take["path"]: take for take in file["takes"]}
    evidence = {take["ref"]: take["evidence"] for take in file["takes"]}
    return {"mount": "takes", "original": file["ref"], "kept": of[f"d/{kept}"]["ref"], "seen": evidence, "then": then}  # fmt: skip


def test_the_page_shows_the_takes_and_keeps_one(page, mounted):
    point, _ = mounted
    found = page.ask("takes?mount=takes").json
    first, second = found["files"][0]["takes"]
    assert (first["origin"], second["origin"]) == (None, {"host": "bert", "day": "2026-11-21"})
    assert (first["plays"], first["whole"], second["size"]) == (True, True, 8)
    answer = page.ask("keep", "POST", choice(page, COPY, "aside"))
    assert answer.json == {"name": "mix.wav", "aside": ["mix (other take).wav"], "deleted": []}
    assert (point / "d" / "mix.wav").read_bytes() == b"of bert!"


def test_a_take_that_was_changed_since_it_was_shown_stays(page, mounted):
    point, _ = mounted
    chosen = choice(page, "mix.wav", "delete")
    (point / "d" / COPY).write_bytes(b"better")
    answer = page.ask("keep", "POST", chosen)
    assert (answer.status, "look at the takes again" in answer.json["error"]) == (409, True)
    assert (point / "d" / COPY).read_bytes() == b"better"


def test_a_take_that_is_being_written_is_not_deleted(page, mounted):
    point, state = mounted
    state["of copy"] = "dirty"
    answer = page.ask("keep", "POST", choice(page, "mix.wav", "delete"))
    assert (answer.status, "being written" in answer.json["error"]) == (409, True)
    assert (point / "d" / COPY).exists()
    assert page.ask("keep", "POST", choice(page, "mix.wav", "aside")).status == 200


def test_the_page_says_where_takes_cannot_be_kept(page, mounted):
    _, state = mounted
    state["status"] = {"mount": {"read_only": True}}
    assert page.ask("takes?mount=takes").json["why_not"]


@pytest.mark.parametrize("carries", [True, False])
def test_a_take_of_a_mirror_is_kept_and_the_page_says_what_stays(page, mounted, carries):
    point, state = mounted
    state["status"] = {"mirror": {"carries_removals": carries}}
    found = page.ask("takes?mount=takes").json
    assert (found["why_not"], "--delete" in found["note"]) == ("", not carries)
    chosen = choice(page, COPY, "delete")
    with (point / "d" / "mix.wav").open("ab"):
        answer = page.ask("keep", "POST", chosen)
        assert (answer.status, "being written" in answer.json["error"]) == (409, True)
    assert page.ask("keep", "POST", choice(page, COPY, "delete")).status == 200
    assert contents(point) == {"mix.wav": b"of bert!"}


# ------------------------------------------------------------------ names
@pytest.mark.parametrize("name", ["mix.wav", "mix", ".hidden", "a" * 251 + ".wav", "ü" * 125 + ".wav"])
def test_the_name_of_an_other_take(name):
    found = other_take_name(name, 12)
    assert len(found.encode()) <= 255
    assert " (other take 12)" in found
    assert found.endswith(name.rpartition(".")[2] if "." in name[1:] else "")
    assert takes.original_of(found) == found, "it is no conflict any more"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_of_a_foreign_host_leads_out_of_no_directory(name):
    copy = f"d/{name} (conflict of bert, 2026-11-21)"
    assert takes.original_of(copy) == copy


def test_the_origin_in_a_conflict_name():
    origin = conflict_origin(conflict_name("mix.wav", "a, b", 1e9, 3))
    assert origin is not None
    assert origin[0] == "a, b"
    assert conflict_origin("mix.wav") is None
