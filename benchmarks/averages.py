"""Whether every reported number is the mean of what its own meters said, for 120 s of a battery with bursts.

    python3 -m benchmarks.averages [--seconds 120]

The judge is the meters' own record of the readings they gave. A reading belongs to the interval that its query fell
in, left-open and right-closed; V is the mean of the voltage meter's readings, A the mean of the other's divided by
the shunt's resistance, kW the mean of the products of readings that were asked for together (rule 2). The sampler keeps
its queries a quarter of a second away from the ends of intervals, so that none can be counted on the wrong side because
it took a moment to arrive. The first interval, which begins with the first sample, and the last, which the stop cuts
short, are judged like the others.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.stand import (
    CLOCK,
    CURRENT_TYPE,
    POWER_TYPE,
    VOLTAGE_TYPE,
    Figure,
    Stand,
    print_table,
    say,
)
from measurements import Datum
from simulator.battery import SHUNT_OHM, BatteryModel

_SAMPLE_MS, _REPORT_MS = 500, 2000
_TOGETHER_S = 0.005
_SAME_SAMPLE_S = _SAMPLE_MS / 2000
_RELATIVE_ERROR = 1e-6

Values = dict[int, float]  # sensor type -> value


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the meters said: their readings by the wall-clock time of the query, in ms."""

    voltage_v: Mapping[float, float]
    shunt_v: Mapping[float, float]

    def pairs(self, start_utc_ms: float, end_utc_ms: float) -> list[tuple[float, float, bool]]:
        """Return V, A and whether they belong together (rule 5), for each sample that has both."""
        pairs = []
        for utc_ms, voltage_v in _within(self.voltage_v, start_utc_ms, end_utc_ms).items():
            nearest = min(self.shunt_v, key=lambda other, utc_ms=utc_ms: abs(other - utc_ms))  # type: ignore[misc]
            apart_s = abs(nearest - utc_ms) / 1000
            if apart_s < _SAME_SAMPLE_S:
                pairs.append((voltage_v, self.shunt_v[nearest] / SHUNT_OHM, apart_s <= _TOGETHER_S))
        return pairs

    def errors(self, start_utc_ms: float, end_utc_ms: float, reported: Values) -> Values:
        """Return the relative error of each reported value; infinite where there is nothing it could be the mean of."""
        voltages_v = list(_within(self.voltage_v, start_utc_ms, end_utc_ms).values())
        currents_a = [shunt_v / SHUNT_OHM for shunt_v in _within(self.shunt_v, start_utc_ms, end_utc_ms).values()]
        pairs = self.pairs(start_utc_ms, end_utc_ms)
        powers_kw = [voltage_v * current_a / 1000 for voltage_v, current_a, _ in pairs]
        together_kw = [voltage_v * current_a / 1000 for voltage_v, current_a, together in pairs if together]
        # Queries that left within 5 ms may arrive further apart than that: the daemon knows which case it was.
        power_error = min(_error(reported[POWER_TYPE], powers_kw), _error(reported[POWER_TYPE], together_kw))
        return {
            VOLTAGE_TYPE: _error(reported[VOLTAGE_TYPE], voltages_v),
            CURRENT_TYPE: _error(reported[CURRENT_TYPE], currents_a),
            POWER_TYPE: power_error,
        }


def _within(readings: Mapping[float, float], start_utc_ms: float, end_utc_ms: float) -> dict[float, float]:
    return {utc_ms: value for utc_ms, value in readings.items() if start_utc_ms < utc_ms <= end_utc_ms}


def _error(reported: float, values: Sequence[float]) -> float:
    if not values:
        return float("inf")
    mean = statistics.fmean(values)
    return abs(reported - mean) / abs(mean)


