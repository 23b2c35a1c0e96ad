"""A real browser, and a stand-in for the daemon's server, for what the real one does not do when asked to."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.rig import PROJECT

STATIC = PROJECT / "web" / "static"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (tests/web/get_browser.sh)")
PHONE, DESKTOP = (360, 780), (1280, 900)
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Json = dict[str, Any]
Answer = Callable[[Mapping[str, str]], Json]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run Chromium, headless; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium (tests/web/get_browser.sh)")
    with sync_playwright() as playwright:
        # The sandbox cannot be had by root, and /dev/shm is small in a container.
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextmanager
def new_page(
    browser: Browser,
    *,
    size: tuple[int, int] = PHONE,
    dark: bool = False,
    zone: str | None = "Europe/Vienna",
    scale: float = 1,
) -> Iterator[Page]:
    """Open an empty tab; fail the test if a script fails in it or it asks any other host than the page's own."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
        timezone_id=zone,
        locale="en-GB",
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    failures: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    yield page
    context.close()
    assert failures == []
    assert len(hosts) <= 1, hosts


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class FakeMonitor:
    """The page's files and made-up answers of the interface, on a real socket.

    ``answers`` has a function of the query for each path. ``status`` other than 200 makes errors of them, ``hanging``
    lets every request of the interface wait until it is cleared.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {"api/latest": latest, "api/status": status, "api/history": history}
        self.status = 200
        self.hanging = False
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"monitor": self}))
        self._server.daemon_threads = True
        self._closed = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> FakeMonitor:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, bytes, str]:
        """Return status, body and kind of content."""
        file = STATIC / ("index.html" if path == "" else path.removeprefix("static/"))
        if (path == "" or path.startswith("static/")) and file.is_file():
            return 200, file.read_bytes(), f"{KINDS.get(file.suffix, 'text/plain')}; charset=utf-8"
        if path not in self.answers:
            return 404, b'{"error": "there is no such page"}', "application/json"
        self.asked.append(path)
        while self.hanging and not self._closed.wait(0.02):
            continue
        body = self.answers[path](query) if self.status == 200 else {"error": "the database is <b>locked</b>"}
        return self.status, json.dumps(body).encode(), "application/json"


class _Handler(BaseHTTPRequestHandler):
    monitor: FakeMonitor
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        code, body, kind = self.monitor.answer(parts.path.lstrip("/"), query)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'self'")
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the browser has given the request up

    def log_message(self, *_: object) -> None:
        """Say nothing."""


# -- made-up answers ---------------------------------------------------------------------------------------------------

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


MIDNIGHT_MS = 1_767_567_600_000  # 5 January 2026 in Vienna


def now_ms() -> int:
    return int(time.time() * 1000)


def latest(_query: Mapping[str, str]) -> Json:
    """Return an answer of ``api/latest`` in which all is well."""
    values = {"voltage_v": 52.3141, "current_a": -14.212, "power_kw": -0.74347}
    energy = {"energy_in_kwh": 8.2341, "energy_out_kwh": 5.1023, "charge_in_ah": 155.23, "charge_out_ah": 98.1}
    limits = {"energy_in_uncertainty_kwh": 0.031, "energy_out_uncertainty_kwh": 0.022}
    return {
        "time": now_ms(),
        "sample": {"timestamp": now_ms() - 300, "age_s": 0.3, **values},
        "interval": None,
        "uncertainty": {"voltage_v": 0.031, "current_a": 0.19, "power_kw": 0.0101},
        "direction": "discharging",
        "stale": False,
        "stale_after_s": 5.0,
        "today": {**energy, **limits, "coverage_percent": 98.79, "gap_seconds": 612.0, "from": MIDNIGHT_MS},
        "sample_interval_ms": 500,
        "report_interval_ms": 30_000,
    }


def without(*keys: str) -> Answer:
    """Return the same without a value for these quantities."""

    def answer(query: Mapping[str, str]) -> Json:
        body = latest(query)
        body["sample"].update(dict.fromkeys(keys))
        return body

    return answer


def nothing(query: Mapping[str, str]) -> Json:
    """Return what a daemon says that has just started and has no meter."""
    today = dict.fromkeys(latest(query)["today"])
    limits = dict.fromkeys(latest(query)["uncertainty"])
    return {
        **latest(query),
        "sample": None,
        "today": today,
        "uncertainty": limits,
        "direction": "unknown",
        "stale": True,
    }


def status(_query: Mapping[str, str]) -> Json:
    """Return an answer of ``api/status`` with one part in each state."""
    parts = (
        ("Meters", "ok", "Both meters work."),
        ("Cloud", "warning", "last delivery 5 min ago."),
        ("Redis", "off", "Not switched on."),
        ("Ledger", "error", "The sums do not agree."),
    )
    return {
        "overall": "warning",
        "parts": [{"name": name, "state": state, "text": text} for name, state, text in parts],
        "readings_waiting": 30,
        "oldest_waiting_s": 301.0,
        "last_delivery": None,
        "version": "1.0.0",
    }


def history(query: Mapping[str, str], *, missing: range = range(0)) -> Json:
    """Return an answer of ``api/history``: a saw-tooth; ``missing`` are the minutes before the end without points."""
    start, end, step = (int(query[name]) for name in ("from", "to", "step"))
    times = [t for t in range(start // step * step + step, end + 1, step) if (end - t) // MINUTE_MS not in missing]
    columns: dict[str, dict[str, list[float]]] = {}
    for key, middle, height in (("voltage_v", 52.0, 2.0), ("current_a", 5.0, 20.0), ("power_kw", 0.2, 1.0)):
        means = [middle + height * ((t // step) % 20 / 20 - 0.5) for t in times]
        columns[key] = {
            "mean": means,
            "minimum": [mean - height / 10 for mean in means],
            "maximum": [mean + height / 10 for mean in means],
            "uncertainty": [height / 5 for _ in means],
        }
    head = {"from": start, "to": end, "step_ms": step}
    if "columns" in query:
        return {**head, "timestamp": times, **columns, "coverage_s": [step / 1000] * len(times)}
    points = [
        {"timestamp": t, "energy_in_kwh": 0.25, "energy_out_kwh": None}
        | {key: {name: values[i] for name, values in column.items()} for key, column in columns.items()}
        for i, t in enumerate(times)
    ]
    return {**head, "points": points}
