"""The recorder: the thread that writes each sample of the open interval into the database, right after it was taken.

Of its own, because a disk can be slow and sampling must never wait for it. Guarantees: samples are written in the order
they were taken, all that wait in one transaction; what could not be written is the outbox's to keep.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue

from clock import Clock
from measurements import PowerSample
from outbox import Outbox
from worker import Worker

_HEARTBEAT_S = 1.0


class Recorder(Worker):
    """Journals samples. ``record()`` is the sampler's side."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        super().__init__("recorder", clock)
        self._outbox = outbox
        self._inbox: SimpleQueue[PowerSample | None] = SimpleQueue()

    def record(self, sample: PowerSample) -> None:
        """Have a sample written. Never blocks."""
        self._inbox.put(sample)

    def step(self) -> None:
        """Wait for samples and write them."""
        try:
            arrived = [self._inbox.get(timeout=_HEARTBEAT_S)]
        except Empty:
            return
        while not self._inbox.empty():
            arrived.append(self._inbox.get())
        self._outbox.journal([sample for sample in arrived if sample is not None])

    def wake(self) -> None:
        """End the wait of a step."""
        self._inbox.put(None)
