"""What the unit and the running service promise, checked in the container. ``story.py`` has the order."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from tests.systemd.box import DATA, PROGRAM, SERVICE, Box, doubtful, wait_for

MAC = 123456789
WATCHDOG_S, RESTART_S = 6, 1  # of the drop-in that ``installing.shortened`` makes
_KINDS = {532, 531, 533}


class Skip(Exception):
    """It cannot be checked here; the text says why."""


# --- The unit. -------------------------------------------------------------------------------------------------------


def verified(box: Box) -> None:
    """systemd-analyze verify has nothing to say of either unit"""
    units = f"{PROGRAM}/systemd"
    said = box.out("systemd-analyze", "verify", f"{units}/{SERVICE}.service", f"{units}/{SERVICE}@.service")
    assert said == "", said


def exposed_little(box: Box) -> None:
    """systemd-analyze security gives both units an exposure of 2.0 at most"""
    for unit in (f"{SERVICE}.service", f"{SERVICE}@.service"):
        said = box.out(
            "systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", f"{PROGRAM}/systemd/{unit}"
        )
        exposure = re.search(r"exposure level for .*: ([\d.]+)", said)
        assert exposure, said[-200:]
        assert float(exposure[1]) <= 2.0, said[-200:]


def caged(box: Box, *command: str) -> str:
    """Run a command as the service is run, with all that the unit has of User, Protect..., DeviceAllow and so on."""
    left_out = ("Type", "NotifyAccess", "WatchdogSec", "Exec", "Restart", "Timeout", "#")
    unit = (box.root / f"etc/systemd/system/{SERVICE}.service").read_text(encoding="utf-8")
    section = unit.split("[Service]\n")[1].split("[Install]")[0]
    lines = [line for line in section.splitlines() if line and not line.startswith(left_out)]
    properties = [argument for line in lines for argument in ("--property", line)]
    return box.run("systemd-run", "--quiet", "--pipe", "--wait", *properties, *command, check=False).stdout


def devices(box: Box) -> None:
    """serial ports of every kind may be opened, before the first adapter is plugged in too, and no other device"""
    for major in (188, 166, 4, 204, 10):
        box.run("mknod", "-m", "666", f"/srv/device-{major}", "c", str(major), "200")
    said = caged(box, "sh", "-c", "for each in /srv/device-*; do cat $each; done")
    if said.count("Operation not permitted") == 0:
        raise Skip("this kernel keeps nobody from a device")
    for major in (188, 166, 4, 204):
        assert f"device-{major}: No such device or address" in said, said
    assert "device-10: Operation not permitted" in said, said


_ASK_CLOCK = "from clock import Clock; print(Clock().kernel_synchronised(), Clock().boot_id())"
_READ_TIME = """
import ctypes
request = ctypes.create_string_buffer(512)
print(ctypes.CDLL(None, use_errno=True).adjtimex(request), ctypes.get_errno())
ctypes.memset(request, 1, 4)  # now it would change something
print(ctypes.CDLL(None, use_errno=True).adjtimex(request), ctypes.get_errno())
"""


def clock_asked(box: Box) -> None:
    """what the kernel says of the clock and of the boot is the same as without hardening; the clock cannot be set"""
    python = f"{PROGRAM}/.venv/bin/python"
    free = box.out("env", f"PYTHONPATH={PROGRAM}", python, "-c", _ASK_CLOCK)
    assert caged(box, "env", f"PYTHONPATH={PROGRAM}", python, "-c", _ASK_CLOCK).strip() == free
    asked, set_ = caged(box, python, "-c", _READ_TIME).splitlines()
    assert int(asked.split()[0]) >= 0, asked
    assert set_ == "-1 1", set_


def names_resolved(box: Box) -> None:
    """names are resolved"""
    python = f"{PROGRAM}/.venv/bin/python"
    code = (
        "import socket; print(socket.create_server(('127.0.0.1', 0)) and socket.getaddrinfo('localhost', 80)[0][4][0])"
    )
    assert caged(box, python, "-c", code).strip() in ("127.0.0.1", "::1")


# --- At work. --------------------------------------------------------------------------------------------------------


def active_only_when_ready(box: Box) -> None:
    """it is 'activating' until it samples, and only then 'active'"""
    box.run("systemctl", "start", "--no-block", SERVICE)
    states = []

    def state() -> str:
        states.append(box.show("ActiveState"))
        return states[-1]

    wait_for(lambda: state() == "active", within_s=20, what="active")
    assert "activating" in states, states
    assert box.status()["ledger"]["samples_read"] > 0, "no sample was read before it was active"


def status_text(box: Box) -> None:
    """systemctl status shows V, A, kW and what waits"""
    pattern = r"-?\d+\.\d+ V, -?\d+\.\d+ A, -?\d+\.\d+ kW .*\d readings wait.*; all is well"
    wait_for(lambda: re.search(pattern, box.show("StatusText")), within_s=15, what="a text with values")


def readings_arrive(box: Box) -> None:
    """readings of all three kinds arrive at the cloud, one of each for every interval"""
    before = len(box.received(MAC))
    wait_for(lambda: len(box.received(MAC)) >= before + 6, within_s=15, what="readings")
    readings = box.received(MAC)
    assert {each["type"] for each in readings} == _KINDS
    assert all(each["timestamp"] % 2000 == 0 for each in readings[-6:])


def restarted(box: Box, break_it: Callable[[int], object], *, within_s: float) -> int:
    """Break the service; return how long it took, in seconds, until another process of it was active."""
    pid, restarts = int(box.show("MainPID")), int(box.show("NRestarts"))
    begin_mono_s = time.monotonic()
    break_it(pid)
    wait_for(
        lambda: (
            int(box.show("NRestarts")) > restarts
            and box.show("ActiveState") == "active"
            and int(box.show("MainPID")) not in (0, pid)
        ),
        within_s=within_s,
        what="it runs again",
    )
    return round(time.monotonic() - begin_mono_s)


def kill_9(box: Box) -> None:
    """kill -9 ends in a restart"""
    restarted(box, lambda pid: box.run("kill", "-KILL", str(pid)), within_s=20)


def kill_stop(box: Box) -> None:
    """kill -STOP ends in a restart, by systemd's watchdog"""
    took_s = restarted(box, lambda pid: box.run("kill", "-STOP", str(pid)), within_s=WATCHDOG_S + 25)
    assert took_s >= WATCHDOG_S - 3, f"only {took_s} s: that was not the watchdog"
    assert "atchdog" in box.journal(), "the journal does not mention the watchdog"


