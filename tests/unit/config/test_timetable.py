"""Limits of bandwidth as people write them, and what holds at a moment: in local time, over midnight, at a changed clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from r2fs.model.errors import SettingsError
from r2fs.model.settings.loading import load
from r2fs.model.settings.timetable import OFF, BandwidthLimit, Timetable

KIND = BandwidthLimit()
MIB = 1 << 20
# Central Europe, by the rule itself: no test needs a database of zones.
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", BERLIN)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def local(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))


FORMS = {
    "10M": "10MiB",
    "10 MiB/s": "10MiB",
    "80Mbit": "10000000",
    "80 Mbit/s": "10000000",
    "OFF": "off",
    "0": "off",
    "Mo-Fr 08:00-20:00 = 5M, else off": "Mo-Fr 08:00-20:00 = 5MiB",
    "mon-friday 8-20=5M else 1M": "Mo-Fr 08:00-20:00 = 5MiB, else 1MiB",
    "Mo,We 22:00-06:00 = off; else 1M": "We,Mo 22:00-6 = off, else 1MiB",
    "Fr-Mo = 64k": "Mo,Fr-Su = 64KiB, else off",
    "Mo-Su = 1M": "00:00-24:00 = 1MiB, else off",
    "12:30-24 = 1M, Sa = off, else = 2M": "12:30-24:00 = 1MiB, Sa = off, else 2MiB",
}


@pytest.mark.parametrize(("text", "same"), FORMS.items())
def test_forms(text: str, same: str) -> None:
    value = KIND.parse(text)
    assert KIND.parse(same) == value == KIND.parse(str(value))
    assert str(value) == (text if "=" in text else same)
    assert KIND.write(value) == f'"{value}"'


WRONG = {
    "10": "outside",  # rclone has KiB for it
    "fast": "no rate",
    "5Mo": "no rate",
    "Mo-Fr 08:00 = 5M": "has no end",
    "Mo-Fr 08:00-20:00 5M": "no rate",
    "08:00,512k 12:00,10M": "no rate",
    "Mo-Fri8 = 1M": "no day of the week",
    "M 8-9 = 1M": "no day of the week",
    "8-8 = 1M": "has no length",
    "8-25 = 1M": "no time of day",
    "24-8 = 1M": "has no length",
    "8:60-9 = 1M": "no time of day",
    "= 5M": "DAYS HH:MM-HH:MM",
    "8-9 Mo = 5M": "DAYS HH:MM-HH:MM",
    "else 5M, Mo = 1M": "no rate",
    "Mo = 1M, always": "else RATE",
    "": "no rate",
}


@pytest.mark.parametrize(("text", "why"), WRONG.items())
def test_what_is_no_limit(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        KIND.parse(text)


@pytest.mark.parametrize("raw", [True, 1.5, ["10M"]])
def test_no_text(raw: object) -> None:
    with pytest.raises(ValueError, match="no limit"):
        KIND.parse(raw)


def test_a_wrong_one_names_setting_place_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('url = "file:///b"\nupload_limit = "Mo-Fr 08:00 = 5M"\n')
    with pytest.raises(SettingsError) as failed:
        load(environ={"HOME": str(tmp_path)}, config_file=path)
    text = str(failed.value)
    assert "upload_limit" in text
    assert f"{path}:2" in text
    assert '"Mo-Fr 08:00-20:00 = 5M, else off"' in text


def test_hours_of_days() -> None:
    table = KIND.parse("Mo-Fr 08:00-20:00 = 5M, Sa = 1M, else off")
    friday = "2026-11-27"
    assert [table.rate(local(f"{friday} {hour}")) for hour in ("07:59", "08:00", "19:59", "20:00")] == [
        None, 5 * MIB, 5 * MIB, None,
    ]  # fmt: skip
    assert table.rate(local("2026-11-28 03:00")) == MIB
    assert table.rate(local("2026-11-29 12:00")) is None
    assert table.until(local(f"{friday} 07:59")) == local(f"{friday} 08:00")
    assert table.until(local(f"{friday} 12:34")) == local(f"{friday} 20:00")
    assert table.until(local("2026-11-29 00:00")) == local("2026-11-30 08:00")


def test_over_midnight_the_night_belongs_to_the_evening() -> None:
    table = KIND.parse("Fr 22:00-06:00 = 1M, else 2M")
    saturday = local("2026-11-28 05:59")
    assert table.rate(saturday) == MIB
    assert table.until(saturday) == local("2026-11-28 06:00")
    assert table.rate(local("2026-11-27 05:59")) == 2 * MIB
    assert table.rate(local("2026-11-28 22:30")) == 2 * MIB


def test_the_first_rule_that_holds_counts() -> None:
    table = KIND.parse("Sa 12:00-13:00 = off, Sa = 1M, else 2M")
    assert table.rate(local("2026-11-28 12:30")) is None
    assert table.rate(local("2026-11-28 13:00")) == MIB


def test_where_the_clock_is_set_forward_the_missing_hour_holds_nothing() -> None:
    """On 2026-03-29 02:00 becomes 03:00, at 01:00 UTC."""
    table = KIND.parse("02:00-03:00 = 1M, else off")
    assert table.rate(utc("2026-03-29T00:59")) is None
    assert table.rate(utc("2026-03-29T01:00")) is None
    assert table.until(utc("2026-03-29T00:30")) == local("2026-03-30 02:00")
    longer = KIND.parse("01:30-03:30 = 1M, else off")
    assert longer.until(utc("2026-03-29T00:30")) == utc("2026-03-29T01:30")  # half an hour and half an hour


def test_where_the_clock_is_set_back_an_hour_holds_twice() -> None:
    """On 2026-10-25 03:00 becomes 02:00, at 01:00 UTC."""
    table = KIND.parse("02:30-03:30 = 1M, else off")
    changes = [utc(f"2026-10-25T{at}") for at in ("00:30", "01:00", "01:30", "02:30")]
    assert [table.rate(at) for at in changes] == [MIB, None, MIB, None]
    assert [table.until(at - 60) for at in changes] == changes


def test_the_next_change_is_the_first_of_all_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    table = KIND.parse("Mo-Fr 08:07-20:01 = 5M, Sa 23:59-00:03 = 1M, else off")
    asked: list[float] = []
    rate = Timetable.rate
    monkeypatch.setattr(Timetable, "rate", lambda self, at_s: (asked.append(at_s), rate(self, at_s))[1])
    for day in range(24, 31):
        begin = local(f"2026-10-{day} 11:11")
        asked.clear()
        found = table.until(begin)
        assert found is not None
        assert len(asked) < (found - begin) / 60 / 2  # fewer than minutes
        minutes = (begin + 60 * minute for minute in range(1, 8 * 24 * 60))
        assert found == next(at for at in minutes if rate(table, at) != rate(table, begin))


def test_what_never_changes_has_no_end() -> None:
    for text in ("5M", "off", "Mo = 1M, else 1M"):
        assert KIND.parse(text).until(local("2026-11-28 12:00")) is None
    assert Timetable().is_off
    assert KIND.parse("Mo = off, else off").is_off
    assert not KIND.parse("Mo = 1M").is_off
    assert OFF.rate(0.0) is None
