"""The recorder: the thread that writes each sample of the open interval into the database, right after it was taken.

Of its own, because a disk can be slow and sampling must never wait for it. Guarantees: samples are written in the order
they were taken, all that wait in one transaction; what could not be written is the outbox's to keep. Behind a disk that
hangs 10,000 samples wait; further ones are averaged and reported as ever, but not journaled.
"""

from __future__ import annotations

import logging
from queue import Empty, SimpleQueue

from clock import Clock
from measurements import PowerSample
from outbox import Outbox
from state_log import StateLog
from worker import Worker

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_INBOX_LIMIT = 10_000


class Recorder(Worker):
    """Journals samples. ``record()`` is the sampler's side."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        super().__init__("recorder", clock)
        self._outbox = outbox
        self._inbox: SimpleQueue[PowerSample | None] = SimpleQueue()
        self._state = StateLog(logger, "journal", clock)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the disk, ``None`` if it is well."""
        return self._state.line or self._outbox.trouble

    def record(self, sample: PowerSample) -> None:
        """Have a sample written. Never blocks. For the sampler's thread."""
        if self._inbox.qsize() < _INBOX_LIMIT:
            self._inbox.put(sample)
            self._state.well("the disk answers again")
        else:
            self._state.failed(
                "hangs",
                "the disk does not answer: samples are averaged and reported, but would not survive a sudden end of "
                "the program. Is it failing?",
            )

    def step(self) -> None:
        """Wait for samples and write them."""
        try:
            first = self._inbox.get(timeout=_HEARTBEAT_S)
        except Empty:
            return
        self._write([first])

    def finish(self) -> None:
        """Write what came behind the last step."""
        self._write([])

    def _write(self, arrived: list[PowerSample | None]) -> None:
        while not self._inbox.empty():
            arrived.append(self._inbox.get())
        self._outbox.journal([sample for sample in arrived if sample is not None])

    def wake(self) -> None:
        """End the wait of a step."""
        self._inbox.put(None)
