"""The driver against a scripted meter: exactly which bytes it sends, and what it does with each answer."""

from __future__ import annotations

import itertools
import threading

import pytest

from clock import Clock
from tests.scripted import IDENTITY, Reply, ScriptedMeter
from xdm1041 import (
    XDM1041,
    Interrupted,
    Overload,
    ReplyMalformed,
    ReplyTimeout,
    SettingsDiffer,
    Unsettled,
    WrongInstrument,
    XDM1041Mode,
    XDM1041Rate,
)

SETTINGS: list[tuple[bytes, Reply]] = [
    (b"FUNC1?\n", b'"VOLT"\r\n'),
    (b"RANGE?\n", b"50 mV\r\n"),
    (b"AUTO?\n", b"0\r\n"),
    (b"RATE?\n", b"S\r\n"),
]
CONFIGURE: list[tuple[bytes, Reply]] = [(b"SYST:LOC\n", b""), (b"CONF:VOLT:DC 50E-3\n", b""), (b"RATE S\n", b"")]


def settling() -> list[tuple[bytes, Reply]]:
    """Zeros, the transient, then good values: what settling polls see at 100 ms in the first second and a little."""
    values = ["0.000000E+00"] * 3 + ["-3.059419E-03"] * 3 + ["4.991683E-04"] * 6
    return [(b"MEAS1?\n", f"{value}\r\n".encode()) for value in values]


def shunt_meter(path: str, *, rate: XDM1041Rate = XDM1041Rate.SLOW, serial_number: str | None = None) -> XDM1041:
    return XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, 1, path, rate=rate, serial_number=serial_number)


class _Settling(ScriptedMeter):
    """A scripted meter whose settling readings may be asked as often as the driver's clock makes it."""

    def __exit__(self, *details: object) -> None:
        self.steps = [step for step in self.steps if step[0] != b"MEAS1?\n"]
        super().__exit__(None, None, None)


def test_connect_identifies_configures_reads_back_and_settles() -> None:
    with _Settling(IDENTITY, *CONFIGURE, *SETTINGS, *settling()) as script:
        meter = shunt_meter(script.path)
        identity = meter.connect()
        assert (identity.model, identity.serial_number, identity.firmware) == ("XDM1041", "22511040", "V4.0.0")
        meter.disconnect()


def test_connect_again_only_looks_whether_the_settings_still_hold() -> None:
    again: list[tuple[bytes, Reply]] = [IDENTITY, *SETTINGS, *[(b"MEAS1?\n", b"4.991683E-04\r\n")] * 9]
    with _Settling(IDENTITY, *CONFIGURE, *SETTINGS, *settling(), *again) as script:
        meter = shunt_meter(script.path)
        meter.connect()
        script.steps = again
        started_mono_s = Clock().mono_s()
        meter.connect()
        assert 0.73 < Clock().mono_s() - started_mono_s < 1.2  # drained, and a transient ruled out
        meter.disconnect()


def test_a_transient_that_was_not_seen_to_begin_is_waited_out() -> None:
    zero, transient = (b"MEAS1?\n", b"0.000000E+00\r\n"), (b"MEAS1?\n", b"-3.059419E-03\r\n")
    good = [(b"MEAS1?\n", f"4.99{number}683E-04\r\n".encode()) for number in range(9)]
    with _Settling(zero, *[transient] * 3, *good) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        meter._settled = True
        meter.settle()
        assert len(script.steps) <= 5  # not over before 1 s, although only the first answer was zero
        meter.disconnect()


def _asked(*values: str) -> list[tuple[bytes, Reply]]:
    return [(b"MEAS1?\n", f"{value}\r\n".encode()) for value in values]


@pytest.mark.parametrize(
    ("answers", "value"),
    [
        (["1.234567E-02", "1.234567E-02"], 0.01234567),
        (["9.234567E-03", "1.234567E-02", "1.234567E-02"], 0.01234567),
        (["1.234567E-02", "4.234567E-02", "1.234667E-02"], 0.01234667),
        (["-1.234567E-02", "1.234567E-02", "1.234667E-02"], 0.01234567),
        (["1.234567E-02", "1.234667E-02", "1.234667E-01"], 0.01234667),
    ],
)
def test_a_garbled_digit_is_outvoted(answers: list[str], value: float) -> None:
    with ScriptedMeter(*_asked(*answers)) as script:
        meter = XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, 2, script.path)
        meter._transport.open()
        assert meter.read_val1_sure() == value
        meter.disconnect()


