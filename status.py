"""What ``--status`` shows: how the daemon is doing, read from its database. ``status_text.py`` tells it in words.

Runs in the main thread of a process of its own, beside a running daemon or without one. Guarantees: nothing is touched
(``database_reading.py``); everything shown is of one moment; the answer comes within 2 s. It does not see what a daemon
holds in memory while it cannot write its database.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import tables
from database_reading import DatabaseUnreadable, read_database, size_bytes
from energy_status import EnergyStatus, json_members, read_energy

_ANSWER_WITHIN_S = 1.8
_OVERDUE_AFTER_S = 10.0
_REJECTED_LIMIT = 100
_MESSAGE_LIMIT = 1000

_T = TypeVar("_T")


class StatusError(Exception):
    """There is no status to show. Its text is for the operator: what is the matter, and what to do."""


# The names of the fields are the names in the JSON. ``None`` is what is unknown, or is not there.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What became of every reading of a meter (``samples``) and of every reading for the cloud (``readings``).

    ``closes``: read = averaged + refused + open, and made = delivered + waiting + rejected + dropped.
    """

    samples_read: int | None
    samples_averaged: int | None
    samples_refused: Mapping[str, int] | None
    samples_open: int | None
    readings_made: int | None
    readings_delivered: int | None
    readings_waiting: int | None
    readings_rejected: int | None
    readings_dropped: int | None
    closes: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A reading that was set aside, and the server's message. ``timestamp`` in milliseconds since the epoch."""

    mac: int
    type: int
    timestamp: int | None
    data: float | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The newest interval with a value, and +/- (docs/accuracy.md).

    ``time_known`` is false while its timestamp is the clock's, unconfirmed.
    """

    voltage_v: float | None
    voltage_uncertainty_v: float | None
    current_a: float | None
    current_uncertainty_a: float | None
    power_kw: float | None
    power_uncertainty_kw: float | None
    timestamp: int
    age_s: float
    time_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened: milliseconds since the epoch, and seconds ago."""

    timestamp: int
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Event):
    """Something that failed, and what was said of it."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterState:
    """A meter as of the end of the last interval."""

    works: bool
    trouble: str | None
    serial_number: str | None
    port: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """Whether the computer's clock is trusted, and why."""

    trusted: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """All there is to show.

    ``rejected`` has the newest 100 of ``rejected_total``, newest first; ``readings_held`` are those of the waiting that
    are held back until the time is known; ``overdue_s`` says for how long a running daemon should have written
    something and did not; ``unknown`` names what could not be read.
    """

    ledger: Ledger
    rejected: tuple[Rejected, ...]
    rejected_total: int | None
    last: Last | None
    energy: EnergyStatus | None
    oldest_waiting_s: float | None
    readings_held: int | None
    last_delivery: Event | None
    last_error: Failure | None
    meters: Mapping[str, MeterState] | None
    clock: ClockState | None
    overdue_s: float | None
    database_bytes: int
    unknown: tuple[str, ...]


# -- reading it --------------------------------------------------------------------------------------------------------


def read_status(path: Path, now_utc_s: float) -> Status:
    """Read the status from the database at ``path``. Raises ``StatusError``. Blocks 2 s at most.

    Ages are counted from ``now_utc_s``, the wall clock in seconds.
    """
    try:
        return read_database(
            path, lambda cursor: _Reading(cursor, now_utc_s).status(path), answer_within_s=_ANSWER_WITHIN_S
        )
    except DatabaseUnreadable as exc:
        raise StatusError(str(exc)) from exc


