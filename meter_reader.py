"""The thread of one meter: keeps it connected and set up, and reads it when the sampler asks.

One ``MeterReader`` per meter, so that a slow or absent meter never holds up the other. Guarantees: with ``verify_each``
a value is delivered only if the settings were verified after it was read; every request that was accepted is answered
exactly once, with a value or with the reason why there is none; trouble is retried for ever, and logged when it begins
and when it ends.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from clock import Clock
from state_log import StateLog
from worker import Worker
from xdm1041 import (
    XDM1041,
    BrokenExchange,
    Identity,
    Interrupted,
    Overload,
    PortLost,
    PortUnavailable,
    SettingsDiffer,
    Unsettled,
    XDM1041Error,
)

logger = logging.getLogger(__name__)

_RETRY_AFTER_S = (0.5, 1.0, 2.0, 5.0)  # the last one again and again
_HEARTBEAT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one meter said when it was asked for a sample: a value in its SI unit, or ``None`` and the reason."""

    meter: str
    begun_mono_s: float
    start_mono_s: float
    value: float | None
    refused: str | None = None


class MeterReader(Worker):
    """Reads one meter on request. ``name`` is what the operator calls it: "voltage meter", "current meter".

    ``deliver`` is called from this thread with each ``Reading``; ``on_ready`` whenever the meter has become ready.
    """

    def __init__(
        self,
        name: str,
        meter: XDM1041,
        clock: Clock,
        *,
        verify_each: bool,
        deliver: Callable[[Reading], None],
        on_ready: Callable[[], None],
    ) -> None:
        super().__init__(name, clock)
        self.meter = meter
        self.refused: Counter[str] = Counter()
        self._verify_each = verify_each
        self._deliver = deliver
        self._on_ready = on_ready
        self._requests: SimpleQueue[float | None] = SimpleQueue()
        self._free = threading.Event()  # set while the meter is ready and not answering
        self._state = StateLog(logger, name, clock)
        self._overload = StateLog(logger, name, clock)
        self._announced: Identity | None = None
        self._failures = 0
        self._ready = False

    @property
    def is_ready(self) -> bool:
        """Whether the meter is set up and trusted, as far as is known."""
        return self._ready

    def state(self) -> dict[str, object]:
        """Return what there is to say of it: ``works``, ``trouble``, ``serial_number``, ``port``."""
        trouble = self._state.message or self._overload.message
        identity = self._announced
        return {
            "works": self._ready and trouble is None,
            "trouble": trouble,
            "serial_number": identity.serial_number if identity else None,
            "port": self.meter.port,
        }

    def request(self, begun_mono_s: float) -> bool:
        """Ask for a reading now. Return whether it will be answered: not if the meter is absent or still busy."""
        if not self._free.is_set():
            return False
        self._free.clear()
        self._requests.put(begun_mono_s)
        return True

    def step(self) -> None:
        """Bring the meter up if it is not ready, else wait for one request and answer it."""
        if not self._ready:
            self._bring_up()
            return
        try:
            begun_mono_s = self._requests.get(timeout=_HEARTBEAT_S)
        except Empty:
            return
        if begun_mono_s is not None:
            self._answer(begun_mono_s)

    def wake(self) -> None:
        """End a wait for requests and every wait of the driver."""
        self._requests.put(None)
        self.meter.interrupt()

    def finish(self) -> None:
        """Close the port."""
        self.meter.disconnect()

    def _bring_up(self) -> None:
        try:
            identity = self.meter.connect()
        except Interrupted:
            return
        except XDM1041Error as exc:
            self._trouble(exc)
            self._stop.wait(_RETRY_AFTER_S[min(self._failures, len(_RETRY_AFTER_S) - 1)])
            self._failures += 1
            return
        if identity != self._announced:
            self._announced = identity
            logger.info(
                "%s: %s, serial number %s, firmware %s, on %s, is set up (%s)",
                self.name,
                identity.model,
                identity.serial_number,
                identity.firmware,
                self.meter.port,
                self.meter.range.label if self.meter.range else self.meter.mode.name,
            )
        self._ready = True
        self._free.set()
        self._on_ready()

    def _answer(self, begun_mono_s: float) -> None:
        start_mono_s = self.clock.mono_s()
        value, refused = None, None
        try:
            reading = self.meter.read_val1_raw()
            if self._verify_each:
                self.meter.verify_settings()
            value = reading
        except Overload as exc:
            refused = type(exc).__name__
            self._state.well("works again")
            self._overload.failed(refused, f"{exc}; there is no value to report while this lasts")
        except XDM1041Error as exc:
            refused = type(exc).__name__
            self._ready = False
            self._trouble(exc)
        else:
            self._failures = 0
            self._state.well("works again")
            self._overload.well("is back within its range")
        if refused is not None:
            self.refused[refused] += 1
        if self._ready:
            self._free.set()
        self._deliver(
            Reading(meter=self.name, begun_mono_s=begun_mono_s, start_mono_s=start_mono_s, value=value, refused=refused)
        )

    def _trouble(self, exc: XDM1041Error) -> None:
        """Note what is wrong. After anything that a mere look at the settings cannot mend, the port is closed."""
        if isinstance(exc, Interrupted):
            return
        kind = "port" if isinstance(exc, (PortLost, PortUnavailable)) else type(exc).__name__
        self._state.failed(kind, f"{exc}; nothing is reported from it until it works again")
        if not isinstance(exc, (BrokenExchange, SettingsDiffer, Unsettled)):
            self.meter.disconnect()
