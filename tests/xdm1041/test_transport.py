"""Bytes on a real pty: whole lines, deadlines, stale bytes, vanished ports."""

from __future__ import annotations

import errno
import os
import pty
import socket
import termios
import tty
from pathlib import Path

import pytest
import serial

from clock import Clock
from simulator.meter import VirtualMeter
from simulator.ports import PtyPort
from tests.scripted import ScriptedMeter
from xdm1041 import PortLost, PortUnavailable, ReplyMalformed, ReplyTimeout
from xdm1041.transport import Transport


def opened(port: str) -> Transport:
    transport = Transport(port, Clock())
    transport.open()
    return transport


def test_query_returns_the_whole_line() -> None:
    with ScriptedMeter((b"MEAS1?\n", b"-3.803741E-05\r\n")) as meter:
        transport = opened(meter.path)
        assert transport.query("MEAS1?", 1.0) == b"-3.803741E-05\r\n"
        transport.close()


def test_a_reply_in_pieces_is_put_together() -> None:
    with ScriptedMeter((b"MEAS1?\n", [b"-3.80", 0.1, b"3741E-05", 0.1, b"\r", 0.05, b"\n"])) as meter:
        transport = opened(meter.path)
        assert transport.query("MEAS1?", 2.0) == b"-3.803741E-05\r\n"
        transport.close()


def test_a_reply_without_its_line_end_is_a_timeout_and_never_a_value() -> None:
    with ScriptedMeter((b"MEAS1?\n", b"1.2")) as meter:
        transport = opened(meter.path)
        with pytest.raises(ReplyTimeout, match=r"only b'1\.2'"):
            transport.query("MEAS1?", 0.2)
        transport.close()


def test_silence_ends_at_the_deadline() -> None:
    clock = Clock()
    with ScriptedMeter((b"MEAS1?\n", b"")) as meter:
        transport = opened(meter.path)
        started_mono_s = clock.mono_s()
        with pytest.raises(ReplyTimeout):
            transport.query("MEAS1?", 0.3)
        assert 0.3 <= clock.mono_s() - started_mono_s < 1.0
        transport.close()


def test_a_late_reply_does_not_answer_the_next_question() -> None:
    with ScriptedMeter((b"MEAS1?\n", [0.3, b"-3.803741E-05\r\n"])) as meter:
        transport = opened(meter.path)
        with pytest.raises(ReplyTimeout):
            transport.query("MEAS1?", 0.1)
        assert transport.drain() == b"-3.803741E-05\r\n"
        transport.close()


def test_bytes_that_nobody_asked_for_refuse_the_next_question() -> None:
    with ScriptedMeter((b"MEAS1?\n", b"1.000000E+00\r\n1.000000E+00\r\n")) as meter:
        transport = opened(meter.path)
        transport.query("MEAS1?", 1.0)
        with pytest.raises(ReplyMalformed, match="unasked"):
            transport.query("MEAS1?", 1.0)
        transport.drain()
        transport.close()


def test_an_endless_line_is_refused() -> None:
    with ScriptedMeter((b"MEAS1?\n", b"9" * 2000)) as meter:
        transport = opened(meter.path)
        with pytest.raises(ReplyMalformed, match="no line end"):
            transport.query("MEAS1?", 2.0)
        transport.close()


def test_absent_port_says_what_to_look_at() -> None:
    with pytest.raises(PortUnavailable, match="by-path"):
        opened("/dev/serial/by-path/not-there")


@pytest.mark.parametrize("url", ["socket://127.0.0.1:1", "nonsense://x", "socket://"])
def test_a_url_that_cannot_be_opened_is_unavailable(url: str) -> None:
    with pytest.raises(PortUnavailable):
        opened(url)


def test_a_port_held_by_another_program_is_unavailable() -> None:
    with ScriptedMeter() as meter:
        holder = opened(meter.path)
        with pytest.raises(PortUnavailable, match="another program"):
            opened(meter.path)
        holder.close()
        opened(meter.path).close()


