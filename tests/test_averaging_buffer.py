"""Which samples make which interval, and what their averages are."""

from __future__ import annotations

import math
import statistics
import threading
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from averaging_buffer import GRACE_S, AveragingBuffer, summarise
from clock import Clock
from measurements import Interval, PowerSample, Statistic
from tests.clocks import ManualClock


def interval(start_mono_s: float, end_mono_s: float, end_utc_ms: int = 5000) -> Interval:
    return Interval(start_mono_s=start_mono_s, end_mono_s=end_mono_s, end_utc_ms=end_utc_ms)


def opened(start_mono_s: float = 0.0, end_mono_s: float = 10.0) -> AveragingBuffer:
    buffer = AveragingBuffer(ManualClock(mono_s=1e6))
    buffer.open(interval(start_mono_s, end_mono_s))
    return buffer


def add(buffer: AveragingBuffer, start_mono_s: float, voltage_v: float | None = None, **others: Any) -> None:
    buffer.begin(start_mono_s)
    buffer.complete(start_mono_s, PowerSample(start_mono_s=start_mono_s, voltage_v=voltage_v, **others))


def test_power_is_the_mean_of_the_products_and_not_the_product_of_the_means() -> None:
    buffer = opened()
    for at_s, voltage_v, current_a in ((1.0, 50.0, 10.0), (2.0, 52.0, 30.0)):
        add(buffer, at_s, voltage_v, current_a=current_a, power_kw=voltage_v * current_a / 1000)
    summary = buffer.close(interval(0, 10), interval(10, 20))
    assert summary.power_kw is not None
    assert summary.power_kw.mean == pytest.approx((0.5 + 1.56) / 2)
    assert summary.power_kw.mean != pytest.approx(51.0 * 20.0 / 1000)


def test_an_interval_is_left_open_and_right_closed() -> None:
    buffer = opened(0.0, 10.0)
    for at_s, voltage_v in ((0.0, 1.0), (0.001, 2.0), (10.0, 4.0), (10.001, 8.0)):
        add(buffer, at_s, voltage_v)
    first = buffer.close(interval(0, 10), interval(10, 20))
    second = buffer.close(interval(10, 20), interval(20, 30))
    assert first.voltage_v is not None
    assert second.voltage_v is not None
    assert (first.voltage_v.count, first.voltage_v.mean) == (2, 3.0)
    assert (second.voltage_v.count, second.voltage_v.mean) == (1, 8.0)
    assert first.samples_refused == {"late": 1}
    assert (first.samples_read, second.samples_read) == (3, 1)
    assert first.samples_averaged == 2


def test_no_data_is_none_and_never_zero_or_the_previous_value() -> None:
    buffer = opened()
    add(buffer, 1.0, 52.0, current_a=3.0, power_kw=0.156)
    buffer.close(interval(0, 10), interval(10, 20))
    add(buffer, 11.0, None, current_a=4.0)
    summary = buffer.close(interval(10, 20), interval(20, 30))
    assert summary.voltage_v is None
    assert summary.power_kw is None
    assert summary.current_a is not None
    assert summary.current_a.mean == 4.0
    assert buffer.close(interval(20, 30), interval(30, 40)).current_a is None


@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=300))
def test_mean_minimum_maximum_and_count(values: list[float]) -> None:
    buffer = opened()
    for index, value in enumerate(values):
        add(buffer, 0.01 * (index + 1), value)
    statistic = buffer.close(interval(0, 10), interval(10, 20)).voltage_v
    assert statistic is not None
    assert statistic.mean == pytest.approx(statistics.fmean(values), rel=1e-12, abs=1e-12)
    assert (statistic.minimum, statistic.maximum, statistic.count) == (min(values), max(values), len(values))


@given(st.lists(st.floats(min_value=-100, max_value=100), min_size=1, max_size=100), st.sampled_from([0.0, 1e6, -1e8]))
def test_the_deviation_is_that_of_a_sample_whatever_the_mean(values: list[float], far: float) -> None:
    values = [far + value for value in values]
    samples = [PowerSample(start_mono_s=float(index), voltage_v=value) for index, value in enumerate(values)]
    statistic = summarise(samples).voltage_v
    assert statistic is not None
    exact = statistics.stdev(map(Fraction, values)) if len(values) > 1 else 0.0
    assert statistic.deviation == pytest.approx(float(exact), rel=1e-6, abs=abs(far) * 1e-14 + 1e-15)


