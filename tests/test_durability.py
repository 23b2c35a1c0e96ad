"""The whole daemon killed, filled up, locked out, damaged: nothing measured is lost, nothing is made twice."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import sqlite3
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from clock import Clock
from energy_book import EnergyTotals, read_totals
from simulator.cloud_http import Reply, lose_reply
from store import NAME
from tests.rig import MAC, SHUNT_OHM, Rig, run_daemon, samples_of, wait_for

_EXT4_IOC_SHUTDOWN, _NOTHING_IS_WRITTEN = 0x8004587D, 2


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


def counters(folder: Path) -> EnergyTotals:
    """Return the counters of energy, having compared them with the intervals: the rows add up to them, none falls."""
    with closing(sqlite3.connect(folder / NAME)) as connection:
        totals = read_totals(connection.cursor())
        rows = connection.execute("SELECT energy_in, charge_in, total_energy_in FROM interval ORDER BY id").fetchall()
    assert totals is not None
    assert math.fsum(row[0] for row in rows) == pytest.approx(totals.energy.energy_in_kwh, rel=1e-9)
    assert math.fsum(row[1] for row in rows) == pytest.approx(totals.energy.charge_in_ah, rel=1e-9)
    told = [row[2] for row in rows if row[2] is not None]
    assert told == sorted(told)
    return totals


def test_kill_9_makes_no_counter_of_energy_jump_or_fall(tmp_path: Path) -> None:
    kilowatts, amperes = 52.0 * 0.010 / SHUNT_OHM / 1000, 0.010 / SHUNT_OHM
    with Rig(tmp_path) as rig:
        rig.configure(sample_ms=500)
        began_mono_s, before = Clock().mono_s(), EnergyTotals()
        for _ in range(3):
            rig.start()
            rig.wait_for_intervals(3)
            kill(rig)
            after = counters(tmp_path)
            assert after.energy.energy_s >= before.energy.energy_s + 1.0
            assert after.energy.energy_in_kwh > before.energy.energy_in_kwh
            before = after
        rig.start()
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
        lasted_s, last = Clock().mono_s() - began_mono_s, counters(tmp_path)
    assert last.energy.energy_in_kwh == pytest.approx(kilowatts * last.energy.energy_s / 3600, rel=2e-3)
    assert last.energy.charge_in_ah == pytest.approx(amperes * last.energy.charge_s / 3600, rel=2e-3)
    assert (last.energy.energy_out_kwh, last.energy.charge_out_ah) == (0.0, 0.0)
    assert last.energy.energy_s < last.elapsed_s <= lasted_s
    assert last.gap_s == pytest.approx(last.elapsed_s - last.energy.energy_s)
    assert last.gap_s >= 3 * 1.0  # the meters are set up for longer than three intervals: not bridged


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
        served = list(samples_of(rig.voltage, checked=False).values())
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


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of 400 kB; skip the test where that is not allowed."""
    disk = folder / "disk"
    disk.mkdir()
    if not done("mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk):
        pytest.skip("needs root and a mount: not to be had here")
    try:
        yield disk
    finally:
        done("umount", "-l", disk)


def assert_none_missing_and_none_twice(rig: Rig) -> None:
    received = [each.datum for each in rig.cloud.received]
    assert len({(each.type, each.timestamp_utc_ms) for each in received}) == len(received)
    timestamps = sorted(each for each in rig.arrived() if each % 1000 == 0)
    assert timestamps == list(range(timestamps[0], timestamps[-1] + 1, 1000))


def assert_no_two_values(rig: Rig) -> None:
    """Nothing was made twice; what was under way when the disk failed, or at a kill, may have been sent twice."""
    received = [each.datum for each in rig.cloud.received]
    assert len({(each.type, each.timestamp_utc_ms) for each in received}) == len(set(received))
    assert len(received) - len(set(received)) <= 3 * 2


def test_a_full_disk_stops_nothing_and_heals_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk, Rig(disk) as rig:
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
        assert_none_missing_and_none_twice(rig)
        counted = counters(disk)
        assert counted.gap_s < 4.0  # the start: while the disk was full, energy was counted
        with sqlite3.connect(disk / NAME) as connection:
            assert connection.execute("SELECT count(*) FROM interval WHERE waiting != 0").fetchone() == (0,)
            assert connection.execute("SELECT count(*) FROM interval").fetchone()[0] >= len(rig.arrived()) - 1
        connection.close()
        assert "ERROR" not in rig.log


def test_a_disk_that_is_read_only_at_the_start_stops_nothing_and_heals_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk, Rig(disk) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(1)
        rig.cloud.misbehave(Reply(status=503), times=None)
        rig.wait_for_log("waiting")
        kill(rig)
        rig.cloud.behave()
        assert done("mount", "-o", "remount,ro", disk)
        rig.start()
        rig.wait_for_intervals(3)
        assert done("mount", "-o", "remount,rw", disk)
        rig.wait_for_log("nothing that was kept in memory is lost", within_s=20)
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
        assert_no_two_values(rig)
        status = json.loads(run_daemon(disk, "--status", "--json").stdout)
        assert status["ledger"]["closes"] is True
        assert status["ledger"]["readings_waiting"] == 0  # the backlog of before, too


@contextmanager
def real_disk(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount an ext4 of 4 MB at ``folder``/disk; yield that and its image. Skip the test where that is not allowed."""
    image, disk = folder / "image", folder / "disk"
    image.write_bytes(bytes(4_000_000))
    disk.mkdir()
    if not (done("mkfs.ext4", "-q", image) and done("mount", "-o", "loop,errors=remount-ro", image, disk)):
        pytest.skip("needs root, a loop device and mkfs.ext4: not to be had here")
    try:
        yield disk, image
    finally:
        done("umount", "-l", disk)


def move_in(rig: Rig, disk: Path, config: Path) -> None:
    """Have the daemon's folder on this disk; the ports stay where they are."""
    shutil.move(config, disk)
    with (disk / "config.cfg").open("rb+") as file:
        os.fsync(file.fileno())  # or the failing disk loses it
    rig.folder = disk


def device_of(disk: Path) -> str:
    """Return the device that is mounted there."""
    (source,) = [line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if str(disk) in line]
    return source


def is_backed_by(backing: Path, image: Path) -> bool:
    with suppress(FileNotFoundError):  # a loop device that is in no use
        return backing.read_text(encoding="utf-8").strip() == str(image)
    return False


def after_the_next_boot(disk: Path, image: Path) -> None:
    """Unmount, check and mount the disk."""
    backing = Path("/sys/block", Path(device_of(disk)).name, "loop", "backing_file")
    assert done("umount", disk)
    # A container that starts at this moment has a copy of all mounts, for a while: the old file system lives on in it.
    wait_for(lambda: not is_backed_by(backing, image), within_s=10, what="the disk is let go")
    done("e2fsck", "-p", image)
    assert done("mount", "-o", "loop", image, disk)


def test_a_disk_that_becomes_read_only_stops_nothing_and_nothing_is_made_twice(tmp_path: Path) -> None:
    """As an SD card does when it begins to fail: after the next boot, and its file system check, it can be written."""
    with real_disk(tmp_path) as (disk, image), Rig(tmp_path, volts=lambda at: 50 + at % 5) as rig:
        trigger = Path("/sys/fs/ext4", Path(device_of(disk)).name, "trigger_fs_error")
        if not trigger.exists():
            pytest.skip("this kernel has no trigger_fs_error")
        move_in(rig, disk, rig.configure())
        rig.start()
        rig.wait_for_intervals(2)
        trigger.write_text("a test", encoding="ascii")
        with pytest.raises(OSError, match="Read-only"):
            (disk / "anything").touch()
        rig.wait_for_intervals(4)
        kill(rig)
        after_the_next_boot(disk, image)
        rig.start()
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
        assert_no_two_values(rig)
        counters(disk)
        status = json.loads(run_daemon(disk, "--status", "--json").stdout)
        assert status["ledger"]["closes"] is True


@pytest.mark.parametrize("sync_s", [1, 3])
def test_a_power_cut_costs_at_most_the_sync_interval(tmp_path: Path, sync_s: int) -> None:
    """The kernel forgets what it has not written, as in a power cut; the cloud is away, so only the disk has it."""
    with real_disk(tmp_path) as (disk, image), Rig(tmp_path) as rig:
        move_in(rig, disk, rig.configure({"STORE": {"store_sync_interval": sync_s}}))
        rig.start()
        rig.wait_for_intervals(1)
        rig.cloud.stop()
        rig.wait_for_log("18 waiting", within_s=20)
        folder = os.open(disk, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOTHING_IS_WRITTEN))
        except OSError as exc:
            pytest.skip(f"this kernel cannot cut an ext4 off: {exc}")
        finally:
            os.close(folder)
        cut_utc_ms = Clock().utc_s() * 1000
        kill(rig)
        before = set(rig.arrived())
        after_the_next_boot(disk, image)
        rig.cloud.start()
        rig.start()
        rig.wait_for_intervals(3)
        assert rig.stop()[0] == 0
        safe = [each for each in sorted(rig.arrived()) if max(before) < each < cut_utc_ms]
        last_safe_utc_ms = cut_utc_ms - (sync_s + 1) * 1000  # the sync interval, and the interval under way
        expected = list(range(max(before) + 1000, int(last_safe_utc_ms), 1000))
        assert len(expected) >= 6 - sync_s - 2
        assert set(expected) <= set(safe)
        assert_no_two_values(rig)
        assert counters(disk).energy.energy_s > len(expected)


def done(*command: object) -> bool:
    """Run a command of the system; return whether it is there and went well."""
    name = str(command[0])
    return shutil.which(name) is not None and not subprocess.run([*map(str, command)], capture_output=True).returncode


def test_killed_while_the_disk_is_full_makes_nothing_twice(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk, Rig(disk, volts=lambda at: 50 + at % 5) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2)
        ballast = disk / "ballast"
        fill(ballast)
        rig.wait_for_intervals(3)
        kill(rig)
        rig.start()  # on the full disk
        rig.wait_for_intervals(2)
        kill(rig)
        ballast.unlink()
        rig.start()
        rig.wait_for_intervals(3)
        assert rig.stop()[0] == 0
        assert_no_two_values(rig)
        status = json.loads(run_daemon(disk, "--status", "--json").stdout)
        assert status["ledger"]["closes"] is True
        assert status["ledger"]["readings_waiting"] == 0


def test_a_damaged_database_is_moved_aside_and_the_daemon_runs_on(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database at all" * 500)
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.start()
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
    assert len(list(tmp_path.glob(f"{NAME}.corrupt-*"))) == 1
    assert "CRITICAL" in rig.log
