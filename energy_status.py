"""What ``--status`` shows of the counters of energy and charge: as JSON and in an operator's words.

Pure but for reading the database through the cursor of whoever asks; never blocks by itself.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

from energy_book import EnergyTotals, read_totals
from state_log import duration_text
from store import DamagedRow

SHORTEST_TOLD_S = 0.05  # less of a gap is 0.0 s

# The names of the fields are the names in the JSON, as in ``status.py``.


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyStatus:
    """What the counters stand at, and +/- (docs/accuracy.md). ``counting_since`` in milliseconds since the epoch.

    With a current meter alone there is no energy: ``None``, and not 0. No measurement is exact: +/- is never 0, but
    ``None`` where nothing was counted.
    ``coverage_percent`` is for how much of the time since then it is known, ``gap_seconds`` for how long it is not;
    what passed in a gap is in no counter.
    """

    energy_in_kwh: float | None
    energy_out_kwh: float | None
    net_energy_kwh: float | None
    charge_in_ah: float
    charge_out_ah: float
    net_charge_ah: float
    energy_in_uncertainty_kwh: float | None
    energy_out_uncertainty_kwh: float | None
    charge_in_uncertainty_ah: float | None
    charge_out_uncertainty_ah: float | None
    coverage_percent: float | None
    gap_seconds: float
    counting_since: int | None


def read_energy(cursor: sqlite3.Cursor) -> EnergyStatus | None:
    """Return what the counters of a database stand at, ``None`` if it has none yet. Raises ``ValueError``."""
    try:
        totals = read_totals(cursor)
    except DamagedRow as exc:
        raise ValueError(str(exc)) from exc  # all else can be shown
    return None if totals is None else energy_status(totals)


def energy_status(totals: EnergyTotals) -> EnergyStatus:
    """Return what is shown of the counters."""
    energy = totals.energy
    charge_only = energy.charge_s > 0 and not energy.energy_s
    return EnergyStatus(
        energy_in_kwh=None if charge_only else energy.energy_in_kwh,
        energy_out_kwh=None if charge_only else energy.energy_out_kwh,
        net_energy_kwh=None if charge_only else totals.net_energy_kwh,
        charge_in_ah=energy.charge_in_ah,
        charge_out_ah=energy.charge_out_ah,
        net_charge_ah=totals.net_charge_ah,
        energy_in_uncertainty_kwh=totals.energy_in_uncertainty_kwh,
        energy_out_uncertainty_kwh=totals.energy_out_uncertainty_kwh,
        charge_in_uncertainty_ah=totals.charge_in_uncertainty_ah,
        charge_out_uncertainty_ah=totals.charge_out_uncertainty_ah,
        coverage_percent=totals.coverage_percent,
        gap_seconds=totals.gap_s,
        counting_since=totals.since_utc_ms,
    )


def json_members(energy: EnergyStatus | None) -> dict[str, float | None]:
    """Return the members of the JSON object: the same ones whether there are counters or not."""
    return dict.fromkeys((each.name for each in fields(EnergyStatus)), None) if energy is None else asdict(energy)


def rounded_up(uncertainty: float, digits: int) -> float:
    """Return an uncertainty with so many decimals, never smaller than it is."""
    return math.ceil(round(uncertainty * 10.0**digits, 6)) / 10.0**digits


def rounded_down(coverage_percent: float, digits: int) -> float:
    """Return a coverage with so many decimals, never larger than it is: 100 only where nothing is missing."""
    return math.floor(round(coverage_percent * 10.0**digits, 6)) / 10.0**digits


def energy_lines(energy: EnergyStatus) -> list[str]:
    """Return what the counters stand at, in words."""
    return [*_counter_lines(energy), _coverage_line(energy)]


def _counter_lines(energy: EnergyStatus) -> Iterator[str]:
    if energy.energy_in_kwh is not None:
        yield _line("Energy in", "kWh", 4, energy.energy_in_kwh, energy.energy_in_uncertainty_kwh)
        yield _line("Energy out", "kWh", 4, energy.energy_out_kwh, energy.energy_out_uncertainty_kwh)
        yield _line("In minus out", "kWh", 4, energy.net_energy_kwh)
    yield _line("Charge in", "Ah", 3, energy.charge_in_ah, energy.charge_in_uncertainty_ah)
    yield _line("Charge out", "Ah", 3, energy.charge_out_ah, energy.charge_out_uncertainty_ah)
    yield _line("In minus out", "Ah", 3, energy.net_charge_ah)


def _line(name: str, unit: str, digits: int, value: float | None, uncertainty: float | None = None) -> str:
    off = "" if uncertainty is None else f" +/- {rounded_up(uncertainty, digits):,.{digits}f}"
    return f"{name:<12}  {value or 0.0:>z14,.{digits}f} {unit}{off}"


def _coverage_line(energy: EnergyStatus) -> str:
    if energy.coverage_percent is None:
        return "Counting has just begun"
    if energy.gap_seconds < SHORTEST_TOLD_S:
        return "Counted all the time"
    return (
        f"Counted for {rounded_down(energy.coverage_percent, 3):.3f} % of the time; for "
        f"{duration_text(energy.gap_seconds)} there were no readings, and what passed then is in none of these"
    )
