"""The log is bounded, whatever comes and goes."""

from __future__ import annotations

import logging

import pytest

from state_log import Ration, StateLog
from tests.clocks import ManualClock

HOUR_S, DAY_S = 3600, 86_400


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def state(clock: ManualClock) -> StateLog:
    return StateLog(logging.getLogger("test"), "voltage meter", clock)


def flap(state: StateLog, clock: ManualClock, times: int, *, every_s: float = 10.0) -> None:
    for _ in range(times):
        state.failed("lost", "port gone")
        clock.advance(every_s / 2)
        state.well("works again")
        clock.advance(every_s / 2)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_what_comes_and_goes_is_told_six_times_and_then_counted_hour_by_hour(
    state: StateLog, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    flap(state, clock, 360 + 1)
    told = lines(caplog)
    assert told[:10] == ["voltage meter: port gone", "voltage meter: works again after 5.0 s (failures: 1)"] * 5
    often = "this happens often: what more of it comes within the hour is not told"
    assert told[10:12] == [
        f"voltage meter: port gone ({often})",
        "voltage meter: works again after 5.0 s (failures: 1)",
    ]
    assert told[12:] == [
        "voltage meter: 354 more troubles came and went, the last one: port gone",
        "voltage meter: port gone",
        "voltage meter: works again after 5.0 s (failures: 1)",
    ]


def test_the_count_is_told_although_all_is_well_meanwhile(
    state: StateLog, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    flap(state, clock, 20)
    caplog.clear()
    clock.advance(HOUR_S)
    state.well("works again")
    state.well("works again")
    assert lines(caplog) == ["voltage meter: 14 more troubles came and went, the last one: port gone"]


def test_a_trouble_that_was_only_counted_and_stays_is_told_after_five_minutes(
    state: StateLog, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    flap(state, clock, 20)
    caplog.clear()
    for _ in range(400):
        state.failed("lost", "port gone")
        clock.advance(1.0)
    state.well("works again")
    assert lines(caplog) == [
        "voltage meter: port gone; this has lasted for 5 min 0 s",
        "voltage meter: works again after 6 min 40 s (failures: 400)",
    ]


@pytest.mark.parametrize(("there_s", "away_s"), [(1, 1), (7, 8), (60, 15), (301, 5), (3601, 1)])
def test_a_day_of_one_thing_that_comes_and_goes_is_less_than_a_quarter_of_a_megabyte(
    state: StateLog, clock: ManualClock, caplog: pytest.LogCaptureFixture, there_s: int, away_s: int
) -> None:
    caplog.set_level(logging.INFO)
    message = "x" * 250
    began_mono_s = clock.mono_s()
    while clock.mono_s() < began_mono_s + DAY_S:
        for second in range(there_s):
            state.failed(("lost", "timeout", "silent")[second % 3], message)
            clock.advance(1)
        state.well("works again")
        clock.advance(away_s)
    assert sum(len(line) + 60 for line in lines(caplog)) < 250_000


def test_a_ration_lets_the_first_of_each_hour_through_and_hints_at_the_rest(clock: ManualClock) -> None:
    ration = Ration(clock)
    told = [(ration.take(), bool(ration.hint)) for _ in range(8)]
    assert told == [(True, False)] * 5 + [(True, True)] + [(False, False)] * 2
    clock.advance(HOUR_S)
    assert ration.take()
    assert not ration.hint
