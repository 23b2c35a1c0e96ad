"""Logging of states instead of events: one line when a trouble begins, one when it ends, a summary in between.

Each worker keeps a ``StateLog`` for each thing that can be in trouble; it is used by that worker's thread only.
Guarantee: whatever comes and goes, how often ever, a ``StateLog`` writes some 40 lines an hour at the most. Troubles
that are not told when they begin are counted, the count is told, and one that stays is told after five minutes.
"""

from __future__ import annotations

import logging
import math

from clock import Clock
from events import Event, about

_HOUR_S = 3600.0
_SUMMARY_EVERY_S = _HOUR_S
_AN_HOUR = 6
_STAYS_AFTER_S = 300.0
OFTEN = "this happens often: what more of it comes within the hour is not told"


class Ration:
    """How often an hour a line is written that anything may cause again and again: six times."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_mono_s = -math.inf
        self._taken = 0

    def take(self) -> bool:
        """Ask for one line more. Return whether it may be written."""
        if self.is_renewed:
            self._since_mono_s, self._taken = self._clock.mono_s(), 0
        self._taken += 1
        return self._taken <= _AN_HOUR

    @property
    def is_renewed(self) -> bool:
        """Whether the hour is over that began with the first line."""
        return self._clock.mono_s() - self._since_mono_s >= _HOUR_S

    @property
    def hint(self) -> str:
        """What to put behind the line that was just let through: what follows if it was the last one of the hour."""
        return f" ({OFTEN})" if self._taken == _AN_HOUR else ""


class StateLog:
    """The trouble, or its absence, of one thing."""

    def __init__(self, logger: logging.Logger, subject: str, clock: Clock) -> None:
        self._logger = logger
        self._subject = subject
        self._clock = clock
        self._trouble: str | None = None
        self._message = ""
        self._told: set[str] = set()
        self._is_told = False
        self._ration = Ration(clock)
        self._untold = 0
        self._since_mono_s = 0.0
        self._summary_due_mono_s = 0.0
        self._repeats = 0

    @property
    def trouble(self) -> str | None:
        """The kind of trouble it is in, ``None`` if it is well."""
        return self._trouble

    @property
    def message(self) -> str | None:
        """What was said of the trouble last, ``None`` if it is well."""
        return self._message if self._trouble is not None else None

    @property
    def line(self) -> str | None:
        """The same with its subject, as the log has it: ``voltage meter: no answer``."""
        return f"{self._subject}: {self._message}" if self._trouble is not None else None

    def failed(self, kind: str, message: str, *, level: int = logging.WARNING) -> None:
        """Note a failure. Logged when its kind is new in this trouble, then counted, with one summary an hour."""
        now_mono_s = self._clock.mono_s()
        if self._trouble is None:
            self._tell_untold()
            self._since_mono_s, self._repeats, self._is_told = now_mono_s, 0, False
            self._summary_due_mono_s = now_mono_s + _SUMMARY_EVERY_S
            self._told.clear()
        self._trouble, self._message = kind, message
        if kind not in self._told and self._ration.take():
            self._tell(level, Event.TROUBLE_BEGINS, f"{message}{self._ration.hint}")
        elif not self._is_told and now_mono_s - self._since_mono_s >= _STAYS_AFTER_S:
            self._tell(level, Event.TROUBLE_BEGINS, f"{message}; this has lasted for {self._lasted()}")
        elif now_mono_s >= self._summary_due_mono_s:
            self._summary_due_mono_s = now_mono_s + _SUMMARY_EVERY_S
            words = f"still, after {self._lasted()} and {self._repeats + 1} failures"
            self._tell(level, Event.TROUBLE_LASTS, f"{words}: {message}")
        else:
            self._logger.debug("%s: %s", self._subject, message, stacklevel=2)
        self._told.add(kind)
        self._repeats += 1

    def well(self, message: str) -> None:
        """Note that it works. INFO with how long the trouble was and how many failures it had; else nothing."""
        if self._trouble is None:
            if self._untold:
                self._tell_untold()
            return
        self._trouble = None
        words = f"{message} after {self._lasted()} (failures: {self._repeats})"
        if self._is_told:
            self._tell(logging.INFO, Event.TROUBLE_ENDS, words)
        else:
            self._untold += 1
            self._logger.debug("%s: %s", self._subject, words, stacklevel=2)

    def _tell(self, level: int, event: Event, words: str) -> None:
        self._is_told = True
        self._logger.log(level, "%s: %s", self._subject, words, extra=about(event, self._subject), stacklevel=3)

    def _tell_untold(self) -> None:
        """Tell how many troubles were only counted, once their hour is over."""
        if self._untold and self._ration.is_renewed:
            troubles = "trouble" if self._untold == 1 else "troubles"
            words = f"{self._untold} more {troubles} came and went, the last one: {self._message}"
            self._untold = 0
            self._tell(logging.INFO, Event.TROUBLE_ENDS, words)

    def _lasted(self) -> str:
        return duration_text(self._clock.mono_s() - self._since_mono_s)


def duration_text(seconds: float) -> str:
    """Return a duration as a person says it: ``3.2 s``, ``12 min 5 s``, ``5 h 3 min``, ``12 d 4 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, whole_s = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {whole_s} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
