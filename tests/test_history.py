"""History says what the rows say, whatever they are; it touches nothing and holds nobody up."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history import LAST_UTC_MS, MOST_POINTS, Aggregate, History, HistoryError, PeriodEnergy, Point, open_history
from measurements import Energy
from store import MIGRATIONS, NAME, Store
from tests.clocks import ManualClock
from tests.rig import PROJECT
from tests.test_status import killed_while_used, snapshot, used

QUANTITIES = ("voltage", "current", "power")
FLOWS = ("energy_in", "energy_out", "charge_in", "charge_out", "energy_s", "charge_s")
Row = Mapping[str, Any]


def make(folder: Path) -> Store:
    """Return a new database of the daemon's own making."""
    store = Store(folder / NAME, ManualClock())
    with store.transaction() as cursor:
        cursor.execute("INSERT INTO device (id, mac, voltage_type, current_type, power_type) VALUES (1, 77, 1, 2, 3)")
    return store


def insert(store: Store, rows: Sequence[Row]) -> None:
    with store.transaction() as cursor:
        for row in rows:
            names = ["device", "waiting", *row]
            sql = f"INSERT INTO interval ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            cursor.execute(sql, [1, 0, *row.values()])


def made(folder: Path, rows: Sequence[Row]) -> Path:
    """Return a database with these rows, closed as a daemon that stops leaves it."""
    store = make(folder)
    insert(store, rows)
    store.close()
    return folder / NAME


def row(end_utc_ms: int | None, **values: float | None) -> dict[str, float | None]:
    """Return an interval of 52 V, 2 A, 0.104 kW; 0.001 kWh in 30 s, unless told."""
    usual: dict[str, float | None] = {"energy_in": 0.001, "energy_out": 0.0, "charge_in": 0.02, "charge_out": 0.0}
    for name, default in zip(QUANTITIES, (52.0, 2.0, 0.104), strict=True):
        mean = values.get(name, default)
        usual |= {name: mean, f"{name}_minimum": mean, f"{name}_maximum": mean}
        usual[f"{name}_count"] = None if mean is None else 6
    return {"end_utc_ms": end_utc_ms, **usual, "energy_s": 30.0, "charge_s": 30.0, **values}


# -- against a naive computation over the rows -------------------------------------------------------------------------

numbers = st.floats(-1e4, 1e4, allow_nan=False).map(lambda value: round(value, 6))
amounts = st.none() | st.floats(0, 100).map(lambda value: round(value, 6))


@st.composite
def quantities(draw: st.DrawFn, name: str) -> Row:
    names = (name, f"{name}_minimum", f"{name}_maximum")
    values = sorted(draw(st.lists(numbers, min_size=3, max_size=3)))
    uncertainty = draw(amounts)
    if draw(st.booleans()):
        return dict.fromkeys((*names, f"{name}_count", f"{name}_uncertainty"), None)
    columns: dict[str, float | None] = dict(zip(names, (values[1], values[0], values[2]), strict=True))
    return {**columns, f"{name}_count": draw(st.integers(1, 600)), f"{name}_uncertainty": uncertainty}


@st.composite
def rows_of_any_kind(draw: st.DrawFn) -> list[Row]:
    """Ends that rise, fall (a corrected clock), are doubled or not known; anything may be missing."""
    ends = draw(st.lists(st.none() | st.integers(1, 19_000), max_size=12))
    rows: list[Row] = []
    for end_utc_ms in ends:
        values: dict[str, Any] = {"end_utc_ms": end_utc_ms}
        for name in QUANTITIES:
            values |= draw(quantities(name))
        has_energy, has_charge = draw(st.booleans()), draw(st.booleans())
        for names, has in ((FLOWS[0:2] + FLOWS[4:5], has_energy), (FLOWS[2:4] + FLOWS[5:6], has_charge)):
            values |= {name: round(draw(st.floats(0, 50)), 6) if has else None for name in names}
        for name in ("energy_uncertainty", "energy_scatter", "charge_uncertainty", "charge_scatter"):
            values[name] = draw(amounts)
        for kind, name in (("charge", "current"), ("energy", "power")):  # the instruments' share is a share
            if values[f"{kind}_uncertainty"] is not None and values[f"{name}_uncertainty"] is not None:
                share = values[f"{kind}_uncertainty"] / 100
                values[f"{kind}_uncertainty"] = (
                    share * values[f"{name}_uncertainty"] * (values[f"{kind}_s"] or 0) / 3600
                )
        rows.append(values)
    return rows


