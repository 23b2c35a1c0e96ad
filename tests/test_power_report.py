"""``power_report.py`` as a process, over databases of the daemon's own making; its files are whole or not there."""

from __future__ import annotations

import csv
import json
import math
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from clock import Clock
from history import open_history
from store import MIGRATIONS, NAME
from tests.rig import PROJECT, Rig
from tests.test_history import insert, made, make, row
from tests.test_status import killed_while_used, snapshot

NOVEMBER_UTC_MS = round(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
WHOLE = ("--from", "2026-11-01", "--to", "2026-11-30")


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(PROJECT / "power_report.py"), *map(str, arguments)]


def report(folder: Path, *arguments: object, zone: str = "UTC", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in a folder; its time zone is the given one."""
    variables = {**os.environ, "TZ": zone, **environment}
    return subprocess.run(command(*arguments), cwd=folder, env=variables, capture_output=True, text=True, timeout=25)


def told(folder: Path, *arguments: object) -> Any:
    done = report(folder, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def november(folder: Path, count: int = 10) -> Path:
    """Make a database with the first intervals of November 2026: 52 V, 2 A, 0.104 kW, 0.001 kWh each."""
    return made(folder, [row(NOVEMBER_UTC_MS + 30_000 * number) for number in range(1, count + 1)])


# -- what it says ------------------------------------------------------------------------------------------------------


def test_the_text_says_it_in_an_operators_words(tmp_path: Path) -> None:
    rows = [
        row(
            NOVEMBER_UTC_MS + 30_000 * number,
            energy_uncertainty=0.0001,
            energy_scatter=0.0,
            energy_out=0.001,
            voltage_uncertainty=0.025,
            power=None,
        )
        for number in (1, 2, 3, 4, 7, 8)
    ]
    made(tmp_path, rows)
    period = ("--from", "2026-11-01", "--to", "2026-11-01T00:30Z")
    done = report(tmp_path, *period, "--price-in", "100", "--price-out", "50", zone="Europe/Berlin")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "From 2026-11-01 01:00:00 (UTC+01:00)",
        "to   2026-11-01 01:04:00 (UTC+01:00), 6 intervals",
        "",
        "Energy and charge",
        "  In              0.0060 +/- 0.0006   kWh         0.1200              Ah",
        "  Out             0.0060 +/- 0.0006   kWh         0.0000              Ah",
        "  Net             0.0000              kWh         0.1200              Ah",
        "  Measured for 75.00 % of the time; what passed in the other 1 min 0 s is not known",
        "",
        "Averages            mean       minimum       maximum",
        "  V              52.0000       52.0000       52.0000   mean +/- 0.0250",
        "  A               2.0000        2.0000        2.0000",
        "  kW            no value",
        "",
        "Cost (below 0: earned)",
        "  In             0.60",
        "  Out           -0.30",
        "  Total          0.30",
    ]


def test_the_json_has_the_same_numbers(tmp_path: Path) -> None:
    november(tmp_path)
    found = told(tmp_path, *WHOLE)
    assert (found["from_utc"], found["to_utc"]) == ("2026-11-01 00:00:00", "2026-11-01 00:05:00")
    assert found["to"] == NOVEMBER_UTC_MS + 300_000
    assert found["energy_in_kwh"] == found["net_energy_kwh"] == pytest.approx(0.01)
    assert (found["energy_out_kwh"], found["intervals"]) == (0.0, 10)
    assert (found["coverage_percent"], found["gap_s"], found["elapsed_s"]) == (100.0, 0.0, 300.0)
    assert found["voltage_v"] == {"mean": 52.0, "minimum": 52.0, "maximum": 52.0, "count": 60, "uncertainty": None}
    assert (found["battery"], found["cost"], found["counters"]) == (None, None, None)


def test_what_is_shown_is_never_better_than_it_is(tmp_path: Path) -> None:
    """An uncertainty is not rounded to nothing, a coverage not to all; none is made up where an interval has none."""
    rows = [
        row(NOVEMBER_UTC_MS + 30_000 * number, energy_uncertainty=1e-9, energy_scatter=0.0, energy_in=1e-6)
        for number in range(1, 101)
    ]
    rows[-1] |= {"energy_s": 29.9, "voltage_uncertainty": 0.02, "current_uncertainty": 0.00001}
    for each in rows[:-1]:
        each["current_uncertainty"] = 0.00001
    made(tmp_path, rows)
    lines = report(tmp_path, *WHOLE).stdout.splitlines()
    assert "  In              0.0001 +/- 0.0001   kWh         2.0000              Ah" in lines
    assert "  Out             0.0000              kWh         0.0000              Ah" in lines
    assert "  Measured for 99.99 % of the time; what passed in the other 0.1 s is not known" in lines
    assert "  V              52.0000       52.0000       52.0000" in lines  # of 99 intervals nobody knows
    assert "  A               2.0000        2.0000        2.0000   mean +/- 0.0001" in lines
    assert "  Net             0.0001              kWh         2.0000              Ah" in lines


def test_with_the_current_meter_alone_no_energy_is_unknown_and_not_0(tmp_path: Path) -> None:
    nothing = {"voltage": None, "power": None, "energy_in": None, "energy_out": None}
    rows = [row(NOVEMBER_UTC_MS + 30_000 * number, **nothing, energy_s=0.0) for number in (1, 2)]
    made(tmp_path, rows)
    lines = report(tmp_path, *WHOLE, "--price-in", "1").stdout.splitlines()
    assert "  In             unknown              kWh         0.0400              Ah" in lines
    assert "  Out            unknown              kWh         0.0000              Ah" in lines
    assert "  Net            unknown              kWh         0.0400              Ah" in lines
    assert lines[lines.index("Cost (below 0: earned)") + 1 :] == ["  Unknown, as no energy was measured"]
    found = told(tmp_path, *WHOLE, "--price-in", "1")
    assert [found[name] for name in ("energy_in_kwh", "energy_out_kwh", "net_energy_kwh", "cost")] == [None] * 4
    assert (found["charge_in_ah"], found["net_charge_ah"]) == (0.04, 0.04)


def test_all_that_was_measured_is_said_in_words_and_nothing_is_less_than_nothing(tmp_path: Path) -> None:
    rows = [row(NOVEMBER_UTC_MS + 30_000 * number, energy_in=1e-6, energy_out=1.1e-6) for number in (1, 2)]
    made(tmp_path, rows)
    done = report(tmp_path, *WHOLE, "--price-in", "0.001")
    assert "  Measured all the time" in done.stdout
    assert "  Net             0.0000              kWh" in done.stdout
    assert "-0.00" not in done.stdout


def test_of_what_was_asked_for_and_is_not_stored_it_tells(tmp_path: Path) -> None:
    made(tmp_path, [row(1_577_836_800_000 + 30_000 * number) for number in range(1, 11)])  # 2020
    asked = ("--from", "2019-12-30", "--to", "2020-01-01T12:00Z")
    lines = report(tmp_path, *asked).stdout.splitlines()
    assert lines[:4] == [
        "From 2020-01-01 00:00:00 (UTC+00:00)",
        "to   2020-01-01 00:05:00 (UTC+00:00), 10 intervals",
        "Nothing is stored of the first 2 d 0 h that were asked for",
        "Nothing is stored of the last 11 h 55 min that were asked for",
    ]
    assert "Nothing is stored" not in report(tmp_path, "--to", "2020-01-01T00:30Z").stdout
    found = told(tmp_path, *asked)
    assert (found["not_stored_before_s"], found["not_stored_after_s"]) == (2 * 86_400, 42_900)


def test_the_counters_of_all_time_stand_beside_everything(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2)
        rig.stop()
    text = report(tmp_path, "all").stdout
    assert "\nCounters\n  Since 20" in text
    assert told(tmp_path, "today")["counters"] is None
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        connection.execute("UPDATE state SET value = '{' WHERE name = 'energy'")
        connection.commit()
    done = report(tmp_path, "all")
    assert done.returncode == 0
    assert "Energy and charge" in done.stdout
    assert "\nCounters\n" not in done.stdout
    assert done.stderr.startswith("The counters cannot be read (")
    assert done.stderr.endswith("The daemon mends them when it starts: see its log\n")


def test_cycles_and_capacity_between_two_voltages(tmp_path: Path) -> None:
    volts = [54.0, 51.0, 48.0, 51.0] * 3 + [54.0]
    flows = [(0.0, 0.0), (0.0, 0.9), (0.0, 0.9), (1.0, 0.0)] + [(1.0, 0.0), (0.0, 0.9), (0.0, 0.9), (1.0, 0.0)] * 3
    rows = [
        row(NOVEMBER_UTC_MS + 30_000 * number, voltage=volt, energy_in=inwards, energy_out=outwards)
        | {"charge_in": 20 * inwards, "charge_out": 20 * outwards}
        for number, (volt, (inwards, outwards)) in enumerate(zip(volts, flows, strict=False), 1)
    ]
    made(tmp_path, rows)
    limits = ("--voltage-high", 53.9, "--voltage-low", 48.1)
    battery = told(tmp_path, *WHOLE, *limits)["battery"]
    assert battery["round_trip"]["cycles"] == 3
    assert battery["round_trip"]["energy_efficiency_percent"] == pytest.approx(90.0)
    assert battery["capacity"]["discharges"] == 3
    assert battery["capacity"]["charge_ah"] == pytest.approx(36.0)
    text = report(tmp_path, *WHOLE, *limits).stdout
    assert "Capacity: 36.00 Ah (36.00 to 36.00), 1.800 kWh (1.800 to 1.800), by 3 discharges" in text
    assert "Round trip: 90.00 % of the energy came out again, and 90.00 % of the charge, over 3 full cycles" in text
    text = report(tmp_path, *WHOLE, "--voltage-high", 60, "--voltage-low", 40).stdout
    assert "Capacity: not known, as no discharge from 60 V to 40 V was measured whole" in text
    assert "Round trip: not known, as no full cycle" in text


def test_today_yesterday_and_all_by_the_clock_of_the_computer(tmp_path: Path) -> None:
    now_utc_ms = round(Clock().utc_s() * 1000)
    days = [now_utc_ms - 1000, now_utc_ms - 86_400_000, now_utc_ms - 40 * 86_400_000]
    made(tmp_path, [row(each) for each in reversed(days)])
    assert told(tmp_path, "all")["intervals"] == 3
    assert told(tmp_path, "--to", "2020-01-01")["intervals"] == 0
    assert told(tmp_path)["intervals"] + told(tmp_path, "yesterday")["intervals"] in (1, 2)  # it may be near midnight
    assert told(tmp_path, "month")["intervals"] in (0, 1, 2)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_database_that_the_old_version_has_left(tmp_path: Path, version: int) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        for migration in MIGRATIONS[:version]:
            connection.executescript(migration)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("INSERT INTO interval (device, waiting, end_utc_ms) VALUES (1, 0, 30000), (1, 0, 60000)")
        connection.commit()
    done = report(tmp_path, "all", "--csv", "all.csv", "--voltage-high", 54, "--voltage-low", 48)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Measured for 0.00 % of the time; what passed in the other 30.0 s is not known" in done.stdout


def test_an_empty_database_is_called_that(tmp_path: Path) -> None:
    made(tmp_path, [])
    for arguments in (["all"], ["today"], ["all", "--csv", "x.csv"]):
        done = report(tmp_path, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Nothing was measured in this period." in done.stdout
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 1


# -- the files ---------------------------------------------------------------------------------------------------------


def test_the_table_has_every_interval_and_can_be_read_again(tmp_path: Path) -> None:
    rows = [
        row(NOVEMBER_UTC_MS + 30_000, voltage=52.123456789, voltage_uncertainty=0.025),
        row(NOVEMBER_UTC_MS + 60_500, current=None, energy_in=None, energy_s=None),
    ]
    made(tmp_path, rows)
    done = report(tmp_path, "--from", "2026-10-31", "--csv", "november.csv", zone="America/Vancouver")
    assert (done.returncode, done.stderr) == (0, "")
    with (tmp_path / "november.csv").open(newline="", encoding="ascii") as file:
        table = list(csv.DictReader(file))
    first, second = table
    assert (first["end_utc"], first["end_local"]) == ("2026-11-01 00:00:30", "2026-10-31 17:00:30")
    assert second["end_utc"] == "2026-11-01 00:01:00.500"
    assert (float(first["voltage_v"]), float(first["voltage_v_uncertainty"])) == (52.12345679, 0.025)
    assert (first["voltage_v_count"], first["energy_in_kwh"], first["coverage_s"]) == ("6", "0.001", "30")
    assert [second[name] for name in ("current_a", "current_a_count", "energy_in_kwh", "coverage_s")] == [""] * 4
    assert second["power_kw"] == "0.104"


def test_a_file_that_exists_is_written_over_only_if_told_to(tmp_path: Path) -> None:
    november(tmp_path)
    (tmp_path / "x.csv").write_text("precious")
    done = report(tmp_path, *WHOLE, "--csv", "x.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert "x.csv is there already: choose another name, or add --force" in done.stderr
    assert (tmp_path / "x.csv").read_text() == "precious"
    (tmp_path / "link.csv").symlink_to("x.csv")
    assert report(tmp_path, *WHOLE, "--csv", "link.csv", "--force").returncode == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 11


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        (NAME, 2, "is the daemon's own file"),
        (f"{NAME}-wal", 2, "is the daemon's own file"),
        ("config.cfg", 2, "is the daemon's own file"),
        ("nowhere/x.csv", 1, "There is no folder nowhere"),
        (".", 1, "is a folder or a device"),
        ("/dev/null", 1, "is a folder or a device"),
    ],
)
def test_what_must_not_or_cannot_be_written_is_refused_first(tmp_path: Path, name: str, code: int, reason: str) -> None:
    november(tmp_path)
    (tmp_path / "config.cfg").write_text("")
    before = snapshot(tmp_path)
    done = report(tmp_path, *WHOLE, "--csv", name, "--force")
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr
    assert snapshot(tmp_path) == before


def test_when_the_disk_is_full_the_old_file_stays_and_no_part_is_left(tmp_path: Path) -> None:
    """The limit of a file's size stands for the full disk: writing fails in the middle."""
    november(tmp_path, 3000)
    (tmp_path / "x.csv").write_text("the old one")
    before = snapshot(tmp_path)
    limited = ["sh", "-c", 'ulimit -f 64 && trap "" XFSZ && exec "$@"', "sh"]
    done = subprocess.run(
        [*limited, *command(*WHOLE, "--csv", "x.csv", "--force")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "x.csv cannot be written" in done.stderr
    assert snapshot(tmp_path) == before


def test_the_picture_is_one(tmp_path: Path) -> None:
    if find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed (requirements-report.txt)")
    november(tmp_path)
    done = report(tmp_path, *WHOLE, "--png", "november.png", MPLCONFIGDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    from matplotlib.image import imread

    pixels = imread(tmp_path / "november.png")
    assert pixels.shape[:2] == (900, 1200)
    assert len({tuple(pixel) for line in pixels[::3] for pixel in line[::3]}) > 3  # the lines have colours


def test_the_lines_of_the_picture_are_broken_where_nothing_was_measured_and_nowhere_else(tmp_path: Path) -> None:
    """Buckets may be shorter than intervals are: that alone is no gap."""
    picture = pytest.importorskip("report_picture", reason="matplotlib is not installed (requirements-report.txt)")
    ends = [30_000 * number for number in (1, 2, 3, 4, 24, 25, 26, 27)]
    with open_history(made(tmp_path, [row(end) for end in ends]), in_daemon=False) as history:
        for step_ms in (1000, 30_000):
            drawn = picture._with_breaks(history.points(0, 10**6, step_ms), step_ms)
            assert [each.end_utc_ms for each in drawn if not each.intervals] == [120_000 + step_ms]
            assert [each.end_utc_ms for each in drawn if each.intervals] == ends


def test_a_point_that_stands_alone_in_the_picture_is_seen() -> None:
    """So is one interval of an hour after many of seconds: a line needs two."""
    picture = pytest.importorskip("report_picture", reason="matplotlib is not installed (requirements-report.txt)")
    assert picture._alone([1.0, 2.0, math.nan, 3.0, math.nan, 4.0]) == [3, 5]
    assert picture._alone([1.0]) == [0]
    assert picture._alone([1.0, 2.0, 3.0]) == picture._alone([math.nan]) == picture._alone([]) == []


def test_without_matplotlib_it_says_how_to_install_it_and_all_else_works(tmp_path: Path) -> None:
    november(tmp_path)
    bare = [sys.executable, "-S", str(PROJECT / "power_report.py"), *WHOLE]
    done = subprocess.run([*bare, "--png", "x.png"], cwd=tmp_path, capture_output=True, text=True, timeout=25)
    assert (done.returncode, done.stdout) == (1, "")
    assert "venv.sh requirements-report.txt" in done.stderr
    done = subprocess.run([*bare, "--csv", "x.csv"], cwd=tmp_path, capture_output=True, text=True, timeout=25)
    assert (done.returncode, done.stderr) == (0, "")


# -- how it is called --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tomorrow"], "invalid choice"),
        (["today", "--from", "2026-11-01"], "either a name of a period, or --from and --to"),
        (["--from", "2026-11-31"], "is no date and no time"),
        (["--from", "2026-11-02", "--to", "2026-11-01"], "from must be before to"),
        (["--from", "1960-01-01"], "between the years 1970 and 9999"),
        (["--voltage-high", "54"], "go together"),
        (["--voltage-high", "54", "--voltage-low", "54"], "must be below"),
        (["--price-in", "nan"], "must be between"),
        (["--price-in", "0,08"], "'0,08' is no number: write 0.08, with a point"),
        (["--voltage-low", "low"], "'low' is no number"),
        (["--price-out", "1e300"], "must be between"),
        (["--csv", "x", "--png", "./x"], "cannot be the same file"),
    ],
)
def test_a_mistake_on_the_command_line_ends_with_2(tmp_path: Path, arguments: list[str], reason: str) -> None:
    november(tmp_path)
    done = report(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_in_a_folder_without_a_daemons_files_it_ends_with_78_and_makes_nothing(tmp_path: Path) -> None:
    done = report(tmp_path, "all")
    assert (done.returncode, done.stdout) == (78, "")
    assert "run this in the folder of the daemon's config.cfg" in done.stderr
    (tmp_path / "config.cfg").write_text("")
    done = report(tmp_path, "all", "--csv", "x.csv")
    assert done.returncode == 1
    assert "no daemon has stored anything in this folder yet" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.cfg"]


def test_what_cannot_be_looked_at_is_told_as_what_it_is(tmp_path: Path) -> None:
    """A link to itself stands for a folder that this user may not look into: the tests may run as root."""
    november(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    name = "x" * 300
    for arguments, path, reason in (
        (("--csv", "loop"), "loop", "Symlink loop"),
        (("--csv", "loop/x.csv"), "loop/x.csv", "Symlink loop"),
        (("--csv", name), name, "File name too long"),
        (("--config", name), name, "File name too long"),
    ):
        done = report(tmp_path, *WHOLE, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"{path} cannot be used: "), done.stderr
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


def test_from_another_folder_with_config(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    november(tmp_path / "site")
    assert told(tmp_path, *WHOLE, "--config", "site/config.cfg")["intervals"] == 10


def test_who_has_read_enough_gets_no_error_and_a_full_disk_is_told(tmp_path: Path) -> None:
    november(tmp_path)
    unread, ours = os.pipe()
    os.close(unread)
    done = subprocess.run(command(*WHOLE), cwd=tmp_path, stdout=ours, stderr=subprocess.PIPE, text=True, timeout=25)
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, "")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command(*WHOLE), cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=25)
    assert (done.returncode, done.stderr) == (1, "The report cannot be printed: [Errno 28] No space left on device\n")


def test_long_work_tells_its_progress_on_a_terminal_and_leaves_nothing_on_it(tmp_path: Path) -> None:
    november(tmp_path, 20_000)
    code = (
        "import sys, threading, power_report, progress\n"
        "progress._SILENT_S = progress._TELL_EVERY_S = 0.0\n"
        "sys.exit(power_report.main(sys.argv[1:]))"
    )
    ours, theirs = pty.openpty()
    arguments = [*WHOLE, "--csv", "x.csv"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TZ": "UTC"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, stderr=theirs, stdout=subprocess.PIPE
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "\rreading the history:  50 %" in shown
    assert shown.count("\rreading the history\r") == 1  # while it adds up, of which nobody knows how far it is
    assert shown.endswith("\r" + " " * 28 + "\r")


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stop_in_the_middle_leaves_no_file(tmp_path: Path, how: str) -> None:
    november(tmp_path, 20_000)
    code = (
        "import os, signal, sys, power_report\n"
        "def stop_in_the_middle(points):\n"
        "    for number, line in enumerate(lines(points)):\n"
        "        if number == 10_000:\n"
        f"            os.kill(os.getpid(), signal.{how})\n"
        "        yield line\n"
        "lines, power_report.csv_lines = power_report.csv_lines, stop_in_the_middle\n"
        "sys.exit(power_report.main(sys.argv[1:]))"
    )
    before = snapshot(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *WHOLE, "--csv", "x.csv"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=25,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "stopped\n")
    assert snapshot(tmp_path) == before


# -- beside a daemon and without one -----------------------------------------------------------------------------------


def test_after_kill_9_it_sees_what_is_only_in_the_log_and_changes_nothing(tmp_path: Path) -> None:
    killed_while_used(tmp_path)
    before = snapshot(tmp_path)
    assert told(tmp_path, "all")["intervals"] == 3
    assert snapshot(tmp_path) == before


def test_beside_a_writer_it_reads_what_is_committed(tmp_path: Path) -> None:
    store = make(tmp_path)
    insert(store, [row(NOVEMBER_UTC_MS + 30_000)])
    with store.transaction() as cursor:
        cursor.execute("DELETE FROM interval")
        assert told(tmp_path, *WHOLE)["intervals"] == 1
    assert told(tmp_path, *WHOLE)["intervals"] == 0


def test_beside_a_running_daemon_the_counters_and_the_history_agree(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(3)
        running = told(tmp_path, "all", "--csv", "all.csv")
        rig.stop()
        stopped = told(tmp_path, "all")
    assert running["intervals"] >= 3
    assert running["energy_in_kwh"] > 0
    assert running["voltage_v"]["mean"] == pytest.approx(52.0, rel=1e-3)
    for found in (running, stopped):
        assert found["counters"]["energy_in_kwh"] >= found["energy_in_kwh"] * (1 - 1e-9)
    assert stopped["counters"]["energy_in_kwh"] == pytest.approx(stopped["energy_in_kwh"])
    assert stopped["intervals"] >= running["intervals"]
