"""HTTP as the virtual cloud speaks it, and as it misbehaves: replies, faults, one connection, the server.

Threads: the one that listens and one per connection, all daemons. It knows nothing of the Aretas platform: what is
right to answer, the cloud behind it tells.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import ssl
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from clock import Clock

logger = logging.getLogger(__name__)

LONGEST_REQUEST_BYTES = 4 * 1024 * 1024
IDLE_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 1.0


class Cloud(Protocol):
    """What the server asks the cloud behind it."""

    clock: Clock
    date_shift_s: float | None
    tls: ssl.SSLContext | None

    def admit(self, call: str) -> tuple[int, Fault | None]:
        """Count a request; return its index and how to mistreat it."""

    def reply_to(self, exchange: Exchange) -> Reply:
        """Do what a request asks for and return the right answer."""

    def count_connection(self) -> None:
        """Count a new connection."""


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


class Exchange(BaseHTTPRequestHandler):
    """One connection, and the request on it that is being served: what a fault has in its hands."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    server: Server

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


class Server(socketserver.ThreadingTCPServer):
    timeout = 0.5
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, cloud: Cloud, port: int) -> None:
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
