"""The outbox: every interval on disk before anything else happens to it, and no reading out of it but by an answer.

Shared by the recorder (``journal``), the reporter (``close_interval``) and the uploader (``lend`` and the settling);
one lock guards it and the ``Store`` below it. The uploader borrows readings and settles each as delivered or rejected;
what it does not settle stays.

Guarantees: what is in the database survives ``kill -9``; an interval survives a power cut from ``sync_interval_s``
after its end. While the database cannot be used everything goes on from memory, bounded, and is written when it can
be; meanwhile nothing is lent whose settlement would have to be written, so that a kill makes nothing twice: neither
what the database has, nor the interval whose samples are in its journal. Over the bound of the file, delivered history
goes first, then the oldest readings that wait, each counted. The ledger closes, and is checked whenever an interval is.
It does not help against a disk that neither works nor fails: whoever calls waits as long as the disk does.
"""

from __future__ import annotations

import json
import math
import random
import sqlite3
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import tables
from clock import Clock
from counters import Counters
from energy_book import Book, EnergyTotals, restore_book
from ledger import Audit, Ledger, Tally
from loans import Loans
from measurements import Datum, Device, Energy, Interval, IntervalSummary, LastPoints, PowerSample
from quantities import mask_of
from room import Room
from store import Store, StoreCorrupt, StoreError, StoreTooNew
from tables import Held, LeftOpen, Lent, Record
from timestamps import Timestamps
from write_behind import WriteBehind

