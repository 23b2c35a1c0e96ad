"""What the log says of reports and outages, in one line each.

``Outage`` is used by the uploader's thread alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clock import Clock
from ledger import Tally
from measurements import IntervalSummary
from state_log import Ration, duration_text

logger = logging.getLogger(__name__)


class Outage:
    """Sums up an outage in one line, once everything that waited has been delivered."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_mono_s: float | None = None
        self._ended_mono_s: float | None = None
        self._queued = 0
        self._lost = 0
        self._ration = Ration(clock)

    def begin(self, tally: Tally) -> None:
        """Note a failure."""
        if self._since_mono_s is None:
            self._since_mono_s = self._clock.mono_s()
            self._lost = tally.dropped + tally.rejected
        self._ended_mono_s = None

    def delivered(self, tally: Tally) -> None:
        """Note a delivery."""
        if self._since_mono_s is None:
            return
        now_mono_s = self._clock.mono_s()
        if self._ended_mono_s is None:
            self._ended_mono_s, self._queued = now_mono_s, tally.waiting
        if tally.waiting != 0:
            return
        if self._ration.take():
            logger.info(
                "cloud: after an outage of %s, %d readings had queued, %d were lost; all are delivered after %s%s",
                duration_text(self._ended_mono_s - self._since_mono_s),
                self._queued,
                tally.dropped + tally.rejected - self._lost,
                duration_text(now_mono_s - self._ended_mono_s),
                self._ration.hint,
            )
        self._since_mono_s = None


def summary_text(summary: IntervalSummary) -> str:
    """Return an interval's line for the operator: ``52.1134 V, -20.4132 A, -1.0638 kW (6 samples)``."""
    quantities = (
        ("V", "voltage", summary.voltage_v, 4),
        ("A", "current", summary.current_a, 4),
        ("kW", "power", summary.power_kw, 5),
    )
    parts = [
        f"no {name}" if statistic is None else f"{statistic.mean:.{digits}f} {unit}"
        for unit, name, statistic, digits in quantities
    ]
    counts = {unit: statistic.count for unit, _, statistic, _ in quantities if statistic is not None}
    if len(set(counts.values())) > 1:
        samples = ", ".join(f"{count} {unit}" for unit, count in counts.items()) + " samples"
    else:
        count = next(iter(counts.values()), 0)
        samples = f"{count} sample{'' if count == 1 else 's'}"
    return f"{', '.join(parts)} ({samples})"


def status_line(*, values: str, waiting: int, oldest_s: float | None, troubles: Sequence[str]) -> str:
    """Return how the daemon is doing: ``52.1 V, -20.4 A, -1.06 kW (6 samples); 0 readings wait; all is well``."""
    queue = f"{waiting} reading{' waits' if waiting == 1 else 's wait'}"
    if waiting and oldest_s is not None:
        queue += f", the oldest for {duration_text(oldest_s)}"
    return "; ".join([values, queue, *(troubles or ["all is well"])])
