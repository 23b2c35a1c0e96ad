"""How far off the numbers may be: worked out by hand from the data sheet, as rules, and by drawing meters by lot."""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accuracy import Accuracy
from averaging_buffer import summarise
from clock import Clock
from config_keys import CURRENT_RANGES, VOLTAGE_RANGES
from config_values import ZeroOffset
from daemon import Daemon
from energy import EnergyMeter
from energy_book import EnergyTotals, read_totals
from measurements import Energy, IntervalSummary, PowerSample, Statistic, Uncertainty
from settings import CurrentMeterSettings, CurrentSource, Rate, VoltageMeterSettings, load_settings
from store import NAME as DATABASE
from tests.rig import PROJECT, SHUNT_OHM, Rig, wait_for

K2 = 2 / math.sqrt(3)  # k = 2 of a limit: twice the limit over the root of 3


def voltage_meter(range_name: str = "500V", rate: Rate = Rate.SLOW) -> VoltageMeterSettings:
    return VoltageMeterSettings(
        port="COM1", range_number=VOLTAGE_RANGES[range_name], range_name=range_name, rate=rate, serial_number=None
    )


def current_meter(
    range_name: str = "50mV", *, tolerance: float = 0.25, source: CurrentSource = CurrentSource.SHUNT, **others: Any
) -> CurrentMeterSettings:
    direct = source is CurrentSource.DIRECT
    settings = CurrentMeterSettings(
        port="COM2",
        range_number=(CURRENT_RANGES if direct else VOLTAGE_RANGES)[range_name],
        range_name=range_name,
        rate=Rate.SLOW,
        serial_number=None,
        source=source,
        shunt_resistance_ohm=None if direct else SHUNT_OHM,
        reverse_polarity=False,
        shunt_tolerance_percent=tolerance,
    )
    return replace(settings, **others)


def accuracy(
    voltage: VoltageMeterSettings | None = None,
    current: CurrentMeterSettings | None = None,
    sample_interval_s: float = 5,
) -> Accuracy:
    return Accuracy(voltage_meter=voltage, current_meter=current, sample_interval_s=sample_interval_s)


def interval(*samples: tuple[float | None, float | None], counted_s: float = 0.0) -> IntervalSummary:
    """Return an interval of samples of volts and amperes, so many seconds of whose energy and charge are known."""
    summary = summarise(
        PowerSample(
            start_mono_s=float(number),
            voltage_v=volts,
            current_a=amperes,
            power_kw=volts * amperes / 1000 if volts is not None and amperes is not None else None,
        )
        for number, (volts, amperes) in enumerate(samples)
    )
    return replace(summary, energy=Energy(energy_s=counted_s, charge_s=counted_s))


def off_v(range_name: str, *volts: float, rate: Rate = Rate.SLOW) -> float:
    found = accuracy(voltage_meter(range_name, rate)).of(interval(*((each, None) for each in volts))).voltage_v
    assert found is not None
    return found


def off_a(meter: CurrentMeterSettings, *amperes: float) -> float:
    found = accuracy(None, meter).of(interval(*((None, each) for each in amperes))).current_a
    assert found is not None
    return found


# -- by hand, from the data sheet ------------------------------------------------------------------------------------

# range, reading, the limit in volts: percent of the reading + counts x last digit
VOLTS = [
    ("50mV", 0.050, 60e-6),  # 0.1 % = 50 µV, 10 x 1 µV
    ("500mV", 0.4, 250e-6),  # 0.05 % = 200 µV, 5 x 10 µV
    ("5V", 4.0, 2.5e-3),  # 0.05 % = 2 mV, 5 x 0.1 mV
    ("50V", 52.0, 31e-3),  # 0.05 % = 26 mV, 5 x 1 mV
    ("500V", 52.0, 0.102),  # 0.1 % = 52 mV, 5 x 10 mV
    ("500V", 520.0, 0.5804),  # 0.1 % = 520 mV, 5 x 10 mV, above 500 V 520 x 0.02 mV = 10.4 mV
    ("1000V", 52.0, 1.052),  # 0.1 % = 52 mV, 10 x 100 mV
    ("1000V", 800.0, 1.816),  # 0.1 % = 800 mV, 10 x 100 mV, 800 x 0.02 mV = 16 mV
]


