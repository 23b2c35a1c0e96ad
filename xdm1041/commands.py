"""The XDM1041's language: what to send and what may come back. Pure functions, no input or output.

The quirks of the firmware that this module knows (sources in brackets: recorded from a real meter, read from the
published firmware V2.1.2, told by users of V4.x):

* ``MEAS1?`` answers in C's ``%E`` form, seven digits whatever the range: ``-3.803741E-05`` [recorded]. It returns the
  last finished conversion at once and never waits for a new one [recorded].
* Overload is the literal ``1E+9``, without its sign [firmware, users].
* After CONF or RANGE it answers exactly ``0.000000E+00`` until the first conversion is done, and that first conversion
  is a transient [recorded].
* Set commands have no answer; neither have wrong ones, not even wrong questions [recorded]. Only reading back tells.
* In its "answer mode" every set command is answered ``OK/nOK/nOK/n``, without a line end, so that the noise sticks to
  the front of the next reply [firmware].
* ``FUNC1?`` answers in double quotes, and calls DC volts just ``"VOLT"`` [firmware, users]. Below V4.3.0 it swaps CONT
  and DIOD [users].
* The rate is S, M or F; the L of the manuals is not accepted [firmware, users]. A reply L is taken as S.
* ``RANGE?`` answers the label on the display, with or without a blank, and in GBK where it is not ASCII [firmware].
* A range in CONF must be equal to one of the listed values or the whole command is ignored [firmware].
* ``INT:`` commands rewrite the meter's identity or leave it in its boot loader. They are never sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from .errors import Overload, ReplyMalformed, Unsettled, WrongInstrument


class XDM1041Mode(Enum):
    """What the meter measures. The value is the words of the CONF command."""

    MODE_VOLTAGE_DC = "VOLT:DC"
    MODE_VOLTAGE_AC = "VOLT:AC"
    MODE_CURRENT_DC = "CURR:DC"
    MODE_CURRENT_AC = "CURR:AC"
    MODE_RES = "RES"
    MODE_CONT = "CONT"
    MODE_DIODE = "DIOD"
    MODE_CAPACITANCE = "CAP"
    MODE_FREQUENCY = "FREQ"
    MODE_PERIOD = "PER"
    MODE_TEMP = "TEMP:RTD"


class XDM1041Rate(Enum):
    """How often the meter converts: nominally 4, 16 and 65 times a second; only slow has the full accuracy."""

    SLOW = "S"
    MEDIUM = "M"
    FAST = "F"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRange:
    """One manual range: its number for ``RANGE n`` (from 1), its label, its CONF argument, its end in SI units."""

    number: int
    label: str
    argument: str
    full_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who answers: the fields of ``*IDN?``. The serial number is all that tells two meters apart."""

    model: str
    serial_number: str
    firmware: str


def _ranges(unit: str, *rows: tuple[str, str]) -> tuple[MeterRange, ...]:
    return tuple(
        MeterRange(number=number, label=label + unit, argument=argument, full_scale=float(argument))
        for number, (label, argument) in enumerate(rows, start=1)
    )


_AMPERES = _ranges(
    "A", ("500 u", "500E-6"), ("5 m", "5E-3"), ("50 m", "50E-3"), ("500 m", "500E-3"), ("5 ", "5"), ("10 ", "10")
)

