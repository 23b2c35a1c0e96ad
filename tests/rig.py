"""A rig to break: two virtual meters on real ports, a virtual cloud, and the daemon as a real process beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from clock import Clock
from simulator.cloud import VirtualCloud
from simulator.meter import VirtualMeter
from simulator.ports import Port, PtyPort

PROJECT = Path(__file__).resolve().parent.parent
MAC = 123456789
USERNAME = "operator@example.invalid"
PASSWORD = "p%4 &ss#w+rd=ä?/"  # every character that a log-in ever stumbled over
SHUNT_OHM = 0.0006667
VOLTAGE_SERIAL, CURRENT_SERIAL = "22511040", "22511041"
TYPES = {532: "V", 531: "A", 533: "kW"}

_AGAIN_WITHIN_S = 0.04  # of the first query of a sample; the next sample is due after 50 ms at the earliest

Sections = Mapping[str, Mapping[str, object]]


def wait_for(condition: Callable[[], object], *, within_s: float = 15.0, what: str = "") -> None:
    """Poll until the condition holds; fail the test if it does not in time."""
    clock, pause = Clock(), threading.Event()
    deadline_mono_s = clock.mono_s() + within_s
    while not condition():
        assert clock.mono_s() < deadline_mono_s, f"not within {within_s} s: {what or condition}"
        pause.wait(0.02)


def samples_of(meter: VirtualMeter, *, checked: bool) -> dict[float, float]:
    """Return the readings that were asked for as samples: when for the first time, by the monotonic clock -> the value.

    A sample is asked for twice, and if the answers differ a third time; the middle one counts. ``checked``: those alone
    that a check of the settings follows, which at 500 ms and above tells them from what is asked between samples.
    """
    served = {each.mono_s: each.value for each in meter.served}
    samples: dict[float, float] = {}
    run: list[float] = []
    for command in meter.received:
        if command.text == "MEAS1?" and command.mono_s in served:
            run = [*run, command.mono_s] if run and command.mono_s - run[0] < _AGAIN_WITHIN_S else [command.mono_s]
        if run and command.text == ("FUNC1?" if checked else "MEAS1?"):
            samples[run[0]] = sorted(served[mono_s] for mono_s in run)[len(run) // 2]
        if command.text != "MEAS1?":
            run = []
    return samples


class Rig:
    """Two meters (52 V; 10 mV across the shunt, unless told), a cloud, and a folder with the daemon's configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        volts: Callable[[float], float] = lambda _mono_s: 52.0,
        shunt_volts: Callable[[float], float] = lambda _mono_s: 0.010,
        plugged_in: bool = True,
        cloud_up: bool = True,
    ) -> None:
        self.folder = folder
        self.voltage = VirtualMeter(volts, serial_number=VOLTAGE_SERIAL, seed=1)
        self.current = VirtualMeter(shunt_volts, serial_number=CURRENT_SERIAL, seed=2)
        self.voltage_port: Port = PtyPort(self.voltage, link=folder / "voltage")
        self.current_port: Port = PtyPort(self.current, link=folder / "current")
        self.cloud = VirtualCloud(username=USERNAME, password=PASSWORD, macs=(MAC,))
        self._plugged_in = plugged_in
        self._cloud_up = cloud_up
        self._stack = ExitStack()
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for port in (self.voltage_port, self.current_port):
                stack.callback(port.stop)
                if self._plugged_in:
                    port.start()
            stack.enter_context(self.cloud)
            if not self._cloud_up:
                self.cloud.stop()  # its address is known now
            stack.callback(self._end_process)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # -- the configuration -------------------------------------------------------------------------------------------

    def configure(self, sections: Sections | None = None, *, sample_ms: int = 250, report_ms: int = 1000) -> Path:
        """Write config.cfg; ``sections`` adds keys or overrides them, ``None`` as a value leaves a key out."""
        content: dict[str, dict[str, object]] = {
            "DEFAULT": {
                "self_mac": MAC,
                "API_URL": self.cloud.url,
                "API_USERNAME": USERNAME,
                "API_PASSWORD": PASSWORD,
            },
            "API": {"report_interval": report_ms},
            "SERIAL": {"sample_interval": sample_ms},
            "XDM": {
                "xdm_voltage_enable": True,
                "xdm_voltage_port": self.folder / "voltage",
                "xdm_current_enable": True,
                "xdm_current_port": self.folder / "current",
                "xdm_shunt_resistance": SHUNT_OHM,
            },
        }
        for section, keys in (sections or {}).items():
            content.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in content.items():
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items() if value is not None)]
        path = self.folder / "config.cfg"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    # -- the process -------------------------------------------------------------------------------------------------

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the daemon in the folder, again if need be."""
        self._end_process()
        self.process = start_daemon(self.folder, *arguments)
        return self.process

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; return the exit code and the seconds it took to end."""
        assert self.process is not None
        clock = Clock()
        started_mono_s = clock.mono_s()
        self.process.send_signal(number)
        code = self.process.wait(20)
        return code, clock.mono_s() - started_mono_s

    @property
    def log(self) -> str:
        """All that is in the log so far."""
        path = self.folder / "PowerMonitorMiddleware.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def wait_for_log(self, text: str, *, within_s: float = 15.0) -> None:
        """Wait until the log holds this text."""
        wait_for(lambda: text in self.log or self._ended(), within_s=within_s, what=f"log line {text!r}")
        assert text in self.log, self._last_words()

    # -- what arrived ------------------------------------------------------------------------------------------------

    def arrived(self) -> dict[int, dict[str, float]]:
        """Return what the cloud has: timestamp in ms -> {"V": ..., "A": ..., "kW": ..., "other sensor type": ...}."""
        intervals: dict[int, dict[str, float]] = {}
        for received in self.cloud.received:
            datum = received.datum
            intervals.setdefault(datum.timestamp_utc_ms, {})[TYPES.get(datum.type, str(datum.type))] = datum.data
        return intervals

    def wait_for_intervals(
        self, count: int, units: str = "V A kW", *, within_s: float = 25.0
    ) -> list[dict[str, float]]:
        """Wait until ``count`` intervals with just these quantities have arrived since now, and return them."""
        before = set(self.arrived())

        def fresh() -> list[dict[str, float]]:
            return [
                values
                for timestamp, values in sorted(self.arrived().items())
                if timestamp not in before and values.keys() == set(units.split())
            ]

        wanted = f"{count} intervals with {units}"
        wait_for(lambda: len(fresh()) >= count or self._ended(), within_s=within_s, what=wanted)
        assert len(fresh()) >= count, self._last_words()
        return fresh()

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _last_words(self) -> str:
        assert self.process is not None
        assert self.process.stderr is not None
        return f"the daemon has ended with {self.process.poll()}: {self.process.stderr.read()}"

    def _end_process(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(10)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
            self.process = None


def start_daemon(
    folder: Path, *arguments: str, code: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start ``backend_daemon.py`` with ``folder`` as its working directory; ``code`` runs instead of it if given.

    ``environment`` is added to that of the tests.
    """
    program = [str(PROJECT / "backend_daemon.py")] if code is None else ["-c", code]
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", *program, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", **(environment or {})},
    )


def run_daemon(folder: Path, *arguments: str, within_s: float = 25.0) -> subprocess.CompletedProcess[str]:
    """Run ``backend_daemon.py`` to its end."""
    process = start_daemon(folder, *arguments)
    try:
        stdout, stderr = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)
