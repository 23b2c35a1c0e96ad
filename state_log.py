"""Logging of states instead of events: one line when a trouble begins, one when it ends, a summary in between.

Each worker keeps a ``StateLog`` for each thing that can be in trouble; it is used by that worker's thread only.
"""

from __future__ import annotations

import logging

from clock import Clock
from events import Event, about

_SUMMARY_EVERY_S = 3600.0


class StateLog:
    """The trouble, or its absence, of one thing."""

    def __init__(self, logger: logging.Logger, subject: str, clock: Clock) -> None:
        self._logger = logger
        self._subject = subject
        self._clock = clock
        self._trouble: str | None = None
        self._message = ""
        self._told: set[str] = set()
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
            self._since_mono_s, self._repeats = now_mono_s, 0
            self._summary_due_mono_s = now_mono_s + _SUMMARY_EVERY_S
            self._told.clear()
        self._trouble, self._message = kind, message
        if kind not in self._told:
            self._told.add(kind)
            extra = about(Event.TROUBLE_BEGINS, self._subject)
            self._logger.log(level, "%s: %s", self._subject, message, extra=extra, stacklevel=2)
        elif now_mono_s >= self._summary_due_mono_s:
            self._summary_due_mono_s = now_mono_s + _SUMMARY_EVERY_S
            words = f"still, after {self._lasted()} and {self._repeats + 1} failures"
            extra = about(Event.TROUBLE_LASTS, self._subject)
            self._logger.log(level, "%s: %s: %s", self._subject, words, message, extra=extra, stacklevel=2)
        else:
            self._logger.debug("%s: %s", self._subject, message, stacklevel=2)
        self._repeats += 1

    def well(self, message: str) -> None:
        """Note that it works. INFO with how long the trouble was and how many failures it had; else nothing."""
        if self._trouble is None:
            return
        words = f"{message} after {self._lasted()} (failures: {self._repeats})"
        extra = about(Event.TROUBLE_ENDS, self._subject)
        self._logger.info("%s: %s", self._subject, words, extra=extra, stacklevel=2)
        self._trouble = None

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