def measure(seconds: float) -> tuple[Truth, list[Datum]]:
    """Run the daemon, stop it in the middle of an interval, and return what was said and what was reported."""
    with Stand(BatteryModel(cycle_s=seconds)) as stand:
        stand.start(sample_ms=_SAMPLE_MS, report_ms=_REPORT_MS)
        end_mono_s = stand.run_until_sampling() + seconds
        into_interval_s = (CLOCK.utc_s() + end_mono_s - CLOCK.mono_s()) % (_REPORT_MS / 1000)
        stand.run_until(end_mono_s + _REPORT_MS / 1000 - into_interval_s + 1.3)
        stand.stop()
        to_utc_s = CLOCK.utc_s() - CLOCK.mono_s()
        voltage_v, shunt_v = (
            {(mono_s + to_utc_s) * 1000: value for mono_s, value in meter.samples().items()}
            for meter in (stand.voltage, stand.current)
        )
        return Truth(voltage_v=voltage_v, shunt_v=shunt_v), [received.datum for received in stand.cloud.received]


def figures(truth: Truth, reported: list[Datum]) -> list[Figure]:
    """Return the rows of the table."""
    counts = Counter((datum.timestamp_utc_ms, datum.type) for datum in reported)
    intervals: dict[int, Values] = {}
    for datum in reported:
        intervals.setdefault(datum.timestamp_utc_ms, {})[datum.type] = datum.data
    first_utc_ms = min(*truth.voltage_v, *truth.shunt_v)
    first_end_utc_ms = int(first_utc_ms // _REPORT_MS + 1) * _REPORT_MS
    expected = set(range(first_end_utc_ms, max(intervals), _REPORT_MS)) | {max(intervals)}
    complete = [end for end in sorted(intervals) if len(intervals[end]) == 3]
    bounds = list(itertools.pairwise([first_end_utc_ms - _REPORT_MS, *sorted(intervals)]))
    errors = [truth.errors(start, end, intervals[end]) for start, end in bounds if end in complete]
    used = [pair for start, end in bounds for pair in truth.pairs(start, end)]
    said = [*truth.voltage_v, *truth.shunt_v]
    left_out = sum(not any(start < utc_ms <= end for start, end in bounds) for utc_ms in said)
    to_edge_ms = min(
        abs((utc_ms + _REPORT_MS / 2) % _REPORT_MS - _REPORT_MS / 2) for utc_ms in (*truth.voltage_v, *truth.shunt_v)
    )
    rows = [
        Figure(
            what=f"largest relative error of {unit}",
            value=max(error[sensor_type] for error in errors),
            digits=-1,
            at_most=_RELATIVE_ERROR,
        )
        for unit, sensor_type in (("V", VOLTAGE_TYPE), ("A", CURRENT_TYPE), ("kW", POWER_TYPE))
    ]
    return [
        *rows,
        Figure(what="intervals reported, first and last included", value=len(intervals), digits=0),
        Figure(
            what="intervals missing or without V, A or kW", value=len(expected - set(complete)), digits=0, at_most=0
        ),
        Figure(what="intervals nobody expected", value=len(set(intervals) - expected), digits=0, at_most=0),
        Figure(what="readings doubled", value=sum(count - 1 for count in counts.values()), digits=0, at_most=0),
        Figure(what="readings of the meters in no interval", value=left_out, digits=0, at_most=0),
        Figure(what="samples", value=len(used), digits=0),
        Figure(what="samples whose queries came over 5 ms apart", value=sum(not pair[2] for pair in used), digits=0),
        Figure(what="least distance of a query from an aligned end", value=to_edge_ms, unit="ms", digits=0),
    ]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.averages", description="Are the averages right?")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="length of the run and of the battery's cycle (120)"
    )
    options = parser.parse_args()
    say(f"sampling for {options.seconds:g} s")
    truth, reported = measure(options.seconds)
    title = f"Averages: {options.seconds:g} s of the battery model with bursts, sample 500 ms, report 2 s"
    return print_table(title, figures(truth, reported))


if __name__ == "__main__":
    sys.exit(main())
