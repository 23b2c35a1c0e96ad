"""What settings.py promises: a good file gives the right tree, a bad one gives all its problems and no secret."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config_file import ConfigurationError
from config_keys import ALIASES, KEYS
from config_values import ZeroOffset
from settings import (
    CurrentSource,
    Rate,
    Settings,
    load_settings,
)

ACCOUNT = """\
[DEFAULT]
self_mac = 123456789
API_URL = https://iot.aretas.ca/rest/
API_USERNAME = jane
API_PASSWORD = hunter2secret
"""
XDM = """\
[XDM]
xdm_current_enable = True
xdm_current_port = /dev/ttyUSB1
xdm_shunt_resistance = 0.0006667
xdm_voltage_enable = True
xdm_voltage_port = /dev/ttyUSB2
"""
GOOD = ACCOUNT + XDM

# What a user of the original has, as its README and its code taught: both spellings, dead keys, its own defaults.
HISTORICAL = """\
[DEFAULT]
self_mac = 123456789
thread_sleep = False
thread_sleep_time = 1.0
API_URL = https://iot.aretas.ca/rest/
API_USERNAME = jane
API_PASSWORD = hunter2secret

[API]
report_interval = 20000
batch_mode = True

[SERIAL]
serial_port = /dev/ttyUSB0
sample_interval = 5000

[XDM]
xdm_current_enable = True
xdm_current_port = /dev/ttyUSB1
xdm_shunt_resistance = 0.0006667
xdm_current_reverse_polarity = True
xdm_voltage_enable = True
xdm_voltage_port = /dev/ttyUSB2

