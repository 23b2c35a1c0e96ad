"""What can go wrong between a meter and whoever asks it: faults of the wire, switched on by a test.

A fault turns one reply, complete with its line end, into the chunks that go out instead::

    meter.faults.once(cut(8, line_end=False))                  # the next reply loses its end
    meter.faults.once(late(1.0), to="MEAS1?", times=3)         # the next three readings come a second late
    meter.faults.always(replaced_by("NAN"), to="MEAS1?")       # until clear()
    meter.faults.always(replaced_by("OWON,XDM1241,24412417,V4.3.0,3"), to="*IDN?")

Things that happen to the meter itself (a key pressed, power lost, a stall) are methods of ``VirtualMeter``. The facts
are those of ``reference/xdm1041.md`` sections 1.1, 6 and 7. Thread-safe: a test arms, the port's thread serves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

LINE_END = b"\r\n"

GARBAGE = b"\x00\xff\xa6\xb8\x01~"
"""A NUL, bytes that are no ASCII (A6 B8 is what an ohm sign looks like on this wire) and a control byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Bytes to send and how much later than usual. ``delay_s`` None: stuck to the front of the next reply."""

    data: bytes
    delay_s: float | None = 0.0


Fault = Callable[[bytes], tuple[Chunk, ...]]
"""Takes the reply, line end included; returns what goes out in its place, none of it for a lost reply."""


class AnswerMode(Enum):
    """The firmware's answer to every non-query in answer mode: three OKs (section 1.1), bare or as lines."""

    OFF = b""
    BARE = b"OK/nOK/nOK/n"
    LINES = b"OK\r\nOK\r\nOK\r\n"


def lost() -> Fault:
    """The reply never comes."""
    return lambda _reply: ()


def late(by_s: float) -> Fault:
    """The reply comes this many seconds late; replies to later questions overtake it."""
    return lambda reply: (Chunk(data=reply, delay_s=by_s),)


def cut(keep: int, *, line_end: bool) -> Fault:
    """Only the first ``keep`` bytes come, with or without the line end."""
    return lambda reply: (Chunk(data=reply.removesuffix(LINE_END)[:keep] + (LINE_END if line_end else b"")),)


def split(at: int, gap_s: float) -> Fault:
    """The reply comes in two pieces: ``at`` bytes at once, the rest ``gap_s`` seconds later."""
    return lambda reply: (Chunk(data=reply[:at]), Chunk(data=reply[at:], delay_s=gap_s))


def doubled() -> Fault:
    """The reply comes twice, in one chunk."""
    return lambda reply: (Chunk(data=reply * 2),)


def with_the_next() -> Fault:
    """The reply is kept back and comes in one chunk with the next one."""
    return lambda reply: (Chunk(data=reply, delay_s=None),)


def replaced_by(text: str) -> Fault:
    """This text comes instead, with its line end: ``NAN``, ``1.2``, another meter's identity."""
    return lambda _reply: (Chunk(data=text.encode("gbk") + LINE_END),)


def spoilt(garbage: bytes = GARBAGE, *, at: int = 0) -> Fault:
    """The reply has bytes in it that do not belong there, before its byte number ``at``."""
    return lambda reply: (Chunk(data=reply[:at] + garbage + reply[at:]),)


def front_lost(count: int = 1) -> Fault:
    """The first ``count`` bytes do not come, the rest does: of a negative reading, for one, the sign."""
    return lambda reply: (Chunk(data=reply[count:]),)


def garbled(at: int, count: int = 1) -> Fault:
    """``count`` bytes from byte number ``at`` on have all their bits turned round; the line end stays whole."""

    def strike(reply: bytes) -> tuple[Chunk, ...]:
        text = reply.removesuffix(LINE_END)
        noise = bytes(byte ^ 0xFF for byte in text[at : at + count])
        return (Chunk(data=text[:at] + noise + text[at + count :] + LINE_END),)

    return strike


