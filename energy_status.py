"""What ``--status`` shows of the counters of energy and charge: as JSON and in an operator's words.

Pure but for reading the database through the cursor of whoever asks; never blocks by itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

from energy_book import EnergyTotals, read_totals
from state_log import duration_text
from store import DamagedRow

# The names of the fields are the names in the JSON, as in ``status.py``.


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyStatus:
    """What the counters stand at, and +/- (docs/accuracy.md). ``counting_since`` in milliseconds since the epoch.

    No measurement is exact: +/- is never 0, but ``None`` where nothing was counted.
    ``coverage_percent`` is for how much of the time since then it is known, ``gap_seconds`` for how long it is not;
    what passed in a gap is in no counter.
    """

    energy_in_kwh: float
    energy_out_kwh: float
    net_energy_kwh: float
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
    return EnergyStatus(
        energy_in_kwh=energy.energy_in_kwh,
        energy_out_kwh=energy.energy_out_kwh,
        net_energy_kwh=totals.net_energy_kwh,
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


def energy_lines(energy: EnergyStatus) -> list[str]:
    """Return what the counters stand at, in words."""
    return [*_counter_lines(energy), _coverage_line(energy)]


def _counter_lines(energy: EnergyStatus) -> Iterator[str]:
    yield _line("Energy in", f"{energy.energy_in_kwh:,.4f} kWh", 4, energy.energy_in_uncertainty_kwh)
    yield _line("Energy out", f"{energy.energy_out_kwh:,.4f} kWh", 4, energy.energy_out_uncertainty_kwh)
    yield _line("In minus out", f"{energy.net_energy_kwh:,.4f} kWh")
    yield _line("Charge in", f"{energy.charge_in_ah:,.3f} Ah", 3, energy.charge_in_uncertainty_ah)
    yield _line("Charge out", f"{energy.charge_out_ah:,.3f} Ah", 3, energy.charge_out_uncertainty_ah)
    yield _line("In minus out", f"{energy.net_charge_ah:,.3f} Ah")


def _line(name: str, value: str, digits: int = 0, uncertainty: float | None = None) -> str:
    number, unit = value.split()
    off = "" if uncertainty is None else f" +/- {max(uncertainty, 0.1**digits):,.{digits}f}"  # 0 would be untrue
    return f"{name:<12}  {number:>14} {unit}{off}"


def _coverage_line(energy: EnergyStatus) -> str:
    if energy.coverage_percent is None:
        return "Counting has just begun"
    if not energy.gap_seconds:
        return "Counted all the time"
    return (
        f"Counted for {energy.coverage_percent:.3f} % of the time; for {duration_text(energy.gap_seconds)} there were "
        "no readings, and what passed then is in none of these"
    )
