"""The sampler: every sample interval it reads both meters at the same moment and makes a ``PowerSample``.

Its own thread keeps the time, asks both meters at once and puts their answers together; one ``MeterReader`` thread per
meter does the reading. Guarantees: due times are absolute on the monotonic clock, and one that was missed is skipped,
never caught up; a slow or absent meter never delays the other's samples; V and A of one sample were asked for within
5 ms of each other, or there is no kW.

What its owner may want to change is in two places: the meters in ``SerialPortReadWriter.__init__`` and the arithmetic
in ``do_fetch_params``. See "Customizing" in the README.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from averaging_buffer import GRACE_S, AveragingBuffer
from clock import Clock
from config_values import NO_OFFSET
from measurements import PowerSample
from meter_reader import MeterReader, Reading
from settings import CurrentSource, Rate, Settings
from state_log import StateLog
from worker import Worker
from xdm1041 import XDM1041, OpenPort, XDM1041Mode, XDM1041Rate

logger = logging.getLogger(__name__)

_VOLTAGE, _CURRENT = "voltage meter", "current meter"
_TOGETHER_S = 0.005  # queries that started further apart than this do not make a kW
_FIRST_SAMPLE_WITHIN_S = 4.0  # sampling begins then even if a meter is still absent
_CLEAR_OF_BOUNDARY_S = 0.25
_HEARTBEAT_S = 1.0
_PUNCTUAL_AGAIN_AFTER_S = 3600.0
_VERIFY_EACH_FROM_MS = 500  # at this sample interval and above, every sample has its settings check

_RATES = {Rate.SLOW: XDM1041Rate.SLOW, Rate.MEDIUM: XDM1041Rate.MEDIUM, Rate.FAST: XDM1041Rate.FAST}


@dataclass(slots=True, kw_only=True)
class _Slot:
    """One due time whose answers are being collected."""

    begun_mono_s: float
    awaited: set[str]
    readings: dict[str, Reading] = field(default_factory=dict)


class SerialPortReadWriter(Worker):
    """The sampler thread and the meters it reads. ``record`` is told each sample and must not block.

    ``open_port`` opens the meters' ports in place of pyserial's function, for the wire log.
    """

    def __init__(
        self,
        settings: Settings,
        buffer: AveragingBuffer,
        clock: Clock,
        record: Callable[[PowerSample], None] = lambda sample: None,
        open_port: OpenPort | None = None,
    ) -> None:
        super().__init__("sampler", clock)
        self.readers: dict[str, MeterReader] = {}
        self.counts: Counter[str] = Counter()
        self._verify_each = settings.serial.sample_interval_ms >= _VERIFY_EACH_FROM_MS
        self._interval_s = settings.serial.sample_interval_ms / 1000
        self._buffer = buffer
        self._record = record
        self._inbox: SimpleQueue[Reading | None] = SimpleQueue()
        self._punctuality = StateLog(logger, "sampling", clock)
        self._missed_mono_s = -math.inf
        self._begin_by_mono_s = math.inf
        self._due_mono_s = math.inf
        self._slots: dict[float, _Slot] = {}
        self._shunt_resistance_ohm: float | None = None
        self._polarity = 1.0
        self._zero = NO_OFFSET
        self._deadband_a = 0.0
        self._warned_of: str | None = None

        # Customizing: which meters there are, and what each of them measures on which range.
        # XDM1041(mode, number of the manual range, port); the numbers of the ranges stand in the README.
        if (voltage := settings.voltage_meter) is not None:
            self._add_meter(
                _VOLTAGE,
                XDM1041(
                    XDM1041Mode.MODE_VOLTAGE_DC,
                    voltage.range_number,
                    voltage.port,
                    rate=_RATES[voltage.rate],
                    serial_number=voltage.serial_number,
                    clock=clock,
                    open_port=open_port,
                ),
            )
        if (current := settings.current_meter) is not None:
            direct = current.source is CurrentSource.DIRECT
            self._add_meter(
                _CURRENT,
                XDM1041(
                    XDM1041Mode.MODE_CURRENT_DC if direct else XDM1041Mode.MODE_VOLTAGE_DC,
                    current.range_number,
                    current.port,
                    rate=_RATES[current.rate],
                    serial_number=current.serial_number,
                    clock=clock,
                    open_port=open_port,
                ),
            )
            self._shunt_resistance_ohm = None if direct else current.shunt_resistance_ohm
            self._polarity = -1.0 if current.reverse_polarity else 1.0
            self._zero = current.zero_offset
            self._deadband_a = current.deadband_a

    def do_fetch_params(
        self, start_mono_s: float, voltage_reading: float | None, current_reading: float | None, together: bool
    ) -> PowerSample:
        """Return the sample that two readings of one moment make.

        ``voltage_reading`` in V; ``current_reading`` in V across the shunt, or in A if the meter measures the current
        itself; each ``None`` if there is none. ``together`` is false if they were not taken at the same moment.
        The zero offset is subtracted at the shunt, a current within the deadband is none, and the power is of that.
        Customizing: this is where volts become amperes and kilowatts.
        """
        voltage_v = voltage_reading
        current_a = None
        if current_reading is not None:
            shunt_ohm = self._shunt_resistance_ohm
            if shunt_ohm is not None:
                current_reading = (current_reading - self._zero.offset_uv / 1e6) / shunt_ohm
            current_a = self._polarity * current_reading
            if abs(current_a) < self._deadband_a:
                current_a = 0.0
        power_kw = None
        if voltage_v is not None and current_a is not None and together:
            power_kw = voltage_v * current_a / 1000
        return PowerSample(start_mono_s=start_mono_s, voltage_v=voltage_v, current_a=current_a, power_kw=power_kw)

    def meters(self) -> dict[str, dict[str, object]]:
        """Return the state of each meter, for ``--status``: whether it works, its trouble, serial number and port."""
        return {name: reader.state() for name, reader in self.readers.items()}

    def start(self, on_crash: Callable[[], None]) -> None:
        """Start the meters' threads and the sampler's own."""
        self._begin_by_mono_s = self.clock.mono_s() + _FIRST_SAMPLE_WITHIN_S
        for reader in self.readers.values():
            reader.start(on_crash)
        super().start(on_crash)

    def step(self) -> None:
        """Wait for the next due time or the next answer, whichever is first, and deal with it."""
        now_mono_s = self.clock.mono_s()
        if math.isinf(self._due_mono_s):
            self._begin_if_ready(now_mono_s)
        if now_mono_s >= self._due_mono_s:
            self._ask_meters(now_mono_s)
        self._complete_overdue(now_mono_s)
        self._take_next(self._wake_at_mono_s(now_mono_s))

    def wake(self) -> None:
        """End the wait of a step."""
        self._inbox.put(None)

    def request_stop(self) -> None:
        """Stop sampling: no further due time; an answer under way still counts if it comes within 60 ms."""
        super().request_stop()
        for reader in self.readers.values():
            reader.request_stop()

    def finish(self) -> None:
        """Complete the samples that are under way."""
        deadline_mono_s = self.clock.mono_s() + GRACE_S
        while self._slots and self.clock.mono_s() < deadline_mono_s:
            self._take_next(deadline_mono_s)
        for slot in list(self._slots.values()):
            self._complete(slot)

    def join(self, deadline_mono_s: float) -> bool:
        """Wait for the sampler and its meters' threads to end."""
        ended = [reader.join(deadline_mono_s) for reader in self.readers.values()]
        return super().join(deadline_mono_s) and all(ended)

    def _add_meter(self, name: str, meter: XDM1041) -> None:
        self.readers[name] = MeterReader(
            name, meter, self.clock, verify_each=self._verify_each, deliver=self._inbox.put, on_ready=self._on_ready
        )

    def _on_ready(self) -> None:
        """Let sampling begin; warn once of a zero offset that is another meter's. Called from the meters' threads."""
        self.wake()
        measured_with = self._zero.serial_number
        reader = self.readers.get(_CURRENT)
        serial_number = reader.state()["serial_number"] if reader and measured_with else None
        if serial_number not in (None, measured_with, self._warned_of):
            self._warned_of = str(serial_number)
            logger.warning(
                "current meter: xdm_current_zero_offset was measured with meter %s, but this is meter %s: it is "
                "subtracted all the same, but the current may be wrong by a few hundredths of an ampere or more. "
                "Measure it anew with --zero --write",
                measured_with,
                serial_number,
            )

    def _begin_if_ready(self, now_mono_s: float) -> None:
        """Fix the due times once: when all meters are ready, or 4 s after the start at the latest."""
        if now_mono_s >= self._begin_by_mono_s or all(reader.is_ready for reader in self.readers.values()):
            self._begin_by_mono_s = math.inf
            self._due_mono_s = now_mono_s + _shift_clear_of_boundary_s(self.clock.utc_s(), self._interval_s)

    def _ask_meters(self, now_mono_s: float) -> None:
        missed = math.floor((now_mono_s - self._due_mono_s) / self._interval_s)
        if missed:
            self.counts["missed"] += missed
            self._missed_mono_s = now_mono_s
            self._punctuality.failed("missed", f"{missed} samples were missed: this computer was too busy, or asleep")
        elif now_mono_s - self._missed_mono_s > _PUNCTUAL_AGAIN_AFTER_S:
            self._punctuality.well("is punctual again")
        self._due_mono_s += (missed + 1) * self._interval_s
        slot = _Slot(begun_mono_s=now_mono_s, awaited=set())
        self._buffer.begin(now_mono_s)
        for name, reader in self.readers.items():
            if reader.request(now_mono_s):
                slot.awaited.add(name)
            elif reader.is_ready:
                self.counts[f"{name} busy"] += 1
        self._slots[now_mono_s] = slot
        if not slot.awaited:
            self._complete(slot)

    def _take_next(self, until_mono_s: float) -> None:
        try:
            reading = self._inbox.get(timeout=self.clock.timeout_s(until_mono_s))
        except Empty:
            return
        if reading is None:
            return
        slot = self._slots.get(reading.begun_mono_s)
        if slot is None:
            self.counts[f"{reading.meter} late"] += 1
            logger.debug("%s: a reply came after the interval of its sample had closed", reading.meter)
            return
        slot.readings[reading.meter] = reading
        if slot.readings.keys() == slot.awaited:
            self._complete(slot)

    def _wake_at_mono_s(self, now_mono_s: float) -> float:
        settle_by = [self._buffer.settle_by_mono_s(begun_mono_s) for begun_mono_s in self._slots]
        return min(self._due_mono_s, self._begin_by_mono_s, now_mono_s + _HEARTBEAT_S, *settle_by)

    def _complete_overdue(self, now_mono_s: float) -> None:
        """Complete the samples whose interval is about to close with what there is of them."""
        for slot in list(self._slots.values()):
            if now_mono_s >= self._buffer.settle_by_mono_s(slot.begun_mono_s):
                self._complete(slot)

    def _complete(self, slot: _Slot) -> None:
        del self._slots[slot.begun_mono_s]
        voltage, current = slot.readings.get(_VOLTAGE), slot.readings.get(_CURRENT)
        starts = [reading.start_mono_s for reading in slot.readings.values()] or [slot.begun_mono_s]
        together = max(starts) - min(starts) <= _TOGETHER_S
        if not together:
            self.counts["not together"] += 1
        sample = self.do_fetch_params(
            min(starts), voltage.value if voltage else None, current.value if current else None, together
        )
        sample = replace(sample, refused=tuple(_refusals(slot)))
        self._buffer.complete(slot.begun_mono_s, sample)
        if sample.readings_count:
            self._record(sample)
        logger.debug("%s", sample)


def _refusals(slot: _Slot) -> Iterator[str]:
    """Yield the reason for each meter that was asked and gave no value."""
    for name in sorted(slot.awaited):
        reading = slot.readings.get(name)
        if reading is None:
            yield "late"
        elif reading.refused is not None:
            yield reading.refused


def _shift_clear_of_boundary_s(utc_s: float, interval_s: float) -> float:
    """Return by how much to put the first due time off, so that no due time falls on the end of an interval.

    Seconds, less than half a sample interval or 0.5 s. The ends of intervals lie on whole multiples of the report
    interval; where that is a multiple of the sample interval, every interval then holds the same number of samples.
    """
    clear_s = min(interval_s / 2, _CLEAR_OF_BOUNDARY_S)
    phase_s = utc_s % interval_s
    if phase_s < clear_s:
        return clear_s - phase_s
    return max(0.0, interval_s - phase_s + clear_s) if phase_s > interval_s - clear_s else 0.0
