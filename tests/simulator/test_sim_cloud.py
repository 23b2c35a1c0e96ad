"""The virtual cloud, asked by http.client and by bare sockets: it must be right where the client may be wrong."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

import pytest

from measurements import Datum
from simulator.cloud import Received, VirtualCloud
from simulator.cloud_http import HTML_PAGE, Reply, answer_slowly, lose_reply, never_answer, reset_mid_reply, trickle
from tests.clocks import ManualClock

MAC = 123456789
WIRE = {"mac": MAC, "type": 531, "data": -12.5, "timestamp": 1_700_000_000_000}
DATUM = Datum(mac=MAC, type=531, data=-12.5, timestamp_utc_ms=1_700_000_000_000)


class Browser:
    """One kept connection to the cloud, and the last answer's header."""

    def __init__(self, cloud: VirtualCloud) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(cloud.url).netloc, timeout=5.0)
        self.headers: dict[str, str] = {}
        self.token = ""

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Return status and body."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, "/rest/" + path, data, {"Authorization": f"Bearer {self.token}"} | fields)
        response = self.connection.getresponse()
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, response.read()

    def log_in(self, username: str = "demo", password: str = "demo") -> int:
        """Return the status; keep the token."""
        query = f"username={quote(username, safe='')}&password={quote(password, safe='')}"
        status, body = self.ask("GET", f"authentication/g?{query}")
        self.token = body.decode()
        return status

    def send(self, *readings: Mapping[str, object]) -> tuple[int, object]:
        """Return status and JSON of a batch."""
        status, body = self.ask("POST", "ingest/std/batch", list(readings))
        return status, json.loads(body) if body.startswith(b"{") else body


@pytest.fixture
def cloud() -> Iterator[VirtualCloud]:
    with VirtualCloud() as running:
        yield running


@pytest.fixture
def browser(cloud: VirtualCloud) -> Iterator[Browser]:
    made = Browser(cloud)
    with closing(made.connection):
        yield made


def test_log_in_decodes_what_was_percent_encoded(cloud: VirtualCloud, browser: Browser) -> None:
    cloud.username, cloud.password = "an öperator", "50% &#+/?="
    assert browser.log_in("an öperator", "50% &#+/?=") == 200
    assert browser.headers["content-type"] == "text/plain"
    assert browser.token.isascii()
    assert browser.log_in("an öperator", "50%") == 401
    assert browser.ask("GET", "authentication/g?username=x")[0] == 400
    assert cloud.log_in_count == 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "greetings/isloggedin"),
        ("POST", "ingest/std/batch"),
        ("GET", f"ingest/secured/std/get?t=1&m={MAC}&st=531&d=1.0"),
        ("GET", "client/locationview?invalidateCache=false"),
        ("POST", "sensorreport/latest"),
        ("GET", f"sensordata/byrange?mac={MAC}&begin=0&end=1&type=531"),
    ],
)
def test_what_needs_a_token(browser: Browser, method: str, path: str) -> None:
    assert browser.ask(method, path, [])[0] == 401
    browser.log_in()
    assert browser.ask(method, path, [], X_AIR_Token=str(MAC))[0] == 200


def test_what_needs_none(browser: Browser) -> None:
    status, body = browser.ask("GET", "sensortype/list")
    assert status == 200
    assert {entry["type"]: entry["units"] for entry in json.loads(body)} == {530: "Ah", 531: "A", 532: "V", 533: "kW"}
    assert browser.ask("GET", "no/such/call")[0] == 404
    assert browser.ask("GET", "ingest/std/batch")[0] == 404


def test_a_token_lasts_for_so_many_calls() -> None:
    with VirtualCloud(token_lifetime_calls=2) as cloud, closing(Browser(cloud).connection) as connection:
        browser = Browser(cloud)
        browser.connection = connection
        browser.log_in()
        assert [browser.send(WIRE)[0] for _ in range(3)] == [200, 200, 401]


def test_a_token_lasts_for_so_many_seconds() -> None:
    clock = ManualClock()
    with VirtualCloud(token_lifetime_s=60.0, clock=clock) as cloud:
        browser = Browser(cloud)
        with closing(browser.connection):
            browser.log_in()
            clock.advance(59.9)
            assert browser.ask("GET", "greetings/isloggedin")[0] == 200
            clock.advance(0.2)
            assert browser.ask("GET", "greetings/isloggedin")[0] == 401


def test_tokens_expire_on_demand(cloud: VirtualCloud, browser: Browser) -> None:
    browser.log_in()
    cloud.expire_tokens()
    assert browser.send(WIRE)[0] == 401


