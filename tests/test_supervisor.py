"""What the service manager is told, and what becomes of workers that crash or hang: processes, sockets, signals."""

from __future__ import annotations

import itertools
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from clock import Clock
from service_manager import ServiceManager
from supervisor import Watch
from tests.redis_server import RedisServer
from tests.rig import PROJECT, Rig, start_daemon, wait_for
from tests.service_socket import ServiceSocket
from worker import Worker

_WATCHDOG_S = 3.0

#: Every worker: its name, and the place that its thread is at again and again.
WORKERS = {
    "sampler": "serial_port_read_writer.SerialPortReadWriter._ask_meters",
    "voltage meter": "meter_reader.MeterReader._answer",
    "recorder": "recorder.Recorder._write",
    "wire recorder": "wire_recorder.WireRecorder._write",
    "reporter": "aretas_reporter.AretasReporter._close",
    "uploader": "aretas_uploader.AretasUploader.send_once",
    "redis": "redis_cache.RedisCache._write",
}


def _spoilt(place: str, deed: str, then: str = "") -> str:
    """Return a program: the daemon, with a bug in one place."""
    module = place.split(".")[0]
    return (
        f"import sys, threading, backend_daemon, {module}\n"
        f"def spoilt(*arguments, **keywords): {deed}\n"
        f"{place} = spoilt\n{then}\n"
        "sys.exit(backend_daemon.guarded_main())"
    )


def _configure_everything(rig: Rig, server: RedisServer) -> None:
    rig.configure({"REDIS": {"redis_enable": True, "redis_port": server.port}, "XDM": {"xdm_wire_log": "wire.jsonl"}})


@pytest.mark.parametrize("worker", WORKERS)
def test_the_crash_of_each_worker_ends_the_process_with_70(tmp_path: Path, worker: str) -> None:
    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server:
        _configure_everything(rig, server)
        rig.process = start_daemon(tmp_path, code=_spoilt(WORKERS[worker], "raise RuntimeError('a bug')"))
        rig.process.communicate(timeout=20)
        assert rig.process.returncode == 70
    assert f"{worker} crashed; the daemon ends" in rig.log
    assert "RuntimeError: a bug" in rig.log


@pytest.mark.parametrize("worker", WORKERS)
def test_each_worker_that_hangs_ends_the_feeding_and_the_process(tmp_path: Path, worker: str) -> None:
    with Rig(tmp_path) as rig, RedisServer(tmp_path) as server, ServiceSocket(tmp_path / "notify") as manager:
        _configure_everything(rig, server)
        hung = tmp_path / "hung"
        deed = f"open({str(hung)!r}, 'w').close(); threading.Event().wait()"
        environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": str(int(_WATCHDOG_S * 1e6))}
        rig.process = start_daemon(tmp_path, code=_spoilt(WORKERS[worker], deed), environment=environment)
        wait_for(hung.exists, what="it hangs")
        hung_mono_s = Clock().mono_s()
        rig.process.communicate(timeout=20)
        assert rig.process.returncode == 70
        assert Clock().mono_s() - hung_mono_s < 1.5 * _WATCHDOG_S + 5  # the stop takes 5 s at most
        fed = manager.times_of("WATCHDOG=1")
        assert fed
        assert fed[-1] - hung_mono_s < 1.5 * _WATCHDOG_S
    assert f"{worker} hangs: it has not gone on for 3 s" in rig.log
    assert re.search(r"CRITICAL -   +File .*, in spoilt\n", rig.log)  # where it hangs


@pytest.mark.parametrize("worker", ["uploader", "voltage meter"])
def test_a_worker_whose_thread_ends_without_a_word_ends_the_process_too(tmp_path: Path, worker: str) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        shorter = "import supervisor; supervisor._HANGS_AFTER_S = 2.5"
        rig.process = start_daemon(tmp_path, code=_spoilt(WORKERS[worker], "raise SystemExit", shorter))
        rig.process.communicate(timeout=20)
        assert rig.process.returncode == 70
    assert f"{worker} hangs" in rig.log


