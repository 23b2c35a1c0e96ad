"""What Prometheus gets: its own parser reads it, in base units, and nothing is there that is not known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from energy_book import EnergyTotals
from history import History
from measurements import CURRENT, Energy
from tests.rig import PROJECT
from tests.test_history import made, row
from tests.web.stand import Stand

BASE_UNITS = ("volts", "amperes", "watts", "joules", "coulombs", "seconds", "ratio")


def scrape(stand: Stand) -> dict[str, Metric]:
    answer = stand.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.body.decode()))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    family = families[name.removesuffix("_total")]
    found = [
        sample.value for sample in family.samples if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters as they stand after 100 s of which 10 are a gap."""
    energy = Energy(
        energy_in_kwh=2.0, energy_out_kwh=1.0, charge_in_ah=3.0, charge_out_ah=0.5, energy_s=90.0, charge_s=90.0
    )
    monkeypatch.setattr(History, "totals", lambda _self: EnergyTotals(energy=energy, elapsed_s=100.0))


@pytest.mark.usefixtures("counted")
def test_the_metrics_are_what_is_known_in_base_units(tmp_path: Path) -> None:
    made(tmp_path, [row(1_700_000_000_000)])
    with Stand(tmp_path) as stand:
        stand.take(52.0, -2.0)
        stand.meters[CURRENT] = {"works": False, "trouble": "gone"}
        families = scrape(stand)
        assert value(families, "power_monitor_battery_volts") == 52.0
        assert value(families, "power_monitor_battery_amperes") == -2.0
        assert value(families, "power_monitor_battery_watts") == pytest.approx(-104.0)
        assert value(families, "power_monitor_last_sample_timestamp_seconds") == pytest.approx(
            stand.clock.utc_s(), abs=15
        )
        assert value(families, "power_monitor_energy_in_joules_total") == pytest.approx(7.2e6)
        assert value(families, "power_monitor_energy_out_joules_total") == pytest.approx(3.6e6)
        assert value(families, "power_monitor_charge_in_coulombs_total") == pytest.approx(10_800)
        assert value(families, "power_monitor_charge_out_coulombs_total") == pytest.approx(1800)
        assert value(families, "power_monitor_gap_seconds_total") == pytest.approx(10)
        assert value(families, "power_monitor_coverage_ratio") == pytest.approx(0.9)
        assert value(families, "power_monitor_meter_up", meter="voltage") == 1
        assert value(families, "power_monitor_meter_up", meter="current") == 0
        assert value(families, "power_monitor_thread_beats_total", thread="web") > 0
        assert value(families, "power_monitor_thread_healthy", thread="web") == 1
        assert value(families, "power_monitor_ledger_closes") == 1
        for fate in ("made", "delivered", "rejected", "dropped"):
            assert value(families, "power_monitor_readings_total", fate=fate) == 0


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    with Stand(tmp_path) as stand:
        families = scrape(stand)
        missing = {
            "battery_volts",
            "battery_amperes",
            "battery_watts",
            "last_sample_timestamp_seconds",
            "coverage_ratio",
        }
        missing |= {"energy_in_joules", "charge_out_coulombs", "gap_seconds", "oldest_waiting_seconds"}
        assert not {f"power_monitor_{name}" for name in missing} & families.keys()
        stand.take(52.0, None, age_s=60.0)
        families = scrape(stand)
        assert "power_monitor_battery_volts" not in families  # it is not what is now
        assert "power_monitor_last_sample_timestamp_seconds" in families


@pytest.mark.usefixtures("counted")
def test_names_are_as_prometheus_asks_and_the_readme_has_them_all(tmp_path: Path) -> None:
    made(tmp_path, [row(1_700_000_000_000)])
    with Stand(tmp_path) as stand:
        stand.take(52.0, -2.0)
        stand.outbox._oldest_waiting_utc_ms = 1
        families = scrape(stand)
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families.values()}
    for name, family in families.items():
        assert re.fullmatch(r"power_monitor_[a-z_]+[a-z]", name)
        assert family.documentation.endswith(".")
        assert not re.search(r"kwh|kw$|_ah|_ms|milli", name)
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("### Metrics for Prometheus") :]
    table = table[: table.index("\n## ")]
    assert set(re.findall(r"`(power_monitor_\w+)", table)) == names
    assert any(name.endswith(f"_{unit}") for name in names for unit in BASE_UNITS)
