"""What the API answers, as values that JSON can say: the newest values, history, energy.

Used by the threads of the web server. What is asked of the database may take as long as ``history.py`` says; nothing
here holds what sampling or reporting waits for. ``None`` is no value, never 0.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from history import Aggregate, History, HistoryError, PeriodEnergy, Point, open_history
from measurements import Energy, IntervalSummary, PowerSample, Statistic, Uncertainty
from web.facts import Facts, Live

if TYPE_CHECKING:
    from energy_book import EnergyTotals

QUANTITIES = ("voltage_v", "current_a", "power_kw")
_FLOWS = ("energy_in_kwh", "energy_out_kwh", "charge_in_ah", "charge_out_ah")
_ANSWER_WITHIN_S = 5.0

Answer = dict[str, Any]


def history_of(facts: Facts) -> AbstractContextManager[History]:
    """Open the history; each question is given up after 5 s. Raises ``HistoryError``."""
    return open_history(facts.database, answer_within_s=_ANSWER_WITHIN_S, in_daemon=True)


class Answers:
    """Puts the answers together. The usual periods' energy is asked of the database once an interval and remembered."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._lock = threading.Lock()
        self._today: tuple[object, Answer | None] | None = None
        self._periods: tuple[object, Answer] | None = None

    def latest(self) -> Answer:
        """Return the newest values, live and of the last interval, and the energy of today: ``None`` if not known."""
        facts, live, closed = self._facts, self._facts.live(), self._facts.last_closed()
        uncertainty = Uncertainty() if live is None else facts.uncertainty_of(live.sample)
        return {
            "time": facts.now_utc_ms,
            "sample": None if live is None else _sample(live),
            "interval": None if closed is None else _interval(*closed, now_utc_ms=facts.now_utc_ms),
            "uncertainty": {name: getattr(uncertainty, name) for name in QUANTITIES},
            "direction": self._direction(live, uncertainty),
            "stale": live is None or live.age_s > facts.stale_after_s,
            "stale_after_s": facts.stale_after_s,
            "today": self._energy_today(closed),
            "sample_interval_ms": facts.sample_interval_ms,
            "report_interval_ms": facts.report_interval_ms,
        }

    def _direction(self, live: Live | None, uncertainty: Uncertainty) -> str:
        """Say which way the current flows; a current that may as well be none is none."""
        if live is None or live.sample.current_a is None or live.age_s > self._facts.stale_after_s:
            return "unknown"
        current_a = live.sample.current_a
        if abs(current_a) <= max(self._facts.deadband_a, uncertainty.current_a or 0.0):
            return "idle"
        return "charging" if current_a > 0 else "discharging"

    def _energy_today(self, closed: tuple[int, IntervalSummary] | None) -> Answer | None:
        begin_utc_ms = local_day_utc_ms(self._facts.now_utc_ms)
        asked = (begin_utc_ms, None if closed is None else closed[0])
        with self._lock:
            if self._today is None or self._today[0] != asked:
                self._today = (asked, self._energy_since(begin_utc_ms))
            return self._today[1]

    def _energy_since(self, begin_utc_ms: int) -> Answer | None:
        try:
            with history_of(self._facts) as history:
                return period_energy(history.energy(begin_utc_ms, self._facts.now_utc_ms + 1))
        except HistoryError:  # the live values do not come from there
            return None

    def periods(self) -> Answer:
        """Return the energy of today, yesterday, this month, and since counting began. Raises ``HistoryError``."""
        now_utc_ms = self._facts.now_utc_ms
        today, yesterday = local_day_utc_ms(now_utc_ms), local_day_utc_ms(now_utc_ms, days_back=1)
        month = local_day_utc_ms(now_utc_ms, of_month=True)
        closed = self._facts.last_closed()
        asked = (today, None if closed is None else closed[0])
        with self._lock:
            if self._periods is None or self._periods[0] != asked or closed is None:
                with history_of(self._facts) as history:
                    totals = history.totals()
                    answer = {
                        "today": period_energy(history.energy(today, now_utc_ms + 1)),
                        "yesterday": period_energy(history.energy(yesterday, today)),
                        "month": period_energy(history.energy(month, now_utc_ms + 1)),
                        "total": None if totals is None else total_energy(totals, now_utc_ms),
                    }
                self._periods = (asked, answer)
            return self._periods[1]


def _sample(live: Live) -> Answer:
    sample: PowerSample = live.sample
    return {
        "timestamp": live.taken_utc_ms,
        "age_s": round(live.age_s, 3),
        **{name: getattr(sample, name) for name in QUANTITIES},
    }


def _interval(end_utc_ms: int, summary: IntervalSummary, now_utc_ms: int) -> Answer:
    def shown(statistic: Statistic | None, uncertainty: float | None) -> Answer | None:
        if statistic is None:
            return None
        return {
            "mean": statistic.mean,
            "minimum": statistic.minimum,
            "maximum": statistic.maximum,
            "count": statistic.count,
            "uncertainty": uncertainty,
        }

    values = {name: shown(getattr(summary, name), getattr(summary.uncertainty, name)) for name in QUANTITIES}
    return {"timestamp": end_utc_ms, "age_s": (now_utc_ms - end_utc_ms) / 1000, **values}


