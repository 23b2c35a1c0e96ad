"""``--check``: real processes, ptys, a cloud and a Redis; each line well, doubtful and bad where it can be."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

import pytest

from clock import Clock
from doctor import examine
from simulator.cloud_http import Reply, never_answer
from simulator.faults import cut, replaced_by
from simulator.meter import VirtualMeter
from simulator.ports import PtyPort
from tests.redis_server import RedisServer
from tests.rig import CURRENT_SERIAL, MAC, PASSWORD, SHUNT_OHM, VOLTAGE_SERIAL, Rig, run_daemon, start_daemon

METER = ("found", "identity", "settings", "readings", "plausibility", "sign")
COMPUTER = ("clock", "disk", "log-in", "device", "redis")
ALL = (
    "configuration",
    *(f"voltage meter {each}" for each in METER),
    *(f"current meter {each}" for each in METER),
    *COMPUTER,
)


class Checked(NamedTuple):
    """What ``--check --json`` said: its exit code, and (result, message) by check, the last one of each name."""

    code: int
    lines: dict[str, tuple[str, str]]

    def result(self, check: str) -> str:
        return self.lines[check][0]

    def message(self, check: str) -> str:
        return self.lines[check][1]

    def not_ok(self) -> dict[str, str]:
        return {check: result for check, (result, _) in self.lines.items() if result != "OK"}


def checked(folder: Path, *arguments: str, code: str | None = None) -> Checked:
    if code is None:
        done = run_daemon(folder, "--check", "--json", *arguments)
        stdout, stderr, exit_code = done.stdout, done.stderr, done.returncode
    else:
        process = start_daemon(folder, "--check", "--json", *arguments, code=code)
        stdout, stderr = process.communicate(timeout=25)
        exit_code = process.returncode
    assert stderr == ""
    objects = [json.loads(line) for line in stdout.splitlines()]
    assert all(each.keys() == {"check", "result", "message"} for each in objects)
    assert all("\n" not in each["message"] for each in objects)
    assert exit_code == (1 if any(each["result"] == "FAIL" for each in objects) else 0)
    return Checked(exit_code, {each["check"]: (each["result"], each["message"]) for each in objects})


def test_all_is_well_in_order_and_nothing_is_sent_or_left_behind(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server:
        rig.configure({"REDIS": {"redis_enable": True, "redis_port": server.port}})
        before = {path.name for path in tmp_path.iterdir()}
        got = checked(tmp_path)
        assert got.not_ok() == {}
        assert tuple(got.lines) == ALL
        assert got.code == 0
        assert rig.cloud.received == []
        assert set(rig.cloud.calls) == {"authentication/g", "client/locationview"}
        assert server.hash(str(MAC)) == {}
        assert {path.name for path in tmp_path.iterdir()} == before
    assert VOLTAGE_SERIAL in got.message("voltage meter identity")
    assert re.search(
        r"10 readings: mean 5\d\.\d{4} V, scatter .* V; [23]\.\d new ones", got.message("voltage meter readings")
    )
    assert re.search(r"mean 1[45]\.\d{4} A, scatter .* A \((9|10)\.\d{4} mV", got.message("current meter readings"))
    assert "charged" in got.message("current meter sign")


def test_as_text_it_is_a_line_each(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_current_enable": False}})
        done = run_daemon(tmp_path, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [re.split(r"(?:OK|WARN|FAIL) {2,4}(.*?): ", line)[1] for line in lines] == [
        check for check in ALL if not check.startswith("current meter")
    ]


def test_a_bad_configuration_is_told_problem_by_problem(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"DEFAULT": {"self_mac": "changeme"}, "SERIAL": {"sample_interval": 5}})
        done = run_daemon(tmp_path, "--check")
        assert done.returncode == 1
        assert [line[:4] for line in done.stdout.splitlines()] == ["FAIL", "FAIL"]
        assert "self_mac" in done.stdout
        assert "sample_interval" in done.stdout
        assert rig.cloud.request_count == 0
    assert run_daemon(tmp_path / "..", "--config", "nowhere.cfg", "--check").returncode == 1


def test_a_doubtful_configuration_is_a_warning(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure().chmod(0o644)
        rig.voltage_port.unplug()
        rig.current_port.unplug()
        got = checked(tmp_path)
    assert got.result("configuration") == "WARN"
    assert "chmod 600" in got.message("configuration")


# -- the meters; two faults in each run, one on either meter -----------------------------------------------------------


def unplug(rig: Rig) -> None:
    rig.voltage_port.unplug()


def switch_off(rig: Rig) -> None:
    rig.current.switch_off()


def other_device(rig: Rig) -> None:
    rig.voltage.faults.always(replaced_by("ACME,PSU-9000,1,V1"), to="*IDN?")


def other_meter(rig: Rig) -> None:
    rig.configure({"XDM": {"xdm_current_serial": "999", "xdm_scan_ports": "./current"}})


def stays_in_auto(rig: Rig) -> None:
    rig.voltage.faults.always(replaced_by("1"), to="AUTO?")


def cut_readings(rig: Rig) -> None:
    rig.current.faults.always(cut(6, line_end=True), to="MEAS1?")


def always_zero(rig: Rig) -> None:
    rig.voltage.faults.always(replaced_by("0.000000E+00"), to="MEAS1?")


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ((unplug, switch_off), {"voltage meter found": "it is not there", "current meter found": "is the meter on"}),
        (
            (other_device, other_meter),
            {
                "voltage meter identity": "another instrument",
                "current meter identity": f"serial number {CURRENT_SERIAL}",
            },
        ),
        ((stays_in_auto, cut_readings), {"voltage meter settings": "AUTO?", "current meter readings": "not a reading"}),
        ((always_zero,), {"voltage meter readings": "Press Run/Stop"}),
    ],
)
def test_a_meter_that_fails(
    tmp_path: Path, faults: tuple[Callable[[Rig], None], ...], expected: dict[str, str]
) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        for fault in faults:
            fault(rig)
        got = checked(tmp_path)
    assert got.not_ok() == dict.fromkeys(expected, "FAIL")
    for check, words in expected.items():
        assert words in got.message(check)
        steps = METER[: METER.index(check.rpartition(" ")[2])]
        assert all(got.lines.get(f"{check.rpartition(' ')[0]} {step}", ("OK",))[0] == "OK" for step in steps)


@pytest.mark.parametrize(
    ("volts", "shunt_volts", "xdm", "expected"),
    [
        (-52.0, 63.3e-3, {}, {"voltage meter sign": "FAIL", "current meter settings": "WARN"}),
        (
            0.3,
            0.0,
            {},
            {"voltage meter plausibility": "WARN", "voltage meter sign": "WARN", "current meter sign": "WARN"},
        ),
        (
            52.0,
            63.3e-3,
            {"xdm_current_range": "50mV fixed", "xdm_voltage_max": 50},
            {"voltage meter plausibility": "FAIL", "current meter readings": "FAIL"},
        ),
        (
            47.0,
            -47.0e-3,
            {"xdm_voltage_range": "50V", "xdm_current_range": "50mV fixed", "xdm_current_reverse_polarity": True},
            {"voltage meter plausibility": "WARN", "current meter plausibility": "WARN"},
        ),
        (
            52.0,
            -0.010,
            {"xdm_current_min": -10, "xdm_current_zero_offset": "-12.3 2026-11-24 99999999"},
            {"current meter plausibility": "FAIL", "current meter identity": "WARN"},
        ),
    ],
)
def test_readings_that_cannot_be_or_should_be_looked_at(
    tmp_path: Path, volts: float, shunt_volts: float, xdm: dict[str, object], expected: dict[str, str]
) -> None:
    with Rig(tmp_path, volts=lambda _: volts, shunt_volts=lambda _: shunt_volts) as rig:
        rig.configure({"XDM": xdm})
        got = checked(tmp_path)
    assert got.not_ok() == expected
    if "current meter sign" in got.lines:
        assert ("discharged" in got.message("current meter sign")) is (shunt_volts == -0.010)


def test_swapped_meters_are_called_that(tmp_path: Path) -> None:
    with Rig(tmp_path, volts=lambda _: 0.010, shunt_volts=lambda _: 52.0) as rig:
        rig.configure({"XDM": {"xdm_voltage_min": 40}})
        got = checked(tmp_path, "--send-test")
        assert got.result("current meter plausibility") == "FAIL"
        assert "swapped" in got.message("current meter plausibility")
        assert got.result("send-test") == "WARN"
        assert rig.cloud.received == []


def test_cables_that_are_exchanged_are_told_but_harmless_with_serial_numbers(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure(
            {
                "XDM": {
                    "xdm_voltage_port": tmp_path / "current",
                    "xdm_current_port": tmp_path / "voltage",
                    "xdm_voltage_serial": VOLTAGE_SERIAL,
                    "xdm_current_serial": CURRENT_SERIAL,
                }
            }
        )
        got = checked(tmp_path)
    assert got.not_ok() == {"voltage meter identity": "WARN", "current meter identity": "WARN"}
    for name in ("voltage", "current"):
        assert f"is on {tmp_path / name} instead of" in got.message(f"{name} meter identity")


def test_readings_that_scatter_or_stand_still_are_doubtful(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda at: 0.04 if at % 1 < 0.5 else -0.04) as rig:
        rig.voltage_port = PtyPort(
            VirtualMeter(lambda _: 52.0, noise_steps=0, serial_number=VOLTAGE_SERIAL), link=tmp_path / "still"
        )
        with rig.voltage_port:
            rig.configure({"XDM": {"xdm_voltage_port": tmp_path / "still"}})
            got = checked(tmp_path)
    assert got.not_ok() == {
        "voltage meter readings": "WARN",
        "current meter readings": "WARN",
        "current meter sign": "WARN",
    }
    assert "is it in hold?" in got.message("voltage meter readings")
    assert "mains noise" in got.message("current meter readings")


def test_the_meters_of_a_running_daemon_are_left_to_it(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        process = rig.start()
        rig.wait_for_intervals(2)
        got = checked(tmp_path, "--send-test")
        assert got.not_ok() == {"send-test": "WARN"}
        for name in ("voltage meter", "current meter"):
            assert f"in use by the daemon, process {process.pid}" in got.message(name)
            assert "it works" in got.message(name)
        assert re.search(r"last average, \d+ s ago: 5\d\.\d{4} V, 1\d\.\d{4} A, 0\.\d{4} kW", got.message("readings"))
        rig.current_port.unplug()
        rig.wait_for_intervals(2, "V")
        got = checked(tmp_path)
        assert got.not_ok() == {"current meter": "WARN"}
        assert rig.stop()[0] == 0
        commands = [command.text for command in rig.voltage.received]
    assert commands.count("*IDN?") == 1
    assert "voltage meter: " not in "".join(line for line in rig.log.splitlines() if "WARNING" in line)


def test_the_meters_of_a_daemon_in_another_folder_are_left_to_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Rig(tmp_path) as rig:
        shutil.copy2(rig.configure(), elsewhere)
        process = rig.start()
        rig.wait_for_intervals(1)
        got = checked(elsewhere)
        assert got.not_ok() == {"voltage meter found": "WARN", "current meter found": "WARN"}
        assert f"in use by the daemon, process {process.pid}" in got.message("voltage meter found")
        assert rig.stop()[0] == 0


# -- clock, disk, cloud, Redis -----------------------------------------------------------------------------------------


class UnsynchronisedClock(Clock):
    """The clocks of a machine whose kernel cannot vouch for them."""

    def kernel_synchronised(self) -> bool:
        return False


def one_meter(rig: Rig, sections: dict[str, dict[str, object]] | None = None) -> Path:
    """Configure the voltage meter alone, and pull its cable: nothing of it is of interest, and it is soon told."""
    rig.voltage_port.unplug()
    xdm = {"xdm_current_enable": False}
    return rig.configure({"XDM": xdm, **(sections or {})})


@pytest.mark.parametrize(
    ("shift_s", "cloud_up", "result", "words"),
    [
        (0.0, True, "OK", "agrees with the clock"),
        (None, True, "OK", "nothing speaks against"),
        (-3600.0, True, "FAIL", "+3600 s off"),
        (0.0, False, "WARN", "nothing vouches"),
    ],
)
def test_clock(tmp_path: Path, shift_s: float | None, cloud_up: bool, result: str, words: str) -> None:
    with Rig(tmp_path, cloud_up=cloud_up) as rig:
        rig.cloud.date_shift_s = shift_s
        (found,) = (each for each in examine(one_meter(rig), UnsynchronisedClock()) if each.check == "clock")
    assert (found.result.value, words in found.message) == (result, True), found.message


def test_disk_that_may_become_full_is_a_warning(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free > 1e12:
        pytest.skip("a terabyte is free")
    with Rig(tmp_path) as rig:
        one_meter(rig, {"STORE": {"store_max_mb": 1_000_000}})
        got = checked(tmp_path)
    assert got.result("disk") == "WARN"
    assert "smaller store_max_mb" in got.message("disk")


def test_disk_that_takes_nothing_is_a_failure(tmp_path: Path) -> None:
    code = (
        "import resource, sys, backend_daemon\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "sys.exit(backend_daemon.main())"
    )
    with Rig(tmp_path) as rig:
        one_meter(rig)
        got = checked(tmp_path, code=code)
    assert got.result("disk") == "FAIL"
    assert "df -h" in got.message("disk")


@pytest.mark.parametrize(
    ("spoil", "log_in", "device", "words"),
    [
        (lambda rig: setattr(rig.cloud, "password", "another"), "FAIL", "WARN", "refused the user name and password"),
        (lambda rig: rig.cloud.stop(), "FAIL", "WARN", "see to the network"),
        (lambda rig: setattr(rig.cloud, "macs", frozenset({5, 6})), "OK", "FAIL", "not among the devices"),
        (
            lambda rig: rig.cloud.misbehave(Reply(status=503), call="client/locationview"),
            "OK",
            "WARN",
            "does not tell its devices",
        ),
    ],
)
def test_log_in_and_device(tmp_path: Path, spoil: Callable[[Rig], None], log_in: str, device: str, words: str) -> None:
    with Rig(tmp_path) as rig:
        one_meter(rig)
        spoil(rig)
        got = checked(tmp_path)
    assert (got.result("log-in"), got.result("device")) == (log_in, device)
    assert words in got.message("log-in") + got.message("device")


def test_a_password_that_only_the_service_gets_is_not_tried(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        keys: dict[str, object] = {"API_PASSWORD": None, "API_PASSWORD_FILE": "credential"}
        rig.configure({"DEFAULT": keys, "REDIS": {"redis_enable": True, "redis_authpw_file": "credential"}})
        got = checked(tmp_path, "--send-test")
        assert not rig.cloud.calls
    for check in ("log-in", "redis", "send-test"):
        assert got.result(check) == "WARN"
        assert "only the service knows the password" in got.message(check)


def test_redis_that_is_down_or_refuses_is_a_failure(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, RedisServer(tmp_path, password="server-pass") as server:
        one_meter(rig, {"REDIS": {"redis_enable": True, "redis_port": server.port, "redis_authpw": "wrong-pass"}})
        got = checked(tmp_path)
        assert got.result("redis") == "FAIL"
        assert "invalid" in got.message("redis").lower()
        server.stop()
        assert checked(tmp_path).result("redis") == "FAIL"


# -- the test reading --------------------------------------------------------------------------------------------------


def test_send_test_sends_what_was_measured_and_says_so(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        begun_utc_ms = Clock().utc_s() * 1000
        got = checked(tmp_path, "--send-test")
        assert got.not_ok() == {}
        data = {received.datum.type: received.datum for received in rig.cloud.received}
        assert data.keys() == {532, 531}
        assert data[532].data == pytest.approx(52.0, abs=0.1)
        assert data[531].data == pytest.approx(0.010 / SHUNT_OHM, abs=0.05)
        assert {datum.mac for datum in data.values()} == {MAC}
        assert all(begun_utc_ms < datum.timestamp_utc_ms <= Clock().utc_s() * 1000 for datum in data.values())
        assert f"{data[532].data:.4f} V and {data[531].data:.4f} A" in got.message("send-test")


def test_send_test_that_the_cloud_refuses_is_a_failure(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_current_enable": False}})
        rig.cloud.ranges[532] = (0.0, 10.0)
        got = checked(tmp_path, "--send-test")
        assert got.result("send-test") == "FAIL"
        assert "data exceeds allowed range!" in got.message("send-test")


def test_send_test_without_a_reading_or_with_a_wrong_clock_sends_nothing(tmp_path: Path) -> None:
    with Rig(tmp_path, volts=lambda _: 52.0) as rig:
        rig.configure({"XDM": {"xdm_current_enable": False, "xdm_voltage_max": 40}})
        assert checked(tmp_path, "--send-test").result("send-test") == "WARN"
        rig.cloud.date_shift_s = -3600.0
        path = rig.configure({"XDM": {"xdm_current_enable": False}})
        (found,) = (each for each in examine(path, UnsynchronisedClock(), send_test=True) if each.check == "send-test")
        assert (found.result.value, "the time is not known" in found.message) == ("WARN", True)
        assert rig.cloud.received == []


# -- what holds for all of it ------------------------------------------------------------------------------------------


def test_no_secret_is_ever_printed(tmp_path: Path) -> None:
    redis_password = "redis%pass word"
    outputs = []
    with Rig(tmp_path) as rig, RedisServer(tmp_path, password="another-one") as server:
        one_meter(rig, {"REDIS": {"redis_enable": True, "redis_port": server.port, "redis_authpw": redis_password}})
        moved = Reply(status=302, location=rig.cloud.url)
        spoil: tuple[Callable[[], object], ...] = (
            lambda: None,
            lambda: rig.cloud.misbehave(Reply(status=500), call="authentication/g"),
            lambda: rig.cloud.misbehave(moved, call="authentication/g"),
            lambda: setattr(rig.cloud, "password", "another"),
            rig.cloud.stop,
        )
        for each in spoil:
            each()
            for arguments in (["--check"], ["--check", "--json", "--send-test"]):
                done = run_daemon(tmp_path, *arguments)
                outputs += [done.stdout, done.stderr]
        tokens = list(rig.cloud._tokens)
    assert tokens
    for secret in (PASSWORD, redis_password, *tokens):
        for spelling in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]):
            assert not any(spelling in output for output in outputs)


def test_with_everything_silent_every_line_comes_in_time(tmp_path: Path) -> None:
    clock = Clock()
    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server:
        rig.configure({"REDIS": {"redis_enable": True, "redis_port": server.port}})
        rig.voltage.switch_off()
        rig.current.switch_off()
        rig.cloud.misbehave(never_answer, times=None)
        server.suspend()
        begun_mono_s = clock.mono_s()
        got = checked(tmp_path)
        took_s = clock.mono_s() - begun_mono_s
        server.resume()
    failed = {"voltage meter found", "current meter found", "log-in", "redis"}
    assert {check for check, result in got.not_ok().items() if result == "FAIL"} == failed
    assert took_s < 22


def test_control_c_ends_it_at_once(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        process = start_daemon(tmp_path, "--check")
        assert process.stdout is not None
        assert "configuration" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
        assert (process.returncode, stderr) == (1, "stopped\n")


@pytest.mark.parametrize(
    "arguments",
    [["--send-test"], ["--json"], ["--check", "--find-meters"], ["--check", "--demo"], ["--json", "--check-config"]],
)
def test_arguments_that_do_not_go_together(tmp_path: Path, arguments: list[str]) -> None:
    done = run_daemon(tmp_path, *arguments)
    assert done.returncode == 2
    assert "error: " in done.stderr
