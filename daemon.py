"""The daemon: which workers the settings make, and how they are started, changed while they run, and stopped.

Used by the main thread. The workers do not know each other: they meet in the averaging buffer and in the outbox, which
stay for as long as the program runs; workers are replaced when the configuration that made them changes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from accuracy import accuracy_of
from aretas_api import AretasClient
from aretas_reporter import AretasReporter
from aretas_uploader import AretasUploader
from averaging_buffer import GRACE_S, AveragingBuffer
from clock import Clock
from measurements import Datum
from outbox import Limits, Outbox
from quantities import counters_of
from recorder import Recorder
from report_lines import status_line, summary_text
from serial_port_read_writer import SerialPortReadWriter
from settings import Settings
from store import NAME as DATABASE_NAME
from store import Store
from time_keeper import TimeKeeper
from worker import Worker

if TYPE_CHECKING:
    from redis_cache import RedisCache
    from web.server import WebServer
    from wire_recorder import WireRecorder

logger = logging.getLogger(__name__)

_SAMPLER_STOPS_WITHIN_S = 1.2  # a meter may take 1 s to answer; the sampler itself needs 0.1 s
_REPORTER_STOPS_WITHIN_S = 0.7
_LAST_SEND_WITHIN_S = 2.0
_DATABASE_CLOSES_WITHIN_S = 0.8
_SERVER_STOPS_WITHIN_S = 1.5
# A request that gets no answer ends soon enough that the first attempt after a short outage comes within 10 s.
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _REQUEST_TIMEOUT_S = 3.0, 5.0, 8.0


class Daemon:
    """The workers that the settings describe, wired but not running until ``start()``.

    ``on_secret`` is told every secret that comes up later (the cloud's token), so that no log shows it; ``hide``
    returns a text without those that are known.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        on_secret: Callable[[str], None],
        hide: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._on_secret, self._hide = on_secret, hide
        self._on_crash: Callable[[], None] = lambda: None
        self._refused: str | None = None
        self.buffer = AveragingBuffer(clock)
        self.outbox = Outbox(
            Store(settings.folder / DATABASE_NAME, clock),
            settings.api.device(settings.self_mac),
            clock.boot_id(),
            clock,
            _limits(settings),
        )
        self.time_keeper = TimeKeeper(clock, settings.store.clock_hold_max_s)
        self.recorder = Recorder(self.outbox, clock)
        self.redis_cache = self._new_redis_cache()
        self.uploader = self._new_uploader()
        self.wire_recorder, self.sampler = self._new_sampler()
        self.reporter = AretasReporter(
            settings.api.report_interval_ms,
            self.buffer,
            self.outbox,
            self.time_keeper,
            clock,
            self._publish,
            lambda: {"meters": self.sampler.meters()},
            self.sampler.verify_untouched,
            lambda summary: accuracy_of(self.settings).of(summary),
        )
        self.web_server = self._new_web_server()

    # -- start, reload, stop -----------------------------------------------------------------------------------------

    def start(self, on_crash: Callable[[], None] = lambda: None) -> None:
        """Start every worker, delivery first. Returns at once; meters, cloud and Redis may all be absent."""
        self._on_crash = on_crash
        self.reporter.open_first_interval()
        for worker in (*self._deliverers(), *self._recorders(), self.reporter, self.sampler, *self._servers()):
            worker.start(on_crash)

    def reload(self, settings: Settings) -> None:
        """Go on with other settings: only the workers that they concern are replaced, no sample that was taken is lost.

        If anything of the meters or of sampling changes, both meters are set up again, which takes them some seconds.
        Blocks 7 s at most.
        """
        before, self.settings = self.settings, settings
        self._refused = None
        redis_cache, renews_cache = self.redis_cache, _caching(before) != _caching(settings)
        if renews_cache:
            self.redis_cache = None  # before the sensor types change: it has no names for others
        self.outbox.change(settings.api.device(settings.self_mac), _limits(settings))
        self.time_keeper.hold_max_s = settings.store.clock_hold_max_s
        self.reporter.change_interval(settings.api.report_interval_ms)
        if renews_cache:
            self._stop([redis_cache] if redis_cache is not None else [], _REPORTER_STOPS_WITHIN_S)
            self.redis_cache = self._new_redis_cache()
            if self.redis_cache is not None:
                self.redis_cache.start(self._on_crash)
        if _uploading(before) != _uploading(settings):
            self.uploader.hand_over()
            self._stop([self.uploader], _LAST_SEND_WITHIN_S)
            self.uploader = self._new_uploader()
            self.uploader.start(self._on_crash)
        if _measuring(before) != _measuring(settings):
            wire_recorder = self.wire_recorder
            self._stop([self.sampler], _SAMPLER_STOPS_WITHIN_S)
            self._stop([wire_recorder] if wire_recorder is not None else [], _REPORTER_STOPS_WITHIN_S)
            self.buffer.grace_s = GRACE_S  # the old sampler may have needed a longer one
            self.wire_recorder, self.sampler = self._new_sampler()
            for worker in (self.wire_recorder, self.sampler):
                if worker is not None:
                    worker.start(self._on_crash)
        if before.web != settings.web:
            self._stop(self._servers(), _SERVER_STOPS_WITHIN_S)
            self.web_server = self._new_web_server()
            for server in self._servers():
                server.start(self._on_crash)

    def refuse_reload(self, why: str) -> None:
        """Have ``status_text()`` say that the configuration there is now is not the one that is used."""
        self._refused = why

    def stop(self) -> None:
        """Stop in order: sampling, the open interval, the last send, the database.

        Blocks 5 s at most, whatever meters, cloud and disk do.
        """
        for worker in self._servers():
            worker.request_stop()  # what it takes is over long before the last of the others has ended
        self._stop([self.sampler], _SAMPLER_STOPS_WITHIN_S)
        self._stop([*self._recorders(), self.reporter], _REPORTER_STOPS_WITHIN_S)
        self._stop([*self._deliverers(), *self._servers()], _LAST_SEND_WITHIN_S)
        closing = threading.Thread(target=self._close_outbox, name="closing", daemon=True)
        closing.start()
        closing.join(_DATABASE_CLOSES_WITHIN_S)
        if closing.is_alive():
            logger.error("the disk does not answer: the database is left as it is, which does not harm it")

    # -- what the supervisor asks ------------------------------------------------------------------------------------

    def workers(self) -> list[Worker]:
        """Return every worker there is now, the meters' included."""
        readers = self.sampler.readers.values()
        return [*self._deliverers(), *self._recorders(), self.reporter, self.sampler, *readers, *self._servers()]

    @property
    def is_sampling(self) -> bool:
        """Whether sampling runs; meters that are absent are retried meanwhile."""
        return self.sampler.is_sampling

    @property
    def long_work(self) -> int:
        """A number that changes while the database is rebuilt, which may take minutes."""
        return self.outbox.long_work

    def status_text(self) -> str:
        """Return values, what waits, and what is wrong, in one line. Takes no lock that a worker may hold."""
        summary = self.reporter.last_summary
        troubles = [trouble for worker in self.workers() if (trouble := worker.trouble) is not None]
        return status_line(
            values="no report yet" if summary is None else summary_text(summary),
            waiting=self.outbox.readings_waiting,
            oldest_s=self.outbox.oldest_waiting_s,
            troubles=[self._refused, *troubles] if self._refused is not None else troubles,
        )

    # -- the workers -------------------------------------------------------------------------------------------------

    def _new_redis_cache(self) -> RedisCache | None:
        if self.settings.redis is None:
            return None
        from redis_cache import Label, RedisCache

        api = self.settings.api
        labels = {
            api.voltage_type: Label("Battery voltage", "V"),
            api.current_type: Label("Battery current", "A"),
            api.power_type: Label("Battery power", "kW"),
        }
        counters = {
            "energy_in_kwh": api.energy_in_type,
            "energy_out_kwh": api.energy_out_type,
            "charge_in_ah": api.charge_in_type,
            "charge_out_ah": api.charge_out_type,
            "coverage_percent": None,
        }
        return RedisCache(self.settings.redis, labels, self._clock, counters)

    def _new_uploader(self) -> AretasUploader:
        api = self.settings.api
        client = AretasClient(
            api.url,
            api.username,
            api.password,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            read_timeout_s=_READ_TIMEOUT_S,
            total_timeout_s=_REQUEST_TIMEOUT_S,
            on_secret=self._on_secret,
            on_answer=self.time_keeper.heed_answer,
        )
        return AretasUploader(
            client, self.outbox, self.time_keeper, self._clock, batch=api.upload_batch, pause_s=api.upload_pause_s
        )

    def _new_sampler(self) -> tuple[WireRecorder | None, SerialPortReadWriter]:
        """Return the sampler, and the recorder of its wire log if that is wanted."""
        wire_recorder, open_port = None, None
        if self.settings.serial.wire_log is not None:
            from wire_recorder import WireRecorder
            from xdm1041.wire_log import WireTap

            wire_recorder = WireRecorder(self.settings.serial.wire_log, self._clock)
            open_port = WireTap(wire_recorder.record, self._clock).open
        return wire_recorder, SerialPortReadWriter(
            self.settings, self.buffer, self._clock, self.recorder.record, open_port
        )

    def _new_web_server(self) -> WebServer | None:
        if self.settings.web is None:
            return None
        try:
            from web.facts import Facts
            from web.server import WebServer
        except ModuleNotFoundError as exc:  # no reason to measure nothing
            logger.error(
                "there is no page: %s is not installed. Run  sh venv.sh requirements.txt  and restart", exc.name
            )
            return None
        facts = Facts(
            self._clock,
            lambda: self.settings,
            self.buffer,
            self.outbox,
            lambda: self.reporter.last_closed,
            self.workers,
            lambda: self.sampler.meters(),
            lambda: self._refused,
            self._hide,
        )
        return WebServer(self.settings.web, facts, self._clock)

    def _publish(self, readings: Sequence[Datum]) -> None:
        """Have Redis get an interval: its readings, and the counters unless a kill could make them fall again."""
        if (redis_cache := self.redis_cache) is not None:
            summary, totals = self.reporter.last_summary, self.outbox.totals
            counters = {} if summary is None or self.outbox.trouble is not None else counters_of(summary, totals)
            redis_cache.publish(readings, counters)

    def _deliverers(self) -> list[Worker]:
        return [self.uploader] if self.redis_cache is None else [self.uploader, self.redis_cache]

    def _servers(self) -> list[Worker]:
        return [] if self.web_server is None else [self.web_server]

    def _recorders(self) -> list[Worker]:
        return [self.recorder] if self.wire_recorder is None else [self.recorder, self.wire_recorder]

    def _stop(self, workers: Sequence[Worker], within_s: float) -> None:
        deadline_mono_s = self._clock.mono_s() + within_s
        for worker in workers:
            worker.request_stop()
        for worker in workers:
            if not worker.join(deadline_mono_s):
                logger.warning("%s did not end within %.1f s and is left behind", worker.name, within_s)

    def _close_outbox(self) -> None:
        waiting = self.outbox.tally().waiting
        if waiting:
            logger.info("%d readings wait in the database; they are sent after the next start", waiting)
        self.outbox.close()


def _limits(settings: Settings) -> Limits:
    store = settings.store
    return Limits(max_bytes=store.max_mb * 1_000_000, keep_days=store.keep_days, sync_interval_s=store.sync_interval_s)


def _caching(settings: Settings) -> tuple[object, ...]:
    """Return the settings that the Redis cache is made of."""
    return settings.redis, settings.api.device(0).types


def _uploading(settings: Settings) -> tuple[object, ...]:
    """Return the settings that the uploader is made of."""
    api = settings.api
    return api.url, api.username, api.password, api.upload_batch, api.upload_pause_s


def _measuring(settings: Settings) -> tuple[object, ...]:
    """Return the settings that the sampler is made of."""
    return settings.serial, settings.voltage_meter, settings.current_meter