def hang(box: Box) -> None:
    """a worker that hangs in the kernel ends in a restart, with exit code 70"""
    box.run("systemctl", "stop", SERVICE)
    box.write(f"{DATA}/config.cfg", box.config(wire_log="wire.jsonl"))
    box.run("runuser", "-u", "powermonitor", "--", "mkfifo", f"{DATA}/wire.jsonl")  # that nobody ever reads
    box.run("systemctl", "start", SERVICE)

    def let_go(_: int) -> None:
        wait_for(lambda: "wire recorder hangs" in box.journal(), within_s=2 * WATCHDOG_S + 10, what="it is noticed")
        box.run("rm", f"{DATA}/wire.jsonl")

    restarted(box, let_go, within_s=2 * WATCHDOG_S + 40)
    assert "code=exited, status=70" in box.journal(), box.journal()[-500:]
    box.write(f"{DATA}/config.cfg", box.config())
    box.run("systemctl", "restart", SERVICE)


def reloaded(box: Box) -> None:
    """systemctl reload takes a good configuration, in the same process, and refuses a bad one"""
    pid = box.show("MainPID")
    box.write(f"{DATA}/config.cfg", box.config(report_interval=3000))
    box.run("systemctl", "reload", SERVICE)
    wait_for(lambda: "a report every 3 s" in log(box), within_s=10, what="the new configuration is used")
    box.write(f"{DATA}/config.cfg", box.config(report_interval=500))
    box.run("systemctl", "reload", SERVICE)
    wait_for(lambda: "nothing of it is used" in log(box), within_s=10, what="the bad configuration is refused")
    box.write(f"{DATA}/config.cfg", box.config())
    box.run("systemctl", "reload", SERVICE)
    assert (box.show("MainPID"), box.show("ActiveState")) == (pid, "active")


def log(box: Box) -> str:
    """Return the log file of the service."""
    return box.out("cat", f"{DATA}/PowerMonitorMiddleware.log")


def second_daemon(box: Box) -> None:
    """a second daemon on the same meters is told which process has them"""
    pid = box.show("MainPID")
    box.run("install", "-D", "-o", "powermonitor", "-m", "600", "/srv/answers/config.cfg", "/srv/second/config.cfg")
    box.run("chown", "powermonitor:", "/srv/second")
    command = (f"{PROGRAM}/.venv/bin/python", f"{PROGRAM}/backend_daemon.py", "--config", "/srv/second/config.cfg")
    done = box.run("runuser", "-u", "powermonitor", "--", "timeout", "10", *command, check=False)
    assert done.returncode == 1, done
    assert f"process {pid}" in done.stdout, done
    box.run("sh", "-c", f"cp -a /srv/second {DATA}/second")
    said = caged(box, "timeout", "10", *(each.replace("/srv/second", f"{DATA}/second") for each in command))
    assert f"process {pid}" in said, said
    box.run("rm", "-rf", f"{DATA}/second", "/srv/second")


