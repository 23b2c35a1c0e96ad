"""The sampler and its meters' threads, against virtual meters on real ports."""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from averaging_buffer import AveragingBuffer
from clock import Clock
from measurements import Interval, PowerSample
from meter_reader import MeterReader
from sample_slots import Check, Reading
from sampling_setup import shift_clear_of_boundary_s
from serial_port_read_writer import SerialPortReadWriter
from settings import Settings, load_settings
from simulator.faults import doubled, late, lost, replaced_by, with_the_next
from simulator.modes import Mode
from simulator.modes import Rate as SimulatedRate
from tests.rig import CURRENT_SERIAL, SHUNT_OHM, Rig, samples_of, wait_for
from xdm1041 import XDM1041, XDM1041Mode


class Recording(AveragingBuffer):
    """The real buffer, which also remembers the samples it was given."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.samples: list[PowerSample] = []
        self.open(Interval(start_mono_s=clock.mono_s(), end_mono_s=clock.mono_s() + 3600, end_utc_ms=0))

    def complete(self, begun_mono_s: float, sample: PowerSample) -> None:
        super().complete(begun_mono_s, sample)
        self.samples.append(sample)

    def having(self, *quantities: str) -> list[PowerSample]:
        """The samples in which exactly these quantities have a value."""
        every = ("voltage_v", "current_a", "power_kw")
        return [
            each for each in self.samples if all((getattr(each, q) is not None) == (q in quantities) for q in every)
        ]


BOTH = ("voltage_v", "current_a", "power_kw")


def settings_of(rig: Rig, sample_ms: int, xdm: Mapping[str, object] | None = None) -> Settings:
    """Settings with these keys in [XDM]; at short sample intervals the settings are verified often."""
    return load_settings(
        rig.configure({"XDM": {"xdm_verify_interval": 300, **(xdm or {})}}, sample_ms=sample_ms, report_ms=10_000)
    )


def wait_past_the_look() -> None:
    """Wait until what is asked next, at 500 ms, is a sample: the look before it comes 70 ms after the last one."""
    threading.Event().wait(0.2)


@contextmanager
def sampling(
    settings: Settings, record: Callable[[PowerSample], None] = lambda _sample: None
) -> Iterator[tuple[SerialPortReadWriter, Recording]]:
    clock = Clock()
    buffer = Recording(clock)
    sampler = SerialPortReadWriter(settings, buffer, clock, record)
    crashes: list[str] = []
    sampler.start(lambda: crashes.append("crash"))
    try:
        yield sampler, buffer
    finally:
        sampler.request_stop()
        assert sampler.join(clock.mono_s() + 5)
    assert not crashes


def test_samples_have_ohms_law_the_sign_and_the_product(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        settings = settings_of(rig, 100, {"xdm_current_reverse_polarity": True})
        with sampling(settings) as (_, buffer):
            wait_for(lambda: len(buffer.having(*BOTH)) >= 5)
    for sample in buffer.having(*BOTH):
        assert sample.voltage_v == pytest.approx(52.0, abs=0.1)
        assert sample.current_a == pytest.approx(-0.010 / SHUNT_OHM, abs=0.05)
        assert sample.power_kw == sample.voltage_v * sample.current_a / 1000  # type: ignore[operator]


def test_the_meters_are_asked_at_the_same_moment_and_on_time(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        settings = settings_of(rig, 100)
        with sampling(settings) as (sampler, buffer):
            wait_for(lambda: len(buffer.samples) >= 30)
    asked = [list(samples_of(meter, checked=False))[-20:] for meter in (rig.voltage, rig.current)]
    assert statistics.median(abs(a - b) for a, b in zip(*asked, strict=True)) < 0.005
    steps = [after - before for before, after in itertools.pairwise(asked[0])]
    assert statistics.median(steps) == pytest.approx(0.1, abs=0.005)
    assert sampler.counts["missed"] == 0


def test_direct_current_measurement_needs_no_shunt(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 3.5) as rig:
        keys = {"xdm_current_source": "direct", "xdm_current_range": "5A", "xdm_shunt_resistance": None}
        with sampling(settings_of(rig, 100, keys)) as (_, buffer):
            wait_for(lambda: buffer.having(*BOTH))
    assert buffer.having(*BOTH)[0].current_a == pytest.approx(3.5, abs=0.05)


def test_the_zero_offset_is_subtracted_at_the_shunt_before_polarity_and_power(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        keys = {"xdm_current_zero_offset": f"-2000 2026-11-24 {CURRENT_SERIAL}", "xdm_current_reverse_polarity": True}
        with sampling(settings_of(rig, 100, keys)) as (_, buffer):
            wait_for(lambda: len(buffer.having(*BOTH)) >= 3)
    for sample in buffer.having(*BOTH):
        assert sample.current_a == pytest.approx(-(0.010 + 0.002) / SHUNT_OHM, abs=0.05)
        assert sample.power_kw == sample.voltage_v * sample.current_a / 1000  # type: ignore[operator]


def test_a_current_within_the_deadband_is_exactly_none_and_so_is_its_power(tmp_path: Path) -> None:
    microvolts = itertools.cycle((-70.0, -40.0, -13.0, 13.0, 40.0, 70.0))
    held: dict[int, float] = {}
    shunt_volts: Callable[[float], float] = lambda at: held.setdefault(int(at / 0.7), next(microvolts)) / 1e6  # noqa: E731
    keys = {"xdm_current_zero_offset": "10", "xdm_current_deadband": 0.05}  # 33.3 microvolts at this shunt
    with (
        Rig(tmp_path, shunt_volts=shunt_volts) as rig,
        sampling(settings_of(rig, 350, keys)) as (_, buffer),
    ):
        wait_for(lambda: len(buffer.having(*BOTH)) >= 15)
    within = [sample for sample in buffer.having(*BOTH) if sample.current_a == 0.0]
    without = [sample.current_a for sample in buffer.having(*BOTH) if sample.current_a]
    assert within
    assert without
    assert all(sample.power_kw == 0.0 for sample in within)
    assert all(abs(current_a) >= 0.05 for current_a in without)


def test_a_zero_offset_of_another_meter_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Rig(tmp_path) as rig:
        keys = {"xdm_current_zero_offset": "-12.3 2026-11-24 24152470"}
        with sampling(settings_of(rig, 250, keys)) as (_, buffer):
            wait_for(lambda: buffer.having(*BOTH))
            rig.current.faults.once(lost(), to="MEAS1?")
            wait_for(lambda: buffer.having("voltage_v"))
            whole = len(buffer.having(*BOTH))
            wait_for(lambda: len(buffer.having(*BOTH)) > whole)
    told = [record.getMessage() for record in caplog.records if "zero_offset" in record.getMessage()]
    assert len(told) == 1
    assert "measured with meter 24152470, but this is meter 22511041" in told[0]


def test_one_meter_alone_gives_its_quantity_and_no_power(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        settings = settings_of(rig, 100, {"xdm_current_enable": False})
        with sampling(settings) as (sampler, buffer):
            wait_for(lambda: len(buffer.samples) >= 3)
            assert list(sampler.readers) == ["voltage meter"]
    assert len(buffer.having("voltage_v")) == len(buffer.samples)


def test_an_absent_meter_neither_delays_nor_stops_the_other(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.current_port.stop()
        with sampling(settings_of(rig, 100)) as (_, buffer):
            wait_for(lambda: len(buffer.having("voltage_v")) >= 10)
            rig.current_port.start()
            wait_for(lambda: len(buffer.having(*BOTH)) >= 3, what="the meter that appears later joins")
    starts = [sample.start_mono_s for sample in buffer.having("voltage_v")[:10]]
    assert statistics.median(b - a for a, b in itertools.pairwise(starts)) == pytest.approx(0.1, abs=0.01)


def test_a_meter_that_falls_silent_costs_only_its_own_samples(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 100)) as (_, buffer):
        wait_for(lambda: len(buffer.having(*BOTH)) >= 3)
        rig.current.switch_off()
        before = len(buffer.having("voltage_v"))
        wait_for(lambda: len(buffer.having("voltage_v")) >= before + 10)
        rig.current.switch_on()
        whole = len(buffer.having(*BOTH))
        wait_for(lambda: len(buffer.having(*BOTH)) >= whole + 3, within_s=25)
    for sample in buffer.having(*BOTH):
        assert sample.current_a == pytest.approx(0.010 / SHUNT_OHM, abs=0.05)


def test_after_a_power_cycle_the_meter_is_set_up_again_before_it_counts(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 500)) as (_, buffer):
        wait_for(lambda: buffer.having(*BOTH))
        rig.voltage.power_cycle()
        whole = len(buffer.having(*BOTH))
        wait_for(lambda: len(buffer.having(*BOTH)) >= whole + 3, within_s=25)
    for sample in buffer.having(*BOTH):
        assert sample.voltage_v == pytest.approx(52.0, abs=0.1)


def test_a_key_pressed_on_the_panel_spoils_no_sample(tmp_path: Path) -> None:
    presses: list[dict[str, Any]] = [
        {"range_number": 6},
        {"mode": Mode.ACV},
        {"auto": True},
        {"rate": SimulatedRate.FAST},
    ]
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 500)) as (_, buffer):
        for press in presses:
            whole, halves = len(buffer.having(*BOTH)), len(buffer.having("current_a"))
            wait_for(lambda: len(buffer.having(*BOTH)) > whole)  # noqa: B023  (called before the loop goes on)
            rig.voltage.press(**press)
            wait_for(lambda: len(buffer.having("current_a")) > halves)  # noqa: B023
    for sample in buffer.samples:
        assert sample.voltage_v is None or sample.voltage_v == pytest.approx(52.0, abs=0.1)


def test_a_late_reply_never_becomes_the_next_sample(tmp_path: Path) -> None:
    volts: Callable[[float], float] = lambda mono_s: 50.0 + mono_s % 1.0  # noqa: E731
    with Rig(tmp_path, volts=volts) as rig, sampling(settings_of(rig, 500)) as (_, buffer):
        wait_for(lambda: buffer.having(*BOTH))
        rig.voltage.faults.once(late(1.2), to="MEAS1?")
        wait_for(lambda: buffer.having("current_a"))
        whole = len(buffer.having(*BOTH))
        wait_for(lambda: len(buffer.having(*BOTH)) >= whole + 3)
    intact = {served.value for served in rig.voltage.served if served.intact}
    assert {sample.voltage_v for sample in buffer.samples if sample.voltage_v is not None} <= intact


def test_a_doubled_or_stalled_reply_never_shifts_the_samples_behind_it(tmp_path: Path) -> None:
    volts: Callable[[float], float] = lambda mono_s: 50.0 + mono_s % 1.0  # noqa: E731
    with Rig(tmp_path, volts=volts) as rig, sampling(settings_of(rig, 500)) as (_, buffer):
        disturbances: list[Callable[[], None]] = [
            lambda: rig.voltage.faults.once(doubled(), to="MEAS1?"),
            lambda: rig.voltage.faults.once(with_the_next(), to="MEAS1?"),
            lambda: rig.voltage.stall(3.0),
        ]
        for disturb in disturbances:
            whole = len(buffer.having(*BOTH))
            wait_for(lambda: len(buffer.having(*BOTH)) > whole)  # noqa: B023  (called before the loop goes on)
            halves = len(buffer.having("current_a"))
            disturb()
            wait_for(lambda: len(buffer.having("current_a")) > halves)  # noqa: B023
        wait_for(lambda: len(buffer.having(*BOTH)) > whole + 2)
    served = [(each.mono_s, each.value) for each in rig.voltage.served if each.intact]
    for sample in buffer.samples:
        if sample.voltage_v is not None:  # if a conversion ends meanwhile, it is asked for three times
            assert sample.voltage_v in [value for at, value in served if 0 <= at - sample.start_mono_s < 0.05]


def test_a_reply_that_is_no_reading_is_absent_and_counted(tmp_path: Path) -> None:
    replies = ["NAN", "1.2", "1E+9", "-1.234567E+0", "9.999999E+02", "OK/n", "0.000000E+00"]
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 500)) as (sampler, buffer):
        refused = sampler.readers["voltage meter"].refused
        for number, reply in enumerate(replies):
            whole = len(buffer.having(*BOTH))
            wait_for(lambda: len(buffer.having(*BOTH)) > whole)  # noqa: B023  (called before the loop goes on)
            wait_past_the_look()
            rig.voltage.faults.once(replaced_by(reply), to="MEAS1?")
            wait_for(lambda: sum(refused.values()) == number + 1)  # noqa: B023
        wait_for(lambda: len(buffer.having(*BOTH)) > whole)
    assert refused == {"ReplyMalformed": 4, "Overload": 2, "Unsettled": 1}
    for sample in buffer.having(*BOTH):
        assert sample.voltage_v == pytest.approx(52.0, abs=0.1)


def test_a_reading_whose_settings_check_fails_does_not_count(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, sampling(settings_of(rig, 500)) as (sampler, buffer):
        wait_for(lambda: buffer.having(*BOTH))
        rig.current.faults.once(lost(), to="FUNC1?")
        wait_for(lambda: buffer.having("voltage_v"))
        wait_for(lambda: sampler.readers["current meter"].refused == {"ReplyTimeout": 1})


def test_every_accepted_request_is_answered_once(tmp_path: Path) -> None:
    clock = Clock()
    answers: list[Reading] = []

    def deliver(message: Reading | Check) -> None:
        if isinstance(message, Reading):
            answers.append(message)

    with Rig(tmp_path) as rig:
        meter = XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, 5, rig.voltage_port.address)
        reader = MeterReader("voltage meter", meter, clock, deliver=deliver, on_ready=lambda: None)
        assert not reader.request(0.0, verify=False)
        reader.start(lambda: None)
        wait_for(lambda: reader.is_ready)
        accepted = 0
        for number in range(20):
            wait_for(lambda: len(answers) == accepted)  # noqa: B023  (called before the loop goes on)
            if number == 10:
                rig.voltage.switch_off()
            if reader.request(float(number), verify=False):
                accepted += 1
        wait_for(lambda: len(answers) == accepted)
        reader.request_stop()
        assert reader.join(clock.mono_s() + 10)
    assert [answer.begun_mono_s for answer in answers] == [float(number) for number in range(11)]
    assert [answer.value is None for answer in answers] == [False] * 10 + [True]


@pytest.mark.parametrize("interval_s", [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("utc_s", [1_700_000_000.0, 1_700_000_000.013, 1_700_000_004.9999, 1_700_000_002.5])
def test_due_times_keep_clear_of_the_ends_of_intervals(interval_s: float, utc_s: float) -> None:
    shift_s = shift_clear_of_boundary_s(utc_s, interval_s)
    phase_s = (utc_s + shift_s) % interval_s
    assert 0 <= shift_s <= 0.5
    clear_s = min(interval_s / 2, 0.25) - 1e-5
    assert clear_s <= phase_s <= interval_s - clear_s
