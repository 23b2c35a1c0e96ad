"""``--status`` shows what the database says, touches nothing, and tells an operator what is the matter."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest

from clock import Clock
from energy_status import EnergyStatus
from measurements import Energy, IntervalSummary, PowerSample, Uncertainty
from status import Status, StatusError, as_json, read_status
from status_text import as_text
from store import MIGRATIONS, NAME
from tests.rig import PROJECT, Rig, start_daemon, wait_for
from tests.test_outbox import Box, summary

NOW_UTC_S = 100.0
ENERGY = [each.name for each in fields(EnergyStatus)]


def status_of(folder: Path, now_utc_s: float = NOW_UTC_S) -> Status:
    return read_status(folder / NAME, now_utc_s)


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / NAME)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Return what is in a folder, in a way that tells every change."""
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in folder.iterdir()
    }


def measured(*values: float) -> IntervalSummary:
    """Return a ``summary`` whose samples add up: 4 of each quantity, 1 refused."""
    return replace(summary(*values), samples_read=4 * min(len(values), 2) + 1)


def used(folder: Path) -> Box:
    """Return an outbox with some of everything in it."""
    box = Box(folder)
    box.close_number(90, of=measured(52.0, -3.0, -0.156))
    box.close_number(91, 92, of=measured(52.0))
    lent = box.lend(4)
    box.settle_delivered([lent[0], lent[2]])
    box.settle_rejected([lent[1]], "data exceeds allowed range!")
    box.note("last_delivery", {"utc_ms": 93_000})
    box.note("meters", {"voltage meter": meter(), "current meter": meter("no answer", "/dev/ttyUSB1")})
    box.note("clock", {"trusted": True, "why": "the kernel says so"})
    box.journal([PowerSample(start_mono_s=92.5, voltage_v=52.0, refused=("Overload",))])
    box.journal([PowerSample(start_mono_s=92.7, refused=("Overload", "late"))])
    return box


def meter(trouble: str | None = None, port: str = "/dev/ttyUSB0") -> dict[str, object]:
    return {"works": trouble is None, "trouble": trouble, "serial_number": "22511040", "port": port}


