"""Requests become verbs: what is granted is taken back, what is resent is not done twice."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from typing import Any

import pytest

from r2fs.drivers.kernel import directory_handlers, wire
from r2fs.drivers.kernel.codec import NS
from r2fs.drivers.kernel.directory_handlers import LARGE, SAMPLE, SNAPSHOT_AGE_S, SNAPSHOTS
from r2fs.drivers.kernel.wire import Op
from r2fs.model.errors import NotFound
from tests.mount.daemons import until
from tests.unit.drivers.conftest import Served

RESENT = 100 | wire.UNIQUE_RESEND


def name(*names: str) -> bytes:
    return b"".join(one.encode("utf-8", "surrogateescape") + b"\0" for one in names)


def entry_of(body: bytes) -> tuple[int, ...]:
    return wire.ENTRY_OUT.unpack_from(body)


# ------------------------------------------------------------------ names
def test_lookup(served: Served) -> None:
    answer = served.kernel.ask(Op.LOOKUP, body=name("f"))
    nodeid, _, valid, attr_valid, _, _, ino, size, *_ = entry_of(answer.body)
    assert nodeid == ino == (served.root / "f").stat().st_ino
    assert (valid, attr_valid, size) == (60, 60, 7)


def test_a_missing_name_is_remembered_for_as_long_as_it_is_valid(served: Served) -> None:
    assert entry_of(served.kernel.ask(Op.LOOKUP, body=name("no")).body)[:3] == (0, 0, 60)
    served.fs.valid_s = 0.0
    assert served.kernel.ask(Op.LOOKUP, body=name("no")).errno == errno.ENOENT


def test_an_answer_overtaken_by_a_change_is_not_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notification may be in the kernel before the answer, and would then be for nothing."""
    asked = served.fs.lookup

    def changing(*request: Any) -> Any:
        try:
            return asked(*request)
        finally:
            other = threading.Thread(target=served.notifier.forget_attributes, args=(17,))
            other.start()
            other.join()

    monkeypatch.setattr(served.fs, "lookup", changing)
    assert entry_of(served.kernel.ask(Op.LOOKUP, body=name("f")).body)[2:4] == (0, 0)
    assert served.kernel.ask(Op.LOOKUP, body=name("no")).errno == errno.ENOENT


def test_names_in_latin1_reach_the_engine_as_lone_surrogates(served: Served) -> None:
    answer = served.kernel.ask(Op.LOOKUP, body=b"caf\xe9\0")
    assert answer.errno == errno.EILSEQ


def test_forgetting(served: Served) -> None:
    nodes = [served.lookup("f") for _ in range(5)]
    directory = entry_of(served.kernel.ask(Op.MKDIR, body=wire.MKDIR_IN.pack(0o700, 0) + name("d")).body)[0]
    assert served.fs.known() == {nodes[0]: 5, directory: 1}
    served.kernel.send(Op.FORGET, nodes[0], wire.FORGET_IN.pack(2))
    pairs = wire.FORGET_ONE.pack(nodes[0], 3) + wire.FORGET_ONE.pack(directory, 1)
    served.kernel.send(Op.BATCH_FORGET, 0, wire.BATCH_FORGET_IN.pack(2, 0) + pairs)
    until("both are forgotten: others' requests go first", lambda: not served.fs.known())


UNWANTED: dict[str, tuple[Op, Callable[[], bytes]]] = {
    "lookup": (Op.LOOKUP, lambda: name("f")),
    "mkdir": (Op.MKDIR, lambda: wire.MKDIR_IN.pack(0o755, 0) + name("new")),
    "symlink": (Op.SYMLINK, lambda: name("new", "target")),
    "mknod": (Op.MKNOD, lambda: wire.MKNOD_IN.pack(stat.S_IFREG | 0o644, 0, 0, 0) + name("new")),
    "create": (Op.CREATE, lambda: wire.CREATE_IN.pack(os.O_RDWR | os.O_CREAT, 0o644, 0, 0) + name("new")),
    "readdirplus": (Op.READDIRPLUS, lambda: wire.READ_IN.pack(0, 0, 4096, 0, 0, 0, 0)),
}


@pytest.mark.parametrize(("op", "body"), UNWANTED.values(), ids=UNWANTED)
def test_what_an_answer_that_nobody_took_had_granted(
    served: Served, monkeypatch: pytest.MonkeyPatch, op: Op, body: Callable[[], bytes]
) -> None:
    for method in ("send", "send_data"):
        monkeypatch.setattr(served.session, method, lambda *answer: False)
    served.kernel.send(op, body=body())
    _until_read(served, op)
    assert served.fs.known() == {}
    assert served.fs.open_handles() == 0
    assert len(served.files) == 0


