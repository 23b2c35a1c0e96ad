"""The web server: the thread that takes the connections; a few threads of waitress work at the requests.

Guarantees: nothing of it holds what sampling or reporting waits for; an address that cannot be used (the port is taken)
is told once, shown in the status and tried again, and ends nothing; connections, requests and threads are bounded, and
whoever is slow or silent is dropped in time (``connections.py``); at the stop nobody is waited for.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import sys
from pathlib import Path
from typing import Any

from waitress import wasyncore
from waitress.server import create_server

from clock import Clock
from settings import WebSettings
from state_log import Ration, StateLog
from web.api import Site
from web.auth import Gate
from web.connections import Channel, Patience
from web.facts import Facts
from worker import Worker

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
_THREADS = 4  # three may be held by those who read slowly (api.py)
_CONNECTIONS = 100
_LOOP_S = 0.5
_REST_S = 0.004  # between two looks at the connections: a flood gets so much of the processor and no more
_LOOK_EVERY_S = 1.0
_TRY_AGAIN_AFTER_S = 5.0
_SWITCH_EVERY_S = 0.0005  # so soon a thread that wants to run, the sampler, gets its turn: Python's own are 5 ms
_THREADS_END_WITHIN_S = 0.3
_ADVICE = {
    errno.EADDRINUSE: "Another program has this port",
    errno.EACCES: "A web_port below 1024 needs special rights: choose another one",
}
_OTHERWISE = "Is web_host an address of this computer? ip address shows them; 0.0.0.0 is all of them"


class WebServer(Worker):
    """Serves the page and the API at the address of ``settings``. ``folder`` has the files of the page."""

    def __init__(self, settings: WebSettings, facts: Facts, clock: Clock, folder: Path = FOLDER) -> None:
        super().__init__("web", clock)
        self._settings = settings
        self._state = StateLog(logger, f"page at {_address(settings.host, settings.port)}", clock)
        self._errors = StateLog(logger, "page", clock)
        gate = Gate(settings.password, clock)
        self._site = Site(facts, gate, folder, self._errors, self._stop.wait)
        self._patience = Patience(clock, _CONNECTIONS)
        self._map: dict[int, Any] = {}
        self._server: Any = None
        self._look_mono_s = 0.0
        _calm_down(clock)

    @property
    def trouble(self) -> str | None:
        """Why the page cannot be served, ``None`` if it is."""
        return self._state.line

    @property
    def port(self) -> int | None:
        """The port it listens at, ``None`` while it does not."""
        server = self._server
        return None if server is None else int(server.effective_port)

    def step(self) -> None:
        """Take what has come from the connections; listen first, or wait to try that again."""
        if self._server is None:
            self._listen()
            return
        wasyncore.loop(timeout=_LOOP_S, map=self._map, use_poll=hasattr(select, "poll"), count=1)
        now_mono_s = self.clock.mono_s()
        if now_mono_s >= self._look_mono_s or len(self._map) >= _CONNECTIONS:
            self._look_mono_s = now_mono_s + _LOOK_EVERY_S
            self._patience.look(list(self._server.active_channels.values()))
        self._stop.wait(_REST_S)

    def finish(self) -> None:
        """Close the address and every connection, whatever their requests are at."""
        if self._server is None:
            return
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()  # first: a thread may wait for its client to read
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=_THREADS_END_WITHIN_S)
        self._server.close()

    def _listen(self) -> None:
        try:
            listener = _listener(self._settings.host, self._settings.port)
        except OSError as exc:
            words = f"cannot be served: {os.strerror(exc.errno or 0)}. {_ADVICE.get(exc.errno or 0, _OTHERWISE)}"
            self._state.failed(str(exc.errno), f"{words}. It is tried again; everything else goes on")
            self.pause(_TRY_AGAIN_AFTER_S)
            return
        sys.setswitchinterval(_SWITCH_EVERY_S)
        self._server = create_server(
            self._site,
            map=self._map,
            sockets=[listener],
            threads=_THREADS,
            connection_limit=_CONNECTIONS + 20,
            channel_timeout=120,
            cleanup_interval=60,
            backlog=64,
            max_request_header_size=16_384,
            max_request_body_size=1024,
            outbuf_high_watermark=262_144,
            outbuf_overflow=1_048_576,
            inbuf_overflow=65_536,
            log_socket_errors=False,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
        self._server.channel_class = Channel
        self._state.well("is served")
        logger.info("the page is served at http://%s/", _address(self._settings.host, self.port or 0))


def _calm_down(clock: Clock) -> None:
    """Have waitress log its errors only, some an hour: what clients do is no news, and has no end."""
    ration = Ration(clock)
    waitress_logger = logging.getLogger("waitress")
    waitress_logger.setLevel(logging.ERROR)
    waitress_logger.filters[:] = [lambda _record: ration.take()]
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ``OSError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=64, dualstack_ipv6=both)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
