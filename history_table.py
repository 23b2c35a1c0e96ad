"""History as CSV: one line per interval or bucket, which a spreadsheet opens. Pure functions.

Times stand in two columns, UTC and local, in the form that spreadsheets take for a time; numbers have a decimal point;
a field is empty where there is no value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from history import Aggregate, Point
from period import local_text, utc_text

_QUANTITIES = ("voltage_v", "current_a", "power_kw")
_FLOWS = ("energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah")
COLUMNS = (
    "end_utc",
    "end_local",
    *(f"{name}{part}" for name in _QUANTITIES for part in ("", "_minimum", "_maximum", "_count", "_uncertainty")),
    *_FLOWS,
    "coverage_s",
    "intervals",
)


def csv_lines(points: Iterable[Point]) -> Iterator[str]:
    """Yield the lines of the table, the names of its columns first, each with its line end."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for point in points:
        yield _taken(buffer)
        writer.writerow(_fields(point))
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> str:
    line = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return line


def _fields(point: Point) -> Iterator[str]:
    yield utc_text(point.end_utc_ms)
    yield local_text(point.end_utc_ms)
    for aggregate in (point.voltage_v, point.current_a, point.power_kw):
        yield from _aggregate_fields(aggregate)
    for value in (point.energy_in_kwh, point.energy_out_kwh, point.charge_in_ah, point.charge_out_ah, point.energy_s):
        yield _field(value)
    yield str(point.intervals)


def _aggregate_fields(aggregate: Aggregate | None) -> Iterator[str]:
    if aggregate is None:
        yield from ("", "", "", "", "")
        return
    for value in (aggregate.mean, aggregate.minimum, aggregate.maximum):
        yield _field(value)
    yield str(aggregate.count)
    yield _field(aggregate.uncertainty)


def _field(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
