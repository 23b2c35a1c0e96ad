"""How a meter's firmware gets from bytes to commands carried out: receive buffer, ten slots, one main loop.

Facts: ``reference/xdm1041.md`` sections 1 (read from firmware V2.1.2), 4.2, 4.3 and 7. No thread, no clock: every
method is told the time. Not thread-safe: the meter it belongs to holds its lock.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .converter import CONVERSION_PERIOD_S
from .modes import Rate

_BUFFER_SIZE = 50
_SHORTEST_COMMAND = 3
_LAST_CONTROL, _LAST_LEGAL = 0x1F, 0x7A
_SLOTS = 10
_BUSY_PERIOD_S = 0.145
_BUSY_S = (0.010, 0.015)
_RARELY_BUSY_S = (0.028, 0.056)
_RARELY = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How fast a meter is. The defaults are the recorded meters'; ``STEADY`` is for tests that compare times.

    ``reply_latency_s``: query and reply, wire time included; None for the profile's 2.5 (RS232) or 4.9 ms (USB).
    ``busy_windows``: the main loop is away 10 to 15 ms about every 145 ms, rarely 28 to 56 ms (section 4.3).
    ``boot_s``: from power-on to the first command understood; 3 s is a guess (section 7).
    """

    reply_latency_s: float | None = None
    busy_windows: bool = True
    boot_s: float = 3.0
    conversion_period_s: Mapping[Rate, float] = field(default_factory=lambda: CONVERSION_PERIOD_S)
    serves_in_slot_order: bool = False


STEADY = Timing(busy_windows=False)
"""The recorded latency without its jitter: every reply takes equally long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line that was accepted by the receiver, and when it had fully arrived."""

    mono_s: float
    text: str


class LineReceiver:
    """The receive buffer: makes command lines of bytes as the firmware's interrupt routine does (section 1)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def lines(self, data: bytes) -> Iterator[str]:
        """Yield the lines completed by ``data``. Too short ones and ones with illegal bytes are dropped."""
        for byte in data:
            if byte <= _LAST_CONTROL or byte == ord(";"):
                line = bytes(self._buffer)
                self._buffer.clear()
                if len(line) >= _SHORTEST_COMMAND and max(line) <= _LAST_LEGAL:
                    yield line.decode("ascii")
            else:
                self._buffer.append(byte)
                if len(self._buffer) == _BUFFER_SIZE:
                    self._buffer.clear()


class MainLoop:
    """The ten slots that commands wait in, and the loop that serves them one at a time, when it is not busy.

    ``configured_mono_s`` of its methods is the moment of the last CONF, which the busy windows are locked to.
    """

    def __init__(self, timing: Timing, *, latency_s: float, seed: int) -> None:
        self._timing = timing
        self._latency_s = latency_s if timing.reply_latency_s is None else timing.reply_latency_s
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Start afresh, as at power-on: all slots empty, no stall."""
        self._slots: list[Command | None] = [None] * _SLOTS
        self._write_slot = 0
        self._read_slot = 0
        self._serving: tuple[int, Command, float] | None = None
        self._stalled_until_mono_s = 0.0

    @property
    def next_done_mono_s(self) -> float | None:
        """When the command being served will be done; None when nothing waits."""
        return self._serving[2] if self._serving else None

    def accept(self, command: Command, configured_mono_s: float) -> None:
        """Put a command in the next slot; when that is still taken, the command is lost without a word."""
        if self._slots[self._write_slot] is not None:
            return
        self._slots[self._write_slot] = command
        self._write_slot = (self._write_slot + 1) % _SLOTS
        if self._serving is None:
            self._serve_next(command.mono_s, configured_mono_s)

    def finished(self, now_mono_s: float, configured_mono_s: float) -> Iterator[tuple[Command, float]]:
        """Yield every command that is done by now, and when it was."""
        while self._serving and self._serving[2] <= now_mono_s:
            slot, command, done_mono_s = self._serving
            self._slots[slot] = None
            yield command, done_mono_s
            self._serve_next(done_mono_s, configured_mono_s)

    def stall(self, until_mono_s: float) -> None:
        """Serve nothing until then; what has come by then is done together."""
        self._stalled_until_mono_s = until_mono_s
        if self._serving:
            slot, command, _ = self._serving
            self._serving = (slot, command, until_mono_s + self._latency_s)

    def _serve_next(self, from_mono_s: float, configured_mono_s: float) -> None:
        """Take up the next waiting command: the longest waiting, or the lowest slot with ``serves_in_slot_order``."""
        first = 0 if self._timing.serves_in_slot_order else self._read_slot
        for slot in ((first + i) % _SLOTS for i in range(_SLOTS)):
            if command := self._slots[slot]:
                self._read_slot = (slot + 1) % _SLOTS
                self._serving = (slot, command, self._done_mono_s(command, from_mono_s, configured_mono_s))
                return
        self._serving = None

    def _done_mono_s(self, command: Command, from_mono_s: float, configured_mono_s: float) -> float:
        """Return when a command taken up at ``from_mono_s`` will have been carried out and answered."""
        if command.mono_s < self._stalled_until_mono_s:
            return self._stalled_until_mono_s + self._latency_s
        for mono_s in (from_mono_s, from_mono_s + self._latency_s):
            if (free_mono_s := self._busy_until_mono_s(mono_s, configured_mono_s)) > mono_s:
                return free_mono_s + self._latency_s
        return from_mono_s + self._latency_s

    def _busy_until_mono_s(self, mono_s: float, configured_mono_s: float) -> float:
        """Return the end of the last busy window that began before ``mono_s``."""
        number = int((mono_s - configured_mono_s) / _BUSY_PERIOD_S)
        if not self._timing.busy_windows or number < 1:
            return mono_s
        chance = random.Random(f"{self._seed}/busy/{number}")
        length_s = chance.uniform(*(_RARELY_BUSY_S if chance.random() < _RARELY else _BUSY_S))
        return configured_mono_s + number * _BUSY_PERIOD_S + length_s