class _Reading:
    """One look into the database. What an older or odd one does not have is noted in ``unknown``."""

    def __init__(self, cursor: sqlite3.Cursor, now_utc_s: float) -> None:
        self._cursor = cursor
        self._now_utc_s = now_utc_s
        self._unknown: list[str] = []

    def status(self, path: Path) -> Status:
        states = self._known("state", lambda: dict(self._rows("SELECT name, value FROM state")))
        last_delivery = self._known("last_delivery", lambda: self._event(_state(states, "last_delivery")))
        last_error = self._known("last_error", lambda: self._failure(_state(states, "last_error")))
        meters = self._known("meters", lambda: _meters(_state(states, "meters")))
        clock = self._known("clock", lambda: _clock(_state(states, "clock")))
        rejected = self._known("rejected", self._rejected)
        return Status(
            rejected=rejected or (),
            rejected_total=self._known("rejected_total", self._rejected_total),
            last=self._known("last", self._last),
            energy=self._known("energy", lambda: read_energy(self._cursor)),
            oldest_waiting_s=self._known("oldest_waiting_s", self._oldest_waiting_s),
            readings_held=self._known("readings_held", self._readings_held),
            last_delivery=last_delivery,
            last_error=last_error,
            meters=meters,
            clock=clock,
            overdue_s=self._known("overdue_s", self._overdue_s),
            database_bytes=size_bytes(path),
            ledger=self._ledger(),  # last: with very many readings waiting it is what can take too long
            unknown=tuple(self._unknown),
        )

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._cursor.execute(sql).fetchall()

    def _known(self, name: str, read: Callable[[], _T], *, may_be_late: bool = False) -> _T | None:
        """Return what ``read`` returns; ``None``, and its name is unknown, if the database does not have it so."""
        try:
            return read()
        except sqlite3.OperationalError as exc:
            late = may_be_late and getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
            if not late and "no such" not in str(exc):
                raise
            self._unknown.append(name)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):  # a row of another form
            self._unknown.append(name)
        return None

    def _age_s(self, utc_ms: float) -> float:
        return round(self._now_utc_s - utc_ms / 1000, 3)

    def _event(self, state: Mapping[str, Any] | None) -> Event | None:
        return None if state is None else Event(timestamp=int(state["utc_ms"]), age_s=self._age_s(state["utc_ms"]))

    def _failure(self, state: Mapping[str, Any] | None) -> Failure | None:
        event = self._event(state)
        if state is None or event is None:
            return None
        return Failure(timestamp=event.timestamp, age_s=event.age_s, message=str(state["message"])[:_MESSAGE_LIMIT])

    def _rejected(self) -> tuple[Rejected, ...]:
        rows = self._rows(
            f"SELECT mac, type, end_utc_ms, data, substr(message, 1, {_MESSAGE_LIMIT}) FROM rejected "
            f"ORDER BY rowid DESC LIMIT {_REJECTED_LIMIT}"
        )
        return tuple(
            Rejected(mac=int(mac), type=int(kind), timestamp=utc_ms, data=_number(data), message=str(message))
            for mac, kind, utc_ms, data, message in rows
        )

    def _rejected_total(self) -> int:
        """Count without looking at each: rows are only ever added at the end, or taken away from the beginning."""
        newest, oldest = self._rows("SELECT (SELECT max(rowid) FROM rejected), (SELECT min(rowid) FROM rejected)")[0]
        return 0 if newest is None else int(newest - oldest + 1)

    def _last(self) -> Last | None:
        rows = self._rows("SELECT * FROM interval ORDER BY id DESC LIMIT 1")  # an older one has fewer columns
        if not rows:
            return None
        row = dict(zip((column[0] for column in self._cursor.description), rows[0], strict=True))
        time_known = row["end_utc_ms"] is not None
        end_utc_ms = row["end_utc_ms" if time_known else "planned_end_utc_ms"]
        return Last(
            voltage_v=_number(row["voltage"]),
            voltage_uncertainty_v=_number(row.get("voltage_uncertainty")),
            current_a=_number(row["current"]),
            current_uncertainty_a=_number(row.get("current_uncertainty")),
            power_kw=_number(row["power"]),
            power_uncertainty_kw=_number(row.get("power_uncertainty")),
            timestamp=int(end_utc_ms),
            age_s=self._age_s(end_utc_ms),
            time_known=time_known,
        )

    def _oldest_waiting_s(self) -> float | None:
        oldest_utc_ms = tables.oldest_waiting_utc_ms(self._cursor)
        return None if oldest_utc_ms is None else self._age_s(oldest_utc_ms)

    def _readings_held(self) -> int:
        return sum(each.waiting.bit_count() for each in tables.held(self._cursor))

    def _overdue_s(self) -> float | None:
        rows = self._rows("SELECT end_utc_ms FROM open_interval")
        overdue_s = self._age_s(rows[0][0]) if rows else 0.0
        return overdue_s if overdue_s > _OVERDUE_AFTER_S else None

    def _samples_open(self) -> int:
        """Count as ``PowerSample.readings_count`` does."""
        sql = (
            "SELECT count(voltage) + count(current) + coalesce(sum(1 + length(refused) "
            "- length(replace(refused, char(10), ''))), 0) FROM sample"
        )
        return int(self._rows(sql)[0][0])

    def _ledger(self) -> Ledger:
        counts = self._known("counters", lambda: dict(tables.counts(self._cursor)))
        samples_open = self._known("samples_open", self._samples_open)
        waiting = self._known("readings_waiting", lambda: tables.count_waiting(self._cursor), may_be_late=True)
        refused = None if counts is None else dict(_refused(counts))

        def count(name: str) -> int | None:
            return None if counts is None else counts.get(name, 0)

        read = _sum(count("samples_read"), samples_open)
        used = _sum(count("samples_averaged"), samples_open, _sum(*(refused or {}).values()))
        settled = [count(f"readings_{fate}") for fate in ("delivered", "rejected", "dropped")]
        accounted = _sum(waiting, *settled)
        return Ledger(
            samples_read=read,
            samples_averaged=count("samples_averaged"),
            samples_refused=refused,
            samples_open=samples_open,
            readings_made=count("readings_made"),
            readings_delivered=settled[0],
            readings_waiting=waiting,
            readings_rejected=settled[1],
            readings_dropped=settled[2],
            closes=None if read is None or accounted is None else read == used and count("readings_made") == accounted,
        )


def _refused(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for name, value in sorted(counts.items()):
        if name.startswith("refused "):
            yield name.removeprefix("refused "), value


def _sum(*parts: int | None) -> int | None:
    """Return the sum, ``None`` if a part of it is unknown."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _number(value: object) -> float | None:
    """Return a value of the database as a number that JSON can say."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _state(states: Mapping[str, str] | None, name: str) -> Any:
    """Return a fact that the daemon noted, ``None`` if it did not. Raises ``KeyError`` if nobody can tell."""
    if states is None:
        raise KeyError(name)
    return json.loads(states[name]) if name in states else None


def _meters(state: Mapping[str, Any]) -> dict[str, MeterState]:
    return {
        name: MeterState(
            works=bool(meter["works"]),
            trouble=_text(meter["trouble"]),
            serial_number=_text(meter["serial_number"]),
            port=str(meter["port"]),
        )
        for name, meter in state.items()
    }


def _clock(state: Mapping[str, Any]) -> ClockState:
    return ClockState(trusted=bool(state["trusted"]), why=str(state["why"])[:_MESSAGE_LIMIT])


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:_MESSAGE_LIMIT]


def as_json(status: Status) -> str:
    """Return the status as one JSON object, in ASCII. The counters stand in it by their names."""
    members = asdict(status)
    del members["energy"]
    return json.dumps({**members, **json_members(status.energy)}, indent=2)
