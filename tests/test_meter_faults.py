"""What people and bad luck do to two meters, and that every sample is right or absent all the same. Real ptys."""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clock import Clock
from measurements import CURRENT, VOLTAGE, PowerSample
from reading_checks import Limits
from sample_judge import SampleJudge
from simulator.faults import AnswerMode, Chunk, cut, late, replaced_by, split, spoilt
from simulator.meter import VirtualMeter
from simulator.modes import Mode
from simulator.ports import PtyPort
from tests.rig import CURRENT_SERIAL, SHUNT_OHM, VOLTAGE_SERIAL, Rig, wait_for
from tests.test_serial_port_read_writer import BOTH, Recording, sampling, settings_of, wait_past_the_look

SERIALS = {"xdm_voltage_serial": VOLTAGE_SERIAL, "xdm_current_serial": CURRENT_SERIAL}


def assert_right(samples: list[PowerSample], *, volts: float = 52.0, shunt_volts: float = 0.010) -> None:
    """Every value is the true one within ten steps of noise: the transient of the simulator is 20 to 40 off."""
    for sample in samples:
        assert sample.voltage_v is None or sample.voltage_v == pytest.approx(volts, abs=0.1)
        assert sample.current_a is None or sample.current_a == pytest.approx(shunt_volts / SHUNT_OHM, abs=0.015)
        if sample.power_kw is not None:  # there may be none: on a busy computer the two were not asked together
            assert sample.voltage_v is not None
            assert sample.current_a is not None


def wait_for_more(buffer: Recording, count: int = 2, *quantities: str, within_s: float = 20.0) -> None:
    quantities = quantities or BOTH
    before = len(buffer.having(*quantities))
    wait_for(lambda: len(buffer.having(*quantities)) >= before + count, within_s=within_s, what=f"more {quantities}")


def warnings(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    """The warnings with any of these words."""
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    return [message for message in said if any(word in message for word in words)]


def press_before(meter: VirtualMeter, before_s: float, interval_s: float, *presses: dict[str, Any]) -> None:
    """Press keys this long before the meter's next sample is due."""
    last_mono_s = [command.mono_s for command in meter.received if command.text == "MEAS1?"][-1]
    clock = Clock()
    threading.Event().wait(clock.timeout_s(last_mono_s + interval_s - before_s))
    for press in presses:
        meter.press(**press)


@pytest.mark.parametrize("sample_ms", [250, 1000])
def test_a_key_pressed_twice_leaves_zeros_and_a_transient_and_neither_counts(tmp_path: Path, sample_ms: int) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, sample_ms)) as (sampler, buffer):
        wait_for_more(buffer)
        # The next but one conversion of the shunt meter, the transient, is what a sample at its due time would see.
        press_before(rig.current, 0.70, max(1.0, sample_ms / 1000), {"range_number": 2}, {"range_number": 1})
        wait_for_more(buffer, 1, "voltage_v")
        wait_for_more(buffer)
        assert set(sampler.readers["current meter"].refused) == {"Unsettled"} or sample_ms == 1000
    assert_right(buffer.samples)


def test_zeros_in_the_middle_of_running_are_waited_out_until_two_readings_have_come(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 100)) as (sampler, buffer):
        wait_for_more(buffer)
        rig.voltage.press(range_number=6)
        rig.voltage.press(range_number=5)
        wait_for(lambda: sampler.readers["voltage meter"].refused["Unsettled"])
        wait_for_more(buffer)
    assert_right(buffer.samples)


def test_a_meter_in_hold_is_refused_once_its_digits_have_stood_still_for_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Rig(tmp_path) as rig,
        caplog.at_level(logging.INFO),
        sampling(settings_of(rig, 250, {"xdm_stale_after": 2000})) as (sampler, buffer),
    ):
        wait_for_more(buffer)
        rig.current.hold()
        wait_for(lambda: sampler.readers["current meter"].refused["frozen"] >= 3)
        assert "in hold" in str(sampler.meters()["current meter"]["trouble"])
        held = [sample.current_a for sample in buffer.samples][-12:]
        rig.current.release()
        wait_for_more(buffer)
    runs = [len(list(same)) for value, same in itertools.groupby(held) if value is not None]
    assert max(runs) <= 9  # 2 s of them: those cannot be told from live ones
    assert len(warnings(caplog, "hold")) == 1
    assert "its reading changes again" in caplog.text
    assert sampler.meters()["current meter"]["works"]


