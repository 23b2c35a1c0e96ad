"""Everything the daemon needs, simulated on this machine: two meters on one battery, and a cloud.

For ``backend_daemon.py --demo``. It writes a real ``config.cfg`` into a folder of its own, so that the demo runs
through the same configuration, drivers and clients as the real thing.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .battery import BatteryModel
from .cloud import VirtualCloud
from .meter import VirtualMeter
from .ports import make_port

MAC = 123456789
USERNAME = "demo@example.invalid"
SHUNT_RESISTANCE_OHM = 0.0006667
SAMPLE_INTERVAL_MS = 500
REPORT_INTERVAL_MS = 2000
WEB_PORT = 8041

_CONFIG = """\
# Written by --demo at every start: a working configuration for the simulated meters and cloud.
[DEFAULT]
self_mac = {mac}
API_URL = {url}
API_USERNAME = {username}
API_PASSWORD = {password}

[API]
report_interval = {report_interval_ms}

[SERIAL]
sample_interval = {sample_interval_ms}

[WEB]
enable_web = True
web_port = {web_port}

[XDM]
xdm_current_enable = True
xdm_current_port = {current_port}
xdm_shunt_resistance = {shunt_ohm}
xdm_voltage_enable = True
xdm_voltage_port = {voltage_port}
xdm_voltage_range = 500V
"""


class DemoError(Exception):
    """The demo cannot run here: show the text to the operator, it says why and what to do.

    Examples: the folder may not be written, its config.cfg is somebody else's, the working directory was deleted.
    """


class Demo:
    """A context manager: simulated meters and cloud run inside it, and ``config`` is the file that describes them.

    ``config`` is absolute once it is entered, and ``page`` is the address of the page. Entering raises ``DemoError``.
    """

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.cfg"
        self.page = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                web_port = _free_port()
                text = _start(stack, web_port)
            except OSError as exc:
                raise DemoError(
                    f"no simulated meter or cloud can be made here: {exc}. Try again on another computer"
                ) from exc
            try:
                self.config = self.config.absolute()
                self.config.parent.mkdir(parents=True, exist_ok=True)
                self.config.touch(mode=0o600)
                self.config.write_text(text, encoding="utf-8")
            except OSError as exc:
                raise DemoError(
                    f"{self.config} cannot be written ({exc.strerror}): run it in a folder that you may write"
                ) from exc
            self.page = f"http://localhost:{web_port}/"
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _free_port() -> int:
    """Return the usual port of the page, or if it is taken one that is free."""
    for port in (WEB_PORT, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            return int(listener.getsockname()[1])
    return WEB_PORT


def _start(stack: ExitStack, web_port: int) -> str:
    """Start the meters and the cloud, which end with ``stack``. Return the configuration for them."""
    battery = BatteryModel()
    password = secrets.token_urlsafe(16)
    cloud = stack.enter_context(VirtualCloud(username=USERNAME, password=password, macs=(MAC,)))
    voltage = stack.enter_context(make_port(VirtualMeter(battery.voltage_v, serial_number="22511040")))
    current = stack.enter_context(make_port(VirtualMeter(battery.shunt_v, serial_number="22511041")))
    return _CONFIG.format(
        mac=MAC,
        url=cloud.url,
        username=USERNAME,
        password=password,
        report_interval_ms=REPORT_INTERVAL_MS,
        sample_interval_ms=SAMPLE_INTERVAL_MS,
        current_port=current.address,
        voltage_port=voltage.address,
        shunt_ohm=SHUNT_RESISTANCE_OHM,
        web_port=web_port,
    )
