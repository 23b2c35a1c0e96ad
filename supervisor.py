"""Supervision: the signals, a watch over every worker, and what the service manager is told of it.

The main thread, from the start of the daemon to its end. Guarantees: a worker that crashes or hangs ends the process
with exit code 70, so that it is started afresh; ``WATCHDOG=1`` is sent only while every worker goes on; a computer that
slept, or a process that was stopped for a while, is no hanging worker. It takes no lock that a worker may hold.

A worker hangs if it has not beaten for a minute, or for as long as the service manager's watchdog says: every call that
a worker makes has a deadline well below that, except those into the kernel, of which a broken disk may never return.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from clock import Clock
from events import Event, about
from exit_codes import EXIT_INTERNAL
from service_manager import ServiceManager
from worker import Worker

logger = logging.getLogger(__name__)

_HANGS_AFTER_S = 60.0
_LOOKS = 6  # at which a worker must be found without a beat since the one before
_NOT_READY_POLL_S = 0.1
_ENDS_WITHIN_S = 10.0  # a hanging thread may hold what the end of the process needs


class Supervised(Protocol):
    """What is supervised: the daemon."""

    def workers(self) -> Iterable[Worker]:
        """Return the workers there are now."""

    @property
    def is_sampling(self) -> bool:
        """Whether it does its work, as far as the meters are there."""

    @property
    def long_work(self) -> int:
        """A number that changes while something goes on that may take long, and that all workers may wait for."""

    def status_text(self) -> str:
        """Return how it is doing, in one line. Takes no lock."""


class Supervisor:
    """Waits in the main thread for the daemon's end. ``reload`` reads the configuration again; ``None``: it cannot."""

    def __init__(
        self, daemon: Supervised, manager: ServiceManager, clock: Clock, reload: Callable[[], None] | None = None
    ) -> None:
        self.crashed = False
        self._daemon = daemon
        self._manager = manager
        self._clock = clock
        self._reload = reload
        self._watch = Watch()
        self._look_every_s = (manager.watchdog_s or _HANGS_AFTER_S) / _LOOKS
        self._look_mono_s = -math.inf
        self._ready = self._ending = self._reload_asked = False
        self._status = ""
        self._alarm, self._bell = socket.socketpair()

    def obey_signals(self) -> None:
        """Have SIGTERM and SIGINT end ``wait()``, and SIGHUP reload; without ``reload`` SIGHUP ends it, too.

        Call it first, from the main thread. The bell is rung by the signal itself, whichever thread the system gives it
        to: a lock that the main thread waits for would not notice.
        """
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)  # there is no SIGHUP on Windows
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants it ignored
                reloads = name == "SIGHUP" and self._reload is not None
                signal.signal(number, lambda *_, reloads=reloads: self._ask_reload() if reloads else self.end())

    def wait(self, timeout_s: float | None = None) -> None:
        """Supervise until ``end()`` is called, a worker crashes or hangs, or ``timeout_s`` has passed."""
        until_mono_s = math.inf if timeout_s is None else self._clock.mono_s() + timeout_s
        while not self._ending and (now_mono_s := self._clock.mono_s()) < until_mono_s:
            if not self._ready and self._daemon.is_sampling:
                self._ready = True
                self._manager.ready()
            if now_mono_s >= self._look_mono_s:
                self._look()
                self._look_mono_s = self._clock.mono_s() + self._look_every_s
            wake_mono_s = min(until_mono_s, self._look_mono_s)
            if not self._ready:
                wake_mono_s = min(wake_mono_s, now_mono_s + _NOT_READY_POLL_S)
            if select.select([self._alarm], [], [], self._clock.timeout_s(wake_mono_s))[0]:
                self._alarm.recv(4096)
            if self._reload_asked and self._reload is not None and not self._ending:
                self._reload_asked = False
                self._reload_now(self._reload)
        self._manager.stopping()

    def end(self) -> None:
        """Have ``wait()`` return. Safe in a signal handler and from any thread: it takes no lock."""
        self._ending = True
        self._ring()

    def on_crash(self) -> None:
        """End it all with exit code 70: a worker has crashed. From any thread."""
        self.crashed = True
        self.end()

    def close(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(-1)
        self._alarm.close()
        self._bell.close()

    def _ask_reload(self) -> None:
        self._reload_asked = True
        self._ring()

    def _ring(self) -> None:
        with suppress(OSError):  # it rings already, or the last signal came after the end
            self._bell.send(b"!")

    def _reload_now(self, reload: Callable[[], None]) -> None:
        """Reload. It is no look at the workers, however often it is asked for: looks are what their time is told by."""
        if self._ready:
            self._manager.reloading()
        reload()
        if self._ready:
            self._manager.ready()
        self._tell_status()

    def _look(self) -> None:
        """Look at the workers; tell the service manager if all go on."""
        hung = self._watch.hung(self._daemon.workers(), self._daemon.long_work)
        if hung is not None:
            self._end_hanging(hung)
            return
        self._manager.alive()
        self._tell_status()

    def _tell_status(self) -> None:
        if (status := self._daemon.status_text()) != self._status:
            self._status = status
            self._manager.status(status)

    def _end_hanging(self, worker: Worker) -> None:
        last_resort = threading.Timer(_ENDS_WITHIN_S, os._exit, (EXIT_INTERNAL,))
        last_resort.daemon = True
        last_resort.start()
        self.on_crash()
        logger.critical(
            "%s hangs: it has not gone on for %.0f s; the daemon ends so that it can be started afresh. It is at:",
            worker.name,
            self._look_every_s * _LOOKS,
            extra=about(Event.HANG, worker.name),
        )
        for line in worker.stack().splitlines():
            logger.critical("  %s", line, extra=about(Event.HANG, worker.name))


class Watch:
    """Notices a worker that does not beat any more. Time is counted in looks, so that the watch's own sleep is none."""

    def __init__(self) -> None:
        self._seen: dict[Worker, tuple[tuple[int, int], int]] = {}

    def hung(self, workers: Iterable[Worker], long_work: int) -> Worker | None:
        """Look at the workers; return one that has not beaten since as many looks as make it hang.

        While ``long_work`` changes nobody is expected to beat.
        """
        seen = {}
        for worker in workers:
            if worker.is_watched:
                sign = (worker.beats, long_work)
                before, looks = self._seen.get(worker, (sign, -1))
                seen[worker] = (sign, looks + 1 if before == sign else 0)
        self._seen = seen
        return next((worker for worker, (_, looks) in seen.items() if looks >= _LOOKS), None)
