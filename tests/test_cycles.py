"""Round trips and capacity of a battery whose efficiency and capacity are known, found in its intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycles import Capacity, CycleFinder, RoundTrip
from history import Aggregate, Point

LOW_V, HIGH_V = 48.0, 54.0
CAPACITY_AH, ENERGY_EFFICIENCY, CHARGE_EFFICIENCY = 100.0, 0.9, 0.98


def point(number: int, volts: float | None, charge_ah: float = 0.0, *, known: bool = True) -> Point:
    """Return the interval ``number`` of 30 s, in which that charge went in (below 0: out), at 51 V."""
    aggregate = (
        None if volts is None else Aggregate(mean=volts, minimum=volts, maximum=volts, count=6, uncertainty=None)
    )
    inwards, outwards = max(charge_ah, 0.0), max(-charge_ah, 0.0)
    return Point(
        end_utc_ms=30_000 * number,
        voltage_v=aggregate,
        current_a=None,
        power_kw=None,
        energy_in_kwh=inwards * 0.051 * CHARGE_EFFICIENCY / ENERGY_EFFICIENCY if known else None,
        energy_out_kwh=outwards * 0.051 if known else None,
        charge_in_ah=inwards if known else None,
        charge_out_ah=outwards if known else None,
        energy_s=30.0 if known else None,
        intervals=1,
    )


def cycles(count: int, intervals: int, *, unknown: Iterable[int] = ()) -> Iterator[Point]:
    """Yield ``count`` times: from full to empty and back to full, in as many intervals each way, after one at full."""
    step_ah = CAPACITY_AH / intervals
    number = 0
    yield point(number, HIGH_V)
    for _ in range(count):
        for way, charge_ah in ((-1, -step_ah), (1, step_ah / CHARGE_EFFICIENCY)):
            for part in range(1, intervals + 1):
                number += 1
                filled = part / intervals if way > 0 else 1 - part / intervals
                volts = LOW_V + (HIGH_V - LOW_V) * filled
                yield point(number, round(volts, 9), charge_ah, known=number not in set(unknown))


def found(points: Iterable[Point]) -> tuple[RoundTrip, Capacity]:
    finder = CycleFinder(LOW_V, HIGH_V)
    for each in points:
        finder.take(each)
    return finder.round_trip(), finder.capacity()


@given(count=st.integers(1, 20), intervals=st.integers(1, 50))
def test_the_batterys_efficiency_and_capacity_come_out(count: int, intervals: int) -> None:
    trip, capacity = found(cycles(count, intervals))
    assert (trip.cycles, trip.cycles_left_out, capacity.discharges, capacity.discharges_left_out) == (
        count,
        0,
        count,
        0,
    )
    assert trip.energy_efficiency_percent == pytest.approx(100 * ENERGY_EFFICIENCY)
    assert trip.charge_efficiency_percent == pytest.approx(100 * CHARGE_EFFICIENCY)
    assert capacity.charge_ah == pytest.approx(CAPACITY_AH)
    assert (capacity.charge_minimum_ah, capacity.charge_maximum_ah) == pytest.approx((CAPACITY_AH, CAPACITY_AH))
    assert capacity.energy_kwh == pytest.approx(CAPACITY_AH * 0.051)


def moved(points: Iterable[Point], intervals: int) -> list[Point]:
    return [replace(each, end_utc_ms=each.end_utc_ms + 30_000 * intervals) for each in points]


def test_charging_on_at_the_top_belongs_to_the_cycle_and_flicker_there_is_no_cycle() -> None:
    first = list(cycles(1, 10))
    top = [point(21 + number, HIGH_V + 0.5 * (-1) ** number, 1.0) for number in range(10)]
    down = moved(first[1:11], 30)
    trip, capacity = found([*first, *top, *down])
    assert (trip.cycles, capacity.discharges) == (1, 2)
    assert trip.charge_in_ah == pytest.approx(CAPACITY_AH / CHARGE_EFFICIENCY + 9)  # the last of it is below the top


def test_a_discharge_that_turns_round_before_it_is_empty_is_none() -> None:
    up_and_down = [point(number, (HIGH_V, 51.0, 48.1, 51.0)[number % 4], -1.0) for number in range(41)]
    assert found(up_and_down) == (RoundTrip(), Capacity())


def test_nothing_is_found_before_the_battery_was_full_or_without_a_voltage() -> None:
    assert found([point(number, 47.0, -1.0) for number in range(9)]) == (RoundTrip(), Capacity())
    assert found([point(number, None, -1.0) for number in range(9)]) == (RoundTrip(), Capacity())
    trip, capacity = found(list(cycles(1, 10))[5:])
    assert (trip.cycles, capacity.discharges) == (0, 0)
    assert trip.energy_efficiency_percent is trip.charge_efficiency_percent is None


@pytest.mark.parametrize(
    ("unknown", "whole_cycles", "whole_discharges"),
    [(range(5, 7), 3, 2), (range(101, 116), 2, 3), (range(90, 110), 2, 2)],
)
def test_what_was_not_measured_whole_is_left_out_and_counted(
    unknown: range, whole_cycles: int, whole_discharges: int
) -> None:
    trip, capacity = found(cycles(3, 100, unknown=unknown))
    assert (trip.cycles, trip.cycles_left_out) == (whole_cycles, 3 - whole_cycles)
    assert (capacity.discharges, capacity.discharges_left_out) == (whole_discharges, 3 - whole_discharges)


def test_a_pause_without_intervals_is_not_measured_either() -> None:
    points = list(cycles(1, 10))
    trip, capacity = found([*points[:6], *moved(points[6:], 5)])
    assert (trip.cycles, trip.cycles_left_out) == (0, 1)
    assert (capacity.discharges, capacity.discharges_left_out) == (0, 1)
