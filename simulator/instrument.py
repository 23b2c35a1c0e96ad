"""What a virtual meter understands: its settings, its front panel and its commands, one line in, one reply out.

Facts: ``reference/xdm1041.md`` sections 2, 3 and 7. The commands are written in the manual's notation: capitals are the
short form, the whole word the long one, ``[ ]`` may be left out. Anything else is met with silence, as is every set.

It knows nothing of bytes, queues or delays; ``meter.py`` does. Not thread-safe: the meter it belongs to holds its lock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from .converter import Converter, RangeSetting
from .modes import OVERLOAD, Firmware, Mode, Range, Rate

OVERLOAD_TEXT = "1E+9"
"""The overload of MEAS?, in every mode and without a sign (section 3.4)."""
NO_SECOND_VALUE = "NONe"

_POWER_ON_INDEX = {Mode.DCV: 2, Mode.ACV: 1, Mode.DCI: 4, Mode.ACI: 4}
"""5 V and 5 A, as the defaults named in section 3.1; 500 Ω and the rest are the smallest of their modes."""
_CLOCK_TEXT = {"TIME": "time = 12, 54, 53", "DATE": "date = 2019, 3, 30"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply without its line end, and the reading it carries if it answers ``MEAS?`` or ``MEAS1?``."""

    text: str
    reading: float | None = None


