"""What a value of config.cfg may be: each function takes its text and returns the value.

Pure functions. They raise ``ValueError`` with the words that follow ``key = value`` in the report, which never quote a
value that may hold a secret.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit


def whole(low: int, high: int = 2**31 - 1, unit: str = "") -> Callable[[str], int]:
    """Return a parser of plain decimal whole numbers from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,20}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}{unit}, written in digits only")
        return int(text)

    return parse


def choice(choices: Mapping[str, Any]) -> Callable[[str], Any]:
    """Return a parser of one of some words; case and blanks do not count."""
    by_word = {word.lower(): value for word, value in choices.items()}

    def parse(text: str) -> Any:
        lower = "".join(text.split()).lower()
        if lower not in by_word:
            raise ValueError(f"must be one of: {', '.join(choices)}")
        return by_word[lower]

    return parse


def word(allowed: str) -> Callable[[str], str]:
    """Return a parser of one word without punctuation; ``allowed`` says what it must be."""

    def parse(text: str) -> str:
        if not text.isprintable() or not re.fullmatch(r"[^\s,/@?#\"']+", text):
            raise ValueError(f"must be {allowed}")
        return text

    return parse


def mac(text: str) -> int:
    """Return the MAC of a device: a decimal whole number above 0."""
    where = "log in to your Aretas account, open the device of this battery and copy its MAC, such as 123456789"
    if text.lower() == "changeme":
        raise ValueError(f"is still the example's value: {where}")
    if re.fullmatch(r"[0-9]+", text) and int(text[:30]) >= 2**63:
        raise ValueError(f"is too large: {where}")
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) == 0:
        raise ValueError(f"must be a decimal number above 0, digits only, not the form AA:BB:CC:DD:EE:FF: {where}")
    return int(text)


def credential(text: str) -> str:
    """Return a user name or password as it stands."""
    if text in ("username", "password", "changeme"):
        raise ValueError("is still the example's value: put in what you log in to your Aretas account with")
    return text


def url(text: str) -> str:
    """Return an address of http or https, with nothing secret in it."""
    allowed = "must be an address such as https://iot.aretas.ca/rest/, without user name, password, ? or #"
    if not text.isprintable() or re.search(r"[\s@?#]", text) or not has_host(text, ("http", "https")):
        raise ValueError(allowed)
    return text


def has_host(url: str, schemes: Iterable[str], *, port_needed: bool = False) -> bool:
    """Return whether an address has one of these schemes, and a host that can be one."""
    try:
        parts = urlsplit(url)
        port_good = parts.port != 0 and (parts.port is not None or not port_needed)
        return parts.scheme in schemes and is_host(parts.hostname or "") and port_good
    except ValueError:  # its text may quote the address, so it is not passed on
        return False


def is_host(name: str) -> bool:
    """Return whether a name could be one of a computer, or an address: foo..bar, for one, could not."""
    try:
        return bool(ipaddress.ip_address(name) if ":" in name else re.fullmatch(rb"[\w.-]+", name.encode("idna")))
    except ValueError:  # UnicodeError is one
        return False


def host(text: str) -> str:
    """Return the name or the IP address of a computer."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not host.isprintable() or not is_host(host):
        raise ValueError("must be the name or the IP address of a computer, alone: the port is redis_port")
    return host


def port(text: str) -> str:
    """Return a serial port: a path, COM3 or a URL of pyserial."""
    if text[:1] in "\"'" or text[-1:] in "\"'":
        raise ValueError("must be written without quotes")
    scheme, is_url, _ = text.lower().partition("://")
    if is_url:
        network = scheme in ("socket", "rfc2217")
        valid = has_host(text, (scheme,), port_needed=True) if network else scheme in ("spy", "alt", "hwgrep")
    else:
        valid = "/" in text or text.startswith("\\\\.\\") or re.fullmatch(r"com[0-9]+", text.lower()) is not None
    if not (valid and text.isprintable()) or re.search(r"\s[#;]", text):
        raise ValueError(
            "must be a path such as /dev/serial/by-path/..., a name such as COM3, or socket://host:port "
            "or rfc2217://host:port"
        )
    return text


def ohm(text: str) -> float:
    """Return the resistance of a shunt in ohms."""
    number = float(text) if re.fullmatch(r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+\.", text) else 0.0
    if not 0 < number < math.inf:
        raise ValueError("must be a number of ohms above 0 with a decimal point, such as 0.0006667")
    if not 1e-6 <= number <= 0.1:
        meant = ((unit, number / parts) for unit, parts in (("milliohm", 1e3), ("microohm", 1e6)))
        hints = [f": if {text} {unit} are meant, write {ohm:.10g}" for unit, ohm in meant if 1e-6 <= ohm <= 0.1]
        raise ValueError(f"is no resistance of a shunt, which lies between 0.000001 and 0.1 ohm{''.join(hints[:1])}")
    return number
