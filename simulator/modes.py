"""The measuring modes and ranges of an XDM1041, and the firmware versions worth imitating. Tables, no behaviour.

The facts are those of ``reference/xdm1041.md``: section 3.1 (range values of CONF), 3.2 (FUNC? names), 3.3 (RANGE?
labels), 3.4 (display texts) and 7 (profiles). Non-ASCII letters are written here as they look; the wire carries them
in GBK.

A range's ``picture`` is its display with zeros for the digits, e.g. ``00.000mVDC``: it gives the digits, the unit and
the size of one display step.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum, StrEnum

OVERLOAD = math.inf
"""What a reading is when the input is beyond the range, or when nothing measurable is connected."""

OVER_RANGE = 1.1
"""Every range reads 10 % beyond its name (user manual, note 2) ..."""
TOP_OVER_RANGE = 1.05
"""... except the top ones: overload above 1050 V and above 10.5 A (user manual, section 6)."""

_SI_PREFIX = {"m": 1e3, "u": 1e6}


class Rate(StrEnum):
    """The three speeds, by the letters that RATE takes and RATE? gives (the manuals say L for S, in vain)."""

    SLOW = "S"
    MEDIUM = "M"
    FAST = "F"


class Leads(Enum):
    """What a DC source on the leads gives in a mode: its value, nothing, or an open circuit."""

    LIVE = "live"
    ZERO = "zero"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """One range: its full scale in the mode's SI unit, the label RANGE? gives, and its display."""

    label: str
    full_scale: float
    picture: str

    @property
    def step(self) -> float:
        """One step of the last displayed digit, in the mode's SI unit."""
        digits, unit = self._parts()
        return float(10.0 ** -len(digits.partition(".")[2]) / _SI_PREFIX.get(unit[:1], 1.0))

    def shown(self, value: float) -> str:
        """Return the display text of a value: rounded, zero-padded, with unit; a minus stays even on zero."""
        digits, unit = self._parts()
        decimals = len(digits.partition(".")[2])
        sign = "-" if math.copysign(1.0, value) < 0 else ""
        scaled = abs(value) * _SI_PREFIX.get(unit[:1], 1.0)
        return f"{sign}{scaled:0{len(digits)}.{decimals}f}{unit}"

    def _parts(self) -> tuple[str, str]:
        digits = re.match(r"[0.]*", self.picture)
        return (digits[0], self.picture[digits.end() :]) if digits else ("", self.picture)


def _ranges(*rows: tuple[str, float, str]) -> tuple[Range, ...]:
    return tuple(Range(label=label, full_scale=full_scale, picture=picture) for label, full_scale, picture in rows)


def _amperes(kind: str) -> tuple[Range, ...]:
    return _ranges(
        ("500 uA", 500e-6, f"000.00uA{kind}"),
        ("5 mA", 5e-3, f"0.0000mA{kind}"),
        ("50 mA", 50e-3, f"00.000mA{kind}"),
        ("500 mA", 500e-3, f"000.00mA{kind}"),
        ("5 A", 5.0, f"0.0000A{kind}"),
        ("10 A", 10.0, f"00.000A{kind}"),
    )


