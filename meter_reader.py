"""The thread of one meter: keeps it connected and set up, and reads it when the sampler asks.

One ``MeterReader`` per meter, so that a slow or absent meter never holds up the other. Guarantees: a value is delivered
as verified only if the settings were verified after it was read; whatever breaks the trust in a meter refuses, by a
``Check``, all its values that were not; every request that was accepted is answered exactly once, with a value or with
the reason why there is none; trouble is retried for ever, and logged when it begins and when it ends.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from clock import Clock
from events import Event, about
from reading_checks import HoldWatch, RangeSteps
from sample_slots import Check, Reading
from state_log import Ration, StateLog
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

_RETRY_AFTER_S = (0.5, 1.0, 2.0, 5.0)  # from one attempt's begin to the next one's; the last one again and again
_RETRY_AFTER_AT_LEAST_S = 0.5
_HEARTBEAT_S = 1.0
_LOOK_WITHIN_S = 0.15
FROZEN = "frozen"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What the thread is asked to do: read for the sample begun then, or ``None``; verify the settings, or not.

    Neither of both is a look: whether the meter shows zeros, as it does after a change of its settings.
    """

    asked_mono_s: float
    begun_mono_s: float | None = None
    verify: bool = False


class MeterReader(Worker):
    """Reads one meter on request. ``name`` is what the operator calls it: "voltage meter", "current meter".

    ``deliver`` is called from this thread with each ``Reading`` and ``Check``; ``on_ready`` whenever the meter has
    become ready. ``again_within_s``: a meter that answers sooner is asked again, to confirm its reading. ``steps``: the
    ranges it may change between.
    """

    def __init__(
        self,
        name: str,
        meter: XDM1041,
        clock: Clock,
        *,
        deliver: Callable[[Reading | Check], None],
        on_ready: Callable[[], None],
        again_within_s: float = 0.1,
        stale_after_s: float = 30.0,
        steps: RangeSteps | None = None,
    ) -> None:
        super().__init__(name, clock)
        self.meter = meter
        self.refused: Counter[str] = Counter()
        self._configured_port = meter.port
        self._deliver = deliver
        self._on_ready = on_ready
        self._again_within_s = again_within_s
        self._hold = HoldWatch(stale_after_s)
        self._stale_after_s = stale_after_s
        self._steps = steps
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # so that no request is accepted while readiness is lost
        self._ready = False
        self._busy = False
        self._state, self._overload, self._frozen = (StateLog(logger, name, clock) for _ in range(3))
        self._announced: tuple[Identity, str] | None = None
        self._announcements, self._range_changes = Ration(clock), Ration(clock)
        self._failure: type[XDM1041Error] | None = None
        self._failures = 0
        meter.on_wait = self.beat

    @property
    def is_ready(self) -> bool:
        """Whether the meter is set up and trusted, as far as is known."""
        return self._ready

    @property
    def has_moved(self) -> bool:
        """Whether the meter was found on another port than its own."""
        return self.meter.port != self._configured_port

    @property
    def serial_number(self) -> str | None:
        """The serial number of the meter that was ready last, ``None`` if none ever was."""
        return self._announced[0].serial_number if self._announced else None

    @property
    def trouble(self) -> str | None:
        """What is wrong with the meter, ``None`` if it is well."""
        return self._state.line or self._overload.line or self._frozen.line

    def state(self) -> dict[str, object]:
        """Return what there is to say of it: ``works``, ``trouble``, ``serial_number``, ``port``."""
        trouble = self._state.message or self._overload.message or self._frozen.message
        return {
            "works": self._ready and trouble is None,
            "trouble": trouble,
            "serial_number": self.serial_number,
            "port": self.meter.port,
        }

    def request(self, begun_mono_s: float, *, verify: bool) -> bool:
        """Ask for a reading now, and with ``verify`` for a check of the settings behind it.

        Return whether it will be answered: not if the meter is absent or still busy.
        """
        with self._lock:
            if not self._ready or self._busy:
                return False
            self._busy = True
            self._jobs.put(_Job(asked_mono_s=begun_mono_s, begun_mono_s=begun_mono_s, verify=verify))
            return True

    def look(self) -> None:
        """Have a look taken at the meter: if it shows a zero, the next readings do not count."""
        self._put(_Job(asked_mono_s=self.clock.mono_s()))

    def check(self) -> None:
        """Have the settings verified, without a reading."""
        self._put(_Job(asked_mono_s=self.clock.mono_s(), verify=True))

    def verify_untouched(self) -> str | None:
        """Return why the meter's settings are not what they were set to, ``None`` if they are. Sets up nothing.

        Call it before ``start()``. Blocks 0.4 s, 3 s without an answer.
        """
        try:
            self.meter.verify_untouched()
        except XDM1041Error as exc:
            logger.info("%s: what was read before the restart does not count: %s", self.name, exc)
            return type(exc).__name__
        finally:
            self.meter.disconnect()
        return None

    def step(self) -> None:
        """Bring the meter up if it is not ready, else wait for one job and do it."""
        if not self._ready:
            self._bring_up()
            return
        try:
            job = self._jobs.get(timeout=_HEARTBEAT_S)
        except Empty:
            return
        if job is None:
            return
        if job.begun_mono_s is not None:
            self._answer(job.begun_mono_s, job)
        elif job.verify:
            self._verify()
        else:
            self._take_look(job.asked_mono_s)

    def wake(self) -> None:
        """End a wait for requests and every wait of the driver."""
        self._jobs.put(None)
        self.meter.interrupt()

    def finish(self) -> None:
        """Close the port."""
        self.meter.disconnect()

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._ready and self._jobs.qsize() < 2:
                self._jobs.put(job)

    def _bring_up(self) -> None:
        began_mono_s = self.clock.mono_s()
        try:
            identity = self.meter.connect()
        except Interrupted:
            return
        except XDM1041Error as exc:
            self._trouble(exc)
            if type(exc) is not self._failure:  # the port is back, or the meter: what is next may come soon
                self._failure, self._failures = type(exc), 0
            retry_mono_s = began_mono_s + _RETRY_AFTER_S[min(self._failures, len(_RETRY_AFTER_S) - 1)]
            retry_mono_s = max(retry_mono_s, self.clock.mono_s() + _RETRY_AFTER_AT_LEAST_S)
            self.pause(retry_mono_s - self.clock.mono_s())
            self._failures += 1
            return
        self._announce(identity)
        with self._lock:
            self._ready, self._busy = True, False
        self._on_ready()

    def _announce(self, identity: Identity) -> None:
        """Log which meter it is, where that is news."""
        port, announced = self.meter.port, self._announced
        if announced == (identity, port):
            return
        self._announced = (identity, port)
        if not self._announcements.take():
            return
        logger.info(
            "%s: %s, serial number %s, firmware %s, on %s, is set up (%s)%s",
            self.name,
            identity.model,
            identity.serial_number,
            identity.firmware,
            port,
            self.meter.range.label if self.meter.range else self.meter.mode.name,
            self._announcements.hint,
            extra=about(Event.METER_READY, self.name),
        )

    def _answer(self, begun_mono_s: float, job: _Job) -> None:
        start_mono_s = self.clock.mono_s()
        value, refused, verified = None, None, False
        try:
            value, overload = self._read()
            step = self._next_range(value)
            if job.verify or overload is not None or step is not None:
                self.meter.verify_settings()
                verified = True
        except XDM1041Error as exc:
            value, refused = None, type(exc).__name__
            self._lose(exc)
        else:
            if verified:
                self._deliver(Check(meter=self.name))
            refused = self._judge(value, overload, ends=step is not None)
            self._change_range(step)
        if refused is not None:
            self.refused[refused] += 1
        self._deliver(
            Reading(
                meter=self.name,
                begun_mono_s=begun_mono_s,
                start_mono_s=start_mono_s,
                value=None if refused else value,
                refused=refused,
                verified=verified,
            )
        )
        self._busy = False

    def _read(self) -> tuple[float | None, Overload | None]:
        """Return the reading, or none and why it is beyond the range."""
        try:
            return self.meter.read_val1_sure(self._again_within_s), None
        except Overload as exc:
            return None, exc

    def _judge(self, value: float | None, overload: Overload | None, *, ends: bool) -> str | None:
        """Return why a reading of a meter that works does not count, and log where that changes.

        ``ends``: a change of the range puts an end to the overload.
        """
        self._failure = None
        self._state.well("works again")
        if value is None:
            self._hold.forget()
            if not ends:
                self._overload.failed("Overload", f"{overload}; there is no value to report while this lasts")
            return Overload.__name__
        self._overload.well("is back within its range")
        if not self._hold.is_held(value, self.clock.mono_s()):
            self._frozen.well("its reading changes again")
            return None
        self._frozen.failed(
            FROZEN,
            f"every digit of its reading has been the same for {self._stale_after_s:g} s: is it in hold? Nothing is "
            "reported from it until it changes; what was reported meanwhile may be old: press Run/Stop on the meter",
        )
        return FROZEN

    def _next_range(self, value: float | None) -> int | None:
        if self._steps is None or self.meter.range is None:
            return None
        return self._steps.next_range(self.meter.range.number, value, self.clock.mono_s())

    def _change_range(self, number: int | None) -> None:
        """Have the meter set up on another range; until that has settled there are no readings."""
        if number is None or self.meter.range is None:
            return
        before = self.meter.range.label
        self._drop_jobs("Unsettled")
        self.meter.use_range(number)
        label = self.meter.range.label
        if self._range_changes.take():
            words = f"changes its range from {before} to {label}, as the current has changed{self._range_changes.hint}"
            logger.info("%s: %s", self.name, words, extra=about(Event.RANGE, self.name))

    def _take_look(self, asked_mono_s: float) -> None:
        """Look for zeros, and at the digits; not if the last sample took so long that it would delay the next one."""
        if self.clock.mono_s() - asked_mono_s > _LOOK_WITHIN_S:
            return
        try:
            self._hold.is_held(self.meter.read_val1_raw(), self.clock.mono_s())
        except Overload:
            self._hold.forget()
        except XDM1041Error as exc:
            self._lose(exc)

    def _verify(self) -> None:
        try:
            self.meter.verify_settings()
        except XDM1041Error as exc:
            self._lose(exc)
        else:
            self._deliver(Check(meter=self.name))

    def _lose(self, exc: XDM1041Error) -> None:
        """Trust the meter no more, nor any of its values that were not verified."""
        self._trouble(exc)
        self._drop_jobs(type(exc).__name__)
        self._deliver(Check(meter=self.name, refused=type(exc).__name__))

    def _drop_jobs(self, refused: str) -> None:
        """Be ready no more, and refuse what has been accepted meanwhile."""
        with self._lock:
            self._ready = False
            jobs = [self._jobs.get() for _ in range(self._jobs.qsize())]
        for begun_mono_s in (job.begun_mono_s for job in jobs if job is not None):
            if begun_mono_s is not None:
                self.refused[refused] += 1
                self._deliver(
                    Reading(
                        meter=self.name,
                        begun_mono_s=begun_mono_s,
                        start_mono_s=begun_mono_s,
                        value=None,
                        refused=refused,
                    )
                )

    def _trouble(self, exc: XDM1041Error) -> None:
        """Note what is wrong. After anything that a mere look at the settings cannot mend, the port is closed."""
        if isinstance(exc, Interrupted):
            return
        kind = "port" if isinstance(exc, (PortLost, PortUnavailable)) else type(exc).__name__
        self._state.failed(kind, f"{exc}; nothing is reported from it until it works again")
        if not isinstance(exc, (BrokenExchange, SettingsDiffer, Unsettled)):
            self.meter.disconnect()
