"""The two clocks of the house, in one object so that tests and accelerated runs can put another in its place.

The monotonic clock schedules and measures; the wall clock stamps. Nothing else in the project reads a clock to decide
anything. The difference between the two is ``time_keeper.py``'s; only the ends of intervals are ever converted by it.
"""

from __future__ import annotations

import ctypes
import sys
import time
import uuid
from pathlib import Path

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised to a reliable server


class Clock:
    """The clocks of this machine."""

    def mono_s(self) -> float:
        """Return the monotonic clock, in seconds since an arbitrary moment. Never steps."""
        return time.monotonic()

    def utc_s(self) -> float:
        """Return the wall clock, in seconds since the epoch (UTC). May step at any time."""
        return time.time()

    def boot_id(self) -> str:
        """Return a name of this boot of the computer, within which the monotonic clock can be compared.

        The kernel's on Linux; elsewhere one of this run of the program.
        """
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return str(uuid.uuid4())

    def kernel_synchronised(self) -> bool:
        """Return whether the kernel says that NTP has set the wall clock right. False where it cannot tell."""
        if sys.platform != "linux":
            return False
        request = ctypes.create_string_buffer(512)  # struct timex, all zero: a question that changes nothing
        state = int(ctypes.CDLL(None).adjtimex(request))
        return 0 <= state < _TIME_ERROR

    def timeout_s(self, until_mono_s: float) -> float:
        """Return how long a blocking call may wait so as to return at ``until_mono_s``: seconds, never negative."""
        return max(0.0, until_mono_s - self.mono_s())
