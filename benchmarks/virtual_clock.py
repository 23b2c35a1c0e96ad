"""A clock that jumps: real threads whose waits take no time, so that a month passes in minutes without one missed beat.

A scaled clock makes every hiccup of this computer as many times longer. This one cannot: it stands still while any
thread of the daemon has something to do, and when all of them wait, it jumps to the moment that the first of them waits
for. So nothing is ever late, and whatever the daemon measures, schedules or times out goes by this clock alone.

The threads are real and run beside each other as they like; only their waits are ours. ``virtual_waits()`` gives the
daemon's modules an ``Event``, a ``Condition``, a ``SimpleQueue`` and a ``Thread`` that wait by this clock, in place of
the standard library's, which wait by the kernel's. Locks stay as they are: who waits for one waits for a thread that
has something to do. What takes real time (the disk, a Redis server) takes none of this clock's.

A thread that waits must be such a ``Thread``, or be inside ``taking_part()``. When all threads wait for each other and
none for a moment, time stands still for ever.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

from clock import Clock


class _Sleeper:
    """One wait of one thread."""

    __slots__ = ("asleep", "gate", "over", "woken")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.asleep = self.over = self.woken = False


class VirtualClock(Clock):
    """Stands still while any thread has something to do; the monotonic clock begins at 0.

    ``error_s``: how far the wall clock of the computer is off the true time; ``synchronised``: whether the kernel says
    that it is right. Both may be changed at any time.
    """

    def __init__(self, utc_s: float) -> None:
        self.error_s = 0.0
        self.synchronised = True
        self._began_utc_s = utc_s
        self._now_mono_s = 0.0
        self._guard = threading.Lock()
        self._busy = 0
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, _Sleeper]] = []

    def mono_s(self) -> float:
        return self._now_mono_s

    def true_utc_s(self) -> float:
        """Return the true time, whatever the wall clock of the computer says."""
        return self._began_utc_s + self._now_mono_s

    def utc_s(self) -> float:
        return self.true_utc_s() + self.error_s

    def boot_id(self) -> str:
        return "the only boot"

    def kernel_synchronised(self) -> bool:
        return self.synchronised

    def suspend(self, seconds: float) -> None:
        """Let time pass while no thread gets to run, as in a computer that is too busy, or asleep."""
        with self._guard:
            self._now_mono_s += seconds

    @contextmanager
    def taking_part(self) -> Iterator[None]:
        """Count the calling thread among those that time waits for."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Count one more thread as having something to do."""
        with self._guard:
            self._busy += 1

    def leave(self) -> None:
        """Count one thread less."""
        with self._guard:
            self._busy -= 1
            self._jump_if_idle()

    def sleep(self, sleeper: _Sleeper, timeout_s: float | None) -> bool:
        """Wait until the sleeper is woken or ``timeout_s`` has passed; return whether it was woken."""
        with self._guard:
            if not sleeper.over:
                if timeout_s is not None:
                    due_mono_s = self._now_mono_s + max(0.0, timeout_s)
                    heapq.heappush(self._due, (due_mono_s, next(self._numbers), sleeper))
                sleeper.asleep = True
                self._busy -= 1
                self._jump_if_idle()
        if sleeper.asleep:
            sleeper.gate.acquire()
        return sleeper.woken

    def wake(self, sleeper: _Sleeper) -> None:
        """End a wait, or have it end at once when it begins."""
        with self._guard:
            if not sleeper.over:
                sleeper.woken = True
                self._end(sleeper)

    def _jump_if_idle(self) -> None:
        """Go to the next moment that a thread waits for, if none has anything to do, and end all waits for it."""
        due = self._due
        while due and not self._busy:
            due_mono_s = due[0][0]
            if not due[0][2].over:
                self._now_mono_s = max(self._now_mono_s, due_mono_s)
            while due and due[0][0] <= due_mono_s:
                sleeper = heapq.heappop(due)[2]
                if not sleeper.over:
                    self._end(sleeper)

    def _end(self, sleeper: _Sleeper) -> None:
        sleeper.over = True
        if sleeper.asleep:
            self._busy += 1
            sleeper.gate.release()