@pytest.mark.parametrize(("range_name", "volts", "limit_v"), VOLTS)
def test_the_voltage_by_the_data_sheet(range_name: str, volts: float, limit_v: float) -> None:
    assert off_v(range_name, volts) == pytest.approx(K2 * limit_v, rel=1e-9)


# range, reading in amperes, the limit in amperes: the voltage's over 0.0006667 ohm
AMPERES_AT_A_SHUNT = [
    ("50mV", 0.0, 0.0150),  # 10 µV
    ("50mV", 1.0, 0.0160),  # 0.667 µV + 10 µV = 10.667 µV
    ("50mV", 10.0, 0.0250),  # 6.667 µV + 10 µV
    ("50mV", 20.0, 0.0350),  # 13.334 µV + 10 µV
    ("50mV", 50.0, 0.0650),  # 33.335 µV + 10 µV
    ("50mV", 70.0, 0.0850),  # 46.669 µV + 10 µV
    ("500mV", 10.0, 0.0800),  # 3.334 µV + 50 µV
    ("500mV", 50.0, 0.1000),  # 16.668 µV + 50 µV
]


@pytest.mark.parametrize(("range_name", "amperes", "limit_a"), AMPERES_AT_A_SHUNT)
def test_the_current_at_an_exact_shunt_by_the_data_sheet(range_name: str, amperes: float, limit_a: float) -> None:
    meter = current_meter(range_name, tolerance=0.0, range_fixed=True)
    assert off_a(meter, amperes) == pytest.approx(K2 * limit_a, rel=1e-4)


# range, reading in amperes, the limit in amperes
AMPERES_DIRECT = [
    ("500uA", 400e-6, 0.8e-6),  # 0.15 % = 0.6 µA, 20 x 0.01 µA
    ("5mA", 4e-3, 7e-6),  # 0.15 % = 6 µA, 10 x 0.1 µA
    ("50mA", 0.04, 80e-6),  # 0.15 % = 60 µA, 20 x 1 µA
    ("500mA", 0.4, 700e-6),  # 0.15 % = 600 µA, 10 x 10 µA
    ("5A", 4.0, 0.021),  # 0.5 % = 20 mA, 10 x 0.1 mA
    ("10A", 8.0, 0.050),  # 0.5 % = 40 mA, 10 x 1 mA
]


@pytest.mark.parametrize(("range_name", "amperes", "limit_a"), AMPERES_DIRECT)
def test_the_current_measured_directly_has_no_shunt_to_be_off(range_name: str, amperes: float, limit_a: float) -> None:
    meter = current_meter(range_name, source=CurrentSource.DIRECT)
    assert off_a(meter, amperes) == pytest.approx(K2 * limit_a, rel=1e-9)


def test_voltage_current_power_energy_and_charge_by_hand() -> None:
    found = accuracy(voltage_meter(), current_meter()).of(interval((52.0, 20.0), counted_s=1800))
    meter_a, shunt_a = 10e-6 / SHUNT_OHM + 0.001 * 20, 0.0025 * 20  # 0.0350 A and 0.0500 A
    assert found.voltage_v == pytest.approx(K2 * 0.102)
    assert found.current_a == pytest.approx(K2 * math.sqrt(meter_a**2 + shunt_a**2))
    assert found.current_a == pytest.approx(0.0705, abs=5e-5)
    power_kw = K2 * math.sqrt((20 * 0.102) ** 2 + (52 * meter_a) ** 2 + (52 * shunt_a) ** 2) / 1000
    assert found.power_kw == pytest.approx(power_kw)
    assert found.power_kw == pytest.approx(0.00436, abs=5e-6)
    assert found.energy_kwh == pytest.approx(power_kw / 2)  # half an hour of it
    assert found.charge_ah == pytest.approx(K2 * math.hypot(meter_a, shunt_a) / 2)
    assert (found.energy_scatter_kwh, found.charge_scatter_ah) == (0.0, 0.0)


