"""Which values of config.cfg go together, and which are hardly meant: the rules that more than one key has a part in.

Pure but for a look at what a port's path is. Each rule reports to the ``ConfigFile`` under one of its keys.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from config_file import ConfigFile
from config_keys import CURRENT_RANGES, VOLTAGE_RANGES, CurrentSource, Rate
from config_values import RangeChoice

_ALWAYS_TYPES = ("voltage_type", "current_type", "power_type")
_COUNTER_TYPES = ("energy_in_type", "energy_out_type", "charge_in_type", "charge_out_type", "energy_type")
_OVER_RANGE = 1.1  # a range of the meter ends at 1.1 times its name
_STALE_AFTER_AT_LEAST_MS = 1_000  # a meter shows a new value three times a second


def check_together(file: ConfigFile) -> None:
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
    _check_types(file)
    if 0 < (value["xdm_stale_after"] or 0) < _STALE_AFTER_AT_LEAST_MS:
        message = f"must be 0 (never) or at least {_STALE_AFTER_AT_LEAST_MS} milliseconds"
        file.refuse("xdm_stale_after", message, value=str(value["xdm_stale_after"]))
    _check_current_meter(file)
    _check_limits(file)
    _check_web(file)
    _warn_of_values(file)


def _check_types(file: ConfigFile) -> None:
    """Report sensor types that are not all different: the cloud could not tell apart what comes under them."""
    value = file.values
    types = [value[name] for name in _ALWAYS_TYPES]
    if None not in types and len(set(types)) < len(types):
        file.refuse("voltage_type", f"must differ from current_type and power_type, and these from each other: {types}")
    taken = {value[name]: name for name in _ALWAYS_TYPES}
    for name in _COUNTER_TYPES:
        kind = value[name]
        if kind is not None and kind in taken:
            file.refuse(
                name, f"must differ from {taken[kind]}: each sensor type stands for one quantity", value=str(kind)
            )
        taken.setdefault(kind, name)


def _check_current_meter(file: ConfigFile) -> None:
    value = file.values
    ranges, source, chosen = current_ranges(value), value["xdm_current_source"], value["xdm_current_range"]
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


def _check_web(file: ConfigFile) -> None:
    """Report a page that the network could see without anybody having decided so."""
    value = file.values
    if not value["enable_web"] or value["web_host"] is None or ipaddress.ip_address(value["web_host"]).is_loopback:
        return
    if not (value["web_password"] or value["web_password_file"] or value["web_allow_open"]):
        message = (
            "is an address that others can reach, but there is no web_password. Set one (or web_password_file), or "
            "web_allow_open = True if everybody there may see the battery, or web_host = 127.0.0.1"
        )
        file.refuse("web_host", message, value=value["web_host"])


def check_ports(file: ConfigFile, folder: Path) -> None:
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
    for name in ("API_PASSWORD", "redis_authpw", "web_password"):
        if re.fullmatch(r"[A-Za-z]{1,7}", value[name] or ""):  # as log_setup.py has it
            file.warn(f"{name} is a short word: the log hides it only where it is a value. Choose a longer password")
        if "%%" in (value[name] or "") and value[name] in file.texts(name):
            file.warn(f"{name} holds %%: it is taken as it stands. If the password itself has one %, write one %")
    if value["xdm_rate"] in (Rate.MEDIUM, Rate.FAST):
        what = "the accuracy of the meters is published for slow only. The +/- of every value assumes one digit less"
        file.warn(f"xdm_rate is {value['xdm_rate'].value}: {what}; nobody vouches for it (docs/accuracy.md)")
    if value["auth_redis"] and not (value["redis_authpw"] or value["redis_authpw_file"]):
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


def current_ranges(values: Mapping[str, Any]) -> dict[str, int]:
    """Return the ranges that the current meter has in its present use, by name, with their numbers."""
    return CURRENT_RANGES if values["xdm_current_source"] is CurrentSource.DIRECT else VOLTAGE_RANGES


def current_range(values: Mapping[str, Any]) -> RangeChoice:
    """Return the range of the current meter: as the file has it, or the default of its present use."""
    default = "10A" if values["xdm_current_source"] is CurrentSource.DIRECT else "50mV"
    return values["xdm_current_range"] or RangeChoice(name=default, fixed=False)


def _voltage_end_v(values: Mapping[str, Any]) -> float:
    return _end_of(values["xdm_voltage_range"] or "1000V")


def _current_end_a(values: Mapping[str, Any]) -> float:
    """Return the largest current that can be measured, in amperes; infinite if that is not known."""
    chosen, shunt_ohm = current_range(values), values["xdm_shunt_resistance"]
    if values["xdm_current_source"] is CurrentSource.DIRECT:
        return _end_of(chosen.name)
    largest = chosen.name if chosen.fixed or chosen.name != "50mV" else "500mV"  # it steps up by itself
    return _end_of(largest) / shunt_ohm if shunt_ohm else math.inf


def _end_of(range_name: str) -> float:
    """Return where a range ends, in volts or amperes: 0.055 for 50mV."""
    digits = range_name.rstrip("umVA")
    return _OVER_RANGE * float(digits) * {"u": 1e-6, "m": 1e-3}.get(range_name[len(digits)], 1.0)
