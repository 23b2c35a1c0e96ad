"""Readings leave the outbox by the cloud's answer and in no other way; a real database, damaged and full ones too."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import room
from clock import Clock
from ledger import Tally
from measurements import Device, Interval, IntervalSummary, PowerSample, Statistic
from outbox import Limits, Outbox
from store import MIGRATIONS, NAME, Store, StoreTooNew, StoreUncertain
from tests.clocks import ManualClock

DEVICE = Device(mac=77, voltage_type=532, current_type=531, power_type=533)
FAR = Interval(start_mono_s=0.0, end_mono_s=1e9, end_utc_ms=10**12)


def statistic(mean: float) -> Statistic:
    return Statistic(mean=mean, minimum=mean - 1, maximum=mean + 1, count=4)


def summary(
    volts: float | None = 52.0, amperes: float | None = None, kilowatts: float | None = None
) -> IntervalSummary:
    values = [None if each is None else statistic(each) for each in (volts, amperes, kilowatts)]
    return IntervalSummary(
        voltage_v=values[0], current_a=values[1], power_kw=values[2], samples_read=5, samples_refused={"late": 1}
    )


def interval(number: int) -> Interval:
    return Interval(start_mono_s=number - 1.0, end_mono_s=float(number), end_utc_ms=1000 * number)


BOXES: list[Box] = []  # those that a test has opened; conftest.py closes their databases after it


class Box(Outbox):
    """An outbox in a folder, opened; ``close_number`` closes interval ``number``."""

    def __init__(
        self,
        folder: Path,
        *,
        boot: str = "boot",
        limits: Limits | None = None,
        clock: Clock | None = None,
        store: Store | None = None,
    ):
        clock = clock or ManualClock()
        self.store = store or Store(folder / NAME, clock)
        BOXES.append(self)
        super().__init__(self.store, DEVICE, boot, clock, limits or Limits())
        self.recovered = self.recover()
        if self.recovered is not None and self.recovered.boot_id == boot:
            self.open_interval(self.recovered.interval, clock_trusted=self.recovered.clock_trusted)

    def close_number(self, *numbers: int, of: IntervalSummary | None = None, trusted: bool = True) -> None:
        for number in numbers:
            self.close_interval(of or summary(), interval(number), interval(number + 1), clock_trusted=trusted)

    def waiting(self) -> list[int]:
        return [each.datum.timestamp_utc_ms // 1000 for each in self.lend(1_000_000)]

    def crash(self) -> None:
        """Leave the database as ``kill -9`` does: nothing more is written."""
        connection, self.store._connection = self.store._connection, None
        assert connection is not None
        connection.close()


def test_lent_readings_stay_until_they_are_settled(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(1, 2, 3, 4)
    lent = box.lend(3)
    assert [each.datum.timestamp_utc_ms for each in lent] == [1000, 2000, 3000]
    assert box.waiting() == [1, 2, 3, 4]
    box.settle_delivered(lent[:1])
    box.settle_rejected(lent[1:2], "out of range")
    assert box.waiting() == [3, 4]
    assert box.tally() == Tally(made=4, delivered=1, waiting=2, rejected=1, dropped=0)


def test_each_reading_of_an_interval_is_settled_by_itself(tmp_path: Path) -> None:
    box = Box(tmp_path)
    readings = box.close_interval(summary(52.0, -3.0, -0.156), interval(1), interval(2), clock_trusted=True)
    assert [(each.type, each.data) for each in readings] == [(532, 52.0), (531, -3.0), (533, -0.156)]
    volts, amperes, kilowatts = box.lend(10)
    assert box.lend(2) == [volts, amperes]
    box.settle_rejected([amperes], "data exceeds allowed range!")
    box.settle_delivered([volts])
    assert box.lend(10) == [kilowatts]


def test_everything_survives_a_crash(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(1, 2, 3)
    box.settle_delivered(box.lend(1))
    box.crash()
    again = Box(tmp_path)
    assert again.waiting() == [2, 3]
    assert again.tally() == Tally(made=3, delivered=1, waiting=2)


def test_readings_are_reported_as_what_they_were_made_for(tmp_path: Path) -> None:
    Box(tmp_path).close_number(1)
    box = Box(tmp_path)
    box._device = Device(mac=88, voltage_type=600, current_type=601, power_type=602)
    box.close_number(2)
    first = box.lend(9)
    assert [(each.datum.mac, each.datum.type) for each in first] == [(77, 532)]  # one device at a time
    assert [(each.datum.mac, each.datum.type) for each in box.lend(9, avoid=[77])] == [(88, 600)]
    assert [each.datum.mac for each in box.lend_newest(avoid=[88])] == [77]
    box.settle_delivered(first)
    assert [(each.datum.mac, each.datum.type) for each in box.lend(9)] == [(88, 600)]
    assert box.lend(9, avoid=[88]) == box.lend_newest(avoid=[88, 77]) == []


def test_the_newest_interval_is_lent_apart(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert box.lend_newest() == []
    box.close_number(1, 2)
    box.close_number(3, of=summary(52.0, 1.0, 0.052))
    assert [each.datum.timestamp_utc_ms for each in box.lend_newest()] == [3000] * 3


def test_the_samples_of_the_open_interval_come_back_after_a_crash(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.open_interval(interval(1), clock_trusted=True)
    box.journal([PowerSample(start_mono_s=0.2, voltage_v=50.0, current_a=1.0, power_kw=0.05)])
    box.journal([PowerSample(start_mono_s=0.4, voltage_v=51.0, refused=("Overload",))])
    box.crash()
    recovered = Box(tmp_path).recovered
    assert recovered is not None
    assert (recovered.boot_id, recovered.interval, recovered.clock_trusted) == ("boot", interval(1), True)
    assert recovered.samples == [
        PowerSample(start_mono_s=0.2, voltage_v=50.0, current_a=1.0, power_kw=0.05),
        PowerSample(start_mono_s=0.4, voltage_v=51.0, refused=("Overload",)),
    ]


def test_a_closed_interval_leaves_no_samples_behind_not_even_late_written_ones(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.journal([PowerSample(start_mono_s=0.2, voltage_v=50.0)])
    box.close_number(1)
    box.journal([PowerSample(start_mono_s=0.9, voltage_v=50.0), PowerSample(start_mono_s=1.1, voltage_v=51.0)])
    box.crash()
    recovered = Box(tmp_path).recovered
    assert recovered is not None
    assert [each.start_mono_s for each in recovered.samples] == [1.1]


def test_the_open_interval_of_another_boot_is_over(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.open_interval(interval(500), clock_trusted=True)
    box.journal([PowerSample(start_mono_s=499.5, voltage_v=50.0)])
    box.crash()
    again = Box(tmp_path, boot="the next")
    left = again.recovered
    assert left is not None
    assert left.boot_id == "boot"
    again.close_left_open(left, summary(50.0), interval(3))
    assert again.waiting() == [500]
    again.journal([PowerSample(start_mono_s=2.5, voltage_v=51.0)])
    again.crash()
    third = Box(tmp_path, boot="the next").recovered
    assert third is not None
    assert [each.start_mono_s for each in third.samples] == [2.5]


def test_what_was_made_before_the_clock_was_known_is_held_back_and_stamped_later(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(1, 2, trusted=False)
    assert box.waiting() == []
    assert box.tally() == Tally(made=2, waiting=2, held=2)
    box.crash()
    box = Box(tmp_path)
    assert box.tally() == Tally(made=2, waiting=2, held=2)
    box.stamp(1_800_000_000.5)
    assert [each.datum.timestamp_utc_ms for each in box.lend(9)] == [1_800_000_001_500, 1_800_000_002_500]
    assert box.tally() == Tally(made=2, waiting=2, held=0)
    box.crash()
    assert [each.datum.timestamp_utc_ms for each in Box(tmp_path).lend(9)] == [1_800_000_001_500, 1_800_000_002_500]


def test_a_clock_that_was_right_all_along_keeps_the_planned_ends(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(1, 2, trusted=False)
    box.stamp(0.1)
    assert [each.datum.timestamp_utc_ms for each in box.lend(9)] == [1000, 2000]


def test_no_two_intervals_share_a_timestamp_whatever_the_clock_does(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(1, 2, 3)
    box.close_number(2, 2, 3)
    box.close_number(1, trusted=False)
    box.stamp(0.0)
    timestamps = [each.datum.timestamp_utc_ms for each in box.lend(99)]
    assert sorted(timestamps) == [1000, 1001, 2000, 2001, 2002, 3000, 3001]


def test_what_another_boot_held_back_keeps_its_planned_end_if_that_can_be_right_and_is_set_aside_if_not(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    good = Interval(start_mono_s=4.0, end_mono_s=5.0, end_utc_ms=1_800_000_000_000)
    box.close_interval(summary(), good, interval(6), clock_trusted=False)
    box.close_number(6, trusted=False)  # planned for 1970
    box.crash()
    box = Box(tmp_path, boot="the next")
    box.open_interval(interval(1), clock_trusted=False)
    box.stamp(1_800_000_500.0)
    assert [each.datum.timestamp_utc_ms for each in box.lend(9)] == [1_800_000_000_000]
    assert box.tally() == Tally(made=2, waiting=1, rejected=1)
    with box.store.reading() as cursor:
        assert cursor.execute("SELECT type, data FROM rejected").fetchall() == [(532, 52.0)]


def history(box: Box) -> int:
    """Return how many settled intervals the database has still."""
    with box.store.reading() as cursor:
        return int(cursor.execute("SELECT count(*) FROM interval WHERE waiting = 0").fetchone()[0])


def test_over_the_bound_history_goes_first_then_the_oldest_that_wait_but_nothing_on_loan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(tmp_path, limits=Limits(max_bytes=250_000))
    box.close_number(*range(1, 2501))
    box.settle_delivered(box.lend(1000))
    with caplog.at_level(logging.WARNING):
        number = 2500
        while history(box) > 500:
            box.close_number(*range(number + 1, number + 51))
            number += 50
            assert box.tally().dropped == 0
        lent = box.lend(10)
        box.close_number(*range(number + 1, number + 3001))
    tally = box.tally()
    assert tally.dropped > 0
    assert tally.made == tally.delivered + tally.waiting + tally.dropped
    assert box.waiting()[:11] == [*range(1001, 1011), 1011 + tally.dropped]
    assert len(caplog.records) == 1
    box.settle_delivered(lent)
    assert box.tally().delivered == 1010
    assert box.store.size_bytes() < 5_000_000  # the bound, and a write-ahead log of 4 MiB at most


def test_old_history_is_forgotten_and_what_waits_is_not(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=100 * 86_400.0)
    box = Box(tmp_path, limits=Limits(keep_days=31), clock=clock)
    box.close_number(1, 2)
    box.settle_delivered(box.lend(1))
    clock.advance(4000)
    box.close_number(100 * 86_400)
    with sqlite3.connect(tmp_path / NAME) as connection:
        assert [row[0] for row in connection.execute("SELECT id FROM interval")] == [2, 3]
    connection.close()


def test_a_month_of_old_history_is_forgotten_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_TIDIED_AT_ONCE", 3)
    clock = ManualClock(utc_s=100 * 86_400.0)
    box = Box(tmp_path, limits=Limits(keep_days=31), clock=clock)
    box.close_number(*range(1, 9))
    box.settle_delivered(box.lend(100))
    clock.advance(4000)
    left = []
    for days in range(100, 104):
        box.close_number(days * 86_400)
        left.append(history(box))
    assert left == [5, 2, 0, 0]


def test_a_damaged_file_is_moved_aside_and_everything_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_bytes(b"this is no database" * 1000)
    box = Box(tmp_path)
    box.close_number(1)
    assert box.waiting() == [1]
    assert [path.name for path in tmp_path.glob("*.corrupt-*")] == [f"{NAME}.corrupt-1700000000"]
    assert "NOT sent" in caplog.text
    box.crash()
    assert Box(tmp_path).waiting() == [1]


def test_damage_in_the_middle_while_running(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    box = Box(tmp_path)
    box.close_number(*range(1, 3000))
    box.close()
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(20 * 1024)
        file.write(b"\xff" * 200 * 1024)
    again = Box(tmp_path)
    for _ in range(5):
        again.lend(5000)
        again.close_number(3001, 3002)
    assert list(tmp_path.glob("*.corrupt-*"))
    assert 3002 in again.waiting()


def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Box(tmp_path).close()
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(StoreTooNew):
        Box(tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


class _Fragile(Store):
    """A real store whose disk can be made to fail, and to fail once after it has written a commit."""

    failing = False
    fails_after_commit = False

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        super().__init__(folder / NAME, clock or ManualClock())
        self.synced: list[bool] = []

    def _open(self) -> sqlite3.Connection:
        if self.failing:
            raise sqlite3.OperationalError("database or disk is full")
        return super()._open()

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[sqlite3.Cursor]:
        with super().transaction(synced=synced) as cursor:
            yield cursor
        self.synced.append(synced)
        if self.fails_after_commit:
            self.fails_after_commit = False
            raise StoreUncertain("disk I/O error")


def fragile(folder: Path, clock: ManualClock) -> tuple[Box, _Fragile]:
    store = _Fragile(folder, clock)
    return Box(folder, store=store, clock=clock), store


def test_without_the_database_everything_goes_on_and_nothing_is_made_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    box, store = fragile(tmp_path, clock)
    box.close_number(1)
    box.journal([PowerSample(start_mono_s=1.5, voltage_v=50.0)])
    store.failing = True
    with caplog.at_level(logging.INFO):
        box.journal([PowerSample(start_mono_s=1.7, voltage_v=50.0)])
        box.close_number(2, 3, 4)
        # 1 is in the database, 2 in its journal: that they were sent could not be written down
        assert box.waiting() == [3, 4]
        box.settle_delivered(box.lend(1))
        store.failing = False
        clock.advance(1.0)
        box.close_number(5)
    assert box.waiting() == [1, 2, 4, 5]
    assert box.tally() == Tally(made=5, delivered=1, waiting=4)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    box.crash()
    again = Box(tmp_path)
    assert again.waiting() == [1, 2, 4, 5]
    assert again.tally() == Tally(made=5, delivered=1, waiting=4)
    assert again.recovered is not None
    assert again.recovered.samples == []


def test_killed_while_the_disk_is_full_nothing_that_was_sent_is_made_again(tmp_path: Path) -> None:
    box, store = fragile(tmp_path, ManualClock())
    box.close_number(1)
    box.settle_delivered(box.lend(9))
    box.close_number(2)
    box.journal([PowerSample(start_mono_s=2.5, voltage_v=50.0)])
    store.failing = True
    box.close_number(3, 4)
    sent = box.lend(9)
    box.settle_delivered(sent)
    assert [each.datum.timestamp_utc_ms for each in sent] == [4000]
    again = Box(tmp_path)  # the old one writes no more
    assert again.waiting() == [2]
    assert again.recovered is not None
    assert again.recovered.interval == interval(3)  # to be closed from its one sample: it was never sent
    assert [each.start_mono_s for each in again.recovered.samples] == [2.5]


def test_what_was_delivered_while_the_database_failed_is_not_lent_again(tmp_path: Path) -> None:
    clock = ManualClock()
    box, store = fragile(tmp_path, clock)
    box.close_number(1, 2)
    lent = box.lend(1)
    store.failing = True
    box.settle_delivered(lent)
    store.failing = False
    assert box.waiting() == []
    clock.advance(1.0)
    assert box.waiting() == [2]


def test_a_disk_that_fails_is_tried_once_a_second(tmp_path: Path) -> None:
    clock = ManualClock()
    box, store = fragile(tmp_path, clock)
    store.failing = True
    tries = 0

    def count() -> sqlite3.Connection:
        nonlocal tries
        tries += 1
        raise sqlite3.OperationalError("disk I/O error")

    store._open = count  # type: ignore[method-assign]
    for number in range(100):
        clock.advance(0.1)
        box.journal([PowerSample(start_mono_s=float(number), voltage_v=50.0)])
    assert tries == 10


def test_a_commit_that_was_written_although_it_failed_counts_once(tmp_path: Path) -> None:
    clock = ManualClock()
    box, store = fragile(tmp_path, clock)
    box.close_number(1)
    store.fails_after_commit = True
    box.close_number(2)
    clock.advance(1.0)
    rejected = box.lend(1)
    store.fails_after_commit = True
    box.settle_rejected(rejected, "no")
    clock.advance(1.0)
    box.settle_delivered(box.lend(1))
    clock.advance(1.0)
    box.close_number(3)
    assert box.tally() == Tally(made=3, delivered=1, waiting=1, rejected=1)
    box.crash()
    again = Box(tmp_path)
    assert again.tally() == Tally(made=3, delivered=1, waiting=1, rejected=1)
    with again.store.reading() as cursor:
        assert cursor.execute("SELECT count(*) FROM rejected").fetchone() == (1,)


def test_a_database_that_is_locked_at_the_start_is_left_as_it_is_until_it_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(tmp_path)
    box.close_number(*range(1, 101))
    box.journal([PowerSample(start_mono_s=100.5, voltage_v=50.0)])
    box.crash()
    clock = ManualClock(utc_s=1000.0)
    box, store = fragile(tmp_path, clock)
    store.close()
    box, store = _begun_without(tmp_path, clock)
    box.open_interval(interval(201), clock_trusted=True)
    box.journal([PowerSample(start_mono_s=200.5, voltage_v=51.0)])
    box.close_number(201, 202)
    # The database may have samples of an interval with the end of the first one: that waits.
    assert [each.datum.timestamp_utc_ms for each in box.lend(9)] == [202_000]
    box.settle_delivered(box.lend(1))
    assert box.tally() == Tally(made=2, delivered=1, waiting=1)
    store.failing = False
    clock.advance(1.0)
    box.close_number(203)
    left = box.recover()
    assert box.is_recovered
    assert left is not None
    assert (left.interval, [each.start_mono_s for each in left.samples]) == (interval(101), [100.5])
    box.close_left_open(left, summary(50.0), interval(204))
    assert box.tally() == Tally(made=104, delivered=1, waiting=103)
    assert sorted(box.waiting()) == [*range(1, 102), 201, 203]
    box.crash()
    assert Box(tmp_path).tally() == Tally(made=104, delivered=1, waiting=103)
    assert "ledger" not in caplog.text


def _begun_without(folder: Path, clock: ManualClock) -> tuple[Box, _Fragile]:
    """Return an outbox whose database cannot be used at its start."""
    store = _Fragile(folder, clock)
    store.failing = True
    return Box(folder, store=store, clock=clock), store


def test_when_the_file_is_damaged_while_running_the_ledger_says_what_was_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    box = Box(tmp_path, clock=clock)
    box.close_number(*range(1, 101))
    lent = box.lend(10)
    box.store.close()
    (tmp_path / NAME).write_bytes(b"garbage" * 500)
    box.close_number(101)
    box.settle_delivered(lent)  # of the old file: they are dropped already
    clock.advance(1.0)
    box.close_number(102)
    assert box.waiting() == [101, 102]
    assert box.tally() == Tally(made=102, waiting=2, dropped=100)
    box.crash()
    again = Box(tmp_path)
    assert again.tally() == Tally(made=102, waiting=2, dropped=100)
    assert again.recovered is not None
    assert again.recovered.interval == interval(103)
    assert "ledger" not in caplog.text


def test_what_another_boot_held_back_is_judged_in_memory_too(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.open_interval(interval(1), clock_trusted=False)
    box.journal([PowerSample(start_mono_s=0.5, voltage_v=50.0)])
    box.crash()
    store = _Fragile(tmp_path)
    again = Box(tmp_path, boot="the next", store=store)
    assert again.recovered is not None
    store.failing = True
    again.close_left_open(again.recovered, summary(50.0), interval(5))
    again.stamp(1_800_000_000.0)
    assert again.tally() == Tally(made=1, rejected=1)


def test_what_was_stamped_in_memory_is_held_back_no_longer(tmp_path: Path) -> None:
    box, store = fragile(tmp_path, ManualClock())
    store.failing = True
    box.close_number(*range(1, 11), trusted=False)
    assert box.waiting() == []
    box.stamp(0.0)
    assert box.tally() == Tally(made=10, waiting=10, held=0)
    assert box.waiting() == list(range(1, 11))
    assert [each.datum.timestamp_utc_ms for each in box.lend_newest()] == [10_000]


@pytest.mark.parametrize("trusted", [True, False])
def test_an_interval_that_a_power_cut_ended_does_not_end_in_the_future(tmp_path: Path, trusted: bool) -> None:
    planned = Interval(start_mono_s=4000.0, end_mono_s=7600.0, end_utc_ms=1_800_003_600_000)
    box = Box(tmp_path)
    box.open_interval(planned, clock_trusted=trusted)
    box.journal([PowerSample(start_mono_s=4100.25, voltage_v=50.0)])
    box.crash()
    clock = ManualClock(mono_s=20.0, utc_s=1_800_000_160.0)
    again = Box(tmp_path, boot="the next", clock=clock)
    assert again.recovered is not None
    again.close_left_open(again.recovered, summary(50.0), interval(30))
    again.stamp(clock.utc_s() - clock.mono_s())
    assert [each.datum.timestamp_utc_ms for each in again.lend(9)] == [1_800_000_100_250]
    assert again.tally().rejected == 0


def test_in_memory_the_oldest_make_room_but_not_what_is_on_loan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox._UNSTORED_LIMIT", 5)
    clock = ManualClock()
    box, store = fragile(tmp_path, clock)
    store.failing = True
    box.close_number(1, trusted=False)
    box.close_number(2, 3)
    lent = box.lend(1)
    box.close_number(*range(4, 9))
    assert box.waiting() == [2, 6, 7, 8]
    assert box.tally() == Tally(made=8, waiting=5, dropped=3, held=1)
    box.settle_delivered(lent)
    box.close_number(9, 10)
    assert box.tally() == Tally(made=10, delivered=1, waiting=5, dropped=4)
    store.failing = False
    clock.advance(1.0)
    box.close_number(11)
    box.crash()
    assert Box(tmp_path).tally() == Tally(made=11, delivered=1, waiting=6, dropped=4)
    assert caplog.text.count("are dropped from now on") == 1
    assert "ledger" not in caplog.text


def test_a_short_sync_interval_holds_for_the_samples_too(tmp_path: Path) -> None:
    clock = ManualClock()
    store = _Fragile(tmp_path, clock)
    box = Box(tmp_path, clock=clock, store=store, limits=Limits(sync_interval_s=5.0))
    for number in range(60):
        clock.advance(1.0)
        box.journal([PowerSample(start_mono_s=float(number), voltage_v=50.0)])
    assert 11 <= sum(store.synced) <= 12


def test_with_the_usual_sync_interval_the_disk_confirms_each_interval_and_nothing_else(tmp_path: Path) -> None:
    clock = ManualClock()
    store = _Fragile(tmp_path, clock)
    box = Box(tmp_path, clock=clock, store=store, limits=Limits(sync_interval_s=30.0))
    confirmed = []
    for number in range(1, 6):
        for _ in range(6):
            clock.advance(4.75)
            box.journal([PowerSample(start_mono_s=clock.mono_s(), voltage_v=50.0)])
            clock.advance(0.25)
        before = sum(store.synced)
        box.close_number(number * 1_000_000)
        confirmed.append(sum(store.synced) - before)
    assert confirmed[1:] == [1, 1, 1, 1]


def test_history_is_not_judged_by_a_clock_that_nobody_trusts(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1000.0)
    box = Box(tmp_path, clock=clock)
    box.close_number(*range(1, 101))
    box.settle_delivered(box.lend(1000))
    clock.advance(4000.0)
    clock.step_utc(70 * 365 * 86_400.0)
    box.close_number(101, trusted=False)
    with box.store.reading() as cursor:
        assert cursor.execute("SELECT count(*) FROM interval").fetchone() == (101,)


def test_history_is_judged_by_the_time_that_is_gone_by_and_not_by_a_wrong_clock(tmp_path: Path) -> None:
    """The Date of the cloud is gone by: the ends of intervals are right, the wall clock of the computer is not."""
    clock = ManualClock(utc_s=1000.0)
    box = Box(tmp_path, clock=clock)
    box.close_number(*range(1, 101))
    box.settle_delivered(box.lend(1000))
    clock.advance(4000.0)
    clock.step_utc(70 * 365 * 86_400.0)
    box.close_number(101)
    with box.store.reading() as cursor:
        assert cursor.execute("SELECT count(*) FROM interval").fetchone() == (101,)


def test_a_ledger_that_does_not_close_is_an_error_in_the_log_until_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    box = Box(tmp_path, clock=clock)
    box.close_number(1, 2, 3)
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("DELETE FROM interval WHERE id = 2")
    connection.commit()
    with caplog.at_level(logging.INFO):
        box.close_number(4, 5)
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]  # 4 and 3, 5 and 4
        assert "5 readings wait, but the database has 4" in caplog.text
        box.close()
        assert "readings wait" in caplog.records[-1].getMessage()
    connection.close()


def test_sums_of_the_counters_that_do_not_close_are_told_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    box = Box(tmp_path)
    box.close_number(1, 2)
    box.close()
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("UPDATE counter SET value = value + 3 WHERE name IN ('samples_read', 'readings_made')")
    connection.commit()
    connection.close()
    Box(tmp_path).close_number(3)
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "6 readings were made, but 3 are accounted for" in record.getMessage()
    assert "18 samples were read, but 15 are accounted for" in record.getMessage()


def test_waiting_ends_when_readings_come_and_when_all_are_settled(tmp_path: Path) -> None:
    clock = Clock()
    box = Box(tmp_path, clock=clock)
    assert not box.wait_for_readings(clock.mono_s() + 0.01)
    threading.Timer(0.05, box.close_number, [1]).start()
    assert box.wait_for_readings(clock.mono_s() + 20)
    threading.Timer(0.05, box.settle_delivered, [box.lend(1)]).start()
    assert box.wait_until_empty(clock.mono_s() + 20)


def test_wake_ends_a_wait(tmp_path: Path) -> None:
    clock = Clock()
    box = Box(tmp_path, clock=clock)
    started_mono_s = clock.mono_s()
    threading.Timer(0.05, box.wake).start()
    assert not box.wait_for_readings(clock.mono_s() + 20)
    assert clock.mono_s() - started_mono_s < 10