def test_without_a_service_manager_a_hanging_worker_ends_the_process_too(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        shorter = "import supervisor; supervisor._HANGS_AFTER_S = 2.5"
        code = _spoilt(WORKERS["uploader"], "threading.Event().wait()", shorter)
        rig.process = start_daemon(tmp_path, code=code)
        rig.process.communicate(timeout=20)
        assert rig.process.returncode == 70
    assert "uploader hangs" in rig.log


#: A disk that hangs: whoever writes to the database waits for ever, with the lock of the outbox in his hands.
_HUNG_DISK = (
    "import sys, threading, backend_daemon, outbox, supervisor\n"
    "def hang(self, *_, **__):\n  with self._changed: open('hung', 'w').close(); threading.Event().wait()\n"
    "outbox.Outbox.journal = hang\n"
)


def test_a_stop_while_the_disk_hangs_ends_it_within_5_s(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.process = start_daemon(tmp_path, code=f"{_HUNG_DISK}sys.exit(backend_daemon.guarded_main())")
        wait_for((tmp_path / "hung").exists, what="the disk hangs")
        code, took_s = rig.stop()
        assert code == 0
        assert took_s < 5.5
    assert "the disk does not answer" in rig.log


def test_a_reload_while_the_disk_hangs_does_not_keep_the_hang_from_being_noticed(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        shorter = "supervisor._HANGS_AFTER_S = 2.5"
        code = f"{_HUNG_DISK}{shorter}\nsys.exit(backend_daemon.guarded_main())"
        rig.process = start_daemon(tmp_path, code=code)
        wait_for((tmp_path / "hung").exists, what="the disk hangs")
        rig.configure({"STORE": {"store_max_mb": 50}, "API": {"upload_batch": 50}})
        rig.process.send_signal(signal.SIGHUP)
        rig.process.communicate(timeout=20)
        assert rig.process.returncode == 70
    assert "hangs: it has not gone on" in rig.log


def test_one_that_hangs_with_the_log_s_lock_in_its_hands_ends_it_all_the_same(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        shorter = "import supervisor; supervisor._HANGS_AFTER_S = 2.5; supervisor._ENDS_WITHIN_S = 3.0"
        deed = "import logging; logging.getLogger().handlers[0].acquire(); threading.Event().wait()"
        rig.process = start_daemon(tmp_path, code=_spoilt(WORKERS["uploader"], deed, shorter))
        rig.process.communicate(timeout=20)
        assert rig.process.returncode == 70


def test_a_service_is_told_ready_status_alive_and_stopping(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, ServiceSocket(tmp_path / "notify") as manager:
        rig.configure()
        environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "3000000"}
        rig.process = start_daemon(tmp_path, environment=environment)
        wait_for(lambda: "READY=1" in manager.messages, what="ready")
        assert len([each for each in rig.voltage.received if each.text == "MEAS1?"]) > 0
        rig.wait_for_intervals(2)
        wait_for(lambda: "STATUS=5" in manager.messages[-1] or "STATUS=5" in manager.messages[-2], what="the status")
        status = next(each for each in reversed(manager.messages) if each.startswith("STATUS="))
        assert re.fullmatch(
            r"STATUS=5[12]\.\d{4} V, 1[45]\.\d{4} A, 0\.\d{5} kW \(\d samples?\); 0 readings wait; all is well", status
        )
        rig.current_port.unplug()
        wait_for(lambda: any("; current meter: " in each for each in manager.messages), what="the trouble")
        rig.cloud.stop()
        wait_for(lambda: any("wait, the oldest for " in each for each in manager.messages), what="what waits")
        assert any("; cloud: " in each for each in manager.messages)
        assert rig.stop()[0] == 0
        assert manager.messages[-1] == "STOPPING=1"
        fed = manager.times_of("WATCHDOG=1")
        assert max(after - before for before, after in itertools.pairwise(fed)) < 1.5


def test_with_everything_absent_it_is_ready_and_alive(tmp_path: Path) -> None:
    with (
        Rig(tmp_path, plugged_in=False, cloud_up=False) as rig,
        RedisServer(tmp_path) as server,
        ServiceSocket(tmp_path / "notify") as manager,
    ):
        server.stop()
        rig.configure({"REDIS": {"redis_enable": True, "redis_port": server.port}})
        environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": str(int(_WATCHDOG_S * 1e6))}
        rig.process = start_daemon(tmp_path, environment=environment)
        wait_for(lambda: "READY=1" in manager.messages, what="ready")
        wait_for(lambda: len(manager.times_of("WATCHDOG=1")) > 20, what="it is alive")
        assert rig.process.poll() is None
        troubles = next(each for each in reversed(manager.messages) if each.startswith("STATUS="))
        for subject in ("voltage meter: ", "current meter: ", "cloud: "):
            assert f"; {subject}" in troubles
        assert rig.stop()[0] == 0


def test_a_process_that_was_stopped_for_longer_than_that_does_not_take_it_for_a_hanging_worker(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        code = (
            "import sys, backend_daemon, supervisor; supervisor._HANGS_AFTER_S = 2.5; sys.exit(backend_daemon.main())"
        )
        process = rig.process = start_daemon(tmp_path, code=code)
        rig.wait_for_intervals(1)
        process.send_signal(signal.SIGSTOP)
        threading.Event().wait(5)
        process.send_signal(signal.SIGCONT)
        rig.wait_for_intervals(4)
        assert rig.stop()[0] == 0


def test_a_reload_before_sampling_has_begun_makes_nothing_ready(tmp_path: Path) -> None:
    with Rig(tmp_path, plugged_in=False) as rig, ServiceSocket(tmp_path / "notify") as manager:
        rig.configure()
        rig.process = start_daemon(tmp_path, environment={"NOTIFY_SOCKET": str(manager.path)})
        wait_for(lambda: "WATCHDOG=1" in manager.messages, what="it supervises")
        rig.process.send_signal(signal.SIGHUP)
        rig.wait_for_log("the configuration is used: ")
        used_mono_s = Clock().mono_s()
        wait_for(lambda: "READY=1" in manager.messages, what="ready")
        assert manager.times_of("READY=1")[0] > used_mono_s + 1  # without meters sampling begins after 4 s
        assert not [each for each in manager.messages if each.startswith("RELOADING=1")]
        assert rig.stop()[0] == 0


def test_that_it_is_ready_is_told_again_until_it_is_heard(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            while True:  # until no more fits in
                other.sendto(b"other", str(tmp_path / "notify"))
        rig.configure()
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
        rig.process = start_daemon(tmp_path, environment=environment)
        rig.wait_for_log("service manager: it cannot be told how the service is")
        rig.wait_for_intervals(1)
        manager.settimeout(10)
        while (heard := manager.recv(4096)) == b"other":
            pass
        assert heard.startswith(b"READY=1")
        assert rig.stop()[0] == 0


def test_the_status_shows_no_secret_and_no_control_characters_and_is_not_too_long(tmp_path: Path) -> None:
    secret = "redis-pass-word"
    with (
        Rig(tmp_path) as rig,
        ServiceSocket(tmp_path / "notify") as manager,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        threading.Thread(target=_echo_as_errors, args=(server,), daemon=True).start()
        redis = {"redis_enable": True, "redis_port": server.getsockname()[1], "redis_authpw": secret}
        rig.configure({"REDIS": redis})
        rig.process = start_daemon(
            tmp_path, environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "3000000"}
        )
        wait_for(lambda: any("; Redis " in each for each in manager.messages), what="trouble with Redis")
        assert rig.stop()[0] == 0
        status = next(each for each in manager.messages if "; Redis " in each)
        assert "args beginning with: ***" in status
        assert secret not in "".join(manager.messages)
        assert status.isprintable()
        assert len(status) < 1100


def _echo_as_errors(server: socket.socket) -> None:
    """Answer as Redis does to a command that was taken away from it: with what it was given."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            words = connection.recv(4096).split(b"\r\n")[2::2]
            given = b" ".join(words[1:])
            connection.sendall(
                b"-ERR unknown command, with args beginning with: %b \x1b[31m%b\r\n" % (given, b"x" * 5000)
            )


def test_a_watchdog_that_is_too_short_is_told() -> None:
    def warning(seconds: float, address: str = "/run/notify") -> str | None:
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(int(seconds * 1e6))}
        return ServiceManager(environment, Clock()).warning()

    assert "WatchdogSec=10 is too short" in (warning(10) or "")
    assert warning(60) is None
    assert warning(10, address="") is None  # nobody watches


def test_a_service_manager_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        rig.process = start_daemon(tmp_path, environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
    assert rig.log.count("service manager: it cannot be told how the service is") == 1


def test_a_closed_terminal_ends_it_like_a_stop(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure()
        terminal, its_end = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "backend_daemon.py")],
            cwd=tmp_path,
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(its_end)
        rig.wait_for_intervals(1)
        os.close(terminal)
        assert process.wait(10) == 0
    assert "has stopped" in rig.log


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class _Idle(Worker):
    def step(self) -> None:
        self.pause(3600)


def test_a_worker_that_waits_beats_and_long_work_of_the_database_is_no_hanging(tmp_path: Path) -> None:
    worker, watch = _Idle("idle", Clock()), Watch()
    worker.start(lambda: None)
    looks = [watch.hung([worker], 0) for _ in range(6)]
    assert looks == [None] * 6
    before = worker.beats
    wait_for(lambda: worker.beats > before, what="a beat while it waits")
    assert watch.hung([worker], 0) is None
    still = type("_Still", (_Idle,), {"step": lambda self: self._stop.wait()})("still", Clock())
    still.start(lambda: None)
    wait_for(lambda: still.beats == 1)
    assert [watch.hung([still], work) for work in range(20)] == [None] * 20
    assert [watch.hung([still], 20) for _ in range(7)] == [None] * 6 + [still]
    unstarted = _Idle("unstarted", Clock())
    assert [watch.hung([unstarted], 0) for _ in range(7)] == [None] * 6 + [unstarted]
    for each in (worker, still):
        each.request_stop()
        assert each.join(Clock().mono_s() + 5)
    assert watch.hung([still], 20) is None
