"""Who may look: the password, how often it may be tried, and under which names the server answers."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.clocks import ManualClock
from tests.web.stand import Stand
from web.auth import Gate, TriedTooOften

PASSWORD = "grün: 100% & more"
EVERYTHING = (
    "/",
    "/static/page.js",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/api/latest",
    "/api/status",
    "/api/energy",
    "/api/history",
    "/api/history.csv",
    "/nothing",
)


def basic(password: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_without_the_password_nothing_is_told(tmp_path: Path) -> None:
    with Stand(tmp_path, password=PASSWORD) as stand:
        for path in EVERYTHING:
            answer = stand.get(path)
            assert answer.status == 401, path
            assert answer.headers["www-authenticate"] == 'Basic realm="Power monitor", charset="UTF-8"'
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert stand.get("/api/latest", method="POST").status == 401
        assert stand.get("/api/latest", method="HEAD").body == b""


@pytest.mark.parametrize("user", ["", "admin", "jürgen", "a b"])
def test_with_the_password_any_user_name_will_do(tmp_path: Path, user: str) -> None:
    with Stand(tmp_path, password=PASSWORD) as stand:
        assert stand.get("/api/latest", Authorization=basic(PASSWORD, user)).status == 200
        assert stand.get("/healthz", Authorization=basic(PASSWORD, user).replace("Basic", "bASIC")).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic " + base64.b64encode(PASSWORD.encode()).decode(),
        basic(""),
        basic(PASSWORD[:-1]),
        basic(PASSWORD + "x"),
        basic(PASSWORD.upper()),
        basic(PASSWORD).replace("Basic", "Bearer"),
        PASSWORD.encode().decode("latin-1"),
        "Basic " + "A" * 10_000,
    ],
)
def test_a_wrong_password_or_header_is_refused(tmp_path: Path, header: str) -> None:
    with Stand(tmp_path, password=PASSWORD) as stand:
        answer = stand.get("/api/latest", Authorization=header)
        assert answer.status == 401
        assert PASSWORD.encode() not in answer.body


def test_whoever_tries_passwords_is_held_up_with_the_right_one_too(tmp_path: Path) -> None:
    with Stand(tmp_path, password=PASSWORD) as stand:
        statuses = [stand.get("/api/latest", Authorization=basic(str(number))).status for number in range(8)]
        assert statuses == [401] * 5 + [429] * 3
        answer = stand.get("/api/latest", Authorization=basic(PASSWORD))
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "too many wrong passwords" in answer.json["error"]
        assert stand.get("/api/latest").status == 401  # nobody has tried anything


def test_requests_without_a_password_do_not_count_as_tries(tmp_path: Path) -> None:
    with Stand(tmp_path, password=PASSWORD) as stand:
        assert {stand.get("/").status for _ in range(12)} == {401}
        assert stand.get("/api/latest", Authorization=basic(PASSWORD)).status == 200


def test_the_hold_up_ends_after_a_minute() -> None:
    clock = ManualClock()
    gate = Gate("right", clock)
    for number in range(5):
        assert not gate.admits(basic(f"wrong {number}"), "192.0.2.1")
    with pytest.raises(TriedTooOften):
        gate.admits(basic("right"), "192.0.2.1")
    assert gate.admits(basic("right"), "192.0.2.2")
    clock.advance(60.1)
    assert gate.admits(basic("right"), "192.0.2.1")


def test_all_together_may_not_try_more_than_sixty_times_a_minute_but_who_is_known_is_let_in() -> None:
    clock = ManualClock()
    gate = Gate("right", clock)
    assert gate.admits(basic("right"), "192.0.2.1")
    tried = 0
    for number in range(1000):
        try:
            assert not gate.admits(basic("wrong"), f"10.0.{number // 250}.{number % 250}")
            tried += 1
        except TriedTooOften:
            continue
    assert tried == 60
    assert gate.admits(basic("right"), "192.0.2.1")
    with pytest.raises(TriedTooOften):
        gate.admits(basic("right"), "192.0.2.2")
    clock.advance(60.1)
    assert gate.admits(basic("right"), "192.0.2.2")


def test_one_computer_has_one_address_even_with_2_to_the_64_of_them() -> None:
    gate = Gate("right", ManualClock())
    for number in range(5):
        assert not gate.admits(basic(f"wrong {number}"), f"2001:db8::{number:x}")
    with pytest.raises(TriedTooOften):
        gate.admits(basic("right"), "2001:db8::ffff:1")
    assert gate.admits(basic("right"), "2001:db8:0:1::1")
    assert gate.admits(basic("right"), "::ffff:192.0.2.1")


def test_what_is_remembered_of_those_who_try_is_bounded() -> None:
    clock = ManualClock()
    gate = Gate("right", clock)
    for number in range(5000):
        clock.advance(2.0)
        gate.admits(basic("wrong"), f"10.{number // 62500}.{number // 250 % 250}.{number % 250}")
        gate.admits(basic("right"), f"11.{number // 62500}.{number // 250 % 250}.{number % 250}")
    assert len(gate._failed) <= 256
    assert len(gate._known) <= 256
    assert len(gate._failed_of_all) <= 60


# -- the name it is asked by -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8041",
        "127.0.0.1:80",
        "[::1]:8041",
        "192.168.1.5:8041",
        "raspberrypi",
        "pi.local:8041",
        "Battery.Home.Arpa.",
    ],
)
def test_a_name_that_no_server_of_the_internet_can_answer_for_is_ours(tmp_path: Path, host: str) -> None:
    with Stand(tmp_path) as stand:
        assert stand.get("/openapi.json", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8041",
        "127.0.0.1.evil.example",
        "local",
        "",
        "evil.local.example",
        "[::1",
        "a:b@c.de",
    ],
)
def test_another_name_is_refused_against_dns_rebinding(tmp_path: Path, host: str) -> None:
    own = {"local"}
    with Stand(tmp_path) as stand:
        answer = stand.get("/openapi.json", Host=host)
        if host in own:
            assert answer.status == 200
        else:
            assert answer.status in (400, 421)
            assert b"openapi" not in answer.body


def test_with_a_password_any_name_will_do(tmp_path: Path) -> None:
    with Stand(tmp_path, password=PASSWORD) as stand:
        assert stand.get("/healthz", Host="battery.example", Authorization=basic(PASSWORD)).status == 200


def test_a_program_with_an_old_password_does_not_lock_out_the_owner_at_its_address() -> None:
    clock = ManualClock()
    gate = Gate("right", clock)
    for _ in range(100):  # a page or a Prometheus that goes on with what it was given once
        assert not gate.admits(basic("old"), "192.0.2.1")
        clock.advance(2.0)
    assert gate.admits(basic("right"), "192.0.2.1")


def test_the_same_wrong_password_is_one_try_until_a_minute_is_over() -> None:
    clock = ManualClock()
    gate = Gate("right", clock)
    for number in range(4):
        for _ in range(10):
            assert not gate.admits(basic(f"wrong {number}"), "192.0.2.1")
    clock.advance(60.1)
    for number in range(5):
        assert not gate.admits(basic(f"wrong {number}"), "192.0.2.1")
    with pytest.raises(TriedTooOften):
        gate.admits(basic("wrong 4"), "192.0.2.1")
    assert gate.admits(basic("right"), "192.0.2.2")


def test_the_owner_who_looks_from_the_same_address_gives_nobody_more_tries() -> None:
    """As behind a router or an SSH tunnel, where all have one address."""
    gate, tried = Gate("right", ManualClock()), 0
    for number in range(100):
        try:
            assert gate.admits(basic("right"), "192.0.2.1")
            tried += not gate.admits(basic(f"wrong {number}"), "192.0.2.1")
        except TriedTooOften:
            continue
    assert tried == 5


def test_a_wrong_password_is_in_the_log_with_its_address_and_not_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Stand(tmp_path, password=PASSWORD) as stand:
        for number in (1, 1, 2, 3):
            assert stand.get("/api/latest", Authorization=basic(f"guess{number}")).status == 401
    lines = [record.getMessage() for record in caplog.records if "wrong password" in record.getMessage()]
    assert lines == ["page: a wrong password came from 127.0.0.1"] * 3
    assert "guess" not in caplog.text


def test_a_guesser_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(PASSWORD, ManualClock())
    for number in range(50):
        assert not gate.admits(basic(f"guess{number}"), f"192.0.2.{number}")
    assert len(caplog.records) == 6
    assert "this happens often" in caplog.records[-1].getMessage()
