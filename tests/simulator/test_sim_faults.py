"""The fault switches of a virtual meter's wire, byte for byte."""

from __future__ import annotations

import pytest

from simulator.faults import (
    GARBAGE,
    AnswerMode,
    Fault,
    cut,
    digit_changed,
    doubled,
    front_lost,
    garbled,
    late,
    lost,
    replaced_by,
    split,
    spoilt,
    with_the_next,
    wrong_baud,
)
from tests.simulator.bench import LATENCY_S, Bench

READING = b"1.250000E-02\r\n"


@pytest.mark.parametrize(
    ("fault", "wire"),
    [
        (lost(), b""),
        (cut(5, line_end=False), b"1.250"),
        (cut(5, line_end=True), b"1.250\r\n"),
        (doubled(), READING * 2),
        (replaced_by("NAN"), b"NAN\r\n"),
        (spoilt(), GARBAGE + READING),
        (spoilt(b"\x00", at=3), b"1.2\x0050000E-02\r\n"),
        (front_lost(), b".250000E-02\r\n"),
        (garbled(2, 3), b"1.\xcd\xca\xcf000E-02\r\n"),
        (garbled(11, 5), b"1.250000E-0\xcd\r\n"),
        (digit_changed(1), b"1.350000E-02\r\n"),
        (digit_changed(8, by=9), b"1.250000E-01\r\n"),
    ],
)
def test_a_fault_strikes_once_and_the_next_reply_is_whole(bench: Bench, fault: Fault, wire: bytes) -> None:
    bench.meter.faults.once(fault)
    assert bench.meter.faults.pending == 1
    assert bench.send("MEAS1?") == wire
    assert bench.meter.faults.pending == 0
    assert bench.send("MEAS1?") == READING


def test_a_split_reply_comes_in_two_pieces(bench: Bench) -> None:
    bench.meter.faults.once(split(4, 0.03))
    bench.meter.feed(b"MEAS1?\n")
    assert bench.wait(LATENCY_S) == READING[:4]
    assert bench.wait(0.029) == b""
    assert bench.wait(0.002) == READING[4:]


def test_a_late_reply_is_overtaken(bench: Bench) -> None:
    bench.meter.faults.once(late(1.0))
    assert bench.send("MEAS1?", "FUNC?") == b'"VOLT"\r\n'
    assert bench.wait(1.0) == READING


def test_two_replies_in_one_chunk(bench: Bench) -> None:
    bench.meter.faults.once(with_the_next())
    assert bench.send("MEAS1?") == b""
    assert bench.send("FUNC?") == READING + b'"VOLT"\r\n'


def test_faults_are_aimed_counted_and_stacked(bench: Bench) -> None:
    faults = bench.meter.faults
    faults.always(replaced_by("OWON,XDM1241,24412417,V4.3.0,3"), to="*idn?")
    faults.always(replaced_by("nan"), to="MEAS1?")
    faults.once(lost(), to="MEAS1?", times=2)
    assert bench.send("*IDN?", "FUNC?") == b'OWON,XDM1241,24412417,V4.3.0,3\r\n"VOLT"\r\n'
    assert bench.send("MEAS1?", "MEAS1?", "MEAS1?") == b"nan\r\n"
    faults.clear()
    assert bench.send("MEAS1?") == READING


@pytest.mark.parametrize(
    ("answer_mode", "noise"),
    [(AnswerMode.BARE, b"OK/nOK/nOK/n"), (AnswerMode.LINES, b"OK\r\nOK\r\nOK\r\n")],
)
def test_answer_mode_answers_every_non_query(bench: Bench, answer_mode: AnswerMode, noise: bytes) -> None:
    bench.meter.faults.answer_mode = answer_mode
    assert bench.send("RANGE 1", "MEAS2?", "hello world") == noise + b"NONe\r\n" + noise


def test_wrong_baud_rate_garbles_both_ways(bench: Bench) -> None:
    faults = bench.meter.faults
    faults.garbles_sent = True
    came = bench.send("MEAS1?")
    assert came == wrong_baud(READING)
    assert min(came) >= 0x80
    faults.garbles_received = True
    assert bench.send("MEAS1?") == b""
    faults.clear()
    assert bench.send("MEAS1?") == b"", "the garbage in the receive buffer spoils the first line"
    assert bench.send("MEAS1?") == READING


def test_the_record_tells_what_went_out_and_whether_it_was_intact(bench: Bench) -> None:
    faults = bench.meter.faults
    for fault in (lost(), cut(3, line_end=True), late(0.01)):
        faults.once(fault)
    bench.send("MEAS1?", "MEAS1?", "MEAS1?", "MEAS1?")
    assert [(served.text, served.intact) for served in bench.meter.served] == [
        ("1.250000E-02", False),
        ("1.250000E-02", False),
        ("1.250000E-02", True),
    ]


def test_a_fault_can_be_taken_back_before_it_strikes_and_after(bench: Bench) -> None:
    faults = bench.meter.faults
    lasting, single, other = faults.arm(lost()), faults.arm(lost(), times=1), faults.arm(lost(), to="FUNC1?", times=1)
    faults.disarm(single)
    faults.disarm(single)
    assert bench.send("MEAS1?") == b""
    faults.disarm(lasting)
    assert bench.send("MEAS1?") == READING
    assert bench.send("FUNC1?", "FUNC1?") == b'"VOLT"\r\n'
    faults.disarm(other)
    assert faults.pending == 0


def test_a_digit_changes_only_where_there_is_one(bench: Bench) -> None:
    bench.meter.faults.always(digit_changed(0))
    assert bench.send("FUNC?") == b'"VOLT"\r\n'
