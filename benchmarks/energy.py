"""Energy against the simulator's own integral: a day of the battery with bursts, in simulated time.

    .venv/bin/python -m benchmarks.energy [--hours 24] [--seeds 3]

Two virtual converters at the daemon's ranges (500 V, 50 mV) with their noise are read at each sample interval, a little
late as real starts are; the samples go through the daemon's averaging buffer and its outbox, an interval of 30 s after
the other, and what is judged are the counters in the database. The truth is the integral of the model, exact between
the moments at which its current jumps.

"Arithmetic" is how far the counters are from the lines between the very samples they were made of, added up in another
way. All the rest is what happened between the samples. "Momentary" samples are free of noise and of the age that a
conversion has when it is asked for. 5 s is twice the 2.5 s in which this battery's bursts come, 4.7 s is not. "By
chance" is what sampling alone makes likely, one standard deviation: each jump of the power is somewhere between two
samples. Percent are of the throughput: in and out together.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from averaging_buffer import AveragingBuffer
from benchmarks.stand import Figure, print_table, say
from energy_book import EnergyTotals, read_totals
from measurements import Device, Interval, PowerSample
from outbox import Limits, Outbox
from simulator.battery import BatteryModel
from simulator.converter import CONVERSION_PERIOD_S, Converter, RangeSetting
from simulator.modes import Mode, Rate
from store import NAME, Store
from tests.clocks import ManualClock

_REPORT_S = 30.0
_BEGAN_UTC_S = 1_790_000_010.0
_FIRST_SAMPLE_S = 0.3
_LATE_S = 0.003
_GAP_SHARE, _GAP_S = 0.05, (8.0, 120.0)
_MV_50, _V_500 = RangeSetting(index=0, auto=False), RangeSetting(index=4, auto=False)
_DEVICE = Device(mac=1, voltage_type=532, current_type=531, power_type=533)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What a run has counted, and the truth: over all of the time, and over what the samples cover."""

    counted: EnergyTotals
    rows_in_kwh: float
    rows_out_kwh: float
    lines: tuple[float, float]
    true_kwh: tuple[float, float]
    true_covered_kwh: tuple[float, float]
    covered_s: float
    chance_kwh: float

    def errors(self, truth: tuple[float, float]) -> tuple[float, float, float]:
        """Return how far in, out and net are from a truth, in % of the throughput."""
        energy, throughput = self.counted.energy, sum(self.true_kwh)
        in_kwh, out_kwh = energy.energy_in_kwh - truth[0], energy.energy_out_kwh - truth[1]
        return 100 * in_kwh / throughput, 100 * out_kwh / throughput, 100 * (in_kwh - out_kwh) / throughput

    @property
    def arithmetic(self) -> float:
        """How far the counters are from the lines between their samples and from the sum of the rows, relative."""
        energy = self.counted.energy
        pairs = [
            (energy.energy_in_kwh, self.lines[0]),
            (energy.energy_out_kwh, self.lines[1]),
            (energy.energy_in_kwh, self.rows_in_kwh),
            (energy.energy_out_kwh, self.rows_out_kwh),
        ]
        return max(abs(one - other) / other for one, other in pairs)


def samples(battery: BatteryModel, times_s: Sequence[float], *, rate: Rate, momentary: bool) -> Iterator[PowerSample]:
    """Yield the sample of each moment, as two meters make it, or as it would be without meters between."""
    meters = [
        Converter(quantity, seed=number, noise_steps=1.0, period_s=CONVERSION_PERIOD_S, auto_returns_to_mv=True)
        for number, quantity in enumerate((battery.voltage_v, battery.shunt_v))
    ]
    for meter, setting, begun_s in zip(meters, (_V_500, _MV_50), (-5.0, -4.871), strict=True):
        meter.rate = rate
        meter.configure(Mode.DCV, setting, begun_s)
    for at_s in times_s:
        volts, amperes = battery.voltage_v(at_s), battery.current_a(at_s)
        if not momentary:
            volts, amperes = meters[0].reading(at_s), meters[1].reading(at_s) / battery.shunt_ohm
        yield PowerSample(start_mono_s=at_s, voltage_v=volts, current_a=amperes, power_kw=volts * amperes / 1000)


