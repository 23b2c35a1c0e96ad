"""What the timestamps are worth on a computer whose clock is wrong: started in 1970, stepped, set years back.

    python3 -m benchmarks.clock_steps [NAME ...] [--at-once 4]

Each script is a daemon of its own, a sample every 500 ms and a report every 2 s, whose wall clock is the machine's
plus a shift, and whose kernel says or does not say that it is synchronised, both as a small file tells that the script
rewrites. The monotonic clock is the machine's. The cloud's clock, and with it the ``Date`` of its answers, is right;
in some scripts it sends none.

The judge knows nothing of the daemon's time. The meters' record says when each sample was asked for; the database says
how many samples each interval has. In their order the intervals take up the samples in theirs, which the means prove
(the voltage rises all the time). So the true end of an interval is known: after its last sample, and before the
first of the next one. The error of a timestamp is how far it lies outside of these two. They are
500 ms apart: an error below that may go unseen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sqlite3
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stand import CLOCK, CURRENT_TYPE, POWER_TYPE, VOLTAGE_TYPE, Figure, print_table, say
from simulator.meter import VirtualMeter
from store import NAME
from tests.rig import Rig, start_daemon

_SAMPLE_MS, _REPORT_MS = 500, 2000
_ERROR_S, _RELATIVE_ERROR = 1.0, 1e-9
_CLOCK_FILE = "clock.json"
_DAEMON = f"""
import json, pathlib, sys
import clock

class ShiftedClock(clock.Clock):
    def told(self):
        return json.loads(pathlib.Path({_CLOCK_FILE!r}).read_text())

    def utc_s(self):
        return super().utc_s() + self.told()["shift_s"]

    def kernel_synchronised(self):
        return self.told()["synchronised"]