# -- which range, offset, deadband, speed ----------------------------------------------------------------------------


def test_a_current_that_the_meter_may_have_gone_up_a_range_for_counts_as_on_the_larger() -> None:
    steps, large = current_meter(), current_meter("500mV")
    assert off_a(steps, 59.0) < off_a(large, 59.0)  # 39.3 mV
    assert off_a(steps, 60.1) == off_a(large, 60.1)  # 40.1 mV: from 40 mV on it stays up if it was
    assert off_a(steps, 10.0, 90.0) == off_a(large, 10.0, 90.0)
    assert off_a(current_meter(range_fixed=True), 60.1) < off_a(large, 60.1)
    offset = ZeroOffset(offset_uv=-800.0)  # 59.0 A are up to 40.1 mV at the meter then
    assert off_a(replace(steps, zero_offset=offset), 59.0) == off_a(replace(large, zero_offset=offset), 59.0)
    overloaded = replace(interval((None, 10.0)), samples_refused={"Overload": 1})
    assert accuracy(None, steps).of(overloaded).current_a == off_a(large, 10.0)
    assert accuracy(None, steps).of(replace(overloaded, samples_refused={"Unsettled": 1})).current_a == off_a(
        steps, 10.0
    )


def test_values_that_do_not_fit_the_range_are_those_of_the_one_that_holds_them() -> None:
    assert off_v("50V", 57.0) == off_v("500V", 57.0)
    assert off_v("500V", 600.0) == off_v("1000V", 600.0)
    assert off_v("1000V", 2000.0) > off_v("1000V", 1000.0)
    assert off_a(current_meter("50mV", range_fixed=True), 90.0) == off_a(current_meter("500mV"), 90.0)


def test_a_zero_offset_makes_no_figure_smaller_and_adds_a_digit_of_its_own() -> None:
    plain, zero = current_meter(tolerance=0.0), ZeroOffset(offset_uv=-100.0, measured_on=date(2026, 11, 24))
    # 10 µV, and 0.1 % of the 100 µV that the meter shows without a current; independent of that 1 µV
    by_hand_a = K2 * math.hypot(10.1e-6, 1e-6) / SHUNT_OHM
    assert off_a(replace(plain, zero_offset=zero), 0.0) == pytest.approx(by_hand_a)
    assert by_hand_a > off_a(plain, 0.0)
    measured_as_none = replace(zero, offset_uv=0.0)
    assert off_a(replace(plain, zero_offset=measured_as_none), 0.0) > off_a(plain, 0.0)


def test_what_the_deadband_hides_is_in_the_figure() -> None:
    meter = current_meter(tolerance=0.0, deadband_a=0.1)
    assert off_a(meter, 0.0) == pytest.approx(K2 * math.hypot(10e-6 / SHUNT_OHM, 0.1))
    assert off_a(meter, 5.0) == off_a(replace(meter, deadband_a=0.0), 5.0)
    direct = current_meter("10A", source=CurrentSource.DIRECT, deadband_a=0.1)
    assert off_a(direct, 0.0) == pytest.approx(K2 * math.hypot(0.01, 0.1))


@pytest.mark.parametrize("rate", [Rate.MEDIUM, Rate.FAST])
def test_at_other_speeds_the_counts_are_of_a_display_with_one_digit_less(rate: Rate) -> None:
    assert off_v("500V", 52.0, rate=rate) == pytest.approx(K2 * (0.052 + 0.5))
    faster = replace(current_meter(tolerance=0.0), rate=rate)
    assert off_a(faster, 10.0) == pytest.approx(K2 * (0.01 + 100e-6 / SHUNT_OHM))


# -- scatter ---------------------------------------------------------------------------------------------------------


