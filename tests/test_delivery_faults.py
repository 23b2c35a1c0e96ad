"""What a hostile reader found in the delivery: each once lost, doubled or delayed a reading, or stopped the daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aretas_api import BatchTooLarge, ReadingsRefused, TryLater
from aretas_reporter import AretasReporter
from aretas_uploader import AretasUploader
from averaging_buffer import AveragingBuffer
from measurements import Datum, PowerSample
from store import NAME
from tests.clocks import ManualClock
from tests.test_aretas_reporter import reporter
from tests.test_outbox import Box, _begun_without, fragile, interval, summary
from time_keeper import TimeKeeper


def volts(start_mono_s: float, voltage_v: float) -> PowerSample:
    return PowerSample(start_mono_s=start_mono_s, voltage_v=voltage_v)


class Scripted:
    """A cloud's client: ``answer`` gets the number of the request and its readings, and raises what they meet."""

    def __init__(self, answer: Callable[[int, Sequence[Datum]], None]) -> None:
        self._answer = answer
        self._requests = 0
        self.got: list[Datum] = []

    def send_batch(self, data: Sequence[Datum]) -> None:
        self._requests += 1
        self._answer(self._requests, data)
        self.got += data


def uploader(
    folder: Path, answer: Callable[[int, Sequence[Datum]], None], *, clock: ManualClock | None = None, **how: Any
) -> tuple[ManualClock, Box, Scripted, AretasUploader]:
    clock = clock or ManualClock()
    box, client = Box(folder, clock=clock), Scripted(answer)
    double: Any = client
    return clock, box, client, AretasUploader(double, box, TimeKeeper(clock, 600), clock, jitter=lambda: 0.0, **how)


def refuse_above_400(data: Sequence[Datum]) -> None:
    if any(each.data > 400 for each in data):
        raise ReadingsRefused("no", message="no")


def test_samples_that_may_be_in_the_journal_keep_their_interval_from_being_sent(tmp_path: Path) -> None:
    box, store = fragile(tmp_path, ManualClock(mono_s=1.0, utc_s=1.0))
    store.fails_after_commit = True
    box.journal([volts(1.2, 50.0)])  # it is on disk, though that failed
    store.failing = True
    box.journal([volts(1.6, 60.0)])
    box.close_number(2, of=summary(55.0))
    assert box.lend(9) == []


def test_a_refused_reading_is_found_though_requests_fail_in_between(tmp_path: Path) -> None:
    def answer(number: int, data: Sequence[Datum]) -> None:
        if number % 3 == 0:
            raise TryLater("429", retry_after_s=1)
        refuse_above_400(data)

    clock, box, _, send = uploader(tmp_path, answer)
    box.close_number(*range(1, 51))
    box.close_number(51, of=summary(500.0))
    box.close_number(*range(52, 401))
    for step in range(600):
        if step % 30 == 0:
            box.close_number(1000 + step)
        clock.advance(send.send_once())
    assert box.tally().rejected == 1
    assert box.tally().waiting < 10


def test_a_refused_reading_is_found_though_an_interval_comes_every_second(tmp_path: Path) -> None:
    clock = ManualClock()

    def answer(_number: int, data: Sequence[Datum]) -> None:
        clock.advance(0.05)
        refuse_above_400(data)

    _, box, _, send = uploader(tmp_path, answer, clock=clock, pause_s=1.0)
    box.close_number(1, of=summary(500.0))
    box.close_number(*range(2, 201))
    for number in range(300):
        box.close_number(1000 + number)
        send.send_once()
        clock.advance(send.send_once())
    assert box.tally().rejected == 1


def test_a_newest_interval_that_is_too_large_is_halved_at_once(tmp_path: Path) -> None:
    def answer(_number: int, data: Sequence[Datum]) -> None:
        if len(data) > 2:
            raise BatchTooLarge("413")

    _, box, client, send = uploader(tmp_path, answer)
    box.close_number(*range(1, 101))
    box.close_number(6000, of=summary(52.0, 1.0, 0.052))
    send.send_once()
    assert [each.timestamp_utc_ms for each in client.got] == [6_000_000] * 3


