"""What was measured: the intervals in the database, by themselves, in buckets of time, or added up over a period.

For any thread and any process, beside a running daemon or without one (``database_reading.py``). Guarantees: nothing is
changed and no file touched; memory does not grow with the length of a period; each answer but ``intervals`` is of one
moment. An interval whose end is not known yet is left out, and so is what an old row does not have: no energy is a gap,
never 0.

An interval belongs where its end is: to the bucket or period (from, to] that holds it, and to no other.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from database_reading import DatabaseUnreadable, read_database
from energy_book import EnergyTotals, read_totals
from history_columns import aggregates, column, energy_sums, interval_values, present_columns
from measurements import Energy
from store import DamagedRow

LAST_UTC_MS = 253_370_764_800_000  # the begin of the year 9999
MOST_POINTS = 20_000

_ENERGY_FIELDS = ("energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah", "energy_s", "charge_s")
_ROWS_AT_ONCE = 2000

_T = TypeVar("_T")


class HistoryError(Exception):
    """There is no history to show. Its text is for the operator: what is the matter, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """One quantity over a bucket, in its unit: the mean of its ``count`` samples, their extremes.

    ``uncertainty``, +/-, is that of the mean: what the instruments are off does not average out over the intervals,
    the scatter of the samples does, where it is stored apart (not of the voltage). ``None`` where an interval has none.
    """

    mean: float
    minimum: float
    maximum: float
    count: int
    uncertainty: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A bucket, or one interval, and its end. ``None`` is what was not measured, or not stored then.

    ``energy_s`` says for how many seconds the energy is known; ``intervals`` how many it is made of.
    """

    end_utc_ms: int
    voltage_v: Aggregate | None
    current_a: Aggregate | None
    power_kw: Aggregate | None
    energy_in_kwh: float | None
    energy_out_kwh: float | None
    charge_in_ah: float | None
    charge_out_ah: float | None
    energy_s: float | None
    intervals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodEnergy:
    """What went in and out in a period, cut to the time of which there is history: ``elapsed_s`` seconds.

    Uncertainties: +/-, ``None`` where one of its intervals has none. ``coverage_percent`` is what of the period the
    energy is known for (the charge, where there is no energy at all), ``None`` of a period without history;
    ``gap_s`` the rest in seconds. Time without power is a gap, and so are intervals stored before energy was.
    """

    from_utc_ms: int
    to_utc_ms: int
    energy: Energy
    energy_in_uncertainty_kwh: float | None
    energy_out_uncertainty_kwh: float | None
    charge_in_uncertainty_ah: float | None
    charge_out_uncertainty_ah: float | None
    elapsed_s: float
    gap_s: float
    coverage_percent: float | None


@contextmanager
def open_history(path: Path, *, in_daemon: bool, answer_within_s: float | None = None) -> Iterator[History]:
    """Give the history in the database at ``path``. Raises ``HistoryError``, then and at each question.

    ``in_daemon`` must be true where a thread of the daemon itself asks, and only there: see ``database_reading.py``.
    Each question is given up after ``answer_within_s`` seconds.
    """
    history = History(path, answer_within_s, in_daemon)
    history.extent_utc_ms()  # so that what is the matter is said at once
    yield history


class History:
    """Answers questions. Times are milliseconds since the epoch; a wrong one raises ``ValueError`` with the reason."""

    def __init__(self, path: Path, answer_within_s: float | None, in_daemon: bool) -> None:
        self._path = path
        self._answer_within_s = answer_within_s
        self._in_daemon = in_daemon

    def extent_utc_ms(self) -> tuple[int, int] | None:
        """Return the ends of the oldest and the newest interval, ``None`` if there is none. Takes no time."""
        return self._ask(_extent)

    def points(self, from_utc_ms: int, to_utc_ms: int, step_ms: int) -> list[Point]:
        """Return what the intervals that ended in (from, to] say in buckets of ``step_ms``, oldest first.

        A bucket (t, t + step] carries its end, a whole multiple of the step since the epoch; there are only those with
        an interval in them. A period that has room for more than 20,000 is refused.
        """
        check_period(from_utc_ms, to_utc_ms)
        check_step(step_ms)
        return self._ask(lambda cursor: _points(cursor, from_utc_ms, to_utc_ms, step_ms))

    def intervals(self, from_utc_ms: int, to_utc_ms: int) -> Iterator[Point]:
        """Yield each interval that ended in (from, to], oldest first, a few thousand of one moment at a time.

        Nothing is held open between them: who takes them may be as slow as he likes.
        """
        check_period(from_utc_ms, to_utc_ms)
        return self._intervals(from_utc_ms, to_utc_ms)

    def _intervals(self, from_utc_ms: int, to_utc_ms: int) -> Iterator[Point]:
        after: tuple[int, int] = (from_utc_ms, LAST_UTC_MS)  # its end, its number
        while rows := self._rows_after(after, to_utc_ms):
            for _number, end_utc_ms, *values in rows:
                yield _point(end_utc_ms, values)
            after = (rows[-1][1], rows[-1][0])

    def _rows_after(self, after: tuple[int, int], to_utc_ms: int) -> list[Sequence[int]]:
        def query(cursor: sqlite3.Cursor) -> list[Sequence[int]]:
            sql = (
                f"SELECT id, end_utc_ms, 1, {interval_values(present_columns(cursor))} FROM interval "
                "WHERE end_utc_ms >= ?1 AND end_utc_ms <= ?3 AND (end_utc_ms > ?1 OR id > ?2) "
                f"ORDER BY end_utc_ms, id LIMIT {_ROWS_AT_ONCE}"
            )
            return cursor.execute(sql, [*after, to_utc_ms]).fetchall()

        return self._ask(query)

    def energy(self, from_utc_ms: int, to_utc_ms: int) -> PeriodEnergy:
        """Return what went in and out, by the intervals that ended in (from, to]."""
        check_period(from_utc_ms, to_utc_ms)
        return self._ask(lambda cursor: _energy(cursor, from_utc_ms, to_utc_ms))

    def totals(self) -> EnergyTotals | None:
        """Return the counters as of the end of the last interval, ``None`` before the first. Takes no time."""
        try:
            return self._ask(read_totals)
        except DamagedRow as exc:
            raise HistoryError(
                f"The counters cannot be read ({exc}). The daemon mends them when it starts: see its log"
            ) from exc

    def _ask(self, query: Callable[[sqlite3.Cursor], _T]) -> _T:
        try:
            return read_database(self._path, query, answer_within_s=self._answer_within_s, in_daemon=self._in_daemon)
        except DatabaseUnreadable as exc:
            raise HistoryError(str(exc)) from exc


def check_period(from_utc_ms: int, to_utc_ms: int) -> None:
    """Raise ``ValueError`` with the reason if there is no such period."""
    if not 0 <= from_utc_ms <= LAST_UTC_MS or not 0 <= to_utc_ms <= LAST_UTC_MS:
        raise ValueError("from and to must be between the years 1970 and 9999")
    if from_utc_ms >= to_utc_ms:
        raise ValueError("from must be before to")


def check_step(step_ms: int) -> None:
    """Raise ``ValueError`` with the reason if buckets cannot be that long."""
    if not 1 <= step_ms <= LAST_UTC_MS:
        raise ValueError("step must be at least 1 ms and at most 8,000 years")


# -- the SQL -----------------------------------------------------------------------------------------------------------


def _extent(cursor: sqlite3.Cursor) -> tuple[int, int] | None:
    row = cursor.execute(
        "SELECT (SELECT min(end_utc_ms) FROM interval), (SELECT max(end_utc_ms) FROM interval)"
    ).fetchone()
    return None if row[0] is None else (int(row[0]), int(row[1]))


def _points(cursor: sqlite3.Cursor, from_utc_ms: int, to_utc_ms: int, step_ms: int) -> list[Point]:
    """Ask bucket by bucket: the index on the ends has them in order, so that nothing need be sorted."""
    extent = _extent(cursor)
    if extent is None:
        return []
    from_utc_ms, to_utc_ms = max(from_utc_ms, extent[0] - 1), min(to_utc_ms, extent[1])
    if (to_utc_ms - from_utc_ms) // step_ms > MOST_POINTS:
        raise ValueError(f"step is too small: the period would have more than {MOST_POINTS} points")
    chosen = "FROM interval WHERE end_utc_ms > ? AND end_utc_ms <= ?"
    next_end = f"SELECT min(end_utc_ms) {chosen}"
    bucket = f"SELECT count(*), {aggregates(present_columns(cursor))} {chosen}"
    points: list[Point] = []
    while (next_utc_ms := cursor.execute(next_end, [from_utc_ms, to_utc_ms]).fetchone()[0]) is not None:
        end_utc_ms = -(-next_utc_ms // step_ms) * step_ms
        values = cursor.execute(bucket, [from_utc_ms, min(end_utc_ms, to_utc_ms)]).fetchone()
        points.append(_point(end_utc_ms, values))
        from_utc_ms = end_utc_ms
    return points


def _point(end_utc_ms: int, values: Sequence[float | None]) -> Point:
    intervals, *numbers = values
    flows = [_number(each) for each in numbers[15:]]
    return Point(
        end_utc_ms=end_utc_ms,
        voltage_v=_aggregate(numbers[:5]),
        current_a=_aggregate(numbers[5:10]),
        power_kw=_aggregate(numbers[10:15]),
        energy_in_kwh=flows[0],
        energy_out_kwh=flows[1],
        charge_in_ah=flows[2],
        charge_out_ah=flows[3],
        energy_s=flows[4],
        intervals=int(intervals or 0),
    )


def _aggregate(values: Sequence[float | None]) -> Aggregate | None:
    mean, minimum, maximum, count = (_number(each) for each in values[:4])
    if mean is None or minimum is None or maximum is None or count is None:
        return None
    mean = min(max(mean, minimum), maximum)  # a sum is rounded
    square = _number(values[4])
    uncertainty = None if square is None else math.sqrt(max(0.0, square))
    return Aggregate(mean=mean, minimum=minimum, maximum=maximum, count=int(count), uncertainty=uncertainty)


def _number(value: object) -> float | None:
    """Return a value of the database as a number that can be shown."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