#: The manual ranges of each mode that has them, ``RANGE 1`` first.
RANGES: dict[XDM1041Mode, tuple[MeterRange, ...]] = {
    XDM1041Mode.MODE_VOLTAGE_DC: _ranges(
        "V", ("50 m", "50E-3"), ("500 m", "500E-3"), ("5 ", "5"), ("50 ", "50"), ("500 ", "500"), ("1000 ", "1000")
    ),
    XDM1041Mode.MODE_VOLTAGE_AC: _ranges(
        "V", ("500 m", "500E-3"), ("5 ", "5"), ("50 ", "50"), ("500 ", "500"), ("750 ", "750")
    ),
    XDM1041Mode.MODE_CURRENT_DC: _AMPERES,
    XDM1041Mode.MODE_CURRENT_AC: _AMPERES,
    XDM1041Mode.MODE_RES: _ranges(
        "Ω", ("500 ", "500"), ("5 K", "5E3"), ("50 K", "50E3"), ("500 K", "500E3"), ("5 M", "5E6"), ("50 M", "50E6")
    ),
    XDM1041Mode.MODE_CAPACITANCE: _ranges(
        "F",
        ("50 n", "50E-9"),
        ("500 n", "500E-9"),
        ("5 μ", "5E-6"),
        ("50 μ", "50E-6"),
        ("500 μ", "500E-6"),
        ("5 m", "5E-3"),
        ("50 m", "50E-3"),
    ),
    # The temperature "ranges" are the two sensors; they have no end to check a reading against.
    XDM1041Mode.MODE_TEMP: (
        MeterRange(number=1, label="KITS90", argument="KITS90", full_scale=float("inf")),
        MeterRange(number=2, label="PT100", argument="PT100", full_scale=float("inf")),
    ),
}

#: The modes in which the meter has a choice of speed.
RATED_MODES = frozenset(
    {
        XDM1041Mode.MODE_VOLTAGE_DC,
        XDM1041Mode.MODE_VOLTAGE_AC,
        XDM1041Mode.MODE_CURRENT_DC,
        XDM1041Mode.MODE_CURRENT_AC,
        XDM1041Mode.MODE_RES,
    }
)

_FUNCTION_NAMES: dict[XDM1041Mode, frozenset[str]] = {
    XDM1041Mode.MODE_VOLTAGE_DC: frozenset({"VOLT"}),
    XDM1041Mode.MODE_VOLTAGE_AC: frozenset({"VOLT AC"}),
    XDM1041Mode.MODE_CURRENT_DC: frozenset({"CURR"}),
    XDM1041Mode.MODE_CURRENT_AC: frozenset({"CURR AC"}),
    XDM1041Mode.MODE_RES: frozenset({"RES"}),
    XDM1041Mode.MODE_CONT: frozenset({"CONT", "DIOD"}),
    XDM1041Mode.MODE_DIODE: frozenset({"CONT", "DIOD"}),
    XDM1041Mode.MODE_CAPACITANCE: frozenset({"CAP"}),
    XDM1041Mode.MODE_FREQUENCY: frozenset({"FREQ"}),
    XDM1041Mode.MODE_PERIOD: frozenset({"PER"}),
    XDM1041Mode.MODE_TEMP: frozenset({"TEMP"}),
}

IDENTIFY = "*IDN?"
LOCAL = "SYST:LOC"
MEASURE = "MEAS1?"
MEASURE_SECOND = "MEAS2?"
MEASURE_TEXT = "MEAS1:SHOW?"
MEASURE_SECOND_TEXT = "MEAS2:SHOW?"
FUNCTION = "FUNC1?"
AUTO = "AUTO?"
RANGE = "RANGE?"
RATE = "RATE?"

_READING = re.compile(r"-?\d\.\d{6}E[+-]\d{2}")
_OVERLOAD = re.compile(r"-?1E\+0?9")
_OK_NOISE = re.compile(rb"(?:n?OK(?:/n|[\r\n])*)+")
_OVER_RANGE = 1.2  # a manual range ends at 1.1 times its name; what is further out never came from this range
_SENTINEL = 1e9


def range_of(mode: XDM1041Mode, number: int) -> MeterRange | None:
    """Return manual range ``number`` (from 1) of a mode, ``None`` for a mode without ranges.

    Raises ``ValueError`` for a number the mode does not have: the meter would ignore it in silence.
    """
    ranges = RANGES.get(mode)
    if ranges is None:
        return None
    if not 1 <= number <= len(ranges):
        names = ", ".join(f"{each.number} = {each.label}" for each in ranges)
        raise ValueError(f"{mode.name} has no range {number}; it has {names}")
    return ranges[number - 1]


