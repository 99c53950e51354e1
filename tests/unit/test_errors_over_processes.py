"""One code for one cause: an error is the same in front, from a daemon's answer, and from the background."""

from __future__ import annotations

import importlib
import os
import pkgutil

import pytest

import r2fs
from r2fs.daemon.protocol import decode, encode, failure, raise_failure
from r2fs.model import errors
from r2fs.model.errors import R2fsError
from r2fs.store.answers import SignatureRejected, StoredDamaged

OPTIONAL = ("r2fs.drivers.libfuse.libfuse_driver",)  # loads a library that may not be there
for _module in pkgutil.walk_packages(r2fs.__path__, "r2fs."):
    if _module.name not in (*OPTIONAL, "r2fs.__main__", "r2fs.daemon.handover.holder"):
        importlib.import_module(_module.name)


def every_class() -> list[type[R2fsError]]:
    found, waiting = [], [R2fsError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += [each for each in kind.__subclasses__() if each.__module__.startswith("r2fs.")]
    found = [kind for kind in found if not kind.__module__.startswith("r2fs.cli")]  # a command's own end
    return sorted(found, key=lambda kind: kind.__name__)


def made(kind: type[R2fsError]) -> R2fsError:
    return StoredDamaged("takes: why", "etag") if kind is StoredDamaged else kind("takes: why")


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_every_error_keeps_its_code_and_words_over_the_control_socket(kind):
    with pytest.raises(R2fsError) as caught:
        raise_failure(decode(encode(failure(made(kind)))))
    assert issubclass(kind, type(caught.value))
    assert vars(errors)[type(caught.value).__name__] is type(caught.value)
    assert (caught.value.exit_code, caught.value.errno, caught.value.retry) == (
        kind.exit_code,
        kind.errno,
        kind.retry,
    )
    assert str(caught.value) == "takes: why"


@pytest.mark.parametrize("name", ["NoSuchClass", "annotations", "ClassVar", "", None])
def test_a_name_that_is_no_error_is_no_claim_that_nobody_answers(name):
    with pytest.raises(R2fsError) as caught:
        raise_failure({"done": True, "error": "why", "kind": name})
    assert type(caught.value) is R2fsError


@pytest.mark.parametrize(
    "kind", [SignatureRejected, errors.Unavailable, errors.DaemonDied, errors.StateLocked]
)
def test_in_the_background_it_has_the_code_that_it_has_in_front(repo_root, kind):
    import subprocess
    import sys

    code = f"""
import sys
from {kind.__module__} import {kind.__name__}
from r2fs.cli import main
from r2fs.daemon.background import run_in_background
class Mounts:
    def main(self, *words, **given):
        def work(ready):
            raise {kind.__name__}("takes: why")
        return run_in_background(work, "")
main.cli = Mounts()
sys.exit(main.run("r2fs", ["mount"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert done.returncode == kind.exit_code
    assert "r2fs: takes: why\n" in done.stderr


def test_the_network_has_a_code_of_its_own():
    """A script that waits and tries again must not do so for a wrong key."""
    network = {kind for kind in every_class() if issubclass(kind, errors.Retryable)}
    assert len(network) >= 5
    assert {kind for kind in every_class() if kind.exit_code == errors.Unavailable.exit_code} == network
