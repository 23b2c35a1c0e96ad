"""A month in half an hour: does the daemon's ledger close, is its energy right, and does nothing grow?

    python3 -m benchmarks.soak [--days 30] [--seed 1] [--pace 1]

The whole daemon at its default intervals (5 s, 30 s), with its own threads, database and log, on a clock that jumps
(``virtual_clock.py``, ``virtual_site.py``), beside a real Redis server. All the time meters, cloud, Redis and wall
clock have troubles, drawn at random, each on a schedule of its own, so that they overlap; the last hour is calm, that
everything can arrive. ``--pace 2``: twice as many, half as long at the most; 0: none.

The reported energy (each interval's kW times its length) is compared with the battery's own integral of V * I over the
same intervals. Memory is that of this whole process, the simulator's included. It needs a ``redis-server``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.site_troubles import CLOCK, CLOUD, play_mishaps, play_troubles, redis_troubles
from benchmarks.soak_table import (
    DAY_S,
    Arrivals,
    Course,
    DayBattery,
    Span,
    course_figures,
    energy_figures,
    ledger_figures,
    stored_numbers,
)
from benchmarks.stand import POWER_TYPE, Figure, print_table, say
from benchmarks.virtual_clock import VirtualEvent, VirtualThread
from benchmarks.virtual_site import BEGAN_UTC_S, REPORT_MS, VirtualSite
from measurements import Energy, Interval, IntervalSummary
from outbox import Outbox
from tables import Record
from tests.redis_server import RedisServer

_MINUTE_S, _HOUR_S = 60.0, 3600.0
_CALM_S = _HOUR_S
_WARM_S = DAY_S
_STAMPED_WITHIN_S = 6.0  # a Date is believed within 5 s, and has whole seconds
_MEMORY_GROWS_MB = 0.1  # a day


class ClosedIntervals:
    """When each interval began and ended, by the monotonic clock: noted as the daemon takes it in, by its number."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self._numbers = array("q", bytes(8 * most))
        self._starts, self._ends = array("d", bytes(8 * most)), array("d", bytes(8 * most))

    def note(self, number: int, interval: Interval) -> None:
        """Take note of one."""
        self._numbers[self.count] = number
        self._starts[self.count], self._ends[self.count] = interval.start_mono_s, interval.end_mono_s
        self.count += 1

    def bounds(self) -> dict[int, tuple[float, float]]:
        """Return the begin and the end of each interval by its number."""
        return {self._numbers[row]: (self._starts[row], self._ends[row]) for row in range(self.count)}


