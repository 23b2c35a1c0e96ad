"""What systemd is told, in the datagrams of sd_notify(3): ready, status, reloading, stopping, and that all goes on.

Used by the main thread. That it is ready is told again until it is heard: nothing else would start the service's watch.
The few lines of that protocol are here, and not taken from a package, because a service of
``Type=notify`` whose package is missing is killed and started again for ever. Guarantees: it never blocks and never
fails; without a service manager it does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping

from clock import Clock
from state_log import StateLog

logger = logging.getLogger(__name__)

_SHORTEST_WATCHDOG_S = 30.0  # a call may take so long: of a name server that is gone
_LONGEST_STATUS = 1000  # characters; systemd ignores a message of more than 4096 bytes


class ServiceManager:
    """The service manager that an ``environment`` names; ``watchdog_s`` is what it allows between two signs of life.

    ``watchdog_s`` is in seconds, ``None`` if it does not watch. ``hide`` takes the secrets out of what everybody can
    read in the status.
    """

    def __init__(
        self, environment: Mapping[str, str], clock: Clock, hide: Callable[[str], str] = lambda text: text
    ) -> None:
        self._clock = clock
        self._hide = hide
        self._unheard = ""
        self._state = StateLog(logger, "service manager", clock)
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environment) if address else None

    def warning(self) -> str | None:
        """Return what is wrong with how the service is watched, ``None`` if nothing is."""
        if self.watchdog_s is None or self.watchdog_s >= _SHORTEST_WATCHDOG_S:
            return None
        return (
            f"WatchdogSec={self.watchdog_s:g} is too short: a slow network could be taken for a hanging part, and end "
            f"the service again and again. Make it {_SHORTEST_WATCHDOG_S:g} or more"
        )

    def ready(self) -> None:
        """Say that the service does its work: after the start, or a reload."""
        self._unheard = "READY=1"
        self._tell("")

    def reloading(self) -> None:
        """Say that the configuration is being read again; ``ready()`` must follow."""
        self._unheard = ""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.mono_s() * 1e6)}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._unheard = ""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Say that everything goes on, as ``watchdog_s`` demands."""
        self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Have one line shown by ``systemctl status``."""
        text = "".join(char if char.isprintable() else " " for char in self._hide(text))
        text = " ".join(text.split())
        self._tell(f"STATUS={text if len(text) <= _LONGEST_STATUS else f'{text[:_LONGEST_STATUS]} …'}")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        message = "\n".join(filter(None, (self._unheard, message)))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError as exc:
            self._state.failed(type(exc).__name__, f"it cannot be told how the service is ({exc}); it may restart it")
        else:
            self._unheard = ""
            self._state.well("takes what it is told again")


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return the time in WATCHDOG_USEC, if it is meant for this process (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return None
    try:
        return int(environment["WATCHDOG_USEC"]) / 1e6 or None
    except (KeyError, ValueError):
        return None
