"""Each call of the API against the virtual cloud: what goes out, what comes back, when it logs in."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aretas_api import AretasClient, Device, LogInRefused, SensorType
from measurements import Datum
from simulator.cloud import VirtualCloud
from simulator.cloud_http import Reply
from tests.aretas_api.conftest import MAC, PASSWORD, reading
from tests.aretas_api.raw_server import raw_server, read_request

Maker = Callable[..., AretasClient]


def test_constructor_and_close_open_nothing(cloud: VirtualCloud, client: AretasClient) -> None:
    client.close()
    assert cloud.connection_count == 0


def test_send_batch_is_stored_as_sent(cloud: VirtualCloud, client: AretasClient) -> None:
    readings = [reading(0.1 + 0.2), reading(5e-324, type=532), reading(1.7976931348623157e308, type=533, mac=42)]
    client.send_batch(readings)
    assert [received.datum for received in cloud.received] == readings
    assert cloud.calls == {"authentication/g": 1, "ingest/std/batch": 1}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(value=st.floats(allow_nan=False, allow_infinity=False), utc_ms=st.integers(0, 2**53))
def test_every_finite_value_arrives_exactly_by_both_calls(
    cloud: VirtualCloud, client: AretasClient, value: float, utc_ms: int
) -> None:
    datum = reading(value, timestamp_utc_ms=utc_ms)
    client.send_batch([datum])
    client.send_one(datum)
    assert [received.datum for received in cloud.received[-2:]] == [datum, datum]
    assert math.copysign(1, cloud.received[-1].datum.data) == math.copysign(1, value)


def test_an_empty_batch_is_not_sent(cloud: VirtualCloud, client: AretasClient) -> None:
    client.send_batch([])
    assert cloud.connection_count == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_sent(cloud: VirtualCloud, client: AretasClient, value: float) -> None:
    with pytest.raises(ValueError, match="type 531 of device 123456789"):
        client.send_batch([reading(), reading(value)])
    with pytest.raises(ValueError, match="no finite number"):
        client.send_one(reading(value))
    assert cloud.connection_count == 0


def test_devices(cloud: VirtualCloud, client: AretasClient) -> None:
    client.send_batch([reading(timestamp_utc_ms=1_700_000_000_123)])
    for invalidate_cache in (False, True):
        devices = client.devices(invalidate_cache)
        assert devices.all_macs == {MAC, 42}
        assert devices.details == (
            Device(mac=42, description="virtual device 42", last_report_utc_ms=None),
            Device(mac=MAC, description=f"virtual device {MAC}", last_report_utc_ms=1_700_000_000_123),
        )


def test_latest_and_history(client: AretasClient) -> None:
    readings = [
        reading(utc_ms / 7, type=kind, timestamp_utc_ms=utc_ms) for utc_ms in (1000, 2000, 3000) for kind in (531, 532)
    ]
    client.send_batch(readings)
    assert client.latest([MAC]) == readings[-2:]
    assert client.latest([42]) == []
    assert client.history(MAC, 1000, 2000, [531]) == [readings[0], readings[2]]
    assert client.history(MAC, 1001, 3000, [531, 532]) == readings[2:]


def test_sensor_types_need_no_log_in(cloud: VirtualCloud, client: AretasClient) -> None:
    assert SensorType(type=531, label="HV Battery Current", units="A") in client.sensor_types()
    assert cloud.log_in_count == 0


def test_is_logged_in(cloud: VirtualCloud, client: AretasClient) -> None:
    assert not client.is_logged_in()
    assert cloud.connection_count == 0
    client.log_in()
    assert client.is_logged_in()
    cloud.expire_tokens()
    assert not client.is_logged_in()
    assert cloud.log_in_count == 1


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_trailing_slash_of_the_url_is_optional(cloud: VirtualCloud, new_client: Maker, slash: str) -> None:
    new_client(cloud.url.rstrip("/") + slash).send_batch([reading()])
    assert len(cloud.received) == 1


@pytest.mark.parametrize(
    "url",
    ["", "iot.aretas.ca/rest/", "ftp://host/", "http://", "https://me:hush@host/", "http://h/?q=hush", "http://[hush/"],
)
def test_a_malformed_url_is_refused_unquoted(new_client: Maker, url: str) -> None:
    with pytest.raises(ValueError, match="base URL") as caught:
        new_client(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "password", ["100%", "a&b=c", "#1", "1+1", "two words", "größe€𝄞", "%41%2B", "/?;:@\\\"'<>", PASSWORD]
)
def test_any_password_arrives_as_it_is(cloud: VirtualCloud, new_client: Maker, password: str) -> None:
    cloud.username = cloud.password = password
    new_client(cloud.url, username=password, password=password).log_in()
    assert cloud.log_in_count == 1


def test_one_log_in_and_one_connection_serve_all_calls(cloud: VirtualCloud, client: AretasClient) -> None:
    for _ in range(20):
        client.send_batch([reading()])
    assert (cloud.log_in_count, cloud.connection_count) == (1, 1)


def test_an_expired_token_is_renewed_once_and_the_call_repeated(cloud: VirtualCloud, new_client: Maker) -> None:
    tokens: list[str] = []
    client = new_client(cloud.url, on_secret=tokens.append)
    client.send_batch([reading()])
    cloud.expire_tokens()
    client.send_batch([reading()])
    assert (cloud.log_in_count, len(set(tokens)), len(cloud.received)) == (2, 2, 2)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_refused_twice_is_an_error_and_not_kept(cloud: VirtualCloud, client: AretasClient, status: int) -> None:
    client.log_in()
    cloud.misbehave(Reply(status=status), call="ingest/std/batch", times=2)
    with pytest.raises(LogInRefused):
        client.send_batch([reading()])
    assert cloud.calls == {"authentication/g": 2, "ingest/std/batch": 2}
    assert not client.is_logged_in()
    client.send_batch([reading()])
    assert cloud.log_in_count == 3


def test_netrc_does_not_replace_the_token(
    cloud: VirtualCloud, client: AretasClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    client.send_batch([reading()])
    assert cloud.log_in_count == 1


def test_a_proxy_of_the_environment_is_used(
    cloud: VirtualCloud, new_client: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", cloud.url)
    new_client("http://aretas.invalid/rest/").send_batch([reading()])
    assert len(cloud.received) == 1


def test_no_proxy_stands_before_this_machine(client: AretasClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client.send_batch([reading()])


def test_cookies_are_not_kept(new_client: Maker) -> None:
    requests: list[bytes] = []

    def handle(connection, stopping: threading.Event) -> None:  # type: ignore[no-untyped-def]
        while request := read_request(connection):
            requests.append(request)
            connection.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\n[]")

    with raw_server(handle) as port:
        client = new_client(f"http://127.0.0.1:{port}")
        for _ in range(2):
            client.sensor_types()
        client.close()
    assert len(requests) == 2
    assert not any(b"cookie" in request.lower() for request in requests)


def test_what_is_logged(client: AretasClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="aretas_api"):
        client.history(MAC, 0, 1, [531])
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("aretas_api")]
    assert len(lines) == 2
    assert lines[1].startswith("GET sensordata/byrange: 200 in ")
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def what_is_open() -> tuple[int, int]:
    """Return the number of open files and of threads, once the timers of past calls have ended."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5.0)
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files where Linux lists them")
def test_nothing_is_left_behind_by_calls(client: AretasClient) -> None:
    client.send_batch([reading()])
    before = what_is_open()
    for _ in range(30):
        client.send_batch([reading()])
    assert what_is_open() == before


def test_reading_is_idempotent_on_the_platform(cloud: VirtualCloud, client: AretasClient) -> None:
    for _ in range(2):
        client.send_batch([reading()])
    assert len(cloud.received) == 2
    assert client.history(MAC, 0, 2**43, [531]) == [reading()]


def test_datum_is_the_house_type(client: AretasClient) -> None:
    client.send_one(reading())
    assert all(isinstance(datum, Datum) for datum in client.latest([MAC]))
