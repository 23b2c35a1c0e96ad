"""What journal.py promises: every line once, with its fields; never a wait, whatever the journal does."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from events import Event, about
from journal import SOCKET, JournalHandler, is_journal
from log_setup import LOG_NAME, SecretFilter
from state_log import StateLog
from tests.clocks import ManualClock
from tests.rig import PROJECT

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs AF_UNIX")


class Journald:
    """A socket that stands in for journald's, and what arrives there, decoded as the protocol has it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "socket")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)

    def entries(self) -> list[dict[str, str]]:
        """Take what has arrived since the last time."""
        found = []
        while True:
            try:
                found.append(decoded(self._socket.recv(1_000_000)))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


def decoded(datagram: bytes) -> dict[str, str]:
    fields, rest = {}, datagram
    while rest:
        name, _, rest = rest.partition(b"\n")
        assert b"=" not in name
        size = int.from_bytes(rest[:8], "little")
        value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
        assert (len(value), end) == (size, b"\n")
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journald() -> Iterator[Journald]:
    with tempfile.TemporaryDirectory() as folder, closing(Journald(Path(folder))) as it:  # a short path
        yield it


def logger_to(handler: logging.Handler, *secrets: str) -> logging.Logger:
    logger = logging.Logger("meter_reader")
    handler.addFilter(SecretFilter(secrets))
    logger.addHandler(handler)
    return logger


def test_an_entry_has_its_fields(journald: Journald) -> None:
    with closing(JournalHandler(journald.path)) as handler:
        logger_to(handler).info("%s: is set up", "voltage meter", extra=about(Event.METER_READY, "voltage meter"))
    (entry,) = journald.entries()
    assert Path(entry.pop("CODE_FILE")).name == "test_journal.py"
    assert int(entry.pop("CODE_LINE")) > 0
    assert entry == {
        "MESSAGE": "voltage meter: is set up",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "powermonitormiddleware",
        "LOGGER": "meter_reader",
        "THREAD": "MainThread",
        "CODE_FUNC": "test_an_entry_has_its_fields",
        "EVENT": "meter_ready",
        "METER": "voltage",
        "SUBJECT": "voltage meter",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.WARNING, "4"), (logging.ERROR, "3"), (logging.CRITICAL, "2")],
)
def test_the_level_is_the_priority(journald: Journald, level: int, priority: str) -> None:
    with closing(JournalHandler(journald.path)) as handler:
        logger_to(handler).log(level, "text")
    assert [entry["PRIORITY"] for entry in journald.entries()] == [priority]


def test_a_trouble_can_be_followed_by_its_meter(journald: Journald) -> None:
    clock = ManualClock()
    with closing(JournalHandler(journald.path)) as handler:
        state = StateLog(logger_to(handler), "current meter", clock)
        state.failed("NoAnswer", "no answer")
        clock.advance(3601)
        state.failed("NoAnswer", "no answer")
        state.well("works again")
        StateLog(logger_to(handler), "cloud", clock).failed("down", "is down")
    entries = journald.entries()
    events = [entry["EVENT"].removeprefix("trouble_") for entry in entries]
    assert events == ["begins", "lasts", "ends", "begins"]
    assert [entry.get("METER") for entry in entries] == ["current"] * 3 + [None]
    assert [entry["SUBJECT"] for entry in entries] == ["current meter"] * 3 + ["cloud"]
    assert {entry["CODE_FUNC"] for entry in entries} == {"test_a_trouble_can_be_followed_by_its_meter"}
    assert entries[1]["MESSAGE"] == "current meter: still, after 1 h 0 min and 2 failures: no answer"


def test_a_traceback_is_shown_and_is_a_field_of_its_own(journald: Journald) -> None:
    with closing(JournalHandler(journald.path)) as handler:
        try:
            raise ValueError("hunter2secret")
        except ValueError:
            logger_to(handler, "hunter2secret").critical("it crashed", exc_info=True)
    (entry,) = journald.entries()
    assert entry["MESSAGE"] == f"it crashed\n{entry['EXCEPTION']}"
    assert entry["EXCEPTION"].startswith("Traceback")
    assert entry["EXCEPTION"].endswith("ValueError: ***")


def test_nothing_can_be_forged_and_no_secret_shows(journald: Journald) -> None:
    with closing(JournalHandler(journald.path)) as handler:
        said = "a\nPRIORITY=0\nMESSAGE=b \x1b[2J hunter2secret \udcff ä"
        logger_to(handler, "hunter2secret").info("it says %s", said)
    (entry,) = journald.entries()
    assert entry["PRIORITY"] == "6"
    assert entry["MESSAGE"] == "it says a\\nPRIORITY=0\\nMESSAGE=b \\x1b[2J *** \\udcff ä"


