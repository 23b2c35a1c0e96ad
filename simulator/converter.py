"""The converter of a virtual meter: sample and hold, ranges, overload, noise (``reference/xdm1041.md`` 3.6, 4.2, 7).

It has no thread: whoever asks for the reading says what time it is, and the conversions finished since are made up
for. The same seed, input and moments give the same values; a conversion's noise does not depend on who asked when.

Not thread-safe: the meter it belongs to holds its lock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .modes import OVERLOAD, Leads, Mode, Rate

SETTLE_S = 0.2
"""Relays and settling before the first conversion after CONF or RANGE. With one conversion it makes 0.53 s of zeros;
the recorded meter gave zeros for 0.51 to 0.62 s (section 4.2, counting the script's pauses)."""

CONVERSION_PERIOD_S: Mapping[Rate, float] = MappingProxyType(
    {Rate.SLOW: 0.33346, Rate.MEDIUM: 1 / 16, Rate.FAST: 1 / 65}
)
"""Recorded for a rate not noted down, taken for S (section 4.2). M and F are the manual's and were never seen."""

_TRANSIENT_STEPS = (20.0, 40.0)
_FIRST_VOLTS_RANGE = 2
_MAX_MADE_UP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeSetting:
    """The range in use (index 0 is RANGE 1) and whether the meter may change it by itself."""

    index: int
    auto: bool


Gain = Callable[[Mode, RangeSetting, Rate], float]
"""By what a reading differs from the truth in a mode, range and speed: 1.0 is a perfect meter."""


def _true_gain(_mode: Mode, _setting: RangeSetting, _rate: Rate) -> float:
    return 1.0


class Converter:
    """Turns the quantity at the leads into a held reading, one conversion after the other."""

    def __init__(
        self,
        quantity: Callable[[float], float],
        *,
        seed: int,
        noise_steps: float,
        period_s: Mapping[Rate, float],
        auto_returns_to_mv: bool,
        gain: Gain = _true_gain,
    ) -> None:
        self._quantity = quantity
        self._seed = seed
        self._noise_steps = noise_steps
        self._period_s = period_s
        self._auto_returns_to_mv = auto_returns_to_mv
        self._gain = gain
        self.mode = Mode.DCV
        self.setting = RangeSetting(index=_FIRST_VOLTS_RANGE, auto=True)
        self.rate = Rate.SLOW
        self.frozen = False
        self._held = 0.0
        self._unsettled = True
        self._phase_mono_s = 0.0
        self._phases = 0
        self._done = 0

    def configure(self, mode: Mode, setting: RangeSetting, mono_s: float) -> None:
        """Set mode and range as CONF, RANGE and AUTO do: the reading is 0.0 until the first conversion is done."""
        self.mode = mode
        self.setting = setting
        self._restart(mono_s)

    def set_rate(self, rate: Rate, mono_s: float) -> None:
        """Set the speed. The held reading stays until the first conversion at the new speed."""
        if rate is self.rate:
            return
        self.reading(mono_s)
        self.rate = rate
        self._start_phase(max(mono_s, self._phase_mono_s))

    def freeze(self, mono_s: float) -> None:
        """Hold the present reading until ``frozen`` is cleared."""
        self.reading(mono_s)
        self.frozen = True

    def reading(self, mono_s: float) -> float:
        """Return the last finished conversion, in the mode's SI unit, or ``OVERLOAD``. Neither triggers nor waits."""
        if self.frozen:
            return self._held
        period_s = self._period_s[self.rate]
        behind = int((mono_s - self._phase_mono_s) / period_s) - self._done
        self._done += max(0, behind - _MAX_MADE_UP)
        while (done_mono_s := self._phase_mono_s + (self._done + 1) * self._period_s[self.rate]) <= mono_s:
            self._convert(done_mono_s)
        return self._held

    def _convert(self, mono_s: float) -> None:
        self._done += 1
        chance = random.Random(f"{self._seed}/{self._phases}/{self._done}")
        step = self.mode.ranges[self.setting.index].step
        gain = self._gain(self.mode, self.setting, self.rate)
        value = gain * self._at_leads(mono_s) + chance.gauss(0.0, 1.0) * self._noise_steps * step
        if self._unsettled:
            value += chance.choice((-1.0, 1.0)) * chance.uniform(*_TRANSIENT_STEPS) * step
            self._unsettled = False
        if self.setting.auto and (index := self._fitting(abs(value))) != self.setting.index:
            self.setting = RangeSetting(index=index, auto=True)
            self._restart(mono_s)
        else:
            self._held = value if abs(value) <= self.mode.limit(self.setting.index) else OVERLOAD

    def _at_leads(self, mono_s: float) -> float:
        if self.mode.leads is Leads.LIVE:
            return self._quantity(mono_s)
        return 0.0 if self.mode.leads is Leads.ZERO else OVERLOAD

    def _fitting(self, magnitude: float) -> int:
        """Return the range auto goes to: up when this one overflows, down when the value fits a smaller one."""
        ranges = self.mode.ranges
        fitting = next((i for i, row in enumerate(ranges) if magnitude <= row.full_scale), len(ranges) - 1)
        present = self.setting.index
        if magnitude > self.mode.limit(present):
            return max(fitting, present)
        if self.mode is Mode.DCV and not self._auto_returns_to_mv and present >= _FIRST_VOLTS_RANGE:
            fitting = max(fitting, _FIRST_VOLTS_RANGE)
        return min(fitting, present)

    def _restart(self, mono_s: float) -> None:
        self._held = 0.0
        self._unsettled = True
        self._start_phase(mono_s + SETTLE_S)

    def _start_phase(self, mono_s: float) -> None:
        self._phase_mono_s = mono_s
        self._phases += 1
        self._done = 0
