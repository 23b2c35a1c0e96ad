"""Energy and charge from samples: the trapezoid over the monotonic clock, in and out apart (rule 6).

No thread and no clock of its own; the averaging buffer uses it under its lock. Guarantees: the line between two samples
is integrated exactly, the part above zero to in, the part below to out; two samples too far apart count nothing, not
their time either; a sample that is not newer than the last one counts nothing, so that none counts twice. Sums are
compensated: a day of samples loses no digit.
"""

from __future__ import annotations

from measurements import BEYOND_ALL, Energy, LastPoints, Point, PowerSample

_BRIDGED_INTERVALS = 3.1  # three, and a start that is a little late
_S_PER_H = 3600.0


class CompensatedSum:
    """A sum whose rounding errors are kept and added at the end."""

    __slots__ = ("_compensation", "_sum")

    def __init__(self) -> None:
        self._sum = self._compensation = 0.0

    def add(self, value: float) -> None:
        """Add a value."""
        total = self._sum + value
        larger, smaller = (self._sum, value) if abs(self._sum) >= abs(value) else (value, self._sum)
        self._compensation += (larger - total) + smaller
        self._sum = total

    @property
    def value(self) -> float:
        """The sum."""
        return self._sum + self._compensation


class Integral:
    """What flowed in and out (value times seconds, both at least 0), and for how many seconds that is known."""

    __slots__ = ("_covered_s", "_in", "_out", "last")

    def __init__(self, last: Point | None = None) -> None:
        self.last = last
        """Where the line to the next value begins: seconds on the monotonic clock, value."""
        self._begin()

    def add(self, at_mono_s: float, value: float | None, longest_s: float) -> None:
        """Add what the line from the last value to this one encloses, unless they are more than ``longest_s`` apart."""
        if value is None or not abs(value) < BEYOND_ALL:  # NaN is not less, either
            return
        if self.last is not None:
            last_mono_s, last_value = self.last
            seconds = at_mono_s - last_mono_s
            if seconds <= 0:
                return
            if seconds <= longest_s:
                self._add_line(seconds, last_value, value)
        self.last = (at_mono_s, value)

    def take(self) -> tuple[float, float, float]:
        """Return in, out and the seconds that are covered since the last call, and begin again."""
        taken = (self._in.value, self._out.value, self._covered_s.value)
        self._begin()
        return taken

    def _begin(self) -> None:
        self._in, self._out, self._covered_s = CompensatedSum(), CompensatedSum(), CompensatedSum()

    def _add_line(self, seconds: float, first: float, second: float) -> None:
        self._covered_s.add(seconds)
        if first >= 0 and second >= 0:
            self._in.add(seconds * (first + second) / 2)
        elif first <= 0 and second <= 0:
            self._out.add(-seconds * (first + second) / 2)
        else:  # two triangles, which meet where the line crosses zero
            for value in (first, second):
                area = seconds * value * value / (2 * abs(first - second))
                (self._in if value > 0 else self._out).add(area)


class EnergyMeter:
    """The energy and the charge of samples that are given in the order of their time.

    ``sample_interval_s`` says how far apart they may be; it may be changed at any time. ``last``: where to go on.
    """

    def __init__(self, sample_interval_s: float, last: LastPoints | None = None) -> None:
        self.sample_interval_s = sample_interval_s
        last = last or LastPoints()
        self._energy, self._charge = Integral(last.power_kw), Integral(last.current_a)

    def add(self, sample: PowerSample) -> None:
        """Count what passed since the last sample. One without a kW or an A leaves the energy or charge for later."""
        longest_s = _BRIDGED_INTERVALS * self.sample_interval_s
        self._energy.add(sample.start_mono_s, sample.power_kw, longest_s)
        self._charge.add(sample.start_mono_s, sample.current_a, longest_s)

    @property
    def last(self) -> LastPoints:
        """Where what follows begins."""
        return LastPoints(power_kw=self._energy.last, current_a=self._charge.last)

    def take(self) -> Energy:
        """Return what passed since the last call."""
        energy_in_kws, energy_out_kws, energy_s = self._energy.take()
        charge_in_as, charge_out_as, charge_s = self._charge.take()
        return Energy(
            energy_in_kwh=energy_in_kws / _S_PER_H,
            energy_out_kwh=energy_out_kws / _S_PER_H,
            charge_in_ah=charge_in_as / _S_PER_H,
            charge_out_ah=charge_out_as / _S_PER_H,
            energy_s=energy_s,
            charge_s=charge_s,
        )
