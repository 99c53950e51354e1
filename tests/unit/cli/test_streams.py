"""Warnings of a start in the background, on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2fs.cli.streams import show_bucket_warnings
from r2fs.daemon import starting
from r2fs.model import mount_record
from r2fs.model.errors import Unavailable
from r2fs.model.settings import Bucket, Settings


class Silent:
    def check(self) -> None:
        raise Unavailable("no answer from the server")


@pytest.mark.expect_warnings("mounted without the bucket")
def test_a_mount_without_its_bucket_is_told_until_it_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / mount_record.NAME).touch()
    settings = Settings(Bucket("s3", "takes"), tmp_path / "cache", tmp_path, tmp_path / "run")
    end = show_bucket_warnings()
    try:
        assert not starting.answers(Silent(), settings)
    finally:
        end()
    said = "r2fs: warning: mounted without the bucket, from journal and cache: no answer from the server\n"
    assert capsys.readouterr().err == said
    assert not starting.answers(Silent(), settings)
    assert capsys.readouterr().err == ""
