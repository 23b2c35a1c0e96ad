"""The real hour: the real program at its default intervals, an hour by this computer's clock, with the soak's table.

    python3 -m benchmarks.hour [--minutes 60]

``backend_daemon.py`` as a process of its own (5 s, 30 s), its meters on ptys, its cloud on a socket (``stand.py``),
with a Redis server beside it. Nothing is broken: ``soak.py`` does that. What it shows is that the figures of the clock
that jumps are those of a process in real life. The battery has a day of an hour: half of it the sun charges it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence

from benchmarks.soak_table import (
    Arrivals,
    Course,
    DayBattery,
    Span,
    course_figures,
    energy_figures,
    ledger_figures,
)
from benchmarks.stand import CLOCK, LOG_NAME, POWER_TYPE, Figure, Stand, print_table, say
from ledger import Tally
from status import read_status
from store import NAME as DATABASE_NAME

SAMPLE_MS, REPORT_MS = 5_000, 30_000
_MINUTE_S, _HOUR_S = 60.0, 3600.0
_WARM_S = 600.0
_MEMORY_GROWS_MB = 1.0  # an hour: pages of caches that fill once


def run(minutes: int) -> list[Figure]:
    """Let the daemon run, stop it, and return the rows of the table."""
    battery = DayBattery(day_s=_HOUR_S, largest_load_a=0.0)
    course, arrivals = Course(minutes + 10), Arrivals(20 * minutes + 100)
    with Stand(battery) as stand:
        offset_s = CLOCK.utc_s() - CLOCK.mono_s()
        stand.start(sample_ms=SAMPLE_MS, report_ms=REPORT_MS, redis=True)
        began_mono_s = stand.run_until_sampling()
        for minute in range(1, minutes + 1):
            stand.run_until(began_mono_s + minute * _MINUTE_S)
            size = (stand.folder / LOG_NAME).stat().st_size
            course.note(minute * _MINUTE_S, stand.pid, size, stand.folder)
            if minute % 10 == 0:
                say(f"minute {minute}: {size} bytes of log, {len(stand.cloud.received)} readings")
        samples = [len([at for at in each.samples() if at > began_mono_s]) for each in (stand.voltage, stand.current)]
        code = stand.stop()
        arrivals.add(each.datum for each in stand.cloud.received)
        return list(_figures(stand, battery, course, arrivals, offset_s, samples, code))


def _figures(
    stand: Stand,
    battery: DayBattery,
    course: Course,
    arrivals: Arrivals,
    offset_s: float,
    samples: Sequence[int],
    code: int,
) -> Iterator[Figure]:
    lasted_s = course.at_s[course.count - 1]
    yield Figure(what="ran", value=lasted_s / 60, unit="min", digits=0)
    yield Figure(what="exit code", value=code, digits=0, at_most=0)
    due = math.ceil(lasted_s * 1000 / SAMPLE_MS) - 1  # after the first, and before the end, which is a due time itself
    for name, asked in zip(("voltage", "current"), samples, strict=True):
        yield Figure(what=f"samples asked of the {name} meter, less than due", value=due - asked, digits=0, at_most=0)
    readings = arrivals.readings()
    complaints = sum(word in line for line in stand.log.splitlines() for word in (" - ERROR - ", " - CRITICAL - "))
    tally = _tally(stand)
    yield from ledger_figures(tally, len(readings), arrivals.count, complaints)
    powers = {utc_ms: value for (kind, utc_ms), value in readings.items() if kind == POWER_TYPE}
    whole = [utc_ms for utc_ms in powers if utc_ms % REPORT_MS == 0][1:]  # the first and the last one are cut short
    spans = [
        Span(
            utc_ms=utc_ms,
            start_mono_s=(utc_ms - REPORT_MS) / 1000 - offset_s,
            end_mono_s=utc_ms / 1000 - offset_s,
            power_kw=powers[utc_ms],
        )
        for utc_ms in whole
    ]
    yield Figure(what="whole intervals with a kW", value=len(spans), digits=0)
    yield from energy_figures(battery, spans)
    warm_s = min(_WARM_S, lasted_s / 4)
    yield from course_figures(course, unit="hour", per_s=_HOUR_S, from_s=warm_s, rss_mb=_MEMORY_GROWS_MB)


def _tally(stand: Stand) -> Tally:
    """Return the ledger, as ``--status`` reads it from the database."""
    ledger = read_status(stand.folder / DATABASE_NAME, CLOCK.utc_s()).ledger
    return Tally(
        made=ledger.readings_made or 0,
        delivered=ledger.readings_delivered or 0,
        waiting=ledger.readings_waiting or 0,
        rejected=ledger.readings_rejected or 0,
        dropped=ledger.readings_dropped or 0,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the hour and print its table. Return the exit code: 0 if every bound is kept."""
    parser = argparse.ArgumentParser(description="An hour of the daemon, as it is.")
    parser.add_argument("--minutes", type=int, default=60)
    options = parser.parse_args(arguments)
    return print_table(f"{options.minutes} minutes", run(options.minutes))


if __name__ == "__main__":
    sys.exit(main())
