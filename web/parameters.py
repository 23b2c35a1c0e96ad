"""What a request asks for: the text behind the ? of an address, taken apart and checked. Pure functions.

Guarantees: what is not exactly of the form that is promised is refused with the reason, and so is what is not known: a
word that was mistyped must not give another answer than the one that was meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

LAST_UTC_MS = 253_402_300_799_999  # the end of the year 9999
MOST_POINTS = 5000
_POINTS_BY_ITSELF = 1500
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SHORTEST_STEP_MS = 1000
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800)
_WHEN = re.compile(
    r"(?P<ms>[0-9]{1,15})|\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?(?P<zone>Z|[+-]\d{2}:\d{2})?",
    re.ASCII,
)
_STEP = re.compile(r"([1-9][0-9]{0,10})(ms|s|m|h|d)?", re.ASCII)


class BadRequest(Exception):
    """The request is not of the form that is promised. Its text tells whoever made it why."""


def parse(query: str, known: Collection[str]) -> dict[str, str]:
    """Return the parameters by name. Raises ``BadRequest`` at one that is not ``known``, empty, or given twice."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=20, errors="strict")
    except (ValueError, UnicodeDecodeError):
        raise BadRequest("what stands behind the ? is not of the form name=value&name=value, in UTF-8") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            expected = f"known are: {', '.join(known)}" if known else "there are none here"
            raise BadRequest(f"there is no parameter {_shown(name)}: {expected}")
        if name in values:
            raise BadRequest(f"{name} is given twice")
        values[name] = value
    return values


def when_utc_ms(values: Mapping[str, str], name: str, default_utc_ms: int) -> int:
    """Return a moment: milliseconds since the epoch, written so or as ISO 8601, which is UTC if it names no zone."""
    text = values.get(name)
    if text is None:
        return default_utc_ms
    # a + that was not written as %2B has become a blank
    match = _WHEN.fullmatch(re.sub(r"(?<=:\d\d) (?=\d\d:\d\d$)", "+", text))
    if match is None:
        example = "1795939200000 or 2026-11-29T08:00:00Z"
        raise BadRequest(f"{name}={_shown(text)}: must be milliseconds since 1970, or ISO 8601 in UTC: {example}")
    try:
        utc_ms = int(match["ms"]) if match["ms"] else _of_iso(match[0])
    except ValueError:
        raise BadRequest(f"{name}={_shown(text)}: there is no such day or time") from None
    if not 0 <= utc_ms <= LAST_UTC_MS:
        raise BadRequest(f"{name}={_shown(text)}: must be between the years 1970 and 9999")
    return utc_ms


def _of_iso(text: str) -> int:
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def check_period(from_utc_ms: int, to_utc_ms: int) -> None:
    """Raise ``BadRequest`` if a period does not begin before it ends."""
    if from_utc_ms >= to_utc_ms:
        raise BadRequest("from must be before to")


def step_ms(values: Mapping[str, str], span_ms: int, report_interval_ms: int) -> int:
    """Return the length of a point, in milliseconds: as asked, or such that there are no more than 1,500."""
    text = values.get("step")
    if text is None:
        wanted_ms = max(report_interval_ms, span_ms / _POINTS_BY_ITSELF)
        days = -(-span_ms // (_POINTS_BY_ITSELF * _UNITS_MS["d"]))
        return next((each * 1000 for each in _STEPS_S if each * 1000 >= wanted_ms), days * _UNITS_MS["d"])
    step = explicit_step_ms(text)
    points = -(-span_ms // step)
    if points > MOST_POINTS:
        raise BadRequest(
            f"step={text}: that would be {points} points, and {MOST_POINTS} are the most: "
            "ask for a longer step or a shorter time"
        )
    return step


def explicit_step_ms(text: str) -> int:
    """Return the length of a point as asked, in milliseconds."""
    match = _STEP.fullmatch(text)
    if match is None:
        raise BadRequest(f"step={_shown(text)}: must be a number of milliseconds, or such as 30s, 5m, 1h, 1d")
    step = int(match[1]) * _UNITS_MS[match[2] or "ms"]
    if not _SHORTEST_STEP_MS <= step <= LAST_UTC_MS:
        raise BadRequest(f"step={text}: must be at least one second, and less than 8,000 years")
    return step


def flag(values: Mapping[str, str], name: str) -> bool:
    """Return whether a switch is on: 1 or 0, off by default."""
    if values.get(name, "0") not in ("0", "1"):
        raise BadRequest(f"{name}={_shown(values[name])}: must be 0 or 1")
    return values.get(name) == "1"


def _shown(text: str, most: int = 40) -> str:
    """Return a text of the request as it may be said back: printable, and short."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:most])
    return shown + ("..." if len(text) > most else "")
