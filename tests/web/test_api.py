"""What the API answers, over a real socket and a real database."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from accuracy import accuracy_of
from averaging_buffer import summarise
from measurements import CURRENT, VOLTAGE, PowerSample
from outbox import Limits, Outbox
from store import NAME
from tests.clocks import ManualClock
from tests.test_history import made, row
from tests.test_outbox import interval, summary
from tests.web.stand import Stand
from web.answers import Answers
from web.parameters import BadRequest, parse, step_ms, when_utc_ms
from web.server import WebServer

NOON = 1_795_953_600_000  # 2026-11-29T12:00:00Z
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


def volts(volts: float) -> dict[str, float]:
    return dict.fromkeys(("voltage", "voltage_minimum", "voltage_maximum"), volts)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A server over two hours of history before noon, with an hour's gap between them."""
    folder = tmp_path_factory.mktemp("api")
    rows = [row(NOON - 3_600_000 * 2 - 30_000 * each, **volts(50.0 + each % 2)) for each in range(120)]
    rows += [row(NOON - 30_000 * each, power=None, power_count=None) for each in range(120)]
    made(folder, sorted(rows, key=lambda each: each["end_utc_ms"]))
    with Stand(folder) as stand:
        yield stand


@pytest.mark.parametrize(
    "path",
    [
        "/openapi.json",
        "/metrics",
        "/healthz",
        "/api/latest",
        "/api/status",
        "/api/energy",
        "/api/history",
        "/api/history.csv",
    ],
)
def test_every_answer_has_the_security_headers_and_may_not_be_kept(stand: Stand, path: str) -> None:
    answer = stand.get(path)
    assert answer.status == 200
    assert HEADERS.items() <= answer.headers.items()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/openapi.json", "/metrics", "/api/latest", "/api/history.csv", "/api/history?from=0"]
)
def test_head_says_as_much_as_get_but_the_body(stand: Stand, path: str) -> None:
    answer, full = stand.get(path, method="HEAD"), stand.get(path)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"] == full.headers["content-type"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_it_can_only_be_read(stand: Stand, method: str) -> None:
    answer = stand.get("/api/latest", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert "only be read" in answer.json["error"]
    assert HEADERS.items() <= answer.headers.items()


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/", "/api/latest/", "//", "/%2f", "/static", "/static/", "/%00", "/%ff"]
)
def test_what_is_not_there_is_told_as_json(stand: Stand, path: str) -> None:
    answer = stand.get(path)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"error"}


# -- live --------------------------------------------------------------------------------------------------------------