clock.Clock = ShiftedClock
import backend_daemon
sys.exit(backend_daemon.main())
"""
_HOUR_S, _YEARS_S = 3600.0, 6 * 365.25 * 86_400
_1970 = 30.0 - round(CLOCK.utc_s())
_LONG_S, _SHORT_S = 600, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happens ``at_s`` seconds after the start: the clock is set, or the daemon is killed."""

    at_s: float
    shift_s: float = 0.0
    synchronised: bool = False
    at_end: float | None = None  # wait on until this many seconds after the next true end of an interval
    kill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One wrong clock: as it is at the start, and its steps."""

    name: str
    what: str
    shift_s: float = 0.0
    synchronised: bool = False
    date: bool = True
    hold_max_s: int = _LONG_S
    steps: Sequence[Step] = ()
    seconds: float = 26.0


def ends() -> list[Script]:
    """Return the scripts with a step at the very end of an interval, some ms before, at and after it."""
    scripts = []
    for at_ms in (-200, -20, -2, 0, 2, 20, 60):
        right = Step(at_s=9.0, synchronised=True, at_end=at_ms / 1000)
        wrong = Step(at_s=9.0, shift_s=6 * _HOUR_S, at_end=at_ms / 1000)
        scripts += [
            Script(
                name=f"end{at_ms:+d}",
                what=f"6 h slow; set right {at_ms:+d} ms from the end of an interval; the kernel says so",
                shift_s=-6 * _HOUR_S,
                steps=(right,),
                seconds=20.0,
            ),
            Script(
                name=f"away{at_ms:+d}",
                what=f"right, by the kernel; stepped +6 h {at_ms:+d} ms from the end of an interval",
                synchronised=True,
                hold_max_s=_SHORT_S,
                steps=(wrong,),
                seconds=20.0,
            ),
        ]
    return scripts


SCRIPTS = (
    Script(
        name="1970",
        what="starts in 1970; NTP sets it after 12 s, and the kernel says so",
        shift_s=_1970,
        steps=(Step(at_s=12.0, synchronised=True),),
    ),
    Script(
        name="1970-late",
        what="the same; the kernel says so 6 s after the step only",
        shift_s=_1970,
        steps=(Step(at_s=12.0), Step(at_s=18.0, synchronised=True)),
    ),
    Script(
        name="1970-date", what="starts in 1970 and stays there: the Date wins after 3 s", shift_s=_1970, hold_max_s=3
    ),
    Script(
        name="1970-date-ntp",
        what="the same, and NTP sets it after all, 12 s later",
        shift_s=_1970,
        hold_max_s=_SHORT_S,
        steps=(Step(at_s=15.0, synchronised=True),),
    ),
    Script(
        name="1970-no-date",
        what="starts in 1970; no Date; set after 12 s; the kernel says nothing",
        shift_s=_1970,
        date=False,
        steps=(Step(at_s=12.0),),
    ),
    Script(
        name="1970-kill",
        what="starts in 1970; killed and started again; NTP sets it after 20 s",
        shift_s=_1970,
        steps=(Step(at_s=11.0, at_end=0.9, kill=True), Step(at_s=20.0, synchronised=True)),
        seconds=28.0,
    ),
    Script(
        name="plus-6h",
        what="6 h slow; NTP steps it +6 h after 12 s, and the kernel says so",
        shift_s=-6 * _HOUR_S,
        steps=(Step(at_s=12.0, synchronised=True),),
    ),
    Script(
        name="plus-6h-date",
        what="right, by the Date; stepped +6 h, wrong, for good: the Date wins after 3 s",
        hold_max_s=_SHORT_S,
        steps=(Step(at_s=10.0, shift_s=6 * _HOUR_S),),
    ),
    Script(
        name="plus-6h-back",
        what="right, by the kernel; stepped +6 h, wrong; 6 s later set right again",
        synchronised=True,
        steps=(Step(at_s=10.0, shift_s=6 * _HOUR_S), Step(at_s=16.0, synchronised=True)),
    ),
    Script(
        name="minus-6h",
        what="6 h fast; NTP steps it -6 h after 12 s, and the kernel says so",
        shift_s=6 * _HOUR_S,
        steps=(Step(at_s=12.0, synchronised=True),),
    ),
    Script(
        name="minus-6h-date",
        what="right, by the Date; stepped -6 h, wrong, for good: the Date wins after 3 s",
        hold_max_s=_SHORT_S,
        steps=(Step(at_s=10.0, shift_s=-6 * _HOUR_S),),
    ),
    Script(
        name="minus-6h-no-date",
        what="right; no Date; stepped -6 h, wrong; 6 s later set right; the kernel says nothing",
        date=False,
        steps=(Step(at_s=10.0, shift_s=-6 * _HOUR_S), Step(at_s=16.0)),
    ),
    Script(
        name="years-back",
        what="right, by the Date; set 6 years back for good: the Date wins after 3 s",
        hold_max_s=_SHORT_S,
        steps=(Step(at_s=10.0, shift_s=-_YEARS_S),),
    ),
    Script(
        name="years-back-ntp",
        what="right, by the kernel; set 6 years back; NTP sets it right 6 s later",
        synchronised=True,
        steps=(Step(at_s=10.0, shift_s=-_YEARS_S), Step(at_s=16.0, synchronised=True)),
    ),
    Script(
        name="years-back-no-date",
        what="right; no Date; set 6 years back; NTP sets it right 6 s later",
        date=False,
        steps=(Step(at_s=10.0, shift_s=-_YEARS_S), Step(at_s=16.0, synchronised=True)),
    ),
    *ends(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An interval of the database: its timestamp, its mean voltage and how many samples have one."""

    end_utc_ms: int | None
    voltage_v: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one script came to."""

    intervals: int
    error_s: float  # the largest
    missing: int  # samples in no interval, intervals without their samples or not delivered
    doubled: int
    unordered: int


def samples_of(meter: VirtualMeter) -> list[tuple[float, float]]:
    """Return the readings that were asked for as samples: when, by the true wall clock, and the value.

    A sample's query is followed by the check of the settings, one of the settling is not.
    """
    asked = {
        command.mono_s
        for command, following in itertools.pairwise(meter.received)
        if command.text == "MEAS1?" and following.text == "FUNC1?"
    }
    to_utc_s = CLOCK.utc_s() - CLOCK.mono_s()
    return [(each.mono_s + to_utc_s, each.value) for each in meter.served if each.mono_s in asked]


def perform(script: Script) -> Outcome:
    """Let a script happen and judge it."""
    pause = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as name,
        Rig(Path(name), volts=lambda mono_s: 10.0 + mono_s % 400.0) as rig,
    ):
        rig.configure(
            {"STORE": {"clock_hold_max": script.hold_max_s}, "API": {"upload_pause_ms": 0}},
            sample_ms=_SAMPLE_MS,
            report_ms=_REPORT_MS,
        )
        if not script.date:
            rig.cloud.date_shift_s = None
        set_clock(rig.folder, script.shift_s, synchronised=script.synchronised)
        rig.process = start_daemon(rig.folder, code=_DAEMON)
        begun_mono_s = CLOCK.mono_s()
        for step in script.steps:
            until_mono_s = begun_mono_s + step.at_s
            if step.at_end is not None:
                at_utc_s = CLOCK.utc_s() + CLOCK.timeout_s(until_mono_s)
                until_mono_s += _REPORT_MS / 1000 - at_utc_s % (_REPORT_MS / 1000) + step.at_end
            pause.wait(CLOCK.timeout_s(until_mono_s))
            if step.kill:
                rig.process.kill()
                rig.process.communicate()
                rig.process = start_daemon(rig.folder, code=_DAEMON)
            else:
                set_clock(rig.folder, step.shift_s, synchronised=step.synchronised)
        pause.wait(CLOCK.timeout_s(begun_mono_s + script.seconds))
        pause.wait(2.0 - (CLOCK.utc_s() - 1.0) % 2.0)  # a stop between two samples: it costs a read in flight
        code, _ = rig.stop()
        if code != 0:
            raise SystemExit(f"{script.name}: the daemon ended with {code}: {rig.log[-2000:]}")
        return judge(script.name, rig)


def set_clock(folder: Path, shift_s: float, *, synchronised: bool) -> None:
    """Set the daemon's wall clock, and what its kernel says, at one moment."""
    new = folder / f"{_CLOCK_FILE}.new"
    new.write_text(json.dumps({"shift_s": shift_s, "synchronised": synchronised}))
    new.replace(folder / _CLOCK_FILE)


