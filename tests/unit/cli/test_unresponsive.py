"""Every command against a daemon that hangs, has ended or is of another version: one sentence, a code, and an end.

A daemon is silent for client.SILENCE_S at most, which is a fraction of a second here; `asked` counts how often a
command tries, so that its longest time is a small multiple of that.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from r2fs.cli import restart
from r2fs.daemon import client
from tests.mount.daemons import until
from tests.test_documents import commands
from tests.unit.cli.conftest import PATIENCE_S, Said

SILENCE_S = 0.2
MOST_ASKED = 3  # requests of one command to a daemon that does not answer

# Words of each command that asks a mount's daemon; {} is the mount point, {}/f a file of it.
ASKING = {
    "cache check": "{}",
    "cache clear": "{}",
    "cost": "{}",
    "doctor": "{}",
    "evict": "{}/f",
    "flush": "{}/f",
    "info": "{}/f",
    "key": "{}/f",
    "limit": "{}",
    "ls": "{}",
    "path": "f",
    "pin": "{}/f",
    "queue drop": "{} f --exported {}/../copies",
    "queue export": "{} --to {}/../copies",
    "queue list": "{}",
    "queue retry": "{}",
    "refresh": "{}/f",
    "restart": "{}",
    "rm": "{}/f",
    "set": "{}/f --content-type audio/wav",
    "status": "{}",
    "umount": "{}",
    "unpin": "{}/f",
    "url": "{}/f",
    "wait": "{}/f",
    "warm": "{}/f",
}
# Commands that ask no daemon, and what they ask in its place.
NOT_ASKING = {
    "a bucket": {
        "bucket check", "bucket cors clear", "bucket cors set", "bucket cors show", "bucket create",
        "bucket lifecycle clear", "bucket lifecycle set", "bucket lifecycle show", "grant", "migrate",
    },
    "settings": {"completion", "config init", "config path", "config show"},
    "its page, which says it: tests/unit/ui": {"ui"},
    "systemd": {"service install", "service remove"},
    "the state directory's lock": {"mirror", "mount"},
}  # fmt: skip

Answer = Callable[[socket.socket], None]


def hangs(connection: socket.socket) -> None:
    """Read the request, and say nothing until the client leaves."""
    while connection.recv(4096):
        pass


def hangs_in_a_line(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b'{"mount": {')
    hangs(connection)


def ends(connection: socket.socket) -> None:
    connection.recv(4096)


def answers_otherwise(connection: socket.socket) -> None:
    """A later version, whose answers have other fields."""
    connection.recv(4096)
    connection.sendall(b'{"done": true, "another": {}}\n')


def is_older(connection: socket.socket) -> None:
    message = {"done": True, "error": "this daemon does not know 'x'", "kind": "InvalidArgument"}
    connection.recv(4096)
    connection.sendall(json.dumps(message).encode() + b"\n")


def is_another_program(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


class Odd:
    """What answers at a daemon's socket. `asked`: connections so far."""

    def __init__(self, run_dir: Path, point: Path, answer: Answer, name: str = "takes") -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(run_dir / f"{name}.sock"))
        self._listener.listen()
        card = {
            "pid": os.getpid(),
            "mountpoint": str(point),
            "url": f"r2://{name}",
            "name": name,
            "since": 1,
        }
        (run_dir / f"{name}.json").write_text(json.dumps(card))
        self.asked = 0
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.asked += 1
            with connection, suppress(OSError):  # the client has left
                self._answer(connection)

    def close(self) -> None:
        if self._thread.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(10)
            self._listener.close()


@pytest.fixture
def odd(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Odd]]:
    monkeypatch.setattr(client, "SILENCE_S", SILENCE_S)
    monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", SILENCE_S)
    monkeypatch.setattr(restart, "AWAIT_S", SILENCE_S)
    made: list[Odd] = []
    (home / "run" / "r2fs").mkdir(parents=True, mode=0o700)
    (home / "takes").mkdir()
    (home / "takes" / "f").write_bytes(b"f")
    (home / "copies").mkdir()
    (home / "copies" / "f").write_bytes(b"f")

    def _odd(answer: Answer, name: str = "takes") -> Odd:
        made.append(Odd(home / "run" / "r2fs", home / name, answer, name))
        return made[-1]

    yield _odd
    for each in made:
        each.close()


