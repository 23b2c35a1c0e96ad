"""A virtual Aretas cloud on 127.0.0.1: every call of the REST API, a memory of what it got, and faults on demand.

Threads: one that listens and one per connection, all daemons. Every public method may be called from any thread.

Guarantees: after ``stop()`` nothing listens and every connection has ended, within a second. A second ``start()`` comes
back on the same port with everything remembered: this is how it refuses connections for a while. Prints nothing.

Where the platform's behaviour is not known the strict guess is made: of a refused batch nothing is stored.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from operator import index
from typing import Any, ClassVar

from clock import Clock
from measurements import Datum

from .cloud_http import Exchange, Fault, Reply, Server

logger = logging.getLogger(__name__)

MEMORY_READINGS = 1_000_000
CATALOGUE = [
    {"type": 530, "label": "HV Battery Capacity", "units": "Ah"},
    {"type": 531, "label": "HV Battery Current", "units": "A"},
    {"type": 532, "label": "14S HV Battery Voltage", "units": "V"},
    {"type": 533, "label": "BESS Instantaneous Power", "units": "kW"},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One reading that was accepted, when it came, and in which request (1 is the first the cloud ever got)."""

    datum: Datum
    arrival_utc_s: float
    arrival_mono_s: float
    request_index: int


class VirtualCloud:
    """The platform, with one account on it. Listens from ``start()`` to ``stop()``, or inside a ``with``.

    ``port`` 0 takes a free one. A token is good for ``token_lifetime_s`` seconds and ``token_lifetime_calls`` calls,
    each unlimited if ``None``. The public attributes may be changed at any time.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        username: str = "demo",
        password: str = "demo",
        macs: Iterable[int] = (123456789,),
        token_lifetime_s: float | None = None,
        token_lifetime_calls: int | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.username = username
        self.password = password
        self.macs = frozenset(macs)  # the devices registered in the account
        self.ranges: dict[int, tuple[float, float]] = {}  # least and greatest value allowed, by sensor type
        self.largest_batch: int | None = None  # more readings in one request are answered with 413
        self.date_shift_s: float | None = 0.0  # how far the header Date is off; None: there is none
        self.clock = clock or Clock()
        self.tls = tls
        self._token_lifetime_s = math.inf if token_lifetime_s is None else token_lifetime_s
        self._token_lifetime_calls = math.inf if token_lifetime_calls is None else token_lifetime_calls
        self._port = port
        self._lock = threading.RLock()
        self._tokens: dict[str, tuple[float, float]] = {}  # until when, for how many more calls
        self._faults: list[tuple[Fault, str | None, float]] = []
        self._received: deque[Received] = deque(maxlen=MEMORY_READINGS)
        self._calls: Counter[str] = Counter()
        self._connection_count = 0
        self._server: Server | None = None

    def start(self) -> VirtualCloud:
        """Listen. Raises OSError if the port is taken."""
        self._server = Server(self, self._port)
        self._port = int(self._server.server_address[1])
        self._server.start()
        return self

    def stop(self) -> None:
        """Refuse connections from now on and end those there are. Blocks for at most a second."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> VirtualCloud:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, as the config key API_URL has it. Known after the first ``start()``."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}/rest/"

    @property
    def received(self) -> list[Received]:
        """Every accepted reading in the order of arrival, repetitions included (the last million)."""
        with self._lock:
            return list(self._received)

    @property
    def stored(self) -> list[Datum]:
        """Every accepted reading once: of those with the same device, type and timestamp the last."""
        return list({(r.datum.mac, r.datum.type, r.datum.timestamp_utc_ms): r.datum for r in self.received}.values())

    @property
    def calls(self) -> dict[str, int]:
        """How often each call was made, answered or not: ``{"ingest/std/batch": 3}``."""
        with self._lock:
            return dict(self._calls)

    @property
    def request_count(self) -> int:
        """How many requests came."""
        return sum(self.calls.values())

    @property
    def log_in_count(self) -> int:
        """How often a password was sent, right or wrong."""
        return self.calls.get("authentication/g", 0)

    @property
    def connection_count(self) -> int:
        """How many connections were opened."""
        with self._lock:
            return self._connection_count

    def expire_tokens(self) -> None:
        """Make every token handed out so far invalid."""
        with self._lock:
            self._tokens.clear()

    def misbehave(self, fault: Fault, *, call: str | None = None, times: int | None = 1, **how: Any) -> None:
        """Treat the next ``times`` requests (``None``: all) to ``call`` (a path; ``None``: any) by ``fault(**how)``.

        Of several faults for a call the one asked for first comes first.
        """
        with self._lock:
            self._faults.append((partial(fault, **how) if how else fault, call, math.inf if times is None else times))

    def behave(self) -> None:
        """Drop every fault that was asked for. Those under way go on."""
        with self._lock:
            self._faults.clear()

    def count_connection(self) -> None:
        """Count a new connection. For the server."""
        with self._lock:
            self._connection_count += 1

    def admit(self, call: str) -> tuple[int, Fault | None]:
        """Count a request. Return its index and how to mistreat it. For the server."""
        with self._lock:
            self._calls[call] += 1
            for place, (fault, only, times) in enumerate(self._faults):
                if only in (None, call):
                    self._faults[place : place + 1] = [(fault, only, times - 1)] if times > 1 else []
                    return self.request_count, fault
            return self.request_count, None

    def reply_to(self, exchange: Exchange) -> Reply:
        """Return the right answer to a request, having done what it asks for. For the server."""
        answer, needs_token = self.CALLS.get((exchange.command, exchange.call), (None, False))
        if answer is None:
            return Reply(status=404)
        with self._lock:
            if needs_token and not self._accepts(exchange.headers.get("Authorization", "")):
                return Reply(status=401)
            try:
                result = answer(self, exchange)
            except (KeyError, IndexError, TypeError, ValueError):
                return Reply(status=400, body=b"malformed request", content_type="text/plain")
            return result if isinstance(result, Reply) else Reply(body=json.dumps(result).encode())

    def _accepts(self, authorization: str) -> bool:
        token = authorization.removeprefix("Bearer ")
        until_mono_s, calls_left = self._tokens.pop(token, (0.0, 0.0))
        if calls_left < 1 or self.clock.mono_s() >= until_mono_s:
            return False
        self._tokens[token] = (until_mono_s, calls_left - 1)
        return True

    def _log_in(self, exchange: Exchange) -> object:
        if (exchange.query["username"], exchange.query["password"]) != ([self.username], [self.password]):
            return Reply(status=401)
        token = secrets.token_urlsafe(24)
        self._tokens[token] = (self.clock.mono_s() + self._token_lifetime_s, self._token_lifetime_calls)
        return Reply(body=token.encode(), content_type="text/plain")

    def _is_logged_in(self, exchange: Exchange) -> object:
        return {"booleanResponse": True, "message": "logged in"}

    def _take_batch(self, exchange: Exchange) -> object:
        items = json.loads(exchange.body, parse_constant=int)  # int("NaN") is the error that NaN is
        readings = [
            Datum(
                mac=index(item["mac"]),
                type=index(item["type"]),
                data=0.0 + item["data"],
                timestamp_utc_ms=index(item["timestamp"]),
            )
            for item in items
        ]
        return self._judge(readings, exchange)

    def _take_one(self, exchange: Exchange) -> object:
        mac, sensor_type, value, utc_ms = (exchange.query[name][0] for name in ("m", "st", "d", "t"))
        if exchange.headers.get("X-AIR-Token") != mac:
            return Reply(status=401)
        datum = Datum(mac=int(mac), type=int(sensor_type), data=float(value), timestamp_utc_ms=int(utc_ms))
        return self._judge([datum], exchange)

    def _judge(self, readings: list[Datum], exchange: Exchange) -> object:
        if self.largest_batch is not None and len(readings) > self.largest_batch:
            return Reply(status=413)
        if not all(math.isfinite(datum.data) for datum in readings):
            return Reply(status=400)
        if not all(datum.mac in self.macs for datum in readings):
            return {"booleanResponse": False, "message": "not authorized"}
        for datum in readings:
            minimum, maximum = self.ranges.get(datum.type, (-math.inf, math.inf))
            if not minimum <= datum.data <= maximum:
                return {"booleanResponse": False, "message": "data exceeds allowed range!"}
        utc_s, mono_s, number = self.clock.utc_s(), self.clock.mono_s(), exchange.request_index
        self._received.extend(
            Received(datum=datum, arrival_utc_s=utc_s, arrival_mono_s=mono_s, request_index=number)
            for datum in readings
        )
        return {"booleanResponse": True, "message": "ok"}

    def _location_view(self, exchange: Exchange) -> object:
        newest = {datum.mac: datum.timestamp_utc_ms for datum in self._by_time()}
        sensors = [
            {"mac": mac, "description": f"virtual device {mac}", "lastReportTime": newest.get(mac, -1)}
            for mac in sorted(self.macs)
        ]
        place = {"location": {"description": "bench"}, "sensorList": sensors}
        return {"id": "demo", "allMacs": sorted(self.macs), "locationSensorViews": [place]}

    def _latest(self, exchange: Exchange) -> object:
        macs = [index(mac) for mac in json.loads(exchange.body)]
        newest = {(datum.mac, datum.type): datum for datum in self._by_time() if datum.mac in macs}
        return [datum.as_wire() for datum in newest.values()]

    def _history(self, exchange: Exchange) -> object:
        mac, begin_utc_ms, end_utc_ms = (int(exchange.query[name][0]) for name in ("mac", "begin", "end"))
        types = [int(text) for text in exchange.query["type"]]
        stored = (datum for datum in self._by_time() if datum.mac == mac and datum.type in types)
        return [datum.as_wire() for datum in stored if begin_utc_ms <= datum.timestamp_utc_ms <= end_utc_ms]

    def _catalogue(self, exchange: Exchange) -> object:
        return CATALOGUE

    def _by_time(self) -> list[Datum]:
        return sorted(self.stored, key=lambda datum: datum.timestamp_utc_ms)

    # What answers a call, and whether it wants a token.
    CALLS: ClassVar[dict[tuple[str, str], tuple[Callable[[VirtualCloud, Exchange], object], bool]]] = {
        ("GET", "authentication/g"): (_log_in, False),
        ("GET", "greetings/isloggedin"): (_is_logged_in, True),
        ("POST", "ingest/std/batch"): (_take_batch, True),
        ("GET", "ingest/secured/std/get"): (_take_one, True),
        ("GET", "client/locationview"): (_location_view, True),
        ("POST", "sensorreport/latest"): (_latest, True),
        ("GET", "sensordata/byrange"): (_history, True),
        ("GET", "sensortype/list"): (_catalogue, False),
    }
