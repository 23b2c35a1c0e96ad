"""Which ports meters are looked for on, and what is sent to a device that nobody knows."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from simulator.faults import replaced_by
from simulator.meter import VirtualMeter
from simulator.ports import PtyPort, TcpPort
from xdm1041 import XDM1041, PortUnavailable, ReplyTimeout, WrongInstrument, XDM1041Mode, ports
from xdm1041.ports import PortBook, candidate_ports, identify


def _meter(serial_number: str = "22511040") -> VirtualMeter:
    return VirtualMeter(lambda _mono_s: 52.0, serial_number=serial_number)


def test_globs_paths_and_urls_are_listed_each_device_once_the_configured_first(tmp_path: Path) -> None:
    for name in ("meter2", "meter1", "other"):
        (tmp_path / name).touch()
    (tmp_path / "voltage").symlink_to(tmp_path / "meter2")
    scan = [str(tmp_path / "meter*"), "socket://10.0.0.1:4001", "", str(tmp_path / "other")]
    assert candidate_ports(scan, [str(tmp_path / "voltage"), "SOCKET://10.0.0.1:4001/"]) == [
        str(tmp_path / "voltage"),
        "SOCKET://10.0.0.1:4001/",
        str(tmp_path / "meter1"),
        str(tmp_path / "other"),
    ]


def test_without_scan_ports_the_adapters_of_such_meters_by_their_usb_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {"ch340": (0x1A86, 0x7523), "prolific": (0x067B, 0x23A3), "uno": (0x2341, 0x0043), "onboard": (None, None)}
    for name in ids:
        (tmp_path / name).touch()
    links = tmp_path / "by-path"
    links.mkdir()
    for link in ("pci-0-usb-0:1.1:1.0-port0", "pci-0-usbv2-0:1.1:1.0-port0"):
        (links / link).symlink_to(tmp_path / "ch340")
    listed = [SimpleNamespace(device=str(tmp_path / name), vid=vid, pid=pid) for name, (vid, pid) in ids.items()]
    monkeypatch.setattr(ports, "comports", lambda: listed)
    monkeypatch.setattr(ports, "_BY_PATH", links)
    assert candidate_ports() == [str(links / "pci-0-usb-0:1.1:1.0-port0"), str(tmp_path / "prolific")]
    assert candidate_ports((), ["COM3"]) == ["COM3", *candidate_ports()]


@pytest.mark.parametrize("kind", [PtyPort, TcpPort])
def test_identify_tells_who_is_there_and_sends_nothing_else(kind: type[PtyPort | TcpPort]) -> None:
    meter = _meter("24152470")
    with kind(meter) as port:
        identity = identify(port.address)
        assert (identity.model, identity.serial_number, identity.firmware) == ("XDM1041", "24152470", "V4.0.0")
        assert {command.text for command in meter.received} == {"*IDN?"}


def test_another_device_a_silent_one_and_one_that_is_not_there() -> None:
    meter = _meter()
    with PtyPort(meter) as port:
        meter.faults.once(replaced_by("KORAD,KD3005P,V6.9,SN:12345678"))
        with pytest.raises(WrongInstrument, match="KORAD"):
            identify(port.address)
        meter.switch_off()
        with pytest.raises(ReplyTimeout):
            identify(port.address, tries=1)
    with pytest.raises(PortUnavailable):
        identify(port.address)
    assert {command.text for command in meter.received} == {"*IDN?"}


def test_a_port_in_use_is_asked_by_nobody_else_and_one_that_is_being_asked_is_waited_for() -> None:
    book = PortBook(["/a", "/b", "/c"], {"/a": "1", "/b": "2"})
    pauses: list[float] = []
    working = book.claim("/a", pauses.append)
    book.keep(working)
    asked = book.claim("/b", pauses.append)
    assert book.elsewhere("/x") == ["/b", "/c"]
    with pytest.raises(PortUnavailable, match="in use by the other meter"):
        book.claim("/a", pauses.append)
    assert not pauses
    assert book.claim("/b", lambda _s: book.release(asked)) == asked
    book.release(working)
    assert book.elsewhere("/x") == ["/a", "/b", "/c"]


def test_the_port_of_a_meter_without_a_serial_number_is_never_tried_for_another() -> None:
    assert PortBook(["/a", "/b", "/c"], {"/a": "1", "/b": None}).elsewhere("/a") == ["/c"]


def test_a_name_that_was_given_to_another_adapter_is_opened_anew_and_claims_nothing_else(tmp_path: Path) -> None:
    book = PortBook()
    link = tmp_path / "meter"
    with PtyPort(_meter("1"), link=tmp_path / "one") as one, PtyPort(_meter("2"), link=tmp_path / "two") as two:
        link.symlink_to(Path(one.path).resolve())
        meter = XDM1041(XDM1041Mode.MODE_VOLTAGE_DC, 5, str(link), ports=book)
        assert meter._reach().serial_number == "1"
        link.unlink()
        link.symlink_to(Path(two.path).resolve())
        assert meter._reach().serial_number == "2"
        assert identify(one.path).serial_number == "1"  # it is held by nobody
        book.release(book.claim(one.path, lambda _s: None))
        meter.disconnect()


def test_two_who_want_one_port_get_it_one_after_the_other() -> None:
    book, holders, most = PortBook(), [0], [0]

    def use() -> None:
        for _ in range(50):
            claim = book.claim("/a", lambda seconds: threading.Event().wait(seconds / 100))
            holders[0] += 1
            most[0] = max(most[0], holders[0])
            holders[0] -= 1
            book.release(claim)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1]