@pytest.mark.parametrize("value", [0.1, -52.123456, 1e-9, 1 / 3, 0.0])
def test_a_constant_has_no_deviation_at_all(value: float) -> None:
    statistic = summarise(PowerSample(start_mono_s=float(at), voltage_v=value) for at in range(1000)).voltage_v
    assert statistic is not None
    assert statistic.deviation == 0.0


def test_a_day_of_samples_loses_no_digit() -> None:
    buffer = opened(0.0, 1e9)
    for index in range(200_000):
        add(buffer, index + 1.0, 0.1)
    statistic = buffer.close(interval(0, 1e9), interval(1e9, 2e9)).voltage_v
    assert statistic is not None
    assert statistic.mean == 0.1


def test_a_sample_under_way_at_the_end_is_waited_for() -> None:
    clock = Clock()
    buffer = AveragingBuffer(clock)
    now_mono_s = clock.mono_s()
    ending = interval(now_mono_s - 1, now_mono_s)
    buffer.open(ending)
    buffer.begin(now_mono_s - 0.001)
    sample = PowerSample(start_mono_s=now_mono_s - 0.001, voltage_v=52.0)
    threading.Timer(0.02, buffer.complete, [now_mono_s - 0.001, sample]).start()
    summary = buffer.close(ending, interval(now_mono_s, now_mono_s + 1))
    assert summary.voltage_v is not None


def test_a_sample_that_does_not_come_holds_the_end_up_for_a_moment_only_and_counts_as_late() -> None:
    clock = Clock()
    buffer = AveragingBuffer(clock)
    now_mono_s = clock.mono_s()
    ending = interval(now_mono_s - 1, now_mono_s)
    buffer.open(ending)
    buffer.begin(now_mono_s - 0.001)
    assert buffer.close(ending, interval(now_mono_s, now_mono_s + 1)).voltage_v is None
    assert clock.mono_s() - now_mono_s < 0.2
    buffer.complete(now_mono_s - 0.001, PowerSample(start_mono_s=now_mono_s - 0.001, voltage_v=52.0))
    following = interval(now_mono_s, now_mono_s + 1)
    assert buffer.close(interval(now_mono_s, now_mono_s), following).samples_refused == {"late": 1}


def test_a_sample_of_the_next_interval_does_not_hold_the_end_up() -> None:
    buffer = opened(0.0, 10.0)
    buffer.begin(10.5)
    assert buffer.settle_by_mono_s(9.9) == 10.0 + GRACE_S
    assert buffer.settle_by_mono_s(10.5) == math.inf
    buffer.close(interval(0, 10), interval(10, 20))
    assert buffer.settle_by_mono_s(10.5) == 20.0 + GRACE_S


def test_readings_read_are_those_averaged_and_those_refused() -> None:
    buffer = opened()
    buffer.begin(1.0)
    buffer.complete(1.0, PowerSample(start_mono_s=1.0, voltage_v=52.0, refused=("ReplyTimeout",)))
    add(buffer, 2.0, 52.0, current_a=1.0, power_kw=0.052)
    summary = buffer.close(interval(0, 10), interval(10, 20))
    assert (summary.samples_read, summary.samples_averaged) == (4, 3)
    assert summary.samples_refused == {"ReplyTimeout": 1}


def test_an_interval_goes_on_with_the_samples_of_an_earlier_run() -> None:
    samples = [PowerSample(start_mono_s=1.0, voltage_v=50.0), PowerSample(start_mono_s=2.0, voltage_v=52.0)]
    buffer = AveragingBuffer(ManualClock(mono_s=1e6))
    buffer.open(interval(0, 10), samples)
    add(buffer, 3.0, 54.0)
    whole = buffer.close(interval(0, 10), interval(10, 20)).voltage_v
    assert whole is not None
    assert (whole.mean, whole.count) == (52.0, 3)
    assert summarise(samples).voltage_v == Statistic(
        mean=51.0, minimum=50.0, maximum=52.0, count=2, deviation=math.sqrt(2)
    )
