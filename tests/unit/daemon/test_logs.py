"""Logs: no secret passes, files are private, and setting up twice does not write twice."""

from __future__ import annotations

import logging
import stat

import pytest

from r2fs.daemon import logs
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.settings import Credentials

SECRET = Credentials("id", "geheim/123", "token+456")


@pytest.fixture(autouse=True)
def as_it_was():
    root, ours = logging.getLogger(), logging.getLogger("r2fs")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_secrets_are_taken_out_of_messages_and_tracebacks(tmp_path):
    path = tmp_path / "sub" / "r2fs.log"
    logs.to_file(path, "debug", SECRET, "--log-file")
    log = logging.getLogger("r2fs.test")
    log.info("signed with %s and %s by %s", "geheim/123", {"t": "token+456"}, "id")
    try:
        raise RuntimeError("geheim/123 again")
    except RuntimeError:
        log.info("failed", exc_info=True)
    text = path.read_text()
    assert "geheim" not in text
    assert "token+456" not in text
    assert "signed with *** and {'t': '***'} by id" in text
    assert "RuntimeError: *** again" in text


def test_a_key_that_is_read_later_is_hidden_as_well(tmp_path):
    path = tmp_path / "r2fs.log"
    logs.to_file(path, "debug", SECRET, "--log-file")
    logs.hide(Credentials("id", "later/secret", None))
    logging.getLogger("r2fs.test").info("later/secret and geheim/123")
    assert "*** and ***" in path.read_text()


@pytest.mark.parametrize(("level", "named"), [("info", False), ("debug", True)])
def test_module_names_are_for_those_who_look_for_a_defect(capsys, level, named):
    logs.to_stderr(level, {})
    logging.getLogger("r2fs.test").info("still to send")
    said = capsys.readouterr().err
    assert said.endswith("r2fs.test: still to send\n" if named else "INFO    still to send\n")


def test_the_file_is_private(tmp_path):
    logs.to_file(tmp_path / "r2fs.log", "info", Credentials(), "--log-file")
    assert stat.S_IMODE((tmp_path / "r2fs.log").stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnusable, match=r"cannot be written .*--state-dir"):
        logs.to_file(tmp_path / "file" / "r2fs.log", "info", Credentials(), "--state-dir")


def test_levels_are_of_r2fs_alone(tmp_path):
    path = tmp_path / "r2fs.log"
    logs.to_file(path, "debug", Credentials(), "--log-file")
    logging.getLogger("botocore.auth").debug("signature")
    logging.getLogger("r2fs.x").debug("ours")
    assert "ours" in path.read_text()
    assert "signature" not in path.read_text()


def test_once_is_enough(tmp_path):
    for _ in range(2):
        logs.to_file(tmp_path / "r2fs.log", "info", Credentials(), "--log-file")
    logging.getLogger("r2fs.x").info("once")
    assert (tmp_path / "r2fs.log").read_text().count("once") == 1


def test_the_journal_gets_no_time_of_ours(capfd, monkeypatch):
    monkeypatch.setattr(logs, "stderr_is_journal", lambda environ: True)
    import io
    import sys

    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    logs.to_stderr("info", {})
    logging.getLogger("r2fs.x").info("hello")
    assert stream.getvalue() == "<6>hello\n"


def test_a_word_that_is_a_test_servers_secret_garbles_no_line(tmp_path):
    logs.to_file(tmp_path / "r2fs.log", "info", Credentials("id", "b"), "--log-file")
    logging.getLogger("r2fs.x").info("the bucket")
    assert "the bucket" in (tmp_path / "r2fs.log").read_text()