def test_what_it_got_is_remembered() -> None:
    clock = ManualClock(mono_s=5.0, utc_s=1_700_000_001.0)
    with VirtualCloud(clock=clock) as cloud:
        browser = Browser(cloud)
        with closing(browser.connection):
            browser.log_in()
            assert browser.send(WIRE, WIRE | {"type": 532}) == (200, {"booleanResponse": True, "message": "ok"})
            path = f"ingest/secured/std/get?t=1700000000000&m={MAC}&st=531&d=-12.5"
            assert browser.ask("GET", path, X_AIR_Token=str(MAC))[0] == 200
            assert browser.ask("GET", path, X_AIR_Token="1")[0] == 401
        assert cloud.received[0] == Received(
            datum=DATUM, arrival_utc_s=1_700_000_001.0, arrival_mono_s=5.0, request_index=2
        )
        assert [received.request_index for received in cloud.received] == [2, 2, 3]
        assert len(cloud.stored) == 2
        assert (cloud.request_count, cloud.log_in_count, cloud.connection_count) == (4, 1, 1)
        assert cloud.calls == {"authentication/g": 1, "ingest/std/batch": 1, "ingest/secured/std/get": 2}


def test_readings_can_be_asked_for(cloud: VirtualCloud, browser: Browser) -> None:
    browser.log_in()
    browser.send(*[WIRE | {"timestamp": utc_ms, "data": utc_ms / 10} for utc_ms in (3000, 1000, 2000)])
    browser.send(WIRE | {"timestamp": 2000, "data": 7})
    assert json.loads(browser.ask("POST", "sensorreport/latest", [MAC])[1]) == [
        WIRE | {"timestamp": 3000, "data": 300.0}
    ]
    assert json.loads(browser.ask("POST", "sensorreport/latest", [1])[1]) == []
    history = json.loads(browser.ask("GET", f"sensordata/byrange?mac={MAC}&begin=1000&end=2000&type=530&type=531")[1])
    assert [(datum["timestamp"], datum["data"]) for datum in history] == [(1000, 100.0), (2000, 7.0)]
    view = json.loads(browser.ask("GET", "client/locationview?invalidateCache=true")[1])
    assert view["allMacs"] == [MAC]
    assert view["locationSensorViews"][0]["sensorList"][0]["lastReportTime"] == 3000


def test_refusals_store_nothing_of_the_batch(cloud: VirtualCloud, browser: Browser) -> None:
    browser.log_in()
    cloud.ranges[531] = (-100.0, 100.0)
    assert browser.send(WIRE, WIRE | {"mac": 1}) == (200, {"booleanResponse": False, "message": "not authorized"})
    refused = {"booleanResponse": False, "message": "data exceeds allowed range!"}
    assert browser.send(WIRE, WIRE | {"data": 100.1}) == (200, refused)
    assert cloud.received == []
    cloud.macs |= {1}
    assert browser.send(WIRE | {"data": 100}, WIRE | {"mac": 1, "type": 532, "data": 1e9})[0] == 200
    assert len(cloud.received) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[", b"1", b"{}x", b'{"mac": 1}', b"[1]", b"[NaN]", b'[{"mac": 1, "type": 2, "timestamp": 3}]',
        json.dumps([WIRE | {"data": "1"}]).encode(), json.dumps([WIRE | {"data": float("nan")}]).encode(),
        json.dumps([WIRE | {"timestamp": 1.5}]).encode(), json.dumps([WIRE | {"mac": str(MAC)}]).encode(),
    ],
)  # fmt: skip
def test_malformed_batches(cloud: VirtualCloud, browser: Browser, body: bytes) -> None:
    browser.log_in()
    assert browser.ask("POST", "ingest/std/batch", body)[0] == 400
    assert cloud.received == []


