"""Samples in, interval summaries out: the one place where the sampler and the reporter meet.

Shared by the sampler thread (``begin``, ``complete``) and the reporter thread (``open``, ``close``); one lock guards
it, held for microseconds. Guarantees: every completed sample is averaged into the interval that its start lies in,
exactly once, or counted as refused ("late", "overflow"); a summary holds whole samples only; memory does not grow with
the interval. Energy goes by the time of the samples, in whatever order they are completed: one waits until no earlier
one is under way.

A sample whose queries have started but whose replies, or the check of whose settings, are still under way when its
interval ends is waited for, until ``grace_s`` after the end; the sampler, which asks ``settle_by_mono_s()``, completes
it by then with what it has.
"""

from __future__ import annotations

import bisect
import logging
import math
import threading
from collections import Counter
from collections.abc import Iterable

from clock import Clock
from energy import CompensatedSum, EnergyMeter
from measurements import Interval, IntervalSummary, LastPoints, PowerSample, Statistic
from state_log import Ration

logger = logging.getLogger(__name__)

GRACE_S = 0.06  # the meter's slowest reply in normal running takes 56 ms
DEFAULT_SAMPLE_INTERVAL_S = 5.0
_CLOSE_AFTER_S = 0.02  # what the sampler may be late with that
_AHEAD_LIMIT = 100_000  # samples waiting for an interval to be opened; far more than a running reporter ever leaves
_IN_ORDER_LIMIT = 10_000  # samples waiting for an earlier one that is under way; far more than are between two checks


class _Accumulator:
    """The running statistic of one quantity.

    The deviation is Welford's: from a running mean and the squares of what differs from it, so that a large mean costs
    it no digit either.
    """

    __slots__ = ("_count", "_maximum", "_minimum", "_running_mean", "_squares", "_sum")

    def __init__(self) -> None:
        self._count, self._sum = 0, CompensatedSum()
        self._running_mean, self._squares = 0.0, 0.0
        self._minimum, self._maximum = math.inf, -math.inf

    def add(self, value: float | None) -> None:
        if value is None:
            return
        self._sum.add(value)
        self._count += 1
        self._minimum, self._maximum = min(self._minimum, value), max(self._maximum, value)
        differs = value - self._running_mean
        self._running_mean += differs / self._count
        self._squares += differs * (value - self._running_mean)

    def statistic(self) -> Statistic | None:
        if not self._count:
            return None
        mean = self._sum.value / self._count
        deviation = math.sqrt(self._squares / (self._count - 1)) if self._count > 1 else 0.0
        return Statistic(
            mean=mean, minimum=self._minimum, maximum=self._maximum, count=self._count, deviation=deviation
        )


class _OpenInterval:
    """The running statistics of one interval; ``meter`` goes on from one to the next."""

    def __init__(self, interval: Interval, meter: EnergyMeter) -> None:
        self.interval = interval
        self._meter = meter
        self._in_order: list[PowerSample] = []
        self._voltage_v, self._current_a, self._power_kw = _Accumulator(), _Accumulator(), _Accumulator()
        self._samples_read = 0
        self._samples_refused: Counter[str] = Counter()

    def add(self, sample: PowerSample) -> None:
        self._voltage_v.add(sample.voltage_v)
        self._current_a.add(sample.current_a)
        self._power_kw.add(sample.power_kw)
        self._samples_read += sample.readings_count
        self._samples_refused.update(sample.refused)
        bisect.insort(self._in_order, sample, key=_start_mono_s)

    def count_energy(self, before_mono_s: float = math.inf) -> None:
        """Count the energy of the samples before this moment: nothing that belongs between them comes any more."""
        ready = bisect.bisect_left(self._in_order, before_mono_s, key=_start_mono_s)
        ready = max(ready, len(self._in_order) - _IN_ORDER_LIMIT)
        for sample in self._in_order[:ready]:
            self._meter.add(sample)
        del self._in_order[:ready]

    def refuse(self, sample: PowerSample, reason: str) -> None:
        """Count a whole sample as refused."""
        self._samples_read += sample.readings_count
        self._samples_refused[reason] += sample.readings_count

    def summary(self) -> IntervalSummary:
        self.count_energy()
        return IntervalSummary(
            voltage_v=self._voltage_v.statistic(),
            current_a=self._current_a.statistic(),
            power_kw=self._power_kw.statistic(),
            samples_read=self._samples_read,
            samples_refused=dict(self._samples_refused),
            energy=self._meter.take(),
            last=self._meter.last,
        )


