"""Whether a flood of the page costs sampling anything: 1,000 connections against the daemon while it samples.

    python3 -m benchmarks.web_flood [--seconds 60] [--sample-ms 500] [--clients 1000]

Three runs of the same length: without the page, with the page and one browser's worth of requests, and with the page
under a flood. A fifth of the flood says nothing, a fifth sends a request a byte a second (slow-loris), a fifth asks for
the table and never reads it, the rest asks for values, history, metrics and nonsense as fast as it is answered. All of
it comes from a process of its own, at the lowest priority: on a machine of two processors it would else take the time
away from the daemon's process as a whole, which no daemon can help. Starts are timed as in ``timing.py``.

With ``--history`` the daemon finds a database with that many intervals, so that the answers cost something.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.stand import CLOCK, Figure, Stand, Usage, percentile, print_table, say
from benchmarks.timing import fit, missed, sample_starts
from clock import Clock
from store import NAME, Store

_REPORT_MS, _WARM_UP_S = 1000, 8.0
_ON_TIME_MS = 5.0
_PATHS = (
    "/api/latest",
    "/api/status",
    "/metrics",
    "/api/history",
    "/api/history?columns=1",
    "/api/energy",
    "/nothing",
    "/api/history?from=nonsense",
)


# -- the flood ---------------------------------------------------------------------------------------------------------


class Client:
    """One connection of the flood, opened again whenever the server has closed it."""

    def __init__(self, port: int, kind: str) -> None:
        self.kind = kind
        self._port = port
        self._socket: socket.socket | None = None
        self._sent = 0
        self._next_mono_s = 0.0
        self.answers = self.closed = 0

    def turn(self, now_mono_s: float) -> None:
        """Do what this kind of client does, without waiting."""
        if now_mono_s < self._next_mono_s:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket()
                self._socket.setblocking(False)
                if self.kind == "deaf":
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                self._socket.connect_ex(("127.0.0.1", self._port))
                self._sent = 0
                self._next_mono_s = now_mono_s + 0.05
            elif self.kind == "silent":
                self._next_mono_s = now_mono_s + 0.5
                self._receive()
            elif self.kind == "slow":
                self._next_mono_s = now_mono_s + 1.0
                self._socket.send(b"GET /api/latest HTTP/1.1\r\nX-Slow: "[self._sent : self._sent + 1] or b"x")
                self._sent += 1
            elif self.kind == "deaf":
                self._next_mono_s = now_mono_s + 1.0
                if not self._sent:
                    self._sent = self._socket.send(b"GET /api/history.csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
            elif self._sent:
                self._next_mono_s = now_mono_s + (1.5 if self.kind == "person" else 0.0)
                self._receive()
            else:
                path = random.choice(_PATHS)
                self._sent = self._socket.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        except BlockingIOError:
            self._next_mono_s = now_mono_s + 0.02
        except OSError:
            self._close()

    def _receive(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(65_536)
        if not data:
            self._close()
        elif data.startswith(b"HTTP/1.1 "):
            self.answers += 1
            self._sent = 0

    def _close(self) -> None:
        self.closed += 1
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def flood(port: int, clients: int) -> None:
    """Flood the page at a port until standard input is closed."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # where the rest runs in real time
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    kinds = ("silent", "slow", "deaf", "hammer", "hammer") if clients > 1 else ("person",)
    crowd = [Client(port, kinds[number % len(kinds)]) for number in range(clients)]
    while not select.select([sys.stdin], [], [], 0 if clients > 1 else 0.1)[0]:
        for client in crowd:
            client.turn(CLOCK.mono_s())
    answers, closed = sum(each.answers for each in crowd), sum(each.closed for each in crowd)
    say(f"the flood got {answers} answers and lost {closed} connections")


# -- the runs ----------------------------------------------------------------------------------------------------------


