"""What happens to meters beside a battery, by name: every fault of wire and bench as something that begins and ends.

``MISHAPS`` names them. ``MISHAPS[name].begin(place, chance)`` brings one about at one meter and returns how to end it;
``chance`` decides what the name leaves open (which byte, which key). ``fault_schedule.py`` plays them in time.

Not thread-safe: one thread plays. After whatever was played, ``MeterPair.restore()`` leaves the bench as it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .faults import (
    AnswerMode,
    Fault,
    cut,
    digit_changed,
    doubled,
    front_lost,
    garbled,
    late,
    lost,
    replaced_by,
    split,
    spoilt,
    with_the_next,
)
from .meter import Chatterbox, VirtualMeter
from .modes import Mode, Rate
from .ports import PtyPort

_ANOTHER_MAKE = "RIGOL TECHNOLOGIES,DM858,DM8A000000,00.01.00.00.01"
_THIRD_SERIAL = "33333333"
_THIRD_V = 0.0523
_LINES = (b"T=21.5\r\n", b"1.234567E-02\r\n", b"\x00\xff", b"-\r\n")

End = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something happens: at the port of one meter. ``other`` is the place of the other meter."""

    port: PtyPort
    other: PtyPort

    @property
    def meter(self) -> VirtualMeter:
        """The meter that is plugged in there now."""
        return self.port.meter

    def replug(self, change: Callable[[], None]) -> None:
        """Pull the port, change something, and plug it in again."""
        self.port.unplug()
        change()
        self.port.plug_in()


class MeterPair:
    """Two meters at their ports, as they belong: what ``restore()`` returns to. The ports need links."""

    def __init__(self, voltage: PtyPort, current: PtyPort) -> None:
        self.places = {
            "voltage": Place(port=voltage, other=current),
            "current": Place(port=current, other=voltage),
        }
        self._belongs = [(port, port.meter, port.meter.identity, port.link) for port in (voltage, current)]

    def restore(self) -> None:
        """Mend everything; what is right is left alone."""
        for port, meter, _identity, link in self._belongs:
            if port.meter is not meter or port.link != link or port.forbidden:
                port.unplug()
        for port, meter, identity, link in self._belongs:
            meter.identity = identity
            port.meter, port.link, port.forbidden = meter, link, False
            meter.faults.clear()
            meter.release()
            port.held = False
            port.plug_in()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """One kind of fault. ``begin`` returns how to end it, which may be done whatever else has happened meanwhile.

    ``begin_once``, which faults of replies have, spoils one to three replies and nothing more.
    ``lasts_s``: the shortest and the longest it takes; ``tail_s``: how long the meter itself needs afterwards (to
    boot); ``echo_s``: how long after that something of it may still come. ``moves_port``: the port goes, so that
    another such fault at the same place makes no sense. ``both``: it happens to both meters at once. ``share``: how
    often it comes, 1 unless told.
    """

    begin: Callable[[Place, random.Random], End]
    lasts_s: tuple[float, float]
    tail_s: float = 0.0
    echo_s: float = 0.0
    moves_port: bool = False
    both: bool = False
    share: float = 1.0
    begin_once: Callable[[Place, random.Random], End] | None = None


def _nothing() -> None:
    """End what ended by itself."""


# -- the wire -------------------------------------------------------------------------------------------------------


def _wire(
    make: Callable[[random.Random], Fault], *, share: float = 1.0, echo_s: float = 0.0, single: bool = False
) -> Mishap:
    """Return a fault of replies: of all while it lasts, or of one to three; with ``single`` of one only."""

    def begin(place: Place, chance: random.Random, times: int | None = 1 if single else None) -> End:
        faults = place.meter.faults
        armed = faults.arm(make(chance), to=chance.choice(("MEAS1?", None)), times=times)
        return lambda: faults.disarm(armed)

    def begin_once(place: Place, chance: random.Random) -> End:
        return begin(place, chance, 1 if single else chance.choice((1, 1, 1, 2, 3)))

    return Mishap(begin=begin, begin_once=begin_once, lasts_s=(0.5, 5.0), share=share, echo_s=echo_s)


def _silent(place: Place, _chance: random.Random) -> End:
    faults = place.meter.faults
    armed = faults.arm(lost())
    return lambda: faults.disarm(armed)


def _answer_mode(place: Place, chance: random.Random) -> End:
    faults = place.meter.faults
    faults.answer_mode = chance.choice((AnswerMode.BARE, AnswerMode.LINES))
    _lost_settings(place, chance)  # it shows only when something is set

    def end() -> None:
        faults.answer_mode = AnswerMode.OFF

    return end


def _noise_in_front(chance: random.Random) -> Fault:
    return spoilt(chance.choice((AnswerMode.BARE.value, AnswerMode.LINES.value, b"nOK", b"OK/n", b"OK\r\n")))