# -- energy ------------------------------------------------------------------------------------------------------------


def local_day_utc_ms(now_utc_ms: int, *, days_back: int = 0, of_month: bool = False) -> int:
    """Return when a day began by the local time of this computer, or the month: milliseconds since the epoch."""
    today = datetime.fromtimestamp(now_utc_ms / 1000).date() - timedelta(days=days_back)
    day = today.replace(day=1) if of_month else today
    return int(datetime(day.year, day.month, day.day).astimezone().timestamp() * 1000)


def period_energy(energy: PeriodEnergy) -> Answer:
    """Return what went in and out in a period, with +/-."""
    return {
        **_flows(energy.energy),
        "energy_in_uncertainty_kwh": energy.energy_in_uncertainty_kwh,
        "energy_out_uncertainty_kwh": energy.energy_out_uncertainty_kwh,
        "charge_in_uncertainty_ah": energy.charge_in_uncertainty_ah,
        "charge_out_uncertainty_ah": energy.charge_out_uncertainty_ah,
        "coverage_percent": energy.coverage_percent,
        "gap_seconds": energy.gap_s,
        "from": energy.from_utc_ms,
        "to": energy.to_utc_ms,
    }


def _flows(energy: Energy) -> Answer:
    """Return the four counters; what is known for no second is no value."""
    known = {"energy": energy.energy_s > 0, "charge": energy.charge_s > 0}
    return {name: getattr(energy, name) if known[name.partition("_")[0]] else None for name in _FLOWS}


def total_energy(totals: EnergyTotals, now_utc_ms: int) -> Answer:
    """Return the counters, with +/-."""
    return {
        **_flows(totals.energy),
        "energy_in_uncertainty_kwh": totals.energy_in_uncertainty_kwh,
        "energy_out_uncertainty_kwh": totals.energy_out_uncertainty_kwh,
        "charge_in_uncertainty_ah": totals.charge_in_uncertainty_ah,
        "charge_out_uncertainty_ah": totals.charge_out_uncertainty_ah,
        "coverage_percent": totals.coverage_percent,
        "gap_seconds": totals.gap_s,
        "from": totals.since_utc_ms,
        "to": now_utc_ms,
    }


# -- history -----------------------------------------------------------------------------------------------------------


def point(each: Point) -> Answer:
    """Return one point of the history."""
    return {
        "timestamp": each.end_utc_ms,
        **{name: _aggregate(getattr(each, name)) for name in QUANTITIES},
        **{name: getattr(each, name) for name in _FLOWS},
        "coverage_s": each.energy_s,
        "intervals": each.intervals,
    }


def _aggregate(aggregate: Aggregate | None) -> Answer | None:
    return None if aggregate is None else asdict(aggregate)


def columns(points: Iterable[Point]) -> Iterator[tuple[str, list[Any] | Mapping[str, list[Any]]]]:
    """Yield the same by column, as a chart wants it: each name, and what all the points have for it."""
    points = list(points)
    yield "timestamp", [each.end_utc_ms for each in points]
    for name in QUANTITIES:
        aggregates: list[Aggregate | None] = [getattr(each, name) for each in points]
        yield (
            name,
            {
                field: [None if each is None else getattr(each, field) for each in aggregates]
                for field in ("mean", "minimum", "maximum", "count", "uncertainty")
            },
        )
    for name in _FLOWS:
        yield name, [getattr(each, name) for each in points]
    yield "coverage_s", [each.energy_s for each in points]
    yield "intervals", [each.intervals for each in points]


# -- the table for a spreadsheet ---------------------------------------------------------------------------------------

CSV_HEADING = ",".join(
    (
        "time_utc",
        "time_local",
        *(f"{name}_{part}" for name in QUANTITIES for part in ("mean", "min", "max", "samples", "uncertainty")),
        *_FLOWS,
        "coverage_s",
        "intervals",
    )
)


def csv_line(each: Point) -> str:
    """Return one point as a line: times to the second without a zone, as spreadsheets read them; nothing for none."""
    seconds = each.end_utc_ms / 1000
    fields: list[object] = [_time(datetime.fromtimestamp(seconds, UTC)), _time(datetime.fromtimestamp(seconds))]
    for name in QUANTITIES:
        aggregate: Aggregate | None = getattr(each, name)
        if aggregate is None:
            fields += [None] * 5
        else:
            extremes = (aggregate.minimum, aggregate.maximum)
            fields += [aggregate.mean, *extremes, aggregate.count, aggregate.uncertainty]
    fields += [*(getattr(each, name) for name in _FLOWS), each.energy_s, each.intervals]
    return ",".join(
        "" if field is None else f"{field:.9g}" if isinstance(field, float) else str(field) for field in fields
    )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")
