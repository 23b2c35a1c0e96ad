"""``--find-meters``: real processes, ptys and sockets; a device that is no meter is sent ``*IDN?`` and nothing else."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import serial
from serial.tools.list_ports_common import ListPortInfo

from clock import Clock
from find_meters import FoundPort, as_text, find_meters
from settings import load_settings
from simulator.faults import replaced_by
from simulator.meter import VirtualMeter
from simulator.ports import PtyPort, TcpPort
from tests.rig import CURRENT_SERIAL, PROJECT, VOLTAGE_SERIAL, Rig, run_daemon, start_daemon, wait_for

ASKED = {"*IDN?", "MEAS1:SHOW?", "MEAS1?"}


def found_by(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what ``--find-meters --json`` prints, by the name of the port without its folder."""
    done = run_daemon(folder, "--find-meters", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return {Path(each["port"]).name: each for each in json.loads(done.stdout)}


def commands(meter: VirtualMeter) -> list[str]:
    return [command.text for command in meter.received]


def write_xdm(folder: Path, **keys: object) -> Path:
    """Write a config.cfg with nothing but these keys: no account, no enabled meter."""
    path = folder / "config.cfg"
    path.write_text("[XDM]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()), encoding="utf-8")
    return path


def test_the_lines_it_ends_with_are_the_configuration(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_voltage_port": tmp_path / "current", "xdm_current_port": tmp_path / "voltage"}})
        done = run_daemon(tmp_path, "--find-meters")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.partition("[XDM]\n")[2].splitlines()
        rig.configure({"XDM": dict(line.split(" = ") for line in lines)})
        settings = load_settings(tmp_path / "config.cfg")
    for meter, name, serial_number in (
        (settings.voltage_meter, "voltage", VOLTAGE_SERIAL),
        (settings.current_meter, "current", CURRENT_SERIAL),
    ):
        assert meter is not None
        assert (meter.port, meter.serial_number) == (str(tmp_path / name), serial_number)
    assert re.search(r"it shows 05(2\.0|1\.9)", done.stdout)  # 52 V, and some noise
    assert re.search(r"it shows (0\.01\d+|10\.\d+m|09\.9\d+m)VDC", done.stdout)


def test_json_has_who_answers_and_what_it_reads_and_no_setting_is_changed(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        found = found_by(tmp_path)
        assert found.keys() == {"voltage", "current"}
        for name, serial_number, reading in (("voltage", VOLTAGE_SERIAL, 52.0), ("current", CURRENT_SERIAL, 0.010)):
            assert found[name]["port"] == str(tmp_path / name)
            assert (found[name]["model"], found[name]["firmware"]) == ("XDM1041", "V4.0.0")
            assert found[name]["serial"] == serial_number
            assert found[name]["reading"] == pytest.approx(reading, abs=0.05)
            assert found[name]["trouble"] is None
        assert {*commands(rig.voltage)} == {*commands(rig.current)} == ASKED
    assert {path.name for path in tmp_path.iterdir()} == {"config.cfg"}


def test_without_a_configuration_it_looks_at_what_the_system_lists(tmp_path: Path) -> None:
    done = run_daemon(tmp_path, "--find-meters")
    assert (done.returncode, done.stderr) == (0, "")
    assert "No meter was found" in done.stdout
    assert json.loads(run_daemon(tmp_path, "--find-meters", "--json").stdout) == []
    assert list(tmp_path.iterdir()) == []


def test_the_example_half_filled_in_is_enough(tmp_path: Path) -> None:
    example = (PROJECT / "config.cfg.example").read_text(encoding="utf-8")
    with Rig(tmp_path):
        text = example.replace("/dev/ttyUSB2", "./voltage").replace("/dev/ttyUSB1", "./current")
        (tmp_path / "config.cfg").write_text(text + "\nnonsense\n", encoding="utf-8")
        assert [each["model"] for each in found_by(tmp_path).values()] == ["XDM1041", "XDM1041"]


def test_patterns_and_urls_of_scan_ports_are_looked_at_and_a_device_on_two_names_once(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, TcpPort(VirtualMeter(lambda _: 3.0, serial_number="33")) as tcp:
        (tmp_path / "voltage2").symlink_to(tmp_path / "voltage")
        write_xdm(tmp_path, xdm_scan_ports=f"volt*/, ./volt*, {rig.folder}/current, {tcp.address}, ./nothing")
        found = found_by(tmp_path)
        assert [each["serial"] for each in found.values() if each["model"]] == [VOLTAGE_SERIAL, CURRENT_SERIAL, "33"]
        assert "it is not there" in found["nothing"]["trouble"]
        assert commands(rig.voltage).count("*IDN?") == 1


def test_an_unknown_device_is_sent_idn_and_nothing_else(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.current.faults.always(replaced_by("ACME,PSU-9000,1,V1"), to="*IDN?")
        rig.voltage.faults.always(replaced_by("hello"), to="*IDN?")
        rig.configure()
        found = found_by(tmp_path)
        assert "another instrument answers" in found["current"]["trouble"]
        assert "not an identification" in found["voltage"]["trouble"]
        assert {each["model"] for each in found.values()} == {each["reading"] for each in found.values()} == {None}
        assert {*commands(rig.voltage), *commands(rig.current)} == {"*IDN?"}


def test_a_silent_port_and_an_overload_are_told(tmp_path: Path) -> None:
    with Rig(tmp_path, volts=lambda _: 5000.0) as rig:
        rig.current.switch_off()
        rig.configure()
        found = found_by(tmp_path)
        assert "no answer to *IDN?" in found["current"]["trouble"]
        assert (found["voltage"]["serial"], found["voltage"]["reading"]) == (VOLTAGE_SERIAL, None)
        assert "overload" in found["voltage"]["trouble"]


def test_the_ports_of_a_running_daemon_are_left_to_it(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, TcpPort(rig.voltage) as tcp:
        rig.configure({"XDM": {"xdm_voltage_port": tcp.address}})
        process = rig.start()
        rig.wait_for_intervals(2)
        found = found_by(tmp_path)
        by_serial = {each["serial"]: each for each in found.values()}
        assert by_serial.keys() == {VOLTAGE_SERIAL, CURRENT_SERIAL}
        for each in found.values():
            assert f"in use by the daemon, process {process.pid}" in each["trouble"]
            assert "it works" in each["trouble"]
            assert each["model"] is None
        text = run_daemon(tmp_path, "--find-meters").stdout
        assert "To have the meters asked, stop the daemon first" in text
        rig.wait_for_intervals(1)
        assert rig.stop()[0] == 0
        assert commands(rig.voltage).count("*IDN?") == commands(rig.current).count("*IDN?") == 1
    assert "WARNING" not in rig.log


def test_the_ports_of_a_daemon_in_another_folder_are_left_to_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Rig(tmp_path) as rig:
        rig.configure()
        process = rig.start()
        rig.wait_for_intervals(1)
        write_xdm(elsewhere, xdm_scan_ports=f"{tmp_path}/current, {tmp_path}/voltage")
        found = found_by(elsewhere)
        assert [each["trouble"] for each in found.values()] == [f"in use by the daemon, process {process.pid}"] * 2
        assert rig.stop()[0] == 0
        assert commands(rig.voltage).count("*IDN?") == 1


def test_a_daemon_that_is_started_meanwhile_waits_for_the_port(tmp_path: Path) -> None:
    """A tool that looks at a port for a moment is not another daemon: the one that starts must not refuse to."""
    with Rig(tmp_path) as rig:
        rig.configure()
        code = (
            "import sys, threading, serial\n"
            "port = serial.Serial(sys.argv[-1], exclusive=True)\n"
            "print('open', flush=True)\n"
            "threading.Event().wait(4)\n"
        )
        tool = start_daemon(tmp_path, "backend_daemon.py", "--find-meters", str(tmp_path / "voltage"), code=code)
        try:
            assert tool.stdout is not None
            assert tool.stdout.readline() == "open\n"
            rig.start()
            rig.wait_for_log("another program holds it")
            rig.wait_for_intervals(1)
        finally:
            tool.kill()
            tool.communicate()
        assert rig.stop()[0] == 0


def test_who_else_holds_a_port_is_told(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, serial.Serial(str(tmp_path / "voltage"), exclusive=True):
        rig.configure()
        trouble = found_by(tmp_path)["voltage"]["trouble"]
        assert "another program holds it" in trouble
        assert f"process {os.getpid()}" in trouble
        assert commands(rig.voltage) == []


def test_what_the_system_knows_of_a_port_is_shown_and_others_are_listed_but_not_asked(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, PtyPort(VirtualMeter(lambda _: 1.0)) as other:
        adapter, modem = ListPortInfo(str(tmp_path / "voltage")), ListPortInfo(other.path)
        adapter.vid, adapter.pid, adapter.description = 0x1A86, 0x7523, "USB Serial"
        write_xdm(tmp_path, xdm_scan_ports="./voltage")
        found = find_meters(tmp_path / "config.cfg", Clock(), [adapter, modem])
        assert [(each.port, each.asked) for each in found] == [(str(tmp_path / "voltage"), True), (other.path, False)]
        assert (found[0].usb_id, found[0].description) == ("1a86:7523", "USB Serial")
        assert commands(other.meter) == commands(rig.current) == []
        text = as_text(found)
        assert "USB 1a86:7523, USB Serial" in text
        assert "name it in xdm_scan_ports" in text


def meter(port: str, serial_number: str, reading: float | None, display: str | None) -> FoundPort:
    return FoundPort(port=port, model="XDM1041", serial=serial_number, firmware="V4", reading=reading, display=display)


def test_which_meter_is_which_is_not_guessed() -> None:
    """Two on a battery, one in ohms, one that shows overload: the lines are there, but none is in force."""
    for one, other in (
        (meter("/dev/a", "1", 52.0, "052.00VDC"), meter("/dev/b", "2", 51.9, "051.90VDC")),
        (meter("/dev/a", "1", 52.0, "052.00Ω"), meter("/dev/b", "2", None, "overload")),
    ):
        lines = as_text([one, other]).partition("[XDM]\n")[2].splitlines()
        assert all(line.startswith("#") for line in lines)
        assert "# xdm_voltage_port = /dev/b" in lines


def test_one_serial_number_on_two_meters_is_not_offered() -> None:
    text = as_text([meter("/dev/a", "1", 52.0, "052.00VDC"), meter("/dev/b", "1", 0.01, "10.000mVDC")])
    assert "xdm_voltage_port = /dev/a\n" in text
    assert "xdm_current_port = /dev/b\n" in text
    assert "_serial =" not in text
    assert "the same serial number" in text


def test_a_daemon_without_a_status_yet_keeps_its_ports(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, TcpPort(rig.voltage) as tcp:
        rig.configure({"XDM": {"xdm_voltage_port": tcp.address}}, report_ms=3_600_000)
        process = rig.start()
        wait_for(lambda: (tmp_path / "power_monitor.lock").exists() and commands(rig.current), what="the daemon runs")
        found = found_by(tmp_path)
        assert all(f"in use by the daemon, process {process.pid}" in each["trouble"] for each in found.values())
        assert rig.stop()[0] == 0
