"""The reporter and the uploader: from samples to readings, and from readings to the Aretas cloud.

``AretasReporter`` is the thread that closes each interval on time and hands its readings on; it never waits for a
network. ``AretasUploader`` is the only thread that talks to the cloud. They meet in the ``Outbox``.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from aretas_api import (
    AretasClient,
    BatchTooLarge,
    DeviceNotRegistered,
    LogInRefused,
    ReadingsRefused,
    TryLater,
)
from averaging_buffer import AveragingBuffer, summarise
from clock import Clock
from events import Event, about
from ledger import Tally
from measurements import Datum, Interval, IntervalSummary, PowerSample
from outbox import Outbox
from report_lines import Outage, summary_text
from state_log import StateLog
from tables import LeftOpen, Lent
from time_keeper import TimeKeeper, Verdict, end_utc_ms
from worker import Worker

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_SLEWED_S = 1.0
_REPORT_LINE_WITHIN_S = 0.5
_SMALLEST_BATCH = 10
_LARGER_AGAIN_AFTER = 100  # batches
_ASK_THE_TIME_EVERY_S = 10.0
_LAST_REQUESTS = 4
_NOTHING_TO_LEND_S = 0.25
_FIRST_RETRY_S, _EARLY_RETRY_S, _LONGEST_RETRY_S = 1.0, 2.0, 300.0
_EARLY_S = 18.0  # 10 s, and a request that was under way at the end of an outage may take 8 s to fail
_LOG_IN_AGAIN_AFTER_S = 300.0
_NOT_REGISTERED_RETRY_S = 60.0


class AretasReporter(Worker):
    """Closes each interval at its end and hands its readings to the outbox and to ``publish``.

    ``publish`` must not block; it is called with the readings of each interval (the Redis cache, if enabled).
    ``state`` tells what else ``--status`` shall show: name -> JSON value. ``verify`` tells of meters why their settings
    are not what they were set to, ``None`` if they are, before anything is set up; it may block for 5 s.
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
    ) -> None:
        super().__init__("reporter", clock)
        self._interval_ms = report_interval_ms
        self._buffer = buffer
        self._outbox = outbox
        self._time_keeper = time_keeper
        self._publish = publish
        self._state = state
        self._verify = verify
        self._interval: Interval | None = None

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
            self._begin(fresh, verdict)
        elif left.boot_id != self.clock.boot_id():
            self._close_what_is_over(left, fresh)
            self._interval = fresh
            self._buffer.open(fresh)
        elif now_mono_s < left.interval.end_mono_s:
            interval = left.interval
            if interval.end_mono_s > fresh.end_mono_s + _SLEWED_S:  # report_interval is shorter now
                interval = replace(fresh, start_mono_s=interval.start_mono_s)
            self._begin(interval, verdict, left.samples)
        else:
            self._close_left_open(left, fresh, verdict)
        if left is not None and left.samples:
            logger.info("%d samples of an interval that an earlier run left open are used", len(left.samples))

    def _begin(self, interval: Interval, verdict: Verdict, samples: Sequence[PowerSample] = ()) -> None:
        self._interval = interval
        self._outbox.open_interval(interval, clock_trusted=verdict.trusted)
        self._buffer.open(interval, samples)

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
        own = [each for each in left.samples if each.start_mono_s <= left.interval.end_mono_s]
        self._outbox.close_left_open(replace(left, samples=own), summarise(own), following)
        later = left.samples[len(own) :]
        if later:
            behind = replace(left, interval=self._next_of(left.interval), samples=later)
            self._outbox.close_left_open(behind, summarise(later), following)

    def _next_of(self, interval: Interval) -> Interval:
        return Interval(
            start_mono_s=interval.end_mono_s,
            end_mono_s=interval.end_mono_s + self._interval_ms / 1000,
            end_utc_ms=interval.end_utc_ms + self._interval_ms,
        )

    def _close_left_open(self, left: LeftOpen, fresh: Interval, verdict: Verdict) -> None:
        """Close the interval that has ended since it was left open, and the next ones that have samples already."""
        interval, samples = left.interval, left.samples
        while interval.end_mono_s <= self.clock.mono_s():
            own = [each for each in samples if each.start_mono_s <= interval.end_mono_s]
            samples = samples[len(own) :]
            following = fresh
            if samples:
                following = self._next_of(interval)
            ended = self._stamped(interval, verdict)
            self._outbox.close_interval(summarise(own), ended, following, clock_trusted=verdict.trusted)
            interval = following
        self._interval = interval
        self._buffer.open(interval, samples)

    def step(self) -> None:
        """Wait for the end of the open interval, close it, and log its line."""
        interval = self._open_interval()
        wake_mono_s = min(interval.end_mono_s, self.clock.mono_s() + _HEARTBEAT_S)
        self._stop.wait(self.clock.timeout_s(wake_mono_s))
        verdict = self._time_keeper.verdict()
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
        summary = self._buffer.close(ended, self._interval)
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


