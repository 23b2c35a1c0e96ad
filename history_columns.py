"""What history asks of the table ``interval``, as the columns of a SELECT. Pure text but for ``present_columns``.

A database of an older version lacks some columns: they count as NULL, which is "not known".
"""

from __future__ import annotations

import sqlite3

_QUANTITIES = ("voltage", "current", "power")
_FLOWS = ("energy_in", "energy_out", "charge_in", "charge_out")


def present_columns(cursor: sqlite3.Cursor) -> frozenset[str]:
    """Return the columns that the database has: one of an older version lacks some."""
    return frozenset(str(row[1]) for row in cursor.execute("PRAGMA table_info(interval)"))


def column(name: str, present: frozenset[str]) -> str:
    """Return the column, or NULL in its place where the database does not have it."""
    return name if name in present else "NULL"


def interval_values(present: frozenset[str]) -> str:
    """Return the columns that ``history.py`` makes a point of, of one interval."""
    columns = [
        f"{name}, {name}_minimum, {name}_maximum, {name}_count, "
        + "{0} * {0}".format(column(f"{name}_uncertainty", present))
        for name in _QUANTITIES
    ]
    return ", ".join([*columns, *(column(name, present) for name in (*_FLOWS, "energy_s"))])


def aggregates(present: frozenset[str]) -> str:
    """Return the columns that ``history.py`` makes a point of, of all the intervals that are chosen."""
    columns = [
        f"sum({name} * {name}_count) / sum({name}_count), min({name}_minimum), max({name}_maximum), "
        f"sum({name}_count), {_square_of_uncertainty(name, present)}"
        for name in _QUANTITIES
    ]
    return ", ".join([*columns, *(f"sum({column(name, present)})" for name in (*_FLOWS, "energy_s"))])


def _square_of_uncertainty(name: str, present: frozenset[str]) -> str:
    """Return the square of the +/- of a mean: SQLite may have no root.

    What the instruments of an interval may be off is known from its charge or energy; of the voltage only all together.
    """
    off, count = column(f"{name}_uncertainty", present), f"{name}_count"
    limit, scatters = off, "0"
    if kind := {"current": "charge", "power": "energy"}.get(name):
        of_flow = column(f"{kind}_uncertainty", present)
        limit = f"coalesce({of_flow} * 3600 / {column(f'{kind}_s', present)}, {off})"
        scatters = f"sum({count} * {count} * ({off} * {off} - {limit} * {limit}))"
    limits = f"sum({count} * {limit})"
    square = f"({limits} * {limits} + {scatters}) / sum({count}) / sum({count})"
    return f"CASE WHEN count({off}) = count({name}) THEN {square} END"


def energy_sums(present: frozenset[str]) -> str:
    """Return the columns that ``_energy`` takes: six sums, and of energy and of charge what ``_uncertainties`` takes.

    An interval's uncertainty is shared out as the counters do it (``energy_book.EnergyTotals.plus``).
    """
    columns = [f"sum({column(name, present)})" for name in (*_FLOWS, "energy_s", "charge_s")]
    for kind in ("energy", "charge"):
        flow_in, flow_out, limit, scatter = (
            column(f"{kind}{suffix}", present) for suffix in ("_in", "_out", "_uncertainty", "_scatter")
        )
        ways = ((flow_in, flow_out), (flow_out, flow_in))
        limits, scatters = (
            [f"min({off}, {own} + max(0, {off} - {other}))" for own, other in ways] for off in (limit, scatter)
        )
        columns += [f"sum({flow_in} + {flow_out} > 0 AND {limit} IS NULL)", *(f"sum({share})" for share in limits)]
        columns += [f"sum({share} * {share})" for share in scatters]
    return ", ".join(columns)
