"""The whole daemon killed, filled up, locked out, damaged: nothing measured is lost, nothing is made twice."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from simulator.cloud_http import Reply, lose_reply
from store import NAME
from tests.rig import MAC, Rig, run_daemon, wait_for


def kill(rig: Rig) -> None:
    assert rig.process is not None
    rig.process.kill()
    rig.process.wait(10)


def journaled(folder: Path) -> list[float]:
    """Return the voltages in the journal of the open interval; none while there is no database yet."""
    connection = sqlite3.connect(folder / NAME)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sample'").fetchone():
            return []
        return [row[0] for row in connection.execute("SELECT voltage FROM sample ORDER BY start_mono_s")]
    finally:
        connection.close()


def fill(ballast: Path) -> None:
    """Write a file until its disk is full."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 1024)


def test_kill_9_in_an_outage_loses_nothing(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(1)
        rig.cloud.stop()
        rig.wait_for_log("9 waiting")
        kill(rig)
        rig.cloud.start()
        rig.start()
        rig.wait_for_intervals(4)
        rig.stop()
        stored = sorted({each.timestamp_utc_ms for each in rig.cloud.stored})
        whole = [each for each in stored if each % 1000 == 0]
        assert whole[:5] == list(range(whole[0], whole[0] + 5000, 1000))
        assert len(rig.cloud.received) == len(rig.cloud.stored)


def test_after_kill_9_the_interval_is_closed_from_the_samples_before_and_after(tmp_path: Path) -> None:
    with Rig(tmp_path, volts=lambda at: 50 + at % 5) as rig:
        rig.configure(sample_ms=250, report_ms=3_600_000)
        rig.start()
        wait_for(lambda: len(journaled(tmp_path)) >= 4, what="samples are journaled")
        kill(rig)
        before = journaled(tmp_path)
        rig.start()
        wait_for(lambda: len(journaled(tmp_path)) > len(before) + 3, what="sampling goes on")
        rig.wait_for_log(f"{len(before)} samples of an interval that an earlier run left open are used")
        rig.stop()
        ((_, values),) = rig.arrived().items()
        with sqlite3.connect(tmp_path / NAME) as connection:
            ((count, mean),) = connection.execute("SELECT voltage_count, voltage FROM interval").fetchall()
            assert connection.execute("SELECT count(*) FROM sample").fetchone() == (0,)
        connection.close()
        served = [each.value for each in rig.voltage.served]
        used = before + served[served.index(before[-1]) + 1 :][-(count - len(before)) :]
        assert count > len(before) + 3
        assert values["V"] == mean == pytest.approx(sum(used) / count, rel=1e-9)


def test_a_second_daemon_on_the_same_data_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        first = rig.start()
        rig.wait_for_intervals(1)
        second = subprocess.run(first.args, cwd=tmp_path, capture_output=True, text=True, timeout=20)
        assert second.returncode == 1
        assert f"process {first.pid}" in second.stderr
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0


def test_a_second_daemon_on_the_same_meter_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Rig(tmp_path) as rig:
        config = rig.configure()
        first = rig.start()
        rig.wait_for_intervals(1)
        (other / "config.cfg").write_text(config.read_text(encoding="utf-8"), encoding="utf-8")
        second = subprocess.run(first.args, cwd=other, capture_output=True, text=True, timeout=20)
        assert second.returncode == 1
        assert f"in use by another daemon, process {first.pid}" in second.stderr
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0


def test_a_refused_reading_is_set_aside_over_restarts(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.cloud.ranges[533] = (-0.1, 0.1)  # the rig's power is 0.78 kW
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2, "V A")
        rig.stop()
        with sqlite3.connect(tmp_path / NAME) as connection:
            rows = connection.execute("SELECT DISTINCT mac, type FROM rejected").fetchall()
        connection.close()
        assert rows == [(MAC, 533)]


def test_status_beside_the_running_daemon_and_after_its_end(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2)
        rig.current_port.unplug()
        rig.wait_for_intervals(1, "V")
        for running in (True, False):
            told = run_daemon(tmp_path, "--status", "--json")
            assert told.returncode == 0, told.stderr
            status = json.loads(told.stdout)
            assert status["ledger"]["closes"] is True
            assert status["meters"]["current meter"]["works"] is False
            assert status["last"]["voltage_v"] == pytest.approx(52.0, abs=0.1)
            if running:
                rig.stop()
        assert "The current meter does not work" in run_daemon(tmp_path, "--status").stdout
    (tmp_path / "empty").mkdir()
    nothing = run_daemon(tmp_path / "empty", "--status")
    assert nothing.returncode == 1
    assert "Traceback" not in nothing.stderr


def test_lost_replies_and_kills_make_identical_duplicates_only(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.cloud.misbehave(lose_reply, call="ingest/std/batch", times=4)
        rig.start()
        rig.wait_for_intervals(2)
        kill(rig)
        rig.start()
        rig.wait_for_intervals(2)
        rig.stop()
        assert len({each.datum for each in rig.cloud.received}) == len(rig.cloud.stored)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX")
def test_a_full_disk_stops_nothing_and_heals_by_itself(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs root and a mount: not to be had here")
    try:
        with Rig(disk) as rig:
            rig.configure()
            rig.start()
            rig.wait_for_intervals(1)
            ballast = disk / "ballast"
            fill(ballast)
            rig.wait_for_intervals(3)
            rig.cloud.misbehave(Reply(status=503), times=None)
            threading.Event().wait(2.5)  # intervals that can be neither sent nor stored
            ballast.unlink()
            rig.wait_for_log("nothing that was kept in memory is lost", within_s=20)
            rig.cloud.behave()
            rig.wait_for_intervals(2)
            assert rig.stop()[0] == 0
            timestamps = sorted(each for each in rig.arrived() if each % 1000 == 0)
            assert timestamps == list(range(timestamps[0], timestamps[-1] + 1, 1000))
            with sqlite3.connect(disk / NAME) as connection:
                assert connection.execute("SELECT count(*) FROM interval WHERE waiting != 0").fetchone() == (0,)
                assert connection.execute("SELECT count(*) FROM interval").fetchone()[0] >= len(timestamps)
            connection.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_damaged_database_is_moved_aside_and_the_daemon_runs_on(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database at all" * 500)
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
    assert len(list(tmp_path.glob(f"{NAME}.corrupt-*"))) == 1
    assert "CRITICAL" in rig.log
