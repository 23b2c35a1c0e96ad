"""What may not be reported although both meters work: what cannot be true, and what may be the other meter's.

Used by the sampler thread alone. It takes values out of samples, gives the reason for each, and logs where that begins
and ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from clock import Clock
from measurements import BEYOND_ALL, CURRENT, VOLTAGE, PowerSample
from meter_reader import MeterReader
from reading_checks import Limits, SwapWatch
from state_log import StateLog

logger = logging.getLogger(__name__)

SWAPPED, IMPLAUSIBLE, NOT_FINITE = "swapped", "implausible", "not finite"


class SampleJudge:
    """Judges the samples of two meters. ``watch_swaps``: swapped meters would show."""

    def __init__(self, limits: Mapping[str, Limits], clock: Clock, *, watch_swaps: bool) -> None:
        self._limits = limits
        self._implausible = {name: StateLog(logger, name, clock) for name in limits}
        self._swap_watch = SwapWatch() if watch_swaps else None
        self._swapped = StateLog(logger, "the two meters", clock)
        self._moved = StateLog(logger, "ports", clock)
        self._twins = StateLog(logger, "the two meters", clock)

    def trouble(self, name: str) -> str | None:
        """Return why nothing is reported of a meter that works, ``None`` if something is."""
        return self._swapped.message or self._implausible[name].message

    def judge(self, sample: PowerSample, refusals: Mapping[str, str]) -> PowerSample:
        """Return a sample without what may not be reported. ``refusals``: why meters that were asked gave nothing."""
        reasons = dict(refusals)
        if self._may_be_swapped(sample, refusals.get(CURRENT)):
            reasons[VOLTAGE] = SWAPPED
        for name, value, unit in ((VOLTAGE, sample.voltage_v, "V"), (CURRENT, sample.current_a, "A")):
            if value is None or name in reasons:
                continue
            if not abs(value) < BEYOND_ALL:
                reasons[name] = NOT_FINITE  # only a customised do_fetch_params makes such a number
            elif self._is_implausible(name, value, unit):
                reasons[name] = IMPLAUSIBLE
        if sample.power_kw is not None and not abs(sample.power_kw) < BEYOND_ALL:
            sample = replace(sample, power_kw=None)
        if VOLTAGE in reasons:
            sample = replace(sample, voltage_v=None, power_kw=None)
        if CURRENT in reasons:
            sample = replace(sample, current_a=None, power_kw=None)
        return replace(sample, refused=tuple(reasons[name] for name in sorted(reasons)))

    def compare(self, readers: Mapping[str, MeterReader]) -> None:
        """Tell if both meters say that they are the same one, or one is not on its port."""
        numbers = [each.serial_number for each in readers.values() if each.serial_number is not None]
        if len(set(numbers)) < len(numbers):
            self._twins.failed(
                "twins",
                f"both say that they have serial number {numbers[0]}: only their ports tell which is which. Leave "
                "xdm_voltage_serial and xdm_current_serial empty, and never exchange the cables",
            )
        elif len(numbers) == len(readers):
            self._twins.well("have different serial numbers")
        for name, reader in readers.items():
            if reader.is_ready and reader.has_moved:
                self._moved.failed(
                    "moved",
                    f"the {name} was found on {reader.meter.port} by its serial number, and not on its own port: the "
                    "cables are exchanged, or the adapters have other names now. It is used where it is; nothing is "
                    "lost. Correct config.cfg when convenient",
                )
        if all(each.is_ready and not each.has_moved for each in readers.values()):
            self._moved.well("are on their own ports")

    def _is_implausible(self, name: str, value: float, unit: str) -> bool:
        excluded = self._limits[name].exclude(value)
        if excluded:
            self._implausible[name].failed(
                IMPLAUSIBLE,
                f"{value:.6g} {unit} is not between the limits that config.cfg has for it, and is not reported. If it "
                "is true, widen the limits; else look at the wiring and at the meter",
            )
        else:
            self._implausible[name].well("is within its limits again")
        return excluded

    def _may_be_swapped(self, sample: PowerSample, current_refusal: str | None) -> bool:
        """Return whether the voltage of a sample is perhaps that of the shunt."""
        if self._swap_watch is None:
            return False
        overloaded = current_refusal == "Overload"
        doubtful = self._swap_watch.doubts(sample.voltage_v, sample.current_a, overloaded=overloaded)
        if self._swap_watch.is_certain:
            self._swapped.failed(
                SWAPPED,
                "they seem swapped: the current meter is beyond its range, and the voltage meter shows millivolts. "
                "Nothing of either is reported. Exchange their cables, or the two ports in config.cfg",
            )
        elif not doubtful and (sample.voltage_v is not None or sample.current_a is not None):
            self._swapped.well("are where they should be again")
        return doubtful