def test_a_journal_that_does_not_read_is_not_waited_for_and_the_loss_is_told(journald: Journald) -> None:
    """As long as journald is stopped its socket, which systemd holds, fills up and then takes nothing."""
    with closing(JournalHandler(journald.path)) as handler:
        logger = logger_to(handler)
        for number in range(5_000):
            logger.info("line %d", number)
        taken = [entry["MESSAGE"] for entry in journald.entries()]
        assert 0 < len(taken) < 5_000
        assert taken == [f"line {number}" for number in range(len(taken))]
        logger.info("again")
        told, again = journald.entries()
    assert told["MESSAGE"] == (
        f"the journal did not take {5_000 - len(taken)} lines before this one: the log file has them"
    )
    assert (told["PRIORITY"], again["MESSAGE"]) == ("4", "again")


def test_a_journal_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    unread, stderr = socket.socketpair()
    with tempfile.TemporaryDirectory() as folder, unread, stderr:
        unread.close()
        with closing(JournalHandler(f"{folder}/socket", stderr.fileno())) as handler:
            logger = logger_to(handler)
            logger.info("before")
            with closing(Journald(Path(folder))) as journald:
                logger.info("now")
                assert [entry["MESSAGE"] for entry in journald.entries()] == [
                    "the journal did not take 1 line before this one: the log file has them",
                    "now",
                ]


def test_without_its_socket_lines_with_a_priority_go_to_stderr(tmp_path: Path) -> None:
    reader, stderr = socket.socketpair()
    with reader, stderr, closing(JournalHandler(str(tmp_path / "none"), stderr.fileno())) as handler:
        logger = logger_to(handler, "hunter2secret")
        logger.warning("look: hunter2secret\nhere")
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.critical("it crashed", exc_info=True)
        lines = reader.recv(100_000).decode().splitlines()
    assert lines[:2] == ["<4>meter_reader - look: ***\\nhere", "<2>meter_reader - it crashed"]
    assert lines[2] == "<2>meter_reader - Traceback (most recent call last):"
    assert all(line.startswith("<2>meter_reader - ") for line in lines[1:])
    assert lines[-2:] == ["<2>meter_reader - ValueError: two", "<2>meter_reader - lines"]


def test_a_stderr_that_nobody_reads_is_not_waited_for_and_cuts_no_line_in_two(tmp_path: Path) -> None:
    reader, stderr = socket.socketpair()
    with reader, stderr, closing(JournalHandler(str(tmp_path / "none"), stderr.fileno())) as handler:
        logger = logger_to(handler)
        for number in range(5_000):
            logger.info("line %d %s", number, "x" * 1_000)
        reader.setblocking(False)
        taken = b""
        while True:
            try:
                taken += reader.recv(1_000_000)
            except BlockingIOError:
                break
        logger.info("again")
        rest = reader.recv(1_000_000)
    lines = (taken + rest).decode().splitlines()
    assert all(line.startswith("<6>meter_reader - ") for line in lines[:-2])
    assert lines[-2].startswith("<4>journal - the journal did not take ")
    assert lines[-1] == "<6>meter_reader - again"


def test_an_entry_too_large_for_a_datagram_goes_to_stderr(journald: Journald) -> None:
    reader, stderr = socket.socketpair()
    with reader, stderr, closing(JournalHandler(journald.path, stderr.fileno())) as handler:
        stderr.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
        logger_to(handler).info("x" * 300_000)
        assert reader.recv(100).startswith(b"<6>meter_reader - xxx")
    assert journald.entries() == []


def test_what_is_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("w") as file, (tmp_path / "other").open("w") as other:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert (is_journal(file), is_journal(file.fileno()), is_journal(other)) == (True, True, False)
        for nonsense in ("", "rubbish", "1:2:3"):
            monkeypatch.setenv("JOURNAL_STREAM", nonsense)
            assert not is_journal(file)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not is_journal(file)
    assert not is_journal(file)


# -- whole processes ---------------------------------------------------------------------------------------------------

_STARTED_BY_SYSTEMD = textwrap.dedent("""\
    import os, sys
    status = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    """)


