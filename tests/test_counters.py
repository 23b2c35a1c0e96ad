"""The counters of energy and charge as readings: what is sent of them, under which types, and that none is lost."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger import Tally
from measurements import Device, Energy, IntervalSummary
from outbox import Limits
from quantities import ALL_BITS, counters_of
from store import MIGRATIONS, NAME
from tests.clocks import ManualClock
from tests.redis_server import RedisServer
from tests.rig import MAC, Rig, run_daemon, wait_for
from tests.test_outbox import DEVICE, Box, _Fragile, interval, summary

COUNTING = replace(
    DEVICE, energy_in_type=700, energy_out_type=701, charge_in_type=702, charge_out_type=703, energy_type=704
)
USED = "the configuration is used: "
TYPES = [532, 531, 533, 700, 701, 702, 703, 704]


def counted(
    energy_in_kwh: float = 0.5,
    energy_out_kwh: float = 0.125,
    charge_in_ah: float = 10.0,
    charge_out_ah: float = 2.0,
    energy_s: float = 1.0,
    charge_s: float = 1.0,
) -> IntervalSummary:
    """Return an interval with V, A, kW, and energy and charge (binary fractions, so that sums are exact)."""
    energy = Energy(
        energy_in_kwh=energy_in_kwh,
        energy_out_kwh=energy_out_kwh,
        charge_in_ah=charge_in_ah,
        charge_out_ah=charge_out_ah,
        energy_s=energy_s,
        charge_s=charge_s,
    )
    return replace(summary(52.0, -3.0, -0.156), energy=energy)


def box_of(folder: Path, device: Device = COUNTING) -> Box:
    box = Box(folder)
    box.change(device, Limits())
    return box


def sent(box: Box) -> list[tuple[int, int, float]]:
    """Return what may be sent: second, sensor type, value."""
    return [(each.datum.timestamp_utc_ms // 1000, each.datum.type, each.datum.data) for each in box.lend(1000)]


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / NAME)) as connection:
        return connection.execute(sql).fetchall()


def test_each_counter_is_sent_as_what_it_stands_at_when_the_interval_ends(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.close_number(1, 2, of=counted())
    assert sent(box) == [
        (1, 532, 52.0),
        (1, 531, -3.0),
        (1, 533, -0.156),
        (1, 700, 0.5),
        (1, 701, 0.125),
        (1, 702, 10.0),
        (1, 703, 2.0),
        (1, 704, 0.375),
        (2, 532, 52.0),
        (2, 531, -3.0),
        (2, 533, -0.156),
        (2, 700, 1.0),
        (2, 701, 0.25),
        (2, 702, 20.0),
        (2, 703, 4.0),
        (2, 704, 0.75),
    ]
    assert box.tally() == Tally(made=16, waiting=16)


def test_the_readings_of_an_interval_are_told_with_its_counters(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    readings = box.close_interval(counted(), interval(1), interval(2), clock_trusted=True)
    assert [(each.type, each.data) for each in readings[3:]] == [
        (700, 0.5),
        (701, 0.125),
        (702, 10.0),
        (703, 2.0),
        (704, 0.375),
    ]


def test_a_counter_without_a_type_is_kept_and_not_sent(tmp_path: Path) -> None:
    box = box_of(tmp_path, replace(DEVICE, energy_type=704))
    box.close_number(1, of=counted())
    assert [each[1] for each in sent(box)] == [532, 531, 533, 704]
    assert rows(tmp_path, "SELECT waiting, total_energy_in, total_charge_out FROM interval") == [(128 + 7, 0.5, 2.0)]


@pytest.mark.parametrize(
    ("covered", "types"),
    [
        ({"energy_s": 0.0}, [702, 703]),
        ({"charge_s": 0.0}, [700, 701, 704]),
        ({"energy_s": 0.0, "charge_s": 0.0}, []),
    ],
)
def test_a_counter_that_had_nothing_to_count_is_not_sent(
    tmp_path: Path, covered: dict[str, float], types: list[int]
) -> None:
    box = box_of(tmp_path)
    nothing = {
        name: 0.0
        for name in ("energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah")
        if covered.get("energy_s" if "energy" in name else "charge_s") == 0.0
    }
    box.close_number(1, of=counted())
    box.close_number(2, of=counted(**covered, **nothing))
    assert [each[1] for each in sent(box) if each[0] == 2] == [532, 531, 533, *types]


def test_no_energy_in_an_idle_interval_is_a_value(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.close_number(1, of=counted())
    box.close_number(2, of=counted(0.0, 0.0, 0.0, 0.0))
    assert [each[2] for each in sent(box) if each[0] == 2][3:] == [0.5, 0.125, 10.0, 2.0, 0.375]


def test_each_is_settled_by_itself_and_the_sums_close_over_a_crash(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.close_number(1, 2, of=counted())
    lent = box.lend(1000)
    box.settle_delivered([lent[3], lent[7]])
    box.settle_rejected([lent[4]], "out of range")
    box.crash()
    again = box_of(tmp_path)
    assert [each[1] for each in sent(again)] == [532, 531, 533, 702, 703, *TYPES]
    assert again.tally() == Tally(made=16, delivered=2, rejected=1, waiting=13)
    assert rows(tmp_path, "SELECT type, data FROM rejected") == [(701, 0.125)]
    again.close_number(3, of=counted())
    assert [each[2] for each in sent(again) if each[:2] == (3, 700)] == [1.5]  # it goes on
    assert ALL_BITS == 255


def test_other_types_after_a_reload_are_for_what_is_made_from_then_on(tmp_path: Path) -> None:
    box = box_of(tmp_path, DEVICE)
    steps = [DEVICE, COUNTING, replace(COUNTING, energy_in_type=None), COUNTING, replace(DEVICE, energy_in_type=800)]
    for number, device in enumerate(steps, 1):
        box.change(device, Limits())
        box.close_number(number, of=counted())
    types: dict[int, list[int]] = {}
    while lent := box.lend(1000):  # those of one device at a time
        for each in lent:
            types.setdefault(each.datum.timestamp_utc_ms // 1000, []).append(each.datum.type)
        box.settle_delivered(lent)
    without = [532, 531, 533]
    assert types == {1: without, 2: TYPES, 3: [*without, *TYPES[4:]], 4: TYPES, 5: [*without, 800]}
    assert rows(tmp_path, "SELECT count(*) FROM device") == [(4,)]  # a NULL is as good as another
    assert box.tally() == Tally(made=3 + 8 + 7 + 8 + 4, delivered=30)


def test_what_a_database_of_before_the_counters_has_waiting_is_delivered(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as connection, connection:
        for migration in MIGRATIONS[:3]:
            connection.executescript(migration)
        connection.execute("INSERT INTO device VALUES (1, 77, 532, 531, 533)")
        connection.execute(
            "INSERT INTO interval (id, device, waiting, end_utc_ms, voltage, current, power) "
            "VALUES (1, 1, 5, 1000, 52.0, -3.0, -0.156)"
        )
        connection.execute("INSERT INTO counter VALUES ('readings_made', 3), ('readings_delivered', 1)")
        connection.execute("PRAGMA user_version = 3")
    box = box_of(tmp_path, DEVICE)
    assert sent(box) == [(1, 532, 52.0), (1, 533, -0.156)]
    box.close_number(2, of=counted())
    assert [each[:2] for each in sent(box)] == [(1, 532), (1, 533), (2, 532), (2, 531), (2, 533)]
    assert rows(tmp_path, "SELECT count(*) FROM device") == [(1,)]
    box.change(COUNTING, Limits())
    box.close_number(3, of=counted())
    box.settle_delivered(box.lend(1000))
    assert sent(box)[-1] == (3, 704, 0.75)
    box.settle_delivered(box.lend(1000))
    assert box.tally() == Tally(made=14, delivered=14)


def test_counters_that_are_held_back_for_the_clock_keep_their_values(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.close_number(1, 2, of=counted(), trusted=False)
    assert sent(box) == []
    box.stamp(100.0)
    assert [(second, value) for second, kind, value in sent(box) if kind == 700] == [(101, 0.5), (102, 1.0)]


def test_what_is_set_aside_for_want_of_a_time_has_its_counters(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.close_number(10, of=counted(), trusted=False)
    box.crash()
    later = Box(tmp_path, boot="the next")
    later.open_interval(interval(1), clock_trusted=False)
    later.stamp(1_800_000_500.0)  # the end that was planned was in 1970: nobody can tell the right one any more
    found = rows(tmp_path, "SELECT type, data FROM rejected ORDER BY rowid")
    assert found == [
        (532, 52.0),
        (531, -3.0),
        (533, -0.156),
        (700, 0.5),
        (701, 0.125),
        (702, 10.0),
        (703, 2.0),
        (704, 0.375),
    ]


@pytest.mark.parametrize(
    "damage", ["UPDATE interval SET total_energy_in = NULL", "UPDATE device SET energy_type = NULL"]
)
def test_a_counter_that_waits_and_is_not_there_is_damage_and_never_a_number(tmp_path: Path, damage: str) -> None:
    box = box_of(tmp_path)
    box.close_number(1, of=counted())
    with box.store.transaction() as cursor:
        cursor.execute(damage)
    assert sent(box) == []
    assert list(tmp_path.glob(f"{NAME}.corrupt-*"))
    box.close_number(2, of=counted())
    assert sent(box)[3] == (2, 700, 1.0)  # the counters of memory go on


def fragile_box(folder: Path, *, failing: bool = False) -> tuple[Box, _Fragile, ManualClock]:
    clock = ManualClock()
    store = _Fragile(folder, clock)
    store.failing = failing
    box = Box(folder, store=store, clock=clock)
    box.change(COUNTING, Limits())
    return box, store, clock


def test_while_the_disk_fails_counters_wait_until_a_kill_cannot_set_them_back(tmp_path: Path) -> None:
    box, store, clock = fragile_box(tmp_path)
    box.close_number(1, of=counted())
    box.settle_delivered(box.lend(1000))
    store.failing = True
    box.close_number(2, 3, of=counted())
    assert [each[:2] for each in sent(box)] == [(2, 532), (2, 531), (2, 533), (3, 532), (3, 531), (3, 533)]
    assert [each.datum.type for each in box.lend_newest()] == [532, 531, 533]
    box.settle_delivered(box.lend(1000))
    assert box.lend(1000) == []
    store.failing = False
    clock.advance(2)
    assert [(second, value) for second, kind, value in sent(box) if kind == 700] == [(2, 1.0), (3, 1.5)]
    assert {kind for _, kind, _ in sent(box)} == {700, 701, 702, 703, 704}
    box.settle_delivered(box.lend(1000))
    assert box.tally() == Tally(made=24, delivered=24)


def test_killed_while_the_disk_fails_no_counter_falls(tmp_path: Path) -> None:
    box, store, _ = fragile_box(tmp_path)
    box.close_number(1, of=counted())
    store.failing = True
    box.close_number(2, 3, of=counted())
    told = [value for _, kind, value in sent(box) if kind == 700]
    store.failing = False
    if store._connection is not None:
        box.crash()
    again = box_of(tmp_path)
    again.close_number(4, of=counted())
    told += [value for _, kind, value in sent(again) if kind == 700]
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_before_it_is_known_what_they_were_no_counter_is_told(tmp_path: Path) -> None:
    before = box_of(tmp_path)
    before.close_number(1, of=counted())
    before.settle_delivered(before.lend(1000))
    before.crash()
    box, store, clock = fragile_box(tmp_path, failing=True)
    readings = box.close_interval(counted(), interval(2), interval(3), clock_trusted=True)
    assert [each.type for each in readings] == [532, 531, 533]
    assert box.totals is None
    assert counters_of(counted(), box.totals) == {}
    store.failing = False
    clock.advance(2)
    left = box.recover()
    assert box.is_recovered
    assert left is not None
    box.close_left_open(left, summary(None), interval(3))
    box.close_number(3, of=counted())
    assert [value for second, kind, value in sent(box) if (second, kind) == (3, 700)] == [1.5]
    assert counters_of(counted(), box.totals)["energy_in_kwh"] == 1.5


# -- the whole program -------------------------------------------------------------------------------------------------

NAMES = ["energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah", "coverage_percent"]


def field(server: RedisServer, name: str) -> dict[str, Any]:
    text = server.hash(str(MAC)).get(name)
    return {} if text is None else dict(json.loads(text))


def test_they_go_to_the_cloud_and_to_redis_and_a_restart_does_not_set_them_back(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server:
        api = {"energy_in_type": 700, "charge_out_type": 703}
        rig.configure({"API": api, "REDIS": {"redis_enable": True, "redis_port": server.port}})
        rig.start()
        rig.wait_for_intervals(3, "V A kW 700 703")
        assert rig.stop()[0] == 0
        before = field(server, "energy_in_kwh")
        assert before["data"] > 1.5 * 0.78 / 3600  # of 52 V and 15 A
        assert (before["type"], field(server, "energy_out_kwh")["type"]) == (700, None)
        seen = [before]
        rig.start()
        while len(seen) < 4:
            wait_for(lambda: field(server, "energy_in_kwh") != seen[-1], what="a newer value in Redis")
            seen.append(field(server, "energy_in_kwh"))
        assert rig.stop()[0] == 0
        values = [values["700"] for _, values in sorted(rig.arrived().items()) if "700" in values]
        fields = server.hash(str(MAC))
        told = json.loads(run_daemon(tmp_path, "--status", "--json").stdout)
    assert [each["data"] for each in seen] == sorted({each["data"] for each in seen})
    assert values == sorted(values)
    assert values[0] > 0
    assert fields.keys() == {"532", "531", "533", *NAMES}
    assert json.loads(fields["energy_in_kwh"])["data"] == values[-1] == told["energy_in_kwh"]
    assert json.loads(fields["charge_out_ah"])["data"] == told["charge_out_ah"] == 0.0
    assert json.loads(fields["charge_in_ah"])["data"] == told["charge_in_ah"] > 0
    assert 0 < json.loads(fields["coverage_percent"])["data"] < 100  # the time between the two runs is a gap
    assert told["gap_seconds"] > 0


def test_a_reload_takes_a_counter_in_and_leaves_it_out_again(tmp_path: Path) -> None:
    def reload() -> None:
        before = rig.log.count(USED)
        assert rig.process is not None
        rig.process.send_signal(signal.SIGHUP)
        wait_for(lambda: rig.log.count(USED) > before, what=USED)

    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server:
        redis = {"redis_enable": True, "redis_port": server.port}
        rig.configure({"REDIS": redis})
        rig.start()
        rig.wait_for_intervals(2)
        wait_for(lambda: field(server, "energy_in_kwh").get("type", 0) is None, what="it is in Redis without a type")
        rig.configure({"REDIS": redis, "API": {"energy_type": 704, "energy_in_type": 700}})
        reload()
        rig.wait_for_intervals(2, "V A kW 700 704")
        wait_for(lambda: field(server, "energy_in_kwh")["type"] == 700, what="it has its type in Redis")
        rig.configure({"REDIS": redis})
        reload()
        rig.wait_for_intervals(2)
        wait_for(lambda: field(server, "energy_in_kwh")["type"] is None, what="it has none again")
        assert rig.stop()[0] == 0
        told = json.loads(run_daemon(tmp_path, "--status", "--json").stdout)
    assert told["ledger"]["closes"]
    assert told["ledger"]["readings_made"] == told["ledger"]["readings_delivered"]
