"""What installing, upgrading, removing, several pairs and kept passwords promise, checked in the container."""

from __future__ import annotations

import re

from tests.systemd.box import DATA, PROGRAM, SERVICE, Box, doubtful, readme_blocks, wait_for
from tests.systemd.checks import MAC, distinct

_RIG = """\
[Service]
WorkingDirectory=/home/jane/PowerMonitorMiddleware
ExecStart=/home/jane/PowerMonitorMiddleware/.venv/bin/python -m tests.systemd.rig /srv/rig
[Install]
WantedBy=multi-user.target
"""
_SHORTER = "[Service]\nWatchdogSec=6\nRestartSec=1\n"


def chapter_installing(box: Box) -> None:
    """the README's chapter Installing works as written"""
    for block in readme_blocks("## Installing"):
        box.type(block.replace("cd PowerMonitorMiddleware\n", ""), within_s=300)


def rig_runs(box: Box) -> None:
    """(simulated meters and cloud run)"""
    box.run("install", "-d", "-m", "700", "/srv/rig")
    box.write("/etc/systemd/system/rig.service", _RIG)
    box.run("systemctl", "enable", "--now", "rig")
    wait_for(lambda: box.run("test", "-e", "/run/meters/ready", check=False).returncode == 0, within_s=10, what="rig")
    # What the operator types into the editor.
    box.run("install", "-d", "/srv/answers")
    box.write("/srv/answers/config.cfg", box.config())
    box.write("/usr/local/bin/nano", '#!/bin/sh\nexec cp /srv/answers/config.cfg "$1"\n')
    box.run("chmod", "755", "/usr/local/bin/nano")


def chapter_configuration(box: Box) -> None:
    """the README's chapter Configuration works as written"""
    said = "".join([box.type(block) for block in readme_blocks("## Configuration")])
    assert "the configuration is good" in said, said


def by_hand(box: Box) -> None:
    """the README's way by hand works as written, and the service runs after it"""
    for block in readme_blocks("### By hand"):
        box.type(block, within_s=300)
    assert box.show("ActiveState") == "active", box.journal()[-600:]


def look_and_change(box: Box) -> None:
    """the README's commands to look at it and to change its configuration work as written"""
    for chapter in ("### Watching it", "### Changing the configuration"):
        for block in readme_blocks(chapter):
            # What would follow a log for ever does so for a second.
            box.type(re.sub(r"^(.* -f .*)$", r"timeout 1 \1 || [ $? = 124 ]", block, flags=re.MULTILINE))


def shortened(box: Box) -> None:
    """(shorter times for the test, in a drop-in)"""
    box.run("install", "-d", f"/etc/systemd/system/{SERVICE}.service.d")
    box.write(f"/etc/systemd/system/{SERVICE}.service.d/test.conf", _SHORTER)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "stop", SERVICE)


def dry_run(box: Box) -> None:
    """install.sh --dry-run says what it would do, and changes nothing"""
    before = state_of(box)
    said = box.type("sudo sh systemd/install.sh --dry-run")
    assert "would do: systemctl restart" in said, said
    assert state_of(box) == before


def state_of(box: Box) -> str:
    """Return what there is of the program, its units, its user and its configuration, with times of change."""
    folders = f"{PROGRAM} /etc/systemd/system /etc/passwd /etc/group {DATA}/config.cfg"
    return box.out("sh", "-c", f"find {folders} -path '*/__pycache__*' -prune -o -printf '%p %u %m %T@\\n' | sort")


def upgraded(box: Box) -> None:
    """install.sh upgrades in place: configuration and data are kept, the service is restarted, nothing is left over"""
    config, made = box.out("cat", f"{DATA}/config.cfg"), box.status()["ledger"]["readings_made"]
    pid = box.show("MainPID")
    box.write(f"{PROGRAM}/left_over.py", "# of an older version\n")
    box.type("sudo sh systemd/install.sh", within_s=300)
    assert box.show("ActiveState") == "active"
    assert box.show("MainPID") != pid
    assert box.out("cat", f"{DATA}/config.cfg") == config
    assert box.status()["ledger"]["readings_made"] >= made
    assert box.out("stat", "-c", "%U %a", DATA, f"{DATA}/config.cfg").split("\n") == [
        "powermonitor 750",
        "powermonitor 600",
    ]
    assert box.out(
        "find", PROGRAM, "-name", "left_over.py", "-o", "-path", "*/.venv", "-prune", "-o", "!", "-user", "root"
    ) in (f"{PROGRAM}/.venv",)


def upgraded_stopped(box: Box) -> None:
    """an upgrade does not start what was stopped"""
    box.run("systemctl", "stop", SERVICE)
    said = box.type("sudo sh systemd/install.sh", within_s=300)
    assert box.show("ActiveState") == "inactive", said
    box.run("systemctl", "start", SERVICE)


def upgrade_fails(box: Box) -> None:
    """an upgrade without what pip needs, or to what refuses the configuration, leaves the running service alone"""
    pid = box.show("MainPID")
    box.type("cp requirements.txt kept.txt && echo ./nowhere >>requirements.txt && touch new_module.py")
    said = box.type("! sudo sh systemd/install.sh 2>&1", within_s=300)
    box.type("mv kept.txt requirements.txt && rm new_module.py")
    assert "The installed version was not changed" in said, said
    assert box.run("test", "-e", f"{PROGRAM}/new_module.py", check=False).returncode != 0
    box.write(f"{DATA}/config.cfg", box.config(report_interval=500))
    said = box.type("sudo sh systemd/install.sh", within_s=300)
    box.write(f"{DATA}/config.cfg", box.config())
    assert "config.cfg must be filled in first" in said, said
    assert (box.show("ActiveState"), box.show("MainPID")) == ("active", pid)