def test_a_meter_that_takes_its_time_is_asked_once() -> None:
    with ScriptedMeter((b"MEAS1?\n", [0.3, b"1.234567E-02\r\n"])) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        assert meter.read_val1_sure() == 0.01234567
        meter.disconnect()


def test_a_missing_reply_is_waited_for_before_anything_is_asked() -> None:
    late: tuple[bytes, Reply] = (b"MEAS1?\n", [2.2, b"1.234567E-02\r\n"])
    with ScriptedMeter(late, IDENTITY) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        started_mono_s = Clock().mono_s()
        with pytest.raises(ReplyTimeout):
            meter.read_val1_raw()
        meter._reach()
        assert 2.2 < Clock().mono_s() - started_mono_s < 3.5
        meter.disconnect()


def test_a_lost_reply_is_waited_for_four_seconds() -> None:
    with ScriptedMeter((b"MEAS1?\n", b""), IDENTITY) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        started_mono_s = Clock().mono_s()
        with pytest.raises(ReplyTimeout):
            meter.read_val1_raw()
        meter._reach()
        assert 4.0 < Clock().mono_s() - started_mono_s < 5.0
        meter.disconnect()


def test_one_garbled_digit_in_the_serial_number_makes_no_other_meter() -> None:
    garbled = (b"*IDN?\n", b"OWON,XDM1041,22511048,V4.0.0,3\r\n")
    with _Settling(garbled, IDENTITY, *CONFIGURE, *SETTINGS, *settling()) as script:
        meter = shunt_meter(script.path, serial_number="22511040")
        assert meter.connect().serial_number == "22511040"
        meter.disconnect()


@pytest.mark.parametrize(
    ("question", "answer"),
    [("FUNC1?", '"VOLT AC"'), ("FUNC1?", '"RES"'), ("RANGE?", "500 mV"), ("AUTO?", "1"), ("RATE?", "F")],
)
def test_settings_that_differ_are_found(question: str, answer: str) -> None:
    asked: list[tuple[bytes, Reply]] = []
    for sent, reply in SETTINGS:
        wrong = sent == f"{question}\n".encode()
        asked.append((sent, f"{answer}\r\n".encode() if wrong else reply))
        if wrong:
            break
    with ScriptedMeter(IDENTITY, *asked) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        meter.test_conn()
        with pytest.raises(SettingsDiffer, match=r"MODE_VOLTAGE_DC 50 mV slow"):
            meter.verify_settings()
        meter.disconnect()


def test_a_lost_configure_command_is_followed_by_range_as_second_try() -> None:
    wrong: list[tuple[bytes, Reply]] = [(b"FUNC1?\n", b'"VOLT"\r\n'), (b"RANGE?\n", b"500 mV\r\n")]
    with _Settling(IDENTITY, *CONFIGURE, *wrong, (b"RANGE 1\n", b""), *SETTINGS, *settling()) as script:
        meter = shunt_meter(script.path)
        meter.connect()
        meter.disconnect()


def test_a_meter_with_another_serial_number_is_refused_before_anything_is_set() -> None:
    with ScriptedMeter(IDENTITY, IDENTITY) as script:
        meter = shunt_meter(script.path, serial_number="99999999")
        with pytest.raises(WrongInstrument, match="22511040, not 99999999"):
            meter.connect()
        meter.disconnect()


def test_another_instrument_is_refused() -> None:
    with ScriptedMeter((b"*IDN?\n", b"KORAD,KD3005P,V6.9,SN:12345678\r\n")) as script:
        meter = shunt_meter(script.path)
        with pytest.raises(WrongInstrument, match="KORAD"):
            meter.connect()
        meter.disconnect()


def test_the_first_question_may_go_unanswered_or_come_back_with_noise() -> None:
    noisy = (b"*IDN?\n", b"\x00\x00\x00\x01OWON,XDM1041,22511040,V4.0.0,3\r\n")
    with ScriptedMeter((b"*IDN?\n", b""), noisy, IDENTITY) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        assert meter.test_conn().serial_number == "22511040"
        meter.disconnect()


