"""A virtual meter on a clock moved by hand, and the two things tests do with it: send a line, let time pass."""

from __future__ import annotations

from collections.abc import Callable

from simulator.meter import STEADY, Timing, VirtualMeter
from simulator.modes import Profile
from tests.clocks import ManualClock

LATENCY_S = 0.0025
SETTLED_S = 1.0
"""Longer than the zeros and the transient after CONF at rate S (0.2 + 2 x 0.333 s)."""


class Bench:
    """A noise-free meter with a steady reply latency; ``quantity`` may be changed at any time."""

    def __init__(
        self,
        quantity: float | Callable[[float], float] = 0.0,
        *,
        profile: Profile = Profile.V4_0_0,
        timing: Timing = STEADY,
        noise_steps: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.quantity = quantity
        self.clock = ManualClock()
        self.meter = VirtualMeter(
            self._at_leads, profile=profile, clock=self.clock, timing=timing, noise_steps=noise_steps, seed=seed
        )

    def _at_leads(self, mono_s: float) -> float:
        return self.quantity(mono_s) if callable(self.quantity) else self.quantity

    def wait(self, seconds: float) -> bytes:
        """Let time pass and return what the meter has sent by then."""
        self.clock.advance(seconds)
        return self.meter.take_due()

    def send(self, *lines: str) -> bytes:
        """Send lines one after the other, each with time to be answered. Return all bytes that came back."""
        came = b""
        for line in lines:
            self.meter.feed(line.encode("ascii") + b"\n")
            came += self.wait(0.06)
        return came

    def ask(self, line: str) -> str:
        """Send a line and return its reply without its line end; fail if it has none."""
        came = self.send(line)
        assert came.endswith(b"\r\n"), f"{line} was answered {came!r}"
        return came.decode("gbk").removesuffix("\r\n")
