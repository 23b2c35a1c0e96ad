"""A bench on which time flies: the whole daemon, as ``build()`` wires it, on two virtual meters whose truth is known.

Everything is in this process and reads one ``FastClock``; between the daemon and the meters there are real ptys and
pyserial, between it and the cloud a real socket. The house's waits ask the clock how long to wait, so they shrink with
it. These do not, and are dealt with here: the time pyserial's ``read()`` may take (``transport._POLL_S``, shrunk while
the bench is up); the heartbeats of queues (1 s: a wait that ends early or late does nothing); the time pyserial's
``write()`` may take (0.5 s; no pty is ever that full); the deadlines of HTTP.

Time of the computer itself does not shrink: what it needs to wake a thread (0.1 ms to some ms) looks ``speed`` times
longer. So a fast run makes more timeouts, never fewer, and its times of recovery are upper bounds.

How a reading is judged. Each meter's truth is a slow ramp, so that no two moments half a minute apart look alike:
60 to 500 V at 0.3 V/s, and -42 to +42 mV across the shunt at 30 uV/s. A reading asked for at ``start`` shows a
conversion finished at most 333.46 ms before (sample and hold) and not after the reply, which comes within 1 s. So it
is right if the truth had its value, give or take three display steps, at some moment of that window: 30 mV on the
500 V range, 3 uV on the 50 mV range. The virtual meters' noise is a tenth of a step; the rest is for the driver, to
which two readings that lie two steps apart confirm each other, one of them rounded by the display. A value that is
stale by one more sample interval of 500 ms, at least 166 ms outside the window, is 50 mV or 5 uV off, and the transient
after a change of range 20 to 40 steps: both are seen. In a wrong range or speed, or with AUTO on, the virtual meters
read 2 % too much.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

from averaging_buffer import AveragingBuffer
from clock import Clock
from daemon import Daemon
from measurements import PowerSample
from settings import load_settings
from simulator.battery import SHUNT_OHM
from simulator.cloud import VirtualCloud
from simulator.converter import CONVERSION_PERIOD_S, RangeSetting
from simulator.meter import VirtualMeter
from simulator.mishaps import MeterPair
from simulator.modes import Mode, Rate
from simulator.ports import PtyPort

HOLD_S = CONVERSION_PERIOD_S[Rate.SLOW]
REPLY_WITHIN_S = 1.0
VERIFY_INTERVAL_S = 2.0
MAC = 123456789
VOLTAGE_TYPE, CURRENT_TYPE, POWER_TYPE = 532, 531, 533
_USERNAME, _PASSWORD = "benchmark@example.invalid", "not-a-secret"
_WRONG_GAIN = 1.02
_VERIFIED_EACH_FROM_MS = 500
_NOISE_STEPS = 0.1
_STEPS = 3
_POLL_S = 0.005
_ENDS_WITHIN_S = 10.0

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
xdm_voltage_port = {folder}/voltage
xdm_voltage_range = 500V
xdm_current_enable = True
xdm_current_port = {folder}/current
xdm_current_range = {current_range}
xdm_shunt_resistance = {shunt_ohm}
xdm_scan_ports = {folder}/voltage*, {folder}/current*
xdm_verify_interval = {verify_ms}
"""
_SERIALS = """\
xdm_voltage_serial = 22511040
xdm_current_serial = 22511041
"""


class FastClock(Clock):
    """The clocks of this machine, ``speed`` times as fast from its construction on; vouched for by the kernel."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._began_mono_s = super().mono_s()
        self._began_utc_s = super().utc_s()

    def mono_s(self) -> float:
        return self._began_mono_s + (super().mono_s() - self._began_mono_s) * self.speed

    def utc_s(self) -> float:
        return self._began_utc_s + self.mono_s() - self._began_mono_s

    def timeout_s(self, until_mono_s: float) -> float:
        return super().timeout_s(until_mono_s) / self.speed

    def kernel_synchronised(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A truth: from ``low`` to ``high`` and back, for ever, at ``slope_per_s``; ``step`` is that of the display."""

    low: float
    high: float
    slope_per_s: float
    step: float

    def __call__(self, mono_s: float) -> float:
        """Return the truth at this moment."""
        half_s = (self.high - self.low) / self.slope_per_s
        phase_s = mono_s % (2 * half_s)
        return self.low + self.slope_per_s * (phase_s if phase_s < half_s else 2 * half_s - phase_s)

    def had(self, value: float, from_mono_s: float, to_mono_s: float) -> bool:
        """Return whether the truth had this value, give or take some steps, at some moment of the window."""
        ends = (self(from_mono_s), self(to_mono_s))
        # Where it turns inside the window, it was beyond both ends, by half of what is missing at the most.
        beyond = (self.slope_per_s * (to_mono_s - from_mono_s) - abs(ends[0] - ends[1])) / 2
        slack = beyond + _STEPS * self.step
        return min(ends) - slack <= value <= max(ends) + slack


VOLTS = Ramp(low=60.0, high=500.0, slope_per_s=0.3, step=0.01)
SHUNT_VOLTS = Ramp(low=-0.042, high=0.042, slope_per_s=30e-6, step=1e-6)


