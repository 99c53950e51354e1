"""A mirror killed at its lines, one after the other: `python -m tests.support.mirror_killed DIRECTORY STRIDE`.

Each round has a scenario with every kind of change, runs a mirror in a child that kills itself at the n-th line of the
mirror's code, then another one to its end, and compares both sides. Exit code 1 and a text at the first loss. A
process without threads, since it forks.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from r2fs.disk import database, mirror_record, plain_tree
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Bucket
from r2fs.store import open_store
from tests.support.mirror_rig import MirrorRig

CODE = (
    os.path.dirname(plain_tree.__file__).replace("/disk", "/mirror/"),
    plain_tree.__file__,
    database.__file__,
    mirror_record.__file__,
)
CONFLICT = re.compile(r" \(conflict of here, [\d-]+( \d+)?\)")
IN_STEP = ("keep", "edit here", "edit/there", "touch", "gone here", "deep/er/gone there", "both")
EXPECTED = {
    "keep": [b"old keep"],
    "edit here": [b"new here"],
    "edit/there": [b"new there"],
    "touch": [b"old touch"],
    "both": [b"mine", b"theirs"],
    "new here": [b"new"],
    "new/there": [b"new"],
    "new both": [b"mine", b"theirs"],
    "same": [b"same"],
}


def scenario(base: Path) -> MirrorRig:
    shutil.rmtree(base, ignore_errors=True)
    bucket = base / "bucket"
    bucket.mkdir(parents=True)
    store = open_store(Bucket("file", str(bucket)), SystemClock())
    rig = MirrorRig(base, store)
    for name in IN_STEP:
        rig.write(name, f"old {name.rpartition('/')[2]}".encode())
    rig.run(delete=True)
    rig.write("edit here", b"new here")
    os.utime(rig.dir / "touch", ns=(10**18, 10**18))
    (rig.dir / "gone here").unlink()
    rig.write("both", b"mine")
    rig.write("new here", b"new")
    rig.write("new both", b"mine")
    rig.write("same", b"same")
    for name, data in (
        ("edit/there", b"new there"),
        ("both", b"theirs"),
        ("new/there", b"new"),
        ("new both", b"theirs"),
        ("same", b"same"),
    ):
        path = bucket / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (bucket / "deep/er/gone there").unlink()
    return rig


def run_to_line(rig: MirrorRig, line: int) -> bool:
    """Run a mirror that is killed at this line; True if it ended before."""
    pid = os.fork()
    if not pid:
        sys.settrace(_killer(line))
        rig.run(delete=True)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, f"killed at line {line}: the mirror failed"
    return True


def _killer(left: int) -> Any:
    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def check(rig: MirrorRig, bucket: Path) -> None:
    here = rig.contents()
    there = {
        path.relative_to(bucket).as_posix(): path.read_bytes()
        for path in bucket.rglob("*")
        if path.is_file() and ".r2fs" not in path.parts
    }
    assert here == there, f"{here} != {there}"
    found: dict[str, list[bytes]] = {}
    for name, data in here.items():
        found.setdefault(CONFLICT.sub("", name), []).append(data)
    assert {name: sorted(data) for name, data in found.items()} == EXPECTED
    assert rig.on_their_way() == []


def main(directory: str, stride: int) -> None:
    logging.disable(logging.WARNING)  # the conflicts of the scenario
    os.fsync = lambda fd: None  # a killed process loses nothing that it wrote
    base, line, kills = Path(directory), 1, 0
    while True:
        rig = scenario(base)
        ended = run_to_line(rig, line)
        kills += not ended
        rig.run(delete=True)
        rig.run(delete=True)  # a conflict copy that the killed one made
        try:
            check(rig, base / "bucket")
        except AssertionError as error:
            sys.exit(f"killed at line {line}: {error}")
        if ended:
            print(f"{kills} kills")
            return
        line += stride


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