[REDIS]
enable_redis = True
auth_redis = False
auth_pw = redispass
"""


def write(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "config.cfg"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def load(folder: Path, content: str | bytes) -> Settings:
    return load_settings(write(folder, content))


def report(folder: Path, content: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, content)
    return str(caught.value)


def with_value(section: str, key: str, value: str) -> str:
    """Return the good file with one key set: in its own section, instead of what is there."""
    lines = [line for line in GOOD.splitlines() if line.partition(" = ")[0] != key]
    if f"[{section}]" not in lines:
        lines.append(f"[{section}]")
    lines.insert(lines.index(f"[{section}]") + 1, f"{key} = {value}")
    return "\n".join(lines)


def test_a_short_file_gets_the_defaults(tmp_path: Path) -> None:
    got = load(tmp_path, GOOD)
    assert got.warnings == ()
    assert got.folder == tmp_path
    assert (got.self_mac, got.api.url, got.api.username) == (123456789, "https://iot.aretas.ca/rest/", "jane")
    assert (got.api.report_interval_ms, got.serial.sample_interval_ms) == (30_000, 5_000)
    assert (got.api.voltage_type, got.api.current_type, got.api.power_type) == (532, 531, 533)
    assert got.redis is None
    voltage, current = got.voltage_meter, got.current_meter
    assert voltage is not None
    assert (voltage.port, voltage.range_name, voltage.range_number) == ("/dev/ttyUSB2", "500V", 5)
    assert (voltage.rate, voltage.serial_number) == (Rate.SLOW, None)
    assert current is not None
    assert (current.port, current.range_name, current.range_number) == ("/dev/ttyUSB1", "50mV", 1)
    assert (current.source, current.shunt_resistance_ohm) == (CurrentSource.SHUNT, 0.0006667)
    assert (current.reverse_polarity, current.shunt_tolerance_percent) == (False, 0.25)
    assert (voltage.minimum_v, voltage.maximum_v, current.minimum_a, current.maximum_a) == (None,) * 4
    assert (current.range_fixed, current.zero_offset, current.deadband_a) == (False, ZeroOffset(offset_uv=0.0), 0.0)
    assert (got.serial.verify_interval_ms, got.serial.stale_after_ms) == (10_000, 30_000)
    assert (got.serial.scan_ports, got.serial.wire_log) == ((), None)


def test_the_file_of_a_user_of_the_original_works_unchanged(tmp_path: Path) -> None:
    got = load(tmp_path, HISTORICAL)
    assert (got.api.report_interval_ms, got.serial.sample_interval_ms) == (20_000, 5_000)
    assert got.current_meter is not None
    assert got.current_meter.reverse_polarity is True
    assert got.redis is not None
    assert (got.redis.host, got.redis.port, got.redis.db, got.redis.password) == ("localhost", 6379, 0, None)
    dead, *old = sorted(got.warnings, key=lambda warning: "old name" in warning)
    assert all(name in dead for name in ("thread_sleep", "thread_sleep_time", "batch_mode", "serial_port"))
    assert ["redis_enable" in warning or "redis_authpw" in warning for warning in old] == [True, True]


def test_the_api_keys_may_stand_in_aretas(tmp_path: Path) -> None:
    content = GOOD.replace("API_URL", "[ARETAS]\nAPI_URL")
    assert load(tmp_path, content) == load(tmp_path, GOOD)


def test_aretas_wins_over_default_with_a_warning(tmp_path: Path) -> None:
    got = load(tmp_path, GOOD + "[ARETAS]\nAPI_USERNAME = joe\nAPI_PASSWORD = other&secret\nAPI_URL = \n")
    assert (got.api.username, got.api.password) == ("joe", "other&secret")
    assert got.api.url == "https://iot.aretas.ca/rest/"
    assert [("ARETAS" in warning, "secret" in warning) for warning in got.warnings] == [(True, False)] * 2


def test_the_same_value_in_both_places_is_no_matter(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "[ARETAS]\nAPI_USERNAME = jane\n").warnings == ()


def test_the_current_spelling_wins_over_the_old_one(tmp_path: Path) -> None:
    got = load(tmp_path, GOOD + "[REDIS]\nredis_enable = True\nauth_pw = oldpass\nredis_authpw = newpass\n")
    assert got.redis is not None
    assert got.redis.password == "newpass"
    assert any("old name" in warning for warning in got.warnings)
    assert any("[REDIS] redis_authpw counts" in warning for warning in got.warnings)
    assert not any(secret in warning for warning in got.warnings for secret in ("oldpass", "newpass"))


@pytest.mark.parametrize(
    ("redis", "password", "warned"),
    [
        ("", None, False),
        ("redis_authpw = pass word", "pass word", False),
        ("auth_redis = True\nredis_authpw = pw1", "pw1", False),
        ("auth_redis = False\nredis_authpw = pw1", None, False),
        ("auth_redis = False", None, False),
        ("auth_redis = True", None, True),
    ],
)
def test_redis_password_is_sent_unless_auth_redis_says_no(
    tmp_path: Path, redis: str, password: str | None, warned: bool
) -> None:
    got = load(tmp_path, f"{GOOD}[REDIS]\nredis_enable = yes\n{redis}\n")
    assert got.redis is not None
    assert got.redis.password == password
    assert bool(got.warnings) is warned


def test_a_key_in_default_holds_for_its_section_unless_that_has_it_too(tmp_path: Path) -> None:
    content = GOOD.replace(
        "[XDM]", "report_interval = 60000\nsample_interval = 1000\n[SERIAL]\nsample_interval=2000\n[XDM]"
    )
    got = load(tmp_path, content)
    assert (got.api.report_interval_ms, got.serial.sample_interval_ms) == (60_000, 2_000)


@pytest.mark.parametrize(
    "password",
    [
        "100%",
        "%(self_mac)s",
        "a&b#c+d",
        "a ; b # c",
        "#lead",
        "mit Äöü ß €",
        "in side",
        "=eq:colon=",
        '"quoted"',
        "p%%q",
    ],
)
def test_a_password_is_taken_exactly_as_it_is(tmp_path: Path, password: str) -> None:
    got = load(tmp_path, GOOD.replace("hunter2secret", password))
    assert got.api.password == password
    assert got.secrets() == (password,)
    assert password not in repr(got)


def test_secrets_has_the_redis_password_too(tmp_path: Path) -> None:
    got = load(tmp_path, GOOD + "[REDIS]\nredis_enable = 1\nredis_authpw = redispass\n")
    assert got.secrets() == ("hunter2secret", "redispass")
    assert "redispass" not in repr(got)


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()) == load(tmp_path, GOOD)


# section, key, accepted value, what Settings has then (an expression on s)
ACCEPTED = [
    ("XDM", "xdm_voltage_range", "50 v", "s.voltage_meter.range_name", "50V"),
    ("XDM", "xdm_voltage_range", "1000V", "s.voltage_meter.range_number", 6),
    ("XDM", "xdm_current_range", "500MV", "s.current_meter.range_number", 2),
    ("XDM", "xdm_rate", "Slow", "s.voltage_meter.rate", Rate.SLOW),
    ("XDM", "xdm_voltage_serial", "24152470", "s.voltage_meter.serial_number", "24152470"),
    ("XDM", "xdm_current_source", "direct", "s.current_meter.range_name", "10A"),
    ("XDM", "xdm_current_source", "direct", "s.current_meter.range_number", 6),
    ("XDM", "xdm_current_source", "direct", "s.current_meter.shunt_resistance_ohm", None),
    ("XDM", "xdm_current_source", "direct\nxdm_current_range = 500 ua", "s.current_meter.range_number", 1),
    ("XDM", "xdm_current_reverse_polarity", "on", "s.current_meter.reverse_polarity", True),
    ("XDM", "xdm_current_port", "COM3", "s.current_meter.port", "COM3"),
    ("XDM", "xdm_current_port", "com12", "s.current_meter.port", "com12"),
    ("XDM", "xdm_current_port", "\\\\.\\COM12", "s.current_meter.port", "\\\\.\\COM12"),
    ("XDM", "xdm_current_port", "socket://10.0.0.5:4001", "s.current_meter.port", "socket://10.0.0.5:4001"),
    ("XDM", "xdm_current_port", "rfc2217://[::1]:4001", "s.current_meter.port", "rfc2217://[::1]:4001"),
    ("XDM", "xdm_current_port", "ttys/a", "s.current_meter.port", "FOLDER/ttys/a"),
    ("XDM", "xdm_shunt_resistance", "6.667e-4", "s.current_meter.shunt_resistance_ohm", 6.667e-4),
    ("XDM", "xdm_shunt_resistance", ".00025", "s.current_meter.shunt_resistance_ohm", 2.5e-4),
    ("XDM", "xdm_shunt_tolerance_percent", "0", "s.current_meter.shunt_tolerance_percent", 0.0),
    ("XDM", "xdm_shunt_tolerance_percent", ".5", "s.current_meter.shunt_tolerance_percent", 0.5),
    ("XDM", "xdm_shunt_tolerance_percent", "10", "s.current_meter.shunt_tolerance_percent", 10.0),
    ("XDM", "xdm_voltage_enable", "0", "s.voltage_meter", None),
    ("XDM", "xdm_current_range", "50 mV  Fixed", "s.current_meter.range_fixed", True),
    ("XDM", "xdm_current_range", "50mV fixed", "s.current_meter.range_number", 1),
    ("XDM", "xdm_current_range", "500mV fixed", "s.current_meter.range_name", "500mV"),
    ("XDM", "xdm_current_range", "50mV", "s.current_meter.range_fixed", False),
    ("XDM", "xdm_current_source", "direct\nxdm_current_range = 10A fixed", "s.current_meter.range_fixed", True),
    ("XDM", "xdm_voltage_min", "40", "s.voltage_meter.minimum_v", 40.0),
    ("XDM", "xdm_voltage_max", "+5.85e1", "s.voltage_meter.maximum_v", 58.5),
    ("XDM", "xdm_voltage_max", "2000", "s.voltage_meter.maximum_v", 2000.0),
    ("XDM", "xdm_current_min", "-100\nxdm_current_max = -.5", "s.current_meter.minimum_a", -100.0),
    ("XDM", "xdm_current_max", "75.", "s.current_meter.maximum_a", 75.0),
    ("XDM", "xdm_current_min", "800", "s.current_meter.minimum_a", 800.0),
    ("XDM", "xdm_current_zero_offset", "-12.3", "s.current_meter.zero_offset", ZeroOffset(offset_uv=-12.3)),
    (
        "XDM",
        "xdm_current_zero_offset",
        "-12.3 2026-11-24 22511041",
        "s.current_meter.zero_offset",
        ZeroOffset(offset_uv=-12.3, measured_on=date(2026, 11, 24), serial_number="22511041"),
    ),
    ("XDM", "xdm_current_zero_offset", "0\nxdm_current_source = direct", "s.current_meter.deadband_a", 0.0),
    ("XDM", "xdm_current_deadband", "0.02", "s.current_meter.deadband_a", 0.02),
    ("XDM", "xdm_verify_interval", "100", "s.serial.verify_interval_ms", 100),
    ("XDM", "xdm_stale_after", "0", "s.serial.stale_after_ms", 0),
    ("XDM", "xdm_stale_after", "1000", "s.serial.stale_after_ms", 1000),
    ("XDM", "xdm_scan_ports", "COM3", "s.serial.scan_ports", ("COM3",)),
    (
        "XDM",
        "xdm_scan_ports",
        "/dev/serial/by-path/*usb-0:1.[12]:1.0-port0 ,socket://10.0.0.5:4001",
        "s.serial.scan_ports",
        ("/dev/serial/by-path/*usb-0:1.[12]:1.0-port0", "socket://10.0.0.5:4001"),
    ),
    ("XDM", "xdm_scan_ports", "ttys/*", "s.serial.scan_ports[0]", "FOLDER/ttys/*"),
    ("XDM", "xdm_wire_log", "wire.jsonl", "str(s.serial.wire_log)", "FOLDER/wire.jsonl"),
    ("XDM", "xdm_wire_log", "/var/log/my meters.jsonl", "str(s.serial.wire_log)", "/var/log/my meters.jsonl"),
    ("SERIAL", "sample_interval", "50", "s.serial.sample_interval_ms", 50),
    ("API", "report_interval", "86400000", "s.api.report_interval_ms", 86_400_000),
    ("API", "power_type", "0", "s.api.power_type", 0),
    ("API", "energy_type", "700", "s.api.device(1).types", (532, 531, 533, None, None, None, None, 700)),
    ("API", "energy_in_type", "0\nenergy_out_type = 1", "s.api.device(1).types[3:]", (0, 1, None, None, None)),
    ("API", "charge_in_type", "2\ncharge_out_type = 3", "s.api.device(1).types[3:]", (None, None, 2, 3, None)),
    ("API", "energy_in_type", "", "s.api.energy_in_type", None),
    ("DEFAULT", "self_mac", "9223372036854775807", "s.self_mac", 2**63 - 1),
    ("DEFAULT", "API_URL", "http://127.0.0.1:8080/rest", "s.api.url", "http://127.0.0.1:8080/rest"),
    ("DEFAULT", "API_URL", "http://localhost/", "s.warnings", ()),
    ("DEFAULT", "API_URL", "http://[::1]:80/", "s.warnings", ()),
    ("REDIS", "redis_enable", "yes\nredis_ttl = 120", "s.redis.ttl_s", 120),
    ("REDIS", "redis_enable", "yes\nredis_tls = True", "s.redis.tls", True),
    ("REDIS", "redis_enable", "yes\nredis_host = ::1\nredis_db = 3", "s.redis.db", 3),
    ("REDIS", "redis_enable", "yes\nredis_host = [::1]", "s.redis.host", "::1"),
    ("REDIS", "redis_enable", "yes\nredis_host = fe80::1%eth0", "s.redis.host", "fe80::1%eth0"),
    ("REDIS", "redis_enable", "yes\nredis_host = bücher_3.example", "s.redis.host", "bücher_3.example"),
    ("REDIS", "redis_enable", "yes\nredis_username = u\nredis_authpw = p1", "s.redis.username", "u"),
]


@pytest.mark.parametrize(("section", "key", "value", "expression", "expected"), ACCEPTED)
def test_accepted(tmp_path: Path, section: str, key: str, value: str, expression: str, expected: object) -> None:
    got = load(tmp_path, with_value(section, key, value))
    result = eval(expression, {"s": got})
    assert (result.replace(str(tmp_path), "FOLDER") if isinstance(result, str) else result) == expected
    assert got.warnings == ()


# section, key, refused value, words of the report
REFUSED = [
    ("DEFAULT", "self_mac", "changeme", "still the example's value"),
    ("DEFAULT", "self_mac", "changeme", "Aretas account"),
    ("DEFAULT", "self_mac", "AA:BB:CC:DD:EE:FF", "decimal"),
    ("DEFAULT", "self_mac", "0", "above 0"),
    ("DEFAULT", "self_mac", "-5", "above 0"),
    ("DEFAULT", "self_mac", "1_000", "digits only"),
    ("DEFAULT", "self_mac", "١٢٣", "digits only"),
    ("DEFAULT", "self_mac", "9223372036854775808", "too large"),
    ("DEFAULT", "self_mac", "9" * 5000, "too large"),
    ("API", "power_type", "2147483648", "2147483647"),
    ("REDIS", "redis_ttl", "99999999999999999999", "1000000000"),
    ("DEFAULT", "API_USERNAME", "username", "still the example's value"),
    ("DEFAULT", "API_PASSWORD", "password", "still the example's value"),
    ("DEFAULT", "API_PASSWORD", "changeme", "still the example's value"),
    ("DEFAULT", "API_PASSWORD", "", "is missing"),
    ("DEFAULT", "API_USERNAME", "", "is missing"),
    ("DEFAULT", "API_URL", "", "is missing"),
    ("DEFAULT", "API_URL", "iot.aretas.ca/rest/", "https://iot.aretas.ca/rest/"),
    ("DEFAULT", "API_URL", "ftp://iot.aretas.ca/", "must be an address"),
    ("DEFAULT", "API_URL", "https:///rest/", "must be an address"),
    ("DEFAULT", "API_URL", "https://[bad/", "must be an address"),
    ("DEFAULT", "API_URL", "https://host:99999/", "must be an address"),
    ("DEFAULT", "API_URL", "https://host:0/", "must be an address"),
    ("DEFAULT", "API_URL", "https://ho st/", "must be an address"),
    ("DEFAULT", "API_URL", "https://h/?x=1", "must be an address"),
    ("API", "report_interval", "999", "from 1000 to 86400000"),
    ("API", "report_interval", "5000 ; ms", "a comment needs a line of its own"),
    ("API", "report_interval", "20 s", "whole number"),
    ("API", "report_interval", "2e4", "whole number"),
    ("API", "report_interval", "", "is empty"),
    ("API", "report_interval", "4000", "shorter than sample_interval, 5000"),
    ("API", "voltage_type", "531", "must differ from current_type and power_type"),
    ("API", "voltage_type", "-1", "whole number from 0"),
    ("API", "energy_in_type", "532", "must differ from voltage_type: each sensor type stands for one quantity"),
    ("API", "energy_type", "533", "energy_type = '533': must differ from power_type"),
    ("API", "energy_in_type", "700\nenergy_out_type = 700", "energy_out_type = '700': must differ from energy_in_type"),
    ("API", "charge_in_type", "kWh", "whole number from 0"),
    ("API", "energy_type", "2147483648", "2147483647"),
    ("SERIAL", "sample_interval", "49", "from 50 to 3600000"),
    ("SERIAL", "sample_interval", "3600001", "from 50 to 3600000"),
    ("XDM", "xdm_voltage_range", "100V", "50mV, 500mV, 5V, 50V, 500V, 1000V"),
    ("XDM", "xdm_current_range", "10A", "50mV, 500mV, 5V, 50V, 500V, 1000V (as xdm_current_source is shunt)"),
    ("XDM", "xdm_current_source", "direct\nxdm_current_range = 5V", "500uA, 5mA, 50mA, 500mA, 5A, 10A"),
    ("XDM", "xdm_current_source", "hall", "shunt, direct"),
    ("XDM", "xdm_rate", "turbo", "slow, medium, fast"),
    ("XDM", "xdm_shunt_tolerance_percent", "-0.1", "a number from 0 to 10 (%)"),
    ("XDM", "xdm_shunt_tolerance_percent", "10.01", "such as 5.0, without the unit"),
    ("XDM", "xdm_shunt_tolerance_percent", "0.25%", "a number from 0 to 10 (%)"),
    ("XDM", "xdm_shunt_tolerance_percent", "nan", "a number from 0 to 10 (%)"),
    ("XDM", "xdm_current_enable", "maybe", "must be one of"),
    ("XDM", "xdm_current_port", "", "is missing: where the current meter is, such as /dev/serial/by-path/..."),
    ("XDM", "xdm_current_enable", "", "is empty"),
    ("XDM", "xdm_current_port", "ttyUSB1", "/dev/serial/by-path/..."),
    ("XDM", "xdm_current_port", '"/dev/ttyUSB1"', "without quotes"),
    ("XDM", "xdm_current_port", "/dev", "is a folder"),
    ("XDM", "xdm_current_port", "/dev/ttyUSB1 ; left", "a comment needs a line of its own"),
    ("XDM", "xdm_current_port", "loop://", "must be a path such as"),
    ("XDM", "xdm_current_port", "/dev//ttyUSB2", "the voltage meter already uses it"),
    ("XDM", "xdm_shunt_resistance", "0.6667", "if 0.6667 milliohm are meant, write 0.0006667"),
    ("XDM", "xdm_shunt_resistance", "666.7", "if 666.7 microohm are meant, write 0.0006667"),
    ("XDM", "xdm_shunt_resistance", "0.0000001", "no resistance of a shunt"),
    ("REDIS", "redis_host", "foo..bar", "name or the IP address"),
    ("REDIS", "redis_host", "a" * 64, "name or the IP address"),
    ("REDIS", "redis_host", "*.foo", "name or the IP address"),
    ("REDIS", "redis_host", "localhost:6380", "name or the IP address"),
    ("REDIS", "redis_host", "[::1", "name or the IP address"),
    ("DEFAULT", "API_URL", "https://foo..bar/", "must be an address"),
    ("XDM", "xdm_current_port", "xyz://host:1", "socket://host:port"),
    ("XDM", "xdm_current_port", "socket://host", "socket://host:port"),
    ("XDM", "xdm_current_port", "socket://:4001", "socket://host:port"),
    ("XDM", "xdm_current_port", "socket://foo..bar:4001", "socket://host:port"),
    ("XDM", "xdm_current_port", "/dev/ttyUSB2", "the voltage meter already uses it"),
    ("XDM", "xdm_current_serial", "OWON,XDM1041,24152470,V4.3.0,3", "serial number alone"),
    ("XDM", "xdm_current_serial", "1\nxdm_voltage_serial = 1", "must differ from xdm_voltage_serial"),
    ("XDM", "xdm_current_range", "75mV fixed", "50mV, 500mV, 5V, 50V, 500V, 1000V, 500uA"),
    ("XDM", "xdm_current_range", "fixed", "50mV, 500mV"),
    ("XDM", "xdm_current_range", "10A fixed", "(as xdm_current_source is shunt)"),
    ("XDM", "xdm_voltage_min", "60\nxdm_voltage_max = 40", "must be below xdm_voltage_max, 40"),
    ("XDM", "xdm_voltage_min", "40\nxdm_voltage_max = 40", "must be below xdm_voltage_max, 40"),
    ("XDM", "xdm_voltage_min", "48000", "below the end of the range, 550"),
    ("XDM", "xdm_voltage_max", "-550", "above the end of the range, -550"),
    ("XDM", "xdm_current_min", "825", "below the end of the range, 824.959"),
    ("XDM", "xdm_current_min", "82.5\nxdm_current_range = 50mV fixed", "below the end of the range, 82.4959"),
    ("XDM", "xdm_current_max", "-11\nxdm_current_source = direct", "above the end of the range, -11"),
    *(
        ("XDM", "xdm_voltage_max", bad, "(V) with a decimal point")
        for bad in ("58,5", "58.5V", "nan", "inf", "٥", "1e999")
    ),
    *(("XDM", "xdm_current_deadband", bad, "of at least 0 (A)") for bad in ("-0.1", "0,1", "-1e999", "a")),
    ("XDM", "xdm_current_zero_offset", "1e-5 V", "-12.3 2026-11-24 22511041"),
    ("XDM", "xdm_current_zero_offset", "-12.3 24.11.2026 22511041", "2026-11-24"),
    ("XDM", "xdm_current_zero_offset", "-12.3 2026-13-24 22511041", "as in 2026-11-24"),
    ("XDM", "xdm_current_zero_offset", "-12.3 2026-11-24 OWON,XDM1041", "as --zero writes them"),
    ("XDM", "xdm_current_zero_offset", "-12,3", "(microvolts)"),
    ("XDM", "xdm_current_zero_offset", "5000.1", "at most 5000 microvolts"),
    ("XDM", "xdm_current_zero_offset", "1\nxdm_current_source = direct", "is of a shunt"),
    ("XDM", "xdm_verify_interval", "99", "from 100 to 3600000"),
    ("XDM", "xdm_stale_after", "999", "must be 0 (never) or at least 1000"),
    ("XDM", "xdm_stale_after", "-1", "from 0 to 86400000"),
    ("XDM", "xdm_scan_ports", "/dev/ttyUSB0 /dev,,COM3", "one comma between two"),
    ("XDM", "xdm_scan_ports", "/dev/ttyUSB0, ttyUSB1", "must be a path such as"),
    ("XDM", "xdm_wire_log", "config.cfg", "ends in .jsonl"),
    ("XDM", "xdm_wire_log", '"wire.jsonl"', "without quotes"),
    ("XDM", "xdm_wire_log", "wire.jsonl # all bytes", "without quotes"),
    *(("XDM", "xdm_shunt_resistance", bad, "decimal point") for bad in ("0", "-1", "0,5", "nan", "inf", "1e999")),
    *(("XDM", "xdm_shunt_resistance", bad, "decimal point") for bad in ("1e-999", "1_0.0", "٠.٥", "0.5 ohm")),
    ("XDM", "xdm_shunt_resistance", "", "is missing"),
    ("XDM", "xdm_shunt_resistance", "0.001\n  xdm_rate = slow", "several lines"),
    ("REDIS", "redis_port", "0", "from 1 to 65535"),
    ("REDIS", "redis_port", "65536", "from 1 to 65535"),
    ("REDIS", "redis_db", "-1", "whole number from 0"),
    ("REDIS", "redis_ttl", "-1", "(seconds)"),
    ("REDIS", "redis_host", "redis://h", "name or the IP address"),
]


@pytest.mark.parametrize("rate", Rate)
def test_the_rate_is_that_of_both_meters(tmp_path: Path, rate: Rate) -> None:
    got = load(tmp_path, with_value("XDM", "xdm_rate", rate.value.upper()))
    assert got.voltage_meter is not None
    assert got.current_meter is not None
    assert (got.voltage_meter.rate, got.current_meter.rate) == (rate, rate)


@pytest.mark.parametrize(("section", "key", "value", "words"), REFUSED)
def test_refused(tmp_path: Path, section: str, key: str, value: str, words: str) -> None:
    text = report(tmp_path, with_value(section, key, value))
    assert words in text
    assert key in text
    assert f"[{section}]" in text
    assert str(tmp_path / "config.cfg") in text
    assert " has 1 problem:" in text


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("DEFAULT", "API_PASSWORD", "ab%%cd", "write one %"),
        ("DEFAULT", "API_PASSWORD", "cloud", "a short word: the log hides it only"),
        ("DEFAULT", "API_URL", "http://iot.aretas.ca/rest/", "unencrypted"),
        ("XDM", "xdm_rate", "Fast", "fast: the accuracy of the meters is published for slow only"),
        ("XDM", "xdm_rate", "medium", "assumes one digit less"),
    ],
)
def test_warned_of(tmp_path: Path, section: str, key: str, value: str, words: str) -> None:
    (warning,) = load(tmp_path, with_value(section, key, value)).warnings
    assert words in warning
    assert key in warning


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("[XDM2]\n", "[XDM2] is no known section: did you mean [XDM]?"),
        ("[REDSI]\nredis_enable = True\n", "[REDSI] is no known section: did you mean [REDIS]?"),
        ("[api]\n", "did you mean [API]?"),
        ("[weather]\n", "there are [DEFAULT], [XDM], [SERIAL], [API], [STORE], [REDIS], [WEB], [ARETAS]"),
        ("xdm_shunt_resistence = 3\n", "did you mean xdm_shunt_resistance in [XDM]?"),
        ("report_interval = 20000\n", "report_interval belongs in [API]"),
        ("enable_redis = True\n", "enable_redis belongs in [REDIS]"),
        ("unheard_of_thing = 1\n", "unheard_of_thing is no known key"),
        ("xdm_current_port = /dev/ttyUSB9\n", "xdm_current_port stands a second time on line 12"),
        ("[XDM]\n", "[XDM] stands a second time on line 12"),
        ("just words\n", "line 12 is neither"),
    ],
)
def test_unknown_misplaced_repeated(tmp_path: Path, extra: str, words: str) -> None:
    text = report(tmp_path, GOOD + extra)
    assert words in text
    assert " has 1 problem:" in text


def test_a_line_above_the_first_section(tmp_path: Path) -> None:
    text = report(tmp_path, GOOD.removeprefix("[DEFAULT]\n"))
    assert "line 1 stands before the first [section]: put [DEFAULT] above it" in text
    assert " has 1 problem:" in text


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    content = with_value("DEFAULT", "self_mac", "changeme").replace("API_URL", "API_ULR")
    content += "\n[SERIAL]\nsample_interval = x\n[XDM]\nxdm_rate = turbo\nnonsense\n[SERIAL]\nsample_interval = 7\n"
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, content)
    found = {(problem.section, problem.key) for problem in caught.value.problems}
    assert found >= {
        ("DEFAULT", "self_mac"),
        ("DEFAULT", "api_ulr"),
        ("SERIAL", "sample_interval"),
        ("XDM", "xdm_rate"),
    }
    text = str(caught.value)
    assert "[XDM] stands a second time" in text
    assert "[SERIAL] stands a second time" in text
    assert "is neither a [section]" in text
    assert f"{len(caught.value.problems)} problems" in text


def test_no_meter(tmp_path: Path) -> None:
    assert "at least one must be True" in report(tmp_path, ACCOUNT)
    assert "at least one must be True" in report(tmp_path, GOOD.replace("= True", "= False"))


def test_an_empty_file_names_all_that_is_needed(tmp_path: Path) -> None:
    text = report(tmp_path, "")
    for name in ("self_mac", "API_URL", "API_USERNAME", "API_PASSWORD", "xdm_voltage_enable"):
        assert name in text


def test_a_disabled_meter_needs_nothing_but_is_checked_for_form(tmp_path: Path) -> None:
    one = ACCOUNT + "[XDM]\nxdm_voltage_enable = True\nxdm_voltage_port = COM4\nxdm_current_port = {}\n"
    assert load(tmp_path, one.format("COM4")).current_meter is None
    assert load(tmp_path, one.format("")).current_meter is None
    assert "[XDM] xdm_current_port = 'nonsense'" in report(tmp_path, one.format("nonsense"))


@pytest.mark.parametrize(
    ("current", "voltage"),
    [
        ("./tty", "./tty"),
        ("./tty", "FOLDER/tty"),
        ("./link", "./tty"),
        ("com7", "COM7"),
        ("\\\\.\\COM7", "com7"),
        ("socket://host:4001/", "socket://HOST:4001"),
    ],
)
def test_two_meters_on_one_port(tmp_path: Path, current: str, voltage: str) -> None:
    (tmp_path / "tty").touch()
    (tmp_path / "link").symlink_to("tty")
    content = GOOD.replace("/dev/ttyUSB1", current).replace("/dev/ttyUSB2", voltage)
    assert "the voltage meter already uses it" in report(tmp_path, content.replace("FOLDER", str(tmp_path)))


def test_a_port_no_file_can_be_named_is_no_crash(tmp_path: Path) -> None:
    port = "/dev/" + "a" * 5000
    current = load(tmp_path, with_value("XDM", "xdm_current_port", port)).current_meter
    assert current is not None
    assert current.port == port


def test_a_missing_file_says_what_to_copy_where(tmp_path: Path) -> None:
    path = tmp_path / "config.cfg"
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path)
    assert f"copy config.cfg.example to {path}" in str(caught.value)
    assert len(caught.value.problems) == 1


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(write(tmp_path, GOOD) / "config.cfg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, mode=0o000)
    with pytest.raises(ConfigurationError, match="check the path and its permissions"):
        load_settings(path)


@pytest.mark.parametrize(
    "content", [GOOD.replace("jane", "jürgen").encode("latin-1"), GOOD.encode("utf-16"), GOOD.encode("utf-16-le")]
)
def test_what_is_no_utf_8(tmp_path: Path, content: bytes) -> None:
    assert "save the file again as UTF-8" in report(tmp_path, content)


def test_a_nul_byte_is_called_one(tmp_path: Path) -> None:
    assert "line 4 holds a NUL byte" in report(tmp_path, GOOD.replace("jane", "ja\0ne"))


@pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")
@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o604, True), (0o640, False), (0o600, False)])
def test_a_file_that_everybody_can_read(tmp_path: Path, mode: int, warned: bool) -> None:
    path = write(tmp_path, GOOD, mode)
    warnings = load_settings(path).warnings
    assert [f"chmod 600 {path}" in warning for warning in warnings] == [True] * warned


def test_a_relative_path_gives_an_absolute_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert load_settings(Path("config.cfg")).folder == tmp_path


SECRET = "geheim-7f3c"


@pytest.mark.parametrize(
    "content",
    [
        GOOD + f"[API]\nAPI_PASSWORD = {SECRET}\n",
        GOOD + f"[DEFALT]\nAPI_PASSWORD = {SECRET}\n",
        GOOD + f"[unheard of]\nAPI_PASSWORD = {SECRET}\n",
        GOOD + f"API_PASWORD = {SECRET}\n",
        GOOD + f"something_else = {SECRET}\n",
        GOOD + f"[REDIS]\nredis_authpw = a\nredis_authpw = {SECRET}\n",
        GOOD + f"[REDIS]\nredis_authpw = {SECRET}\n  redis_port = 3\n",
        GOOD + f"[REDIS]\nredis_port = 3\n  redis_authpw = {SECRET}\n",
        GOOD + f"API_PASSWORD {SECRET}\n",
        f"API_PASSWORD {SECRET}\n{GOOD}",
        with_value("DEFAULT", "API_URL", f"https://jane:{SECRET}@iot.aretas.ca/"),
        with_value("DEFAULT", "API_URL", f"https://iot.aretas.ca/?password={SECRET}"),
        with_value("DEFAULT", "API_URL", f"https://jane:{SECRET}\u2100@iot.aretas.ca/"),
        with_value("REDIS", "redis_host", f"redis://:{SECRET}@localhost"),
    ],
)
def test_no_secret_in_the_report(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, content)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.problems)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    assert report(tmp_path, GOOD + "\x1b[31m = 1\n[\x1b[2J]\n[API]\nreport_interval = \x1b[0m").count("\x1b") == 0


def test_every_spelling_is_its_own() -> None:
    names = [key.name.lower() for key in KEYS] + [name for _, name in ALIASES if name not in ALIASES.values()]
    assert len(names) == len(set(names))
    assert set(ALIASES.values()) <= {key.name for key in KEYS}
    assert all(key.default is None or key.parse(key.default) is not None for key in KEYS)


words = st.sampled_from(
    [key.name for key in KEYS]
    + [f"[{key.section}]" for key in KEYS]
    + [name for _, name in ALIASES]
    + [
        "[ARETAS]",
        "[XDN]",
        "[",
        "]",
        "=",
        ":",
        "\n",
        " ",
        "\t",
        "#",
        ";",
        "True",
        "5000",
        "\r",
        "\r\n",
        "://",
        "%",
        "\x1c",
    ]
)
any_text = st.one_of(
    st.text(max_size=200),
    st.lists(st.one_of(words, st.text(max_size=5)), max_size=40).map("".join),
    st.lists(st.tuples(st.sampled_from(KEYS), st.text(max_size=8)), max_size=10).map(
        lambda rows: GOOD + "".join(f"\n[{key.section}]\n{key.name} = {value}\n" for key, value in rows)
    ),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(any_text, st.binary(max_size=200)))
def test_any_file_gives_settings_or_a_configuration_error(tmp_path: Path, content: bytes) -> None:
    lines, problems = ["", ""], 0
    try:
        load(tmp_path, content)
    except ConfigurationError as error:
        lines, problems = str(error).splitlines(), len(error.problems)
    assert all(line.isprintable() for line in lines)
    assert len(lines) == problems + 2


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(words, max_size=6).map("".join), after=st.lists(words, max_size=6).map("".join))
def test_no_text_around_it_brings_the_password_into_a_report(tmp_path: Path, before: str, after: str) -> None:
    content = f"{ACCOUNT.replace('hunter2secret', SECRET)}{before}\nredis_authpw = {SECRET}{after}\n{XDM}"
    try:
        shown = load(tmp_path, content).warnings
    except ConfigurationError as error:
        shown = (str(error), repr(error.problems))
    assert not any(SECRET in text for text in shown)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(password=st.text(min_size=1, max_size=30).filter(lambda text: text == text.strip() and text.isprintable()))
def test_any_password_survives(tmp_path: Path, password: str) -> None:
    if password in ("username", "password", "changeme"):
        return
    expected = replace(load(tmp_path, GOOD).api, password=password)
    assert load(tmp_path, GOOD.replace("hunter2secret", password)).api == expected


def test_a_pipe_in_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "config.cfg"
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="no file but a pipe"):
        load_settings(path)
