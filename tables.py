"""The SQL of the database, one function per thing to do with it. Each takes a cursor inside a transaction of the store.

Nothing is kept here and nothing decided: what the rows mean is the outbox's business.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from measurements import Datum, Device, Interval, IntervalSummary, PowerSample, Statistic

_BITS = (1, 2, 4)  # of V, A, kW in ``interval.waiting``


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """A reading on loan to the uploader, and what to settle it by: its interval and its bit (1 V, 2 A, 4 kW)."""

    interval: int
    bit: int
    datum: Datum


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One interval as it stands in the database: its number, what of it still waits, its end, its averages."""

    number: int
    waiting: int
    end_utc_ms: int
    device: Device
    summary: IntervalSummary

    def lent(self) -> list[Lent]:
        """Return its readings that still wait."""
        means = (self.summary.voltage_v, self.summary.current_a, self.summary.power_kw)
        return [
            Lent(
                interval=self.number,
                bit=bit,
                datum=Datum(mac=self.device.mac, type=kind, data=each.mean, timestamp_utc_ms=self.end_utc_ms),
            )
            for bit, each, kind in zip(_BITS, means, self.device.types, strict=True)
            if self.waiting & bit and each is not None
        ]


def mask_of(summary: IntervalSummary) -> int:
    """Return the bits of the quantities that have a value."""
    values = (summary.voltage_v, summary.current_a, summary.power_kw)
    return sum(bit for bit, statistic in zip(_BITS, values, strict=True) if statistic is not None)


def add_device(cursor: sqlite3.Cursor, device: Device) -> None:
    """Make sure that there is a row for this device."""
    cursor.execute(
        "INSERT OR IGNORE INTO device (mac, voltage_type, current_type, power_type) VALUES (?, ?, ?, ?)",
        [device.mac, *device.types],
    )


def next_number(cursor: sqlite3.Cursor) -> int:
    """Return the number of the next interval."""
    return int(cursor.execute("SELECT coalesce(max(id), 0) + 1 FROM interval").fetchone()[0])


def count_waiting(cursor: sqlite3.Cursor) -> int:
    """Return how many readings wait."""
    return int(
        cursor.execute(
            "SELECT coalesce(sum((waiting & 1) + (waiting >> 1 & 1) + (waiting >> 2 & 1)), 0) "
            "FROM interval INDEXED BY interval_waiting WHERE waiting != 0"
        ).fetchone()[0]
    )


def counts(cursor: sqlite3.Cursor) -> Counter[str]:
    """Return the counters of the ledger."""
    return Counter(dict(cursor.execute("SELECT name, value FROM counter").fetchall()))


def add_counts(cursor: sqlite3.Cursor, changes: Mapping[str, int]) -> None:
    """Add to counters of the ledger."""
    cursor.executemany(
        "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        [(name, value) for name, value in changes.items() if value],
    )


def insert_interval(cursor: sqlite3.Cursor, record: Record) -> None:
    """Write down an interval."""
    add_device(cursor, record.device)
    summary = record.summary
    cursor.execute(
        "INSERT INTO interval SELECT ?, id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM device "
        "WHERE mac = ? AND voltage_type = ? AND current_type = ? AND power_type = ?",
        [
            record.number,
            record.waiting,
            record.end_utc_ms,
            *_values(summary.voltage_v),
            *_values(summary.current_a),
            *_values(summary.power_kw),
            record.device.mac,
            *record.device.types,
        ],
    )


def waiting_readings(cursor: sqlite3.Cursor, limit: int, *, newest_first: bool = False) -> list[Lent]:
    """Return the readings that wait of the ``limit`` oldest, or newest, intervals that have any."""
    rows = cursor.execute(
        "SELECT interval.id, waiting, end_utc_ms, mac, voltage, voltage_type, current, current_type, power, power_type "
        "FROM interval INDEXED BY interval_waiting JOIN device ON device.id = interval.device "
        f"WHERE waiting != 0 ORDER BY interval.id {'DESC' if newest_first else 'ASC'} LIMIT ?",
        [limit],
    )
    return [
        Lent(
            interval=number,
            bit=bit,
            datum=Datum(mac=mac, type=kind, data=data, timestamp_utc_ms=end_utc_ms),
        )
        for number, waiting, end_utc_ms, mac, *pairs in rows
        for bit, data, kind in zip(_BITS, pairs[::2], pairs[1::2], strict=True)
        if waiting & bit
    ]


def settle(cursor: sqlite3.Cursor, masks: Mapping[int, int]) -> None:
    """Take bits out of what waits: interval number -> bits."""
    cursor.executemany(
        "UPDATE interval SET waiting = waiting & ~? WHERE id = ?", [(mask, number) for number, mask in masks.items()]
    )


