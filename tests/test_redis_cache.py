"""The latest values in a real redis-server."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clock import Clock
from measurements import Datum
from redis_cache import COUNTERS, Label, RedisCache
from settings import RedisSettings
from tests.clocks import ManualClock
from tests.redis_server import RedisServer
from tests.rig import wait_for

LABELS = {532: Label("Battery voltage", "V"), 531: Label("Battery current", "A"), 533: Label("Battery power", "kW")}

VALUES = {
    "energy_in_kwh": 1.5,
    "energy_out_kwh": 0.25,
    "charge_in_ah": 30.0,
    "charge_out_ah": 5.0,
    "coverage_percent": 99.5,
}


def settings(server: RedisServer, **changes: object) -> RedisSettings:
    values: dict[str, object] = {
        "host": "127.0.0.1",
        "port": server.port,
        "db": 0,
        "username": "",
        "password": server.password,
        "tls": False,
        "ttl_s": 0,
    }
    return RedisSettings(**{**values, **changes})  # type: ignore[arg-type]


def interval(timestamp_utc_ms: int, *types: int) -> list[Datum]:
    return [Datum(mac=77, type=each, data=each / 10, timestamp_utc_ms=timestamp_utc_ms) for each in types]


@contextmanager
def running(cache: RedisCache) -> Iterator[RedisCache]:
    crashes: list[str] = []
    cache.start(lambda: crashes.append("crash"))
    try:
        yield cache
    finally:
        cache.request_stop()
        assert cache.join(Clock().mono_s() + 10)
    assert not crashes


def test_a_hash_named_by_the_mac_with_one_json_field_per_type(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, running(RedisCache(settings(server), LABELS, Clock())) as cache:
        cache.publish(interval(1_700_000_000_000, 532, 531, 533))
        wait_for(lambda: len(server.hash("77")) == 3)
        fields = {name: json.loads(text) for name, text in server.hash("77").items()}
        with server.client() as client:
            assert client.ttl("77") == -1
    assert fields["531"] == {
        "mac": 77,
        "type": 531,
        "timestamp": 1_700_000_000_000,
        "data": 53.1,
        "label": "Battery current",
        "unit": "A",
    }
    assert (fields["532"]["unit"], fields["533"]["unit"]) == ("V", "kW")


def test_a_counter_has_a_field_of_its_name_whether_it_has_a_sensor_type_or_not(tmp_path: Path) -> None:
    clock = ManualClock()
    with RedisServer(tmp_path) as server:
        cache = RedisCache(settings(server), LABELS, clock, {**dict.fromkeys(COUNTERS), "energy_in_kwh": 700})
        cache.publish([*interval(5, 532), *interval(5, 700)], VALUES)
        cache.step()
        fields = {name: json.loads(text) for name, text in server.hash("77").items()}
        cache.finish()
    assert fields.keys() == {"532", *VALUES}
    assert fields["energy_in_kwh"] == {
        "mac": 77,
        "type": 700,
        "timestamp": 5,
        "data": 1.5,
        "label": "Energy into the battery",
        "unit": "kWh",
    }
    assert {name: each["data"] for name, each in fields.items() if name != "532"} == VALUES
    assert {name: each["unit"] for name, each in fields.items()} == {
        "532": "V",
        "energy_in_kwh": "kWh",
        "energy_out_kwh": "kWh",
        "charge_in_ah": "Ah",
        "charge_out_ah": "Ah",
        "coverage_percent": "%",
    }
    assert [name for name, each in fields.items() if each["type"] is None] == [
        name for name in fields if name not in ("532", "energy_in_kwh")
    ]


def test_a_stale_counter_vanishes_too_and_nothing_stands_in_for_it(tmp_path: Path) -> None:
    clock = ManualClock()
    with RedisServer(tmp_path) as server:
        cache = RedisCache(settings(server, ttl_s=60), LABELS, clock, dict.fromkeys(COUNTERS))
        for counters, seconds in ((VALUES, 59), ({}, 2)):
            cache.publish(interval(1, 532, 531, 533), counters)
            cache.step()
            assert server.hash("77").keys() == {"532", "531", "533", *VALUES}
            clock.advance(seconds)
        charge = {name: VALUES[name] for name in ("charge_in_ah", "charge_out_ah")}
        cache.publish(interval(1, 531), charge)  # the voltage meter is away: no energy, but charge
        cache.step()
        assert server.hash("77").keys() == {"531", "532", "533", *charge}
        cache.finish()


def test_an_earlier_run_s_counters_do_not_outlive_a_restart_as_if_they_were_new(tmp_path: Path) -> None:
    clock = ManualClock()
    with RedisServer(tmp_path) as server:
        for counters in (VALUES, {}):
            cache = RedisCache(settings(server, ttl_s=60), LABELS, clock, dict.fromkeys(COUNTERS))
            cache.publish(interval(1, 532, 531, 533), counters)
            cache.step()
            cache.finish()
        assert server.hash("77").keys() == {"532", "531", "533"}


def test_all_fields_of_an_interval_go_in_one_round_trip(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        server.client() as client,
        client.monitor() as monitor,
        running(RedisCache(settings(server, ttl_s=60), LABELS, Clock())) as cache,
    ):
        cache.publish(interval(1, 532, 531, 533))
        commands: list[str] = []
        while commands[-1:] != ["EXEC"]:
            commands.append(str(monitor.next_command()["command"]).split()[0].upper())
    wanted = commands[commands.index("MULTI") :]
    assert wanted == ["MULTI", "HSET", "EXPIRE", "EXEC"]


def test_stale_values_vanish_even_while_the_other_meter_works(tmp_path: Path) -> None:
    clock = ManualClock()
    with RedisServer(tmp_path) as server:
        cache = RedisCache(settings(server, ttl_s=60), LABELS, clock)
        for types, seconds in (((532, 531, 533), 30), ((532,), 31), ((532,), 0)):
            cache.publish(interval(1, *types))
            cache.step()
            clock.advance(seconds)
        with server.client() as client:
            assert 0 < client.ttl("77") <= 60
        assert set(server.hash("77")) == {"532"}
        cache.finish()


def test_down_is_told_once_and_the_latest_values_come_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        RedisServer(tmp_path) as server,
        running(RedisCache(settings(server), LABELS, Clock())) as cache,
    ):
        server.stop()
        for number in range(1, 6):
            cache.publish(interval(number, 532))
        wait_for(lambda: caplog.records)
        cache.publish(interval(6, 532))
        server.start()
        wait_for(lambda: server.hash("77"))
        wait_for(lambda: len(caplog.records) >= 2)
        assert json.loads(server.hash("77")["532"])["timestamp"] == 6
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "takes the latest values again" in caplog.text


def test_a_server_that_was_restarted_in_between_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(tmp_path) as server, running(RedisCache(settings(server), LABELS, Clock())) as cache:
        cache.publish(interval(1, 532))
        wait_for(lambda: server.hash("77"))
        server.stop()
        server.start()
        cache.publish(interval(2, 532))
        wait_for(lambda: server.hash("77"))
    assert not caplog.records


def test_a_server_that_never_answers_does_not_block_who_publishes(tmp_path: Path) -> None:
    clock = Clock()
    with RedisServer(tmp_path) as server, running(RedisCache(settings(server), LABELS, clock)) as cache:
        cache.publish(interval(1, 532))
        wait_for(lambda: server.hash("77"))
        server.suspend()
        cache.publish(interval(2, 532))
        threading.Event().wait(0.2)
        started_mono_s = clock.mono_s()
        cache.publish(interval(3, 532))
        assert clock.mono_s() - started_mono_s < 0.1
        server.resume()
        wait_for(lambda: json.loads(server.hash("77")["532"])["timestamp"] == 3)


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_wrong_password_is_told_once_and_not_repeated_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, password: str
) -> None:
    with RedisServer(tmp_path, password="right-pass") as server:
        cache = RedisCache(settings(server, password=password), LABELS, Clock())
        cache.request_stop()  # so that a failed step does not wait before it returns
        for number in range(5):
            cache.publish(interval(number, 532))
            cache.step()
        cache.finish()
        assert server.hash("77") == {}
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_with_the_password_it_writes(tmp_path: Path) -> None:
    with RedisServer(tmp_path, password="right-pass") as server:
        cache = RedisCache(settings(server), LABELS, Clock())
        cache.publish(interval(1, 532))
        cache.step()
        cache.finish()
        assert server.hash("77")
