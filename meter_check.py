"""What ``--check`` does with one meter: find it, set it up as the daemon does, take ten readings, judge them.

One ``MeterCheck`` per meter, each run by a thread of its own. Guarantees: it sends what the daemon sends and nothing
else (so it does set the meter up, and says so); a port that a daemon has is not opened; every wait has an end.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass

from clock import Clock
from findings import Finding, fail, ok, warn
from instance import holders
from settings import MeterSettings
from xdm1041 import (
    XDM1041,
    Identity,
    Overload,
    PortLost,
    PortUnavailable,
    SettingsDiffer,
    Unsettled,
    WrongInstrument,
    XDM1041Error,
    XDM1041Mode,
)

_READINGS = 10
_READ_WITHIN_S = 6.0  # at three new readings a second ten of them take 3.3 s
_POLL_S = 0.05
_NEAR_END = 0.9  # of the range
_NOISY = 0.02  # of the range
_BATTERY_FROM_V = 1.0
_SERVICE_HINT = "; if that is the daemon, check as the user that runs it, with --config and its config.cfg"
_MODES = {XDM1041Mode.MODE_VOLTAGE_DC: "DC volts", XDM1041Mode.MODE_CURRENT_DC: "DC amperes"}
_ZERO_ERROR_V = 20e-6  # twice the meter's own error at zero on the 50 mV range


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What a meter measures: its words and unit, its limits in that unit, and how a reading of it is reported.

    ``key`` is how its settings begin, ``xdm_voltage`` or ``xdm_current``. ``wider_range`` is the number of the range
    that the daemon changes to at overload, if it does. ``shunt_ohm`` is ``None`` if the meter is on no shunt.
    """

    name: str
    key: str
    unit: str
    settings: MeterSettings
    minimum: float | None
    maximum: float | None
    convert: Callable[[float], float | None]
    wider_range: int | None = None
    shunt_ohm: float | None = None
    reversed: bool = False
    offset_serial: str | None = None


