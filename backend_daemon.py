#!/usr/bin/env python3
"""PowerMonitorMiddleware: reads a pair of XDM1041 meters and reports V, A and kW of a battery.

The program: arguments, ``build(settings)``, signals, supervision, exit code. It measures nothing and talks to nobody.

Exit codes: 0 clean, 1 a check failed, 2 usage, 70 internal error (start it again), 78 configuration.
"""

from __future__ import annotations

import gc
import logging
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

try:
    from aretas_api import AretasClient
    from aretas_reporter import AretasReporter, AretasUploader
    from averaging_buffer import AveragingBuffer
    from clock import Clock
    from command_line import VERSION, parse_arguments
    from config_file import ConfigurationError
    from events import Event, about
    from exit_codes import EXIT_CHECK_FAILED, EXIT_CLEAN, EXIT_CONFIGURATION, EXIT_INTERNAL
    from instance import HeldByAnother, InstanceLock
    from journal import is_journal
    from log_setup import set_up_logging
    from measurements import Device
    from outbox import Limits, Outbox
    from recorder import Recorder
    from serial_port_read_writer import SerialPortReadWriter
    from settings import Settings, load_settings
    from store import NAME as DATABASE_NAME
    from store import Store, StoreTooNew
    from time_keeper import TimeKeeper
    from worker import Worker
except ModuleNotFoundError as exc:
    print(f"{exc.name} is not installed: use 'sh run.sh', which installs it, or pip install -r requirements.txt")
    sys.exit(78)  # starting it again would not mend that

if TYPE_CHECKING:
    from redis_cache import RedisCache
    from wire_recorder import WireRecorder

logger = logging.getLogger("backend_daemon")

_SAMPLER_STOPS_WITHIN_S = 1.2  # a meter may take 1 s to answer; the sampler itself needs 0.1 s
_REPORTER_STOPS_WITHIN_S = 0.7
_LAST_SEND_WITHIN_S = 2.0
_DATABASE_CLOSES_WITHIN_S = 0.8
# A request that gets no answer ends soon enough that the first attempt after a short outage comes within 10 s.
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _REQUEST_TIMEOUT_S = 3.0, 5.0, 8.0