def times(hours: float, interval_s: float, seed: int, *, gaps: bool) -> list[float]:
    """Return when samples are taken; with ``gaps`` not in a twentieth of the time, at random."""
    chance = random.Random(seed)
    count = int((hours * 3600 - _FIRST_SAMPLE_S) / interval_s)
    moments = [_FIRST_SAMPLE_S + number * interval_s + chance.uniform(0.0, _LATE_S) for number in range(count)]
    if not gaps:
        return moments
    mean_s = statistics.fmean(_GAP_S)
    kept, gap_begins_s, gap_ends_s = [], chance.expovariate(_GAP_SHARE / mean_s), 0.0
    for at_s in moments:
        if at_s >= gap_begins_s:
            gap_ends_s = gap_begins_s + chance.uniform(*_GAP_S)
            gap_begins_s = gap_ends_s + chance.expovariate(_GAP_SHARE / (1 - _GAP_SHARE) / mean_s)
        if at_s >= gap_ends_s:
            kept.append(at_s)
    return kept


def count(taken: Sequence[PowerSample], interval_s: float, until_s: float) -> tuple[EnergyTotals, float, float]:
    """Have the daemon's parts count samples; return the counters of the database and the sums of its rows."""
    clock = ManualClock(mono_s=0.0, utc_s=_BEGAN_UTC_S)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        store = Store(Path(name) / NAME, clock)
        outbox = Outbox(store, _DEVICE, "boot", clock, Limits())
        outbox.recover()
        buffer = AveragingBuffer(clock, sample_interval_s=interval_s)
        interval = _interval(0)
        buffer.open(interval)
        rest = iter(taken)
        sample = next(rest, None)
        for number in range(1, math.ceil(until_s / _REPORT_S) + 1):
            while sample is not None and sample.start_mono_s <= interval.end_mono_s:
                clock.advance(sample.start_mono_s - clock.mono_s())
                buffer.begin(sample.start_mono_s)
                buffer.complete(sample.start_mono_s, sample)
                sample = next(rest, None)
            clock.advance(interval.end_mono_s - clock.mono_s())
            following = _interval(number)
            outbox.close_interval(buffer.close(interval, following), interval, following, clock_trusted=True)
            interval = following
        with store.reading() as cursor:
            totals = read_totals(cursor)
            sums = cursor.execute("SELECT sum(energy_in), sum(energy_out) FROM interval").fetchone()
        outbox.close()
    assert totals is not None
    return totals, sums[0], sums[1]


def _interval(number: int) -> Interval:
    end_s = (number + 1) * _REPORT_S
    return Interval(start_mono_s=end_s - _REPORT_S, end_mono_s=end_s, end_utc_ms=round((_BEGAN_UTC_S + end_s) * 1000))


def run(
    hours: float, interval_s: float, seed: int, *, rate: Rate = Rate.SLOW, momentary: bool = False, gaps: bool = False
) -> Day:
    """Count a day, and compare."""
    battery = BatteryModel(seed=seed)
    moments = times(hours, interval_s, seed, gaps=gaps)
    taken = list(samples(battery, moments, rate=rate, momentary=momentary))
    totals, rows_in_kwh, rows_out_kwh = count(taken, interval_s, hours * 3600)
    lines: tuple[list[float], list[float]] = ([], [])
    parts, covered_s = [], 0.0
    begun_s = moments[0]
    for one, other in itertools.pairwise(taken):
        if other.start_mono_s - one.start_mono_s > 3.1 * interval_s:
            parts.append((begun_s, one.start_mono_s))
            begun_s = other.start_mono_s
            continue
        covered_s += other.start_mono_s - one.start_mono_s
        for place, kws in enumerate(_line(one, other)):
            lines[place].append(kws)
    parts.append((begun_s, moments[-1]))
    pieces = [battery.energy_kwh(*part) for part in parts]
    return Day(
        counted=totals,
        rows_in_kwh=rows_in_kwh,
        rows_out_kwh=rows_out_kwh,
        lines=(math.fsum(lines[0]) / 3600, math.fsum(lines[1]) / 3600),
        true_kwh=battery.energy_kwh(moments[0], moments[-1]),
        true_covered_kwh=(math.fsum(each[0] for each in pieces), math.fsum(each[1] for each in pieces)),
        covered_s=covered_s,
        chance_kwh=_by_chance_kwh(battery, hours, interval_s),
    )


