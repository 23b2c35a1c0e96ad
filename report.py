"""What ``power_report.py`` says of a period: its numbers, in words and as JSON. Pure but for the asking of history.

The names of the fields are the names in the JSON. ``None`` is what is unknown, or was not asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cycles import Capacity, RoundTrip
from energy_status import SHORTEST_TOLD_S, EnergyStatus, energy_lines, rounded_down, rounded_up
from history import LAST_UTC_MS, Aggregate, History, PeriodEnergy
from measurements import Energy
from period import Period, local_text, utc_offset_text, utc_text
from state_log import duration_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """What the battery did between two voltages."""

    voltage_low_v: float
    voltage_high_v: float
    round_trip: RoundTrip
    capacity: Capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a kWh costs that goes in, and what one is worth that comes out, in whatever money."""

    price_in: float = 0.0
    price_out: float = 0.0

    def cost_of(self, energy: Energy) -> float:
        """Return what it cost: below 0 if more was earned."""
        return energy.energy_in_kwh * self.price_in - energy.energy_out_kwh * self.price_out


_ENERGIES = ("energy_in_kwh", "energy_out_kwh", "net_energy_kwh")
_CHARGES = ("charge_in_ah", "charge_out_ah", "net_charge_ah")
_UNTOLD_S = 3600.0  # the open interval is not stored yet, nor is this worth a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The numbers of a period. ``counters`` are the program's own, since the last reset, beside a report of everything.

    The period of ``energy`` is the part of which something is stored; ``not_stored_`` is what was asked for beyond it.
    """

    intervals: int
    not_stored_before_s: float
    not_stored_after_s: float
    energy: PeriodEnergy
    voltage_v: Aggregate | None
    current_a: Aggregate | None
    power_kw: Aggregate | None
    battery: Battery | None
    prices: Prices | None
    cost: float | None
    counters: EnergyStatus | None


def make_report(
    history: History,
    period: Period,
    *,
    now_utc_ms: int,
    battery: Battery | None,
    prices: Prices | None,
    counters: EnergyStatus | None,
) -> Report:
    """Return the report of a period. Raises ``HistoryError``."""
    energy = history.energy(period.from_utc_ms, period.to_utc_ms)
    whole = history.points(period.from_utc_ms, period.to_utc_ms, LAST_UTC_MS)  # one bucket
    point = whole[0] if whole else None
    asked_to_utc_ms = min(period.to_utc_ms, now_utc_ms)
    return Report(
        intervals=point.intervals if point else 0,
        not_stored_before_s=(energy.from_utc_ms - period.from_utc_ms) / 1000 if period.from_utc_ms else 0.0,
        not_stored_after_s=max(0, asked_to_utc_ms - energy.to_utc_ms) / 1000,
        energy=energy,
        voltage_v=point.voltage_v if point else None,
        current_a=point.current_a if point else None,
        power_kw=point.power_kw if point else None,
        battery=battery,
        prices=prices,
        cost=None if prices is None or not energy.energy.energy_s else prices.cost_of(energy.energy),
        counters=counters,
    )


# -- as JSON -----------------------------------------------------------------------------------------------------------


def as_json(report: Report) -> str:
    """Return the report as one JSON object, in ASCII."""
    told = asdict(report)
    period = told.pop("energy")
    begin, end = report.energy.from_utc_ms, report.energy.to_utc_ms
    told = {
        "from": begin,
        "to": end,
        "from_utc": utc_text(begin),
        "to_utc": utc_text(end),
        **period.pop("energy"),
        **_flows(report.energy.energy),
        **{name: value for name, value in period.items() if name not in ("from_utc_ms", "to_utc_ms")},
        **told,
    }
    if report.battery is not None:
        told["battery"]["round_trip"] |= _efficiencies(report.battery.round_trip)
    return json.dumps(told, indent=2)


def _efficiencies(trip: RoundTrip) -> dict[str, Any]:
    return {
        "energy_efficiency_percent": trip.energy_efficiency_percent,
        "charge_efficiency_percent": trip.charge_efficiency_percent,
    }


def _flows(energy: Energy) -> dict[str, float | None]:
    """Return energy and charge by their names; ``None`` where nothing of them was measured, as with one meter alone."""
    flows: dict[str, float | None] = dict.fromkeys((*_ENERGIES, *_CHARGES))
    if energy.energy_s:
        energies = (energy.energy_in_kwh, energy.energy_out_kwh, energy.energy_in_kwh - energy.energy_out_kwh)
        flows.update(zip(_ENERGIES, energies, strict=True))
    if energy.charge_s:
        charges = (energy.charge_in_ah, energy.charge_out_ah, energy.charge_in_ah - energy.charge_out_ah)
        flows.update(zip(_CHARGES, charges, strict=True))
    return flows


# -- in words ----------------------------------------------------------------------------------------------------------


def as_text(report: Report) -> str:
    """Return the report in an operator's words."""
    period = report.energy
    lines = [f"From {_time(period.from_utc_ms)}", f"to   {_time(period.to_utc_ms)}, {_count(report.intervals)}"]
    if not report.intervals:
        return "\n".join([*lines, "", "Nothing was measured in this period."])
    lines += _not_stored_lines(report)
    for heading, part in (
        ("Energy and charge", _energy_lines(report)),
        (f"{'Averages':<10}{'mean':>14}{'minimum':>14}{'maximum':>14}", _average_lines(report)),
        ("Battery", _battery_lines(report.battery)),
        ("Cost (below 0: earned)", _cost_lines(report)),
        ("Counters", _counter_lines(report.counters)),
    ):
        if part:
            lines += ["", heading, *(f"  {line}" for line in part)]
    return "\n".join(lines)