def mean_of(name: str, rows: Sequence[Row]) -> Aggregate | None:
    known = [each for each in rows if each[name] is not None]
    if not known:
        return None
    count = sum(each[f"{name}_count"] for each in known)
    return Aggregate(
        mean=math.fsum(each[name] * each[f"{name}_count"] for each in known) / count,
        minimum=min(each[f"{name}_minimum"] for each in known),
        maximum=max(each[f"{name}_maximum"] for each in known),
        count=count,
        uncertainty=uncertainty_of_mean(name, known),
    )


def uncertainty_of_mean(name: str, known: Sequence[Row]) -> float | None:
    """+/- of the mean: the share of the instruments weighs as the samples, the rest is independent of each other."""
    flow = {"current": "charge", "power": "energy"}.get(name, "")
    count = sum(each[f"{name}_count"] for each in known)
    limit, variance = 0.0, 0.0
    for each in known:
        off, weight = each[f"{name}_uncertainty"], each[f"{name}_count"] / count
        if off is None:
            return None
        limit_of_flow, seconds = each.get(f"{flow}_uncertainty"), each.get(f"{flow}_s")
        share = limit_of_flow * 3600 / seconds if limit_of_flow is not None and seconds else off
        limit += weight * share
        variance += (weight * off) ** 2 - (weight * share) ** 2
    return math.sqrt(max(0.0, limit**2 + variance))


def sum_of(name: str, rows: Sequence[Row]) -> float | None:
    known = [each[name] for each in rows if each[name] is not None]
    return math.fsum(known) if known else None


def bucket_of(end_utc_ms: int, rows: Sequence[Row]) -> Point:
    return Point(
        end_utc_ms=end_utc_ms,
        voltage_v=mean_of("voltage", rows),
        current_a=mean_of("current", rows),
        power_kw=mean_of("power", rows),
        energy_in_kwh=sum_of("energy_in", rows),
        energy_out_kwh=sum_of("energy_out", rows),
        charge_in_ah=sum_of("charge_in", rows),
        charge_out_ah=sum_of("charge_out", rows),
        energy_s=sum_of("energy_s", rows),
        intervals=len(rows),
    )


def chosen(rows: Sequence[Row], from_utc_ms: int, to_utc_ms: int) -> list[Row]:
    inside = [each for each in rows if each["end_utc_ms"] is not None and from_utc_ms < each["end_utc_ms"] <= to_utc_ms]
    return sorted(inside, key=lambda each: int(each["end_utc_ms"]))


def flat(points: Sequence[Point]) -> list[Any]:
    """Return all values in one list: pytest compares such a list with a tolerance."""
    values: list[Any] = []
    for point in points:
        for aggregate in (point.voltage_v, point.current_a, point.power_kw):
            if aggregate is None:
                values.append(None)
            else:
                values += [aggregate.mean, aggregate.minimum, aggregate.maximum, aggregate.count, aggregate.uncertainty]
        values += [point.end_utc_ms, point.intervals, point.energy_s]
        values += [point.energy_in_kwh, point.energy_out_kwh, point.charge_in_ah, point.charge_out_ah]
    return values


def close_to(values: list[Any]) -> Any:
    return pytest.approx(without_none(values), rel=1e-9, abs=1e-9, nan_ok=True)


def without_none(values: Sequence[Any]) -> list[float]:
    """Return the values with NaN for ``None``, which pytest cannot compare; no value is ever NaN."""
    return [math.nan if value is None else value for value in values]


OTHER_WAY = {"in": "out", "out": "in"}


