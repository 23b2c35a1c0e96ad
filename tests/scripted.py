"""A meter that follows a script: a real pty whose far end expects exact bytes and answers exact bytes.

Each step is ``(expected, reply)``; a reply is bytes, or a sequence of bytes and of pauses in seconds. The test fails if
what comes is not what was expected, or if steps are left over.
"""

from __future__ import annotations

import os
import pty
import select
import threading
import tty
from collections.abc import Sequence
from types import TracebackType
from typing import Self

Reply = bytes | Sequence[bytes | float]
IDENTITY = (b"*IDN?\n", b"OWON,XDM1041,22511040,V4.0.0,3\r\n")


class ScriptedMeter:
    """The far end of a pty; ``path`` is the near end, to be opened as a serial port."""

    def __init__(self, *steps: tuple[bytes, Reply]) -> None:
        self.steps = list(steps)
        self.problem: str | None = None
        self._far, self._near = pty.openpty()
        tty.setraw(self._near)
        self.path = os.ttyname(self._near)
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
        os.close(self._far)
        os.close(self._near)
        if error is None:
            assert self.problem is None, self.problem
            assert not self.steps, f"never asked: {[expected for expected, _ in self.steps]}"

    def say(self, data: bytes) -> None:
        """Send bytes that nobody asked for."""
        os.write(self._far, data)

    def _serve(self) -> None:
        received = b""
        while not self._done.is_set():
            ready, _, _ = select.select([self._far], [], [], 0.02)
            if not ready:
                continue
            received += os.read(self._far, 4096)
            while b"\n" in received:
                line, _, received = received.partition(b"\n")
                self._answer(line + b"\n")

    def _answer(self, line: bytes) -> None:
        if not self.steps:
            self.problem = self.problem or f"not expected at all: {line!r}"
            return
        expected, reply = self.steps.pop(0)
        if line != expected:
            self.problem = self.problem or f"expected {expected!r}, got {line!r}"
        for part in [reply] if isinstance(reply, bytes) else reply:
            if isinstance(part, bytes):
                os.write(self._far, part)
            else:
                self._done.wait(part)
