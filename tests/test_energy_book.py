"""The counters of energy in a real database: never lost, never doubled, never 0 because of a restart."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import energy_book
from aretas_reporter import AretasReporter
from averaging_buffer import AveragingBuffer
from energy_book import Book, EnergyTotals
from measurements import Energy, Interval, IntervalSummary, LastPoints, PowerSample, Uncertainty
from outbox import Limits
from store import MIGRATIONS, NAME, DamagedRow
from tests.clocks import ManualClock
from tests.test_energy import flows, measured
from tests.test_outbox import DEVICE, Box, _Fragile, statistic
from time_keeper import TimeKeeper
from write_behind import Unwritten

HOUR = Energy(
    energy_in_kwh=3.0, energy_out_kwh=1.0, charge_in_ah=60.0, charge_out_ah=20.0, energy_s=3000.0, charge_s=3300.0
)


def hour(energy: Energy = HOUR, uncertainty: Uncertainty | None = None, at_s: float = 0.0) -> IntervalSummary:
    return IntervalSummary(
        voltage_v=statistic(52.0),
        current_a=None,
        power_kw=statistic(2.0),
        samples_read=4,
        energy=energy,
        uncertainty=uncertainty or Uncertainty(),
        last=LastPoints(power_kw=(at_s, 2.0), current_a=(at_s, 40.0)),
    )


def hours(number: int, *, utc_s: float = 0.0) -> Interval:
    """Return an hour that ends ``number`` hours after the boot; ``utc_s`` is when that was."""
    end_mono_s = 3600.0 * number
    return Interval(
        start_mono_s=end_mono_s - 3600, end_mono_s=end_mono_s, end_utc_ms=round((utc_s + end_mono_s) * 1000)
    )


def close_hours(box: Box, *numbers: int, trusted: bool = True, utc_s: float = 0.0) -> None:
    for number in numbers:
        following = hours(number + 1, utc_s=utc_s)
        box.close_interval(hour(), hours(number, utc_s=utc_s), following, clock_trusted=trusted)


def totals(box: Box) -> EnergyTotals:
    assert box.totals is not None
    return box.totals


def rows(folder: Path) -> list[tuple[float | None, ...]]:
    """Return in, out, in (counter), out (counter) of each interval in the database."""
    with closing(sqlite3.connect(folder / NAME)) as connection:
        return connection.execute(
            "SELECT energy_in, energy_out, total_energy_in, total_energy_out FROM interval ORDER BY id"
        ).fetchall()


# -- what is stored -------------------------------------------------------------------------------------------------


def test_every_column_of_an_interval_is_written(tmp_path: Path) -> None:
    box = Box(tmp_path)
    uncertainty = Uncertainty(
        voltage_v=0.1,
        current_a=0.2,
        power_kw=0.3,
        energy_kwh=0.4,
        energy_scatter_kwh=0.5,
        charge_ah=0.6,
        charge_scatter_ah=0.7,
    )
    box.close_interval(hour(), hours(1), hours(2), clock_trusted=True)
    box.close_interval(hour(uncertainty=uncertainty), hours(2), hours(3), clock_trusted=True)
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        (row,) = connection.execute(
            "SELECT energy_in, energy_out, charge_in, charge_out, energy_s, charge_s, total_energy_in, "
            "total_energy_out, total_charge_in, total_charge_out, voltage_uncertainty, current_uncertainty, "
            "power_uncertainty, energy_uncertainty, energy_scatter, charge_uncertainty, charge_scatter, "
            "voltage, power_count, device FROM interval WHERE id = 2"
        ).fetchall()
    assert row[:6] == (3.0, 1.0, 60.0, 20.0, 3000.0, 3300.0)
    assert row[6:10] == (6.0, 2.0, 120.0, 40.0)
    assert row[10:17] == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert row[17:] == (52.0, 4, 1)


def test_the_counters_survive_a_crash_and_equal_the_sum_of_the_intervals(tmp_path: Path) -> None:
    for first in (1, 4, 7):
        box = Box(tmp_path)
        close_hours(box, first, first + 1, first + 2)
        box.crash()
    box = Box(tmp_path)
    assert (totals(box).energy.energy_in_kwh, totals(box).net_energy_kwh) == (27.0, 18.0)
    assert [row[2] for row in rows(tmp_path)] == [3.0 * number for number in range(1, 10)]
    assert math.fsum(row[0] or 0 for row in rows(tmp_path)) == 27.0
    with box.store.reading() as cursor:
        assert energy_book.read_totals(cursor) == totals(box)


def test_uncertainty_adds_up_as_what_it_is() -> None:
    uncertainty = Uncertainty(energy_kwh=0.04, energy_scatter_kwh=0.008, charge_ah=0.8, charge_scatter_ah=None)
    charging = replace(HOUR, energy_out_kwh=0.0, charge_out_ah=0.0)
    counted = EnergyTotals().plus(charging, uncertainty).plus(charging, uncertainty)
    assert counted.energy_in_limit_kwh == pytest.approx(2 * 0.04)
    assert counted.energy_in_uncertainty_kwh == pytest.approx(math.sqrt(0.08**2 + 4 * 2 * 0.008**2))
    assert counted.charge_in_uncertainty_ah == pytest.approx(1.6)
    assert counted.energy_out_uncertainty_kwh is counted.charge_out_uncertainty_ah is None


@pytest.mark.parametrize(
    ("in_kwh", "out_kwh", "off_in_kwh", "off_out_kwh"),
    [
        (3.0, 0.0, 0.04, None),  # none of it can have gone the other way
        (0.0, 3.0, None, 0.04),
        (0.01, 0.0, 0.04, 0.03),  # perhaps 0.05 went in, perhaps 0.03 out
        (0.0, 0.0, 0.04, 0.04),  # perhaps all of it in, perhaps all of it out
        (1.5, 1.5, 0.04, 0.04),
        (3.0, 0.001, 0.04, 0.001),
    ],
)
def test_what_the_instruments_are_off_may_all_be_on_one_side(
    in_kwh: float, out_kwh: float, off_in_kwh: float | None, off_out_kwh: float | None
) -> None:
    energy = Energy(energy_in_kwh=in_kwh, energy_out_kwh=out_kwh, energy_s=3600.0)
    counted = EnergyTotals().plus(energy, Uncertainty(energy_kwh=0.04, energy_scatter_kwh=0.0))
    assert counted.energy_in_uncertainty_kwh == pytest.approx(off_in_kwh)
    assert counted.energy_out_uncertainty_kwh == pytest.approx(off_out_kwh)


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_an_unknown_uncertainty_never_makes_a_sum_look_better(tmp_path: Path, unknown: float | None) -> None:
    box = Box(tmp_path)
    uncertainty = Uncertainty(energy_kwh=unknown, energy_scatter_kwh=unknown, charge_ah=unknown)
    box.close_interval(hour(uncertainty=uncertainty), hours(1), hours(2), clock_trusted=True)
    box.crash()
    counted = totals(Box(tmp_path))
    assert counted.energy == HOUR
    assert counted.energy_in_limit_kwh == 3.0
    assert counted.energy_out_limit_kwh == 1.0
    assert (counted.charge_in_uncertainty_ah, counted.charge_out_uncertainty_ah) == (60.0, 20.0)


def test_coverage_is_of_the_energy_or_where_there_is_none_of_the_charge() -> None:
    assert EnergyTotals().coverage_percent is None
    both = EnergyTotals(energy=HOUR, elapsed_s=3600.0)
    assert both.gap_s == 600.0
    assert both.coverage_percent == pytest.approx(100 * 3000 / 3600)
    charge_only = EnergyTotals(energy=Energy(charge_in_ah=1.0, charge_s=1800.0), elapsed_s=3600.0)
    assert (charge_only.gap_s, charge_only.coverage_percent) == (1800.0, 50.0)


def test_what_is_stored_is_read_back_as_it_was_or_refused(tmp_path: Path) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, 2)
    text = box._counters.book.as_json()
    assert Book.from_json(text) == box._counters.book
    for damaged in ("", "null", "[]", "{}", text[:-9], text.replace("6.0", "NaN"), text.replace("6.0", "-6.0")):
        with pytest.raises(DamagedRow):
            Book.from_json(damaged)
    entries = json.loads(text)
    entries["totals"]["energy"]["energy_in_kwh"] = "6.0"
    with pytest.raises(DamagedRow):
        Book.from_json(json.dumps(entries))


def test_an_interval_without_a_reading_has_no_row_but_its_time_counts(tmp_path: Path) -> None:
    box = Box(tmp_path)
    close_hours(box, 1)
    nothing = IntervalSummary(voltage_v=None, current_a=None, power_kw=None, last=box.last_points())
    box.close_interval(nothing, hours(2), hours(3), clock_trusted=True)
    box.crash()
    box = Box(tmp_path)
    assert len(rows(tmp_path)) == 1
    assert (totals(box).elapsed_s, totals(box).gap_s) == (7200.0, 4200.0)
    assert box.last_points().power_kw == (0.0, 2.0)


def test_a_database_of_version_3_begins_to_count(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        for number in range(3):
            connection.executescript(f"BEGIN; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT")
        connection.execute("INSERT INTO device VALUES (1, 77, 532, 531, 533)")
        connection.execute(
            "INSERT INTO interval (id, device, waiting, end_utc_ms, voltage) VALUES (1, 1, 1, 1000, 52.0)"
        )
        connection.commit()
    box = Box(tmp_path)
    assert totals(box) == EnergyTotals()
    close_hours(box, 1)
    assert rows(tmp_path) == [(None, None, None, None), (3.0, 1.0, 3.0, 1.0)]
    assert totals(box).elapsed_s == 3600.0


def test_begun_anew_everything_is_0_and_the_history_stays(tmp_path: Path) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, 2)
    with box.store.transaction() as cursor:
        energy_book.begin_anew(cursor)
    box.crash()
    box = Box(tmp_path)
    assert totals(box) == EnergyTotals()
    close_hours(box, 9)
    assert (totals(box).energy, totals(box).elapsed_s) == (HOUR, 3600.0)
    assert [row[2] for row in rows(tmp_path)] == [3.0, 6.0, 3.0]


# -- when the database fails ----------------------------------------------------------------------------------------


def test_a_commit_that_was_written_although_it_failed_counts_once(tmp_path: Path) -> None:
    clock = ManualClock()
    store = _Fragile(tmp_path, clock)
    box = Box(tmp_path, store=store, clock=clock)
    close_hours(box, 1)
    store.fails_after_commit = True
    close_hours(box, 2)
    clock.advance(1.0)
    close_hours(box, 3)
    assert totals(box).energy.energy_in_kwh == 9.0
    box.crash()
    assert totals(Box(tmp_path)).energy.energy_in_kwh == 9.0
    assert math.fsum(row[0] or 0 for row in rows(tmp_path)) == 9.0


def test_while_the_disk_fails_energy_is_counted_and_no_counter_leaves_that_a_kill_would_make_fall(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    store = _Fragile(tmp_path, clock)
    box = Box(tmp_path, store=store, clock=clock)
    box.change(replace(DEVICE, energy_in_type=700), Limits())
    close_hours(box, 1)
    box.settle_delivered(box.lend(100))
    store.failing = True
    close_hours(box, 2, 3, 4)
    assert 700 not in {each.datum.type for each in box.lend(100)}
    assert totals(box).energy.energy_in_kwh == 12.0
    store.failing = False
    clock.advance(1.0)
    close_hours(box, 5, 6)
    assert [row[2] for row in rows(tmp_path)] == [3.0, 6.0, 9.0, 12.0, 15.0, 18.0]
    assert [each.datum.data for each in box.lend(100) if each.datum.type == 700] == [6.0, 9.0, 12.0, 15.0, 18.0]
    assert math.fsum(row[0] or 0 for row in rows(tmp_path)) == 18.0
    box.crash()
    assert totals(Box(tmp_path)).energy.energy_in_kwh == 18.0


def test_counters_that_were_late_for_the_disk_leave_only_once_it_has_confirmed_them(tmp_path: Path) -> None:
    clock = ManualClock()
    store = _Fragile(tmp_path, clock)
    box = Box(tmp_path, store=store, clock=clock, limits=Limits(sync_interval_s=3600.0))
    box.change(replace(DEVICE, energy_in_type=700), Limits(sync_interval_s=3600.0))
    close_hours(box, 1)
    store.failing = True
    clock.advance(3600.0)
    close_hours(box, 2)
    store.failing = False
    clock.advance(1.0)
    assert 6.0 in {each.datum.data for each in box.lend(100) if each.datum.type == 700}
    assert store.synced[-1]


def test_intervals_that_memory_has_no_room_for_stay_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox._UNSTORED_LIMIT", 3)
    clock = ManualClock()
    store = _Fragile(tmp_path, clock)
    box = Box(tmp_path, store=store, clock=clock)
    store.failing = True
    close_hours(box, *range(1, 11))
    store.failing = False
    clock.advance(1.0)
    close_hours(box, 11)
    assert box.tally().dropped > 0
    box.crash()
    assert totals(Box(tmp_path)).energy.energy_in_kwh == 33.0


@pytest.mark.parametrize("left_open", [False, True])
def test_a_database_that_is_unusable_at_the_start_gets_what_was_counted_without_it(
    tmp_path: Path, left_open: bool
) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, 2)
    if not left_open:
        with box.store.transaction() as cursor:
            cursor.execute("DELETE FROM open_interval")
    box.crash()
    clock = ManualClock()
    store = _Fragile(tmp_path, clock)
    store.failing = True
    box = Box(tmp_path, store=store, clock=clock)
    close_hours(box, 4, 5)
    assert box.totals is None  # nobody knows them
    assert {each.totals for each in box._pending.records.values()} == {None}
    store.failing = False
    clock.advance(1.0)
    left = box.recover()
    assert totals(box).energy.energy_in_kwh == 12.0
    if left is None:
        box.open_interval(hours(6), clock_trusted=True)
    else:
        box.close_left_open(left, hour(), hours(6))
    close_hours(box, 6)
    expected = 18.0 if left_open else 15.0
    assert totals(box).energy.energy_in_kwh == expected
    counters = [row[2] for row in rows(tmp_path) if row[2] is not None]
    assert counters == sorted(counters)
    assert counters[-1] == expected == math.fsum(row[0] or 0 for row in rows(tmp_path))
    box.crash()
    assert totals(Box(tmp_path)).energy.energy_in_kwh == expected


def test_when_the_file_is_damaged_while_running_the_counters_go_on(tmp_path: Path) -> None:
    clock = ManualClock()
    box = Box(tmp_path, clock=clock)
    close_hours(box, 1, 2)
    box.store.close()
    (tmp_path / NAME).write_bytes(b"garbage" * 500)
    close_hours(box, 3)
    clock.advance(1.0)
    close_hours(box, 4)
    close_hours(box, 5)
    assert totals(box).energy.energy_in_kwh == 15.0
    box.crash()
    assert totals(Box(tmp_path)).energy.energy_in_kwh == 15.0
    assert [row[2] for row in rows(tmp_path)] == [9.0, 12.0, 15.0]


@pytest.mark.parametrize("noticed", ["writing", "reading"])
def test_killed_as_soon_as_the_file_is_damaged_the_counters_are_in_the_new_one(tmp_path: Path, noticed: str) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, 2)
    box.store.close()
    (tmp_path / NAME).write_bytes(b"garbage" * 500)
    if noticed == "writing":
        box.journal([PowerSample(start_mono_s=7201.0, power_kw=1.0)])
    else:
        box.lend(10)
    assert list(tmp_path.glob("*.corrupt-*"))
    box.crash()
    assert totals(Box(tmp_path)).energy.energy_in_kwh == 6.0


def test_a_disk_that_makes_nothing_but_damaged_files_does_not_hang_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    box = Box(tmp_path, clock=clock)
    close_hours(box, 1)

    def damaged(_unwritten: Unwritten, _cursor: sqlite3.Cursor, _boot_id: str) -> None:
        raise DamagedRow("damaged")

    with monkeypatch.context() as patch:
        patch.setattr(Unwritten, "write", damaged)
        close_hours(box, 2)
    assert totals(box).energy.energy_in_kwh == 6.0
    assert len(list(tmp_path.glob(f"{NAME}.corrupt-*[0-9]"))) == 2  # the first one has the readings: it is kept
    clock.advance(1.0)
    close_hours(box, 3)
    box.crash()
    assert totals(Box(tmp_path)).energy.energy_in_kwh == 9.0


def test_when_the_file_is_damaged_at_the_start_the_counters_are_read_out_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, 2)
    box.crash()
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        connection.execute("UPDATE counter SET value = 'x'")
        connection.commit()
    box = Box(tmp_path)
    assert list(tmp_path.glob("*.corrupt-*"))
    assert (totals(box).energy.energy_in_kwh, totals(box).elapsed_s) == (6.0, 7200.0)
    assert "were read out of the damaged database" in caplog.text
    close_hours(box, 3)
    box.crash()
    assert totals(Box(tmp_path)).energy.energy_in_kwh == 9.0


def test_counters_that_can_be_read_no_more_are_told_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_bytes(b"this is no database" * 1000)
    box = Box(tmp_path)
    assert totals(box) == EnergyTotals()
    (told,) = [each for each in caplog.records if "counters of energy" in each.getMessage()]
    assert told.levelno == logging.CRITICAL
    assert "begin at 0 again" in told.getMessage()


def test_where_their_text_is_damaged_the_counters_of_the_newest_interval_are_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, 2)
    with box.store.transaction() as cursor:
        cursor.execute("UPDATE state SET value = substr(value, 1, 20) WHERE name = 'energy'")
    box.crash()
    box = Box(tmp_path)
    assert not list(tmp_path.glob("*.corrupt-*"))
    assert totals(box).energy.energy_in_kwh == 6.0
    assert "go on from those of the newest interval" in caplog.text
    close_hours(box, 3)
    assert [row[2] for row in rows(tmp_path)] == [3.0, 6.0, 9.0]
    assert totals(box).coverage_percent is not None
    assert (totals(box).energy_in_uncertainty_kwh or 0.0) >= 6.0  # how sure they are is not known any more


@pytest.mark.parametrize("text", ["Infinity", "1e999", "1" + 400 * "0", "-1", '"x"', "{}"])
@pytest.mark.parametrize("name", ["since_utc_ms", "elapsed_s", "energy_in_kwh", "counted_s"])
def test_whatever_the_damage_to_their_text_it_is_refused_and_no_crash(name: str, text: str) -> None:
    book = Book(totals=EnergyTotals(since_utc_ms=1), began=("boot", 1.0)).as_json()
    whole = json.loads(book)
    kept = {"since_utc_ms": "1", "counted_s": "0.0"}.get(name, "0.0")
    damaged = book.replace(f'"{name}": {kept}', f'"{name}": {text}')
    assert damaged != book
    assert Book.from_json(book).as_json() == json.dumps(whole)
    if (name, text) in {("since_utc_ms", "-1"), ("since_utc_ms", "1" + 400 * "0"), ("counted_s", "-1")}:
        return  # a number, however wrong
    with pytest.raises(DamagedRow):
        Book.from_json(damaged)


# -- the time that counting has taken -------------------------------------------------------------------------------


def test_the_time_switched_off_is_a_gap(tmp_path: Path) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, 2, utc_s=1_800_000_000.0)
    box.crash()
    box = Box(tmp_path, boot="the next")
    close_hours(box, 1, utc_s=1_800_100_000.0)
    assert (totals(box).elapsed_s, totals(box).since_utc_ms) == (103_600.0, 1_800_000_000_000)
    assert totals(box).gap_s == 103_600.0 - 9000.0


@pytest.mark.parametrize("step_s", [1e6, -1e6])
def test_a_step_of_the_clock_is_no_time_that_has_passed(tmp_path: Path, step_s: float) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, utc_s=1_800_000_000.0)
    close_hours(box, 2, 3, utc_s=1_800_000_000.0 + step_s)
    assert totals(box).elapsed_s == 3 * 3600
    assert totals(box).since_utc_ms == round((1_800_000_000 + step_s) * 1000)  # the clock was wrong at first


def test_a_wrong_clock_that_was_believed_for_a_while_does_no_lasting_harm(tmp_path: Path) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, utc_s=1_800_000_000.0)
    box.crash()
    box = Box(tmp_path, boot="the next")
    close_hours(box, 1, utc_s=1_900_000_000.0)  # three years ahead
    assert totals(box).elapsed_s == 1e8 + 3600
    close_hours(box, 2, utc_s=1_800_010_000.0)
    assert totals(box).elapsed_s == 10_000 + 7200
    close_hours(box, 3, utc_s=1_700_000_000.0)  # three years behind: at least what was counted has passed
    assert totals(box).elapsed_s == 4 * 3600


def test_before_the_clock_is_known_the_monotonic_one_counts(tmp_path: Path) -> None:
    box = Box(tmp_path)
    close_hours(box, 1, 2, trusted=False)
    assert (totals(box).elapsed_s, totals(box).since_utc_ms) == (7200.0, None)
    box.crash()
    box = Box(tmp_path, boot="the next")
    close_hours(box, 1, trusted=False)
    assert (totals(box).elapsed_s, totals(box).since_utc_ms) == (10_800.0, None)
    close_hours(box, 2, utc_s=1_800_000_000.0)
    assert totals(box).since_utc_ms == 1_800_000_000_000 - 7_200_000  # what was off before is not known
    close_hours(box, 3, trusted=False)
    assert totals(box).elapsed_s == 5 * 3600


def test_what_was_counted_before_a_database_without_counters_could_be_used_keeps_its_time(tmp_path: Path) -> None:
    clock = ManualClock()
    Box(tmp_path, clock=clock).crash()
    store = _Fragile(tmp_path, clock)
    store.failing = True
    box = Box(tmp_path, store=store, clock=clock)
    close_hours(box, 1, 2)
    store.failing = False
    clock.advance(1.0)
    box.recover()
    box.open_interval(hours(3), clock_trusted=True)
    close_hours(box, 3)
    assert (totals(box).elapsed_s, totals(box).since_utc_ms) == (10_800.0, 0)


# -- kills, restarts and reboots of the reporter --------------------------------------------------------------------


class Run:
    """A reporter with its buffer and its outbox on a clock moved by hand; every sample is journaled at once."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.clock = clock
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.buffer = AveragingBuffer(self.clock, sample_interval_s=1.0)
        self.outbox = Box(self.folder, clock=self.clock, boot=self.clock.boot)
        self.reporter = AretasReporter(5000, self.buffer, self.outbox, TimeKeeper(self.clock, 600), self.clock)
        self.reporter._stop.set()  # it does not wait for the cloud
        self.reporter.open_first_interval()

    def take(self, sample: PowerSample) -> None:
        self.buffer.begin(sample.start_mono_s)
        self.buffer.complete(sample.start_mono_s, sample)
        self.outbox.journal([sample])

    def until(self, mono_s: float) -> None:
        """Let time pass, closing each interval on time."""
        while (interval := self.reporter._interval) is not None and interval.end_mono_s <= mono_s:
            self.clock.advance(max(0.0, interval.end_mono_s - self.clock.mono_s()))
            self.reporter._close(interval)
        self.clock.advance(max(0.0, mono_s - self.clock.mono_s()))