class VirtualCondition(threading.Condition):
    """A condition variable that waits by a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._sleepers: deque[_Sleeper] = deque()

    def wait(self, timeout: float | None = None) -> bool:
        sleeper = _Sleeper()
        self._sleepers.append(sleeper)
        self.release()  # an RLock: the daemon never waits while it holds one twice
        woken = self._clock.sleep(sleeper, timeout)
        self.acquire()
        if not woken and sleeper in self._sleepers:
            self._sleepers.remove(sleeper)
        return woken

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        until_mono_s = None if timeout is None else self._clock.mono_s() + timeout
        while not (result := predicate()):
            left_s = None if until_mono_s is None else self._clock.timeout_s(until_mono_s)
            if left_s == 0 or not self.wait(left_s):
                return predicate()
        return result

    def notify(self, n: int = 1) -> None:
        for _ in range(min(n, len(self._sleepers))):
            self._clock.wake(self._sleepers.popleft())

    def notify_all(self) -> None:
        self.notify(len(self._sleepers))


class VirtualEvent:
    """An event that is waited for by a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._condition = VirtualCondition(clock)
        self._set = False

    def is_set(self) -> bool:
        """Return whether it has happened."""
        return self._set

    def set(self) -> None:
        """Make it happen."""
        with self._condition:
            self._set = True
            self._condition.notify_all()

    def clear(self) -> None:
        """Let it happen again."""
        with self._condition:
            self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has happened, ``timeout`` seconds at most; return whether it has."""
        if self._set or (timeout is not None and timeout <= 0):
            return self._set
        with self._condition:
            if not self._set:
                self._condition.wait(timeout)
            return self._set


class VirtualQueue:
    """An unbounded queue that is waited for by a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._condition = VirtualCondition(clock)
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        """Add an item."""
        with self._condition:
            self._items.append(item)
            self._condition.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item, waiting ``timeout`` seconds at most. Raises ``queue.Empty``."""
        with self._condition:
            if not self._items and block and timeout != 0:
                self._condition.wait_for(lambda: self._items, timeout)
            if not self._items:
                raise queue.Empty
            return self._items.popleft()

    def qsize(self) -> int:
        """Return how many items there are."""
        return len(self._items)

    def empty(self) -> bool:
        """Return whether there is none."""
        return not self._items


class VirtualThread(threading.Thread):
    """A thread that takes part in a virtual clock, and is waited for by it."""

    def __init__(self, clock: VirtualClock, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._clock = clock
        self._is_over = VirtualEvent(clock)

    def start(self) -> None:
        self._clock.enter()
        super().start()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._is_over.set()
            self._clock.leave()

    def join(self, timeout: float | None = None) -> None:
        self._is_over.wait(timeout)

    def is_alive(self) -> bool:
        return not self._is_over.is_set() and super().is_alive()


class _Threading(ModuleType):
    """The module ``threading``, as far as it waits, by a virtual clock; the rest of it as it is."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__("threading")
        self.Event = partial(VirtualEvent, clock)
        self.Condition = partial(VirtualCondition, clock)
        self.Thread = partial(VirtualThread, clock)

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


@contextmanager
def virtual_waits(clock: VirtualClock, modules: Sequence[ModuleType]) -> Iterator[None]:
    """Have what these modules make from now on, inside the ``with``, wait by the clock."""
    with ExitStack() as stack:
        for module in modules:
            if hasattr(module, "threading"):
                stack.enter_context(patch.object(module, "threading", _Threading(clock)))
            if hasattr(module, "SimpleQueue"):
                stack.enter_context(patch.object(module, "SimpleQueue", partial(VirtualQueue, clock)))
        yield