def test_after_a_failure_the_newest_interval_is_the_probe(tmp_path: Path) -> None:
    down = True

    def answer(_number: int, _data: Sequence[Datum]) -> None:
        if down:
            raise TryLater("away")

    clock, box, client, send = uploader(tmp_path, answer)
    box.close_number(*range(1, 501))
    for _ in range(5):
        clock.advance(send.send_once())
    down = False
    send.send_once()
    assert [each.timestamp_utc_ms for each in client.got] == [500_000]


def test_in_memory_what_is_settled_goes_before_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("outbox._UNSTORED_LIMIT", 5)
    clock = ManualClock()
    box, store = fragile(tmp_path, clock)
    box.journal([volts(1.5, 50.0)])
    store.failing = True
    box.close_number(2)  # waits for the disk, which has its sample
    for number in range(3, 12):
        box.close_number(number)
        box.settle_delivered(box.lend(9))
    assert "are dropped" not in caplog.text
    store.failing = False
    clock.advance(1.0)
    box.close_number(12)
    assert box.waiting() == [2, 12]
    assert box.tally().dropped == 0


def test_after_a_reboot_too_a_sample_counts_in_its_own_interval(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_800_000_000.5)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    end_mono_s = clock.mono_s() + 1.5
    outbox.journal([volts(end_mono_s - 0.1, 50.0), volts(end_mono_s + 0.05, 60.0)])
    outbox.crash()
    clock = ManualClock(mono_s=10.0, utc_s=clock.utc_s() + 100)
    clock.boot = "the next"
    make, _, outbox = reporter(clock, tmp_path, boot="the next")
    make.open_first_interval()
    told = [(each.datum.data, each.datum.timestamp_utc_ms) for each in outbox.lend(9)]
    assert told == [(50.0, 1_800_000_002_000), (60.0, 1_800_000_004_000)]


