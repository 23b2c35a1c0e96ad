"""The wire recorder: the thread that writes the wire log, the file of every byte sent to the meters and received.

Of its own, because a disk can be slow and no meter must ever wait for it; it exists only while ``xdm_wire_log`` is set.
Guarantees: one file for all meters, bounded and rotated as the log is (10 MB, the last five are kept); a disk that is
full, a folder that is missing and a file that may not be written stop nothing: what could not be written is lost, and
the log says so once. What one line holds is told in ``xdm1041/wire_log.py``.
"""

from __future__ import annotations

import contextlib
import io
import logging
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue

from clock import Clock
from log_setup import LogFile
from worker import Worker
from xdm1041.wire_log import NOTE, WireEvent

_HEARTBEAT_S = 1.0
_MOST_WAITING = 10_000  # events; a disk that hangs for minutes


class WireRecorder(Worker):
    """Writes wire events into the file at ``path``. ``record()`` is the meters' side. The constructor opens nothing."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__("wire recorder", clock)
        self._inbox: Queue[WireEvent | None] = Queue(_MOST_WAITING)
        self._lost = 0
        self._file = _WireFile(path, clock)

    def record(self, event: WireEvent) -> None:
        """Have an event written. Never blocks: when too many wait it is dropped and counted."""
        try:
            self._inbox.put_nowait(event)
        except Full:
            self._lost += 1

    def step(self) -> None:
        """Wait for an event and write it."""
        try:
            event = self._inbox.get(timeout=_HEARTBEAT_S)
        except Empty:
            return
        if event is not None:
            self._write(event)

    def wake(self) -> None:
        """End the wait of a step."""
        with contextlib.suppress(Full):  # then it does not wait
            self._inbox.put_nowait(None)

    def finish(self) -> None:
        """Write what still waits, and close the file."""
        while not self._inbox.empty():
            self.step()
        with contextlib.suppress(OSError):  # a full disk: what is still in the buffer is lost
            self._file.close()

    def _write(self, event: WireEvent) -> None:
        self._file.handle(logging.makeLogRecord({"msg": event}))
        if self._lost:
            lost, self._lost = self._lost, 0
            self._file.handle(logging.makeLogRecord({"msg": f"{lost} events are missing here: the disk was too slow"}))


class _WireFile(LogFile):
    """The rotating file. Each one begins with what the wall clock says at a moment of the monotonic clock."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path, notices=_ToLog())
        self._clock = clock
        self.setFormatter(_WireFormatter(clock))

    def _open(self) -> io.TextIOWrapper:
        stream = super()._open()
        stream.write(f"{_note(self._clock, f'it is {datetime.fromtimestamp(self._clock.utc_s(), UTC).isoformat()}')}\n")
        return stream


class _WireFormatter(logging.Formatter):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def format(self, record: logging.LogRecord) -> str:
        return record.msg.line() if isinstance(record.msg, WireEvent) else _note(self._clock, record.getMessage())


class _ToLog(logging.Handler):
    """Passes what the file has to say on to the log."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _note(clock: Clock, why: str) -> str:
    return WireEvent(t_mono_s=clock.mono_s(), port="", what=NOTE, why=why).line()
