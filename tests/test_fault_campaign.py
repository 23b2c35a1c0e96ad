"""A short campaign: the whole daemon, two meters on ptys, some sixty faults, and not one wrong value.

The long one is ``benchmarks/meter_faults.py``; the strikes are the same for the same seed, and so is the judge.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.fast_bench import SHUNT_VOLTS, VOLTS, FastBench
from benchmarks.meter_faults import ONLY_BY_SERIAL, run_leg
from simulator.fault_schedule import random_episodes
from simulator.mishaps import MISHAPS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs ptys, and files that root may not write")

_LONGEST_S = 8.0
_SHORT = {
    name: replace(mishap, lasts_s=(mishap.lasts_s[0], min(mishap.lasts_s[1], _LONGEST_S)))
    for name, mishap in MISHAPS.items()
    if mishap.lasts_s[0] <= _LONGEST_S
}
_SEEDS = {(500, True): 454, (500, False): 29, (100, True): 553}  # between them they draw every kind
_SPEED = 8.0  # a stall of 20 ms of this computer is 0.16 s of the bench: half of what the judge allows


@pytest.fixture(autouse=True)
def _switch_sooner() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("sample_ms", "serials"), _SEEDS)
def test_no_fault_makes_a_wrong_value_and_every_meter_comes_back(sample_ms: int, serials: bool) -> None:
    mishaps = {name: mishap for name, mishap in _SHORT.items() if serials or name not in ONLY_BY_SERIAL}
    bench = FastBench(speed=_SPEED, sample_ms=sample_ms, serials=serials)
    result = run_leg(bench, faults=20, seed=_SEEDS[sample_ms, serials], mishaps=mishaps)
    assert result.faults.total() >= 20
    assert result.means > 20
    assert (result.wrong.total(), result.wrong_means, result.not_recovered) == (0, 0, 0), "\n".join(result.details)


def test_the_short_campaign_has_every_kind_of_fault_that_does_not_last_minutes() -> None:
    drawn: set[str] = set()
    for (_, serials), seed in _SEEDS.items():
        mishaps = {name: mishap for name, mishap in _SHORT.items() if serials or name not in ONLY_BY_SERIAL}
        faults = 0
        for episode in random_episodes(seed, mishaps):
            drawn.update(strike.kind for strike in episode)
            faults += len(episode)
            if faults >= 20:
                break
    assert set(MISHAPS) - drawn == {"unplugged for minutes"}


def test_the_judge_sees_half_an_interval_of_staleness_a_transient_and_another_range() -> None:
    for truth in (VOLTS, SHUNT_VOLTS):
        for asked_mono_s in (1234.5, 98765.4, 1_000_000.1):
            window = (asked_mono_s - 0.33346, asked_mono_s + 0.1)
            right = truth(asked_mono_s - 0.2)
            assert truth.had(right, *window)
            assert truth.had(right + 2.9 * truth.step, *window)
            assert not truth.had(truth(asked_mono_s - 0.51), *window)
            assert not truth.had(right + 20 * truth.step, *window)
            assert not truth.had(right * 1.02, *window)
            assert not truth.had(-right, *window)


def test_the_truth_is_continuous_and_turns_inside_its_window() -> None:
    half_s = (VOLTS.high - VOLTS.low) / VOLTS.slope_per_s
    assert VOLTS(0.0) == VOLTS.low
    assert VOLTS(half_s) == pytest.approx(VOLTS.high)
    assert VOLTS(half_s + 10) == pytest.approx(VOLTS(half_s - 10))
    assert VOLTS.had(VOLTS.high, half_s - 0.2, half_s + 0.2)
    assert not VOLTS.had(VOLTS.high - 0.2, half_s - 0.2, half_s + 0.2)
