"""What of an interval may be reported, one row each: its bit in what waits, its sensor type, its value.

Pure. Of the counters, what is reported is what they stand at when the interval ends, as a meter's dial shows it; and
only if the interval had something to count: else there is no new value (rule 4 of ``measurements.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

from energy_book import EnergyTotals
from measurements import Device, Energy, IntervalSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What may be reported: its bit, the column of its sensor type in ``device``, how ``interval`` has its value."""

    bit: int
    type_column: str
    value_sql: str


QUANTITIES = (
    Quantity(bit=1, type_column="voltage_type", value_sql="voltage"),
    Quantity(bit=2, type_column="current_type", value_sql="current"),
    Quantity(bit=4, type_column="power_type", value_sql="power"),
    Quantity(bit=8, type_column="energy_in_type", value_sql="total_energy_in"),
    Quantity(bit=16, type_column="energy_out_type", value_sql="total_energy_out"),
    Quantity(bit=32, type_column="charge_in_type", value_sql="total_charge_in"),
    Quantity(bit=64, type_column="charge_out_type", value_sql="total_charge_out"),
    Quantity(bit=128, type_column="energy_type", value_sql="total_energy_in - total_energy_out"),
)
"""In the order of ``Device.types``."""

_COUNTERS = ("energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah")

BITS = tuple(each.bit for each in QUANTITIES)
ALL_BITS = sum(BITS)
COUNTER_BITS = frozenset(BITS[3:])


def values_of(summary: IntervalSummary, totals: Energy | None) -> tuple[float | None, ...]:
    """Return the values of an interval in the order of ``QUANTITIES``; ``totals``: what the counters stand at."""
    statistics = (summary.voltage_v, summary.current_a, summary.power_kw)
    means = tuple(None if each is None else each.mean for each in statistics)
    energy: tuple[float | None, ...] = (None, None)
    charge: tuple[float | None, ...] = (None, None)
    net_kwh = None
    if totals is not None and summary.energy.energy_s > 0:
        energy = (totals.energy_in_kwh, totals.energy_out_kwh)
        net_kwh = totals.energy_in_kwh - totals.energy_out_kwh
    if totals is not None and summary.energy.charge_s > 0:
        charge = (totals.charge_in_ah, totals.charge_out_ah)
    return (*means, *energy, *charge, net_kwh)


def counters_of(summary: IntervalSummary, totals: EnergyTotals | None) -> dict[str, float]:
    """Return the counters at the end of an interval by their names, and their coverage; those that are reported."""
    if totals is None:
        return {}
    counters = values_of(summary, totals.energy)[3:7]
    reported = {name: value for name, value in zip(_COUNTERS, counters, strict=True) if value is not None}
    if reported and totals.coverage_percent is not None:
        reported["coverage_percent"] = totals.coverage_percent
    return reported


def mask_of(device: Device, summary: IntervalSummary, totals: Energy | None) -> int:
    """Return the bits of what has a value, and a sensor type to be reported under."""
    values = zip(BITS, values_of(summary, totals), device.types, strict=True)
    return sum(bit for bit, value, kind in values if value is not None and kind is not None)
