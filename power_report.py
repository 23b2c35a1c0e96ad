#!/usr/bin/env python3
"""The program for reports: energy, averages, round trips and capacity of a period, a table and a picture of it.

    python3 power_report.py [today | yesterday | month | all]
    python3 power_report.py --from 2026-11-01 --to 2026-11-30 --csv november.csv --png november.png

Reads the database of the daemon, which may run meanwhile, and changes nothing in it. Needs nothing but Python; the
picture needs matplotlib. Exit codes: 0 done, 1 the database cannot be read or a file not be written, 2 usage,
78 configuration.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clock import Clock
from cycles import CycleFinder
from energy_status import EnergyStatus, energy_status
from exit_codes import EXIT_CHECK_FAILED, EXIT_CLEAN, EXIT_CONFIGURATION, EXIT_USAGE
from history import History, HistoryError, Point, check_period, open_history
from history_table import csv_lines
from period import NAMES, Period, local_text, named_period, period_between
from progress import Progress
from report import Battery, Prices, Report, as_json, as_text, make_report
from store import NAME as DATABASE_NAME
from whole_file import whole_file

_PICTURE_POINTS = 1500
_LARGEST = 1_000_000_000  # of prices and volts


class Refused(Exception):
    """It cannot be done; the text is for the operator."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the command line. Ends the process with exit code 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="power_report.py",
        description="Reports energy, charge, averages, round-trip efficiency and capacity of the battery in a period.",
        epilog="Times: 2026-11-01 is the whole day, local time; 2026-11-01T14:30 is local time, 2026-11-01T14:30Z UTC. "
        "Exit codes: 0 done, 1 the database cannot be read or a file not be written, 2 usage, 78 configuration.",
    )
    parser.add_argument("period", nargs="?", choices=NAMES, help="default: today")
    parser.add_argument("--from", dest="begin", metavar="T", help="the begin of the period; default: everything")
    parser.add_argument("--to", dest="end", metavar="T", help="its end; default: now")
    parser.add_argument(
        "--config", type=Path, metavar="PATH", default=Path("config.cfg"), help="the daemon's; its data lie beside it"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every interval into this file, as a table")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw V, A and kW into this file; needs matplotlib")
    parser.add_argument("--force", action="store_true", help="write over files that exist")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--voltage-high", type=_number, metavar="V", help="the battery is full at this voltage")
    parser.add_argument("--voltage-low", type=_number, metavar="V", help="and as good as empty at this one")
    parser.add_argument("--price-in", type=_number, metavar="X", help="what a kWh costs that goes in")
    parser.add_argument("--price-out", type=_number, metavar="Y", help="what a kWh is worth that comes out")
    options = parser.parse_args(arguments)
    if options.period and (options.begin or options.end):
        parser.error("either a name of a period, or --from and --to")
    if (options.voltage_high is None) != (options.voltage_low is None):
        parser.error("--voltage-high and --voltage-low go together")
    if options.voltage_high is not None and options.voltage_low >= options.voltage_high:
        parser.error("--voltage-low must be below --voltage-high")
    return options


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError as exc:
        hint = f": write {text.replace(',', '.')}, with a point" if "," in text else ""
        raise argparse.ArgumentTypeError(f"{text!r} is no number{hint}") from exc
    if math.isnan(number) or abs(number) > _LARGEST:
        raise argparse.ArgumentTypeError(f"must be between {-_LARGEST} and {_LARGEST}")
    return number


def run(options: argparse.Namespace, clock: Clock) -> str:
    """Make the report and write the files. Return what to print. Raises ``Refused`` and ``HistoryError``."""
    now_utc_s = clock.utc_s()
    period = _period(options, now_utc_s)
    database = options.config.parent / DATABASE_NAME
    _check_config(options.config)
    _check_files(options, database)
    progress = Progress(clock, sys.stderr)
    with open_history(database, in_daemon=False) as history:
        finder = None if options.voltage_high is None else CycleFinder(options.voltage_low, options.voltage_high)
        _read_intervals(history, period, progress, finder, options.csv)
        counters = _counters(history) if options.period == "all" else None
        with progress.meanwhile():
            report = make_report(
                history,
                period,
                now_utc_ms=round(now_utc_s * 1000),
                battery=None if finder is None else _battery(options, finder),
                prices=_prices(options),
                counters=counters,
            )
            if options.png is not None:
                _draw(history, period, report, options.png)
    return as_json(report) if options.json else as_text(report)


def _period(options: argparse.Namespace, now_utc_s: float) -> Period:
    try:
        if options.begin is None and options.end is None:
            period = named_period(options.period or "today", now_utc_s)
        else:
            period = period_between(options.begin, options.end, now_utc_s)
        check_period(period.from_utc_ms, period.to_utc_ms)
    except ValueError as exc:
        raise Refused(str(exc), EXIT_USAGE) from exc
    return period


def _check_config(config: Path) -> None:
    """The file itself is not needed, only the folder that it is in: a wrong name must not pass for an empty history."""
    with _looking_at(config):
        is_there = config.is_file() or (config.parent / DATABASE_NAME).exists()
    if not is_there:
        raise Refused(
            f"There is no {config}: run this in the folder of the daemon's config.cfg, or say where that is "
            "with --config",
            EXIT_CONFIGURATION,
        )


