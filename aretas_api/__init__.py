"""A client of the Aretas Cloud Platform's REST API, usable on its own. Its errors are named by what to do about them.

    client = AretasClient("https://iot.aretas.ca/rest/", "user", "password")
    client.send_batch([Datum(mac=123456789, type=531, data=-12.5, timestamp_utc_ms=1_700_000_000_000)])

``client.py`` has the calls, ``answers.py`` reads what comes back, ``transport.py`` makes one HTTP exchange, ``wire.py``
limits its time and keeps the password from everybody else.
"""

from __future__ import annotations

from aretas_api.answers import Device, Devices, SensorType
from aretas_api.client import AretasClient
from aretas_api.errors import (
    AretasError,
    BatchTooLarge,
    DeviceNotRegistered,
    LogInRefused,
    ReadingsRefused,
    TryLater,
)
from aretas_api.redaction import spellings

__all__ = [
    "AretasClient",
    "AretasError",
    "BatchTooLarge",
    "Device",
    "DeviceNotRegistered",
    "Devices",
    "LogInRefused",
    "ReadingsRefused",
    "SensorType",
    "TryLater",
    "spellings",
]