def test_overload_is_no_hold(tmp_path: Path) -> None:
    keys = {"xdm_stale_after": 1000, "xdm_current_range": "50mV fixed"}
    with (
        Rig(tmp_path, shunt_volts=lambda _mono_s: 0.2) as rig,
        sampling(settings_of(rig, 250, keys)) as (sampler, _),
    ):
        wait_for(lambda: sampler.readers["current meter"].refused["Overload"] >= 8)
        assert set(sampler.readers["current meter"].refused) == {"Overload"}
        assert len({command.text for command in rig.current.received if command.text.startswith("CONF")}) == 1


def test_readings_beyond_the_limits_are_refused_and_counted_and_never_clipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    true = {"volts": 52.0, "shunt": 0.010}
    keys = {"xdm_voltage_max": 60, "xdm_current_min": -20, "xdm_current_reverse_polarity": True}
    with (
        Rig(tmp_path, volts=lambda _: true["volts"], shunt_volts=lambda _: true["shunt"]) as rig,
        sampling(settings_of(rig, 500, keys)) as (sampler, buffer),
    ):
        wait_for_more(buffer)
        true["volts"] = 70.0
        wait_for_more(buffer, 2, "current_a")
        assert "limits" in str(sampler.meters()["voltage meter"]["trouble"])
        true["volts"], true["shunt"] = 52.0, 0.020  # 30 A of discharge
        wait_for_more(buffer, 2, "voltage_v")
        true["shunt"] = 0.010
        wait_for_more(buffer)
    assert_right(buffer.samples, shunt_volts=-0.010)
    refused = [sample.refused for sample in buffer.samples if sample.refused]
    assert set(refused) == {("implausible",)}
    assert len(warnings(caplog, "limits")) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.7e308, -1e9])
def test_what_is_no_number_after_customising_is_refused_and_counted(value: float) -> None:
    judge = SampleJudge({VOLTAGE: Limits(), CURRENT: Limits()}, Clock(), watch_swaps=False)
    sample = PowerSample(start_mono_s=1.0, voltage_v=52.0, current_a=value, power_kw=value)
    assert judge.judge(sample, {}) == PowerSample(start_mono_s=1.0, voltage_v=52.0, refused=("not finite",))
    sample = PowerSample(start_mono_s=1.0, voltage_v=52.0, current_a=1.0, power_kw=value)
    assert judge.judge(sample, {}) == PowerSample(start_mono_s=1.0, voltage_v=52.0, current_a=1.0)


def test_an_overloaded_shunt_steps_the_range_up_and_a_calm_one_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shunt = [0.010]
    with (
        Rig(tmp_path, shunt_volts=lambda _: shunt[0]) as rig,
        caplog.at_level(logging.INFO),
        sampling(settings_of(rig, 500)) as (sampler, buffer),
    ):
        wait_for_more(buffer)
        before = len(buffer.samples)
        shunt[0] = 0.080
        wait_for(lambda: sampler.readers["current meter"].meter.range.label == "500 mV")  # type: ignore[union-attr]
        wait_for_more(buffer, 3)
        high = buffer.samples[before:]
        assert sampler.meters()["current meter"]["works"]
        shunt[0] = 0.039
        wait_for(lambda: sampler.readers["current meter"].meter.range.label == "50 mV")  # type: ignore[union-attr]
        wait_for_more(buffer, 3)
    currents = {round(sample.current_a * SHUNT_OHM, 3) for sample in high if sample.current_a is not None}
    assert currents <= {0.010, 0.080}  # the one before the change was taken at the same time as it
    assert buffer.having(*BOTH)[-1].current_a == pytest.approx(0.039 / SHUNT_OHM, abs=0.015)
    assert [each.getMessage().split(",")[0] for each in caplog.records if "changes its range" in each.getMessage()] == [
        "current meter: changes its range from 50 mV to 500 mV",
        "current meter: changes its range from 500 mV to 50 mV",
    ]
    assert {command.text for command in rig.current.received if command.text.startswith("CONF")} == {
        "CONF:VOLT:DC 50E-3",
        "CONF:VOLT:DC 500E-3",
    }
    assert not warnings(caplog, "current meter")


