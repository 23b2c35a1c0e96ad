"""What can be wrong with readings that came intact from a meter that is set as it should be. No input or output.

Each of these is used by one thread. They judge and remember; who asks them counts, logs and leaves out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_HELD_READINGS = 3  # two equal readings of seven digits can be chance, once in some hundred times; three are not
_CALM_S = 10.0
_CALM_READINGS = 3
_MILLIVOLTS_BELOW_V = 1.0  # no battery has less; a shunt on a range of up to 500 mV never has more
_SWAPPED_READINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Between what a quantity can lie at all. ``None``: as far as the range of the meter goes."""

    minimum: float | None = None
    maximum: float | None = None

    def exclude(self, value: float) -> bool:
        """Return whether a value cannot be true."""
        below = self.minimum is not None and value < self.minimum
        return below or (self.maximum is not None and value > self.maximum)


class HoldWatch:
    """Whether a meter is in hold: every bit of its reading has been the same for ``after_s``; 0: it never is.

    A live input gives seven digits that change with every conversion. What was read before the time was over cannot be
    told from live readings.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._value = math.nan
        self._since_mono_s = 0.0
        self._readings = 0

    def is_held(self, value: float, now_mono_s: float) -> bool:
        """Take a reading, and return whether the meter is in hold: it has shown this one at least three times."""
        if value != self._value:
            self._value, self._since_mono_s, self._readings = value, now_mono_s, 0
        self._readings += 1
        lasted = now_mono_s - self._since_mono_s >= self._after_s > 0
        return lasted and self._readings >= _HELD_READINGS

    def forget(self) -> None:
        """Begin anew: the meter shows overload, which looks the same for as long as it lasts."""
        self._value = math.nan


class RangeSteps:
    """When a meter goes from its ``lower`` range to the ``upper`` one and back: their numbers.

    Up at once when the lower one overflows; back when all readings of 10 s, at least three, were below ``back_below``.
    """

    def __init__(self, lower: int, upper: int, back_below: float) -> None:
        self.lower, self.upper = lower, upper
        self.back_below = back_below
        self._calm_since_mono_s = 0.0
        self._calm_readings = 0

    def next_range(self, present: int, value: float | None, now_mono_s: float) -> int | None:
        """Return the number of the range to change to after a reading, ``None`` an overload; ``None`` to stay."""
        if present == self.lower:
            self._calm_readings = 0
            return self.upper if value is None else None
        if value is None or abs(value) >= self.back_below:
            self._calm_readings = 0
            return None
        if not self._calm_readings:
            self._calm_since_mono_s = now_mono_s
        self._calm_readings += 1
        calm = self._calm_readings >= _CALM_READINGS and now_mono_s - self._calm_since_mono_s >= _CALM_S
        return self.lower if calm else None


class SwapWatch:
    """Whether the two meters are swapped: the one on the shunt overflows while the one on the battery shows millivolts.

    Millivolts count as the battery's only if the current meter has a value at the same moment: only then are the
    meters surely where they should be.
    """

    def __init__(self) -> None:
        self._suspicions = 0

    @property
    def is_certain(self) -> bool:
        """Whether it has been so for three samples in which both meters answered, and never otherwise meanwhile."""
        return self._suspicions >= _SWAPPED_READINGS

    def doubts(self, voltage_v: float | None, current_a: float | None, *, overloaded: bool) -> bool:
        """Take a sample and return whether its voltage may be that of the shunt."""
        if current_a is not None or (voltage_v is not None and abs(voltage_v) >= _MILLIVOLTS_BELOW_V):
            self._suspicions = 0
            return False
        if voltage_v is None:
            return False
        self._suspicions += overloaded
        return True
