"""The bodies of the platform's answers, turned into types. Pure functions.

Guarantees: what is returned has the types it says and no value that is not finite. Whatever is not the API's answer (an
HTML page, a truncated body, a missing field) raises ``NotTheApi``, whose text never quotes the body.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from measurements import Datum

T = TypeVar("T")

# The platform's token is opaque. This it must be to fit in a header; no page, sentence or piece of JSON is.
_TOKEN = re.compile(r"(?!(?:null|true|false)$)[A-Za-z0-9!#$%&*+\-./:=?@^_|~]{1,4096}")


class NotTheApi(Exception):
    """The body is not what this API answers: something else answers in its place, or it has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of the account. ``last_report_utc_ms`` is ``None`` if it has never reported."""

    mac: int
    description: str
    last_report_utc_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The devices of the account: the number of every registered one, and the details of those that have a place."""

    all_macs: frozenset[int]
    details: tuple[Device, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorType:
    """One entry of the platform's catalogue of what can be measured. ``label`` and ``units`` may be empty."""

    type: int
    label: str
    units: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the platform thinks of the readings it was sent (its ``booleanResponse`` and ``message``)."""

    accepted: bool
    message: str


def token(body: bytes) -> str:
    """Return the token of a log-in's answer. Raises NotTheApi if it cannot be one."""
    text = body.decode("latin-1").strip()
    if _TOKEN.fullmatch(text) is None:
        raise NotTheApi("no token")
    return text


def verdict(body: bytes) -> Verdict:
    """Return the answer to readings. Raises NotTheApi."""
    answer = _json(body)
    accepted = _field(answer, "booleanResponse")
    if not isinstance(accepted, bool):
        raise NotTheApi("booleanResponse is neither true nor false")
    return Verdict(accepted=accepted, message=_text(answer, "message"))


def devices(body: bytes) -> Devices:
    """Return the devices of a location view. Raises NotTheApi."""
    view = _json(body)
    all_macs = frozenset(_list_of(_integer, _field(view, "allMacs")))
    sensors = [sensor for place in _items(view, "locationSensorViews") for sensor in _items(place, "sensorList")]
    return Devices(all_macs=all_macs, details=tuple(_list_of(_device, sensors)))


def data(body: bytes) -> list[Datum]:
    """Return stored readings, in the order of the answer. Raises NotTheApi."""
    return _list_of(_datum, _json(body))


def sensor_types(body: bytes) -> list[SensorType]:
    """Return the catalogue, in the order of the answer. Raises NotTheApi."""
    return _list_of(_sensor_type, _json(body))


def _device(item: Any) -> Device:
    reported_utc_ms = item.get("lastReportTime") if isinstance(item, dict) else None
    return Device(
        mac=_integer(_field(item, "mac")),
        description=_text(item, "description"),
        # -1 or 0 where there was no report yet (AretasPythonAPI's defaults)
        last_report_utc_ms=reported_utc_ms if isinstance(reported_utc_ms, int) and reported_utc_ms > 0 else None,
    )


def _datum(item: Any) -> Datum:
    return Datum(
        mac=_integer(_field(item, "mac")),
        type=_integer(_field(item, "type")),
        data=_finite(_field(item, "data")),
        timestamp_utc_ms=_integer(_field(item, "timestamp")),
    )


def _sensor_type(item: Any) -> SensorType:
    return SensorType(type=_integer(_field(item, "type")), label=_text(item, "label"), units=_text(item, "units"))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise NotTheApi("not JSON") from None  # the exception holds the whole body


def _refuse_constant(name: str) -> NoReturn:
    raise NotTheApi(f"{name} is not JSON")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NotTheApi("no list")
    return value


def _list_of(parse: Callable[[Any], T], value: Any) -> list[T]:
    return [parse(item) for item in _list(value)]


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise NotTheApi(f"{name} is missing")
    return value[name]


def _items(value: Any, name: str) -> list[Any]:
    """Return the list of that name; a missing one is an empty one."""
    if not isinstance(value, dict):
        raise NotTheApi("no object")
    return _list(value.get(name) or [])


def _text(value: dict[str, Any], name: str) -> str:
    text = value.get(name)
    return text if isinstance(text, str) else ""


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise NotTheApi("no integer")
    return value


def _finite(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NotTheApi("no finite number")
    return number
