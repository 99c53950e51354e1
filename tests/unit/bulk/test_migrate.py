"""Migrations: each copy confirmed before its old key goes, whenever it is killed, whatever others do meanwhile."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from r2fs.bulk.migrate import Migration, Report, check
from r2fs.bulk.plan import BadMap, Plan, Row, plan
from r2fs.bulk.results import Results
from r2fs.model.errors import PermissionRefused, Unavailable
from tests.support.memory_store import MemoryStore

ROWS = [Row(1, "a", "new/a", ("7",)), Row(2, "b", "new/b", ("8",)), Row(3, "a", "other/a", ("9",))]


class Killed(BaseException):
    pass


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    for key in ("a", "b", "c"):
        made.set(key, key.encode() * 9, title=f"of {key}")
    return made


def work() -> Plan:
    return plan(ROWS, ("id",))


def migrate(store: MemoryStore, path: Path, keep_old: bool = False) -> Report:
    with Results(path, ("id",)) as results:
        return Migration(store, results, keep_old, at_once=1).run(work(), lambda report: None)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_is_copied_confirmed_and_then_removed(store: MemoryStore, tmp_path: Path) -> None:
    """S9, S10: with its metadata, and one line for each row of the map, for the database."""
    report = migrate(store, tmp_path / "results")
    assert (report.total, report.confirmed, report.deleted, report.failed) == (3, 3, 2, [])
    assert report.bytes == 27
    assert store.keys() == ["c", "new/a", "new/b", "other/a"]
    assert store.metadata("other/a") == {"title": "of a"}
    found = {line["new"]: line for line in lines(tmp_path / "results")}
    assert {new: line["id"] for new, line in found.items()} == {"new/a": "7", "new/b": "8", "other/a": "9"}
    assert found["new/b"]["etag"] == store.head("new/b").etag
    assert found["new/b"]["size"] == "9"


def test_the_results_have_their_name_on_the_disk_before_a_key_goes(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut takes the whole file, and with it the word of what has moved."""
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(
        "r2fs.bulk.results.fsync_dir", lambda path: synced.append((path, (tmp_path / "results").exists()))
    )
    store.before = lambda name, key: None if synced else pytest.fail(f"{name} before the results are safe")
    migrate(store, tmp_path / "results")
    assert synced == [(tmp_path, True)]


def test_a_second_run_has_nothing_to_do(store: MemoryStore, tmp_path: Path) -> None:
    migrate(store, tmp_path / "results")
    before = (tmp_path / "results").read_bytes()
    report = migrate(store, tmp_path / "results")
    assert (report.confirmed, report.earlier, report.deleted, report.failed) == (0, 3, 0, [])
    assert (tmp_path / "results").read_bytes() == before