def _time(utc_ms: int) -> str:
    return f"{local_text(utc_ms)} (UTC{utc_offset_text(utc_ms)})"


def _count(intervals: int) -> str:
    return f"{intervals:,} interval{'' if intervals == 1 else 's'}"


def _not_stored_lines(report: Report) -> Iterator[str]:
    for part, seconds in (("first", report.not_stored_before_s), ("last", report.not_stored_after_s)):
        if seconds > _UNTOLD_S:
            yield f"Nothing is stored of the {part} {duration_text(seconds)} that were asked for"


def _energy_lines(report: Report) -> list[str]:
    period, flows = report.energy, _flows(report.energy.energy)
    off_kwh = (period.energy_in_uncertainty_kwh, period.energy_out_uncertainty_kwh, None)
    off_ah = (period.charge_in_uncertainty_ah, period.charge_out_uncertainty_ah, None)
    rows = zip(("In", "Out", "Net"), _ENERGIES, off_kwh, _CHARGES, off_ah, strict=True)
    lines = [
        f"{way:<10}{_flow(flows[energy], of_energy, 'kWh')}   {_flow(flows[charge], of_charge, 'Ah')}"
        for way, energy, of_energy, charge, of_charge in rows
    ]
    return [*lines, _coverage_line(period)]


def _flow(value: float | None, uncertainty: float | None, unit: str) -> str:
    number = f"{'unknown':>12}" if value is None else f"{value:z12.4f}"
    tolerance = f"+/- {rounded_up(uncertainty, 4):.4f}" if uncertainty else ""
    return f"{number} {tolerance:<12} {unit:<3}".rstrip()


def _coverage_line(period: PeriodEnergy) -> str:
    if period.gap_s < SHORTEST_TOLD_S:
        return "Measured all the time"
    coverage = f"{rounded_down(period.coverage_percent or 0.0, 2):.2f} %"
    return f"Measured for {coverage} of the time; what passed in the other {duration_text(period.gap_s)} is not known"


def _average_lines(report: Report) -> list[str]:
    quantities = (
        ("V", report.voltage_v, 4),
        ("A", report.current_a, 4),
        ("kW", report.power_kw, 5),
    )
    return [_average_line(unit, each, digits) for unit, each, digits in quantities]


def _average_line(unit: str, aggregate: Aggregate | None, digits: int) -> str:
    if aggregate is None:
        return f"{unit:<8}{'no value':>14}"
    values = (aggregate.mean, aggregate.minimum, aggregate.maximum)
    line = f"{unit:<8}" + "".join(f"{value:z14.{digits}f}" for value in values)
    if not aggregate.uncertainty:
        return line
    return f"{line}   mean +/- {rounded_up(aggregate.uncertainty, digits):.{digits}f}"


def _battery_lines(battery: Battery | None) -> Iterator[str] | list[str]:
    if battery is None:
        return []
    low, high = f"{battery.voltage_low_v:g} V", f"{battery.voltage_high_v:g} V"
    return [
        f"Between {high} and {low}, by the mean voltage of the intervals, under load",
        *_capacity_lines(battery.capacity, low, high),
        *_round_trip_lines(battery.round_trip, low, high),
    ]


def _capacity_lines(capacity: Capacity, low: str, high: str) -> Iterator[str]:
    if capacity.charge_ah is None or capacity.energy_kwh is None:
        yield f"Capacity: not known, as no discharge from {high} to {low} was measured whole"
    else:
        yield (
            f"Capacity: {capacity.charge_ah:.2f} Ah ({capacity.charge_minimum_ah:.2f} to "
            f"{capacity.charge_maximum_ah:.2f}), {capacity.energy_kwh:.3f} kWh ({capacity.energy_minimum_kwh:.3f} to "
            f"{capacity.energy_maximum_kwh:.3f}), by {_several(capacity.discharges, 'discharge')}"
        )
    yield from _left_out(capacity.discharges_left_out, "discharge")


def _round_trip_lines(trip: RoundTrip, low: str, high: str) -> Iterator[str]:
    if trip.energy_efficiency_percent is None:
        yield f"Round trip: not known, as no full cycle from {high} to {low} and back was measured whole"
    else:
        charge = trip.charge_efficiency_percent
        yield (
            f"Round trip: {trip.energy_efficiency_percent:.2f} % of the energy came out again"
            + ("" if charge is None else f", and {charge:.2f} % of the charge")
            + f", over {_several(trip.cycles, 'full cycle')}"
        )
    yield from _left_out(trip.cycles_left_out, "cycle")


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _left_out(count: int, what: str) -> Iterator[str]:
    if count:
        yield f"  left out, as less than 99 % of it was measured: {_several(count, what)}"


def _cost_lines(report: Report) -> list[str]:
    if report.prices is None:
        return []
    if report.cost is None:
        return ["Unknown, as no energy was measured"]
    in_cost = report.prices.cost_of(Energy(energy_in_kwh=report.energy.energy.energy_in_kwh))
    return [
        f"In     {in_cost:z12.2f}",
        f"Out    {report.cost - in_cost:z12.2f}",
        f"Total  {report.cost:z12.2f}",
    ]


def _counter_lines(counters: EnergyStatus | None) -> list[str]:
    if counters is None:
        return []
    since = [] if counters.counting_since is None else [f"Since {_time(counters.counting_since)}"]
    return [*since, *energy_lines(counters)]
