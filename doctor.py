"""``--check``, the doctor: is everything as the daemon needs it? One line each, and what to do about it.

Runs in the main thread, with threads for what can take long: each meter, the cloud, the disk, Redis. Guarantees: every
line comes, each within its time; a running daemon is not disturbed (its meters are not touched, its database is only
read); no reading is sent unless ``send_test`` asks for it, and then a true one; no secret is in any line.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from aretas_api import AretasClient
from aretas_api.errors import AretasError, LogInRefused
from averaging_buffer import AveragingBuffer
from clock import Clock
from config_file import ConfigurationError
from findings import Finding, fail, ok, warn
from instance import running_daemon
from log_setup import LOG_NAME
from measurements import CURRENT, VOLTAGE, Datum
from meter_check import MeterCheck, Quantity
from serial_port_read_writer import SerialPortReadWriter
from settings import RedisSettings, Settings, load_settings
from status import Status, StatusError, read_status
from store import NAME as DATABASE_NAME
from store import Store
from time_keeper import TimeKeeper

_WITHIN_S = 30.0
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _REQUEST_TIMEOUT_S = 3.0, 5.0, 8.0  # as the daemon has them
_LOGS_MB = 60  # the log and its five predecessors
_TOO_FULL_MB = 20
_LATE_S = 10.0
_SWAPPED_BELOW_V = 0.5


def examine(config: Path, clock: Clock, *, send_test: bool = False) -> Iterator[Finding]:
    """Check everything that a configuration describes and yield what was found, a line at a time.

    Blocks 30 s at most for each line, about 10 s for all of them if all is well.
    """
    try:
        settings = load_settings(config, to_run=False)
    except ConfigurationError as exc:
        yield from (fail("configuration", f"{problem}") for problem in exc.problems)
        return
    yield from [warn("configuration", warning) for warning in settings.warnings] or [
        ok("configuration", f"{config} is good")
    ]
    yield from _Examination(settings, clock).findings(send_test)


class _Task(threading.Thread):
    """One examination that may take long, begun at once."""

    def __init__(self, check: str, work: Callable[[], Iterable[Finding]]) -> None:
        super().__init__(name=check, daemon=True)
        self._check = check
        self._work = work
        self._findings: list[Finding] | None = None
        self.start()

    def run(self) -> None:
        """Do the work."""
        self._findings = list(self._work())

    def findings(self) -> list[Finding]:
        """Return what was found. Blocks 30 s at most."""
        self.join(_WITHIN_S)
        if self._findings is None and not self.is_alive():
            raise RuntimeError(f"the examination of the {self._check} has crashed")
        return self._findings or [fail(self._check, f"gave no result within {_WITHIN_S:g} s")]


class _Examination:
    """What is examined, and what one part of it needs to know of another."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._daemon = running_daemon(settings.folder)
        self._time_keeper = TimeKeeper(clock, math.inf)
        self._cloud = _Cloud(settings, self._time_keeper)
        self._meters = [] if self._daemon else _meter_checks(settings, clock)

    def findings(self, send_test: bool) -> Iterator[Finding]:
        """Yield every finding in order. The slow ones are under way at once."""
        settings, clock = self._settings, self._clock
        meters = [_Task(check.quantity.name, check.run) for check in self._meters]
        cloud = _Task("log-in", self._cloud.run)
        disk = _Task("disk", lambda: [_disk(settings, clock)])
        redis = _Task("redis", lambda: [_redis(settings.redis)])
        if self._daemon:
            yield from self._held_meters(self._daemon)
        for task in meters:
            yield from task.findings()
        yield from _swapped(self._meters)
        about_cloud = cloud.findings()
        yield self._clock_finding()
        yield from disk.findings()
        yield from about_cloud
        yield from redis.findings()
        if send_test:
            yield from _Task("send-test", lambda: [self._send_test()]).findings()

    # -- the meters of a running daemon --------------------------------------------------------------------------------

    def _held_meters(self, process: str) -> Iterator[Finding]:
        held = f"in use by the daemon, process {process}, and left to it"
        try:
            status = read_status(self._settings.folder / DATABASE_NAME, self._clock.utc_s())
        except StatusError as exc:
            yield warn("meters", f"{held}. {exc}")
            return
        meters, names = status.meters or {}, _meters_of(self._settings)
        for name in names:
            if name not in meters:
                yield warn(name, f"{held}; nothing is known of it yet, look again in a minute")
            elif meters[name].works:
                yield ok(name, f"{held}; it works, serial number {meters[name].serial_number}, on {meters[name].port}")
            else:
                yield warn(name, f"{held}; {meters[name].trouble or 'it is being set up'} ({meters[name].port})")
        yield _last_values(status, self._settings.api.report_interval_ms / 1000)

    # -- clock, test reading -------------------------------------------------------------------------------------------

    def _clock_finding(self) -> Finding:
        verdict = self._time_keeper.verdict()
        if verdict.trusted:
            return ok("clock", verdict.why)
        if verdict.kind == "date disagrees":
            return fail(
                "clock", f"{verdict.why}; readings are held back: sudo timedatectl set-ntp true, then look again"
            )
        return warn("clock", f"{verdict.why}; readings may be held back: see  timedatectl  and the network")

    def _send_test(self) -> Finding:
        """Send what the meters showed. A made-up value would stay in the records of the battery for ever."""
        types = {"V": self._settings.api.voltage_type, "A": self._settings.api.current_type}
        measured = [
            (check.mean, check.quantity.unit) for check in self._meters if check.plausible and check.mean is not None
        ]
        if self._daemon:
            return warn("send-test", "nothing sent: the daemon runs, and sends by itself (see --status)")
        if not self._settings.api.password:
            return warn("send-test", "nothing sent: only the service knows the password")
        if not measured or list(_swapped(self._meters)):
            return warn("send-test", "nothing sent: no meter has a reading that can be sent")
        if not self._time_keeper.verdict().trusted:
            return warn("send-test", "nothing sent: the time is not known")
        now_utc_ms = int(self._clock.utc_s() * 1000)
        told = " and ".join(f"{value:.4f} {unit}" for value, unit in measured)
        readings = [
            Datum(mac=self._settings.self_mac, type=types[unit], data=value, timestamp_utc_ms=now_utc_ms)
            for value, unit in measured
        ]
        try:
            self._cloud.client.send_batch(readings)
        except AretasError as exc:
            return fail("send-test", f"{told}: {exc}")
        return ok("send-test", f"{told}, as just measured: sent and accepted")


