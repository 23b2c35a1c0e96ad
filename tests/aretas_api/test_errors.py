"""Each error, by what provokes it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest

from aretas_api import (
    AretasClient,
    BatchTooLarge,
    DeviceNotRegistered,
    LogInRefused,
    ReadingsRefused,
    TryLater,
)
from simulator.cloud import VirtualCloud
from simulator.cloud_http import HTML_PAGE, Reply, lose_reply, never_answer, reset_mid_reply
from tests.aretas_api.conftest import MAC, reading
from tests.aretas_api.raw_server import raw_server, read_request

Maker = Callable[..., AretasClient]
BATCH = "ingest/std/batch"
LOG_IN = "authentication/g"
CALLS: list[Callable[[AretasClient], object]] = [
    lambda client: client.log_in(),
    lambda client: client.send_batch([reading()]),
    lambda client: client.send_one(reading()),
    lambda client: client.devices(),
    lambda client: client.latest([MAC]),
    lambda client: client.history(MAC, 0, 1, [531]),
    lambda client: client.sensor_types(),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 404, 408, 409, 429, 500, 502, 503, 504, 599])
def test_a_status_that_is_no_answer_means_try_later(
    cloud: VirtualCloud, client: AretasClient, call: Callable[[AretasClient], object], status: int
) -> None:
    client.log_in()
    cloud.misbehave(Reply(status=status, location="/rest/elsewhere", body=b"" if status == 204 else b"{}"))
    with pytest.raises(TryLater, match=f"^127.0.0.1 answered .* with status {status}$") as caught:
        call(client)
    assert caught.value.retry_after_s is None
    assert cloud.request_count == 2
    call(client)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("body", [HTML_PAGE.body, b"", b"{", b"null", b"[NaN]", b'{"message": "no"}', b"[" * 100_000])
def test_what_is_not_the_apis_means_try_later(
    cloud: VirtualCloud, client: AretasClient, call: Callable[[AretasClient], object], body: bytes
) -> None:
    client.log_in()
    cloud.misbehave(Reply(body=body))
    with pytest.raises(TryLater, match="something that is not the API's"):
        call(client)
    call(client)


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_password(cloud: VirtualCloud, new_client: Maker, status: int) -> None:
    client = new_client(cloud.url, password="wrong")
    if status == 403:
        cloud.misbehave(Reply(status=403), call=LOG_IN)
    with pytest.raises(LogInRefused, match=rf"^127.0.0.1 refused the user name and password \({status}\)$"):
        client.send_batch([reading()])
    assert cloud.calls == {LOG_IN: 1}


def test_a_catalogue_that_wants_a_log_in(cloud: VirtualCloud, client: AretasClient) -> None:
    cloud.misbehave(Reply(status=401))
    with pytest.raises(LogInRefused, match=r"refused sensortype/list \(401\)"):
        client.sensor_types()


def test_unknown_device(cloud: VirtualCloud, client: AretasClient) -> None:
    for send in (client.send_one, lambda datum: client.send_batch([reading(), datum])):
        with pytest.raises(DeviceNotRegistered, match=r"does not know device (7|7, 123456789) in this account"):
            send(reading(mac=7))
    cloud.macs |= {7}
    client.send_one(reading(mac=7))


@pytest.mark.parametrize("message", ["Not Authorized", "  not authorized \\n"])
def test_unknown_device_in_other_letters(cloud: VirtualCloud, client: AretasClient, message: str) -> None:
    cloud.misbehave(Reply(body=f'{{"booleanResponse": false, "message": "{message}"}}'.encode()), call=BATCH)
    with pytest.raises(DeviceNotRegistered):
        client.send_batch([reading()])


def test_value_out_of_range(cloud: VirtualCloud, client: AretasClient) -> None:
    cloud.ranges[531] = (-500.0, 500.0)
    for send in (client.send_one, lambda datum: client.send_batch([datum])):
        with pytest.raises(ReadingsRefused) as caught:
            send(reading(501.0))
        assert caught.value.message == "data exceeds allowed range!"
        assert str(caught.value) == "127.0.0.1 refused 1 readings: data exceeds allowed range!"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Reply(status=400, body=b"no such type"), "no such type"),
        (Reply(status=422, body=b"\xff\x00a\r\nb\x1b[31m"), "\ufffd a b [31m"),
        (Reply(body=b'{"booleanResponse": false}'), ""),
        (Reply(body=b'{"booleanResponse": false, "message": null}'), ""),
        (Reply(body=b'{"booleanResponse": false, "message": "' + b"x" * 1000 + b'"}'), "x" * 200),
        (Reply(body=b'{"booleanResponse": false, "message": "a\\u0007\\nb\\u202e c"}'), "a b c"),
    ],
)
def test_other_refusals_carry_the_servers_words_made_safe(
    cloud: VirtualCloud, client: AretasClient, answer: Reply, message: str
) -> None:
    cloud.misbehave(answer, call=BATCH)
    with pytest.raises(ReadingsRefused) as caught:
        client.send_batch([reading()])
    assert caught.value.message == message
    assert str(caught.value).isprintable()


def test_batch_too_large(cloud: VirtualCloud, client: AretasClient) -> None:
    cloud.largest_batch = 2
    with pytest.raises(BatchTooLarge, match="3 readings"):
        client.send_batch([reading()] * 3)
    client.send_batch([reading()] * 2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120), ("0", 0), (" 7 ", 7), ("9" * 5000, 3600), ("-5", None), ("1.5", None), ("soon", None), ("²", None)],
)
def test_retry_after_in_seconds(cloud: VirtualCloud, client: AretasClient, text: str, seconds: float | None) -> None:
    cloud.misbehave(Reply(status=429, retry_after=text))
    with pytest.raises(TryLater) as caught:
        client.log_in()
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("date_shift_s", [0.0, 86400.0 * 365, -86400.0, None])
@pytest.mark.parametrize(("ahead_s", "low_s", "high_s"), [(90, 85, 95), (-90, 0, 0), (10**6, 3600, 3600)])
def test_retry_after_as_a_date_is_counted_by_the_servers_clock(
    cloud: VirtualCloud, client: AretasClient, date_shift_s: float | None, ahead_s: float, low_s: float, high_s: float
) -> None:
    cloud.date_shift_s = date_shift_s
    until = formatdate(time.time() + (date_shift_s or 0.0) + ahead_s, usegmt=True)
    cloud.misbehave(Reply(status=503, retry_after=until))
    with pytest.raises(TryLater) as caught:
        client.log_in()
    assert caught.value.retry_after_s is not None
    assert low_s <= caught.value.retry_after_s <= high_s


@pytest.mark.parametrize("call", [LOG_IN, BATCH])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (never_answer, "silence for 0.5 s"),
        (reset_mid_reply, "Connection reset by peer|cut short"),
        (lose_reply, r"cut short or no HTTP \(RemoteDisconnected\)"),
    ],
)
def test_broken_exchanges_mean_try_later(
    cloud: VirtualCloud, client: AretasClient, call: str, fault: Callable[..., None], reason: str
) -> None:
    cloud.misbehave(fault, call=call, times=None)
    with pytest.raises(TryLater, match=f"^127.0.0.1 gave no answer to {call}: ({reason})$"):
        client.send_batch([reading()])
    cloud.behave()
    client.send_batch([reading()])


def test_nobody_listens_and_then_somebody_does(cloud: VirtualCloud, client: AretasClient) -> None:
    cloud.stop()
    with pytest.raises(TryLater, match="Connection refused"):
        client.send_batch([reading()])
    cloud.start()
    client.send_batch([reading()])


def test_a_name_that_does_not_exist(new_client: Maker) -> None:
    with pytest.raises(TryLater, match=r"^aretas\.invalid gave no answer to authentication/g: "):
        new_client("http://aretas.invalid/rest/", total_timeout_s=5.0).log_in()


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".invalid", "aretas.invalid."])
def test_a_name_that_cannot_exist(new_client: Maker, host: str) -> None:
    with pytest.raises(TryLater, match="gave no answer"):
        new_client(f"http://{host}/rest/", total_timeout_s=5.0).log_in()


@pytest.mark.parametrize(
    "answer",
    [
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\n" + b"X-Header: x\r\n" * 200 + b"\r\n[]",
        b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * 100_000 + b"\r\n\r\n[]",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"",
    ],
)
def test_broken_http_means_try_later(new_client: Maker, answer: bytes) -> None:
    def handle(connection: socket.socket, stopping: threading.Event) -> None:
        read_request(connection)
        connection.sendall(answer)

    with raw_server(handle) as port, pytest.raises(TryLater):
        new_client(f"http://127.0.0.1:{port}").sensor_types()


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found\r\nLocation: /rest/", b"503 No"])
def test_an_endless_answer_is_not_read_to_its_end(new_client: Maker, status: bytes) -> None:
    sent_bytes = []

    def handle(connection: socket.socket, stopping: threading.Event) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n")
        try:
            for count in range(1, 10_000):
                connection.sendall(bytes(65536))
                sent_bytes.append(count * 65536)
        finally:
            stopping.wait(0)

    with raw_server(handle) as port, pytest.raises(TryLater, match="more than 4194304 bytes"):
        new_client(f"http://127.0.0.1:{port}").sensor_types()
    assert sent_bytes[-1] < 64 * 1024 * 1024
