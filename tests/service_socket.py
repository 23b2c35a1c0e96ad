"""A service manager's end of sd_notify(3): a real datagram socket that a process under test reports to."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from clock import Clock


class ServiceSocket:
    """Collects what it is told: ``told`` holds (monotonic seconds, message)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[tuple[float, str]] = []
        self._clock = Clock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._collect)

    def __enter__(self) -> Self:
        self._socket.bind(str(self.path))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()

    def _collect(self) -> None:
        while message := self._socket.recv(65536):
            self.told.append((self._clock.mono_s(), message.decode()))

    @property
    def messages(self) -> list[str]:
        """All messages so far."""
        return [message for _, message in self.told]

    def times_of(self, message: str) -> list[float]:
        """Return when a message came: monotonic seconds."""
        return [mono_s for mono_s, told in self.told if told == message]
