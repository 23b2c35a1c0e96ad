"""A configuration that is read again while the daemon runs: a real process, SIGHUP, and what arrives."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

import pytest

from simulator.cloud import VirtualCloud
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
        wait_for(lambda: server.hash(str(MAC)).keys() == {"532", "531", "533"}, what="Redis has them")
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
        wait_for(lambda: manager.messages[-1].endswith("all is well") or manager.messages[-1] == "WATCHDOG=1")
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
        rig.wait_for_intervals(4)  # the first one or two of them were open before
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
