"""What config.cfg says, read once and checked whole, as a tree of frozen values. Its form is ``config_file.py``'s.

Runs in the main thread, before anything is built. Guarantees: ``load_settings()`` gives either a ``Settings`` that is
complete and consistent, or one ``ConfigurationError`` that names every problem of the file at once. No message and no
repr shows a password. The keys are those of ``config_keys.py``; a key in [DEFAULT] holds for every section, the key's
own section wins. Whether a meter, a server or a folder really exists is not looked at here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config_checks import check_ports, check_together, current_range, current_ranges
from config_file import ConfigFile, ConfigurationError, read_config_file
from config_keys import TABLE, VOLTAGE_RANGES
from config_keys import CurrentSource as CurrentSource
from config_keys import Rate as Rate
from config_values import EXAMPLES, NO_OFFSET, ZeroOffset
from credentials import API_PASSWORD, REDIS_PASSWORD, WEB_PASSWORD, take_password
from measurements import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The Aretas account, how often it is reported to, and under which sensor types; ``None``: not reported.

    ``password`` is empty where it need not be known, and only the service manager knows it.
    """

    url: str
    username: str
    password: str = field(repr=False)
    report_interval_ms: int
    voltage_type: int = 532
    current_type: int = 531
    power_type: int = 533
    energy_in_type: int | None = None
    energy_out_type: int | None = None
    charge_in_type: int | None = None
    charge_out_type: int | None = None
    energy_type: int | None = None
    upload_batch: int = 500
    upload_pause_s: float = 0.25

    def device(self, mac: int) -> Device:
        """Return as what readings are reported."""
        return Device(
            mac=mac,
            voltage_type=self.voltage_type,
            current_type=self.current_type,
            power_type=self.power_type,
            energy_in_type=self.energy_in_type,
            energy_out_type=self.energy_out_type,
            charge_in_type=self.charge_in_type,
            charge_out_type=self.charge_out_type,
            energy_type=self.energy_type,
        )


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
    shunt_tolerance_percent: float = 0.25
    minimum_a: float | None = None
    maximum_a: float | None = None
    zero_offset: ZeroOffset = NO_OFFSET
    deadband_a: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """The Redis server of the latest values. ``ttl_s`` = 0: they never vanish.

    ``password`` is ``None`` if none is sent, empty where it need not be known and only the service manager knows it.
    """

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
class WebSettings:
    """Where the page is served, and the password that it wants. ``port`` = 0: any that is free.

    ``password`` is ``None`` if it wants none.
    """

    host: str
    port: int
    password: str | None = field(repr=False)


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
    web: WebSettings | None
    folder: Path
    warnings: tuple[str, ...]
    passwords: tuple[str, ...] = field(repr=False)

    def ports(self) -> list[str]:
        """Return the ports of the meters."""
        return [meter.port for meter in (self.voltage_meter, self.current_meter) if meter is not None]

    def outline(self) -> str:
        """Return in a few words what the daemon does: for the log."""
        sample_s, report_s = self.serial.sample_interval_ms / 1000, self.api.report_interval_ms / 1000
        return f"a sample every {sample_s:g} s, a report every {report_s:g} s, to {self.api.url}"

    def secrets(self) -> tuple[str, ...]:
        """Return every value that may appear in no log: the passwords of all sources, also those that do not count."""
        return self.passwords


def load_settings(path: Path, *, to_run: bool = True) -> Settings:
    """Read and check the file at ``path``, and the passwords that are kept elsewhere.

    Raise ``ConfigurationError`` with everything that is wrong. Without ``to_run`` a password that only the service
    manager passes may be absent: it is empty then.
    """
    file, folder = read_config_file(path, TABLE), path.absolute().parent
    value = file.values
    redis_used = bool(value["redis_enable"]) and value["auth_redis"] is not False
    passwords = (
        *take_password(file, API_PASSWORD, folder, used=True, at_hand=to_run),
        *take_password(file, REDIS_PASSWORD, folder, used=redis_used, at_hand=to_run),
        *take_password(file, WEB_PASSWORD, folder, used=bool(value["enable_web"]), at_hand=to_run),
    )
    check_together(file)
    check_ports(file, path.parent)
    if file.problems:
        raise ConfigurationError(path, file.problems)
    if os.name == "posix" and path.stat().st_mode & 0o004 and _holds_password(file):
        file.warn(f"every user of this computer can read the password in {path}: run  chmod 600 {path}")
    return _settings(value, folder, file.warnings, passwords)


def _holds_password(file: ConfigFile) -> bool:
    account = set(file.texts(API_PASSWORD.key)).difference(EXAMPLES)
    return bool(account or file.texts(REDIS_PASSWORD.key) or file.texts(WEB_PASSWORD.key))


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPorts:
    """The ports that a configuration names for its meters, and where else it has them looked for."""

    configured: tuple[str, ...] = ()
    scan_ports: tuple[str, ...] = ()


def load_ports(path: Path) -> NamedPorts:
    """Read the ports alone, whatever else is wrong with the file. Raise ``ConfigurationError`` if it cannot be read."""
    value, folder = read_config_file(path, TABLE).values, path.absolute().parent
    configured = (value["xdm_voltage_port"], value["xdm_current_port"])
    return NamedPorts(
        configured=tuple(_in_folder(port, folder) for port in configured if port),
        scan_ports=tuple(_in_folder(port, folder) for port in value["xdm_scan_ports"] or ()),
    )


def _settings(value: Mapping[str, Any], folder: Path, warnings: Iterable[str], passwords: Iterable[str]) -> Settings:
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
            energy_in_type=value["energy_in_type"],
            energy_out_type=value["energy_out_type"],
            charge_in_type=value["charge_in_type"],
            charge_out_type=value["charge_out_type"],
            energy_type=value["energy_type"],
            upload_batch=value["upload_batch"],
            upload_pause_s=value["upload_pause_ms"] / 1000,
        ),
        serial=_sampling(value, folder),
        voltage_meter=_voltage_meter(value, folder) if value["xdm_voltage_enable"] else None,
        current_meter=_current_meter(value, folder) if value["xdm_current_enable"] else None,
        redis=_redis(value) if value["redis_enable"] else None,
        store=_store(value),
        web=_web(value) if value["enable_web"] else None,
        folder=folder,
        warnings=tuple(warnings),
        passwords=tuple(dict.fromkeys(passwords)),
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
    chosen = current_range(value)
    return CurrentMeterSettings(
        port=_in_folder(value["xdm_current_port"], folder),
        range_number=current_ranges(value)[chosen.name],
        range_name=chosen.name,
        rate=value["xdm_rate"],
        serial_number=value["xdm_current_serial"],
        source=value["xdm_current_source"],
        shunt_resistance_ohm=None if direct else value["xdm_shunt_resistance"],
        reverse_polarity=value["xdm_current_reverse_polarity"],
        range_fixed=chosen.fixed,
        shunt_tolerance_percent=value["xdm_shunt_tolerance_percent"],
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


def _web(value: Mapping[str, Any]) -> WebSettings:
    return WebSettings(host=value["web_host"], port=value["web_port"], password=value["web_password"] or None)


def _in_folder(port: str, folder: Path) -> str:
    """Return the port with a relative path made absolute: paths in the file are relative to its folder."""
    return str(folder / port) if "/" in port and "://" not in port else port
