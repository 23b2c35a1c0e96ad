"""The queue of readings between the reporter and the uploader: nothing leaves it but by the cloud's answer.

Shared by the reporter thread (``put``) and the uploader thread (``lend`` and the settling); one lock guards it.
The uploader borrows the oldest readings and settles each of them as delivered or rejected; what it does not settle
stays. In memory, bounded: over the bound the oldest are dropped, counted and logged. It does not survive the process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from clock import Clock
from measurements import Datum

logger = logging.getLogger(__name__)

CAPACITY = 100_000  # readings; at one report of three every 30 s this is eleven days


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """A reading on loan to the uploader, and the number to settle it by."""

    number: int
    datum: Datum


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many readings were made and what became of them; made = delivered + waiting + rejected + dropped."""

    made: int = 0
    delivered: int = 0
    waiting: int = 0
    rejected: int = 0
    dropped: int = 0


class Outbox:
    """Readings that wait for the cloud, oldest first."""

    def __init__(self, clock: Clock, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._changed = threading.Condition()
        self._waiting: dict[int, Datum] = {}
        self._made = self._delivered = self._rejected = self._dropped = 0
        self._dropping = False

    def put(self, readings: Sequence[Datum]) -> None:
        """Take the readings of one interval in. Never blocks."""
        with self._changed:
            for datum in readings:
                self._made += 1
                self._waiting[self._made] = datum
            self._drop_oldest()
            self._changed.notify_all()

    def lend(self, count: int) -> list[Lent]:
        """Return the oldest readings, at most ``count``. They stay in the outbox until they are settled."""
        with self._changed:
            return [Lent(number=number, datum=datum) for number, datum in islice(self._waiting.items(), count)]

    def settle_delivered(self, lent: Iterable[Lent]) -> None:
        """Take out what the cloud has accepted."""
        with self._changed:
            self._delivered += self._take_out(lent)
            self._changed.notify_all()

    def settle_rejected(self, lent: Iterable[Lent]) -> None:
        """Take out what the cloud will never accept."""
        with self._changed:
            self._rejected += self._take_out(lent)
            self._changed.notify_all()

    def wait_for_readings(self, until_mono_s: float) -> bool:
        """Wait until there is something to send, at the longest until ``until_mono_s``. Return whether there is."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(self._clock.timeout_s(until_mono_s))
            return bool(self._waiting)

    def wait_until_empty(self, until_mono_s: float) -> bool:
        """Wait until everything is settled, at the longest until ``until_mono_s``. Return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, self._clock.timeout_s(until_mono_s))

    def wake(self) -> None:
        """End a wait for readings that is under way."""
        with self._changed:
            self._changed.notify_all()

    def tally(self) -> Tally:
        """Return the numbers of readings made, delivered, waiting, rejected and dropped since the start."""
        with self._changed:
            return Tally(
                made=self._made,
                delivered=self._delivered,
                waiting=len(self._waiting),
                rejected=self._rejected,
                dropped=self._dropped,
            )

    def _take_out(self, lent: Iterable[Lent]) -> int:
        return sum(self._waiting.pop(each.number, None) is not None for each in lent)

    def _drop_oldest(self) -> None:
        excess = len(self._waiting) - self._capacity
        if excess <= 0:
            self._dropping = False
            return
        for number in list(islice(self._waiting, excess)):
            del self._waiting[number]
        self._dropped += excess
        if not self._dropping:
            self._dropping = True
            logger.error(
                "%d readings wait for the cloud and no more can be kept: the oldest are dropped from now on",
                self._capacity,
            )
