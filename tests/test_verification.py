"""Sample intervals below 500 ms: what is read counts only once the meter's settings have been verified since."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from clock import Clock
from measurements import CURRENT, VOLTAGE, Interval, PowerSample
from sample_slots import Check, Reading, Slot, Slots
from serial_port_read_writer import SerialPortReadWriter
from simulator.faults import replaced_by
from simulator.modes import Rate
from store import NAME as DATABASE_NAME
from tests.rig import Rig, wait_for
from tests.test_meter_faults import assert_right, wait_for_more
from tests.test_serial_port_read_writer import BOTH, Recording, sampling, settings_of


def test_what_was_read_since_the_last_good_check_is_refused_of_that_meter_only(tmp_path: Path) -> None:
    recorded: list[PowerSample] = []
    with Rig(tmp_path) as rig:
        settings = settings_of(rig, 50, {"xdm_verify_interval": 2000})
        with sampling(settings, recorded.append) as (sampler, buffer):
            wait_for_more(buffer, 20)
            known = len(buffer.having(*BOTH))
            rig.voltage.press(rate=Rate.FAST)  # no zeros, no transient: nothing but the check can tell
            wait_for(lambda: sampler.readers[VOLTAGE].refused["SettingsDiffer"])
            wait_for_more(buffer, 20)
    assert_right(buffer.samples)
    refused = [sample for sample in buffer.samples if "SettingsDiffer" in sample.refused]
    assert len(refused) >= 30  # about 2 s of them
    assert all(sample.voltage_v is None and sample.current_a is not None for sample in refused[:-1])
    last_good_mono_s = max(s.start_mono_s for s in buffer.having(*BOTH)[:known])
    assert all(sample.start_mono_s > last_good_mono_s for sample in refused)
    assert {sample.unverified for sample in buffer.samples} == {()}
    unverified = {sample.start_mono_s for sample in recorded if sample.unverified}
    assert {sample.start_mono_s for sample in refused[:-1]} <= unverified


def test_a_broken_exchange_refuses_what_was_not_verified(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 50, {"xdm_verify_interval": 2000})) as (sampler, buffer):
        wait_for_more(buffer, 20)
        rig.current.faults.once(replaced_by("NAN"), to="MEAS1?")
        wait_for(lambda: sampler.readers[CURRENT].refused["ReplyMalformed"])
        wait_for_more(buffer, 20)
    refused = [sample for sample in buffer.samples if "ReplyMalformed" in sample.refused]
    assert refused
    assert all(sample.current_a is None for sample in refused)
    assert_right(buffer.samples)


def test_each_interval_is_verified_at_its_end_and_whole(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 50, {"xdm_verify_interval": 10_000})) as (sampler, buffer):
        wait_for(lambda: all(reader.is_ready for reader in sampler.readers.values()))
        clock = Clock()
        for _ in range(3):
            now_mono_s = clock.mono_s()
            ended = Interval(start_mono_s=now_mono_s - 3600, end_mono_s=now_mono_s + 1.0, end_utc_ms=0)
            following = Interval(start_mono_s=ended.end_mono_s, end_mono_s=ended.end_mono_s + 3600, end_utc_ms=0)
            with buffer._changed:
                buffer._open.interval = ended
            threading.Event().wait(1.0)
            summary = buffer.close(ended, following)
            assert clock.mono_s() - ended.end_mono_s < 0.5
            assert summary.voltage_v is not None
            assert "unverified" not in summary.samples_refused
            assert summary.voltage_v.count >= 15


def test_what_cannot_be_verified_in_half_a_second_is_refused(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 50, {"xdm_verify_interval": 10_000})) as (sampler, buffer):
        wait_for(lambda: all(reader.is_ready for reader in sampler.readers.values()))
        threading.Event().wait(0.5)
        rig.voltage.stall(0.9)
        now_mono_s = Clock().mono_s()
        ended = Interval(start_mono_s=now_mono_s - 3600, end_mono_s=now_mono_s, end_utc_ms=0)
        following = Interval(start_mono_s=now_mono_s, end_mono_s=now_mono_s + 3600, end_utc_ms=0)
        with buffer._changed:
            buffer._open.interval = ended
        summary = buffer.close(ended, following)
        assert Clock().mono_s() - now_mono_s < 0.6
    assert summary.voltage_v is None
    assert summary.current_a is not None
    assert summary.samples_refused["unverified"] >= 8


def test_a_stop_verifies_what_is_under_way(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 50, {"xdm_verify_interval": 10_000})) as (sampler, buffer):
        wait_for(lambda: all(reader.is_ready for reader in sampler.readers.values()))
        threading.Event().wait(1.0)
        assert not buffer.having(*BOTH)
    assert len(buffer.having(*BOTH)) >= 15


def test_slots_are_settled_meter_by_meter() -> None:
    def reading(meter: str, begun_mono_s: float, *, verified: bool = False) -> Reading:
        return Reading(meter=meter, begun_mono_s=begun_mono_s, start_mono_s=begun_mono_s, value=1.0, verified=verified)

    slots = Slots()
    for at in (1.0, 2.0):
        slots.begin(Slot(begun_mono_s=at, awaited={VOLTAGE, CURRENT}))
    assert slots.add(reading(VOLTAGE, 1.0)) is not None
    slots.add(reading(CURRENT, 1.0, verified=True))
    slots.add(reading(VOLTAGE, 2.0))
    assert slots.add(reading(VOLTAGE, 3.0)) is None
    assert (slots.unverified_since_mono_s(VOLTAGE), slots.unverified_since_mono_s(CURRENT)) == (1.0, float("inf"))
    first, second = slots.settle(Check(meter=VOLTAGE, refused="SettingsDiffer"))
    assert first.is_complete
    assert (first.value(VOLTAGE), first.value(CURRENT)) == (None, 1.0)
    assert first.refusal(VOLTAGE) == "SettingsDiffer"
    assert not second.is_complete
    assert second.refusal(CURRENT) == "late"


def test_a_sample_is_settled_once_for_each_meter() -> None:
    sample = PowerSample(start_mono_s=1.0, voltage_v=52.0, current_a=2.0, power_kw=0.104, unverified=(VOLTAGE, CURRENT))
    assert sample.settled(VOLTAGE, None).settled(CURRENT, None) == PowerSample(
        start_mono_s=1.0, voltage_v=52.0, current_a=2.0, power_kw=0.104
    )
    refused = sample.settled(CURRENT, "SettingsDiffer").settled(VOLTAGE, None)
    assert refused == PowerSample(start_mono_s=1.0, voltage_v=52.0, refused=("SettingsDiffer",))
    assert refused.settled(VOLTAGE, "late") == refused


def _unverified(rig: Rig) -> int:
    path = rig.folder / DATABASE_NAME
    if not path.exists():
        return 0
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT count(*) FROM sample WHERE unverified IS NOT NULL").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0
    finally:
        database.close()


@pytest.mark.parametrize("pressed", [False, True])
def test_after_kill_9_unverified_samples_count_only_if_the_meter_is_found_as_it_was_set(
    tmp_path: Path, pressed: bool
) -> None:
    volts = [50.0]
    with Rig(tmp_path, volts=lambda _: volts[0]) as rig:
        rig.configure({"XDM": {"xdm_verify_interval": 60_000}}, sample_ms=50, report_ms=10_000)
        rig.start()
        wait_for(lambda: _unverified(rig) >= 30)
        process = rig.process
        assert process is not None
        process.kill()
        process.wait(10)
        volts[0] = 54.0
        if pressed:
            rig.voltage.press(rate=Rate.FAST)
        rig.start()
        rig.wait_for_intervals(1, "V A kW", within_s=20)
        rig.stop()
        volts_reported = [values["V"] for values in rig.arrived().values() if "V" in values]
    assert all(values["A"] == pytest.approx(15.0, abs=0.05) for values in rig.arrived().values())
    if pressed:
        assert volts_reported == [pytest.approx(54.0, abs=0.05)] * len(volts_reported)
        assert "what was read before the restart does not count" in rig.log
    else:
        assert min(volts_reported) < 53.9


def test_a_meter_that_is_absent_after_the_restart_leaves_its_unverified_samples_refused(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.current_port.stop()
        sampler = SerialPortReadWriter(settings_of(rig, 50), Recording(Clock()), Clock())
        started_mono_s = Clock().mono_s()
        rig.voltage.switch_off()
        assert sampler.verify_untouched({VOLTAGE, CURRENT}) == {VOLTAGE: "ReplyTimeout", CURRENT: "PortUnavailable"}
        assert Clock().mono_s() - started_mono_s < 5
        assert sampler.verify_untouched(()) == {}
    assert {command.text for command in rig.voltage.received} <= {"*IDN?"}


def test_a_check_after_a_restart_sets_nothing_up(tmp_path: Path) -> None:
    wanted: list[Callable[[Rig], None]] = [
        lambda rig: rig.voltage.feed(b"CONF:VOLT:DC 500\n"),
        lambda rig: rig.voltage.press(rate=Rate.MEDIUM),
    ]
    verdicts = []
    with Rig(tmp_path) as rig:
        for prepare in wanted:
            prepare(rig)
            sampler = SerialPortReadWriter(settings_of(rig, 50), Recording(Clock()), Clock())
            verdicts.append(sampler.verify_untouched([VOLTAGE])[VOLTAGE])
    assert verdicts == [None, "SettingsDiffer"]
    assert [command.text for command in rig.voltage.received if "?" not in command.text] == ["CONF:VOLT:DC 500"]