class AveragingBuffer:
    """The samples of the open interval, as running statistics, and those that already belong to later ones.

    ``grace_s``: for how long the end of an interval waits for samples that are under way. ``sample_interval_s``: how
    far apart samples are planned to be, which says what is a gap.
    """

    def __init__(
        self, clock: Clock, grace_s: float = GRACE_S, sample_interval_s: float = DEFAULT_SAMPLE_INTERVAL_S
    ) -> None:
        self.grace_s = grace_s
        self._meter = EnergyMeter(sample_interval_s)
        self._clock = clock
        self._changed = threading.Condition()
        self._open = _OpenInterval(Interval(start_mono_s=-math.inf, end_mono_s=-math.inf, end_utc_ms=0), self._meter)
        self._ahead: list[PowerSample] = []
        self._under_way: dict[float, None] = {}  # oldest first
        self.newest: PowerSample | None = None  # with a value; read without the lock
        self._late_lines = Ration(clock)

    def begin(self, begun_mono_s: float) -> None:
        """Announce a sample whose queries start now. ``complete()`` must follow with the same ``begun_mono_s``."""
        with self._changed:
            self._under_way[begun_mono_s] = None

    def complete(self, begun_mono_s: float, sample: PowerSample) -> None:
        """Hand in a sample that was begun: averaged into its interval, kept for a later one, or refused as late."""
        with self._changed:
            self._under_way.pop(begun_mono_s, None)
            self.newest = _newer(self.newest, sample)
            if len(self._ahead) < _AHEAD_LIMIT:
                self._place(sample)
            else:
                self._open.refuse(sample, "overflow")
            self._open.count_energy(next(iter(self._under_way), math.inf))
            self._changed.notify_all()

    @property
    def end_mono_s(self) -> float:
        """The end of the open interval: seconds, monotonic clock; in the past while it is not closed yet."""
        with self._changed:
            return self._open.interval.end_mono_s

    def settle_by_mono_s(self, begun_mono_s: float) -> float:
        """Return by when a sample must be completed to count: seconds, monotonic clock; infinity while not known."""
        with self._changed:
            end_mono_s = self._open.interval.end_mono_s
            return end_mono_s + self.grace_s if begun_mono_s <= end_mono_s else math.inf

    @property
    def sample_interval_s(self) -> float:
        """How far apart samples are planned to be: seconds. May be changed at any time."""
        return self._meter.sample_interval_s

    @sample_interval_s.setter
    def sample_interval_s(self, sample_interval_s: float) -> None:
        with self._changed:
            self._meter.sample_interval_s = sample_interval_s

    def open(self, interval: Interval, samples: Iterable[PowerSample] = (), last: LastPoints | None = None) -> None:
        """Begin the first interval, with the ``samples`` of it that an earlier run took.

        ``last``: the newest sample before them, if it is of this boot of the computer.
        """
        with self._changed:
            self._meter = EnergyMeter(self._meter.sample_interval_s, last)
            self._start(interval)
            for sample in samples:
                self._place(sample)
            self._open.count_energy(next(iter(self._under_way), math.inf))

    def end_sooner(self, interval: Interval) -> None:
        """Have the open interval end sooner than planned, but not before now."""
        with self._changed:
            self._open.interval = interval

    def close(self, ended: Interval, following: Interval) -> IntervalSummary:
        """End the open interval, begin the ``following`` one and return what the ended one is reported as.

        ``ended`` is the open interval, or what a stop makes of it by ending it early.
        Blocks ``grace_s`` and 20 ms past the end at most, for samples under way.
        """
        deadline_mono_s = ended.end_mono_s + self.grace_s + _CLOSE_AFTER_S
        with self._changed:
            while any(begun <= ended.end_mono_s for begun in self._under_way):
                if not self._changed.wait(self._clock.timeout_s(deadline_mono_s)):
                    break
            summary = self._open.summary()
            self._start(following)
        return summary

    def _start(self, interval: Interval) -> None:
        self._open = _OpenInterval(interval, self._meter)
        ahead, self._ahead = self._ahead, []
        for sample in ahead:
            self._place(sample)

    def _place(self, sample: PowerSample) -> None:
        interval = self._open.interval
        if sample.start_mono_s in interval:
            self._open.add(sample)
        elif sample.start_mono_s > interval.end_mono_s:
            self._ahead.append(sample)
        else:
            self._open.refuse(sample, "late")
            late_s = self._clock.mono_s() - interval.start_mono_s
            if self._late_lines.take():
                words = f"a sample came {late_s:.3f} s after its interval had ended; it does not count"
                logger.warning("%s%s", words, self._late_lines.hint)


def _newer(newest: PowerSample | None, sample: PowerSample) -> PowerSample | None:
    """Return which of two samples is shown as the newest: one with a value, whichever was completed first."""
    has_value = sample.voltage_v is not None or sample.current_a is not None
    return sample if has_value and (newest is None or sample.start_mono_s > newest.start_mono_s) else newest


def summarise(samples: Iterable[PowerSample], meter: EnergyMeter | None = None) -> IntervalSummary:
    """Return what samples of one interval are reported as. ``meter`` knows the sample before them, if any."""
    forever = Interval(start_mono_s=-math.inf, end_mono_s=math.inf, end_utc_ms=0)
    everything = _OpenInterval(forever, meter or EnergyMeter(DEFAULT_SAMPLE_INTERVAL_S))
    for sample in samples:
        everything.add(sample)
    return everything.summary()


def _start_mono_s(sample: PowerSample) -> float:
    return sample.start_mono_s
