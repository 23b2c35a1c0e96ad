"""A year of history: how long do the charts, the energies and a report of it take, and how much memory?

``python3 -m benchmarks.history`` takes 4 minutes. 1,051,200 intervals of 30 s are written by the program's own function
for that, with all columns, of a battery that is charged and discharged once a day; then processes of their own ask.
``--make FOLDER`` makes such a year and keeps it, ``--of FOLDER`` measures one that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.outage import forget
from benchmarks.stand import CLOCK, MAC, PROJECT, Figure, print_table, say
from energy_book import NAME as BOOK
from energy_book import Book, EnergyTotals
from history import open_history
from measurements import Device, Energy, IntervalSummary, Statistic, Uncertainty
from store import NAME, Store
from tables import Record, insert_interval, write_state

YEAR = 1_051_200
_REPORT_S = 30
_BEGIN_UTC_MS = 1_764_547_200_000  # 2025-12-01
_DAY_MS = 86_400_000
_DEVICE = Device(mac=MAC, voltage_type=532, current_type=531, power_type=533)
_RUNS = 7
_EFFICIENCY = 0.92
_CHART_MS, _TOTAL_MS, _MEMORY_MB = 300.0, 50.0, 15.0


# -- making it ---------------------------------------------------------------------------------------------------------


def make_year(folder: Path, intervals: int = YEAR) -> None:
    """Write a year into a new database in ``folder``. Takes about a minute."""
    store = Store(folder / NAME, CLOCK)
    with store.transaction() as cursor:
        totals = EnergyTotals(since_utc_ms=_BEGIN_UTC_MS, elapsed_s=float(intervals * _REPORT_S))
        for number, summary in enumerate(_summaries(intervals), 1):
            totals = totals.plus(summary.energy, summary.uncertainty)
            record = Record(
                number=number,
                waiting=0,
                end_utc_ms=_BEGIN_UTC_MS + 1000 * _REPORT_S * number,
                planned_end_utc_ms=0,
                boot_id="",
                end_mono_s=0.0,
                device=_DEVICE,
                summary=summary,
                totals=totals.energy,
            )
            insert_interval(cursor, record)
        write_state(cursor, {BOOK: Book(totals=totals).as_json()})
    store.close()


def _summaries(intervals: int) -> Iterator[IntervalSummary]:
    """Yield the intervals of a battery: 12 h down from 54 V to 46 V, 12 h up, with bursts of load."""
    dice = random.Random(1)
    per_day = 86_400 // _REPORT_S
    for number in range(intervals):
        phase = number % per_day / per_day
        charging = phase >= 0.5
        voltage_v = 46 + 16 * abs(phase - 0.5) + dice.gauss(0, 0.005)
        current_a = (20 / _EFFICIENCY if charging else -dice.choice((5.0, 20.0, 35.0))) + dice.gauss(0, 0.05)
        yield _summary(voltage_v, current_a, dice)


def _summary(voltage_v: float, current_a: float, dice: random.Random) -> IntervalSummary:
    power_kw = voltage_v * current_a / 1000
    energy_kwh, charge_ah = abs(power_kw) * _REPORT_S / 3600, abs(current_a) * _REPORT_S / 3600
    inwards = current_a > 0
    return IntervalSummary(
        voltage_v=_statistic(voltage_v, 0.01, dice),
        current_a=_statistic(current_a, 0.3, dice),
        power_kw=_statistic(power_kw, 0.02, dice),
        energy=Energy(
            energy_in_kwh=energy_kwh if inwards else 0.0,
            energy_out_kwh=0.0 if inwards else energy_kwh,
            charge_in_ah=charge_ah if inwards else 0.0,
            charge_out_ah=0.0 if inwards else charge_ah,
            energy_s=float(_REPORT_S),
            charge_s=float(_REPORT_S),
        ),
        uncertainty=Uncertainty(
            voltage_v=0.0251 + dice.random() / 1000,
            current_a=0.0031 * abs(current_a) + 0.05,
            power_kw=0.0032 * abs(power_kw) + 0.002,
            energy_kwh=0.0032 * energy_kwh,
            energy_scatter_kwh=energy_kwh / 900,
            charge_ah=0.0031 * charge_ah,
            charge_scatter_ah=charge_ah / 900,
        ),
    )


def _statistic(mean: float, spread: float, dice: random.Random) -> Statistic:
    return Statistic(mean=mean, minimum=mean - spread * dice.random(), maximum=mean + spread * dice.random(), count=6)


# -- asking, in a process of its own -----------------------------------------------------------------------------------


def ask(folder: Path) -> dict[str, float]:
    """Return seconds and megabytes: each question first of a file that is on the disk only, then from memory."""
    database = folder / NAME
    with open_history(database, in_daemon=False) as history:
        newest_utc_ms = (history.extent_utc_ms() or (0, 0))[1]

        def chart(days: float, step_s: int) -> Callable[[], object]:
            return lambda: history.points(newest_utc_ms - round(days * _DAY_MS), newest_utc_ms, 1000 * step_s)

        def energy(days: float) -> Callable[[], object]:
            return lambda: history.energy(newest_utc_ms - round(days * _DAY_MS), newest_utc_ms)

        questions = {
            "chart of 1 h": chart(1 / 24, 30),
            "chart of 24 h": chart(1, 60),
            "chart of 7 d": chart(7, 600),
            "chart of 31 d": chart(31, 1800),
            "energy of a day": energy(1),
            "energy of 30 d": energy(30),
            "energy of all time, by the counters": history.totals,
            "energy of a year, by its intervals": energy(365),
        }
        before_mb = _peak_mb()
        figures: dict[str, float] = {}
        for what, question in questions.items():
            forget(database)
            cold_s, *warm_s = (_seconds(question) for _ in range(1 + _RUNS))
            figures |= {what: statistics.median(warm_s), f"{what}, file not in memory": cold_s}
        figures["memory"] = _peak_mb() - before_mb
        seconds = _seconds(lambda: sum(1 for _ in history.intervals(0, newest_utc_ms)))
        return {**figures, "every interval of the year": seconds}


def _seconds(question: Callable[[], object]) -> float:
    begun_mono_s = CLOCK.mono_s()
    question()
    return CLOCK.mono_s() - begun_mono_s


def _peak_mb() -> float:
    """Return the most memory that this process has had. Not ``ru_maxrss``, which begins with the parent's."""
    return _megabytes_at_most(Path("/proc/self/status").read_text(encoding="ascii"))


