"""Every fault by its name, on real ports: it strikes, it ends, and the bench is as it was; and faults in time."""

from __future__ import annotations

import itertools
import random
import re
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from clock import Clock
from simulator.fault_schedule import FaultSchedule, Strike, random_episodes, random_schedule
from simulator.meter import Timing, VirtualMeter
from simulator.mishaps import MISHAPS, MeterPair
from simulator.ports import PtyPort

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs ptys, and files that root may not write")

_BOOTS_AT_ONCE = Timing(busy_windows=False, boot_s=0.0)
_SETTINGS = (b"FUNC1?", b"RANGE?", b"AUTO?", b"RATE?")
_SETTINGS_LOST = {"power cut, port alive", "power cut, port gone", "mode key", "range key", "auto key", "rate key"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[MeterPair]:
    """Two meters that are set up, and boot in no time."""
    ports = [
        PtyPort(
            VirtualMeter(lambda _mono_s: 0.0125, serial_number=serial_number, timing=_BOOTS_AT_ONCE),
            link=tmp_path / name,
        )
        for name, serial_number in (("voltage", "22511040"), ("current", "22511041"))
    ]
    with ports[0], ports[1]:
        pair = MeterPair(*ports)
        _set_up(pair)
        yield pair


def _set_up(pair: MeterPair) -> None:
    for place in pair.places.values():
        place.meter.feed(b"SYST:LOC\nCONF:VOLT:DC 50E-3\nRATE S\n")
    for meter in pair.places:
        _ask(pair, meter, b"\n*IDN?", b"*IDN?")  # by then they have been carried out; rubbish spoils the first line


def _ask(pair: MeterPair, meter: str, *questions: bytes, path: str = "") -> list[bytes] | str:
    """Return what a meter's port, or the one with this path, answers, or why there is none."""
    answers = []
    try:
        with serial.Serial(path or pair.places[meter].port.path, 115200, timeout=0.3, exclusive=True) as port:
            for question in questions:
                port.write(question + b"\n")
                answers.append(port.read_until(b"\n"))
    except (serial.SerialException, termios.error) as exc:  # the latter if it goes while it is being opened
        return str(exc)
    return answers


def _whole(pair: MeterPair, meter: str, serial_number: bytes) -> bool:
    return _ask(pair, meter, b"*IDN?", *_SETTINGS) == [
        b"OWON,XDM1041," + serial_number + b",V4.0.0,3\r\n",
        b'"VOLT"\r\n',
        b"50 mV\r\n",
        b"0\r\n",
        b"S\r\n",
    ]


@pytest.mark.parametrize("kind", MISHAPS)
def test_each_fault_begins_ends_and_leaves_the_bench_as_it_was(pair: MeterPair, kind: str) -> None:
    if kind == "stalled, then all at once":
        return  # it ends by itself, after up to 8 s: the meter's own tests have it
    assert _whole(pair, "voltage", b"22511040")
    MISHAPS[kind].begin(pair.places["voltage"], random.Random(1))()
    pair.restore()
    _set_up(pair)
    assert _whole(pair, "voltage", b"22511040")
    assert _whole(pair, "current", b"22511041")


def test_the_ports_of_a_pair_of_strikes_are_mended_whatever_the_order(pair: MeterPair) -> None:
    for kind in ("unplugged", "back under another name", "held by another program", "no permission", "cables swapped"):
        MISHAPS[kind].begin(pair.places["current"], random.Random(1))
        pair.restore()
        assert _whole(pair, "voltage", b"22511040")
        assert _whole(pair, "current", b"22511041")


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("unplugged", "No such file"),
        ("back under another name", "No such file"),
        ("no permission", "Permission denied"),
        ("held by another program", "exclusively lock"),
        ("silent", [b""]),
        ("wrong baud", [b""]),
        ("power cut, port alive", [b""]),
        ("another make on the port", [b"RIGOL TECHNOLOGIES,DM858,DM8A000000,00.01.00.00.01\r\n"]),
        ("a third meter on the port", [b"OWON,XDM1041,33333333,V4.0.0,3\r\n"]),
        ("cables swapped", [b"OWON,XDM1041,22511041,V4.0.0,3\r\n"]),
        ("same serial on both", [b"OWON,XDM1041,22511041,V4.0.0,3\r\n"]),
    ],
)
def test_what_a_fault_looks_like_from_the_port(pair: MeterPair, kind: str, answer: str | list[bytes]) -> None:
    path = pair.places["voltage"].port.path
    MISHAPS[kind].begin(pair.places["voltage"], random.Random(1))
    seen = _ask(pair, "voltage", b"*IDN?", path=path)
    assert seen == answer or (isinstance(seen, str) and isinstance(answer, str) and answer in seen)


