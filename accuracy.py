"""How far off the averages of an interval may be, from what is published of the meters, the shunt, and the scatter.

Pure; from any thread. docs/accuracy.md derives it for the operator. It guarantees that each known limit is in the
figure and never rounded in the daemon's favour; it knows nothing of temperature, age, leads and what nobody published.

* The manual gives limits, so each is a rectangular distribution: a limit of a has the standard uncertainty a / sqrt(3).
  Percent and counts of one meter are one limit, as the manual adds them; limits of different origin are independent.
* What an instrument is off does not change within an interval, nor from one to the next: it does not average out.
* What is shown is k = 2 (about 95 %); of the scatter of few samples more, by Student's distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from config_keys import CURRENT_RANGES, VOLTAGE_RANGES
from measurements import IntervalSummary, Statistic, Uncertainty
from sampling_setup import range_steps
from settings import CurrentMeterSettings, CurrentSource, Rate, Settings, VoltageMeterSettings

_OVERLOAD = "Overload"  # the reason an overloaded reading is refused for
_COARSER = 10  # an assumption: medium and fast have one digit less, and nothing is published of them
_FRESH_EVERY_S = 1 / 3  # the only rate of new values that was ever recorded, whatever the manual promises
_HIGH_V, _HIGH_SHARE = 500.0, 0.02e-3  # above 500 V add 0.02 mV per volt
_EXPAND = 2 / math.sqrt(3)  # k = 2 of a rectangular distribution

# Student's factor for 95.45 %, by degrees of freedom from 1 on (GUM, table G.2); for more _student() has a series.
_STUDENT = (13.97, 4.53, 3.31, 2.87, 2.65, 2.52, 2.43, 2.37, 2.32, 2.28)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the manual says of one range at slow: off by at most ``percent`` of the reading plus ``counts`` digits.

    ``ends_at`` and ``digit``, the last one of the display, are in volts or amperes.
    """

    ends_at: float
    digit: float
    percent: float
    counts: int


def _published(*rows: tuple[float, float, float, int]) -> tuple[Published, ...]:
    return tuple(
        Published(ends_at=ends_at, digit=digit, percent=percent, counts=counts)
        for ends_at, digit, percent, counts in rows
    )


