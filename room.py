"""The bound of the database: what is deleted when it has grown too large, or too old.

Used by the outbox alone, under its lock. Guarantees: delivered history goes first, then the oldest readings that wait,
never one that is on loan; each of those is counted, and said.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import tables
from clock import Clock
from state_log import StateLog
from store import StoreError
from write_behind import WriteBehind

logger = logging.getLogger(__name__)

_TIDY_EVERY_S = 3600.0
_AT_ONCE = 200  # intervals
_TIDIED_AT_ONCE = 5000  # intervals; a month of history at once could take minutes, and everybody waits meanwhile


class Room:
    """Keeps the database below ``max_bytes``, and its history below ``keep_days`` days.

    ``drop`` is told of readings that are given up: how many, why, and whether they were held back.
    """

    def __init__(
        self, disk: WriteBehind, clock: Clock, max_bytes: int, keep_days: int, drop: Callable[[int, str, bool], None]
    ) -> None:
        self._disk = disk
        self._clock = clock
        self.max_bytes = max_bytes
        self.keep_days = keep_days
        self._drop = drop
        self._state = StateLog(logger, "readings that wait", clock)
        self._tidied_mono_s = -math.inf
        self._no_history = False

    def history_grows(self) -> None:
        """Note that something was settled."""
        self._no_history = False

    def keep(self, *, on_loan_to: int, now_utc_ms: int | None) -> None:
        """Delete what is too much. Blocks for the disk. Intervals up to number ``on_loan_to`` are not dropped.

        What is old is deleted only while the time is known: ``now_utc_ms``, the end of the newest interval, and not
        the wall clock, which may be wrong while the cloud's Date is gone by.
        """
        used_bytes = self._disk.read(tables.used_bytes) or 0
        if used_bytes > self.max_bytes:
            self._make_room(on_loan_to)
        elif used_bytes < 0.8 * self.max_bytes:
            self._state.well("there is room for more again")
        now_mono_s = self._clock.mono_s()
        if now_utc_ms is not None and now_mono_s - self._tidied_mono_s >= _TIDY_EVERY_S:
            oldest_utc_ms = now_utc_ms - self.keep_days * 86_400_000
            try:
                with self._disk.store.transaction() as cursor:
                    deleted = tables.delete_history_before(cursor, oldest_utc_ms, _TIDIED_AT_ONCE)
            except StoreError as exc:
                self._disk.trouble(exc)
            else:
                if deleted < _TIDIED_AT_ONCE:  # else there is more, for the next time
                    self._tidied_mono_s = now_mono_s

    def give_up(self, readings: int, why: str, *, held: bool) -> None:
        """Count readings that are lost for want of room, and say so."""
        self._drop(readings, why, held)
        self._state.failed("dropped", f"{why}: the oldest of them are dropped from now on, and counted in --status")

    def _make_room(self, on_loan_to: int) -> None:
        numbers = [] if self._no_history else self._disk.read(lambda cursor: tables.history(cursor, _AT_ONCE))
        if not numbers:
            self._no_history = True  # until something is settled: to look for it can mean to read the whole table
            oldest = self._disk.read(lambda cursor: tables.oldest_waiting(cursor, _AT_ONCE, on_loan_to)) or []
            numbers = [number for number, _, _ in oldest]
            why = f"the database has reached store_max_mb = {self.max_bytes // 1_000_000}"
            for held in (False, True):
                if readings := sum(bits.bit_count() for _, bits, is_held in oldest if is_held == held):
                    self.give_up(readings, why, held=held)
        self._disk.pending.deleted.update(numbers)
        self._disk.write()
