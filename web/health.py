"""Is everything all right? The parts of the daemon in an operator's words, each ok, warning, error or off.

Used by the threads of the web server. What a server said comes from outside: it is shown without secrets, as one line
of bounded length.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from command_line import VERSION
from database_reading import DatabaseUnreadable, read_database
from state_log import duration_text
from web.facts import Facts

_ANSWER_WITHIN_S = 1.0
_CLOUD_FAILS_AFTER_S = 3600.0
_LOSS_IS_NEWS_FOR_S = 7 * 86_400.0
_TEXT_LIMIT = 300
_ORDER = ("off", "ok", "warning", "error")

_Event = dict[str, Any]
"""When something happened: ``timestamp`` in milliseconds since the epoch, ``age_s`` in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One part of the daemon: its name, its state (a word of ``_ORDER``), and what there is to say of it."""

    name: str
    state: str
    text: str


def status(facts: Facts) -> dict[str, Any]:
    """Return how the daemon is doing, as ``/api/status`` says it. Blocks 1 s at most."""
    events, unreadable = _last_events(facts)
    delivery = events.get("last_delivery")
    parts = list(_findings(facts, events, unreadable))
    return {
        "overall": max((part.state for part in parts if part.state != "off"), key=_ORDER.index),
        "parts": [asdict(part) for part in parts],
        "last_delivery": delivery,
        "readings_waiting": facts.readings_waiting,
        "oldest_waiting_s": facts.oldest_waiting_s,
        "version": VERSION,
        "ledger": {"closes": facts.ledger_trouble is None, "counts": facts.counts},
    }


def unhealthy(facts: Facts) -> str | None:
    """Return why the daemon does not do its work, ``None`` if it does: as ``/healthz`` says it."""
    without_s = facts.without_sample_s
    if without_s <= facts.unhealthy_after_s:
        return None
    troubles = [_line(facts, f"{name}: {each['trouble']}") for name, each in facts.meters().items() if each["trouble"]]
    return f"no meter has given a good sample for {duration_text(without_s)}" + "".join(
        f"; {each}" for each in troubles
    )


def _findings(facts: Facts, events: Mapping[str, _Event], unreadable: str | None) -> Iterator[Finding]:
    yield _meters(facts)
    yield _cloud(facts, events.get("last_delivery"), is_known=unreadable is None)
    if facts.has_redis:
        yield _judged(facts, "Redis", facts.trouble_of("redis"), "takes the latest values")
    else:
        yield Finding(name="Redis", state="off", text="not used")
    is_judged = facts.last_closed() is not None
    well = "the time is known" if is_judged else "not looked at yet: that is done when the first interval ends"
    yield _judged(facts, "Clock", facts.trouble_of("reporter"), well)
    yield _ledger(facts, events.get("last_loss"))
    yield _judged(facts, "Database", facts.database_trouble or unreadable, "works", state="error")
    own = {"uploader", "redis", "reporter", "sampler", *facts.meters()}
    others = [trouble for part in facts.parts() if part.name not in own and (trouble := part.trouble) is not None]
    troubles = [trouble for trouble in others if trouble != facts.database_trouble]
    refused = facts.refused()
    text = "; ".join([*([refused] if refused is not None else []), *troubles])
    yield _judged(facts, "Program", text or None, f"version {VERSION} runs")


def _meters(facts: Facts) -> Finding:
    texts, works = [], True
    for name, meter in facts.meters().items():
        works = works and bool(meter["works"])
        words = "works" if meter["works"] else meter["trouble"] or "has not answered yet"
        texts.append(_line(facts, f"{name}: {words}"))
    return Finding(name="Meters", state="ok" if works else "error", text="; ".join(texts))


def _cloud(facts: Facts, delivery: _Event | None, *, is_known: bool) -> Finding:
    waiting, oldest_s, trouble = facts.readings_waiting, facts.oldest_waiting_s, facts.trouble_of("uploader")
    if delivery is None:
        text = "no delivery yet" if is_known else "last delivery: not known"
    else:
        text = f"last delivery {duration_text(max(0.0, delivery['age_s']))} ago"
    text += f"; {waiting} {'reading waits' if waiting == 1 else 'readings wait'}"
    if waiting and oldest_s is not None:
        text += f", the oldest for {duration_text(oldest_s)}"
    if trouble is None:
        return Finding(name="Cloud", state="ok", text=text)
    state = "error" if (oldest_s or 0.0) >= _CLOUD_FAILS_AFTER_S else "warning"
    return Finding(name="Cloud", state=state, text=_line(facts, f"{trouble}; {text}"))


def _ledger(facts: Facts, loss: _Event | None) -> Finding:
    """Say what became of the readings. A loss is a warning for a week, and told for ever."""
    counts, trouble = facts.counts, facts.ledger_trouble
    if trouble is not None:
        return Finding(name="Ledger", state="error", text=_line(facts, trouble))
    lost, refused = counts.get("readings_dropped", 0), counts.get("readings_rejected", 0)
    text = f"every one of {counts.get('readings_made', 0):,} readings is accounted for"
    if lost or refused:
        text += f": {lost:,} dropped, {refused:,} refused by the cloud"
        text += "" if loss is None else f", the last {duration_text(max(0.0, loss['age_s']))} ago"
    is_news = (lost or refused) and (loss is None or loss["age_s"] < _LOSS_IS_NEWS_FOR_S)
    return Finding(name="Ledger", state="warning" if is_news else "ok", text=text)


def _judged(facts: Facts, name: str, trouble: str | None, well: str, *, state: str = "warning") -> Finding:
    if trouble is None:
        return Finding(name=name, state="ok", text=well)
    return Finding(name=name, state=state, text=_line(facts, trouble))


def _last_events(facts: Facts) -> tuple[Mapping[str, _Event], str | None]:
    """Return when the cloud took something last, and when a reading was lost; and why that cannot be found out."""

    def query(cursor: sqlite3.Cursor) -> dict[str, str]:
        return dict(cursor.execute("SELECT name, value FROM state WHERE name IN ('last_delivery', 'last_loss')"))

    try:
        texts = read_database(facts.database, query, answer_within_s=_ANSWER_WITHIN_S, in_daemon=True)
    except DatabaseUnreadable as exc:
        return {}, str(exc) if facts.database.exists() else None
    ends_utc_ms = {name: int(json.loads(text)["utc_ms"]) for name, text in texts.items()}
    return {
        name: {"timestamp": utc_ms, "age_s": (facts.now_utc_ms - utc_ms) / 1000} for name, utc_ms in ends_utc_ms.items()
    }, None


def _line(facts: Facts, text: str) -> str:
    """Return a text that comes from outside as one line without secrets."""
    text = facts.hide(text)
    shown = text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + " ..."
    return "".join(char if char.isprintable() else " " for char in shown)
