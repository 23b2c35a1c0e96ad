"""The container as a box on a shelf: commands typed in it, what the README tells to type, and what came of it.

Used by ``checks.py``, on the machine that runs the container, as root. Every call has a deadline.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
SERVICE = "powermonitormiddleware"
DATA = "/var/lib/powermonitor"
PROGRAM = "/opt/PowerMonitorMiddleware"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPERATOR = "jane"
_pause = threading.Event()


def wait_for(condition: Callable[[], Any], *, within_s: float, what: str) -> Any:
    """Poll until the condition holds, and return it. Raises ``AssertionError`` if it does not in time."""
    until_mono_s = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < until_mono_s, f"not within {within_s:g} s: {what}"
        _pause.wait(0.1)
    return result


class Box:
    """The container whose systemd-nspawn is the child of process ``keeper`` and whose file system is in ``root``."""

    def __init__(self, keeper: int, root: Path) -> None:
        self.root = root
        self._keeper = keeper

    def _leader(self) -> int | None:
        """Return the first process of the container: not kept, because a reboot, and the boot itself, change it."""
        nspawn = _child(self._keeper)
        return _child(nspawn) if nspawn else None

    def run(
        self, *command: str, check: bool = True, within_s: float = 60.0, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the box as root, ``text`` on its stdin. Its stderr is part of its stdout."""
        spaces = ["nsenter", "-t", str(self._leader()), "-m", "-u", "-i", "-p", "-n", "-C", "-r", "-w"]
        environment = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", f"PATH={_PATH}"]
        done = subprocess.run(
            [*spaces, *environment, *command],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(command)[:300]}: exit {done.returncode}: {_end(done.stdout)}"
        )
        return done

    def out(self, *command: str) -> str:
        """Run a command in the box; return what it says."""
        return self.run(*command).stdout.strip()

    def type(self, script: str, *, within_s: float = 120.0) -> str:
        """Type lines at the operator's prompt, in the folder of the program; the first that fails is the last."""
        lines = f"set -eo pipefail\ncd ~/PowerMonitorMiddleware\n{script}"
        return self.run("runuser", "-l", _OPERATOR, "-c", lines, within_s=within_s).stdout

    def show(self, name: str, unit: str = SERVICE) -> str:
        """Return a property of a unit."""
        return self.out("systemctl", "show", "--property", name, "--value", unit)

    def journal(self, unit: str = SERVICE) -> str:
        """Return the messages of a unit in the journal."""
        return self.out("journalctl", "--no-pager", "--output=cat", "--unit", unit)

    def evidence(self) -> str:
        """Return the end of the journal, and of a service that does not get on where it is: it is ended for that."""
        if self.run("true", check=False).returncode != 0:
            return " (the box does not answer)"
        if self.show("ActiveState") in ("activating", "deactivating", "reloading"):
            self.run("systemctl", "kill", "--signal=ABRT", SERVICE, check=False)
            _pause.wait(1.0)
        return "\n     " + "\n     ".join(self.journal().splitlines()[-60:])

    def status(self, data: str = DATA) -> dict[str, Any]:
        """Return what ``--status --json`` tells."""
        run = f"{PROGRAM}/.venv/bin/python {PROGRAM}/backend_daemon.py"
        done = self.run("sh", "-c", f"{run} --config {data}/config.cfg --status --json 2>/dev/null", check=False)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def received(self, mac: int) -> list[dict[str, Any]]:
        """Return the readings of a device that the virtual cloud has accepted."""
        lines = (self.root / "srv/rig/received.jsonl").read_text(encoding="ascii").split("\n")[:-1]
        return [reading for line in lines if (reading := json.loads(line))["mac"] == mac]

    def config(self, pair: str = "one", **changes: object) -> str:
        """Return the text of a good configuration for a pair of meters."""
        rig = self.root / "srv/rig"
        values = {
            "password": (rig / "password").read_text(encoding="ascii"),
            "port": (rig / "port").read_text(encoding="ascii"),
            "mac": {"one": 123456789, "two": 123456790, "three": 123456791}[pair],
            "pair": pair,
            "report_interval": 2000,
            "wire_log": "",
            **changes,
        }
        return _CONFIG.format(**values)

    def write(self, path: str, text: str) -> None:
        """Write into a file of the box in place; its owner and mode stay as they are."""
        self.run("tee", path, text=text)

    def reboot(self) -> None:
        """Restart the box, and wait until it is up again."""
        before = self._leader()
        self.run("systemctl", "reboot", check=False)
        wait_for(lambda: self._leader() not in (None, before), within_s=60, what="the box reboots")

    def wait_until_up(self) -> None:
        """Wait until all that is started at boot has been."""
        states = ("running", "degraded")
        wait_for(
            lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip() in states,
            within_s=60,
            what="the box is up",
        )


_CONFIG = """\
[DEFAULT]
self_mac = {mac}
API_URL = http://127.0.0.1:{port}/rest/
API_USERNAME = operator@example.invalid
API_PASSWORD = {password}
[XDM]
xdm_voltage_enable = True
xdm_voltage_port = /run/meters/{pair}/voltage
xdm_current_enable = True
xdm_current_port = /run/meters/{pair}/current
xdm_shunt_resistance = 0.0006667
xdm_wire_log = {wire_log}
[SERIAL]
sample_interval = 500
[API]
report_interval = {report_interval}
"""


def readme_blocks(heading: str) -> Iterator[str]:
    """Yield the commands of a chapter of the README, block by block; ``heading`` with its #s."""
    level = heading.index(" ")
    chapter = (PROJECT / "README.md").read_text(encoding="utf-8").split(f"\n{heading}\n")
    assert len(chapter) == 2, f"the README has no chapter '{heading}'"
    text = re.split(rf"^#{{1,{level}}} ", chapter[1], flags=re.MULTILINE)[0]
    yield from re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def doubtful(readings: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return the type and timestamp of what came more than once with different values."""
    values = {(each["type"], each["timestamp"], each["data"]) for each in readings}
    counts = Counter((kind, timestamp) for kind, timestamp, _ in values)
    return [key for key, count in counts.items() if count > 1]


def _child(process: int) -> int | None:
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    except OSError:  # it has just ended
        return None
    return int(children[0]) if children else None


def _end(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-6:])
