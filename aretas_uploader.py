"""The uploader: from readings in the outbox to the Aretas cloud. The only thread that talks to it."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from functools import partial

from aretas_api import (
    AretasClient,
    BatchTooLarge,
    DeviceNotRegistered,
    LogInRefused,
    ReadingsRefused,
    TryLater,
)
from clock import Clock
from outbox import Outbox
from report_lines import Outage
from state_log import StateLog
from tables import Lent
from time_keeper import TimeKeeper
from worker import Worker

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_SMALLEST_BATCH = 10
_LARGER_AGAIN_AFTER = 100  # batches
_ASK_THE_TIME_EVERY_S = 10.0
_LAST_REQUESTS = 4
_NOTHING_TO_LEND_S = 0.25
_FIRST_RETRY_S, _EARLY_RETRY_S, _LONGEST_RETRY_S = 1.0, 2.0, 300.0
_EARLY_S = 18.0  # 10 s, and a request that was under way at the end of an outage may take 8 s to fail
_LOG_IN_AGAIN_AFTER_S = 300.0
_NOT_REGISTERED_RETRY_S = 60.0


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
        self._last_requests = _LAST_REQUESTS
        self._ask_again_mono_s = -math.inf
        self._outage = Outage(clock)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the cloud, ``None`` if it is well."""
        return self._state.line or self._registration.line

    def step(self) -> None:
        """Wait for readings, send one batch, and wait as long as its outcome asks for."""
        if not self._time_keeper.verdict().trusted and self.clock.mono_s() >= self._ask_again_mono_s:
            wait_s = self.ask_the_time()
            if wait_s is not None:
                self.pause(wait_s)
                return
        if self._outbox.wait_for_readings(self.clock.mono_s() + _HEARTBEAT_S):
            self.pause(self.send_once())

    def wake(self) -> None:
        """End a wait for readings."""
        self._outbox.wake()

    def hand_over(self) -> None:
        """Ask it to end after the request that is under way, and to send nothing more: another one will."""
        self._last_requests = 0
        self.request_stop()

    def finish(self) -> None:
        """Send what waits, the newest first, as far as it goes in a few requests, and close the connection."""
        self._newest_tried = -1
        for _ in range(self._last_requests):
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
        self.beat()
        try:
            call()
        except LogInRefused as exc:
            return self._failed(
                "log-in",
                f"{exc}; everything is kept. Correct API_USERNAME and API_PASSWORD and restart, or reload",
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
        self.beat()
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
