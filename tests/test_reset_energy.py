"""``--reset-energy``: the real program on a real database, asked on a real terminal, beside a daemon and without."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from clock import Clock
from measurements import PowerSample
from reset_energy import ResetRefused, reset_energy
from store import NAME, Store
from tests.clocks import ManualClock
from tests.rig import PROJECT, Rig, run_daemon, start_daemon, wait_for
from tests.test_counters import box_of, counted, rows, sent
from tests.test_energy_book import Run
from tests.test_outbox import _Fragile
from tests.test_status import snapshot, status_of

LOG = "PowerMonitorMiddleware.log"


def reset(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_daemon(folder, "--reset-energy", *arguments)


def asked(folder: Path, answer: bytes) -> tuple[int, str]:
    """Run it on a terminal and type an answer to its question; return its exit code and what the terminal showed."""
    ours, its = pty.openpty()
    command = [sys.executable, str(PROJECT / "backend_daemon.py"), "--reset-energy"]
    process = subprocess.Popen(command, cwd=folder, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    shown = b""
    with suppress(OSError):  # EIO: the other end was closed
        while chunk := os.read(ours, 4096):
            before, shown = shown, shown + chunk
            if b"Type yes" in shown and b"Type yes" not in before:
                os.write(ours, answer)
    os.close(ours)
    return process.wait(20), shown.decode("utf-8", "replace").replace("\r\n", "\n")


def counting(folder: Path, *, stop: bool = True) -> None:
    """Leave a database with counters, as a daemon that was stopped does."""
    box = box_of(folder)
    box.close_number(1, 2, of=counted())
    if stop:
        box.close()


def _sleeps(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "S"


def stands_at(folder: Path) -> float | None:
    energy = status_of(folder).energy
    return None if energy is None else energy.energy_in_kwh


def test_yes_on_the_terminal_sets_all_to_0_and_says_what_they_were(tmp_path: Path) -> None:
    counting(tmp_path)
    code, shown = asked(tmp_path, b"yes\n")
    assert code == 0, shown
    assert shown.index("1.0000 kWh") < shown.index("Type yes") < shown.index("They begin anew at 0")
    told = json.loads(run_daemon(tmp_path, "--status", "--json").stdout)
    numbers = {name: told[name] for name in told if name.startswith(("energy_", "charge_", "net_"))}
    assert len(numbers) == 10
    assert {name for name, value in numbers.items() if value == 0.0} == {
        "energy_in_kwh",
        "energy_out_kwh",
        "net_energy_kwh",
        "charge_in_ah",
        "charge_out_ah",
        "net_charge_ah",
    }
    assert [value for value in numbers.values() if value] == []
    assert (told["coverage_percent"], told["gap_seconds"], told["counting_since"]) == (None, 0.0, None)
    log = (tmp_path / LOG).read_text(encoding="utf-8")
    assert "begin anew at 0, as the operator asked for. They were: Energy in 1.0000 kWh +/- 1.0000; " in log
    assert "In minus out 0.7500 kWh; Charge in 20.000 Ah +/- 20.000; Charge out 4.000 Ah +/- 4.000; " in log


def test_where_the_disk_fails_at_the_last_moment_it_does_not_say_that_nothing_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting(tmp_path)

    def fails_after_commit(database: Path, clock: Clock) -> Store:
        store = _Fragile(database.parent, clock)
        store.fails_after_commit = True
        return store

    monkeypatch.setattr("reset_energy.Store", fails_after_commit)
    with pytest.raises(ResetRefused, match="look with --status whether the counters are 0"):
        reset_energy(tmp_path, ManualClock(), lambda _text: None, lambda: True)
    assert stands_at(tmp_path) == 0.0


@pytest.mark.parametrize("answer", [b"no\n", b"\n", b"y\n", b"yes please\n", b"\x04"])
def test_every_other_answer_changes_nothing(tmp_path: Path, answer: bytes) -> None:
    counting(tmp_path)
    before = snapshot(tmp_path)
    code, shown = asked(tmp_path, answer)
    assert code == 1
    assert "Nothing was changed" in shown
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_ctrl_c_at_the_question_changes_nothing(tmp_path: Path) -> None:
    counting(tmp_path)
    before = snapshot(tmp_path)
    ours, its = pty.openpty()
    command = [sys.executable, str(PROJECT / "backend_daemon.py"), "--reset-energy"]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    shown = b""
    while b"Type yes" not in shown:
        shown += os.read(ours, 4096)

    wait_for(lambda: _sleeps(process.pid), what="it waits for the answer")  # before, Python would not notice the signal
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 1
    os.close(ours)
    assert snapshot(tmp_path) == before


def test_without_a_terminal_it_needs_yes_on_the_command_line(tmp_path: Path) -> None:
    counting(tmp_path)
    before = snapshot(tmp_path)
    done = reset(tmp_path)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert snapshot(tmp_path) == before
    assert reset(tmp_path, "--yes").returncode == 0
    assert stands_at(tmp_path) == 0.0


def test_beside_a_running_daemon_it_is_refused_and_says_how_to_stop_it(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"API": {"energy_in_type": 700}})
        rig.start()
        rig.wait_for_intervals(2, "V A kW 700")
        before = stands_at(tmp_path)
        done = reset(tmp_path, "--yes")
        assert rig.process is not None
        assert done.returncode == 1
        assert f"the daemon runs (process {rig.process.pid})" in done.stderr
        assert "sudo systemctl stop powermonitormiddleware" in done.stderr
        rig.wait_for_intervals(1, "V A kW 700")
        assert rig.stop()[0] == 0
        stopped = stands_at(tmp_path)
        assert before is not None
        assert stopped is not None
        assert 0 < before < stopped
        done = reset(tmp_path, "--yes")
        assert (done.returncode, done.stderr) == (0, "")
        rig.start()
        rig.wait_for_intervals(2, "V A kW 700")
        assert rig.stop()[0] == 0
        energy = status_of(tmp_path).energy
        values = [values["700"] for _, values in sorted(rig.arrived().items()) if "700" in values]
    assert energy is not None
    assert 0 < values[-1] == energy.energy_in_kwh
    fall = next(place for place in range(1, len(values)) if values[place] < values[place - 1])
    assert values[fall] < 2 * 0.78 / 3600  # of 0.78 kW in an interval of 1 s
    assert values[:fall] == sorted(values[:fall])
    assert values[fall:] == sorted(values[fall:])


def test_the_time_before_is_no_gap_of_the_counters_that_begin_anew(tmp_path: Path) -> None:
    clock = ManualClock(utc_s=1_800_000_000.5)
    run = Run(tmp_path, clock)
    run.until(clock.mono_s() + 60.0)
    run.reporter.finish()
    run.outbox.close()
    clock.advance(86_400.0)
    assert reset(tmp_path, "--yes").returncode == 0
    run = Run(tmp_path, clock)
    run.until(clock.mono_s() + 60.0)
    totals = run.outbox.totals
    assert totals is not None
    assert totals.elapsed_s == pytest.approx(60.0, abs=5.0)
    assert totals.since_utc_ms == pytest.approx(1000 * (clock.utc_s() - 60.0), abs=300)


def test_history_and_what_waits_keep_the_counters_of_their_time(tmp_path: Path) -> None:
    counting(tmp_path)
    before = rows(tmp_path, "SELECT * FROM interval")
    assert reset(tmp_path, "--yes").returncode == 0
    assert rows(tmp_path, "SELECT * FROM interval") == before
    box = box_of(tmp_path)
    assert [(second, value) for second, kind, value in sent(box) if kind == 700] == [(1, 0.5), (2, 1.0)]
    box.close_number(3, of=counted())
    assert [(second, value) for second, kind, value in sent(box) if kind == 700][-1] == (3, 0.5)


def test_after_a_kill_it_is_refused_until_what_was_measured_is_counted(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.close_number(1, of=counted())
    box.journal([PowerSample(start_mono_s=1.5, voltage_v=52.0, current_a=10.0, power_kw=0.52)])
    box.crash()
    done = reset(tmp_path, "--yes")
    assert done.returncode == 1
    assert "Start it, stop it, and do this again" in done.stderr
    assert stands_at(tmp_path) == 0.5


def test_killed_at_any_moment_they_are_what_they_were_or_0(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nimport reset_energy\nfrom clock import Clock\n"
        "begin = reset_energy.begin_anew\n"
        "def killed(cursor):\n    begin(cursor)\n    os.kill(os.getpid(), 9)\n"
        "reset_energy.begin_anew = killed\n"
        "reset_energy.reset_energy(Path('.'), Clock(), print, lambda: True)"
    )
    counting(tmp_path)
    process = start_daemon(tmp_path, code=code)
    process.communicate(timeout=20)
    assert process.returncode == -9
    assert stands_at(tmp_path) == 1.0
    assert reset(tmp_path, "--yes").returncode == 0


@pytest.mark.parametrize(
    ("content", "words"), [(None, "There is no database"), (b"", "is empty"), (b"no database " * 500, "is damaged")]
)
def test_without_a_good_database_nothing_is_made_moved_or_changed(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / NAME).write_bytes(content)
    before = snapshot(tmp_path)
    done = reset(tmp_path, "--yes")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to give a file away")
def test_as_another_user_than_the_daemon_s_it_is_refused(tmp_path: Path) -> None:
    counting(tmp_path)
    os.chown(tmp_path / NAME, 65534, 65534)
    before = snapshot(tmp_path)
    done = reset(tmp_path, "--yes")
    assert done.returncode == 1
    assert "belongs to another user (number 65534)" in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("arguments", [["--yes"], ["--yes", "--status"], ["--reset-energy", "--status"]])
def test_what_does_not_go_together_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    assert run_daemon(tmp_path, *arguments).returncode == 2
