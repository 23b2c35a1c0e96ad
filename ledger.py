"""The ledger: how many readings were made, and what became of each of them.

Not thread-safe: whoever has the outbox's lock uses it. It counts; the outbox writes the same counts into the database,
in the same transaction as what they count.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from clock import Clock
from state_log import StateLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many readings were made and what became of them; made = delivered + waiting + rejected + dropped.

    ``held`` are those of the waiting that are held back until their time is known.
    """

    made: int = 0
    delivered: int = 0
    waiting: int = 0
    rejected: int = 0
    dropped: int = 0
    held: int = 0


class Ledger:
    """The counters since the database began, and how many readings wait now."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.waiting = 0
        self.held = 0

    def add(self, counts: Mapping[str, int], waiting: int, held: int) -> None:
        """Add what the database says to what was counted since the start."""
        self.counts.update(counts)
        self.waiting += waiting
        self.held += held

    def made(self, changes: Mapping[str, int], readings: int, *, held: bool) -> None:
        """Count the readings of a new interval, and what else it changes."""
        self.counts.update(changes)
        self.waiting += readings
        self.held += readings if held else 0

    def gone(self, what: str, readings: int, *, held: bool = False) -> None:
        """Count readings that wait no longer: ``delivered``, ``rejected`` or ``dropped``."""
        self.counts[f"readings_{what}"] += readings
        self.waiting -= readings
        self.held -= readings if held else 0

    @property
    def sendable(self) -> bool:
        """Whether anything waits that is not held back."""
        return self.waiting > self.held

    def tally(self) -> Tally:
        """Return the numbers."""
        return Tally(
            made=self.counts["readings_made"],
            delivered=self.counts["readings_delivered"],
            waiting=self.waiting,
            rejected=self.counts["readings_rejected"],
            dropped=self.counts["readings_dropped"],
            held=self.held,
        )

    def faults(self) -> list[str]:
        """Return which of its sums do not close, in words; none if it is in order."""
        tally, counts = self.tally(), self.counts
        settled = tally.delivered + tally.waiting + tally.rejected + tally.dropped
        refused = sum(count for name, count in counts.items() if name.startswith("refused "))
        used = counts["samples_averaged"] + refused
        faults = []
        if tally.made != settled:
            faults.append(f"{tally.made} readings were made, but {settled} are accounted for")
        if counts["samples_read"] != used:
            faults.append(f"{counts['samples_read']} samples were read, but {used} are accounted for")
        if not 0 <= tally.held <= tally.waiting:
            faults.append(f"{tally.held} of {tally.waiting} waiting readings are held back")
        return faults


class Audit:
    """Checks the ledger and logs an ERROR when it does not close, once for each way in which it does not."""

    def __init__(self, clock: Clock) -> None:
        self._state = StateLog(logger, "ledger", clock)

    @property
    def trouble(self) -> str | None:
        """Which sums do not close, ``None`` if it is in order. From any thread."""
        return self._state.message

    def check(self, ledger: Ledger, rows_waiting: int | None) -> None:
        """Check the sums, and that as many readings wait as the database has, where that is known."""
        faults = ledger.faults()
        if rows_waiting not in (None, ledger.waiting):
            faults.append(f"{ledger.waiting} readings wait, but the database has {rows_waiting}")
        if faults:
            self._state.failed(
                "; ".join(faults),
                f"the sums do not close: {'; '.join(faults)}. This is an error of the program: please report it, with "
                "this log. The numbers that are sent are not touched by it",
                level=logging.ERROR,
            )
        else:
            self._state.well("the sums close again")
