"""The ports that meters may be on: which there are, who answers on one, and which of this program's meters uses which.

``candidate_ports()`` and ``identify()`` are for anyone. ``PortBook`` is shared by the drivers of one program, each in
its own thread, so that they never ask one device at the same time and never touch the port of a meter that works.
Guarantee: an unknown device is sent ``*IDN?`` and nothing else.
"""

from __future__ import annotations

import glob
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from serial.tools.list_ports import comports

from clock import Clock

from .commands import IDENTIFY, Identity, parse_identity, reply_text
from .errors import BrokenExchange, PortLost, PortUnavailable, WrongInstrument
from .transport import Transport

_USB_IDS = ((0x1A86, 0x7523), (0x067B, None))  # the CH340 in the -U models; any Prolific, common in RS232 cables
_BY_PATH = Path("/dev/serial/by-path")
_REPLY_TIMEOUT_S = 1.0
_TURN_WITHIN_S = 2.0  # for another meter's thread to finish asking on a port
_TURN_POLL_S = 0.05


def candidate_ports(scan_ports: Iterable[str] = (), configured: Iterable[str] = ()) -> list[str]:
    """Return the ports to look for meters on, each device once, the ``configured`` ones first. Opens none.

    ``scan_ports``: paths, globs and URLs; without any, the serial ports whose USB id is that of an adapter in use with
    this meter (1a86:7523, 067b:*), by the name of the USB socket where there is one (Linux: /dev/serial/by-path).
    """
    patterns = [each for each in scan_ports if each]
    found = [port for pattern in patterns for port in _expanded(pattern)] if patterns else _usb_ports()
    ports: dict[str, str] = {}
    for port in (*configured, *found):
        ports.setdefault(device(port), port)
    return list(ports.values())


def device(port: str) -> str:
    """Return what a port really is: all names of one device give the same."""
    if "://" in port or ("/" not in port and re.match(r"(\\\\\.\\)?COM\d", port, re.IGNORECASE)):
        return port.lower().removeprefix("\\\\.\\").rstrip("/")
    try:
        return os.path.realpath(port)
    except OSError:  # a link that vanishes while it is looked at
        return port


def identify(port: str, clock: Clock | None = None, *, tries: int = 2) -> Identity:
    """Open a port, ask who is there, close it and return the answer. Sends ``*IDN?`` and nothing else.

    Blocks about 0.4 s, 1.3 s for each try without an answer. Raises ``PortUnavailable`` (not there, held by another
    program, no permission), ``BrokenExchange`` (silence or rubbish), ``WrongInstrument`` (no XDM1041), ``PortLost``.
    """
    transport = Transport(port, clock or Clock())
    try:
        transport.open()
        while True:
            transport.drain()
            try:
                return parse_identity(reply_text(transport.query(IDENTIFY, _REPLY_TIMEOUT_S)))
            except BrokenExchange:
                tries -= 1
                if tries <= 0:
                    raise
    finally:
        transport.close()


class PortBook:
    """Who uses which port, and where else a meter may be looked for.

    ``configured``: the port of each meter and the serial number it must have, ``None`` for any. The port of a meter
    without a serial number is that meter's for good: nothing but its port says which meter it is.
    """

    def __init__(self, scan_ports: Iterable[str] = (), configured: Mapping[str, str | None] | None = None) -> None:
        self._scan_ports = tuple(scan_ports)
        self._configured = dict(configured or {})
        self._lock = threading.Lock()
        self._claims: dict[str, bool] = {}

    def elsewhere(self, port: str) -> list[str]:
        """Return the ports to look on for a meter that has a serial number and is not on ``port``."""
        taken = {device(each) for each, serial_number in self._configured.items() if serial_number is None}
        taken.add(device(port))
        with self._lock:
            taken.update(each for each, in_use in self._claims.items() if in_use)
        return [each for each in candidate_ports(self._scan_ports, self._configured) if device(each) not in taken]

    def claim(self, port: str, pause: Callable[[float], object]) -> str:
        """Take a port for oneself and return its claim. ``pause`` waits some seconds and may raise.

        Raises ``PortUnavailable`` if another meter of this program uses it, or asks on it for longer than 2 s.
        """
        claim = device(port)
        for _ in range(round(_TURN_WITHIN_S / _TURN_POLL_S)):
            with self._lock:
                if claim not in self._claims:
                    self._claims[claim] = False
                    return claim
                if self._claims[claim]:
                    break
            pause(_TURN_POLL_S)
        raise PortUnavailable(f"{port} is in use by the other meter")

    def search(self, serial_number: str, port: str, clock: Clock, pause: Callable[[float], object]) -> str | None:
        """Return the port that the meter with this serial number is on, ``None`` if it is on none but perhaps ``port``.

        Blocks up to 3.3 s for each port. Raises ``WrongInstrument`` if it seems to be on several.
        """
        found = []
        for other in self.elsewhere(port):
            pause(0.0)
            with suppress(BrokenExchange, PortLost, PortUnavailable, WrongInstrument):
                if self.ask(other, clock, pause).serial_number == serial_number:
                    found.append(other)
        if len(found) > 1:
            raise WrongInstrument(
                f"meters on {' and '.join(found)} all say that they have serial number {serial_number}: which of "
                "them is meant cannot be known; leave xdm_voltage_serial and xdm_current_serial empty"
            )
        return found[0] if found else None

    def ask(self, port: str, clock: Clock, pause: Callable[[float], object]) -> Identity:
        """Return who answers on a port that is not one's own. Blocks 2 s + 1.3 s; raises as ``identify()`` does."""
        claim = self.claim(port, pause)
        try:
            return identify(port, clock, tries=1)
        finally:
            self.release(claim)

    def keep(self, claim: str) -> None:
        """Mark a claimed port as one whose meter works: nobody else even asks on it."""
        with self._lock:
            self._claims[claim] = True

    def release(self, claim: str | None) -> None:
        """Give a port back."""
        with self._lock:
            self._claims.pop(claim or "", None)


def _expanded(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern)) if "://" not in pattern and glob.has_magic(pattern) else [pattern]  # noqa: PTH207


def _usb_ports() -> Iterator[str]:
    by_path = {device(str(link)): str(link) for link in sorted(_BY_PATH.glob("*"), reverse=True)}
    for port in sorted(comports(), key=lambda each: each.device):
        if any(port.vid == vid and pid in (None, port.pid) for vid, pid in _USB_IDS):
            yield by_path.get(device(port.device), port.device)