def test_old_keys_can_be_kept_and_removed_later(store: MemoryStore, tmp_path: Path) -> None:
    """S12: old and new live side by side for a while."""
    assert migrate(store, tmp_path / "results", keep_old=True).deleted == 0
    assert {"a", "b", "new/a", "new/b"} < set(store.keys())
    assert migrate(store, tmp_path / "results").deleted == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_anywhere_it_goes_on_and_loses_nothing(store: MemoryStore, tmp_path: Path, when: str) -> None:
    objects, at = dict(store.objects), 0
    while True:
        at += 1
        store.objects, left = dict(objects), at
        path = tmp_path / f"results{at}"

        def kill(name: str, key: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        setattr(store, when, kill)
        ended = False
        try:
            migrate(store, path)
            ended = True
        except Killed:
            pass
        setattr(store, when, lambda name, key: None)
        data = store.contents()
        for key, targets in (("a", ("new/a", "other/a")), ("b", ("new/b",))):
            assert key in data or all(data.get(target) == key.encode() * 9 for target in targets), (at, key)
        confirmed = {line["new"] for line in lines(path)}
        assert confirmed <= set(store.keys())
        report = migrate(store, path)
        assert report.failed == [], at
        assert store.keys() == ["c", "new/a", "new/b", "other/a"], at
        assert len(lines(path)) == 3
        if ended:
            assert at > 5
            return


def test_a_line_that_a_kill_cut_short_is_not_believed(store: MemoryStore, tmp_path: Path) -> None:
    migrate(store, tmp_path / "results", keep_old=True)
    whole = (tmp_path / "results").read_bytes()
    (tmp_path / "results").write_bytes(whole[:-5])
    report = migrate(store, tmp_path / "results")
    assert (report.confirmed, report.earlier, report.failed) == (1, 2, [])
    assert sorted((tmp_path / "results").read_bytes().splitlines()) == sorted(whole.splitlines())


def test_another_map_s_results_are_not_touched(store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "results"
    for text in (
        "something else\n",
        "old,new,size,etag,old_etag\n",
        "old,new,id,size,etag,old_etag\na,b\n",
        "\xff\n",
    ):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(BadMap, match="--results"):
            migrate(store, path)
        assert path.read_text(encoding="latin-1") == text
    assert store.keys() == ["a", "b", "c"]


def test_no_object_is_replaced(store: MemoryStore, tmp_path: Path) -> None:
    store.set("new/a", b"somebody's")
    report = migrate(store, tmp_path / "results")
    ((line, key, why),) = report.failed
    assert (line, key) == (1, "a")
    assert "not replaced" in why
    assert store.data("new/a") == b"somebody's"
    assert store.data("a") == b"a" * 9
    assert [line["new"] for line in lines(tmp_path / "results")] == ["other/a", "new/b"]


def test_the_same_object_at_the_new_key_is_a_copy_of_an_earlier_run(
    store: MemoryStore, tmp_path: Path
) -> None:
    store.set("new/a", b"a" * 9)
    assert migrate(store, tmp_path / "results").failed == []


@pytest.mark.parametrize("same", [True, False])
def test_objects_of_several_parts_are_compared_by_their_bytes(
    store: MemoryStore, tmp_path: Path, same: bool
) -> None:
    store.objects["a"].etag = "d41d8cd98f00b204e9800998ecf8427e-2"
    store.set("new/a", b"a" * 9 if same else b"b" * 9)
    report = migrate(store, tmp_path / "results")
    assert (report.failed == []) is same
    assert ("a" in store.contents()) is not same


def test_an_old_key_that_was_written_again_is_kept(store: MemoryStore, tmp_path: Path) -> None:
    migrate(store, tmp_path / "results", keep_old=True)
    store.set("a", b"newer")
    report = migrate(store, tmp_path / "results")
    ((_, key, why),) = report.failed
    assert key == "a"
    assert "it is kept" in why
    assert store.data("a") == b"newer"


def test_a_source_that_is_not_there_is_said(store: MemoryStore, tmp_path: Path) -> None:
    store.remove("a")
    report = migrate(store, tmp_path / "results")
    assert [(line, key) for line, key, _ in report.failed] == [(1, "a"), (3, "a")]
    assert report.confirmed == 1


def test_one_that_fails_does_not_end_the_others(store: MemoryStore, tmp_path: Path) -> None:
    def refuse(name: str, key: str) -> None:
        if (name, key) == ("copy", "other/a"):
            raise PermissionRefused("not allowed")

    store.before = refuse
    report = migrate(store, tmp_path / "results")
    assert [(line, key) for line, key, _ in report.failed] == [(3, "a")]
    assert {"a", "b"} & set(store.keys()) == {"a"}
    assert (report.confirmed, report.done) == (2, 3)


def test_a_copy_that_is_not_there_is_not_confirmed(store: MemoryStore, tmp_path: Path) -> None:
    """S10: a copy that only says that it was made."""

    def lose(name: str, key: str) -> None:
        if name == "copy":
            store.remove(key)

    store.after = lose
    report = migrate(store, tmp_path / "results")
    assert len(report.failed) == 3
    assert {"a", "b"} <= set(store.keys())
    assert lines(tmp_path / "results") == []


def test_a_check_changes_nothing(store: MemoryStore) -> None:
    store.remove("b")
    store.set("other/a", b"x")
    seen: list[int] = []
    faults = check(store, work(), seen.append)
    assert {(line, key) for line, key, _ in faults} == {(2, "b"), (3, "a")}
    assert seen == [1, 2, 3]
    assert not {"copy", "put", "delete"} & {name for name, _ in store.calls}


def test_an_outage_is_in_the_report(store: MemoryStore, tmp_path: Path) -> None:
    def away(name: str, key: str) -> None:
        raise Unavailable("no answer")

    store.before = away
    report = migrate(store, tmp_path / "results")
    assert len(report.failed) == 3
    assert {why for _, _, why in report.failed} == {"no answer"}
