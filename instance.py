"""One daemon per database and per meter: the second one is told who holds what, and does not start.

Used by the main thread before anything is built. A lock on a file beside the database keeps daemons of one folder
apart, on every system; on Linux it is also looked whether another daemon has one of the meters' ports open. It does not
keep other programs off a port: the driver finds that out when it opens it, and retries.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

_NAME = "power_monitor.lock"
_PROGRAM = "backend_daemon.py"


class HeldByAnother(Exception):
    """Another daemon runs on this database or on one of these meters: end that one first, or leave it to its work."""


class InstanceLock:
    """The lock of one folder, held from ``acquire()`` until the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._file: IO[str] | None = None

    def acquire(self, ports: Iterable[str]) -> None:
        """Take the lock and look for other daemons on these ports. Raises ``HeldByAnother``. Never blocks.

        Where the folder cannot be written there is no lock, and a warning.
        """
        for port in ports:
            for process in _daemons_with(port):
                raise HeldByAnother(f"the meter on {port} is in use by another daemon, process {process}")
        try:
            file = self._path.open("a+", encoding="ascii")
        except OSError as exc:
            logger.warning("no lock against a second daemon can be made: %s", exc)
            return
        if not _lock(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise HeldByAnother(f"another daemon, process {holder}, already runs in {self._path.parent}")
        with suppress(OSError):  # a full disk: the lock holds all the same, only without a name on it
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


def _lock(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            file.seek(1 << 20)  # beyond the text, which others must be able to read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _daemons_with(port: str) -> Iterator[int]:
    """Yield the other processes of this program that have a port open, as far as this user may see them."""
    if "://" in port or not Path("/proc/self/fd").is_dir():
        return
    wanted = os.path.realpath(port)
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (directory / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if int(directory.name) == os.getpid() or _PROGRAM not in {Path(each).name for each in arguments}:
                continue
            if any(os.path.realpath(link) == wanted for link in (directory / "fd").iterdir()):
                yield int(directory.name)
