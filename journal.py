"""The journal of systemd: every line of the log with its fields, sent without ever waiting.

Used by every thread, through ``logging``. Guarantees: a log call neither waits for the journal nor raises because of
it, whether journald is stopped, gone or full; what it does not take is counted, and told as soon as it takes something
again (the log file has those lines). No entry can be forged by what stands in a message: the fields are framed.

The journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) is spoken here and not through systemd-python, whose
``sendv()`` waits for a journald that does not read, holding Python's lock: every thread of the program stands still.
Where its socket is not to be reached, the lines go to stderr with their priority before them (sd-daemon(3)).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "powermonitormiddleware"

_STDERR = 2
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # of syslog(3)
_DEBUG = 7


def is_journal(stream: TextIO | int = _STDERR) -> bool:
    """Return whether a stream, stderr unless another is given, ends in the journal: JOURNAL_STREAM names it."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        status = os.fstat(stream if isinstance(stream, int) else stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


class JournalHandler(logging.Handler):
    """Gives each record to the journal, or loses it at once. ``stream`` is the descriptor that stderr has."""

    def __init__(self, path: str = SOCKET, stream: int = _STDERR) -> None:
        super().__init__()
        self._path = path
        self._stream = stream
        self._datagrams: socket.socket | None = None
        self._lines: socket.socket | None = None
        self._unfinished = False
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost:
            notice = {"name": __name__, "levelno": logging.WARNING, "msg": _told(self._lost), "pathname": __file__}
            if not self._deliver(_fields(logging.makeLogRecord(notice))):
                self._lost += 1
                return
            self._lost = 0
        if not self._deliver(_fields(record)):
            self._lost += 1

    def close(self) -> None:
        """Close what was opened. What was sent stays sent."""
        super().close()
        for each in (self._datagrams, self._lines):
            if each is not None:
                each.close()
        self._datagrams = self._lines = None

    def _deliver(self, fields: Mapping[str, str]) -> bool:
        """Return whether the journal has taken the entry. Never waits."""
        try:
            if self._datagrams is None:
                self._datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._datagrams.setblocking(False)
            self._datagrams.sendto(_datagram(fields), self._path)
        except BlockingIOError:  # journald does not read: the same would be true of stderr
            return False
        except OSError:  # there is no such socket, or the entry is too large for it
            return self._write(fields)
        return True

    def _write(self, fields: Mapping[str, str]) -> bool:
        """Return whether stderr has taken the entry as lines. Never waits; a line that was cut ends before the next."""
        begin = f"<{fields['PRIORITY']}>{fields['LOGGER']} - "
        text = "".join(f"{begin}{line}\n" for line in fields["MESSAGE"].split("\n"))
        data = _bytes("\n" + text if self._unfinished else text)
        try:
            if self._lines is None:
                self._lines = socket.socket(fileno=os.dup(self._stream))
            sent = self._lines.send(data, socket.MSG_DONTWAIT)
        except OSError:
            return False
        self._unfinished = data[:sent][-1:] != b"\n"
        return sent == len(data)


def _told(lost: int) -> str:
    return f"the journal did not take {lost} line{'s' if lost > 1 else ''} before this one: the log file has them"


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields of an entry. A traceback is part of the message, so that ``journalctl`` shows it."""
    message = record.getMessage()
    details = [text for text in (record.exc_text, record.stack_info) if text]
    fields = {
        "MESSAGE": "\n".join([message, *details]),
        "PRIORITY": str(next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "LOGGER": record.name,
        "THREAD": record.threadName or "",
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
        "EXCEPTION": record.exc_text or "",
    }
    for name in ("event", "meter", "subject"):  # as events.py has them
        fields[name.upper()] = str(record.__dict__.get(name, ""))
    return {name: value for name, value in fields.items() if value or name == "MESSAGE"}


def _datagram(fields: Mapping[str, str]) -> bytes:
    """Return an entry as the protocol has it: each value with its length, so that no value can end before its end."""
    parts = []
    for name, value in fields.items():
        data = _bytes(value)
        parts.append(b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
    return b"".join(parts)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