def _megabytes_at_most(status: str) -> float:
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def report(folder: Path, *arguments: str) -> tuple[float, float]:
    """Return the seconds of CPU and the megabytes at most that a report takes as a process."""
    code = (
        "import sys, power_report\nassert power_report.main(sys.argv[1:]) == 0\n"
        "print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "all", "--config", str(folder.resolve() / "config.cfg"), *arguments]
    before_s = sum(os.times()[2:4])  # of the processes that have ended
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    return sum(os.times()[2:4]) - before_s, _megabytes_at_most(done.stderr)


# -- the table ---------------------------------------------------------------------------------------------------------


def measure(folder: Path) -> list[Figure]:
    """Return the rows of the table."""
    say("asking")
    command = [sys.executable, "-m", "benchmarks.history", "--ask", str(folder.resolve())]
    runs = [
        json.loads(subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    figures = {what: statistics.median(run[what] for run in runs) for what in runs[0]}
    memory_mb = figures.pop("memory")
    bounds = {"chart of 31 d": _CHART_MS, "energy of all time, by the counters": _TOTAL_MS}
    rows = [
        Figure(what=what, value=value * 1000, unit="ms", digits=1, at_most=bounds.get(what))
        for what, value in figures.items()
    ]
    rows.append(
        Figure(what="memory of all charts and energies", value=memory_mb, unit="MB", digits=1, at_most=_MEMORY_MB)
    )
    voltages = ("--voltage-high", "53.9", "--voltage-low", "46.1")
    for what, arguments in (
        ("report of the year", ()),
        ("report with cycles and table", (*voltages, "--csv", str(folder.resolve() / "year.csv"), "--force")),
        ("report with the picture", ("--png", str(folder.resolve() / "year.png"), "--force")),
    ):
        say(what)
        taken = [report(folder, *arguments) for _ in range(3)]
        rows += [
            Figure(what=f"{what}, CPU", value=statistics.median(each[0] for each in taken), unit="s", digits=1),
            Figure(what=f"{what}, memory", value=statistics.median(each[1] for each in taken), unit="MB", digits=1),
        ]
    return [*rows, Figure(what="database", value=(folder / NAME).stat().st_size / 1e6, unit="MB", digits=0)]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.history", description="A year of history.")
    parser.add_argument("--intervals", type=int, default=YEAR, help=f"how many ({YEAR})")
    parser.add_argument("--make", metavar="FOLDER", type=Path, help="only make such a database there")
    parser.add_argument("--of", metavar="FOLDER", type=Path, help="measure the one there")
    parser.add_argument("--ask", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(json.dumps(ask(options.ask)))
        return 0
    if options.make:
        make_year(options.make, options.intervals)
        return 0
    if options.of:
        return print_table("History", measure(options.of))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        say(f"writing {options.intervals} intervals")
        make_year(Path(name), options.intervals)
        return print_table(f"History: {options.intervals:,} intervals of 30 s", measure(Path(name)))


if __name__ == "__main__":
    sys.exit(main())