def digit_changed(number: int, by: int = 1) -> Fault:
    """Digit ``number`` (from 0, round and round) is another one: the reply looks as good as before."""

    def strike(reply: bytes) -> tuple[Chunk, ...]:
        places = [place for place, byte in enumerate(reply) if chr(byte).isdigit()]
        if not places:
            return (Chunk(data=reply),)
        at = places[number % len(places)]
        digit = b"%d" % ((int(reply[at : at + 1]) + by) % 10)
        return (Chunk(data=reply[:at] + digit + reply[at + 1 :]),)

    return strike


def wrong_baud(data: bytes) -> bytes:
    """Return what is read when the two ends disagree on the baud rate: as many bytes, none of them ASCII."""
    return bytes(0x80 | (byte * 5 & 0x7F) for byte in data)


@dataclass(slots=True, kw_only=True, eq=False)
class Armed:
    """A fault that waits for replies to the command ``to`` (None: to any), ``left`` times (None: for ever)."""

    fault: Fault
    to: str | None
    left: int | None


class Faults:
    """The fault switches of one meter's wire."""

    def __init__(self) -> None:
        self.answer_mode = AnswerMode.OFF
        self.garbles_received = False
        """Wrong baud rate towards the meter: it understands nothing."""
        self.garbles_sent = False
        """Wrong baud rate from the meter."""
        self._lock = threading.Lock()
        self._armed: list[Armed] = []
        self._kept_back = b""

    def once(self, fault: Fault, *, to: str | None = None, times: int = 1) -> None:
        """Apply ``fault`` to the next ``times`` replies, or the next ones to the command ``to`` (as sent, any case)."""
        self.arm(fault, to=to, times=times)

    def always(self, fault: Fault, *, to: str | None = None) -> None:
        """Apply ``fault`` to every reply, or every reply to the command ``to``. One armed by ``once`` goes first."""
        self.arm(fault, to=to)

    def arm(self, fault: Fault, *, to: str | None = None, times: int | None = None) -> Armed:
        """Do as ``once`` does, or without ``times`` as ``always``; return what ``disarm`` takes."""
        armed = Armed(fault=fault, to=to, left=times)
        with self._lock:
            self._armed.insert(len(self._armed) if times is None else self._permanent_from(), armed)
        return armed

    def disarm(self, armed: Armed) -> None:
        """Take back one fault, whether it has struck or not."""
        with self._lock, suppress(ValueError):  # it has struck as often as it was to
            self._armed.remove(armed)

    def clear(self) -> None:
        """Mend the wire: no fault is armed any more, answer mode and both garbles are off."""
        with self._lock:
            self._armed.clear()
            self._kept_back = b""
        self.answer_mode = AnswerMode.OFF
        self.garbles_received = False
        self.garbles_sent = False

    @property
    def pending(self) -> int:
        """How many faults armed by ``once`` still wait for a reply to strike."""
        with self._lock:
            return sum(armed.left for armed in self._armed if armed.left is not None)

    def strike(self, command: str, reply: bytes) -> tuple[Chunk, ...]:
        """Return the chunks that go out in answer to ``command`` instead of ``reply``. For the meter."""
        with self._lock:
            chunks = self._due_fault(command)(reply)
            out: list[Chunk] = []
            for chunk in chunks:
                if chunk.delay_s is None:
                    self._kept_back += chunk.data
                else:
                    out.append(Chunk(data=self._kept_back + chunk.data, delay_s=chunk.delay_s))
                    self._kept_back = b""
            return tuple(out)

    def received(self, data: bytes) -> bytes:
        """Return what the meter hears of ``data``. For the meter."""
        return wrong_baud(data) if self.garbles_received else data

    def sent(self, data: bytes) -> bytes:
        """Return what is heard of ``data`` from the meter. For the meter."""
        return wrong_baud(data) if self.garbles_sent else data

    def _permanent_from(self) -> int:
        return sum(armed.left is not None for armed in self._armed)

    def _due_fault(self, command: str) -> Fault:
        for armed in self._armed:
            if armed.to is None or armed.to.upper() == command.strip().upper():
                if armed.left is not None:
                    armed.left -= 1
                    if armed.left == 0:
                        self._armed.remove(armed)
                return armed.fault
        return _intact


def _intact(reply: bytes) -> tuple[Chunk, ...]:
    return (Chunk(data=reply),)
