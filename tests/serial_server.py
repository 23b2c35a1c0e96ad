"""A serial server in the network, speaking RFC 2217 (telnet with port control), in front of a local serial port."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import serial
import serial.rfc2217


class _PtySerial(serial.Serial):
    """A pty opened as a serial port: it has no modem lines to set or to read."""

    def _update_dtr_state(self) -> None:
        return

    def _update_rts_state(self) -> None:
        return

    @property
    def cts(self) -> bool:
        return False

    dsr = ri = cd = cts


class _Writer:
    """What pyserial's PortManager writes its negotiation to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)


class Rfc2217Server:
    """Serves one connection at a time on loopback. ``url`` is what the daemon's configuration calls it."""

    def __init__(self, port: str, number: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", number))
        self.number = int(self._listener.getsockname()[1])
        self.url = f"rfc2217://127.0.0.1:{self.number}"
        self._serial = _PtySerial(port, timeout=0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(10)
        self._listener.close()
        self._serial.close()

    def _serve(self) -> None:
        while not self._done.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        writer: Any = _Writer(connection)  # all that is asked of it is to write
        port: Any = self._serial
        manager: Any = serial.rfc2217.PortManager(port, writer)
        while not self._done.is_set():
            ready, _, _ = select.select([connection, self._serial.fileno()], [], [], 0.05)
            if connection in ready:
                data = connection.recv(1024)
                if not data:
                    return
                self._serial.write(b"".join(manager.filter(data)))
            if self._serial.fileno() in ready:
                connection.sendall(b"".join(manager.escape(self._serial.read(1024))))
