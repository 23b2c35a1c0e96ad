"""From when to when: what an operator types, as milliseconds since the epoch. Pure functions of text and time.

Local time is the computer's, summer time included. A date alone is the whole day, by local time: ``from`` is its begin,
``to`` its end. On the day that summer time begins a day has 23 hours, on the day that it ends 25.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from history import LAST_UTC_MS

NAMES = ("today", "yesterday", "month", "all")
_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A period (from, to], in milliseconds since the epoch."""

    from_utc_ms: int
    to_utc_ms: int


def named_period(name: str, now_utc_s: float) -> Period:
    """Return one of ``NAMES``, until now: the day, the day before, the month so far, everything."""
    now = datetime.fromtimestamp(now_utc_s)
    today = now.date()
    now_utc_ms = round(now_utc_s * 1000) + 1  # at midnight, too, there is a period
    if name == "today":
        return Period(from_utc_ms=_begin_utc_ms(today), to_utc_ms=now_utc_ms)
    if name == "yesterday":
        return Period(from_utc_ms=_begin_utc_ms(today - _ONE_DAY), to_utc_ms=_begin_utc_ms(today))
    if name == "month":
        return Period(from_utc_ms=_begin_utc_ms(today.replace(day=1)), to_utc_ms=now_utc_ms)
    return Period(from_utc_ms=0, to_utc_ms=LAST_UTC_MS)


def period_between(from_text: str | None, to_text: str | None, now_utc_s: float) -> Period:
    """Return the period between two times; without the first from the beginning, without the second until now.

    Raises ``ValueError`` with the reason.
    """
    return Period(
        from_utc_ms=0 if from_text is None else _moment_utc_ms(from_text, ends_day=False),
        to_utc_ms=round(now_utc_s * 1000) if to_text is None else _moment_utc_ms(to_text, ends_day=True),
    )


def local_text(utc_ms: int) -> str:
    """Return a time as local time, to the second unless it has more: ``2026-11-01 00:00:30``."""
    return _text(datetime.fromtimestamp(utc_ms // 1000), utc_ms)


def utc_text(utc_ms: int) -> str:
    """Return a time as UTC, likewise."""
    return _text(datetime(1970, 1, 1) + timedelta(seconds=utc_ms // 1000), utc_ms)


def utc_offset_text(utc_ms: int) -> str:
    """Return how local time differs from UTC at that time: ``+01:00``."""
    return datetime.fromtimestamp(utc_ms // 1000).astimezone().isoformat()[-6:]


def _text(moment: datetime, utc_ms: int) -> str:
    text = moment.isoformat(sep=" ", timespec="seconds")
    return f"{text}.{utc_ms % 1000:03d}" if utc_ms % 1000 else text


def _begin_utc_ms(day: date) -> int:
    return round(datetime.combine(day, time()).timestamp() * 1000)


def _moment_utc_ms(text: str, *, ends_day: bool) -> int:
    try:
        if len(text) <= len("2026-11-01"):  # 20261101 is a date, too
            day = date.fromisoformat(text)
            return _begin_utc_ms(day + _ONE_DAY if ends_day else day)
        return round(datetime.fromisoformat(text).timestamp() * 1000)  # without an offset it is local time
    except (ValueError, OverflowError, OSError) as exc:
        raise ValueError(
            f"{text!r} is no date and no time: write 2026-11-01, or 2026-11-01T14:30 for local time, "
            "or 2026-11-01T14:30Z for UTC"
        ) from exc
