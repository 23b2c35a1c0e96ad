"""Writing behind: what the outbox knows and the database does not yet, and when it is written.

In normal running everything is written at once and nothing waits here. Used by the outbox alone, under its lock.
Guarantees: writing twice leaves the same as writing once, so that a commit of which nobody can tell whether it happened
is simply repeated; while the database cannot be used it is tried once a second, and the state is logged once.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import tables
from clock import Clock
from measurements import Datum, Interval, PowerSample
from state_log import StateLog
from store import Store, StoreCorrupt, StoreError, StoreUncertain
from tables import Record

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_RETRY_AFTER_S = 1.0


@dataclass(slots=True, kw_only=True)
class Unwritten:
    """Changes that wait to be written.

    ``settled`` and ``stamped`` are of intervals in the database, by number: the bits that wait no longer, the end in
    ms UTC. ``opened`` is the open interval and whether the clock was trusted when it began; the samples up to
    ``forget_to_mono_s`` belong to intervals that are closed.
    """

    records: dict[int, Record] = field(default_factory=dict)
    settled: dict[int, int] = field(default_factory=dict)
    stamped: dict[int, int] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    rejected: list[tuple[Datum, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    samples: list[PowerSample] = field(default_factory=list)
    forget_to_mono_s: float | None = None
    opened: tuple[Interval, bool] | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def write(self, cursor: sqlite3.Cursor, boot_id: str) -> None:
        """Write all of it, inside a transaction."""
        for record in self.records.values():
            tables.insert_interval(cursor, record)
        tables.stamp(cursor, self.stamped)
        tables.settle(cursor, self.settled)
        tables.delete_intervals(cursor, self.deleted)
        if self.rejected:
            tables.insert_rejected(cursor, self.rejected)
        tables.write_counts(cursor, self.counts)
        if self.forget_to_mono_s is not None:
            tables.delete_samples(cursor, self.forget_to_mono_s)
        if self.opened is not None:
            interval, clock_trusted = self.opened
            tables.write_open_interval(cursor, interval, boot_id, clock_trusted=clock_trusted)
        tables.insert_samples(cursor, self.samples)
        tables.write_state(cursor, self.notes)

    def clear(self) -> None:
        """Forget it: it is written."""
        for pending in (
            self.records,
            self.settled,
            self.stamped,
            self.deleted,
            self.rejected,
            self.counts,
            self.samples,
            self.notes,
        ):
            pending.clear()
        self.forget_to_mono_s = self.opened = None

    def forget_what_the_database_had(self) -> None:
        """Drop the changes to intervals of a database that is gone."""
        self.settled.clear()
        self.stamped.clear()
        self.deleted.clear()

    def uses(self, end_utc_ms: int) -> bool:
        """Return whether an interval has been given this end."""
        return any(each.end_utc_ms == end_utc_ms for each in self.records.values()) or (
            end_utc_ms in self.stamped.values()
        )

    def oldest_droppable(self, after: int) -> Record | None:
        """Return the interval to give up first: one that is settled, else the oldest newer than number ``after``."""
        settled = (each for each in self.records.values() if not each.waiting)
        return next(settled, None) or next((each for each in self.records.values() if each.number > after), None)

    def held(self) -> Sequence[Record]:
        """Return the intervals whose end is not known yet, oldest first."""
        return [each for each in self.records.values() if each.end_utc_ms is None]


class WriteBehind:
    """The way into the database and out of it. ``on_lost`` is called when a damaged file was moved aside."""

    def __init__(self, store: Store, boot_id: str, clock: Clock, sync_interval_s: float, on_lost: Callable[[], None]):
        self.pending = Unwritten()
        self.usable = False
        """Whether nothing waits to be written."""
        self.may_write = False
        """Whether what an earlier run left open has been dealt with: until then nothing is written over it."""
        self.journaled_to_mono_s = -math.inf
        """The newest sample of this boot that is on disk."""
        self.tied: set[int] = set()
        """Intervals that are closed, but on disk only as an open one with samples."""
        self.uncertain: set[int] = set()
        """Intervals of which nobody can tell whether they are on disk."""
        self.first_number = 0
        """The oldest interval that did not go with a damaged file."""
        self.store = store
        self._boot_id = boot_id
        self._clock = clock
        self.sync_interval_s = sync_interval_s
        self._on_lost = on_lost
        self._state = StateLog(logger, "database", clock)
        self._retry_mono_s = self._synced_mono_s = -math.inf
        self._renewing = False

    @property
    def trouble_text(self) -> str | None:
        """What is wrong, ``None`` if it is well."""
        return self._state.line

    def write(self, *, sync_slack_s: float | None = None, insist: bool = False) -> None:
        """Write everything that is not written. What cannot be written now is kept, and tried again after 1 s.

        With ``sync_slack_s`` the disk has to confirm it, if that is due within so many seconds; to ``insist`` means to
        try at once, confirmed. Blocks for the disk.
        """
        now_mono_s = self._clock.mono_s()
        if not self.may_write or (now_mono_s < self._retry_mono_s and not insist):
            self.usable = False
            return
        if sync_slack_s is None and self.pending.records:
            sync_slack_s = 0.0  # intervals, late: once they are sent, a power cut must not take them back
        due_s = math.inf if sync_slack_s is None else self.sync_interval_s - sync_slack_s
        synced = insist or now_mono_s - self._synced_mono_s >= due_s
        try:
            with self.store.transaction(synced=synced) as cursor:
                self.pending.write(cursor, self._boot_id)
        except StoreError as exc:
            self._retry_mono_s = now_mono_s + _RETRY_AFTER_S
            if isinstance(exc, StoreUncertain):
                self._note_journaled()
                self.uncertain.update(self.pending.records)
            self.trouble(exc)
            return
        self._note_journaled()
        self.pending.clear()
        self.tied.clear()
        self.uncertain.clear()
        self.usable, self._retry_mono_s = True, -math.inf
        if synced:
            self._synced_mono_s = self._clock.mono_s()
        self._state.well("is used again, nothing that was kept in memory is lost")

    def _note_journaled(self) -> None:
        starts = (each.start_mono_s for each in self.pending.samples)
        self.journaled_to_mono_s = max(starts, default=self.journaled_to_mono_s)

    def read(self, read: Callable[[sqlite3.Cursor], _T]) -> _T | None:
        """Return what ``read`` finds in the database, ``None`` if it cannot be read."""
        try:
            with self.store.reading() as cursor:
                return read(cursor)
        except StoreError as exc:
            self.trouble(exc)
            return None

    def trouble(self, exc: StoreError) -> None:
        """Note that the database cannot be used. In place of a damaged file a new one is begun at once."""
        self.usable = False
        if isinstance(exc, StoreCorrupt):
            self.pending.forget_what_the_database_had()
            self.journaled_to_mono_s = -math.inf
            self.tied.clear()
            self.uncertain.clear()
            self._on_lost()
        self._state.failed(
            type(exc).__name__,
            f"{exc}; measuring and reporting go on from memory, and what cannot be sent meanwhile is lost if the "
            "program ends. What the database has waits in it. Is the disk full, or read-only?",
        )
        if isinstance(exc, StoreCorrupt) and not self._renewing:
            self._renewing = True  # once: perhaps this disk makes nothing but damaged files
            self.write(insist=True)  # until then a kill would lose what memory knows of the old one
            self._renewing = False
