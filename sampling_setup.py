"""What the settings mean for sampling. Pure functions.

The meters themselves are made in ``serial_port_read_writer.py``, where their owner may want to change them.
"""

from __future__ import annotations

from measurements import CURRENT, VOLTAGE
from reading_checks import Limits, RangeSteps
from settings import CurrentMeterSettings, CurrentSource, Settings
from xdm1041 import RANGES, PortBook, XDM1041Mode

_STEP_BACK_BELOW = 0.8  # of the smaller range's end
_LOWEST_RANGE_OF_BATTERIES = 3  # 5 V: on a smaller one a voltage meter may well show millivolts
_CLEAR_OF_BOUNDARY_S = 0.25


def port_book(settings: Settings) -> PortBook:
    """Return what the meters share: where they are, and where one with a serial number is looked for."""
    meters = (settings.voltage_meter, settings.current_meter)
    return PortBook(settings.serial.scan_ports, {each.port: each.serial_number for each in meters if each is not None})


def limits(settings: Settings) -> dict[str, Limits]:
    """Return between what the quantity of each meter can lie."""
    by_meter = {}
    if (voltage := settings.voltage_meter) is not None:
        by_meter[VOLTAGE] = Limits(minimum=voltage.minimum_v, maximum=voltage.maximum_v)
    if (current := settings.current_meter) is not None:
        by_meter[CURRENT] = Limits(minimum=current.minimum_a, maximum=current.maximum_a)
    return by_meter


def swaps_show(settings: Settings) -> bool:
    """Return whether swapped meters would show: a battery overloads the shunt's range, a shunt has millivolts."""
    voltage, current = settings.voltage_meter, settings.current_meter
    if voltage is None or current is None or current.source is CurrentSource.DIRECT:
        return False
    return voltage.range_number >= _LOWEST_RANGE_OF_BATTERIES


def range_steps(current: CurrentMeterSettings) -> RangeSteps | None:
    """Return between which ranges the current meter may change: from 50 mV to 500 mV, if that is not forbidden."""
    lower, upper = RANGES[XDM1041Mode.MODE_VOLTAGE_DC][:2]
    if current.source is CurrentSource.DIRECT or current.range_number != lower.number or current.range_fixed:
        return None
    return RangeSteps(lower.number, upper.number, back_below=_STEP_BACK_BELOW * lower.full_scale)


def shift_clear_of_boundary_s(utc_s: float, interval_s: float) -> float:
    """Return by how much to put the first due time off, so that no due time falls on the end of an interval.

    Seconds, less than half a sample interval or 0.5 s. The ends of intervals lie on whole multiples of the report
    interval; where that is a multiple of the sample interval, every interval then holds the same number of samples.
    """
    clear_s = min(interval_s / 2, _CLEAR_OF_BOUNDARY_S)
    phase_s = utc_s % interval_s
    if phase_s < clear_s:
        return clear_s - phase_s
    return max(0.0, interval_s - phase_s + clear_s) if phase_s > interval_s - clear_s else 0.0
