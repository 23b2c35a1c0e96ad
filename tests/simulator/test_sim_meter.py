"""The virtual meter: what it measures, what it remembers, how long it takes, what happens to it."""

from __future__ import annotations

import itertools
import re

import pytest

from simulator.meter import POWER_ON_BYTES, Served, Timing, VirtualMeter
from simulator.modes import Mode, Profile, Rate
from tests.clocks import ManualClock
from tests.simulator.bench import LATENCY_S, SETTLED_S, Bench

PERIOD_S = 0.33346


# -- readings -------------------------------------------------------------------------------------------------------


def test_zeros_then_one_transient_then_good_values() -> None:
    bench = Bench(0.0125)
    bench.send("CONF:VOLT:DC 50E-3")
    texts = [text for text, _ in itertools.groupby(_readings(bench, count=120, every_s=0.01))]
    assert texts[0] == "0.000000E+00"
    assert 20e-6 <= abs(float(texts[1]) - 0.0125) <= 40e-6
    assert texts[2:] == ["1.250000E-02"]


def _readings(bench: Bench, *, count: int, every_s: float) -> list[str]:
    texts = []
    for _ in range(count):
        bench.meter.feed(b"MEAS1?\n")
        texts.append(bench.wait(every_s).decode("ascii").removesuffix("\r\n"))
    return texts


def test_the_input_is_sampled_every_333_ms_and_held(bench: Bench) -> None:
    begin_s = bench.clock.mono_s()
    bench.quantity = lambda mono_s: (mono_s - begin_s) / 1000
    values = [float(text) * 1000 for text in _readings(bench, count=1000, every_s=0.01)]
    distinct = [value for value, _ in itertools.groupby(values)][1:]
    steps = [later - earlier for earlier, later in itertools.pairwise(distinct)]
    assert len(steps) in (28, 29)
    assert steps == pytest.approx([PERIOD_S] * len(steps), abs=1e-5)


@pytest.mark.parametrize(("rate", "period_s"), [("S", PERIOD_S), ("M", 1 / 16), ("F", 1 / 65)])
def test_the_rate_sets_the_period(bench: Bench, rate: str, period_s: float) -> None:
    bench.quantity = lambda mono_s: mono_s / 1e6
    bench.send(f"RATE {rate}")
    distinct = [text for text, _ in itertools.groupby(_readings(bench, count=1000, every_s=0.004))]
    assert len(distinct) == pytest.approx(4.0 / period_s, abs=2)


def test_noise_is_the_same_for_the_same_seed_whoever_asked_when() -> None:
    often, seldom, other = (Bench(0.01, noise_steps=1.0, seed=seed) for seed in (7, 7, 8))
    for bench in (often, seldom, other):
        bench.send("CONF:VOLT:DC 50E-3")
    _readings(often, count=100, every_s=0.06)
    for bench in (seldom, other):
        bench.wait(0.06 * 100)
    first, second, third = (bench.ask("MEAS1?") for bench in (often, seldom, other))
    assert first == second != third
    assert 0 < abs(float(first) - 0.01) < 6e-6


@pytest.mark.parametrize(
    ("number", "quantity", "measured", "shown"),
    [
        (1, -0.000107, "-1.070000E-04", "-00.107mVDC"),
        (1, -0.0000001, "-1.000000E-07", "-00.000mVDC"),
        (1, 0.0549999, "5.499990E-02", "55.000mVDC"),
        (1, 0.0550001, "1E+9", "overload"),
        (1, -0.0550001, "1E+9", "overload"),
        (2, 0.3, "3.000000E-01", "300.00mVDC"),
        (3, 0.0, "0.000000E+00", "0.0000VDC"),
        (4, 52.1234567, "5.212346E+01", "52.123VDC"),
        (5, 52.1234567, "5.212346E+01", "052.12VDC"),
        (6, -1049.9, "-1.049900E+03", "-1049.9VDC"),
        (6, 1050.1, "1E+9", "overload"),
    ],
)
def test_reading_and_display_texts(number: int, quantity: float, measured: str, shown: str) -> None:
    bench = Bench(quantity)
    bench.send(f"RANGE {number}")
    bench.wait(SETTLED_S)
    assert (bench.ask("MEAS1?"), bench.ask("MEAS1:SHOW?")) == (measured, shown)


def test_in_a_current_mode_the_input_is_taken_as_amperes() -> None:
    bench = Bench(3.5)
    bench.send("CONF:CURR:DC 5")
    bench.wait(SETTLED_S)
    assert (bench.ask("MEAS1?"), bench.ask("MEAS:SHOW?")) == ("3.500000E+00", "3.5000ADC")


def test_dc_gives_nothing_in_ac_and_an_open_circuit_in_ohms() -> None:
    bench = Bench(3.5)
    bench.send("CONF:VOLT:AC 5")
    bench.wait(SETTLED_S)
    assert float(bench.ask("MEAS1?")) == 0.0
    bench.send("CONF:RES AUTO")
    bench.wait(5.0)
    assert (bench.ask("MEAS1?"), bench.ask("RANGE?")) == ("1E+9", "50 MΩ")


