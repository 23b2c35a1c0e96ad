"""Any bytes at all: the parser and the transport give what was sent or a typed error, and come back in time."""

from __future__ import annotations

import os
import pty
import re
import select
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clock import Clock
from tests.rig import wait_for
from xdm1041 import XDM1041, ReplyMalformed, ReplyTimeout, XDM1041Error, XDM1041Mode, commands, driver, transport
from xdm1041.transport import Transport

READING = re.compile(rb"-?\d\.\d{6}E[+-]\d\d")
NOISE = re.compile(rb"(?:n?OK(?:/n|[\r\n])*)*")
TIMEOUT_S = 0.08
SLACK_S = 2.0  # a busy machine; the bound that is proved is "soon after the deadline", not how soon
fuzz = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

volts = st.floats(min_value=-549, max_value=549).filter(lambda value: abs(value) > 1e-30)
whole = st.one_of(
    volts.map(lambda value: b"%.6E\r\n" % value),
    st.sampled_from([b'"VOLT"\r\n', b"50 mV\r\n", b"1E+9\r\n", b"OWON,XDM1041,22511040,V4.0.0,3\r\n", b"S\r\n"]),
)
rubbish = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"OK/nOK/nOK/n", b"OK\r\n", b"\0\0\0\1", b"-", b"1.2", b"\r\n", b"9" * 300, b"nan\r\n"]),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a reply with a few bytes lost, put in, changed or doubled."""
    reply = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(reply) - 1)))
        what = draw(st.sampled_from(["lose", "put", "change", "double", "cut"]))
        if what == "lose":
            del reply[at : at + draw(st.integers(1, 3))]
        elif what == "put":
            reply[at:at] = draw(rubbish)
        elif what == "change" and reply:
            reply[at] = draw(st.integers(0, 255))
        elif what == "double":
            reply[at:at] = reply
        else:
            del reply[at:]
    return bytes(reply)


# -- the parser -----------------------------------------------------------------------------------------------------


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(damaged())
def test_a_damaged_reply_is_the_number_it_spells_or_an_error(line: bytes) -> None:
    try:
        value = commands.parse_reading(commands.reply_text(line), None)
    except XDM1041Error:
        return
    text = line[NOISE.match(line).end() :].strip(b"\r\n ")  # type: ignore[union-attr]
    assert READING.fullmatch(text)
    assert value == float(text)


@given(volts, st.data())
def test_one_byte_too_few_or_too_many_is_never_a_number_but_for_the_sign(value: float, data: st.DataObject) -> None:
    text = f"{value:.6E}"
    first = 1 if text.startswith("-") else 0
    at = data.draw(st.integers(first, len(text) - 1))
    with pytest.raises(ReplyMalformed):
        commands.parse_reading(text[:at] + text[at + 1 :], None)
    character = data.draw(st.characters(codec="latin-1", exclude_characters="\r\n"))
    with pytest.raises(ReplyMalformed):
        commands.parse_reading(text[:at] + character + text[at:] if at else text + character, None)


@given(st.one_of(st.binary(max_size=80), damaged()))
def test_any_bytes_are_a_setting_or_an_identity_or_a_typed_error(line: bytes) -> None:
    try:
        text = commands.reply_text(line)
        commands.function_matches(text, XDM1041Mode.MODE_VOLTAGE_DC)
        identity = commands.parse_identity(text)
    except XDM1041Error:
        return
    assert identity.model.encode().upper() in (b"XDM1041", b"XDM1241")
    assert all(field.encode() in line for field in (identity.model, identity.serial_number, identity.firmware))


# -- the transport: bytes on a real pty -----------------------------------------------------------------------------

Chunks = list[tuple[bytes, float]]
chunks = st.lists(st.tuples(st.one_of(whole, rubbish, damaged()), st.sampled_from([0.0, 0.0, 0.002, 0.02])), max_size=4)


@pytest.fixture(autouse=True)
def _waits_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_QUIET_S", 0.04)
    monkeypatch.setattr(transport, "_POLL_S", 0.01)
    monkeypatch.setattr(driver, "_REPLY_TIMEOUT_S", TIMEOUT_S)


class _Far:
    """The far end of a pty: answers the first question with chunks, each after a pause, and the others whole."""

    def __init__(self, first: Chunks) -> None:
        self.answered = threading.Event()
        self.sent = b""
        self._first = first
        self._fd, self._near = pty.openpty()
        tty.setraw(self._near)
        self.path = os.ttyname(self._near)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        self._thread.join(10)
        os.close(self._fd)
        os.close(self._near)

    def _serve(self) -> None:
        received = b""
        while not self._done.is_set():
            if not select.select([self._fd], [], [], 0.01)[0]:
                continue
            received += os.read(self._fd, 4096)
            while b"\n" in received:
                _, _, received = received.partition(b"\n")
                self._answer()

    def _answer(self) -> None:
        for data, pause_s in self._first or [(b"+7.777777E+00\r\n", 0.0)]:
            self._done.wait(pause_s)
            os.write(self._fd, data)
            self.sent += data
        self._first = []
        self.answered.set()


@contextmanager
def far_end(first: Chunks) -> Iterator[tuple[_Far, Transport]]:
    far = _Far(first)
    near = Transport(far.path, Clock())
    near.open()
    try:
        yield far, near
    finally:
        near.close()
        far.close()


@fuzz
@given(chunks.filter(bool))
def test_a_question_has_the_first_whole_line_for_an_answer_or_a_typed_error_in_time(first: Chunks) -> None:
    clock = Clock()
    with far_end(first) as (far, near):
        began_mono_s = clock.mono_s()
        try:
            line = near.query("MEAS1?", TIMEOUT_S)
        except (ReplyTimeout, ReplyMalformed):
            line = None
        assert clock.mono_s() - began_mono_s < TIMEOUT_S + SLACK_S
        assert far.answered.wait(10)
        stream = b"".join(data for data, _ in first)
        if line is not None:
            assert line == stream[: stream.index(b"\n") + 1]


@fuzz
@given(chunks.filter(bool))
def test_what_came_before_never_answers_a_question_after_a_drain(first: Chunks) -> None:
    with far_end(first) as (far, near):
        near.send("MEAS1?")
        assert far.answered.wait(10)
        near.drain()
        assert near.query("MEAS1?", 5.0) == b"+7.777777E+00\r\n"


def _arrived(near: Transport) -> int:
    """Return how many bytes have come that no answer has used; the kernel takes its time."""
    assert near._serial is not None
    return len(near._received) + near._serial.in_waiting


@fuzz
@given(chunks.filter(bool))
def test_left_over_bytes_refuse_the_next_question(first: Chunks) -> None:
    with far_end(first) as (far, near):
        try:
            line = near.query("MEAS1?", TIMEOUT_S)
        except (ReplyTimeout, ReplyMalformed):
            return
        assert far.answered.wait(10)
        if len(line) < len(far.sent):
            wait_for(lambda: _arrived(near) == len(far.sent) - len(line), what="the rest")
            with pytest.raises(ReplyMalformed):
                near.query("MEAS1?", TIMEOUT_S)


@fuzz
@given(chunks.filter(bool))
def test_the_driver_gives_the_number_on_the_wire_or_a_typed_error(first: Chunks) -> None:
    with far_end(first) as (far, _near):
        _near.close()
        meter = XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, 5, far.path)
        meter._transport.open()
        try:
            value = meter.read_val1_raw()
        except XDM1041Error:
            return
        finally:
            meter.disconnect()
        line = b"".join(data for data, _ in first).partition(b"\n")[0]
        text = line[NOISE.match(line).end() :].strip(b"\r\n ")  # type: ignore[union-attr]
        assert READING.fullmatch(text)
        assert value == float(text)