def test_scatter_by_hand() -> None:
    found = accuracy(voltage_meter(), current_meter()).of(interval((50.0, 10.0), (50.0, 14.0), counted_s=3600))
    # deviation 2.828 A of two samples, of their mean 2 A; Student's factor for one degree of freedom 13.97
    instruments_a = K2 * math.hypot(10e-6 / SHUNT_OHM + 0.012, 0.03)
    assert found.current_a == pytest.approx(math.hypot(instruments_a, 13.97 * 2.0))
    assert found.charge_ah == pytest.approx(instruments_a)
    assert found.charge_scatter_ah == pytest.approx(2.0)
    assert found.energy_scatter_kwh == pytest.approx(0.1)  # 50 V x 2 A for an hour
    assert found.voltage_v == pytest.approx(K2 * 0.1)


def test_samples_between_two_values_of_the_meter_are_no_samples_of_their_own() -> None:
    summary = interval(*((None, 10.0 + number % 2) for number in range(60)), counted_s=3600)
    slow, fast = (accuracy(None, current_meter(), each).of(summary) for each in (0.5, 0.05))
    assert slow.charge_scatter_ah is not None
    assert fast.charge_scatter_ah == pytest.approx(slow.charge_scatter_ah * math.sqrt(20 / 3))
    assert slow.charge_ah == fast.charge_ah


# -- what there is not -----------------------------------------------------------------------------------------------


def test_what_has_no_value_has_no_uncertainty() -> None:
    both = accuracy(voltage_meter(), current_meter())
    assert both.of(interval()) == Uncertainty()
    volts_only = both.of(interval((52.0, None), counted_s=30))
    assert volts_only.voltage_v is not None
    assert replace(volts_only, voltage_v=None) == Uncertainty()
    amperes_only = both.of(interval((None, 20.0), counted_s=30))
    assert (amperes_only.voltage_v, amperes_only.power_kw, amperes_only.energy_kwh) == (None, None, None)
    assert amperes_only.charge_ah is not None
    apart = both.of(replace(interval((52.0, 20.0), counted_s=30), power_kw=None))
    assert (apart.power_kw, apart.energy_kwh, apart.energy_scatter_kwh) == (None, None, None)
    uncounted = both.of(interval((52.0, 20.0)))
    assert (uncounted.energy_kwh, uncounted.charge_ah, uncounted.energy_scatter_kwh) == (None, None, None)
    assert uncounted.power_kw is not None


def test_an_absurd_value_of_a_customised_program_stops_nothing() -> None:
    found = accuracy(voltage_meter(), current_meter()).of(interval((1e155, -1e155), (-1e155, 1e152), counted_s=30))
    assert min(values_of(found)) > 1e140


def test_of_a_meter_that_is_no_longer_set_nothing_is_known() -> None:
    summary = interval((52.0, 20.0), counted_s=30)
    assert accuracy().of(summary) == Uncertainty()
    assert accuracy(voltage_meter()).of(summary) == Uncertainty(voltage_v=off_v("500V", 52.0))
    without_voltage = accuracy(None, current_meter()).of(summary)
    assert (without_voltage.voltage_v, without_voltage.power_kw) == (None, None)
    assert without_voltage.current_a == off_a(current_meter(), 20.0)


# -- rules -----------------------------------------------------------------------------------------------------------

volts = st.floats(min_value=0, max_value=1000)
amperes = st.floats(min_value=-800, max_value=800)
samples = st.lists(st.tuples(volts, amperes), min_size=1, max_size=20)
voltage_meters = st.builds(voltage_meter, st.sampled_from(list(VOLTAGE_RANGES)), st.sampled_from(Rate))
current_meters = st.builds(
    current_meter,
    st.sampled_from(list(VOLTAGE_RANGES)),
    tolerance=st.floats(min_value=0, max_value=10),
    deadband_a=st.floats(min_value=0, max_value=1),
    zero_offset=st.builds(ZeroOffset, offset_uv=st.floats(min_value=-5000, max_value=5000)),
    rate=st.sampled_from(Rate),
)


def values_of(uncertainty: Uncertainty) -> list[float]:
    names = ("voltage_v", "current_a", "power_kw", "energy_kwh", "energy_scatter_kwh", "charge_ah", "charge_scatter_ah")
    values = [getattr(uncertainty, name) for name in names]
    assert None not in values
    return values


