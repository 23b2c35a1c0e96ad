"""A server that speaks no HTTP by itself: each connection is handled by a function of the test. For hostile servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Handler = Callable[[socket.socket, threading.Event], None]


@contextmanager
def raw_server(handle: Handler) -> Iterator[int]:
    """Yield the port of a server that calls ``handle(connection, stopping)`` in a thread for every connection."""
    stopping = threading.Event()
    threads: list[threading.Thread] = []

    def serve_one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10.0)
            handle(connection, stopping)

    def accept() -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve_one, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
            for thread in [acceptor, *threads]:
                thread.join(5.0)


def read_request(connection: socket.socket) -> bytes:
    """Return the bytes of one request as far as they came with its header."""
    request = b""
    while b"\r\n\r\n" not in request and (chunk := connection.recv(65536)):
        request += chunk
    return request


def trickle(connection: socket.socket, stopping: threading.Event, data: bytes, interval_s: float = 0.02) -> None:
    """Send ``data`` one byte per interval."""
    for byte in data:
        connection.sendall(bytes([byte]))
        if stopping.wait(interval_s):
            return
