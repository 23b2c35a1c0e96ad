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
import socket
import socketserver
import ssl
import struct
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler
from operator import index
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from clock import Clock
from measurements import Datum

logger = logging.getLogger(__name__)

MEMORY_READINGS = 1_000_000
LONGEST_REQUEST_BYTES = 4 * 1024 * 1024
IDLE_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 1.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP answer. Called as a fault: this instead of the right answer, and nothing is stored."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    retry_after: str | None = None  # seconds, or an HTTP date
    location: str | None = None

    def __call__(self, exchange: Exchange) -> None:
        exchange.send(b"".join(exchange.render(self)))


Fault = Callable[..., None]  # of the Exchange, and of what else it can be told

HTML_PAGE = Reply(body=b"<!DOCTYPE html><html><body>Welcome to our Wi-Fi</body></html>", content_type="text/html")


def answer_slowly(exchange: Exchange, *, delay_s: float) -> None:
    """Wait, then do everything right."""
    exchange.wait(delay_s)
    exchange.right_reply()(exchange)


def never_answer(exchange: Exchange) -> None:
    """Store nothing and say nothing until the client hangs up."""
    with suppress(TimeoutError):
        exchange.connection.recv(1)
    exchange.close_connection = True


def trickle(exchange: Exchange, *, interval_s: float, body_only: bool = False) -> None:
    """Do everything right, but send the answer, or its body only, one byte per interval."""
    header, body = exchange.render(exchange.right_reply())
    at_once = header if body_only else b""
    exchange.send(at_once)
    for byte in (header + body)[len(at_once) :]:
        exchange.send(bytes([byte]))
        exchange.wait(interval_s)


def reset_mid_reply(exchange: Exchange) -> None:
    """Do everything right, send half of the answer and reset the connection."""
    whole = b"".join(exchange.render(exchange.right_reply()))
    exchange.send(whole[: len(whole) // 2])
    exchange.hang_up(reset=True)


def lose_reply(exchange: Exchange, *, reset: bool = False) -> None:
    """Do everything right, storing included, but end the connection instead of answering."""
    exchange.right_reply()
    exchange.hang_up(reset=reset)


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
        self._server: _Server | None = None

    def start(self) -> VirtualCloud:
        """Listen. Raises OSError if the port is taken."""
        self._server = _Server(self, self._port)
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


class Exchange(BaseHTTPRequestHandler):
    """One connection, and the request on it that is being served: what a fault has in its hands."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        """Serve one request, of either method."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > LONGEST_REQUEST_BYTES:
            self.close_connection = True
            return Reply(status=413)(self)
        self.body = self.rfile.read(int(length))
        url = urlsplit(self.path)
        self.call = url.path.removeprefix("/rest/")
        self.query = parse_qs(url.query, keep_blank_values=True)
        self.request_index, fault = self.server.cloud.admit(self.call)
        logger.debug("request %d: %s %s", self.request_index, self.command, self.call)
        return fault(self) if fault else self.right_reply()(self)

    do_POST = do_GET  # noqa: N815

    def right_reply(self) -> Reply:
        """Do what the request asks for and return the right answer to it."""
        return self.server.cloud.reply_to(self)

    def render(self, reply: Reply) -> tuple[bytes, bytes]:
        """Return the header and the body of a reply as they are sent."""
        cloud = self.server.cloud
        date_utc_s = None if cloud.date_shift_s is None else cloud.clock.utc_s() + cloud.date_shift_s
        fields = {
            "Date": None if date_utc_s is None else formatdate(date_utc_s, usegmt=True),
            "Content-Type": reply.content_type,
            "Content-Length": str(len(reply.body)),
            "Retry-After": reply.retry_after,
            "Location": reply.location,
        }
        lines = [f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('Unknown',))[0]}"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join([*lines, "", ""]).encode("latin-1"), reply.body

    def send(self, data: bytes) -> None:
        """Send bytes. Raises OSError when the client has hung up, which ends the connection."""
        self.wfile.write(data)

    def wait(self, delay_s: float) -> None:
        """Wait, or until the cloud is stopped."""
        self.server.stopping.wait(delay_s)

    def hang_up(self, *, reset: bool) -> None:
        """End the connection after this request, by a reset (RST) or in order (FIN)."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Override: say nothing, because a request line may hold a password."""


class _Server(socketserver.ThreadingTCPServer):
    timeout = 0.5
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, cloud: VirtualCloud, port: int) -> None:
        super().__init__(("127.0.0.1", port), Exchange)
        self.cloud = cloud
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen, name="virtual-cloud", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _listen(self) -> None:
        while not self.stopping.is_set():
            self.handle_request()

    def stop(self) -> None:
        self.stopping.set()
        with suppress(OSError):  # on Linux this wakes the thread that listens; elsewhere ``timeout`` does
            self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(STOP_TIMEOUT_S)
        self.server_close()
        with self._changed:
            for sock in self._open:
                with suppress(OSError):  # it has ended by itself
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, STOP_TIMEOUT_S)

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        tls = self.cloud.tls
        if tls is not None:  # the handshake takes place in the connection's own thread, on its first read
            sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.cloud.count_connection()
        with self._changed:
            self._open.add(sock)
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        """Override: close without the FIN that the original sends first, which would make a reset none."""
        request.close()
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Override: a client that hung up is no error, and anything else is one to log, not to print."""
        if not isinstance(sys.exception(), OSError):
            logger.exception("the virtual cloud failed to serve a request")
