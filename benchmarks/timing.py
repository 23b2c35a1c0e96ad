"""Whether samples are taken when they are due: 10 minutes at 500 ms, then one minute at 50 ms.

    python3 -m benchmarks.timing [--minutes 10] [--fast-seconds 60]

Seen from the meters. A sample starts when the first of the two meters is asked. Due times lie exactly one interval
apart; where the first one lies is not visible from outside, so their phase is the median of all starts, and a deviation
counts in either direction. The drift is that of the early starts (the tenth percentile), from the first tenth of the
run to the last, as if carried over the whole run: a busy machine makes some starts later, none earlier, and that is no
drift.

At 50 ms a due time without a query is excused when the meter had not yet sent its reply to the query before, or had
sent it less than 2 ms before: a real meter is now and then busy for up to 56 ms, and a virtual one imitates that.
"""

from __future__ import annotations

import argparse
import bisect
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.stand import Figure, ObservedMeter, Stand, percentile, print_table, say

_SLOW_MS, _FAST_MS, _REPORT_MS = 500, 50, 1000
_WARM_UP_S = 8.0  # the queries of the settling are over by then, and the log-in and its imports too
_ON_TIME_MS, _TOGETHER_MS, _DRIFT_MS, _CPU_PERCENT = 5.0, 5.0, 1.0, 10.0
_ON_ITS_WAY_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Due times: ``phase_mono_s`` plus whole multiples of the interval."""

    phase_mono_s: float
    interval_s: float

    def number(self, mono_s: float) -> int:
        """Return the number of the due time nearest to this moment."""
        return round((mono_s - self.phase_mono_s) / self.interval_s)

    def due_mono_s(self, number: int) -> float:
        """Return a due time."""
        return self.phase_mono_s + number * self.interval_s

    def deviation_ms(self, mono_s: float) -> float:
        """Return how much later than the nearest due time this moment is."""
        return (mono_s - self.due_mono_s(self.number(mono_s))) * 1000


def fit(starts_mono_s: Sequence[float], interval_s: float) -> Grid:
    """Return the due times that half of the starts are later and half are earlier than."""
    origin = Grid(phase_mono_s=statistics.median_low(starts_mono_s), interval_s=interval_s)
    middle_ms = statistics.median(origin.deviation_ms(start) for start in starts_mono_s)
    return Grid(phase_mono_s=origin.phase_mono_s + middle_ms / 1000, interval_s=interval_s)


def sample_starts(stand: Stand, since_mono_s: float, interval_s: float) -> tuple[list[float], list[float]]:
    """Return when each sample started, and by how many ms the second meter was asked later than the first."""
    voltage, current = (meter.queries_mono_s(since_mono_s, interval_s) for meter in (stand.voltage, stand.current))
    starts_mono_s, apart_ms = [], []
    for mono_s in voltage:
        place = bisect.bisect_left(current, mono_s)
        nearest = min(current[max(0, place - 1) : place + 1], key=lambda other: abs(other - mono_s), default=math.inf)
        if abs(nearest - mono_s) < interval_s / 2:
            starts_mono_s.append(min(mono_s, nearest))
            apart_ms.append(abs(nearest - mono_s) * 1000)
    return starts_mono_s, apart_ms


def drift_ms(starts_mono_s: Sequence[float], grid: Grid) -> float:
    """Return how much later the starts are at the end of the run than at its beginning, in ms, never negative."""
    deviations_ms = [grid.deviation_ms(start) for start in starts_mono_s]
    tenth = max(1, len(deviations_ms) // 10)
    change_ms = percentile(deviations_ms[-tenth:], 0.1) - percentile(deviations_ms[:tenth], 0.1)
    return abs(change_ms) * len(deviations_ms) / max(1, len(deviations_ms) - tenth)


def missed(meter: ObservedMeter, since_mono_s: float, interval_s: float) -> tuple[int, int]:
    """Return how many due times a meter was not asked at, while it was free and while its reply was outstanding."""
    queries_mono_s, sent_mono_s = meter.queries_mono_s(since_mono_s, interval_s), sorted(meter.sent_mono_s)
    grid = fit(queries_mono_s, interval_s)
    asked = {grid.number(mono_s) for mono_s in queries_mono_s}
    free = outstanding = 0
    for number in set(range(min(asked), max(asked))) - asked:
        due_mono_s = grid.due_mono_s(number)
        before_mono_s = queries_mono_s[bisect.bisect_left(queries_mono_s, due_mono_s) - 1]
        place = bisect.bisect_left(sent_mono_s, before_mono_s)
        replied_mono_s = sent_mono_s[place] if place < len(sent_mono_s) else math.inf
        if replied_mono_s > due_mono_s - _ON_ITS_WAY_S:
            outstanding += 1
        else:
            free += 1
    return free, outstanding


def measure_slow(minutes: float) -> list[Figure]:
    """Return the rows of the run at 500 ms."""
    interval_s = _SLOW_MS / 1000
    with Stand() as stand:
        stand.start(sample_ms=_SLOW_MS, report_ms=_REPORT_MS)
        since_mono_s = stand.spawned_mono_s + _WARM_UP_S
        stand.run_until(since_mono_s + 60 * minutes)
        stand.stop()
        starts_mono_s, apart_ms = sample_starts(stand, since_mono_s, interval_s)
        misses = sum(sum(missed(meter, since_mono_s, interval_s)) for meter in (stand.voltage, stand.current))
    grid = fit(starts_mono_s, interval_s)
    late_ms = [abs(grid.deviation_ms(start)) for start in starts_mono_s]
    return [
        Figure(what="500 ms: samples", value=len(starts_mono_s), digits=0),
        Figure(what="500 ms: due times missed by a meter", value=misses, digits=0, at_most=0),
        Figure(what="500 ms: start off its due time, p50", value=percentile(late_ms, 0.5), unit="ms"),
        Figure(
            what="500 ms: start off its due time, p99", value=percentile(late_ms, 0.99), unit="ms", at_most=_ON_TIME_MS
        ),
        Figure(what="500 ms: start off its due time, longest", value=max(late_ms), unit="ms"),
        Figure(what="500 ms: drift over the run", value=drift_ms(starts_mono_s, grid), unit="ms", at_most=_DRIFT_MS),
        Figure(what="500 ms: between the two queries, p50", value=percentile(apart_ms, 0.5), unit="ms"),
        Figure(
            what="500 ms: between the two queries, p99",
            value=percentile(apart_ms, 0.99),
            unit="ms",
            at_most=_TOGETHER_MS,
        ),
        Figure(what="500 ms: between the two queries, longest", value=max(apart_ms), unit="ms"),
    ]


def measure_fast(seconds: float) -> list[Figure]:
    """Return the rows of the run at 50 ms."""
    interval_s = _FAST_MS / 1000
    with Stand() as stand:
        stand.start(sample_ms=_FAST_MS, report_ms=_REPORT_MS)
        since_mono_s = stand.spawned_mono_s + _WARM_UP_S
        stand.run_until(since_mono_s)
        before = stand.usage()
        stand.run_until(since_mono_s + seconds)
        after = stand.usage()
        stand.stop()
        counts = [missed(meter, since_mono_s, interval_s) for meter in (stand.voltage, stand.current)]
        starts_mono_s, _ = sample_starts(stand, since_mono_s, interval_s)
    free, outstanding = (sum(column) for column in zip(*counts, strict=True))
    cpu_percent = (after.cpu_s - before.cpu_s) / (after.mono_s - before.mono_s) * 100
    grid = fit(starts_mono_s, interval_s)
    late_ms = [abs(grid.deviation_ms(start)) for start in starts_mono_s]
    return [
        Figure(what="50 ms: samples with both meters", value=len(starts_mono_s), digits=0),
        Figure(what="50 ms: start off its due time, p99", value=percentile(late_ms, 0.99), unit="ms"),
        Figure(what="50 ms: due times missed, meter free", value=free, digits=0, at_most=0),
        Figure(what="50 ms: due times missed, reply outstanding", value=outstanding, digits=0),
        Figure(what="50 ms: CPU, share of one core", value=cpu_percent, unit="%", digits=1, at_most=_CPU_PERCENT),
    ]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.timing", description="Are samples on time?")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the run at 500 ms (10)")
    parser.add_argument("--fast-seconds", type=float, default=60.0, help="length of the run at 50 ms (60)")
    options = parser.parse_args()
    say(f"{options.minutes:g} min at {_SLOW_MS} ms, then {options.fast_seconds:g} s at {_FAST_MS} ms")
    figures = [*measure_slow(options.minutes), *measure_fast(options.fast_seconds)]
    return print_table(f"Timing: {options.minutes:g} min at 500 ms, {options.fast_seconds:g} s at 50 ms", figures)


if __name__ == "__main__":
    sys.exit(main())
