"""Intervals closed on time, gone on with after a crash, and told in a line."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aretas_reporter import AretasReporter
from averaging_buffer import AveragingBuffer
from clock import Clock
from measurements import CURRENT, VOLTAGE, Datum, Interval, IntervalSummary, PowerSample, Statistic, Uncertainty
from report_lines import summary_text
from store import NAME
from tables import LeftOpen
from tests.clocks import ManualClock, TrustedClock
from tests.test_outbox import Box
from time_keeper import TimeKeeper


def statistic(mean: float, count: int = 4) -> Statistic:
    return Statistic(mean=mean, minimum=mean, maximum=mean, count=count)


def reporter(
    clock: Clock, folder: Path, published: list[list[Datum]] | None = None, *, boot: str = "boot"
) -> tuple[AretasReporter, AveragingBuffer, Box]:
    buffer, outbox = AveragingBuffer(clock), Box(folder, clock=clock, boot=boot)
    publish = None if published is None else lambda readings: published.append(list(readings))
    return AretasReporter(2000, buffer, outbox, TimeKeeper(clock, 600), clock, publish), buffer, outbox


def add(buffer: AveragingBuffer, start_mono_s: float, volts: float) -> None:
    buffer.begin(start_mono_s)
    buffer.complete(start_mono_s, PowerSample(start_mono_s=start_mono_s, voltage_v=volts))


def test_the_line_of_a_report_reads_as_a_person_says_it() -> None:
    whole = IntervalSummary(voltage_v=statistic(52.11339), current_a=statistic(-20.4132), power_kw=statistic(-1.063802))
    assert summary_text(whole) == "52.1134 V, -20.4132 A, -1.06380 kW (4 samples)"
    empty = IntervalSummary(voltage_v=None, current_a=None, power_kw=None)
    assert summary_text(empty) == "no voltage, no current, no power (0 samples)"


@given(st.integers(min_value=0, max_value=4_000_000_000_000), st.sampled_from([1000, 2000, 7000, 30_000, 86_400_000]))
def test_ends_lie_on_whole_multiples_and_no_end_comes_twice(now_utc_ms: int, interval_ms: int) -> None:
    clock = ManualClock(utc_s=now_utc_ms / 1000)
    outbox: Any = None  # not used by what is tested here
    make = AretasReporter(interval_ms, AveragingBuffer(clock), outbox, TimeKeeper(clock, 600), clock)
    offset_s = clock.utc_s() - clock.mono_s()
    make._interval = make._interval_from(clock.mono_s(), offset_s, previous_end_utc_ms=0)
    ends = []
    for late_s in (0.0, 0.0004, -0.0004, 0.05):
        interval = make._interval
        assert interval is not None
        ends.append(interval.end_utc_ms)
        clock.advance(interval.end_mono_s - clock.mono_s() + late_s)
        make._interval = make._interval_from(interval.end_mono_s, offset_s, previous_end_utc_ms=interval.end_utc_ms)
    assert ends[0] > now_utc_ms - 1e-3
    assert ends[0] - now_utc_ms <= interval_ms + 1
    assert ends == [ends[0] + number * interval_ms for number in range(4)]
    assert all(end % interval_ms == 0 for end in ends)


def test_an_interval_is_closed_at_its_end_and_the_next_begins_there(tmp_path: Path) -> None:
    clock = TrustedClock()
    published_mono_s: list[float] = []
    make, buffer, outbox = reporter(clock, tmp_path)
    make._publish = lambda _: published_mono_s.append(clock.mono_s())
    make.open_first_interval()
    first = make._interval
    assert first is not None
    add(buffer, clock.mono_s(), 50.0)
    while make._interval is first:
        make.step()
    assert 0 <= published_mono_s[0] - first.end_mono_s < 0.1
    second = make._interval
    assert second is not None
    assert (second.start_mono_s, second.end_utc_ms) == (first.end_mono_s, first.end_utc_ms + 2000)
    assert [each.datum.timestamp_utc_ms for each in outbox.lend(9)] == [first.end_utc_ms]


def test_a_stop_closes_the_open_interval_with_the_time_of_the_stop(tmp_path: Path) -> None:
    clock = TrustedClock()
    published: list[list[Datum]] = []
    make, buffer, outbox = reporter(clock, tmp_path, published)
    make.open_first_interval()
    add(buffer, clock.mono_s(), 50.0)
    before_utc_ms = math.floor(clock.utc_s() * 1000)
    make.finish()
    after_utc_ms = clock.utc_s() * 1000
    (lent,) = outbox.lend(9)
    assert before_utc_ms <= lent.datum.timestamp_utc_ms <= after_utc_ms
    assert published == [[lent.datum]]


def test_a_killed_run_s_interval_goes_on_after_the_restart(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, buffer, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    clock.advance(0.5)
    add(buffer, clock.mono_s(), 50.0)
    outbox.journal([PowerSample(start_mono_s=clock.mono_s(), voltage_v=50.0)])
    outbox.crash()
    clock.advance(0.5)
    make, buffer, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    add(buffer, clock.mono_s(), 52.0)
    clock.advance(0.5)
    assert make._interval is not None
    make._close(make._interval)
    assert [(each.datum.data, each.datum.timestamp_utc_ms) for each in outbox.lend(9)] == [(51.0, 1_700_000_002_000)]


@pytest.mark.parametrize("boot", ["boot", "the next"])
def test_a_killed_run_s_interval_that_is_over_is_closed_with_its_own_end(tmp_path: Path, boot: str) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    clock.advance(0.5)
    outbox.journal([PowerSample(start_mono_s=clock.mono_s(), voltage_v=50.0)])
    outbox.crash()
    clock = ManualClock(mono_s=1100.0 if boot == "boot" else 5.0, utc_s=1_700_000_100.5)
    clock.boot = boot
    make, buffer, outbox = reporter(clock, tmp_path, boot=boot)
    make.open_first_interval()
    assert [(each.datum.data, each.datum.timestamp_utc_ms) for each in outbox.lend(9)] == [(50.0, 1_700_000_002_000)]
    clock.advance(1.0)
    add(buffer, clock.mono_s(), 53.0)
    clock.advance(1.0)
    assert make._interval is not None
    make._close(make._interval)
    assert [each.datum.data for each in outbox.lend(9)] == [50.0, 53.0]


class Keeping(Box):
    """A box that keeps the summaries that it is given, beside what it does with them."""

    def __init__(self, *arguments: Any, **others: Any) -> None:
        self.kept: list[IntervalSummary] = []
        super().__init__(*arguments, **others)

    def close_interval(self, summary: IntervalSummary, *arguments: Any, **others: Any) -> list[Datum]:
        self.kept.append(summary)
        return super().close_interval(summary, *arguments, **others)

    def close_left_open(self, left: LeftOpen, summary: IntervalSummary, following: Interval) -> None:
        self.kept.append(summary)
        super().close_left_open(left, summary, following)


@pytest.mark.parametrize("boot", ["boot", "the next"])
def test_every_interval_gets_its_uncertainty_also_those_that_were_left_open(tmp_path: Path, boot: str) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, _, box = reporter(clock, tmp_path)
    make.open_first_interval()
    for volts in (50.0, 51.0):  # the second is of the interval behind
        clock.advance(1.0)
        box.journal([PowerSample(start_mono_s=clock.mono_s(), voltage_v=volts)])
    box.crash()
    clock = ManualClock(mono_s=1100.0 if boot == "boot" else 5.0, utc_s=1_700_000_100.5)
    clock.boot = boot
    keeping = Keeping(tmp_path, clock=clock, boot=boot)

    def uncertainty(summary: IntervalSummary) -> Uncertainty:
        assert summary.voltage_v is not None
        return Uncertainty(voltage_v=summary.voltage_v.mean / 1000)

    buffer, keeper = AveragingBuffer(clock), TimeKeeper(clock, 600)
    make = AretasReporter(2000, buffer, keeping, keeper, clock, uncertainty=uncertainty)
    make.open_first_interval()
    clock.advance(1.0)
    add(buffer, clock.mono_s(), 53.0)
    clock.advance(1.0)
    make.finish()
    assert [each.uncertainty.voltage_v for each in keeping.kept] == [0.05, 0.051, 0.053]
    assert make.last_summary == keeping.kept[-1]


@pytest.mark.parametrize("ahead_s", [0.012, 0.01, 0.008, 0.006, 0.004, 0.002])
def test_a_restart_just_before_an_interval_s_end_goes_on_with_the_next(tmp_path: Path, ahead_s: float) -> None:
    """The first interval of the new run is over before that of the killed one has been closed."""

    class PassingClock(ManualClock):
        def mono_s(self) -> float:
            self.advance(0.001)
            return super().mono_s()

    clock = ManualClock(utc_s=1_700_000_000.5)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    clock.advance(0.5)
    outbox.journal([PowerSample(start_mono_s=clock.mono_s(), voltage_v=50.0)])
    outbox.crash()
    make, _, outbox = reporter(PassingClock(mono_s=1101.5 - ahead_s, utc_s=1_700_000_102 - ahead_s), tmp_path)
    make.open_first_interval()
    assert [(each.datum.data, each.datum.timestamp_utc_ms) for each in outbox.lend(9)] == [(50.0, 1_700_000_002_000)]
    assert make._interval is not None
    assert make._interval.end_utc_ms in (1_700_000_102_000, 1_700_000_104_000)


@pytest.mark.parametrize(("away_s", "boot"), [(0.2, "boot"), (100.0, "boot"), (100.0, "the next")])
def test_what_was_not_verified_counts_by_the_first_check_after_the_restart_and_by_no_later_one(
    tmp_path: Path, away_s: float, boot: str
) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    clock.advance(0.5)
    taken = PowerSample(
        start_mono_s=clock.mono_s(), voltage_v=50.0, current_a=2.0, power_kw=0.1, unverified=(VOLTAGE, CURRENT)
    )
    outbox.journal([taken])
    outbox.crash()
    clock.advance(away_s)
    clock.boot = boot
    asked: list[set[str]] = []

    def verify(meters: Collection[str]) -> dict[str, str | None]:
        asked.append(set(meters))
        return {VOLTAGE: None, CURRENT: "SettingsDiffer"}

    for _ in range(2):  # killed again at once: by now the meters are set up, and any check of them would be good
        outbox = Box(tmp_path, clock=clock, boot=boot)
        make = AretasReporter(2000, AveragingBuffer(clock), outbox, TimeKeeper(clock, 600), clock, verify=verify)
        make.open_first_interval()
        outbox.crash()
    outbox = Box(tmp_path, clock=clock, boot=boot)
    make = AretasReporter(2000, AveragingBuffer(clock), outbox, TimeKeeper(clock, 600), clock, verify=verify)
    make.open_first_interval()
    assert make._interval is not None
    clock.advance(make._interval.end_mono_s - clock.mono_s())
    make._close(make._interval)
    assert asked == [{VOLTAGE, CURRENT}]
    assert [(each.datum.type, each.datum.data) for each in outbox.lend(9)] == [(532, 50.0)]


def test_what_was_not_verified_is_refused_where_the_database_is_read_too_late_for_a_check(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    clock.advance(0.5)
    outbox.journal([PowerSample(start_mono_s=clock.mono_s(), voltage_v=50.0, unverified=(VOLTAGE,))])
    outbox.crash()
    clock.advance(10.0)
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    make, _, outbox = reporter(clock, tmp_path)
    make._verify = lambda meters: dict.fromkeys(meters)
    make.open_first_interval()
    other.execute("ROLLBACK")
    other.close()
    make._stop.set()
    make.step()
    assert outbox.is_recovered
    assert outbox.lend(9) == []
    assert outbox._ledger.counts["refused unverified"] == 1


def test_a_shorter_report_interval_takes_effect_at_once_and_the_samples_count(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    outbox = Box(tmp_path, clock=clock)
    AretasReporter(86_400_000, AveragingBuffer(clock), outbox, TimeKeeper(clock, 600), clock).open_first_interval()
    clock.advance(0.5)
    outbox.journal([PowerSample(start_mono_s=clock.mono_s(), voltage_v=50.0)])
    outbox.crash()
    make, buffer, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    clock.advance(0.5)
    add(buffer, clock.mono_s(), 52.0)
    assert make._interval is not None
    clock.advance(make._interval.end_mono_s - clock.mono_s())
    make._close(make._interval)
    assert [(each.datum.data, each.datum.timestamp_utc_ms) for each in outbox.lend(9)] == [(51.0, 1_700_000_002_000)]


def test_a_database_that_is_locked_at_the_start_is_taken_over_when_it_is_free(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    clock.advance(0.5)
    outbox.journal([PowerSample(start_mono_s=clock.mono_s(), voltage_v=50.0)])
    outbox.crash()
    clock.advance(10.0)
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    make, buffer, outbox = reporter(clock, tmp_path)  # waits 2 s for the lock
    make.open_first_interval()
    other.execute("ROLLBACK")
    other.close()
    clock.advance(0.5)
    add(buffer, clock.mono_s(), 52.0)
    make._stop.set()  # it does not wait
    make.step()
    assert make._interval is not None
    clock.advance(make._interval.end_mono_s - clock.mono_s())
    make._close(make._interval)
    told = [(each.datum.data, each.datum.timestamp_utc_ms) for each in outbox.lend(9)]
    assert told == [(50.0, 1_700_000_002_000), (52.0, 1_700_000_012_000)]


def test_interval_contains_its_end_and_not_its_start() -> None:
    interval = Interval(start_mono_s=1.0, end_mono_s=2.0, end_utc_ms=0)
    assert 2.0 in interval
    assert 1.0 not in interval


@pytest.mark.parametrize("away_s", [0.3, 30.0])
def test_a_sample_of_the_next_interval_in_the_journal_stays_in_its_own(tmp_path: Path, away_s: float) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    end_mono_s = clock.mono_s() + 1.5
    outbox.journal(
        [
            PowerSample(start_mono_s=end_mono_s - 0.1, voltage_v=50.0),
            PowerSample(start_mono_s=end_mono_s + 0.05, voltage_v=60.0),
        ]
    )
    outbox.crash()
    clock.advance(1.6 + away_s)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    if away_s < 1:
        assert make._interval is not None
        make._close(make._interval)
    told = [(each.datum.data, each.datum.timestamp_utc_ms) for each in outbox.lend(9)]
    assert told == [(50.0, 1_700_000_002_000), (60.0, 1_700_000_004_000)]
    outbox.crash()
    again = Box(tmp_path, clock=clock).recovered
    assert again is not None
    assert again.samples == []


@pytest.mark.parametrize("step_s", [20.0, -20.0, 21_600.0, -21_600.0, 259_200.0, -1_600_000_000.0, 0.1])
def test_after_a_step_of_the_clock_every_end_is_the_true_one_and_no_two_are_the_same(
    tmp_path: Path, step_s: float
) -> None:
    """The kernel says that the new time is right: so the old one was wrong, and only what follows can be right."""
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, buffer, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    ends_utc_s = []
    for number in range(6):
        interval = make._interval
        assert interval is not None
        clock.advance((interval.end_mono_s - clock.mono_s()) / 2)
        add(buffer, clock.mono_s(), 50.0)
        if number == 2:
            clock.step_utc(step_s)
        clock.advance(interval.end_mono_s - clock.mono_s())
        ends_utc_s.append(clock.utc_s())
        make._close(interval)
    timestamps = [each.datum.timestamp_utc_ms for each in outbox.lend(99)]
    assert len(set(timestamps)) == len(timestamps) == 6
    assert timestamps == pytest.approx([1000 * each for each in ends_utc_s], abs=251)
    assert timestamps[4] % 2000 == 0
    assert timestamps[5] - timestamps[4] == 2000


def test_readings_wait_for_the_clock_and_get_their_true_time(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=100.0)  # 1970
    clock.synchronised = False
    make, buffer, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    for _ in range(3):
        assert make._interval is not None
        clock.advance(1.0)
        add(buffer, clock.mono_s(), 50.0)
        clock.advance(make._interval.end_mono_s - clock.mono_s())
        make._close(make._interval)
    assert outbox.lend(9) == []
    clock.step_utc(1_800_000_000.25)
    clock.synchronised = True
    verdict = make._time_keeper.verdict()
    outbox.stamp(verdict.offset_s)
    ends = [each.datum.timestamp_utc_ms for each in outbox.lend(9)]
    assert ends == [1_800_000_102_250, 1_800_000_104_250, 1_800_000_106_250]
