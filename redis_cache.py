"""The latest readings in a local Redis: a hash named by the MAC, one field per sensor type, and one per counter.

Its own thread, so that neither the reporter nor the cloud ever waits for Redis. Guarantees: only the latest interval is
kept and written, all its fields in one round trip; trouble is logged once and retried for ever. The value of a field is
a JSON object: ``{"mac", "type", "timestamp", "data", "label", "unit"}``. A counter has a field of its name, whatever
its sensor type, which may be ``null``.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from clock import Clock
from measurements import Datum
from settings import RedisSettings
from state_log import StateLog
from worker import Worker

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_TIMEOUT_S = 2.0
_RETRY_AFTER_S = 2.0


class Label(NamedTuple):
    """What a sensor type is called and its unit."""

    label: str
    unit: str


COUNTERS: Mapping[str, Label] = {
    "energy_in_kwh": Label("Energy into the battery", "kWh"),
    "energy_out_kwh": Label("Energy out of the battery", "kWh"),
    "charge_in_ah": Label("Charge into the battery", "Ah"),
    "charge_out_ah": Label("Charge out of the battery", "Ah"),
    "coverage_percent": Label("Time that the counters know of", "%"),
}
"""The fields that counters may have."""


class _Latest(NamedTuple):
    """What to write: the name of the hash, and the text of each field."""

    name: str
    fields: dict[str, str]


class RedisCache(Worker):
    """Writes the latest readings to Redis. ``labels`` names each sensor type.

    ``counters`` has those of ``COUNTERS`` that there are, each with its sensor type, if it has one.
    """

    def __init__(
        self,
        settings: RedisSettings,
        labels: Mapping[int, Label],
        clock: Clock,
        counters: Mapping[str, int | None] | None = None,
    ) -> None:
        super().__init__("redis", clock)
        self._ttl_s = settings.ttl_s
        self._labels = labels
        self._counters = counters or {}
        self._state = StateLog(logger, f"Redis {settings.host}:{settings.port}", clock)
        self._changed = threading.Condition()
        self._latest: _Latest | None = None
        self._written_mono_s: dict[str, float] = {}
        self._client = _client(settings)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the server, ``None`` if it is well."""
        return self._state.line

    def publish(self, readings: Sequence[Datum], counters: Mapping[str, float] | None = None) -> None:
        """Have the readings of an interval written, and the counters at its end. Never blocks.

        What is not yet written is replaced. Readings of sensor types without a label are left out: those of the
        counters, and others that a reload has just changed.
        """
        if not any(datum.type in self._labels for datum in readings):
            return
        mac, utc_ms = readings[0].mac, readings[0].timestamp_utc_ms
        fields = {
            str(each.type): _as_json(mac, each.type, utc_ms, each.data, self._labels[each.type])
            for each in readings
            if each.type in self._labels
        }
        for name, value in (counters or {}).items():
            if name in self._counters:
                fields[name] = _as_json(mac, self._counters[name], utc_ms, value, COUNTERS[name])
        with self._changed:
            self._latest = _Latest(str(mac), fields)
            self._changed.notify_all()

    def step(self) -> None:
        """Wait for readings and write them; if that fails, wait 2 s, then try again with what is the latest then."""
        with self._changed:
            if self._latest is None and not self._stop.is_set():
                self._changed.wait(_HEARTBEAT_S)
        self._write_latest()

    def wake(self) -> None:
        """End a wait for readings."""
        with self._changed:
            self._changed.notify_all()

    def finish(self) -> None:
        """Write what is left, once, and close the connection."""
        self._write_latest()
        self._client.close()

    def _write_latest(self) -> None:
        with self._changed:
            latest = self._latest
        if latest is None:
            return
        try:
            self._write(latest)
        except (redis.RedisError, OSError, ValueError) as exc:  # ValueError: a host name of an impossible form
            self._state.failed(type(exc).__name__, f"{exc}; the values there are old, everything else goes on")
            self.pause(_RETRY_AFTER_S)
            return
        self._state.well("takes the latest values again")
        with self._changed:
            if self._latest is latest:
                self._latest = None

    def _write(self, latest: _Latest) -> None:
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hset(latest.name, mapping=latest.fields)
            if self._ttl_s:
                if stale := self._stale_fields(latest.fields):
                    pipeline.hdel(latest.name, *stale)
                pipeline.expire(latest.name, self._ttl_s)
            pipeline.execute()
        self._written_mono_s.update(dict.fromkeys(latest.fields, self.clock.mono_s()))

    def _stale_fields(self, fresh: Collection[str]) -> list[str]:
        """Return the fields to delete: the hash as a whole never expires while one of its meters works."""
        oldest_mono_s = self.clock.mono_s() - self._ttl_s
        return [
            field
            for field in (*map(str, self._labels), *self._counters)
            if field not in fresh and self._written_mono_s.get(field, oldest_mono_s) <= oldest_mono_s
        ]


def _as_json(mac: int, sensor_type: int | None, utc_ms: int, value: float, label: Label) -> str:
    return json.dumps(
        {
            "mac": mac,
            "type": sensor_type,
            "timestamp": utc_ms,
            "data": value,
            "label": label.label,
            "unit": label.unit,
        }
    )


def trouble_with(settings: RedisSettings) -> str | None:
    """Ask a server whether it takes us, and return why it does not; ``None`` if it does. Blocks some 4 s at most."""
    client = _client(settings)
    try:
        client.ping()
    except (redis.RedisError, OSError, ValueError) as exc:
        return str(exc)
    finally:
        client.close()
    return None


def _client(settings: RedisSettings) -> redis.Redis:
    return redis.Redis(
        host=settings.host,
        port=settings.port,
        db=settings.db,
        username=settings.username or None,
        password=settings.password or None,
        ssl=settings.tls,
        socket_connect_timeout=_TIMEOUT_S,
        socket_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),  # a connection that the server has closed meanwhile is no failure
    )