def uncertainty_of(kind: str, way: str, rows: Sequence[Row]) -> float | None:
    limits, variances = [], []
    for each in rows:
        own, other, limit = each[f"{kind}_{way}"], each[f"{kind}_{OTHER_WAY[way]}"], each[f"{kind}_uncertainty"]
        if own is None:
            continue
        if limit is None:
            if own + other > 0:
                return None
            continue
        scatter = each[f"{kind}_scatter"] or 0.0
        limits.append(min(limit, own + max(0.0, limit - other)))
        variances.append(min(scatter, own + max(0.0, scatter - other)) ** 2)
    return (math.sqrt(math.fsum(limits) ** 2 + 4 * math.fsum(variances)) or None) if limits else None


def test_it_says_what_a_naive_computation_over_the_rows_says(tmp_path: Path) -> None:
    store = make(tmp_path)

    @settings(max_examples=70, deadline=None)
    @given(
        rows=rows_of_any_kind(),
        bounds=st.lists(st.integers(0, 20_000), min_size=2, max_size=2, unique=True).map(
            lambda both: (min(both), max(both))
        ),
        step_ms=st.sampled_from([1, 7, 1000, 3600, 30_000]),
    )
    def check(rows: list[Row], bounds: tuple[int, int], step_ms: int) -> None:
        with store.transaction() as cursor:
            cursor.execute("DELETE FROM interval")
        insert(store, rows)
        with open_history(tmp_path / NAME, in_daemon=True) as history:
            check_points(history, rows, bounds, step_ms)
            check_energy(history, rows, bounds)

    check()


def check_points(history: History, rows: list[Row], bounds: tuple[int, int], step_ms: int) -> None:
    inside = chosen(rows, *bounds)
    buckets: dict[int, list[Row]] = {}
    for each in inside:
        buckets.setdefault(math.ceil(each["end_utc_ms"] / step_ms) * step_ms, []).append(each)
    points = history.points(bounds[0], bounds[1], step_ms)
    assert without_none(flat(points)) == close_to(flat([bucket_of(end, each) for end, each in buckets.items()]))
    for point in points:
        for quantity in (point.voltage_v, point.current_a, point.power_kw):
            assert quantity is None or quantity.minimum <= quantity.mean <= quantity.maximum
    intervals = list(history.intervals(*bounds))
    singles = [bucket_of(each["end_utc_ms"], [each]) for each in inside]
    assert [point.end_utc_ms for point in intervals] == [point.end_utc_ms for point in singles]
    if len({point.end_utc_ms for point in singles}) == len(singles):
        assert without_none(flat(intervals)) == close_to(flat(singles))


def check_energy(history: History, rows: list[Row], bounds: tuple[int, int]) -> None:
    inside = chosen(rows, *bounds)
    period = history.energy(*bounds)
    assert list(astuple(period.energy)) == close_to([sum_of(flow, inside) or 0.0 for flow in FLOWS])
    uncertainties = [
        period.energy_in_uncertainty_kwh,
        period.energy_out_uncertainty_kwh,
        period.charge_in_uncertainty_ah,
        period.charge_out_uncertainty_ah,
    ]
    naive = [uncertainty_of(kind, way, inside) for kind in ("energy", "charge") for way in ("in", "out")]
    assert without_none(uncertainties) == close_to(naive)
    ends = [each["end_utc_ms"] for each in rows if each["end_utc_ms"] is not None]
    assert history.extent_utc_ms() == ((min(ends), max(ends)) if ends else None)


# -- periods and their coverage ----------------------------------------------------------------------------------------


def test_a_period_is_cut_to_the_time_of_which_there_is_history_and_a_pause_is_a_gap(tmp_path: Path) -> None:
    rows = [row(30_000 * number) for number in (2, 3, 4, 9, 10)]  # 1 min to 5 min, 2 min of it without power
    with open_history(made(tmp_path, rows), in_daemon=False) as history:
        period = history.energy(0, 10**9)
        assert (period.from_utc_ms, period.to_utc_ms) == (30_000, 300_000)
        assert (period.elapsed_s, period.gap_s) == (270.0, 120.0)
        assert period.coverage_percent == pytest.approx(100 * 150 / 270)
        assert (period.energy.energy_in_kwh, period.energy.charge_in_ah) == pytest.approx((0.005, 0.1))
        assert (period.energy.energy_s, period.energy.charge_s) == (150.0, 150.0)
        inside = history.energy(120_000, 240_000)
        assert (inside.elapsed_s, inside.gap_s, inside.coverage_percent) == (120.0, 120.0, 0.0)