def _gain(*right_indices: int) -> Callable[[Mode, RangeSetting, Rate], float]:
    """Return the gain of a meter that reads right on these ranges only, at the slow speed."""
    right = [RangeSetting(index=index, auto=False) for index in right_indices]
    return lambda mode, setting, rate: (
        1.0 if (mode, rate) == (Mode.DCV, Rate.SLOW) and setting in right else _WRONG_GAIN
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One sample that the daemon counted, and when it did."""

    sample: PowerSample
    counted_mono_s: float


class _Recording(AveragingBuffer):
    """The daemon's buffer, which also notes what it is given in ``taken``."""

    def __init__(self, taken: list[Taken], clock: Clock, *rest: float) -> None:
        super().__init__(clock, *rest)
        self.taken = taken

    def complete(self, begun_mono_s: float, sample: PowerSample) -> None:
        super().complete(begun_mono_s, sample)
        self.taken.append(Taken(sample=sample, counted_mono_s=self._clock.mono_s()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """One line of the log, WARNING or above."""

    mono_s: float
    logger: str
    message: str


class _Listener(logging.Handler):
    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self.warnings: list[Warned] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings.append(Warned(mono_s=self._clock.mono_s(), logger=record.name, message=record.getMessage()))


class FastBench:
    """Two meters, a cloud and a running daemon, inside a ``with``, ``speed`` times as fast as the day.

    ``serials``: whether the configuration names the meters' serial numbers; ``steps``: whether the daemon may change
    the range of the current meter, whose readings are then judged by the steps of the wider one.
    """

    def __init__(
        self,
        *,
        speed: float,
        sample_ms: int = 500,
        report_ms: int = 10_000,
        serials: bool = True,
        steps: bool = False,
    ) -> None:
        self.clock = FastClock(speed)
        # What was asked for so shortly before a fault may be refused for it: it is under way, or not yet verified.
        self.victims_s = 1.0 if sample_ms >= _VERIFIED_EACH_FROM_MS else 1.0 + VERIFY_INTERVAL_S
        self.sample_interval_s, self.report_interval_s = sample_ms / 1000, report_ms / 1000
        self.taken: list[Taken] = []
        self.cloud = VirtualCloud(username=_USERNAME, password=_PASSWORD, macs=[MAC])
        self.truths = {"voltage": VOLTS, "current": replace(SHUNT_VOLTS, step=10e-6) if steps else SHUNT_VOLTS}
        self._serials, self._steps = serials, steps
        self._listener = _Listener(self.clock)
        self._pause = threading.Event()
        self._stack = ExitStack()

    @property
    def warnings(self) -> list[Warned]:
        """What the daemon has told the operator so far, WARNING or above."""
        return self._listener.warnings

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
            voltage, current = (
                PtyPort(
                    VirtualMeter(
                        truth,
                        serial_number=serial_number,
                        clock=self.clock,
                        seed=number,
                        noise_steps=_NOISE_STEPS,
                        served_limit=20_000,
                        gain=_gain(*right_indices),
                    ),
                    link=folder / name,
                )
                for number, (name, truth, serial_number, right_indices) in enumerate(
                    (
                        ("voltage", VOLTS, "22511040", (4,)),
                        ("current", SHUNT_VOLTS, "22511041", (0, 1) if self._steps else (0,)),
                    )
                )
            )
            for part in (voltage, current, self.cloud):
                stack.enter_context(part)
            self.pair = MeterPair(voltage, current)
            self._start_daemon(folder, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait_until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait until the condition holds, at the longest ``within_s`` of the fast clock. Return whether it does."""
        deadline_mono_s = self.clock.mono_s() + within_s
        while not condition():
            if self.clock.mono_s() >= deadline_mono_s or self.crashed:
                return condition()
            self._pause.wait(_POLL_S)
        return True

    def let_pass(self, seconds: float) -> None:
        """Let time of the fast clock pass."""
        self._pause.wait(self.clock.timeout_s(self.clock.mono_s() + seconds))

    def _start_daemon(self, folder: Path, stack: ExitStack) -> None:
        config = _CONFIG.format(
            mac=MAC,
            url=self.cloud.url,
            username=_USERNAME,
            password=_PASSWORD,
            report_ms=round(self.report_interval_s * 1000),
            sample_ms=round(self.sample_interval_s * 1000),
            folder=folder,
            current_range="50mV" if self._steps else "50mV fixed",
            verify_ms=round(VERIFY_INTERVAL_S * 1000),
            shunt_ohm=SHUNT_OHM,
        )
        path = folder / "config.cfg"
        path.touch(mode=0o600)
        path.write_text(config + (_SERIALS if self._serials else ""), encoding="utf-8")
        stack.enter_context(patch("xdm1041.transport._POLL_S", 0.05 / self.clock.speed))
        self.crashed = False
        root = logging.getLogger()
        root.addHandler(self._listener)
        stack.callback(root.removeHandler, self._listener)
        with patch("daemon.AveragingBuffer", partial(_Recording, self.taken)):
            self.daemon = Daemon(load_settings(path), self.clock, lambda _secret: None)
        self.daemon.start(self._on_crash)
        stack.callback(self._stop_daemon)

    def _on_crash(self) -> None:
        self.crashed = True

    def _stop_daemon(self) -> None:
        daemon = self.daemon
        real_s = _ENDS_WITHIN_S * self.clock.speed
        for workers in ([daemon.sampler], [daemon.recorder, daemon.reporter], [daemon.uploader]):
            for worker in workers:
                worker.request_stop()
            for worker in workers:
                if not worker.join(self.clock.mono_s() + real_s):
                    raise TimeoutError(f"{worker.name} does not end")
        daemon.outbox.close()
