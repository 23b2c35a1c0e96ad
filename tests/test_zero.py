"""``--zero``: the real program at a virtual meter on a real pty, and what its readings are judged to be."""

from __future__ import annotations

import random
import re
import signal
import subprocess
from pathlib import Path
from threading import Thread

import pytest

from settings import load_settings
from simulator.ports import PtyPort
from tests.rig import CURRENT_SERIAL, SHUNT_OHM, VOLTAGE_SERIAL, Rig, run_daemon, start_daemon, wait_for
from xdm1041 import XDM1041, Identity, XDM1041Mode, XDM1041Rate
from zero import KEY, ZeroRefused, judged, step_of

STEP_V = 1e-6
METER = Identity(model="XDM1041", serial_number=CURRENT_SERIAL, firmware="V4.0.0")
OFFSET = re.compile(rf"{KEY} = (-?\d+\.\d) (\d{{4}}-\d\d-\d\d) {CURRENT_SERIAL}$", re.MULTILINE)


def zero(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_daemon(rig.folder, "--zero", "--seconds", "5", *arguments)


def refusal(rig: Rig, *arguments: str) -> str:
    before = (rig.folder / "config.cfg").read_bytes()
    done = zero(rig, "--write", *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert KEY not in done.stdout
    assert (rig.folder / "config.cfg").read_bytes() == before
    return done.stderr


# -- the program -------------------------------------------------------------------------------------------------------


def test_it_shows_mean_scatter_and_amperes_and_the_line_to_write(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: -12.3e-6) as rig:
        config = rig.configure({"XDM": {"xdm_current_reverse_polarity": True}})
        before = config.read_bytes()
        done = zero(rig)
    assert (done.returncode, done.stderr) == (0, "")
    found = OFFSET.search(done.stdout)
    assert found
    offset_uv = float(found[1])
    assert offset_uv == pytest.approx(-12.3, abs=2)
    ampere = re.search(r"mean +(-[\d.]+) µV  which is +\+([\d.]+) A", done.stdout)
    assert ampere
    assert float(ampere[1]) == offset_uv
    assert float(ampere[2]) == pytest.approx(-offset_uv / 1e6 / SHUNT_OHM, abs=1e-4)
    assert re.search(r"scatter +[\d.]+ µV  which is +0\.00\d\d A", done.stdout)
    assert re.search(r"\b(8|9|10|11) readings", done.stdout)
    assert config.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.cfg"]


def test_it_needs_no_password_and_finds_a_file_beside_the_configuration(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 100e-6) as rig:
        (tmp_path / "secret").write_text("hunter2secret\n", encoding="utf-8")
        for source in ("credential", "secret"):
            rig.configure({"DEFAULT": {"API_PASSWORD": None, "API_PASSWORD_FILE": source}})
            done = zero(rig, "--write")
            assert (done.returncode, done.stderr) == (0, "")
            assert "Written into" in done.stdout


def test_written_it_changes_one_line_of_the_file_and_the_daemon_uses_it(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 100e-6) as rig:
        config = rig.configure({"XDM": {KEY: "3", "xdm_current_port": rig.folder / "current"}})
        config.write_bytes(b"# by hand\r\n" + config.read_bytes())
        before = config.read_bytes()
        done = zero(rig, "--write")
        assert (done.returncode, done.stderr) == (0, "")
        found = OFFSET.search(done.stdout)
        assert found
        assert config.read_bytes() == before.replace(f"{KEY} = 3\n".encode(), f"{found[0]}\n".encode())
        offset = load_settings(config).current_meter.zero_offset  # type: ignore[union-attr]
        assert (offset.offset_uv, offset.serial_number) == (float(found[1]), CURRENT_SERIAL)
        assert str(offset.measured_on) == found[2]
        assert "WARNING: more than 20.0 µV is unusual" in done.stdout
        rig.start()
        for values in rig.wait_for_intervals(2)[1:]:
            assert values["A"] == pytest.approx(0.0, abs=0.01)
            assert values["kW"] == pytest.approx(0.0, abs=0.001)
        rig.stop()
    assert "zero_offset was measured with meter" not in rig.log


def test_it_is_refused_while_the_daemon_runs(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Rig(tmp_path, shunt_volts=lambda _: 1e-6) as rig:
        config = rig.configure()
        (elsewhere / "config.cfg").write_bytes(config.read_bytes())
        process = rig.start()
        rig.wait_for_log("current meter: XDM1041")
        said = refusal(rig)
        assert f"The daemon has the meter (process {process.pid}): stop it" in said
        done = run_daemon(elsewhere, "--zero", "--seconds", "5")
        assert done.returncode == 1
        assert f"process {process.pid}" in done.stderr
        rig.wait_for_intervals(1)


def test_it_is_refused_without_a_shunt(tmp_path: Path) -> None:
    direct = {"xdm_current_source": "direct", "xdm_shunt_resistance": None}
    for keys in (direct, {"xdm_current_enable": False}):
        with Rig(tmp_path, plugged_in=False, cloud_up=False) as rig:
            rig.configure({"XDM": keys})
            assert "There is no shunt to take the zero of" in refusal(rig)


def test_it_is_refused_at_overload(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 0.060) as rig:
        rig.configure()
        assert "the meter shows overload (range 50 mV): a large current flows" in refusal(rig)


def test_it_is_refused_when_a_current_flows(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 400e-6) as rig:
        rig.configure()
        assert "that is a current and no zero error. Is the contactor open" in refusal(rig)


def test_it_is_refused_when_the_meter_is_absent_or_another(tmp_path: Path) -> None:
    with Rig(tmp_path, plugged_in=False, cloud_up=False) as rig:
        rig.configure()
        assert "it is not there" in refusal(rig)
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_current_serial": "24152470", "xdm_scan_ports": tmp_path / "current"}})
        assert f"has the meter with serial number {CURRENT_SERIAL}, not 24152470" in refusal(rig)


def test_the_meter_is_found_by_its_serial_number_when_the_cables_are_swapped(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: -7e-6) as rig:
        for port in (rig.voltage_port, rig.current_port):
            port.unplug()
        assert isinstance(rig.voltage_port, PtyPort)
        assert isinstance(rig.current_port, PtyPort)
        rig.voltage_port.link, rig.current_port.link = rig.current_port.link, rig.voltage_port.link
        for port in (rig.voltage_port, rig.current_port):
            port.plug_in()
        ports = f"{tmp_path}/voltage, {tmp_path}/current"
        serials = {"xdm_voltage_serial": VOLTAGE_SERIAL, "xdm_current_serial": CURRENT_SERIAL, "xdm_scan_ports": ports}
        rig.configure({"XDM": serials})
        done = zero(rig)
    assert done.returncode == 0, done.stderr
    assert OFFSET.search(done.stdout)


def test_it_is_refused_when_a_key_is_pressed_meanwhile(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 1e-6) as rig:
        rig.configure()

        def press() -> None:
            wait_for(lambda: [each for each in rig.current.served if abs(each.value) < 5e-5][12:], what="it measures")
            rig.current.press(range_number=2)

        presser = Thread(target=press)
        presser.start()
        assert "The meter gave no good reading: the meter answers" in refusal(rig)
        presser.join()


def test_it_can_be_stopped_and_stores_nothing(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 1e-6) as rig:
        before = rig.configure().read_bytes()
        process = start_daemon(tmp_path, "--zero", "--write")
        wait_for(lambda: rig.current.served)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (1, "stopped\n")
    assert (tmp_path / "config.cfg").read_bytes() == before


@pytest.mark.parametrize(
    "arguments", [("--write",), ("--zero", "--seconds", "4"), ("--zero", "--demo"), ("--zero", "--status")]
)
def test_arguments_that_do_not_go_together(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run_daemon(tmp_path, *arguments).returncode == 2


def test_a_wrong_configuration_is_told_as_ever(tmp_path: Path) -> None:
    done = run_daemon(tmp_path, "--zero")
    assert done.returncode == 78
    assert "copy config.cfg.example" in done.stderr


# -- the judgement -----------------------------------------------------------------------------------------------------


def readings_v(mean_uv: float, scatter_uv: float = 1.0, drift_uv: float = 0.0, count: int = 120) -> list[float]:
    chance = random.Random(1)
    return [
        (mean_uv + chance.gauss(0, scatter_uv) + drift_uv * (number / (count - 1) - 0.5)) / 1e6
        for number in range(count)
    ]


@pytest.mark.parametrize("mean_uv", [0.0, 12.3, -131.0, 240.0])
def test_a_quiet_meter_gives_its_mean_and_scatter(mean_uv: float) -> None:
    got = judged(readings_v(mean_uv), METER, STEP_V)
    assert got.mean_v * 1e6 == pytest.approx(mean_uv, abs=0.3)
    assert got.scatter_v * 1e6 == pytest.approx(1.0, abs=0.2)
    assert got.count == 120


@pytest.mark.parametrize(
    ("readings", "why"),
    [
        (readings_v(0, scatter_uv=8), "scatter by"),
        (readings_v(0, drift_uv=12), r"drift by [78]\.\d µV"),
        (readings_v(0, drift_uv=-12), r"drift by -[78]\.\d µV"),
        (readings_v(-270), r"The mean is -2\d\d\.\d µV, with 250.0 µV allowed"),
        ([1.234567e-06] * 120, "the display is held"),
    ],
)
def test_readings_that_are_no_zero_are_refused_with_the_reason(readings: list[float], why: str) -> None:
    with pytest.raises(ZeroRefused, match=why):
        judged(readings, METER, STEP_V)


@pytest.mark.parametrize(
    ("number", "rate", "expected_uv"), [(1, XDM1041Rate.SLOW, 1), (2, XDM1041Rate.SLOW, 10), (1, XDM1041Rate.FAST, 10)]
)
def test_a_step_is_the_last_digit_of_the_display(number: int, rate: XDM1041Rate, expected_uv: float) -> None:
    meter = XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, number, "COM3", rate=rate)
    assert step_of(meter) * 1e6 == pytest.approx(expected_uv)


def test_a_coarser_range_may_scatter_more() -> None:
    judged(readings_v(0, scatter_uv=40), METER, 10 * STEP_V)
    judged(readings_v(1500, scatter_uv=40), METER, 100 * STEP_V)
