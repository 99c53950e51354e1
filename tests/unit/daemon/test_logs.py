"""Logs: no secret passes, files are private, and setting up twice does not write twice."""

from __future__ import annotations

import json
import logging
import os
import stat
import time

import pytest

from r2fs.daemon import log_format, logs
from r2fs.daemon.log_format import HANDLER, LineFormatter
from r2fs.disk.cache.cache import CleanCache
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.ports import SystemClock
from r2fs.model.records import Version
from r2fs.model.settings import Credentials
from tests.support.users import NOBODY, ROOT, acting_as, neighbours

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
    logging.getLogger(log_format.MISSES).setLevel(logging.NOTSET)


def test_secrets_are_taken_out_of_messages_and_tracebacks(tmp_path):
    path = tmp_path / "sub" / "r2fs.log"
    logs.to_file(path, "debug", SECRET, "--state-dir", make=True)
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


# ------------------------------------------------------------------ whose file, and for whom
def modes(path) -> set[int]:
    return {stat.S_IMODE(found.stat().st_mode) for found in path.iterdir()}


def test_a_log_file_is_private_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "FILE_BYTES", 200)
    for name in ("r2fs.log", "r2fs.log.1"):  # of an r2fs that left them so
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o644)
    before = os.umask(0)
    try:
        logs.to_file(tmp_path / "r2fs.log", "info", Credentials(), "--log-file")
        assert modes(tmp_path) == {0o600}
        for number in range(20):
            logging.getLogger("r2fs.x").info("line %d", number)
    finally:
        os.umask(before)
    assert len(list(tmp_path.iterdir())) == 2
    assert modes(tmp_path) == {0o600}
    assert "line 19" in (tmp_path / "r2fs.log").read_text()


@pytest.mark.expect_warnings("cannot be rotated")
def test_a_file_that_cannot_be_rotated_loses_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "FILE_BYTES", 200)
    logs.to_file(tmp_path / "r2fs.log", "info", Credentials(), "--log-file")
    (tmp_path / "r2fs.log.1").mkdir()
    for number in range(20):
        logging.getLogger("r2fs.x").info("line %d", number)
    text = (tmp_path / "r2fs.log").read_text()
    assert [number for number in range(20) if f"line {number}\n" not in text] == []
    assert text.count("keeps growing") == 1


@pytest.mark.parametrize("victim", [ROOT, NOBODY], ids=["root", "user"])
@pytest.mark.parametrize("kind", ["link", "fifo", "theirs", "second name"])
def test_a_log_file_that_another_user_prepared_is_not_written(victim, kind):
    with neighbours(victim) as two:
        precious, path = two.home / "precious", two.shared / "x.log"
        precious.write_text("kept")
        two.give(precious, two.victim)
        if kind == "link":
            path.symlink_to(precious)
        elif kind == "fifo":
            os.mkfifo(path, 0o666)
        elif kind == "theirs":
            path.write_text("")
            path.chmod(0o666)
        else:
            os.link(precious, path)
        if kind != "second name":
            two.give(path, two.attacker)
        with acting_as(victim), pytest.raises(DirectoryUnusable, match=r"x\.log .*--log-file"):
            logs.to_file(path, "info", Credentials(), "--log-file")
        assert precious.read_text() == "kept"


def test_root_logs_into_no_directory_of_another_user():
    with neighbours(ROOT) as two:
        theirs = two.directory("theirs", two.attacker)
        with pytest.raises(DirectoryUnusable, match=f"belongs to another user .uid {two.attacker}"):
            logs.to_file(theirs / "x.log", "info", Credentials(), "--log-file")
        assert not list(theirs.iterdir())


def test_a_directory_that_is_not_there_is_named_and_not_made(tmp_path):
    with pytest.raises(DirectoryUnusable, match=rf"there is no directory {tmp_path}/nonexist: make it"):
        logs.to_file(tmp_path / "nonexist" / "x.log", "info", Credentials(), "--log-file")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ one record is one line
