"""Looking into the daemon's database without touching it, beside a running daemon or without one.

For any thread and any process; nothing is kept between two calls. Guarantees: no file is changed, not even SQLite's
shared memory, and none made (but for an empty log, if a daemon stops within microseconds of the opening); what a query
sees is of one moment; no writer is waited for or made to wait. It does not see what a daemon holds in memory while it
cannot write its database.

The daemon's own threads must say ``in_daemon``: in one process SQLite has one shared memory for all, and if a reader
had opened that for reading only, the daemon could not write any more. There the files are the daemon's to make anyway.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from clock import Clock
from store import MIGRATIONS, DamagedRow

_RETRY_FOR_S, _RETRY_AFTER_S, _BUSY_TIMEOUT_S = 0.8, 0.05, 0.2
_CHECK_TIME_EVERY = 10_000  # steps of SQLite's virtual machine: well below 1 ms

_T = TypeVar("_T")


class DatabaseUnreadable(Exception):
    """There is nothing to read. Its text is for the operator: what is the matter, and what to do."""


class _Changing(Exception):
    """The files are being changed just now, as when a daemon starts or stops: look again."""


def read_database(
    path: Path, query: Callable[[sqlite3.Cursor], _T], *, answer_within_s: float | None = None, in_daemon: bool = False
) -> _T:
    """Return what ``query`` makes of the database at ``path``. Raises ``DatabaseUnreadable``.

    ``query`` gets a cursor inside a transaction; it is called again where the files changed under it, so it must begin
    afresh each time. A query is broken off after ``answer_within_s`` seconds; one that cannot be asked is given up
    after 1 s. Ctrl-C breaks it off, too (``KeyboardInterrupt``).
    """
    clock, pause = Clock(), threading.Event()
    begun_mono_s = clock.mono_s()
    give_up_mono_s: float | None = None

    def is_late() -> bool:
        return answer_within_s is not None and clock.mono_s() > begun_mono_s + answer_within_s

    while True:
        try:
            _check_readable(path)
            return _read_once(path.resolve(), query, is_late, in_daemon=in_daemon)
        except (sqlite3.OperationalError, _Changing, OSError) as exc:
            if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT and not is_late():
                raise KeyboardInterrupt from exc  # Ctrl-C inside is_late(): SQLite swallows what is raised there
            if give_up_mono_s is None:
                give_up_mono_s = clock.mono_s() + _RETRY_FOR_S
            if is_late() or clock.mono_s() > give_up_mono_s:
                message = f"The database {path} cannot be read just now ({exc}). Try again in a minute"
                raise DatabaseUnreadable(message) from exc
        except DamagedRow:
            raise  # it is of the query's, and not the file
        except sqlite3.Error as exc:
            raise DatabaseUnreadable(
                f"The database {path} is damaged ({exc}). The daemon moves it aside and begins a new one by itself: "
                "see its log; if it is not running, start it"
            ) from exc
        pause.wait(_RETRY_AFTER_S)


def size_bytes(path: Path) -> int:
    """Return what the database takes on the disk, its write-ahead log included."""
    file, log, _shared_memory = _files(path)
    return _size_bytes(file) + _size_bytes(log)


def _files(path: Path) -> tuple[Path, Path, Path]:
    return path, Path(f"{path}-wal"), Path(f"{path}-shm")


def _check_readable(path: Path) -> None:
    try:
        if not path.is_file():
            raise DatabaseUnreadable(f"There is no database {path}: no daemon has stored anything in this folder yet")
        for file in _files(path.resolve()):
            if file.exists() and not os.access(file, os.R_OK):
                raise PermissionError(f"no permission to read {file.name}")
    except PermissionError as exc:
        message = f"This user may not read the database {path}: ask as the user that runs the daemon"
        raise DatabaseUnreadable(message) from exc


def _size_bytes(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _read_once(
    path: Path, query: Callable[[sqlite3.Cursor], _T], is_late: Callable[[], bool], *, in_daemon: bool
) -> _T:
    """Open the database in the one way that changes no file, and ask.

    Where there is a write-ahead log its shared memory must be there, too: SQLite would make what is missing. Without
    a log the file holds everything, and can be read as one that nobody changes, if nobody does.
    """
    if in_daemon:
        return _ask(path, "mode=ro", query, is_late)
    file, log, shared_memory = _files(path)
    if log.exists() and shared_memory.exists():
        return _ask(path, "mode=ro&readonly_shm=1", query, is_late)
    if _size_bytes(log):
        raise _Changing(f"{shared_memory.name} is missing; starting the daemon mends that")
    before = _fingerprint(file, log)
    try:
        return _ask(path, "mode=ro&immutable=1", query, is_late)
    finally:
        if _fingerprint(file, log) != before:
            raise _Changing("a daemon is just starting or stopping")


def _ask(path: Path, access: str, query: Callable[[sqlite3.Cursor], _T], is_late: Callable[[], bool]) -> _T:
    uri = f"{path.as_uri()}?{access}"
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.set_progress_handler(is_late, _CHECK_TIME_EVERY)
        connection.execute("BEGIN")  # all that follows is of one moment
        cursor = connection.cursor()
        _check_version(cursor, path)
        return query(cursor)


def _check_version(cursor: sqlite3.Cursor, path: Path) -> None:
    version = int(cursor.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise DatabaseUnreadable(
            f"The database {path} was made by a newer version of this program "
            f"(its version is {version}, this program knows {len(MIGRATIONS)}): use that one"
        )
    if cursor.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        raise DatabaseUnreadable(f"The database {path} is empty: no daemon has stored anything in it yet")


def _fingerprint(file: Path, log: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, _size_bytes(log)
