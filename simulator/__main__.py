"""``python3 -m simulator``: a battery with two virtual meters, and a cloud if wanted, to try things on by hand.

With ``--replay`` it plays what the daemon has written into a wire log instead. Prints the ports and the lines for
``config.cfg``, then runs until Ctrl-C, SIGTERM or ``--seconds``. Exit code 0 then, 2 for arguments that cannot be used.
The main thread only waits; each port, and the cloud, has a thread of its own.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from clock import Clock

from .battery import BadRecording, Battery, BatteryModel, RecordedBattery
from .meter import VirtualMeter
from .modes import Profile
from .ports import HAS_PTYS, Port, PtyPort, TcpPort
from .replay import BadWireLog, PortRecording, ReplayedPort, read_wire_logs

VOLTAGE_SERIAL, CURRENT_SERIAL = "22511040", "22511041"
MAC = 123456789
USERNAME, PASSWORD = "simulator@example.invalid", "not-a-secret"

_PROFILES = {profile.value.version.removeprefix("V"): profile for profile in Profile}

_METER_LINES = """\
[XDM]
xdm_voltage_enable = True
xdm_voltage_port = {voltage}
xdm_current_enable = True
xdm_current_port = {current}
xdm_shunt_resistance = {shunt_ohm}
xdm_current_reverse_polarity = {leads_reversed}
"""
_CLOUD_LINES = """\
[DEFAULT]
self_mac = {mac}
API_URL = {url}
API_USERNAME = {username}
API_PASSWORD = {password}

"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulator until it is stopped. Return the exit code; ends the process with 2 for bad arguments."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        try:
            if arguments.replay:
                what, lines = "A recording is being played", _start_replay(arguments, stack, stop)
            else:
                what, lines = "Two virtual meters are running", _start_meters(arguments, stack)
        except (BadRecording, BadWireLog, OSError) as exc:
            parser.error(str(exc))
        if arguments.cloud:
            lines = _start_cloud(stack) + lines
        _say(f"{what}. For config.cfg:\n\n{lines}\nCtrl-C ends them.")
        stop.wait(arguments.seconds)
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _start_meters(arguments: argparse.Namespace, stack: ExitStack) -> str:
    """Start the two meters; return their configuration lines."""
    battery = _battery(arguments)
    voltage, current = (stack.enter_context(port) for port in _ports(arguments, battery))
    return _METER_LINES.format(
        voltage=voltage.address,
        current=current.address,
        shunt_ohm=battery.shunt_ohm,
        leads_reversed=battery.leads_reversed,
    )


def _start_replay(arguments: argparse.Namespace, stack: ExitStack, stop: threading.Event) -> str:
    """Start a port for each port of the wire log; return what to write in place of what."""
    if arguments.csv or arguments.reversed:
        raise OSError("--replay plays a recording of the meters; --csv and --reversed are for simulated ones")
    recordings = read_wire_logs(arguments.replay)
    folder = None
    if HAS_PTYS and not arguments.tcp:  # a pty has another name whenever it comes back, so each needs a link
        folder = arguments.link_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-")))
    elif arguments.link_dir is not None:
        raise OSError("--link-dir names ptys; TCP ports have none")
    lines = []
    for recording, name in zip(recordings, _link_names(recordings), strict=True):
        port = stack.enter_context(ReplayedPort(recording, folder / name if folder else None, Clock()))
        threading.Thread(target=_tell_the_end, args=(port, stop), daemon=True).start()
        lines.append(f"# in place of {recording.port}:\n{port.address}\n")
    return "".join(lines)


def _link_names(recordings: Sequence[PortRecording]) -> list[str]:
    """Return for each recorded port a name that can be a file's: its own last part, with a number if it is taken."""
    names: list[str] = []
    for number, recording in enumerate(recordings, start=1):
        name = re.sub(r"[^\w.-]", "_", re.split(r"[/\\]", recording.port)[-1]).strip(".") or "port"
        names.append(name if name not in names else f"{name}-{number}")
    return names


def _tell_the_end(port: ReplayedPort, stop: threading.Event) -> None:
    port.ended.wait()
    if not stop.is_set():
        _say(f"The recording of {port.recording.port} is over ({port.report()}); it repeats its last answers.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m simulator",
        description="Runs two virtual XDM1041 meters on one battery: one on its volts, one across its shunt.",
    )
    parser.add_argument("--tcp", action="store_true", help="TCP ports instead of ptys (always so on Windows)")
    parser.add_argument("--link-dir", type=Path, metavar="DIR", help="name the ptys DIR/voltage and DIR/current")
    parser.add_argument(
        "--replay",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="play a wire log of the daemon (xdm_wire_log), the oldest file first",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="play a recording: seconds,voltage_v,current_a")
    parser.add_argument("--reversed", action="store_true", help="the leads across the shunt are the wrong way round")
    parser.add_argument("--profile", choices=_PROFILES, default="4.0.0", help="firmware to imitate (4.0.0)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another N, another battery and noise (1)")
    parser.add_argument("--cloud", action="store_true", help="run a virtual Aretas cloud as well")
    parser.add_argument("--seconds", type=_positive, metavar="N", help="end by itself after N seconds")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text} is no length of time")
    return value


def _battery(arguments: argparse.Namespace) -> Battery:
    if arguments.csv is None:
        return BatteryModel(seed=arguments.seed, leads_reversed=arguments.reversed)
    return RecordedBattery.from_csv(arguments.csv, leads_reversed=arguments.reversed)


def _ports(arguments: argparse.Namespace, battery: Battery) -> list[Port]:
    """Return the voltage meter's port and the current meter's. Raises ``OSError`` when they cannot be had."""
    if arguments.link_dir is not None and (arguments.tcp or not HAS_PTYS):
        raise OSError("--link-dir names ptys; TCP ports have none")
    ports: list[Port] = []
    for name, quantity, serial_number, seed in (
        ("voltage", battery.voltage_v, VOLTAGE_SERIAL, arguments.seed),
        ("current", battery.shunt_v, CURRENT_SERIAL, arguments.seed + 1),
    ):
        profile = _PROFILES[arguments.profile]
        meter = VirtualMeter(quantity, serial_number=serial_number, profile=profile, seed=seed)
        link = arguments.link_dir / name if arguments.link_dir is not None else None
        ports.append(TcpPort(meter) if arguments.tcp or not HAS_PTYS else PtyPort(meter, link=link))
    return ports


def _start_cloud(stack: ExitStack) -> str:
    """Start a virtual cloud that knows one account and one device; return its configuration lines."""
    from .cloud import VirtualCloud  # here, because the meters do without it

    cloud = VirtualCloud(port=0, username=USERNAME, password=PASSWORD, macs=[MAC])
    cloud.start()
    stack.callback(cloud.stop)
    return _CLOUD_LINES.format(mac=MAC, url=cloud.url, username=USERNAME, password=PASSWORD)


if __name__ == "__main__":
    sys.exit(main())
