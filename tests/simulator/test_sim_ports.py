"""The ports of the virtual meters through real ptys, sockets and pyserial, and the program that runs them by hand."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial

from simulator.faults import replaced_by, split, with_the_next
from simulator.meter import POWER_ON_BYTES, STEADY, Chatterbox, Timing, VirtualMeter
from simulator.ports import HAS_PTYS, Port, PtyPort, TcpPort, make_port

_ROOT = Path(__file__).parents[2]
_IDENTITY = b"OWON,XDM1041,22511040,V4.0.0,3\r\n"
_KINDS = [
    pytest.param(PtyPort, id="pty", marks=pytest.mark.skipif(not HAS_PTYS, reason="no ptys on this system")),
    pytest.param(TcpPort, id="tcp"),
]


@pytest.fixture(params=_KINDS)
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    """A plugged-in port with a meter that boots in no time."""
    kind: Callable[[VirtualMeter], Port] = request.param
    meter = VirtualMeter(lambda _mono_s: 0.0125, noise_steps=0.0, timing=Timing(busy_windows=False, boot_s=0.0))
    with kind(meter) as port:
        yield port


def _open(port: Port) -> serial.SerialBase:
    device = serial.serial_for_url(port.address, baudrate=115200, timeout=5, write_timeout=5)
    assert isinstance(device, serial.SerialBase)
    return device


def _ask(device: serial.SerialBase, line: bytes) -> bytes:
    device.write(line + b"\n")
    return bytes(device.read_until(b"\n"))


def test_a_meter_answers_through_the_port(port: Port) -> None:
    with _open(port) as device:
        assert _ask(device, b"*IDN?") == _IDENTITY
        device.write(b"CONF:VOLT:DC 50E-3\r\n")
        assert _ask(device, b"RANGE?") == b"50 mV\r\n"
        assert _ask(device, b"MEAS1?") == b"0.000000E+00\r\n"


def test_every_byte_passes_unchanged_and_none_is_echoed(port: Port) -> None:
    with _open(port) as device:
        for byte in range(256):
            device.write(bytes([byte]))
        assert _ask(device, b"\n*IDN?") == _IDENTITY
        device.write(b"CONF:RES 500\n")
        assert _ask(device, b"RANGE?") == b"500 \xa6\xb8\r\n"


def test_the_port_survives_being_closed_and_opened_again(port: Port) -> None:
    for _ in range(5):
        with _open(port) as device:
            assert _ask(device, b"*IDN?") == _IDENTITY


def test_chunks_arrive_when_and_as_the_meter_sends_them(port: Port) -> None:
    with _open(port) as device:
        port.meter.faults.once(split(4, 0.3))
        asked_s = time.monotonic()
        assert _ask(device, b"*IDN?") == _IDENTITY
        assert time.monotonic() - asked_s >= 0.3
        port.meter.faults.once(with_the_next())
        device.write(b"FUNC?\nAUTO?\n")
        assert device.read_until(b"1\r\n") == b'"VOLT"\r\n1\r\n'


def test_bytes_that_nobody_asked_for_arrive_too(port: Port) -> None:
    with _open(port) as device:
        assert _ask(device, b"*IDN?") == _IDENTITY
        port.meter.power_cycle()
        assert device.read(4) == POWER_ON_BYTES


def test_an_unplugged_port_fails_and_works_again_when_plugged_in(port: Port) -> None:
    with _open(port) as device:
        assert _ask(device, b"*IDN?") == _IDENTITY
        port.unplug()
        # No write here: pyserial leaks the socket when it closes one that has been reset.
        with pytest.raises(serial.SerialException):
            device.read(1)
    assert not _exists(port)
    port.plug_in()
    assert _exists(port)
    with _open(port) as device:
        assert _ask(device, b"*IDN?") == _IDENTITY


def _exists(port: Port) -> bool:
    if isinstance(port, PtyPort):
        return Path(port.path).exists()
    try:
        socket.create_connection(("127.0.0.1", int(port.address.rpartition(":")[2])), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_what_is_said_while_unplugged_is_lost(port: Port) -> None:
    port.unplug()
    port.meter.power_cycle()
    port.plug_in()
    with _open(port) as device:
        assert _ask(device, b"*IDN?") == _IDENTITY


def test_unplug_plug_in_and_stop_may_be_repeated(port: Port) -> None:
    port.plug_in()
    for _ in range(3):
        port.unplug()
        port.unplug()
        port.plug_in()
    port.stop()
    port.stop()
    before = threading.active_count()
    port.start()
    assert threading.active_count() == before + 1


def test_a_reader_that_does_not_read_does_not_block_the_meter(port: Port) -> None:
    meter = port.meter
    meter.faults.always(replaced_by("x" * 100_000), to="MEAS1?")
    with _open(port) as device:
        for asked in range(1, 101):
            device.write(b"MEAS1?\n")
            _wait_until(lambda asked=asked: len(meter.served) == asked)  # type: ignore[misc]
    port.unplug()
    port.plug_in()
    with _open(port) as device:
        assert _ask(device, b"*IDN?") == _IDENTITY


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen within 10 s"
        threading.Event().wait(0.002)


@pytest.mark.skipif(not HAS_PTYS, reason="no ptys on this system")
def test_a_link_gives_a_port_a_name_of_its_own_that_comes_and_goes(tmp_path: Path) -> None:
    link = tmp_path / "ttyUSB1"
    link.symlink_to("/dev/left-behind-by-a-killed-run")
    port = PtyPort(VirtualMeter(lambda _mono_s: 0.0, timing=STEADY), link=link)
    with port:
        assert port.path == port.address == str(link)
        with _open(port) as device:
            assert _ask(device, b"*IDN?") == _IDENTITY
        port.unplug()
        assert not link.is_symlink()
        port.link = tmp_path / "ttyUSB3"
        port.plug_in()
        with _open(port) as device:
            assert _ask(device, b"*IDN?") == _IDENTITY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HAS_PTYS, reason="no ptys on this system")
def test_a_link_never_replaces_a_file(tmp_path: Path) -> None:
    taken = tmp_path / "precious"
    taken.write_text("data")
    with pytest.raises(FileExistsError):
        PtyPort(VirtualMeter(lambda _mono_s: 0.0), link=taken).start()
    assert taken.read_text() == "data"


@pytest.mark.skipif(not HAS_PTYS, reason="no ptys on this system")
def test_a_port_can_be_held_by_another_program_and_be_let_go(tmp_path: Path) -> None:
    with PtyPort(VirtualMeter(lambda _mono_s: 0.0, timing=STEADY), link=tmp_path / "ttyUSB1") as port:
        port.unplug()
        port.held = True
        port.plug_in()
        with pytest.raises(serial.SerialException, match="exclusively lock"):
            serial.Serial(port.path, exclusive=True)
        port.held = False
        with serial.Serial(port.path, exclusive=True), pytest.raises(BlockingIOError):
            port.held = True


@pytest.mark.skipif(sys.platform != "linux", reason="a file that root may not write is a thing of Linux")
def test_a_port_can_be_forbidden_even_to_root(tmp_path: Path) -> None:
    port = PtyPort(VirtualMeter(lambda _mono_s: 0.0, timing=STEADY), link=tmp_path / "ttyUSB1")
    port.forbidden = True
    with port:
        with pytest.raises(serial.SerialException, match="Permission denied"):
            serial.Serial(port.path)
        port.unplug()
        port.forbidden = False
        port.plug_in()
        with _open(port) as device:
            assert _ask(device, b"*IDN?") == _IDENTITY


def test_another_device_on_the_port_talks_without_being_asked() -> None:
    with make_port(Chatterbox(b"T=21.5\r\n", b"T=21.6\r\n", every_s=0.02)) as port, _open(port) as device:
        device.write(b"*IDN?\n")
        came = device.read_until(b"T=21.6\r\nT=21.5\r\nT=21.6\r\n")
        assert set(came.splitlines()[1:]) == {b"T=21.5", b"T=21.6"}


def test_a_tcp_port_keeps_its_url() -> None:
    with TcpPort(VirtualMeter(lambda _mono_s: 0.0)) as port:
        url = port.url
        assert re.fullmatch(r"socket://127\.0\.0\.1:\d+", url)
        port.unplug()
        port.plug_in()
        assert port.url == url


def test_make_port_gives_what_the_system_has() -> None:
    assert isinstance(make_port(VirtualMeter(lambda _mono_s: 0.0)), PtyPort if HAS_PTYS else TcpPort)


def test_an_idle_port_costs_no_time(port: Port) -> None:
    with _open(port) as device:
        assert _ask(device, b"*IDN?") == _IDENTITY
        before_s = time.process_time()
        threading.Event().wait(1.0)
        assert time.process_time() - before_s < 0.2


# -- python3 -m simulator -------------------------------------------------------------------------------------------


def _simulator(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [(), ("--tcp", "--profile", "4.3.0")])
def test_run_by_hand_it_prints_ports_that_work_and_ends_cleanly(
    arguments: tuple[str, ...], number: signal.Signals
) -> None:
    with _simulator(*arguments) as process:
        assert process.stdout is not None
        text = "".join(iter(process.stdout.readline, "Ctrl-C ends them.\n"))
        address = re.search(r"^xdm_current_port = (.*)$", text, re.MULTILINE)
        assert address is not None
        with serial.serial_for_url(address[1], baudrate=115200, timeout=5) as device:
            assert _ask(device, b"*IDN?").startswith(b"OWON,XDM1041,22511041,V4.")
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    "arguments",
    [("--nonsense",), ("--profile", "9"), ("--seconds", "0"), ("--csv", "absent.csv"), ("--tcp", "--link-dir", "/")],
)
def test_bad_arguments_exit_with_2_and_a_reason(arguments: tuple[str, ...]) -> None:
    with _simulator(*arguments) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "error:" in errors
    assert "Traceback" not in errors


def test_it_ends_by_itself_after_the_given_seconds() -> None:
    with _simulator("--seconds", "0.1") as process:
        process.communicate(timeout=20)
    assert process.returncode == 0
