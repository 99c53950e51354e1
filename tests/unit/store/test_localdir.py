"""What a directory has beyond the contract: other programs, other processes, crashes, odd trees."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r2fs.model.errors import (
    BodyDamaged,
    BucketMissing,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    Refused,
    StoreError,
    UploadMissing,
)
from r2fs.model.ports import Limits
from r2fs.model.records import Condition, ObjectMeta, Version
from r2fs.store.local.sidecar import Sidecars
from r2fs.store.local.store import LocalDirStore
from tests.support.bodies import BytesBody

META = ObjectMeta("audio/wav", {"mtime": "1.5", "comment": "ü"})
LIMITS = Limits(min_part=4, key_write_interval_s=0.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "bucket"
    root.mkdir()
    return root


@pytest.fixture
def store(root: Path) -> LocalDirStore:
    return LocalDirStore(root, limits=LIMITS)


def put(store: LocalDirStore, key: str, data: bytes = b"data") -> Version:
    return Version(key, store.put(key, BytesBody(data), META), len(data))


def keys(store: LocalDirStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list_page(prefix).objects]


def read(store: LocalDirStore, key: str) -> bytes:
    with store.get(key) as download:
        return b"".join(download.chunks(3))


def own_files(root: Path) -> list[Path]:
    return [path for path in (root / ".r2fs").rglob("*") if path.is_file() and path.name != "lock"]


# ------------------------------------------------------------------ plain files
def test_objects_are_plain_files(root: Path, store: LocalDirStore):
    put(store, "takes/07.wav", b"RIFF")
    assert (root / "takes" / "07.wav").read_bytes() == b"RIFF"
    assert sorted(path.name for path in root.iterdir()) == [".r2fs", "takes"]


def test_files_have_the_mode_of_the_umask(root: Path, store: LocalDirStore):
    old = os.umask(0o027)
    try:
        put(store, "a")
    finally:
        os.umask(old)
    assert (root / "a").stat().st_mode & 0o777 == 0o640


def test_files_of_other_programs_are_objects(root: Path, store: LocalDirStore):
    (root / "deep").mkdir()
    (root / "deep" / "song.flac").write_bytes(b"fLaC")
    info = store.head("deep/song.flac")
    assert (info.size, info.content_type, dict(info.metadata or {})) == (4, "audio/flac", {})
    assert read(store, "deep/song.flac") == b"fLaC"
    listed = store.list_page("").objects
    assert [(o.key, o.etag) for o in listed] == [("deep/song.flac", info.etag)]
    with pytest.raises(PreconditionFailed):
        store.put("deep/song.flac", BytesBody(b"x"), META, condition=Condition.absent())
    store.put("deep/song.flac", BytesBody(b"new"), META, condition=Condition.matches(info.etag))
    assert store.head("deep/song.flac").etag == hashlib.md5(b"new").hexdigest()


def test_a_change_by_another_program_is_another_version(root: Path, store: LocalDirStore):
    version = put(store, "a", b"data")
    (root / "a").write_bytes(b"tada")
    os.utime(root / "a", ns=(1, 1))
    info = store.head("a")
    assert info.etag != version.etag
    assert dict(info.metadata or {}) == {}, "what was stored beside belonged to other bytes"
    with pytest.raises(PreconditionFailed):
        store.get("a", if_match=version.etag)
    with pytest.raises(PreconditionFailed):
        store.put("a", BytesBody(b"x"), META, condition=Condition.matches(version.etag))


def test_a_change_in_place_while_it_is_read_is_noticed(root: Path, store: LocalDirStore):
    put(store, "a", bytes(100))
    with store.get("a") as download:
        chunks = download.chunks(10)
        next(chunks)
        with (root / "a").open("r+b") as file:
            file.write(b"changed")
        os.utime(root / "a", ns=(1, 1))
        with pytest.raises(BodyDamaged):
            next(chunks)


def test_an_etag_of_another_programs_file_is_no_md5(root: Path, store: LocalDirStore):
    (root / "a").write_bytes(b"data")
    assert store.head("a").etag.startswith("local-")


def test_an_empty_directory_of_another_program_is_no_object(root: Path, store: LocalDirStore):
    (root / "empty" / "inner").mkdir(parents=True)
    assert keys(store) == []
    assert store.list_page("", delimiter="/").prefixes == ()
    with pytest.raises(ObjectMissing):
        store.head("empty/inner/")
    put(store, "empty/inner/", b"")
    assert keys(store) == ["empty/inner/"]
    assert store.list_page("", delimiter="/").prefixes == ("empty/",)
    store.delete("empty/inner/")
    assert not (root / "empty").exists()


def test_an_object_takes_the_place_of_empty_directories(root: Path, store: LocalDirStore):
    (root / "empty" / "inner").mkdir(parents=True)
    put(store, "empty", b"file")
    assert keys(store) == ["empty"]
    assert read(store, "empty") == b"file"


def test_a_directory_with_a_file_that_is_no_object_stays(root: Path, store: LocalDirStore):
    (root / "dir").mkdir()
    os.mkfifo(root / "dir" / "pipe")
    with pytest.raises(Refused, match="dir"):
        put(store, "dir", b"file")
    assert (root / "dir" / "pipe").exists()


def test_what_is_no_object_is_not_listed(root: Path, store: LocalDirStore):
    put(store, "a")
    os.mkfifo(root / "pipe")
    (root / "dangling").symlink_to("nowhere")
    (root / "circle").symlink_to(root, target_is_directory=True)
    (root / "link").symlink_to("a")
    Path(os.fsdecode(os.fsencode(root) + b"/not\xffutf8")).write_bytes(b"x")
    assert keys(store) == ["a", "link"]
    for key in ("pipe", "dangling"):
        with pytest.raises(ObjectMissing):
            store.head(key)


def test_a_put_over_a_link_replaces_the_link(root: Path, store: LocalDirStore):
    put(store, "a", b"target")
    (root / "link").symlink_to("a")
    put(store, "link", b"new")
    assert read(store, "a") == b"target"
    assert read(store, "link") == b"new"


# ------------------------------------------------------------------ keys that are no paths
BAD_KEYS = ["a//b", "/a", "a/../b", "..", ".", "a/./b", "a\0b", "n" * 256, "é" * 128, ".r2fs/lock", ".r2fs"]
BAD_KEYS += ["/", "", "\udcff", "/".join(["n" * 200] * 6)]


@pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_keys_that_cannot_be_paths(root: Path, store: LocalDirStore, key: str):
    put(store, "a")
    before = sorted(root.rglob("*"))
    for write in (
        lambda: store.put(key, BytesBody(b"x"), META),
        lambda: store.create_upload(key, META),
        lambda: store.copy(store.head("a").version, key),
    ):
        with pytest.raises(Refused):
            write()
    for look in (lambda: store.head(key), lambda: store.get(key)):
        with pytest.raises(ObjectMissing):
            look()
    store.delete(key)
    assert store.delete_many([key]) == {}
    assert sorted(root.rglob("*")) == before


def test_a_file_in_the_way_of_a_directory(store: LocalDirStore):
    put(store, "a")
    with pytest.raises(Refused, match="a/b"):
        put(store, "a/b")
    with pytest.raises(Refused):
        put(store, "a/", b"")
    put(store, "dir/b")
    with pytest.raises(Refused, match="dir"):
        put(store, "dir")
    assert keys(store) == ["a", "dir/b"]
    assert store.delete_many(["a/b"]) == {}


def test_a_marker_holds_no_bytes(store: LocalDirStore):
    with pytest.raises(Refused):
        put(store, "dir/", b"bytes")


# ------------------------------------------------------------------ r2fs's own files
def test_a_marker_whose_put_was_killed_is_one_for_good(
    root: Path, store: LocalDirStore, monkeypatch: pytest.MonkeyPatch
):
    """No object before its side file: stored again, it stays when a file is put into the directory and removed."""

    def killed(self: Sidecars, *given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sidecars, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        store.put("d/", BytesBody(b""), META, condition=Condition.absent())
    monkeypatch.undo()
    assert (root / "d").is_dir()
    assert keys(store) == []
    store.put("d/", BytesBody(b""), META, condition=Condition.absent())
    put(store, "d/take")
    assert keys(store) == ["d/", "d/take"]
    store.delete("d/take")
    assert keys(store) == ["d/"]


def test_nothing_is_left_behind(root: Path, store: LocalDirStore):
    for _ in range(3):
        put(store, "a")
        put(store, "b/c")
        store.copy(store.head("a").version, "d")
    upload = store.create_upload("e", META)
    parts = [store.put_part("e", upload, n, BytesBody(b"data")) for n in (1, 2)]
    store.complete_upload("e", upload, parts)
    store.abort_upload("e", store.create_upload("e", META))
    assert len([path for path in own_files(root) if path.suffix == ".json"]) == 4
    store.delete_many(["a", "b/c", "d", "e"])
    assert own_files(root) == []
    assert [path.name for path in root.iterdir()] == [".r2fs"]


def test_a_refused_put_leaves_no_file(root: Path, store: LocalDirStore):
    put(store, "a")
    before = own_files(root)
    with pytest.raises(PreconditionFailed):
        store.put("a", BytesBody(b"x"), META, condition=Condition.absent())
    assert own_files(root) == before


DELETE_KILLED = """
import os, sys
from pathlib import Path
from r2fs.store.local.store import LocalDirStore