def test_auto_finds_the_range_both_ways_and_restarts_each_time() -> None:
    bench = Bench(52.0)
    bench.wait(3.0)
    assert (bench.ask("RANGE?"), bench.ask("MEAS1?"), bench.ask("AUTO?")) == ("500 V", "5.200000E+01", "1")
    bench.quantity = 0.02
    bench.wait(PERIOD_S)
    assert (bench.ask("RANGE?"), bench.ask("MEAS1?")) == ("50 mV", "0.000000E+00")
    bench.wait(2.0)
    assert bench.ask("MEAS1?") == "2.000000E-02"


def test_auto_of_v2_1_2_does_not_come_back_to_millivolts() -> None:
    bench = Bench(0.02, profile=Profile.V2_1_2)
    bench.wait(3.0)
    assert bench.ask("RANGE?") == "5 V"
    bench.send("CONF:VOLT:DC 50E-3", "AUTO")
    bench.wait(3.0)
    assert (bench.ask("RANGE?"), bench.ask("AUTO?")) == ("50 mV", "1")


def test_a_reading_after_a_year_without_a_question_is_a_fresh_one(bench: Bench) -> None:
    bench.quantity = lambda mono_s: mono_s * 1e-9
    bench.wait(365 * 86400.0)
    assert float(bench.ask("MEAS1?")) == pytest.approx(bench.clock.mono_s() * 1e-9, abs=2e-9)


# -- the record -----------------------------------------------------------------------------------------------------


def test_every_reading_given_is_on_record_with_the_moment_of_its_query(bench: Bench) -> None:
    first_mono_s = bench.clock.mono_s()
    bench.send("MEAS1?", "MEAS1:SHOW?", "FUNC?")
    second_mono_s = bench.clock.mono_s()
    bench.send("MEAS?")
    assert bench.meter.served == [
        Served(mono_s=mono_s, text="1.250000E-02", value=0.0125, intact=True)
        for mono_s in (first_mono_s, second_mono_s)
    ]


def test_the_record_is_bounded() -> None:
    meter = VirtualMeter(lambda _mono_s: 0.0, clock=(clock := ManualClock()), served_limit=3)
    for _ in range(5):
        meter.feed(b"MEAS1?\n")
        clock.advance(0.1)
        meter.take_due()
    assert len(meter.served) == len(meter.received) == 3


# -- time -----------------------------------------------------------------------------------------------------------


def test_a_steady_reply_is_due_after_its_latency_and_not_before(bench: Bench) -> None:
    bench.meter.feed(b"MEAS1?\n")
    assert bench.meter.next_due_mono_s() == pytest.approx(bench.clock.mono_s() + LATENCY_S)
    assert bench.wait(LATENCY_S - 1e-4) == b""
    assert bench.wait(2e-4) == b"1.250000E-02\r\n"
    assert bench.meter.next_due_mono_s() is None


