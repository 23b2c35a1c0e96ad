"""What config.cfg says, read once and checked whole, as a tree of frozen values. Its form is ``config_file.py``'s.

Runs in the main thread, before anything is built. Guarantees: ``load_settings()`` gives either a ``Settings`` that is
complete and consistent, or one ``ConfigurationError`` that names every problem of the file at once. No message and no
repr shows a password. Every key is one row of ``KEYS``, every other spelling in use somewhere one row of ``ALIASES``;
a key in [DEFAULT] holds for every section, the key's own section wins. Whether a meter, a server or a folder really
exists is not looked at here.
"""

from __future__ import annotations

import configparser
import ipaddress
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from config_file import ConfigFile, ConfigurationError, Key, Table, read_config_file
from config_values import choice, credential, host, mac, ohm, port, url, whole, word

VOLTAGE_RANGES = {"50mV": 1, "500mV": 2, "5V": 3, "50V": 4, "500V": 5, "1000V": 6}
CURRENT_RANGES = {"500uA": 1, "5mA": 2, "50mA": 3, "500mA": 4, "5A": 5, "10A": 6}


class Rate(Enum):
    """How fast a meter converts. Its published accuracy holds for ``SLOW`` only."""

    SLOW = "slow"
    MEDIUM = "medium"
    FAST = "fast"


class CurrentSource(Enum):
    """What the current meter measures: the volts across a shunt, or the amperes themselves."""

    SHUNT = "shunt"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The Aretas account, how often it is reported to, and under which sensor types."""

    url: str
    username: str
    password: str = field(repr=False)
    report_interval_ms: int
    voltage_type: int = 532
    current_type: int = 531
    power_type: int = 533
    upload_batch: int = 500
    upload_pause_s: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How often the meters are read."""

    sample_interval_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSettings:
    """One meter: where it is, how it is set (``range_number`` is the n of its ``RANGE n``), which one it must be."""

    port: str
    range_number: int
    range_name: str
    rate: Rate
    serial_number: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoltageMeterSettings(MeterSettings):
    """The meter on the battery voltage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentMeterSettings(MeterSettings):
    """The meter of the battery current. ``shunt_resistance_ohm`` is ``None`` for a direct measurement."""

    source: CurrentSource
    shunt_resistance_ohm: float | None
    reverse_polarity: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """The Redis server of the latest values. ``ttl_s`` = 0: they never vanish."""

    host: str
    port: int
    db: int
    username: str | None
    password: str | None = field(repr=False)
    tls: bool
    ttl_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """The bounds of the database, and for how long readings are held back while the clock may be wrong."""

    max_mb: int
    keep_days: int
    sync_interval_s: float
    clock_hold_max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that config.cfg says. ``None`` for a part that is switched off; ``folder`` is absolute."""

    self_mac: int
    api: ApiSettings
    serial: SamplingSettings
    voltage_meter: VoltageMeterSettings | None
    current_meter: CurrentMeterSettings | None
    redis: RedisSettings | None
    store: StoreSettings
    folder: Path
    warnings: tuple[str, ...]

    def secrets(self) -> tuple[str, ...]:
        """Return every value that may appear in no log."""
        redis_password = self.redis.password if self.redis else None
        return tuple(secret for secret in (self.api.password, redis_password) if secret)


_boolean = choice(configparser.ConfigParser.BOOLEAN_STATES)
_milliseconds = " (milliseconds)"
_seconds = " (seconds)"
_serial_number = word("the serial number alone, such as 24152470")


def _always(values: Mapping[str, Any]) -> bool:
    return True


def _with_shunt(values: Mapping[str, Any]) -> bool:
    return bool(values["xdm_current_enable"]) and values["xdm_current_source"] is CurrentSource.SHUNT


