"""The database file: opened, migrated, written in transactions, replaced when it is corrupt.

One SQLite file in WAL mode, used by several threads of one process through one connection; whoever calls holds the
lock of the outbox. Guarantees: a transaction is there whole after a ``kill -9``, and after a power cut if it was asked
to be synced; a corrupt file is moved aside and a new one begun. sqlite3's exceptions are converted here and nowhere
else. It knows the tables but not what their rows mean.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from clock import Clock

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

NAME = "power_monitor.db"
_PAGE_BYTES = 1024  # a sample touches one page: small ones wear an SD card less
_BUSY_TIMEOUT_S = 2.0

#: What brings the file from version n to n + 1. Only ever add to it.
MIGRATIONS = (
    """
    CREATE TABLE device (
        id INTEGER PRIMARY KEY, mac INTEGER NOT NULL,
        voltage_type INTEGER NOT NULL, current_type INTEGER NOT NULL, power_type INTEGER NOT NULL,
        UNIQUE (mac, voltage_type, current_type, power_type)
    );
    -- One row per interval: its averages, and which of its readings still wait for the cloud (1 V, 2 A, 4 kW;
    -- since version 4 also 8 and 16 energy in and out, 32 and 64 charge in and out, 128 net energy).
    -- Until it is known what time it was when it ended, it has no end_utc_ms but what is needed to tell it later.
    CREATE TABLE interval (
        id INTEGER PRIMARY KEY, device INTEGER NOT NULL, waiting INTEGER NOT NULL, end_utc_ms INTEGER,
        boot_id TEXT, end_mono_s REAL, planned_end_utc_ms INTEGER,
        voltage REAL, voltage_minimum REAL, voltage_maximum REAL, voltage_count INTEGER,
        current REAL, current_minimum REAL, current_maximum REAL, current_count INTEGER,
        power REAL, power_minimum REAL, power_maximum REAL, power_count INTEGER
    );
    CREATE INDEX interval_waiting ON interval (id, waiting) WHERE waiting != 0;
    CREATE INDEX interval_end ON interval (end_utc_ms);
    CREATE INDEX interval_held ON interval (id) WHERE end_utc_ms IS NULL;
    CREATE TABLE rejected (
        mac INTEGER NOT NULL, type INTEGER NOT NULL, end_utc_ms INTEGER, data REAL NOT NULL,
        message TEXT NOT NULL
    );
    -- The open interval, and the samples taken in it so far. Monotonic times mean something in their boot only.
    CREATE TABLE open_interval (
        boot_id TEXT NOT NULL, start_mono_s REAL NOT NULL, end_mono_s REAL NOT NULL, end_utc_ms INTEGER NOT NULL,
        clock_trusted INTEGER NOT NULL
    );
    CREATE TABLE sample (start_mono_s REAL PRIMARY KEY, voltage REAL, current REAL, power REAL, refused TEXT);
    CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    -- By device, so that what one device has waiting never has to be looked through to find what another has.
    DROP INDEX interval_waiting;
    CREATE INDEX interval_waiting ON interval (device, id, waiting) WHERE waiting != 0;
    """,
    "ALTER TABLE sample ADD COLUMN unverified TEXT",
    """
    -- What went in and out during an interval (kWh, Ah), and for how many seconds that is known; NULL in older ones.
    ALTER TABLE interval ADD COLUMN energy_in REAL;
    ALTER TABLE interval ADD COLUMN energy_out REAL;
    ALTER TABLE interval ADD COLUMN charge_in REAL;
    ALTER TABLE interval ADD COLUMN charge_out REAL;
    ALTER TABLE interval ADD COLUMN energy_s REAL;
    ALTER TABLE interval ADD COLUMN charge_s REAL;
    -- The counters at its end.
    ALTER TABLE interval ADD COLUMN total_energy_in REAL;
    ALTER TABLE interval ADD COLUMN total_energy_out REAL;
    ALTER TABLE interval ADD COLUMN total_charge_in REAL;
    ALTER TABLE interval ADD COLUMN total_charge_out REAL;
    -- +/- of the means; of energy and charge, what the instruments may be off and a standard deviation of scatter.
    ALTER TABLE interval ADD COLUMN voltage_uncertainty REAL;
    ALTER TABLE interval ADD COLUMN current_uncertainty REAL;
    ALTER TABLE interval ADD COLUMN power_uncertainty REAL;
    ALTER TABLE interval ADD COLUMN energy_uncertainty REAL;
    ALTER TABLE interval ADD COLUMN energy_scatter REAL;
    ALTER TABLE interval ADD COLUMN charge_uncertainty REAL;
    ALTER TABLE interval ADD COLUMN charge_scatter REAL;
    -- A device is also known by the sensor types of the counters; NULL where a counter is not reported.
    CREATE TABLE device_wider (
        id INTEGER PRIMARY KEY, mac INTEGER NOT NULL,
        voltage_type INTEGER NOT NULL, current_type INTEGER NOT NULL, power_type INTEGER NOT NULL,
        energy_in_type INTEGER, energy_out_type INTEGER, charge_in_type INTEGER, charge_out_type INTEGER,
        energy_type INTEGER
    );
    INSERT INTO device_wider (id, mac, voltage_type, current_type, power_type)
        SELECT id, mac, voltage_type, current_type, power_type FROM device;
    DROP TABLE device;
    ALTER TABLE device_wider RENAME TO device;
    """,
)


class StoreError(Exception):
    """The database cannot be used: the caller keeps what it has and tries again later."""


class StoreUnavailable(StoreError):
    """It cannot be read or written now: the disk is full or read-only, or fails."""


class StoreUncertain(StoreUnavailable):
    """It failed at the last moment: nobody can tell yet whether what was to be written is there."""


class StoreCorrupt(StoreError):
    """It is no database of ours, or a damaged one. It has been moved aside; the next attempt begins a new one."""


class DamagedRow(sqlite3.DatabaseError):
    """A row holds what this program never writes: for those who read rows to raise; it leaves as ``StoreCorrupt``."""


class StoreTooNew(StoreError):
    """A newer version of this program made it. Nothing is changed in it."""


class Store:
    """The database at ``path``. Opens nothing by itself; ``transaction()`` opens it when need be."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._aside: Path | None = None
        self.long_work = 0
        """A number that changes while the file is rebuilt, which may take minutes: it goes on, nothing hangs."""

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[sqlite3.Cursor]:
        """Give a cursor inside a transaction: committed at the end of the ``with``, undone if that raises.

        ``synced`` makes it survive a power cut as well (the commit waits for the disk). Raises ``StoreError``.
        """
        with self._converting():
            connection = self._open()
            connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                cursor = connection.cursor()
                yield cursor
                cursor.close()
                self._commit(connection)
            finally:
                if self._connection is not None and connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            if _primary_code(exc) != sqlite3.SQLITE_IOERR:
                raise
            self._drop_connection()
            raise StoreUncertain(str(exc)) from exc

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        """Give a cursor for reading. Raises ``StoreError``."""
        with self._converting():
            cursor = self._open().cursor()
            yield cursor
            cursor.close()

    def salvage(self, read: Callable[[sqlite3.Cursor], _T]) -> _T | None:
        """Return what ``read`` finds in the damaged file that was moved aside; ``None`` if nothing can be read."""
        if self._aside is None:
            return None
        try:
            with closing(sqlite3.connect(f"{self._aside.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                return read(connection.cursor())
        except (sqlite3.Error, UnicodeDecodeError):
            return None

    def size_bytes(self) -> int:
        """Return what the database takes on the disk, its write-ahead log included."""
        total = 0
        for suffix in ("", "-wal"):
            with suppress(OSError):
                total += Path(f"{self.path}{suffix}").stat().st_size
        return total

    def close(self) -> None:
        """Write everything into the one file and close it. Never fails: what cannot be written stays in its log."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and not self.path.exists():
            self._restore(self._connection)
        if self._connection is None:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _restore(self, connection: sqlite3.Connection) -> None:
        """Write the file again that somebody has deleted: as long as it is open its content is still there."""
        logger.critical(
            "the database %s was deleted while it is in use: it is written again, nothing is lost", self.path
        )
        with self._counting_work(connection):
            connection.execute("VACUUM INTO ?", [str(self.path)])
        self._drop_connection()
        for suffix in ("-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self.path}{suffix}").unlink()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = lambda text: text.decode("utf-8", "replace")  # one bad byte is no reason to stop
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
        connection.execute("PRAGMA cache_size = -1024")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise StoreTooNew(f"{self.path} is of version {version}; this program knows {len(MIGRATIONS)}")
        with self._counting_work(connection):
            for number in range(version, len(MIGRATIONS)):
                connection.executescript(f"BEGIN; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT")

    @contextmanager
    def _counting_work(self, connection: sqlite3.Connection) -> Iterator[None]:
        def count() -> None:
            self.long_work += 1

        connection.set_progress_handler(count, 10_000)
        try:
            yield
        finally:
            connection.set_progress_handler(None, 0)

    @contextmanager
    def _converting(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as exc:
            if _is_corrupt(exc):
                self._move_aside(exc)
                raise StoreCorrupt(str(exc)) from exc
            self._drop_connection()
            raise StoreUnavailable(str(exc)) from exc
        except UnicodeDecodeError as exc:  # sqlite3 cannot even say what is wrong: the bad bytes are in its message
            damage = sqlite3.DatabaseError(f"text that cannot be read: {exc}")
            self._move_aside(damage)
            raise StoreCorrupt(str(damage)) from exc
        except (sqlite3.Error, OSError) as exc:
            self._drop_connection()
            raise StoreUnavailable(str(exc)) from exc

    def _drop_connection(self) -> None:
        """Close without ceremony, so that the next attempt starts from what is on the disk."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _move_aside(self, exc: sqlite3.DatabaseError) -> None:
        self._drop_connection()
        utc_s = int(self._clock.utc_s())
        while (aside := Path(f"{self.path}.corrupt-{utc_s}")).exists():
            utc_s += 1
        try:
            self.path.rename(aside)
        except OSError as failure:
            raise StoreUnavailable(f"{self.path} is damaged ({exc}) and cannot be moved aside: {failure}") from exc
        for suffix in ("-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        self._aside = aside
        logger.critical(
            "the database %s is damaged (%s). It was moved to %s; readings that waited in it are NOT sent. "
            "A new one is begun and everything goes on. Keep the old file if you need those readings",
            self.path,
            exc,
            aside.name,
        )


def _is_corrupt(exc: sqlite3.DatabaseError) -> bool:
    missing = isinstance(exc, sqlite3.OperationalError) and str(exc).startswith(("no such table", "no such column"))
    damaged = _primary_code(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or isinstance(exc, DamagedRow)
    return damaged or missing  # what is missing: another program's database


def _primary_code(exc: sqlite3.DatabaseError) -> int | None:
    code = getattr(exc, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None