def test_answer_mode_noise_after_set_commands_is_thrown_away() -> None:
    noisy = [(sent, b"OK/nOK/nOK/n") for sent, _ in CONFIGURE]
    with _Settling(IDENTITY, *noisy, *SETTINGS, *settling()) as script:
        meter = shunt_meter(script.path)
        meter.connect()
        meter.disconnect()


def test_readings_and_their_refusals() -> None:
    replies = [
        (b"MEAS1?\n", b"-3.803741E-05\r\n"),
        (b"MEAS1?\n", b"1E+9\r\n"),
        (b"MEAS1?\n", b"0.000000E+00\r\n"),
        (b"MEAS1?\n", b"NAN\r\n"),
        (b"MEAS1?\n", b"\r\n"),
        (b"MEAS1:SHOW?\n", b"-00.107mVDC\r\n"),
        (b"MEAS2?\n", b"NONe\r\n"),
        (b"MEAS2?\n", b"5.000000E+01\r\n"),
        (b"MEAS2:SHOW?\n", b"NONe\r\n"),
        (b"MEAS1?\n", b"-3.80"),
    ]
    with ScriptedMeter(*replies) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        assert meter.read_val1_raw() == -3.803741e-05
        for refusal in (Overload, Unsettled, ReplyMalformed, ReplyMalformed):
            with pytest.raises(refusal):
                meter.read_val1_raw()
        assert meter.read_val1_str() == "-00.107mVDC"
        assert meter.read_val2_raw() is None
        assert meter.read_val2_raw() == 50.0
        assert meter.read_val2_str() == "NONe"
        with pytest.raises(ReplyTimeout):
            meter.read_val1_raw()
        meter.disconnect()


def test_only_zeros_never_settle() -> None:
    zeros = [(b"MEAS1?\n", b"0.000000E+00\r\n")] * 60
    with _Settling(*zeros) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        with pytest.raises(Unsettled, match="exactly zero"):
            meter.settle()
        meter.disconnect()


def test_a_constant_input_settles_after_three_seconds() -> None:
    with _Settling(*[(b"MEAS1?\n", b"1.000000E-02\r\n")] * 60) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        meter.settle()
        assert 28 <= 60 - len(script.steps) <= 32
        meter.disconnect()


def test_the_public_names_users_know_set_what_they_say() -> None:
    checks = {
        "RES 500": (b'"RES"', b"500 \xa6\xb8"),
        "RES 5E3": (b'"RES"', b"5 K\xa6\xb8"),
    }
    steps: list[tuple[bytes, Reply]] = []
    for rate, argument in (("F", "RES 500"), ("F", "RES 5E3"), ("M", "RES 5E3"), ("S", "RES 5E3")):
        function, label = checks[argument]
        steps += [(b"SYST:LOC\n", b""), (f"CONF:{argument}\n".encode(), b""), (f"RATE {rate}\n".encode(), b"")]
        steps += [(b"FUNC1?\n", function + b"\r\n"), (b"RANGE?\n", label + b"\r\n"), (b"AUTO?\n", b"0\r\n")]
        steps += [(b"RATE?\n", f"{rate}\r\n".encode())]
    with ScriptedMeter(*steps) as script:
        meter = shunt_meter(script.path, rate=XDM1041Rate.FAST)
        meter._transport.open()
        meter.settle = lambda: None  # type: ignore[method-assign]  # settling has its own tests
        meter.set_mode(XDM1041Mode.MODE_RES)
        meter.set_range(2)
        meter.set_sample_speed_med()
        meter.set_sample_speed_slow()
        meter.disconnect()
    with pytest.raises(ValueError, match="has no range"):
        meter.set_range(9)


def test_interrupt_ends_settling_at_once() -> None:
    values = itertools.cycle([b"0.000000E+00\r\n"])
    with _Settling(*[(b"MEAS1?\n", next(values)) for _ in range(60)]) as script:
        meter = shunt_meter(script.path)
        meter._transport.open()
        threading.Timer(0.3, meter.interrupt).start()
        with pytest.raises(Interrupted):
            meter.settle()
        assert len(script.steps) > 50
        meter.disconnect()


def test_constructor_opens_nothing() -> None:
    assert XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, 5, "/dev/not-there").port == "/dev/not-there"
