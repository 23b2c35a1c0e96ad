"""A virtual XDM1041 at byte level: a state machine without a thread and without input or output of its own.

Bytes go in with ``feed()``; replies come out of ``take_due()`` once their time has come, which ``next_due_mono_s()``
tells. A port (``ports.py``) moves them to and from a pty or a socket; a test with a clock of its own needs no port.

What is imitated is section 7 of ``reference/xdm1041.md`` and what it rests on: how a command is collected, the ten
slots it waits in, the main loop that is now and then busy with something else, and silence wherever the real meter
is silent. The same seed, clock and calls give the same bytes.

Thread-safe: the port's thread serves while a test turns knobs and reads ``served``. It guarantees order of time, not
order of questions: faults and, if ``serves_in_slot_order``, the firmware itself may answer out of turn.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from clock import Clock

from .converter import Converter, Gain, RangeSetting
from .faults import LINE_END, Chunk, Faults
from .firmware_loop import STEADY, Command, LineReceiver, MainLoop, Timing
from .instrument import Instrument, Reply
from .modes import Mode, Profile, Rate

__all__ = ["POWER_ON_BYTES", "STEADY", "Command", "Served", "Timing", "VirtualMeter"]

POWER_ON_BYTES = b"\x00\x00\x00\x01"
"""Seen on the wire when the meter is switched on (section 1, "unsolicited output")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One reading given in answer to ``MEAS1?`` or ``MEAS?``.

    ``mono_s`` is when the query had fully arrived, ``text`` the reading before any fault, ``value`` its number (1e9 for
    an overload), ``intact`` whether it went out unchanged and in time. A reading that never went out is not recorded.
    """

    mono_s: float
    text: str
    value: float
    intact: bool


class VirtualMeter:
    """One meter.

    ``quantity(mono_s)`` is what its leads see at a moment of the monotonic clock: volts in a DC voltage mode; the same
    number is taken as amperes when the meter is in a DC current mode. In AC it reads zero, elsewhere an open circuit.
    ``noise_steps`` is the noise's standard deviation in display steps of the present range; 0 makes readings exact.
    ``gain`` gives the meter an error of its own in each mode, range and speed: a reading shows how it was taken.
    A new meter has just been switched on and has booted: DC volts, AUTO, rate S.
    """

    def __init__(
        self,
        quantity: Callable[[float], float],
        *,
        serial_number: str = "22511040",
        profile: Profile = Profile.V4_0_0,
        clock: Clock | None = None,
        seed: int = 1,
        noise_steps: float = 1.0,
        timing: Timing | None = None,
        served_limit: int = 100_000,
        gain: Gain = lambda _mode, _setting, _rate: 1.0,
    ) -> None:
        self.clock = clock or Clock()
        self.faults = Faults()
        self.on_output: Callable[[], None] = lambda: None
        """Called, from any thread, when bytes wait that no ``feed()`` asked for. The port puts itself here."""
        self._timing = timing or Timing()
        self._lock = threading.RLock()
        firmware = profile.value
        converter = Converter(
            quantity,
            seed=seed,
            noise_steps=noise_steps,
            period_s=self._timing.conversion_period_s,
            auto_returns_to_mv=firmware.auto_returns_to_mv,
            gain=gain,
        )
        identity = f"OWON,XDM1041,{serial_number},{firmware.version},3"
        self._instrument = Instrument(converter, firmware, identity, self.clock.mono_s())
        self._receiver = LineReceiver()
        self._loop = MainLoop(self._timing, latency_s=firmware.reply_latency_s, seed=seed)
        self._served: deque[Served] = deque(maxlen=served_limit)
        self._received: deque[Command] = deque(maxlen=served_limit)
        self._outbox: list[tuple[float, int, bytes]] = []
        self._sent = 0
        self._powered = True
        self._deaf_until_mono_s = 0.0

    # -- the wire ---------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes that arrive now. Never blocks, never fails: whatever the meter does not like it ignores."""
        with self._lock:
            now_mono_s = self.clock.mono_s()
            self._advance(now_mono_s)
            if not self._powered or now_mono_s < self._deaf_until_mono_s:
                return
            for line in self._receiver.lines(self.faults.received(data)):
                command = Command(mono_s=now_mono_s, text=line)
                self._received.append(command)
                self._loop.accept(command, self._instrument.configured_mono_s)

    def take_due(self) -> bytes:
        """Return, and forget, all bytes whose time to be sent has come; empty if there are none."""
        with self._lock:
            now_mono_s = self.clock.mono_s()
            self._advance(now_mono_s)
            due = []
            while self._outbox and self._outbox[0][0] <= now_mono_s:
                due.append(heapq.heappop(self._outbox)[2])
            return self.faults.sent(b"".join(due))

    def next_due_mono_s(self) -> float | None:
        """Return when to call ``take_due()`` next; None when nothing will come before the next ``feed()``."""
        with self._lock:
            next_sent_mono_s = self._outbox[0][0] if self._outbox else None
            both = (next_sent_mono_s, self._loop.next_done_mono_s)
            return min((mono_s for mono_s in both if mono_s is not None), default=None)

    # -- the record -------------------------------------------------------------------------------------------------

    @property
    def served(self) -> list[Served]:
        """The readings given so far, oldest first, the last ``served_limit`` of them. A copy."""
        with self._lock:
            return list(self._served)

    @property
    def received(self) -> list[Command]:
        """The lines accepted so far, oldest first, the last ``served_limit`` of them. A copy."""
        with self._lock:
            return list(self._received)

    # -- what people and bad luck do to a meter ---------------------------------------------------------------------

    def press(
        self,
        *,
        mode: Mode | None = None,
        range_number: int | None = None,
        auto: bool = False,
        rate: Rate | None = None,
    ) -> None:
        """Press keys of the front panel; range 1 is the smallest. Locked keys (SYST:REM) do nothing."""
        with self._lock:
            now_mono_s = self.clock.mono_s()
            self._advance(now_mono_s)
            if self._instrument.remote:
                return
            if mode is not None:
                self._instrument.select_mode(mode, now_mono_s)
            if range_number is not None:
                self._instrument.select_range(range_number, now_mono_s)
            if auto:
                self._instrument.select_auto(now_mono_s)
            if rate is not None:
                self._instrument.select_rate(rate, now_mono_s)

    def hold(self) -> None:
        """Press Run/Stop: the reading stays as it is, with no sign of it on the wire."""
        with self._lock:
            self._instrument.converter.freeze(self.clock.mono_s())

    def release(self) -> None:
        """Press Run/Stop again: the reading follows the input."""
        with self._lock:
            self._instrument.converter.frozen = False

    def lock(self) -> None:
        """Lock the front panel, as some other program's SYST:REM does: keys do nothing until SYST:LOC."""
        with self._lock:
            self._instrument.remote = True

    @property
    def identity(self) -> str:
        """What it answers to ``*IDN?``; a copied flash memory gives two meters the same (section 2)."""
        return self._instrument.identity

    @identity.setter
    def identity(self, text: str) -> None:
        with self._lock:
            self._instrument.identity = text

    @property
    def setting(self) -> RangeSetting:
        """The range it is in now, and whether it may change that by itself."""
        return self._instrument.converter.setting

    def say(self, data: bytes) -> None:
        """Send bytes that nobody asked for."""
        with self._lock:
            self._send(self.clock.mono_s(), (Chunk(data=data),))
        self.on_output()

    def stall(self, for_s: float) -> None:
        """Answer nothing for ``for_s`` seconds from now, then all that fits in the ten slots, at once (section 4.6)."""
        with self._lock:
            now_mono_s = self.clock.mono_s()
            self._advance(now_mono_s)
            self._loop.stall(now_mono_s + for_s)

    def switch_off(self) -> None:
        """Take the power away: silence, while the port stays alive; questions and replies under way are gone."""
        with self._lock:
            self._powered = False
            self._receiver = LineReceiver()
            self._outbox.clear()
            self._loop.reset()

    def switch_on(self) -> None:
        """Give power: the power-on bytes, ``boot_s`` of silence, then DC volts, AUTO, rate S."""
        with self._lock:
            now_mono_s = self.clock.mono_s()
            self._powered = True
            self._deaf_until_mono_s = now_mono_s + self._timing.boot_s
            self._instrument.power_on(now_mono_s)
            self._send(now_mono_s, (Chunk(data=POWER_ON_BYTES),))
        self.on_output()

    def power_cycle(self) -> None:
        """Switch off and on again at once."""
        self.switch_off()
        self.switch_on()

    # -- carrying out commands ---------------------------------------------------------------------------------------

    def _advance(self, now_mono_s: float) -> None:
        """Carry out every command whose service ends by now."""
        for command, done_mono_s in self._loop.finished(now_mono_s, self._instrument.configured_mono_s):
            self._execute(command, done_mono_s)

    def _execute(self, command: Command, mono_s: float) -> None:
        reply = self._instrument.execute(command.text, mono_s)
        if reply is not None:
            wire = reply.text.encode("gbk") + LINE_END
            chunks = self.faults.strike(command.text, wire)
            self._send(mono_s, chunks)
            intact = chunks == (Chunk(data=wire),) and not self.faults.garbles_sent
            self._record(command, reply, chunks, intact=intact)
        elif "?" not in command.text and (noise := self.faults.answer_mode.value):
            self._send(mono_s, (Chunk(data=noise),))

    def _record(self, command: Command, reply: Reply, chunks: tuple[Chunk, ...], *, intact: bool) -> None:
        if reply.reading is not None and chunks:
            served = Served(mono_s=command.mono_s, text=reply.text, value=reply.reading, intact=intact)
            self._served.append(served)

    def _send(self, mono_s: float, chunks: tuple[Chunk, ...]) -> None:
        for chunk in chunks:
            self._sent += 1
            heapq.heappush(self._outbox, (mono_s + (chunk.delay_s or 0.0), self._sent, chunk.data))


class Chatterbox(VirtualMeter):
    """Another kind of device on the port: deaf, it says a line of its own every ``every_s`` seconds, for ever."""

    def __init__(self, *lines: bytes, every_s: float = 0.1, clock: Clock | None = None) -> None:
        super().__init__(lambda _mono_s: 0.0, clock=clock)
        self._lines = itertools.cycle(lines)
        self._every_s = every_s
        self._due_mono_s = self.clock.mono_s()

    def feed(self, data: bytes) -> None:
        """Hear nothing."""

    def take_due(self) -> bytes:
        """Return the line that is due, if one is; those missed are skipped."""
        if self.clock.mono_s() < self._due_mono_s:
            return b""
        self._due_mono_s = self.clock.mono_s() + self._every_s
        return next(self._lines)

    def next_due_mono_s(self) -> float | None:
        """Return when the next line is due."""
        return self._due_mono_s