def configure_command(mode: XDM1041Mode, meter_range: MeterRange | None) -> str:
    """Return the one command that sets mode and manual range together, e.g. ``CONF:VOLT:DC 50E-3``."""
    return f"CONF:{mode.value}" if meter_range is None else f"CONF:{mode.value} {meter_range.argument}"


def range_command(number: int) -> str:
    """Return the command for manual range ``number`` of the present mode; it also ends auto range."""
    return f"RANGE {number}"


def rate_command(rate: XDM1041Rate) -> str:
    """Return the command for a speed."""
    return f"RATE {rate.value}"


def reply_text(line: bytes) -> str:
    """Return a reply line as text: without its line end, and without answer-mode noise stuck to its front.

    Raises ``ReplyMalformed`` if the line holds a control character: a meter sends NUL and 01 bytes when it is switched
    on, and its settings are gone then.
    """
    text = _OK_NOISE.sub(b"", line.rstrip(b"\r\n"), count=1) if _OK_NOISE.match(line) else line.rstrip(b"\r\n")
    if any(byte < 0x20 or byte == 0x7F for byte in text):
        raise ReplyMalformed(f"a reply holds control characters: {line!r}")
    return text.decode("gbk", errors="replace").strip()


def parse_reading(text: str, meter_range: MeterRange | None) -> float:
    """Return the reading of ``MEAS1?`` in SI units (V, A, Ω, F, Hz, s, °C).

    Raises ``Overload`` for the overload mark and for a value that the range cannot give, ``Unsettled`` for an exact
    zero, ``ReplyMalformed`` for anything that is not exactly a reading.
    """
    if _OVERLOAD.fullmatch(text):
        raise Overload("the meter shows overload")
    if not _READING.fullmatch(text) or not text.isascii():
        raise ReplyMalformed(f"not a reading: {text!r}")
    value = float(text)
    limit = _SENTINEL if meter_range is None else min(_SENTINEL, _OVER_RANGE * meter_range.full_scale)
    if abs(value) >= limit:
        raise Overload(f"{text} is beyond the range")
    if value == 0.0:
        raise Unsettled("the meter answers exactly zero: it has no finished conversion")
    return value


def parse_identity(text: str) -> Identity:
    """Return who answered ``*IDN?``: ``OWON,XDM1041,22511040,V4.0.0,3``; the manufacturer field may be empty.

    Raises ``ReplyMalformed`` if it is no identification, ``WrongInstrument`` if it is one of another model.
    """
    fields = [field.strip() for field in text.split(",")]
    if len(fields) < 4 or not text.isascii():
        raise ReplyMalformed(f"not an identification: {text!r}")
    model, serial_number, firmware = fields[1:4]
    if model.upper() not in ("XDM1041", "XDM1241"):
        raise WrongInstrument(f"another instrument answers on this port: {text!r}")
    return Identity(model=model, serial_number=serial_number, firmware=firmware)


def function_matches(text: str, mode: XDM1041Mode) -> bool:
    """Return whether a reply to ``FUNC1?`` names this mode."""
    return text.strip('"').upper() in _FUNCTION_NAMES[mode]


def range_matches(text: str, meter_range: MeterRange) -> bool:
    """Return whether a reply to ``RANGE?`` names this range; blanks and case do not count."""
    return text.replace(" ", "").upper() == meter_range.label.replace(" ", "").upper()


def rate_matches(text: str, rate: XDM1041Rate) -> bool:
    """Return whether a reply to ``RATE?`` names this speed. Slow is S on real meters and L in the manuals."""
    return text.upper() == rate.value or (rate is XDM1041Rate.SLOW and text.upper() == "L")