def not_over_data(box: Box) -> None:
    """install.sh does not replace a folder in which somebody has a configuration"""
    box.write(f"{PROGRAM}/config.cfg", "mine")
    said = box.type("! sudo sh systemd/install.sh 2>&1")
    assert "which would be lost" in said, said
    assert box.out("cat", f"{PROGRAM}/config.cfg") == "mine"
    box.run("rm", f"{PROGRAM}/config.cfg")


def two_pairs(box: Box) -> None:
    """two pairs of meters side by side, each reported as its own device, and the README's lines for it"""
    box.write("/srv/answers/config.cfg", box.config("two"))
    for block in readme_blocks("### Several pairs of meters"):
        box.type(block, within_s=300)
    other = f"{SERVICE}@shed"
    wait_for(lambda: box.show("ActiveState", other) == "active", within_s=20, what=f"{other} is active")
    before = len(box.received(MAC))
    wait_for(lambda: len(box.received(MAC + 1)) >= 6, within_s=20, what="readings of the second pair")
    assert len(box.received(MAC)) > before
    assert box.show("ActiveState") == "active"
    box.run("systemctl", "stop", other)
    ledger = box.status(f"{DATA}-shed")["ledger"]
    assert ledger["closes"], ledger
    assert doubtful(box.received(MAC + 1)) == []
    box.write("/srv/answers/config.cfg", box.config())


def uninstalled(box: Box) -> None:
    """uninstall.sh removes services and program and keeps the data; with --purge the data goes too"""
    box.type("sudo sh systemd/uninstall.sh --instance shed --purge")
    assert box.run("test", "-e", f"{DATA}-shed", check=False).returncode != 0
    assert box.show("ActiveState") == "active"
    box.type("sudo sh systemd/uninstall.sh")
    assert box.run("test", "-e", PROGRAM, check=False).returncode != 0
    box.run("test", "-s", f"{DATA}/power_monitor.db")
    assert box.show("LoadState") == "not-found"


def in_one_step(box: Box) -> None:
    """the README's way in one step works as written, on the data that was kept"""
    made = distinct(box)
    box.type("rm -f config.cfg")
    for block in readme_blocks("### In one step"):
        box.type(block, within_s=300)
    assert box.show("ActiveState") == "active"
    wait_for(lambda: distinct(box) > made, within_s=20, what="readings")


def purged_and_anew(box: Box) -> None:
    """uninstall.sh --purge leaves nothing; installed anew without a configuration, what it says to do works"""
    box.type("sudo sh systemd/uninstall.sh --purge")
    left = f"ls -d {DATA}* {PROGRAM}* /etc/systemd/system/{SERVICE}* 2>/dev/null; getent passwd powermonitor"
    assert box.run("sh", "-c", left, check=False).stdout == ""
    said = box.type("sudo sh systemd/install.sh", within_s=300)
    assert box.show("ActiveState") == "inactive", said
    commands = "\n".join(line.strip() for line in said.splitlines() if line.startswith("  sudo "))
    assert commands.count("\n") == 1, said
    box.type(commands)
    assert box.show("ActiveState") == "active"


def password_kept(box: Box) -> None:
    """the password is in config.cfg and nowhere else: no log, no journal, no database, no unit"""
    password = (box.root / "srv/rig/password").read_text(encoding="ascii")
    assert password not in box.out("journalctl", "--no-pager", "--all", "--output=export"), "it is in the journal"
    found = files_with(box, password)
    assert found == [f"{DATA}/config.cfg", f"{DATA}-shed/config.cfg"], found


def files_with(box: Box, text: str) -> list[str]:
    """Return the files that have a text in them, of those that the service, its installation or systemd may write."""
    grep = f"LC_ALL=C grep -rlaF --devices=skip --exclude-dir=.venv --exclude-dir=journal -e '{text}'"
    folders = f"{DATA} {DATA}-* /etc /opt /tmp /var/log /var/tmp /var/lib/systemd /run/systemd"
    return box.run("sh", "-c", f"{grep} {folders} 2>/dev/null", check=False).stdout.split()


def secret_by_systemd(box: Box) -> None:
    """a password that systemd keeps, as the README has it, is taken, and is then in no file but the encrypted one"""
    password = (box.root / "srv/rig/password").read_text(encoding="ascii")
    kept = re.sub(r"API_PASSWORD = .*", "API_PASSWORD_FILE = credential", box.config())
    box.write("/srv/answers/config.cfg", kept)
    for block in readme_blocks("### A password that systemd keeps"):
        box.type(block.replace("systemd-ask-password -n", "cat /srv/rig/password"))
    assert box.show("ActiveState") == "active", box.journal()[-600:]
    before = distinct(box)
    wait_for(lambda: distinct(box) > before, within_s=20, what="readings")
    assert password not in box.out("journalctl", "--no-pager", "--all", "--output=export"), "it is in the journal"
    found = files_with(box, password)
    assert found == [], found