def test_rows_from_before_energy_was_stored_are_a_gap(tmp_path: Path) -> None:
    old = dict.fromkeys(FLOWS, None)
    rows = [{**row(30_000), **old}, {**row(60_000), **old}, row(90_000)]
    with open_history(made(tmp_path, rows), in_daemon=False) as history:
        period = history.energy(0, 90_000)
        assert (period.elapsed_s, period.gap_s, period.coverage_percent) == (60.0, 30.0, 50.0)
        assert period.energy.energy_in_kwh == 0.001
        first, *_ = history.intervals(0, 90_000)
        assert (first.energy_in_kwh, first.energy_s) == (None, None)


def test_with_one_meter_the_coverage_is_that_of_the_charge(tmp_path: Path) -> None:
    alone = {"energy_in": None, "energy_out": None, "energy_s": 0.0}
    with open_history(
        made(tmp_path, [row(30_000, **alone), row(60_000, **alone, charge_s=15.0)]), in_daemon=False
    ) as history:
        period = history.energy(0, 60_000)
    assert (period.elapsed_s, period.gap_s, period.coverage_percent) == (60.0, 15.0, 75.0)


def test_a_period_without_history_has_no_coverage(tmp_path: Path) -> None:
    with open_history(made(tmp_path, [row(35_000)]), in_daemon=False) as history:
        for period in (history.energy(40_000, 50_000), history.energy(0, 4000)):
            assert (period.energy, period.elapsed_s, period.gap_s) == (Energy(), 0.0, 0.0)
            assert period.coverage_percent is None
        assert history.points(40_000, 50_000, 1000) == []


def test_a_clock_that_was_set_back_gives_no_more_than_100_percent(tmp_path: Path) -> None:
    rows = [row(end) for end in (30_000, 60_000, 30_500, 60_500)]
    with open_history(made(tmp_path, rows), in_daemon=False) as history:
        period = history.energy(0, 60_500)
    assert (period.coverage_percent, period.gap_s, period.energy.energy_s) == (100.0, 0.0, 120.0)


