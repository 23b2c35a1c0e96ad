"""The driver against a meter: a virtual one always, and the real ones whose ports the command line names.

    pytest tests/hardware --voltage-port /dev/serial/by-path/... --current-port /dev/serial/by-path/...

Leave the battery and the shunt connected as they are for measuring; nothing else may use the ports. The meters are set
to DC volts, 500 V and 50 mV, and stay so. Each real meter takes about a minute.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator

import pytest

from clock import Clock
from simulator.meter import VirtualMeter
from simulator.ports import make_port
from xdm1041 import (
    XDM1041,
    Overload,
    ReplyTimeout,
    SettingsDiffer,
    WrongInstrument,
    XDM1041Mode,
    XDM1041Rate,
)
from xdm1041.transport import Transport

RANGES = {"voltage": 5, "current": 1}
VIRTUAL_V = {"voltage": 52.1, "current": 0.0125}
CLOCK = Clock()


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


@pytest.fixture(params=["virtual current", "voltage", "current"])
def port(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A port with a meter, and the number of the range that suits what is connected to it."""
    kind, _, name = request.param.rpartition(" ")
    if kind == "virtual":
        with make_port(VirtualMeter(lambda _mono_s: VIRTUAL_V[name])) as port:
            yield port.address, RANGES[name]
        return
    address = request.config.getoption(f"--{name}-port")
    if address is None:
        pytest.skip(f"no --{name}-port: no real meter to test with")
    yield address, RANGES[name]


@pytest.fixture
def meter(port: tuple[str, int]) -> Iterator[XDM1041]:
    """The meter, connected."""
    address, range_number = port
    meter = XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, range_number, address)
    meter.connect()
    yield meter
    meter.disconnect()


def reading(meter: XDM1041) -> float | None:
    """Return a reading, ``None`` for an overload: the leads may be open."""
    try:
        return meter.read_val1_raw()
    except Overload:
        return None


def test_it_says_who_it_is(meter: XDM1041) -> None:
    assert meter.identity is not None
    assert meter.identity.model.upper() in ("XDM1041", "XDM1241")
    assert meter.identity.serial_number
    assert meter.identity == meter.test_conn()


def test_its_settings_are_what_they_were_set_to(meter: XDM1041) -> None:
    meter.verify_settings()
    meter.rate = XDM1041Rate.FAST
    with pytest.raises(SettingsDiffer):
        meter.verify_settings()
    meter.rate = XDM1041Rate.SLOW
    meter.verify_settings()


def test_its_readings_are_steady_and_soon(meter: XDM1041) -> None:
    took_s, values = [], []
    for _ in range(20):
        began_mono_s = CLOCK.mono_s()
        values.append(reading(meter))
        took_s.append(CLOCK.mono_s() - began_mono_s)
        pause(0.05)
    assert statistics.median(took_s) < 0.1
    assert max(took_s) < 1.0
    there = [value for value in values if value is not None]
    assert len(there) in (0, 20)
    assert meter.range is not None
    assert all(abs(value) <= 1.1 * meter.range.full_scale for value in there)


def test_it_connects_again_without_settling_anew_and_after_being_closed(meter: XDM1041) -> None:
    identity = meter.identity
    began_mono_s = CLOCK.mono_s()
    assert meter.connect() == identity
    assert CLOCK.mono_s() - began_mono_s < 1.5
    meter.disconnect()
    assert meter.connect() == identity
    meter.verify_settings()
    reading(meter)


def test_another_range_and_another_speed_and_back(meter: XDM1041) -> None:
    assert meter.range is not None
    number = meter.range.number
    before = reading(meter)
    meter.set_range(number + 1)
    meter.verify_settings()
    wider = reading(meter)
    meter.set_sample_speed_fast()
    meter.verify_settings()
    meter.set_sample_speed_slow()
    meter.set_range(number)
    meter.verify_settings()
    after = reading(meter)
    if before is not None and wider is not None and after is not None:
        step = meter.range.full_scale / 500
        assert wider == pytest.approx(before, abs=step + 0.02 * abs(before))
        assert after == pytest.approx(before, abs=step + 0.02 * abs(before))


def test_a_question_it_does_not_know_is_met_with_silence_and_spoils_nothing(port: tuple[str, int]) -> None:
    transport = Transport(port[0], CLOCK)
    transport.open()
    transport.drain()
    with pytest.raises(ReplyTimeout):
        transport.query("*MEAS1?", 0.5)
    assert b",XDM1" in transport.query("*IDN?", 1.0)
    transport.close()


def test_a_meter_with_another_serial_number_is_left_alone(port: tuple[str, int]) -> None:
    meter = XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, port[1], port[0], serial_number="no such number")
    with pytest.raises(WrongInstrument):
        meter.connect()
    meter.disconnect()


def test_a_change_made_behind_its_back_is_noticed_and_mended(meter: XDM1041) -> None:
    assert meter.range is not None
    meter._transport.send(f"RANGE {meter.range.number + 1}")
    pause(0.3)
    with pytest.raises(SettingsDiffer):
        meter.verify_settings()
    meter.connect()
    meter.verify_settings()


def test_zeros_after_a_change_never_count(meter: XDM1041) -> None:
    assert meter.range is not None
    before = reading(meter)
    meter._transport.send(f"RANGE {meter.range.number + 1}")
    meter._transport.send(f"RANGE {meter.range.number}")
    pause(0.1)
    meter.connect()
    after = reading(meter)
    if before is not None and after is not None:
        assert after == pytest.approx(before, abs=meter.range.full_scale / 500 + 0.02 * abs(before))