def stopped(box: Box) -> None:
    """systemctl stop takes less than 5 s and ends with exit code 0"""
    begin_mono_s = time.monotonic()
    box.run("systemctl", "stop", SERVICE)
    took_s = time.monotonic() - begin_mono_s
    assert took_s < 5.0, f"it took {took_s:.1f} s"
    assert (box.show("Result"), box.show("ExecMainStatus")) == ("success", "0")


def nothing_lost(box: Box) -> None:
    """nothing was lost: the ledger closes, and the cloud has exactly what was made, each reading once or the same"""
    if box.show("ActiveState") == "active":
        box.run("systemctl", "stop", SERVICE)
    box.run("systemctl", "start", SERVICE)  # what waited at a kill is sent
    wait_for(lambda: box.status()["ledger"]["readings_waiting"] == 0, within_s=20, what="nothing waits")
    box.run("systemctl", "stop", SERVICE)
    ledger = wait_for(lambda: box.status().get("ledger"), within_s=5, what="a ledger")
    assert ledger["closes"], ledger
    assert (ledger["readings_rejected"], ledger["readings_dropped"]) == (0, 0), ledger
    wait_for(
        lambda: distinct(box) == ledger["readings_made"] - ledger["readings_waiting"],
        within_s=5,
        what=f"the cloud has {distinct(box)} different readings, {ledger} were made",
    )
    assert doubtful(box.received(MAC)) == []
    box.run("systemctl", "start", SERVICE)


def distinct(box: Box) -> int:
    """Return how many different readings the cloud has of the first pair."""
    return len({(each["type"], each["timestamp"]) for each in box.received(MAC)})


def bad_configuration(box: Box) -> None:
    """a mistake in the configuration ends it with 78, says so, and is not tried again and again"""
    box.run("systemctl", "stop", SERVICE)
    box.write(f"{DATA}/config.cfg", box.config(report_interval=500))
    assert box.run("systemctl", "start", SERVICE, check=False).returncode != 0
    restarts = box.show("NRestarts")
    wait_for(lambda: box.show("ActiveState") == "failed", within_s=5, what="failed")
    assert box.show("ExecMainStatus") == "78"
    time_out = time.monotonic() + RESTART_S + 2
    wait_for(lambda: time.monotonic() > time_out, within_s=RESTART_S + 5, what="(a while)")
    assert (box.show("ActiveState"), box.show("NRestarts")) == ("failed", restarts)
    assert "must be a whole number from 1000" in box.journal()
    box.write(f"{DATA}/config.cfg", box.config())
    box.run("systemctl", "start", SERVICE)


def meters_absent(box: Box) -> None:
    """it is 'active' without meters, says what is wrong, and takes them when they come"""
    box.run("systemctl", "stop", SERVICE, "rig")
    box.run("systemctl", "start", SERVICE)
    wait_for(lambda: "voltage meter" in box.show("StatusText"), within_s=WATCHDOG_S, what=box.show("StatusText"))
    before = distinct(box)
    box.run("systemctl", "start", "rig")
    wait_for(lambda: distinct(box) >= before + 3, within_s=40, what="readings, now that the meters are there")


def no_network(box: Box) -> None:
    """with no way to the cloud, its name unknown, it starts, says so, and sends what waited when there is a way"""
    box.run("systemctl", "stop", SERVICE)
    good = box.config()
    box.write(f"{DATA}/config.cfg", re.sub("API_URL = .*", "API_URL = https://nowhere.invalid/rest/", good))
    box.run("systemctl", "start", SERVICE)
    wait_for(
        lambda: re.search(r"[1-9]\d* readings? wait.*cloud", box.show("StatusText")), within_s=20, what="they wait"
    )
    waiting = box.status()["ledger"]["readings_waiting"]
    before = distinct(box)
    box.write(f"{DATA}/config.cfg", good)
    box.run("systemctl", "reload", SERVICE)
    wait_for(lambda: distinct(box) >= before + waiting, within_s=20, what="what waited is sent")


def rebooted(box: Box) -> None:
    """a reboot of the box brings it back, and its readings"""
    box.reboot()
    box.wait_until_up()
    wait_for(lambda: box.show("ActiveState") == "active", within_s=30, what="active")
    before = len(box.received(MAC))
    wait_for(lambda: len(box.received(MAC)) >= before + 3, within_s=30, what="readings after the reboot")