def _last_values(status: Status, report_interval_s: float) -> Finding:
    last = status.last
    if last is None:
        return warn("readings", "none yet: look again in a minute")
    values = ((last.voltage_v, "V"), (last.current_a, "A"), (last.power_kw, "kW"))
    told = ", ".join(f"{value:.4f} {unit}" for value, unit in values if value is not None)
    message = f"the daemon's last average, {last.age_s:.0f} s ago: {told or 'nothing'}"
    late = last.age_s > 2 * report_interval_s + _LATE_S
    return warn("readings", f"{message}; see --status") if late or not told else ok("readings", message)


# -- the meters --------------------------------------------------------------------------------------------------------


def _meters_of(settings: Settings) -> list[str]:
    meters = ((VOLTAGE, settings.voltage_meter), (CURRENT, settings.current_meter))
    return [name for name, meter in meters if meter is not None]


def _meter_checks(settings: Settings, clock: Clock) -> list[MeterCheck]:
    """Return the checks of the meters, which are made and read exactly as the daemon makes and reads them."""
    sampler = SerialPortReadWriter(settings, AveragingBuffer(clock), clock)
    quantities = []
    if (voltage := settings.voltage_meter) is not None:
        quantities.append(
            Quantity(
                name=VOLTAGE,
                key="xdm_voltage",
                unit="V",
                settings=voltage,
                minimum=voltage.minimum_v,
                maximum=voltage.maximum_v,
                convert=lambda reading: sampler.do_fetch_params(0.0, reading, None, False).voltage_v,
            )
        )
    if (current := settings.current_meter) is not None:
        steps = current.shunt_resistance_ohm is not None and current.range_name == "50mV" and not current.range_fixed
        quantities.append(
            Quantity(
                name=CURRENT,
                key="xdm_current",
                unit="A",
                settings=current,
                minimum=current.minimum_a,
                maximum=current.maximum_a,
                convert=lambda reading: sampler.do_fetch_params(0.0, None, reading, False).current_a,
                wider_range=current.range_number + 1 if steps else None,
                shunt_ohm=current.shunt_resistance_ohm,
                reversed=current.reverse_polarity,
                offset_serial=current.zero_offset.serial_number,
            )
        )
    return [MeterCheck(quantity, sampler.readers[quantity.name].meter, clock) for quantity in quantities]