def test_busy_windows_make_some_replies_late_and_few_very_late() -> None:
    bench = Bench(timing=Timing())
    bench.send("CONF:VOLT:DC 50")
    delays_s = []
    for _ in range(20_000):
        bench.meter.feed(b"MEAS1?\n")
        due_mono_s = bench.meter.next_due_mono_s()
        assert due_mono_s is not None
        delays_s.append(due_mono_s - bench.clock.mono_s())
        bench.wait(0.0613)
    ordered = sorted(delays_s)
    assert ordered[0] == pytest.approx(LATENCY_S)
    assert ordered[len(ordered) // 2] == pytest.approx(LATENCY_S)
    assert 0.05 < sum(delay_s > 0.003 for delay_s in delays_s) / len(delays_s) < 0.2
    assert 0.0 < sum(delay_s > 0.020 for delay_s in delays_s) / len(delays_s) < 0.02
    assert ordered[-1] < 0.056 + 2 * LATENCY_S


def test_a_usb_meter_takes_4_9_ms() -> None:
    bench = Bench(profile=Profile.V4_2_0)
    bench.meter.feed(b"*IDN?\n")
    assert bench.wait(0.0048) == b""
    assert bench.wait(0.0002) == b"OWON,XDM1041,22511040,V4.2.0,3\r\n"


# -- what happens to a meter ----------------------------------------------------------------------------------------


def test_power_cycle_forgets_everything_and_takes_its_time(bench: Bench) -> None:
    bench.send("RATE F", "SYST:REM")
    bench.meter.power_cycle()
    assert bench.wait(0.0) == POWER_ON_BYTES
    assert bench.send("*IDN?") == b""
    assert bench.wait(3.0) == b""
    assert bench.send("FUNC?", "AUTO?", "RATE?") == b'"VOLT"\r\n1\r\nS\r\n'
    bench.meter.press(range_number=4)
    assert bench.ask("RANGE?") == "50 V"


def test_a_meter_that_is_off_is_silent_and_drops_what_was_under_way(bench: Bench) -> None:
    bench.meter.feed(b"MEAS1?\nMEA")
    bench.meter.switch_off()
    assert bench.send("*IDN?") == b""
    assert bench.meter.next_due_mono_s() is None
    bench.meter.switch_on()
    assert bench.wait(3.5) == POWER_ON_BYTES
    assert bench.send("S1?", "AUTO?") == b"1\r\n"


def test_keys_change_mode_range_and_rate_unless_locked(bench: Bench) -> None:
    bench.meter.press(mode=Mode.DCI, range_number=6, rate=Rate.MEDIUM)
    assert bench.send("FUNC?;RANGE?;AUTO?;RATE?") == b'"CURR"\r\n10 A\r\n0\r\nM\r\n'
    bench.meter.press(auto=True)
    assert bench.ask("AUTO?") == "1"
    bench.send("SYST:REM")
    bench.meter.press(mode=Mode.ACV)
    assert bench.ask("FUNC?") == '"CURR"'
    bench.send("SYST:LOC")
    bench.meter.press(mode=Mode.ACV)
    assert bench.ask("FUNC?") == '"VOLT AC"'


def test_hold_freezes_the_reading_until_it_is_released(bench: Bench) -> None:
    bench.meter.hold()
    bench.quantity = 0.02
    bench.wait(10.0)
    assert bench.ask("MEAS1?") == "1.250000E-02"
    bench.meter.release()
    assert bench.ask("MEAS1?") == "2.000000E-02"
    bench.send("SHOW:OFF")
    bench.quantity = 0.03
    bench.wait(1.0)
    assert bench.ask("MEAS1?") == "2.000000E-02"
    bench.send("SHOW:ON")
    assert bench.ask("MEAS1?") == "3.000000E-02"


def test_after_a_stall_all_that_waited_is_answered_at_once(bench: Bench) -> None:
    bench.meter.feed(b"FUNC?\n")
    bench.meter.stall(3.0)
    assert bench.send("AUTO?", "RATE?", "MEAS1?") == b""
    assert bench.wait(3.0 - 0.18) == b""
    assert bench.wait(LATENCY_S + 1e-6) == b'"VOLT"\r\n0\r\nS\r\n1.250000E-02\r\n'
    assert bench.ask("FUNC?") == '"VOLT"'


def test_two_meters_with_the_same_seed_and_calls_say_the_same_bytes() -> None:
    first, second = (Bench(1.25, noise_steps=1.0, timing=Timing(), seed=5) for _ in range(2))
    lines = ["CONF:VOLT:DC 5", *["MEAS1?"] * 50]
    said = first.send(*lines)
    assert said == second.send(*lines)
    assert len(re.findall(rb"\r\n", said)) == 50


# -- bad luck -------------------------------------------------------------------------------------------------------


def test_a_locked_panel_does_nothing_until_it_is_unlocked(bench: Bench) -> None:
    bench.meter.lock()
    bench.meter.press(range_number=2)
    assert bench.ask("RANGE?") == "50 mV"
    bench.send("SYST:LOC")
    bench.meter.press(range_number=2)
    assert bench.ask("RANGE?") == "500 mV"


def test_two_meters_may_have_the_same_identity(bench: Bench) -> None:
    assert bench.meter.identity == "OWON,XDM1041,22511040,V4.0.0,3"
    bench.meter.identity = "OWON,XDM1041,22511041,V4.0.0,3"
    assert bench.ask("*IDN?") == "OWON,XDM1041,22511041,V4.0.0,3"


def test_it_can_say_what_nobody_asked_for_and_tell_whom_it_may_wake(bench: Bench) -> None:
    rung: list[bool] = []
    bench.meter.on_output = lambda: rung.append(True)
    bench.meter.say(b"-")
    assert rung == [True]
    assert bench.meter.take_due() == b"-"


def test_a_gain_of_its_own_shows_in_which_range_and_speed_a_reading_was_taken() -> None:
    clock = ManualClock()
    meter = VirtualMeter(
        lambda _mono_s: 0.02,
        clock=clock,
        noise_steps=0.0,
        timing=Timing(busy_windows=False),
        gain=lambda _mode, setting, rate: 1.0 + setting.index + (0.5 if setting.auto or rate is Rate.FAST else 0.0),
    )
    for command, value in (("CONF:VOLT:DC 50E-3", 0.02), ("RATE F", 0.03), ("RANGE 2", 0.05)):
        meter.feed(f"{command}\n".encode())
        clock.advance(2.0)
        meter.take_due()
        meter.feed(b"MEAS1?\n")
        clock.advance(0.1)
        assert float(meter.take_due()) == pytest.approx(value)
