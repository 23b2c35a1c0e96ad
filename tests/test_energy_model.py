"""Random walks of the counters over everything that can happen to them, against an exact reference.

A walk takes samples, in and out of order; lets the disk fail and heal, the clock be wrong, unknown and right, meters
stay away; it closes, stops, kills, reboots, reloads, resets and damages the file. What the counters must be is known
from the samples alone, in fractions.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from aretas_reporter import AretasReporter
from averaging_buffer import AveragingBuffer
from energy_book import EnergyTotals
from measurements import Datum, Device, Energy, PowerSample, Uncertainty
from outbox import Limits, Outbox
from quantities import counters_of
from reset_energy import _begin_anew
from store import NAME, Store, StoreUncertain
from tests.clocks import ManualClock
from tests.test_energy import exactly
from tests.test_outbox import _Fragile
from time_keeper import TimeKeeper

DEVICE = Device(
    mac=77,
    voltage_type=1,
    current_type=2,
    power_type=3,
    energy_in_type=4,
    energy_out_type=5,
    charge_in_type=6,
    charge_out_type=7,
    energy_type=8,
)
REPORT_MS = 5000
YEAR_S = 31_536_000.0
RISING = (4, 5, 6, 7)
LIMITS = Limits(sync_interval_s=REPORT_MS / 1000)


@dataclass
class Truth:
    """The samples that count, each with the stretch in which it is joined to others, and when counting began."""

    samples: list[tuple[int, PowerSample]] = field(default_factory=list)
    began_utc_s: float | None = None
    stretch: int = 0
    boot: int = 1

    def copy(self) -> Truth:
        return replace(self, samples=list(self.samples))


class _Store(_Fragile):
    """One that tells the walk of each commit, also of one that failed although it was written."""

    def __init__(self, walker: Walk) -> None:
        super().__init__(walker.folder, walker.clock)
        self._walker = walker

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[sqlite3.Cursor]:
        with super(_Fragile, self).transaction(synced=synced) as cursor:
            yield cursor
        self._walker.committed(synced=synced)
        if self.fails_after_commit:
            self.fails_after_commit = False
            raise StoreUncertain("disk I/O error")


class Walk:
    """One installation of the program, and what is true of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.clock = ManualClock(mono_s=1000.3, utc_s=1_800_000_000.5)
        self.wrong_s = 0.0
        self.clock_was_wrong = self.clock_was_unknown = self.was_late = False
        self.boots = 1
        self.truth, self.durable, self.synced = Truth(), Truth(), Truth()
        self.on_disk: dict[Path, bytes] = {}
        self.stretches = 0
        self.has_begun = False
        self.published: list[tuple[float, ...]] = []
        self.coverage: list[float] = []
        self.sent: dict[int, dict[int, float]] = {}
        self.under_way: list[PowerSample] = []
        self.reset_utc_ms = 0.0  # what is older keeps the counters of before
        self.start()

    # -- the program

    def start(self, *, failing: bool = False) -> None:
        self.store = _Store(self)
        self.store.failing = failing
        self.outbox = Outbox(self.store, DEVICE, f"boot {self.boots}", self.clock, LIMITS)
        self.has_begun = True
        self.clock.boot = f"boot {self.boots}"
        self.buffer = AveragingBuffer(self.clock, sample_interval_s=1.0)
        self.reporter = AretasReporter(
            REPORT_MS,
            self.buffer,
            self.outbox,
            TimeKeeper(self.clock, 20.0),
            self.clock,
            self.publish,
            uncertainty=lambda _summary: Uncertainty(energy_kwh=0.001, charge_ah=0.01),
        )
        self.reporter._stop.set()  # it does not wait for the cloud
        if self.truth.began_utc_s is None:
            self.truth.began_utc_s = self.clock.utc_s() - self.wrong_s
        self.reporter.open_first_interval()
        if self.truth.boot != self.boots or not self.outbox.is_recovered:
            self.stretches += 1
            self.truth.boot = self.boots
            self.was_late = self.was_late or not self.outbox.is_recovered
            self.truth.stretch = self.stretches
        if self.outbox.is_recovered and not failing:
            self.durable = self.truth.copy()

    def committed(self, *, synced: bool = False) -> None:
        """Note what a kill, or a power cut, cannot take any more; ``recover()`` commits what was there before."""
        if self.has_begun and self.outbox.is_recovered:
            self.durable = self.truth.copy()
            if synced:
                self.confirmed()

    def confirmed(self) -> None:
        self.synced = self.durable.copy()
        self.on_disk = {each: each.read_bytes() for each in self.files() if each.exists()}

    def files(self) -> list[Path]:
        return [self.folder / NAME, self.folder / f"{NAME}-wal"]

    def publish(self, readings: Sequence[Datum]) -> None:
        """As the daemon does for Redis."""
        summary = self.reporter.last_summary
        if summary is not None and self.outbox.trouble is None:
            counters = counters_of(summary, self.outbox.totals)
            if "energy_in_kwh" in counters:
                self.published.append((counters["energy_in_kwh"], counters["energy_out_kwh"]))
            if "coverage_percent" in counters:
                self.coverage.append(counters["coverage_percent"])

    def beat(self) -> None:
        """What the reporter does each second beside closing."""
        interval = self.reporter._interval
        assert interval is not None
        verdict = self.reporter._time_keeper.verdict()
        if not self.outbox.is_recovered:
            self.reporter._recover_late(interval, verdict)
        if verdict.trusted:
            self.outbox.stamp(verdict.offset_s)

    def until(self, mono_s: float) -> None:
        while (interval := self.reporter._interval) is not None and interval.end_mono_s <= mono_s:
            self.clock.advance(max(0.0, interval.end_mono_s - self.clock.mono_s()))
            self.complete()
            self.beat()
            self.reporter._close(interval)
        self.clock.advance(max(0.0, mono_s - self.clock.mono_s()))

    def complete(self) -> None:
        self.random.shuffle(self.under_way)
        while self.under_way:
            sample = self.under_way.pop()
            self.truth.samples.append((self.truth.stretch, sample))
            self.buffer.complete(sample.start_mono_s, sample)
            self.outbox.journal([sample])

    # -- what can happen

    def sample(self) -> None:
        step_s = self.random.choice([1.0, 1.0, 1.0, 1.02, 2.0, 3.0, 3.05, 4.5, 30.0])
        self.until(self.clock.mono_s() + step_s)
        self.clock.advance(1e-4)  # an interval that has just been closed takes nothing more
        volts = self.random.choice([52.0, 52.0, 53.7, None])
        amperes = self.random.choice([round(self.random.uniform(-50, 50), 3), 0.0, 10.0, None])
        both = volts is not None and amperes is not None
        power_kw = volts * amperes / 1000 if both and volts is not None and amperes is not None else None
        sample = PowerSample(start_mono_s=self.clock.mono_s(), voltage_v=volts, current_a=amperes, power_kw=power_kw)
        self.buffer.begin(sample.start_mono_s)
        self.under_way.append(sample)
        if self.random.random() < 0.8:
            self.complete()

    def several(self) -> None:
        for _ in range(self.random.randrange(1, 12)):
            self.sample()

    def kill(self) -> None:
        self.under_way = []
        failing = self.store.failing and self.random.random() < 0.5
        self.store._drop_connection()
        self.truth = self.durable.copy()
        self.clock.advance(self.random.choice([0.1, 1.5, 4.0, 60.0]))
        self.maybe_reboot()
        self.start(failing=failing)

    def cut_power(self) -> None:
        """Of the file is left what the disk had confirmed at last."""
        self.under_way = []
        self.store._drop_connection()
        for each in self.files():
            each.unlink(missing_ok=True)
        for each, content in self.on_disk.items():
            each.write_bytes(content)
        (self.folder / f"{NAME}-shm").unlink(missing_ok=True)
        self.truth = self.synced.copy()
        self.clock.advance(30.0)
        self.reboot()
        self.start()

    def stop(self) -> None:
        self.complete()
        self.reporter.finish()
        self.outbox.close()
        in_order = not self.store.failing and self.outbox.is_recovered
        if not in_order:
            self.truth = self.durable.copy()
        self.clock.advance(self.random.choice([0.1, 1.5, 4.0, 60.0]))
        self.maybe_reboot()
        if in_order and self.random.random() < 0.2:
            self.reset()
        self.start(failing=self.store.failing and self.random.random() < 0.5)

    def maybe_reboot(self) -> None:
        if self.random.random() < 0.3:
            self.reboot()

    def reboot(self) -> None:
        self.boots += 1
        self.clock._mono_s = self.random.choice([12.7, self.clock.mono_s() + 1.0])

    def reset(self) -> None:
        store = Store(self.folder / NAME, self.clock)
        try:
            _begin_anew(store)
        finally:
            store.close()
        self.truth, self.durable = Truth(boot=0), Truth(boot=0)
        self.confirmed()
        self.published, self.coverage, self.sent = [], [], {}
        self.reset_utc_ms = self.clock.utc_s() * 1000

    def fail(self) -> None:
        self.complete()
        self.store._drop_connection()
        self.store.failing = True

    def heal(self) -> None:
        self.store.failing = False

    def fail_after_commit(self) -> None:
        self.store.fails_after_commit = not self.store.failing

    def lose_the_clock(self) -> None:
        """Nobody vouches for it, and it may be wrong."""
        wrong_s = self.random.choice([0.0, 0.0, 3600.0, 3 * YEAR_S, -30 * YEAR_S])
        self.clock_was_wrong = self.clock_was_wrong or wrong_s != 0
        self.clock.synchronised, self.clock_was_unknown = False, True
        self.clock.step_utc(wrong_s - self.wrong_s)
        self.wrong_s = wrong_s

    def know_the_clock(self) -> None:
        self.clock.step_utc(-self.wrong_s)
        self.wrong_s, self.clock.synchronised = 0.0, True

    def send(self) -> None:
        self.until(self.clock.mono_s() + self.random.choice([0.0, 1.1]))
        lent = self.outbox.lend(40)
        for each in lent:
            if each.datum.type in RISING and each.datum.timestamp_utc_ms > self.reset_utc_ms:
                self.sent.setdefault(each.datum.timestamp_utc_ms, {})[each.datum.type] = each.datum.data
        self.outbox.settle_delivered(lent)

    def damage(self) -> None:
        """The file of the running program becomes nonsense."""
        if self.store.failing or not self.outbox.is_recovered:
            return
        self.complete()
        self.store._drop_connection()
        (self.folder / NAME).write_bytes(b"nonsense" * 1000)
        (self.folder / f"{NAME}-wal").unlink(missing_ok=True)
        self.until(self.clock.mono_s() + 7.0)

    # -- the judgement

    def expected(self) -> Energy:
        energy, charge = [Fraction(0)] * 3, [Fraction(0)] * 3
        for stretch in range(self.stretches + 1):
            samples = [each for number, each in self.truth.samples if number == stretch]
            samples.sort(key=lambda each: each.start_mono_s)
            powers = exactly([(each.start_mono_s, each.power_kw) for each in samples])
            currents = exactly([(each.start_mono_s, each.current_a) for each in samples])
            energy = [first + second for first, second in zip(energy, powers, strict=True)]
            charge = [first + second for first, second in zip(charge, currents, strict=True)]
        flows = [*energy[:2], *charge[:2], energy[2], charge[2]]
        return Energy(**{each.name: float(value) for each, value in zip(fields(Energy), flows, strict=True)})

    def judge(self) -> EnergyTotals:
        """Bring everything to rest and compare."""
        self.heal()
        self.know_the_clock()
        self.clock.advance(1.1)
        self.complete()
        self.beat()
        self.sample()
        self.complete()
        self.until(self.clock.mono_s() + 6.0)
        self.send()
        totals = self.outbox.totals
        assert totals is not None
        assert astuple(totals.energy) == pytest.approx(astuple(self.expected()), rel=1e-9, abs=1e-9)
        interval = self.reporter._interval
        assert interval is not None
        assert self.truth.began_utc_s is not None
        begun_s = self.clock.utc_s() - (self.clock.mono_s() - interval.start_mono_s) - self.truth.began_utc_s
        if totals.since_utc_ms is not None and abs(totals.since_utc_ms / 1000 - self.truth.began_utc_s) < 0.1:
            assert totals.elapsed_s == pytest.approx(begun_s, abs=REPORT_MS / 1000 if self.was_late else 0.3)
        else:
            assert self.clock_was_unknown or self.was_late, (totals.since_utc_ms, self.truth.began_utc_s)
        assert totals.coverage_percent is not None
        assert 0 <= totals.coverage_percent <= 100
        assert all(0 <= each <= 100 for each in self.coverage)
        for earlier, later in pairwise(self.published):
            assert earlier[0] <= later[0]
            assert earlier[1] <= later[1]
        if not self.clock_was_wrong:
            for kind in RISING:
                values = [values[kind] for _, values in sorted(self.sent.items()) if kind in values]
                assert values == sorted(values), kind
        return totals


STEPS: dict[str, int] = {
    "several": 12,
    "sample": 8,
    "kill": 4,
    "cut_power": 2,
    "stop": 3,
    "fail": 2,
    "heal": 4,
    "fail_after_commit": 1,
    "lose_the_clock": 1,
    "know_the_clock": 2,
    "send": 6,
    "damage": 1,
}


def walk(folder: Path, seed: int, steps: dict[str, int] | None = None, count: int = 40) -> Walk:
    steps = steps or STEPS
    walker = Walk(folder, seed)
    try:
        for _ in range(count):
            (name,) = walker.random.choices(list(steps), list(steps.values()))
            action: Callable[[], None] = getattr(walker, name)
            action()
        walker.judge()
    finally:
        walker.store.close()
    return walker


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_counters_are_those_of_the_samples(tmp_path: Path, seed: int) -> None:
    walk(tmp_path, seed)
