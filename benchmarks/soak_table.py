"""The table of the long runs: does the ledger close, is the energy right, and does anything grow?

Shared by ``soak.py`` (30 days by a virtual clock) and ``hour.py`` (an hour by this one), so that both give the same
rows. What is kept while a run lasts is allocated at its beginning: the measuring must not be the leak.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import random
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stand import Figure, usage_of
from ledger import Tally
from measurements import Datum
from simulator.battery import Battery
from store import NAME as DATABASE_NAME

COLUMNS = ("rss_mb", "fds", "threads", "log_bytes", "db_bytes")
DAY_S = 86_400.0
ENERGY_PERCENT = 0.1
_SLOT_S = 600.0
_GAUSS = ((-math.sqrt(0.6), 5 / 9), (0.0, 8 / 9), (math.sqrt(0.6), 5 / 9))


class DayBattery(Battery):
    """A battery that lives: the sun by day, a base load, and every ten minutes a load of its own for some minutes.

    -46 to +39 A, 48 to 56 V. Loads begin and end within an instant at random moments, as a kettle does; what comes
    between two of them is smooth, so that ``energy_kwh()`` can be exact. ``day_s``: how long a day is, from sunrise at
    0 on; ``largest_load_a`` = 0: nothing is switched on or off.
    """

    def __init__(self, seed: int = 1, *, day_s: float = DAY_S, largest_load_a: float = 40.0) -> None:
        super().__init__()
        self._day_s = day_s
        self._load = functools.lru_cache(maxsize=16)(functools.partial(_load, seed, largest_load_a))

    def current_a(self, mono_s: float) -> float:
        """Return the current at this moment, in amperes; charging is positive."""
        sun_a = max(0.0, 45.0 * math.sin(mono_s * math.tau / self._day_s))
        start_s, end_s, load_a = self._load(mono_s // _SLOT_S)
        return sun_a - 6.0 - (load_a if start_s <= mono_s < end_s else 0.0)

    def voltage_v(self, mono_s: float) -> float:
        """Return the voltage at this moment, in volts."""
        return 52.0 - 2.5 * math.cos(mono_s * math.tau / self._day_s) + 0.02 * self.current_a(mono_s)

    def energy_kwh(self, from_mono_s: float, to_mono_s: float) -> float:
        """Return the integral of V * I over this time, in kWh; charging is positive."""
        slots = range(int(from_mono_s // _SLOT_S), int(to_mono_s // _SLOT_S) + 1)
        edges = {edge for slot in slots for edge in (slot * _SLOT_S, *self._load(float(slot))[:2])}
        half_s = self._day_s / 2
        edges |= {half_s * half for half in range(int(from_mono_s // half_s), int(to_mono_s // half_s) + 1)}
        inside = sorted(edge for edge in edges if from_mono_s < edge < to_mono_s)
        pieces = itertools.pairwise([from_mono_s, *inside, to_mono_s])
        return sum(self._smooth_kws(start, end) for start, end in pieces) / 3600

    def _smooth_kws(self, from_mono_s: float, to_mono_s: float) -> float:
        middle, half = (from_mono_s + to_mono_s) / 2, (to_mono_s - from_mono_s) / 2
        moments = ((middle + half * place, weight) for place, weight in _GAUSS)
        return half * sum(weight * self.voltage_v(at) * self.current_a(at) / 1000 for at, weight in moments)


def _load(seed: int, largest_a: float, slot: float) -> tuple[float, float, float]:
    """Return when the load of a slot begins and ends, and how strong it is: seconds, seconds, amperes."""
    chance = random.Random(f"{seed}/{slot:.0f}")
    start_s, end_s = sorted(chance.uniform(slot * _SLOT_S, (slot + 1) * _SLOT_S) for _ in range(2))
    return start_s, end_s, chance.uniform(0.0, largest_a)


class Course:
    """What a process held, sample by sample: the columns of ``COLUMNS``, and when (seconds since the begin)."""

    def __init__(self, most_samples: int) -> None:
        self.count = 0
        self.at_s = array("d", bytes(8 * most_samples))
        self._columns = {name: array("d", bytes(8 * most_samples)) for name in COLUMNS}

    def note(self, at_s: float, pid: int, log_bytes: int, folder: Path) -> None:
        """Take a sample."""
        usage = usage_of(pid)
        held = {
            "rss_mb": usage.rss_mb,
            "fds": float(len(os.listdir(f"/proc/{pid}/fd"))),  # noqa: PTH208  (a count, no paths)
            "threads": float(usage.threads),
            "log_bytes": float(log_bytes),
            "db_bytes": float(sum(each.stat().st_size for each in folder.glob(f"{DATABASE_NAME}*"))),
        }
        self.at_s[self.count] = at_s
        for name, value in held.items():
            self._columns[name][self.count] = value
        self.count += 1

    def of(self, name: str, from_s: float = 0.0) -> list[float]:
        """Return a column from a moment on."""
        return [self._columns[name][row] for row in range(self.count) if self.at_s[row] >= from_s]

    def slope(self, name: str, per_s: float, from_s: float) -> float:
        """Return by how much a column grows in ``per_s`` seconds, fitted from a moment on."""
        times_s, values = [at for at in self.at_s[: self.count] if at >= from_s], self.of(name, from_s)
        mean_s, mean = sum(times_s) / len(times_s), sum(values) / len(values)
        spread = sum((at - mean_s) ** 2 for at in times_s)
        return per_s * sum((at - mean_s) * (v - mean) for at, v in zip(times_s, values, strict=True)) / spread


class Arrivals:
    """What the cloud accepted, repetitions included: type, timestamp and value."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self._types, self._utc_ms = array("q", bytes(8 * most)), array("q", bytes(8 * most))
        self._values = array("d", bytes(8 * most))

    def add(self, data: Iterable[Datum]) -> None:
        """Take in what has arrived."""
        for datum in data:
            self._types[self.count], self._utc_ms[self.count] = datum.type, datum.timestamp_utc_ms
            self._values[self.count] = datum.data
            self.count += 1

    def readings(self) -> dict[tuple[int, int], float]:
        """Return each reading once: (type, timestamp in ms) -> value."""
        rows = range(self.count)
        return {(self._types[row], self._utc_ms[row]): self._values[row] for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A reported interval by the monotonic clock, and what was reported of it."""

    utc_ms: int
    start_mono_s: float
    end_mono_s: float
    power_kw: float


def stored_numbers(folder: Path) -> dict[int, int]:
    """Return what the database has: the timestamp of each interval in ms -> its number."""
    with closing(sqlite3.connect(f"file:{folder / DATABASE_NAME}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT end_utc_ms, id FROM interval WHERE end_utc_ms IS NOT NULL"))


def energy_figures(battery: DayBattery, spans: Sequence[Span]) -> Iterator[Figure]:
    """Yield the rows that compare the reported energy with the battery's own, charge and discharge apart."""
    for name, sign in (("in", 1.0), ("out", -1.0)):
        true_kwh = reported_kwh = 0.0
        for span in spans:
            energy_kwh = battery.energy_kwh(span.start_mono_s, span.end_mono_s)
            if energy_kwh * sign > 0:
                true_kwh += abs(energy_kwh)
                reported_kwh += sign * span.power_kw * (span.end_mono_s - span.start_mono_s) / 3600
        error_percent = 100 * abs(reported_kwh / true_kwh - 1) if true_kwh else math.nan
        yield Figure(what=f"energy {name}, the battery's own", value=true_kwh, unit="kWh", digits=3)
        yield Figure(what=f"energy {name} of the reported kW", value=reported_kwh, unit="kWh", digits=3)
        yield Figure(what=f"  error, energy {name}", value=error_percent, unit="%", digits=4, at_most=ENERGY_PERCENT)


def ledger_figures(tally: Tally, distinct: int, arrived: int, complaints: int) -> Iterator[Figure]:
    """Yield the rows of the ledger. ``distinct`` readings were ``arrived``; ``complaints``: ERRORs in the log."""
    off = abs(tally.made - tally.delivered - tally.waiting - tally.rejected - tally.dropped)
    yield Figure(what="readings made", value=tally.made, digits=0)
    yield Figure(what="  delivered", value=tally.delivered, digits=0)
    yield Figure(what="  waiting at the end", value=tally.waiting, digits=0)
    yield Figure(what="  set aside (refused by the cloud)", value=tally.rejected, digits=0)
    yield Figure(what="  dropped", value=tally.dropped, digits=0, at_most=0)
    yield Figure(what="  not accounted for", value=off, digits=0, at_most=0)
    yield Figure(
        what="  delivered by the ledger, not in the cloud", value=tally.delivered - distinct, digits=0, at_most=0
    )
    yield Figure(what="  in the cloud twice", value=arrived - distinct, digits=0)
    yield Figure(what="lines of level ERROR or above", value=complaints, digits=0, at_most=0)


def course_figures(course: Course, *, unit: str, per_s: float, from_s: float, rss_mb: float) -> Iterator[Figure]:
    """Yield the rows of what the process held, with its growth per ``unit`` from a moment on."""
    rss, fds, threads = (course.of(name, from_s) for name in COLUMNS[:3])
    yield Figure(what="memory (RSS) after warming up", value=rss[0], unit="MB", digits=1)
    yield Figure(what="  at the end", value=rss[-1], unit="MB", digits=1)
    yield Figure(what=f"  growth per {unit}", value=course.slope("rss_mb", per_s, from_s), unit="MB", at_most=rss_mb)
    yield Figure(what="file descriptors, fewest", value=min(fds), digits=0)
    yield Figure(what="  most", value=max(fds), digits=0)
    yield Figure(what=f"  growth per {unit}", value=course.slope("fds", per_s, from_s), digits=4, at_most=0.05)
    yield Figure(what="threads, fewest", value=min(threads), digits=0)
    yield Figure(what="  most", value=max(threads), digits=0)
    yield Figure(what=f"  growth per {unit}", value=course.slope("threads", per_s, from_s), digits=4, at_most=0.05)
    log = course.slope("log_bytes", per_s, from_s) / 1e6
    yield Figure(what=f"log per {unit}", value=log, unit="MB", digits=3)
    half_s = (from_s + course.at_s[course.count - 1]) / 2
    later = course.slope("log_bytes", per_s, half_s) / 1e6
    yield Figure(what="  of the second half alone", value=later, unit="MB", digits=3)
    database = course.of("db_bytes")
    yield Figure(what="database at the end", value=database[-1] / 1e6, unit="MB", digits=1)
