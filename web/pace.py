"""How many requests a second are worked at: so many that people notice nothing, so few that sampling notices nothing.

Used by the threads of the web server; one lock, held for microseconds. A request that comes too soon waits in its
thread, without using the processor; those behind it wait on their connections, whose number is limited.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from clock import Clock

_A_SECOND = 40.0
_AT_ONCE = 40.0


class Pace:
    """A bucket of permits that fills up by ``_A_SECOND`` and holds ``_AT_ONCE``. ``pause`` waits for some seconds."""

    def __init__(self, clock: Clock, pause: Callable[[float], object]) -> None:
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._permits = _AT_ONCE
        self._filled_mono_s = clock.mono_s()

    def wait(self) -> None:
        """Take a permit, at the longest a second or so after it was asked for."""
        with self._lock:
            now_mono_s = self._clock.mono_s()
            self._permits = min(_AT_ONCE, self._permits + (now_mono_s - self._filled_mono_s) * _A_SECOND)
            self._filled_mono_s = now_mono_s
            self._permits -= 1
            wait_s = -self._permits / _A_SECOND
        if wait_s > 0:
            self._pause(wait_s)