def test_size_limits(cloud: VirtualCloud, browser: Browser) -> None:
    browser.log_in()
    cloud.largest_batch = 2
    assert browser.send(WIRE, WIRE)[0] == 200
    assert browser.send(WIRE, WIRE, WIRE)[0] == 413
    with socket.create_connection(("127.0.0.1", urlsplit(cloud.url).port or 0), timeout=5.0) as sock:
        sock.sendall(b"POST /rest/ingest/std/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def test_faults_are_used_up_in_order_and_by_call(cloud: VirtualCloud, browser: Browser) -> None:
    browser.log_in()
    cloud.misbehave(Reply(status=503, retry_after="7", body=b"later"), call="ingest/std/batch", times=2)
    cloud.misbehave(HTML_PAGE)
    assert browser.ask("GET", "sensortype/list")[1].startswith(b"<!DOCTYPE html>")
    assert browser.send(WIRE) == (503, b"later")
    assert browser.headers["retry-after"] == "7"
    assert [browser.send(WIRE)[0] for _ in range(2)] == [503, 200]
    cloud.misbehave(Reply(status=302, location="http://127.0.0.1:9/"), times=None)
    assert [browser.send(WIRE)[0] for _ in range(3)] == [302, 302, 302]
    assert browser.headers["location"] == "http://127.0.0.1:9/"
    cloud.behave()
    assert browser.send(WIRE)[0] == 200
    assert len(cloud.received) == 2


def test_slow_and_trickled_answers_are_right_in_the_end(cloud: VirtualCloud, browser: Browser) -> None:
    right = browser.ask("GET", "sensortype/list")
    cloud.misbehave(answer_slowly, delay_s=0.1)
    cloud.misbehave(trickle, interval_s=0.001)
    cloud.misbehave(trickle, interval_s=0.001, body_only=True)
    begin_mono_s = time.monotonic()
    assert [browser.ask("GET", "sensortype/list") for _ in range(3)] == [right] * 3
    assert time.monotonic() - begin_mono_s >= 0.1


def test_lost_replies_are_stored(cloud: VirtualCloud, browser: Browser) -> None:
    browser.log_in()
    for fault, how, error in [
        (lose_reply, {}, http.client.RemoteDisconnected),
        (lose_reply, {"reset": True}, ConnectionResetError),
        (reset_mid_reply, {}, (ConnectionResetError, http.client.HTTPException)),
    ]:
        cloud.misbehave(fault, **how)  # type: ignore[arg-type]
        with pytest.raises(error):  # type: ignore[call-overload]
            browser.send(WIRE)
        browser.connection.close()
    assert len(cloud.received) == 3


def test_silence_stores_nothing_and_ends_with_the_client(cloud: VirtualCloud, browser: Browser) -> None:
    browser.log_in()
    cloud.misbehave(never_answer)
    browser.connection.timeout = 0.2
    browser.connection.close()
    with pytest.raises(TimeoutError):
        browser.send(WIRE)
    assert cloud.received == []
    assert cloud.calls["ingest/std/batch"] == 1


@pytest.mark.parametrize("fault", [never_answer, answer_slowly, trickle])
def test_stop_ends_everything_within_a_second(fault: object, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = VirtualCloud().start()
    how = {answer_slowly: {"delay_s": 60.0}, trickle: {"interval_s": 60.0}}.get(fault, {})  # type: ignore[call-overload]
    cloud.misbehave(fault, **how)  # type: ignore[arg-type]
    threads_before = threading.active_count()
    with socket.create_connection(("127.0.0.1", urlsplit(cloud.url).port or 0), timeout=5.0) as busy:
        busy.sendall(b"GET /rest/sensortype/list HTTP/1.1\r\nHost: x\r\n\r\n")
        while cloud.request_count == 0:
            threading.Event().wait(0.005)
        begin_mono_s = time.monotonic()
        cloud.stop()
        assert time.monotonic() - begin_mono_s < 1.0
        while busy.recv(4096):
            pass
    assert threading.active_count() <= threads_before
    cloud.stop()
    assert capsys.readouterr() == ("", "")


def test_it_refuses_connections_while_stopped_and_comes_back(cloud: VirtualCloud) -> None:
    url, port = cloud.url, urlsplit(cloud.url).port or 0
    for _ in range(3):
        browser = Browser(cloud)
        with closing(browser.connection):
            browser.log_in()
            browser.send(WIRE)
            cloud.stop()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5.0)
            cloud.start()
    assert cloud.url == url
    assert len(cloud.received) == 3


def test_the_date_can_be_wrong_or_missing(cloud: VirtualCloud, browser: Browser) -> None:
    for shift_s in (0.0, -86400.0, 31_536_000.0):
        cloud.date_shift_s = shift_s
        browser.ask("GET", "sensortype/list")
        assert abs(parsedate_to_datetime(browser.headers["date"]).timestamp() - time.time() - shift_s) < 5.0
    cloud.date_shift_s = None
    browser.ask("GET", "sensortype/list")
    assert "date" not in browser.headers


def test_snapshots_are_safe_while_many_send(cloud: VirtualCloud) -> None:
    def send_many(kind: int) -> None:
        browser = Browser(cloud)
        with closing(browser.connection):
            browser.log_in()
            for utc_ms in range(20):
                browser.send(WIRE | {"type": kind, "timestamp": utc_ms})

    threads = [threading.Thread(target=send_many, args=(kind,)) for kind in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(cloud.stored) <= len(cloud.received) <= 160
    assert (len(cloud.stored), cloud.request_count, cloud.connection_count) == (160, 168, 8)