def test_what_is_taken_over_late_leaves_no_sample_in_the_journal(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    box = Box(tmp_path, clock=clock)
    AretasReporter(100_000, AveragingBuffer(clock), box, TimeKeeper(clock, 600), clock).open_first_interval()
    box.journal([volts(clock.mono_s() + 0.50043, 50.0)])
    box.crash()
    clock.advance(1.0)
    box, store = _begun_without(tmp_path, clock)
    make = AretasReporter(100_000, AveragingBuffer(clock), box, TimeKeeper(clock, 600), clock)
    make.open_first_interval()
    store.failing = False
    clock.advance(1.0)
    make._stop.set()  # it does not wait
    make.step()
    box.crash()
    again = Box(tmp_path, clock=clock).recovered
    assert again is not None
    assert again.samples == []


def test_while_the_database_is_unknown_an_interval_that_it_may_have_is_not_sent(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_700_000_000.5)
    make, _, outbox = reporter(clock, tmp_path)
    make.open_first_interval()
    outbox.journal([volts(clock.mono_s() + 0.1, 50.0)])
    outbox.crash()
    clock.advance(0.5)
    box, _ = _begun_without(tmp_path, clock)
    make = AretasReporter(2000, AveragingBuffer(clock), box, TimeKeeper(clock, 600), clock)
    make.open_first_interval()
    first = make._interval
    assert first is not None
    box.close_interval(summary(60.0), first, make._next_of(first), clock_trusted=True)
    assert box.lend(9) == []
    second = make._next_of(first)
    box.close_interval(summary(61.0), second, make._next_of(second), clock_trusted=True)
    assert [each.datum.data for each in box.lend(9)] == [61.0]


def test_text_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(1)
    box.journal([PowerSample(start_mono_s=2.5, refused=("Overload",))])
    with box.store.transaction() as cursor:
        cursor.execute("UPDATE sample SET refused = CAST(x'ff4f' AS TEXT)")
    box.crash()
    assert Box(tmp_path).waiting() == [1]


def test_a_damaged_name_of_a_table_is_damage(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(1)
    box.close()
    content = bytearray((tmp_path / NAME).read_bytes())
    content[content.index(b'CREATE TABLE "device"') + 8] = 0xFF
    (tmp_path / NAME).write_bytes(content)
    box = Box(tmp_path)
    box.close_number(2)
    assert box.waiting() == [2]
    assert list(tmp_path.glob("*.corrupt-*"))


def test_set_aside_readings_with_the_same_planned_time_are_all_kept(tmp_path: Path) -> None:
    for boot, voltage_v in (("a", 50.0), ("b", 51.0)):
        box = Box(tmp_path, boot=boot, clock=ManualClock(mono_s=5.0, utc_s=5.0))
        if box.recovered is not None:
            box.close_left_open(box.recovered, summary(None), interval(1))
        box.close_number(1, of=summary(voltage_v), trusted=False)
        box.crash()
    box = Box(tmp_path, boot="c", clock=ManualClock(mono_s=5.0, utc_s=1_800_000_000.0))
    assert box.recovered is not None
    box.close_left_open(box.recovered, summary(None), interval(1))
    box.stamp(1_800_000_000.0)
    with box.store.reading() as cursor:
        assert cursor.execute("SELECT data FROM rejected ORDER BY data").fetchall() == [(50.0,), (51.0,)]
    assert box.tally().rejected == 2


def test_a_clock_set_back_while_the_database_fails_makes_no_timestamp_twice(tmp_path: Path) -> None:
    clock = ManualClock()
    box, store = fragile(tmp_path, clock)
    box.close_number(1, 2, 3)
    store.failing = True
    box.close_number(2, 3)
    store.failing = False
    clock.advance(1.0)
    timestamps = [each.datum.timestamp_utc_ms for each in box.lend(99)]
    assert len(set(timestamps)) == len(timestamps) == 5


def test_a_database_that_is_deleted_while_in_use_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(tmp_path)
    box.close_number(1, 2)
    (tmp_path / NAME).unlink()
    box.close_number(3, 4)
    box.close()
    assert "was deleted while it is in use" in caplog.text
    assert Box(tmp_path).waiting() == [1, 2, 3, 4]


def test_what_is_dropped_from_memory_is_not_in_the_database_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("outbox._UNSTORED_LIMIT", 3)
    clock = ManualClock()
    box, store = fragile(tmp_path, clock)
    store.fails_after_commit = True
    box.close_number(1)
    store.failing = True
    box.close_number(2, 3, 4, 5)
    store.failing = False
    clock.advance(1.0)
    box.close_number(6)
    assert "ledger" not in caplog.text
    assert box.tally().dropped == 2


@pytest.mark.parametrize(
    "change",
    [
        *(f"interval SET voltage = {value} WHERE id = 1" for value in ("NULL", "9e999", "'x'", "x'00'")),
        "interval SET end_utc_ms = 'x' WHERE id = 1",
        "interval SET waiting = 'x' WHERE id = 1",
        "counter SET value = 'x'",
    ],
)
def test_a_cell_that_is_damaged_stops_nothing(tmp_path: Path, change: str) -> None:
    box = Box(tmp_path)
    box.close_number(1, 2)
    box.crash()
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute(f"UPDATE {change}")
    connection.commit()
    connection.close()
    clock, box, client, send = uploader(tmp_path, lambda _number, _data: None)
    for number in (3, 4):
        box.close_number(number)
        for _ in range(4):
            clock.advance(1.0 + send.send_once())
    assert 4000 in [each.timestamp_utc_ms for each in client.got]
    assert list(tmp_path.glob("*.corrupt-*"))