KEYS = (
    Key("DEFAULT", "self_mac", mac, None, "the MAC of your device in the Aretas account", _always),
    Key("DEFAULT", "API_URL", url, None, "the address of Aretas, https://iot.aretas.ca/rest/", _always),
    Key("DEFAULT", "API_USERNAME", credential, None, "the user name of your Aretas account", _always),
    Key("DEFAULT", "API_PASSWORD", credential, None, "the password of your Aretas account", _always, secret=True),
    Key("XDM", "xdm_voltage_enable", _boolean, "False", "whether there is a meter of the battery voltage"),
    Key(
        "XDM",
        "xdm_voltage_port",
        port,
        None,
        "where the voltage meter is, such as /dev/serial/by-path/...",
        lambda v: v["xdm_voltage_enable"],
    ),
    Key("XDM", "xdm_voltage_range", choice({name: name for name in VOLTAGE_RANGES}), "500V", "its range"),
    Key("XDM", "xdm_voltage_serial", _serial_number, None, "its serial number"),
    Key("XDM", "xdm_current_enable", _boolean, "False", "whether there is a meter of the battery current"),
    Key(
        "XDM",
        "xdm_current_port",
        port,
        None,
        "where the current meter is, such as /dev/serial/by-path/...",
        lambda v: v["xdm_current_enable"],
    ),
    Key("XDM", "xdm_current_source", choice({s.value: s for s in CurrentSource}), "shunt", "what it measures"),
    Key("XDM", "xdm_shunt_resistance", ohm, None, "the resistance of the shunt in ohms", _with_shunt),
    Key("XDM", "xdm_current_reverse_polarity", _boolean, "False", "whether the sign is turned round"),
    Key("XDM", "xdm_current_range", choice({n: n for n in (*VOLTAGE_RANGES, *CURRENT_RANGES)}), None, "its range"),
    Key("XDM", "xdm_current_serial", _serial_number, None, "its serial number"),
    Key("XDM", "xdm_rate", choice({rate.value: rate for rate in Rate}), "slow", "how fast the meters convert"),
    Key("SERIAL", "sample_interval", whole(50, 3_600_000, _milliseconds), "5000", "how often the meters are read"),
    Key("API", "report_interval", whole(1_000, 86_400_000, _milliseconds), "30000", "how often is reported"),
    Key("API", "voltage_type", whole(0), "532", "the sensor type of the voltage"),
    Key("API", "current_type", whole(0), "531", "the sensor type of the current"),
    Key("API", "power_type", whole(0), "533", "the sensor type of the power"),
    Key("API", "upload_batch", whole(1, 10_000), "500", "how many readings go in one request"),
    Key("API", "upload_pause_ms", whole(0, 60_000, _milliseconds), "250", "the pause between two of them"),
    Key("STORE", "store_max_mb", whole(1, 1_000_000), "500", "how large the database may become"),
    Key("STORE", "store_keep_days", whole(0, 36_500), "31", "how long delivered readings are kept"),
    Key("STORE", "store_sync_interval", whole(0, 86_400, _seconds), None, "what a power cut may cost"),
    Key("STORE", "clock_hold_max", whole(0, 86_400, _seconds), "600", "how long a clock is waited for"),
    Key("REDIS", "redis_enable", _boolean, "False", "whether the latest values go to a Redis server"),
    Key("REDIS", "redis_host", host, "localhost", "where it runs"),
    Key("REDIS", "redis_port", whole(1, 65_535), "6379", "its TCP port"),
    Key("REDIS", "redis_db", whole(0), "0", "the number of its database"),
    Key("REDIS", "redis_tls", _boolean, "False", "whether the connection is encrypted"),
    Key("REDIS", "auth_redis", _boolean, None, "whether the password is sent"),
    Key("REDIS", "redis_username", str, None, "the user name at the server"),
    Key("REDIS", "redis_authpw", str, None, "the password of the server", secret=True),
    Key("REDIS", "redis_ttl", whole(0, unit=_seconds), "0", "when stale values vanish"),
)

# (section, spelling) -> key
ALIASES = {
    ("ARETAS", "API_URL"): "API_URL",
    ("ARETAS", "API_USERNAME"): "API_USERNAME",
    ("ARETAS", "API_PASSWORD"): "API_PASSWORD",
    ("REDIS", "enable_redis"): "redis_enable",
    ("REDIS", "auth_pw"): "redis_authpw",
}
IGNORED = frozenset({"thread_sleep", "thread_sleep_time", "batch_mode", "serial_port"})
TABLE = Table(KEYS, ALIASES, IGNORED)


def load_settings(path: Path) -> Settings:
    """Read and check the file at ``path``. Raise ``ConfigurationError`` with everything that is wrong with it."""
    file = read_config_file(path, TABLE)
    _check_together(file)
    _check_ports(file, path.parent)
    if file.problems:
        raise ConfigurationError(path, file.problems)
    if os.name == "posix" and path.stat().st_mode & 0o004:
        file.warn(f"every user of this computer can read the password in {path}: run  chmod 600 {path}")
    return _settings(file.values, path.absolute().parent, file.warnings)


def _check_together(file: ConfigFile) -> None:
    """Report valid values that do not go together, warn of those that are hardly meant."""
    value = file.values
    enable = ("xdm_voltage_enable", "xdm_current_enable")
    if not any(value[name] for name in enable) and file.reported.isdisjoint(enable):
        file.refuse(enable[0], "and xdm_current_enable are both off: at least one must be True")
    if value["xdm_voltage_serial"] and value["xdm_voltage_serial"] == value["xdm_current_serial"]:
        file.refuse("xdm_current_serial", "must differ from xdm_voltage_serial", value=value["xdm_current_serial"])
    if (value["report_interval"] or math.inf) < (value["sample_interval"] or 0):
        message = f"must not be shorter than sample_interval, {value['sample_interval']}"
        file.refuse("report_interval", message, value=str(value["report_interval"]))
    types = [value[f"{quantity}_type"] for quantity in ("voltage", "current", "power")]
    if None not in types and len(set(types)) < len(types):
        file.refuse("voltage_type", f"must differ from current_type and power_type, and these from each other: {types}")
    ranges = _current_ranges(value)
    if value["xdm_current_range"] and value["xdm_current_range"] not in ranges:
        message = f"must be one of: {', '.join(ranges)} (as xdm_current_source is {value['xdm_current_source'].value})"
        file.refuse("xdm_current_range", message, value=value["xdm_current_range"])
    _warn_of_values(file)