_UNSTORED_LIMIT = 10_000  # intervals kept in memory while the database cannot be used
_UNJOURNALED_LIMIT = 100_000  # samples of the open interval, likewise
_WAKES_WITHIN_S = 0.5
_COUNTED_EVERY_TIME = 10_000  # with more readings waiting the database's rows are counted at the stop only
_SWITCHED_OFF = "the computer was switched off before its clock was known"


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
        self._changed = threading.Condition()
        self._ledger = Ledger()
        self._audit = Audit(clock)
        self._disk = WriteBehind(store, boot_id, clock, limits.sync_interval_s, self._begin_anew)
        self._pending = self._disk.pending
        self._counters = Counters(self._disk)
        self._loans = Loans(self._disk)
        self._timestamps = Timestamps(self._disk, boot_id)
        self._room = Room(self._disk, clock, limits.max_bytes, limits.keep_days, self._drop)
        self._loaded = False  # whether it is known what an earlier run left in the database
        self._next_number = (1 << 50) | (random.getrandbits(40) << 8)  # until the database tells
        self._on_loan_to = 0  # the newest interval of the last loan: it and older ones are not dropped meanwhile
        self._open: tuple[Interval, bool] | None = None
        self._closed_mono_s = -math.inf
        self._oldest_waiting_utc_ms: int | None = None

    def change(self, device: Device, limits: Limits) -> None:
        """Report what is closed from now on as ``device``, and keep to these limits. Never blocks."""
        self._device = device  # without the lock: whoever has it may wait for a disk that hangs
        self._disk.sync_interval_s = limits.sync_interval_s
        self._room.max_bytes, self._room.keep_days = limits.max_bytes, limits.keep_days

    # -- for the supervisor, without the lock ------------------------------------------------------------------------

    @property
    def readings_waiting(self) -> int:
        """How many readings wait."""
        return self._ledger.waiting

    @property
    def oldest_waiting_s(self) -> float | None:
        """For how long the oldest of them has waited, as of the last interval's end: seconds."""
        oldest_utc_ms = self._oldest_waiting_utc_ms
        return None if oldest_utc_ms is None else max(0.0, self._clock.utc_s() - oldest_utc_ms / 1000)

    @property
    def ledger_trouble(self) -> str | None:
        """Which sums of the ledger do not close, ``None`` if it is in order."""
        return self._audit.trouble

    @property
    def counts(self) -> dict[str, int]:
        """What the ledger has counted. Not of one moment: its sums may be off by what is just being counted."""
        return {**self._ledger.counts, "readings_waiting": self._ledger.waiting, "readings_held": self._ledger.held}

    @property
    def long_work(self) -> int:
        """A number that changes while the database is rebuilt, which may take minutes."""
        return self._store.long_work

    @property
    def trouble(self) -> str | None:
        """What is wrong with the database, ``None`` if it is well."""
        return self._disk.trouble_text

    # -- what an earlier run left ----------------------------------------------------------------------------------

    def recover(self) -> LeftOpen | None:
        """Open the database; return the interval that was open when the program ended, if any was.

        Nothing is written until that one is closed, or gone on with by ``open_interval()``. Takes well below 1 s with a
        million readings waiting. Where the database cannot be used now, call it again later (``is_recovered``).
        Raises ``StoreTooNew`` only.
        """
        with self._changed:
            try:
                with self._store.transaction() as cursor:
                    left = tables.read_open_interval(cursor)
                    stored = restore_book(cursor) or Book()
                    self._load(cursor)
            except StoreTooNew:
                raise
            except StoreCorrupt as exc:
                self._disk.trouble(exc)
                self._loaded = self._disk.may_write = True  # there is nothing to recover: the file was moved aside
                return None
            except StoreError as exc:
                self._disk.trouble(exc)
                return None
            self._counters.join(stored)
            self._loaded, self._disk.may_write = True, left is None
            if left is not None:
                left = replace(left, last=stored.last_in(left.boot_id))
            if left is not None and left.boot_id == self._boot_id:
                self._disk.journaled_to_mono_s = max((each.start_mono_s for each in left.samples), default=-math.inf)
            return left

    @property
    def is_recovered(self) -> bool:
        """Whether ``recover()`` has succeeded."""
        return self._loaded

    def _load(self, cursor: sqlite3.Cursor) -> None:
        """Add what the database says to what memory has made since the start."""
        held = sum(each.waiting.bit_count() for each in tables.held(cursor))
        waiting, newest_utc_ms = tables.count_waiting(cursor), tables.newest_end_utc_ms(cursor)
        number, counts = tables.next_number(cursor), tables.counts(cursor)
        self._next_number = max(self._next_number, number) if self._pending.records else number
        self._timestamps.newest_utc_ms = max(self._timestamps.newest_utc_ms, newest_utc_ms)
        self._ledger.add(counts, waiting, held)
        self._pending.counts.update(self._ledger.counts)

    def last_points(self) -> LastPoints:
        """Return where the energy of the first sample begins: what this boot of the computer measured last."""
        with self._changed:
            return self._counters.book.last_in(self._boot_id)

    @property
    def totals(self) -> EnergyTotals | None:
        """The counters of energy at the end of the last interval; ``None`` while it is not known what is stored."""
        return self._counters.totals

    # -- samples and intervals in ------------------------------------------------------------------------------------

    def note(self, name: str, value: object) -> None:
        """Have a fact for ``--status`` written with the next thing that is: any JSON value. Never blocks for long."""
        with self._changed:
            self._pending.notes[name] = json.dumps(value)

    @property
    def newest_utc_ms(self) -> int:
        """The newest timestamp given to an interval: milliseconds since the epoch, 0 if there was none."""
        return self._timestamps.newest_utc_ms

    def journal(self, samples: Sequence[PowerSample]) -> None:
        """Write down samples of the open interval. Blocks for the disk, for its confirmation if that is due."""
        with self._changed:
            fresh = [each for each in samples if each.start_mono_s > self._closed_mono_s]  # others came too late
            self._pending.samples += fresh[: _UNJOURNALED_LIMIT - len(self._pending.samples)]
            self._disk.write(sync_slack_s=0.0)

    def open_interval(self, interval: Interval, *, clock_trusted: bool) -> None:
        """Write down which interval is open, so that a restart can go on with it. Blocks for the disk."""
        with self._changed:
            self._set_open(interval, clock_trusted)
            self._disk.write()

    def close_interval(
        self, summary: IntervalSummary, ended: Interval, following: Interval, *, clock_trusted: bool
    ) -> list[Datum]:
        """Take an interval in and end its journal, in one transaction; return its readings.

        Without ``clock_trusted`` they are held back until ``stamp()``. Blocks for the disk, once every
        ``sync_interval_s`` for its confirmation. Never fails.
        """
        with self._changed:
            may_be_left_open = not self._loaded and math.isinf(self._closed_mono_s)  # with samples of an earlier run
            self._closed_mono_s = ended.end_mono_s
            self._forget(ended.end_mono_s)
            journaled = may_be_left_open or self._disk.journaled_to_mono_s > ended.start_mono_s
            return self._close(summary, ended, following, self._boot_id, clock_trusted, journaled)

    def close_left_open(self, left: LeftOpen, summary: IntervalSummary, following: Interval) -> None:
        """Take in the interval that an earlier run left open and that is over. Blocks and fails likewise.

        Where its planned end is not known to be right, or lies ahead, it ended with its last sample.
        """
        with self._changed:
            interval, in_doubt = left.interval, not left.clock_trusted
            last_mono_s = max((each.start_mono_s for each in left.samples), default=interval.start_mono_s)
            if in_doubt or interval.end_utc_ms / 1000 > self._clock.utc_s():
                early_ms = max(0, math.ceil((interval.end_mono_s - last_mono_s) * 1000))
                interval = replace(
                    interval,
                    end_mono_s=interval.end_mono_s - early_ms / 1000,
                    end_utc_ms=interval.end_utc_ms - early_ms,
                )
            own_boot = left.boot_id == self._boot_id
            self._forget(last_mono_s if own_boot else math.inf)  # the samples of this run are not in the journal yet
            earlier = math.isfinite(self._closed_mono_s)  # than intervals that this run has closed
            journaled = bool(left.samples)
            self._close(summary, interval, following, left.boot_id, left.clock_trusted, journaled, earlier=earlier)

    def stamp(self, offset_s: float) -> None:
        """Give the intervals that are held back their ends: ``offset_s`` is the true wall clock minus the monotonic.

        Those of an earlier boot of the computer, whose monotonic clock is gone, keep the end they were planned with if
        it can be right, and are set aside otherwise. Blocks for the disk.
        """
        with self._changed:
            if not self._ledger.held:
                return
            for record in self._pending.held():
                self._stamp(record, offset_s)
            self._disk.write()
            if self._disk.usable:
                for held in self._disk.read(tables.held) or []:
                    self._stamp(held, offset_s)
                self._disk.write()
            self._changed.notify_all()

    # -- readings out ------------------------------------------------------------------------------------------------

    def lend(self, count: int, avoid: Collection[int] = ()) -> list[Lent]:
        """Return the oldest readings that wait and may be sent, at most ``count``, all of one device.

        They stay until they are settled. ``avoid``: the MACs of devices to leave out.
        """
        with self._changed:
            lent = self._loans.lend(count, avoid, newest=False)[:count]
            self._on_loan_to = max((each.interval for each in lent), default=0)
            return lent

    def lend_newest(self, avoid: Collection[int] = ()) -> list[Lent]:
        """Return the readings of the newest interval that has any that may be sent."""
        with self._changed:
            return self._loans.lend(1, avoid, newest=True)

    def settle_delivered(self, lent: Iterable[Lent]) -> None:
        """Take out what the cloud has accepted."""
        with self._changed:
            self._take_out(lent, "delivered")

    def settle_rejected(self, lent: Iterable[Lent], message: str) -> None:
        """Set aside what the cloud will never accept, with its reason."""
        with self._changed:
            lent = self._loans.still_waiting(list(lent))
            self._pending.rejected += [(each.datum, message) for each in lent]
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
        """End a wait for readings that is under way. Blocks 0.5 s at most: behind a disk that hangs nobody waits."""
        if self._changed.acquire(timeout=_WAKES_WITHIN_S):
            try:
                self._changed.notify_all()
            finally:
                self._changed.release()

    def tally(self) -> Tally:
        """Return the numbers of readings made, delivered, waiting, rejected and dropped, since the database began."""
        with self._changed:
            return self._ledger.tally()

    def close(self) -> None:
        """Write what is left, have the disk confirm it, check the ledger, and close the database."""
        with self._changed:
            self._disk.write(insist=True)
            self._check_sums(rows_too=True)
            self._store.close()

    # -- closing an interval -----------------------------------------------------------------------------------------

    def _set_open(self, interval: Interval, clock_trusted: bool) -> None:
        self._open = self._pending.opened = (interval, clock_trusted)
        self._disk.may_write = self._loaded

    def _forget(self, to_mono_s: float) -> None:
        """Have the samples until then, whose interval is being closed, deleted."""
        pending = self._pending
        pending.samples = [each for each in pending.samples if each.start_mono_s > to_mono_s or math.isinf(to_mono_s)]
        earlier_mono_s = -math.inf if pending.forget_to_mono_s is None else pending.forget_to_mono_s
        pending.forget_to_mono_s = max(to_mono_s, earlier_mono_s)

    def _close(
        self,
        summary: IntervalSummary,
        ended: Interval,
        following: Interval,
        boot_id: str,
        clock_trusted: bool,
        journaled: bool,
        *,
        earlier: bool = False,
    ) -> list[Datum]:
        totals = self._counters.count(summary, ended, boot_id, clock_trusted=clock_trusted, earlier=earlier)
        record = self._new_record(summary, ended, boot_id, clock_trusted, totals)
        readings = record.waiting.bit_count()
        changes = {
            "samples_read": summary.samples_read,
            "samples_averaged": summary.samples_averaged,
            "readings_made": readings,
            **{f"refused {reason}": count for reason, count in summary.samples_refused.items()},
        }
        self._ledger.made(changes, readings, held=not clock_trusted)
        self._count(*changes)
        if readings:
            self._pending.records[record.number] = record
        if journaled:
            self._disk.tied.add(record.number)
        self._set_open(following, clock_trusted)
        self._disk.write(sync_slack_s=following.end_mono_s - self._clock.mono_s())  # at the next end it is too late
        if self._disk.usable:
            self._room.keep(on_loan_to=self._on_loan_to, now_utc_ms=record.end_utc_ms)
        elif len(self._pending.records) > _UNSTORED_LIMIT:
            self._drop_oldest()
        self._check_sums(rows_too=self._ledger.waiting <= _COUNTED_EVERY_TIME)
        self._oldest_waiting_utc_ms = self._disk.read(tables.oldest_waiting_utc_ms) if self._disk.usable else None
        self._changed.notify_all()
        return record.data()

    def _new_record(
        self, summary: IntervalSummary, ended: Interval, boot_id: str, clock_trusted: bool, totals: Energy | None
    ) -> Record:
        end_utc_ms = self._timestamps.take(ended.end_utc_ms) if clock_trusted else None
        self._next_number += 1
        device = self._device  # once: a reload may change it meanwhile
        return Record(
            number=self._next_number - 1,
            waiting=mask_of(device, summary, totals),
            end_utc_ms=end_utc_ms,
            planned_end_utc_ms=ended.end_utc_ms,
            boot_id=boot_id,
            end_mono_s=ended.end_mono_s,
            device=device,
            summary=summary,
            totals=totals,
        )

    def _drop_oldest(self) -> None:
        """Give up the oldest interval that only memory has."""
        if (oldest := self._pending.oldest_droppable(self._on_loan_to)) is not None:
            del self._pending.records[oldest.number]
            self._disk.tied.discard(oldest.number)
            if oldest.number in self._disk.uncertain:
                self._pending.deleted.add(oldest.number)
            why = "the database cannot be used and no more fits in memory"
            if oldest.waiting:
                self._room.give_up(oldest.waiting.bit_count(), why, held=oldest.end_utc_ms is None)

    def _stamp(self, interval: Record | Held, offset_s: float) -> None:
        """Give an interval that is held back its end, or set its readings aside if nobody can tell it."""
        number, true_utc_ms = interval.number, self._timestamps.true_end_utc_ms(interval, offset_s)
        if true_utc_ms is not None:
            free_utc_ms = self._timestamps.take(true_utc_ms)
            if (record := self._pending.records.get(number)) is not None:
                self._pending.records[number] = replace(record, end_utc_ms=free_utc_ms)
            elif number >= self._disk.first_number:
                self._pending.stamped[number] = free_utc_ms
            else:
                return  # counted as dropped when its file was moved aside
            self._ledger.held -= interval.waiting.bit_count()
            return
        record = self._pending.records.get(number)
        lost = record.data() if record else self._disk.read(lambda cursor: tables.planned_readings(cursor, number))
        if lost is None:
            return  # the database cannot be read just now: at the next call
        self._pending.records.pop(number, None)
        self._pending.deleted.add(number)
        self._pending.rejected += [(each, _SWITCHED_OFF) for each in lost]
        self._gone("rejected", interval.waiting.bit_count(), held=True)

    # -- lending and settling ----------------------------------------------------------------------------------------

    def _take_out(self, lent: Iterable[Lent], what: str) -> None:
        self._gone(what, self._loans.take_out(list(lent)))
        self._on_loan_to = 0
        self._room.history_grows()
        self._disk.write()
        self._changed.notify_all()

    # -- the database ------------------------------------------------------------------------------------------------

    def _count(self, *names: str) -> None:
        """Have these counters of the ledger written."""
        self._pending.counts.update({name: self._ledger.counts[name] for name in names})

    def _gone(self, what: str, readings: int, *, held: bool = False) -> None:
        """Count readings that wait no longer; of those that will never be delivered note when that was last."""
        self._ledger.gone(what, readings, held=held)
        self._count(f"readings_{what}")
        if readings and what != "delivered":
            self._pending.notes["last_loss"] = json.dumps({"utc_ms": math.floor(self._clock.utc_s() * 1000)})

    def _drop(self, readings: int, why: str, held: bool) -> None:
        self._gone("dropped", readings, held=held)

    def _begin_anew(self) -> None:
        """Go on without what went with a damaged file: the new one gets what is in memory."""
        waiting = sum(each.waiting.bit_count() for each in self._pending.records.values())
        self._gone("dropped", self._ledger.waiting - waiting)
        self._ledger.held = sum(each.waiting.bit_count() for each in self._pending.held())
        self._pending.counts.update(self._ledger.counts)
        self._pending.opened = self._open
        self._counters.begin_new_file()
        self._disk.first_number = min(self._pending.records, default=self._next_number)

    def _check_sums(self, *, rows_too: bool) -> None:
        rows = self._disk.read(tables.count_waiting) if rows_too and self._disk.usable else None
        self._audit.check(self._ledger, rows)
