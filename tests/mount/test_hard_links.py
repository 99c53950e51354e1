"""Programs that make hard links, and the option that each of them has where there are none: the README's table."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.daemons import BucketMount, serve
from tests.support.servers import SeaweedFS


@pytest.fixture(scope="module")
def serving(seaweed: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketMount]:
    base = tmp_path_factory.mktemp("hard-links")
    yield from serve(BucketMount(base, "auto", seaweed.endpoint, f"{base.name}/"))


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Two names of one file, on a local disk; an archive of them; a repository."""
    source = tmp_path / "linked"
    source.mkdir()
    (source / "a").write_text("one file")
    os.link(source / "a", source / "b")
    return source


def run(directory: Path, command: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"LC_ALL": "C", "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(
        ["bash", "-c", command], cwd=directory, env=environ, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("fails", "says", "works"),
    [
        ("cp -r $S s; cp -al s t", "cannot create hard link", "cp -r $S s; cp -a s t"),
        ("cp -a $S t", "cannot create hard link", "cp -a --no-preserve=links $S t"),
        ("mv $S t", "cannot create hard link", "cp -a --no-preserve=links $S t && rm -r $S"),
        ("rsync -aH $S/ t/", "failed: Operation not permitted", "rsync -a $S/ t/"),
        (
            "tar cf $S.tar -C $S . && mkdir t && tar xf $S.tar -C t",
            "Cannot hard link",
            "tar cf $S.tar --hard-dereference -C $S . && mkdir t && tar xf $S.tar -C t",
        ),
        ("cp -r $S t; ln t/a t/c", "failed to create hard link", "cp -r $S t; ln -s a t/c"),
    ],
    ids=["cp -al", "cp -a", "mv", "rsync -H", "tar", "ln"],
)
def test_each_program_has_its_own_option(place, linked, fails, says, works):
    (place / "one").mkdir()
    refused = run(place / "one", fails.replace("$S", str(linked)))
    assert refused.returncode != 0
    assert says in refused.stderr
    assert {path.name for path in linked.iterdir()} == {"a", "b"}  # whatever was to be moved is there still
    (place / "two").mkdir()
    done = run(place / "two", works.replace("$S", str(linked)))
    assert (done.returncode, done.stderr) == (0, "")
    assert (place / "two" / "t" / "a").read_text() == "one file"
    assert (place / "two" / "t" / "b").read_text() == "one file"


def test_a_git_clone_on_the_mount(place):
    made = run(
        place,
        "git init -q g && git -C g -c user.name=a -c user.email=a@localhost commit -q --allow-empty -m first",
    )
    assert made.returncode == 0, made.stderr
    refused = run(place, "git clone -q --local g c")
    assert refused.returncode == 128
    assert "failed to create link" in refused.stderr
    for number, how in enumerate(("g", "--local --no-hardlinks g", f"file://{place}/g")):
        done = run(place, f"git clone -q {how} c{number} && git -C c{number} log --format=%s")
        assert (done.returncode, done.stdout) == (0, "first\n"), done.stderr


def test_rsync_with_link_dest_copies(place, linked):
    done = run(place, f"rsync -a {linked}/ first/ && rsync -a --link-dest=../first {linked}/ second/")
    assert (done.returncode, done.stderr) == (0, "")
    assert (place / "second" / "b").read_text() == "one file"
