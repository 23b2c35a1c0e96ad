"""The outbox: every interval on disk before anything else happens to it, and no reading out of it but by an answer.

Shared by the recorder (``journal``), the reporter (``close_interval``) and the uploader (``lend`` and the settling);
one lock guards it and the ``Store`` below it. The uploader borrows readings and settles each as delivered or rejected;
what it does not settle stays.

Guarantees: what is in the database survives ``kill -9``; an interval survives a power cut from ``sync_interval_s``
after its end. While the database cannot be used everything goes on from memory, bounded, and is written when it can
be. Over the bound of the file, delivered history goes first, then the oldest readings that wait, each counted. The
ledger always closes: made = delivered + waiting + rejected + dropped.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import tables
from clock import Clock
from ledger import Ledger, Tally
from measurements import Datum, Device, Interval, IntervalSummary, PowerSample
from state_log import StateLog
from store import Store, StoreError, StoreTooNew
from tables import Held, LeftOpen, Lent, Record
from time_keeper import RELEASED_UTC_S, end_utc_ms

logger = logging.getLogger(__name__)

_UNSTORED_LIMIT = 10_000  # intervals kept in memory while the database cannot be used
_UNJOURNALED_LIMIT = 100_000  # samples of the open interval, likewise
_TIDY_EVERY_S = 3600.0
_TIDY_INTERVALS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of the database: bytes, days of delivered history, and seconds that a power cut may cost."""

    max_bytes: int = 500_000_000
    keep_days: int = 31
    sync_interval_s: float = 30.0


