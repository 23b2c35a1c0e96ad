"""A site on which years pass in minutes: the whole daemon, as the program wires it, on a clock that jumps.

The daemon's threads, its SQLite database and its log file are real. Its two meters are the simulator's, at ports in
memory; the cloud is the simulator's, met in place of one HTTP exchange; a Redis server, where one is wanted, is a real
one. Whatever one of them is waited for takes as long as it would, by the virtual clock, and no time at all.

The ports (``memory_port.py``) and ``CloudLine`` fail as pyserial and requests do: what the daemon makes of that is the
daemon's own.
"""

from __future__ import annotations

import errno
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast
from unittest.mock import patch
from urllib.parse import parse_qs

import serial

import aretas_api.client
import aretas_uploader
import averaging_buffer
import daemon
import meter_reader
import outbox
import recorder
import redis_cache
import serial_port_read_writer
import simulator.fault_schedule
import worker
import xdm1041.driver
from aretas_api.errors import TryLater
from aretas_api.transport import Answer, Question
from benchmarks.memory_port import MemoryPort, MemorySerial
from benchmarks.virtual_clock import VirtualClock, VirtualCondition, virtual_waits
from log_setup import LineFormatter, reset_logging, set_up_logging
from measurements import Datum
from settings import Settings, load_settings
from simulator.battery import SHUNT_OHM, Battery
from simulator.cloud import VirtualCloud
from simulator.cloud_http import Exchange, Reply
from simulator.meter import VirtualMeter
from simulator.mishaps import MeterPair

MAC = 123456789
SAMPLE_MS, REPORT_MS = 5_000, 30_000
BEGAN_UTC_S = 1_790_000_010.0
_USERNAME, _PASSWORD = "benchmark@example.invalid", "not-a-secret"
_ROUND_TRIP_S = 0.05
_REQUEST_TIMEOUT_S = 8.0  # as daemon.py has it
_MOST_TEXTS = 200  # or counting them would be what grows
_NUMBERS = re.compile(r"[-\d.]+")
_MODULES = (
    aretas_uploader,
    averaging_buffer,
    daemon,
    meter_reader,
    outbox,
    recorder,
    redis_cache,
    serial_port_read_writer,
    simulator.fault_schedule,
    worker,
    xdm1041.driver,
)

_CONFIG = """\
[DEFAULT]
self_mac = {mac}
API_URL = http://127.0.0.1:9/rest/
API_USERNAME = {username}
API_PASSWORD = {password}

[XDM]
xdm_voltage_enable = True
xdm_voltage_port = {folder}/voltage
xdm_voltage_serial = 22511040
xdm_current_enable = True
xdm_current_port = {folder}/current
xdm_current_serial = 22511041
xdm_shunt_resistance = {shunt_ohm}
xdm_scan_ports = {folder}/voltage, {folder}/current, {folder}/voltage-moved, {folder}/current-moved
"""


class ForgetfulCloud(VirtualCloud):
    """A cloud that a month does not fill."""

    def take(self) -> list[Datum]:
        """Return what was accepted since the last call, and forget it."""
        with self._lock:
            data = [each.datum for each in self._received]
            self._received.clear()
            return data


class CloudLine:
    """What stands in place of ``aretas_api.transport.Transport``: each exchange is the virtual cloud's, in 50 ms.

    ``trouble``: what happens instead of an exchange; it may wait, raise ``TryLater``, answer, or return ``None`` for
    the exchange as it would have been.
    """

    host = "127.0.0.1"

    def __init__(self, cloud: VirtualCloud, clock: VirtualClock) -> None:
        self.trouble: Callable[[Question], Answer | None] = lambda _question: None
        self.exchanges = 0
        self._cloud = cloud
        self._clock = clock
        self._condition = VirtualCondition(clock)
        self._on_answer: Callable[[float | None], None] = lambda _date_utc_s: None

    def __call__(self, _base_url: str, on_answer: Callable[[float | None], None], **_timeouts_s: float) -> Self:
        """Be made as the transport is."""
        self._on_answer = on_answer
        return self

    @contextmanager
    def call(self) -> Iterator[None]:
        """Do nothing: no exchange takes long enough to be cut short."""
        yield

    def exchange(self, question: Question) -> Answer:
        """Ask the cloud, as it is now."""
        self.exchanges += 1
        self.wait(_ROUND_TRIP_S)
        answer = self.trouble(question)
        if answer is None:
            answer = self.right_answer(question)
        self._on_answer(float(int(self._clock.true_utc_s())))
        return answer

    def right_answer(self, question: Question) -> Answer:
        """Have the cloud do what it is asked for and return its answer."""
        exchange = SimpleNamespace(
            command=question.method,
            call=question.path,
            headers=dict(question.headers),
            query=parse_qs("&".join(filter(None, (question.query, question.secret_query))), keep_blank_values=True),
            body=question.body,
            request_index=self.exchanges,
        )
        reply: Reply = self._cloud.reply_to(cast(Exchange, exchange))
        return Answer(status=reply.status, body=reply.body)

    def no_answer(self, after_s: float, why: str) -> Answer:
        """Wait, then fail as the transport does. Raises ``TryLater``."""
        self.wait(min(after_s, _REQUEST_TIMEOUT_S))
        raise TryLater(f"{self.host} gave no answer: {why}")

    def wait(self, seconds: float) -> None:
        """Let the clock go on."""
        with self._condition:
            self._condition.wait(seconds)

    def close(self) -> None:
        """Do nothing: there is no connection."""