def run_in_journal(folder: Path, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int | None, str]:
    """Run the daemon as systemd does, stdout and stderr in one socket. Return the exit code and what came there."""
    reader, stderr = socket.socketpair()
    with reader, stderr:
        command = [*before, sys.executable, "-c", _STARTED_BY_SYSTEMD, str(PROJECT / "backend_daemon.py"), *arguments]
        fd = stderr.fileno()
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=fd, stderr=fd)
        stderr.close()
        reader.settimeout(25)
        chunks = []
        try:
            while chunk := reader.recv(100_000):
                chunks.append(chunk)
            process.wait(5)
        finally:
            process.kill()
            process.wait()
        return process.returncode, b"".join(chunks).decode()


@pytest.mark.skipif(os.path.lexists(SOCKET), reason="the lines would go to the journal of this computer")
def test_a_bad_configuration_stands_in_the_journal_once(tmp_path: Path) -> None:
    (tmp_path / "config.cfg").write_text("[XDM]\nxdm_rate = none\n", encoding="utf-8")
    code, text = run_in_journal(tmp_path)
    assert code == 78
    assert text.count("xdm_rate = 'none'") == 1
    assert all(line.startswith("<2>backend_daemon - ") for line in text.splitlines())
    assert "xdm_rate = 'none'" in (tmp_path / LOG_NAME).read_text(encoding="utf-8")
    (tmp_path / "config.cfg").unlink()
    code, text = run_in_journal(tmp_path)
    assert (code, text.count("does not exist")) == (78, 1)


@pytest.mark.skipif(os.path.lexists(SOCKET), reason="the lines would go to the journal of this computer")
def test_the_demo_writes_each_line_once_although_its_terminal_is_the_journal(tmp_path: Path) -> None:
    code, text = run_in_journal(tmp_path, "--demo", "--seconds", "1")
    assert code == 0
    assert text.count("PowerMonitorMiddleware stops") == 1
    assert text.count("has stopped") == 1
    assert "<6>backend_daemon - PowerMonitorMiddleware stops\n" in text


def _may_mount() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/run"], check=False, capture_output=True)
    return tried.returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="needs to be root, and a mount namespace, for a journald of its own")
def test_the_daemon_speaks_to_the_socket_of_journald(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(Journald(Path(folder))) as journald:
        mount = (
            f"mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && mount --bind {folder} /run/systemd/journal"
        )
        before = ("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh")
        code, text = run_in_journal(tmp_path, "--demo", "--seconds", "1", before=before)
        entries = journald.entries()
    assert code == 0
    assert "backend_daemon - " not in text
    assert "start" in [entry.get("EVENT") for entry in entries]
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"powermonitormiddleware"}


_JOURNALD = "/lib/systemd/systemd-journald"
_WITH_JOURNALD = f"""\
mount -t tmpfs tmpfs /run && mkdir -p /run/log/journal /run/systemd/journal /run/systemd/journald.conf.d || exit
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\n' > /run/systemd/journald.conf.d/test.conf
timeout 30 {_JOURNALD} > /dev/null 2>&1 &
until_true() {{ for _ in $(seq 100); do "$@" && return; sleep 0.1; done; }}
found() {{ journalctl -D /run/log/journal -q -o json "$@"; }}
stopped() {{ found EVENT=stop | grep -q .; }}
until_true test -S /run/systemd/journal/socket
"$@"
until_true stopped
found METER=current EVENT=meter_ready > ready.json
found EVENT=stop > stop.json
kill $!
"""


@pytest.mark.skipif(
    not (_may_mount() and all(map(os.path.exists, (_JOURNALD, "/usr/bin/journalctl", "/etc/machine-id")))),
    reason="needs to be root, a mount namespace, and systemd-journald",
)
def test_a_real_journald_finds_a_line_by_its_meter_and_event_once(tmp_path: Path) -> None:
    before = ("unshare", "-m", "sh", "-c", _WITH_JOURNALD, "sh")
    _, text = run_in_journal(tmp_path, "--demo", "--seconds", "4", before=before)
    assert "backend_daemon - " not in text
    (entry,) = [json.loads(line) for line in (tmp_path / "ready.json").read_text(encoding="utf-8").splitlines()]
    assert entry["MESSAGE"].startswith("current meter: XDM1041, serial number ")
    assert (entry["PRIORITY"], entry["LOGGER"], entry["_TRANSPORT"]) == ("6", "meter_reader", "journal")
    assert entry["SYSLOG_IDENTIFIER"] == "powermonitormiddleware"
    (entry,) = [json.loads(line) for line in (tmp_path / "stop.json").read_text(encoding="utf-8").splitlines()]
    assert entry["MESSAGE"] == "PowerMonitorMiddleware has stopped"
