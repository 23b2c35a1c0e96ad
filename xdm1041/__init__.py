"""The OWON XDM1041 bench multimeter over serial; usable on its own.

``transport`` moves bytes, ``commands`` knows the words, ``driver`` has ``XDM1041``, ``ports`` finds the ports meters
may be on; errors are in ``errors``.
"""

from .commands import RANGES, Identity, MeterRange, XDM1041Mode, XDM1041Rate
from .driver import XDM1041
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
    XDM1041Error,
)
from .ports import PortBook, candidate_ports, identify

__all__ = [
    "RANGES",
    "XDM1041",
    "BrokenExchange",
    "Identity",
    "Interrupted",
    "MeterRange",
    "Overload",
    "PortBook",
    "PortLost",
    "PortUnavailable",
    "ReplyMalformed",
    "ReplyTimeout",
    "SettingsDiffer",
    "Unsettled",
    "WrongInstrument",
    "XDM1041Error",
    "XDM1041Mode",
    "XDM1041Rate",
    "candidate_ports",
    "identify",
]
