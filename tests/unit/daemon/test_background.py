"""Into the background: the parent returns once it is ready, and fails with the child's words."""

from __future__ import annotations

import ast
import fcntl
import os
import subprocess
import sys
import textwrap
import time

import pytest


def run(body: str, repo_root, timeout: float = 60, before: str = "") -> subprocess.CompletedProcess[str]:
    """A process of its own: forking the test process would fork its threads and fixtures."""
    code = textwrap.dedent(
        """
        import os, sys, time
        from r2fs.daemon.background import DaemonDied, run_in_background
        from r2fs.model.errors import R2fsError, StateLocked
        def work(ready):
        {body}
        {before}
        try:
            code = run_in_background(work, ": see LOG")
        except R2fsError as error:
            print(type(error).__name__, error, flush=True)
            sys.exit(error.exit_code)
        print("parent has", code, flush=True)
        """
    ).replace("{body}", textwrap.indent(textwrap.dedent(body).strip(), "    "))
    code = code.replace("{before}", textwrap.dedent(before).strip())
    return subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, timeout=timeout
    )


def test_it_returns_when_it_is_ready_and_not_before(tmp_path, repo_root):
    mark = tmp_path / "mark"
    done = run(
        f"""
        time.sleep(0.2)
        group = os.getpgid(0) == os.getpgid(os.getppid())
        ready()
        ready()  # a second time is nothing
        open({str(mark) + ".new"!r}, "w").write(f"{{group}} {{os.getsid(0) == os.getpid()}} {{os.getcwd()}}")
        os.rename({str(mark) + ".new"!r}, {str(mark)!r})
        return 0
        """,
        repo_root,
    )
    assert done.stdout == "parent has 0\n"
    deadline = time.monotonic() + 20
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert mark.read_text() == "True True /"


def test_the_child_goes_on_without_our_descriptors(tmp_path, repo_root):
    """capture_output ends when the last writer has gone: the child must not be one."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = run(
        f"""
        ready()
        print("nobody reads this", flush=True)
        open({str(fifo)!r}).read()
        return 0
        """,
        repo_root,
        timeout=20,
    )
    assert done.stdout == "parent has 0\n"
    fifo.write_text("go")  # blocks until the child reads: it is alive


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ('raise StateLocked("process 7 has it")', 7, "StateLocked process 7 has it"),
        ("raise ZeroDivisionError(3)", 70, "DaemonDied unexpected error: ZeroDivisionError(3)"),
        ("return 0", 70, "DaemonDied the daemon ended before the mount answered"),
        ("os._exit(3)", 70, "DaemonDied the daemon ended before the mount answered: see LOG"),
    ],
)
def test_what_went_wrong_comes_back(body, code, said, repo_root):
    done = run(body, repo_root)
    assert done.returncode == code
    assert done.stdout.strip() == said


def test_the_child_keeps_none_of_its_callers_descriptors(tmp_path, repo_root):
    """As of a script that holds a lock: flock 9."""
    lock, pid, fifo = tmp_path / "lock", tmp_path / "pid", tmp_path / "fifo"
    os.mkfifo(fifo)
    done = run(
        f"""
        open({str(pid)!r}, "w").write(str(sorted(map(int, os.listdir("/proc/self/fd")))))
        ready()
        open({str(fifo)!r}).read()
        return 0
        """,
        repo_root,
        timeout=20,
        before=f"""
        import fcntl
        first = os.open({str(lock)!r}, os.O_RDWR | os.O_CREAT)
        fcntl.flock(first, fcntl.LOCK_EX)
        for number in (9, 57, 200):
            os.dup2(first, number)
        os.set_inheritable(first, True)
        """,
    )
    assert done.stdout == "parent has 0\n"
    try:
        with lock.open() as file:
            # BlockingIOError where the daemon still holds it
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not {9, 57, 200} & set(ast.literal_eval(pid.read_text()))
    finally:
        fifo.write_text("go")
