"""The virtual meter: how it collects commands, which ones it knows, and its silence on all others."""

from __future__ import annotations

import pytest

from simulator.meter import Timing
from simulator.modes import Profile
from tests.simulator.bench import LATENCY_S, SETTLED_S, Bench

# -- collecting commands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b";", b"\x00", b"\x1f"])
def test_any_control_byte_or_semicolon_ends_a_command(bench: Bench, end: bytes) -> None:
    bench.meter.feed(b"FUNC?" + end)
    assert bench.wait(0.05) == b'"VOLT"\r\n'


def test_a_command_may_come_in_pieces(bench: Bench) -> None:
    for byte in b"MEAS1?\n":
        assert bench.wait(1.0) == b""
        bench.meter.feed(bytes([byte]))
    assert bench.wait(LATENCY_S) == b"1.250000E-02\r\n"


def test_semicolons_make_commands_of_their_own(bench: Bench) -> None:
    assert bench.send("AUTO?;RATE?;MEAS1?") == b"0\r\nS\r\n1.250000E-02\r\n"


def test_a_command_is_at_most_49_characters_long(bench: Bench) -> None:
    assert bench.send("AUTO?".rjust(49)) == b"0\r\n"
    assert bench.send("AUTO?".rjust(50)) == b""
    assert bench.send("x" * 50 + "AUTO?") == b"0\r\n"


def test_short_lines_and_illegal_characters_are_dropped_without_trace(bench: Bench) -> None:
    for junk in (b"", b"x?", b"\x7fMEAS1?", b"MEAS1?{", b"MEAS1?\xb5", b"~~~~"):
        bench.meter.feed(junk + b"\n")
    assert bench.wait(1.0) == b""
    assert [command.text for command in bench.meter.received] == ["CONF:VOLT:DC 50E-3"]


def test_the_eleventh_waiting_command_is_lost(bench: Bench) -> None:
    bench.meter.feed(b"AUTO?\n" * 10 + b"*IDN?\n")
    assert bench.wait(1.0) == b"0\r\n" * 10
    assert len(bench.meter.received) == 12


def test_a_burst_is_answered_out_of_turn_when_slots_are_served_in_order() -> None:
    bench = Bench(timing=Timing(busy_windows=False, serves_in_slot_order=True))
    bench.send(*["SYST:LOC"] * 7)
    bench.meter.feed(b"AUTO?;FUNC?;*IDN?;RATE?\n")
    assert bench.wait(1.0).split(b"\r\n")[:4] == [b"1", b"S", b'"VOLT"', b"OWON,XDM1041,22511040,V4.0.0,3"]


@pytest.mark.parametrize("query", ["MEAS1?", "meas?", "MEASure?", "measure1?", ":MEAS1?", "MeAs1?"])
def test_keywords_short_or_whole_in_any_case(bench: Bench, query: str) -> None:
    assert bench.ask(query) == "1.250000E-02"


@pytest.mark.parametrize(
    "line",
    [
        "*MEAS1?", "MEASU1?", "MEAS3?", "MEAS1", "*IDN", "RANG?", "CONF?", "VAL1?", "FETC?", "READ?", "SYST:ERR?",
        "*OPC?", "*TST?", "*RST", "RANGE:AUTO?", "MEAS:VOLT:DC?", "VOLT:DC:RANG 5", "hello world", "::FUNC?",
    ],
)  # fmt: skip
def test_silence_and_no_change_for_anything_else(bench: Bench, line: str) -> None:
    assert bench.send(line) == b""
    assert bench.send("FUNC?;RANGE?;AUTO?;RATE?") == b'"VOLT"\r\n50 mV\r\n0\r\nS\r\n'


# -- modes, ranges, rates -------------------------------------------------------------------------------------------


def test_it_wakes_up_in_dc_volts_auto_slow() -> None:
    assert Bench(0.0).send("FUNC1?;AUTO1?;RATE?;FUNC2?;MEAS2?") == b'"VOLT"\r\n1\r\nS\r\nNONe\r\nNONe\r\n'


@pytest.mark.parametrize(
    ("number", "value", "label"),
    [
        (1, "50E-3", b"50 mV"),
        (2, "0.5", b"500 mV"),
        (3, "5", b"5 V"),
        (4, "50", b"50 V"),
        (5, "5E2", b"500 V"),
        (6, "1000", b"1000 V"),
        (1, "MIN", b"50 mV"),
        (6, "MAXimum", b"1000 V"),
    ],
)
def test_dc_volt_ranges_by_number_and_by_value(number: int, value: str, label: bytes) -> None:
    assert Bench().send(f"RANGE {number}", "RANGE?", "AUTO?") == label + b"\r\n0\r\n"
    assert Bench().send(f"CONF:VOLT:DC {value}", "RANGE1?", "AUTO?") == label + b"\r\n0\r\n"