def test_the_newest_sample_is_told_with_its_age_and_becomes_stale(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        answer = stand.get("/api/latest").json
        assert answer["sample"] is None
        assert answer["interval"] is None
        assert (answer["direction"], answer["stale"], answer["today"]) == ("unknown", True, None)
        stand.take(52.0, -2.0)
        answer = stand.get("/api/latest").json
        sample = answer["sample"]
        assert (sample["voltage_v"], sample["current_a"], sample["power_kw"]) == (52.0, -2.0, -0.104)
        assert 0 <= sample["age_s"] < 10
        assert sample["timestamp"] == pytest.approx(time.time() * 1000, abs=15_000)
        assert (answer["stale"], answer["stale_after_s"], answer["direction"]) == (False, 15.0, "discharging")
        assert answer["uncertainty"] == limits(stand, 52.0, -2.0)


def test_an_old_sample_is_stale_and_has_no_direction(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        stand.take(52.0, 2.0, age_s=16.0)
        answer = stand.get("/api/latest").json
    assert answer["sample"]["age_s"] >= 16.0
    assert (answer["stale"], answer["direction"]) == (True, "unknown")


def test_a_sample_without_a_value_or_from_before_does_not_take_the_place_of_the_newest(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        stand.take(52.0, None)
        stand.take(51.0, 1.0, age_s=3.0)
        stand.take(None, None)
        sample = stand.get("/api/latest").json["sample"]
    assert (sample["voltage_v"], sample["current_a"], sample["power_kw"]) == (52.0, None, None)


def limits(stand: Stand, voltage_v: float, current_a: float) -> dict[str, float | None]:
    """Return what the instruments may be off with this sample."""
    sample = PowerSample(
        start_mono_s=0.0, voltage_v=voltage_v, current_a=current_a, power_kw=voltage_v * current_a / 1000
    )
    uncertainty = accuracy_of(stand.settings).of(summarise([sample]))
    return {name: getattr(uncertainty, name) for name in ("voltage_v", "current_a", "power_kw")}


@pytest.mark.parametrize(
    ("of_the_limit", "direction"),
    [(40, "charging"), (1.5, "charging"), (0.9, "idle"), (-0.9, "idle"), (-1.5, "discharging")],
)
def test_the_live_values_have_the_limits_of_the_instruments(
    tmp_path: Path, of_the_limit: float, direction: str
) -> None:
    """Not those of the last interval: its mean is unsure by +/- 8 A where loads come and go, and no value is."""
    with Stand(tmp_path) as stand:
        limit_a = limits(stand, 52.0, 0.0)["current_a"]
        assert limit_a is not None
        stand.close_interval(current_uncertainty_a=8.0)
        stand.take(52.0, of_the_limit * limit_a)
        answer = stand.get("/api/latest").json
        assert answer["uncertainty"] == limits(stand, 52.0, of_the_limit * limit_a)
    assert answer["uncertainty"]["current_a"] < 1
    assert answer["direction"] == direction
    assert answer["interval"]["current_a"] == {
        "mean": 2.0,
        "minimum": 1.0,
        "maximum": 3.0,
        "count": 6,
        "uncertainty": 8.0,
    }
    assert answer["interval"]["power_kw"] is None


def test_healthz_says_503_once_no_meter_has_given_a_good_sample_for_three_reports(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        stand.take(52.0, None, age_s=80.0)
        assert stand.get("/healthz").json == {"status": "ok"}
    with Stand(tmp_path) as stand:
        stand.take(52.0, None, age_s=91.0)
        stand.meters[VOLTAGE] = {"works": False, "trouble": "no answer; a secret"}
        answer = stand.get("/healthz")
    assert answer.status == 503
    assert "no meter has given a good sample for 1 min 31 s; voltage meter: no answer; ***" in answer.json["error"]


def test_the_status_tells_each_part_in_words_and_shows_no_secret(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        answer = stand.get("/api/status").json
        assert answer["overall"] == "ok"
        states = {part["name"]: part["state"] for part in answer["parts"]}
        wanted = dict.fromkeys(("Meters", "Cloud", "Clock", "Ledger", "Database", "Program"), "ok")
        assert states == {**wanted, "Redis": "off"}
        stand.meters[CURRENT] = {"works": False, "trouble": "the port is\ngone: a secret " + "x" * 1000}
        stand.refused = "the changed configuration is refused"
        answer = stand.get("/api/status").json
    assert answer["overall"] == "error"
    parts = {part["name"]: part for part in answer["parts"]}
    assert parts["Meters"]["text"].startswith("voltage meter: works; current meter: the port is gone: ***")
    assert len(parts["Meters"]["text"]) < 400
    assert (parts["Program"]["state"], parts["Program"]["text"]) == ("warning", "the changed configuration is refused")


@pytest.mark.parametrize("fate", ["refused by the cloud", "dropped"])
def test_a_lost_reading_is_a_warning_for_a_week_and_told_for_ever(tmp_path: Path, fate: str) -> None:
    with Stand(tmp_path) as stand:
        outbox = stand.outbox
        outbox.recover()
        outbox.close_interval(summary(52.0), interval(1), interval(2), clock_trusted=True)
        if fate == "dropped":
            outbox.change(stand.settings.api.device(1), Limits(max_bytes=1))
            outbox.close_interval(summary(52.0), interval(2), interval(3), clock_trusted=True)
        else:
            outbox.settle_rejected(outbox.lend(10), "no such type")
        lost = sum(outbox.counts.get(name, 0) for name in ("readings_dropped", "readings_rejected"))
        assert lost > 0
        for days, state in ((0, "warning"), (6.9, "warning"), (7.1, "ok")):
            with closing(sqlite3.connect(tmp_path / NAME)) as connection, connection:
                when = {"utc_ms": stand.facts.now_utc_ms - int(days * 86_400_000)}
                if days:
                    connection.execute("UPDATE state SET value = ? WHERE name = 'last_loss'", [json.dumps(when)])
            parts = {part["name"]: part for part in stand.get("/api/status").json["parts"]}
            assert parts["Ledger"]["state"] == state, days
            assert f"{lost} {fate}" in parts["Ledger"]["text"]


# -- history -----------------------------------------------------------------------------------------------------------


def test_history_has_the_points_the_rows_make(stand: Stand) -> None:
    answer = stand.get(f"/api/history?from={NOON - 4 * 3_600_000}&to={NOON}&step=30m").json
    assert (answer["from"], answer["to"], answer["step_ms"]) == (NOON - 4 * 3_600_000, NOON, 1_800_000)
    points = {(NOON - point["timestamp"]) / 3_600_000: point for point in answer["points"]}
    assert sorted(points) == [0.0, 0.5, 2.0, 2.5]
    first = points[2.5]
    assert first["voltage_v"] == {"mean": 50.5, "minimum": 50.0, "maximum": 51.0, "count": 360, "uncertainty": None}
    assert first["intervals"] == 60
    assert first["energy_in_kwh"] == pytest.approx(0.06)
    assert first["coverage_s"] == 1800.0
    assert points[0.0]["power_kw"] is None


def test_history_by_column_says_the_same(stand: Stand) -> None:
    query = f"/api/history?from={NOON - 4 * 3_600_000}&to={NOON}&step=10m"
    points, columns = stand.get(query).json["points"], stand.get(f"{query}&columns=1").json
    assert columns["timestamp"] == [point["timestamp"] for point in points]
    for name in ("voltage_v", "current_a", "power_kw"):
        for field in ("mean", "minimum", "maximum", "count", "uncertainty"):
            assert columns[name][field] == [point[name] and point[name][field] for point in points]
    for name in ("energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah", "coverage_s", "intervals"):
        assert columns[name] == [point[name] for point in points]


def test_iso_times_and_milliseconds_mean_the_same(stand: Stand) -> None:
    answers = [
        stand.get(f"/api/history?from={begin}&to={end}&step=60000").json
        for begin, end in (
            (NOON - 3_600_000, NOON),
            ("2026-11-29T11:00:00Z", "2026-11-29T12:00:00Z"),
            ("2026-11-29T11:00", "2026-11-29 12:00:00.000".replace(" ", "%20")),
            ("2026-11-29T12:00:00%2B01:00", "2026-11-29T13:00:00+01:00"),
        )
    ]
    assert len(answers[0]["points"]) == 60
    assert answers.count(answers[0]) == 4


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("from=yesterday", "from=yesterday: must be milliseconds since 1970"),
        ("from=2026-02-30", "there is no such day"),
        ("from=2026-11-29T25:00", "there is no such day or time"),
        ("from=999999999999999", "must be after 1969 and before 9999"),
        ("from=1969-12-31T23:59:59Z", "must be after 1969 and before 9999"),
        ("from=-5", "must be milliseconds"),
        ("from=1e3", "must be milliseconds"),
        ("from=", "must be milliseconds"),
        ("from=\u0665", "must be milliseconds"),
        ("from=2000&to=1000", "from must be before to"),
        ("from=5&to=5", "from must be before to"),
        ("step=fast", "step=fast: must be a number"),
        ("step=0", "must be a number"),
        ("step=999", "at least one second"),
        ("step=99999999999d", "less than 8,000 years"),
        (f"from=0&to={NOON}&step=1s", "10771 points, and 5000 are the most"),
        ("columns=yes", "must be 0 or 1"),
        ("form=5", "there is no parameter form: known are: from, to, step, columns"),
        ("from=1&from=2", "given twice"),
        ("from", "must be milliseconds"),
        ("%ff=1", "not of the form"),
        ("from=<script>alert(1)</script>", "must be milliseconds"),
        ("from=1'%20OR%201=1--", "must be milliseconds"),
        ("&".join(["from=1"] * 50), "not of the form"),
    ],
)
def test_a_bad_parameter_is_refused_with_the_reason(stand: Stand, query: str, why: str) -> None:
    path = f"/api/history?{query}".encode().decode("latin-1")
    answer = stand.get(path) if query.isascii() else stand.get("/api/history?from=%D9%A5")
    assert answer.status == 400
    assert why in answer.json["error"]
    assert answer.headers["content-type"] == "application/json"


def test_without_a_step_there_are_never_more_than_1500_points() -> None:
    for days in (0.01, 1, 7, 31, 365, 20_000, 2_000_000):
        span_ms = int(days * 86_400_000)
        step = step_ms({}, span_ms, 30_000)
        assert step >= 30_000
        assert span_ms / step <= 1500
    assert step_ms({}, 3_600_000, 30_000) == 30_000
    assert step_ms({}, 3_600_000, 45_000) == 60_000


def test_parameters_are_taken_as_they_are_written() -> None:
    assert parse("from=1&to=a%20b", ("from", "to")) == {"from": "1", "to": "a b"}
    assert when_utc_ms({"at": "1970-01-01T00:00:01.5Z"}, "at", 0) == 1500
    assert when_utc_ms({}, "at", 7) == 7
    with pytest.raises(BadRequest, match="there are none here"):
        parse("a=b", ())


def test_the_table_opens_in_a_spreadsheet(stand: Stand) -> None:
    answer = stand.get(f"/api/history.csv?to={NOON}")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="power_history.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert len(rows) == 240
    first, last = rows[0], rows[-1]
    assert last["time_utc"] == "2026-11-29 12:00:00"
    assert last["time_local"] == datetime.fromtimestamp(NOON / 1000).strftime("%Y-%m-%d %H:%M:%S")
    assert float(first["energy_in_kwh"]) == 0.001
    assert (last["power_kw_mean"], last["power_kw_samples"]) == ("", "")
    assert [each["time_utc"] for each in rows] == sorted(each["time_utc"] for each in rows)


def test_the_table_by_step_and_period(stand: Stand) -> None:
    answer = stand.get(f"/api/history.csv?from={NOON - 3_600_000}&to=2026-11-29T12:00:00Z&step=10m")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [row["time_utc"][11:] for row in rows] == [f"11:{m}0:00" for m in range(1, 6)] + ["12:00:00"]
    assert {row["intervals"] for row in rows} == {"20"}


def test_energy_of_a_period_and_of_the_usual_ones(stand: Stand) -> None:
    answer = stand.get(f"/api/energy?from={NOON - 3_600_000}&to={NOON}").json
    assert answer["energy_in_kwh"] == pytest.approx(0.12)
    assert (answer["coverage_percent"], answer["gap_seconds"]) == (100.0, 0.0)
    answer = stand.get("/api/energy?to=2026-11-29T12:00:00Z").json
    assert answer["energy_in_kwh"] == pytest.approx(0.24)
    assert answer["coverage_percent"] == pytest.approx(200 / 3, abs=1)
    assert set(stand.get("/api/energy").json) == {"today", "yesterday", "month", "total"}


def test_energy_that_nobody_measured_is_none_and_not_0(stand: Stand) -> None:
    answer = stand.get("/api/energy?from=1000&to=2000").json
    flows = ("energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah", "coverage_percent")
    assert {answer[name] for name in flows} == {None}


# -- a database that cannot be read ------------------------------------------------------------------------------------

FROM_THE_DATABASE = ("/api/energy", "/api/energy?from=0", "/api/history", "/api/history.csv")


def check_it_is_503_and_the_rest_works(stand: Stand) -> None:
    for path in FROM_THE_DATABASE:
        answer = stand.get(path)
        assert answer.status == 503, path
        assert "database" in answer.json["error"]
    stand.take(52.0, 1.0)
    latest = stand.get("/api/latest").json
    assert latest["sample"]["voltage_v"] == 52.0
    assert latest["today"] is None
    assert stand.get("/api/status").json["last_delivery"] is None
    assert b"power_monitor_battery_volts 52.0" in stand.get("/metrics").body
    assert stand.get("/openapi.json").status == 200


def test_without_a_database_live_values_are_still_shown(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        check_it_is_503_and_the_rest_works(stand)


def test_a_database_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database at all" * 1000)
    with Stand(tmp_path) as stand:
        check_it_is_503_and_the_rest_works(stand)


def test_a_database_that_breaks_while_it_is_served(tmp_path: Path) -> None:
    path = made(tmp_path, [row(NOON)])
    with Stand(tmp_path) as stand:
        assert len(stand.get(f"/api/history?to={NOON}").json["points"]) == 1
        path.write_bytes(b"\xff" * path.stat().st_size)
        check_it_is_503_and_the_rest_works(stand)


def test_a_database_that_is_locked(tmp_path: Path) -> None:
    path = made(tmp_path, [row(NOON)])
    with Stand(tmp_path) as stand, closing(sqlite3.connect(path, isolation_level=None)) as locker:
        locker.execute("PRAGMA journal_mode = DELETE")
        locker.execute("BEGIN EXCLUSIVE")
        answer = stand.get("/api/history")
        assert answer.status == 503
        assert "cannot be read just now" in answer.json["error"]
        locker.execute("ROLLBACK")
        assert stand.get("/api/history").status == 200


def test_numbers_that_json_cannot_say_are_no_values(tmp_path: Path) -> None:
    made(tmp_path, [row(NOON, voltage=float("inf"), energy_in=float("inf"))])
    with Stand(tmp_path) as stand:
        answer = stand.get(f"/api/history?to={NOON}")
        assert stand.get(f"/api/history.csv?to={NOON}").status == 200

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    points = json.loads(answer.body, parse_constant=refuse)["points"]
    assert points[0]["voltage_v"] is None
    assert datetime.fromtimestamp(points[0]["timestamp"] / 1000, UTC).year == 2026


# -- found by the review -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        f"/api/history?from=0&to={NOON}&step=1m",
        f"/api/history.csv?to={NOON}&step=1m",
        f"/api/history.csv?from=0&to={NOON}&step=60000",
    ],
)
def test_a_step_counts_the_points_of_the_time_there_is_history_of(stand: Stand, path: str) -> None:
    answer = stand.get(path)
    assert answer.status == 200
    points = answer.body.count(b"\n") - 1 if "csv" in path else len(answer.json["points"])
    assert points == 120


def test_all_there_is_comes_in_as_many_points_as_a_chart_takes(stand: Stand) -> None:
    answer = stand.get(f"/api/history?from=0&to={NOON}").json
    assert answer["from"] == 0
    assert answer["step_ms"] == 30_000
    assert len(answer["points"]) == 240


@pytest.mark.parametrize("path", ["/api/history", "/api/history.csv", "/api/energy"])
def test_the_last_moment_that_can_be_asked_for_is_the_one_that_is_said(stand: Stand, path: str) -> None:
    assert stand.get(f"{path}?from=0&to=9998-12-31T23:59:59Z").status == 200
    answer = stand.get(f"{path}?from=0&to=9999-12-31T00:00:00Z")
    assert answer.status == 400
    assert "must be after 1969 and before 9999" in answer.json["error"]


def test_energy_that_could_not_be_read_is_asked_for_again_before_the_next_interval(tmp_path: Path) -> None:
    clock = ManualClock()
    with Stand(tmp_path, clock=clock) as stand:
        answers = Answers(stand.facts)
        stand.close_interval()
        assert answers.latest()["today"] is None
        made(tmp_path, [row(stand.facts.now_utc_ms)])
        clock.advance(5.1)
        assert answers.latest()["today"]["energy_in_kwh"] == 0.001


def test_a_database_that_cannot_be_read_is_no_delivery_that_never_was_and_nothing_is_called_well(
    tmp_path: Path,
) -> None:
    made(tmp_path, [row(NOON)])
    (tmp_path / NAME).write_bytes(b"this is no database" * 100)
    with Stand(tmp_path) as stand:
        status = stand.get("/api/status").json
        parts = {part["name"]: part for part in status["parts"]}
        assert status["overall"] == "error"
        assert parts["Database"]["state"] == "error"
        assert "is damaged" in parts["Database"]["text"]
        assert "no delivery yet" not in parts["Cloud"]["text"]
        assert "last delivery: not known" in parts["Cloud"]["text"]


def test_each_meter_has_room_for_what_is_wrong_with_it(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        for name in (VOLTAGE, CURRENT):
            trouble = f"cannot open the port of {name}; {'this is what there is to do about it. ' * 5}the end of {name}"
            stand.meters[name] = {"works": False, "trouble": trouble}
        meters = stand.get("/api/status").json["parts"][0]
        assert "the end of voltage meter" in meters["text"]
        assert "the end of current meter" in meters["text"]
        stand.meters[CURRENT] = {"works": False, "trouble": "long" * 1000}
        assert len(stand.get("/api/status").json["parts"][0]["text"]) < 1000


@pytest.fixture
def in_chile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Live where summer time begins at midnight: 6 September 2026 has no 00:00, its first moment is 01:00."""
    monkeypatch.setenv("TZ", "<-04>4<-03>,M9.1.0/0,M4.1.0/0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_chile")
def test_a_day_that_has_no_midnight_begins_with_its_first_moment(tmp_path: Path) -> None:
    begin_utc_ms = 1_788_667_200_000  # 01:00 summer time, 04:00 UTC
    made(tmp_path, [row(begin_utc_ms - 30_000), row(begin_utc_ms), row(begin_utc_ms + 30_000, energy_in=0.5)])
    with Stand(tmp_path, clock=ManualClock(utc_s=begin_utc_ms / 1000 + 3600)) as stand:
        energy = stand.get("/api/energy").json
        assert energy["today"]["energy_in_kwh"] == 0.5
        assert energy["yesterday"]["energy_in_kwh"] == 0.002
        assert stand.get("/api/latest").json["today"]["energy_in_kwh"] == 0.5


def test_a_trouble_of_the_database_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = "database: disk is full; measuring goes on from memory"
    monkeypatch.setattr(Outbox, "trouble", trouble)
    monkeypatch.setattr(WebServer, "trouble", trouble)  # as the recorder says it, too
    with Stand(tmp_path) as stand:
        parts = {part["name"]: part for part in stand.get("/api/status").json["parts"]}
        assert (parts["Database"]["state"], parts["Database"]["text"]) == ("error", trouble)
        assert parts["Program"]["state"] == "ok"


def test_nothing_is_said_of_the_clock_before_it_was_looked_at(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        for text in ("not looked at yet: that is done when the first interval ends", "the time is known"):
            parts = {part["name"]: part for part in stand.get("/api/status").json["parts"]}
            assert (parts["Clock"]["state"], parts["Clock"]["text"]) == ("ok", text)
            stand.close_interval()


@pytest.mark.parametrize("zone", ["UTC", "<+05>-5", "<-05>5"])
def test_a_clock_that_stands_at_1970_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """As that of a Raspberry Pi that has just started and does not know the time yet."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    made(tmp_path, [row(NOON)])
    with Stand(tmp_path, clock=ManualClock(utc_s=5.0)) as stand:
        stand.take(52.0, 2.0)
        answers = {
            path: stand.get(path) for path in ("/api/latest", "/api/energy", "/api/history", "/metrics", "/api/status")
        }
    monkeypatch.undo()
    time.tzset()
    assert {path: answer.status for path, answer in answers.items()} == dict.fromkeys(answers, 200)
    assert answers["/api/latest"].json["sample"]["voltage_v"] == 52.0
    assert answers["/api/energy"].json["yesterday"]["energy_in_kwh"] is None


def test_what_the_meters_say_together_is_told_with_the_meters_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WebServer, "trouble", "the two meters: seem to be exchanged")
    with Stand(tmp_path) as stand:
        stand.server.name = "sampler"
        stand.meters[VOLTAGE] = {"works": False, "trouble": "seem to be exchanged"}
        parts = {part["name"]: part for part in stand.get("/api/status").json["parts"]}
        assert parts["Meters"]["state"] == "error"
        assert parts["Program"]["state"] == "ok"
