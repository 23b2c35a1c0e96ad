"""The ends of intervals: which is the true one, and that no two intervals share one.

Used by the outbox alone, under its lock.
"""

from __future__ import annotations

import tables
from tables import Held, Record
from time_keeper import RELEASED_UTC_S, end_utc_ms
from write_behind import WriteBehind


class Timestamps:
    """Gives out the ends of intervals: milliseconds since the epoch. ``newest_utc_ms`` is the newest so far, or 0."""

    def __init__(self, disk: WriteBehind, boot_id: str) -> None:
        self.newest_utc_ms = 0
        self._disk = disk
        self._boot_id = boot_id

    def true_end_utc_ms(self, interval: Record | Held, offset_s: float) -> int | None:
        """Return when an interval ended that was held back: ``offset_s`` is the true wall clock minus the monotonic.

        Of another boot of the computer the monotonic clock is gone: its planned end, if that can be right, else
        ``None``.
        """
        planned_utc_ms = interval.planned_end_utc_ms
        if interval.boot_id == self._boot_id:
            return end_utc_ms(planned_utc_ms, interval.end_mono_s, offset_s)
        began_utc_s = offset_s  # of this boot: its monotonic clock was 0 then
        return planned_utc_ms if RELEASED_UTC_S < planned_utc_ms / 1000 < began_utc_s else None

    def take(self, utc_ms: int) -> int:
        """Return this timestamp, or the next one after it that no interval has. Blocks for the disk, rarely."""
        while utc_ms <= self.newest_utc_ms and self._is_taken(utc_ms):
            utc_ms += 1
        self.newest_utc_ms = max(self.newest_utc_ms, utc_ms)
        return utc_ms

    def _is_taken(self, utc_ms: int) -> bool:
        """Where the database cannot be read, a whole second may be taken: planned ends are whole seconds."""
        if self._disk.pending.uses(utc_ms):
            return True
        taken = self._disk.read(lambda cursor: tables.is_taken(cursor, utc_ms))
        return utc_ms % 1000 == 0 if taken is None else taken