def judge(name: str, rig: Rig) -> Outcome:
    """Compare what arrived with the samples that it is made of."""
    with closing(sqlite3.connect(rig.folder / NAME)) as connection:
        rows = [
            Row(end_utc_ms=row[0], voltage_v=row[1], count=row[2])
            for row in connection.execute("SELECT end_utc_ms, voltage, voltage_count FROM interval ORDER BY id")
        ]
        rejected = int(connection.execute("SELECT count(*) FROM rejected").fetchone()[0])
    samples = samples_of(rig.voltage)
    arrived = [each.datum for each in rig.cloud.received]
    keys = Counter((each.type, each.timestamp_utc_ms) for each in arrived)
    values = {(each.type, each.timestamp_utc_ms): each.data for each in arrived}
    error_s, missing, place = 0.0, rejected, 0
    for row in rows:
        used = [value for _, value in samples[place : place + row.count]]
        mean = statistics.fmean(used) if used else math.nan
        right = abs(row.voltage_v - mean) <= _RELATIVE_ERROR * abs(mean)
        place += row.count
        if not right or row.end_utc_ms is None:
            say(f"{name}: {row} has not the mean of its samples, {mean}, or no timestamp")
            missing += 1
            continue
        if any((each, row.end_utc_ms) not in values for each in (VOLTAGE_TYPE, CURRENT_TYPE, POWER_TYPE)):
            say(f"{name}: {row} was not delivered")
            missing += 1
            continue
        end_utc_s = row.end_utc_ms / 1000
        following_utc_s = samples[place][0] if place < len(samples) else math.inf
        error_s = max(error_s, samples[place - 1][0] - end_utc_s, end_utc_s - following_utc_s)
    missing += len(samples) - place
    return Outcome(
        intervals=len(rows),
        error_s=error_s,
        missing=missing,
        doubled=sum(keys.values()) - len(keys),
        unordered=sum(
            later.end_utc_ms <= earlier.end_utc_ms
            for earlier, later in itertools.pairwise(rows)
            if later.end_utc_ms is not None and earlier.end_utc_ms is not None
        ),
    )


def figures(scripts: Sequence[Script], outcomes: Sequence[Outcome]) -> list[Figure]:
    """Return the rows of the table: the largest error of each script, and what went wrong in all of them together."""
    for script, outcome in zip(scripts, outcomes, strict=True):
        say(f"{script.name}: {outcome}")
    return [
        *(
            Figure(what=f"{script.name}: {script.what}", value=outcome.error_s, unit="s", digits=3, at_most=_ERROR_S)
            for script, outcome in zip(scripts, outcomes, strict=True)
        ),
        Figure(what="intervals of all scripts", value=sum(each.intervals for each in outcomes), digits=0),
        Figure(what="samples or intervals missing", value=sum(each.missing for each in outcomes), digits=0, at_most=0),
        Figure(what="readings doubled", value=sum(each.doubled for each in outcomes), digits=0, at_most=0),
        Figure(
            what="intervals not later than the one before",
            value=sum(each.unordered for each in outcomes),
            digits=0,
            at_most=0,
        ),
    ]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.clock_steps", description="Are timestamps right?")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which scripts (all)")
    parser.add_argument("--at-once", type=int, default=4, help="how many daemons at the same time (4)")
    options = parser.parse_args()
    if unknown := set(options.names) - {script.name for script in SCRIPTS}:
        parser.error(f"no such script: {', '.join(sorted(unknown))}")
    scripts = [script for script in SCRIPTS if not options.names or script.name in options.names]
    say(f"{len(scripts)} scripts, each below half a minute")
    with ThreadPoolExecutor(options.at_once) as pool:
        outcomes = list(pool.map(perform, scripts))
    return print_table("Clock: error of the timestamps, sample 500 ms, report 2 s", figures(scripts, outcomes))


if __name__ == "__main__":
    sys.exit(main())
