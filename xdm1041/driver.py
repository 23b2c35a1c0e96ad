"""One XDM1041 set up for one measurement.

    meter = XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, 1, "/dev/ttyUSB0")
    meter.connect()
    print(meter.read_val1_raw(), "V")

Used by one thread at a time; only ``interrupt()`` may be called from another. The constructor opens nothing.
Guarantees: strict question and answer, one question outstanding; a number leaves only if its reply was a whole line of
exactly the expected form; mode, range and speed are read back, never assumed; a meter with a serial number is looked
for on the other ports of its ``PortBook``. It does not retry: after a ``BrokenExchange``, ``SettingsDiffer`` or
``Unsettled`` call ``connect()`` again, after a ``PortLost`` or ``WrongInstrument`` ``disconnect()`` first.

The public names are those of the library XDM1041Python, which users of the original daemon know from its README.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from clock import Clock

from . import commands
from .commands import Identity, XDM1041Mode, XDM1041Rate
from .errors import (
    BrokenExchange,
    Interrupted,
    Overload,
    PortLost,
    PortUnavailable,
    ReplyMalformed,
    ReplyTimeout,
    SettingsDiffer,
    Unsettled,
    WrongInstrument,
)
from .ports import PortBook, device
from .settling import LOOK_BEFORE_S, Settling
from .transport import Transport

logger = logging.getLogger(__name__)

_REPLY_TIMEOUT_S = 1.0  # a meter answers within 3 to 60 ms; versions from V4.3.0 on may wait for a conversion
_IDENTIFY_TRIES = 5  # the first question after power-on can go unanswered or come back with noise in front
_AFTER_SET_S = 0.1  # time for the noise of the answer mode to come, so that it can be thrown away
_AFTER_CONFIGURE_S = 0.2
_SETTLE_POLL_S = 0.1
_TOGETHER_S = 0.3  # less than one conversion: what is read later belongs to another moment
_TOLD_EVERY_S = 600.0  # that its settings were lost: a meter with a loose power cable loses them all day
_MISSING_S = 4.0  # for how long after its question a reply is waited for; a stall of 3 s has been seen


class XDM1041:
    """A meter for one mode and one manual range.

    ``mode``: what to measure. ``rng``: the number of the manual range, from 1; for DC volts 1 = 50 mV, 2 = 500 mV,
    3 = 5 V, 4 = 50 V, 5 = 500 V, 6 = 1000 V. ``serial_device``: a path, ``COM3`` or a pyserial URL.
    ``rate``: how often it converts. ``serial_number``: refuse any other meter; ``None`` takes what is there.
    ``ports``: what the meters of one program share, and where a meter with a serial number is looked for.
    Raises ``ValueError`` for a range that the mode does not have.
    """

    def __init__(
        self,
        mode: XDM1041Mode,
        rng: int = 1,
        serial_device: str = "/dev/ttyUSB0",
        *,
        rate: XDM1041Rate = XDM1041Rate.SLOW,
        serial_number: str | None = None,
        ports: PortBook | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.mode = mode
        self.range = commands.range_of(mode, rng)
        self.rate = rate
        self.serial_number = serial_number
        self.identity: Identity | None = None
        self.on_wait: Callable[[], None] = lambda: None
        """Called at each step of what takes long, so that its owner can tell it from a call that hangs."""
        self._clock = clock or Clock()
        self._ports = ports
        self._claim: str | None = None
        self._transport = Transport(serial_device, self._clock, ports.open_port if ports else None)
        self._interrupted = threading.Event()
        self._set_up = False
        self._settled = False
        self._missing_until_mono_s = self._told_mono_s = -math.inf

    @property
    def port(self) -> str:
        """The port as it was given, or the one the meter was found on."""
        return self._transport.port

    @property
    def look_before_s(self) -> float:
        """How long before a reading a look at the meter tells whether the reading can be a transient: seconds."""
        return LOOK_BEFORE_S[self.rate]

    def connect(self) -> Identity:
        """Bring the meter to where its next reading can be trusted, and return who it is.

        Opens the port if need be, drains it, identifies the meter, then verifies its settings if they were made before
        and still hold; otherwise makes them and reads them back. Then waits until the readings have settled. Blocks
        about 3 s, 5 s more when nothing answers, and 1.3 s for each other port that is looked on. Raises any
        ``XDM1041Error``; may be called again after each.
        """
        identity = self._reach()
        if identity != self.identity:
            self._set_up = False
        self.identity = identity
        if not (self._set_up and self._settings_hold()):
            self.configure()
        self.settle()
        return identity

    def verify_untouched(self) -> None:
        """Open the port, identify the meter and verify its settings as they are found, without setting any.

        Blocks 0.4 s, 3 s without an answer; raises any ``XDM1041Error``.
        """
        self._identify_here(tries=2)
        self.verify_settings()

    def disconnect(self) -> None:
        """Close the port. Its settings are not trusted when it is opened again. Never fails."""
        self._set_up = False
        self._transport.close()
        if self._ports is not None:
            self._ports.release(self._claim)
        self._claim = None

    def interrupt(self) -> None:
        """End every wait of the driver, now and from now on, with ``Interrupted``. For the daemon's stop."""
        self._interrupted.set()

    def test_conn(self, tries: int = _IDENTIFY_TRIES) -> Identity:
        """Ask who is there and return it. Tries five times unless told, 1 s each.

        Raises ``BrokenExchange``, ``WrongInstrument``, ``PortLost``.
        """
        for attempt in range(1, tries + 1):
            try:
                return commands.parse_identity(self._ask(commands.IDENTIFY))
            except BrokenExchange as exc:
                if attempt == tries:
                    raise
                logger.debug("%s: %s; asking again", self.port, exc)
                self._pause(0.0)
                self._transport.drain()
        raise AssertionError("unreachable")

    def configure(self) -> None:
        """Set mode, range and speed and read all of them back. Unlocks the panel.

        Blocks about 1 s. Raises ``SettingsDiffer`` if the meter did not take them, ``BrokenExchange``, ``PortLost``.
        """
        self._set_up = self._settled = False
        self._set(commands.LOCAL, _AFTER_SET_S)
        self._set(commands.configure_command(self.mode, self.range), _AFTER_CONFIGURE_S)
        if self.mode in commands.RATED_MODES:
            self._set(commands.rate_command(self.rate), _AFTER_SET_S)
        try:
            self.verify_settings()
        except SettingsDiffer:
            if self.range is None:
                raise
            self._set(commands.range_command(self.range.number), _AFTER_CONFIGURE_S)
            self.verify_settings()
        self._set_up = True

    def verify_settings(self) -> None:
        """Ask the meter for function, auto range, range and speed and compare. Blocks about 20 ms.

        Raises ``SettingsDiffer`` with what differs, ``BrokenExchange``, ``PortLost``.
        """
        self._check(commands.FUNCTION, lambda reply: commands.function_matches(reply, self.mode))
        if self.range is not None:
            meter_range = self.range
            self._check(commands.RANGE, lambda reply: commands.range_matches(reply, meter_range))
            if self.mode is not XDM1041Mode.MODE_TEMP:
                self._check(commands.AUTO, lambda reply: reply == "0")
        if self.mode in commands.RATED_MODES:
            self._check(commands.RATE, lambda reply: commands.rate_matches(reply, self.rate))

    def settle(self) -> None:
        """Throw readings away until the meter shows good ones.

        After a change of its settings, or an exact zero: at least 1 s and two new values that are not zero, or 3 s
        without a zero. Else only until it is certain that no such change was missed, 0.1 to 0.4 s.
        Raises ``Unsettled`` if it still answers exactly zero after 3 s.
        """
        settling = Settling(self._clock.mono_s(), self.rate, settled=self._settled)
        while True:
            text = self._ask(commands.MEASURE)
            over = settling.is_over(text, self._clock.mono_s(), zero=self._is_zero(text))
            self._settled = over or settling.settled
            if over:
                return
            self._pause(_SETTLE_POLL_S)

    def read_val1_raw(self) -> float:
        """Return the present reading in SI units (V, A, Ω, …): the last finished conversion. Blocks 1 s at most.

        Raises ``Overload``, ``Unsettled``, ``BrokenExchange``, ``PortLost``.
        """
        return self._reading(self._ask(commands.MEASURE))

    def read_val1_sure(self, again_within_s: float = 0.1) -> float:
        """Return the present reading as two equal answers have it, or as the middle one of three has it.

        A digit that is garbled into another digit has the form of a reading, but is never the middle one; between two
        answers a conversion may end. A meter whose first answer takes longer than ``again_within_s`` is believed at
        once: some versions may wait for a conversion, and later answers would belong to another moment.
        Blocks 10 ms, 3 s at most; raises as ``read_val1_raw()``.
        """
        started_mono_s = self._clock.mono_s()
        first = self.read_val1_raw()
        if self._clock.mono_s() - started_mono_s > again_within_s:
            return first
        second = self.read_val1_raw()
        if second == first or self._clock.mono_s() - started_mono_s > _TOGETHER_S:
            return first
        return sorted((first, second, self.read_val1_raw()))[1]

    def read_val2_raw(self) -> float | None:
        """Return the reading of the second display in SI units, ``None`` if it is off. Blocks and raises likewise."""
        text = self._ask(commands.MEASURE_SECOND)
        return None if text.upper() == "NONE" else commands.parse_reading(text, None)

    def read_val1_str(self) -> str:
        """Return what the main display shows, with its unit, for a person to read. Blocks and raises likewise."""
        return self._ask(commands.MEASURE_TEXT)

    def read_val2_str(self) -> str:
        """Return what the second display shows, ``NONe`` if it is off. Blocks and raises likewise."""
        return self._ask(commands.MEASURE_SECOND_TEXT)

    def set_mode(self, mode: XDM1041Mode, rng: int = 1) -> None:
        """Measure something else, on manual range ``rng``; the lowest unless told. Blocks about 3 s.

        Raises ``ValueError`` for a range the mode does not have, and what ``configure()`` and ``settle()`` raise.
        """
        self.mode, self.range = mode, commands.range_of(mode, rng)
        self.configure()
        self.settle()

    def set_range(self, rng: int) -> None:
        """Change to another manual range of the present mode. Raises and blocks as ``set_mode()``."""
        self.set_mode(self.mode, rng)

    def use_range(self, rng: int) -> None:
        """Have the next ``connect()`` set another manual range of the present mode. Sends nothing, does not block.

        Raises ``ValueError`` for a range the mode does not have.
        """
        self.range = commands.range_of(self.mode, rng)
        self._set_up = self._settled = False

    def set_sample_speed_slow(self) -> None:
        """Convert slowly (nominally 4/s; the only speed with full accuracy). Raises and blocks as ``set_mode()``."""
        self._set_rate(XDM1041Rate.SLOW)

    def set_sample_speed_med(self) -> None:
        """Convert at medium speed (nominally 16/s). Raises and blocks as ``set_mode()``."""
        self._set_rate(XDM1041Rate.MEDIUM)

    def set_sample_speed_fast(self) -> None:
        """Convert fast (nominally 65/s). Raises and blocks as ``set_mode()``."""
        self._set_rate(XDM1041Rate.FAST)

    def _set_rate(self, rate: XDM1041Rate) -> None:
        self.rate = rate
        self.configure()
        self.settle()

    def _reach(self) -> Identity:
        """Return who answers, on the present port or, if the meter must be another one, on the port it is found on."""
        try:
            return self._identify_here()
        except (BrokenExchange, PortLost, PortUnavailable, WrongInstrument):
            if self._ports is None or self.serial_number is None:
                raise
            self.disconnect()
            found = self._ports.search(self.serial_number, self.port, self._clock, self._pause)
            if found is None:
                raise
        self._transport = Transport(found, self._clock, self._ports.open_port)
        return self._identify_here()

    def _identify_here(self, tries: int = _IDENTIFY_TRIES) -> Identity:
        if self._claim not in (None, device(self.port)):
            self.disconnect()  # another adapter has the name by now
        if self._ports is not None and self._claim is None:
            self._claim = self._ports.claim(self.port, self._pause)
        self._transport.open()
        if self._claim not in (None, device(self.port)):
            raise PortLost(f"{self.port} was plugged in anew while it was opened")
        self._drain()
        identity = self.test_conn(tries)
        known = self.serial_number or (self.identity.serial_number if self.identity else identity.serial_number)
        if identity.serial_number != known:
            identity = self.test_conn(tries)  # one garbled digit makes no other meter
        if self.serial_number is not None and identity.serial_number != self.serial_number:
            raise WrongInstrument(
                f"{self.port} has the meter with serial number {identity.serial_number}, not {self.serial_number}"
            )
        if self._ports is not None and self._claim is not None:
            self._ports.keep(self._claim)
        return identity

    def _settings_hold(self) -> bool:
        try:
            self.verify_settings()
        except SettingsDiffer as exc:
            now_mono_s = self._clock.mono_s()
            often = now_mono_s < self._told_mono_s + _TOLD_EVERY_S
            logger.log(logging.DEBUG if often else logging.INFO, "%s: %s; it is set up again", self.port, exc)
            self._told_mono_s = self._told_mono_s if often else now_mono_s
            return False
        return True

    def _reading(self, text: str) -> float:
        try:
            return commands.parse_reading(text, self.range)
        except Unsettled:
            self._settled = False
            raise

    def _is_zero(self, text: str) -> bool:
        try:
            commands.parse_reading(text, self.range)
        except Unsettled:
            return True
        except Overload:
            return False
        return False

    def _check(self, question: str, matches: Callable[[str], bool]) -> None:
        reply = self._ask(question)
        if not matches(reply):
            self._set_up = False
            wanted = f"{self.mode.name} {self.range.label if self.range else ''} {self.rate.name.lower()}"
            raise SettingsDiffer(f"the meter answers {reply!r} to {question}, but should be set to {wanted}")

    def _drain(self) -> None:
        """Drain the line; if a reply is missing, until it has come or will not come any more."""
        while b"\n" not in self._transport.drain() and self._clock.mono_s() < self._missing_until_mono_s:
            self._pause(0.0)
        self._missing_until_mono_s = -math.inf

    def _ask(self, question: str) -> str:
        asked_mono_s = self._clock.mono_s()
        try:
            line = self._transport.query(question, _REPLY_TIMEOUT_S)
        except ReplyTimeout:
            if question != commands.IDENTIFY:  # a late answer to that one can do no harm
                self._missing_until_mono_s = asked_mono_s + _MISSING_S
            raise
        text = commands.reply_text(line)
        if not text:
            raise ReplyMalformed(f"an empty line answers {question}")
        return text

    def _set(self, command: str, pause_s: float) -> None:
        self._transport.send(command)
        self._pause(pause_s)
        self._transport.discard_waiting()

    def _pause(self, seconds: float) -> None:
        self.on_wait()
        if self._interrupted.wait(self._clock.timeout_s(self._clock.mono_s() + seconds)):
            raise Interrupted("the daemon is stopping")
