"""Start of the daemon in the background: fork, and wait in the parent until the mount answers.

The caller forks before it starts any thread. An error of the child is raised in the parent, in the child's words.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from r2fs.daemon.protocol import decode, encode, failure, raise_failure
from r2fs.daemon.systemd import LISTEN_DIGITS, LISTEN_START
from r2fs.model.errors import DaemonDied, R2fsError

log = logging.getLogger(__name__)

Work = Callable[[Callable[[], None]], int]  # work(ready) → exit code


def run_in_background(work: Work, log_hint: str) -> int:
    """Fork; the child does `work(ready)`. Returns 0 in the parent once the child called ready().

    Raises the child's error, or DaemonDied, where the child ended before. The child's pid is in its log.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    receiving, sending = os.pipe()  # no program started later inherits them
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _close_inherited(sending)
        _child(work, sending)
    os.close(sending)
    with open(receiving, "rb") as pipe:
        line = _read_until_ready(pipe.readline, child)
    if not line:
        raise DaemonDied(f"the daemon ended before the mount answered{log_hint}")
    raise_failure(decode(line))
    return 0


def _read_until_ready(readline: Callable[[], bytes], child: int) -> bytes:
    """Ctrl-C while waiting ends the child too."""
    try:
        return readline()
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        raise


def _child(work: Work, sending: int) -> NoReturn:
    code = DaemonDied.exit_code
    reported = False

    def tell(message: dict[str, object]) -> None:
        nonlocal reported
        if not reported:
            reported = True
            _write(sending, encode(message))
            os.close(sending)

    def ready() -> None:
        if not reported:
            # Not before: under an automount point only systemd's own process group passes, all others wait for us.
            os.setsid()
        _detach_descriptors()  # first: a reader of our output sees its end together with the answer
        tell({"ready": True})

    try:
        os.chdir("/")
        code = work(ready)
        tell(failure(DaemonDied("the daemon ended before the mount answered")))
    except R2fsError as error:
        log.error("%s", error)
        code = error.exit_code
        tell(failure(error))
    except KeyboardInterrupt:
        log.info("interrupted before there was a mount")
    except BaseException as error:
        log.exception("the daemon met an unexpected error")
        tell(failure(DaemonDied(f"unexpected error: {error!r}")))
    finally:
        logging.shutdown()
        os._exit(code)  # no clean-up of the parent's: atexit, buffers, test fixtures


def _close_inherited(*needed: int) -> None:
    """Close the descriptors that came from the command's caller, such as `flock 9` of a script.

    Descriptors that r2fs opened are not inheritable; those of the service manager are taken over later.
    """
    pid, count = (os.environ.get(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
    known = pid == str(os.getppid()) and count.isdigit() and len(count) <= LISTEN_DIGITS
    handed = range(LISTEN_START, LISTEN_START + (int(count) if known else 0))
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd > 2 and fd not in handed and fd not in needed and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            continue  # the listing's own


def _write(descriptor: int, data: bytes) -> None:
    try:
        os.write(descriptor, data)
    except BrokenPipeError:
        log.info("the command that started the daemon did not wait")


def _detach_descriptors() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)