def test_an_interval_that_was_held_back_takes_its_place_once_it_has_its_end(tmp_path: Path) -> None:
    store = make(tmp_path)
    insert(store, [row(None, planned_end_utc_ms=30_000), row(60_000)])
    with open_history(tmp_path / NAME, in_daemon=False) as history:
        assert [each.end_utc_ms for each in history.intervals(0, 90_000)] == [60_000]
        with store.transaction() as cursor:
            cursor.execute("UPDATE interval SET end_utc_ms = 70000 WHERE id = 1")
        assert [each.end_utc_ms for each in history.intervals(0, 90_000)] == [60_000, 70_000]


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ((-1, 5, 1), "between the years 1970 and 9999"),
        ((5, LAST_UTC_MS + 1, 1), "between the years 1970 and 9999"),
        ((5, 5, 1), "from must be before to"),
        ((6, 5, 1), "from must be before to"),
        ((5, 6, 0), "step must be"),
        ((5, 6, -1), "step must be"),
        ((5, 6, 10**30), "step must be"),
        ((0, LAST_UTC_MS, 1), "step is too small"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_the_reason(
    tmp_path: Path, question: tuple[int, int, int], reason: str
) -> None:
    with open_history(made(tmp_path, [row(30_000), row(30_000 + 2 * MOST_POINTS)]), in_daemon=False) as history:
        with pytest.raises(ValueError, match=reason):
            history.points(*question)
        if "step" not in reason:
            with pytest.raises(ValueError, match=reason):
                history.energy(*question[:2])
            with pytest.raises(ValueError, match=reason):
                history.intervals(*question[:2])


def test_many_intervals_come_whole_in_order_and_each_once(tmp_path: Path) -> None:
    with open_history(made(tmp_path, [row(1000 + number // 2) for number in range(5001)]), in_daemon=False) as history:
        ends = [each.end_utc_ms for each in history.intervals(0, 10_000)]
    assert ends == [1000 + number // 2 for number in range(5001)]


# -- beside a daemon, without one, and without touching anything -------------------------------------------------------


def ask_everything(history: History) -> list[Any]:
    return [
        history.extent_utc_ms(),
        history.points(0, LAST_UTC_MS, 1000),
        list(history.intervals(0, LAST_UTC_MS)),
        history.energy(0, LAST_UTC_MS),
        history.totals(),
    ]


def test_an_empty_database_has_no_history_and_no_error(tmp_path: Path) -> None:
    with open_history(made(tmp_path, []), in_daemon=False) as history:
        extent, points, intervals, period, _totals = ask_everything(history)
    assert (extent, points, intervals, period.coverage_percent) == (None, [], [], None)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_database_of_an_older_version_says_what_it_has(tmp_path: Path, version: int) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        for migration in MIGRATIONS[:version]:
            connection.executescript(migration)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(
            "INSERT INTO interval (device, waiting, end_utc_ms, voltage, voltage_minimum, voltage_maximum, "
            "voltage_count) VALUES (1, 0, 30000, 52, 51, 53, 6)"
        )
        connection.commit()
    with open_history(tmp_path / NAME, in_daemon=False) as history:
        _extent, points, intervals, period, _totals = ask_everything(history)
    assert points == intervals
    assert points[0].voltage_v == Aggregate(mean=52.0, minimum=51.0, maximum=53.0, count=6, uncertainty=None)
    assert (points[0].energy_in_kwh, period.energy, period.coverage_percent) == (None, Energy(), None)


def test_what_is_no_number_in_a_damaged_row_is_not_shown_as_one(tmp_path: Path) -> None:
    with open_history(made(tmp_path, [row(30_000, voltage=math.inf, energy_in=math.inf)]), in_daemon=False) as history:
        (point,) = history.points(0, 30_000, 1000)
        assert (point.voltage_v, point.energy_in_kwh) == (None, None)
        assert history.energy(0, 30_000).energy.energy_in_kwh == 0.0


@pytest.mark.parametrize("killed", [True, False])
def test_nothing_is_made_or_changed(tmp_path: Path, killed: bool) -> None:
    if killed:
        killed_while_used(tmp_path)
    else:
        used(tmp_path).close()
    before = snapshot(tmp_path)
    with open_history(tmp_path / NAME, in_daemon=False) as history:
        _extent, points, *_rest = ask_everything(history)
    assert [each.end_utc_ms for each in points] == [90_000, 91_000, 92_000]
    assert snapshot(tmp_path) == before


def test_why_there_is_no_history_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="There is no database"), open_history(tmp_path / NAME, in_daemon=False):
        pytest.fail("was opened")
    (tmp_path / NAME).write_bytes(b"no database at all" * 500)
    with pytest.raises(HistoryError, match="is damaged"), open_history(tmp_path / NAME, in_daemon=False):
        pytest.fail("was opened")


def test_a_question_is_given_up_when_it_takes_too_long(tmp_path: Path) -> None:
    path = made(tmp_path, [])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO interval (device, waiting, end_utc_ms, voltage) "
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT 1, 0, i, 1 FROM n"
        )
        connection.commit()
    with (
        pytest.raises(HistoryError, match=r"did not answer within 0.005 s: ask for a shorter time"),
        open_history(path, answer_within_s=0.005, in_daemon=False) as history,
    ):
        history.energy(0, LAST_UTC_MS)


@pytest.mark.parametrize("in_daemon", [True, False])
def test_who_takes_intervals_slowly_holds_no_writer_and_no_file_up(tmp_path: Path, in_daemon: bool) -> None:
    """The write-ahead log can begin anew while somebody is in the middle of a download."""
    store = make(tmp_path)
    insert(store, [row(1000 + number) for number in range(5000)])
    with open_history(tmp_path / NAME, in_daemon=in_daemon) as history:
        taken = history.intervals(0, 6000)
        first = list(islice(taken, 2001))
        insert(store, [row(5000 + number) for number in range(1000, 2000)])
        with store.reading() as cursor:
            assert cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        rest = list(taken)
    assert [each.end_utc_ms for each in (*first, *rest)] == [*range(1000, 6000), 6000]


def test_inside_the_daemon_a_reader_never_keeps_the_daemon_from_opening_its_database(tmp_path: Path) -> None:
    """A reader with read-only shared memory would: then the daemon, in the same process, could not write any more."""
    store = make(tmp_path)
    insert(store, [row(1000)])
    stop = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                with open_history(tmp_path / NAME, in_daemon=True) as history:
                    assert history.points(0, 10**6, 1000)
            except HistoryError as exc:
                failures.append(exc)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(2, 60):
            store._drop_connection()  # as after every error of the disk
            insert(store, [row(1000 * number)])
    finally:
        stop.set()
        for reader in readers:
            reader.join(10)
    assert failures == []
    with open_history(tmp_path / NAME, in_daemon=True) as history:
        assert len(list(history.intervals(0, 10**6))) == 59


RESTARTS = """
from pathlib import Path
from store import NAME, Store
from tests.clocks import ManualClock
from tests.rig import PROJECT
from tests.test_history import insert, row
for number in range(2, 80):
    store = Store(Path(NAME), ManualClock())
    insert(store, [row(1000 * number, energy_in=1.0)])
    store.close()
"""


def test_a_daemon_that_starts_and_stops_all_the_time_spoils_no_answer(tmp_path: Path) -> None:
    """Each answer is of one moment: as much in the sum as there are intervals; or it says to try again."""
    path = made(tmp_path, [row(1000, energy_in=1.0)])
    told: list[PeriodEnergy] = []
    daemon = subprocess.Popen(
        [sys.executable, "-c", RESTARTS], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)}
    )
    try:
        while daemon.poll() is None:
            with suppress(HistoryError), open_history(path, in_daemon=False) as history:
                told.append(history.energy(0, 10**6))
    finally:
        daemon.kill()
        daemon.wait(10)
    assert daemon.returncode == 0
    with open_history(path, in_daemon=False) as history:
        told.append(history.energy(0, 10**6))
    assert all(each.energy.energy_in_kwh == each.to_utc_ms / 1000 for each in told)
    assert told[-1].energy.energy_in_kwh == 79


def test_ctrl_c_in_the_middle_of_a_question_ends_it(tmp_path: Path) -> None:
    """SQLite is asked meanwhile, and asks Python how late it is: what is raised there must not get lost."""
    code = (
        "import os, signal, sys, threading\n"
        "from pathlib import Path\n"
        "from database_reading import read_database\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def query(cursor):\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    cursor.execute('WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n')\n"
        "try:\n"
        "    read_database(Path(sys.argv[1]), query, answer_within_s=20)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(42)\n"
    )
    arguments = [sys.executable, "-c", code, str(made(tmp_path, []))]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    assert subprocess.run(arguments, env=environment, timeout=25).returncode == 42


def test_what_scatters_averages_out_over_a_period_and_what_the_instruments_are_off_does_not(tmp_path: Path) -> None:
    of_intervals: dict[str, float | None] = {
        "voltage_uncertainty": 0.5,
        "current_uncertainty": 5.0,
        "charge_uncertainty": 3.0 * 30 / 3600,
        "power_uncertainty": 0.05,
    }
    rows = [row(30_000 * number, **of_intervals) for number in range(1, 101)]
    with open_history(made(tmp_path, rows), in_daemon=False) as history:
        (one,), (whole,) = history.points(0, 30_000, 30_000), history.points(0, 10**9, 10**9)
    means = [(point.voltage_v, point.current_a, point.power_kw) for point in (one, whole)]
    uncertainties = [[each.uncertainty for each in point if each is not None] for point in means]
    assert uncertainties[0] == pytest.approx([0.5, 5.0, 0.05])
    assert uncertainties[1] == pytest.approx([0.5, math.hypot(3.0, 4.0 / 10), 0.05])  # of 4 A a tenth
