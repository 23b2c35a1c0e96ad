"""``--find-meters``: which serial ports there are, which meter is on which, and the lines for config.cfg.

Runs in the main thread, with one thread per port that is asked, beside a running daemon or without one. Guarantees: no
setting of any device is changed; an unknown device is sent ``*IDN?`` and nothing else; a port that another process has
open is not opened, as far as that can be known; the answer comes within 20 s.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from serial.tools.list_ports import comports
from serial.tools.list_ports_common import ListPortInfo

from clock import Clock
from config_file import ConfigurationError
from instance import holders, running_daemon
from settings import NamedPorts, load_ports
from status import StatusError, read_status
from store import NAME as DATABASE_NAME
from xdm1041 import Overload, PortUnavailable, Unsettled, XDM1041Error, candidate_ports, identify
from xdm1041.commands import MEASURE, MEASURE_TEXT, parse_reading, reply_text
from xdm1041.ports import device
from xdm1041.transport import Transport

_BY_PATH = Path("/dev/serial/by-path")
_REPLY_TIMEOUT_S = 1.0
_SETTLED_WITHIN_S, _SETTLE_POLL_S = 3.0, 0.2
_AT_ONCE = 16
_BATTERY_FROM_V = 1.0  # a battery has more, a shunt less
_NOT_ASKED = (
    "not asked: it is no adapter of a kind that such meters have. If a meter is on it, name it in xdm_scan_ports"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPort:
    """One serial port and who is on it. The names of the fields are those of the JSON; ``None`` is what is not known.

    ``reading`` is in the SI unit of what the meter is set to, ``display`` the same as it shows it. ``trouble`` tells
    why there is no meter, or none that can be asked.
    """

    port: str
    model: str | None = None
    serial: str | None = None
    firmware: str | None = None
    reading: float | None = None
    display: str | None = None
    usb_id: str | None = None
    description: str | None = None
    trouble: str | None = None
    asked: bool = True


def find_meters(config: Path, clock: Clock, listed: Iterable[ListPortInfo] | None = None) -> list[FoundPort]:
    """Return every serial port and what is on it. ``config`` need not exist; its ports are looked at as well.

    ``listed``: the serial ports of this computer, the system's list if ``None``. Blocks about a second, for every port
    that does not answer 3 s (not one after the other), 5 s for a URL.
    """
    names = _names(config)
    known = {device(info.device): info for info in (comports() if listed is None else listed)}
    by_path = {device(str(link)): str(link) for link in sorted(_BY_PATH.glob("*"), reverse=True)}
    ports = {
        device(port): by_path.get(device(port), port) for port in candidate_ports(names.scan_ports, names.configured)
    }
    in_use = _in_use(config.absolute().parent, names, clock)
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        found = list(threads.map(lambda place: _look(ports[place], in_use.get(place), known.get(place), clock), ports))
    others = [
        _described(FoundPort(port=by_path.get(place, info.device), trouble=_NOT_ASKED, asked=False), info)
        for place, info in known.items()
        if place not in ports
    ]
    return found + others


def _names(config: Path) -> NamedPorts:
    try:
        return load_ports(config)
    except ConfigurationError:  # mostly there is none yet; what is wrong with one is told by --check-config
        return NamedPorts()


def _in_use(folder: Path, names: NamedPorts, clock: Clock) -> dict[str, FoundPort]:
    """Return the ports that the daemon of a folder has, with what it knows of the meters on them."""
    process = running_daemon(folder)
    if process is None:
        return {}
    daemon = f"in use by the daemon, process {process}"
    used = {device(port): FoundPort(port=port, trouble=daemon) for port in names.configured}
    with suppress(StatusError):  # it has only just started
        for name, state in (read_status(folder / DATABASE_NAME, clock.utc_s()).meters or {}).items():
            how = "it works" if state.works else state.trouble or "it is being set up"
            trouble = f"{daemon}, as its {name}: {how}"
            used[device(state.port)] = FoundPort(port=state.port, serial=state.serial_number, trouble=trouble)
    return used


def _look(port: str, used: FoundPort | None, info: ListPortInfo | None, clock: Clock) -> FoundPort:
    """Return who is on a port. What a daemon has is left alone, also where a second one could open it (a URL)."""
    daemon = next((holder for holder in holders(port) if holder.is_daemon), None)
    if used is not None:
        found = replace(used, port=port)
    elif daemon is not None:
        found = FoundPort(port=port, trouble=f"in use by {daemon}")
    else:
        found = _ask(port, clock)
    return _described(found, info)


def _ask(port: str, clock: Clock) -> FoundPort:
    try:
        identity = identify(port, clock)
    except PortUnavailable as exc:
        return FoundPort(port=port, trouble=", ".join([str(exc), *map(str, holders(port))]))
    except XDM1041Error as exc:
        return FoundPort(port=port, trouble=str(exc))
    found = FoundPort(port=port, model=identity.model, serial=identity.serial_number, firmware=identity.firmware)
    transport = Transport(port, clock)
    try:
        transport.open()
        transport.drain()
        return _with_reading(found, transport, clock)
    except XDM1041Error as exc:
        return replace(found, trouble=f"no reading: {exc}")
    finally:
        transport.close()


def _with_reading(found: FoundPort, transport: Transport, clock: Clock) -> FoundPort:
    """Ask for the reading, for up to 3 s: the first after a zero or an overload is the transient of a change of range.

    So one counts that comes after another. If none other comes, as in hold, the one there is.
    """
    pause, until_mono_s = threading.Event(), clock.mono_s() + _SETTLED_WITHIN_S
    reading: float | None = None
    while True:
        display = reply_text(transport.query(MEASURE_TEXT, _REPLY_TIMEOUT_S))
        late = clock.mono_s() > until_mono_s
        try:
            newer = parse_reading(reply_text(transport.query(MEASURE, _REPLY_TIMEOUT_S)), None)
        except (Overload, Unsettled):
            if late:
                raise
            reading = None
        else:
            if late or reading not in (None, newer):
                return replace(found, reading=newer, display=display)
            reading = newer
        pause.wait(_SETTLE_POLL_S)


def _described(found: FoundPort, info: ListPortInfo | None) -> FoundPort:
    if info is None:
        return found
    usb_id = None if info.vid is None or info.pid is None else f"{info.vid:04x}:{info.pid:04x}"
    return replace(found, usb_id=usb_id, description=None if info.description == "n/a" else info.description)


# -- showing it --------------------------------------------------------------------------------------------------------


def as_json(found: Iterable[FoundPort]) -> str:
    """Return the ports that were looked at as a JSON list of objects, in ASCII."""
    objects = [asdict(each) for each in found if each.asked]
    return json.dumps([{name: each[name] for name in each if name != "asked"} for each in objects], indent=2)


def as_text(found: Iterable[FoundPort]) -> str:
    """Return the ports, who is on them, and the lines for config.cfg, for a person to read."""
    found = list(found)
    lines = ["Serial ports:", ""] if found else ["There is no serial port: is the adapter plugged in?"]
    for each in found:
        about = [f"USB {each.usb_id}" if each.usb_id else None, each.description]
        lines += [f"{each.port}  {', '.join(filter(None, about))}".rstrip(), f"    {_who(each)}"]
    meters = [each for each in found if each.model]
    if meters:
        closing = list(_config_lines(meters))
    elif any(each.trouble and "in use" in each.trouble for each in found):
        closing = ["Nothing to add to config.cfg. To have the meters asked, stop the daemon first."]
    else:
        closing = ["No meter was found. Is it on? Is its cable plugged in? See also what is said of each port."]
    return "\n".join([*lines, "", *closing])


def _who(found: FoundPort) -> str:
    if found.model is None:
        serial = f" (serial number {found.serial})" if found.serial else ""
        return f"{found.trouble}{serial}"
    shows = found.trouble or f"it shows {found.display}"
    return f"{found.model}, serial number {found.serial}, firmware {found.firmware}: {shows}"


def _config_lines(meters: list[FoundPort]) -> Iterator[str]:
    """Yield the lines to paste. Which meter is which is told by what they show, if that tells it."""
    roles = [_role(meter) for meter in meters]
    serials = [meter.serial for meter in meters]
    yield "For config.cfg (see whether each meter is the right one; the shunt's resistance is to be set, too):"
    yield ""
    yield "[XDM]"
    for meter, role in zip(meters, roles, strict=True):
        sure = role is not None and roles.count(role) == 1
        mark, name = ("", role) if sure else ("# ", "voltage")
        if not sure:
            yield f"# Is this the voltage meter, or the current meter? It shows {meter.display or 'nothing'}"
        yield f"{mark}xdm_{name}_enable = True"
        yield f"{mark}xdm_{name}_port = {meter.port}"
        if serials.count(meter.serial) > 1:
            yield "# Two meters say that they have the same serial number, so the cables alone tell which is which"
        elif meter.serial and re.fullmatch(r"\w+", meter.serial):
            yield f"{mark}xdm_{name}_serial = {meter.serial}"


def _role(meter: FoundPort) -> str | None:
    if meter.reading is None or not (meter.display or "").upper().endswith("VDC"):
        return None
    return "voltage" if abs(meter.reading) >= _BATTERY_FROM_V else "current"