def fill(folder: Path, intervals: int) -> None:
    """Make a database with so many intervals of 30 s until now."""
    now_utc_ms = int(CLOCK.utc_s() * 1000) // 30_000 * 30_000
    store = Store(folder / NAME, Clock())
    names = [f"{name}{part}" for name in ("voltage", "current", "power") for part in ("", "_minimum", "_maximum")]
    names += ["energy_in", "energy_out", "charge_in", "charge_out", "energy_s", "charge_s"]
    with store.transaction() as cursor:
        cursor.execute("INSERT INTO device (id, mac, voltage_type, current_type, power_type) VALUES (1, 9, 1, 2, 3)")
        sql = (
            f"INSERT INTO interval (device, waiting, end_utc_ms, voltage_count, current_count, power_count, "
            f"{', '.join(names)}) VALUES (1, 0, ?, 6, 6, 6{', ?' * len(names)})"
        )
        rows = ([52.1, 51.9, 52.3, -20.1, -22.0, -18.3, -1.05, -1.1, -0.9, 0.0, 0.008, 0.0, 0.16, 30.0, 30.0],)
        cursor.executemany(sql, ([now_utc_ms - 30_000 * (intervals - number), *rows[0]] for number in range(intervals)))
    store.close()


def measure(name: str, seconds: float, sample_ms: int, clients: int | None, history: int) -> tuple[list[Figure], Usage]:
    """Return the rows of one run; ``clients``: how many flood the page, ``None`` if there is no page."""
    with Stand() as stand, socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
        free.close()
        if history:
            fill(stand.folder, history)
        stand.start(
            sample_ms=sample_ms, report_ms=max(_REPORT_MS, sample_ms), web_port=None if clients is None else port
        )
        since_mono_s = stand.spawned_mono_s + _WARM_UP_S
        stand.run_until(since_mono_s)
        before, flooding = stand.usage(), None
        if clients is not None:
            command = [sys.executable, "-m", "benchmarks.web_flood", "--flood", str(port), "--clients", str(clients)]
            flooding = subprocess.Popen(command, stdin=subprocess.PIPE)
        stand.run_until(since_mono_s + seconds)
        usage = stand.usage()
        if flooding is not None:
            flooding.communicate(timeout=20)
        stand.stop()
        starts_mono_s, apart_ms = sample_starts(stand, since_mono_s, sample_ms / 1000)
        misses = sum(sum(missed(meter, since_mono_s, sample_ms / 1000)) for meter in (stand.voltage, stand.current))
    grid = fit(starts_mono_s, sample_ms / 1000)
    late_ms = [abs(grid.deviation_ms(start)) for start in starts_mono_s]
    bound = _ON_TIME_MS if sample_ms >= 500 else None
    return [
        Figure(what=f"{name}: samples", value=len(starts_mono_s), digits=0),
        Figure(what=f"{name}: due times missed by a meter", value=misses, digits=0),
        Figure(what=f"{name}: start off its due time, p50", value=percentile(late_ms, 0.5), unit="ms"),
        Figure(what=f"{name}: start off its due time, p99", value=percentile(late_ms, 0.99), unit="ms", at_most=bound),
        Figure(what=f"{name}: start off its due time, longest", value=max(late_ms), unit="ms"),
        Figure(what=f"{name}: between the two queries, p99", value=percentile(apart_ms, 0.99), unit="ms"),
        Figure(
            what=f"{name}: CPU", value=(usage.cpu_s - before.cpu_s) / (usage.mono_s - before.mono_s) * 100, unit="%"
        ),
        Figure(what=f"{name}: memory, VmRSS", value=usage.rss_mb, unit="MB"),
    ], usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.web_flood", description="Does a flood cost samples?")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each run (60)")
    parser.add_argument("--sample-ms", type=int, default=500, help="the sample interval (500)")
    parser.add_argument("--clients", type=int, default=1000, help="connections of the flood (1000)")
    parser.add_argument("--history", type=int, default=0, help="intervals in the database (none)")
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.flood is not None:
        flood(options.flood, options.clients)
        return 0
    figures: list[Figure] = []
    usages = []
    for name, clients in (
        ("no page", None),
        ("page, 1 client", 1),
        (f"page, {options.clients} clients", options.clients),
    ):
        say(f"{name}: {options.seconds:g} s")
        rows, usage = measure(name, options.seconds, options.sample_ms, clients, options.history)
        figures += rows
        usages.append(usage)
    more_mb = usages[1].rss_mb - usages[0].rss_mb
    figures.append(Figure(what="memory that the page takes", value=more_mb, unit="MB", at_most=15.0))
    more_mb = usages[2].rss_mb - usages[0].rss_mb
    figures.append(Figure(what="memory that the page takes under the flood", value=more_mb, unit="MB", at_most=15.0))
    return print_table(f"Flood of the page: {options.seconds:g} s at {options.sample_ms} ms", figures)


if __name__ == "__main__":
    sys.exit(main())