def test_an_open_that_nobody_took(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    node = served.lookup("f")
    monkeypatch.setattr(served.session, "send", lambda *answer: False)
    served.kernel.send(Op.OPEN, node, wire.OPEN_IN.pack(os.O_RDWR, 0))
    _until_read(served, Op.OPEN)
    assert served.fs.open_handles() == 0
    assert served.modes.view() == ()


def _until_read(served: Served, op: Op) -> None:
    """Until the dispatcher is done with the request: it reads one after the other."""
    served.kernel.send(Op.FORGET, 4711, wire.FORGET_IN.pack(0))
    while not served.session.counts[Op.FORGET]:
        pass


@pytest.mark.parametrize(
    ("op", "body"),
    [
        (Op.MKDIR, wire.MKDIR_IN.pack(0o755, 0) + name("d")),
        (Op.SYMLINK, name("l", "target")),
        (Op.MKNOD, wire.MKNOD_IN.pack(stat.S_IFREG | 0o644, 0, 0, 0) + name("n")),
        (Op.CREATE, wire.CREATE_IN.pack(os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644, 0, 0) + name("c")),
        (Op.UNLINK, name("f")),
        (Op.RMDIR, name("empty")),
        (Op.RENAME, wire.RENAME_IN.pack(wire.ROOT_ID) + name("f", "g")),
        (Op.RENAME2, wire.RENAME2_IN.pack(wire.ROOT_ID, 1, 0) + name("f", "g")),
    ],
    ids=lambda value: value.name if isinstance(value, Op) else "",
)
def test_a_resent_change_that_was_made_already(served: Served, op: Op, body: bytes) -> None:
    (served.root / "empty").mkdir()
    assert served.kernel.ask(op, body=body).errno == 0
    again = served.kernel.ask(op, body=body)
    assert again.errno in (errno.EEXIST, errno.ENOENT), "somebody asks twice"
    assert served.kernel.ask(op, body=body, unique=RESENT).errno == 0, "the kernel asks again"


def test_what_a_bucket_cannot_hold(served: Served) -> None:
    node = served.lookup("f")
    assert served.kernel.ask(Op.LINK, body=wire.LINK_IN.pack(node) + name("hard")).errno == errno.EPERM


def test_a_pipe_and_one_that_was_made_by_a_request_that_came_before(served: Served) -> None:
    pipe = wire.MKNOD_IN.pack(stat.S_IFIFO | 0o640, 0, 0, 0) + name("pipe")
    made = served.kernel.ask(Op.MKNOD, body=pipe)
    assert stat.S_ISFIFO(os.stat(served.root / "pipe").st_mode)
    assert served.kernel.ask(Op.MKNOD, body=pipe).errno == errno.EEXIST
    again = served.kernel.ask(Op.MKNOD, body=pipe, unique=RESENT)
    assert entry_of(again.body)[0] == entry_of(made.body)[0]


def test_readlink(served: Served) -> None:
    node = entry_of(served.kernel.ask(Op.SYMLINK, body=name("l", "café")).body)[0]
    assert served.kernel.ask(Op.READLINK, node).body == "café".encode()


# ------------------------------------------------------------------ directories
def listing(
    served: Served, offset: int = 0, size: int = 4096, op: Op = Op.READDIRPLUS
) -> list[tuple[str, int, int]]:
    """One page: name, node id given with it, and the offset after it."""
    body = served.kernel.ask(op, body=wire.READ_IN.pack(0, offset, size, 0, 0, 0, 0)).body
    found, at = list[tuple[str, int, int]](), 0
    while at < len(body):
        nodeid = 0
        if op == Op.READDIRPLUS:
            nodeid = entry_of(body[at:])[0]
            at += wire.ENTRY_OUT.size
        _, after, length, _ = wire.DIRENT.unpack_from(body, at)
        at += wire.DIRENT.size
        found.append((body[at : at + length].decode(), nodeid, after))
        at += (length + 7) & ~7
    return found


def test_a_directory_in_pages(served: Served) -> None:
    for number in range(50):
        (served.root / f"file {number:02}").touch()
    names, offset = list[str](), 0
    while page := listing(served, offset, 1024):
        names += [one for one, _, _ in page]
        assert all(nodeid for one, nodeid, _ in page if one not in (".", ".."))
        offset = page[-1][2]
    assert names == [".", "..", "f", *(f"file {number:02}" for number in range(50))]
    assert set(served.fs.known().values()) == {1}, "READDIRPLUS counts like LOOKUP"


def test_readers_keep_their_snapshots(served: Served) -> None:
    for number in range(9):
        (served.root / f"{number}").touch()
    first = listing(served, 0, 700)
    (served.root / "0").unlink()
    (served.root / "8").unlink()
    second = listing(served, 0, 4096)
    assert "0" not in [one for one, _, _ in second]
    rest = listing(served, first[-1][2])
    assert [one for one, _, _ in first + rest] == [".", "..", *"012345678", "f"]
    gone = {one: nodeid for one, nodeid, _ in rest if one == "8"}
    assert gone == {"8": 0}, "a name that has gone meanwhile comes without attributes"


def test_a_reader_whose_snapshot_has_gone(served: Served) -> None:
    for number in range(9):
        (served.root / f"{number}").touch()
    first = listing(served, 0, 700)
    for _ in range(SNAPSHOTS + 1):
        listing(served, 0, 4096)
    rest = listing(served, first[-1][2])
    assert [one for one, _, _ in first + rest] == [".", "..", *"012345678", "f"]


def test_snapshots_are_given_back(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """When they are old, or too many names together; until then a reader of the kernel's copy may come back."""
    for number in range(30):
        (served.root / f"{number:02}").touch()
    handlers = served.directories
    clock = [1000.0]
    monkeypatch.setattr(directory_handlers.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(directory_handlers, "SNAPSHOT_NAMES", 100)
    for _ in range(10):
        listing(served, 0, 700)  # its reader stops there
    assert len(handlers._snapshots) == 3, "of 31 names each"
    clock[0] += SNAPSHOT_AGE_S + 1
    page = listing(served, 0, 700)
    assert len(handlers._snapshots) == 1
    names = [one for one, _, _ in page]
    while page:
        page = listing(served, page[-1][2], 700)
        names += [one for one, _, _ in page]
    assert names == [".", "..", *(f"{number:02}" for number in range(30)), "f"]
    assert len(handlers._snapshots) == 1


def test_plain_readdir(served: Served) -> None:
    assert [one for one, _, _ in listing(served, op=Op.READDIR)] == [".", "..", "f"]
    assert served.fs.known() == {}


def test_a_large_directory_shows_few_attributes_until_they_are_looked_at(served: Served) -> None:
    for number in range(LARGE):
        (served.root / f"{number:04}").touch()
    first = listing(served, 0, 1 << 15)
    assert sum(nodeid != 0 for _, nodeid, _ in first) == SAMPLE
    assert len(first) > 100
    names, page = [one for one, _, _ in first], first
    while page := listing(served, page[-1][2], 1 << 15):  # as the kernel asks where somebody looks
        assert all(nodeid for _, nodeid, _ in page)
        names += [one for one, _, _ in page]
    assert names == [".", "..", *(f"{number:04}" for number in range(LARGE)), "f"]


@pytest.mark.parametrize("op", [Op.READDIR, Op.READDIRPLUS])
def test_a_listing_is_kept_as_long_as_it_is_fresh(
    served: Served, monkeypatch: pytest.MonkeyPatch, op: Op
) -> None:
    kept = list[tuple[int, float]]()
    monkeypatch.setattr(served.notifier, "listing_shown", lambda ino, valid_s: kept.append((ino, valid_s)))
    served.fs.valid_s = 600.0
    page = listing(served, op=op)
    assert listing(served, page[-1][2], op=op) == []
    listing(served)  # handled after that
    [(ino, valid_s)] = kept
    assert ino == wire.ROOT_ID
    assert 590.0 < valid_s <= 600.0


def test_a_page_that_fails_grants_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in "abc":
        (served.root / one).touch()
    asked = served.fs.readdir_entry

    def failing(caller: Any, ino: int, one: str) -> Any:
        if one == "c":
            raise NotFound("defect")
        return asked(caller, ino, one)

    monkeypatch.setattr(served.fs, "readdir_entry", failing)
    body = wire.READ_IN.pack(0, 0, 4096, 0, 0, 0, 0)
    assert served.kernel.ask(Op.READDIRPLUS, body=body).errno == errno.ENOENT
    assert served.fs.known() == {}


# ------------------------------------------------------------------ attributes
def setattr_body(valid: int, **values: int) -> bytes:
    order = [
        "padding",
        "fh",
        "size",
        "owner",
        "atime",
        "mtime",
        "ctime",
        "atime_ns",
        "mtime_ns",
        "ctime_ns",
        "mode",
        "u4",
        "uid",
        "gid",
        "u5",
    ]
    return wire.SETATTR_IN.pack(valid, *(values.get(key, 0) for key in order))


def test_setattr(served: Served) -> None:
    node = served.lookup("f")
    valid = wire.FATTR_SIZE | wire.FATTR_MODE | wire.FATTR_MTIME
    body = setattr_body(valid, size=3, mode=stat.S_IFREG | 0o600, mtime=2**64 - 5, mtime_ns=7)
    answer = served.kernel.ask(Op.SETATTR, node, body)
    assert answer.errno == 0
    found = (served.root / "f").stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (3, 0o600)
    assert found.st_mtime_ns == -5 * NS + 7
    assert wire.ATTR_OUT.unpack(answer.body)[4] == 3


@pytest.mark.parametrize(("mode", "left"), [(0o6777, 0o777), (0o6767, 0o2767), (0o755, 0o755)])
@pytest.mark.parametrize("by", ["truncate", "write", "open"])
def test_set_id_bits(served: Served, by: str, mode: int, left: int) -> None:
    """HANDLE_KILLPRIV_V2: the kernel says when, we do it. Set-group-id needs the group's x to mean that."""
    node = served.lookup("f")
    fh, _, _ = served.open(node)
    os.chmod(served.root / "f", mode)
    if by == "truncate":
        body = setattr_body(wire.FATTR_SIZE | wire.FATTR_KILL_SUIDGID, size=1)
        assert served.kernel.ask(Op.SETATTR, node, body).errno == 0
    elif by == "write":
        body = wire.WRITE_IN.pack(fh, 0, 1, wire.WRITE_KILL_SUIDGID, 0, os.O_RDWR, 0) + b"x"
        assert served.kernel.ask(Op.WRITE, node, body).errno == 0
    else:
        body = wire.OPEN_IN.pack(os.O_WRONLY | os.O_TRUNC, wire.OPEN_KILL_SUIDGID)
        assert served.kernel.ask(Op.OPEN, node, body).errno == 0
    assert stat.S_IMODE((served.root / "f").stat().st_mode) == left


def test_extended_attributes(served: Served) -> None:
    node = served.lookup("f")
    kernel = served.kernel

    def sized(room: int, *key: str) -> bytes:
        return wire.GETXATTR_IN.pack(room, 0) + name(*key)

    assert kernel.ask(Op.GETXATTR, node, sized(0, "user.k")).errno == errno.ENODATA
    assert kernel.ask(Op.SETXATTR, node, wire.SETXATTR_IN.pack(5, 0) + name("user.k") + b"a\0b\0c").errno == 0
    assert kernel.ask(Op.GETXATTR, node, sized(0, "user.k")).body == wire.GETXATTR_OUT.pack(5, 0)
    assert kernel.ask(Op.GETXATTR, node, sized(4, "user.k")).errno == errno.ERANGE
    assert kernel.ask(Op.GETXATTR, node, sized(5, "user.k")).body == b"a\0b\0c"
    assert kernel.ask(Op.LISTXATTR, node, sized(99)).body == b"user.k\0"
    assert kernel.ask(Op.LISTXATTR, node, sized(0)).body == wire.GETXATTR_OUT.pack(7, 0)
    create = wire.SETXATTR_IN.pack(1, os.XATTR_CREATE) + name("user.k") + b"z"
    assert kernel.ask(Op.SETXATTR, node, create).errno == errno.EEXIST
    assert kernel.ask(Op.SETXATTR, node, create, unique=RESENT).errno == 0
    assert kernel.ask(Op.REMOVEXATTR, node, name("user.k")).errno == 0
    assert kernel.ask(Op.REMOVEXATTR, node, name("user.k")).errno == errno.ENODATA
    assert kernel.ask(Op.REMOVEXATTR, node, name("user.k"), unique=RESENT).errno == 0


# ------------------------------------------------------------------ open files
def test_open_read_write_close(served: Served) -> None:
    node = served.lookup("f")
    fh, fopen, backing_id = served.open(node)
    assert (fopen, backing_id) == (wire.FOPEN_PASSTHROUGH, 1)
    kernel = served.kernel
    read = wire.READ_IN.pack(fh, 3, 100, 0, 0, os.O_RDWR, 0)
    assert kernel.ask(Op.READ, node, read).body == b"tent", "fadvise reads a passthrough file through us"
    write = wire.WRITE_IN.pack(fh, 1, 2, 0, 0, os.O_RDWR, 0) + b"XY" + b"beyond"
    assert wire.WRITE_OUT.unpack(kernel.ask(Op.WRITE, node, write).body) == (2, 0)
    assert (served.root / "f").read_bytes() == b"cXYtent"
    assert served.fs.calls["wrote"] == 1
    assert kernel.ask(Op.FLUSH, node, wire.FLUSH_IN.pack(fh, 0, 0, 0)).errno == 0
    assert served.fs.calls["flush"] == 1
    release = wire.RELEASE_IN.pack(fh, os.O_RDWR, 0, 0)
    assert kernel.ask(Op.RELEASE, node, release).errno == 0
    assert served.fs.open_handles() == 0
    assert kernel.ask(Op.RELEASE, node, release).errno == 0
    assert kernel.ask(Op.READ, node, read).errno == errno.EBADF


def test_a_readers_close_asks_nothing_of_the_engine(served: Served) -> None:
    node = served.lookup("f")
    fh, fopen, _ = served.open(node, os.O_RDONLY)
    assert fopen & wire.FOPEN_NOFLUSH
    assert served.kernel.ask(Op.FLUSH, node, wire.FLUSH_IN.pack(fh, 0, 0, 0)).errno == 0
    assert served.fs.calls["flush"] == 0


def test_appending_is_the_engines(served: Served) -> None:
    node = served.lookup("f")
    fh, _, _ = served.open(node, os.O_WRONLY | os.O_APPEND)
    write = wire.WRITE_IN.pack(fh, 0, 3, 0, 0, os.O_WRONLY | os.O_APPEND, 0) + b"end"
    assert served.kernel.ask(Op.WRITE, node, write).errno == 0
    assert (served.root / "f").read_bytes() == b"contentend"


def test_fsync_waits_on_a_lane(served: Served) -> None:
    node = served.lookup("f")
    fh, _, _ = served.open(node)
    assert served.kernel.ask(Op.FSYNC, node, wire.FSYNC_IN.pack(fh, 0, 0)).errno == 0
    assert served.fs.calls["fsync"] == 2, "once in the dispatcher, which may not wait, once on a lane"
    assert served.kernel.ask(Op.FSYNCDIR, 1, wire.FSYNC_IN.pack(0, 0, 0)).errno == 0


def test_holes_and_space(served: Served) -> None:
    node = served.lookup("f")
    fh, _, _ = served.open(node)
    assert served.kernel.ask(Op.FALLOCATE, node, wire.FALLOCATE_IN.pack(fh, 0, 100, 0, 0)).errno == 0
    assert (served.root / "f").stat().st_size == 100
    body = wire.LSEEK_IN.pack(fh, 0, os.SEEK_HOLE, 0)
    assert wire.LSEEK_OUT.unpack(served.kernel.ask(Op.LSEEK, node, body).body)[0] > 0
    body = wire.LSEEK_IN.pack(fh, 101, os.SEEK_DATA, 0)
    assert served.kernel.ask(Op.LSEEK, node, body).errno == errno.ENXIO


def test_create(served: Served) -> None:
    body = wire.CREATE_IN.pack(os.O_RDWR | os.O_CREAT, stat.S_IFREG | 0o640, 0o022, 0) + name("new")
    answer = served.kernel.ask(Op.CREATE, body=body)
    nodeid, *_ = entry_of(answer.body)
    fh, fopen, backing_id = wire.OPEN_OUT.unpack_from(answer.body, wire.ENTRY_OUT.size)
    assert nodeid == (served.root / "new").stat().st_ino
    assert stat.S_IMODE((served.root / "new").stat().st_mode) == 0o640, "the kernel has applied the umask"
    assert fopen == wire.FOPEN_PASSTHROUGH and backing_id
    assert served.files.handle(fh) is not None
    assert served.fs.known() == {nodeid: 1}


def test_what_ends_without_release(served: Served) -> None:
    """After an abort the kernel tells nothing more."""
    node = served.lookup("f")
    for _ in range(3):
        served.open(node)
    served.files.close_all()
    assert served.fs.open_handles() == 0
    assert served.modes.view() == ()
