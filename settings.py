"""What config.cfg says, read once and checked whole, as a tree of frozen values. Its form is ``config_file.py``'s.

Runs in the main thread, before anything is built. Guarantees: ``load_settings()`` gives either a ``Settings`` that is
complete and consistent, or one ``ConfigurationError`` that names every problem of the file at once. No message and no
repr shows a password. The keys are those of ``config_keys.py``; a key in [DEFAULT] holds for every section, the key's
own section wins. Whether a meter, a server or a folder really exists is not looked at here.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from config_file import ConfigFile, ConfigurationError, read_config_file
from config_keys import CURRENT_RANGES, TABLE, VOLTAGE_RANGES
from config_keys import CurrentSource as CurrentSource
from config_keys import Rate as Rate
from config_values import NO_OFFSET, RangeChoice, ZeroOffset

_OVER_RANGE = 1.1  # a range of the meter ends at 1.1 times its name
_STALE_AFTER_AT_LEAST_MS = 1_000  # a meter shows a new value three times a second


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
    """How often the meters are read and their settings verified, where they are looked for, when one counts as frozen.

    ``stale_after_ms`` = 0: never. ``scan_ports`` may hold patterns; empty: the program's own choice.
    """

    sample_interval_ms: int
    verify_interval_ms: int = 10_000
    stale_after_ms: int = 30_000
    scan_ports: tuple[str, ...] = ()
    wire_log: Path | None = None


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
    """The meter on the battery voltage. A limit that is ``None`` is the range's own."""

    minimum_v: float | None = None
    maximum_v: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentMeterSettings(MeterSettings):
    """The meter of the battery current. ``shunt_resistance_ohm`` is ``None`` for a direct measurement.

    A limit that is ``None`` is the range's own. ``range_fixed``: the range is not left for a larger one.
    """

    source: CurrentSource
    shunt_resistance_ohm: float | None
    reverse_polarity: bool
    range_fixed: bool = False
    minimum_a: float | None = None
    maximum_a: float | None = None
    zero_offset: ZeroOffset = NO_OFFSET
    deadband_a: float = 0.0


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
    if 0 < (value["xdm_stale_after"] or 0) < _STALE_AFTER_AT_LEAST_MS:
        message = f"must be 0 (never) or at least {_STALE_AFTER_AT_LEAST_MS} milliseconds"
        file.refuse("xdm_stale_after", message, value=str(value["xdm_stale_after"]))
    _check_current_meter(file)
    _check_limits(file)
    _warn_of_values(file)


def _check_current_meter(file: ConfigFile) -> None:
    value = file.values
    ranges, source, chosen = _current_ranges(value), value["xdm_current_source"], value["xdm_current_range"]
    if chosen and chosen.name not in ranges:
        message = f"must be one of: {', '.join(ranges)} (as xdm_current_source is {source.value})"
        file.refuse("xdm_current_range", message, value=chosen.name)
    offset = value["xdm_current_zero_offset"]
    if source is CurrentSource.DIRECT and offset and offset.offset_uv:
        file.refuse("xdm_current_zero_offset", "is of a shunt, but xdm_current_source is direct: delete it")


def _check_limits(file: ConfigFile) -> None:
    """Report limits that leave nothing between them, or nothing that the range can measure."""
    for quantity, end in (("voltage", _voltage_end_v(file.values)), ("current", _current_end_a(file.values))):
        lowest, highest = (f"xdm_{quantity}_{each}" for each in ("min", "max"))
        low, high = file.values[lowest], file.values[highest]
        if low is not None and high is not None and low >= high:
            file.refuse(lowest, f"must be below {highest}, {high:g}", value=f"{low:g}")
        elif low is not None and low >= end:
            file.refuse(lowest, f"must be below the end of the range, {end:g}", value=f"{low:g}")
        elif high is not None and high <= -end:
            file.refuse(highest, f"must be above the end of the range, {-end:g}", value=f"{high:g}")


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


def _current_range(values: Mapping[str, Any]) -> RangeChoice:
    default = "10A" if values["xdm_current_source"] is CurrentSource.DIRECT else "50mV"
    return values["xdm_current_range"] or RangeChoice(name=default, fixed=False)


def _voltage_end_v(values: Mapping[str, Any]) -> float:
    return _end_of(values["xdm_voltage_range"] or "1000V")


def _current_end_a(values: Mapping[str, Any]) -> float:
    """Return the largest current that can be measured, in amperes; infinite if that is not known."""
    chosen, shunt_ohm = _current_range(values), values["xdm_shunt_resistance"]
    if values["xdm_current_source"] is CurrentSource.DIRECT:
        return _end_of(chosen.name)
    largest = chosen.name if chosen.fixed or chosen.name != "50mV" else "500mV"  # it steps up by itself
    return _end_of(largest) / shunt_ohm if shunt_ohm else math.inf


def _end_of(range_name: str) -> float:
    """Return where a range ends, in volts or amperes: 0.055 for 50mV."""
    digits = range_name.rstrip("umVA")
    return _OVER_RANGE * float(digits) * {"u": 1e-6, "m": 1e-3}.get(range_name[len(digits)], 1.0)


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
        serial=_sampling(value, folder),
        voltage_meter=_voltage_meter(value, folder) if value["xdm_voltage_enable"] else None,
        current_meter=_current_meter(value, folder) if value["xdm_current_enable"] else None,
        redis=_redis(value) if value["redis_enable"] else None,
        store=_store(value),
        folder=folder,
        warnings=tuple(warnings),
    )


def _sampling(value: Mapping[str, Any], folder: Path) -> SamplingSettings:
    return SamplingSettings(
        sample_interval_ms=value["sample_interval"],
        verify_interval_ms=value["xdm_verify_interval"],
        stale_after_ms=value["xdm_stale_after"],
        scan_ports=tuple(_in_folder(port, folder) for port in value["xdm_scan_ports"] or ()),
        wire_log=folder / value["xdm_wire_log"] if value["xdm_wire_log"] else None,
    )


def _voltage_meter(value: Mapping[str, Any], folder: Path) -> VoltageMeterSettings:
    return VoltageMeterSettings(
        port=_in_folder(value["xdm_voltage_port"], folder),
        range_number=VOLTAGE_RANGES[value["xdm_voltage_range"]],
        range_name=value["xdm_voltage_range"],
        rate=value["xdm_rate"],
        serial_number=value["xdm_voltage_serial"],
        minimum_v=value["xdm_voltage_min"],
        maximum_v=value["xdm_voltage_max"],
    )


def _current_meter(value: Mapping[str, Any], folder: Path) -> CurrentMeterSettings:
    direct = value["xdm_current_source"] is CurrentSource.DIRECT
    chosen = _current_range(value)
    return CurrentMeterSettings(
        port=_in_folder(value["xdm_current_port"], folder),
        range_number=_current_ranges(value)[chosen.name],
        range_name=chosen.name,
        rate=value["xdm_rate"],
        serial_number=value["xdm_current_serial"],
        source=value["xdm_current_source"],
        shunt_resistance_ohm=None if direct else value["xdm_shunt_resistance"],
        reverse_polarity=value["xdm_current_reverse_polarity"],
        range_fixed=chosen.fixed,
        minimum_a=value["xdm_current_min"],
        maximum_a=value["xdm_current_max"],
        zero_offset=value["xdm_current_zero_offset"],
        deadband_a=value["xdm_current_deadband"],
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
