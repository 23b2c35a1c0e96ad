"""A configuration that is read again while the daemon runs: a real process, SIGHUP, and what arrives."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from clock import Clock
from energy_book import read_totals
from simulator.cloud import VirtualCloud
from simulator.cloud_http import answer_slowly
from store import NAME
from tests.redis_server import RedisServer
from tests.rig import MAC, PASSWORD, SHUNT_OHM, USERNAME, Rig, samples_of, start_daemon, wait_for
from tests.service_socket import ServiceSocket

USED = "the configuration is used: "
REFUSED = "nothing of it is used: everything goes on as before"


def _reload(rig: Rig, text: str = USED) -> None:
    """Have the daemon read its configuration again, and wait until the log has said so once more."""
    assert rig.process is not None
    before = rig.log.count(text)
    rig.process.send_signal(signal.SIGHUP)
    wait_for(lambda: rig.log.count(text) > before, what=text)


def _has_arrived(rig: Rig, sensor_type: int) -> bool:
    return any(each.datum.type == sensor_type for each in rig.cloud.received)


def _statuses(manager: ServiceSocket) -> list[str]:
    return [each for each in manager.messages if each.startswith("STATUS=")]


def _samples_per_interval(rig: Rig) -> list[int]:
    """Return how many samples each report was made of, from the log: since the first reload, without the last."""
    lines = rig.log[rig.log.index("the configuration is read again") :].splitlines()
    return [int(line.split("(")[1].split()[0]) for line in lines if " samples); cloud: " in line][:-1]


def test_what_does_not_concern_the_meters_costs_no_sample(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server:
        rig.configure({"API": {"upload_batch": 100}})
        rig.start()
        rig.wait_for_intervals(2)
        redis = {"redis_enable": True, "redis_port": server.port}
        rig.configure({"API": {"upload_batch": 50}, "REDIS": redis, "STORE": {"store_max_mb": 50}})
        _reload(rig)
        rig.wait_for_intervals(2)
        wait_for(lambda: server.hash(str(MAC)).keys() >= {"532", "531", "533"}, what="Redis has them")
        rig.configure()
        _reload(rig)
        before = json.loads(server.hash(str(MAC))["532"])["timestamp"]
        rig.wait_for_intervals(2)
        assert json.loads(server.hash(str(MAC))["532"])["timestamp"] <= before + 1000  # it is switched off again
        assert rig.stop()[0] == 0
        timestamps = sorted(rig.arrived())[:-1]
        assert timestamps == list(range(timestamps[0], timestamps[-1] + 1, 1000))
        assert set(_samples_per_interval(rig)) == {4}
        assert len(rig.cloud.received) == len(rig.cloud.stored)  # nothing twice


def test_a_bad_configuration_is_refused_whole_and_the_old_one_goes_on(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, ServiceSocket(tmp_path / "notify") as manager:
        path = rig.configure()
        environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "3000000"}
        rig.process = start_daemon(tmp_path, environment=environment)
        rig.wait_for_intervals(2)
        rig.configure({"API": {"report_interval": 500}, "XDM": {"xdm_voltage_port": "/dev/nowhere"}})
        _reload(rig, REFUSED)
        assert "report_interval = '500': must be a whole number from 1000" in rig.log
        wait_for(lambda: any("is refused, see the log" in each for each in manager.messages), what="the status")
        path.unlink()
        _reload(rig, REFUSED)
        rig.wait_for_intervals(2)
        rig.configure()
        _reload(rig)
        wait_for(
            lambda: _statuses(manager)[-1].endswith("all is well"), what="the status says no more that it is refused"
        )
        rig.wait_for_intervals(1)
        assert rig.stop()[0] == 0
        assert set(_samples_per_interval(rig)) == {4}
        changes = [each for each in manager.messages if each.startswith(("RELOADING", "READY"))]
        assert [each.splitlines()[0] for each in changes] == ["READY=1", *["RELOADING=1", "READY=1"] * 3]
        assert changes[1].splitlines()[1].startswith("MONOTONIC_USEC=")


def test_a_shorter_and_a_longer_report_interval_hold_at_once_and_every_sample_counts(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure(report_ms=3_600_000)
        rig.start()
        wait_for(lambda: len(samples_of(rig.voltage, checked=False)) > 20, what="samples")
        rig.configure(report_ms=1000)
        _reload(rig)
        rig.wait_for_intervals(2)
        rig.configure(report_ms=2000)
        _reload(rig)
        rig.wait_for_intervals(5)  # two of them may have been open before, and the last may have no line behind it
        assert rig.stop()[0] == 0
        ends = sorted(rig.arrived())
        assert all(end % 1000 == 0 for end in ends[:-1])
        assert all(end % 2000 == 0 for end in ends[-3:-1])
    counts = _samples_per_interval(rig)
    assert counts[0] > 10  # those of the hour that was never ended, too
    assert counts[-2:] == [8, 8]


def test_another_account_device_and_shunt_are_used_from_then_on(tmp_path: Path) -> None:
    other_mac = 987654321
    with (
        Rig(tmp_path) as rig,
        VirtualCloud(username=USERNAME, password="another password", macs=(other_mac,)) as other,
    ):
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2)
        account = {"API_URL": other.url, "API_PASSWORD": "another password", "self_mac": other_mac}
        rig.configure({"DEFAULT": account, "XDM": {"xdm_shunt_resistance": SHUNT_OHM / 2}})
        _reload(rig)
        wait_for(
            lambda: len([each for each in other.received if each.datum.type == 531]) > 2, what="the other has them"
        )
        assert rig.stop()[0] == 0
        amperes = [each.datum.data for each in other.received if each.datum.type == 531]
        assert amperes[-1] == pytest.approx(0.010 / SHUNT_OHM * 2, abs=0.1)
        assert {each.datum.mac for each in other.received} == {other_mac}
        assert {each.datum.mac for each in rig.cloud.received} == {MAC}
        ends = sorted({each.datum.timestamp_utc_ms for each in [*rig.cloud.received, *other.received]})[:-1]
        assert max(after - before for before, after in itertools.pairwise(ends)) <= 4000  # a meter is set up in 3 s
    assert "another password" not in rig.log
    assert PASSWORD not in rig.log


def test_a_meter_that_is_left_out_and_taken_in_again(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(1)
        rig.configure({"XDM": {"xdm_current_enable": False, "xdm_wire_log": "wire.jsonl"}})
        _reload(rig)
        rig.wait_for_intervals(2, "V")
        assert (tmp_path / "wire.jsonl").stat().st_size > 0
        rig.configure()
        _reload(rig)
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0


def test_many_reloads_at_once_and_one_at_the_stop_harm_nothing(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        process = rig.start()
        rig.wait_for_intervals(1)
        for _ in range(50):
            process.send_signal(signal.SIGHUP)
        rig.wait_for_intervals(2)
        process.send_signal(signal.SIGHUP)
        assert rig.stop()[0] == 0
        assert set(_samples_per_interval(rig)) == {4}


def test_reloads_one_after_another_are_no_looks_at_the_workers(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure(sample_ms=5000, report_ms=5000)
        rig.start()
        rig.wait_for_log("is set up")
        for _ in range(30):
            _reload(rig)
        assert rig.stop()[0] == 0
    assert "hangs" not in rig.log


def test_an_uploader_that_is_left_behind_by_a_slow_cloud_counts_nothing_twice(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"API": {"upload_batch": 100}})
        rig.start()
        rig.wait_for_intervals(2)
        rig.cloud.misbehave(answer_slowly, call="ingest/std/batch", times=None, delay_s=3.0)
        calls = rig.cloud.request_count
        wait_for(lambda: rig.cloud.request_count > calls, what="a request that is answered after 3 s")
        rig.configure({"API": {"upload_batch": 50}})
        _reload(rig)
        rig.wait_for_log("uploader did not end within 2.0 s and is left behind")
        rig.wait_for_intervals(2)
        rig.cloud.behave()
        rig.wait_for_log("0 waiting", within_s=20)
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
    assert "the sums do not close" not in rig.log
    assert "-3 waiting" not in rig.log


def test_other_sensor_types_while_redis_does_not_answer_crash_nothing(tmp_path: Path) -> None:
    clock, pause = Clock(), threading.Event()
    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server:
        redis = {"redis_enable": True, "redis_port": server.port}
        rig.configure({"REDIS": redis})
        rig.start()
        rig.wait_for_intervals(2)
        server.suspend()
        for sensor_type in range(600, 603):
            rig.configure({"REDIS": redis, "API": {"voltage_type": sensor_type}})
            pause.wait((1.6 - clock.utc_s() % 1) % 1)  # a report is due while the old cache is waited for
            _reload(rig)
            wait_for(partial(_has_arrived, rig, sensor_type), what="it arrives")
        server.resume()
        wait_for(lambda: "602" in server.hash(str(MAC)), what="Redis has the new type")
        assert rig.stop()[0] == 0
    assert "crashed" not in rig.log


def test_a_longer_sample_interval_bridges_longer_gaps_from_then_on_and_the_counters_go_on(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure(sample_ms=100)
        rig.start()
        rig.wait_for_intervals(2)
        rig.configure(sample_ms=1000)
        _reload(rig)
        rig.wait_for_intervals(3)
        assert rig.stop()[0] == 0
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        totals = read_totals(connection.cursor())
        covered_s = [row[0] for row in connection.execute("SELECT energy_s FROM interval WHERE power IS NOT NULL")]
    assert totals is not None
    assert sum(covered_s) == pytest.approx(totals.energy.energy_s)
    assert covered_s[1] == pytest.approx(1.0, abs=0.2)
    assert covered_s[-2] == pytest.approx(1.0, abs=0.2)  # of samples a second apart: with the old rule, none
