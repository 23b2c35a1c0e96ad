"""The page of a real daemon: switched on, off and over by a reload, at the start, at the stop, with its port taken."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand import usage_of
from tests.rig import PROJECT, Rig, run_daemon, start_daemon, wait_for
from tests.test_reload import _reload as reload
from tests.web.test_auth import PASSWORD, basic

ON = {"enable_web": True}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ask(
    port: int, path: str = "/api/latest", password: str | None = None, *, within_s: float = 10.0
) -> tuple[int, Any]:
    """Return status and JSON; 0 if nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within_s)
    try:
        connection.request("GET", path, headers={} if password is None else {"Authorization": basic(password)})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


@contextmanager
def serving(folder: Path, **web: object) -> Iterator[tuple[Rig, int]]:
    """Run a daemon with its page until it answers."""
    port = free_port()
    with Rig(folder) as rig:
        rig.configure({"WEB": {**ON, "web_port": port, **web}})
        rig.start()
        wait_for(lambda: ask(port)[0], what="the page is served")
        yield rig, port


def test_live_values_come_from_the_meters_and_intervals_from_the_database(tmp_path: Path) -> None:
    with serving(tmp_path) as (rig, port):
        rig.wait_for_intervals(3)
        _, latest = ask(port)
        assert latest["sample"]["voltage_v"] == pytest.approx(52.0, abs=0.1)
        assert latest["sample"]["current_a"] == pytest.approx(15.0, abs=0.1)
        assert latest["sample"]["age_s"] < 5
        assert (latest["sample_interval_ms"], latest["report_interval_ms"]) == (250, 1000)
        assert latest["interval"]["voltage_v"]["count"] == 4
        assert latest["direction"] == "charging"
        wait_for(lambda: ask(port)[1]["sample"]["timestamp"] > latest["sample"]["timestamp"], what="a newer one")
        _, history = ask(port, "/api/history?step=1s&from=" + str(latest["time"] - 60_000))
        arrived = rig.arrived()
        assert len(history["points"]) >= 3
        for point in history["points"][:3]:
            assert arrived[point["timestamp"]]["V"] == pytest.approx(point["voltage_v"]["mean"], abs=1e-9)
        wait_for(lambda: ask(port, "/api/status")[1]["readings_waiting"] == 0, what="all is delivered")
        for _ in range(10):
            _, status = ask(port, "/api/status")
            assert status["oldest_waiting_s"] is None or status["readings_waiting"]
        assert status["last_delivery"]["age_s"] < 10
        assert {part["name"]: part["state"] for part in status["parts"]}["Meters"] == "ok"
        rig.current_port.stop()
        wait_for(lambda: ask(port, "/api/status")[1]["overall"] == "error", what="the status tells of the meter")
        assert rig.stop()[0] == 0


def test_switched_off_not_one_module_of_it_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, backend_daemon as daemon\n"
        "code = daemon.main([])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'bottle', 'waitress', 'prometheus_client', 'web', 'history', 'database_reading'}))\n"
        "print(sys.getswitchinterval())\n"
        "sys.exit(code)\n"
    )
    with Rig(tmp_path) as rig:
        for web, loaded in (({"web_port": 8041}, "[]"), ({**ON, "web_port": free_port()}, "'bottle', ")):
            rig.configure({"WEB": web})
            rig.process = process = start_daemon(tmp_path, code=code)
            rig.wait_for_intervals(1)
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=20)
            assert process.returncode == 0, stderr
            assert loaded in stdout.splitlines()[0]
            assert (stdout.splitlines()[1] == "0.005") == (loaded == "[]")


def test_a_port_that_is_taken_ends_nothing_and_is_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Rig(tmp_path) as rig:
        port = int(listener.getsockname()[1])
        rig.configure({"WEB": {**ON, "web_port": port}})
        rig.start()
        rig.wait_for_log(
            f"page at 127.0.0.1:{port}: cannot be served: Address already in use. Another program has this port"
        )
        rig.wait_for_intervals(2)
        listener.close()
        wait_for(lambda: ask(port)[0] == 200, what="it is served")
        assert rig.log.count("cannot be served") == 1
        assert f"page at 127.0.0.1:{port}: is served after" in rig.log
        assert rig.stop()[0] == 0


def test_a_reload_changes_port_and_password_and_leaves_the_meters_alone(tmp_path: Path) -> None:
    with serving(tmp_path) as (rig, port):
        rig.wait_for_intervals(1)
        other = free_port()
        rig.configure({"WEB": {**ON, "web_port": other, "web_password": PASSWORD}})
        reload(rig)
        wait_for(lambda: ask(other)[0] == 401, what="it asks for the password at the new port")
        assert ask(other, password=PASSWORD)[0] == 200
        assert ask(port)[0] == 0
        rig.configure({"WEB": {**ON, "web_port": other, "web_password": "another one"}})
        reload(rig)
        wait_for(lambda: ask(other)[0] == 401, what="it asks for another password")
        assert ask(other, password=PASSWORD)[0] == 401
        assert ask(other, password="another one")[0] == 200
        rig.configure()
        reload(rig)
        assert ask(other)[0] == 0
        rig.configure({"WEB": {**ON, "web_port": port}})
        reload(rig)
        wait_for(lambda: ask(port)[0] == 200, what="it is served again")
        assert rig.stop()[0] == 0
        assert rig.log.count(" is set up (") == 2  # the meters were left alone
    assert PASSWORD not in rig.log
    assert "another one" not in rig.log


