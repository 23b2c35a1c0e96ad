"""How much of the processor the answers may take: so much that people notice nothing, so little that sampling does not.

Used by the threads of the web server; one lock, held for microseconds. A thread that comes too soon waits, without
using the processor; the requests behind it wait on their connections, whose number is limited. What counts is the
processor time of the thread, so that a costly question to the database is as dear as many cheap ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from clock import Clock

_SHARE = 0.125  # of one processor, in the long run
_AT_ONCE_S = 2.0  # of its time, in a short one: a page with a chart of a month, some times
_LEAST_S = 0.005  # what a request is charged at least: reading and sending it costs other threads something, too


class Pace:
    """An account of processor time that fills up by itself. ``pause`` waits for so many seconds."""

    def __init__(
        self, clock: Clock, pause: Callable[[float], object], used_s: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._used_s = used_s
        self._lock = threading.Lock()
        self._left_s = _AT_ONCE_S
        self._filled_mono_s = clock.mono_s()
        self._of_thread = threading.local()

    def begin(self) -> None:
        """Begin to work at a request, when there is time for it. Blocks as long as it takes to pay for those before."""
        self._wait(_LEAST_S)
        self._of_thread.since_s = self._used_s()

    def breathe(self) -> None:
        """Pay for what has been done so far, before going on with the same request. Blocks likewise."""
        now_s = self._used_s()
        used_s, self._of_thread.since_s = now_s - self._of_thread.since_s, now_s
        self._wait(used_s)

    def end(self) -> None:
        """Put down what the request has used. Does not block."""
        self._take(self._used_s() - self._of_thread.since_s)

    def _wait(self, cost_s: float) -> None:
        left_s = self._take(cost_s)
        if left_s < 0:
            self._pause(-left_s / _SHARE)

    def _take(self, cost_s: float) -> float:
        """Take so much from the account; return what is left, negative if it is overdrawn."""
        with self._lock:
            now_mono_s = self._clock.mono_s()
            self._left_s = min(_AT_ONCE_S, self._left_s + (now_mono_s - self._filled_mono_s) * _SHARE) - cost_s
            self._filled_mono_s = now_mono_s
            return self._left_s
