"""Every key that config.cfg may hold, one row of ``KEYS`` each; every other spelling in use, one row of ``ALIASES``.

Only this table; ``config_file.py`` reads a file by it and ``settings.py`` makes the tree of settings of what it holds.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from enum import Enum
from typing import Any

from config_file import Key, Table
from config_values import (
    address,
    choice,
    credential,
    fixable,
    host,
    log_path,
    mac,
    number,
    ohm,
    port,
    ports,
    secret_path,
    url,
    whole,
    word,
    zero_offset,
)

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
    Key("DEFAULT", "API_PASSWORD", str, None, "the password of your Aretas account", secret=True),
    Key("DEFAULT", "API_PASSWORD_FILE", secret_path, None, "the file that holds this password", secret=True),
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
    Key("XDM", "xdm_shunt_tolerance_percent", number("%", low=0, high=10), "0.25", "how far off its resistance may be"),
    Key("XDM", "xdm_current_reverse_polarity", _boolean, "False", "whether the sign is turned round"),
    Key("XDM", "xdm_current_range", fixable((*VOLTAGE_RANGES, *CURRENT_RANGES)), None, "its range"),
    Key("XDM", "xdm_current_serial", _serial_number, None, "its serial number"),
    Key("XDM", "xdm_rate", choice({rate.value: rate for rate in Rate}), "slow", "how fast the meters convert"),
    Key("XDM", "xdm_voltage_min", number("V"), None, "the lowest voltage that can be"),
    Key("XDM", "xdm_voltage_max", number("V"), None, "the highest voltage that can be"),
    Key("XDM", "xdm_current_min", number("A"), None, "the lowest current that can be"),
    Key("XDM", "xdm_current_max", number("A"), None, "the highest current that can be"),
    Key("XDM", "xdm_current_zero_offset", zero_offset, "0", "what the meter shows without a current"),
    Key("XDM", "xdm_current_deadband", number("A", low=0), "0", "the current that counts as none"),
    Key("XDM", "xdm_verify_interval", whole(100, 3_600_000, _milliseconds), "10000", "how often settings are verified"),
    Key("XDM", "xdm_stale_after", whole(0, 86_400_000, _milliseconds), "30000", "when a frozen reading is refused"),
    Key("XDM", "xdm_scan_ports", ports, None, "where the meters are looked for"),
    Key("XDM", "xdm_wire_log", log_path, None, "the file that every byte of the meters is written to"),
    Key("SERIAL", "sample_interval", whole(50, 3_600_000, _milliseconds), "5000", "how often the meters are read"),
    Key("API", "report_interval", whole(1_000, 86_400_000, _milliseconds), "30000", "how often is reported"),
    Key("API", "voltage_type", whole(0, 2_147_483_647), "532", "the sensor type of the voltage"),
    Key("API", "current_type", whole(0, 2_147_483_647), "531", "the sensor type of the current"),
    Key("API", "power_type", whole(0, 2_147_483_647), "533", "the sensor type of the power"),
    Key("API", "energy_in_type", whole(0, 2_147_483_647), None, "the sensor type of the energy counter, in"),
    Key("API", "energy_out_type", whole(0, 2_147_483_647), None, "the sensor type of the energy counter, out"),
    Key("API", "charge_in_type", whole(0, 2_147_483_647), None, "the sensor type of the charge counter, in"),
    Key("API", "charge_out_type", whole(0, 2_147_483_647), None, "the sensor type of the charge counter, out"),
    Key("API", "energy_type", whole(0, 2_147_483_647), None, "the sensor type of the net energy, in minus out"),
    Key("API", "upload_batch", whole(1, 10_000), "500", "how many readings go in one request"),
    Key("API", "upload_pause_ms", whole(0, 60_000, _milliseconds), "250", "the pause between two of them"),
    Key("STORE", "store_max_mb", whole(1, 1_000_000), "500", "how large the database may become"),
    Key("STORE", "store_keep_days", whole(0, 36_500), "31", "how long delivered readings are kept"),
    Key("STORE", "store_sync_interval", whole(0, 86_400, _seconds), None, "what a power cut may cost"),
    Key("STORE", "clock_hold_max", whole(0, 86_400, _seconds), "600", "how long a clock is waited for"),
    Key("REDIS", "redis_enable", _boolean, "False", "whether the latest values go to a Redis server"),
    Key("REDIS", "redis_host", host, "localhost", "where it runs"),
    Key("REDIS", "redis_port", whole(1, 65_535), "6379", "its TCP port"),
    Key("REDIS", "redis_db", whole(0, 1_000_000), "0", "the number of its database"),
    Key("REDIS", "redis_tls", _boolean, "False", "whether the connection is encrypted"),
    Key("REDIS", "auth_redis", _boolean, None, "whether the password is sent"),
    Key("REDIS", "redis_username", str, None, "the user name at the server"),
    Key("REDIS", "redis_authpw", str, None, "the password of the server", secret=True),
    Key("REDIS", "redis_authpw_file", secret_path, None, "the file that holds this password", secret=True),
    Key("REDIS", "redis_ttl", whole(0, 1_000_000_000, _seconds), "0", "when stale values vanish"),
    Key("WEB", "enable_web", _boolean, "False", "whether there is a page to look at"),
    Key("WEB", "web_host", address, "127.0.0.1", "the address it is served at"),
    Key("WEB", "web_port", whole(1, 65_535), "8041", "its TCP port"),
    Key("WEB", "web_password", str, None, "the password of the page", secret=True),
    Key("WEB", "web_password_file", secret_path, None, "the file that holds this password", secret=True),
    Key("WEB", "web_allow_open", _boolean, "False", "whether the network may see it without a password"),
)

# (section, spelling) -> key
ALIASES = {
    ("ARETAS", "API_URL"): "API_URL",
    ("ARETAS", "API_USERNAME"): "API_USERNAME",
    ("ARETAS", "API_PASSWORD"): "API_PASSWORD",
    ("ARETAS", "API_PASSWORD_FILE"): "API_PASSWORD_FILE",
    ("REDIS", "enable_redis"): "redis_enable",
    ("REDIS", "auth_pw"): "redis_authpw",
}
IGNORED = frozenset({"thread_sleep", "thread_sleep_time", "batch_mode", "serial_port"})
TABLE = Table(KEYS, ALIASES, IGNORED)
