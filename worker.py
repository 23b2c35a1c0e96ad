"""One thread of the daemon: the loop, the heartbeat and the handling of a crash, written once.

A worker has ``step()``, one unit of work without a loop, which is what tests call, and is run as a thread by
``start()``. Every worker has a stop event of its own, because a clean shutdown stops them in order: sampling first,
delivery last.

A worker that works ``beat()``s: at the begin of each step at least, and where a step can take long, whenever it goes on
in it. A wait of more than a second or so is made of several steps. What does not beat for a minute hangs
(``supervisor.py``).

Guarantees: an exception that leaves ``step()`` is logged with its traceback and told to ``on_crash``; the thread then
ends and is never restarted in place (the process ends with exit code 70 and the service manager starts a fresh one).
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable

from clock import Clock
from events import Event, about

logger = logging.getLogger(__name__)

_BEAT_EVERY_S = 1.0


class Worker(ABC):
    """A named thread that repeats ``step()`` until it is asked to stop."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.beats = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def step(self) -> None:
        """Do one unit of work. Every wait in it ends at once when ``request_stop()`` is called."""

    def wake(self) -> None:  # noqa: B027  (a worker that waits on its stop event alone has nothing to wake)
        """End the wait of a ``step()`` that waits on something other than the stop event."""

    def beat(self) -> None:
        """Show that the worker goes on. From its own thread."""
        self.beats += 1

    def pause(self, seconds: float) -> None:
        """Wait, beating, for so many seconds, or until the worker is asked to stop. From its own thread."""
        until_mono_s = self.clock.mono_s() + seconds
        while not self._stop.is_set() and (now_mono_s := self.clock.mono_s()) < until_mono_s:
            self.beat()
            self._stop.wait(self.clock.timeout_s(min(until_mono_s, now_mono_s + _BEAT_EVERY_S)))

    @property
    def is_watched(self) -> bool:
        """Whether it must beat: nobody has asked it to stop. That it was never started, or has ended, is no excuse."""
        return not self._stop.is_set()

    @property
    def trouble(self) -> str | None:
        """What is wrong with what it works on, in the operator's words; ``None`` if it is well. Never blocks."""
        return None

    def stack(self) -> str:
        """Return where its thread is just now, as a traceback shows it."""
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread is not None else None
        return "".join(traceback.format_stack(frame)) if frame is not None else "(it does not run)"

    def start(self, on_crash: Callable[[], None]) -> None:
        """Run the worker as a thread. ``on_crash`` is called, from that thread, when a step raises."""
        self._thread = threading.Thread(target=self.run, args=(on_crash,), name=self.name, daemon=True)
        self._thread.start()

    def run(self, on_crash: Callable[[], None]) -> None:
        """Repeat ``step()`` until asked to stop."""
        try:
            while not self._stop.is_set():
                self.beat()
                self.step()
            self.finish()
        except Exception:  # the one broad handler: a bug must end the process, loudly, and not just one thread
            text = "%s crashed; the daemon ends so that it can be started afresh"
            logger.critical(text, self.name, exc_info=True, extra=about(Event.CRASH))
            on_crash()

    def finish(self) -> None:  # noqa: B027  (most workers leave nothing behind)
        """Release what the worker holds, in its own thread, after its last step."""

    def request_stop(self) -> None:
        """Ask the worker to end after its present step. Returns at once."""
        self._stop.set()
        self.wake()

    def join(self, deadline_mono_s: float) -> bool:
        """Wait until the worker has ended, at the longest until ``deadline_mono_s``. Return whether it has."""
        if self._thread is None:
            return True
        self._thread.join(self.clock.timeout_s(deadline_mono_s))
        return not self._thread.is_alive()