def counted(remove):
    def call(*given, **named):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        remove(*given, **named)

    return call

root, key, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = LocalDirStore(root)
os.unlink, os.rmdir = counted(os.unlink), counted(os.rmdir)
store.delete(key)
"""


def killed_at(step: int, root: Path, key: str) -> bool:
    """A process that deletes `key` is killed when it is about to remove its `step`-th name; was it?"""
    child = subprocess.run(
        [sys.executable, "-c", DELETE_KILLED, str(root), key, str(step)], timeout=60, check=False
    )
    assert child.returncode in (0, 9)
    return child.returncode == 9


@pytest.mark.parametrize("key", ["a/d/e/take", "a/d/e/"])
def test_a_killed_delete_leaves_no_directory_that_was_not_there(root: Path, key: str):
    """At whatever step: the object is there, or it is not, and no directory of its path is one in its place."""
    ways = set()
    for step in range(20):
        store = LocalDirStore(root)
        store.put("a/other", BytesBody(b"stays"), META)
        store.put(key, BytesBody(b""), META)
        killed = killed_at(step, root, key)
        listed = keys(store)
        prefixes = store.list_page("a/", delimiter="/").prefixes
        assert (listed, prefixes) in [(["a/other"], ()), (sorted([key, "a/other"]), ("a/d/",))]
        ways.add((killed, len(listed)))
        store.delete(key)
        assert keys(store) == ["a/other"]
        put(store, "a/d", b"in the place of what a kill left empty")
        store.delete("a/d")
        if not killed:
            break
    assert ways == {(True, 2), (True, 1), (False, 1)}


def test_a_delete_that_fails_half_way_leaves_no_directory(
    root: Path, store: LocalDirStore, monkeypatch: pytest.MonkeyPatch
):
    put(store, "a/d/take")

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("r2fs.store.local.store.sync_directory", broken)
    with pytest.raises(StoreError):
        store.delete("a/d/take")
    assert keys(store) == []
    assert store.list_page("", delimiter="/").prefixes == ()


@pytest.mark.parametrize("had", [True, False], ids=["replacing", "new"])
def test_a_crash_before_the_rename_changes_nothing(root: Path, had: bool, monkeypatch: pytest.MonkeyPatch):
    """The side file is there before its object: alone it means nothing."""
    store = LocalDirStore(root)
    if had:
        put(store, "a", b"old")
        before = store.head("a")

    class Crash(BaseException):
        pass

    write = Sidecars.write

    def write_and_crash(self: Sidecars, *given: object) -> None:
        write(self, *given)  # type: ignore[arg-type]
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Sidecars, "write", write_and_crash)
        with pytest.raises(Crash):
            put(store, "a", b"new")
    if had:
        assert store.head("a") == before
        assert read(store, "a") == b"old"
    else:
        with pytest.raises(ObjectMissing):
            store.head("a")
    put(store, "a", b"newer")
    assert dict(store.head("a").metadata or {}) == dict(META.metadata)


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"etag": 1}'])
def test_a_torn_side_file_costs_its_metadata_alone(root: Path, store: LocalDirStore, torn: bytes):
    put(store, "a", b"data")
    (side,) = [path for path in own_files(root) if path.suffix == ".json"]
    side.write_bytes(torn)
    info = store.head("a")
    assert info.etag.startswith("local-")
    assert read(store, "a") == b"data"
    put(store, "a", b"data")
    assert store.head("a").etag == hashlib.md5(b"data").hexdigest()


def test_two_stores_see_each_other(root: Path, store: LocalDirStore):
    other = LocalDirStore(root, limits=LIMITS)
    version = put(store, "a")
    assert other.head("a").version == version
    other.put("a", BytesBody(b"other"), META, condition=Condition.matches(version.etag))
    with pytest.raises(PreconditionFailed):
        store.put("a", BytesBody(b"mine"), META, condition=Condition.matches(version.etag))


COUNT_UP = """
import sys
from pathlib import Path
from r2fs.model.errors import PreconditionFailed
from r2fs.model.records import Condition, ObjectMeta
from r2fs.store.local.store import LocalDirStore
from tests.support.bodies import BytesBody