class _NotingOutbox(Outbox):
    """The daemon's outbox, which also notes when the intervals were that it is given."""

    def __init__(self, noted: ClosedIntervals, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._noted = noted

    def _new_record(
        self, summary: IntervalSummary, ended: Interval, boot_id: str, clock_trusted: bool, totals: Energy | None
    ) -> Record:
        record = super()._new_record(summary, ended, boot_id, clock_trusted, totals)
        self._noted.note(record.number, ended)
        return record


class Soak:
    """One run: ``run()`` returns the rows of the table."""

    def __init__(self, days: float, seed: int, *, pace: float = 1.0) -> None:
        self._ends_s = days * DAY_S
        self._seed, self._pace = seed, pace
        intervals = math.ceil(self._ends_s * 1000 / REPORT_MS) + 1000
        self._battery = DayBattery(seed)
        self._course = Course(math.ceil(self._ends_s / _MINUTE_S) + 10)
        self._arrivals = Arrivals(6 * intervals)
        self._closed = ClosedIntervals(4 * intervals)
        self._played: Counter[str] = Counter()

    def run(self) -> list[Figure]:
        """Let the days pass and return what they showed."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            redis = stack.enter_context(RedisServer(folder))
            sections = {"REDIS": {"redis_enable": True, "redis_host": "127.0.0.1", "redis_port": redis.port}}
            with patch("daemon.Outbox", partial(_NotingOutbox, self._closed)):
                site = stack.enter_context(VirtualSite(self._battery, folder, sections=sections))
            self._let_pass(site, redis)
            site.stop()
            self._arrivals.add(site.take_arrived())
            return list(self._figures(site, folder))

    def _let_pass(self, site: VirtualSite, redis: RedisServer) -> None:
        """Let the time pass, with its troubles, and note each minute what the process holds; calm minutes last."""
        stop = VirtualEvent(site.clock)
        threads = self._start_troubles(site, redis, stop) if self._pace else []
        for minute in range(1, math.floor(self._ends_s / _MINUTE_S) + 1):
            site.let_pass(minute * _MINUTE_S)
            self._arrivals.add(site.take_arrived())
            if minute * _MINUTE_S < self._ends_s - _CALM_S:
                self._course.note(minute * _MINUTE_S, os.getpid(), site.log.bytes, site.folder)
            elif not stop.is_set():
                stop.set()
                for thread in threads:
                    thread.join()
            if minute % (24 * 60) == 0:
                say(f"day {minute // (24 * 60)}: {site.daemon.outbox.tally()}, {self._played.total()} troubles")

    def _start_troubles(self, site: VirtualSite, redis: RedisServer, stop: VirtualEvent) -> list[VirtualThread]:
        hour_s = _HOUR_S / self._pace
        play = partial(play_troubles, site, stop=stop, played=self._played)
        plays: list[Callable[[], None]] = [
            partial(play_mishaps, site, stop, self._played, seed=self._seed, gap_s=0.25 * hour_s),
            partial(play, CLOUD, seed=self._seed + 1, gap_s=3 * hour_s, lasts_s=(10.0, 6 * hour_s)),
            partial(play, redis_troubles(redis), seed=self._seed + 2, gap_s=3 * hour_s, lasts_s=(5.0, hour_s)),
            partial(play, CLOCK, seed=self._seed + 3, gap_s=6 * hour_s, lasts_s=(5.0, 2 * hour_s)),
        ]
        threads = [VirtualThread(site.clock, target=each, daemon=True) for each in plays]
        for thread in threads:
            thread.start()
        return threads

    def _figures(self, site: VirtualSite, folder: Path) -> Iterator[Figure]:
        yield Figure(what="simulated", value=site.clock.mono_s() / DAY_S, unit="days", digits=2)
        yield Figure(what="troubles of the meters", value=self._count(lambda name: name not in _OTHERS), digits=0)
        yield Figure(what="  of the cloud", value=self._count(lambda name: name in CLOUD), digits=0)
        yield Figure(what="  of Redis", value=self._count(lambda name: name.startswith("Redis")), digits=0)
        yield Figure(what="  of the wall clock", value=self._count(lambda name: name in CLOCK), digits=0)
        readings, numbers, bounds = self._arrivals.readings(), stored_numbers(folder), self._closed.bounds()
        yield from ledger_figures(site.daemon.outbox.tally(), len(readings), self._arrivals.count, len(site.log.errors))
        powers = {utc_ms: value for (kind, utc_ms), value in readings.items() if kind == POWER_TYPE}
        spans = [
            Span(utc_ms=utc_ms, start_mono_s=start_mono_s, end_mono_s=end_mono_s, power_kw=power_kw)
            for utc_ms, power_kw in powers.items()
            if utc_ms in numbers
            for start_mono_s, end_mono_s in [bounds[numbers[utc_ms]]]
        ]
        covered_s = sum(span.end_mono_s - span.start_mono_s for span in spans)
        yield Figure(what="intervals with a kW", value=len(powers), digits=0)
        yield Figure(what="  that the history has no more", value=len(powers) - len(spans), digits=0, at_most=0)
        yield Figure(what="  of the whole time", value=100 * covered_s / site.clock.mono_s(), unit="%")
        off_s = [abs(span.utc_ms / 1000 - BEGAN_UTC_S - span.end_mono_s) for span in spans]
        yield Figure(what="worst timestamp off by", value=max(off_s), unit="s", at_most=_STAMPED_WITHIN_S)
        yield from energy_figures(self._battery, spans)
        yield from course_figures(
            self._course, unit="day", per_s=DAY_S, from_s=min(_WARM_S, self._ends_s / 4), rss_mb=_MEMORY_GROWS_MB
        )

    def _count(self, counts: Callable[[str], bool]) -> int:
        return sum(count for name, count in self._played.items() if counts(name))


_OTHERS = {*CLOUD, *CLOCK, "Redis down", "Redis has another password"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak and print its table. Return the exit code: 0 if every bound is kept."""
    parser = argparse.ArgumentParser(description="A month of the daemon by a clock that jumps.")
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=1.0, help="of the troubles; 0: none")
    options = parser.parse_args(arguments)
    figures = Soak(options.days, options.seed, pace=options.pace).run()
    return print_table(f"{options.days:g} days, seed {options.seed}", figures)


if __name__ == "__main__":
    sys.exit(main())