def test_the_daemon_stops_in_time_while_clients_hang(tmp_path: Path) -> None:
    with serving(tmp_path) as (rig, port):
        rig.wait_for_intervals(1)
        hanging = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(40)]
        for number, connection in enumerate(hanging):
            connection.sendall((b"GET /api/history.csv HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /", b"")[number % 3])
        code, took_s = rig.stop()
        for connection in hanging:
            connection.close()
    assert code == 0
    assert took_s < 5.0 + 1.0  # the process ends a moment after the daemon
    assert "left behind" not in rig.log


def test_a_crowd_gets_a_share_of_the_processor_and_sampling_goes_on(tmp_path: Path) -> None:
    """How punctual sampling stays under 1,000 connections is measured by benchmarks/web_flood.py."""
    with serving(tmp_path) as (rig, port):
        rig.wait_for_intervals(1)
        assert rig.process is not None
        stop = threading.Event()

        def hammer() -> None:
            while not stop.is_set():
                ask(port, "/api/history?from=0&step=1h", within_s=30)

        threads = [threading.Thread(target=hammer) for _ in range(4)]
        silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(150)]
        begun, begun_s = usage_of(rig.process.pid), rig.voltage.clock.mono_s()
        for thread in threads:
            thread.start()
        rig.wait_for_intervals(8)
        used_s = usage_of(rig.process.pid).cpu_s - begun.cpu_s
        lasted_s = rig.voltage.clock.mono_s() - begun_s
        stop.set()
        for thread in threads:
            thread.join()
        for connection in silent:
            connection.close()
        assert rig.stop()[0] == 0
    assert used_s < 2.0 + 0.6 * lasted_s  # what may be used at once, an eighth for ever, and the rest of the daemon


def test_an_address_that_others_can_reach_wants_a_password_or_a_decision(tmp_path: Path) -> None:
    with Rig(tmp_path, plugged_in=False) as rig:
        rig.configure({"WEB": {**ON, "web_host": "0.0.0.0"}})
        done = run_daemon(tmp_path)
        assert done.returncode == 78
        assert "web_host = '0.0.0.0': is an address that others can reach, but there is no web_password" in done.stderr
        for web in (
            {"web_password": PASSWORD},
            {"web_allow_open": True},
            {"enable_web": False},
            {"web_host": "127.0.0.9"},
        ):
            rig.configure({"WEB": {**ON, "web_host": "0.0.0.0", **web}})
            assert run_daemon(tmp_path, "--check-config").returncode == 0


def test_the_demo_says_where_its_page_is_also_when_the_usual_port_is_taken(tmp_path: Path) -> None:
    try:
        taken, is_ours = socket.create_server(("127.0.0.1", 8041)), True
    except OSError:  # by another test, which may give it back, or another program
        taken, is_ours = socket.create_server(("127.0.0.1", 0)), False
    with taken:
        process = start_daemon(tmp_path, "--demo")
        assert process.stdout is not None
        address = ""
        while not address.startswith("The page: "):
            address = process.stdout.readline()
        port = int(re.findall(r"http://localhost:(\d+)/", address)[0])
        assert port != 8041 or not is_ours
        wait_for(lambda: ask(port)[0] == 200, what="the page is served")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=15)
        assert process.returncode == 0


def test_an_installation_without_the_libraries_measures_all_the_same(tmp_path: Path) -> None:
    code = "import sys, backend_daemon as daemon\nsys.modules['waitress'] = None\nsys.exit(daemon.main([]))\n"
    with Rig(tmp_path) as rig:
        rig.configure({"WEB": {**ON, "web_port": free_port()}})
        rig.process = start_daemon(tmp_path, code=code)
        rig.wait_for_intervals(1)
        assert rig.stop()[0] == 0
    assert "there is no page: waitress is not installed. Run  sh venv.sh requirements.txt" in rig.log


def test_the_example_and_the_program_agree_on_the_port() -> None:
    assert ";web_port = 8041" in (PROJECT / "config.cfg.example").read_text(encoding="utf-8")


def test_an_address_that_this_computer_does_not_have_is_told_as_that(tmp_path: Path) -> None:
    with Rig(tmp_path, plugged_in=False) as rig:
        port = free_port()
        rig.configure({"WEB": {**ON, "web_host": "203.0.113.7", "web_port": port, "web_password": PASSWORD}})
        rig.start()
        rig.wait_for_log("cannot be served: Cannot assign requested address. Is web_host an address of this computer?")
        assert "another program" not in rig.log.lower()
        assert rig.stop()[0] == 0
