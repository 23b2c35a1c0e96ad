"""The virtual batteries: the model keeps its promises, a recording is played as recorded or refused with a reason."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from simulator.battery import BadRecording, BatteryModel, RecordedBattery

_CYCLE_S = 240.0


def _moments_s(count: int = 20_000) -> list[float]:
    return [5000.0 + 0.1 * step for step in range(count)]


def test_the_model_stays_within_what_its_meters_can_read() -> None:
    battery = BatteryModel()
    for mono_s in _moments_s():
        assert 46.0 < battery.voltage_v(mono_s) < 58.0
        assert abs(battery.current_a(mono_s)) < 70.0
        assert abs(battery.shunt_v(mono_s)) < 0.05


def test_the_model_rests_charges_and_discharges_in_bursts() -> None:
    currents_a = [BatteryModel().current_a(mono_s) for mono_s in _moments_s()]
    assert max(currents_a) > 30.0
    assert min(currents_a) < -50.0
    assert sum(abs(current_a) < 1.0 for current_a in currents_a) > 0.1 * len(currents_a)
    strong = [current_a < -20.0 for current_a in currents_a]
    assert sum(now and not before for before, now in itertools.pairwise(strong)) > 50


def test_the_voltage_sags_by_load_times_internal_resistance() -> None:
    stiff, soft = BatteryModel(internal_ohm=0.0), BatteryModel(internal_ohm=0.02)
    for mono_s in _moments_s(500):
        sag_v = stiff.voltage_v(mono_s) - soft.voltage_v(mono_s)
        assert sag_v == pytest.approx(-0.02 * soft.current_a(mono_s))


def test_a_seed_decides_the_bursts_and_the_order_of_asking_does_not() -> None:
    moments_s = _moments_s(2400)
    first = [BatteryModel(seed=3).current_a(mono_s) for mono_s in moments_s]
    again = [BatteryModel(seed=3).current_a(mono_s) for mono_s in reversed(moments_s)]
    assert first == again[::-1]
    assert first != [BatteryModel(seed=4).current_a(mono_s) for mono_s in moments_s]
    assert first != [BatteryModel(seed=3).current_a(mono_s + _CYCLE_S) for mono_s in moments_s]


def test_reversed_leads_turn_the_sign_of_the_shunt_alone() -> None:
    right, wrong = BatteryModel(shunt_ohm=0.001), BatteryModel(shunt_ohm=0.001, leads_reversed=True)
    for mono_s in _moments_s(2400):
        assert right.shunt_v(mono_s) == right.current_a(mono_s) * 0.001 == -wrong.shunt_v(mono_s)
        assert right.current_a(mono_s) == wrong.current_a(mono_s)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "battery.csv"
    path.write_text("seconds,voltage_v,current_a\n10,50,0\n12,51,20\n14,49,-40\n", encoding="utf-8")
    return path


def test_a_recording_is_played_in_a_loop(recording: Path) -> None:
    battery = RecordedBattery.from_csv(recording, start_mono_s=1000.0)
    assert battery.duration_s == 4.0
    for lap_s in (0.0, 4.0, 400.0, -4.0):
        assert battery.voltage_v(1000.0 + lap_s) == 50.0
        assert battery.voltage_v(1001.0 + lap_s) == 50.5
        assert battery.current_a(1003.0 + lap_s) == -10.0


def test_a_recording_may_be_played_in_steps(recording: Path) -> None:
    battery = RecordedBattery.from_csv(recording, interpolation="step", shunt_ohm=0.001, leads_reversed=True)
    assert [battery.current_a(mono_s) for mono_s in (0.0, 1.9, 2.0, 3.9, 4.0)] == [0.0, 0.0, 20.0, 20.0, 0.0]
    assert battery.shunt_v(2.0) == -0.02


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no column seconds, voltage_v, current_a"),
        (b"seconds,voltage\n1,2\n", "no column voltage_v, current_a"),
        (b"seconds,voltage_v,current_a\n1,50,0\n", "at least two rows, this one has 1"),
        (b"seconds,voltage_v,current_a\n1,50,0\n2,fifty,0\n", "line 3: voltage_v is 'fifty', which is no number"),
        (b"seconds,voltage_v,current_a\n1,50\n", "line 2: current_a is None, which is no number"),
        (b"seconds,voltage_v,current_a\n1,50,nan\n", "line 2: current_a is 'nan', which is no finite number"),
        (b"seconds,voltage_v,current_a\n1,50,0\n1,50,0\n", "line 3: seconds must rise, 1 does not"),
        (b"seconds,voltage_v,current_a\n\xff\xfe\n", "cannot be read as CSV"),
    ],
)
def test_a_bad_recording_is_refused_with_file_line_and_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(BadRecording) as caught:
        RecordedBattery.from_csv(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


def test_a_missing_recording_is_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="cannot be read"):
        RecordedBattery.from_csv(tmp_path / "absent.csv")


def test_columns_may_come_in_any_order_with_others_between(tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("current_a, note, seconds, voltage_v\n1, a, 0, 50\n3, b, 2, 52\n", encoding="utf-8-sig")
    battery = RecordedBattery.from_csv(path)
    assert (battery.voltage_v(1.0), battery.current_a(1.0)) == (51.0, 2.0)


def test_the_integral_is_that_of_the_power_in_and_out() -> None:
    battery = BatteryModel(seed=5)
    steps = 240_000
    powers_kw = [
        battery.voltage_v(at) * battery.current_a(at) / 1000
        for at in (1000 + 480 * (n + 0.5) / steps for n in range(steps))
    ]
    kwh_each = 480 / steps / 3600
    in_kwh, out_kwh = battery.energy_kwh(1000.0, 1480.0)
    assert in_kwh == pytest.approx(kwh_each * sum(kw for kw in powers_kw if kw > 0), rel=2e-5)
    assert out_kwh == pytest.approx(-kwh_each * sum(kw for kw in powers_kw if kw < 0), rel=2e-4)
    halves = [
        sum(each) for each in zip(battery.energy_kwh(1000.0, 1300.1), battery.energy_kwh(1300.1, 1480.0), strict=True)
    ]
    assert halves == pytest.approx([in_kwh, out_kwh], rel=1e-9)