@pytest.mark.parametrize("line", ["CONF:VOLT:AC 0.04", "CONF:VOLT:AC 500V", "CONF:VOLT:DC 7", "RANGE 0", "RANGE 7",
                                  "RANGE x", "RANGE", "RATE L", "RATE"])  # fmt: skip
def test_what_is_no_range_or_rate_changes_nothing(bench: Bench, line: str) -> None:
    assert bench.send(line, "FUNC?", "RANGE?", "AUTO?", "RATE?") == b'"VOLT"\r\n50 mV\r\n0\r\nS\r\n'


def test_each_mode_remembers_its_range_and_auto(bench: Bench) -> None:
    bench.send("CONF:VOLT:AC 50", "CONF:CURR:DC 5", "AUTO")
    assert bench.send("CONF:VOLT:DC", "RANGE?", "AUTO?") == b"50 mV\r\n0\r\n"
    assert bench.send("CONF:VOLT:AC DEF", "RANGE?", "AUTO?") == b"50 V\r\n0\r\n"
    assert bench.send("CONF:CURR:DC", "AUTO?") == b"1\r\n"


def test_rate_is_set_by_s_m_f_where_there_is_one(bench: Bench) -> None:
    assert bench.send("RATE f", "RATE?", "CONF:CAP", "RATE S", "RATE?", "CONF:RES", "RATE M", "RATE?") == (
        b"F\r\nF\r\nM\r\n"
    )


@pytest.mark.parametrize(
    ("line", "func", "label"),
    [
        ("CONF:VOLT:AC 750", b'"VOLT AC"', b"750 V"),
        ("CONF:CURR:AC 500E-6", b'"CURR AC"', b"500 uA"),
        ("CONFigure:CURRent:DC 10", b'"CURR"', b"10 A"),
        ("CONF:RES 5E3", b'"RES"', b"5 K\xa6\xb8"),
        ("CONF:CAP 5E-6", b'"CAP"', b"5\xa6\xccF"),
        ("CONF:TEMP:RTD PT100", b'"TEMP"', b"Pt100"),
        ("CONF:FREQ", b'"FREQ"', None),
        ("CONF:CURR", b'"CURR"', b"5 A"),
    ],
)
def test_the_other_modes(line: str, func: bytes, label: bytes | None) -> None:
    expected = func + b"\r\n" + (label + b"\r\n" if label else b"")
    assert Bench().send(line, "FUNC?", "RANGE?") == expected


def test_diode_and_continuity_are_swapped_before_v4_3_0_and_have_no_range() -> None:
    lines = ("CONF:DIOD", "FUNC?", "RANGE?", "MEAS1?", "MEAS1:SHOW?", "CONF:CONT", "FUNC?", "RANGE?")
    for profile, first, second in (
        (Profile.V4_2_0, b'"CONT"', b'"DIOD"'),
        (Profile.V4_3_0, b'"DIOD"', b'"CONT"'),
    ):
        bench = Bench(profile=profile)
        bench.send(lines[0])
        bench.wait(SETTLED_S)
        assert bench.send(*lines[1:]) == first + b"\r\n1E+9\r\nopen\r\n" + second + b"\r\n"


def test_second_display_only_in_ac(bench: Bench) -> None:
    assert bench.send('FUNC2 "FREQ"', "FUNC2?") == b"NONe\r\n"
    assert bench.send("CONF:VOLT:AC", 'FUNC2 "FREQ"', "FUNC2?") == b"FREQ\r\n"
    assert bench.send('FUNC2 "NONe"', "FUNC2?") == b"NONe\r\n"


def test_beeper_says_no_for_on(bench: Bench) -> None:
    assert bench.send("SYST:BEEP:STAT?", "SYST:BEEP:STAT ON", "SYST:BEEP:STAT?") == b"OFF\r\nNO\r\n"


def test_time_and_date_come_with_an_empty_line_on_v4_0_0_alone(bench: Bench) -> None:
    assert bench.send("SYST:TIME?", "SYST:DATE?") == b"time = 12, 54, 53\r\n\r\ndate = 2019, 3, 30\r\n\r\n"
    assert Bench(profile=Profile.V4_3_0).send("SYST:TIME?") == b""
