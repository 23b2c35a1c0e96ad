"""No password and no token in any error, traceback or log line at DEBUG, whatever goes wrong, whatever is echoed."""

from __future__ import annotations

import json
import logging
import socket
import threading
import traceback
from collections.abc import Callable

import pytest

from aretas_api import AretasClient, AretasError, ReadingsRefused, spellings
from aretas_api.redaction import hide, one_line
from simulator.cloud import VirtualCloud
from simulator.cloud_http import HTML_PAGE, Fault, Reply, lose_reply, never_answer, reset_mid_reply, trickle
from tests.aretas_api.conftest import PASSWORD, reading
from tests.aretas_api.raw_server import raw_server, read_request

Maker = Callable[..., AretasClient]
LOG_IN = "authentication/g"


def everything_of(error: BaseException) -> str:
    """Return all that anybody could print of an error, its causes and contexts included, suppressed or not."""
    texts = ["".join(traceback.format_exception(error))]
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None:
            texts += [str(link), repr(link), repr(link.args), repr(vars(link))]
            chain += [link.__cause__, link.__context__]
    return "\n".join(texts)


def provoke(client: AretasClient, caplog: pytest.LogCaptureFixture) -> str:
    """Send a reading with every logger at DEBUG, log the error with its traceback, return all that was said."""
    caplog.set_level(logging.DEBUG)
    said = ""
    try:
        client.send_batch([reading()])
    except AretasError as error:
        logging.getLogger("test").exception("it failed")
        said = everything_of(error)
    return said + caplog.text + "".join(repr(record.args) for record in caplog.records)


def assert_clean(text: str, *secrets: str) -> None:
    assert "authentication/g?" not in text
    for secret in secrets:
        for spelling in spellings(secret):
            assert spelling not in text


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        (never_answer, {}),
        (trickle, {"interval_s": 0.1}),
        (reset_mid_reply, {}),
        (lose_reply, {"reset": True}),
        (lose_reply, {}),
        (HTML_PAGE, {}),
        (Reply(status=302, location="/rest/authentication/g?username=x"), {}),
        (Reply(status=401), {}),
        (Reply(status=500), {}),
        (Reply(status=200, body=b"\xff"), {}),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_failing_log_in_gives_nothing_away(
    cloud: VirtualCloud,
    new_client: Maker,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    how: dict[str, object],
    kept: bool,
) -> None:
    client = new_client(cloud.url, total_timeout_s=0.7)
    if kept:
        client.sensor_types()
    cloud.misbehave(fault, call=LOG_IN, times=None, **how)
    said = provoke(client, caplog)
    assert "it failed" in said
    assert_clean(said, PASSWORD)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://aretas.invalid/", "https://127.0.0.1:9/"])
def test_an_unreachable_server_gives_nothing_away(
    new_client: Maker, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    assert_clean(provoke(new_client(url), caplog), PASSWORD)


def test_a_working_log_in_gives_nothing_away(
    cloud: VirtualCloud, new_client: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    tokens: list[str] = []
    client = new_client(cloud.url, on_secret=tokens.append)
    said = provoke(client, caplog)
    cloud.expire_tokens()
    said += provoke(client, caplog) + repr(client)
    assert "urllib3" in said
    assert len(tokens) == 2
    assert_clean(said, PASSWORD, *tokens)


@pytest.mark.parametrize("status", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\nLocation: ", b"HTTP/1.1 503 "])
def test_a_server_that_echoes_the_question_gives_nothing_away(
    new_client: Maker, caplog: pytest.LogCaptureFixture, status: bytes
) -> None:
    questions: list[bytes] = []

    def handle(connection: socket.socket, stopping: threading.Event) -> None:
        questions.append(read_request(connection))
        connection.sendall(status + questions[-1])

    with raw_server(handle) as port:
        said = provoke(new_client(f"http://127.0.0.1:{port}"), caplog)
    assert b"password=S3cr%25t%20%26%23%2B%2F%3F%22%C3%BC%E2%82%AC" in questions[0]
    assert "it failed" in said
    assert_clean(said, PASSWORD)


def test_a_message_that_echoes_secrets_is_redacted(
    cloud: VirtualCloud, new_client: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    tokens: list[str] = []
    client = new_client(cloud.url, on_secret=tokens.append)
    client.log_in()
    message = "no: " + " ".join([*spellings(PASSWORD), tokens[0]])
    cloud.misbehave(Reply(body=json.dumps({"booleanResponse": False, "message": message}).encode()))
    with pytest.raises(ReadingsRefused) as caught:
        client.send_batch([reading()])
    assert caught.value.message.startswith("no: *** ***")
    assert_clean(everything_of(caught.value), PASSWORD, *tokens)


def test_a_proxys_errors_give_nothing_away(
    new_client: Maker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert_clean(provoke(new_client("http://aretas.invalid/"), caplog), PASSWORD)


def test_spellings() -> None:
    assert spellings("") == []
    assert set(spellings("a ü")) == {"a ü", "a%20%C3%BC", "a+%C3%BC", "a%20%c3%bc", "a+%c3%bc", "a \\u00fc"}
    assert spellings("plain") == ["plain"]


def test_hide() -> None:
    assert hide("see p%20%26+, p+%26%2b or p &+", ["p &+", ""]) == "see p%20%26+, *** or ***"
    assert hide("nothing here", []) == "nothing here"


def test_one_line() -> None:
    assert one_line("  a\r\n\tb\x00\x1b[0m c\u2028d ") == "a b [0m c d"
    assert len(one_line("x" * 1000)) == 200