def _line(one: PowerSample, other: PowerSample) -> tuple[float, float]:
    """Return what lies above and below zero between two samples, in kWs, by formulas of its own."""
    assert one.power_kw is not None
    assert other.power_kw is not None
    seconds = other.start_mono_s - one.start_mono_s
    area, span = seconds * (one.power_kw + other.power_kw) / 2, abs(one.power_kw) + abs(other.power_kw)
    if one.power_kw * other.power_kw >= 0:
        return max(0.0, area), max(0.0, -area)
    absolute = seconds * (one.power_kw**2 + other.power_kw**2) / (2 * span)
    return (absolute + area) / 2, (absolute - area) / 2


def _by_chance_kwh(battery: BatteryModel, hours: float, interval_s: float) -> float:
    """Return one standard deviation of the error that jumps of the power at unknown moments make."""
    squares = []
    for at_s in battery.jumps_s(0.0, hours * 3600):
        before, after = (battery.voltage_v(at) * battery.current_a(at) / 1000 for at in (at_s - 1e-6, at_s + 1e-6))
        squares.append((after - before) ** 2)
    return interval_s * math.sqrt(math.fsum(squares) / 12) / 3600


def figures(hours: float, seeds: int) -> Iterator[Figure]:
    """Yield the rows of the table."""
    plans = (
        ("1 s", 1.0, Rate.SLOW, False),
        ("1 s, momentary", 1.0, Rate.SLOW, True),
        ("0.2 s, rate medium", 0.2, Rate.MEDIUM, False),
        ("5 s", 5.0, Rate.SLOW, False),
        ("4.7 s", 4.7, Rate.SLOW, False),
    )
    for name, interval_s, rate, momentary in plans:
        say(name)
        days = [run(hours, interval_s, seed, rate=rate, momentary=momentary) for seed in range(1, seeds + 1)]
        bound = 0.02 if name == "1 s" else None
        if name == "1 s":
            throughput_kwh = statistics.median(sum(day.true_kwh) for day in days)
            yield Figure(what="throughput", value=throughput_kwh, unit="kWh", digits=2)
        arithmetic = max(day.arithmetic for day in days)
        yield Figure(what=f"{name}: arithmetic, relative", value=arithmetic, digits=-1, at_most=1e-9)
        errors = [day.errors(day.true_kwh) for day in days]
        for place, what in enumerate(("in", "out", "net")):
            median = statistics.median(abs(each[place]) for each in errors)
            worst = max(abs(each[place]) for each in errors)
            yield Figure(what=f"{name}: error of {what}, median", value=median, unit="%", digits=3, at_most=bound)
            yield Figure(what=f"{name}: error of {what}, largest", value=worst, unit="%", digits=3)
        chance = statistics.median(100 * day.chance_kwh / sum(day.true_kwh) for day in days)
        yield Figure(what=f"{name}: by chance", value=chance, unit="%", digits=3)
    say("1 s with gaps")
    yield from _gap_figures([run(hours, 1.0, seed, gaps=True) for seed in range(1, seeds + 1)], hours)


def _gap_figures(days: Sequence[Day], hours: float) -> Iterator[Figure]:
    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    name = "1 s, 5 % gaps"
    coverage = median(day.counted.coverage_percent or 0.0 for day in days)
    off = max(abs((day.counted.coverage_percent or 0.0) - 100 * day.covered_s / (hours * 3600)) for day in days)
    yield Figure(what=f"{name}: coverage told", value=coverage, unit="%", digits=2)
    yield Figure(what=f"{name}: off the covered time, largest", value=off, unit="%", digits=4, at_most=0.01)
    for place, what in enumerate(("in", "out")):
        lacks = median(day.errors(day.true_kwh)[place] for day in days)
        rest = median(abs(day.errors(day.true_covered_kwh)[place]) for day in days)
        yield Figure(what=f"{name}: {what} against all the time", value=lacks, unit="%", digits=3)
        yield Figure(what=f"{name}: {what} against the covered time", value=rest, unit="%", digits=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count the days and print the table. Return the exit code: 0 if every bound is kept."""
    parser = argparse.ArgumentParser(description="Energy against the simulator's own integral.")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seeds", type=int, default=3, help="how many batteries")
    options = parser.parse_args(arguments)
    title = f"Energy: {options.hours:g} h of the battery with bursts, {options.seeds} batteries; % of the throughput"
    return print_table(title, list(figures(options.hours, options.seeds)))


if __name__ == "__main__":
    sys.exit(main())