def test_a_fixed_range_stays_and_beyond_500_mv_there_is_no_step(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 0.080) as rig:
        with sampling(settings_of(rig, 500, {"xdm_current_range": "50mV fixed"})) as (sampler, buffer):
            wait_for(lambda: sampler.readers["current meter"].refused["Overload"] >= 3)
        assert not buffer.having(*BOTH)
        assert "RANGE 2" not in {command.text for command in rig.current.received}
    with Rig(tmp_path, shunt_volts=lambda _: 1.3) as rig:
        with sampling(settings_of(rig, 500)) as (sampler, buffer):
            wait_for(lambda: sampler.readers["current meter"].refused["Overload"] >= 4)
        assert not buffer.having(*BOTH)
        assert {command.text for command in rig.current.received if command.text.startswith("CONF")} == {
            "CONF:VOLT:DC 50E-3",
            "CONF:VOLT:DC 500E-3",
        }


def test_an_overload_because_somebody_changed_the_range_is_mended(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 100)) as (_, buffer):
        wait_for_more(buffer)
        rig.voltage.press(range_number=1)
        wait_for_more(buffer, 1, "current_a")
        wait_for_more(buffer)
    assert_right(buffer.samples)


def test_swapped_cables_heal_themselves_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Rig(tmp_path) as rig:
        keys = {
            **SERIALS,
            "xdm_voltage_port": tmp_path / "current",
            "xdm_current_port": tmp_path / "voltage",
            "xdm_scan_ports": f"{tmp_path / 'voltage'}, {tmp_path / 'current'}",
        }
        with sampling(settings_of(rig, 250, keys)) as (_, buffer):
            wait_for_more(buffer, 3)
    assert_right(buffer.samples)
    assert len(warnings(caplog, "meter", "ports")) == 1
    assert "was found on" in warnings(caplog, "ports")[0]


def test_cables_swapped_while_running_heal_too(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 250, SERIALS)) as (_, buffer):
        wait_for_more(buffer)
        ports = [port for port in (rig.voltage_port, rig.current_port) if isinstance(port, PtyPort)]
        for port in ports:
            port.stop()
        ports[0].link, ports[1].link = ports[1].link, ports[0].link
        for port in ports:
            port.start()
        wait_for_more(buffer, 3)
    assert_right(buffer.samples)


def test_an_adapter_that_comes_back_under_another_name_is_found(tmp_path: Path) -> None:
    keys = {**SERIALS, "xdm_scan_ports": tmp_path / "tty*"}
    stranger = VirtualMeter(lambda _: 1.0, serial_number="99999999")
    with (
        Rig(tmp_path) as rig,
        PtyPort(stranger, link=tmp_path / "tty1"),
        sampling(settings_of(rig, 250, keys)) as (sampler, buffer),
    ):
        wait_for_more(buffer)
        assert isinstance(rig.current_port, PtyPort)
        rig.current_port.stop()
        rig.current_port.link = tmp_path / "tty2"
        wait_for_more(buffer, 3, "voltage_v")
        rig.current_port.start()
        wait_for_more(buffer, 3)
        assert sampler.meters()["current meter"]["port"] == str(tmp_path / "tty2")
    assert_right(buffer.samples)
    assert {command.text for command in stranger.received} <= {"*IDN?"}


