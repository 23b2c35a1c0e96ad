"""A battery's round trips and its capacity between two voltages, found in its intervals. Used by ``power_report.py``.

What is compared with the two voltages is the mean of an interval, as it was under load: no rest is waited for. A
discharge begins with the last interval at or above the upper voltage and ends with the first at or below the lower one.
A cycle begins where a discharge does and ends where the next one does, or with the last interval at or above the upper
voltage that there is: at both ends the battery is equally full. Less than 99 % measured of either, and it is left out.
Memory does not grow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from history import Point

_LEAST_MEASURED = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """What came out again of what went in, over ``cycles`` full cycles; ``None`` without one that was measured."""

    cycles: int = 0
    cycles_left_out: int = 0
    energy_in_kwh: float = 0.0
    energy_out_kwh: float = 0.0
    charge_in_ah: float = 0.0
    charge_out_ah: float = 0.0

    @property
    def energy_efficiency_percent(self) -> float | None:
        """Energy out in percent of energy in."""
        return 100 * self.energy_out_kwh / self.energy_in_kwh if self.energy_in_kwh > 0 else None

    @property
    def charge_efficiency_percent(self) -> float | None:
        """Charge out in percent of charge in."""
        return 100 * self.charge_out_ah / self.charge_in_ah if self.charge_in_ah > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What discharges took out, less what went in meanwhile: the mean of ``discharges``, the least, the most."""

    discharges: int = 0
    discharges_left_out: int = 0
    charge_ah: float | None = None
    charge_minimum_ah: float | None = None
    charge_maximum_ah: float | None = None
    energy_kwh: float | None = None
    energy_minimum_kwh: float | None = None
    energy_maximum_kwh: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """Everything up to the end of an interval; the difference of two is what passed between them."""

    end_utc_ms: int = 0
    energy_in_kwh: float = 0.0
    energy_out_kwh: float = 0.0
    charge_in_ah: float = 0.0
    charge_out_ah: float = 0.0
    known_s: float = 0.0

    def plus(self, point: Point) -> _Sums:
        return _Sums(
            end_utc_ms=point.end_utc_ms,
            energy_in_kwh=self.energy_in_kwh + (point.energy_in_kwh or 0.0),
            energy_out_kwh=self.energy_out_kwh + (point.energy_out_kwh or 0.0),
            charge_in_ah=self.charge_in_ah + (point.charge_in_ah or 0.0),
            charge_out_ah=self.charge_out_ah + (point.charge_out_ah or 0.0),
            known_s=self.known_s + (point.energy_s or 0.0),
        )

    def is_measured_since(self, begin: _Sums) -> bool:
        elapsed_s = (self.end_utc_ms - begin.end_utc_ms) / 1000
        return self.known_s - begin.known_s >= _LEAST_MEASURED * elapsed_s


class CycleFinder:
    """Takes the intervals of a period, oldest first, and finds what is between ``low_v`` and ``high_v``."""

    def __init__(self, low_v: float, high_v: float) -> None:
        self._low_v, self._high_v = low_v, high_v
        self._sums = _Sums()
        self._full: _Sums | None = None  # up to the last interval at or above the upper voltage
        self._begin: _Sums | None = None  # of the discharge that was last found
        self._capacity = Capacity()
        self._round_trip = RoundTrip()

    def take(self, point: Point) -> None:
        """Take the next interval."""
        self._sums = self._sums.plus(point)
        if point.voltage_v is None:
            return
        if point.voltage_v.mean >= self._high_v:
            self._full = self._sums
        elif point.voltage_v.mean <= self._low_v and self._full is not None and self._full is not self._begin:
            self._capacity = _with_discharge(self._capacity, self._full, self._sums)
            self._round_trip = self._with_cycle()
            self._begin = self._full

    def capacity(self) -> Capacity:
        """Return the capacity by the discharges so far."""
        return self._capacity

    def round_trip(self) -> RoundTrip:
        """Return the efficiency by the cycles so far, with the one that ends where the battery was last full."""
        return self._with_cycle()

    def _with_cycle(self) -> RoundTrip:
        trip, begin, end = self._round_trip, self._begin, self._full
        if begin is None or end is None or end is begin:
            return trip
        if not end.is_measured_since(begin):
            return replace(trip, cycles_left_out=trip.cycles_left_out + 1)
        return replace(
            trip,
            cycles=trip.cycles + 1,
            energy_in_kwh=trip.energy_in_kwh + end.energy_in_kwh - begin.energy_in_kwh,
            energy_out_kwh=trip.energy_out_kwh + end.energy_out_kwh - begin.energy_out_kwh,
            charge_in_ah=trip.charge_in_ah + end.charge_in_ah - begin.charge_in_ah,
            charge_out_ah=trip.charge_out_ah + end.charge_out_ah - begin.charge_out_ah,
        )


def _with_discharge(capacity: Capacity, begin: _Sums, end: _Sums) -> Capacity:
    if not end.is_measured_since(begin):
        return replace(capacity, discharges_left_out=capacity.discharges_left_out + 1)
    charge_ah = end.charge_out_ah - begin.charge_out_ah - (end.charge_in_ah - begin.charge_in_ah)
    energy_kwh = end.energy_out_kwh - begin.energy_out_kwh - (end.energy_in_kwh - begin.energy_in_kwh)
    count = capacity.discharges + 1
    return replace(
        capacity,
        discharges=count,
        charge_ah=_mean(capacity.charge_ah, charge_ah, count),
        charge_minimum_ah=min(charge_ah, _or(capacity.charge_minimum_ah, charge_ah)),
        charge_maximum_ah=max(charge_ah, _or(capacity.charge_maximum_ah, charge_ah)),
        energy_kwh=_mean(capacity.energy_kwh, energy_kwh, count),
        energy_minimum_kwh=min(energy_kwh, _or(capacity.energy_minimum_kwh, energy_kwh)),
        energy_maximum_kwh=max(energy_kwh, _or(capacity.energy_maximum_kwh, energy_kwh)),
    )


def _mean(mean: float | None, value: float, count: int) -> float:
    return value if mean is None else mean + (value - mean) / count


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
