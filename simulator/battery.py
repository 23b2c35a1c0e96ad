"""A battery for the virtual meters: a model that never repeats by accident, or a recording played in a loop.

Everything is a function of the monotonic time, so voltage and current of one moment belong together whoever asks and
in whatever order. No thread, no state, no clock.

Sign: charging is positive, discharging negative, as everywhere (rule 1 of ``measurements.py``).
"""

from __future__ import annotations

import bisect
import csv
import functools
import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

SHUNT_OHM = 0.0006667
"""A 75 A / 50 mV shunt (section 5.1 of ``reference/xdm1041.md``)."""


class Battery(ABC):
    """A battery with a shunt in its cable: what a voltage meter and a shunt meter see of it."""

    def __init__(self, *, shunt_ohm: float = SHUNT_OHM, leads_reversed: bool = False) -> None:
        self.shunt_ohm = shunt_ohm
        self.leads_reversed = leads_reversed

    @abstractmethod
    def voltage_v(self, mono_s: float) -> float:
        """Return the voltage at the terminals at this moment, in volts."""

    @abstractmethod
    def current_a(self, mono_s: float) -> float:
        """Return the current at this moment, in amperes; charging is positive."""

    def shunt_v(self, mono_s: float) -> float:
        """Return what the leads across the shunt give, in volts: positive for charging unless they are reversed."""
        across_v = self.current_a(mono_s) * self.shunt_ohm
        return -across_v if self.leads_reversed else across_v


_CYCLE_S = 240.0
_CHARGE_S = (20.0, 110.0)
_DISCHARGE_S = (130.0, 235.0)
_BURST_SLOT_S = 2.5
_BURST_CHANCE = 0.45
_CHARGE_A = 38.0
_DISCHARGE_A = -14.0
_BURST_A = (-62.0, -25.0)
_REST_A = -0.4
_RIPPLE_A = 0.8
_SMOOTH_S = 0.15  # the ripple over this time is a polynomial, as far as the rule of three points can tell
_GAUSS = ((-math.sqrt(3 / 5), 5 / 9), (0.0, 8 / 9), (math.sqrt(3 / 5), 5 / 9))


