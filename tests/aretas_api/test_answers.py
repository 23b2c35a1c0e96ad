"""Bodies, as pure functions: what is an answer and what is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aretas_api import answers
from aretas_api.answers import Device, NotTheApi, SensorType
from measurements import Datum

DATUM = {"mac": 1, "type": 531, "data": -1.5, "timestamp": 1_700_000_000_000}


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def test_token_is_taken_without_white_space_around_it() -> None:
    assert answers.token(b" eyJhbGciOiJIUzI1NiJ9.e30.ab-_=\r\n") == "eyJhbGciOiJIUzI1NiJ9.e30.ab-_="


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"null",
        b"two words that are long",
        b'"quoted-token-quoted"',
        b'{"token":"abcdefghijklmnop"}',
        b"<html></html><p></p>",
        b"x" * 5000,
        b"line-one-is-long\nline-two-is-long",
        "tökentökentökentöken".encode(),
    ],
)
def test_what_is_no_token(page: bytes) -> None:
    with pytest.raises(NotTheApi):
        answers.token(page)


def test_data_takes_whole_numbers_as_values() -> None:
    assert answers.data(body([DATUM | {"data": 3}])) == [
        Datum(mac=1, type=531, data=3.0, timestamp_utc_ms=1_700_000_000_000)
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"data": None},
        {"data": "1"},
        {"data": True},
        {"data": 10**400},
        {"mac": 1.0},
        {"mac": "1"},
        {"type": True},
        {"timestamp": None},
    ],
)
def test_data_of_another_form_is_not_the_apis(change: dict[str, object]) -> None:
    with pytest.raises(NotTheApi):
        answers.data(body([DATUM, DATUM | change]))


@pytest.mark.parametrize(
    "text", [b"[NaN]", b'[{"mac":1,"type":1,"data":1e999,"timestamp":1}]', b"[1" + b"0" * 5000 + b"]"]
)
def test_numbers_that_are_none(text: bytes) -> None:
    with pytest.raises(NotTheApi):
        answers.data(text)


def test_devices_without_details() -> None:
    devices = answers.devices(body({"allMacs": [1, 2], "locationSensorViews": None}))
    assert (devices.all_macs, devices.details) == (frozenset([1, 2]), ())


def test_devices_of_several_places() -> None:
    places = [
        {"sensorList": [{"mac": 1, "description": None, "lastReportTime": -1}]},
        {"location": {}},
        {"sensorList": [{"mac": 2, "description": "bench", "lastReportTime": 1_700_000_000_000, "lat": 0.0}]},
    ]
    assert answers.devices(body({"allMacs": [1, 2, 3], "locationSensorViews": places})).details == (
        Device(mac=1, description="", last_report_utc_ms=None),
        Device(mac=2, description="bench", last_report_utc_ms=1_700_000_000_000),
    )


@pytest.mark.parametrize(
    "view",
    [
        [],
        {},
        {"allMacs": ["a"]},
        {"allMacs": [], "locationSensorViews": [[]]},
        {"allMacs": [], "locationSensorViews": 1},
    ],
)
def test_devices_of_another_form_are_not_the_apis(view: object) -> None:
    with pytest.raises(NotTheApi):
        answers.devices(body(view))


def test_sensor_types_may_lack_words() -> None:
    assert answers.sensor_types(body([{"type": 1}])) == [SensorType(type=1, label="", units="")]


FIELDS = ["mac", "type", "data", "allMacs", "locationSensorViews", "sensorList", "booleanResponse", "message", "x"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS), inner)))
def test_no_json_makes_a_parser_fail_otherwise(value: object) -> None:
    for parse in (answers.token, answers.verdict, answers.devices, answers.data, answers.sensor_types):
        try:
            parse(body(value))
        except NotTheApi as exc:
            assert exc.args  # noqa: PT017