_DC_VOLTS = _ranges(
    ("50 mV", 50e-3, "00.000mVDC"),
    ("500 mV", 500e-3, "000.00mVDC"),
    ("5 V", 5.0, "0.0000VDC"),
    ("50 V", 50.0, "00.000VDC"),
    ("500 V", 500.0, "000.00VDC"),
    ("1000 V", 1000.0, "0000.0VDC"),
)
_AC_VOLTS = _ranges(
    ("500 mV", 500e-3, "000.00mVAC"),
    ("5 V", 5.0, "0.0000VAC"),
    ("50 V", 50.0, "00.000VAC"),
    ("500 V", 500.0, "000.00VAC"),
    ("750 V", 750.0, "000.0VAC"),
)
_OHMS = _ranges(
    ("500 Ω", 500.0, "000.00Ω"),
    ("5 KΩ", 5e3, "0.0000kΩ"),
    ("50 KΩ", 50e3, "00.000kΩ"),
    ("500 KΩ", 500e3, "000.00kΩ"),
    ("5 MΩ", 5e6, "0.0000MΩ"),
    ("50 MΩ", 50e6, "00.000MΩ"),
)
_FARADS = _ranges(
    ("50 nF", 50e-9, "00.000nF"),
    ("500 nF", 500e-9, "000.00nF"),
    ("5μF", 5e-6, "0.0000μF"),
    ("50μF", 50e-6, "00.000μF"),
    ("500μF", 500e-6, "000.00μF"),
    ("5 mF", 5e-3, "0.0000mF"),
    ("50 mF", 50e-3, "00.000mF"),
)
_SENSORS = _ranges(("KITS90", math.inf, "000.0℃"), ("Pt100", math.inf, "000.0℃"))


def _unranged(picture: str) -> tuple[Range, ...]:
    """One range without a name, for the modes in which RANGE? keeps silent."""
    return _ranges(("", math.inf, picture))


class Mode(Enum):
    """The main function: its FUNC? name, its ranges in the order of RANGE n, and what the leads give in it."""

    DCV = "VOLT", _DC_VOLTS, Leads.LIVE
    ACV = "VOLT AC", _AC_VOLTS, Leads.ZERO
    DCI = "CURR", _amperes("DC"), Leads.LIVE
    ACI = "CURR AC", _amperes("AC"), Leads.ZERO
    RES = "RES", _OHMS, Leads.OPEN
    DIOD = "DIOD", _unranged("0.0000V"), Leads.OPEN
    CONT = "CONT", _unranged("000.0Ω"), Leads.OPEN
    CAP = "CAP", _FARADS, Leads.OPEN
    FREQ = "FREQ", _unranged("0.0000Hz"), Leads.ZERO
    PER = "PER", _unranged("0.0000s"), Leads.ZERO
    TEMP = "TEMP", _SENSORS, Leads.OPEN

    def __init__(self, func: str, ranges: tuple[Range, ...], leads: Leads) -> None:
        self.func = func
        self.ranges = ranges
        self.leads = leads

    @property
    def has_rate(self) -> bool:
        """Whether RATE acts in this mode (user manual, "Measurement Speed")."""
        return self in {Mode.DCV, Mode.ACV, Mode.DCI, Mode.ACI, Mode.RES}

    @property
    def has_second_display(self) -> bool:
        """Whether the second display can show the frequency in this mode."""
        return self in {Mode.ACV, Mode.ACI}

    def limit(self, index: int) -> float:
        """Return the magnitude beyond which the range with this index reads overload, in the mode's SI unit."""
        is_top = index == len(self.ranges) - 1
        return self.ranges[index].full_scale * (TOP_OVER_RANGE if is_top else OVER_RANGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """What differs between firmware versions."""

    version: str
    reply_latency_s: float
    beeper_on: str = "NO"
    tells_time: bool = False
    swaps_diode_and_continuity: bool = True
    auto_returns_to_mv: bool = True


class Profile(Enum):
    """The meters of the record: V2.1.2 (HW), V4.0.0 (ED, by RS232), V4.2.0 (IC, by USB), V4.3.0 (KE, PQ, by USB)."""

    V2_1_2 = Firmware(version="V2.1.2", reply_latency_s=0.0025, auto_returns_to_mv=False)
    V4_0_0 = Firmware(version="V4.0.0", reply_latency_s=0.0025, tells_time=True)
    V4_2_0 = Firmware(version="V4.2.0", reply_latency_s=0.0049)
    V4_3_0 = Firmware(version="V4.3.0", reply_latency_s=0.0049, beeper_on="ON", swaps_diode_and_continuity=False)
