"""Remedies of errors."""

from __future__ import annotations

import re

from r2fs.cli.main import COMMANDS
from r2fs.doctor.findings import DEFAULT, REMEDIES, of_error
from r2fs.model.errors import BucketMissing, FuseMissing, MountPointBad, NoSpace
from tests.test_documents import README


def test_each_kind_of_target_has_a_remedy_of_its_own() -> None:
    assert of_error("bucket", BucketMissing("file:///none: no such directory")).remedy.endswith(
        "make the directory"
    )
    assert "r2fs bucket create" in of_error("bucket", BucketMissing("s3://b: no such bucket")).remedy
    assert "r2fs status" in of_error("mount", MountPointBad("/tmp is not in a mount of r2fs")).remedy


def test_remedies_name_commands_and_sections_that_there_are() -> None:
    assert "r2fs mirror" in of_error("fuse", FuseMissing("/dev/fuse is not there")).remedy
    assert of_error("disk", NoSpace("the disk is full")).remedy == DEFAULT
    assert "\n## Troubleshooting\n" in README
    named = {name for _, text in REMEDIES for name in re.findall(r"r2fs ([a-z]+)", text)}
    assert {"status", "config", "bucket", "mirror"} <= named
    assert named <= set(COMMANDS)