def test_looking_for_a_meter_does_not_disturb_the_one_that_works(tmp_path: Path) -> None:
    keys = {**SERIALS, "xdm_scan_ports": tmp_path / "*"}
    with Rig(tmp_path) as rig:
        rig.current_port.stop()
        with sampling(settings_of(rig, 250, keys)) as (sampler, buffer):
            wait_for_more(buffer, 20, "voltage_v")
            assert sampler.counts["voltage meter busy"] == 0
        asked = [command for command in rig.voltage.received if command.text == "*IDN?"]
    assert len(asked) <= 2


def test_meters_that_seem_swapped_are_told_and_nothing_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Rig(tmp_path, volts=lambda _: 0.010, shunt_volts=lambda _: 52.0) as rig,
        sampling(settings_of(rig, 500)) as (sampler, buffer),
    ):
        wait_for(lambda: warnings(caplog, "swapped"), within_s=25)
        assert "swapped" in str(sampler.meters()["voltage meter"]["trouble"])
        assert not sampler.meters()["current meter"]["works"]
    assert all(sample.readings_count == len(sample.refused) for sample in buffer.samples)
    assert len(warnings(caplog, "swapped")) == 1


def test_two_meters_with_the_same_serial_number_work_by_their_ports_and_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Rig(tmp_path) as rig:
        rig.current = VirtualMeter(lambda _: 0.010, serial_number=VOLTAGE_SERIAL, seed=2)
        rig.current_port.stop()
        with PtyPort(rig.current, link=tmp_path / "current"), sampling(settings_of(rig, 500)) as (_, buffer):
            wait_for_more(buffer, 3)
    assert_right(buffer.samples)
    assert len(warnings(caplog, "both say that they have serial number")) == 1


def test_a_serial_number_that_two_ports_answer_with_is_taken_from_neither(tmp_path: Path) -> None:
    twins = [VirtualMeter(lambda _: 52.0, serial_number=VOLTAGE_SERIAL) for _ in range(2)]
    with Rig(tmp_path, plugged_in=False) as rig:
        keys = {"xdm_voltage_serial": VOLTAGE_SERIAL, "xdm_current_enable": False, "xdm_scan_ports": tmp_path / "tty*"}
        with (
            PtyPort(twins[0], link=tmp_path / "tty0"),
            PtyPort(twins[1], link=tmp_path / "tty1"),
            sampling(settings_of(rig, 250, keys)) as (sampler, buffer),
        ):
            wait_for(lambda: "which of them is meant" in str(sampler.meters()["voltage meter"]["trouble"]))
    assert not buffer.having("voltage_v")


def test_a_lost_meter_is_told_once_and_back_with_how_long_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Rig(tmp_path) as rig,
        caplog.at_level(logging.INFO),
        sampling(settings_of(rig, 250)) as (_, buffer),
    ):
        wait_for_more(buffer)
        caplog.clear()
        rig.current_port.stop()
        wait_for_more(buffer, 8, "voltage_v")
        rig.current_port.start()
        wait_for_more(buffer)
    lines = [each.getMessage() for each in caplog.records if each.getMessage().startswith("current meter")]
    assert len(lines) == 2
    assert "works again after" in lines[1]
    assert_right(buffer.samples)


@pytest.mark.parametrize("which", ["voltage", "current"])
def test_whatever_happens_to_one_reply_the_value_is_right_or_absent(tmp_path: Path, which: str) -> None:
    faults = [
        spoilt(),
        spoilt(b"\x00", at=6),
        spoilt(b"OK/nOK/nOK/n"),  # noise in front of it is known, and taken off
        spoilt(b"OK\r\nOK\r\nOK\r\n"),
        cut(8, line_end=False),
        cut(8, line_end=True),
        split(5, 0.1),
        lambda reply: (Chunk(data=reply.replace(b"0", b"7", 1)),),
        replaced_by("inf"),
    ]
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 500)) as (sampler, buffer):
        meter = rig.voltage if which == "voltage" else rig.current
        wait_for_more(buffer)
        for fault in faults:
            wait_past_the_look()
            meter.faults.once(fault, to="MEAS1?")
            wait_for(lambda: not meter.faults.pending)
            wait_for_more(buffer, 1)
        refused = sampler.readers[f"{which} meter"].refused
    assert_right(buffer.samples)
    assert {"ReplyMalformed", "ReplyTimeout"} <= set(refused) <= {"ReplyMalformed", "ReplyTimeout", "Overload"}
    assert 3 <= sum(refused.values()) <= 8


