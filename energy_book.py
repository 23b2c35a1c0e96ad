"""A stand-in for the counters' own module until that is merged: the type, and no counters."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass

from measurements import Energy


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTotals:
    """The counters since ``since_utc_ms``, and the sums for their uncertainty."""

    energy: Energy
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
    def gap_s(self) -> float:
        return max(0.0, self.elapsed_s - self.energy.energy_s)

    @property
    def coverage_percent(self) -> float | None:
        covered_s = self.energy.energy_s or self.energy.charge_s
        return min(100.0, 100 * covered_s / self.elapsed_s) if self.elapsed_s > 0 else None

    @property
    def energy_in_uncertainty_kwh(self) -> float:
        return math.sqrt(self.energy_in_limit_kwh**2 + 4 * self.energy_in_variance)

    @property
    def energy_out_uncertainty_kwh(self) -> float:
        return math.sqrt(self.energy_out_limit_kwh**2 + 4 * self.energy_out_variance)

    @property
    def charge_in_uncertainty_ah(self) -> float:
        return math.sqrt(self.charge_in_limit_ah**2 + 4 * self.charge_in_variance)

    @property
    def charge_out_uncertainty_ah(self) -> float:
        return math.sqrt(self.charge_out_limit_ah**2 + 4 * self.charge_out_variance)


def read_totals(cursor: sqlite3.Cursor) -> EnergyTotals | None:
    """Return the counters, ``None`` if there are none."""
    return None
