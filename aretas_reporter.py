"""The reporter: from samples to readings. The thread that closes each interval on time and hands its readings on.

It never waits for a network: the ``AretasUploader``, whom it meets in the ``Outbox``, talks to the cloud.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from averaging_buffer import AveragingBuffer, summarise
from clock import Clock
from energy import EnergyMeter
from events import Event, about
from ledger import Tally
from measurements import Datum, Interval, IntervalSummary, LastPoints, PowerSample, Uncertainty
from outbox import Outbox
from report_lines import summary_text
from tables import LeftOpen
from time_keeper import TimeKeeper, Verdict, end_utc_ms
from worker import Worker

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_SLEWED_S = 1.0
_REPORT_LINE_WITHIN_S = 0.5


class AretasReporter(Worker):
    """Closes each interval at its end and hands its readings to the outbox and to ``publish``.

    ``publish`` must not block; it is called with the readings of each interval (the Redis cache, if enabled).
    ``state`` tells what else ``--status`` shall show: name -> JSON value. ``verify`` tells of meters why their settings
    are not what they were set to, ``None`` if they are, before anything is set up; it may block for 5 s.
    ``uncertainty`` tells how far off an interval may be, by the meters as they are set when it is closed.
    """

    def __init__(
        self,
        report_interval_ms: int,
        buffer: AveragingBuffer,
        outbox: Outbox,
        time_keeper: TimeKeeper,
        clock: Clock,
        publish: Callable[[Sequence[Datum]], None] | None = None,
        state: Callable[[], Mapping[str, object]] = dict,
        verify: Callable[[Collection[str]], Mapping[str, str | None]] = lambda _meters: {},
        uncertainty: Callable[[IntervalSummary], Uncertainty] = lambda _summary: Uncertainty(),
    ) -> None:
        super().__init__("reporter", clock)
        self._interval_ms = report_interval_ms
        self._buffer = buffer
        self._outbox = outbox
        self._time_keeper = time_keeper
        self._publish = publish
        self._state = state
        self._verify = verify
        self._uncertainty = uncertainty
        self._interval: Interval | None = None
        self.last_summary: IntervalSummary | None = None
        self.last_closed: tuple[int, IntervalSummary] | None = None  # when it ended, milliseconds since the epoch
        self._held_because: str | None = None

    def change_interval(self, report_interval_ms: int) -> None:
        """Report at another interval, from the next whole multiple of it on. From any thread."""
        self._interval_ms = report_interval_ms

    @property
    def trouble(self) -> str | None:
        """What is wrong with the clock, ``None`` if readings are sent as they are made."""
        return self._held_because

    def open_first_interval(self) -> None:
        """Begin the interval that the present moment lies in, or go on with the one that a killed run left open.

        Call it before sampling starts. Raises ``StoreTooNew``.
        """
        recovered = self._outbox.recover()
        left = _settled(recovered, self._verify)
        self._time_keeper.heed_stored(self._outbox.newest_utc_ms)
        now_mono_s, verdict = self.clock.mono_s(), self._time_keeper.verdict()
        fresh = self._interval_from(now_mono_s, verdict.offset_s, previous_end_utc_ms=0)
        if left is not None and left is not recovered and left.boot_id == self.clock.boot_id():
            self._outbox.journal(left.samples)  # as they are now: the next check finds meters that were set up anew
        if left is None:
            self._begin(fresh, verdict, last=self._outbox.last_points())
        elif left.boot_id != self.clock.boot_id():
            self._close_what_is_over(left, fresh)
            self._interval = fresh
            self._buffer.open(fresh)
        elif now_mono_s < left.interval.end_mono_s:
            self._begin(_sooner(left.interval, fresh), verdict, left.samples, left.last)
        else:
            self._close_left_open(left, fresh, verdict)
        if left is not None and left.samples:
            logger.info("%d samples of an interval that an earlier run left open are used", len(left.samples))

    def _end_sooner(self, interval: Interval) -> Interval:
        """Return the open interval, which ends sooner than planned if ``report_interval`` is shorter now."""
        planned_ms = (interval.end_mono_s - interval.start_mono_s) * 1000
        if planned_ms <= self._interval_ms + _SLEWED_S * 1000:
            return interval
        verdict = self._time_keeper.verdict()
        sooner = _sooner(interval, self._interval_from(self.clock.mono_s(), verdict.offset_s, previous_end_utc_ms=0))
        if sooner is not interval:
            self._interval = sooner
            self._buffer.end_sooner(sooner)
            self._outbox.open_interval(sooner, clock_trusted=verdict.trusted)
        return sooner

    def _begin(
        self,
        interval: Interval,
        verdict: Verdict,
        samples: Sequence[PowerSample] = (),
        last: LastPoints | None = None,
    ) -> None:
        self._interval = interval
        self._outbox.open_interval(interval, clock_trusted=verdict.trusted)
        self._buffer.open(interval, samples, last)

    def _recover_late(self, interval: Interval, verdict: Verdict) -> None:
        """Take over what an earlier run left, where the database could not be used at the start."""
        left = _settled(self._outbox.recover(), lambda _meters: {})  # the meters have been set up anew
        if not self._outbox.is_recovered:
            return
        self._time_keeper.heed_stored(self._outbox.newest_utc_ms)
        if left is None:
            self._outbox.open_interval(interval, clock_trusted=verdict.trusted)
        else:
            self._close_what_is_over(left, interval)

    def _close_what_is_over(self, left: LeftOpen, following: Interval) -> None:
        """Close the interval that was left open, and the one behind it that has a sample already."""
        meter = EnergyMeter(self._buffer.sample_interval_s, left.last)
        own = [each for each in left.samples if each.start_mono_s <= left.interval.end_mono_s]
        self._outbox.close_left_open(replace(left, samples=own), self._judged(summarise(own, meter)), following)
        later = left.samples[len(own) :]
        if later:
            behind = replace(left, interval=self._next_of(left.interval), samples=later)
            self._outbox.close_left_open(behind, self._judged(summarise(later, meter)), following)

    def _next_of(self, interval: Interval) -> Interval:
        return Interval(
            start_mono_s=interval.end_mono_s,
            end_mono_s=interval.end_mono_s + self._interval_ms / 1000,
            end_utc_ms=interval.end_utc_ms + self._interval_ms,
        )

    def _close_left_open(self, left: LeftOpen, fresh: Interval, verdict: Verdict) -> None:
        """Close the interval that has ended since it was left open, and the next ones that have samples already."""
        interval, samples = left.interval, left.samples
        meter = EnergyMeter(self._buffer.sample_interval_s, left.last)
        while interval.end_mono_s <= self.clock.mono_s():
            own = [each for each in samples if each.start_mono_s <= interval.end_mono_s]
            samples = samples[len(own) :]
            is_of_before = interval.end_mono_s <= fresh.start_mono_s
            following = fresh if is_of_before and not samples else self._next_of(interval)
            ended = self._stamped(interval, verdict)
            summary = self._judged(summarise(own, meter))
            self._outbox.close_interval(summary, ended, following, clock_trusted=verdict.trusted)
            interval = following
        self._interval = interval
        self._buffer.open(interval, samples, meter.last)

    def step(self) -> None:
        """Wait for the end of the open interval, close it, and log its line."""
        interval = self._end_sooner(self._open_interval())
        wake_mono_s = min(interval.end_mono_s, self.clock.mono_s() + _HEARTBEAT_S)
        self._stop.wait(self.clock.timeout_s(wake_mono_s))
        verdict = self._time_keeper.verdict()
        self._held_because = None if verdict.trusted else f"clock: {verdict.why}; readings are held back"
        if not self._outbox.is_recovered:
            self._recover_late(interval, verdict)
        if verdict.trusted:
            self._outbox.stamp(verdict.offset_s)
        if not self._stop.is_set() and self.clock.mono_s() >= interval.end_mono_s:
            self._close(interval)

    def finish(self) -> None:
        """Close the open interval at once: its readings carry the time of the stop."""
        interval, now_mono_s = self._open_interval(), self.clock.mono_s()
        if now_mono_s < interval.end_mono_s:
            now_utc_ms = math.floor((now_mono_s + self._time_keeper.verdict().offset_s) * 1000)
            end_utc_ms = min(now_utc_ms, interval.end_utc_ms)
            interval = replace(interval, end_mono_s=now_mono_s, end_utc_ms=end_utc_ms)
        self._close(interval)

    def _open_interval(self) -> Interval:
        if self._interval is None:
            self.open_first_interval()
        assert self._interval is not None
        return self._interval

    def _close(self, ended: Interval) -> None:
        verdict = self._time_keeper.verdict()
        ended = self._stamped(ended, verdict)
        self._interval = self._interval_from(ended.end_mono_s, verdict.offset_s, previous_end_utc_ms=ended.end_utc_ms)
        summary = self.last_summary = self._judged(self._buffer.close(ended, self._interval))
        self.last_closed = (ended.end_utc_ms, summary)
        before = self._outbox.tally()
        self._outbox.note("clock", {"trusted": verdict.trusted, "why": verdict.why})
        for name, value in self._state().items():
            self._outbox.note(name, value)
        readings = self._outbox.close_interval(summary, ended, self._interval, clock_trusted=verdict.trusted)
        self._time_keeper.heed_stored(self._outbox.newest_utc_ms)
        if self._publish is not None and readings:
            self._publish(readings)
        if readings or not self._stop.is_set():
            self._log_line(summary, before)

    def _judged(self, summary: IntervalSummary) -> IntervalSummary:
        """Return an interval with how far off it may be."""
        return replace(summary, uncertainty=self._uncertainty(summary))

    def _stamped(self, ended: Interval, verdict: Verdict) -> Interval:
        """Return an interval with its true end: as planned, or where the clock was stepped meanwhile, as it was."""
        return replace(ended, end_utc_ms=end_utc_ms(ended.end_utc_ms, ended.end_mono_s, verdict.offset_s))

    def _log_line(self, summary: IntervalSummary, before: Tally) -> None:
        """Log the line of a report, with what became of its readings within half a second."""
        if not self._stop.is_set():
            self._outbox.wait_until_empty(self.clock.mono_s() + _REPORT_LINE_WITHIN_S)
        after = self._outbox.tally()
        delivered = after.delivered - before.delivered
        text, extra = summary_text(summary), about(Event.REPORT)
        logger.info("%s; cloud: %d delivered, %d waiting", text, delivered, after.waiting, extra=extra)

    def _interval_from(self, start_mono_s: float, offset_s: float, previous_end_utc_ms: int) -> Interval:
        """Return the interval that begins at ``start_mono_s`` and ends on the next whole multiple.

        ``offset_s`` is the wall clock minus the monotonic. The end that has just passed is not used again, should the
        clock have been slewed back to before it.
        """
        now_utc_ms = (self.clock.mono_s() + offset_s) * 1000
        if abs(now_utc_ms - previous_end_utc_ms) < self._interval_ms / 2:
            now_utc_ms = max(now_utc_ms, previous_end_utc_ms)
        end_utc_ms = (math.floor(now_utc_ms / self._interval_ms) + 1) * self._interval_ms
        return Interval(start_mono_s=start_mono_s, end_mono_s=end_utc_ms / 1000 - offset_s, end_utc_ms=end_utc_ms)


def _sooner(interval: Interval, fresh: Interval) -> Interval:
    """Return the interval, ended with the fresh one if that ends well before it: ``report_interval`` is shorter now."""
    if interval.end_mono_s <= fresh.end_mono_s + _SLEWED_S:
        return interval
    return replace(fresh, start_mono_s=interval.start_mono_s)


def _settled(left: LeftOpen | None, verify: Callable[[Collection[str]], Mapping[str, str | None]]) -> LeftOpen | None:
    """Return what was left open without the values of meters that are not found as they were set."""
    meters = {meter for each in left.samples for meter in each.unverified} if left is not None else set()
    if left is None or not meters:
        return left
    verdicts = verify(meters)
    samples = []
    for sample in left.samples:
        for meter in sample.unverified:
            sample = sample.settled(meter, verdicts.get(meter, "unverified"))
        samples.append(sample)
    return replace(left, samples=samples)
