"""What requests cannot do by itself: a limit on the total time of a call, and a query that it never gets to see.

Thread: the caller's. Beside it, for as long as the call lasts, a timer; and while a host name is looked up, a helper.

Guarantees: a ``Call`` ends when its time is up, whatever it waits for: the look-up of a name, a connection, a TLS
handshake, a proxy, a header or a body that arrives one byte at a time, on a new connection or a kept one. (The timeouts
of requests begin anew with every byte.) The secret query joins the URL on its way into the socket, so that no
exception, log line or object of requests or urllib3 can hold it.

Does not guarantee that the helper of a look-up ends with the call. The system's resolver cannot be interrupted: the
helper ends when the resolver gives up, by default after some 30 s, and nobody waits for it.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.poolmanager import PoolManager
from urllib3.response import HTTPResponse

from clock import Clock

SocketOptions = Iterable[tuple[int, int, int | bytes]]


class Call:
    """The time limit of one call, and its secret query. A context manager; the requests made inside it obey it."""

    def __init__(self, total_timeout_s: float, clock: Clock) -> None:
        self.secret_query = ""  # joins the URL of the next request, with a question mark before it
        self.on_kept_connection = False  # whether the last request went over a connection that had served before
        self._clock = clock
        self._end_mono_s = clock.mono_s() + total_timeout_s
        self._ended_because: str | None = None
        self._too_late = f"not complete after {total_timeout_s:g} s"
        self._timer = threading.Timer(total_timeout_s, self.end, [self._too_late])
        self._timer.daemon = True
        self._timer.name = "aretas-time-limit"
        self._lock = threading.Lock()
        self._on_end: list[Callable[[], object]] = []
        self._handles: list[socket.socket] = []

    def __enter__(self) -> Call:
        self._outer = _present_call.set(self)
        self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        _present_call.reset(self._outer)
        with self._lock:
            self._on_end.clear()
            for handle in self._handles:
                handle.close()

    def end(self, reason: str) -> None:
        """End whatever the call waits for, now and from here on. From any thread; returns at once."""
        with self._lock:
            self._ended_because = self._ended_because or reason
            for action in self._on_end:
                action()

    @property
    def ended_because(self) -> str | None:
        """Why the call has ended, in an operator's words; ``None`` while it goes on. True even if the timer lags."""
        return self._ended_because or (self._too_late if self._remaining_s() == 0.0 else None)

    def watch(self, sock: socket.socket) -> None:
        """Shut the connection of ``sock`` down when the call ends.

        This is done through a second handle on the same connection, because a TLS handshake takes the first one away
        from its owner, and because the ``shutdown()`` of a TLS socket would drop the cipher while another thread reads.
        """
        handle = socket.fromfd(sock.fileno(), sock.family, sock.type)
        with self._lock:
            self._handles.append(handle)
        self._at_end(partial(_shut_down, handle))

    def connect(self, host: str, port: int, timeout_s: float, options: SocketOptions) -> socket.socket:
        """Return a new connection to the first address of ``host`` that takes one within ``timeout_s`` seconds.

        Blocks at most ``timeout_s`` per address and never longer than the call lasts. Raises OSError, of the last
        address that was tried.
        """
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in self._look_up(host, port):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in options:
                    sock.setsockopt(*option)
                self.watch(sock)
                sock.settimeout(min(timeout_s, self._remaining_s()))
                sock.connect(address)
            except OSError as exc:
                sock.close()
                failure = exc
            else:
                return sock
        raise failure

    def _look_up(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """Return the addresses of ``host``, as ``socket.getaddrinfo`` does. Raises OSError."""
        found: list[list[tuple[Any, ...]]] = []
        failures: list[OSError] = []
        done = threading.Event()

        def ask() -> None:
            try:
                found.append(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
            except OSError as exc:
                failures.append(exc)
            except UnicodeError:
                failures.append(OSError(f"{host} is no host name"))
            done.set()

        self._at_end(done.set)
        threading.Thread(target=ask, name="aretas-look-up", daemon=True).start()
        done.wait(self._remaining_s())
        if found:
            return found[0]
        raise failures[0] if failures else TimeoutError(f"the look-up of {host} took too long")

    def _at_end(self, action: Callable[[], object]) -> None:
        with self._lock:
            self._on_end.append(action)
            if self._ended_because is not None:
                action()

    def _remaining_s(self) -> float:
        return self._clock.timeout_s(self._end_mono_s)


_present_call: ContextVar[Call] = ContextVar("present call of the Aretas client")


def _shut_down(handle: socket.socket) -> None:
    with suppress(OSError):  # it was not connected yet, or not any more: nothing waits on it
        handle.shutdown(socket.SHUT_RDWR)


class _Answer(http.client.HTTPResponse):
    """An answer as http.client reads it. A malformed header line is passed over, as by urllib3, but not logged.

    urllib3 would log it as a warning, and with it the password if the server echoes the question.
    """

    def begin(self) -> None:
        """Override: called to read the header."""
        super().begin()
        self.headers.defects.clear()
        self.headers.set_payload("")


class _Connection(HTTPConnection):
    """A connection of urllib3 that is made, watched and told the secret query by the present call."""

    response_class = _Answer
    _served_before = False

    def _new_conn(self) -> socket.socket:
        """Override urllib3's way to a connected socket; proxies and TLS are built upon it."""
        self._served_before = False
        timeout_s = self.timeout if isinstance(self.timeout, int | float) else float("inf")
        try:
            return _present_call.get().connect(self._dns_host, self.port, timeout_s, self.socket_options or ())
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, "timed out") from exc
        except OSError as exc:
            raise NewConnectionError(self, "failed") from exc

    def _tunnel(self) -> None:
        """Override urllib3's way through a proxy, which takes an answer that ends half-way for a tunnel that stands."""
        super()._tunnel()
        reason = _present_call.get().ended_because
        if reason is not None:
            raise TimeoutError(reason)

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        """Override the first step of a request: its first line."""
        call = _present_call.get()
        call.on_kept_connection = self._served_before and self.sock is not None
        if self.sock is not None:
            call.watch(self.sock)
        query, call.secret_query = call.secret_query, ""
        super().putrequest(method, f"{url}?{query}" if query else url, skip_host, skip_accept_encoding)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 itself overrides http.client's
        """Override the last step of a request: its answer."""
        response = super().getresponse()
        self._served_before = True
        return response


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class CallAdapter(HTTPAdapter):
    """The adapter that makes requests use the connections above, directly and through a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Override: called by requests once."""
        super().init_poolmanager(*args, **kwargs)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Override: called by requests for every request that goes through a proxy."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        _use_our_pools(manager)
        return manager


def _use_our_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
