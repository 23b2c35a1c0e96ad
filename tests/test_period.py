"""What an operator types as a time is what he means by it, on the days when the clocks change, too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history import LAST_UTC_MS
from period import local_text, named_period, period_between, utc_offset_text, utc_text

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def utc_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def live_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that moves this computer into another time zone."""

    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def test_a_day_is_a_day_of_the_place(live_in: Callable[[str], None]) -> None:
    live_in("America/Vancouver")
    now_utc_s = utc_ms("2026-11-29T07:30") / 1000  # still the 28th, half past eleven at night
    today, yesterday, month = (named_period(name, now_utc_s) for name in ("today", "yesterday", "month"))
    assert today.from_utc_ms == utc_ms("2026-11-28T08:00")
    assert today.to_utc_ms == utc_ms("2026-11-29T07:30") + 1
    assert (yesterday.from_utc_ms, yesterday.to_utc_ms) == (utc_ms("2026-11-27T08:00"), utc_ms("2026-11-28T08:00"))
    assert month.from_utc_ms == utc_ms("2026-11-01T07:00")  # it was still summer time
    assert named_period("all", now_utc_s).to_utc_ms == LAST_UTC_MS


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Europe/Berlin", "2026-07-01", 24),
        ("America/Vancouver", "2026-03-08", 23),
        ("Africa/Cairo", "2026-04-24", 23),  # there it is midnight itself that does not exist
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Asia/Kolkata", "2026-11-01", 24),
    ],
)
def test_a_day_on_which_the_clocks_change_is_as_long_as_it_is(
    live_in: Callable[[str], None], zone: str, day: str, hours: float
) -> None:
    live_in(zone)
    alone = period_between(day, day, 0.0)
    assert alone.to_utc_ms - alone.from_utc_ms == hours * HOUR_MS
    noon_after_utc_s = (alone.to_utc_ms + 12 * HOUR_MS) / 1000
    assert named_period("yesterday", noon_after_utc_s) == alone


def test_a_date_alone_is_the_whole_day_and_a_time_without_an_offset_is_local(live_in: Callable[[str], None]) -> None:
    live_in("Europe/Berlin")
    days = period_between("2026-11-01", "2026-11-30", 0.0)
    assert (days.from_utc_ms, days.to_utc_ms) == (utc_ms("2026-10-31T23:00"), utc_ms("2026-11-30T23:00"))
    times = period_between("2026-11-01T14:30", "2026-11-01T14:30:15.5Z", 0.0)
    assert (times.from_utc_ms, times.to_utc_ms) == (utc_ms("2026-11-01T13:30"), utc_ms("2026-11-01T14:30:15.500"))
    assert period_between("20261101", "20261130", 0.0) == days
    assert period_between("2026-11-01 14:30-05:00", None, 1e9).from_utc_ms == utc_ms("2026-11-01T19:30")
    assert period_between(None, None, 1e9).to_utc_ms == 10**12


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-02-30", "01.11.2026", "9999-12-31", "2026-11-1"])
def test_what_is_no_time_is_refused_with_how_to_write_one(text: str) -> None:
    if text == "9999-12-31":
        with pytest.raises(ValueError, match="write 2026-11-01"):
            period_between(None, text, 0.0)
        return
    with pytest.raises(ValueError, match="write 2026-11-01"):
        period_between(text, None, 0.0)


@given(utc_ms=st.integers(0, LAST_UTC_MS))
def test_every_time_is_written_so_that_it_can_be_read_again(utc_ms: int) -> None:
    text = utc_text(utc_ms)
    assert round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000) == utc_ms
    assert ("." in text) == (utc_ms % 1000 != 0)
    local = datetime.fromisoformat(f"{local_text(utc_ms)}{utc_offset_text(utc_ms)}")
    assert round(local.timestamp() * 1000) == utc_ms