store = LocalDirStore(Path(sys.argv[1]))
done = 0
while done < 25:
    with store.get("counter") as download:
        number = int(b"".join(download.chunks()))
    try:
        store.put("counter", BytesBody(b"%d" % (number + 1)), ObjectMeta(), condition=Condition.matches(download.info.etag))
        done += 1
    except PreconditionFailed:
        pass
"""


def test_no_update_of_another_process_is_lost(root: Path, store: LocalDirStore, repo_root: Path):
    """Each of four processes adds 25 to a counter by conditional puts."""
    put(store, "counter", b"0")
    children = [
        subprocess.Popen([sys.executable, "-c", COUNT_UP, str(root)], cwd=repo_root) for _ in range(4)
    ]
    try:
        assert [child.wait(60) for child in children] == [0] * 4
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert read(store, "counter") == b"100"


# ------------------------------------------------------------------ multipart
def test_parts_by_r2s_rules(store: LocalDirStore):
    for sizes in ((4, 5, 1), (4, 4, 5), (4, 3, 4), (3, 3), (5, 4, 5)):
        upload = store.create_upload("a", META)
        parts = [store.put_part("a", upload, n, BytesBody(bytes(size))) for n, size in enumerate(sizes, 1)]
        with pytest.raises(UploadMissing):
            store.complete_upload("a", upload, parts)
        with pytest.raises(UploadMissing):
            store.complete_upload("a", upload, parts[:1][::-1] + parts[:1])
        store.abort_upload("a", upload)


@pytest.mark.parametrize("upload_id", ["", "..", "../meta", "f" * 32, "F" * 32, "x" * 32])
def test_unknown_upload_ids(store: LocalDirStore, upload_id: str):
    store.abort_upload("a", upload_id)
    with pytest.raises(UploadMissing):
        store.put_part("a", upload_id, 1, BytesBody(b"x"))
    with pytest.raises(UploadMissing):
        store.complete_upload("a", upload_id, [])


def test_an_upload_belongs_to_its_key(store: LocalDirStore):
    upload = store.create_upload("a", META)
    with pytest.raises(UploadMissing):
        store.put_part("b", upload, 1, BytesBody(b"x"))
    store.abort_upload("b", upload)
    store.put_part("a", upload, 1, BytesBody(b"x"))


# ------------------------------------------------------------------ a root that cannot be used
def every_request(store: LocalDirStore) -> list:
    return [
        lambda: store.check(),
        lambda: store.list_page(""),
        lambda: store.head("a"),
        lambda: store.get("a"),
        lambda: store.put("a", BytesBody(b"x"), META),
        lambda: store.put("dir/", BytesBody(b""), META),
        lambda: store.create_upload("a", META),
        lambda: store.delete("a"),
        lambda: store.copy(Version("a", "0", 1), "b"),
    ]


def test_a_root_that_is_gone_is_a_missing_bucket_and_is_not_made(root: Path, store: LocalDirStore):
    """The disk may just not be mounted: writing would fill the mount point beneath."""
    root.rmdir()
    for request in every_request(store):
        with pytest.raises(BucketMissing, match=str(root)):
            request()
    assert not root.exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_root_that_may_not_be_written(root: Path, store: LocalDirStore):
    put(store, "a")
    (root / ".r2fs" / "tmp").chmod(0o500)
    try:
        with pytest.raises(PermissionRefused):
            put(store, "b")
        assert read(store, "a") == b"data"
    finally:
        (root / ".r2fs" / "tmp").chmod(0o700)


@pytest.mark.parametrize(
    ("number", "wanted", "says"),
    [
        ("EACCES", PermissionRefused, "check the owner and mode"),
        ("EROFS", PermissionRefused, "check the owner and mode"),
        ("ENOSPC", Refused, "free space"),
        ("EDQUOT", Refused, "free space"),
        ("EISDIR", Refused, "cannot be a file"),
        ("EIO", StoreError, "Input/output error"),
    ],
)
def test_what_the_disk_says(
    root: Path, store: LocalDirStore, monkeypatch: pytest.MonkeyPatch, number: str, wanted, says: str
):
    import errno

    def failing(self: Path, target: object) -> None:
        code = getattr(errno, number)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        with pytest.raises(wanted, match=says) as caught:
            put(store, "takes/07.wav")
    assert "takes/07.wav" in str(caught.value)
    assert caught.value.retry == (number == "EIO")


def test_requests_are_counted_by_the_same_names(root: Path):
    from r2fs.model.ports import SystemClock
    from r2fs.model.settings import Bucket
    from r2fs.store import open_store

    store = open_store(Bucket("file", str(root)), SystemClock())
    store.put("a", BytesBody(b"data"), META)
    with store.get("a") as download:
        b"".join(download.chunks())
    store.copy(store.head("a").version, "b")
    view = store.requests()
    assert view.by_verb == {"PutObject": 1, "GetObject": 1, "HeadObject": 1, "CopyObject": 1}
    assert view.sent_bytes == 4
    store.close()