@given(samples, voltage_meters, current_meters, st.sampled_from([0.05, 1.0]))
def test_never_negative_and_the_same_for_both_signs(
    samples: list[tuple[float, float]], voltage: VoltageMeterSettings, current: CurrentMeterSettings, every_s: float
) -> None:
    make = accuracy(voltage, current, every_s)
    found = values_of(make.of(interval(*samples, counted_s=30)))
    assert all(0 <= each < math.inf for each in found)
    assert min(found[:2]) > 0
    turned = values_of(make.of(interval(*((v, -i) for v, i in samples), counted_s=30)))
    assert turned == pytest.approx(found, rel=1e-9)


@given(volts, volts, amperes, amperes, voltage_meters, current_meters)
def test_it_grows_with_the_value(
    a_v: float, b_v: float, a_a: float, b_a: float, voltage: VoltageMeterSettings, current: CurrentMeterSettings
) -> None:
    make = accuracy(voltage, replace(current, deadband_a=0.0))
    (less_v, more_v), (less_a, more_a) = sorted((a_v, b_v)), sorted((a_a, b_a), key=abs)
    less, more = (make.of(interval(each, counted_s=30)) for each in ((less_v, less_a), (more_v, more_a)))
    assert all(a <= b * (1 + 1e-12) for a, b in zip(values_of(less), values_of(more), strict=True))


@given(samples, st.sampled_from(Rate))
def test_a_larger_range_is_never_better(samples: list[tuple[float, float]], rate: Rate) -> None:
    summary = interval(*samples, counted_s=30)
    for source, ranges in ((CurrentSource.SHUNT, VOLTAGE_RANGES), (CurrentSource.DIRECT, CURRENT_RANGES)):
        found = [
            values_of(accuracy(voltage_meter(volts, rate), current_meter(name, source=source, rate=rate)).of(summary))
            for volts, name in zip(VOLTAGE_RANGES, ranges, strict=True)
        ]
        for smaller, larger in itertools.pairwise(found):
            assert all(a <= b * (1 + 1e-12) for a, b in zip(smaller, larger, strict=True))


@given(samples)
def test_what_percent_are_off_does_not_cancel_between_in_and_out(samples: list[tuple[float, float]]) -> None:
    """A meter that reads 1 % too much of what goes in and 1 % too little of what goes out is off by 1 % of both."""
    tolerance = current_meter(tolerance=10.0)
    found = accuracy(voltage_meter(), tolerance).of(interval(*samples, counted_s=3600)).charge_ah
    assert found is not None
    without_sign = sum(abs(current_a) for _, current_a in samples) / len(samples)
    assert found >= K2 * 0.1 * without_sign * (1 - 1e-9)


# -- in the daemon -----------------------------------------------------------------------------------------------------


def test_the_daemon_gives_each_interval_its_uncertainty_by_the_settings_of_now(tmp_path: Path) -> None:
    """Two virtual meters, 52 V and 10 mV at the shunt, which is 15.0 A; the shunt first within 0.25 %, then 10 %."""
    with Rig(tmp_path) as rig:
        clock = Clock()
        daemon = Daemon(load_settings(rig.configure()), clock, lambda _secret: None)
        daemon.start()
        try:

            def off_a() -> float:
                summary = daemon.reporter.last_summary
                return (summary and summary.uncertainty.current_a) or 0.0

            def counts_energy() -> bool:
                summary = daemon.reporter.last_summary
                return summary is not None and summary.uncertainty.energy_kwh is not None

            wait_for(counts_energy, what="an interval with its uncertainty")
            meter_a, shunt_a = 0.001 * 15 + 10e-6 / SHUNT_OHM, 0.0025 * 15
            at_0_25_percent, at_10_percent = K2 * math.hypot(meter_a, shunt_a), K2 * math.hypot(meter_a, 0.1 * 15)
            assert at_0_25_percent - 1e-3 < off_a() < at_0_25_percent + 0.05  # scatter comes on top
            daemon.reload(load_settings(rig.configure({"XDM": {"xdm_shunt_tolerance_percent": 10}})))
            wait_for(lambda: off_a() > at_10_percent - 0.05, what="the wider tolerance")
            assert off_a() < at_10_percent + 0.05
        finally:
            daemon.stop()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        columns = "voltage_uncertainty, current_uncertainty, power_uncertainty, energy_uncertainty, charge_uncertainty"
        rows = database.execute(f"SELECT {columns} FROM interval WHERE energy_s > 0").fetchall()
        totals = read_totals(database.cursor())
    assert rows
    assert min(min(row) for row in rows) > 0  # none is missing: None cannot be compared
    assert totals is not None
    assert totals.energy_in_limit_kwh + totals.energy_out_limit_kwh == pytest.approx(sum(row[3] for row in rows))
    assert totals.charge_in_limit_ah + totals.charge_out_limit_ah >= sum(row[4] for row in rows) * (1 - 1e-9)