@pytest.mark.parametrize("mode", [AnswerMode.BARE, AnswerMode.LINES])
def test_the_noise_of_the_answer_mode_does_no_harm(tmp_path: Path, mode: AnswerMode) -> None:
    with Rig(tmp_path) as rig:
        rig.voltage.faults.answer_mode = mode
        with sampling(settings_of(rig, 250)) as (sampler, buffer):
            wait_for_more(buffer, 5)
        assert not sampler.readers["voltage meter"].refused
    assert_right(buffer.samples)


def test_a_meter_that_lost_its_power_with_its_port_is_set_up_again(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 250)) as (_, buffer):
        wait_for_more(buffer)
        rig.voltage_port.stop()
        rig.voltage.power_cycle()
        wait_for_more(buffer, 8, "current_a")
        rig.voltage_port.start()
        wait_for_more(buffer)
    assert_right(buffer.samples)


@pytest.mark.parametrize("sample_ms", [500, 5000])
def test_a_meter_that_waits_for_a_conversion_before_it_answers_gives_every_sample(
    tmp_path: Path, sample_ms: int
) -> None:
    with Rig(tmp_path) as rig:
        rig.voltage.faults.always(late(0.3), to="MEAS1?")
        with sampling(settings_of(rig, sample_ms)) as (sampler, buffer):
            wait_for_more(buffer, 1)
            before = len(buffer.samples)
            wait_for_more(buffer, 3000 // sample_ms + 1)
            assert len(buffer.having(*BOTH)) >= len(buffer.samples) - 1
            assert len(buffer.samples) > before
        assert not sampler.readers["voltage meter"].refused
    assert_right(buffer.samples)


def test_a_key_pressed_between_far_due_times_is_made_good_before_the_next(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 6000)) as (sampler, buffer):
        wait_for_more(buffer, 1)
        rig.voltage.press(range_number=6)  # found within 2 s, although the next sample is due in 6
        wait_for_more(buffer, 1)
        assert not sampler.readers["voltage meter"].refused
    assert len(buffer.having(*BOTH)) == len(buffer.samples)


def _remote_lock(rig: Rig) -> None:
    rig.voltage.feed(b"SYST:REM\n")
    rig.voltage.power_cycle()


@pytest.mark.parametrize(
    "trouble",
    [
        lambda rig: rig.voltage.press(mode=Mode.RES),
        lambda rig: setattr(rig.voltage.faults, "garbles_received", True),
        lambda rig: setattr(rig.voltage.faults, "garbles_sent", True),
        lambda rig: rig.voltage.power_cycle(),
        _remote_lock,
    ],
    ids=["mode", "deaf", "wrong baud", "power cycle", "locked"],
)
def test_trouble_of_one_meter_leaves_the_other_punctual(tmp_path: Path, trouble: Callable[[Rig], None]) -> None:
    interval_s = 0.25
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 250)) as (_, buffer):
        wait_for_more(buffer)
        before = len(buffer.samples)
        trouble(rig)
        wait_for_more(buffer, 5, "current_a")
        starts = [sample.start_mono_s for sample in buffer.samples[before:]]
        rig.voltage.faults.clear()
        wait_for_more(buffer)
    assert_right(buffer.samples)
    off_s = sorted(abs((start - starts[0] + interval_s / 2) % interval_s - interval_s / 2) for start in starts)
    assert off_s[len(off_s) // 2] < 0.005
