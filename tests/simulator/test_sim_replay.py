"""A wire log played back: by hand on a clock of its own, and before a real daemon, which must do what it did."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from clock import Clock
from simulator.faults import cut, doubled, late
from simulator.meter import Timing, VirtualMeter
from simulator.ports import HAS_PTYS, PtyPort
from simulator.replay import BadWireLog, PortRecording, ReplayedMeter, ReplayedPort, read_wire_logs
from tests.clocks import ManualClock
from tests.rig import CURRENT_SERIAL, PROJECT, SHUNT_OHM, Rig, wait_for
from tests.scripted import ScriptedMeter
from xdm1041.transport import Transport
from xdm1041.wire_log import CLOSED, FAILED, OPENED, RECEIVED, REFUSED, SENT, WireEvent, WireTap

Told = tuple[float, str, bytes]
SAMPLE = re.compile(r"PowerSample\(start_mono_s=([0-9.]+),")


def write_log(path: Path, *told: Told, port: str = "COM3") -> Path:
    events = [WireEvent(t_mono_s=at, port=port, what=what, data=data) for at, what, data in told]
    path.write_text("".join(f"{event.line()}\n" for event in events), encoding="ascii")
    return path


def read_log(folder: Path, *told: Told) -> PortRecording:
    (recording,) = read_wire_logs([write_log(folder / "wire.jsonl", *told)])
    return recording


# -- reading -----------------------------------------------------------------------------------------------------------


def test_questions_have_the_bytes_and_the_delays_that_followed_them(tmp_path: Path) -> None:
    recording = read_log(
        tmp_path,
        (10.0, OPENED, b""),
        (10.5, SENT, b"*IDN?\n"),
        (10.503, RECEIVED, b"O"),
        (10.504, RECEIVED, b"WON,...\r\n"),
        (11.0, SENT, b"MEAS1?\n"),
        (12.2, RECEIVED, b"\x00late\r\n"),
        (13.0, SENT, b"RATE S\n"),
        (13.1, RECEIVED, b"OK/n"),
        (14.0, SENT, b"MEAS1?\n"),
    )
    (session,) = recording.sessions
    assert [(each.text, [data for _, data in each.answers]) for each in session.exchanges] == [
        ("*IDN?", [b"O", b"WON,...\r\n"]),
        ("MEAS1?", [b"\x00late\r\n"]),
        ("RATE S", [b"OK/n"]),
        ("MEAS1?", []),
    ]
    assert [after_s for each in session.exchanges for after_s, _ in each.answers] == [
        pytest.approx(0.003),
        pytest.approx(0.004),
        pytest.approx(1.2),
        pytest.approx(0.05),  # nobody waited for it: half-way
    ]
    assert session.vanishes_after_s is None


def test_a_port_that_failed_was_away_until_half_way_between_two_attempts(tmp_path: Path) -> None:
    recording = read_log(
        tmp_path,
        (0.0, REFUSED, b""),
        (2.0, REFUSED, b""),
        (4.0, OPENED, b""),
        (4.3, SENT, b"*IDN?\n"),
        (4.4, RECEIVED, b"OWON\r\n"),
        (9.4, FAILED, b""),
        (9.4, CLOSED, b""),
        (9.9, REFUSED, b""),
        (10.9, OPENED, b""),
        (11.9, RECEIVED, b"\x00\x00\x00\x01"),
    )
    first, second = recording.sessions
    assert recording.absent_s == pytest.approx(3.0)
    assert first.vanishes_after_s == pytest.approx(2.6)  # after the question at 4.3: at 6.9, half-way from 4.4 to 9.4
    assert first.absent_s == pytest.approx(10.4 - 6.9)
    ((after_s, data),) = second.power_on
    assert after_s == pytest.approx(1.0)
    assert data == b"\x00\x00\x00\x01"
    assert second.vanishes_after_s is None


def test_several_files_go_on_where_the_one_before_ends_and_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    older = write_log(tmp_path / "wire.jsonl.1", (1.0, OPENED, b""), (2.0, SENT, b"*IDN?\n"))
    newer = write_log(tmp_path / "wire.jsonl", (2.1, RECEIVED, b"OWON\r\n"), (3.0, SENT, b"MEAS1?\n"))
    with newer.open("a", encoding="ascii") as file:
        file.write('{"t_mono_s": 3.1, "po')
    (recording,) = read_wire_logs([older, newer])
    assert [each.text for each in recording.sessions[0].exchanges] == ["*IDN?", "MEAS1?"]
    assert [data for _, data in recording.sessions[0].exchanges[0].answers] == [b"OWON\r\n"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "nothing is recorded in it"),
        (b'{"t_mono_s": 1, "port": "", "event": "note"}\n', "nothing is recorded in it"),
        (b"rubbish", "line 1: not a JSON object: 'rubbish'"),
        (b'{"t_mono_s": 1, "port": "x", "event": "opened"}\n[]\n', "line 2: not a JSON object"),
        (b'{"t_mono_s": 1, "port": "x", "event": "opened"}\n{"port": "x"}\n', "line 2: t_mono_s is None"),
        (b"\xff\xfe", "cannot be read as a wire log"),
        (
            b'{"t_mono_s": 9, "port": "x", "event": "opened"}\n{"t_mono_s": 1, "port": "x", "event": "opened"}\n',
            "line 2: time goes back here: the computer was restarted",
        ),
    ],
)
def test_rubbish_is_refused_with_the_line_and_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "wire.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadWireLog, match=re.escape(why)) as caught:
        read_wire_logs([path])
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWireLog, match="No such file"):
        read_wire_logs([tmp_path / "wire.jsonl"])


# -- answering ---------------------------------------------------------------------------------------------------------


class Played:
    """A replayed meter on a clock moved by hand; every reply of the recording comes after 10 ms."""

    def __init__(self, folder: Path, *exchanges: tuple[str, str]) -> None:
        told: list[Told] = [(0.0, OPENED, b"")]
        for number, (question, answer) in enumerate(exchanges, start=1):
            told.append((float(number), SENT, f"{question}\n".encode()))
            if answer:
                told.append((number + 0.01, RECEIVED, f"{answer}\r\n".encode()))
        self.clock = ManualClock()
        recording = read_log(folder, *told)
        self.meter = ReplayedMeter(recording.sessions, self.clock)
        self.meter.begin(recording.sessions[0])

    def ask(self, question: str) -> str:
        self.meter.feed(f"{question}\n".encode())
        assert self.meter.take_due() == b""
        self.clock.advance(0.011)
        return self.meter.take_due().decode().strip()


def test_each_question_gets_its_own_answer_in_recorded_order(tmp_path: Path) -> None:
    played = Played(tmp_path, ("MEAS1?", "1"), ("FUNC1?", "VOLT"), ("MEAS1?", ""), ("MEAS1?", "3"))
    assert [played.ask(question) for question in ("MEAS1?", "FUNC1?", "MEAS1?", "MEAS1?")] == ["1", "VOLT", "", "3"]
    assert played.meter.played.is_set()
    assert [played.ask(question) for question in ("MEAS1?", "FUNC1?")] == ["3", "VOLT"]  # the recording is over
    assert (played.meter.left_out, played.meter.strange) == (0, 0)


def test_another_question_than_the_next_takes_the_next_one_like_it(tmp_path: Path) -> None:
    played = Played(tmp_path, ("MEAS1?", "1"), ("MEAS1?", "2"), ("FUNC1?", "VOLT"), ("MEAS1?", "3"), ("FUNC1?", "CURR"))
    assert [played.ask(question) for question in ("MEAS1?", "FUNC1?", "MEAS1?")] == ["1", "VOLT", "3"]
    assert played.meter.left_out == 1


def test_a_question_that_is_not_near_is_answered_as_last_time_and_the_place_is_kept(tmp_path: Path) -> None:
    many = [("MEAS1?", str(number)) for number in range(60)]
    played = Played(tmp_path, ("RATE?", "S"), *many, ("RATE?", "F"))
    assert [played.ask(question) for question in ("RATE?", "MEAS1?", "RATE?", "MEAS1?")] == ["S", "0", "S", "1"]
    assert played.ask("BEEP?") == ""
    assert played.ask("MEAS1?") == "2"
    assert (played.meter.left_out, played.meter.strange) == (0, 2)


@pytest.mark.parametrize(
    "by_link", [pytest.param(True, marks=pytest.mark.skipif(not HAS_PTYS, reason="no ptys")), False]
)
def test_the_recorded_bytes_come_through_a_real_port_after_the_recorded_time(tmp_path: Path, by_link: bool) -> None:
    clock = Clock()
    events: list[WireEvent] = []
    odd = b"\x00\xff-1.2\xa6\xb8\r\n"
    with ScriptedMeter((b"*IDN?\n", [0.2, b"OWON,", 0.1, b"XDM\r\n"]), (b"MEAS1?\n", odd)) as meter:
        recorded = Transport(meter.path, clock, WireTap(events.append, clock).open)
        recorded.open()
        recorded.query("*IDN?", 1.0)
        recorded.query("MEAS1?", 1.0)
        recorded.close()
    path = tmp_path / "wire.jsonl"
    path.write_text("".join(f"{event.line()}\n" for event in events), encoding="ascii")
    (recording,) = read_wire_logs([path])
    with ReplayedPort(recording, tmp_path / "port" if by_link else None, clock) as port:
        transport = Transport(port.address, clock)
        transport.open()
        asked_mono_s = clock.mono_s()
        assert transport.query("*IDN?", 1.0) == b"OWON,XDM\r\n"
        assert clock.mono_s() - asked_mono_s == pytest.approx(0.3, abs=0.05)
        assert transport.query("MEAS1?", 1.0) == odd
        assert port.ended.wait(5)
        transport.close()


# -- before a real daemon ----------------------------------------------------------------------------------------------


def broken_replies(rig: Rig) -> None:
    rig.current.faults.once(cut(8, line_end=False), to="MEAS1?")
    rig.wait_for_log("current meter: works again")
    rig.current.faults.once(doubled(), to="MEAS1?")
    wait_for(lambda: rig.log.count("current meter: works again") == 2)


def late_reply(rig: Rig) -> None:
    rig.voltage.faults.once(late(1.2), to="MEAS1?")
    rig.wait_for_log("voltage meter: works again")


def power_cycle(rig: Rig) -> None:
    rig.current.power_cycle()
    rig.wait_for_log("current meter: works again")


def unplugged(rig: Rig) -> None:
    rig.voltage_port.unplug()
    rig.wait_for_log("voltage meter: /")
    rig.wait_for_intervals(1, "A")
    rig.voltage_port.plug_in()
    rig.wait_for_log("voltage meter: works again")


def behaviour(rig: Rig) -> tuple[list[str], list[str], list[str]]:
    """Return what the log says of the meters, without times and ports, and the voltages and currents of the samples."""
    said = []
    for line in rig.log.splitlines():
        _, name, level, text = line.split(" - ", 3)
        if name in ("meter_reader", "xdm1041.driver") and level != "DEBUG":
            text = text.replace(str(rig.folder), "")
            said.append(f"{level} {re.sub('after .* s [(]', 'after (', text)}")
    found_at = {float(found[1]): found.string for found in map(SAMPLE.search, rig.log.splitlines()) if found}
    samples = [found_at[start_mono_s] for start_mono_s in sorted(found_at)]
    voltages, currents = (
        [found[1] for line in samples if (found := re.search(rf"{name}=(-?[0-9.]+),", line))]
        for name in ("voltage_v", "current_a")
    )
    return said, voltages, currents


@pytest.mark.parametrize("trouble", [broken_replies, late_reply, power_cycle, unplugged])
def test_before_the_played_recording_a_daemon_does_what_it_did(tmp_path: Path, trouble: Callable[[Rig], None]) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    first.mkdir()
    again.mkdir()
    recorded = Rig(first, volts=lambda at: 50 + at % 1.0)
    boots_soon = Timing(boot_s=1.0)
    recorded.current = VirtualMeter(lambda at: 0.01 + at % 1 / 100, serial_number=CURRENT_SERIAL, timing=boots_soon)
    recorded.current_port = PtyPort(recorded.current, link=first / "current")
    with recorded:
        recorded.configure({"XDM": {"xdm_wire_log": "wire.jsonl"}}, sample_ms=500)
        recorded.start("--log-level", "DEBUG")
        recorded.wait_for_intervals(2)
        trouble(recorded)
        recorded.wait_for_intervals(1)
        recorded.stop()
    said, voltages, currents = behaviour(recorded)

    with Rig(again, plugged_in=False) as rig, ExitStack() as stack:
        ports = [
            stack.enter_context(ReplayedPort(recording, again / Path(recording.port).name, Clock()))
            for recording in read_wire_logs([first / "wire.jsonl"])
        ]
        rig.configure(sample_ms=500)
        rig.start("--log-level", "DEBUG")
        wait_for(lambda: all(port.ended.is_set() for port in ports), within_s=25)
        rig.stop()
        # How often a meter is asked while it settles depends on milliseconds: a sample more or less than before, and
        # a sample may be of a reading that was of settling before.
        assert all(port.meter.left_out <= 12 for port in ports)
        assert all(port.meter.strange == 0 for port in ports)
    said_again, voltages_again, currents_again = behaviour(rig)
    for meter in ("voltage", "current"):
        assert [line for line in said_again if meter in line] == [line for line in said if meter in line]
    assert len(said) > 3
    read_v = [str(each.value) for each in recorded.voltage.served]
    read_a = [str(each.value / SHUNT_OHM) for each in recorded.current.served]
    for read, before, after in ((read_v, voltages, voltages_again), (read_a, currents, currents_again)):
        assert abs(len(after) - len(before)) <= 3 < len(before)
        in_order = iter(read)
        assert all(value in in_order for value, _ in itertools.groupby(after))


# -- the program -------------------------------------------------------------------------------------------------------


def simulator(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *map(str, arguments)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not HAS_PTYS, reason="no ptys on this system")
def test_the_program_plays_a_log_says_where_and_when_it_is_over(tmp_path: Path) -> None:
    log = write_log(
        tmp_path / "wire.jsonl",
        (1.0, OPENED, b""),
        (2.0, SENT, b"*IDN?\n"),
        (2.1, RECEIVED, b"OWON,XDM1041,1,V4.0.0,3\r\n"),
        port="/dev/ttyUSB1",
    )
    process = simulator("--replay", log, "--seconds", 20)
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            said += process.stdout.readline()
        found = re.search(r"^# in place of /dev/ttyUSB1:\n(.+)\n", said, re.MULTILINE)
        assert found
        transport = Transport(found[1], Clock())
        transport.open()
        assert transport.query("*IDN?", 5.0) == b"OWON,XDM1041,1,V4.0.0,3\r\n"
        assert "The recording of /dev/ttyUSB1 is over" in process.stdout.readline()
        transport.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert not Path(found[1]).parent.exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--replay", "nowhere.jsonl"], "nowhere.jsonl: cannot be read as a wire log"),
        (["--replay", PROJECT / "README.md"], "cannot be read as a wire log"),
        (["--replay", PROJECT / "LICENSE", "--csv", "x"], "--csv and --reversed are for simulated ones"),
    ],
)
def test_the_program_refuses_what_it_cannot_play(arguments: list[object], why: str) -> None:
    _, errors = (process := simulator(*arguments)).communicate(timeout=20)
    assert process.returncode == 2
    assert why in errors
    assert "Traceback" not in errors
