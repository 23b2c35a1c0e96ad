"""The whole daemon: a real process, ptys, sockets, Redis, signals and files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from clock import Clock
from simulator.cloud_http import Reply, never_answer
from simulator.faults import cut
from simulator.ports import TcpPort
from tests.redis_server import RedisServer
from tests.rig import MAC, PASSWORD, PROJECT, SHUNT_OHM, Rig, run_daemon, samples_of, start_daemon, wait_for
from tests.serial_server import Rfc2217Server

LOG_LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [+-]\d{4} - [\w.]+ - (DEBUG|INFO|WARNING|ERROR|CRITICAL) - "
)
AMPERES = pytest.approx(0.010 / SHUNT_OHM, abs=0.05)
VOLTS = pytest.approx(52.0, abs=0.1)


def test_main_job_from_meters_to_cloud_redis_and_log(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, RedisServer(tmp_path, password="redis-pass-word") as server:
        redis_keys = {"redis_enable": True, "redis_port": server.port, "redis_authpw": server.password}
        rig.configure({"REDIS": redis_keys})
        rig.start()
        for values in rig.wait_for_intervals(3)[1:]:
            assert values == {"V": VOLTS, "A": AMPERES, "kW": pytest.approx(52.0 * 0.010 / SHUNT_OHM / 1000, abs=0.005)}
        latest = {field: json.loads(text) for field, text in server.hash(str(MAC)).items()}
        counters = {"energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah", "coverage_percent"}
        assert latest.keys() == {"532", "531", "533", *counters}
        assert len({each["timestamp"] for each in latest.values()}) == 1
        assert latest["531"]["data"] == AMPERES
        assert rig.stop()[0] == 0
        timestamps = sorted(rig.arrived())
        assert all(timestamp % 1000 == 0 for timestamp in timestamps[:-1])
        assert all(len(rig.arrived()[timestamp]) == 3 for timestamp in timestamps[1:])
        assert rig.cloud.log_in_count == 1
        assert rig.cloud.connection_count == 1
    assert re.search(
        r"INFO - 5[12]\.\d{4} V, 1[45]\.\d{4} A, 0\.7\d{4} kW \(4 samples\); cloud: 3 delivered, 0 waiting", rig.log
    )
    assert all(LOG_LINE.match(line) for line in rig.log.splitlines())


def test_every_report_is_the_mean_of_what_the_meters_served(tmp_path: Path) -> None:
    with Rig(tmp_path, volts=lambda at: 52 + at % 3, shunt_volts=lambda at: 0.02 - at % 0.7 / 20) as rig:
        rig.configure(sample_ms=500, report_ms=2000)
        rig.start()
        rig.wait_for_intervals(3)
        rig.stop()
        offset_s = Clock().utc_s() - Clock().mono_s()
        for end_utc_ms, values in sorted(rig.arrived().items())[1:-1]:
            end_mono_s = end_utc_ms / 1000 - offset_s
            served = [
                [volts for at, volts in samples_of(meter, checked=True).items() if end_mono_s - 2 < at <= end_mono_s]
                for meter in (rig.voltage, rig.current)
            ]
            amperes = [volts / SHUNT_OHM for volts in served[1]]
            watts = [volts * ampere for volts, ampere in zip(served[0], amperes, strict=True)]
            assert len(watts) == 4
            assert values == {
                "V": pytest.approx(sum(served[0]) / 4, rel=1e-9),
                "A": pytest.approx(sum(amperes) / 4, rel=1e-9),
                "kW": pytest.approx(sum(watts) / 4000, rel=1e-9),
            }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_reports_the_open_interval_and_ends_cleanly(tmp_path: Path, number: int) -> None:
    with Rig(tmp_path) as rig:
        rig.configure(report_ms=3_600_000)
        rig.start()
        rig.wait_for_log("current meter: XDM1041")
        wait_for(lambda: len([each for each in rig.voltage.served if each.value > 50]) > 15, what="samples were taken")
        code, seconds = rig.stop(number)
        stopped_utc_ms = Clock().utc_s() * 1000
        assert code == 0
        assert seconds < 5
        ((timestamp, values),) = rig.arrived().items()
        assert values == {"V": VOLTS, "A": AMPERES, "kW": pytest.approx(0.78, abs=0.01)}
        assert stopped_utc_ms - 5000 < timestamp <= stopped_utc_ms
        assert timestamp % 3_600_000 != 0


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_it_runs_with_its_streams_closed(tmp_path: Path, closed: str) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        program = f'exec "{sys.executable}" "{PROJECT / "backend_daemon.py"}" {closed}'
        process = subprocess.Popen(["sh", "-c", program], cwd=tmp_path)
        try:
            rig.wait_for_intervals(1)
        finally:
            process.terminate()
            assert process.wait(10) == 0


@pytest.mark.parametrize("pair", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_two_signals_at_once_end_it_like_one(tmp_path: Path, pair: tuple[int, int]) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_current_enable": False}})
        for _ in range(4):
            process = rig.start()
            rig.wait_for_log("PowerMonitorMiddleware 1")
            rig.wait_for_intervals(1, "V")
            for number in pair:
                process.send_signal(number)
            assert process.wait(10) == 0


def test_a_meter_that_stays_bad_is_told_once_and_not_called_well(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(1)
        rig.current.faults.always(cut(8, line_end=True), to="MEAS1?")
        rig.wait_for_intervals(5, "V")
        lines = [line for line in rig.log.splitlines() if "current meter" in line]
        assert len(lines) == 2, lines  # set up, and the trouble
        rig.current.faults.clear()
        rig.wait_for_intervals(1)
        rig.stop()
    assert rig.log.count("current meter: works again") == 1


def test_after_a_restart_the_rest_of_the_interval_is_reported_at_its_end(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure(report_ms=5000)
        rig.start()
        rig.wait_for_intervals(1)
        wait_for(lambda: 1.5 < Clock().utc_s() % 5 < 3, what="the middle of an interval")
        rig.stop()
        cut = max(rig.arrived())
        rig.start()
        rig.wait_for_intervals(1)
        assert cut % 5000 != 0
        assert min(timestamp for timestamp in rig.arrived() if timestamp > cut) % 5000 == 0
        rig.stop()


def test_it_stays_up_with_everything_absent_and_each_joins_as_it_appears(tmp_path: Path) -> None:
    with Rig(tmp_path, plugged_in=False, cloud_up=False) as rig, RedisServer(tmp_path) as server:
        server.stop()
        rig.configure({"REDIS": {"redis_enable": True, "redis_port": server.port}})
        process = rig.start()
        rig.wait_for_log("no voltage, no current, no power (0 samples); cloud: 0 delivered, 0 waiting")
        rig.voltage_port.start()
        rig.wait_for_log("V, no current, no power")
        server.start()
        wait_for(lambda: server.hash(str(MAC)).keys() == {"532"}, what="the voltage is in Redis")
        rig.cloud.start()
        rig.wait_for_intervals(1, "V")
        rig.current_port.start()
        rig.wait_for_intervals(1)
        assert process.poll() is None
        assert rig.stop()[0] == 0
    warnings = [line for line in rig.log.splitlines() if " - WARNING - " in line]
    told = [
        next((each for each in ("voltage", "current", "cloud", "Redis", "clock") if each in line), line)
        for line in warnings
    ]
    assert sorted(set(told)) == sorted(told), warnings  # each trouble is told once
    assert {"voltage", "current", "cloud", "Redis"} <= set(told)


def test_what_was_measured_while_the_cloud_was_down_arrives_when_it_is_back(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(1)
        rig.cloud.stop()
        rig.wait_for_log("9 waiting")
        rig.cloud.start()
        wait_for(lambda: "0 waiting" in rig.log.splitlines()[-1], within_s=20)
        rig.stop()
        timestamps = sorted(rig.arrived())[:-1]
        assert timestamps == list(range(timestamps[0], timestamps[-1] + 1, 1000))
        assert len(rig.cloud.received) == len(rig.cloud.stored)


def test_a_cloud_that_never_answers_holds_up_nothing_and_is_left_behind_on_stop(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server:
        rig.configure({"REDIS": {"redis_enable": True, "redis_port": server.port}})
        rig.start()
        rig.wait_for_intervals(1)
        rig.cloud.misbehave(never_answer, times=None)
        rig.wait_for_log("9 waiting")
        lines = [line for line in rig.log.splitlines() if "waiting" in line]
        timestamp = json.loads(server.hash(str(MAC))["532"])["timestamp"]
        assert Clock().utc_s() * 1000 - timestamp < 2500
        assert not any("no voltage" in line or "no current" in line for line in lines[2:])
        code, seconds = rig.stop()
        assert code == 0
        assert seconds < 5


def test_an_error_page_at_log_in_never_becomes_the_token(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        page = Reply(status=503, body=b"<html>maintenance</html>", content_type="text/html")
        rig.cloud.misbehave(page, call="authentication/g", times=2)
        rig.configure()
        rig.start()
        rig.wait_for_intervals(1)
        assert rig.stop()[0] == 0


def test_a_pulled_cable_costs_its_own_values_only_and_heals(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2)
        rig.current_port.unplug()
        rig.wait_for_intervals(2, "V")
        rig.current_port.plug_in()
        rig.wait_for_intervals(2)
        rig.stop()
        assert all(values.get("A", AMPERES) == AMPERES for values in rig.arrived().values())
    assert "current meter: works again after" in rig.log


def test_meters_on_serial_servers(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, TcpPort(rig.voltage) as tcp:
        with Rfc2217Server(rig.current_port.address) as server:
            rig.configure({"XDM": {"xdm_voltage_port": tcp.address, "xdm_current_port": server.url}})
            rig.start()
            rig.wait_for_intervals(1)
            tcp.unplug()
            rig.wait_for_intervals(1, "A")
            tcp.plug_in()
            rig.wait_for_intervals(1)
        rig.wait_for_intervals(1, "V")
        with Rfc2217Server(rig.current_port.address, server.number):
            rig.wait_for_intervals(1)
            assert rig.stop()[0] == 0


def test_overload_is_absent_and_never_a_number(tmp_path: Path) -> None:
    with Rig(tmp_path, shunt_volts=lambda _: 95 * SHUNT_OHM) as rig:
        rig.configure({"XDM": {"xdm_current_range": "50mV fixed"}})
        rig.start()
        rig.wait_for_intervals(2, "V")
        rig.stop()
        assert all(values.keys() == {"V"} for values in rig.arrived().values())
    assert "overload" in rig.log


def test_swapped_cables_heal_by_the_serial_numbers(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_voltage_serial": "22511041", "xdm_current_serial": "22511040"}})
        rig.start()
        # What is on the port of the other meter is the one with the number: it reads the other's leads.
        rig.wait_for_log("was found on")
        assert rig.stop()[0] == 0
        assert rig.log.count("was found on") == 1
        assert "CONF:VOLT:DC 50E-3" in {command.text for command in rig.voltage.received}


def test_a_meter_with_a_serial_number_that_is_nowhere_is_told_and_nothing_is_set(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_voltage_serial": "11111111", "xdm_current_serial": "22222222"}})
        rig.start()
        rig.wait_for_log("has the meter with serial number 22511040, not 11111111")
        rig.wait_for_log("no voltage, no current")
        assert rig.stop()[0] == 0
        assert rig.cloud.received == []
        assert {command.text for command in [*rig.voltage.received, *rig.current.received]} == {"*IDN?"}


def test_no_secret_is_in_any_log_at_any_level(tmp_path: Path) -> None:
    redis_password = "redis%pass word"
    with Rig(tmp_path) as rig, RedisServer(tmp_path, password="another-one") as server:
        redis_keys = {"redis_enable": True, "redis_port": server.port, "redis_authpw": redis_password}
        rig.configure({"REDIS": redis_keys})
        rig.cloud.misbehave(Reply(status=500), call="authentication/g", times=1)
        process = rig.start("--log-level", "DEBUG")
        rig.wait_for_intervals(2)
        rig.cloud.expire_tokens()
        rig.wait_for_intervals(2)
        rig.cloud.stop()
        rig.wait_for_log("cloud: 0 delivered")
        tokens = list(rig.cloud._tokens)
        rig.stop()
        stdout, stderr = process.communicate()
    everything = rig.log + stdout + stderr
    assert "DEBUG" in everything
    assert "WRONGPASS" in everything or "invalid" in everything.lower()
    for secret in (PASSWORD, redis_password, *tokens):
        for spelling in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]):
            assert spelling not in everything


def test_demo_runs_by_itself_and_ends_by_itself(tmp_path: Path) -> None:
    done = run_daemon(tmp_path, "--demo", "--seconds", "8")
    assert done.returncode == 0, done.stderr
    reports = re.findall(
        r"-?\d+\.\d+ V, -?\d+\.\d+ A, -?\d+\.\d+ kW \(\d samples\); cloud: 3 delivered, 0 waiting", done.stdout
    )
    assert len(reports) >= 2
    assert str(tmp_path / "demo") in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "demo" / "PowerMonitorMiddleware.log").exists()


def test_demo_says_where_it_may_not_write(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file where the demo wants a folder")
    done = run_daemon(tmp_path, "--demo", "--seconds", "3")
    assert done.returncode == 1
    assert "run it in a folder that you may write" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_ends_cleanly_by_control_c(tmp_path: Path) -> None:
    process = start_daemon(tmp_path, "--demo")
    wait_for(lambda: (tmp_path / "demo" / "PowerMonitorMiddleware.log").exists())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 0
    assert stderr == ""


def test_every_problem_of_the_configuration_is_told_at_once_on_stderr_and_in_the_log(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure(
            {"DEFAULT": {"self_mac": "changeme"}, "XDM": {"xdm_volatge_range": "50V"}, "API": {"report_interval": 5}}
        )
        for arguments in ((), ("--check-config",)):
            done = run_daemon(tmp_path, *arguments)
            assert done.returncode == 78
            for text in (done.stderr, rig.log):
                assert "self_mac" in text
                assert "xdm_voltage_range" in text  # did you mean
                assert "report_interval" in text
                assert PASSWORD not in text


def test_without_a_configuration_it_says_what_to_copy(tmp_path: Path) -> None:
    done = run_daemon(tmp_path)
    assert done.returncode == 78
    assert "config.cfg.example" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_config_says_that_it_is_good_and_starts_nothing(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        path = rig.configure()
        done = run_daemon(PROJECT / "tests", "--config", str(path), "--check-config")
        assert (done.returncode, done.stderr) == (0, "")
        assert "is good" in done.stdout
        assert rig.cloud.request_count == 0


def test_log_and_data_live_beside_the_configuration(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Rig(tmp_path) as rig:
        path = rig.configure()
        rig.process = start_daemon(elsewhere, "--config", str(path))
        rig.wait_for_log("starts")
        rig.stop()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--seconds", "5"], ["--demo", "--seconds", "-1"], ["--demo", "--check-config"]]
)
def test_wrong_usage_ends_with_2(tmp_path: Path, arguments: list[str]) -> None:
    assert run_daemon(tmp_path, *arguments).returncode == 2


def test_version_and_help(tmp_path: Path) -> None:
    assert re.fullmatch(r"PowerMonitorMiddleware \d+\.\d+\.\d+\n", run_daemon(tmp_path, "--version").stdout)
    assert "--check-config" in run_daemon(tmp_path, "--help").stdout


def test_start_up_imports_only_what_is_enabled() -> None:
    heavy = ("redis", "simulator", "asyncio")
    code = f"import backend_daemon, sys; print([module for module in {heavy} if module in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
