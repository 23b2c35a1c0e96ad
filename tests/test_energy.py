"""Energy and charge from samples: exact, split at zero, never across a gap, however the samples come or are cut up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from averaging_buffer import AveragingBuffer, summarise
from energy import EnergyMeter
from measurements import Energy, Interval, LastPoints, PowerSample
from tests.clocks import ManualClock

FOREVER = Interval(start_mono_s=-math.inf, end_mono_s=1e9, end_utc_ms=0)
BRIDGED_S = 3.1  # with samples every second


def sample(start_mono_s: float, power_kw: float | None = None, current_a: float | None = None) -> PowerSample:
    return PowerSample(start_mono_s=start_mono_s, power_kw=power_kw, current_a=current_a)


def measured(samples: Sequence[PowerSample], last: LastPoints | None = None, interval_s: float = 1.0) -> Energy:
    meter = EnergyMeter(interval_s, last)
    for each in samples:
        meter.add(each)
    return meter.take()


def exactly(points: Sequence[tuple[float, float | None]]) -> tuple[Fraction, Fraction, Fraction]:
    """Return in, out and covered seconds of the lines between points, in exact fractions and the plainest way."""
    known = [(Fraction(at), Fraction(value)) for at, value in points if value is not None]
    inwards = outwards = covered = Fraction(0)
    for (begin, first), (end, second) in itertools.pairwise(known):
        if float(end - begin) > BRIDGED_S:  # rounded once, as the program subtracts them
            continue
        covered += end - begin
        cuts = [begin, end]
        if first * second < 0:
            cuts.insert(1, begin + (end - begin) * first / (first - second))
        for left, right in itertools.pairwise(cuts):
            at_left, at_right = (first + (second - first) * (cut - begin) / (end - begin) for cut in (left, right))
            area = (right - left) * (at_left + at_right) / 2
            inwards, outwards = inwards + max(area, Fraction(0)), outwards + max(-area, Fraction(0))
    return inwards / 3600, outwards / 3600, covered


values = st.one_of(
    st.none(), st.floats(min_value=-500, max_value=500, allow_subnormal=False).map(lambda x: round(x, 6))
)
steps = st.floats(min_value=0.05, max_value=6.0)


@st.composite
def runs(draw: st.DrawFn) -> list[PowerSample]:
    """Samples in order, some without a power or a current, some behind a gap."""
    at = draw(st.floats(min_value=0.0, max_value=1e6))
    samples = []
    for step, power_kw, current_a in draw(st.lists(st.tuples(steps, values, values), max_size=40)):
        at += step
        samples.append(sample(at, power_kw, current_a))
    return samples


def same(energy: Energy) -> object:
    return pytest.approx(
        (
            energy.energy_in_kwh,
            energy.energy_out_kwh,
            energy.charge_in_ah,
            energy.charge_out_ah,
            energy.energy_s,
            energy.charge_s,
        ),
        rel=1e-12,
        abs=1e-12,
    )


def flows(energy: Energy) -> tuple[float, ...]:
    return (
        energy.energy_in_kwh,
        energy.energy_out_kwh,
        energy.charge_in_ah,
        energy.charge_out_ah,
        energy.energy_s,
        energy.charge_s,
    )


@given(runs())
def test_energy_and_charge_are_the_exact_trapezoid_split_at_zero(samples: list[PowerSample]) -> None:
    energy = measured(samples)
    inwards, outwards, covered = exactly([(each.start_mono_s, each.power_kw) for each in samples])
    assert (energy.energy_in_kwh, energy.energy_out_kwh, energy.energy_s) == pytest.approx(
        (float(inwards), float(outwards), float(covered)), rel=1e-9, abs=1e-12
    )
    inwards, outwards, covered = exactly([(each.start_mono_s, each.current_a) for each in samples])
    assert (energy.charge_in_ah, energy.charge_out_ah, energy.charge_s) == pytest.approx(
        (float(inwards), float(outwards), float(covered)), rel=1e-9, abs=1e-12
    )


def test_an_hour_of_a_kilowatt_is_a_kilowatt_hour() -> None:
    energy = measured([sample(float(at), 1.0, -20.0) for at in range(3601)])
    assert (energy.energy_in_kwh, energy.energy_out_kwh, energy.energy_s) == (1.0, 0.0, 3600.0)
    assert (energy.charge_in_ah, energy.charge_out_ah, energy.charge_s) == (0.0, 20.0, 3600.0)


def test_at_a_zero_crossing_what_lies_above_goes_in_and_what_lies_below_goes_out() -> None:
    energy = measured([sample(0.0, 3.0), sample(2.0, -1.0)])  # crosses zero after 1.5 s
    assert energy.energy_in_kwh * 3600 == pytest.approx(1.5 * 3.0 / 2)
    assert energy.energy_out_kwh * 3600 == pytest.approx(0.5 * 1.0 / 2)


def test_a_gap_of_three_intervals_is_bridged_and_a_longer_one_is_neither_bridged_nor_covered() -> None:
    bridged = measured([sample(0.0, 1.0), sample(3.004, 1.0)])  # two samples lacking, and a start that is late
    assert bridged.energy_s == 3.004
    assert measured([sample(0.0, 1.0), sample(4.0, 1.0)]) == Energy()


def test_energy_and_charge_have_their_own_last_sample() -> None:
    energy = measured([sample(0.0, 1.0, 20.0), sample(1.0, None, 20.0), sample(2.0, 1.0, None), sample(3.0, 1.0, 20.0)])
    assert (energy.energy_s, energy.charge_s) == (3.0, 3.0)
    only_current = measured([sample(float(at), None, 20.0) for at in range(10)])
    assert (only_current.energy_s, only_current.charge_s) == (0.0, 9.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -1e200])
def test_what_is_no_number_or_beyond_all_never_reaches_the_sums(value: float) -> None:
    good = [sample(0, 3.6, 72.0), sample(2, 3.6, 72.0), sample(3, 3.6, 72.0)]
    spoiled = [good[0], sample(1, value, value), *good[1:]]
    assert measured(spoiled) == measured(good)


def test_a_sample_that_is_given_twice_counts_once() -> None:
    samples = [sample(float(at), 1.0, 1.0) for at in range(5)]
    assert flows(measured([*samples, *samples[2:], sample(5.0, 1.0, 1.0)])) == same(
        measured([*samples, sample(5.0, 1.0, 1.0)])
    )


@given(runs(), st.data())
def test_cut_at_any_places_and_gone_on_with_after_restarts_the_parts_are_the_whole(
    samples: list[PowerSample], data: st.DataObject
) -> None:
    whole, last, parts = flows(measured(samples)), LastPoints(), []
    rest = samples
    while rest:
        cut = data.draw(st.integers(min_value=1, max_value=len(rest)))
        summary = summarise(rest[:cut], EnergyMeter(1.0, last))
        parts.append(flows(summary.energy))
        last, rest = summary.last, rest[cut:]
    sums = tuple(math.fsum(part[place] for part in parts) for place in range(6))
    assert sums == pytest.approx(whole, rel=1e-12, abs=1e-12)


@given(runs(), st.data())
def test_in_whatever_order_samples_are_completed_their_energy_is_the_same(
    samples: list[PowerSample], data: st.DataObject
) -> None:
    buffer = AveragingBuffer(ManualClock(), sample_interval_s=1.0)
    buffer.open(FOREVER)
    under_way: list[PowerSample] = []
    for each in samples:
        buffer.begin(each.start_mono_s)
        under_way.append(each)
        for _ in range(data.draw(st.integers(min_value=0, max_value=len(under_way)))):
            done = under_way.pop(data.draw(st.integers(min_value=0, max_value=len(under_way) - 1)))
            buffer.complete(done.start_mono_s, done)
    for done in under_way:
        buffer.complete(done.start_mono_s, done)
    assert buffer.close(FOREVER, FOREVER).energy == measured(samples)


def test_what_passed_between_two_samples_belongs_to_the_interval_of_the_later_one() -> None:
    buffer = AveragingBuffer(ManualClock(mono_s=1e6), sample_interval_s=1.0)
    first, second = (Interval(start_mono_s=at, end_mono_s=at + 10, end_utc_ms=0) for at in (0.0, 10.0))
    buffer.open(first)
    for at in range(1, 20):
        buffer.begin(float(at))
        buffer.complete(float(at), sample(float(at), 1.0, 1.0))
    ended = buffer.close(first, second)
    assert (ended.energy.energy_s, ended.last.power_kw) == (9.0, (10.0, 1.0))
    assert buffer.close(second, second).energy.energy_s == 9.0


def test_a_sample_that_comes_too_late_for_its_interval_counts_nothing_and_the_line_goes_past_it() -> None:
    buffer = AveragingBuffer(ManualClock(mono_s=1e6), sample_interval_s=1.0)
    first, second = (Interval(start_mono_s=at, end_mono_s=at + 10, end_utc_ms=0) for at in (0.0, 10.0))
    buffer.open(first)
    buffer.begin(8.0)
    buffer.complete(8.0, sample(8.0, 1.0))
    buffer.begin(9.5)
    assert buffer.close(first, second).energy.energy_s == 0.0
    buffer.complete(9.5, sample(9.5, 500.0))
    buffer.begin(11.0)
    buffer.complete(11.0, sample(11.0, 1.0))
    energy = buffer.close(second, second).energy
    assert energy.energy_s == 3.0
    assert energy.energy_in_kwh * 3600 == pytest.approx(3.0)


def test_waiting_for_a_sample_that_never_comes_does_not_fill_the_memory() -> None:
    buffer = AveragingBuffer(ManualClock(mono_s=1e6), sample_interval_s=1.0)
    day = Interval(start_mono_s=0.0, end_mono_s=86_400.0, end_utc_ms=0)
    buffer.open(day)
    buffer.begin(0.5)
    for at in range(1, 30_000):
        buffer.begin(float(at))
        buffer.complete(float(at), sample(float(at), 1.0))
    assert len(buffer._open._in_order) <= 10_000
    assert buffer.close(day, day).energy.energy_s == 29_998.0


def test_a_day_of_samples_loses_no_digit() -> None:
    meter = EnergyMeter(1.0)
    for at in range(200_001):
        meter.add(sample(float(at), 0.1, -0.1))
    energy = meter.take()
    assert energy.energy_in_kwh == pytest.approx(0.1 * 200_000 / 3600, rel=1e-15)
    assert energy.charge_out_ah == pytest.approx(0.1 * 200_000 / 3600, rel=1e-15)
