"""What Prometheus is told: ``/metrics``, in base units (volts, joules, seconds), from a registry of its own.

Used by the threads of the web server. Guarantees: nothing is remembered between two scrapes; what is not known is left
out, never 0. The energy counters are those of the database: a restart does not set them back.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from command_line import VERSION
from history import HistoryError
from web.answers import history_of
from web.facts import Facts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_JOULES_PER_KWH, _COULOMBS_PER_AH = 3.6e6, 3600.0

_Family = CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily


def exposition(facts: Facts) -> bytes:
    """Return all metrics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Metrics(facts))
    return bytes(generate_latest(registry))


class _Metrics(Collector):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def describe(self) -> list[_Family]:
        return []  # else it would be asked for all of it once more

    def collect(self) -> Iterator[_Family]:
        yield InfoMetricFamily("power_monitor_build", "The version of the program.", {"version": VERSION})
        yield from self._samples()
        yield from self._energy()
        yield from self._queue()
        yield from self._health()

    def _samples(self) -> Iterator[_Family]:
        live = self._facts.live()
        if live is None:
            return
        sample, fresh = live.sample, live.age_s <= self._facts.stale_after_s
        power_w = None if sample.power_kw is None else sample.power_kw * 1000
        for name, what, value in (
            ("volts", "Voltage of the battery, the newest sample.", sample.voltage_v),
            ("amperes", "Current of the battery, charging positive, the newest sample.", sample.current_a),
            ("watts", "Power of the battery, charging positive, the newest sample.", power_w),
        ):
            if value is not None and fresh:
                yield GaugeMetricFamily(f"power_monitor_battery_{name}", what, value)
        yield GaugeMetricFamily(
            "power_monitor_last_sample_timestamp_seconds",
            "When the newest good sample was taken.",
            live.taken_utc_ms / 1000,
        )

    def _energy(self) -> Iterator[_Family]:
        try:
            with history_of(self._facts) as history:
                totals = history.totals()
        except HistoryError:
            return
        if totals is None:
            return
        energy = totals.energy
        for name, what, value in (
            ("energy_in_joules", "Energy that went into the battery.", energy.energy_in_kwh * _JOULES_PER_KWH),
            ("energy_out_joules", "Energy that came out of the battery.", energy.energy_out_kwh * _JOULES_PER_KWH),
            ("charge_in_coulombs", "Charge that went into the battery.", energy.charge_in_ah * _COULOMBS_PER_AH),
            ("charge_out_coulombs", "Charge that came out of the battery.", energy.charge_out_ah * _COULOMBS_PER_AH),
            ("gap_seconds", "Time since counting began for which the energy is not known.", totals.gap_s),
        ):
            yield CounterMetricFamily(f"power_monitor_{name}", what, value)
        if totals.coverage_percent is not None:
            what = "Share of the time since counting began for which the energy is known, 0 to 1."
            yield GaugeMetricFamily("power_monitor_coverage_ratio", what, totals.coverage_percent / 100)

    def _queue(self) -> Iterator[_Family]:
        facts, counts = self._facts, self._facts.counts
        yield GaugeMetricFamily(
            "power_monitor_readings_waiting", "Readings that wait for the cloud.", facts.readings_waiting
        )
        if (oldest_s := facts.oldest_waiting_s) is not None:
            what = "For how long the oldest reading has waited."
            yield GaugeMetricFamily("power_monitor_oldest_waiting_seconds", what, oldest_s)
        readings = CounterMetricFamily("power_monitor_readings", "Readings by what became of them.", labels=["fate"])
        for fate in ("made", "delivered", "rejected", "dropped"):
            readings.add_metric([fate], counts.get(f"readings_{fate}", 0))
        yield readings
        samples = CounterMetricFamily(
            "power_monitor_samples", "Readings of the meters by what became of them.", labels=["fate"]
        )
        samples.add_metric(["read"], counts.get("samples_read", 0))
        samples.add_metric(["averaged"], counts.get("samples_averaged", 0))
        refused = sum(count for name, count in counts.items() if name.startswith("refused "))
        samples.add_metric(["refused"], refused)
        yield samples
        closes = facts.ledger_trouble is None
        yield GaugeMetricFamily(
            "power_monitor_ledger_closes", "1 if the sums of the ledger agree, else 0.", float(closes)
        )

    def _health(self) -> Iterator[_Family]:
        facts = self._facts
        up = GaugeMetricFamily("power_monitor_meter_up", "1 if the meter works, else 0.", labels=["meter"])
        for name, meter in facts.meters().items():
            up.add_metric([name.removesuffix(" meter")], float(bool(meter["works"])))
        yield up
        beats = CounterMetricFamily("power_monitor_thread_beats", "Signs of life of each thread.", labels=["thread"])
        healthy = GaugeMetricFamily(
            "power_monitor_thread_healthy", "1 if a thread has no trouble, else 0.", labels=["thread"]
        )
        for part in facts.parts():
            beats.add_metric([part.name], part.beats)
            healthy.add_metric([part.name], float(part.trouble is None))
        yield beats
        yield healthy
        works = facts.database_trouble is None
        yield GaugeMetricFamily("power_monitor_database_up", "1 if the database can be used, else 0.", float(works))