def _check_files(options: argparse.Namespace, database: Path) -> None:
    """Refuse, before any work, what cannot be written or must not be."""
    targets = [path for path in (options.csv, options.png) if path is not None]
    ours = (options.config, *(Path(f"{database}{suffix}") for suffix in ("", "-wal", "-shm")))
    for path in targets:
        with _looking_at(path):
            _check_target(path, [each.resolve() for each in ours], may_exist=options.force)
    if len({path.resolve() for path in targets}) < len(targets):
        raise Refused("--csv and --png cannot be the same file", EXIT_USAGE)
    if options.png is not None:
        _check_matplotlib()


@contextmanager
def _looking_at(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise Refused(f"{path} cannot be used: {exc.strerror}", EXIT_CHECK_FAILED) from exc
    except RuntimeError as exc:  # what Python 3.11 says of links in a circle
        raise Refused(f"{path} cannot be used: {exc}", EXIT_CHECK_FAILED) from exc


def _check_target(path: Path, ours: Sequence[Path], *, may_exist: bool) -> None:
    if path.resolve() in ours:
        raise Refused(f"{path} is the daemon's own file: choose another name", EXIT_USAGE)
    if path.exists() and not path.is_file():
        raise Refused(f"{path} is a folder or a device: give the name of a file", EXIT_CHECK_FAILED)
    if path.exists() and not may_exist:
        raise Refused(f"{path} is there already: choose another name, or add --force", EXIT_CHECK_FAILED)
    if not path.parent.is_dir():
        raise Refused(f"There is no folder {path.parent} to write {path.name} into", EXIT_CHECK_FAILED)


def _check_matplotlib() -> None:
    try:
        import report_picture  # noqa: F401  # tried here, before the work
    except (ImportError, OSError, RuntimeError) as exc:
        here = Path(__file__).resolve().parent
        raise Refused(
            f"--png needs matplotlib, which is not installed or does not work ({exc}). Install it with\n"
            f"  sh {here / 'venv.sh'} requirements-report.txt\n"
            f"and run this with {here / '.venv/bin/python'}",
            EXIT_CHECK_FAILED,
        ) from exc


def _read_intervals(
    history: History, period: Period, progress: Progress, finder: CycleFinder | None, table: Path | None
) -> None:
    """Go through all intervals once, if anything is wanted that needs it."""
    if finder is None and table is None:
        return
    points: Iterable[Point] = history.intervals(period.from_utc_ms, period.to_utc_ms)
    oldest_utc_ms, newest_utc_ms = history.extent_utc_ms() or (0, 0)
    begin_utc_ms, end_utc_ms = max(period.from_utc_ms, oldest_utc_ms), min(period.to_utc_ms, newest_utc_ms)
    points = progress.over(points, begin_utc_ms, end_utc_ms)
    if finder is not None:
        points = _seen_by(finder.take, points)
    if table is None:
        for _point in points:
            continue
        return
    try:
        with whole_file(table) as file:
            for line in csv_lines(points):
                file.write(line.encode("ascii"))
    except OSError as exc:
        raise Refused(f"{table} cannot be written: {exc}", EXIT_CHECK_FAILED) from exc


def _seen_by(take: Callable[[Point], None], points: Iterable[Point]) -> Iterator[Point]:
    for point in points:
        take(point)
        yield point


def _battery(options: argparse.Namespace, finder: CycleFinder) -> Battery:
    return Battery(
        voltage_low_v=options.voltage_low,
        voltage_high_v=options.voltage_high,
        round_trip=finder.round_trip(),
        capacity=finder.capacity(),
    )


def _counters(history: History) -> EnergyStatus | None:
    try:
        totals = history.totals()
    except HistoryError as exc:  # all else can be told
        print(exc, file=sys.stderr)
        return None
    return None if totals is None else energy_status(totals)


def _prices(options: argparse.Namespace) -> Prices | None:
    if options.price_in is None and options.price_out is None:
        return None
    return Prices(price_in=options.price_in or 0.0, price_out=options.price_out or 0.0)


def _draw(history: History, period: Period, report: Report, path: Path) -> None:
    from report_picture import picture  # here, because matplotlib is large and need not be there

    begin_utc_ms, end_utc_ms = report.energy.from_utc_ms, report.energy.to_utc_ms
    step_ms = max(1000, math.ceil((end_utc_ms - begin_utc_ms) / _PICTURE_POINTS))
    points = history.points(period.from_utc_ms, period.to_utc_ms, step_ms)
    energy = report.energy.energy
    title = f"{local_text(begin_utc_ms)} to {local_text(end_utc_ms)}"
    if energy.energy_s:
        title += f": {energy.energy_in_kwh:.3f} kWh in, {energy.energy_out_kwh:.3f} kWh out"
    try:
        with whole_file(path) as file:
            file.write(picture(points, step_ms, title))
    except OSError as exc:
        raise Refused(f"{path} cannot be written: {exc}", EXIT_CHECK_FAILED) from exc


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for. Return the exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    _take_every_end_for_ctrl_c()
    try:
        return _print(run(options, Clock()))
    except Refused as exc:
        print(exc, file=sys.stderr)
        return exc.code
    except HistoryError as exc:
        print(exc, file=sys.stderr)
        return EXIT_CHECK_FAILED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_CHECK_FAILED


def _take_every_end_for_ctrl_c() -> None:
    """Have a file that is half written removed also when the terminal is closed, or the process asked to end."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _print(text: str) -> int:
    try:
        print(text, flush=True)
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again at its end
        if isinstance(exc, BrokenPipeError):
            return EXIT_CLEAN  # whoever reads it has enough
        print(f"The report cannot be printed: {exc}", file=sys.stderr)
        return EXIT_CHECK_FAILED
    return EXIT_CLEAN


if __name__ == "__main__":
    sys.exit(main())
