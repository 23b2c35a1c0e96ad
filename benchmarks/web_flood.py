"""Whether a flood of the page costs sampling anything: 1,000 connections against the daemon while it samples.

    python3 -m benchmarks.web_flood [--seconds 60] [--sample-ms 500] [--clients 1000] [--history 0]

Three daemons side by side, so that whatever else this computer does concerns them alike: one without the page, one with
a person looking at it, one under the flood. A fifth of the flood says nothing, a fifth sends a request a byte a second
(slow-loris), a fifth asks for the table and never reads it, the rest asks for values, history, metrics and nonsense as
fast as it is answered. It comes from a process of its own at the lowest priority: on two processors it would else take
the time away from whole processes, which no daemon can help. Starts are timed as in ``timing.py``.

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
from dataclasses import dataclass
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


@dataclass(slots=True)
class Run:
    """One daemon: ``clients`` flood its page, one looks at it as a person does, ``None``: it has no page."""

    name: str
    clients: int | None
    stand: Stand
    port: int = 0
    before: Usage | None = None
    after: Usage | None = None
    flood: subprocess.Popen[bytes] | None = None

    def start(self, sample_ms: int, history: int) -> None:
        """Start the daemon, with so many intervals in its database."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        if history:
            fill(self.stand.folder, history)
        port = None if self.clients is None else self.port
        self.stand.start(sample_ms=sample_ms, report_ms=max(_REPORT_MS, sample_ms), web_port=port)

    def begin(self) -> None:
        """Begin the flood."""
        self.before = self.stand.usage()
        if self.clients is not None:
            command = [sys.executable, "-m", "benchmarks.web_flood", "--flood", str(self.port)]
            self.flood = subprocess.Popen([*command, "--clients", str(self.clients)], stdin=subprocess.PIPE)

    def end(self) -> None:
        """End the flood and the daemon."""
        self.after = self.stand.usage()
        if self.flood is not None:
            self.flood.communicate(timeout=20)
        self.stand.stop()

    def figures(self, since_mono_s: float, sample_ms: int) -> list[Figure]:
        """Return the rows of the table."""
        assert self.before is not None
        assert self.after is not None
        interval_s, stand, name = sample_ms / 1000, self.stand, self.name
        starts_mono_s, apart_ms = sample_starts(stand, since_mono_s, interval_s)
        misses = sum(sum(missed(meter, since_mono_s, interval_s)) for meter in (stand.voltage, stand.current))
        grid = fit(starts_mono_s, interval_s)
        late_ms = [abs(grid.deviation_ms(start)) for start in starts_mono_s]
        lasted_s = self.after.mono_s - self.before.mono_s
        late = f"{name}: start off its due time"
        return [
            Figure(what=f"{name}: samples", value=len(starts_mono_s), digits=0),
            Figure(what=f"{name}: due times missed by a meter", value=misses, digits=0),
            *(
                Figure(what=f"{late}, p{percent}", value=percentile(late_ms, percent / 100), unit="ms")
                for percent in (50, 90, 95)
            ),
            Figure(what=f"{late}, p99", value=percentile(late_ms, 0.99), unit="ms", at_most=_ON_TIME_MS),
            Figure(what=f"{late}, longest", value=max(late_ms), unit="ms"),
            Figure(what=f"{name}: between the two queries, p99", value=percentile(apart_ms, 0.99), unit="ms"),
            Figure(what=f"{name}: CPU", value=(self.after.cpu_s - self.before.cpu_s) / lasted_s * 100, unit="%"),
            Figure(what=f"{name}: memory, VmRSS", value=self.after.rss_mb, unit="MB"),
        ]


def measure(seconds: float, sample_ms: int, clients: int, history: int) -> list[Figure]:
    """Return the rows of the table: three daemons side by side."""
    with Stand() as none, Stand() as one, Stand() as many:
        runs = [
            Run("no page", None, none),
            Run("page, a person", 1, one),
            Run(f"page, {clients} clients", clients, many),
        ]
        for run in runs:
            run.start(sample_ms, history)
        since_mono_s = CLOCK.mono_s() + _WARM_UP_S
        many.run_until(since_mono_s)
        for run in runs:
            run.begin()
        many.run_until(since_mono_s + seconds)
        for run in runs:
            run.end()
        figures = [figure for run in runs for figure in run.figures(since_mono_s, sample_ms)]
    without, person, crowd = (run.after.rss_mb for run in runs if run.after is not None)
    return [
        *figures,
        Figure(what="memory that the page takes", value=person - without, unit="MB", at_most=15.0),
        Figure(what="memory that the page takes in the flood", value=crowd - without, unit="MB", at_most=15.0),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.web_flood", description="Does a flood cost samples?")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the run (60)")
    parser.add_argument("--sample-ms", type=int, default=500, help="the sample interval (500)")
    parser.add_argument("--clients", type=int, default=1000, help="connections of the flood (1000)")
    parser.add_argument("--history", type=int, default=0, help="intervals in the database (none)")
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.flood is not None:
        flood(options.flood, options.clients)
        return 0
    say(f"{options.seconds:g} s at {options.sample_ms} ms")
    figures = measure(options.seconds, options.sample_ms, options.clients, options.history)
    return print_table(f"Flood of the page: {options.seconds:g} s at {options.sample_ms} ms", figures)


if __name__ == "__main__":
    sys.exit(main())
