"""Is everything all right? The parts of the daemon in an operator's words, each ok, warning, error or off.

Used by the threads of the web server. What a server said comes from outside: it is shown without secrets, as one line
of bounded length.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from command_line import VERSION
from database_reading import DatabaseUnreadable, read_database
from state_log import duration_text
from web.facts import Facts

_ANSWER_WITHIN_S = 1.0
_CLOUD_FAILS_AFTER_S = 3600.0
_TEXT_LIMIT = 300
_ORDER = ("off", "ok", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One part of the daemon: its name, its state (a word of ``_ORDER``), and what there is to say of it."""

    name: str
    state: str
    text: str


def status(facts: Facts) -> dict[str, Any]:
    """Return how the daemon is doing, as ``/api/status`` says it. Blocks 1 s at most."""
    delivery = _last_delivery(facts)
    parts = list(_findings(facts, delivery))
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
    troubles = [str(each["trouble"]) for each in facts.meters().values() if each["trouble"]]
    reason = f": {'; '.join(troubles)}" if troubles else ""
    return _line(facts, f"no meter has given a good sample for {duration_text(without_s)}{reason}")


def _findings(facts: Facts, delivery: dict[str, Any] | None) -> Iterator[Finding]:
    yield _meters(facts)
    yield _cloud(facts, delivery)
    if facts.has_redis:
        yield _judged(facts, "Redis", facts.trouble_of("redis"), "takes the latest values")
    else:
        yield Finding(name="Redis", state="off", text="not used")
    yield _judged(facts, "Clock", facts.trouble_of("reporter"), "the time is known")
    yield _ledger(facts)
    yield _judged(facts, "Database", facts.database_trouble, "works", state="error")
    own = {"uploader", "redis", "reporter", *facts.meters()}
    troubles = [part.trouble for part in facts.parts() if part.trouble is not None and part.name not in own]
    refused = facts.refused()
    text = "; ".join([*([refused] if refused is not None else []), *troubles])
    yield _judged(facts, "Program", text or None, f"version {VERSION} runs")


def _meters(facts: Facts) -> Finding:
    texts, works = [], True
    for name, meter in facts.meters().items():
        works = works and bool(meter["works"])
        words = "works" if meter["works"] else meter["trouble"] or "has not answered yet"
        texts.append(f"{name}: {words}")
    return Finding(name="Meters", state="ok" if works else "error", text=_line(facts, "; ".join(texts)))


def _cloud(facts: Facts, delivery: dict[str, Any] | None) -> Finding:
    waiting, oldest_s, trouble = facts.readings_waiting, facts.oldest_waiting_s, facts.trouble_of("uploader")
    text = "no delivery yet" if delivery is None else f"last delivery {duration_text(max(0.0, delivery['age_s']))} ago"
    text += f"; {waiting} {'reading waits' if waiting == 1 else 'readings wait'}"
    if waiting and oldest_s is not None:
        text += f", the oldest for {duration_text(oldest_s)}"
    if trouble is None:
        return Finding(name="Cloud", state="ok", text=text)
    state = "error" if (oldest_s or 0.0) >= _CLOUD_FAILS_AFTER_S else "warning"
    return Finding(name="Cloud", state=state, text=_line(facts, f"{trouble}; {text}"))


def _ledger(facts: Facts) -> Finding:
    counts, trouble = facts.counts, facts.ledger_trouble
    if trouble is not None:
        return Finding(name="Ledger", state="error", text=_line(facts, trouble))
    lost, refused = counts.get("readings_dropped", 0), counts.get("readings_rejected", 0)
    text = f"every one of {counts.get('readings_made', 0):,} readings is accounted for"
    if not lost and not refused:
        return Finding(name="Ledger", state="ok", text=text)
    return Finding(name="Ledger", state="warning", text=f"{text}: {lost:,} dropped, {refused:,} refused by the cloud")


def _judged(facts: Facts, name: str, trouble: str | None, well: str, *, state: str = "warning") -> Finding:
    if trouble is None:
        return Finding(name=name, state="ok", text=well)
    return Finding(name=name, state=state, text=_line(facts, trouble))


def _last_delivery(facts: Facts) -> dict[str, Any] | None:
    def query(cursor: sqlite3.Cursor) -> str | None:
        row = cursor.execute("SELECT value FROM state WHERE name = 'last_delivery'").fetchone()
        return None if row is None else str(row[0])

    try:
        text = read_database(facts.database, query, answer_within_s=_ANSWER_WITHIN_S, in_daemon=True)
    except DatabaseUnreadable:
        return None
    if text is None:
        return None
    utc_ms = int(json.loads(text)["utc_ms"])
    return {"timestamp": utc_ms, "age_s": (facts.now_utc_ms - utc_ms) / 1000}


def _line(facts: Facts, text: str) -> str:
    """Return a text that comes from outside as one line without secrets."""
    text = facts.hide(text)
    shown = text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + " ..."
    return "".join(char if char.isprintable() else " " for char in shown)
