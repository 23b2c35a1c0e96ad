"""What ``kill -9`` costs: 200 kills in 10 minutes of a sample every 100 ms and a report every second.

    python3 -m benchmarks.kills [--kills 200] [--minutes 10] [--report-ms 1000] [--seed 1]

The daemon is killed at a random moment, 1 s to 5 s after its start (so that the kills fit the minutes), and started
again; every fourth kill falls in the 100 ms after the end of an interval, where it is closed, sent and settled. The
meters need 2 s to 3 s to be set up, so that some kills fall in the start and most while samples are taken. Before every
third start the cloud is made to lose its reply to one of the next batches, which it stores.

After each kill the database is looked at, in a copy that nobody else has open: which interval is open, which samples
are in its journal, what waits. At the end each interval is judged by that and by the meters' own record: a kill may
cost the read in flight, but no journaled sample, and none that was taken after the restart.
A report interval longer than a start (``--report-ms 5000``) has kills, and samples before and after them, within one
interval.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.stand import CLOCK, CURRENT_TYPE, POWER_TYPE, VOLTAGE_TYPE, Figure, print_table, say
from simulator.battery import SHUNT_OHM, BatteryModel
from simulator.cloud import Received
from simulator.cloud_http import Exchange, lose_reply
from store import NAME
from tests.rig import Rig, run_daemon, samples_of

_SAMPLE_MS = 100
_EARLIEST_S = 1.0
_AIMED_EVERY, _AIMED_WITHIN_S = 4, 0.1
_LOSE_EVERY, _LOSE_WITHIN_BATCHES = 3, 4
_SETTLED_WITHIN_S = 0.5  # of the cloud's acceptance, a reading is settled in the database
_RELATIVE_ERROR = 1e-9
_DRAINED_WITHIN_S = 60.0
_ON_THE_WAY_S = 0.02  # from the daemon's asking to the meter's noting it


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A row of the journal."""

    start_mono_s: float
    voltage_v: float | None
    current_a: float | None
    power_kw: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the intervals: when it ended, what of it waits, and the means and counts of V, A, kW."""

    end_utc_ms: int | None
    waiting: int
    means: tuple[float | None, ...]
    counts: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """What stands in the database at one moment."""

    mono_s: float
    open_end_mono_s: float
    open_end_utc_ms: int
    samples: Sequence[Sample]
    rows: Sequence[Row]

    def by_interval(self, report_ms: int) -> dict[int, list[Sample]]:
        """Return the journaled samples by the end of the interval that each lies in: the open one, or a later one."""
        groups: dict[int, list[Sample]] = defaultdict(list)
        for sample in self.samples:
            later = max(0, math.ceil((sample.start_mono_s - self.open_end_mono_s) / (report_ms / 1000)))
            groups[self.open_end_utc_ms + later * report_ms].append(sample)
        return groups

    def waits(self, end_utc_ms: int, sensor_type: int) -> bool:
        """Return whether this reading waits."""
        bit = {VOLTAGE_TYPE: 1, CURRENT_TYPE: 2, POWER_TYPE: 4}[sensor_type]
        return any(row.end_utc_ms == end_utc_ms and row.waiting & bit for row in self.rows)


@dataclass(slots=True, kw_only=True)
class Record:
    """Everything that was seen of the run."""

    report_ms: int
    killed: list[Database | None] = field(default_factory=list)  # None: before there was a database
    last: Database | None = None
    lost_requests: set[int] = field(default_factory=set)
    received: list[Received] = field(default_factory=list)
    served: Mapping[int, list[tuple[float, float]]] = field(default_factory=dict)  # by type, (mono_s, V or A)
    status: dict[str, object] = field(default_factory=dict)


def look(folder: Path) -> Database | None:
    """Return what stands in the database, from a copy, so that nothing of it is touched."""
    mono_s = CLOCK.mono_s()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        for suffix in ("", "-wal"):
            if (folder / f"{NAME}{suffix}").exists():
                shutil.copy(folder / f"{NAME}{suffix}", name)
        with closing(sqlite3.connect(Path(name) / NAME)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'open_interval'").fetchone():
                return None
            ends = connection.execute("SELECT end_mono_s, end_utc_ms FROM open_interval").fetchone()
            if ends is None:
                return None
            samples = connection.execute("SELECT start_mono_s, voltage, current, power FROM sample ORDER BY 1")
            rows = connection.execute(
                "SELECT end_utc_ms, waiting, voltage, current, power, voltage_count, current_count, power_count "
                "FROM interval ORDER BY id"
            )
            return Database(
                mono_s=mono_s,
                open_end_mono_s=ends[0],
                open_end_utc_ms=ends[1],
                samples=[
                    Sample(start_mono_s=row[0], voltage_v=row[1], current_a=row[2], power_kw=row[3]) for row in samples
                ],
                rows=[Row(end_utc_ms=row[0], waiting=row[1], means=row[2:5], counts=row[5:8]) for row in rows],
            )


class Killer:
    """Runs the daemon and kills it."""

    def __init__(self, *, kills: int, minutes: float, report_ms: int, seed: int) -> None:
        self.record = Record(report_ms=report_ms)
        self._kills = kills
        self._latest_s = max(_EARLIEST_S, 2 * minutes * 60 / kills - _EARLIEST_S)
        self._random = random.Random(seed)
        self._pause = threading.Event()

    def run(self) -> Record:
        """Do all the kills, let everything be delivered, and return what was seen."""
        battery = BatteryModel()
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-") as name,
            Rig(Path(name), volts=battery.voltage_v, shunt_volts=battery.shunt_v) as rig,
        ):
            rig.configure(sample_ms=_SAMPLE_MS, report_ms=self.record.report_ms)
            for number in range(self._kills):
                if number % _LOSE_EVERY == 0:
                    self._lose_a_reply(rig)
                rig.start()
                self._pause.wait(self._delay_s(aimed=number % _AIMED_EVERY == 0))
                self._kill(rig)
                if (number + 1) % 20 == 0:
                    say(f"{number + 1} kills")
            self._finish(rig)
        return self.record

    def _lose_a_reply(self, rig: Rig) -> None:
        after = self._random.randrange(_LOSE_WITHIN_BATCHES)
        rig.cloud.behave()

        def lose(exchange: Exchange) -> None:
            nonlocal after
            if after == 0:
                self.record.lost_requests.add(exchange.request_index)
                lose_reply(exchange, reset=self._random.random() < 0.5)
            else:
                exchange.right_reply()(exchange)
            after -= 1

        rig.cloud.misbehave(lose, call="ingest/std/batch", times=after + 1)

    def _delay_s(self, *, aimed: bool) -> float:
        delay_s = self._random.uniform(_EARLIEST_S, self._latest_s)
        if aimed:
            report_s = self.record.report_ms / 1000
            delay_s += report_s - (CLOCK.utc_s() + delay_s) % report_s + self._random.uniform(0.0, _AIMED_WITHIN_S)
        return delay_s

    def _kill(self, rig: Rig) -> None:
        assert rig.process is not None
        if rig.process.poll() is not None:
            raise SystemExit(f"the daemon ended by itself: {rig.log[-2000:]}")
        rig.process.kill()
        rig.process.wait()
        self.record.killed.append(look(rig.folder))

    def _finish(self, rig: Rig) -> None:
        rig.cloud.behave()
        rig.start()
        deadline_mono_s = CLOCK.mono_s() + _DRAINED_WITHIN_S
        self._pause.wait(5.0)
        while " 0 waiting" not in rig.log.splitlines()[-1] and CLOCK.mono_s() < deadline_mono_s:
            self._pause.wait(0.1)
        rig.stop()
        self.record.last = look(rig.folder)
        self.record.status = json.loads(run_daemon(rig.folder, "--status", "--json").stdout)
        self.record.received = rig.cloud.received
        self.record.served = {
            VOLTAGE_TYPE: list(samples_of(rig.voltage, checked=False).items()),
            CURRENT_TYPE: [(at, volts / SHUNT_OHM) for at, volts in samples_of(rig.current, checked=False).items()],
        }


class Judge:
    """Compares what was reported with what was journaled and with what the meters said."""

    def __init__(self, record: Record) -> None:
        assert record.last is not None
        self._record = record
        self._report_s = record.report_ms / 1000
        self._to_utc_s = CLOCK.utc_s() - CLOCK.mono_s()
        self._rows = {row.end_utc_ms: row for row in record.last.rows if row.end_utc_ms is not None}
        self._held = sum(row.end_utc_ms is None for row in record.last.rows)
        self._arrived: dict[tuple[int, int], list[Received]] = defaultdict(list)
        for received in record.received:
            self._arrived[received.datum.timestamp_utc_ms, received.datum.type].append(received)
        self._kills = [each for each in record.killed if each is not None]
        self._journaled: dict[int, dict[float, Sample]] = defaultdict(dict)  # by interval, of every kill in it
        self._last_kill_mono_s: dict[int, float] = {}
        for database in self._kills:
            for end_utc_ms, samples in database.by_interval(record.report_ms).items():
                self._journaled[end_utc_ms] |= {sample.start_mono_s: sample for sample in samples}
                self._last_kill_mono_s[end_utc_ms] = database.mono_s

    def figures(self) -> list[Figure]:
        """Return the rows of the table."""
        kills = self._record.killed
        both = sum(self._goes_on(end_utc_ms) for end_utc_ms in self._journaled)
        missing = self._missing_journaled() | self._missing_within_runs()
        wrong, errors = self._wrong_means()
        ledger = self._record.status["ledger"]
        assert isinstance(ledger, dict)
        return [
            _count("kills", len(kills)),
            _count("kills with samples in the journal", sum(bool(each and each.samples) for each in kills)),
            _count("journaled samples at a kill, in all", sum(len(each.samples) for each in self._kills)),
            _count("kills between an interval's end and its closing", sum(self._late(each) for each in self._kills)),
            _count("intervals reported", len(self._rows)),
            _count("intervals with samples from before a kill", len(self._journaled)),
            _count("intervals with samples from before and after one", both),
            _count("intervals missing or without V, A or kW", len(missing) + self._held, at_most=0),
            _count("intervals whose mean lacks a sample or has another", wrong, at_most=0),
            Figure(what="largest relative error of a mean", value=max(errors), digits=-1, at_most=_RELATIVE_ERROR),
            _count("samples taken and not journaled at a kill, most", self._most_lost(), at_most=1),
            _count("requests whose reply was lost on purpose", len(self._record.lost_requests)),
            *self._duplicates(),
            _count("readings waiting at the end", int(ledger["readings_waiting"]), at_most=0),
            _count("readings delivered by the ledger, not the cloud", self._ledger_error(ledger), at_most=0),
            _count("sums of the ledger that do not close", int(ledger["closes"] is not True), at_most=0),
        ]

    def _late(self, database: Database) -> bool:
        return database.mono_s > database.open_end_mono_s

    def _goes_on(self, end_utc_ms: int) -> bool:
        row = self._rows.get(end_utc_ms)
        return row is not None and (row.counts[0] or 0) > len(self._journaled[end_utc_ms])

    def _missing_journaled(self) -> set[int]:
        missing = set()
        for end_utc_ms, samples in self._journaled.items():
            values = [(each.voltage_v, each.current_a, each.power_kw) for each in samples.values()]
            for place, sensor_type in enumerate((VOLTAGE_TYPE, CURRENT_TYPE, POWER_TYPE)):
                has_value = any(each[place] is not None for each in values)
                if has_value and (end_utc_ms, sensor_type) not in self._arrived:
                    missing.add(end_utc_ms)
        for end_utc_ms in missing:
            say(f"missing: {end_utc_ms}, {len(self._journaled[end_utc_ms])} samples of it were journaled")
        return missing

    def _missing_within_runs(self) -> set[int]:
        """Return the intervals that are not there between the first one of a run and the one that was open at its end.

        And those, of all, of which the cloud has not all three readings.
        """
        missing, began_utc_ms = set(), 0
        for database in self._kills:
            ends = [end for end in self._rows if began_utc_ms < end < database.open_end_utc_ms]
            if ends:
                missing |= set(range(min(ends), database.open_end_utc_ms, self._record.report_ms)) - set(ends)
            began_utc_ms = database.open_end_utc_ms
        for end_utc_ms in self._rows:
            if any((end_utc_ms, each) not in self._arrived for each in (VOLTAGE_TYPE, CURRENT_TYPE, POWER_TYPE)):
                missing.add(end_utc_ms)
        return missing

    def _wrong_means(self) -> tuple[int, list[float]]:
        """Return how many intervals have a mean that is not that of their samples, and the errors of the others."""
        wrong, errors = 0, [0.0]
        for end_utc_ms in self._rows:
            of_this = [self._error(end_utc_ms, place) for place in range(3)]
            bad = [each for each in of_this if not each <= _RELATIVE_ERROR]
            if bad:
                wrong += 1
                samples = len(self._journaled.get(end_utc_ms, ()))
                say(f"wrong: {end_utc_ms}, {samples} samples of it were journaled, {self._rows[end_utc_ms]}")
            errors += [each for each in of_this if not math.isnan(each)]
        return wrong, errors

    def _error(self, end_utc_ms: int, place: int) -> float:
        """Return the relative error of a reported mean; not a number if it cannot be that of its samples.

        A kW with samples from after a kill is not judged (0): which of their V and A were read together, the daemon
        knows.
        """
        sensor_type = (VOLTAGE_TYPE, CURRENT_TYPE, POWER_TYPE)[place]
        journaled = self._journaled.get(end_utc_ms, {})
        row = self._rows[end_utc_ms]
        count = row.counts[place] or 0
        values = [(each.voltage_v, each.current_a, each.power_kw)[place] for each in journaled.values()]
        used = [value for value in values if value is not None]
        if sensor_type == POWER_TYPE and count > len(used):
            return 0.0
        end_mono_s = end_utc_ms / 1000 - self._to_utc_s
        begin_mono_s = self._last_kill_mono_s.get(end_utc_ms, end_mono_s - self._report_s)
        later = [
            value
            for mono_s, value in self._record.served.get(sensor_type, [])
            if begin_mono_s < mono_s <= end_mono_s + _ON_THE_WAY_S
        ]
        used += later[max(0, len(later) - (count - len(used))) :] if count > len(used) else []
        reported = self._arrived.get((end_utc_ms, sensor_type))
        if len(used) != count or not used or reported is None:
            return math.nan
        mean = statistics.fmean(used)
        return max(abs(each.datum.data - mean) / abs(mean) for each in reported)

    def _most_lost(self) -> int:
        """Return how many samples a kill has cost at the most: given by the meter, and not in the journal.

        Of kills in whose run a sample was journaled: before that the meters are asked for readings that are none.
        """
        most, began_mono_s = 0, 0.0
        for database in self._kills:
            last_mono_s = max((each.start_mono_s for each in database.samples), default=0.0)
            if last_mono_s > began_mono_s:
                later = (mono_s for mono_s, _ in self._record.served[VOLTAGE_TYPE] if mono_s < database.mono_s)
                most = max(most, sum(mono_s > last_mono_s + _ON_THE_WAY_S for mono_s in later))
            began_mono_s = database.mono_s
        return most

    def _duplicates(self) -> list[Figure]:
        lost = killed = unexplained = 0
        for (end_utc_ms, sensor_type), several in self._arrived.items():
            for received in several[:-1]:  # each of these but the last should have been the last
                if received.request_index in self._record.lost_requests:
                    lost += 1
                elif self._was_killed(received, end_utc_ms, sensor_type):
                    killed += 1
                else:
                    unexplained += 1
        changed = sum(len({each.datum.data for each in several}) - 1 for several in self._arrived.values())
        return [
            _count("readings doubled, their reply lost on purpose", lost),
            _count("readings doubled, killed before the reply was written down", killed),
            _count("readings doubled for no such reason", unexplained, at_most=0),
            _count("readings doubled with another value", changed, at_most=0),
        ]

    def _was_killed(self, received: Received, end_utc_ms: int, sensor_type: int) -> bool:
        """Return whether the daemon was killed so soon after this arrival that it still waited in the database."""
        for database in self._kills:
            if 0 <= database.mono_s - received.arrival_mono_s < _SETTLED_WITHIN_S:
                return database.waits(end_utc_ms, sensor_type)
        return False

    def _ledger_error(self, ledger: Mapping[str, object]) -> int:
        delivered = ledger["readings_delivered"]
        assert isinstance(delivered, int)
        return abs(delivered - len(self._arrived))


def _count(what: str, value: int, *, at_most: float | None = None) -> Figure:
    return Figure(what=what, value=value, digits=0, at_most=at_most)


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.kills", description="What does kill -9 cost?")
    parser.add_argument("--kills", type=int, default=200, help="how many (200)")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long they take together, about (10)")
    parser.add_argument("--report-ms", type=int, default=1000, help="the report interval, in ms (1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (1)")
    options = parser.parse_args()
    if options.kills < 1:
        parser.error("--kills must be at least 1")
    say(f"{options.kills} kills in about {options.minutes:g} min")
    killer = Killer(kills=options.kills, minutes=options.minutes, report_ms=options.report_ms, seed=options.seed)
    title = f"Kills: {options.kills} in {options.minutes:g} min, sample 100 ms, report {options.report_ms / 1000:g} s"
    return print_table(title, Judge(killer.run()).figures())


if __name__ == "__main__":
    sys.exit(main())
