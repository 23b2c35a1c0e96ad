"""The long runs, short: hours by the clock that jumps, with as many troubles as the month has in days."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.log_volume import AT_MOST_MB, faults, log_of_a_day
from benchmarks.soak import Soak
from benchmarks.soak_table import DayBattery
from benchmarks.virtual_clock import VirtualClock, VirtualEvent, VirtualQueue, VirtualThread
from tests.redis_server import RedisServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_hours_of_troubles_close_the_ledger_and_keep_the_time() -> None:
    figures = {figure.what.strip(): figure for figure in Soak(0.09, 7, pace=30.0).run()}
    assert figures["troubles of the meters"].value > 100
    assert min(figures[f"of {name}"].value for name in ("the cloud", "Redis", "the wall clock")) >= 3
    assert figures["readings made"].value > 700
    for name in (
        "dropped",
        "not accounted for",
        "delivered by the ledger, not in the cloud",
        "lines of level ERROR or above",
        "worst timestamp off by",
    ):
        assert figures[name].met, name
    assert figures["waiting at the end"].value == 0
    assert figures["error, energy in"].value < 1.0  # in so short a time it is chance when a load falls between samples


@pytest.mark.parametrize(
    "name",
    [
        "back under another name, every 15 s",
        "power cut, port alive, every 15 s",
        "current swings over the end of its range, every 50 s",
        "clock stepped by up to 30 s every minute",
    ],
)
def test_the_log_of_what_comes_and_goes_all_day_is_bounded(tmp_path: Path, name: str) -> None:
    """Of an hour, in which the first lines are told; the report lines of ordinary running are 0.4 MB of it."""
    with RedisServer(tmp_path) as server:
        day_mb, _lines = log_of_a_day(faults(server)[name], 1.0, tmp_path, server)
    assert 0.3 < day_mb < 0.45 + AT_MOST_MB


def test_the_battery_s_integral_is_that_of_its_power() -> None:
    battery = DayBattery()
    from_s, to_s, steps = 20_000.0, 23_000.0, 300_000
    width_s = (to_s - from_s) / steps
    moments = (from_s + (step + 0.5) * width_s for step in range(steps))
    sum_kws = sum(battery.voltage_v(at) * battery.current_a(at) / 1000 for at in moments) * width_s
    assert battery.energy_kwh(from_s, to_s) == pytest.approx(sum_kws / 3600, rel=1e-5)
    halves = battery.energy_kwh(from_s, 21_234.5) + battery.energy_kwh(21_234.5, to_s)
    assert halves == pytest.approx(battery.energy_kwh(from_s, to_s), rel=1e-9)


def test_time_jumps_when_all_threads_wait_and_never_before() -> None:
    clock = VirtualClock(0.0)
    orders, told, stop = VirtualQueue(clock), [], VirtualEvent(clock)

    def obey() -> None:
        while (order := orders.get(timeout=1000.0)) is not None:
            sum(range(100_000))  # takes its time, and none of the clock's
            told.append((order, clock.mono_s()))
        stop.set()

    with clock.taking_part():
        thread = VirtualThread(clock, target=obey, daemon=True)
        thread.start()
        for order in range(3):
            orders.put(order)
            assert not stop.wait(60.0)
        orders.put(None)
        assert stop.wait(60.0)
        assert clock.mono_s() == 180.0
        thread.join()
        assert not thread.is_alive()
    assert told == [(0, 0.0), (1, 60.0), (2, 120.0)]