class MeterCheck:
    """The checks of one meter. ``mean`` is that of its readings in the unit of its quantity, ``None`` without any.

    ``plausible``: the daemon would take it. ``overloaded``: there are no readings because of that.
    """

    def __init__(self, quantity: Quantity, meter: XDM1041, clock: Clock) -> None:
        self.quantity = quantity
        self.mean: float | None = None
        self.plausible = False
        self.overloaded = False
        self._meter = meter
        self._clock = clock
        self._pause = threading.Event()
        self._findings: list[Finding] = []

    def run(self) -> list[Finding]:
        """Do all of it and return what was found. Blocks about 8 s; 20 s if the meter is silent or must be searched."""
        daemon = next((holder for holder in holders(self._meter.port) if holder.is_daemon), None)
        if daemon is not None:
            self._add(
                warn, "found", f"{self._meter.port} is in use by {daemon}: check with --config and its config.cfg"
            )
            return self._findings
        try:
            self._set_up()
        except XDM1041Error as exc:
            self._explain(exc)
        else:
            self._read()
        finally:
            self._meter.disconnect()
        return self._findings

    def _add(self, result: Callable[[str, str], Finding], check: str, message: str) -> None:
        self._findings.append(result(f"{self.quantity.name} {check}", message))

    # -- found, identity, settings -----------------------------------------------------------------------------------

    def _set_up(self) -> None:
        identity = self._meter.connect()
        self._tell_identity(identity)
        self._add(ok, "settings", f"set up by this check as the daemon does it, and read back: {self._wanted()}")

    def _wanted(self) -> str:
        meter = self._meter
        mode, meter_range = _MODES.get(meter.mode, meter.mode.name), meter.range.label if meter.range else "none"
        return f"{mode}, range {meter_range}, {meter.rate.name.lower()}"

    def _tell_identity(self, identity: Identity) -> None:
        quantity, port = self.quantity, self._meter.port
        who = f"{identity.model}, serial number {identity.serial_number}, firmware {identity.firmware}"
        self._add(ok, "found", port)
        if port != quantity.settings.port:
            self._add(
                warn, "identity", f"{who}, is on {port} instead of {quantity.settings.port}: set {quantity.key}_port"
            )
        elif quantity.offset_serial not in (None, identity.serial_number):
            self._add(
                warn,
                "identity",
                f"{who}; xdm_current_zero_offset was measured with another meter ({quantity.offset_serial}): "
                "repeat --zero",
            )
        elif quantity.settings.serial_number is None:
            self._add(ok, "identity", f"{who}; to keep it apart: {quantity.key}_serial = {identity.serial_number}")
        else:
            self._add(ok, "identity", who)

    def _explain(self, exc: XDM1041Error) -> None:
        """Say what kept the meter from being set up, under the name of the step that failed."""
        identity = self._meter.identity
        if isinstance(exc, WrongInstrument):
            self._add(ok, "found", self._meter.port)
            self._add(fail, "identity", f"{exc}: exchange the cables, or correct {self.quantity.key}_port and _serial")
        elif isinstance(exc, PortUnavailable):
            seen = ", ".join(map(str, holders(self._meter.port)))
            hint = "" if seen or "holds it" not in str(exc) else _SERVICE_HINT
            self._add(fail, "found", f"{exc}{f': {seen}' if seen else hint}")
        elif identity is None or isinstance(exc, PortLost):
            advice = "is the meter on, its cable plugged in, its baud rate 115200?"
            self._add(fail, "found", f"no meter answers on {self._meter.port} ({exc}): {advice}")
        else:
            self._tell_identity(identity)
            self._add_failure(exc)

    def _add_failure(self, exc: XDM1041Error) -> None:
        if isinstance(exc, SettingsDiffer):
            self._add(fail, "settings", f"{exc}: leave its keys alone; if it stays so, switch the meter off and on")
        elif isinstance(exc, Unsettled):
            self._add(fail, "readings", f"{exc}. Press Run/Stop, or switch the meter off and on")
        else:
            self._add(fail, "readings", f"{exc}: repeat the check; if it stays so, look at the cable")

    # -- readings ----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            seen = self._new_readings()
            self._meter.verify_settings()
        except Overload as exc:
            self.overloaded = True
            self._add(fail, "readings", f"{exc}: choose a larger {self.quantity.key}_range, or look at the wiring")
        except XDM1041Error as exc:
            self._add_failure(exc)
        else:
            self._judge(seen)

    def _new_readings(self) -> list[tuple[float, float]]:
        """Return new readings and the moments they came at, in seconds; on the wider range if need be."""
        try:
            return self._watch()
        except Overload:
            if self.quantity.wider_range is None:
                raise
            self._meter.set_range(self.quantity.wider_range)
            self._add(warn, "settings", f"overload; changed to {self._wanted()}, as the daemon does")
            return self._watch()

    def _watch(self) -> list[tuple[float, float]]:
        seen: list[tuple[float, float]] = []
        until_mono_s = self._clock.mono_s() + _READ_WITHIN_S
        while len(seen) <= _READINGS and self._clock.mono_s() < until_mono_s:
            reading = self._meter.read_val1_sure()
            if not seen or reading != seen[-1][1]:
                seen.append((self._clock.mono_s(), reading))
            self._pause.wait(_POLL_S)
        return seen

    def _judge(self, seen: list[tuple[float, float]]) -> None:
        fresh = seen[1:]  # of the first it is not known since when it is shown
        if len(fresh) < 2:
            self._add(warn, "readings", f"the same for {_READ_WITHIN_S:g} s: is it in hold? Press Run/Stop, look again")
            return
        raw = [reading for _, reading in fresh]
        values = [value for value in map(self.quantity.convert, raw) if value is not None]
        per_second = (len(fresh) - 1) / (fresh[-1][0] - fresh[0][0])
        told = f"{len(fresh)} readings: {self._figures(values, raw)}; {per_second:.1f} new ones a second"
        full_scale = self._meter.range.full_scale if self._meter.range else math.inf
        if statistics.stdev(raw) > _NOISY * full_scale:
            told += ". They scatter: a load that changes, or mains noise; twist the two leads round each other"
        elif len(fresh) < _READINGS:
            told += ". They come slowly: is the meter's rate at slow, and is nobody pressing its keys?"
        self._add(ok if told.endswith("second") else warn, "readings", told)
        self.mean = statistics.fmean(values)
        self.plausible = self._is_plausible(values, max(map(abs, raw)) / full_scale)
        self._judge_sign(values)

    def _figures(self, values: list[float], raw: list[float]) -> str:
        mean, scatter, unit = statistics.fmean(values), statistics.stdev(values), self.quantity.unit
        told = f"mean {mean:.4f} {unit}, scatter {_short(scatter)} {unit}"
        if self.quantity.shunt_ohm is not None:
            shunt_mv, scatter_uv = statistics.fmean(raw) * 1e3, statistics.stdev(raw) * 1e6
            told += f" ({shunt_mv:.4f} mV at the shunt, scatter {_short(scatter_uv)} µV)"
        return told

    # -- plausibility, sign ------------------------------------------------------------------------------------------

    def _is_plausible(self, values: list[float], part_of_range: float) -> bool:
        """Tell whether the readings can be true, and return whether the daemon would take them."""
        quantity, lowest, highest = self.quantity, min(values), max(values)
        low = -math.inf if quantity.minimum is None else quantity.minimum
        high = math.inf if quantity.maximum is None else quantity.maximum
        span = f"{lowest:.4g} to {highest:.4g} {quantity.unit}"
        if lowest < low or highest > high:
            limits = f"{quantity.key}_min and {quantity.key}_max"
            self._add(
                fail, "plausibility", f"{span} is outside of {limits}, and refused: look at the wiring, or correct them"
            )
            return False
        if quantity.unit == "V" and max(abs(lowest), abs(highest)) < _BATTERY_FROM_V:
            message = f"{span} is no battery: are the leads connected, and is it the right one of the two meters?"
            self._add(warn, "plausibility", message)
        elif part_of_range > _NEAR_END and quantity.wider_range is None:
            self._add(
                warn, "plausibility", f"{span} is near the end of the range: choose a larger {quantity.key}_range"
            )
        else:
            self._add(ok, "plausibility", f"{span} is within the limits of range and configuration")
        return True

    def _judge_sign(self, values: list[float]) -> None:
        quantity, mean = self.quantity, statistics.fmean(values)
        if quantity.unit == "V":
            if mean <= -_BATTERY_FROM_V:
                self._add(fail, "sign", "negative: exchange the two leads of the meter at the battery")
            elif mean < _BATTERY_FROM_V:
                self._add(warn, "sign", "cannot be told without a voltage")
            else:
                self._add(ok, "sign", "positive, as it must be")
            return
        zero_a = _ZERO_ERROR_V / quantity.shunt_ohm if quantity.shunt_ohm else 0.0
        if min(values) <= zero_a and max(values) >= -zero_a:
            message = "cannot be told without a current: switch a load on and look again, the current must be negative"
            self._add(warn, "sign", message)
        else:
            state = "charged" if max(values) > zero_a else "used (discharged)"
            other = not quantity.reversed
            message = f"the battery is being {state}. Is it not? Then set xdm_current_reverse_polarity = {other}"
            self._add(ok, "sign", message)


def _short(number: float) -> str:
    """Return a number with two digits that mean something: 0.0016, 290."""
    return f"{float(f'{number:.2g}'):g}"
