"""One daemon per database and per meter: the second one is told who holds what, and does not start.

Used by the main thread before anything is built. A lock on a file beside the database keeps daemons of one folder
apart, on every system; on Linux it is also looked whether another daemon has one of the meters' ports open. It does not
keep other programs off a port: the driver finds that out when it opens it, and retries. The tools ask here who has a
port, and whether a daemon runs.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

_NAME = "power_monitor.lock"
_PROGRAM = "backend_daemon.py"
_PSEUDO_TERMINALS = range(136, 144)  # the major device numbers of /dev/pts on Linux
_TRIES, _TRY_AGAIN_AFTER_S = 11, 0.05
_TOOLS = frozenset({"--find-meters", "--check", "--zero"})  # they end soon: a daemon that is started waits for them


class HeldByAnother(Exception):
    """Another daemon runs on this database or on one of these meters: end that one first, or leave it to its work."""


class InstanceLock:
    """The lock of one folder, held from ``acquire()`` until the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._file: IO[str] | None = None

    def acquire(self, ports: Iterable[str]) -> None:
        """Take the lock and look for other daemons on these ports. Raises ``HeldByAnother``.

        Blocks 0.5 s at most: a tool that only asks who has the lock holds it itself for an instant. Where the folder
        cannot be written there is no lock, and a warning.
        """
        look_for_others(ports)
        try:
            file = self._path.open("a+", encoding="ascii")
        except OSError as exc:
            logger.warning("no lock against a second daemon can be made: %s", exc)
            return
        if not _lock_patiently(file):
            file.seek(0)
            process = file.read().strip() or "unknown"
            file.close()
            raise HeldByAnother(f"another daemon, process {process}, already runs in {self._path.parent}")
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


def _lock_patiently(file: IO[str]) -> bool:
    pause = threading.Event()
    return any(_lock(file) or pause.wait(_TRY_AGAIN_AFTER_S) for _ in range(_TRIES))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that has a port open: its number, what it is called, and whether it is a daemon of this program."""

    process: int
    program: str
    is_daemon: bool

    def __str__(self) -> str:
        return f"{'the daemon' if self.is_daemon else self.program}, process {self.process}"


def look_for_others(ports: Iterable[str]) -> None:
    """Raise ``HeldByAnother`` if another daemon has one of these ports open."""
    for port in ports:
        for holder in holders(port):
            if holder.is_daemon:
                raise HeldByAnother(f"the meter on {port} is in use by another daemon, process {holder.process}")


def holders(port: str) -> Iterator[Holder]:
    """Yield the other processes that have a port open, as far as this user may see them; none for a URL."""
    if "://" in port or not Path("/proc/self/fd").is_dir():
        return
    try:
        wanted = _device(Path(port))
    except OSError:  # nobody can have open what is not there
        return
    if not wanted[0]:
        return  # that is no device
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(directory.name) != os.getpid() and _has_open(directory, wanted):
                yield _holder(directory)


def _has_open(directory: Path, device: tuple[int, int]) -> bool:
    for link in (directory / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if str(link.readlink()).startswith("/dev/") and _device(link) == device:
                return True
    return False


def _device(path: Path) -> tuple[int, int]:
    """Return what tells a device from every other, whatever it is called: in a container it may have another name.

    Pseudo-terminals have the same numbers in every container, and are told apart by their file system.
    """
    status = path.stat()
    return status.st_rdev, status.st_dev if os.major(status.st_rdev) in _PSEUDO_TERMINALS else 0


def running_daemon(folder: Path) -> str | None:
    """Return the number of the process that is the daemon of a folder, ``None`` if there is none. Never blocks.

    For an instant it takes the lock itself: a daemon that is started in this very instant waits for it.
    """
    try:
        with (folder / _NAME).open(encoding="ascii") as file:
            return None if _lock(file) else file.read().strip() or "unknown"
    except OSError:
        return None


def _holder(directory: Path) -> Holder:
    arguments = (directory / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    names = [Path(argument).name for argument in arguments]
    return Holder(
        process=int(directory.name),
        program=(directory / "comm").read_text(encoding="utf-8", errors="replace").strip(),
        is_daemon=_PROGRAM in names and _TOOLS.isdisjoint(arguments),
    )
