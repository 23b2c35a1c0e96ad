"""Serial ports in memory, with the simulator's meters at them, for a clock that jumps.

They take the place of ptys, which the kernel's clock would have to wait for. What is opened, read and written fails as
pyserial does: a port that is not there, held, forbidden, or pulled while it is open.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from benchmarks.virtual_clock import VirtualClock, VirtualCondition
from simulator.meter import VirtualMeter
from simulator.ports import PtyPort


class MemoryPort(PtyPort):
    """A serial port without a file: who opens its name reads and writes the meter itself, by the virtual clock."""

    def __init__(self, meter: VirtualMeter, clock: VirtualClock, link: Path) -> None:
        super().__init__(meter, link=link)
        self.is_plugged_in = False
        self.opened_by: MemorySerial | None = None
        self.changed = VirtualCondition(clock)
        self.clock = clock

    def plug_in(self) -> None:
        if not self.is_plugged_in:
            self.meter.take_due()  # said while nobody could hear it
            self.meter.on_output = self.ring
            self.is_plugged_in = True

    def unplug(self) -> None:
        if self.is_plugged_in:
            self.meter.on_output = lambda: None
            self.is_plugged_in, self.opened_by = False, None
            self.ring()

    def ring(self) -> None:
        """End the wait of whoever reads."""
        with self.changed:
            self.changed.notify_all()


class MemorySerial:
    """An open ``MemoryPort``, as far as the daemon uses pyserial's ``Serial``."""

    def __init__(self, port: MemoryPort, timeout: float) -> None:
        self._port = port
        self._timeout_s = timeout
        self._received = bytearray()
        port.opened_by = self

    @property
    def in_waiting(self) -> int:
        """How many bytes have come. Raises ``OSError`` once the port is gone."""
        self._take()
        return len(self._received)

    def read(self, size: int) -> bytes:
        """Return what has come, ``size`` bytes at most; wait for one until the timeout. Raises ``OSError``."""
        port, until_mono_s = self._port, self._port.clock.mono_s() + self._timeout_s
        self._take()
        while not self._received and (left_s := port.clock.timeout_s(until_mono_s)) > 0:
            due_mono_s = port.meter.next_due_mono_s()
            due_s = left_s if due_mono_s is None else min(left_s, port.clock.timeout_s(due_mono_s))
            with port.changed:
                port.changed.wait(due_s)
            self._take()
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def write(self, data: bytes) -> int:
        """Send bytes. Raises ``OSError``."""
        self._take()
        self._port.meter.feed(data)
        return len(data)

    def close(self) -> None:
        """Let the port go."""
        if self._port.opened_by is self:
            self._port.opened_by = None

    def _take(self) -> None:
        if self._port.opened_by is not self:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._received += self._port.meter.take_due()
