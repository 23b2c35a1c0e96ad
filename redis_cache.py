"""The latest readings in a local Redis: a hash named by the MAC, one field per sensor type.

Its own thread, so that neither the reporter nor the cloud ever waits for Redis. Guarantees: only the latest interval is
kept and written, all its fields in one round trip; trouble is logged once and retried for ever. The value of a field is
a JSON object: ``{"mac", "type", "timestamp", "data", "label", "unit"}``.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
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


class RedisCache(Worker):
    """Writes the latest readings to Redis. ``labels`` names each sensor type."""

    def __init__(self, settings: RedisSettings, labels: Mapping[int, Label], clock: Clock) -> None:
        super().__init__("redis", clock)
        self._ttl_s = settings.ttl_s
        self._labels = labels
        self._state = StateLog(logger, f"Redis {settings.host}:{settings.port}", clock)
        self._changed = threading.Condition()
        self._latest: Sequence[Datum] | None = None
        self._written_mono_s: dict[int, float] = {}
        self._client = _client(settings)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the server, ``None`` if it is well."""
        return self._state.line

    def publish(self, readings: Sequence[Datum]) -> None:
        """Have these readings written. Never blocks; readings not yet written are replaced.

        Those of other sensor types, which a reload has just changed, are left out.
        """
        readings = [datum for datum in readings if datum.type in self._labels]
        if not readings:
            return
        with self._changed:
            self._latest = readings
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
            readings = self._latest
        if readings is None:
            return
        try:
            self._write(readings)
        except (redis.RedisError, OSError, ValueError) as exc:  # ValueError: a host name of an impossible form
            self._state.failed(type(exc).__name__, f"{exc}; the values there are old, everything else goes on")
            self.pause(_RETRY_AFTER_S)
            return
        self._state.well("takes the latest values again")
        with self._changed:
            if self._latest is readings:
                self._latest = None

    def _write(self, readings: Sequence[Datum]) -> None:
        name = str(readings[0].mac)
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hset(name, mapping={str(datum.type): self._as_json(datum) for datum in readings})
            if self._ttl_s:
                if stale := self._stale_fields(readings):
                    pipeline.hdel(name, *stale)
                pipeline.expire(name, self._ttl_s)
            pipeline.execute()
        self._written_mono_s.update({datum.type: self.clock.mono_s() for datum in readings})

    def _stale_fields(self, readings: Sequence[Datum]) -> list[str]:
        """Return the fields to delete: the hash as a whole never expires while one of its meters works."""
        fresh = {datum.type for datum in readings}
        oldest_mono_s = self.clock.mono_s() - self._ttl_s
        return [
            str(sensor_type)
            for sensor_type in self._labels
            if sensor_type not in fresh and self._written_mono_s.get(sensor_type, oldest_mono_s) <= oldest_mono_s
        ]

    def _as_json(self, datum: Datum) -> str:
        label, unit = self._labels[datum.type]
        return json.dumps(
            {
                "mac": datum.mac,
                "type": datum.type,
                "timestamp": datum.timestamp_utc_ms,
                "data": datum.data,
                "label": label,
                "unit": unit,
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
