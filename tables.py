"""The SQL of the database, one function per thing to do with it. Each takes a cursor inside a transaction of the store.

Nothing is kept here and nothing decided: what the rows mean is the outbox's business.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, field

from measurements import Datum, Device, Energy, Interval, IntervalSummary, LastPoints, PowerSample, Statistic
from quantities import BITS, QUANTITIES, values_of
from store import DamagedRow

_VALUES_AND_TYPES = ", ".join(f"{each.value_sql}, {each.type_column}" for each in QUANTITIES)
_TYPE_COLUMNS = ", ".join(each.type_column for each in QUANTITIES)
_IS_DEVICE = " AND ".join(["mac = ?", *(f"{each.type_column} IS ?" for each in QUANTITIES)])
_WAITING_COUNT = " + ".join(f"(waiting >> {place} & 1)" for place in range(len(BITS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """A reading on loan to the uploader, and what to settle it by: its interval and its bit."""

    interval: int
    bit: int
    datum: Datum


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One interval as it stands in the database: its number, what of it still waits, its end, its averages.

    ``end_utc_ms`` is ``None`` while it is held back, because nobody knows whether ``planned_end_utc_ms`` is right.
    ``totals``: the counters at its end, ``None`` where they are not known.
    """

    number: int
    waiting: int
    end_utc_ms: int | None
    planned_end_utc_ms: int
    boot_id: str
    end_mono_s: float
    device: Device
    summary: IntervalSummary
    totals: Energy | None = None

    def lent(self) -> list[Lent]:
        """Return its readings that still wait and may be sent."""
        return [] if self.end_utc_ms is None else self._readings(self.end_utc_ms)

    def data(self) -> list[Datum]:
        """Return its readings, with the best timestamp there is."""
        timestamp = self.planned_end_utc_ms if self.end_utc_ms is None else self.end_utc_ms
        return [each.datum for each in self._readings(timestamp)]

    def _readings(self, timestamp_utc_ms: int) -> list[Lent]:
        return [
            Lent(
                interval=self.number,
                bit=bit,
                datum=Datum(mac=self.device.mac, type=kind, data=value, timestamp_utc_ms=timestamp_utc_ms),
            )
            for bit, value, kind in zip(BITS, values_of(self.summary, self.totals), self.device.types, strict=True)
            if self.waiting & bit and value is not None and kind is not None
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An interval in the database that is held back: what is needed to tell its end."""

    number: int
    waiting: int
    boot_id: str
    end_mono_s: float
    planned_end_utc_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOpen:
    """The interval that was open when the program ended, its samples, and whether the clock was trusted then.

    ``last``: where the energy of its first sample begins.
    """

    boot_id: str
    interval: Interval
    clock_trusted: bool
    samples: list[PowerSample]
    last: LastPoints = field(default_factory=LastPoints)


def add_device(cursor: sqlite3.Cursor, device: Device) -> None:
    """Make sure that there is a row for this device."""
    marks = ", ".join("?" * (1 + len(QUANTITIES)))
    cursor.execute(
        f"INSERT INTO device (mac, {_TYPE_COLUMNS}) SELECT {marks} "
        f"WHERE NOT EXISTS (SELECT 1 FROM device WHERE {_IS_DEVICE})",
        [device.mac, *device.types] * 2,
    )


def next_number(cursor: sqlite3.Cursor) -> int:
    """Return the number of the next interval."""
    return int(cursor.execute("SELECT coalesce(max(id), 0) + 1 FROM interval").fetchone()[0])


def count_waiting(cursor: sqlite3.Cursor) -> int:
    """Return how many readings wait."""
    return int(
        cursor.execute(
            f"SELECT coalesce(sum({_WAITING_COUNT}), 0) FROM interval INDEXED BY interval_waiting WHERE waiting != 0"
        ).fetchone()[0]
    )


def waiting_bits(cursor: sqlite3.Cursor, number: int) -> int:
    """Return which readings of an interval wait: none if there is no such interval."""
    row = cursor.execute("SELECT waiting FROM interval WHERE id = ?", [number]).fetchone()
    return 0 if row is None else int(row[0])


def counts(cursor: sqlite3.Cursor) -> Counter[str]:
    """Return the counters of the ledger."""
    rows = cursor.execute("SELECT name, value FROM counter").fetchall()
    if not all(isinstance(value, int) for _, value in rows):
        raise DamagedRow("a counter is no number")
    return Counter(dict(rows))


def write_counts(cursor: sqlite3.Cursor, counters: Mapping[str, int]) -> None:
    """Set counters of the ledger."""
    cursor.executemany("INSERT OR REPLACE INTO counter VALUES (?, ?)", list(counters.items()))


def insert_interval(cursor: sqlite3.Cursor, record: Record) -> None:
    """Write down an interval, in place of what stands there under its number."""
    add_device(cursor, record.device)
    summary = record.summary
    cursor.execute(
        "INSERT OR REPLACE INTO interval (id, device, waiting, end_utc_ms, boot_id, end_mono_s, planned_end_utc_ms, "
        "voltage, voltage_minimum, voltage_maximum, voltage_count, "
        "current, current_minimum, current_maximum, current_count, "
        "power, power_minimum, power_maximum, power_count, "
        "energy_in, energy_out, charge_in, charge_out, energy_s, charge_s, "
        "total_energy_in, total_energy_out, total_charge_in, total_charge_out, "
        "voltage_uncertainty, current_uncertainty, power_uncertainty, "
        "energy_uncertainty, energy_scatter, charge_uncertainty, charge_scatter) "
        f"SELECT ?, id{', ?' * 34} FROM device WHERE {_IS_DEVICE}",
        [
            record.number,
            record.waiting,
            record.end_utc_ms,
            *((None, None, None) if record.end_utc_ms is not None else _when(record)),
            *_values(summary.voltage_v),
            *_values(summary.current_a),
            *_values(summary.power_kw),
            *astuple(summary.energy),
            *_flows(record.totals),
            *astuple(summary.uncertainty),
            record.device.mac,
            *record.device.types,
        ],
    )


def sendable(cursor: sqlite3.Cursor, count: int, avoid: Collection[int], *, newest: bool) -> list[Lent]:
    """Return the readings to send of the device that has the oldest of them, oldest first, of ``count`` intervals.

    With ``newest``, those of the newest interval, with a ``count`` of 1. ``avoid``: the MACs of devices to leave out.
    """
    devices = cursor.execute("SELECT id, mac FROM device").fetchall()
    starts = [
        (start, device)
        for device, mac in devices
        if mac not in avoid and (start := _first_sendable(cursor, device, newest=newest)) is not None
    ]
    if not starts:
        return []
    start, device = max(starts) if newest else min(starts)
    return _sendable_from(cursor, device, start, count)


def _first_sendable(cursor: sqlite3.Cursor, device: int, *, newest: bool) -> int | None:
    row = cursor.execute(
        f"SELECT id FROM interval INDEXED BY interval_waiting WHERE waiting != 0 AND device = ? "
        f"AND end_utc_ms IS NOT NULL ORDER BY id {'DESC' if newest else 'ASC'} LIMIT 1",
        [device],
    ).fetchone()
    return None if row is None else int(row[0])


def _sendable_from(cursor: sqlite3.Cursor, device: int, start: int, limit: int) -> list[Lent]:
    rows = cursor.execute(
        f"SELECT interval.id, waiting, end_utc_ms, mac, {_VALUES_AND_TYPES} "
        "FROM interval INDEXED BY interval_waiting JOIN device ON device.id = interval.device "
        "WHERE waiting != 0 AND interval.device = ? AND interval.id >= ? AND end_utc_ms IS NOT NULL "
        "ORDER BY interval.id LIMIT ?",
        [device, start, limit],
    ).fetchall()
    for number, waiting, end_utc_ms, _mac, *pairs in rows:
        if not (isinstance(waiting, int) and isinstance(end_utc_ms, int)):
            raise DamagedRow(f"interval {number} has no time, or nobody can tell what of it waits")
        waits = [pair for bit, *pair in zip(BITS, pairs[::2], pairs[1::2], strict=True) if waiting & bit]
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value, _ in waits):
            raise DamagedRow(f"interval {number} has a reading that is no number")
        if not all(isinstance(kind, int) for _, kind in waits):
            raise DamagedRow(f"interval {number} has a reading without a sensor type")
    return [
        Lent(
            interval=number,
            bit=bit,
            datum=Datum(mac=mac, type=kind, data=data, timestamp_utc_ms=end_utc_ms),
        )
        for number, waiting, end_utc_ms, mac, *pairs in rows
        for bit, data, kind in zip(BITS, pairs[::2], pairs[1::2], strict=True)
        if waiting & bit
    ]


def settle(cursor: sqlite3.Cursor, masks: Mapping[int, int]) -> None:
    """Take bits out of what waits: interval number -> bits."""
    cursor.executemany(
        "UPDATE interval SET waiting = waiting & ~? WHERE id = ?", [(mask, number) for number, mask in masks.items()]
    )


def insert_rejected(cursor: sqlite3.Cursor, rejected: Iterable[tuple[Datum, str]]) -> None:
    """Set readings aside, each with the reason, if they are not there yet; the newest 10,000 are kept."""
    cursor.executemany(
        "INSERT INTO rejected SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS "
        "(SELECT 1 FROM rejected WHERE mac = ?1 AND type = ?2 AND end_utc_ms = ?3 AND data = ?4)",
        [(each.mac, each.type, each.timestamp_utc_ms, each.data, message) for each, message in rejected],
    )
    cursor.execute("DELETE FROM rejected WHERE rowid <= (SELECT max(rowid) - 10000 FROM rejected)")


def write_state(cursor: sqlite3.Cursor, state: Mapping[str, str]) -> None:
    """Write down facts for ``--status``: name -> JSON text."""
    cursor.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", list(state.items()))


def write_open_interval(cursor: sqlite3.Cursor, interval: Interval, boot_id: str, *, clock_trusted: bool) -> None:
    """Write down which interval is open."""
    delete_open_interval(cursor)
    cursor.execute(
        "INSERT INTO open_interval VALUES (?, ?, ?, ?, ?)",
        [boot_id, interval.start_mono_s, interval.end_mono_s, interval.end_utc_ms, clock_trusted],
    )


def delete_open_interval(cursor: sqlite3.Cursor) -> None:
    """Have no interval open: the next start begins one."""
    cursor.execute("DELETE FROM open_interval")


def read_open_interval(cursor: sqlite3.Cursor) -> LeftOpen | None:
    """Return the interval that was left open."""
    row = cursor.execute(
        "SELECT boot_id, start_mono_s, end_mono_s, end_utc_ms, clock_trusted FROM open_interval"
    ).fetchone()
    if row is None:
        return None
    interval = Interval(start_mono_s=row[1], end_mono_s=row[2], end_utc_ms=row[3])
    return LeftOpen(boot_id=row[0], interval=interval, clock_trusted=bool(row[4]), samples=_read_samples(cursor))


def newest_end_utc_ms(cursor: sqlite3.Cursor) -> int:
    """Return the newest timestamp there is, 0 if there is none."""
    newest = cursor.execute("SELECT coalesce(max(end_utc_ms), 0) FROM interval").fetchone()[0]
    if not isinstance(newest, int):
        raise DamagedRow("the end of an interval is no number")
    return newest


def is_taken(cursor: sqlite3.Cursor, end_utc_ms: int) -> bool:
    """Return whether an interval with this end is there already."""
    return cursor.execute("SELECT 1 FROM interval WHERE end_utc_ms = ?", [end_utc_ms]).fetchone() is not None


def held(cursor: sqlite3.Cursor) -> list[Held]:
    """Return the intervals that are held back, oldest first."""
    rows = cursor.execute(
        "SELECT id, waiting, boot_id, end_mono_s, planned_end_utc_ms FROM interval INDEXED BY interval_held "
        "WHERE end_utc_ms IS NULL ORDER BY id"
    )
    return [
        Held(number=row[0], waiting=row[1], boot_id=row[2], end_mono_s=row[3], planned_end_utc_ms=row[4])
        for row in rows
    ]


def stamp(cursor: sqlite3.Cursor, ends_utc_ms: Mapping[int, int]) -> None:
    """Give intervals that were held back their ends: interval number -> end."""
    cursor.executemany(
        "UPDATE interval SET end_utc_ms = ?, boot_id = NULL, end_mono_s = NULL, planned_end_utc_ms = NULL WHERE id = ?",
        [(end_utc_ms, number) for number, end_utc_ms in ends_utc_ms.items()],
    )


def planned_readings(cursor: sqlite3.Cursor, number: int) -> list[Datum]:
    """Return the readings of an interval that is held back, with the timestamp that was planned for them."""
    row = cursor.execute(
        f"SELECT mac, planned_end_utc_ms, waiting, {_VALUES_AND_TYPES} "
        "FROM interval JOIN device ON device.id = interval.device WHERE interval.id = ?",
        [number],
    ).fetchone()
    if row is None:
        return []
    mac, utc_ms, waiting, *pairs = row
    return [
        Datum(mac=mac, type=kind, data=data, timestamp_utc_ms=utc_ms)
        for bit, data, kind in zip(BITS, pairs[::2], pairs[1::2], strict=True)
        if waiting & bit
    ]


def delete_intervals(cursor: sqlite3.Cursor, numbers: Iterable[int]) -> None:
    """Delete intervals."""
    cursor.executemany("DELETE FROM interval WHERE id = ?", [(number,) for number in numbers])


def insert_samples(cursor: sqlite3.Cursor, samples: Iterable[PowerSample]) -> None:
    """Write down samples of the open interval; one that was verified meanwhile takes its former place."""
    cursor.executemany(
        "INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                each.start_mono_s,
                each.voltage_v,
                each.current_a,
                each.power_kw,
                "\n".join(each.refused) or None,
                "\n".join(each.unverified) or None,
            )
            for each in samples
        ],
    )


def _read_samples(cursor: sqlite3.Cursor) -> list[PowerSample]:
    return [
        PowerSample(
            start_mono_s=start_mono_s,
            voltage_v=voltage,
            current_a=current,
            power_kw=power,
            refused=tuple(refused.split("\n")) if refused else (),
            unverified=tuple(unverified.split("\n")) if unverified else (),
        )
        for start_mono_s, voltage, current, power, refused, unverified in cursor.execute(
            "SELECT start_mono_s, voltage, current, power, refused, unverified FROM sample ORDER BY start_mono_s"
        )
    ]


def delete_samples(cursor: sqlite3.Cursor, to_mono_s: float) -> None:
    """Delete the samples of an interval that has been closed: those until then."""
    cursor.execute("DELETE FROM sample WHERE start_mono_s <= ?", [to_mono_s])


def used_bytes(cursor: sqlite3.Cursor) -> int:
    """Return how much of the file is in use; what was deleted is used again before the file grows."""
    pages = cursor.execute("SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count")
    return int(pages.fetchone()[0] * cursor.execute("PRAGMA page_size").fetchone()[0])


def history(cursor: sqlite3.Cursor, limit: int) -> list[int]:
    """Return the numbers of the oldest ``limit`` intervals of which nothing waits. May look through all of them."""
    rows = cursor.execute("SELECT id FROM interval WHERE waiting = 0 ORDER BY id LIMIT ?", [limit])
    return [int(number) for (number,) in rows]


def delete_history_before(cursor: sqlite3.Cursor, utc_ms: float, limit: int) -> int:
    """Delete the oldest ``limit`` intervals that ended before then and of which nothing waits; return how many."""
    cursor.execute(
        "DELETE FROM interval WHERE id IN (SELECT id FROM interval INDEXED BY interval_end "
        "WHERE waiting = 0 AND end_utc_ms < ? ORDER BY end_utc_ms LIMIT ?)",
        [utc_ms, limit],
    )
    return cursor.rowcount


def oldest_waiting_utc_ms(cursor: sqlite3.Cursor) -> int | None:
    """Return the end of the oldest interval with readings waiting, as planned if it is not known yet; else ``None``."""
    row = cursor.execute(
        "SELECT coalesce(end_utc_ms, planned_end_utc_ms) FROM interval "
        "WHERE id = (SELECT min((SELECT id FROM interval INDEXED BY interval_waiting "
        "WHERE waiting != 0 AND interval.device = device.id ORDER BY id LIMIT 1)) FROM device)"
    ).fetchone()
    return None if row is None else row[0]


def oldest_waiting(cursor: sqlite3.Cursor, limit: int, after: int) -> list[tuple[int, int, bool]]:
    """Return the oldest ``limit`` intervals newer than number ``after`` with readings waiting: number, bits, held."""
    rows = cursor.execute(
        "SELECT id, waiting, end_utc_ms IS NULL FROM interval WHERE waiting != 0 AND id > ? ORDER BY id LIMIT ?",
        [after, limit],
    )
    return [(int(number), int(waiting), bool(held)) for number, waiting, held in rows]


def _values(statistic: Statistic | None) -> tuple[float | int | None, ...]:
    if statistic is None:
        return (None, None, None, None)
    return (statistic.mean, statistic.minimum, statistic.maximum, statistic.count)


def _flows(totals: Energy | None) -> tuple[float | None, ...]:
    return (None,) * 4 if totals is None else astuple(totals)[:4]


def _when(record: Record) -> tuple[str, float, int]:
    return (record.boot_id, record.end_mono_s, record.planned_end_utc_ms)