def test_a_vanished_port_is_lost() -> None:
    far, near = pty.openpty()
    tty.setraw(near)
    transport = opened(os.ttyname(near))
    os.close(near)
    os.close(far)
    with pytest.raises(PortLost):
        transport.query("MEAS1?", 0.5)
    assert not transport.is_open
    with pytest.raises(PortLost, match="not open"):
        transport.send("MEAS1?")


def test_a_serial_server_that_hangs_up_is_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = opened(f"socket://127.0.0.1:{server.getsockname()[1]}")
        server.accept()[0].close()
        with pytest.raises(PortLost):
            transport.query("MEAS1?", 1.0)


def test_no_descriptor_is_left_after_many_openings() -> None:
    with ScriptedMeter() as meter:
        opened(meter.path).close()
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (counting open descriptors)
        for _ in range(50):
            opened(meter.path).close()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_no_descriptor_is_left_after_a_thousand_replugs(tmp_path: Path) -> None:
    port = PtyPort(VirtualMeter(lambda _mono_s: 52.0), link=tmp_path / "meter")
    before = 0
    for number in range(1000):
        with port:
            transport = opened(port.path)
            if number % 10 == 0:
                transport.query("*IDN?", 1.0)
        with pytest.raises(PortLost):
            transport.query("MEAS1?", 0.5)
        with pytest.raises(PortUnavailable):
            opened(port.path)
        if number == 0:
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class _Failing:
    """What pyserial gives for a port whose driver fails in one call."""

    def __init__(self, call: str, error: Exception) -> None:
        self._call, self._error = call, error
        self.closed = False

    @property
    def in_waiting(self) -> int:
        return len(self._do("in_waiting"))

    def read(self, _count: int) -> bytes:
        return self._do("read")

    def write(self, _data: bytes) -> None:
        self._do("write")

    def close(self) -> None:
        self.closed = True
        raise self._error

    def _do(self, call: str) -> bytes:
        if call == self._call:
            raise self._error
        return b""


@pytest.mark.parametrize("call", ["in_waiting", "read", "write"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENODEV, "No such device"),
        OSError(errno.ENXIO, "No such device or address"),
        termios.error(errno.EIO, "Input/output error"),
        serial.SerialException("device reports readiness to read but returned no data"),  # a zero-byte read
        serial.SerialTimeoutException("Write timeout"),
        TypeError("'NoneType' object cannot be interpreted as an integer"),
    ],
    ids=lambda error: f"{type(error).__name__} {error.args[0]}",
)
def test_whatever_a_driver_fails_with_is_a_lost_port_and_closed(
    monkeypatch: pytest.MonkeyPatch, call: str, error: Exception
) -> None:
    failing = _Failing(call, error)
    monkeypatch.setattr(serial, "serial_for_url", lambda *_args, **_settings: failing)
    transport = opened("COM3")
    with pytest.raises(PortLost, match="COM3"):
        transport.query("MEAS1?", 0.1)
    assert failing.closed
    assert not transport.is_open


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "dialout"),
        (errno.ENOENT, "by-path"),
        (errno.ENODEV, "by-path"),
        (errno.ENXIO, "by-path"),
        (errno.EBUSY, "another program"),
        (errno.EIO, "unplugged"),
    ],
)
def test_a_port_that_cannot_be_opened_says_what_to_do(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def refuse(*_args: object, **_settings: object) -> None:
        raise serial.SerialException(number, os.strerror(number))

    monkeypatch.setattr(serial, "serial_for_url", refuse)
    with pytest.raises(PortUnavailable, match=words):
        opened("/dev/ttyUSB0")


def test_a_file_or_a_folder_is_no_port(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path):
        with pytest.raises(PortUnavailable):  # of which the first is termios.error, ENOTTY
            opened(str(path))
