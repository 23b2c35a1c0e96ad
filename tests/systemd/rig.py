"""What the service measures and reports to in the container: pairs of virtual meters, and a virtual cloud.

Runs in the container, as a service of its own: ``python -m tests.systemd.rig FOLDER``. The folder keeps what must
outlast a reboot: the port of the cloud, the password it wants, and every reading that it accepted, a JSON object a
line, in ``received.jsonl``. Meters come up as ``/run/meters/PAIR/voltage`` and ``.../current``, for the group dialout.
"""

from __future__ import annotations

import grp
import json
import os
import secrets
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from simulator.battery import BatteryModel
from simulator.cloud import VirtualCloud
from simulator.meter import VirtualMeter
from simulator.ports import PtyPort

USERNAME = "operator@example.invalid"
MACS = {"one": 123456789, "two": 123456790, "three": 123456791}
_METERS = Path("/run/meters")
_LOOK_EVERY_S = 0.2


def main() -> int:
    """Run until SIGTERM. Return the exit code."""
    folder = Path(sys.argv[1])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    password, port = folder / "password", folder / "port"
    if not password.exists():
        password.write_text(secrets.token_urlsafe(24), encoding="ascii")
        port.write_text("0", encoding="ascii")
    with ExitStack() as stack:
        cloud = stack.enter_context(
            VirtualCloud(
                port=int(port.read_text(encoding="ascii")),
                username=USERNAME,
                password=password.read_text(encoding="ascii"),
                macs=MACS.values(),
            )
        )
        for seed, pair in enumerate(MACS, start=1):
            _plug_in(stack, pair, seed)
        port.write_text(cloud.url.split(":")[2].split("/")[0], encoding="ascii")
        (_METERS / "ready").touch()
        _write_down(cloud, folder / "received.jsonl", stop)
    return 0


def _plug_in(stack: ExitStack, pair: str, seed: int) -> None:
    """Make the two meters of a pair appear, as udev would: for root and the group dialout."""
    battery = BatteryModel(seed=seed)
    (_METERS / pair).mkdir(parents=True, exist_ok=True)
    for number, (name, quantity) in enumerate((("voltage", battery.voltage_v), ("current", battery.shunt_v))):
        meter = VirtualMeter(quantity, serial_number=str(22511040 + 10 * seed + number), seed=seed + number)
        port = stack.enter_context(PtyPort(meter, link=_METERS / pair / name))
        device = Path(port.address).resolve()
        os.chown(device, 0, grp.getgrnam("dialout").gr_gid)
        device.chmod(0o660)


def _write_down(cloud: VirtualCloud, path: Path, stop: threading.Event) -> None:
    """Append what the cloud accepts to a file, until it is stopped."""
    written = 0
    with path.open("a", encoding="ascii", buffering=1) as file:
        while True:
            ending = stop.wait(_LOOK_EVERY_S)
            if ending:
                cloud.stop()  # what it accepts from now on would be written nowhere
            received = cloud.received
            for each in received[written:]:
                file.write(json.dumps(each.datum.as_wire()) + "\n")
            written = len(received)
            if ending:
                return


if __name__ == "__main__":
    sys.exit(main())
