"""The journal's table of attributes: its rows, and their bound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2fs.disk.journal.attributes import AttributeRows
from r2fs.disk.journal.journal import Journal
from r2fs.model.records import KeptAttributes


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "state")
    yield journal
    journal.close()


def row(key: str, number: int = 7, **changes: object) -> KeptAttributes:
    values: dict[str, object] = {
        "etag": "e", "size": 1, "st_ino": number, "metadata": {"mode": 0o640}, "ctime_ns": 1, "shown_ns": None,
        "target": None, "modified_ns": None, "stored_s": 1.5, **changes,
    }  # fmt: skip
    return KeptAttributes(key=key, **values)  # type: ignore[arg-type]


def within(rows: AttributeRows, directory: str) -> list[KeptAttributes]:
    return [one for some in rows.in_directory(directory) for one in some]


def test_the_rows_are_bounded_and_the_oldest_go(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r2fs.disk.journal.attributes.TRIM_EVERY", 5)
    rows = AttributeRows(journal._database, limit=10)
    for number in range(40):
        rows.put(row(f"{number:02}", number))
    assert [one.key for one in within(rows, "")] == [f"{number}" for number in range(30, 40)]


def test_rows_that_were_written_again_do_not_push_others_out(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r2fs.disk.journal.attributes.TRIM_EVERY", 5)
    rows = AttributeRows(journal._database, limit=10)
    for number in range(40):
        rows.put(row(f"{number % 8}", number))
        rows.put(row("gone"))
        rows.forget("gone")
    assert {one.key: one.st_ino for one in within(rows, "")} == {f"{n}": 32 + n for n in range(8)}


def test_a_row_that_is_stored_again_and_again_stays(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project file that is saved each day came in first, and is not the first to go."""
    monkeypatch.setattr("r2fs.disk.journal.attributes.TRIM_EVERY", 5)
    rows = AttributeRows(journal._database, limit=10)
    for number in range(40):
        rows.put(row("project", number))
        rows.put_shown("takes/", 7, number, number)
        rows.put(row(f"{number:02}", number))
    kept = {one.key: one.st_ino for one in within(rows, "")}
    assert (kept["project"], kept["takes/"]) == (39, 7)
    assert len(kept) <= 10 + 4


def test_rows_are_found_by_directory_and_come_back_whole(journal: Journal) -> None:
    rows = journal.attributes
    target = os.fsdecode(b"caf\xe9")
    there = [
        row("a/link.rclonelink", target=target),
        row("a/b/", etag="", shown_ns=5),
        row("a/b", modified_ns=9, metadata={}),
    ]
    for one in (*there, row("a/b/deeper"), row("ab"), row("", shown_ns=3)):
        rows.put(one)
    assert sorted(within(rows, "a/"), key=lambda one: one.key) == sorted(there, key=lambda one: one.key)
    assert [one.key for one in within(rows, "")] == ["ab"]
    assert rows.get("") == row("", shown_ns=3)
    rows.put_shown("a/b/", 8, 11, 12)
    assert rows.get("a/b/") == row("a/b/", 8, etag="", shown_ns=11, ctime_ns=12)


def test_many_rows_come_by_and_by(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r2fs.disk.journal.attributes.AT_ONCE", 3)
    for number in range(7):
        journal.attributes.put(row(f"a/{number}"))
    assert [len(some) for some in journal.attributes.in_directory("a/")] == [3, 3, 1]
    assert [one.key for one in within(journal.attributes, "a/")] == [f"a/{n}" for n in range(7)]


def test_what_is_said_of_a_version_reaches_no_other(journal: Journal) -> None:
    rows = journal.attributes
    rows.put(row("take", etag="new"))
    rows.forget("take", "old")
    rows.confirm("take", "old", 5, 2.0)
    rows.correct("take", "old", {}, 5, 2.0)
    rows.missed("take", "old", 2.0)
    assert rows.get("take") == row("take", etag="new")
    rows.confirm("take", "new", 5, 1.0)  # and the version was stored anew since
    rows.correct("take", "new", {}, 5, 1.0)
    rows.missed("take", "new", 1.0)
    assert rows.get("take") == row("take", etag="new")
    rows.correct("take", "new", {"mode": 0o600}, 5, 2.0)
    assert rows.get("take") == row("take", etag="new", metadata={"mode": 0o600}, modified_ns=5)
    rows.missed("take", "new", 2.0)
    assert rows.get("take") is None


def test_two_spellings_of_a_key_are_one(journal: Journal) -> None:
    journal.attributes.put(row("Ma\u0308rz"))
    assert journal.attributes.get("M\u00e4rz") == row("M\u00e4rz")


def counted(rows: AttributeRows, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries from now on."""
    queries: list[str] = []
    query = rows._query

    def counting(sql: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        queries.append(sql)
        return query(sql, values)

    monkeypatch.setattr(rows, "_query", counting)
    return queries


def test_a_directory_without_rows_is_asked_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of names that other hosts wrote are looked up."""
    rows = journal.attributes
    rows.put(row("elsewhere/01"))
    queries = counted(rows, monkeypatch)
    for number in range(1000):
        assert rows.get(f"kit/{number}") is None
    assert len(queries) == 2
    rows.put(row("kit/7"))
    assert rows.get("kit/7") == row("kit/7")
    assert rows.get("kit/8") is None
    rows.put_shown("kit/loops/", 9, 1, 2)
    found = rows.get("kit/loops/")
    assert found is not None and found.st_ino == 9


def test_a_row_written_while_it_is_asked_is_found(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = journal.attributes
    query = rows._query

    def late(sql: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        found = query(sql, values)
        if "SELECT 1" in sql:
            monkeypatch.setattr(rows, "_query", query)
            rows.put(row("kit/7"))
        return found

    monkeypatch.setattr(rows, "_query", late)
    assert rows.get("kit/6") is None
    assert rows.get("kit/7") == row("kit/7")
