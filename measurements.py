"""The vocabulary of the house: what is measured, averaged and reported, and the rules of those numbers.

Every arrow between two parts of the daemon is one of the frozen types below. Nothing here does input or output, keeps
a thread or reads a clock.

The rules, written once and kept everywhere:

1. Sign. Charging is positive, discharging negative, for current and power alike. ``xdm_current_reverse_polarity``
   flips what the leads give.
2. I = V_shunt / R. The power of a sample is V * I of that same sample, kW = V * A / 1000. The power of an interval is
   the mean of those products, never mean V * mean I.
3. An interval is left-open and right-closed and ends on a whole multiple of the report interval since the epoch (UTC).
   Its readings carry the interval's END as timestamp, in milliseconds; V, A and kW of one interval share it.
   Only the interval that a stop cuts short ends elsewhere: at the moment of the stop.
4. No data is ``None``, never 0 and never the previous value. A quantity without one valid sample in an interval is not
   reported for it. A reading that fails any check is counted and logged, never averaged.
5. A sample's time is the moment its queries start, on the monotonic clock. V and A whose queries started more than
   5 ms apart do not belong together and make no kW.
6. Energy and charge are the trapezoid of the samples over the monotonic clock, split where the line between two samples
   crosses zero. What passed between two samples belongs to the interval of the later one. Two samples more than three
   sample intervals apart are a gap: it is counted, not bridged. In and out are kept apart, as counters that only rise.
7. Schedules run on the monotonic clock with absolute due times (no drift, no catch-up burst); timestamps come from the
   wall clock.

Names carry their units: ``_v``, ``_a``, ``_kw``, ``_kwh``, ``_ah``, ``_mono_s`` (seconds, monotonic clock),
``_utc_ms`` (milliseconds since the epoch, wall clock).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

VOLTAGE, CURRENT = "voltage meter", "current meter"
"""The two meters, as the operator knows them."""

BEYOND_ALL = 1e9
"""V, A, kW: no battery has so much. A sum that takes in such a number, or none at all, is worth nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSample:
    """What the meters said at one moment. ``None`` where there is no valid value (rule 4).

    ``refused`` has a reason for each meter that was asked and gave none. ``unverified`` names the meters whose settings
    have not been verified since: their values count only once they have been.
    """

    start_mono_s: float
    voltage_v: float | None = None
    current_a: float | None = None
    power_kw: float | None = None
    refused: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()

    @property
    def readings_count(self) -> int:
        """How many readings of meters went into it: those with a value and those that were refused."""
        return (self.voltage_v is not None) + (self.current_a is not None) + len(self.refused)

    def settled(self, meter: str, refused: str | None) -> PowerSample:
        """Return the sample once it is known of a meter whether its settings were right: else why it is refused."""
        if meter not in self.unverified:
            return self
        sample = replace(self, unverified=tuple(each for each in self.unverified if each != meter))
        if refused is None:
            return sample
        sample = replace(sample, power_kw=None, refused=(*self.refused, refused))
        return replace(sample, voltage_v=None) if meter == VOLTAGE else replace(sample, current_a=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """Mean, extremes and number of the valid values of one quantity in one interval, in the quantity's unit.

    ``deviation`` is the standard deviation of the values, 0 for a single one.
    """

    mean: float
    minimum: float
    maximum: float
    count: int
    deviation: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One reporting interval: left-open, right-closed, its end known on both clocks (rule 3)."""

    start_mono_s: float
    end_mono_s: float
    end_utc_ms: int

    def __contains__(self, mono_s: float) -> bool:
        return self.start_mono_s < mono_s <= self.end_mono_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy (kWh) and charge (Ah) that went in and out, each at least 0, and for how many seconds each is known.

    Net is in minus out. What is not covered by ``energy_s`` or ``charge_s`` is a gap: it is counted, not estimated.
    """

    energy_in_kwh: float = 0.0
    energy_out_kwh: float = 0.0
    charge_in_ah: float = 0.0
    charge_out_ah: float = 0.0
    energy_s: float = 0.0
    charge_s: float = 0.0


Point = tuple[float, float]
"""A moment, in seconds of the monotonic clock, and a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastPoints:
    """The newest power (kW) and current (A) of an interval: where the energy and the charge of the next one begin."""

    power_kw: Point | None = None
    current_a: Point | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """How far off what an interval is reported as may be (docs/accuracy.md): +/-, in the quantity's unit, k = 2.

    Of energy and charge, in and out together: ``energy_kwh`` and ``charge_ah`` are what the instruments may be off,
    which adds up over intervals; the ``scatter`` of the samples, one standard deviation, adds up as the root of the
    squares. ``None`` where there is no value.
    """

    voltage_v: float | None = None
    current_a: float | None = None
    power_kw: float | None = None
    energy_kwh: float | None = None
    energy_scatter_kwh: float | None = None
    charge_ah: float | None = None
    charge_scatter_ah: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalSummary:
    """What one interval is reported as. ``None`` for a quantity without a valid sample in it.

    ``samples_read`` counts the readings of meters that were taken in it, ``samples_refused`` those without a value, by
    reason; the rest were averaged.
    """

    voltage_v: Statistic | None
    current_a: Statistic | None
    power_kw: Statistic | None
    samples_read: int = 0
    samples_refused: Mapping[str, int] = field(default_factory=dict)
    energy: Energy = Energy()
    last: LastPoints = LastPoints()
    uncertainty: Uncertainty = Uncertainty()

    @property
    def samples_averaged(self) -> int:
        """How many readings of meters its averages are made of."""
        return sum(each.count for each in (self.voltage_v, self.current_a) if each is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """As what the readings are reported: the device's MAC and the sensor types of what is reported.

    ``energy_type`` is that of the net energy. A counter without a type is not reported.
    """

    mac: int
    voltage_type: int
    current_type: int
    power_type: int
    energy_in_type: int | None = None
    energy_out_type: int | None = None
    charge_in_type: int | None = None
    charge_out_type: int | None = None
    energy_type: int | None = None

    @property
    def types(self) -> tuple[int | None, ...]:
        """The sensor types of V, A, kW, energy in and out, charge in and out, net energy."""
        return tuple(getattr(self, each.name) for each in fields(self) if each.name != "mac")


@dataclass(frozen=True, slots=True, kw_only=True)
class Datum:
    """One reading in the form the Aretas platform takes it: which device, which sensor type, what, when."""

    mac: int
    type: int
    data: float
    timestamp_utc_ms: int

    def as_wire(self) -> dict[str, int | float]:
        """Return the JSON object of ``POST ingest/std/batch``: ``{"mac", "type", "data", "timestamp"}``."""
        return {"mac": self.mac, "type": self.type, "data": self.data, "timestamp": self.timestamp_utc_ms}
