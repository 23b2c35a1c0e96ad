"""What the daemon tells the web server: the only thing between the two.

Used by the threads of the web server. Guarantees: nothing here blocks, writes, or takes a lock; what is read is
replaced as a whole by its own thread, or is a number. Settings are those of the moment: a reload needs no word of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from accuracy import accuracy_of
from averaging_buffer import AveragingBuffer, summarise
from clock import Clock
from measurements import IntervalSummary, PowerSample, Uncertainty
from outbox import Outbox
from settings import Settings
from store import NAME as DATABASE_NAME
from worker import Worker

_STALE_AFTER_SAMPLES, _STALE_AFTER_AT_LEAST_S = 3, 5.0
_UNHEALTHY_AFTER_REPORTS, _UNHEALTHY_AFTER_AT_LEAST_S = 3, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The newest sample that has a value, when it was taken (milliseconds since the epoch), and how old it is."""

    sample: PowerSample
    taken_utc_ms: int
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thread of the daemon: how often it has shown that it goes on, and what is wrong with what it works on."""

    name: str
    beats: int
    trouble: str | None


class Facts:
    """How the daemon is doing now. Every member may be asked from any thread at any time.

    ``last_closed``: the end of the last interval, milliseconds since the epoch, and what it is reported as.
    ``meters``: as ``SerialPortReadWriter.meters()``. ``refused``: why a changed configuration is not used. ``hide``
    returns a text without the secrets in it.
    """

    def __init__(
        self,
        clock: Clock,
        settings: Callable[[], Settings],
        buffer: AveragingBuffer,
        outbox: Outbox,
        last_closed: Callable[[], tuple[int, IntervalSummary] | None],
        workers: Callable[[], Sequence[Worker]],
        meters: Callable[[], Mapping[str, Mapping[str, object]]],
        refused: Callable[[], str | None],
        hide: Callable[[str], str],
    ) -> None:
        self.clock = clock
        self.last_closed = last_closed
        self.meters = meters
        self.refused = refused
        self.hide = hide
        self._settings = settings
        self._buffer = buffer
        self._outbox = outbox
        self._workers = workers
        self._since_mono_s = clock.mono_s()

    # -- what is measured --------------------------------------------------------------------------------------------

    @property
    def now_utc_ms(self) -> int:
        """The time, in milliseconds since the epoch, by the wall clock of this computer."""
        return math.floor(self.clock.utc_s() * 1000)

    def live(self) -> Live | None:
        """Return the newest sample that has a value, ``None`` if there never was one."""
        sample = self._buffer.newest
        if sample is None:
            return None
        age_s = max(0.0, self.clock.mono_s() - sample.start_mono_s)
        return Live(sample=sample, taken_utc_ms=self.now_utc_ms - round(age_s * 1000), age_s=age_s)

    def uncertainty_of(self, sample: PowerSample) -> Uncertainty:
        """Return how far off one sample may be: by the instruments alone, for it is no mean of samples that scatter."""
        return accuracy_of(self._settings()).of(summarise([sample]))

    @property
    def stale_after_s(self) -> float:
        """From which age on a sample must not be taken for what is now: three sample intervals, 5 s at least."""
        return max(_STALE_AFTER_AT_LEAST_S, _STALE_AFTER_SAMPLES * self.sample_interval_ms / 1000)

    @property
    def unhealthy_after_s(self) -> float:
        """After how long without a good sample the daemon does not do its work: 30 s or three report intervals."""
        return max(_UNHEALTHY_AFTER_AT_LEAST_S, _UNHEALTHY_AFTER_REPORTS * self.report_interval_ms / 1000)

    @property
    def without_sample_s(self) -> float:
        """For how long no meter has given a good sample, at most since the server was made."""
        live = self.live()
        return self.clock.mono_s() - self._since_mono_s if live is None else live.age_s

    # -- how its parts are doing -------------------------------------------------------------------------------------

    def parts(self) -> list[Part]:
        """Return the threads of the daemon."""
        return [Part(name=each.name, beats=each.beats, trouble=each.trouble) for each in self._workers()]

    def trouble_of(self, name: str) -> str | None:
        """Return what is wrong with what a thread works on."""
        return next((each.trouble for each in self.parts() if each.name == name), None)

    @property
    def readings_waiting(self) -> int:
        """How many readings wait for the cloud."""
        return self._outbox.readings_waiting

    @property
    def oldest_waiting_s(self) -> float | None:
        """For how long the oldest of them has waited, in seconds."""
        return self._outbox.oldest_waiting_s

    @property
    def counts(self) -> dict[str, int]:
        """The counters of the ledger."""
        return self._outbox.counts

    @property
    def ledger_trouble(self) -> str | None:
        """Which sums of the ledger do not close, ``None`` if it is in order."""
        return self._outbox.ledger_trouble

    @property
    def database_trouble(self) -> str | None:
        """What is wrong with the database, ``None`` if it is well."""
        return self._outbox.trouble

    # -- settings that may be shown ----------------------------------------------------------------------------------

    @property
    def sample_interval_ms(self) -> int:
        """Time between two samples, in milliseconds."""
        return self._settings().serial.sample_interval_ms

    @property
    def report_interval_ms(self) -> int:
        """Time between two reports, in milliseconds."""
        return self._settings().api.report_interval_ms

    @property
    def deadband_a(self) -> float:
        """The current below which there is none, in amperes."""
        meter = self._settings().current_meter
        return 0.0 if meter is None else meter.deadband_a

    @property
    def has_redis(self) -> bool:
        """Whether the latest values go to a Redis server."""
        return self._settings().redis is not None

    @property
    def database(self) -> Path:
        """The database file."""
        return self._settings().folder / DATABASE_NAME
