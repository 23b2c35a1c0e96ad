"""The meter's language: what is accepted as an answer, and that nothing else is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdm1041 import RANGES, Overload, ReplyMalformed, Unsettled, WrongInstrument, XDM1041Mode, XDM1041Rate, commands

DC_50MV = commands.range_of(XDM1041Mode.MODE_VOLTAGE_DC, 1)
DC_500V = commands.range_of(XDM1041Mode.MODE_VOLTAGE_DC, 5)


@pytest.mark.parametrize(
    ("text", "volts"),
    [
        ("-3.803741E-05", -3.803741e-05),  # recorded from firmware V4.0.0
        ("-1.112121E-04", -1.112121e-04),
        ("-2.758856E-05", -2.758856e-05),
        ("5.500000E-02", 0.055),  # the end of the 50 mV range, 10 % over its name
    ],
)
def test_reading_is_taken_as_it_stands(text: str, volts: float) -> None:
    assert commands.parse_reading(text, DC_50MV) == volts


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "1.2", "-3.803741E-0", "-3.803741E-", "-3.803741", "3.80374E-05", "+3.803741E-05", " 3.803741E-05",
        "3.803741E-05 ", "3,803741E-05", "3.803741e-05", "nan", "NAN", "inf", "-INF", "NONe", "overload", "OK", "1E+8",
        "38.03741E-05", "3.803741E-005", "3.803741E-05,1.0", "3.803741E-05-3.803741E-05", "-00.107mVDC", '"VOLT"',
        "३.803741E-05",
    ],
)  # fmt: skip
def test_anything_else_is_no_reading(text: str) -> None:
    with pytest.raises(ReplyMalformed):
        commands.parse_reading(text, DC_50MV)


@pytest.mark.parametrize("text", ["1E+9", "-1E+9", "1E+09", "1.000000E+09", "9.999999E+37", "6.000000E-02"])
def test_overload_is_no_value(text: str) -> None:
    with pytest.raises(Overload):
        commands.parse_reading(text, DC_50MV)


def test_a_value_the_range_cannot_give_is_no_value() -> None:
    assert commands.parse_reading("5.213000E+01", DC_500V) == 52.13
    with pytest.raises(Overload):
        commands.parse_reading("5.213000E+01", DC_50MV)


@pytest.mark.parametrize("text", ["0.000000E+00", "-0.000000E+00"])
def test_exact_zero_is_unsettled(text: str) -> None:
    with pytest.raises(Unsettled):
        commands.parse_reading(text, DC_50MV)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_full_match_or_a_typed_error(line: bytes) -> None:
    try:
        value = commands.parse_reading(commands.reply_text(line), DC_500V)
    except (ReplyMalformed, Overload, Unsettled):
        return
    stripped = re.sub(rb"^(n?OK(/n|[\r\n])*)+", b"", line).strip(b"\r\n ")
    assert re.fullmatch(rb"-?\d\.\d{6}E[+-]\d\d", stripped)
    assert value == float(stripped)


@given(st.floats(min_value=-549, max_value=549).filter(lambda volts: abs(volts) > 1e-60))
def test_every_reading_the_meter_can_print_is_read_back(volts: float) -> None:
    text = f"{volts:.6E}"
    assert commands.parse_reading(text, DC_500V) == float(text)


@given(st.floats(min_value=0.001, max_value=0.05), st.integers(min_value=0, max_value=12))
def test_a_reply_cut_at_any_place_is_never_a_value(volts: float, length: int) -> None:
    whole = f"{-volts:.6E}"
    with pytest.raises(ReplyMalformed):
        commands.parse_reading(whole[: min(length, len(whole) - 1)], DC_50MV)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"-1.112121E-04\r\n", "-1.112121E-04"),
        (b"-1.112121E-04\n", "-1.112121E-04"),
        (b"OK/nOK/nOK/n-1.112121E-04\r\n", "-1.112121E-04"),
        (b"nOKnOKnOK-1.112121E-04\r\n", "-1.112121E-04"),
        (b"5 K\xa6\xb8\r\n", "5 KΩ"),
        (b"50\xa6\xccF\r\n", "50μF"),
    ],
)
def test_reply_text_drops_line_end_and_answer_mode_noise(line: bytes, text: str) -> None:
    assert commands.reply_text(line) == text


@pytest.mark.parametrize("line", [b"\x00\x00\x00\x01-1.112121E-04\r\n", b"-1.11\x002121E-04\r\n", b"\x7f\r\n"])
def test_control_bytes_are_never_stripped_into_a_number(line: bytes) -> None:
    with pytest.raises(ReplyMalformed):
        commands.reply_text(line)


@pytest.mark.parametrize(
    ("text", "serial_number", "firmware"),
    [
        ("OWON,XDM1041,22511040,V4.0.0,3", "22511040", "V4.0.0"),
        ("OWON,XDM1041,25240645,V4.3.0,3", "25240645", "V4.3.0"),
        (",XDM1041,22511040,V4.0.0,3", "22511040", "V4.0.0"),
        ("OWON,XDM1241,24412417,V4.3.0,3", "24412417", "V4.3.0"),
    ],
)
def test_identity(text: str, serial_number: str, firmware: str) -> None:
    identity = commands.parse_identity(text)
    assert (identity.serial_number, identity.firmware) == (serial_number, firmware)


def test_another_instrument_is_refused() -> None:
    with pytest.raises(WrongInstrument):
        commands.parse_identity("RIGOL TECHNOLOGIES,DM858,DM8A000000,00.01.00.00.01")
    with pytest.raises(ReplyMalformed):
        commands.parse_identity("-1.112121E-04")


@pytest.mark.parametrize("number", [0, 7, -1])
def test_a_range_the_mode_does_not_have_is_an_error_here_because_the_meter_would_be_silent(number: int) -> None:
    with pytest.raises(ValueError, match="has no range"):
        commands.range_of(XDM1041Mode.MODE_VOLTAGE_DC, number)


def test_configure_sets_mode_and_range_in_one_command() -> None:
    arguments = [
        commands.configure_command(XDM1041Mode.MODE_VOLTAGE_DC, each) for each in RANGES[XDM1041Mode.MODE_VOLTAGE_DC]
    ]
    assert arguments == [f"CONF:VOLT:DC {value}" for value in ("50E-3", "500E-3", "5", "50", "500", "1000")]
    assert commands.configure_command(XDM1041Mode.MODE_DIODE, None) == "CONF:DIOD"


def test_every_command_fits_the_meters_buffer_and_none_is_dangerous() -> None:
    sets = [commands.configure_command(mode, each) for mode in RANGES for each in RANGES[mode]]
    fixed = [value for name, value in vars(commands).items() if name.isupper() and isinstance(value, str)]
    for command in [*sets, *fixed, *(commands.rate_command(rate) for rate in XDM1041Rate)]:
        assert 3 <= len(command) <= 49
        assert command.isascii()
        assert "INT" not in command
        assert "start" not in command.lower()


def test_settings_read_back() -> None:
    assert commands.function_matches('"VOLT"', XDM1041Mode.MODE_VOLTAGE_DC)
    assert commands.function_matches("VOLT", XDM1041Mode.MODE_VOLTAGE_DC)
    assert not commands.function_matches('"VOLT AC"', XDM1041Mode.MODE_VOLTAGE_DC)
    assert not commands.function_matches('"CURR"', XDM1041Mode.MODE_VOLTAGE_DC)
    assert commands.function_matches('"DIOD"', XDM1041Mode.MODE_CONT)  # swapped below V4.3.0
    assert DC_50MV is not None
    assert commands.range_matches("50 mV", DC_50MV)
    assert commands.range_matches("50mv", DC_50MV)
    assert not commands.range_matches("500 mV", DC_50MV)
    assert not commands.range_matches("50 V", DC_50MV)
    assert commands.rate_matches("S", XDM1041Rate.SLOW)
    assert commands.rate_matches("L", XDM1041Rate.SLOW)
    assert not commands.rate_matches("F", XDM1041Rate.SLOW)
    assert not commands.rate_matches("L", XDM1041Rate.FAST)