def words(name: str, home: Path) -> list[str]:
    return [*name.split(), *ASKING[name].replace("{}", str(home / "takes")).split()]


def test_each_command_is_in_one_of_the_tables():
    named = [*ASKING, *(name for names in NOT_ASKING.values() for name in names)]
    assert sorted(named) == sorted(name.removeprefix("r2fs ") for name in commands())


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (hangs, "has been silent for 0 s"),
        (hangs_in_a_line, "has been silent for 0 s"),
        (ends, "ended before it answered"),
        (answers_otherwise, "is of another r2fs"),
        (is_older, "is of an older r2fs: r2fs restart"),
        (is_another_program, "is no daemon of r2fs"),
    ],
)
def test_each_command_says_so_and_ends(
    r2fs: Callable[..., Said], odd: Callable[..., Odd], home: Path, name: str, answer: Answer, said: str,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    daemon = odd(answer)
    if answer in (hangs, hangs_in_a_line):
        monkeypatch.setattr(client, "SILENCE_S", SILENCE_S / 4)
    result = r2fs(*words(name, home))
    assert result.code == 9, result
    text = " ".join(f"{result.err} {result.out}".split())  # doctor's findings are its output
    if (name, answer) == ("restart", answers_otherwise):
        said = "no new daemon"  # nothing of the answer is needed, and the successor does not come
    assert said in text, result
    assert str(home / "takes") in text
    assert "Traceback" not in text
    assert "unexpected error" not in text
    until("the connection, which the client may have left meanwhile", lambda: daemon.asked)
    assert daemon.asked <= MOST_ASKED


@pytest.mark.parametrize("name", ASKING)
def test_each_command_knows_a_daemon_that_has_died(
    r2fs: Callable[..., Said], odd: Callable[..., Odd], home: Path, name: str
):
    """Its socket is there, and nobody listens."""
    odd(hangs).close()
    result = r2fs(*words(name, home))
    assert result.code == 9, result
    assert "does not answer: Connection refused" in " ".join(f"{result.err} {result.out}".split())


def test_status_asks_all_mounts_at_once(
    r2fs: Callable[..., Said], odd: Callable[..., Odd], monkeypatch: pytest.MonkeyPatch
):
    """Each of two answers once the other is asked, too: asked one after the other, none would."""
    monkeypatch.setattr(client, "SILENCE_S", 2 * PATIENCE_S)
    both = threading.Barrier(2)

    def answers(connection: socket.socket) -> None:
        both.wait(PATIENCE_S)
        is_older(connection)

    for name in ("one", "two"):
        odd(answers, name)
    result = r2fs("status")
    assert result.code == 9
    assert result.err.count("is of an older r2fs: r2fs restart") == 2, result


def test_status_names_each_mount_that_does_not_answer(
    r2fs: Callable[..., Said], odd: Callable[..., Odd], home: Path
):
    seen = threading.Event()

    def goes_on(connection: socket.socket) -> None:
        """Lines of progress without an end."""
        while not seen.wait(SILENCE_S / 10):
            connection.sendall(b'{"done": false}\n')

    for name, answer in (("mute", hangs), ("endless", goes_on), ("older", is_older)):
        odd(answer, name)
    result = r2fs("status")
    seen.set()
    assert result.code == 9
    for name, said in (
        ("mute", "has been silent for 0 s"),
        ("endless", "has not ended its answer in 0 s"),
        ("older", "is of an older r2fs"),
    ):
        line = next(line for line in result.err.splitlines() if f"{home / name} " in line)
        assert said in line, result
    assert result.out.count("no answer") == 3