moments = st.lists(
    st.tuples(
        st.sampled_from([1.0, 1.0, 1.0, 1.02, 2.0, 4.5, 30.0]),
        st.floats(min_value=-5, max_value=5).map(lambda x: round(x, 3)),
        st.sampled_from(["", "", "", "kill", "stop"]),
    ),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(moments)
def test_killed_and_stopped_at_any_moments_the_counters_are_those_of_an_undisturbed_run(
    moments: list[tuple[float, float, str]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), ManualClock(mono_s=1000.3, utc_s=1_700_000_000.5)
        run = Run(folder, clock)
        samples = []
        at = clock.mono_s()
        for step_s, power_kw, end in moments:
            at += step_s
            if end == "kill":
                run.outbox.crash()
                clock.advance(step_s * 0.9)
                run.start()
            elif end == "stop":
                run.reporter.finish()
                run.outbox.close()
                clock.advance(step_s * 0.9)
                run.start()
            run.until(at)
            samples.append(PowerSample(start_mono_s=clock.mono_s(), power_kw=power_kw, current_a=20 * power_kw))
            at = clock.mono_s()
            run.take(samples[-1])
        run.reporter.finish()
        counted = totals(run.outbox)
        assert flows(counted.energy) == pytest.approx(flows(measured(samples)), rel=1e-9, abs=1e-9)
        assert counted.elapsed_s == pytest.approx(clock.mono_s() - 1000.3, abs=0.002)
        written = rows(folder)
        assert math.fsum(row[0] or 0 for row in written) == pytest.approx(counted.energy.energy_in_kwh, abs=1e-12)
        for column in (2, 3):
            counters = [row[column] for row in written]
            assert counters == sorted(each for each in counters if each is not None)
        run.outbox.close()


def test_after_a_reboot_nothing_is_joined_to_what_was_measured_before(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    run = Run(tmp_path, clock)
    begun_mono_s = clock.mono_s()
    for number in range(1, 13):  # the last interval is left open with two samples, its first joined to the one before
        run.until(begun_mono_s + number)
        run.take(PowerSample(start_mono_s=clock.mono_s(), power_kw=3.6, current_a=72.0))
    run.outbox.crash()
    clock = ManualClock(mono_s=begun_mono_s + 13.0, utc_s=1_700_000_099.5)  # near the last sample, by chance
    clock.boot = "the next"
    run = Run(tmp_path, clock)
    assert totals(run.outbox).energy.energy_s == 11.0
    for number in range(14, 20):
        run.until(begun_mono_s + number)
        run.take(PowerSample(start_mono_s=clock.mono_s(), power_kw=3.6, current_a=72.0))
    run.reporter.finish()
    assert totals(run.outbox).energy.energy_s == 16.0
    assert totals(run.outbox).energy.energy_in_kwh == pytest.approx(0.016)


def test_switched_off_in_the_first_interval_before_the_clock_was_known_the_counters_stay_readable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(mono_s=1000.3, utc_s=1_700_000_000.5)
    clock.synchronised = False
    run = Run(tmp_path, clock)
    run.outbox.crash()
    clock = ManualClock(mono_s=12.7, utc_s=1_700_000_000.5)
    clock.boot = "the next"
    run = Run(
        tmp_path, clock
    )  # closes the interval that was left open: it ended with its last sample, of which it has none
    run.outbox.crash()
    run = Run(tmp_path, clock)
    assert totals(run.outbox).elapsed_s == 0.0
    assert "cannot be read" not in caplog.text


def test_what_an_earlier_run_left_is_counted_too_when_the_database_is_free_again(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    run = Run(tmp_path, clock)
    begun_mono_s = clock.mono_s()
    for number in range(1, 9):
        run.until(begun_mono_s + number)
        run.take(PowerSample(start_mono_s=clock.mono_s(), power_kw=3.6, current_a=72.0))
    run.outbox.crash()
    clock.advance(20.0)
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    run = Run(tmp_path, clock)  # waits 2 s for the lock
    assert run.outbox.totals is None
    for number in range(29, 41):
        run.until(begun_mono_s + number)
        run.take(PowerSample(start_mono_s=clock.mono_s(), power_kw=3.6, current_a=72.0))
    other.execute("ROLLBACK")
    other.close()
    clock.advance(0.1)
    run.reporter.step()
    assert run.outbox.is_recovered
    run.reporter.finish()
    assert totals(run.outbox).energy.energy_s == pytest.approx(7 + 11)
    assert totals(run.outbox).energy.energy_in_kwh == pytest.approx(0.018)
    assert math.fsum(row[0] or 0 for row in rows(tmp_path)) == pytest.approx(0.018)