def _check_ports(file: ConfigFile, folder: Path) -> None:
    """Report a port that is a folder, and one that both meters use, by whatever names."""
    devices = []
    for name in ("xdm_voltage", "xdm_current"):
        port = file.values[f"{name}_port"]
        if port and file.values[f"{name}_enable"]:
            device = _device(port, folder)
            if device in devices:
                file.refuse(f"{name}_port", "the voltage meter already uses it", value=port)
            elif _is_folder(device):
                file.refuse(f"{name}_port", "is a folder, not a port", value=port)
            devices.append(device)


def _warn_of_values(file: ConfigFile) -> None:
    value = file.values
    if value["API_URL"] and urlsplit(value["API_URL"]).scheme == "http" and not _is_loopback(value["API_URL"]):
        file.warn("API_URL begins with http:// : the password travels unencrypted; use https://")
    for name in ("API_PASSWORD", "redis_authpw"):
        if re.fullmatch(r"[A-Za-z]{1,7}", value[name] or ""):  # as log_setup.py has it
            file.warn(f"{name} is a short word: the log hides it only where it is a value. Choose a longer password")
        if "%%" in (value[name] or ""):
            file.warn(f"{name} holds %%: it is taken as it stands. If the password itself has one %, write one %")
    if value["auth_redis"] and not value["redis_authpw"]:
        file.warn("auth_redis is True but there is no redis_authpw: no password is sent to Redis")


def _device(port: str, folder: Path) -> str:
    """Return what a port really is: two names of one device give the same."""
    if "://" in port or "/" not in port:
        return port.lower().removeprefix("\\\\.\\").rstrip("/")
    return os.path.realpath(folder / port)


def _is_folder(device: str) -> bool:
    try:
        return Path(device).is_dir()
    except OSError:  # too long a name, or one that this user may not look at
        return False


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _current_ranges(values: Mapping[str, Any]) -> dict[str, int]:
    return CURRENT_RANGES if values["xdm_current_source"] is CurrentSource.DIRECT else VOLTAGE_RANGES


def _settings(value: Mapping[str, Any], folder: Path, warnings: Iterable[str]) -> Settings:
    return Settings(
        self_mac=value["self_mac"],
        api=ApiSettings(
            url=value["API_URL"],
            username=value["API_USERNAME"],
            password=value["API_PASSWORD"],
            report_interval_ms=value["report_interval"],
            voltage_type=value["voltage_type"],
            current_type=value["current_type"],
            power_type=value["power_type"],
            upload_batch=value["upload_batch"],
            upload_pause_s=value["upload_pause_ms"] / 1000,
        ),
        serial=SamplingSettings(sample_interval_ms=value["sample_interval"]),
        voltage_meter=_voltage_meter(value, folder) if value["xdm_voltage_enable"] else None,
        current_meter=_current_meter(value, folder) if value["xdm_current_enable"] else None,
        redis=_redis(value) if value["redis_enable"] else None,
        store=_store(value),
        folder=folder,
        warnings=tuple(warnings),
    )


def _voltage_meter(value: Mapping[str, Any], folder: Path) -> VoltageMeterSettings:
    return VoltageMeterSettings(
        port=_in_folder(value["xdm_voltage_port"], folder),
        range_number=VOLTAGE_RANGES[value["xdm_voltage_range"]],
        range_name=value["xdm_voltage_range"],
        rate=value["xdm_rate"],
        serial_number=value["xdm_voltage_serial"],
    )


def _current_meter(value: Mapping[str, Any], folder: Path) -> CurrentMeterSettings:
    direct = value["xdm_current_source"] is CurrentSource.DIRECT
    range_name = value["xdm_current_range"] or ("10A" if direct else "50mV")
    return CurrentMeterSettings(
        port=_in_folder(value["xdm_current_port"], folder),
        range_number=_current_ranges(value)[range_name],
        range_name=range_name,
        rate=value["xdm_rate"],
        serial_number=value["xdm_current_serial"],
        source=value["xdm_current_source"],
        shunt_resistance_ohm=None if direct else value["xdm_shunt_resistance"],
        reverse_polarity=value["xdm_current_reverse_polarity"],
    )


def _redis(value: Mapping[str, Any]) -> RedisSettings:
    password = None if value["auth_redis"] is False else value["redis_authpw"]
    return RedisSettings(
        host=value["redis_host"],
        port=value["redis_port"],
        db=value["redis_db"],
        username=value["redis_username"] if password else None,
        password=password,
        tls=value["redis_tls"],
        ttl_s=value["redis_ttl"],
    )


def _store(value: Mapping[str, Any]) -> StoreSettings:
    sync_interval_s = value["store_sync_interval"]
    return StoreSettings(
        max_mb=value["store_max_mb"],
        keep_days=value["store_keep_days"],
        sync_interval_s=value["report_interval"] / 1000 if sync_interval_s is None else sync_interval_s,
        clock_hold_max_s=value["clock_hold_max"],
    )


def _in_folder(port: str, folder: Path) -> str:
    """Return the port with a relative path made absolute: paths in the file are relative to its folder."""
    return str(folder / port) if "/" in port and "://" not in port else port