class BatteryModel(Battery):
    """A 14S pack, 46 to 58 V: rests, is charged, rests, is discharged with bursts; 4 minutes, over and over.

    The current stays within -70 and +70 A, so that it fits a meter's 50 mV range across ``SHUNT_OHM``. ``seed`` decides
    when the bursts come and how strong they are; no two cycles have the same ones. ``cycle_s`` stretches or shortens
    the schedule, bursts excepted.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        cycle_s: float = _CYCLE_S,
        internal_ohm: float = 0.035,
        shunt_ohm: float = SHUNT_OHM,
        leads_reversed: bool = False,
    ) -> None:
        super().__init__(shunt_ohm=shunt_ohm, leads_reversed=leads_reversed)
        self._burst = functools.lru_cache(maxsize=16)(functools.partial(_burst, seed))
        self._stretch = cycle_s / _CYCLE_S
        self._internal_ohm = internal_ohm

    def current_a(self, mono_s: float) -> float:
        """Return the current at this moment, in amperes, -70 to +70; charging is positive."""
        phase_s = self._phase_s(mono_s)
        if _CHARGE_S[0] <= phase_s < _CHARGE_S[1]:
            return _CHARGE_A + self._ripple_a(mono_s)
        if _DISCHARGE_S[0] <= phase_s < _DISCHARGE_S[1]:
            return _DISCHARGE_A + self._burst_a(mono_s) + self._ripple_a(mono_s)
        return _REST_A

    def voltage_v(self, mono_s: float) -> float:
        """Return the voltage at this moment, in volts, 46 to 58: it sags under load and rises when charged."""
        return self._open_circuit_v(mono_s) + self.current_a(mono_s) * self._internal_ohm

    def _phase_s(self, mono_s: float) -> float:
        return (mono_s / self._stretch) % _CYCLE_S

    def _open_circuit_v(self, mono_s: float) -> float:
        empty_v, full_v = 50.4, 55.6
        phase_s = self._phase_s(mono_s)
        charged = _progress(phase_s, *_CHARGE_S) - _progress(phase_s, *_DISCHARGE_S)
        return empty_v + (full_v - empty_v) * charged

    def _ripple_a(self, mono_s: float) -> float:
        return _RIPPLE_A * math.sin(mono_s * math.tau / 3.7) * math.cos(mono_s * math.tau / 0.61)

    def _burst_a(self, mono_s: float) -> float:
        """Return the extra load of the burst in progress, 0 between bursts; each slot of 2.5 s holds at most one."""
        slot, into_slot_s = divmod(mono_s, _BURST_SLOT_S)
        start_s, end_s, burst_a = self._burst(slot)
        return burst_a if start_s <= into_slot_s < end_s else 0.0

    def jumps_s(self, from_mono_s: float, to_mono_s: float) -> list[float]:
        """Return the moments between these two at which the current may jump or bend, in rising order."""
        period_s = _CYCLE_S * self._stretch
        cycles = range(int(from_mono_s // period_s), int(to_mono_s // period_s) + 1)
        jumps = {(cycle * _CYCLE_S + at) * self._stretch for cycle in cycles for at in (0, *_CHARGE_S, *_DISCHARGE_S)}
        for slot in range(int(from_mono_s // _BURST_SLOT_S), int(to_mono_s // _BURST_SLOT_S) + 1):
            start_s, end_s, _ = self._burst(float(slot))
            jumps |= {slot * _BURST_SLOT_S + at for at in (0.0, start_s, end_s)}
        return sorted(at for at in jumps if from_mono_s < at < to_mono_s)

    def energy_kwh(self, from_mono_s: float, to_mono_s: float) -> tuple[float, float]:
        """Return the integrals of V * I over this time where it charges and where it discharges: kWh, both positive."""
        inwards: list[float] = []
        outwards: list[float] = []
        for start, end in itertools.pairwise([from_mono_s, *self.jumps_s(from_mono_s, to_mono_s), to_mono_s]):
            count = math.ceil((end - start) / _SMOOTH_S)
            for number in range(count):  # between two jumps the current never changes its sign
                kws = self._smooth_kws(start + (end - start) * number / count, (end - start) / count)
                (inwards if kws > 0 else outwards).append(abs(kws))
        return math.fsum(inwards) / 3600, math.fsum(outwards) / 3600

    def _smooth_kws(self, from_mono_s: float, seconds: float) -> float:
        moments = ((from_mono_s + seconds * (1 + place) / 2, weight) for place, weight in _GAUSS)
        return seconds / 2 * sum(weight * self.voltage_v(at) * self.current_a(at) / 1000 for at, weight in moments)


def _burst(seed: int, slot: float) -> tuple[float, float, float]:
    """Return when the burst of a slot begins and ends within it, and its extra load: seconds, seconds, amperes."""
    chance = random.Random(f"{seed}/{slot:.0f}")
    if chance.random() >= _BURST_CHANCE:
        return (0.0, 0.0, 0.0)
    start_s = chance.uniform(0.0, 1.0)
    length_s = chance.uniform(0.2, _BURST_SLOT_S - start_s)
    return (start_s, start_s + length_s, chance.uniform(*_BURST_A) - _DISCHARGE_A)


def _progress(at: float, start: float, end: float) -> float:
    """Return how far ``at`` is on the way from ``start`` to ``end``: 0 before, 1 after."""
    return min(1.0, max(0.0, (at - start) / (end - start)))


class BadRecording(ValueError):
    """A battery recording cannot be used. Correct the file; the message says where and what.

    Examples: a column is missing, a number is not one, time goes backwards, there are fewer than two rows.
    """


class RecordedBattery(Battery):
    """A recorded battery, played from its first row at ``mono_s`` = ``start_mono_s`` and over again at its end."""

    COLUMNS = ("seconds", "voltage_v", "current_a")

    def __init__(
        self,
        rows: Sequence[tuple[float, float, float]],
        *,
        interpolation: Literal["linear", "step"] = "linear",
        start_mono_s: float = 0.0,
        shunt_ohm: float = SHUNT_OHM,
        leads_reversed: bool = False,
    ) -> None:
        """Take rows of seconds, volts and amperes, at least two, in rising order of time."""
        super().__init__(shunt_ohm=shunt_ohm, leads_reversed=leads_reversed)
        self._seconds = tuple(row[0] for row in rows)
        self._voltages_v = tuple(row[1] for row in rows)
        self._currents_a = tuple(row[2] for row in rows)
        self._is_linear = interpolation == "linear"
        self._start_mono_s = start_mono_s

    @classmethod
    def from_csv(
        cls,
        path: Path | str,
        *,
        interpolation: Literal["linear", "step"] = "linear",
        start_mono_s: float = 0.0,
        shunt_ohm: float = SHUNT_OHM,
        leads_reversed: bool = False,
    ) -> RecordedBattery:
        """Return the battery recorded in a CSV file with the columns ``seconds,voltage_v,current_a``.

        The last row ends the loop: with ``step`` its values are never seen. Raises ``BadRecording``.
        """
        rows = _read_rows(Path(path))
        return cls(
            rows,
            interpolation=interpolation,
            start_mono_s=start_mono_s,
            shunt_ohm=shunt_ohm,
            leads_reversed=leads_reversed,
        )

    @property
    def duration_s(self) -> float:
        """The length of the recording, in seconds."""
        return self._seconds[-1] - self._seconds[0]

    def voltage_v(self, mono_s: float) -> float:
        """Return the recorded voltage at this moment, in volts."""
        return self._at(self._voltages_v, mono_s)

    def current_a(self, mono_s: float) -> float:
        """Return the recorded current at this moment, in amperes; charging is positive."""
        return self._at(self._currents_a, mono_s)

    def _at(self, column: tuple[float, ...], mono_s: float) -> float:
        seconds = self._seconds[0] + (mono_s - self._start_mono_s) % self.duration_s
        row = min(bisect.bisect_right(self._seconds, seconds), len(self._seconds) - 1) - 1
        if not self._is_linear:
            return column[row]
        part = (seconds - self._seconds[row]) / (self._seconds[row + 1] - self._seconds[row])
        return column[row] + (column[row + 1] - column[row]) * part


def _read_rows(path: Path) -> list[tuple[float, float, float]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [column for column in RecordedBattery.COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise BadRecording(f"{path}: no column {', '.join(missing)} in its first line")
            rows: list[tuple[float, float, float]] = []
            for row in reader:
                seconds, voltage_v, current_a = _numbers(row, f"{path}, line {reader.line_num}")
                if rows and seconds <= rows[-1][0]:
                    raise BadRecording(f"{path}, line {reader.line_num}: seconds must rise, {seconds:g} does not")
                rows.append((seconds, voltage_v, current_a))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise BadRecording(f"{path}: cannot be read as CSV: {exc}") from exc
    if len(rows) < 2:
        raise BadRecording(f"{path}: a recording needs at least two rows, this one has {len(rows)}")
    return rows


def _numbers(row: dict[str, str], where: str) -> tuple[float, float, float]:
    numbers = []
    for column in RecordedBattery.COLUMNS:
        text = row[column]
        try:
            number = float(text)
        except (TypeError, ValueError) as exc:
            raise BadRecording(f"{where}: {column} is {text!r}, which is no number") from exc
        if not math.isfinite(number):
            raise BadRecording(f"{where}: {column} is {text!r}, which is no finite number")
        numbers.append(number)
    return numbers[0], numbers[1], numbers[2]