@contextmanager
def process_that(code: str, folder: Path) -> Iterator[None]:
    """Have a real process do something with the database, and kill it in the end with ``kill -9``."""
    process = start_daemon(
        folder, code=f"{code}\nprint('done', flush=True)\nimport threading\nthreading.Event().wait()"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == "done\n", process.stderr.read()
        yield
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
        process.stderr.close()


def killed_while_used(folder: Path) -> None:
    """Leave a database as ``kill -9`` does."""
    with process_that("from pathlib import Path\nfrom tests.test_status import used\nbox = used(Path('.'))", folder):
        pass
    assert (folder / f"{NAME}-wal").stat().st_size > 0


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that another user may read (pytest's own are closed to others)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(folder: Path) -> subprocess.CompletedProcess[str]:
    """Print the status as another user, who may not write there."""
    code = (
        "import os, sys, urllib.parse\nfrom pathlib import Path\nfrom status import StatusError, as_json, read_status\n"
        "from store import NAME\nos.setgid(65534)\nos.setuid(65534)\n"
        "try:\n    print(as_json(read_status(Path(sys.argv[1]) / NAME, 100.0)))\n"
        "except StatusError as exc:\n    print(exc)\n    sys.exit(1)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)


# -- what it says ------------------------------------------------------------------------------------------------------


def test_the_json_has_the_promised_names_and_the_numbers_of_the_outbox(tmp_path: Path) -> None:
    box = used(tmp_path)
    told = json.loads(as_json(status_of(tmp_path)))
    assert told["ledger"] == {
        "samples_read": 9 + 5 + 5 + 4,
        "samples_averaged": 8 + 4 + 4,
        "samples_refused": {"late": 3},
        "samples_open": 4,
        "readings_made": 5,
        "readings_delivered": 2,
        "readings_waiting": 2,
        "readings_rejected": 1,
        "readings_dropped": 0,
        "closes": True,
    }
    assert told["rejected"] == [
        {"mac": 77, "type": 531, "timestamp": 90_000, "data": -3.0, "message": "data exceeds allowed range!"}
    ]
    assert told["rejected_total"] == 1
    assert told["last"] == {
        "voltage_v": 52.0,
        "voltage_uncertainty_v": None,
        "current_a": None,
        "current_uncertainty_a": None,
        "power_kw": None,
        "power_uncertainty_kw": None,
        "timestamp": 92_000,
        "age_s": 8.0,
        "time_known": True,
    }
    assert told["oldest_waiting_s"] == 9.0
    assert told["last_delivery"] == {"timestamp": 93_000, "age_s": 7.0}
    assert told["last_error"] is None
    assert told["meters"]["current meter"] == meter("no answer", "/dev/ttyUSB1")
    assert told["clock"] == {"trusted": True, "why": "the kernel says so"}
    assert told["overdue_s"] is None
    assert told["database_bytes"] == box.store.size_bytes()
    assert told["unknown"] == []


def test_the_text_says_it_in_an_operators_words(tmp_path: Path) -> None:
    used(tmp_path)
    assert as_text(status_of(tmp_path)).splitlines()[:-1] == [
        "What is wrong:",
        "  - The current meter does not work: no answer",
        "  - Readings that were refused and are set aside (below): 1",
        "",
        "Last values",
        "  Voltage  52.0000 V",
        "  Current  no value",
        "  Power    no value",
        "  Average until 8.0 s ago (1970-01-01 00:01:32 UTC)",
        "",
        "Energy since 1970-01-01 00:01:29 UTC",
        "  Energy in             0.0000 kWh",
        "  Energy out            0.0000 kWh",
        "  In minus out          0.0000 kWh",
        "  Charge in              0.000 Ah",
        "  Charge out             0.000 Ah",
        "  In minus out           0.000 Ah",
        "  Counted for 0.000 % of the time; for 3.0 s there were no readings, and what passed then is in none of these",
        "",
        "Meters, when the last interval ended",
        "  Voltage meter: works, serial number 22511040, on /dev/ttyUSB0",
        "  Current meter: DOES NOT WORK, serial number 22511040, on /dev/ttyUSB1",
        "",
        "Cloud",
        "  Waiting: 2 readings, the oldest for 9.0 s",
        "  Last delivery: 7.0 s ago",
        "  Last error: none",
        "",
        "Set aside, the newest first, and why",
        "  1970-01-01 00:01:30 UTC, device 77, sensor type 531, value -3: data exceeds allowed range!",
        "",
        "Ledger",
        "  Read from the meters: 23",
        "    = 16 averaged + 3 refused + 4 in the interval that is not over yet",
        "      refused 3: no answer before the interval ended",
        "  Made for the cloud: 5",
        "    = 2 delivered + 2 waiting + 1 set aside + 0 dropped",
        "  The sums agree",
        "",
        "Computer",
        "  Clock: right: the kernel says so",
    ]


def test_with_a_current_meter_alone_energy_is_not_0_but_absent(tmp_path: Path) -> None:
    box = Box(tmp_path)
    summary = replace(measured(52.0, -3.0), voltage_v=None, samples_read=5)
    box.close_number(90, of=replace(summary, energy=Energy(charge_out_ah=1.5, charge_s=1.0)))
    status = status_of(tmp_path)
    told = json.loads(as_json(status))
    assert (told["energy_in_kwh"], told["energy_out_kwh"], told["net_energy_kwh"]) == (None, None, None)
    assert (told["charge_in_ah"], told["charge_out_ah"], told["coverage_percent"]) == (0.0, 1.5, 100.0)
    assert "kWh" not in as_text(status)


def test_a_small_uncertainty_is_not_shown_as_none_at_all(tmp_path: Path) -> None:
    box = Box(tmp_path)
    energy, unsure = Energy(energy_in_kwh=0.01, energy_s=1.0), Uncertainty(energy_kwh=1e-6, energy_scatter_kwh=0.0)
    box.close_number(90, of=replace(measured(52.0, -3.0, -0.156), energy=energy, uncertainty=unsure))
    assert "  Energy in             0.0100 kWh +/- 0.0001" in as_text(status_of(tmp_path)).splitlines()


def test_the_counters_and_how_far_off_they_may_be(tmp_path: Path) -> None:
    box = Box(tmp_path)
    unsure = Uncertainty(
        voltage_v=0.03,
        current_a=0.5,
        power_kw=0.004,
        energy_kwh=0.25,
        energy_scatter_kwh=0.0,
        charge_ah=5.0,
        charge_scatter_ah=0.0,
    )
    energy = Energy(
        energy_in_kwh=1234.5,
        energy_out_kwh=411.5,
        charge_in_ah=24.0,
        charge_out_ah=8.0,
        energy_s=0.75,
        charge_s=1.0,
    )
    box.close_number(90, of=replace(measured(52.0, -3.0, -0.156), energy=energy, uncertainty=unsure))
    status = status_of(tmp_path)
    told = json.loads(as_json(status))
    assert {name: told[name] for name in ENERGY} == {
        "energy_in_kwh": 1234.5,
        "energy_out_kwh": 411.5,
        "net_energy_kwh": 823.0,
        "charge_in_ah": 24.0,
        "charge_out_ah": 8.0,
        "net_charge_ah": 16.0,
        "energy_in_uncertainty_kwh": pytest.approx(0.25),
        "energy_out_uncertainty_kwh": pytest.approx(0.25),
        "charge_in_uncertainty_ah": pytest.approx(5.0),
        "charge_out_uncertainty_ah": pytest.approx(5.0),
        "coverage_percent": pytest.approx(75.0),
        "gap_seconds": pytest.approx(0.25),
        "counting_since": 89_000,
    }
    lines = as_text(status).splitlines()
    for line in (
        "  Voltage  52.0000 V +/- 0.0300",
        "  Current  -3.0000 A +/- 0.5000",
        "  Power    -0.15600 kW +/- 0.00400",
        "  Energy in         1,234.5000 kWh +/- 0.2500",
        "  Charge out             8.000 Ah +/- 5.000",
    ):
        assert line in lines, (line, lines)
    assert "  Counted for 75.000 % of the time; for 0.2 s there were no readings" in as_text(status)


def test_where_nothing_was_counted_yet_the_counters_are_null_and_never_0(tmp_path: Path) -> None:
    Box(tmp_path).close()
    change(tmp_path, "DELETE FROM state")
    status = status_of(tmp_path)
    told = json.loads(as_json(status))
    assert {told[name] for name in ENERGY} == {None}
    assert "energy" not in told["unknown"]
    assert "\nEnergy\n  nothing counted yet\n" in as_text(status)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_the_database_of_an_older_version_is_shown_before_the_daemon_has_renewed_it(
    tmp_path: Path, version: int
) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as connection, connection:
        for migration in MIGRATIONS[:version]:
            connection.executescript(migration)
        connection.execute("INSERT INTO device VALUES (1, 77, 532, 531, 533)")
        connection.execute(
            "INSERT INTO interval (id, device, waiting, end_utc_ms, voltage) VALUES (1, 1, 1, 90000, 52)"
        )
        connection.execute(f"PRAGMA user_version = {version}")
    status = status_of(tmp_path)
    assert status.last is not None
    assert (status.last.voltage_v, status.last.voltage_uncertainty_v) == (52.0, None)
    assert status.ledger.readings_waiting == 1
    assert (status.energy, status.unknown) == (None, ("meters", "clock"))  # as nobody has noted those


def test_when_nothing_is_wrong_it_says_so(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.note("meters", {"voltage meter": meter()})
    box.note("clock", {"trusted": True, "why": "the kernel says so"})
    box.note("last_error", {"utc_ms": 40_000, "message": "no connection"})
    box.note("last_delivery", {"utc_ms": 90_000})
    box.close_number(95, of=measured(52.0))
    told = as_text(status_of(tmp_path))
    assert told.startswith("All is well.\n")
    assert "Last error: 1 min 0 s ago: no connection" in told


def test_an_error_after_the_last_delivery_is_what_is_wrong(tmp_path: Path) -> None:
    box = used(tmp_path)
    box.note("last_error", {"utc_ms": 94_000, "message": "no connection; readings are kept and sent later"})
    box.close_number(95, of=measured(52.0))
    status = status_of(tmp_path)
    assert status.last_error is not None
    assert "  - The last attempt to reach the cloud failed 6.0 s ago: no connection; readings are kept" in as_text(
        status
    )


@pytest.mark.parametrize("counter", ["samples_read", "samples_averaged", "refused late", "readings_delivered"])
def test_a_sum_that_does_not_close_is_reported_first(tmp_path: Path, counter: str) -> None:
    used(tmp_path)
    change(tmp_path, f"UPDATE counter SET value = value + 1 WHERE name = '{counter}'")
    status = status_of(tmp_path)
    assert status.ledger.closes is False
    assert as_text(status).splitlines()[1].startswith("  - The sums of the ledger (below) do not agree")


def test_an_interval_that_should_have_ended_long_ago_is_noticed(tmp_path: Path) -> None:
    used(tmp_path)
    assert status_of(tmp_path, 102.9).overdue_s is None
    status = status_of(tmp_path, 93.0 + 3 * 3600)
    assert status.overdue_s == 3 * 3600
    assert "Nothing has been stored for 3 h 0 min" in as_text(status)


def test_readings_that_are_held_back_until_the_time_is_known(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.note("clock", {"trusted": False, "why": "nothing vouches for this computer's clock"})
    box.close_number(95, of=measured(52.0), trusted=False)
    status = status_of(tmp_path)
    assert (status.readings_held, status.ledger.readings_waiting, status.oldest_waiting_s) == (1, 1, 5.0)
    assert status.last is not None
    assert not status.last.time_known
    told = as_text(status)
    assert "It is not certain what time it is, so readings are held back: nothing vouches" in told
    assert "the time is not certain yet" in told


def test_a_time_in_the_future_is_called_that(tmp_path: Path) -> None:
    used(tmp_path)
    told = as_text(status_of(tmp_path, -10_000.0))
    assert "2 h 48 min in the future, by this computer's clock" in told


def test_a_servers_message_cannot_command_the_terminal_or_fill_the_screen(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(95, of=measured(52.0))
    box.settle_rejected(box.lend(1), "\x1b[2Jgone\r\n\u202eright to left \u00e4" + "x" * 1_000_000)
    status = status_of(tmp_path)
    told = as_text(status)
    assert r"\x1b[2Jgone\r\n\u202eright to left ä" in told
    assert all(char.isprintable() for char in told.replace("\n", ""))
    assert max(map(len, told.splitlines())) < 500
    assert as_json(status).isascii()
    assert len(as_json(status)) < 5000


def test_of_many_set_aside_the_newest_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(*range(1, 251), of=measured(52.0))
    box.settle_rejected(box.lend(250), "no")
    status = status_of(tmp_path, 260.0)
    assert [each.timestamp for each in status.rejected] == [1000 * number for number in range(250, 150, -1)]
    assert status.rejected_total == status.ledger.readings_rejected == 250
    assert "and 240 older ones" in as_text(status)


def test_a_million_readings_waiting_are_counted_within_a_second_and_left_uncounted_if_that_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Box(tmp_path).close()
    change(
        tmp_path,
        "INSERT INTO device (id, mac, voltage_type, current_type, power_type) VALUES (1, 77, 532, 531, 533)",
        "INSERT INTO interval (id, device, waiting, end_utc_ms, voltage, current, power) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 333334) "
        "SELECT i, 1, 7, i, 1, 1, 1 FROM n",
        "INSERT INTO counter VALUES ('readings_made', 1000002)",
    )
    clock = Clock()
    begun_mono_s = clock.mono_s()
    told = status_of(tmp_path, 10_000.0)
    assert clock.mono_s() - begun_mono_s < 1.0
    assert (told.ledger.readings_waiting, told.ledger.closes) == (1_000_002, True)
    monkeypatch.setattr("status._ANSWER_WITHIN_S", 0.0)
    told = status_of(tmp_path, 10_000.0)
    assert (told.ledger.readings_waiting, told.ledger.closes) == (None, None)
    assert told.unknown[-1] == "readings_waiting"
    assert told.ledger.readings_made == 1_000_002


# -- what is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "unknown"),
    [
        ("state", ["state", "last_delivery", "last_error", "meters", "clock", "energy"]),
        ("rejected", ["rejected", "rejected_total"]),
        ("counter", ["counters"]),
        ("sample", ["samples_open"]),
        ("open_interval", ["overdue_s"]),
        ("interval", ["last", "oldest_waiting_s", "readings_held", "readings_waiting"]),
    ],
)
def test_what_an_older_database_does_not_have_is_said_to_be_unknown(
    tmp_path: Path, table: str, unknown: list[str]
) -> None:
    used(tmp_path).close()
    change(tmp_path, f"DROP TABLE {table}")
    status = status_of(tmp_path)
    assert list(status.unknown) == unknown
    assert (status.ledger.closes is None) == (table in ("counter", "sample", "interval"))
    assert f"Not known, or not yet: {unknown[0].replace('_', ' ')}" in as_text(status)
    json.loads(as_json(status))


@pytest.mark.parametrize(
    "value", ["", "null", "[1]", '"x"', '{"utc_ms": "x"}', '{"voltage meter": 1}', '{"utc_ms": 1e999}']
)
def test_a_fact_of_another_form_is_unknown_and_no_crash(tmp_path: Path, value: str) -> None:
    used(tmp_path)
    for name in ("last_error", "last_delivery", "meters", "clock", "energy"):
        change(tmp_path, f"INSERT OR REPLACE INTO state VALUES ('{name}', '{value}')")
    status = status_of(tmp_path)
    assert {"meters", "clock", "energy"} <= set(status.unknown)
    as_text(status)
    as_json(status)


def test_an_empty_folder_has_no_database_and_gets_none(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match="There is no database"):
        status_of(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no database at all" * 500])
def test_a_file_that_is_empty_or_no_database_is_called_that_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(StatusError, match="is damaged" if content else "is empty"):
        status_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == content


def test_damage_in_the_middle_is_called_that(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.close_number(*range(1, 3000), of=measured(52.0))
    box.close()
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(2 * 1024)
        file.write(b"\xff" * 200 * 1024)
    with pytest.raises(StatusError, match="is damaged"):
        status_of(tmp_path)


def test_a_newer_database_is_not_guessed_at(tmp_path: Path) -> None:
    used(tmp_path).close()
    change(tmp_path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StatusError, match="newer version"):
        status_of(tmp_path)


# -- beside a daemon, without one, and without touching anything -------------------------------------------------------


@pytest.mark.parametrize("left_behind", [[], [f"{NAME}-wal"]])
def test_without_a_daemon_nothing_is_made_or_changed(tmp_path: Path, left_behind: list[str]) -> None:
    used(tmp_path).close()
    for name in left_behind:
        (tmp_path / name).touch()
    before = snapshot(tmp_path)
    assert before.keys() == {NAME, *left_behind}
    assert status_of(tmp_path).ledger.closes
    assert snapshot(tmp_path) == before


def test_right_after_kill_9_it_sees_what_is_only_in_the_log_and_changes_nothing(tmp_path: Path) -> None:
    killed_while_used(tmp_path)
    before = snapshot(tmp_path)
    status = status_of(tmp_path)
    assert snapshot(tmp_path) == before
    assert (status.ledger.samples_open, status.ledger.readings_waiting, status.ledger.closes) == (4, 2, True)
    assert Box(tmp_path).tally().waiting == 2


def test_a_log_without_its_shared_memory_is_not_guessed_at(tmp_path: Path) -> None:
    killed_while_used(tmp_path)
    (tmp_path / f"{NAME}-shm").unlink()
    before = snapshot(tmp_path)
    clock = Clock()
    begun_mono_s = clock.mono_s()
    with pytest.raises(StatusError, match="starting the daemon mends that"):
        status_of(tmp_path)
    assert clock.mono_s() - begun_mono_s < 2.0
    assert snapshot(tmp_path) == before


def test_a_writer_in_the_middle_of_its_transaction_is_not_waited_for(tmp_path: Path) -> None:
    box = used(tmp_path)
    with box.store.transaction() as cursor:
        cursor.execute("DELETE FROM interval")
        assert status_of(tmp_path).ledger.readings_waiting == 2


def test_a_database_that_somebody_locks_whole_is_given_up_within_2_s(tmp_path: Path) -> None:
    used(tmp_path).close()
    code = (
        f"import sqlite3\nconnection = sqlite3.connect('{NAME}')\n"
        "connection.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
        "connection.execute('DELETE FROM sample')\nconnection.commit()"
    )
    clock = Clock()
    with process_that(code, tmp_path):
        begun_mono_s = clock.mono_s()
        with pytest.raises(StatusError, match="cannot be read just now"):
            status_of(tmp_path)
        assert clock.mono_s() - begun_mono_s < 2.0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("killed", [True, False])
def test_a_user_who_may_only_read_sees_the_same(shared_folder: Path, killed: bool) -> None:
    if killed:
        killed_while_used(shared_folder)
    else:
        used(shared_folder).close()
    before = snapshot(shared_folder)
    done = as_nobody(shared_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ledger"] == json.loads(as_json(status_of(shared_folder)))["ledger"]
    assert snapshot(shared_folder) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("closed", [NAME, f"{NAME}-wal", "."])
def test_a_user_who_may_not_read_is_told_whom_to_ask_as(shared_folder: Path, closed: str) -> None:
    killed_while_used(shared_folder)
    (shared_folder / closed).chmod(0o700)
    done = as_nobody(shared_folder)
    assert done.returncode == 1
    assert "ask as the user that runs the daemon" in done.stdout


def test_beside_a_running_daemon_and_after_it_was_killed_and_after_it_was_stopped(tmp_path: Path) -> None:
    clock = Clock()
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2)
        running = [status_of(tmp_path, clock.utc_s()) for _ in range(50)]
        rig.cloud.stop()
        rig.wait_for_log("6 waiting")
        assert rig.process is not None
        rig.process.kill()
        rig.process.wait(10)
        before = snapshot(tmp_path)
        killed = status_of(tmp_path, clock.utc_s())
        assert snapshot(tmp_path) == before
        rig.cloud.start()
        rig.start()
        wait_for(lambda: status_of(tmp_path, clock.utc_s()).ledger.readings_waiting == 0, what="all is delivered")
        rig.stop()
        stopped = status_of(tmp_path, clock.utc_s())
    assert all(each.ledger.closes for each in (*running, killed, stopped))
    assert all(each.last is not None and each.last.voltage_v == pytest.approx(52.0, rel=1e-3) for each in running)
    assert killed.ledger.readings_waiting is not None
    assert killed.ledger.readings_waiting >= 6
    assert killed.last_error is not None
    assert stopped.ledger.readings_made == stopped.ledger.readings_delivered
    assert stopped.last_delivery is not None
    assert stopped.last_delivery.timestamp > killed.last_error.timestamp
