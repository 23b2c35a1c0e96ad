"""What ``kill -9`` costs the counters of energy: 100 kills, and an undisturbed count of the same samples beside them.

    .venv/bin/python -m benchmarks.energy_kills [--kills 100] [--seed 1]

A sample every 2 s, a report every 5 s; the daemon is killed at a random moment, 3 s to 7 s after its start, and started
again. A start takes some 2 s to 3 s, so that most kills lie between two samples that are less than three sample
intervals apart: what passed between those is counted. Where a run is killed before its first sample there is a gap.

The undisturbed count is made of the daemon's samples as its log has them (level DEBUG), which a kill leaves alone: the
lines between all of them, those further apart than three intervals left out. A sample that was written down and not yet
logged when the program was killed is all that may be lacking; the bound is one sample's energy, in all 100 kills
together. After each kill the database is looked at: its counters may never have fallen, and are the sum of its
intervals.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stand import CLOCK, Figure, print_table, say
from energy_book import EnergyTotals, read_totals
from simulator.battery import BatteryModel
from store import NAME
from tests.rig import Rig

_SAMPLE_MS, _REPORT_MS = 2000, 5000
_LIVES_S = (3.0, 7.0)
_LAST_RUN_S = 12.0
_BRIDGED_S = 3.1 * _SAMPLE_MS / 1000
_ARGUMENTS = ("--log-level", "DEBUG")
_SAMPLE = re.compile(r"PowerSample\(start_mono_s=([\d.]+), .*?power_kw=([-+.\de]+|None)")
_LARGEST_KW = 3.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The counters at one moment, the sums of the intervals, and whether the counters of the rows ever fall."""

    totals: EnergyTotals
    rows_kwh: tuple[float, float]
    rows_fall: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What was counted without a kill between: kWh in and out, seconds, gaps."""

    in_kwh: float
    out_kwh: float
    covered_s: float
    gaps: int


def look(folder: Path) -> Look | None:
    """Return what stands in the database, from a copy, so that nothing of it is touched."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        for suffix in ("", "-wal"):
            if (folder / f"{NAME}{suffix}").exists():
                shutil.copy(folder / f"{NAME}{suffix}", name)
        with closing(sqlite3.connect(Path(name) / NAME)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone():
                return None
            totals = read_totals(connection.cursor())
            if totals is None:
                return None
            rows = connection.execute(
                "SELECT energy_in, energy_out, total_energy_in, total_energy_out FROM interval ORDER BY id"
            ).fetchall()
    counters = [row[2:] for row in rows]
    return Look(
        totals=totals,
        rows_kwh=(math.fsum(row[0] for row in rows), math.fsum(row[1] for row in rows)),
        rows_fall=any(one[0] > other[0] or one[1] > other[1] for one, other in itertools.pairwise(counters)),
    )


def undisturbed(log: str) -> Count:
    """Count the energy of the samples that the log has."""
    points = [(float(sample[1]), float(sample[2])) for sample in _SAMPLE.finditer(log) if sample[2] != "None"]
    areas, covered_s, gaps = [], 0.0, 0
    for (begin_s, begin_kw), (end_s, end_kw) in itertools.pairwise(points):
        seconds = end_s - begin_s
        if seconds > _BRIDGED_S:
            gaps += 1
            continue
        covered_s += seconds
        if begin_kw * end_kw >= 0:
            areas.append(seconds * (begin_kw + end_kw) / 2)
        else:
            areas += [seconds * kw * abs(kw) / (2 * abs(begin_kw - end_kw)) for kw in (begin_kw, end_kw)]
    return Count(
        in_kwh=math.fsum(max(0.0, area) for area in areas) / 3600,
        out_kwh=math.fsum(max(0.0, -area) for area in areas) / 3600,
        covered_s=covered_s,
        gaps=gaps,
    )


def run(kills: int, seed: int) -> list[Figure]:
    """Do all the kills and return the rows of the table."""
    battery, chance, pause = BatteryModel(seed=seed), random.Random(seed), threading.Event()
    looks: list[Look] = []
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as name,
        Rig(Path(name), volts=battery.voltage_v, shunt_volts=battery.shunt_v) as rig,
    ):
        rig.configure(sample_ms=_SAMPLE_MS, report_ms=_REPORT_MS)
        began_mono_s = CLOCK.mono_s()
        for number in range(kills):
            process = rig.start(*_ARGUMENTS)
            pause.wait(chance.uniform(*_LIVES_S))
            process.kill()
            process.wait()
            if (seen := look(rig.folder)) is not None:
                looks.append(seen)
            if (number + 1) % 20 == 0:
                say(f"{number + 1} kills")
        rig.start(*_ARGUMENTS)
        pause.wait(_LAST_RUN_S)
        rig.stop()
        lasted_s = CLOCK.mono_s() - began_mono_s
        seen = look(rig.folder)
        assert seen is not None
        return _figures([*looks, seen], undisturbed(rig.log), kills, lasted_s)


def _figures(looks: Sequence[Look], count: Count, kills: int, lasted_s: float) -> list[Figure]:
    last = looks[-1].totals
    falls = sum(
        one.totals.energy.energy_in_kwh > other.totals.energy.energy_in_kwh
        or one.totals.energy.energy_out_kwh > other.totals.energy.energy_out_kwh
        for one, other in itertools.pairwise(looks)
    )
    sums = max(
        max(
            abs(each.rows_kwh[0] - each.totals.energy.energy_in_kwh),
            abs(each.rows_kwh[1] - each.totals.energy.energy_out_kwh),
        )
        for each in looks
    )
    one_sample_kwh = _LARGEST_KW * _SAMPLE_MS / 1000 / 3600
    off_in = abs(last.energy.energy_in_kwh - count.in_kwh) / one_sample_kwh
    off_out = abs(last.energy.energy_out_kwh - count.out_kwh) / one_sample_kwh
    off_s = abs(last.energy.energy_s - count.covered_s)
    return [
        Figure(what="kills", value=kills, digits=0),
        Figure(what="in and out, undisturbed", value=count.in_kwh + count.out_kwh, unit="kWh", digits=4),
        Figure(what="in: off the undisturbed count", value=off_in, unit="samples", digits=3, at_most=1),
        Figure(what="out: off the undisturbed count", value=off_out, unit="samples", digits=3, at_most=1),
        Figure(what="covered time: off it", value=off_s, unit="s", digits=3, at_most=_SAMPLE_MS / 1000),
        Figure(what="gaps in the undisturbed count", value=count.gaps, digits=0),
        Figure(what="gap told", value=last.gap_s, unit="s", digits=1),
        Figure(what="coverage told", value=last.coverage_percent or 0.0, unit="%", digits=1),
        Figure(what="ran for", value=lasted_s, unit="s", digits=1),
        Figure(what="time told beyond that", value=last.elapsed_s - lasted_s, unit="s", digits=1, at_most=0),
        Figure(what="times the counters fell", value=falls, digits=0, at_most=0),
        Figure(
            what="looks in which the rows' counters fall",
            value=sum(each.rows_fall for each in looks),
            digits=0,
            at_most=0,
        ),
        Figure(what="off the sum of the rows, largest", value=sums, unit="kWh", digits=-1, at_most=1e-9),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Return the exit code: 0 if every bound is kept."""
    parser = argparse.ArgumentParser(description="What does kill -9 cost the counters?")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of the battery")
    options = parser.parse_args(arguments)
    return print_table(f"Energy over {options.kills} kills", run(options.kills, options.seed))


if __name__ == "__main__":
    sys.exit(main())