class LogMeter(logging.Handler):
    """Counts what the log file gets, in bytes, and of which lines: by the text before their arguments."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.bytes = self.lines = 0
        self.errors: deque[str] = deque(maxlen=20)
        self.bytes_by_text: dict[str, int] = {}
        self.setFormatter(LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        size = len(line.encode()) + 1
        self.lines += 1
        self.bytes += size
        text = f"{record.name}: {_NUMBERS.sub('#', line.split(' - ', 3)[3])[:70]}"
        if text in self.bytes_by_text or len(self.bytes_by_text) < _MOST_TEXTS:
            self.bytes_by_text[text] = self.bytes_by_text.get(text, 0) + size
        if record.levelno >= logging.ERROR:
            self.errors.append(line)


class VirtualSite:
    """A battery with two meters, a cloud, and the daemon in its folder, inside a ``with``, from virtual moment 0 on.

    The calling thread takes part in the clock: time passes while it is in ``let_pass()``.
    """

    def __init__(self, battery: Battery, folder: Path, *, sections: Mapping[str, Mapping[str, object]] | None = None):
        self.clock = VirtualClock(BEGAN_UTC_S)
        self.folder = folder
        self.log = LogMeter()
        self.cloud = ForgetfulCloud(username=_USERNAME, password=_PASSWORD, macs=[MAC], clock=self.clock)
        self.line = CloudLine(self.cloud, self.clock)
        self.battery = battery
        self._sections = sections or {}
        self._crashed = self._stopped = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.clock.taking_part())
            stack.enter_context(virtual_waits(self.clock, _MODULES))
            self._pause = VirtualCondition(self.clock)
            self.ports = {
                name: MemoryPort(
                    VirtualMeter(
                        quantity, serial_number=serial_number, clock=self.clock, seed=number, served_limit=100
                    ),
                    self.clock,
                    self.folder / name,
                )
                for number, (name, quantity, serial_number) in enumerate(
                    (("voltage", self.battery.voltage_v, "22511040"), ("current", self.battery.shunt_v, "22511041"))
                )
            }
            self.pair = MeterPair(self.ports["voltage"], self.ports["current"])
            for port in self.ports.values():
                port.plug_in()
            self._start_daemon(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def let_pass(self, until_mono_s: float) -> None:
        """Let time pass until this moment of the virtual clock. Raises ``RuntimeError`` if the daemon has crashed."""
        while (left_s := self.clock.timeout_s(until_mono_s)) > 0:
            with self._pause:
                self._pause.wait(left_s)
        if self._crashed:
            raise RuntimeError(f"the daemon crashed: {self.log.errors}")

    def take_arrived(self) -> list[Datum]:
        """Return what the cloud has accepted since the last call, repetitions included, and have it forget that."""
        return self.cloud.take()

    def stop(self) -> None:
        """Stop the daemon as a signal does. May be called again."""
        if not self._stopped:
            self._stopped = True
            self.daemon.stop()

    def _open(self, port: str, *, timeout: float, **_rest: Any) -> serial.Serial:
        """Open a port by its name, as ``serial.serial_for_url`` does. Raises ``SerialException``."""
        there = next((each for each in self.ports.values() if each.is_plugged_in and each.path == port), None)
        if there is None:
            raise serial.SerialException(errno.ENOENT, f"could not open port {port}: no such file")
        if there.forbidden:
            raise serial.SerialException(errno.EACCES, f"could not open port {port}: permission denied")
        if there.held or there.opened_by is not None:
            raise serial.SerialException(errno.EAGAIN, f"could not exclusively lock port {port}")
        return cast(serial.Serial, MemorySerial(there, timeout))

    def _start_daemon(self, stack: ExitStack) -> None:
        path = self.folder / "config.cfg"
        path.touch(mode=0o600)
        config = _CONFIG.format(
            mac=MAC, username=_USERNAME, password=_PASSWORD, folder=self.folder, shunt_ohm=SHUNT_OHM
        )
        for section, keys in self._sections.items():
            config += f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        path.write_text(config, encoding="utf-8")
        settings = load_settings(path)
        secrets = set_up_logging(self.folder, level=logging.INFO, secrets=settings.secrets(), console=None)
        stack.callback(reset_logging)
        logging.getLogger().addHandler(self.log)
        stack.callback(logging.getLogger().removeHandler, self.log)
        original = serial_port_read_writer.SerialPortReadWriter

        def sampler(settings: Settings, *arguments: Any) -> serial_port_read_writer.SerialPortReadWriter:
            buffer, clock, record, _open_port = arguments
            return original(settings, buffer, clock, record, self._open)

        with (
            patch.object(aretas_api.client, "Transport", self.line),
            patch.object(daemon, "SerialPortReadWriter", sampler),
        ):
            self.daemon = daemon.Daemon(settings, self.clock, secrets.add)
        self.daemon.start(self._on_crash)
        stack.callback(self.stop)

    def _on_crash(self) -> None:
        self._crashed = True
