"""The file of the wire log: bounded, for all meters, and whatever the disk does, no meter waits for it."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import log_setup
from clock import Clock
from daemon import Daemon
from settings import load_settings
from tests.rig import PASSWORD, Rig, wait_for
from wire_recorder import WireRecorder
from xdm1041.wire_log import WireEvent


@contextmanager
def recording(path: Path) -> Iterator[WireRecorder]:
    recorder = WireRecorder(path, Clock())
    crashes: list[str] = []
    recorder.start(lambda: crashes.append("crash"))
    try:
        yield recorder
    finally:
        recorder.request_stop()
        assert recorder.join(Clock().mono_s() + 5)
    assert not crashes


def event(number: int, port: str = "/dev/ttyUSB0", size: int = 12) -> WireEvent:
    return WireEvent(t_mono_s=float(number), port=port, what="received", data=b"%0*d" % (size, number))


def written(path: Path) -> list[WireEvent]:
    return [WireEvent.of_line(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_every_event_of_every_port_is_written_in_order(tmp_path: Path) -> None:
    path = tmp_path / "wire.jsonl"
    events = [event(number, f"port {number % 2}") for number in range(500)]
    with recording(path) as recorder:
        for each in events:
            recorder.record(each)
    began, *rest = written(path)
    assert began.what == "note"
    assert began.why.startswith("it is 20")
    assert rest == events


def test_it_goes_on_behind_what_an_earlier_run_has_written(tmp_path: Path) -> None:
    path = tmp_path / "wire.jsonl"
    for number in (1, 2):
        with recording(path) as recorder:
            recorder.record(event(number))
    assert [each.what for each in written(path)] == ["note", "received", "note", "received"]


def test_nothing_is_made_before_the_first_event(tmp_path: Path) -> None:
    with recording(tmp_path / "wire.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_it_is_rotated_as_the_log_is_and_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_setup, "LOG_BYTES", 10_000)
    with recording(tmp_path / "wire.jsonl") as recorder:
        for number in range(1000):
            recorder.record(event(number, size=40))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["wire.jsonl", *(f"wire.jsonl.{number}" for number in range(1, 6))]
    assert all(file.stat().st_size <= 10_000 for file in files)
    newest_first = [files[0], *files[1:]]
    received = [[each for each in written(file) if each.what == "received"] for file in reversed(newest_first)]
    numbers = [int(each.data) for each in itertools.chain.from_iterable(received)]
    assert numbers == list(range(numbers[0], 1000))
    assert all(written(file)[0].what == "note" for file in files)


@pytest.mark.parametrize("what", ["no folder", "a folder in its place"])
def test_a_file_that_cannot_be_written_stops_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    path = tmp_path / "missing" / "wire.jsonl"
    if what == "a folder in its place":
        path.mkdir(parents=True)
    with recording(path) as recorder:
        for number in range(100):
            recorder.record(event(number))
    told = [record for record in caplog.records if "cannot be written" in record.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.WARNING
    assert str(path) in told[0].getMessage()


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="needs /dev/full")
def test_a_full_disk_stops_nothing_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "wire.jsonl"
    path.symlink_to("/dev/full")
    with recording(path) as recorder:
        for number in range(100):
            recorder.record(event(number))
    assert sum("No space left" in record.getMessage() for record in caplog.records) == 1


def test_it_writes_again_when_the_folder_is_there_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "later" / "wire.jsonl"
    with caplog.at_level(logging.WARNING), recording(path) as recorder:
        recorder.record(event(1))
        wait_for(lambda: "cannot be written" in caplog.text)
        path.parent.mkdir()
        recorder.record(event(2))
    assert "is written again" in caplog.text
    assert [each.what for each in written(path)] == ["note", "received", "note"]


def test_a_disk_that_hangs_costs_events_and_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire_recorder._MOST_WAITING", 10)
    recorder = WireRecorder(tmp_path / "wire.jsonl", Clock())
    for number in range(25):
        recorder.record(event(number))
    recorder.start(lambda: None)
    wait_for(lambda: (tmp_path / "wire.jsonl").exists())
    recorder.request_stop()
    assert recorder.join(Clock().mono_s() + 5)
    lines = written(tmp_path / "wire.jsonl")
    assert [int(each.data) for each in lines if each.what == "received"] == list(range(10))
    assert [each.why for each in lines if "missing" in each.why] == [
        "15 events are missing here: the disk was too slow"
    ]


def test_the_daemon_writes_all_that_passes_at_both_meters_into_one_file(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_wire_log": "wire.jsonl"}}, sample_ms=500)
        rig.start()
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
        events = written(tmp_path / "wire.jsonl")
        for meter, name in ((rig.voltage, "voltage"), (rig.current, "current")):
            mine = [event for event in events if event.port == str(tmp_path / name)]
            assert [mine[0].what, mine[-1].what] == ["opened", "closed"]
            sent = b"".join(event.data for event in mine if event.what == "sent")
            assert sent.decode().split("\n")[:-1] == [command.text for command in meter.received]
            received = b"".join(event.data for event in mine if event.what == "received").decode()
            served = [each.text for each in meter.served]
            assert [line for line in received.split("\r\n") if line in served] == served
    assert PASSWORD not in (tmp_path / "wire.jsonl").read_text(encoding="ascii")


def test_without_the_setting_there_is_no_recorder_at_all(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        daemon = Daemon(load_settings(rig.configure()), Clock(), lambda secret: None)
        assert daemon.wire_recorder is None
        daemon.outbox.close()


def test_a_wire_log_that_cannot_be_written_costs_the_daemon_nothing(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.configure({"XDM": {"xdm_wire_log": "missing/wire.jsonl"}})
        rig.start()
        rig.wait_for_intervals(2)
        assert rig.stop()[0] == 0
    lines = [line for line in rig.log.splitlines() if "missing/wire.jsonl" in line]
    assert len(lines) == 1
    assert "WARNING" in lines[0]
    assert "cannot be written" in lines[0]
