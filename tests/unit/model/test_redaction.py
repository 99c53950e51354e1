"""What a server repeats of a request's secrets leaves by no way: errors, status, attributes, log, standard error."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from r2fs.cli import main
from r2fs.daemon import logs, protocol
from r2fs.model import errors, redaction
from r2fs.model.errors import R2fsError, StoreError
from r2fs.model.settings import Credentials
from r2fs.store.answers import error_of, server_text
from r2fs.store.health import Health
from tests.support.clocks import ManualClock

SECRET, TOKEN, KEY_ID = 'wJalr/XUtn"FEMI+K7', "FwoGZXIvYXdzEBYaD+token/==", "AKIDEXAMPLEKEY"
SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", ())
    monkeypatch.setattr(redaction, "_identifiers", ())
    logs.hide(Credentials(KEY_ID, SECRET, TOKEN))


REPEATED = [
    SECRET,
    TOKEN,
    KEY_ID,
    quote(TOKEN, safe=""),
    json.dumps(SECRET),
    f"Signature={SIGNATURE}",
    f"Authorization: AWS4-HMAC-SHA256 Credential={KEY_ID}/2026/auto/s3/aws4_request, Signature={SIGNATURE[:40]}",
    f"X-Amz-Security-Token={'z' * 40}",
    f"the signature {SIGNATURE} does not match",
]


@pytest.mark.parametrize("said", REPEATED)
def test_an_answer_that_repeats_them(said):
    for error in (
        error_of("takes/a.wav", 403, "AccessDenied", said),
        error_of("takes/a.wav", 403, said, "no"),
    ):
        text = str(error)
        for secret in (SECRET, TOKEN, quote(TOKEN, safe=""), KEY_ID, SIGNATURE, SIGNATURE[:40], "z" * 40):
            assert secret not in text
        assert "takes/a.wav" in text
        assert "***" in text


def test_names_of_ours_stay_as_they_are():
    name = f"objects/{SIGNATURE}"  # as stores of content call theirs
    assert str(error_of(name, 403, "AccessDenied", "no")).startswith(f"{name}: not allowed")


def test_an_answer_is_one_printable_line_that_ends():
    text = str(error_of("k", 500, "Bad\n\x1b[31m" * 1000, "a\r\nb\x07\u202e" + "c" * 10**6))
    assert text.isprintable()
    assert len(text) < 500
    assert len(server_text("x " * 10**6)) == 200


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StoreError)],
)
def test_no_error_of_the_bucket_holds_one(kind):
    """Whoever makes it, of whatever: reasons in status, in attributes and of the health are its text."""
    assert str(kind(f"k: ValueError({SECRET!r}) {TOKEN}")) == "k: ValueError('***') ***"


def test_status_and_what_else_the_control_socket_sends():
    health = Health(ManualClock())
    for _ in range(3):
        health.failed(error_of("k", 503, "SlowDown", f"slow down, {TOKEN}"))
    line = protocol.encode({"health": health.view().reason, "error": f"{SECRET} {TOKEN}", "path": "a"})
    assert protocol.decode(line)["path"] == "a"
    assert protocol.decode(line)["error"] == "*** ***"
    assert TOKEN not in line.decode()
    assert TOKEN not in str(protocol.decode(protocol.encode(protocol.failure(R2fsError(TOKEN)))))


def test_standard_error(capsys):
    assert main._say(f"unexpected error: ValueError({TOKEN!r})", 70) == 70
    assert capsys.readouterr().err == "r2fs: unexpected error: ValueError('***')\n"


def test_a_key_that_the_library_found_by_itself_is_hidden_before_the_answer_comes():
    from types import SimpleNamespace

    from r2fs.store.s3.session import HiddenKey

    asked = []

    def frozen():
        asked.append(1)
        return SimpleNamespace(
            access_key="AKIDOFAROLE", secret_key="secret-of-a-role", token=f"a-token-{len(asked)}"
        )

    key = SimpleNamespace(get_frozen_credentials=frozen)
    session: Any = SimpleNamespace(get_credentials=lambda: key)
    hidden = HiddenKey(session)
    for token in (None, None, "a-token-2", "a-token-2"):
        hidden.look(token)
    assert len(asked) == 2
    text = server_text("secret-of-a-role AKIDOFAROLE a-token-2 a-token-1")
    assert text == "*** *** *** ***"


def test_words_are_no_secrets():
    redaction.hide("b", "takes", identifier="key")
    assert redaction.redact("the bucket takes a key") == "the bucket takes a key"
    assert server_text("the bucket takes a key") == "the bucket takes a key"