def test_keys_and_power_cuts_lose_the_settings_and_a_key_pressed_twice_leaves_them(pair: MeterPair) -> None:
    right = _ask(pair, "voltage", *_SETTINGS)
    for kind in sorted(_SETTINGS_LOST):
        MISHAPS[kind].begin(pair.places["voltage"], random.Random(3))()
        assert _ask(pair, "voltage", b"*IDN?", *_SETTINGS)[1:] != right, kind
        _set_up(pair)
    MISHAPS["key pressed twice"].begin(pair.places["voltage"], random.Random(2))
    assert _ask(pair, "voltage", b"MEAS1?", *_SETTINGS) == [b"0.000000E+00\r\n", *right]


def test_a_schedule_plays_in_its_own_thread_each_fault_for_its_time(pair: MeterPair) -> None:
    strikes = [
        Strike(at_s=0.0, meter="voltage", kind="unplugged", duration_s=60.0),
        Strike(at_s=0.0, meter="current", kind="silent", duration_s=0.05),
        Strike(at_s=0.1, meter="current", kind="power cut, port alive", duration_s=60.0),
    ]
    schedule = FaultSchedule(pair, strikes, Clock())
    schedule.start()
    while not isinstance(_ask(pair, "voltage", b"*IDN?"), str):
        pass
    while _ask(pair, "current", b"*IDN?") != [b""]:
        pass
    assert isinstance(_ask(pair, "voltage", b"*IDN?"), str)
    schedule.stop()
    _set_up(pair)
    assert _whole(pair, "voltage", b"22511040")
    assert _whole(pair, "current", b"22511041")


def test_a_fault_of_a_few_replies_spoils_no_more(pair: MeterPair) -> None:
    strike = Strike(at_s=0.0, meter="voltage", kind="NaN or inf", duration_s=9.0, once=True, seed=3)
    end = strike.begin(pair)
    answers = _ask(pair, "voltage", *[b"MEAS1?"] * 4)
    whole = [isinstance(answer, bytes) and re.fullmatch(rb"\d\.\d{6}E[+-]\d\d\r\n", answer) for answer in answers]
    assert not whole[0]
    assert whole[3]
    end()
    assert strike.over_s == 0.0


def test_the_same_seed_draws_the_same_faults_and_all_of_them() -> None:
    first, again = (list(itertools.islice(random_episodes(7), 1500)) for _ in range(2))
    assert first == again
    assert {strike.kind for episode in first for strike in episode} == set(MISHAPS)
    assert {strike.meter for episode in first for strike in episode} == {"voltage", "current"}
    assert 0.2 < sum(len(episode) == 2 for episode in first) / 1500 < 0.4
    assert first != list(itertools.islice(random_episodes(8), 1500))


def test_a_random_schedule_leaves_time_between_its_episodes() -> None:
    strikes = random_schedule(1, count=50, gap_s=10.0)
    assert len(strikes) in (50, 51)
    assert strikes[0].at_s == 10.0
    for before, after in itertools.pairwise(strikes):
        assert after.at_s >= before.over_s + 10.0 or after.at_s <= before.at_s + before.duration_s + 0.5
