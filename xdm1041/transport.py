"""Bytes to and from one meter: opening, one question and its one answer, draining, closing.

Used by one thread at a time. Guarantees: no call outlasts its deadline by more than the operating system's own (opening
a ``socket://`` or ``rfc2217://`` URL may take 5 s); a line counts only when its line end has come; foreign exceptions
leave as ``XDM1041Error``. It knows nothing of what the bytes mean.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import serial

from clock import Clock

from .errors import PortLost, PortUnavailable, ReplyMalformed, ReplyTimeout

_TERMIOS_ERRORS: tuple[type[Exception], ...] = ()
if sys.platform != "win32":
    import termios

    _TERMIOS_ERRORS = (termios.error,)  # not an OSError

# pyserial lets TypeError and ValueError out when a port vanishes under it or a URL cannot be understood, and
# NotImplementedError where a kind of port lacks something.
_FOREIGN = (serial.SerialException, OSError, ValueError, TypeError, NotImplementedError, *_TERMIOS_ERRORS)

_BAUD = 115200  # the meter's default; it can be changed on its front panel only
_LONGEST_LINE = 128  # bytes; the meter's longest reply, *IDN?, has some 35
_WRITE_TIMEOUT_S = 0.5  # pyserial's rfc2217:// refuses one; its socket has a timeout of its own, 5 s
_POLL_S = 0.05  # never changed while the port is open: an rfc2217:// port would negotiate all its settings anew
_QUIET_S = 0.3
_DRAIN_LIMIT_S = 2.0

OpenPort = Callable[..., serial.Serial]
"""Opens a port: ``serial.serial_for_url``, or what listens in for the wire log."""


class Transport:
    """The serial port of one meter. ``port`` is a path, ``COM3`` or any pyserial URL. Opens nothing by itself.

    ``open_port`` is pyserial's unless a wire log listens in (``wire_log.WireTap.open``).
    """

    def __init__(self, port: str, clock: Clock, open_port: OpenPort | None = None) -> None:
        self.port = port
        self._clock = clock
        self._open_port = open_port or serial.serial_for_url
        self._serial: serial.Serial | None = None
        self._received = bytearray()

    @property
    def is_open(self) -> bool:
        """Whether the port is open as far as is known: a pulled adapter shows only at the next exchange."""
        return self._serial is not None

    def open(self) -> None:
        """Open the port, 115200 8N1, exclusively, without flow control. Does nothing if it is open.

        Raises ``PortUnavailable``. May block for 5 s on a URL.
        """
        if self._serial is not None:
            return
        try:
            self._serial = self._open_port(
                self.port,
                baudrate=_BAUD,
                bytesize=serial.EIGHTBITS,
                parity=serial.PARITY_NONE,
                stopbits=serial.STOPBITS_ONE,
                xonxoff=False,
                rtscts=False,
                dsrdtr=False,
                timeout=_POLL_S,
                write_timeout=None if self.port.lower().startswith("rfc2217:") else _WRITE_TIMEOUT_S,
                exclusive=True,
            )
        except _FOREIGN as exc:
            raise PortUnavailable(f"cannot open {self.port}: {_why(exc)}") from exc
        self._received.clear()

    def close(self) -> None:
        """Close the port. Never fails: a port that cannot be closed properly is gone."""
        port, self._serial = self._serial, None
        self._received.clear()
        if port is not None:
            with suppress(*_FOREIGN):
                port.close()

    def send(self, command: str) -> None:
        """Send a command that has no answer. Raises ``PortLost``. Blocks 0.5 s at most."""
        with self._converting() as port:
            port.write(command.encode("ascii") + b"\n")

    def query(self, command: str, timeout_s: float) -> bytes:
        """Ask one question and return the one line that answers it, with its line end.

        Raises ``ReplyTimeout`` if no whole line came within ``timeout_s``, ``ReplyMalformed`` if bytes that nobody
        asked for were waiting (they would answer this question with the answer to another), ``PortLost``.
        """
        self._take_waiting()
        if self._received:
            raise ReplyMalformed(f"unasked bytes before {command}: {bytes(self._received[:40])!r}")
        self.send(command)
        deadline_mono_s = self._clock.mono_s() + timeout_s
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > _LONGEST_LINE:
                raise ReplyMalformed(f"no line end in the answer to {command}: {bytes(self._received[:40])!r}…")
            if not self._take_until(deadline_mono_s):
                raise ReplyTimeout(f"no answer to {command} within {timeout_s:g} s{_fragment(self._received)}")
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line

    def drain(self) -> bytes:
        """Read and return everything until the line has been quiet for 0.3 s.

        Raises ``PortLost``, and ``ReplyMalformed`` if it is not quiet within 2 s: something else is talking.
        """
        limit_mono_s = self._clock.mono_s() + _DRAIN_LIMIT_S
        drained = b""
        while self._take_until(self._clock.mono_s() + _QUIET_S):
            drained = (drained + bytes(self._received))[-_LONGEST_LINE:]
            self._received.clear()
            if self._clock.mono_s() > limit_mono_s:
                raise ReplyMalformed(f"{self.port} keeps sending without being asked: {drained[-40:]!r}")
        drained = (drained + bytes(self._received))[-_LONGEST_LINE:]
        self._received.clear()
        return drained

    def discard_waiting(self) -> None:
        """Throw away what has already come. Does not wait. Raises ``PortLost``."""
        self._take_waiting()
        self._received.clear()

    def _take_until(self, deadline_mono_s: float) -> bool:
        """Wait for bytes until the deadline and take in what there is. Return whether any came."""
        while not (taken := self._take_waiting()) and self._clock.mono_s() < deadline_mono_s:
            with self._converting() as port:
                self._received += (first := port.read(1))
            if first:
                return True
        return taken

    def _take_waiting(self) -> bool:
        """Take in what has already come, without waiting. Return whether there was anything."""
        with self._converting() as port:
            count = min(port.in_waiting, 2 * _LONGEST_LINE)
            if count:
                self._received += port.read(count)
        return bool(count)

    @contextmanager
    def _converting(self) -> Iterator[serial.Serial]:
        if self._serial is None:
            raise PortLost(f"{self.port} is not open")
        try:
            yield self._serial
        except _FOREIGN as exc:
            self.close()
            raise PortLost(f"{self.port} failed: {_why(exc)}") from exc


def _fragment(received: bytearray) -> str:
    return f", only {bytes(received[:40])!r}" if received else ""


def _why(exc: BaseException) -> str:
    """Return what an operator can use of a foreign exception."""
    number = getattr(exc, "errno", None)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "it is not there (is the adapter plugged in? ls /dev/serial/by-path shows the names)"
    if number == errno.EACCES:
        return "permission denied (the user must be in the group of the port, on most systems dialout)"
    if number == errno.EIO:
        return "it has gone (was the adapter unplugged?)"
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(exc):
        return "another program holds it"
    return str(exc) or type(exc).__name__
