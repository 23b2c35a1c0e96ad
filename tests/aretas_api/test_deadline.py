"""The total time limit of a call, whatever it waits for; stale connections; a close from another thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from aretas_api import AretasClient, TryLater
from simulator.cloud import VirtualCloud
from simulator.cloud_http import answer_slowly, lose_reply, never_answer, trickle
from tests.aretas_api.conftest import PASSWORD, Tls, reading
from tests.aretas_api.raw_server import raw_server, read_request
from tests.aretas_api.raw_server import trickle as send_slowly

Maker = Callable[..., AretasClient]
TOTAL_S = 0.35
BATCH = "ingest/std/batch"


@contextmanager
def ends_in_time(total_timeout_s: float = TOTAL_S) -> Iterator[None]:
    """Expect a TryLater that says so at the deadline: not before it, and not much after it even on a busy machine."""
    begin_mono_s = time.monotonic()
    with pytest.raises(TryLater, match=f"not complete after {total_timeout_s:g} s"):
        yield
    assert total_timeout_s - 0.05 <= time.monotonic() - begin_mono_s < total_timeout_s + 1.5


@pytest.fixture(params=["http", "https"])
def any_cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualCloud]:
    tls = None
    if request.param == "https":
        certificate: Tls = request.getfixturevalue("tls")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.trusted))
        tls = certificate.server
    with VirtualCloud(username="an operator", password=PASSWORD, tls=tls) as cloud:
        yield cloud


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("body_only", [True, False])
def test_trickled_answer(any_cloud: VirtualCloud, new_client: Maker, kept: bool, body_only: bool) -> None:
    client = new_client(any_cloud.url, total_timeout_s=TOTAL_S)
    if kept:
        client.sensor_types()
    any_cloud.misbehave(trickle, interval_s=0.1, body_only=body_only)
    with ends_in_time():
        client.sensor_types()
    assert any_cloud.connection_count == 1
    client.send_batch([reading()])


@pytest.mark.parametrize("kept", [True, False])
def test_no_answer(any_cloud: VirtualCloud, new_client: Maker, kept: bool) -> None:
    client = new_client(any_cloud.url, read_timeout_s=20.0, total_timeout_s=TOTAL_S)
    if kept:
        client.sensor_types()
    any_cloud.misbehave(never_answer)
    with ends_in_time():
        client.sensor_types()
    client.send_batch([reading()])


def test_the_log_in_counts_too(any_cloud: VirtualCloud, new_client: Maker) -> None:
    client = new_client(any_cloud.url, read_timeout_s=20.0, total_timeout_s=TOTAL_S)
    any_cloud.misbehave(answer_slowly, delay_s=0.25, times=None)
    with ends_in_time():
        client.send_batch([reading()])
    client.send_batch([reading()])  # the token of the first attempt is kept, so the second one gets there
    assert any_cloud.log_in_count == 1


def test_a_slow_answer_within_the_limit_is_an_answer(any_cloud: VirtualCloud, new_client: Maker) -> None:
    any_cloud.misbehave(answer_slowly, delay_s=0.2, times=None)
    new_client(any_cloud.url).send_batch([reading()])


@pytest.mark.parametrize("greeting", [b"", b"\x16\x03\x03\x40\x00" + bytes(1000)])
def test_tls_handshake_that_never_ends(new_client: Maker, greeting: bytes) -> None:
    def handle(connection: socket.socket, stopping: threading.Event) -> None:
        send_slowly(connection, stopping, greeting)
        while not stopping.is_set() and connection.recv(65536):
            pass

    with raw_server(handle) as port, ends_in_time():
        new_client(f"https://127.0.0.1:{port}/", connect_timeout_s=20.0, total_timeout_s=TOTAL_S).sensor_types()


def test_proxy_that_never_gets_to_the_point(new_client: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(connection: socket.socket, stopping: threading.Event) -> None:
        read_request(connection)
        send_slowly(connection, stopping, b"HTTP/1.1 200 Connection established\r\n" + b"X-Slow: yes\r\n" * 1000)

    with raw_server(handle) as port, ends_in_time():
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        new_client("https://aretas.invalid/", total_timeout_s=TOTAL_S).sensor_types()


def test_name_server_that_never_answers(new_client: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def look_up(*args: object, **kwargs: object) -> list[object]:
        release.wait(20.0)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with ends_in_time():
            new_client("http://aretas.invalid/", total_timeout_s=TOTAL_S).sensor_types()
    finally:
        release.set()


def test_connection_that_is_never_accepted(new_client: Maker) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the queue of one listener that accepts nobody is soon full, and SYNs are dropped
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        with pytest.raises(TryLater, match=r"no connection within 0\.3 s"):
            new_client(f"http://127.0.0.1:{port}/", connect_timeout_s=0.3).sensor_types()
        with ends_in_time():
            client = new_client(f"http://127.0.0.1:{port}/", connect_timeout_s=20.0, total_timeout_s=TOTAL_S)
            client.sensor_types()
        for filler in fillers:
            filler.close()


def test_the_second_of_two_addresses_is_tried(
    cloud: VirtualCloud, new_client: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(cloud.url.split(":")[2].split("/")[0])
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: addresses)
    new_client(f"http://two-addresses.invalid:{port}/rest/").send_batch([reading()])
    assert len(cloud.received) == 1


def test_close_from_another_thread_ends_the_call(cloud: VirtualCloud, new_client: Maker) -> None:
    client = new_client(cloud.url, read_timeout_s=20.0, total_timeout_s=20.0)
    cloud.misbehave(never_answer, call="sensortype/list")
    failures: list[TryLater] = []

    def ask() -> None:
        with pytest.raises(TryLater) as caught:
            client.sensor_types()
        failures.append(caught.value)

    asking = threading.Thread(target=ask)
    asking.start()
    while cloud.request_count == 0:
        threading.Event().wait(0.01)
    client.close()
    asking.join(5.0)
    assert not asking.is_alive()
    assert "the client was closed" in str(failures[0])
    client.sensor_types()


def test_a_connection_that_was_closed_while_idle_costs_nothing(cloud: VirtualCloud, client: AretasClient) -> None:
    client.send_batch([reading()])
    cloud.stop()
    cloud.start()
    client.send_batch([reading()])
    assert cloud.calls == {"authentication/g": 1, BATCH: 2}


@pytest.mark.parametrize("reset", [True, False])
def test_a_kept_connection_that_ends_with_the_question_is_asked_again(
    cloud: VirtualCloud, client: AretasClient, reset: bool
) -> None:
    client.log_in()
    cloud.misbehave(lose_reply, reset=reset, call=BATCH)
    client.send_batch([reading()])
    assert (cloud.calls[BATCH], cloud.connection_count) == (2, 2)
    assert cloud.stored == [reading()]


def test_it_is_asked_again_once_and_with_the_password(cloud: VirtualCloud, client: AretasClient) -> None:
    client.log_in()
    cloud.misbehave(lose_reply, call="authentication/g")
    client.log_in()
    cloud.misbehave(lose_reply, call="authentication/g", times=None)
    with pytest.raises(TryLater):
        client.log_in()
    assert cloud.log_in_count == 1 + 2 + 2


def test_a_new_connection_that_ends_with_the_question_is_not_asked_again(
    cloud: VirtualCloud, client: AretasClient
) -> None:
    cloud.misbehave(lose_reply, call="sensortype/list")
    with pytest.raises(TryLater):
        client.sensor_types()
    assert cloud.request_count == 1