def insert_rejected(cursor: sqlite3.Cursor, data: Iterable[Datum], message: str) -> None:
    """Set readings aside, with the reason."""
    cursor.executemany(
        "INSERT INTO rejected VALUES (?, ?, ?, ?, ?)",
        [(each.mac, each.type, each.timestamp_utc_ms, each.data, message) for each in data],
    )


def write_open_interval(cursor: sqlite3.Cursor, interval: Interval, boot_id: str) -> None:
    """Write down which interval is open."""
    cursor.execute("DELETE FROM open_interval")
    cursor.execute(
        "INSERT INTO open_interval VALUES (?, ?, ?, ?)",
        [boot_id, interval.start_mono_s, interval.end_mono_s, interval.end_utc_ms],
    )


def read_open_interval(cursor: sqlite3.Cursor) -> tuple[str, Interval] | None:
    """Return the interval that was open, and the boot of the computer that its monotonic times belong to."""
    row = cursor.execute("SELECT boot_id, start_mono_s, end_mono_s, end_utc_ms FROM open_interval").fetchone()
    return row and (row[0], Interval(start_mono_s=row[1], end_mono_s=row[2], end_utc_ms=row[3]))


def move_open_interval(cursor: sqlite3.Cursor, boot_id: str, by_s: float) -> None:
    """Move the open interval and its samples in monotonic time, into another boot of the computer."""
    cursor.execute(
        "UPDATE open_interval SET boot_id = ?, start_mono_s = start_mono_s + ?, end_mono_s = end_mono_s + ?",
        [boot_id, by_s, by_s],
    )
    cursor.execute("UPDATE sample SET start_mono_s = start_mono_s + ?", [by_s])


def insert_samples(cursor: sqlite3.Cursor, samples: Iterable[PowerSample]) -> None:
    """Write down samples of the open interval."""
    cursor.executemany(
        "INSERT OR IGNORE INTO sample VALUES (?, ?, ?, ?, ?)",
        [
            (each.start_mono_s, each.voltage_v, each.current_a, each.power_kw, "\n".join(each.refused) or None)
            for each in samples
        ],
    )


def read_samples(cursor: sqlite3.Cursor) -> list[PowerSample]:
    """Return the samples of the open interval, oldest first."""
    return [
        PowerSample(
            start_mono_s=start_mono_s,
            voltage_v=voltage,
            current_a=current,
            power_kw=power,
            refused=tuple(refused.split("\n")) if refused else (),
        )
        for start_mono_s, voltage, current, power, refused in cursor.execute(
            "SELECT start_mono_s, voltage, current, power, refused FROM sample ORDER BY start_mono_s"
        )
    ]


def delete_samples(cursor: sqlite3.Cursor, to_mono_s: float) -> None:
    """Delete the samples of an interval that has been closed."""
    cursor.execute("DELETE FROM sample WHERE start_mono_s <= ?", [to_mono_s])


def used_bytes(cursor: sqlite3.Cursor) -> int:
    """Return how much of the file is in use; what was deleted is used again before the file grows."""
    pages = cursor.execute("SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count")
    return int(pages.fetchone()[0] * cursor.execute("PRAGMA page_size").fetchone()[0])


def delete_history(cursor: sqlite3.Cursor, limit: int) -> int:
    """Delete the oldest ``limit`` intervals of which nothing waits. Return how many there were."""
    return cursor.execute(
        "DELETE FROM interval WHERE id IN (SELECT id FROM interval WHERE waiting = 0 ORDER BY id LIMIT ?)", [limit]
    ).rowcount


def delete_history_before(cursor: sqlite3.Cursor, utc_ms: float) -> None:
    """Delete the intervals that ended before then and of which nothing waits."""
    cursor.execute("DELETE FROM interval WHERE waiting = 0 AND end_utc_ms < ?", [utc_ms])


def delete_waiting(cursor: sqlite3.Cursor, limit: int, after: int) -> int:
    """Delete the oldest ``limit`` intervals that wait and are newer than number ``after``; return how many readings."""
    rows = cursor.execute(
        "SELECT id, waiting FROM interval INDEXED BY interval_waiting "
        "WHERE waiting != 0 AND id > ? ORDER BY id LIMIT ?",
        [after, limit],
    ).fetchall()
    cursor.executemany("DELETE FROM interval WHERE id = ?", [(number,) for number, _ in rows])
    return sum(int(waiting).bit_count() for _, waiting in rows)


def _values(statistic: Statistic | None) -> tuple[float | int | None, ...]:
    if statistic is None:
        return (None, None, None, None)
    return (statistic.mean, statistic.minimum, statistic.maximum, statistic.count)