class Instrument:
    """The settings of one meter and the commands that read and change them."""

    def __init__(self, converter: Converter, firmware: Firmware, identity: str, mono_s: float) -> None:
        self.converter = converter
        self.identity = identity
        self._firmware = firmware
        self.power_on(mono_s)

    def power_on(self, mono_s: float) -> None:
        """Take the state a meter wakes up in: DC volts, AUTO, slow, unlocked, silent; nothing is remembered."""
        self._memory = {mode: _power_on_setting(mode) for mode in Mode}
        self.remote = False
        self.second_display = False
        self._beeper = False
        self.converter.frozen = False
        self.converter.rate = Rate.SLOW
        self.configured_mono_s = mono_s
        self.converter.configure(Mode.DCV, self._memory[Mode.DCV], mono_s)

    def execute(self, line: str, mono_s: float) -> Reply | None:
        """Carry out one command line at this moment. Return its reply, ``None`` for silence."""
        for pattern, handler in _COMMANDS:
            if match := pattern.fullmatch(line.strip()):
                return handler(self, (match["argument"] or "").strip().upper(), mono_s)
        return None

    def select_mode(self, mode: Mode, mono_s: float, setting: RangeSetting | None = None) -> None:
        """Put a mode on the main display, with this range or the one the meter last had in it."""
        self._memory[self.converter.mode] = self.converter.setting
        self.second_display = self.second_display and mode.has_second_display
        self.configured_mono_s = mono_s
        self.converter.configure(mode, setting or self._memory[mode], mono_s)

    def select_range(self, number: int, mono_s: float) -> None:
        """Set range ``number``, counted from 1, by hand. Ignored where there is no such range."""
        mode = self.converter.mode
        if mode.ranges[0].label and 1 <= number <= len(mode.ranges):
            self.converter.configure(mode, RangeSetting(index=number - 1, auto=False), mono_s)

    def select_auto(self, mono_s: float) -> None:
        """Let the meter choose the range."""
        if self.converter.mode not in _WITHOUT_AUTO:
            setting = RangeSetting(index=self.converter.setting.index, auto=True)
            self.converter.configure(self.converter.mode, setting, mono_s)

    def select_rate(self, rate: Rate, mono_s: float) -> None:
        """Set the speed. Ignored in the modes that have none."""
        if self.converter.mode.has_rate:
            self.converter.set_rate(rate, mono_s)

    # -- the commands; each takes its argument in capitals and the time ------------------------------------------

    def _configure(self, mode: Mode, argument: str, mono_s: float) -> None:
        setting = self._setting(mode, argument)
        if setting is not None:
            self.select_mode(mode, mono_s, setting)

    def _setting(self, mode: Mode, argument: str) -> RangeSetting | None:
        """Return what a CONF argument asks for; ``None``, and so no change at all, when it is no range of the mode."""
        present = self.converter.setting if mode is self.converter.mode else self._memory[mode]
        if mode is Mode.TEMP:
            labels = [row.label.upper() for row in mode.ranges]
            return RangeSetting(index=labels.index(argument), auto=False) if argument in labels else present
        if argument in {"", "DEF", "DEFAULT"} or not mode.ranges[0].label:
            return present
        if argument == "AUTO":
            return RangeSetting(index=present.index, auto=True)
        index = _range_index(mode.ranges, argument)
        return None if index is None else RangeSetting(index=index, auto=False)

    def _configure_family(self, dc: Mode, ac: Mode, mono_s: float) -> None:
        """CONF:VOLT and CONF:CURR without DC or AC: no effect when already in volts (amperes)."""
        if self.converter.mode not in {dc, ac}:
            self.select_mode(dc, mono_s)

    def _range(self, argument: str, mono_s: float) -> None:
        if argument in {"DEF", "DEFAULT"}:
            self.select_auto(mono_s)
        elif argument.isdecimal():
            self.select_range(int(argument), mono_s)

    def _rate(self, argument: str, mono_s: float) -> None:
        if argument in set(Rate):
            self.select_rate(Rate(argument), mono_s)

    def _range_reply(self, mono_s: float) -> Reply | None:
        self.converter.reading(mono_s)
        label = self._present_range().label
        return Reply(text=label) if label else None

    def _auto_reply(self) -> Reply:
        return Reply(text="1" if self.converter.setting.auto else "0")

    def _function_reply(self) -> Reply:
        swapped = {Mode.DIOD: Mode.CONT, Mode.CONT: Mode.DIOD} if self._firmware.swaps_diode_and_continuity else {}
        mode = self.converter.mode
        return Reply(text=f'"{swapped.get(mode, mode).func}"')

    def _set_second_display(self, argument: str) -> None:
        if self.converter.mode.has_second_display and argument in {'"FREQ"', '"NONE"'}:
            self.second_display = argument == '"FREQ"'

    def _reading_reply(self, mono_s: float) -> Reply:
        value = self.converter.reading(mono_s)
        text = OVERLOAD_TEXT if value == OVERLOAD else f"{value:.6E}"
        return Reply(text=text, reading=float(text))

    def _shown_reply(self, mono_s: float) -> Reply:
        value = self.converter.reading(mono_s)
        if value == OVERLOAD:
            return Reply(text="open" if self.converter.mode in {Mode.DIOD, Mode.CONT} else "overload")
        return Reply(text=self._present_range().shown(value))

    def _beep(self, argument: str) -> None:
        if argument in {"ON", "OFF"}:
            self._beeper = argument == "ON"

    def _clock_reply(self, what: str) -> Reply | None:
        """Time and date come with an empty line of their own (section 2, recorded from V4.0.0)."""
        return Reply(text=_CLOCK_TEXT[what] + "\r\n") if self._firmware.tells_time else None

    def _lock(self, remote: bool) -> None:
        self.remote = remote

    def _run_or_stop(self, run: bool, mono_s: float) -> None:
        if run:
            self.converter.frozen = False
        else:
            self.converter.freeze(mono_s)

    def _second(self, value: str) -> Reply:
        return Reply(text=value if self.second_display else NO_SECOND_VALUE)

    def _beeper_reply(self) -> Reply:
        return Reply(text=self._firmware.beeper_on if self._beeper else "OFF")

    def _present_range(self) -> Range:
        return self.converter.mode.ranges[self.converter.setting.index]


_WITHOUT_AUTO = {Mode.DIOD, Mode.CONT, Mode.FREQ, Mode.PER, Mode.TEMP}


def _power_on_setting(mode: Mode) -> RangeSetting:
    if mode in _WITHOUT_AUTO:
        return RangeSetting(index=0, auto=False)
    return RangeSetting(index=_POWER_ON_INDEX.get(mode, 0), auto=True)


