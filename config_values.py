"""What a value of config.cfg may be: each function takes its text and returns the value.

Pure functions. They raise ``ValueError`` with the words that follow ``key = value`` in the report, which never quote a
value that may hold a secret.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlsplit

EXAMPLES = ("username", "password", "changeme")  # of an account, as config.cfg.example has them

_LARGEST_ZERO_UV = 5_000.0  # a tenth of the 50 mV range; what is more is a current, not a zero


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeChoice:
    """A measuring range by name; ``fixed``: never to be left for a larger one."""

    name: str
    fixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroOffset:
    """What the current meter shows without a current, in microvolts at the shunt.

    When it was measured, and the serial number of the meter, are ``None`` where the file does not tell.
    """

    offset_uv: float
    measured_on: date | None = None
    serial_number: str | None = None


NO_OFFSET = ZeroOffset(offset_uv=0.0)


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


def fixable(names: Iterable[str]) -> Callable[[str], RangeChoice]:
    """Return a parser of one of some ranges, with or without ``fixed`` behind it."""
    name_of = choice({name: name for name in names})

    def parse(text: str) -> RangeChoice:
        name = re.sub(r"\s+fixed$", "", text, flags=re.IGNORECASE)
        return RangeChoice(name=name_of(name), fixed=name != text)

    return parse


def number(unit: str, *, low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """Return a parser of decimal numbers of a unit, from ``low`` to ``high``."""

    def parse(text: str) -> float:
        value = (
            float(text) if re.fullmatch(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", text) else math.nan
        )
        if not low <= value <= high or math.isinf(value):
            least = "" if low == -math.inf else f" of at least {low:g}"
            bounds, example = (least, 58.5) if high == math.inf else (f" from {low:g} to {high:g}", high / 2)
            form = f"with a decimal point, such as {example}, without the unit"
            raise ValueError(f"must be a number{bounds} ({unit}) {form}")
        return value

    return parse


def zero_offset(text: str) -> ZeroOffset:
    """Return a zero offset as ``--zero`` writes it: microvolts, or microvolts, date and serial number of the meter."""
    allowed = "must be microvolts such as -12.3, or those with date and serial number as --zero writes them"
    fields = text.split()
    if len(fields) not in (1, 3):
        raise ValueError(f"{allowed}: -12.3 2026-11-24 22511041")
    offset_uv = number("microvolts")(fields[0])
    if abs(offset_uv) > _LARGEST_ZERO_UV:
        raise ValueError(f"is too large for a zero: at most {_LARGEST_ZERO_UV:g} microvolts. Measure it with --zero")
    if len(fields) == 1:
        return ZeroOffset(offset_uv=offset_uv)
    try:
        measured_on = date.fromisoformat(fields[1])
    except ValueError:
        raise ValueError(f"{allowed}: the date is written as in 2026-11-24") from None
    return ZeroOffset(offset_uv=offset_uv, measured_on=measured_on, serial_number=word(allowed)(fields[2]))


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
    """Return a user name as it stands."""
    if text in EXAMPLES:
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


def address(text: str) -> str:
    """Return the IP address to listen at; ``localhost`` is 127.0.0.1."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError("must be an IP address of this computer, such as 192.168.1.20, or localhost") from None


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


def ports(text: str) -> tuple[str, ...]:
    """Return several serial ports with commas between them; a path may be a pattern such as /dev/ttyUSB*."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError("must be ports with one comma between two of them")
    return tuple(port(name) for name in names)


def log_path(text: str) -> str:
    """Return the path of a log of the bytes of the meters. Its ending keeps it from being any other file's."""
    if not text.isprintable() or not re.fullmatch(r"[^\"'].*\.jsonl", text) or re.search(r"\s[#;]", text):
        raise ValueError("must be the path of a file that ends in .jsonl, such as wire.jsonl, without quotes")
    return text


def secret_path(text: str) -> str:
    """Return the path of a file with a password, or ``credential``: the service manager passes it."""
    if not text.isprintable() or text[:1] in "\"'" or re.search(r"\s[#;]", text):
        raise ValueError("must be the path of a file that holds the password alone, without quotes, or: credential")
    return text.lower() if text.lower() == "credential" else text


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
