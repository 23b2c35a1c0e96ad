"""The wire log: every byte that passes between this computer and the meters, told as it passes, and its written form.

``WireTap`` opens ports as pyserial does and stays in between: whoever has a ``Transport`` open its port through one
gets the same port, and ``record`` is told what happens on it. A transport without one is not concerned at all.

One event is one line, a JSON object. ``t_mono_s`` is the monotonic clock, in seconds; ``port`` is the port as it was
configured, without a user name and password. Then either ``direction`` (``sent``: to the meter; ``received``: from it)
and ``bytes``, each byte as the character of its number (0 to 255, as in Latin-1, so that text stays readable and no
byte is lost), or ``event``: ``opened``, ``refused`` (it could not be opened), ``failed`` (it was open and failed),
``closed``, ``note`` (of the log itself); ``why`` in words where there is something to say.

Guarantees: ``WireTap`` changes no byte, no error and no order; an event's time is when a write began, or when a read
had come back. When bytes came that were not waited for is not known: they are received when they are read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

import serial

from clock import Clock

SENT, RECEIVED = "sent", "received"
OPENED, REFUSED, FAILED, CLOSED, NOTE = "opened", "refused", "failed", "closed", "note"

_DIRECTIONS = (SENT, RECEIVED)
_EVENTS = (OPENED, REFUSED, FAILED, CLOSED, NOTE)
_LOG_IN = re.compile(r"(?<=://)[^/@\s]*@")  # of a URL: user:password@


class NotAWireLog(ValueError):
    """A line is no event of a wire log: the file is another one, or it was damaged. The message says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireEvent:
    """One thing that happened on a port. ``what`` is one of the words above; ``data`` are the bytes, if any."""

    t_mono_s: float
    port: str
    what: str
    data: bytes = b""
    why: str = ""

    def line(self) -> str:
        """Return it as a line of the wire log, without a line end."""
        fields: dict[str, object] = {"t_mono_s": round(self.t_mono_s, 6), "port": self.port}
        if self.what in _DIRECTIONS:
            fields |= {"direction": self.what, "bytes": self.data.decode("latin-1")}
        else:
            fields |= {"event": self.what} | ({"why": self.why} if self.why else {})
        return json.dumps(fields)

    @classmethod
    def of_line(cls, line: str) -> WireEvent:
        """Return the event that a line of the wire log tells of. Raises ``NotAWireLog``."""
        try:
            fields = json.loads(line)
        except ValueError as exc:
            raise NotAWireLog(f"not a JSON object: {line[:40]!r}") from exc
        if not isinstance(fields, dict):
            raise NotAWireLog(f"not a JSON object: {line[:40]!r}")
        t_mono_s, port = fields.get("t_mono_s"), fields.get("port")
        if isinstance(t_mono_s, bool) or not isinstance(t_mono_s, (int, float)) or not math.isfinite(t_mono_s):
            raise NotAWireLog(f"t_mono_s is {t_mono_s!r}, not a number of seconds")
        if not isinstance(port, str):
            raise NotAWireLog(f"port is {port!r}, not a text")
        if (what := fields.get("direction")) in _DIRECTIONS:
            return cls(t_mono_s=t_mono_s, port=port, what=what, data=_bytes(fields.get("bytes")))
        if (what := fields.get("event")) in _EVENTS:
            return cls(t_mono_s=t_mono_s, port=port, what=what, why=str(fields.get("why", "")))
        raise NotAWireLog(f"neither a direction ({', '.join(_DIRECTIONS)}) nor an event ({', '.join(_EVENTS)})")


def _bytes(text: object) -> bytes:
    try:
        return cast(str, text).encode("latin-1")
    except (AttributeError, UnicodeEncodeError) as exc:
        raise NotAWireLog(f"bytes is {text!r}, not a text of characters from 0 to 255") from exc


class WireTap:
    """Listens in on every port it opens. ``record`` is called from the thread that uses the port: it must not block."""

    def __init__(self, record: Callable[[WireEvent], None], clock: Clock) -> None:
        self._record = record
        self._clock = clock

    def open(self, port: str, **how: Any) -> serial.Serial:
        """Open a port as ``serial.serial_for_url`` does; raises and blocks as that does."""
        with _Telling(self, port, REFUSED):
            opened = serial.serial_for_url(port, **how)
        self.tell(port, OPENED)
        return cast(serial.Serial, _TappedPort(self, port, opened))

    def tell(self, port: str, what: str, data: bytes = b"", why: str = "", at_mono_s: float | None = None) -> None:
        """Record an event; now, unless another moment is given."""
        self._record(
            WireEvent(
                t_mono_s=self.now_mono_s() if at_mono_s is None else at_mono_s,
                port=_LOG_IN.sub("", port),
                what=what,
                data=data,
                why=_LOG_IN.sub("", why),
            )
        )

    def now_mono_s(self) -> float:
        """Return the time of an event that happens now."""
        return self._clock.mono_s()


class _Telling:
    """A context that tells of whatever error leaves it, and lets it go on."""

    def __init__(self, tap: WireTap, port: str, what: str) -> None:
        self._tap, self._port, self._what = tap, port, what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._tap.tell(self._port, self._what, why=f"{type(error).__name__}: {error}")


class _TappedPort:
    """A port of pyserial, listened in on. What is not here is the port's own."""

    def __init__(self, tap: WireTap, name: str, port: serial.Serial) -> None:
        self._tap, self._name, self._port = tap, name, port
        self._telling = _Telling(tap, name, FAILED)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    @property
    def in_waiting(self) -> int:
        with self._telling:
            return self._port.in_waiting

    def read(self, size: int = 1) -> bytes:
        with self._telling:
            data = self._port.read(size)
        if data:
            self._tap.tell(self._name, RECEIVED, data)
        return data

    def write(self, data: bytes) -> int | None:
        began_mono_s = self._tap.now_mono_s()
        with self._telling:
            count = self._port.write(data)
        self._tap.tell(self._name, SENT, data, at_mono_s=began_mono_s)
        return count

    def close(self) -> None:
        self._tap.tell(self._name, CLOSED)
        self._port.close()
