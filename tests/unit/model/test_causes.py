"""The program and the purpose of what a thread does, from /proc and from jobs handed on."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from r2fs.engine.content.jobs import AHEAD, JobQueue
from r2fs.model import causes, programs
from r2fs.model.causes import Cause
from r2fs.model.programs import UNKNOWN, Programs


@pytest.fixture
def names() -> Iterator[Programs]:
    made = Programs()
    yield made
    made.close()


def test_a_thread_has_the_name_of_its_process(names: Programs) -> None:
    """A thread names itself as it likes; a process that becomes another program has the other name."""
    script = "import os, threading; t = threading.Thread(target=lambda: os.read(0, 1)); t.start()\n"
    script += "open(f'/proc/self/task/{t.native_id}/comm', 'w').write('dec0:0:pcm'); print(t.native_id, flush=True); t.join()"
    script += "; os.execlp('cat', 'cat')"
    with subprocess.Popen(
        ["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        tid = int(child.stdout.readline())
        own = Path(f"/proc/{child.pid}/comm").read_text().strip()
        assert own.startswith("python")
        assert [names.name(tid), names.name(child.pid), names.name(child.pid)] == [own] * 3
        child.stdin.write("\nx\n")
        child.stdin.flush()
        assert child.stdout.readline() == "x\n", "cat has begun"
        assert names.name(child.pid) == "cat"
        child.stdin.close()
    assert names.name(child.pid) == UNKNOWN


def test_a_thread_that_has_ended_lends_its_id_no_name(names: Programs) -> None:
    """The id may be another program's by now: the process of the former thread is alive, and does not ask."""
    script = "import threading; t = threading.Thread(target=input); t.start(); print(t.native_id, flush=True); t.join()"
    script += "; print(0, flush=True); input()"
    with subprocess.Popen(
        ["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        tid = int(child.stdout.readline())
        assert names.name(tid).startswith("python")
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "0\n"
        for _ in range(1000):  # Python says so a little before the kernel
            if not Path(f"/proc/{child.pid}/task/{tid}").exists():
                break
            time.sleep(0.01)
        found = names.name(tid)
        child.stdin.write("\n")
        child.stdin.flush()
    assert found == UNKNOWN


def test_a_hidden_process_and_none_are_unknown(tmp_path: Path) -> None:
    names = Programs(str(tmp_path))
    assert (names.name(0), names.name(7)) == (UNKNOWN, UNKNOWN)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\ta\nTgid:\t7\n")
    (tmp_path / "7" / "comm").write_bytes(b"bell\x07\xff\n")
    assert names.name(7) == "bell?\ufffd"
    names.close()


def test_few_descriptors_are_held(monkeypatch: pytest.MonkeyPatch, names: Programs) -> None:
    monkeypatch.setattr(programs, "HELD", 2)
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(4)]
    try:
        before = len(os.listdir("/proc/self/fd"))
        for child in children:
            assert names.name(child.pid) in ("sleep", "python", "python3")
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    finally:
        for child in children:
            child.kill()
            child.wait()


def in_a_thread(work: object) -> None:
    thread = threading.Thread(target=work, name="upload-3")  # type: ignore[arg-type]
    thread.start()
    thread.join(10)


def test_a_job_has_the_cause_of_the_thread_that_has_queued_it() -> None:
    queue, found = JobQueue(), list[Cause]()

    def program() -> None:
        causes.serve(SimpleNamespace(pid=os.getpid()), "read")
        queue.submit(lambda: found.append(causes.now()))
        queue.submit(lambda: found.append(causes.now()), AHEAD)

    def worker() -> None:
        queue.stop(1)
        queue.run()
        found.append(causes.now())

    in_a_thread(program)
    in_a_thread(worker)
    own = Path("/proc/self/comm").read_text().strip()
    assert found == [Cause(own, "read"), Cause(own, "ahead"), Cause("r2fs", "upload")]
