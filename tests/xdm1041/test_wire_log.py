"""The wire log: what passed over a real pty, byte for byte, and lines that come back as what they were."""

from __future__ import annotations

import json
import os
import pty
import tty

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from tests.scripted import ScriptedMeter
from xdm1041 import PortLost, PortUnavailable, ReplyTimeout
from xdm1041.transport import Transport
from xdm1041.wire_log import NotAWireLog, WireEvent, WireTap

ODD = bytes(range(256))


def tapped(port: str) -> tuple[Transport, list[WireEvent]]:
    clock = Clock()
    events: list[WireEvent] = []
    return Transport(port, clock, WireTap(events.append, clock).open), events


def told(events: list[WireEvent], what: str) -> bytes:
    return b"".join(event.data for event in events if event.what == what)


def test_every_byte_is_told_in_order_and_none_is_changed() -> None:
    reply = bytes(byte for byte in ODD if byte not in b"\n")[:100] + b"\r\n"
    with ScriptedMeter((b"*IDN?\n", reply), (b"MEAS1?\n", [b"-3.80", 0.05, b"3741E-05\r\n"])) as meter:
        transport, events = tapped(meter.path)
        transport.open()
        assert transport.query("*IDN?", 1.0) == reply
        assert transport.query("MEAS1?", 1.0) == b"-3.803741E-05\r\n"
        transport.close()
    assert [events[0].what, events[-1].what] == ["opened", "closed"]
    assert {event.port for event in events} == {meter.path}
    assert told(events, "sent") == b"*IDN?\nMEAS1?\n"
    assert told(events, "received") == reply + b"-3.803741E-05\r\n"
    times = [event.t_mono_s for event in events]
    assert times == sorted(times)


def test_the_time_of_a_late_reply_is_when_it_came() -> None:
    with ScriptedMeter((b"MEAS1?\n", [0.3, b"1.000000E+00\r\n"])) as meter:
        transport, events = tapped(meter.path)
        transport.open()
        with pytest.raises(ReplyTimeout):
            transport.query("MEAS1?", 0.1)
        transport.drain()
        transport.close()
    (sent,) = [event.t_mono_s for event in events if event.what == "sent"]
    came = [event.t_mono_s for event in events if event.what == "received"]
    assert came[0] - sent == pytest.approx(0.3, abs=0.05)


def test_a_port_that_cannot_be_opened_is_told_with_the_reason() -> None:
    transport, events = tapped("/dev/serial/by-path/not-there")
    with pytest.raises(PortUnavailable, match="by-path"):
        transport.open()
    (event,) = events
    assert event.what == "refused"
    assert "No such file" in event.why


def test_a_port_that_vanishes_is_told_and_the_error_goes_on() -> None:
    far, near = pty.openpty()
    tty.setraw(near)
    transport, events = tapped(os.ttyname(near))
    transport.open()
    os.close(near)
    os.close(far)
    with pytest.raises(PortLost):
        transport.query("MEAS1?", 0.5)
    assert [event.what for event in events] == ["opened", "failed", "closed"]
    assert events[1].why


def test_a_log_in_of_a_url_is_not_told() -> None:
    transport, events = tapped("socket://jane:secret@127.0.0.1:1")
    with pytest.raises(PortUnavailable):
        transport.open()
    assert events[0].port == "socket://127.0.0.1:1"
    assert "secret" not in events[0].line()


@given(st.binary(max_size=300), st.text(max_size=40), st.sampled_from(["sent", "received"]))
def test_a_line_gives_back_every_byte(data: bytes, port: str, what: str) -> None:
    event = WireEvent(t_mono_s=1234.5, port=port, what=what, data=data)
    assert event.line().isascii()
    assert "\n" not in event.line()
    assert WireEvent.of_line(event.line()) == event


def test_a_line_can_be_read_by_a_person() -> None:
    event = WireEvent(t_mono_s=12.3456789, port="/dev/ttyUSB1", what="received", data=b"-3.803741E-05\r\n")
    expected = {"t_mono_s": 12.345679, "port": "/dev/ttyUSB1", "direction": "received", "bytes": "-3.803741E-05\r\n"}
    assert json.loads(event.line()) == expected
    failed = WireEvent(t_mono_s=1.0, port="COM3", what="failed", why="OSError: gone")
    assert json.loads(failed.line()) == {"t_mono_s": 1.0, "port": "COM3", "event": "failed", "why": "OSError: gone"}
    assert WireEvent.of_line(failed.line()) == failed


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "not a JSON object"),
        ("rubbish", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"port": "x", "event": "opened"}', "t_mono_s is None"),
        ('{"t_mono_s": true, "port": "x", "event": "opened"}', "t_mono_s is True"),
        ('{"t_mono_s": NaN, "port": "x", "event": "opened"}', "t_mono_s is nan"),
        ('{"t_mono_s": 1, "event": "opened"}', "port is None"),
        ('{"t_mono_s": 1, "port": "x", "event": "eaten"}', "neither a direction"),
        ('{"t_mono_s": 1, "port": "x", "direction": "sent"}', "bytes is None"),
        ('{"t_mono_s": 1, "port": "x", "direction": "sent", "bytes": "\\u20ac"}', "from 0 to 255"),
        ('{"t_mono_s": 1, "port": "x", "direction": ["sent"], "bytes": ""}', "neither a direction"),
    ],
)
def test_a_line_that_is_none_says_why(line: str, why: str) -> None:
    with pytest.raises(NotAWireLog, match=why):
        WireEvent.of_line(line)