class Daemon:
    """The workers, wired but not running until ``start()``."""

    def __init__(
        self,
        sampler: SerialPortReadWriter,
        recorder: Recorder,
        reporter: AretasReporter,
        uploader: AretasUploader,
        redis_cache: RedisCache | None,
        outbox: Outbox,
        clock: Clock,
        wire_recorder: WireRecorder | None = None,
    ) -> None:
        self.sampler = sampler
        self.recorder = recorder
        self.outbox = outbox
        self.reporter = reporter
        self.uploader = uploader
        self.redis_cache = redis_cache
        self.wire_recorder = wire_recorder
        self.crashed = False
        self._clock = clock
        self._ending = False

    def start(self) -> None:
        """Start every worker, delivery first. Returns at once; meters, cloud and Redis may all be absent."""
        self.reporter.open_first_interval()
        for worker in (*self._deliverers(), *self._recorders(), self.reporter, self.sampler):
            worker.start(self._on_crash)

    def obey_signals(self) -> None:
        """Have SIGTERM, SIGINT and a closed terminal (SIGHUP) end ``wait()``. Call it first, from the main thread.

        The bell is rung by the signal itself, whichever thread the system gives it to: a lock that the main thread
        waits for would not notice.
        """
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)  # there is no SIGHUP on Windows
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants it ignored
                signal.signal(number, lambda *_: self.end())

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until ``end()`` is called, a worker crashes, or ``timeout_s`` has passed."""
        until_mono_s = None if timeout_s is None else self._clock.mono_s() + timeout_s
        while not self._ending:
            wait_s = None if until_mono_s is None else self._clock.timeout_s(until_mono_s)
            if not select.select([self._alarm], [], [], wait_s)[0]:
                return
            self._alarm.recv(4096)

    def end(self) -> None:
        """Have ``wait()`` return. Safe in a signal handler and from any thread: it takes no lock."""
        self._ending = True
        with suppress(BlockingIOError):  # the bell rings already
            self._bell.send(b"!")

    def stop(self) -> None:
        """Stop in order: sampling, the open interval, the last send, the database.

        Blocks 5 s at most, whatever meters, cloud and disk do.
        """
        self._stop([self.sampler], _SAMPLER_STOPS_WITHIN_S)
        self._stop([*self._recorders(), self.reporter], _REPORTER_STOPS_WITHIN_S)
        self._stop(self._deliverers(), _LAST_SEND_WITHIN_S)
        closing = threading.Thread(target=self._close_outbox, name="closing", daemon=True)
        closing.start()
        closing.join(_DATABASE_CLOSES_WITHIN_S)
        if closing.is_alive():
            logger.error("the disk does not answer: the database is left as it is, which does not harm it")
        signal.set_wakeup_fd(-1)
        self._alarm.close()
        self._bell.close()

    def _deliverers(self) -> list[Worker]:
        return [self.uploader] if self.redis_cache is None else [self.uploader, self.redis_cache]

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

    def _on_crash(self) -> None:
        self.crashed = True
        self.end()


def build(settings: Settings, clock: Clock, on_secret: Callable[[str], None]) -> Daemon:
    """Wire the daemon that the settings describe. Opens no port, socket or file.

    ``on_secret`` is told every secret that comes up later (the cloud's token), so that no log shows it.
    """
    redis_cache = None
    if settings.redis is not None:
        from redis_cache import Label, RedisCache

        api = settings.api
        labels = {
            api.voltage_type: Label("Battery voltage", "V"),
            api.current_type: Label("Battery current", "A"),
            api.power_type: Label("Battery power", "kW"),
        }
        redis_cache = RedisCache(settings.redis, labels, clock)
    api, store = settings.api, settings.store
    buffer = AveragingBuffer(clock)
    outbox = Outbox(
        Store(settings.folder / DATABASE_NAME, clock),
        Device(
            mac=settings.self_mac,
            voltage_type=api.voltage_type,
            current_type=api.current_type,
            power_type=api.power_type,
        ),
        clock.boot_id(),
        clock,
        Limits(max_bytes=store.max_mb * 1_000_000, keep_days=store.keep_days, sync_interval_s=store.sync_interval_s),
    )
    recorder = Recorder(outbox, clock)
    time_keeper = TimeKeeper(clock, store.clock_hold_max_s)
    client = AretasClient(
        api.url,
        api.username,
        api.password,
        connect_timeout_s=_CONNECT_TIMEOUT_S,
        read_timeout_s=_READ_TIMEOUT_S,
        total_timeout_s=_REQUEST_TIMEOUT_S,
        on_secret=on_secret,
        on_answer=time_keeper.heed_answer,
    )
    wire_recorder, open_port = None, None
    if settings.serial.wire_log is not None:
        from wire_recorder import WireRecorder
        from xdm1041.wire_log import WireTap

        wire_recorder = WireRecorder(settings.serial.wire_log, clock)
        open_port = WireTap(wire_recorder.record, clock).open
    sampler = SerialPortReadWriter(settings, buffer, clock, recorder.record, open_port)
    publish = redis_cache.publish if redis_cache else None
    return Daemon(
        sampler=sampler,
        recorder=recorder,
        reporter=AretasReporter(
            api.report_interval_ms,
            buffer,
            outbox,
            time_keeper,
            clock,
            publish,
            lambda: {"meters": sampler.meters()},
            sampler.verify_untouched,
        ),
        uploader=AretasUploader(client, outbox, time_keeper, clock, batch=api.upload_batch, pause_s=api.upload_pause_s),
        redis_cache=redis_cache,
        outbox=outbox,
        clock=clock,
        wire_recorder=wire_recorder,
    )


def run(settings: Settings, *, level: int, console: TextIO | None, seconds: float | None) -> int:
    """Run the daemon until a signal, a crash or ``seconds`` have passed. Return the exit code."""
    secret_filter = set_up_logging(settings.folder, level=level, secrets=settings.secrets(), console=console)
    for warning in settings.warnings:
        logger.warning("%s", warning, extra=about(Event.CONFIGURATION))
    lock = InstanceLock(settings.folder)
    try:
        lock.acquire(meter.port for meter in (settings.voltage_meter, settings.current_meter) if meter is not None)
    except HeldByAnother as exc:
        return refuse_to_start(f"{exc}; this one does not start", EXIT_CHECK_FAILED)
    daemon = build(settings, Clock(), secret_filter.add)
    daemon.obey_signals()

    logger.info(
        "PowerMonitorMiddleware %s starts: a sample every %g s, a report every %g s, to %s",
        VERSION,
        settings.serial.sample_interval_ms / 1000,
        settings.api.report_interval_ms / 1000,
        settings.api.url,
        extra=about(Event.START),
    )
    gc.collect()
    gc.freeze()  # what the imports left is never garbage: not to be looked through again for years
    try:
        daemon.start()
    except StoreTooNew as exc:
        return refuse_to_start(f"{exc}: use that version, or move the file away", EXIT_CONFIGURATION)
    daemon.wait(seconds)
    logger.info("PowerMonitorMiddleware stops")
    daemon.stop()
    lock.release()
    logger.info("PowerMonitorMiddleware has stopped", extra=about(Event.STOP))
    logging.shutdown()
    return EXIT_INTERNAL if daemon.crashed else EXIT_CLEAN


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for. Return the exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    level = logging.getLevelName(options.log_level)
    config = options.config or Path("config.cfg")
    if options.status or options.find_meters or options.check or options.zero:
        import tools  # here, because the daemon does without it

        return tools.run(options, config)
    with ExitStack() as stack:
        if options.demo:
            from simulator.demo import Demo, DemoError

            try:
                config = stack.enter_context(Demo(Path("demo"))).config
            except DemoError as exc:
                return refuse_to_start(f"the demo does not start: {exc}", EXIT_CHECK_FAILED)
            print(f"Demo: simulated meters, battery and cloud. Log and data are in {config.parent}", flush=True)
        try:
            settings = load_settings(config, to_run=not options.check_config)
        except ConfigurationError as exc:
            return refuse(exc, config, level)
        if options.check_config:
            for warning in settings.warnings:
                print(f"warning: {warning}")
            print(f"{config}: the configuration is good")
            return EXIT_CLEAN
        console = sys.stdout if options.demo else sys.stderr if sys.stderr.isatty() else None
        return run(settings, level=level, console=console, seconds=options.seconds)


def refuse_to_start(reason: str, code: int) -> int:
    """Tell the operator on stderr why this daemon does not start. Return the exit code."""
    print(reason, file=sys.stderr)
    logging.shutdown()
    return code


def refuse(error: ConfigurationError, config: Path, level: int) -> int:
    """Tell the operator on stderr, and in the log if there is a place for it, what is wrong with the configuration."""
    has_log = config.is_file()
    if not (has_log and is_journal()):  # else the log brings it there
        print(error, file=sys.stderr)
    if has_log:
        set_up_logging(config.absolute().parent, level=level, secrets=(), console=None)
        for line in str(error).splitlines():
            logger.critical("%s", line, extra=about(Event.CONFIGURATION))
        logging.shutdown()
    return EXIT_CONFIGURATION


def guarded_main() -> int:
    """Do as ``main()`` does, and end with exit code 70 where that has an error, so that it is started again."""
    try:
        return main()
    except Exception:  # as in Worker: an error of the program must be in the log, and told from every other end
        logger.critical("the daemon ends, to be started afresh", exc_info=True, extra=about(Event.CRASH))
        return EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(guarded_main())
