"""Readings leave the outbox by the cloud's answer and in no other way."""

from __future__ import annotations

import logging
import threading

import pytest

from clock import Clock
from measurements import Datum
from outbox import Outbox, Tally
from tests.clocks import ManualClock


def readings(*timestamps: int) -> list[Datum]:
    return [Datum(mac=1, type=532, data=52.0, timestamp_utc_ms=each) for each in timestamps]


def waiting(outbox: Outbox) -> list[int]:
    return [each.datum.timestamp_utc_ms for each in outbox.lend(1_000_000)]


def test_lent_readings_stay_until_they_are_settled() -> None:
    outbox = Outbox(ManualClock())
    outbox.put(readings(1, 2, 3, 4))
    lent = outbox.lend(3)
    assert [each.datum.timestamp_utc_ms for each in lent] == [1, 2, 3]
    assert waiting(outbox) == [1, 2, 3, 4]
    outbox.settle_delivered(lent[:1])
    outbox.settle_rejected(lent[1:2])
    assert waiting(outbox) == [3, 4]
    assert outbox.tally() == Tally(made=4, delivered=1, waiting=2, rejected=1, dropped=0)


def test_settling_twice_counts_once() -> None:
    outbox = Outbox(ManualClock())
    outbox.put(readings(1))
    lent = outbox.lend(1)
    outbox.settle_delivered(lent)
    outbox.settle_delivered(lent)
    assert outbox.tally() == Tally(made=1, delivered=1)


def test_over_the_bound_the_oldest_go_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(ManualClock(), capacity=3)
    with caplog.at_level(logging.ERROR):
        outbox.put(readings(1, 2))
        outbox.put(readings(3, 4, 5))
        outbox.put(readings(6))
    assert waiting(outbox) == [4, 5, 6]
    assert outbox.tally() == Tally(made=6, waiting=3, dropped=3)
    assert len(caplog.records) == 1


def test_a_reading_dropped_while_on_loan_is_counted_once() -> None:
    outbox = Outbox(ManualClock(), capacity=2)
    outbox.put(readings(1, 2))
    lent = outbox.lend(2)
    outbox.put(readings(3))
    outbox.settle_delivered(lent)
    assert outbox.tally() == Tally(made=3, delivered=1, waiting=1, dropped=1)


def test_waiting_ends_when_readings_come_and_when_all_are_settled() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    assert not outbox.wait_for_readings(clock.mono_s() + 0.01)
    threading.Timer(0.05, outbox.put, [readings(1)]).start()
    assert outbox.wait_for_readings(clock.mono_s() + 20)
    threading.Timer(0.05, outbox.settle_delivered, [outbox.lend(1)]).start()
    assert outbox.wait_until_empty(clock.mono_s() + 20)


def test_wake_ends_a_wait() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    started_mono_s = clock.mono_s()
    threading.Timer(0.05, outbox.wake).start()
    assert not outbox.wait_for_readings(clock.mono_s() + 20)
    assert clock.mono_s() - started_mono_s < 10