class Outbox:
    """Intervals and their readings, from their end until the cloud has answered for them.

    ``device`` is what new readings are reported as; ``boot_id`` is the kernel's name for this boot of the computer.
    """

    def __init__(self, store: Store, device: Device, boot_id: str, clock: Clock, limits: Limits) -> None:
        self._store = store
        self._device = device
        self._boot_id = boot_id
        self._clock = clock
        self._limits = limits
        self._state = StateLog(logger, "database", clock)
        self._room = StateLog(logger, "readings that wait", clock)
        self._changed = threading.Condition()
        self._ledger = Ledger()
        self._next_number = (1 << 50) | (random.getrandbits(40) << 8)  # until the database tells
        self._newest_utc_ms = 0
        self._on_loan_to = 0  # the newest interval of the last loan: it and older ones are not dropped meanwhile
        self._closed_mono_s = float("-inf")
        self._synced_mono_s = self._tidied_mono_s = float("-inf")
        # What the database does not know yet; all of it empty in normal running.
        self._unstored: dict[int, Record] = {}
        self._settled: dict[int, int] = {}
        self._rejected: list[tuple[Datum, str]] = []
        self._uncounted: Counter[str] = Counter()
        self._unjournaled: list[PowerSample] = []
        self._forget_to_mono_s: float | None = None  # samples up to there belong to intervals that are closed
        self._opened: tuple[Interval, bool] | None = None
        self._notes: dict[str, str] = {}

    def note(self, name: str, value: object) -> None:
        """Have a fact for ``--status`` written with the next thing that is: any JSON value. Never blocks for long."""
        with self._changed:
            self._notes[name] = json.dumps(value)

    def recover(self) -> LeftOpen | None:
        """Open the database; return the interval that was open when the program ended, if any was.

        Takes well below 1 s with a million readings waiting. Without a usable database everything goes on from memory;
        raises ``StoreTooNew`` only.
        """
        with self._changed:
            try:
                with self._store.transaction() as cursor:
                    self._next_number = tables.next_number(cursor)
                    held = sum(each.waiting.bit_count() for each in tables.held(cursor))
                    self._ledger.load(tables.counts(cursor), tables.count_waiting(cursor), held)
                    self._newest_utc_ms = tables.newest_end_utc_ms(cursor)
                    return tables.read_open_interval(cursor)
            except StoreTooNew:
                raise
            except StoreError as exc:
                self._trouble(exc)
                return None

    @property
    def newest_utc_ms(self) -> int:
        """The newest timestamp given to an interval: milliseconds since the epoch, 0 if there was none."""
        return self._newest_utc_ms

    def journal(self, samples: Sequence[PowerSample]) -> None:
        """Write down samples of the open interval. Blocks for the disk, not for its confirmation."""
        with self._changed:
            room = _UNJOURNALED_LIMIT - len(self._unjournaled)
            self._unjournaled += samples[:room]
            self._flush()

    def open_interval(self, interval: Interval, *, clock_trusted: bool) -> None:
        """Write down which interval is open, so that a restart can go on with it. Blocks for the disk."""
        with self._changed:
            self._opened = (interval, clock_trusted)
            self._flush()

    def close_interval(
        self, summary: IntervalSummary, ended: Interval, following: Interval, *, clock_trusted: bool
    ) -> list[Datum]:
        """Take an interval in and end its journal, in one transaction; return its readings.

        Without ``clock_trusted`` they are held back until ``stamp()``. Blocks for the disk, once every
        ``sync_interval_s`` for its confirmation. Never fails.
        """
        with self._changed:
            self._closed_mono_s = ended.end_mono_s
            self._unjournaled = [each for each in self._unjournaled if each.start_mono_s > ended.end_mono_s]
            return self._close(summary, ended, following, self._boot_id, clock_trusted)

    def close_left_open(self, left: LeftOpen, summary: IntervalSummary, following: Interval) -> None:
        """Take in the interval that another boot of the computer left open. Blocks and fails likewise."""
        with self._changed:
            self._close(
                summary, replace(left.interval, end_mono_s=math.inf), following, left.boot_id, left.clock_trusted
            )

    def stamp(self, offset_s: float) -> None:
        """Give the intervals that are held back their ends: ``offset_s`` is the true wall clock minus the monotonic.

        Those of an earlier boot of the computer, whose monotonic clock is gone, keep the end they were planned with if
        it can be right, and are set aside otherwise. Blocks for the disk.
        """
        with self._changed:
            if not self._ledger.held:
                return
            for number, record in self._unstored.items():
                if record.end_utc_ms is None:
                    exact_utc_ms = end_utc_ms(record.planned_end_utc_ms, record.end_mono_s, offset_s)
                    self._unstored[number] = replace(record, end_utc_ms=self._untaken_now(exact_utc_ms))
            self._flush()
            try:
                with self._store.transaction() as cursor:
                    for interval in tables.held(cursor):
                        self._stamp(cursor, interval, offset_s)
            except StoreError as exc:
                self._trouble(exc)
                return
            self._ledger.held = 0
            self._changed.notify_all()

    def lend(self, count: int) -> list[Lent]:
        """Return the oldest readings that wait, at most ``count``. They stay until they are settled."""
        with self._changed:
            lent = self._stored(count)
            for record in self._unstored.values():
                if len(lent) >= count:
                    break
                lent += record.lent()
            self._on_loan_to = max((each.interval for each in lent[:count]), default=0)
            return lent[:count]

    def lend_newest(self) -> list[Lent]:
        """Return the readings of the newest interval that has any waiting."""
        with self._changed:
            for number in reversed(self._unstored):
                if lent := self._unstored[number].lent():
                    return lent
            return self._stored(1, newest_first=True)

    def settle_delivered(self, lent: Iterable[Lent]) -> None:
        """Take out what the cloud has accepted."""
        with self._changed:
            self._take_out(lent, "delivered")

    def settle_rejected(self, lent: Iterable[Lent], message: str) -> None:
        """Set aside what the cloud will never accept, with its reason."""
        with self._changed:
            lent = list(lent)
            self._rejected += [(each.datum, message) for each in lent]
            self._take_out(lent, "rejected")

    def wait_for_readings(self, until_mono_s: float) -> bool:
        """Wait until there is something to send, at the longest until ``until_mono_s``. Return whether there is."""
        with self._changed:
            if not self._ledger.sendable:
                self._changed.wait(self._clock.timeout_s(until_mono_s))
            return self._ledger.sendable

    def wait_until_empty(self, until_mono_s: float) -> bool:
        """Wait until everything that may be sent is settled, at the longest until ``until_mono_s``; return whether."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._ledger.sendable, self._clock.timeout_s(until_mono_s))

    def wake(self) -> None:
        """End a wait for readings that is under way."""
        with self._changed:
            self._changed.notify_all()

    def tally(self) -> Tally:
        """Return the numbers of readings made, delivered, waiting, rejected and dropped, since the database began."""
        with self._changed:
            return self._ledger.tally()

    def close(self) -> None:
        """Write what is left, have the disk confirm it, and close the database."""
        with self._changed:
            self._flush(synced=True)
            self._store.close()

    def _close(
        self, summary: IntervalSummary, ended: Interval, following: Interval, boot_id: str, clock_trusted: bool
    ) -> list[Datum]:
        record = self._new_record(summary, ended, boot_id, clock_trusted)
        readings = record.waiting.bit_count()
        changes = {
            "samples_read": summary.samples_read,
            "samples_averaged": summary.samples_averaged,
            "readings_made": readings,
            **{f"refused {reason}": count for reason, count in summary.samples_refused.items()},
        }
        self._ledger.made(changes, readings, held=not clock_trusted)
        self._uncounted.update(changes)
        self._forget_to_mono_s = max(ended.end_mono_s, self._forget_to_mono_s or -math.inf)
        self._opened = (following, clock_trusted)
        now_mono_s = self._clock.mono_s()
        self._flush(synced=now_mono_s - self._synced_mono_s >= self._limits.sync_interval_s - 0.5)
        self._keep_within_bounds(now_mono_s)
        self._changed.notify_all()
        return record.data()

    def _new_record(self, summary: IntervalSummary, ended: Interval, boot_id: str, clock_trusted: bool) -> Record:
        record = Record(
            number=self._next_number,
            waiting=tables.mask_of(summary),
            end_utc_ms=None,
            planned_end_utc_ms=ended.end_utc_ms,
            boot_id=boot_id,
            end_mono_s=ended.end_mono_s,
            device=self._device,
            summary=summary,
        )
        self._next_number += 1
        if not record.waiting:
            return record
        if clock_trusted:
            record = replace(record, end_utc_ms=self._untaken_now(ended.end_utc_ms))
        self._unstored[record.number] = record
        if len(self._unstored) > _UNSTORED_LIMIT:
            oldest = self._unstored.pop(next(iter(self._unstored))).waiting.bit_count()
            self._uncounted["readings_dropped"] += oldest
            self._count_dropped(oldest, "the database cannot be used and no more fits in memory")
        return record

    def _stamp(self, cursor: sqlite3.Cursor, interval: Held, offset_s: float) -> None:
        if interval.boot_id == self._boot_id:
            exact_utc_ms = end_utc_ms(interval.planned_end_utc_ms, interval.end_mono_s, offset_s)
            tables.stamp(cursor, interval.number, self._untaken(cursor, exact_utc_ms))
        elif RELEASED_UTC_S < interval.planned_end_utc_ms / 1000 < offset_s:  # monotonic 0 is when this boot began
            tables.stamp(cursor, interval.number, self._untaken(cursor, interval.planned_end_utc_ms))
        else:
            tables.reject_held(cursor, interval.number, "the computer was switched off before its clock was known")
            tables.add_counts(cursor, self._ledger.gone("rejected", interval.waiting.bit_count()))

    def _untaken_now(self, utc_ms: int) -> int:
        if utc_ms > self._newest_utc_ms:
            return self._untaken(None, utc_ms)
        try:
            with self._store.reading() as cursor:
                return self._untaken(cursor, utc_ms)
        except StoreError as exc:
            self._trouble(exc)
            return self._untaken(None, utc_ms)

    def _untaken(self, cursor: sqlite3.Cursor | None, utc_ms: int) -> int:
        """Return this timestamp, or the next one after it that no interval has: no two ever share one."""
        while utc_ms <= self._newest_utc_ms and (
            any(each.end_utc_ms == utc_ms for each in self._unstored.values())
            or (cursor is not None and tables.is_taken(cursor, utc_ms))
        ):
            utc_ms += 1
        self._newest_utc_ms = max(self._newest_utc_ms, utc_ms)
        return utc_ms

    def _stored(self, count: int, *, newest_first: bool = False) -> list[Lent]:
        """Return readings that wait according to the database and have not been settled since."""
        if len(self._settled) > _UNSTORED_LIMIT:
            return []  # the database can be read but not written: what it says is too old by now
        try:
            with self._store.reading() as cursor:
                lent = tables.waiting_readings(cursor, count + len(self._settled), newest_first=newest_first)
        except StoreError as exc:
            self._trouble(exc)
            return []
        return [each for each in lent if not self._settled.get(each.interval, 0) & each.bit]

    def _take_out(self, lent: Iterable[Lent], what: str) -> None:
        masks: dict[int, int] = {}
        for each in lent:
            masks[each.interval] = masks.get(each.interval, 0) | each.bit
        taken = 0
        for number, mask in masks.items():
            if (record := self._unstored.get(number)) is not None:
                self._unstored[number] = replace(record, waiting=record.waiting & ~mask)
            else:
                self._settled[number] = self._settled.get(number, 0) | mask
            taken += mask.bit_count()
        self._uncounted.update(self._ledger.gone(what, taken))
        self._on_loan_to = 0
        self._flush()
        self._changed.notify_all()

    def _flush(self, *, synced: bool = False) -> None:
        """Write everything that is not written. What cannot be written now is kept for the next time."""
        try:
            with self._store.transaction(synced=synced) as cursor:
                for record in self._unstored.values():
                    tables.insert_interval(cursor, record)
                tables.settle(cursor, self._settled)
                if self._rejected:
                    tables.insert_rejected(cursor, self._rejected)
                tables.add_counts(cursor, self._uncounted)
                if self._forget_to_mono_s is not None:
                    tables.delete_samples(cursor, self._forget_to_mono_s)
                if self._opened is not None:
                    interval, clock_trusted = self._opened
                    tables.write_open_interval(cursor, interval, self._boot_id, clock_trusted=clock_trusted)
                fresh = [each for each in self._unjournaled if each.start_mono_s > self._closed_mono_s]
                tables.insert_samples(cursor, fresh)  # the others' interval was closed with them meanwhile
                tables.write_state(cursor, self._notes)
        except StoreError as exc:
            self._trouble(exc)
            return
        for pending in (self._unstored, self._settled, self._rejected, self._uncounted, self._unjournaled, self._notes):
            pending.clear()
        self._forget_to_mono_s = self._opened = None
        if synced:
            self._synced_mono_s = self._clock.mono_s()
        self._state.well("is used again, nothing that was kept in memory is lost")

    def _trouble(self, exc: StoreError) -> None:
        self._state.failed(
            type(exc).__name__,
            f"{exc}; measuring and reporting go on from memory, and what cannot be sent meanwhile is lost if the "
            "program ends. Is the disk full, or read-only?",
        )

    def _keep_within_bounds(self, now_mono_s: float) -> None:
        try:
            with self._store.reading() as cursor:
                used_bytes = tables.used_bytes(cursor)
            if used_bytes > self._limits.max_bytes:
                self._make_room()
            elif used_bytes < 0.8 * self._limits.max_bytes:
                self._room.well("there is room for more again")
            if now_mono_s - self._tidied_mono_s >= _TIDY_EVERY_S:
                self._tidied_mono_s = now_mono_s
                oldest_utc_ms = (self._clock.utc_s() - self._limits.keep_days * 86_400) * 1000
                with self._store.transaction() as cursor:
                    tables.delete_history_before(cursor, oldest_utc_ms)
        except StoreError as exc:
            self._trouble(exc)

    def _make_room(self) -> None:
        """Delete the oldest delivered history; if there is none, the oldest readings that wait and are not on loan."""
        with self._store.transaction() as cursor:
            if tables.delete_history(cursor, _TIDY_INTERVALS):
                return
            dropped = tables.delete_waiting(cursor, _TIDY_INTERVALS, self._on_loan_to)
            tables.add_counts(cursor, {"readings_dropped": dropped})
        self._count_dropped(dropped, f"the database has reached store_max_mb = {self._limits.max_bytes // 1_000_000}")

    def _count_dropped(self, count: int, why: str) -> None:
        self._ledger.gone("dropped", count)
        dropped = self._ledger.tally().dropped
        self._room.failed("dropped", f"{why}: the oldest of them are dropped from now on; {dropped} so far in all")
