"""A clock that a test moves by hand."""

from __future__ import annotations

from clock import Clock


class ManualClock(Clock):
    """Stands still until it is moved; the two clocks move together unless ``step_utc`` is used."""

    def __init__(self, mono_s: float = 1000.0, utc_s: float = 1_700_000_000.0) -> None:
        self._mono_s, self._utc_s = mono_s, utc_s
        self.boot = "boot"
        self.synchronised = True

    def mono_s(self) -> float:
        return self._mono_s

    def utc_s(self) -> float:
        return self._utc_s

    def boot_id(self) -> str:
        return self.boot

    def kernel_synchronised(self) -> bool:
        return self.synchronised

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._mono_s += seconds
        self._utc_s += seconds

    def step_utc(self, seconds: float) -> None:
        """Set the wall clock, as NTP does."""
        self._utc_s += seconds


class TrustedClock(Clock):
    """The clocks of this machine, on a machine whose kernel says that they are right."""

    def kernel_synchronised(self) -> bool:
        return True


class LeapingClock(ManualClock):
    """A manual clock for a single thread: whoever waits on it finds that the time has passed already."""

    def timeout_s(self, until_mono_s: float) -> float:
        self.advance(max(0.0, until_mono_s - self.mono_s()))
        return 0.0