class AretasUploader(Worker):
    """Sends what is in the outbox to the cloud and settles it by the cloud's answer.

    The newest interval goes first, as soon as it is there; what has waited goes behind it, oldest first, in batches of
    ``batch`` readings of one device with ``pause_s`` between them. What fails stays and is sent again, the newest
    interval first, as a probe: after 1 s, then every 2 s, then after waits that grow with the outage to 5 min, such
    that after an outage of d seconds the first attempt comes within 10 s or d. ``jitter`` returns 0 to 1.
    """

    def __init__(
        self,
        client: AretasClient,
        outbox: Outbox,
        time_keeper: TimeKeeper,
        clock: Clock,
        *,
        batch: int = 500,
        pause_s: float = 0.25,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__("uploader", clock)
        self._client = client
        self._outbox = outbox
        self._time_keeper = time_keeper
        self._jitter = jitter
        self._state = StateLog(logger, "cloud", clock)
        self._registration = StateLog(logger, "cloud", clock)
        self._sizes = StateLog(logger, "cloud", clock)
        self._refusals = StateLog(logger, "a reading", clock)
        self._configured_batch = self._largest_batch = self._batch = batch
        self._batches_that_fit = 0
        self._pause_s = pause_s
        self._failing_since_mono_s: float | None = None
        self._unregistered: dict[int, float] = {}  # MAC -> when to try it again
        self._newest_tried = -1
        self._ask_again_mono_s = -math.inf
        self._outage = Outage(clock)

    def step(self) -> None:
        """Wait for readings, send one batch, and wait as long as its outcome asks for."""
        if not self._time_keeper.verdict().trusted and self.clock.mono_s() >= self._ask_again_mono_s:
            wait_s = self.ask_the_time()
            if wait_s is not None:
                self._pause(wait_s)
                return
        if self._outbox.wait_for_readings(self.clock.mono_s() + _HEARTBEAT_S):
            self._pause(self.send_once())

    def _pause(self, wait_s: float) -> None:
        until_mono_s = self.clock.mono_s() + wait_s
        while not self._stop.is_set() and self.clock.mono_s() < until_mono_s:
            self.heartbeat_mono_s = self.clock.mono_s()
            self._stop.wait(self.clock.timeout_s(min(until_mono_s, self.clock.mono_s() + _HEARTBEAT_S)))

    def wake(self) -> None:
        """End a wait for readings."""
        self._outbox.wake()

    def finish(self) -> None:
        """Send what waits, the newest first, as far as it goes in a few requests, and close the connection."""
        self._newest_tried = -1
        for _ in range(_LAST_REQUESTS):
            if not self._outbox.lend(1):
                break
            self.send_once()
            if self._state.trouble is not None:
                break
        self._client.close()

    def ask_the_time(self) -> float | None:
        """Log in, for the sake of the ``Date`` of the answer, and release what was held back if that settles the time.

        Return how long to wait if the log-in failed. Blocks as long as the client's deadlines allow.
        """
        wait_s = self._attempt(self._client.log_in, ())
        verdict = self._time_keeper.verdict()
        if verdict.trusted:
            self._outbox.stamp(verdict.offset_s)
        self._ask_again_mono_s = self.clock.mono_s() + max(wait_s or 0.0, _ASK_THE_TIME_EVERY_S)
        return wait_s

    def send_once(self) -> float:
        """Send one batch and settle it. Return how long to wait before the next: seconds.

        Blocks as long as the client's deadlines allow.
        """
        lent, live = self._next_batch()
        if not lent:  # the database cannot be used now, or all that waits is of a device that is not registered
            return _NOTHING_TO_LEND_S
        wait_s = self._attempt(partial(self._send, lent, live), lent)
        if wait_s is None:
            wait_s = 0.0 if live else self._pause_s
            if not live:
                self._grow()
            self._outage.delivered(self._outbox.tally())
            self._outbox.note("last_delivery", {"utc_ms": math.floor(self.clock.utc_s() * 1000)})
        return wait_s

    def _attempt(self, call: Callable[[], None], lent: Sequence[Lent]) -> float | None:
        """Make a call that delivers what is ``lent``. Return how long to wait if it fails, else ``None``."""
        try:
            call()
        except LogInRefused as exc:
            return self._failed(
                "log-in",
                f"{exc}; everything is kept. Correct API_USERNAME and API_PASSWORD and restart",
                _LOG_IN_AGAIN_AFTER_S,
            )
        except DeviceNotRegistered as exc:
            self._answered()
            return self._not_registered(lent[0].datum.mac, exc)
        except ReadingsRefused:  # one of several: half of them the next time, until it stands alone
            self._answered()
            self._batch = len(lent) // 2
            return self._pause_s
        except (BatchTooLarge, TryLater) as exc:
            if isinstance(exc, BatchTooLarge) and len(lent) > 1:
                return self._too_large(len(lent), exc)
            self._batch = max(min(self._batch, _SMALLEST_BATCH), self._batch // 2)  # for a slow link
            self._newest_tried = -1  # it is the probe
            retry_after_s = exc.retry_after_s if isinstance(exc, TryLater) else None
            return self._failed(
                "unreachable", f"{exc}; readings are kept and sent later", self._backoff_s(retry_after_s)
            )
        self._answered()
        if lent and self._unregistered.pop(lent[0].datum.mac, None) is not None and not self._unregistered:
            self._registration.well("every device is registered")
        return None

    def _next_batch(self) -> tuple[list[Lent], bool]:
        """Return what to send next, and whether it is the newest interval, for the first time."""
        now_mono_s = self.clock.mono_s()
        avoid = [mac for mac, retry_mono_s in self._unregistered.items() if now_mono_s < retry_mono_s]
        newest = self._outbox.lend_newest(avoid)
        if newest and newest[0].interval > self._newest_tried:
            self._newest_tried = newest[0].interval
            return newest, True
        return self._outbox.lend(self._batch, avoid), False

    def _send(self, lent: Sequence[Lent], live: bool) -> None:
        """Deliver a batch; set a reading aside that is refused by itself. The newest interval is halved at once."""
        try:
            self._client.send_batch([each.datum for each in lent])
        except (ReadingsRefused, BatchTooLarge) as exc:
            if len(lent) == 1 and isinstance(exc, ReadingsRefused):
                self._refusals.failed("refused", f"{lent[0].datum.as_wire()} is refused and set aside: {exc}")
                self._outbox.settle_rejected(lent, str(exc))
            elif live and len(lent) > 1:
                for half in (lent[: len(lent) // 2], lent[len(lent) // 2 :]):
                    self._send(half, live)
            else:
                raise
        else:
            self._outbox.settle_delivered(lent)

    def _answered(self) -> None:
        self._failing_since_mono_s = None
        self._state.well("answers again")

    def _failed(self, kind: str, message: str, wait_s: float) -> float:
        self._state.failed(kind, message)
        self._note_error(message)
        return wait_s

    def _not_registered(self, mac: int, exc: DeviceNotRegistered) -> float:
        """Leave a device alone for a while; what others have waiting goes on."""
        self._unregistered[mac] = self.clock.mono_s() + _NOT_REGISTERED_RETRY_S
        message = f"device {mac}: {exc}; everything is kept"
        self._registration.failed(str(mac), message)
        self._note_error(message)
        return self._pause_s

    def _too_large(self, readings: int, exc: BatchTooLarge) -> float:
        self._largest_batch = self._batch = readings // 2
        self._batches_that_fit = 0
        self._sizes.failed("too large", f"{exc}; smaller batches are sent")
        return self._pause_s

    def _note_error(self, message: str) -> None:
        self._outbox.note("last_error", {"utc_ms": math.floor(self.clock.utc_s() * 1000), "message": message})
        self._outage.begin(self._outbox.tally())

    def _grow(self) -> None:
        """Send larger batches again after one that went well, and try a larger largest now and then."""
        self._batches_that_fit += 1
        if self._batches_that_fit % _LARGER_AGAIN_AFTER == 0:
            self._largest_batch = min(self._configured_batch, self._largest_batch * 2)
        self._batch = min(self._largest_batch, self._batch * 2)

    def _backoff_s(self, retry_after_s: float | None) -> float:
        now_mono_s = self.clock.mono_s()
        if self._failing_since_mono_s is None:
            self._failing_since_mono_s = now_mono_s
            wait_s = _FIRST_RETRY_S
        else:
            lasted_s = now_mono_s - self._failing_since_mono_s
            wait_s = max(_EARLY_RETRY_S, (lasted_s - _EARLY_S) * (1 - self._jitter() / 4))
        return min(max(wait_s, retry_after_s or 0.0), _LONGEST_RETRY_S)


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
