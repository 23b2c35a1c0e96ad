"""The sampler: every sample interval it reads both meters at the same moment and makes a ``PowerSample``.

Its own thread keeps the time, asks both meters at once and puts their answers together; one ``MeterReader`` thread per
meter does the reading. Guarantees: due times are absolute on the monotonic clock, and one that was missed is skipped,
never caught up; a slow or absent meter never delays the other's samples; V and A of one sample were asked for within
5 ms of each other, or there is no kW; no value counts unless the settings of its meter were verified after it was read.

From a sample interval of 500 ms on every sample has its check of the settings. Below, a check is made every
``verify_interval`` and behind the last due time of each interval; until then the samples stay under way.

What its owner may want to change is in two places: the meters in ``SerialPortReadWriter.__init__`` and the arithmetic
in ``do_fetch_params``. See "Customizing" in the README.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from queue import Empty, SimpleQueue

from averaging_buffer import AveragingBuffer
from clock import Clock
from config_values import NO_OFFSET
from measurements import CURRENT, VOLTAGE, PowerSample
from meter_reader import MeterReader
from reading_checks import RangeSteps
from sample_judge import SampleJudge
from sample_slots import UNVERIFIED, Check, Reading, Slot, Slots
from sampling_setup import limits, port_book, range_steps, shift_clear_of_boundary_s, swaps_show
from settings import CurrentSource, Rate, Settings
from state_log import StateLog
from worker import Worker
from xdm1041 import XDM1041, OpenPort, XDM1041Mode, XDM1041Rate

logger = logging.getLogger(__name__)

_TOGETHER_S = 0.005  # queries that started further apart than this do not make a kW
_FIRST_SAMPLE_WITHIN_S = 4.0  # sampling begins then even if a meter is still absent
_HEARTBEAT_S = 1.0
_PUNCTUAL_AGAIN_AFTER_S = 3600.0
_VERIFY_EACH_FROM_MS = 500  # at this sample interval and above, every sample has its settings check
_GRACE_FOR_CHECKS_S = 0.5  # a live interval must reach the cloud within 1 s of its end
_AGAIN_WITHIN_S, _AGAIN_WITHIN_FAST_S = 0.1, 0.02  # a meter that answers sooner is asked again to confirm
_CHECK_EVERY_S = 2.0  # between due times that are far apart: so that a meter is ready again in time
_VERIFY_UNTOUCHED_WITHIN_S = 5.0

_RATES = {Rate.SLOW: XDM1041Rate.SLOW, Rate.MEDIUM: XDM1041Rate.MEDIUM, Rate.FAST: XDM1041Rate.FAST}


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
        self._verify_interval_s = settings.serial.verify_interval_ms / 1000
        self._stale_after_s = settings.serial.stale_after_ms / 1000
        self._buffer = buffer
        buffer.sample_interval_s = self._interval_s
        if not self._verify_each:
            buffer.grace_s = _GRACE_FOR_CHECKS_S
        self._record = record
        self._inbox: SimpleQueue[Reading | Check | None] = SimpleQueue()
        self._punctuality = StateLog(logger, "sampling", clock)
        self._missed_mono_s = -math.inf
        self._begin_by_mono_s = math.inf
        self._due_mono_s = self._look_mono_s = math.inf
        self._slots = Slots()
        self._compared: list[tuple[bool, str, str | None]] = []
        self._shunt_resistance_ohm: float | None = None
        self._polarity = 1.0
        self._zero = NO_OFFSET
        self._deadband_a = 0.0
        self._warned_of: str | None = None

        # Customizing: which meters there are, and what each of them measures on which range.
        # XDM1041(mode, number of the manual range, port); the numbers of the ranges stand in the README.
        ports = port_book(settings, open_port)
        if (voltage := settings.voltage_meter) is not None:
            self._add_meter(
                VOLTAGE,
                XDM1041(
                    XDM1041Mode.MODE_VOLTAGE_DC,
                    voltage.range_number,
                    voltage.port,
                    rate=_RATES[voltage.rate],
                    serial_number=voltage.serial_number,
                    ports=ports,
                    clock=clock,
                ),
            )
        if (current := settings.current_meter) is not None:
            direct = current.source is CurrentSource.DIRECT
            self._add_meter(
                CURRENT,
                XDM1041(
                    XDM1041Mode.MODE_CURRENT_DC if direct else XDM1041Mode.MODE_VOLTAGE_DC,
                    current.range_number,
                    current.port,
                    rate=_RATES[current.rate],
                    serial_number=current.serial_number,
                    ports=ports,
                    clock=clock,
                ),
                range_steps(current),
            )
            self._shunt_resistance_ohm = None if direct else current.shunt_resistance_ohm
            self._polarity = -1.0 if current.reverse_polarity else 1.0
            self._zero = current.zero_offset
            self._deadband_a = current.deadband_a
        self._judge = SampleJudge(limits(settings), clock, watch_swaps=swaps_show(settings))
        self._look_before_s = max(reader.meter.look_before_s for reader in self.readers.values())

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

    @property
    def is_sampling(self) -> bool:
        """Whether sampling has begun: 4 s after the start at the latest, whether the meters are there or not."""
        return not math.isinf(self._due_mono_s)

    @property
    def trouble(self) -> str | None:
        """What is wrong with what the two meters say together; what is wrong with one alone its reader knows."""
        trouble = next(filter(None, map(self._judge.trouble, self.readers)), None)
        return f"the two meters: {trouble}" if trouble is not None else None

    def meters(self) -> dict[str, dict[str, object]]:
        """Return the state of each meter, for ``--status``: whether it works, its trouble, serial number and port."""
        states = {name: reader.state() for name, reader in self.readers.items()}
        for name, state in states.items():
            if trouble := self._judge.trouble(name):
                state.update(works=False, trouble=state["trouble"] or trouble)
        return states

    def verify_untouched(self, names: Collection[str]) -> dict[str, str | None]:
        """Return of each of these meters why its settings are not what they were set to; ``None`` if they are.

        For samples that an earlier run took and did not verify: nothing is set up. Call it before ``start()``. Blocks
        for 5 s at most; what is not known by then is refused.
        """
        verdicts: dict[str, str | None] = dict.fromkeys(names, UNVERIFIED)

        def verify(reader: MeterReader) -> None:
            verdicts[reader.name] = reader.verify_untouched()

        threads = [
            threading.Thread(target=verify, args=(reader,), daemon=True)
            for name, reader in self.readers.items()
            if name in verdicts
        ]
        for thread in threads:
            thread.start()
        deadline_mono_s = self.clock.mono_s() + _VERIFY_UNTOUCHED_WITHIN_S
        for thread in threads:
            thread.join(self.clock.timeout_s(deadline_mono_s))
        return dict(verdicts)

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
        self._compare_meters()
        if now_mono_s >= self._look_mono_s:
            self._look_at_meters(now_mono_s)
        if now_mono_s >= self._due_mono_s:
            self._ask_meters(now_mono_s)
        self._complete_overdue(now_mono_s)
        self._take_next(self._wake_at_mono_s(now_mono_s))

    def wake(self) -> None:
        """End the wait of a step."""
        self._inbox.put(None)

    def finish(self) -> None:
        """Complete the samples that are under way: what comes in the buffer's grace still counts. Ends the meters."""
        for name, reader in self.readers.items():
            if self._slots.unverified_since_mono_s(name) < math.inf:
                reader.check()
        deadline_mono_s = self.clock.mono_s() + self._buffer.grace_s
        while self._slots and self.clock.mono_s() < deadline_mono_s:
            self._take_next(deadline_mono_s)
        self._stop_meters()
        for slot in self._slots:
            self._give_up(slot)

    def join(self, deadline_mono_s: float) -> bool:
        """Wait for the sampler and its meters' threads to end."""
        ended = [super().join(deadline_mono_s)]
        self._stop_meters()
        return all([*ended, *(reader.join(deadline_mono_s) for reader in self.readers.values())])

    def _stop_meters(self) -> None:
        for reader in self.readers.values():
            reader.request_stop()

    def _add_meter(self, name: str, meter: XDM1041, steps: RangeSteps | None = None) -> None:
        self.readers[name] = MeterReader(
            name,
            meter,
            self.clock,
            deliver=self._inbox.put,
            on_ready=self._on_ready,
            again_within_s=_AGAIN_WITHIN_S if self._verify_each else _AGAIN_WITHIN_FAST_S,
            stale_after_s=self._stale_after_s,
            steps=steps,
        )

    def _on_ready(self) -> None:
        """Let sampling begin; warn once of a zero offset that is another meter's. Called from the meters' threads."""
        self.wake()
        measured_with = self._zero.serial_number
        reader = self.readers.get(CURRENT)
        serial_number = reader.state()["serial_number"] if reader and measured_with else None
        if serial_number not in (None, measured_with, self._warned_of):
            self._warned_of = str(serial_number)
            logger.warning(
                "current meter: xdm_current_zero_offset was measured with meter %s, but this is meter %s: the current "
                "is wrong by the difference of their zeros. Open the contactor and take it anew with --zero --write",
                measured_with,
                serial_number,
            )

    def _begin_if_ready(self, now_mono_s: float) -> None:
        """Fix the due times once: when all meters are ready, or 4 s after the start at the latest."""
        if now_mono_s >= self._begin_by_mono_s or all(reader.is_ready for reader in self.readers.values()):
            self._begin_by_mono_s = math.inf
            self._due_mono_s = now_mono_s + shift_clear_of_boundary_s(self.clock.utc_s(), self._interval_s)

    def _compare_meters(self) -> None:
        """Have the meters compared whenever one of them has become ready."""
        ready = [(reader.is_ready, reader.meter.port, reader.serial_number) for reader in self.readers.values()]
        if ready != self._compared:
            self._compared = ready
            self._judge.compare(self.readers)

    def _ask_meters(self, now_mono_s: float) -> None:
        missed = math.floor((now_mono_s - self._due_mono_s) / self._interval_s)
        if missed:
            self.counts["missed"] += missed
            self._missed_mono_s = now_mono_s
            self._punctuality.failed("missed", f"{missed} samples were missed: this computer was too busy, or asleep")
        elif now_mono_s - self._missed_mono_s > _PUNCTUAL_AGAIN_AFTER_S:
            self._punctuality.well("is punctual again")
        self._due_mono_s += (missed + 1) * self._interval_s
        self._plan_look(now_mono_s)
        slot = Slot(begun_mono_s=now_mono_s, awaited=set())
        self._buffer.begin(now_mono_s)
        for name, reader in self.readers.items():
            if reader.request(now_mono_s, verify=self._is_check_due(name, now_mono_s)):
                slot.awaited.add(name)
            elif reader.is_ready:
                self.counts[f"{name} busy"] += 1
        self._slots.begin(slot)
        if not slot.awaited:
            self._complete(slot)

    def _look_at_meters(self, now_mono_s: float) -> None:
        """Have the settings verified while there is time to mend them; at last, look for zeros."""
        if now_mono_s >= self._due_mono_s - self._look_before_s:
            self._look_mono_s = math.inf
            for reader in self.readers.values():
                reader.look()
        else:
            self._plan_look(now_mono_s)
            for reader in self.readers.values():
                reader.check()

    def _plan_look(self, now_mono_s: float) -> None:
        if self._interval_s > self._look_before_s:
            self._look_mono_s = min(now_mono_s + _CHECK_EVERY_S, self._due_mono_s - self._look_before_s)

    def _is_check_due(self, meter: str, now_mono_s: float) -> bool:
        """Return whether a reading that is asked for now needs a check of the settings behind it."""
        since_mono_s = min(self._slots.unverified_since_mono_s(meter), now_mono_s)
        end_mono_s = self._buffer.end_mono_s
        return (
            self._verify_each
            or since_mono_s <= end_mono_s < self._due_mono_s
            or self._due_mono_s - since_mono_s > self._verify_interval_s
        )

    def _take_next(self, until_mono_s: float) -> None:
        try:
            message = self._inbox.get(timeout=self.clock.timeout_s(until_mono_s))
        except Empty:
            return
        if isinstance(message, Check):
            for slot in self._slots.settle(message):
                self._complete_if_ready(slot)
        elif message is not None:
            slot_of_it = self._slots.add(message)
            if slot_of_it is not None:
                self._note_unverified(slot_of_it)
                self._complete_if_ready(slot_of_it)
            else:
                self.counts[f"{message.meter} late"] += 1
                logger.debug("%s: a reply came after the interval of its sample had closed", message.meter)

    def _wake_at_mono_s(self, now_mono_s: float) -> float:
        settle_by = (self._buffer.settle_by_mono_s(slot.begun_mono_s) for slot in self._slots)
        oldest_by = next(settle_by, math.inf)
        return min(self._due_mono_s, self._look_mono_s, self._begin_by_mono_s, now_mono_s + _HEARTBEAT_S, oldest_by)

    def _complete_overdue(self, now_mono_s: float) -> None:
        """Complete the samples whose interval is about to close with what there is of them."""
        for slot in self._slots:
            if now_mono_s < self._buffer.settle_by_mono_s(slot.begun_mono_s):
                break
            self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        slot.give_up()
        self._complete(slot)

    def _note_unverified(self, slot: Slot) -> None:
        """Have a sample written down that all meters have answered for, but that is not verified yet."""
        if slot.is_read and slot.unverified:
            slot.sample = self._sample(slot)
            self._record(slot.sample)

    def _complete_if_ready(self, slot: Slot) -> None:
        if slot.is_complete:
            self._complete(slot)

    def _complete(self, slot: Slot) -> None:
        self._slots.take_out(slot)
        sample = self._sample(slot) if slot.sample is None else slot.sample
        for meter in sample.unverified:
            sample = sample.settled(meter, slot.refusal(meter))
        self._buffer.complete(slot.begun_mono_s, sample)
        if sample.readings_count:
            self._record(sample)
        logger.debug("%s", sample)

    def _sample(self, slot: Slot) -> PowerSample:
        """Return the sample that a slot makes, without what cannot be true."""
        starts = [reading.start_mono_s for reading in slot.readings.values()] or [slot.begun_mono_s]
        together = max(starts) - min(starts) <= _TOGETHER_S
        if not together:
            self.counts["not together"] += 1
        sample = self.do_fetch_params(min(starts), slot.value(VOLTAGE), slot.value(CURRENT), together)
        refusals = {name: refusal for name in slot.awaited if (refusal := slot.refusal(name)) is not None}
        sample = self._judge.judge(sample, refusals)
        return replace(
            sample,
            unverified=tuple(
                name
                for name, value in ((VOLTAGE, sample.voltage_v), (CURRENT, sample.current_a))
                if name in slot.unverified and value is not None
            ),
        )
