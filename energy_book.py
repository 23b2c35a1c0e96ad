"""The counters: what went in and out since counting began, how much of that time is known, and how sure it is.

Used by the outbox under its lock, which writes them in the transaction of each interval, so that the database never has
an interval without its energy in the counters, nor the other way round. They stand as one JSON text in table ``state``.
Guarantees: an interval is counted once; the counters only rise; what is stored is read back whole or refused, never
taken for 0.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from measurements import Energy, Interval, IntervalSummary, LastPoints, Point, Uncertainty
from store import DamagedRow

logger = logging.getLogger(__name__)

NAME = "energy"
_NO_ENERGY, _NO_POINTS = Energy(), LastPoints()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTotals:
    """The counters since ``since_utc_ms``, which is ``None`` until the clock was trusted once.

    ``elapsed_s`` is the time since then, gaps and the time switched off included. Of the uncertainty of each counter,
    ``_limit_`` is what the instruments may be off, ``_variance`` the square of the scatter of the samples.
    """

    energy: Energy = _NO_ENERGY
    elapsed_s: float = 0.0
    since_utc_ms: int | None = None
    energy_in_limit_kwh: float = 0.0
    energy_out_limit_kwh: float = 0.0
    charge_in_limit_ah: float = 0.0
    charge_out_limit_ah: float = 0.0
    energy_in_variance: float = 0.0
    energy_out_variance: float = 0.0
    charge_in_variance: float = 0.0
    charge_out_variance: float = 0.0

    @property
    def net_energy_kwh(self) -> float:
        """In minus out."""
        return self.energy.energy_in_kwh - self.energy.energy_out_kwh

    @property
    def net_charge_ah(self) -> float:
        """In minus out."""
        return self.energy.charge_in_ah - self.energy.charge_out_ah

    @property
    def covered_s(self) -> float:
        """For how many seconds the energy is known; the charge, where there was never any energy: one meter only."""
        return self.energy.energy_s or self.energy.charge_s

    @property
    def gap_s(self) -> float:
        """For how many seconds it is not known: those are counted, not estimated."""
        return max(0.0, self.elapsed_s - self.covered_s)

    @property
    def coverage_percent(self) -> float | None:
        """Which part of the time is known, 0 to 100; ``None`` while no time has passed."""
        return min(100.0, 100 * self.covered_s / self.elapsed_s) if self.elapsed_s > 0 else None

    @property
    def energy_in_uncertainty_kwh(self) -> float | None:
        """+/- of the energy in, k = 2; ``None`` while nothing was counted, as of the others."""
        return _together(self.energy_in_limit_kwh, self.energy_in_variance)

    @property
    def energy_out_uncertainty_kwh(self) -> float | None:
        """+/- of the energy out, k = 2."""
        return _together(self.energy_out_limit_kwh, self.energy_out_variance)

    @property
    def charge_in_uncertainty_ah(self) -> float | None:
        """+/- of the charge in, k = 2."""
        return _together(self.charge_in_limit_ah, self.charge_in_variance)

    @property
    def charge_out_uncertainty_ah(self) -> float | None:
        """+/- of the charge out, k = 2."""
        return _together(self.charge_out_limit_ah, self.charge_out_variance)

    def plus(self, energy: Energy, uncertainty: Uncertainty) -> Self:
        """Return the counters after an interval. Of unknown uncertainty, all of it may be wrong."""
        flows = (energy.energy_in_kwh, energy.energy_out_kwh), (energy.charge_in_ah, energy.charge_out_ah)
        energy_in, energy_out = _shares(uncertainty.energy_kwh, *flows[0])
        charge_in, charge_out = _shares(uncertainty.charge_ah, *flows[1])
        energy_in_scatter, energy_out_scatter = _shares(uncertainty.energy_scatter_kwh or 0.0, *flows[0])
        charge_in_scatter, charge_out_scatter = _shares(uncertainty.charge_scatter_ah or 0.0, *flows[1])
        return replace(
            self,
            energy=sum_of(self.energy, energy),
            energy_in_limit_kwh=self.energy_in_limit_kwh + energy_in,
            energy_out_limit_kwh=self.energy_out_limit_kwh + energy_out,
            charge_in_limit_ah=self.charge_in_limit_ah + charge_in,
            charge_out_limit_ah=self.charge_out_limit_ah + charge_out,
            energy_in_variance=self.energy_in_variance + energy_in_scatter**2,
            energy_out_variance=self.energy_out_variance + energy_out_scatter**2,
            charge_in_variance=self.charge_in_variance + charge_in_scatter**2,
            charge_out_variance=self.charge_out_variance + charge_out_scatter**2,
        )


_UNCERTAIN = [each.name for each in fields(EnergyTotals) if "_limit_" in each.name or "_variance" in each.name]


def sum_of(first: Energy, second: Energy) -> Energy:
    """Return the energy of both."""
    return Energy(**{each.name: getattr(first, each.name) + getattr(second, each.name) for each in fields(Energy)})


def _together(limit: float, variance: float) -> float | None:
    return math.sqrt(limit**2 + 4 * variance) or None  # no measurement is exact


def _shares(off: float | None, inwards: float, outwards: float) -> tuple[float, float]:
    """Return how much of what an interval is off may be in what went in, and how much in what went out.

    All of it in either; but only what is more than all that went the other way, where that would have to turn round.
    """
    if off is None or not math.isfinite(off):
        return inwards, outwards
    return min(off, inwards + max(0.0, off - outwards)), min(off, outwards + max(0.0, off - inwards))


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """The counters and what is needed to go on with them: as they stand in the database.

    ``boot_id`` is the boot that ``last`` was measured in; ``began`` the boot and the moment in which counting began;
    ``counted_s`` the length of all intervals together.
    """

    totals: EnergyTotals = EnergyTotals()
    boot_id: str = ""
    last: LastPoints = _NO_POINTS
    began: tuple[str, float] | None = None
    counted_s: float = 0.0

    def last_in(self, boot_id: str) -> LastPoints:
        """Return where the energy of a sample of this boot begins."""
        return self.last if self.boot_id == boot_id else LastPoints()

    def after(self, summary: IntervalSummary, ended: Interval, boot_id: str, *, clock_trusted: bool) -> Book:
        """Return the book after an interval."""
        book = replace(
            self,
            totals=self.totals.plus(summary.energy, summary.uncertainty),
            boot_id=boot_id,
            last=summary.last,
            began=self.began or (boot_id, ended.start_mono_s),
            counted_s=self.counted_s + _duration_s(ended),
        )
        return book._at_the_end_of(ended, boot_id, clock_trusted=clock_trusted)

    def after_an_earlier(self, summary: IntervalSummary, ended: Interval) -> Book:
        """Return the book after an interval that lies before the last one: what follows goes on from the last one."""
        duration_s = _duration_s(ended)
        totals = self.totals.plus(summary.energy, summary.uncertainty)
        return replace(
            self,
            totals=replace(totals, elapsed_s=totals.elapsed_s + duration_s),
            counted_s=self.counted_s + duration_s,
        )

    def joined_to(self, stored: Book) -> Book:
        """Return the book that an earlier run has stored, with what has been counted since without knowing of it."""
        if not self.counted_s:
            return stored
        mine, theirs = self.totals, stored.totals
        sums = {name: getattr(theirs, name) + getattr(mine, name) for name in _UNCERTAIN}
        return replace(
            self,
            totals=EnergyTotals(
                energy=sum_of(theirs.energy, mine.energy),
                elapsed_s=theirs.elapsed_s + mine.elapsed_s,
                since_utc_ms=theirs.since_utc_ms if stored.began else mine.since_utc_ms,
                **sums,
            ),
            began=stored.began or self.began,
            counted_s=stored.counted_s + self.counted_s,
        )

    def _at_the_end_of(self, ended: Interval, boot_id: str, *, clock_trusted: bool) -> Book:
        """Return the book with the time that has passed.

        In the boot in which counting began, the monotonic clock knows it. Later it is the time since that moment, anew
        at each interval: a wrong clock that was believed for a while does no lasting harm.
        """
        assert self.began is not None
        totals, (began_in, began_mono_s) = self.totals, self.began
        since_utc_ms = totals.since_utc_ms
        if boot_id == began_in:
            elapsed_s = max(0.0, ended.end_mono_s - began_mono_s)
            since_utc_ms = None if clock_trusted else since_utc_ms
        elif clock_trusted and since_utc_ms is not None:
            elapsed_s = max((ended.end_utc_ms - since_utc_ms) / 1000, self.counted_s)
        else:
            elapsed_s = totals.elapsed_s + _duration_s(ended)
        if clock_trusted and since_utc_ms is None:
            since_utc_ms = ended.end_utc_ms - round(elapsed_s * 1000)
        return replace(self, totals=replace(totals, elapsed_s=elapsed_s, since_utc_ms=since_utc_ms))

    def as_json(self) -> str:
        """Return the text that ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Book:
        """Return the book that a text holds. Raises ``DamagedRow``."""
        try:
            entries = json.loads(text)
            totals = dict(entries["totals"])
            energy = Energy(**_numbers(totals.pop("energy")))
            since_utc_ms = totals.pop("since_utc_ms")
            began, last = entries["began"], entries["last"]
            return cls(
                totals=EnergyTotals(
                    energy=energy, since_utc_ms=None if since_utc_ms is None else int(since_utc_ms), **_numbers(totals)
                ),
                boot_id=str(entries["boot_id"]),
                last=LastPoints(power_kw=_point(last["power_kw"]), current_a=_point(last["current_a"])),
                began=None if began is None else (str(began[0]), _number(began[1])),
                counted_s=_number(entries["counted_s"]),
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as exc:
            raise DamagedRow(f"the counters of energy cannot be read: {exc!r}") from exc


def read_book(cursor: sqlite3.Cursor) -> Book | None:
    """Return the counters as they are stored, ``None`` if nothing has been counted. Raises ``DamagedRow``."""
    row = cursor.execute("SELECT value FROM state WHERE name = ?", [NAME]).fetchone()
    return None if row is None else Book.from_json(row[0])


def restore_book(cursor: sqlite3.Cursor) -> Book | None:
    """Return the counters likewise; where their text is damaged, those that the newest interval has."""
    try:
        return read_book(cursor)
    except DamagedRow as exc:
        logger.critical(
            "%s: the counters go on from those of the newest interval; how much of the time they cover is known from "
            "now on only",
            exc,
        )
        return book_of_newest_interval(cursor)


def book_of_newest_interval(cursor: sqlite3.Cursor) -> Book | None:
    """Return the counters as the newest interval that has them ended with; ``None`` if none has."""
    row = cursor.execute(
        "SELECT total_energy_in, total_energy_out, total_charge_in, total_charge_out FROM interval "
        "WHERE total_energy_in IS NOT NULL ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None or not all(isinstance(value, float) and 0 <= value < math.inf for value in row):
        return None
    energy = Energy(energy_in_kwh=row[0], energy_out_kwh=row[1], charge_in_ah=row[2], charge_out_ah=row[3])
    return Book(totals=EnergyTotals().plus(energy, Uncertainty()))


def read_totals(cursor: sqlite3.Cursor) -> EnergyTotals | None:
    """Return the counters, ``None`` if nothing has been counted. Raises ``DamagedRow``."""
    book = read_book(cursor)
    return None if book is None else book.totals


def begin_anew(cursor: sqlite3.Cursor) -> None:
    """Set the counters, coverage and uncertainties to 0, inside a transaction. No daemon may be running."""
    cursor.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", [NAME, Book().as_json()])


def _duration_s(ended: Interval) -> float:
    return max(0.0, ended.end_mono_s - ended.start_mono_s)


def _numbers(entries: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: _number(value) for name, value in entries.items()}
    if min(numbers.values(), default=0.0) < 0:
        raise ValueError("a counter is negative")
    return numbers


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _point(value: Any) -> Point | None:
    return None if value is None else (_number(value[0]), _number(value[1]))