def _range_index(ranges: tuple[Range, ...], argument: str) -> int | None:
    """Return the range a CONF argument names: MIN, MAX or a number equal to a full scale (``50E-3`` and ``0.05``)."""
    if argument in {"MIN", "MINIMUM"}:
        return 0
    if argument in {"MAX", "MAXIMUM"}:
        return len(ranges) - 1
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(E[+-]?\d+)?", argument):
        return None
    wanted = float(argument)
    return next((i for i, row in enumerate(ranges) if math.isclose(wanted, row.full_scale, rel_tol=1e-12)), None)


_Handler = Callable[[Instrument, str, float], Reply | None]


def _pattern(notation: str) -> re.Pattern[str]:
    """Compile a command in the manual's notation: ``MEASure[1]?`` is MEAS?, MEASURE?, MEAS1? or MEASURE1?."""
    words = notation.replace("*", r"\*").replace("?", r"\?").replace("[", "(?:").replace("]", ")?")
    words = re.sub(r"([A-Z])([a-z]+)", r"\1(?:\2)?", words)
    return re.compile(rf":?{words}(?: +(?P<argument>.*))?", re.IGNORECASE)


def _configures(mode: Mode) -> _Handler:
    return lambda meter, argument, mono_s: meter._configure(mode, argument, mono_s)


_NOTATION: dict[str, _Handler] = {
    "*IDN?": lambda meter, _, __: Reply(text=meter.identity),
    "MEASure[1]?": lambda meter, _, mono_s: meter._reading_reply(mono_s),
    "MEASure[1]:SHOW?": lambda meter, _, mono_s: meter._shown_reply(mono_s),
    "MEASure2?": lambda meter, _, __: meter._second("0.000000E+00"),
    "MEASure2:SHOW?": lambda meter, _, __: meter._second("0.0000Hz"),
    "CONFigure:VOLTage": lambda meter, _, mono_s: meter._configure_family(Mode.DCV, Mode.ACV, mono_s),
    "CONFigure:CURRent": lambda meter, _, mono_s: meter._configure_family(Mode.DCI, Mode.ACI, mono_s),
    "CONFigure:VOLTage:DC": _configures(Mode.DCV),
    "CONFigure:VOLTage:AC": _configures(Mode.ACV),
    "CONFigure:CURRent:DC": _configures(Mode.DCI),
    "CONFigure:CURRent:AC": _configures(Mode.ACI),
    "CONFigure:RESistance": _configures(Mode.RES),
    "CONFigure:CAPacitance": _configures(Mode.CAP),
    "CONFigure:FREQuency": _configures(Mode.FREQ),
    "CONFigure:PERiod": _configures(Mode.PER),
    "CONFigure:DIODe": _configures(Mode.DIOD),
    "CONFigure:CONTinuity": _configures(Mode.CONT),
    "CONFigure:TEMPerature[:RTD]": _configures(Mode.TEMP),
    "RANGE": Instrument._range,
    "RANGE[1]?": lambda meter, _, mono_s: meter._range_reply(mono_s),
    "AUTO": lambda meter, _, mono_s: meter.select_auto(mono_s),
    "AUTO[1]?": lambda meter, _, __: meter._auto_reply(),
    "RATE": Instrument._rate,
    "RATE?": lambda meter, _, __: Reply(text=meter.converter.rate),
    "FUNCtion[1]?": lambda meter, _, __: meter._function_reply(),
    "FUNCtion2": lambda meter, argument, _: meter._set_second_display(argument),
    "FUNCtion2?": lambda meter, _, __: meter._second("FREQ"),
    "SYSTem:REMote": lambda meter, _, __: meter._lock(True),
    "SYSTem:LOCal": lambda meter, _, __: meter._lock(False),
    "SYSTem:BEEPer:STATe": lambda meter, argument, _: meter._beep(argument),
    "SYSTem:BEEPer:STATe?": lambda meter, _, __: meter._beeper_reply(),
    "SYSTem:TIME?": lambda meter, _, __: meter._clock_reply("TIME"),
    "SYSTem:DATE?": lambda meter, _, __: meter._clock_reply("DATE"),
    "SHOW:ON": lambda meter, _, mono_s: meter._run_or_stop(True, mono_s),
    "SHOW:OFF": lambda meter, _, mono_s: meter._run_or_stop(False, mono_s),
}
_COMMANDS = tuple((_pattern(notation), handler) for notation, handler in _NOTATION.items())
