"""Is the wall clock right, and what time was it really when an interval ended?

Small computers boot without a clock: for minutes the time can be years off, then NTP steps it, and can step it any day.
Intervals are therefore measured on the monotonic clock, which never steps, and get their timestamps from an *offset*,
wall minus monotonic, that somebody has vouched for: the kernel (it knows when NTP has set it right), or the ``Date`` of
the cloud's answers (within 5 s). While nobody has, readings are held back, but not for ever.

Used by the reporter and the uploader; one lock. Guarantees: an offset once vouched for by the kernel or by a ``Date``
is not given up for a wall clock that contradicts it, unless the kernel says that this one is right. Where there never
was a ``Date`` and the kernel never said anything, a clock that was set back is believed after ``hold_max_s``: then it
is far likelier that somebody has set it right than wrong.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass

from clock import Clock
from events import Event, about
from state_log import Ration

logger = logging.getLogger(__name__)

AGREES_WITHIN_S = 5.0
RELEASED_UTC_S = 1_767_225_600.0  # 2026-01-01, the year of this program: an earlier clock is wrong
_DATE_IS_NEWS_S = 2.0
_SLEWED_MS = 250
_DOUBT_IS_NORMAL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of the clock: the offset in seconds (wall minus monotonic) to go by, whether it can be trusted."""

    kind: str
    offset_s: float
    trusted: bool
    why: str


class TimeKeeper:
    """Collects who vouches for the clock. ``hold_max_s``: for how long to wait if nobody does, in seconds."""

    def __init__(self, clock: Clock, hold_max_s: float) -> None:
        self._clock = clock
        self.hold_max_s = hold_max_s
        self._lock = threading.Lock()
        self._told: tuple[str, bool] | None = None
        self._ration = Ration(clock)
        self._date_offset_s: float | None = None
        self._answers_without_date = False
        self._newest_utc_ms = 0
        self._doubted_since_mono_s: float | None = None
        self._vouched_offset_s: float | None = None
        self._kernel_vouched = False

    def heed_answer(self, date_utc_s: float | None) -> None:
        """Take note of an answer of the cloud that has just come, and of its ``Date`` header if it had one."""
        with self._lock:
            if date_utc_s is None:
                self._answers_without_date = True
                return
            # The header has whole seconds. A small difference is its rounding, not news.
            offset_s = date_utc_s + 0.5 - self._clock.mono_s()
            if self._date_offset_s is None or abs(offset_s - self._date_offset_s) > _DATE_IS_NEWS_S:
                self._date_offset_s = offset_s

    def heed_stored(self, newest_utc_ms: int) -> None:
        """Take note of the newest timestamp in the database: a clock that is earlier than this is wrong."""
        with self._lock:
            self._newest_utc_ms = max(self._newest_utc_ms, newest_utc_ms)

    def verdict(self) -> Verdict:
        """Return what is known of the clock now. Does not block; logs when what is known changes."""
        with self._lock:
            now_mono_s = self._clock.mono_s()
            verdict = self._judge(self._clock.utc_s() - now_mono_s, now_mono_s)
            self._tell(verdict, now_mono_s)
            return verdict

    def _tell(self, verdict: Verdict, now_mono_s: float) -> None:
        """Log a change. The first seconds of doubt are normal: until the cloud's first answer."""
        doubted_s = 0.0 if self._doubted_since_mono_s is None else now_mono_s - self._doubted_since_mono_s
        if (verdict.kind, verdict.trusted) == self._told or (not verdict.trusted and doubted_s < _DOUBT_IS_NORMAL_S):
            return
        if not self._ration.take():  # asked again at the next verdict: what stays is told in the end
            return
        self._told = (verdict.kind, verdict.trusted)
        if verdict.trusted:
            logger.info("the time is known: %s%s", verdict.why, self._ration.hint, extra=about(Event.CLOCK))
        else:
            words = f"readings are held back until the time is known{self._ration.hint}"
            logger.warning("%s; %s", verdict.why, words, extra=about(Event.CLOCK))

    def _judge(self, wall_offset_s: float, now_mono_s: float) -> Verdict:
        if self._clock.kernel_synchronised():  # asked every time: a step takes its word back at once
            return self._vouched("kernel", wall_offset_s, "the kernel says that the clock is synchronised")
        if self._date_offset_s is not None and abs(wall_offset_s - self._date_offset_s) <= AGREES_WITHIN_S:
            return self._vouched("date", wall_offset_s, "the Date of the cloud's answers agrees with the clock")
        plausible = wall_offset_s + now_mono_s > max(RELEASED_UTC_S, self._newest_utc_ms / 1000 - AGREES_WITHIN_S)
        if self._date_offset_s is None and self._answers_without_date and plausible:
            return self._vouched("no date", wall_offset_s, "nothing speaks against the clock")
        if self._doubted_since_mono_s is None:
            self._doubted_since_mono_s = now_mono_s
        waited = now_mono_s - self._doubted_since_mono_s >= self.hold_max_s
        if self._date_offset_s is not None:
            error_s = wall_offset_s - self._date_offset_s
            why = f"this computer's clock is {error_s:+.0f} s off by the Date of the cloud's answers"
            why += ", which is gone by from now on" if waited else ""
            return Verdict(kind="date disagrees", offset_s=self._date_offset_s, trusted=waited, why=why)
        why = "nothing vouches for this computer's clock" if plausible else "this computer's clock is in the past"
        why += f", and it was waited for {self.hold_max_s:g} s" if waited else ""
        offset_s = wall_offset_s
        if not plausible and self._vouched_offset_s is not None:
            impossible = wall_offset_s + now_mono_s <= RELEASED_UTC_S
            if impossible or self._kernel_vouched or not waited:
                offset_s = self._vouched_offset_s
        return Verdict(kind="unknown", offset_s=offset_s, trusted=waited, why=why)

    def _vouched(self, kind: str, offset_s: float, why: str) -> Verdict:
        self._doubted_since_mono_s, self._vouched_offset_s = None, offset_s
        self._kernel_vouched = kind == "kernel"
        return Verdict(kind=kind, offset_s=offset_s, trusted=True, why=why)


def end_utc_ms(planned_utc_ms: int, end_mono_s: float, offset_s: float) -> int:
    """Return the timestamp of an interval that ended at ``end_mono_s``: as planned, unless that was not the time.

    ``offset_s`` is the wall clock minus the monotonic. Small differences are the clock being slewed.
    """
    exact_utc_ms = math.floor((end_mono_s + offset_s) * 1000)
    return planned_utc_ms if abs(exact_utc_ms - planned_utc_ms) <= _SLEWED_MS else exact_utc_ms