def _wrong_baud(place: Place, _chance: random.Random) -> End:
    faults = place.meter.faults
    faults.garbles_sent = faults.garbles_received = True

    def end() -> None:
        faults.garbles_sent = faults.garbles_received = False

    return end


def _unasked(place: Place, chance: random.Random) -> End:
    place.meter.say(chance.choice((b"-", b"1", b"\x00", b"1.000000E-02\r\n", b"OK", b"\r\n", b"\xff" * 300)))
    return _nothing


# -- the port -------------------------------------------------------------------------------------------------------


def _unplugged(place: Place, _chance: random.Random) -> End:
    place.port.unplug()
    return place.port.plug_in


def _other_name(place: Place, _chance: random.Random) -> End:
    port, name = place.port, place.port.link
    assert name is not None

    def rename(link: Path) -> Callable[[], None]:
        return lambda: setattr(port, "link", link)

    place.replug(rename(name.with_name(f"{name.name}-moved")))
    return lambda: place.replug(rename(name))


def _forbidden(place: Place, _chance: random.Random) -> End:
    place.replug(lambda: setattr(place.port, "forbidden", True))
    return lambda: place.replug(lambda: setattr(place.port, "forbidden", False))


def _held(place: Place, _chance: random.Random) -> End:
    place.replug(lambda: setattr(place.port, "held", True))
    return lambda: setattr(place.port, "held", False)


def _exchanged(place: Place, meter: VirtualMeter) -> End:
    own = place.meter
    place.replug(lambda: setattr(place.port, "meter", meter))
    return lambda: place.replug(lambda: setattr(place.port, "meter", own))


def _another_make(place: Place, _chance: random.Random) -> End:
    stranger = VirtualMeter(lambda _mono_s: _THIRD_V, clock=place.meter.clock)
    stranger.identity = _ANOTHER_MAKE
    return _exchanged(place, stranger)


def _another_meter(place: Place, _chance: random.Random) -> End:
    clock = place.meter.clock
    return _exchanged(place, VirtualMeter(lambda _mono_s: _THIRD_V, serial_number=_THIRD_SERIAL, clock=clock))


def _chatter(place: Place, chance: random.Random) -> End:
    lines = chance.sample(_LINES, 2)
    return _exchanged(place, Chatterbox(*lines, every_s=chance.uniform(0.02, 0.6), clock=place.meter.clock))


def _cables_swapped(place: Place, _chance: random.Random) -> End:
    def swap() -> None:
        ports = (place.port, place.other)
        for port in ports:
            port.unplug()
        place.port.meter, place.other.meter = place.other.meter, place.port.meter
        for port in ports:
            port.plug_in()

    swap()
    return swap


def _same_serial(place: Place, _chance: random.Random) -> End:
    meter, own = place.meter, place.meter.identity
    place.replug(lambda: setattr(meter, "identity", place.other.meter.identity))
    return lambda: place.replug(lambda: setattr(meter, "identity", own))


# -- the meter ------------------------------------------------------------------------------------------------------


def _power_cut(place: Place, _chance: random.Random) -> End:
    meter = place.meter
    meter.switch_off()
    return meter.switch_on


def _power_cut_with_port(place: Place, _chance: random.Random) -> End:
    meter = place.meter
    place.port.unplug()
    meter.switch_off()

    def end() -> None:
        place.port.plug_in()
        meter.switch_on()

    return end


def _stalled(place: Place, chance: random.Random) -> End:
    place.meter.stall(chance.uniform(0.2, 8.0))
    return _nothing


def _held_reading(place: Place, _chance: random.Random) -> End:
    meter = place.meter
    meter.hold()
    return meter.release


def _locked(place: Place, _chance: random.Random) -> End:
    place.meter.lock()
    return _nothing


def _lost_settings(place: Place, _chance: random.Random) -> End:
    place.meter.press(auto=True)
    return _nothing


def _mode_key(place: Place, chance: random.Random) -> End:
    place.meter.press(mode=chance.choice([mode for mode in Mode if mode is not Mode.DCV]))
    return _nothing


def _range_key(place: Place, chance: random.Random) -> End:
    place.meter.press(range_number=chance.choice((1, 2, 3, 4, 6)))
    return _nothing


def _rate_key(place: Place, chance: random.Random) -> End:
    place.meter.press(rate=chance.choice((Rate.MEDIUM, Rate.FAST)))
    return _nothing


def _key_twice(place: Place, chance: random.Random) -> End:
    """Another mode or range and back: the settings are right again, the reading is a zero and then a transient."""
    meter = place.meter
    setting = meter.setting
    meter.press(**chance.choice(({"range_number": 4}, {"mode": Mode.RES}, {"auto": True})))
    meter.press(mode=Mode.DCV, range_number=setting.index + 1)
    return _nothing