def _swapped(meters: Iterable[MeterCheck]) -> Iterator[Finding]:
    by_unit = {check.quantity.unit: check for check in meters}
    voltage, current = by_unit.get("V"), by_unit.get("A")
    low = voltage is not None and voltage.mean is not None and abs(voltage.mean) < _SWAPPED_BELOW_V
    if low and current is not None and current.overloaded:
        message = "the two meters seem swapped: exchange xdm_voltage_port and xdm_current_port, or the cables"
        yield fail(f"{CURRENT} plausibility", message)


# -- the computer ------------------------------------------------------------------------------------------------------


def _disk(settings: Settings, clock: Clock) -> Finding:
    folder, store = settings.folder, Store(settings.folder / DATABASE_NAME, clock)
    foreign = [
        name for name in (DATABASE_NAME, LOG_NAME) if (folder / name).exists() and not os.access(folder / name, os.W_OK)
    ]
    if foreign:
        return fail("disk", f"this user may not write {' and '.join(foreign)} in {folder}: run it as the files' owner")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        free_mb = shutil.disk_usage(folder).free / 1e6
    except OSError as exc:
        return fail(
            "disk", f"{folder} cannot be written ({exc.strerror or exc}): make room (df -h), or see whose it is"
        )
    grows_mb = settings.store.max_mb - store.size_bytes() / 1e6 + _LOGS_MB
    if free_mb < _TOO_FULL_MB:
        return fail("disk", f"only {free_mb:.0f} MB free in {folder}: make room, readings will be lost when it is full")
    if free_mb < grows_mb:
        message = f"{free_mb:.0f} MB free in {folder}, but database and log may grow by {grows_mb:.0f} MB"
        return warn("disk", f"{message}: make room, or a smaller store_max_mb")
    return ok("disk", f"{free_mb:.0f} MB free in {folder}")


def _redis(settings: RedisSettings | None) -> Finding:
    if settings is None:
        return ok("redis", "switched off in the configuration")
    from redis_cache import trouble_with  # here, because most do without it

    where = f"{settings.host}:{settings.port}"
    if settings.password == "":
        return warn("redis", f"{where}: not tried: only the service knows the password")
    trouble = trouble_with(settings)
    if trouble is not None:
        return fail(
            "redis",
            f"{where}: {trouble.rstrip('.')}. See to the server and to [REDIS]; everything else goes on without it",
        )
    return ok("redis", f"{where} answers")


# -- the cloud ---------------------------------------------------------------------------------------------------------


class _Cloud:
    """The account at the platform. The ``Date`` of its answers vouches for the clock."""

    def __init__(self, settings: Settings, time_keeper: TimeKeeper) -> None:
        self._mac = settings.self_mac
        self._url = settings.api.url
        self._password_known = bool(settings.api.password)
        self.client = AretasClient(
            settings.api.url,
            settings.api.username,
            settings.api.password,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            read_timeout_s=_READ_TIMEOUT_S,
            total_timeout_s=_REQUEST_TIMEOUT_S,
            on_answer=time_keeper.heed_answer,
        )

    def run(self) -> Iterator[Finding]:
        """Log in and look for the device. Blocks 16 s at most."""
        if not self._password_known:
            yield warn(
                "log-in",
                "not tried: only the service knows the password. To have it tried, name a file that holds it: "
                "sudo API_PASSWORD_FILE=/path/of/the/file sh run.sh --check",
            )
            yield warn("device", f"{self._mac}: not looked for, because there was no log-in")
            return
        try:
            self.client.log_in()
        except LogInRefused as exc:
            yield fail("log-in", f"{exc}: correct API_USERNAME and API_PASSWORD in config.cfg")
        except AretasError as exc:
            yield fail("log-in", f"{exc}: see to the network and API_URL; readings are kept and sent later")
        else:
            yield ok("log-in", self._url)
            yield self._device()
            return
        yield warn("device", f"{self._mac}: not looked for, because the log-in failed")

    def _device(self) -> Finding:
        try:
            devices = self.client.devices(invalidate_cache=True)
        except AretasError as exc:
            return warn("device", f"{self._mac}: the account does not tell its devices ({exc}): look again later")
        if self._mac not in devices.all_macs:
            known = ", ".join(map(str, sorted(devices.all_macs)[:5])) or "none"
            return fail(
                "device",
                f"{self._mac} is not among the devices of the account ({known}): correct self_mac; "
                "a new device is known after some minutes",
            )
        names = [device.description for device in devices.details if device.mac == self._mac and device.description]
        return ok("device", f"{self._mac} is one of the account's devices{f', {names[0]}' if names else ''}")