FORGED = "a\n2026-11-28 10:00:00,000 ERROR   r2fs.x: forged\r\x1b[2Jx\u2028y\x9b\ud800"


@pytest.mark.parametrize(
    "logger", ["engine.reader", "drivers.kernel.session", "disk.cache", "cli.main", "else"]
)
def test_a_name_makes_no_line_of_its_own(tmp_path, logger):
    path = tmp_path / "r2fs.log"
    logs.to_file(path, "debug", Credentials(), "--log-file")
    logging.getLogger(f"r2fs.{logger}").info("%s: could not be read: %s", FORGED, OSError(FORGED))
    text = path.read_text()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    assert r"a\n2026-11-28 10:00:00,000 ERROR   r2fs.x: forged\r\x1b[2Jx\u2028y\x9b\ud800: could" in text


def test_no_line_of_a_traceback_begins_as_a_record_does(tmp_path):
    path = tmp_path / "r2fs.log"
    logs.to_file(path, "debug", SECRET, "--log-file")
    try:
        raise RuntimeError(f"{FORGED} token+456")
    except RuntimeError:
        logging.getLogger("r2fs.x").info("%s failed", FORGED, exc_info=True)
    first, *rest = path.read_text().splitlines()
    assert "failed" in first
    assert any("2026-11-28 10:00:00,000 ERROR" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert "token+456" not in path.read_text()


def test_every_way_of_logging_has_this_form(tmp_path, monkeypatch):
    """Names come into messages from everywhere: it is the handlers that escape them."""
    ways = [
        lambda: logs.to_file(tmp_path / "r2fs.log", "info", Credentials(), "--log-file"),
        lambda: logs.to_stderr("info", {}),
        lambda: (
            monkeypatch.setattr(logs, "stderr_is_journal", lambda environ: True),
            logs.to_stderr("info", {}),
        ),
    ]
    for way in ways:
        way()
        (ours,) = [h for h in logging.getLogger().handlers if h.get_name() == HANDLER]
        assert isinstance(ours.formatter, LineFormatter)


@pytest.mark.expect_warnings
def test_a_json_log_has_an_object_a_line_without_secrets(tmp_path):
    path = tmp_path / "r2fs.log"
    logs.to_file(path, "info", SECRET, "--log-file", form="json")
    log = logging.getLogger("r2fs.test")
    log.warning("geheim/123 and\nanother line", extra={"event": "cache_miss", "key": "geheim/123/a\n.wav"})
    try:
        raise RuntimeError("geheim/123 again")
    except RuntimeError:
        log.exception("failed")
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["level"], first["logger"]) == ("warning", "r2fs.test")
    assert first["message"] == "*** and\\nanother line"
    assert (first["event"], first["key"]) == ("cache_miss", "***/a\n.wav")
    assert abs(first["time_s"] - time.time()) < 60
    assert "RuntimeError: *** again" in second["traceback"]


@pytest.mark.expect_warnings
def test_a_json_log_in_the_journal_keeps_the_priority(capsys, monkeypatch):
    monkeypatch.setattr(logs, "stderr_is_journal", lambda environ: True)
    logs.to_stderr("info", {}, form="json")
    logging.getLogger("r2fs.test").warning("slow")
    said = capsys.readouterr().err
    assert said.startswith("<4>{")
    assert json.loads(said[3:])["message"] == "slow"


@pytest.mark.parametrize(
    ("level", "with_misses", "shown"), [("info", False, False), ("info", True, True), ("debug", False, True)]
)
def test_v22_a_miss_of_the_cache_is_logged_with_its_key(tmp_path, level, with_misses, shown):
    path = tmp_path / "r2fs.log"
    logs.to_file(path, level, Credentials(), "--log-file", form="json")
    log_format.set_level(level, with_misses)
    cache = CleanCache(tmp_path / "cache", limit_bytes=1 << 20, ttl_s=0, clock=SystemClock())
    cache.take(Version("takes/07.wav", "etag", 5), tmp_path / "into")
    cache.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["key"] for line in lines if line.get("event") == "cache_miss"] == ["takes/07.wav"] * shown