# A reply whose damage looks right (a digit, the sign) can be told from another one; the same damage twice cannot.
MISHAPS: dict[str, Mishap] = {
    "unplugged": Mishap(begin=_unplugged, lasts_s=(0.1, 20.0), moves_port=True, share=2.0),
    "unplugged for minutes": Mishap(begin=_unplugged, lasts_s=(60.0, 300.0), moves_port=True, share=0.1),
    "back under another name": Mishap(begin=_other_name, lasts_s=(1.0, 20.0), moves_port=True),
    "silent": Mishap(begin=_silent, lasts_s=(0.1, 60.0)),
    "stalled, then all at once": Mishap(begin=_stalled, lasts_s=(8.0, 8.0)),
    "late": _wire(lambda chance: late(chance.uniform(0.3, 3.0)), share=2.0, echo_s=3.0),
    "doubled": _wire(lambda _chance: doubled()),
    "kept back for the next": _wire(lambda _chance: with_the_next()),
    "cut": _wire(lambda chance: cut(chance.randrange(14), line_end=False)),
    "cut, with line end": _wire(lambda chance: cut(chance.randrange(14), line_end=True)),
    "front lost": _wire(lambda chance: front_lost(chance.choice((1, 1, 2, 5))), single=True),
    "split": _wire(lambda chance: split(chance.randrange(1, 14), chance.uniform(0.01, 2.0)), echo_s=2.0),
    "garbled": _wire(lambda chance: garbled(chance.randrange(12), chance.choice((1, 1, 2, 8)))),
    "digit changed": _wire(lambda chance: digit_changed(chance.randrange(9), chance.randrange(1, 10)), single=True),
    "NUL or not ASCII": _wire(
        lambda chance: spoilt(chance.choice((b"\0", b"\xff", b"\xa6\xb8")), at=chance.randrange(9))
    ),
    "OK noise in front": _wire(_noise_in_front),
    "answer mode": Mishap(begin=_answer_mode, lasts_s=(1.0, 10.0)),
    "unasked bytes": Mishap(begin=_unasked, lasts_s=(0.0, 0.0)),
    "1E+9": _wire(lambda _chance: replaced_by("1E+9")),
    "NaN or inf": _wire(lambda chance: replaced_by(chance.choice(("NAN", "-inf", "nan", "1.#INF00E+00")))),
    "impossible value": _wire(lambda chance: replaced_by(chance.choice(("9.999999E+05", "-8.888888E+02", "1.2")))),
    "exact zero": _wire(lambda _chance: replaced_by("0.000000E+00")),
    "wrong baud": Mishap(begin=_wrong_baud, lasts_s=(0.5, 20.0)),
    "power cut, port alive": Mishap(begin=_power_cut, lasts_s=(0.05, 20.0), tail_s=3.0, share=2.0),
    "power cut, port gone": Mishap(begin=_power_cut_with_port, lasts_s=(0.1, 20.0), tail_s=3.0, moves_port=True),
    "mode key": Mishap(begin=_mode_key, lasts_s=(0.0, 0.0), share=1.5),
    "range key": Mishap(begin=_range_key, lasts_s=(0.0, 0.0), share=1.5),
    "auto key": Mishap(begin=_lost_settings, lasts_s=(0.0, 0.0)),
    "rate key": Mishap(begin=_rate_key, lasts_s=(0.0, 0.0)),
    "key pressed twice": Mishap(begin=_key_twice, lasts_s=(0.0, 0.0), share=2.0),
    "hold": Mishap(begin=_held_reading, lasts_s=(1.0, 60.0), share=0.7),
    "SYST:REM lock": Mishap(begin=_locked, lasts_s=(0.0, 0.0), share=0.5),
    "another make on the port": Mishap(begin=_another_make, lasts_s=(1.0, 20.0), moves_port=True),
    "a third meter on the port": Mishap(begin=_another_meter, lasts_s=(1.0, 20.0), moves_port=True),
    "a chatterer on the port": Mishap(begin=_chatter, lasts_s=(1.0, 20.0), moves_port=True),
    "cables swapped": Mishap(begin=_cables_swapped, lasts_s=(1.0, 30.0), moves_port=True, both=True),
    "same serial on both": Mishap(begin=_same_serial, lasts_s=(1.0, 20.0), moves_port=True),
    "held by another program": Mishap(begin=_held, lasts_s=(0.5, 20.0), moves_port=True),
    "no permission": Mishap(begin=_forbidden, lasts_s=(0.5, 20.0), moves_port=True),
}
"""Every fault, by the name that tables and logs show. Times in seconds."""