# -- energy ------------------------------------------------------------------------------------------------------------


def _energy(cursor: sqlite3.Cursor, from_utc_ms: int, to_utc_ms: int) -> PeriodEnergy:
    present = present_columns(cursor)
    sums = cursor.execute(
        f"SELECT {energy_sums(present)} FROM interval WHERE end_utc_ms > ? AND end_utc_ms <= ?",
        [from_utc_ms, to_utc_ms],
    ).fetchone()
    energy = Energy(**{name: _number(value) or 0.0 for name, value in zip(_ENERGY_FIELDS, sums, strict=False)})
    energy_in, energy_out = _uncertainties(sums[6:11])
    charge_in, charge_out = _uncertainties(sums[11:16])
    begin_utc_ms, end_utc_ms = _history_utc_ms(cursor, present)
    begin_utc_ms, end_utc_ms = max(from_utc_ms, begin_utc_ms), min(to_utc_ms, end_utc_ms)
    has_history = begin_utc_ms < end_utc_ms
    elapsed_s = (end_utc_ms - begin_utc_ms) / 1000 if has_history else 0.0
    covered_s = energy.energy_s or energy.charge_s
    return PeriodEnergy(
        from_utc_ms=begin_utc_ms if has_history else from_utc_ms,
        to_utc_ms=end_utc_ms if has_history else to_utc_ms,
        energy=energy,
        energy_in_uncertainty_kwh=energy_in,
        energy_out_uncertainty_kwh=energy_out,
        charge_in_uncertainty_ah=charge_in,
        charge_out_uncertainty_ah=charge_out,
        elapsed_s=elapsed_s,
        gap_s=max(0.0, elapsed_s - covered_s),
        coverage_percent=min(100.0, 100 * covered_s / elapsed_s) if has_history else None,
    )


def _uncertainties(sums: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return +/- of what went in and of what went out, k = 2; ``None`` if an interval has none, or there is none."""
    unknown, limit_in, limit_out, variance_in, variance_out = sums
    if unknown:
        return None, None
    return _combined(limit_in, variance_in), _combined(limit_out, variance_out)


def _combined(limit: float | None, variance: float | None) -> float | None:
    known = _number(limit)
    return None if known is None else math.hypot(known, 2 * math.sqrt(_number(variance) or 0.0)) or None


def _history_utc_ms(cursor: sqlite3.Cursor, present: frozenset[str]) -> tuple[int, int]:
    """Return when history begins and ends. It begins with what is known of the oldest interval."""
    extent = _extent(cursor)
    if extent is None:
        return 0, 0
    known_s = f"max(coalesce({column('energy_s', present)}, 0), coalesce({column('charge_s', present)}, 0))"
    row = cursor.execute(f"SELECT {known_s} FROM interval WHERE end_utc_ms = ? ORDER BY id", [extent[0]]).fetchone()
    return extent[0] - round(1000 * (_number(row[0]) or 0.0)), extent[1]