# -- the document ----------------------------------------------------------------------------------------------------

WORDS = " ".join((PROJECT / "docs" / "accuracy.md").read_text(encoding="utf-8").split())
DOCUMENT = (PROJECT / "docs" / "accuracy.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, list[str]]:
    """Return the rows of the document's table whose first column has this heading: first cell -> the others."""
    rows = DOCUMENT.split(f"\n| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {first: others for first, *others in cells}


def steady(
    volts: float, amperes: float, scatter: tuple[float, float, float] = (0, 0, 0), count: int = 1, counted_s: float = 0
) -> IntervalSummary:
    """Return an interval with these means, whose samples scatter by these deviations of V, A and kW."""
    means = (volts, amperes, volts * amperes / 1000)
    voltage, current, power = (
        Statistic(mean=mean, minimum=mean, maximum=mean, count=count, deviation=deviation)
        for mean, deviation in zip(means, scatter, strict=True)
    )
    counted = Energy(energy_s=counted_s, charge_s=counted_s)
    return IntervalSummary(voltage_v=voltage, current_a=current, power_kw=power, energy=counted)


def same(figures: list[float], cells: list[str]) -> bool:
    """Return whether the cells have these figures, to as many digits as they show."""
    return [f"{each:.{len(cell.partition('.')[2])}f}" for each, cell in zip(figures, cells, strict=True)] == cells


def test_the_document_s_table_of_currents_is_what_the_program_computes() -> None:
    make, exact = accuracy(voltage_meter(), current_meter()), current_meter(tolerance=0.0)
    rows = table("current (A)")
    assert len(rows) == 8
    for current, (meter, shunt, total, percent, power) in rows.items():
        amperes = float(current)
        found = values_of(make.of(steady(52.0, amperes, counted_s=1)))
        assert same([off_a(exact, amperes) / K2, 0.0025 * amperes, *found[1:3]], [meter, shunt, total, power]), current
        assert percent == (f"{100 * found[1] / amperes:.2f}" if amperes else "")


def test_the_document_s_worked_example_is_what_the_program_computes() -> None:
    given = {name: float(value.split()[0]) for name, (value,) in table("given").items()}
    current = current_meter(
        tolerance=given["shunt tolerance"], shunt_resistance_ohm=given["shunt"], zero_offset=ZeroOffset(offset_uv=0)
    )
    make, exact = accuracy(voltage_meter(), current), replace(current, shunt_tolerance_percent=0.0)
    means = given["mean voltage"], given["mean current"]
    scatter = given["scatter of the voltage"], given["scatter of the current"], given["scatter of the power"]
    off = values_of(make.of(steady(*means, scatter, int(given["samples"]), given["counted"])))
    instruments = values_of(make.of(steady(*means, counted_s=given["counted"])))
    limits = [off_v("500V", means[0]) / K2, off_a(exact, means[1]) / K2]
    shunt_a = math.sqrt((instruments[1] / K2) ** 2 - limits[1] ** 2)
    assert same([*limits, shunt_a], [result.split()[0] for _, result in table("limit").values()])
    for index, cells in enumerate(table("result").values()):
        of_scatter = math.sqrt(off[index] ** 2 - instruments[index] ** 2)
        assert same([instruments[index], of_scatter, off[index]], cells)
    for time, cells in table("added up over").items():
        count = float(time.split()[0]) / given["counted"]
        off_kwh, off_ah = (math.sqrt((count * off[at]) ** 2 + 4 * count * off[at + 1] ** 2) for at in (3, 5))
        charge_ah = means[1] * count * given["counted"] / 3600
        assert same([means[0] * charge_ah / 1000, off_kwh, charge_ah, off_ah], cells)


def test_what_the_document_promises_of_its_advice_is_what_the_program_computes() -> None:
    plain, finer = (accuracy(voltage_meter(name), current_meter()) for name in ("500V", "50V"))
    day = plain.of(steady(52.0, 0.0, counted_s=86_400))
    assert f"is known to +/- {day.energy_kwh:.4f} kWh at 52 V" in WORDS
    known = off_a(current_meter(tolerance=0.1), 20.0), off_a(current_meter(), 20.0)
    assert "known to +/- {:.4f} A instead of {:.4f} A".format(*known) in WORDS
    (coarse_v, _, coarse_kw), (fine_v, _, fine_kw) = (
        values_of(each.of(steady(52.0, 20.0, counted_s=1)))[:3] for each in (plain, finer)
    )
    assert f"{coarse_v:.4f} V of the 52 V above {fine_v:.4f} V" in WORDS
    assert f"{coarse_kw:.5f} kW of the 20 A {fine_kw:.5f} kW" in WORDS


# -- meters drawn by lot ---------------------------------------------------------------------------------------------


DRAWS = 1500
BY_CHANCE = 2 * math.sqrt(95 * 5 / DRAWS)  # percent: twice the standard deviation of what so many draws find


class Drawn:
    """Two meters and a shunt, each anywhere within its limit, on a battery of 52 V."""

    def __init__(self, lot: random.Random) -> None:
        self._lot = lot
        self._of_volts, self._of_current, self._of_shunt = (lot.uniform(-1, 1) for _ in range(3))

    def interval(self, amperes: tuple[float, ...], scatter_a: float, scatter_v: float, count: int) -> IntervalSummary:
        """Return what they give of 30 s in which the current takes these values in turn, and scatters."""
        read = []
        for index in range(count):
            true_v, true_a = self._lot.gauss(52.0, scatter_v), self._lot.gauss(amperes[index % len(amperes)], scatter_a)
            read.append(self.read(true_v, true_a))
        return interval(*read, counted_s=30)

    def read(self, true_v: float, true_a: float) -> tuple[float, float]:
        shown_v = true_v + self._of_volts * (0.0005 * abs(true_v) + 5e-3)
        across_v = true_a * SHUNT_OHM * (1 + 0.0025 * self._of_shunt)
        return shown_v, (across_v + self._of_current * (0.001 * abs(across_v) + 10e-6)) / SHUNT_OHM


def read_at(start_mono_s: float, volts: float, amperes: float) -> PowerSample:
    return PowerSample(start_mono_s=start_mono_s, voltage_v=volts, current_a=amperes, power_kw=volts * amperes / 1000)


def percent_covered(amperes: tuple[float, ...], scatter_a: float, scatter_v: float, count: int) -> list[float]:
    """Return how often the truth lies within the +/-, in percent: of V, A, kW, and of the kWh and Ah of 20 intervals.

    Those are added up as the counters do: limits as they are, scatter as squares.
    """
    lot, make, covered = random.Random(6), accuracy(voltage_meter("50V"), current_meter()), [0] * 5
    true_a = sum(amperes) / len(amperes)
    truth = (52.0, true_a, 52.0 * true_a / 1000)
    for _ in range(DRAWS):
        drawn = Drawn(lot)
        summaries = [drawn.interval(amperes, scatter_a, scatter_v, count) for _ in range(20)]
        offs = [
            [each.mean - true for each, true in zip((s.voltage_v, s.current_a, s.power_kw), truth, strict=True) if each]
            for s in summaries
        ]
        allowed = [values_of(make.of(summary)) for summary in summaries]
        within = [abs(off) <= most for off, most in zip(offs[0], allowed[0][:3], strict=True)]
        for quantity, limit, deviation in ((2, 3, 4), (1, 5, 6)):
            off = sum(each[quantity] for each in offs) * 30 / 3600
            limits, variance = sum(each[limit] for each in allowed), sum(each[deviation] ** 2 for each in allowed)
            within.append(abs(off) <= math.sqrt(limits**2 + 4 * variance))
        covered = [so_far + one for so_far, one in zip(covered, within, strict=True)]
    return [100 * each / DRAWS for each in covered]


@pytest.mark.parametrize(
    "amperes",
    [
        pytest.param(lambda _at_s: 10.0, id="charging"),
        pytest.param(lambda _at_s: 0.003, id="a trickle below what the meter may be off"),
        pytest.param(lambda at_s: 0.005 if at_s % 60 < 30 else -0.005, id="a trickle in and out in turn"),
        pytest.param(lambda at_s: 0.02 * math.sin(at_s / 9), id="around zero"),
        pytest.param(lambda at_s: 20.0 if at_s % 14 < 7 else -1.0, id="in and out within one interval"),
    ],
)
def test_the_truth_of_each_counter_lies_within_its_own(amperes: Callable[[float], float]) -> None:
    """In and out apart: what the meters are off near zero may all be on one side."""
    lot, make, covered, draws = random.Random(7), accuracy(voltage_meter("50V"), current_meter()), [0] * 4, 100
    for _ in range(draws):
        drawn, counted, truth = Drawn(lot), EnergyTotals(), EnergyTotals()
        meters = EnergyMeter(1.0), EnergyMeter(1.0)
        for start_s in range(0, 600, 30):
            true = [(52.0, amperes(at_s)) for at_s in range(start_s, start_s + 30)]
            shown, right = (
                summarise([read_at(start_s + number, *each) for number, each in enumerate(values)], meter)
                for values, meter in zip(([drawn.read(*each) for each in true], true), meters, strict=True)
            )
            counted = counted.plus(shown.energy, make.of(shown))
            truth = truth.plus(right.energy, Uncertainty())
        offs = (
            (counted.energy.energy_in_kwh - truth.energy.energy_in_kwh, counted.energy_in_uncertainty_kwh),
            (counted.energy.energy_out_kwh - truth.energy.energy_out_kwh, counted.energy_out_uncertainty_kwh),
            (counted.energy.charge_in_ah - truth.energy.charge_in_ah, counted.charge_in_uncertainty_ah),
            (counted.energy.charge_out_ah - truth.energy.charge_out_ah, counted.charge_out_uncertainty_ah),
        )
        covered = [so_far + (abs(off) <= (most or 0.0)) for so_far, (off, most) in zip(covered, offs, strict=True)]
    assert min(covered) >= 95 - 2 * math.sqrt(95 * 5 / draws)


@pytest.mark.parametrize(
    ("amperes", "scatter_a", "scatter_v", "count"),
    [
        pytest.param((20.0,), 0.0, 0.0, 1, id="a steady current, instruments alone"),
        pytest.param((0.3,), 0.001, 0.001, 6, id="a small current, the counts"),
        pytest.param((-20.0,), 0.5, 0.05, 6, id="scatter above all"),
        pytest.param((20.0,), 0.05, 0.02, 3, id="few samples, scatter as large as the rest"),
        pytest.param((-30.0, 30.0), 0.02, 0.01, 6, id="in and out in turn"),
    ],
)
def test_the_truth_lies_within_it_in_95_percent_but_for_chance(
    amperes: tuple[float, ...], scatter_a: float, scatter_v: float, count: int
) -> None:
    found = percent_covered(amperes, scatter_a, scatter_v, count)
    assert min(found) >= 95 - BY_CHANCE
