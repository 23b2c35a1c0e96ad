"""The web server on a real port, over a real buffer, outbox and database: what is missing is only the meters."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from averaging_buffer import AveragingBuffer
from clock import Clock
from measurements import CURRENT, VOLTAGE, IntervalSummary, PowerSample, Statistic, Uncertainty
from outbox import Limits, Outbox
from settings import WebSettings, load_settings
from store import NAME as DATABASE_NAME
from store import Store
from tests.rig import wait_for
from tests.test_config_example import filled_in
from web.facts import Facts
from web.server import FOLDER, WebServer

ANSWERS_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Stand:
    """A web server and what it tells of. ``folder`` gets the configuration and the database."""

    def __init__(
        self, folder: Path, *, password: str | None = None, files: Path = FOLDER, clock: Clock | None = None
    ) -> None:
        self.folder = folder
        self.clock = clock or Clock()
        config = folder / "config.cfg"
        config.write_text(filled_in(), encoding="utf-8")
        config.chmod(0o600)
        self.settings = load_settings(config)
        self.buffer = AveragingBuffer(self.clock)
        self.outbox = Outbox(
            Store(folder / DATABASE_NAME, self.clock),
            self.settings.api.device(1),
            self.clock.boot_id(),
            self.clock,
            Limits(),
        )
        self.last_closed: tuple[int, IntervalSummary] | None = None
        self.meters: dict[str, dict[str, object]] = {
            name: {"works": True, "trouble": None} for name in (VOLTAGE, CURRENT)
        }
        self.refused: str | None = None
        self.crashed = threading.Event()
        facts = Facts(
            self.clock,
            lambda: self.settings,
            self.buffer,
            self.outbox,
            lambda: self.last_closed,
            lambda: [self.server],
            lambda: self.meters,
            lambda: self.refused,
            lambda text: text.replace("a secret", "***"),
        )
        self.facts = facts
        settings = WebSettings(host="127.0.0.1", port=0, password=password)
        self.server = WebServer(settings, facts, self.clock, files)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.server.start(self.crashed.set)
        wait_for(lambda: self.server.port is not None, what="the server listens")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self.server.request_stop()
        ended = self.server.join(self.clock.mono_s() + 5.0)
        if error is None:
            assert ended
            assert not self.crashed.is_set()

    @property
    def port(self) -> int:
        port = self.server.port
        assert port is not None
        return port

    def take(self, voltage_v: float | None, current_a: float | None, *, age_s: float = 0.0) -> None:
        """Have a sample taken."""
        start_mono_s = self.clock.mono_s() - age_s
        power_kw = None if voltage_v is None or current_a is None else voltage_v * current_a / 1000
        sample = PowerSample(start_mono_s=start_mono_s, voltage_v=voltage_v, current_a=current_a, power_kw=power_kw)
        self.buffer.begin(start_mono_s)
        self.buffer.complete(start_mono_s, sample)

    def close_interval(self, *, current_uncertainty_a: float = 0.05) -> None:
        """Have an interval closed: 52 V, 2 A, and no power."""
        volts = Statistic(mean=52.0, minimum=51.0, maximum=53.0, count=6)
        amperes = Statistic(mean=2.0, minimum=1.0, maximum=3.0, count=6)
        uncertainty = Uncertainty(voltage_v=0.06, current_a=current_uncertainty_a)
        summary = IntervalSummary(voltage_v=volts, current_a=amperes, power_kw=None, uncertainty=uncertainty)
        self.last_closed = (self.facts.now_utc_ms, summary)

    # -- asking ------------------------------------------------------------------------------------------------------

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Ask for a path; ``headers`` with _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWERS_WITHIN_S)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        return Answer(status=answer.status, headers={k.lower(): v for k, v in answer.getheaders()}, body=body)

    def connect(self) -> socket.socket:
        """Return a connection that ends with the stand."""
        return self._stack.enter_context(socket.create_connection(("127.0.0.1", self.port), ANSWERS_WITHIN_S))

    def say(self, request: bytes) -> bytes:
        """Send bytes, and return all that comes back until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), ANSWERS_WITHIN_S) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    pieces = []
    try:
        while piece := connection.recv(65_536):
            pieces.append(piece)
    except ConnectionResetError:
        pieces.append(b"")
    return b"".join(pieces)
