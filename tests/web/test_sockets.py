"""What clients do to the server that browsers do not: garbage, half requests, silence, floods. It stays what it is."""

from __future__ import annotations

import random
import re
import socket
import threading
from pathlib import Path

import pytest

from history import Point
from tests.rig import wait_for
from tests.test_history import made, row
from tests.web.stand import Stand, read_all
from web import api, bodies, connections
from web.server import FOLDER

GET = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET_AND_CLOSE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def statuses(answer: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\r\n\r\n\x00\x01\x02\r\n\r\n", 400),
        (random.Random(1).randbytes(64).replace(b"\n", b"") + b"\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /nothing HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
        (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        (b"POST /api/latest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n", 413),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n", 400),
    ],
    ids=range(13),
)
def test_garbage_is_refused_and_harms_nobody(tmp_path: Path, request_bytes: bytes, status: int) -> None:
    with Stand(tmp_path) as stand:
        answer = stand.say(request_bytes)
        assert not answer or statuses(answer)[0] >= 400
        if answer and status != 400:
            assert b"Content-Type: application/json" in answer
            assert b"X-Content-Type-Options: nosniff" in answer
            assert b'{"error": "' in answer
        if status != 505:
            assert status in statuses(answer) or not answer
        assert stand.get("/openapi.json").status == 200


def test_a_request_that_is_cut_off_harms_nobody(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        for length in range(0, len(GET), 5):
            stand.say(GET[:length])
        assert stand.get("/openapi.json").status == 200


def test_requests_in_pieces_and_several_in_one_are_answered_in_order(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        connection = stand.connect()
        for index in range(len(GET_AND_CLOSE)):
            connection.sendall(GET_AND_CLOSE[index : index + 1])
        assert statuses(read_all(connection)) == [200]
        connection = stand.connect()
        connection.sendall(GET + GET.replace(b"/openapi.json", b"/nothing") + GET_AND_CLOSE)
        assert statuses(read_all(connection)) == [200, 404, 200]


def test_head_on_a_kept_connection_has_no_body(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        head = GET.replace(b"GET", b"HEAD")
        connection = stand.connect()
        connection.sendall(head + head + GET_AND_CLOSE.replace(b"GET", b"HEAD"))
        answer = read_all(connection)
        assert statuses(answer) == [200, 200, 200]
        assert b"openapi" not in answer


@pytest.mark.parametrize(
    "path",
    [
        "../api.py",
        "%2e%2e/api.py",
        "..%2fapi.py",
        "%2e%2e%2f%2e%2e%2fconfig.cfg",
        "....//api.py",
        "..\\api.py",
        "..%5capi.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "vendor/../../api.py",
        "link.css",
        "folder/inner.css",
        ".hidden.css",
        "page.css%00.css",
        "secret.cfg",
    ],
)
def test_nothing_but_the_files_of_the_page_is_served(tmp_path: Path, path: str) -> None:
    files = tmp_path / "files"
    (files / "static").mkdir(parents=True)
    (files / "api.py").write_text("SECRET")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "inner.css").write_text("SECRET")
    for name in ("page.css", ".hidden.css", "secret.cfg"):
        (files / "static" / name).write_text("PAGE" if name == "page.css" else "SECRET")
    (files / "static" / "link.css").symlink_to(tmp_path / "elsewhere" / "inner.css")
    (files / "static" / "folder").symlink_to(tmp_path / "elsewhere")
    with Stand(tmp_path, files=files) as stand:
        assert stand.get("/static/page.css").body == b"PAGE"
        answer = stand.get(f"/static/{path}")
        assert answer.status == 404
        assert b"SECRET" not in answer.body


def test_a_file_is_not_sent_again_while_it_is_the_same(tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "static").mkdir(parents=True)
    page = files / "static" / "index.html"
    page.write_text("<!doctype html>")
    with Stand(tmp_path, files=files) as stand:
        answer = stand.get("/")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert answer.headers["cache-control"] == "no-cache"
        again = stand.get("/", If_None_Match=answer.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        page.write_text("<!doctype html>new")
        assert stand.get("/", If_None_Match=answer.headers["etag"]).body == b"<!doctype html>new"
        page.unlink()
        assert stand.get("/").status == 404


# -- patience ----------------------------------------------------------------------------------------------------------


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(65_536) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_request_that_comes_a_byte_a_second_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_REQUEST_WITHIN_S", 1.0)
    with Stand(tmp_path) as stand:
        silent, slow, pause = stand.connect(), stand.connect(), threading.Event()
        for index in range(200):
            try:
                slow.sendall(GET[index % len(GET) :][:1].replace(b"\n", b" "))
            except OSError:
                break
            pause.wait(0.05)
        wait_for(lambda: is_closed(slow) and is_closed(silent), what="both are dropped")
        assert stand.get("/openapi.json").status == 200


def test_an_idle_connection_is_dropped_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_IDLE_FOR_S", 1.0)
    with Stand(tmp_path) as stand:
        connection = stand.connect()
        connection.sendall(GET)
        wait_for(lambda: b"openapi" in connection.recv(65_536), what="an answer")
        wait_for(lambda: is_closed(connection), what="it is dropped")


def test_a_client_that_does_not_read_its_table_is_dropped_and_the_next_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_ANSWER_TAKES_S", 1.0)
    made(tmp_path, [row(1_700_000_000_000 + 1000 * number) for number in range(60_000)])
    with Stand(tmp_path) as stand:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", stand.port))
        deaf.sendall(GET.replace(b"/openapi.json", b"/api/history.csv"))
        wait_for(
            lambda: stand.get("/api/history.csv?to=1700000002000").status == 503, what="the table is being fetched"
        )
        assert stand.get("/openapi.json").status == 200  # the other threads go on
        wait_for(lambda: stand.get("/api/history.csv?to=1700000002000").status == 200, what="it is dropped")
        deaf.close()
        assert stand.get("/api/history.csv").body.count(b"\n") == 60_001


def test_a_crowd_of_idle_connections_does_not_keep_others_out(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        for _ in range(300):
            stand.connect()
        assert stand.get("/openapi.json").status == 200
        assert len(stand.server._map) <= 125


def test_an_answer_that_breaks_off_is_cut_and_told_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, [row(1_700_000_000_000 + 1000 * number) for number in range(500)])

    def break_off(each: Point) -> str:
        if each.end_utc_ms == 1_700_000_300_000:
            raise ZeroDivisionError
        return str(each.end_utc_ms)

    monkeypatch.setattr(bodies, "csv_line", break_off)
    with Stand(tmp_path) as stand:
        for _ in range(10):
            connection = stand.connect()
            connection.sendall(GET.replace(b"/openapi.json", b"/api/history.csv"))
            answer = read_all(connection)
            assert b"1700000200000" in answer
            assert not answer.endswith(b"\r\n0\r\n\r\n")  # the end that a whole answer has
    told = [record for record in caplog.records if "Exception while serving" in record.message]
    assert 1 <= len(told) <= 6
    assert told[0].exc_info


def test_an_error_of_the_program_is_500_and_told_in_the_log_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_facts: object) -> None:
        raise ZeroDivisionError("of mine")

    monkeypatch.setattr(api, "status", fail)
    with Stand(tmp_path) as stand:
        for _ in range(3):
            answer = stand.get("/api/status")
            assert (answer.status, answer.json) == (500, {"error": "an error of the program, see the log"})
        assert stand.get("/openapi.json").status == 200
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert "ZeroDivisionError('of mine')" in told[0].message
    assert "Traceback" in told[0].message


def test_the_stop_waits_for_nobody(tmp_path: Path) -> None:
    made(tmp_path, [row(1_700_000_000_000 + 1000 * number) for number in range(20_000)])
    stand = Stand(tmp_path)
    with stand:
        hanging = [stand.connect() for _ in range(20)]
        for connection in hanging[:10]:
            connection.sendall(GET[:20])
        for connection in hanging[10:]:
            connection.sendall(GET.replace(b"/openapi.json", b"/api/history.csv"))
        wait_for(lambda: len(stand.server._server.active_channels) == 20, what="they are there")
        begun_mono_s = stand.clock.mono_s()
        stand.server.request_stop()
        assert stand.server.join(begun_mono_s + 5.0)
        assert stand.clock.mono_s() - begun_mono_s < 2.0
    assert FOLDER.is_dir()