# The manual's section 6, in the order of the ranges' numbers: end, last digit, percent, counts.
VOLTAGE = _published(
    (0.055, 1e-6, 0.1, 10),
    (0.55, 10e-6, 0.05, 5),
    (5.5, 100e-6, 0.05, 5),
    (55.0, 1e-3, 0.05, 5),
    (550.0, 10e-3, 0.1, 5),
    (1050.0, 100e-3, 0.1, 10),
)
CURRENT = _published(
    (550e-6, 0.01e-6, 0.15, 20),
    (5.5e-3, 0.1e-6, 0.15, 10),
    (55e-3, 1e-6, 0.15, 20),
    (0.55, 10e-6, 0.15, 10),
    (5.5, 0.1e-3, 0.5, 10),
    (10.5, 1e-3, 0.5, 10),
)
assert (len(VOLTAGE), len(CURRENT)) == (len(VOLTAGE_RANGES), len(CURRENT_RANGES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Off by at most ``share`` of the value plus ``fixed``, in the quantity's unit."""

    share: float = 0.0
    fixed: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How exact two meters are as they are set; ``None`` for one that there is not.

    ``sample_interval_s`` tells how many of the samples are values of their own: a meter has three new ones a second.
    """

    voltage_meter: VoltageMeterSettings | None
    current_meter: CurrentMeterSettings | None
    sample_interval_s: float

    def of(self, summary: IntervalSummary) -> Uncertainty:
        """Return the +/- of an interval; ``None`` for what has no value, or is of a meter that is no longer set."""
        voltage, current, power = summary.voltage_v, summary.current_a, summary.power_kw
        of_volts = self._voltage_limits(voltage)
        of_amperes = self._current_limits(current, overloaded=_OVERLOAD in summary.samples_refused)
        size_v, size_a, size_kw = (_size(each) for each in (voltage, current, power))
        off_v = _expanded(each.share * size_v + each.fixed for each in of_volts)
        off_a = _expanded(each.share * size_a + each.fixed for each in of_amperes)
        off_kw = None
        if power is not None and off_v is not None and off_a is not None:
            by_volts = (each.share * size_kw + each.fixed * size_a / 1000 for each in of_volts)
            by_amperes = (each.share * size_kw + each.fixed * size_v / 1000 for each in of_amperes)
            off_kw = _expanded([*by_volts, *by_amperes])
        scatter_kw = None if off_kw is None else self._scatter(power)
        scatter_a = None if off_a is None else self._scatter(current)
        return Uncertainty(
            voltage_v=self._shown(off_v, voltage),
            current_a=self._shown(off_a, current),
            power_kw=self._shown(off_kw, power),
            energy_kwh=_over_time(off_kw, summary.energy.energy_s),
            energy_scatter_kwh=_over_time(scatter_kw, summary.energy.energy_s),
            charge_ah=_over_time(off_a, summary.energy.charge_s),
            charge_scatter_ah=_over_time(scatter_a, summary.energy.charge_s),
        )

    def _voltage_limits(self, voltage: Statistic | None) -> list[Limit]:
        meter = self.voltage_meter
        if voltage is None or meter is None:
            return []
        peak_v = _peak(voltage)
        limit = _limit(_range_of(VOLTAGE, meter.range_number, peak_v), meter.rate)
        return [_high_voltage(limit, peak_v)]

    def _current_limits(self, current: Statistic | None, *, overloaded: bool) -> list[Limit]:
        """Return the limits of the meter, the shunt, the zero offset and the deadband, in amperes."""
        meter = self.current_meter
        if current is None or meter is None:
            return []
        within_deadband = current.minimum <= 0 <= current.maximum
        deadband = Limit(fixed=meter.deadband_a if within_deadband else 0.0)
        if meter.source is CurrentSource.DIRECT:
            return [_limit(_range_of(CURRENT, meter.range_number, _peak(current)), meter.rate), deadband]
        shunt_ohm, offset_v = meter.shunt_resistance_ohm or math.nan, abs(meter.zero_offset.offset_uv) / 1e6
        peak_v = _peak(current) * shunt_ohm + offset_v
        published = _range_of(VOLTAGE, _shunt_range(meter, peak_v, overloaded=overloaded), peak_v)
        across = _high_voltage(_limit(published, meter.rate), peak_v)
        zeroed = offset_v > 0 or meter.zero_offset.measured_on is not None
        return [
            Limit(share=across.share, fixed=(across.fixed + across.share * offset_v) / shunt_ohm),
            Limit(share=meter.shunt_tolerance_percent / 100),
            Limit(fixed=_digit(published, meter.rate) / shunt_ohm if zeroed else 0.0),
            deadband,
        ]

    def _scatter(self, statistic: Statistic | None) -> float:
        """Return the standard deviation of the mean; 0 for a single sample, which tells nothing of it."""
        return statistic.deviation / math.sqrt(self._fresh_values(statistic)) if statistic is not None else 0.0

    def _shown(self, off: float | None, statistic: Statistic | None) -> float | None:
        if off is None or statistic is None:
            return None
        return math.hypot(off, _student(self._fresh_values(statistic)) * self._scatter(statistic))

    def _fresh_values(self, statistic: Statistic) -> float:
        return max(1.0, statistic.count * min(1.0, self.sample_interval_s / _FRESH_EVERY_S))


def accuracy_of(settings: Settings) -> Accuracy:
    """Return how exact the meters of these settings are."""
    return Accuracy(
        voltage_meter=settings.voltage_meter,
        current_meter=settings.current_meter,
        sample_interval_s=settings.serial.sample_interval_ms / 1000,
    )


def _range_of(ranges: tuple[Published, ...], number: int, peak: float) -> Published:
    """Return the range of this number, or the next larger one that holds the peak."""
    return next((each for each in ranges[number - 1 :] if peak <= each.ends_at), ranges[-1])


def _shunt_range(meter: CurrentMeterSettings, peak_v: float, *, overloaded: bool) -> int:
    """Return the number of the largest range that the meter may have been on.

    Which one it was nobody wrote down. Once it has gone up it comes back only below a part of the smaller range, so
    from there on it may be on either, and counts as on the larger one.
    """
    steps = range_steps(meter)
    if steps is None:
        return meter.range_number
    return steps.upper if overloaded or peak_v >= steps.back_below else steps.lower


def _limit(published: Published, rate: Rate) -> Limit:
    return Limit(share=published.percent / 100, fixed=published.counts * _digit(published, rate))


def _digit(published: Published, rate: Rate) -> float:
    return published.digit * (1 if rate is Rate.SLOW else _COARSER)


def _high_voltage(limit: Limit, peak_v: float) -> Limit:
    return Limit(share=limit.share + _HIGH_SHARE, fixed=limit.fixed) if peak_v > _HIGH_V else limit


def _peak(statistic: Statistic) -> float:
    return max(abs(statistic.minimum), abs(statistic.maximum))


def _size(statistic: Statistic | None) -> float:
    """Return the mean of the values without their signs, or what it cannot exceed where they had both signs.

    A meter may read too much of a current in and too little of one out: what percent are off does not cancel.
    """
    if statistic is None:
        return 0.0
    mean, count = statistic.mean, statistic.count
    root_mean_square = math.hypot(mean, statistic.deviation * math.sqrt((count - 1) / count))
    by_least, by_most = mean + 2 * max(0.0, -statistic.minimum), 2 * max(0.0, statistic.maximum) - mean
    return max(abs(mean), min(root_mean_square, by_least, by_most))


def _over_time(value: float | None, seconds: float) -> float | None:
    """Return the kWh or Ah that so many kW or A make in the seconds that were counted; ``None`` if none were."""
    return value * seconds / 3600 if value is not None and seconds > 0 else None


def _expanded(limits: Iterable[float]) -> float | None:
    """Return k = 2 of independent limits; ``None`` if there are none."""
    parts = list(limits)
    return _EXPAND * math.hypot(*parts) if parts else None


def _student(values: float) -> float:
    """Return the factor that covers as much of the mean of so few values as 2 does of many."""
    freedom = max(1, int(values) - 1)
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 2 + 2.5 / freedom + 3.0625 / freedom**2
