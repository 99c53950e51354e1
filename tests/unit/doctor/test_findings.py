"""Remedies of errors."""

from __future__ import annotations

from r2fs.doctor.findings import of_error
from r2fs.model.errors import BucketMissing, MountPointBad


def test_each_kind_of_target_has_a_remedy_of_its_own() -> None:
    assert of_error("bucket", BucketMissing("file:///none: no such directory")).remedy.endswith(
        "make the directory"
    )
    assert "r2fs bucket create" in of_error("bucket", BucketMissing("s3://b: no such bucket")).remedy
    assert "r2fs status" in of_error("mount", MountPointBad("/tmp is not in a mount of r2fs")).remedy
