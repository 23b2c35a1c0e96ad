"""The judge of ``meter_faults.py``: what was wrong with what the daemon counted and reported, and what faults cost.

It is handed the whole record of a run, afterwards. How a single value is judged stands in ``fast_bench.py``.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.fast_bench import (
    CURRENT_TYPE,
    HOLD_S,
    POWER_TYPE,
    REPLY_WITHIN_S,
    SHUNT_VOLTS,
    VOLTAGE_TYPE,
    VOLTS,
    FastBench,
    Ramp,
    Taken,
)
from measurements import PowerSample
from simulator.battery import SHUNT_OHM
from simulator.fault_schedule import Strike
from simulator.mishaps import MISHAPS

METERS = ("voltage", "current")
TWO = "two at one meter"
STALE_AFTER_S = 30.0
GIVEN_UP_S = 120.0
GOOD_IN_A_ROW = 3
_MOST_DETAILS = 50
_SLOW_S = 10.0
_PRESSED_WITHIN_S = 0.5  # a strike comes a little after its time


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """What struck, when it began, and when it was all over and both meters worked again (monotonic, fast clock)."""

    strikes: tuple[Strike, ...]
    began_mono_s: float
    well_mono_s: float
    seed: int

    def of(self, meter: str) -> list[Strike]:
        """Return the strikes that concern a meter."""
        return [strike for strike in self.strikes if strike.meter == meter or MISHAPS[strike.kind].both]

    def over_mono_s(self, meter: str) -> float:
        """Return when the last strike at a meter was over; the beginning if none was."""
        return self.began_mono_s + max((strike.over_s for strike in self.of(meter)), default=0.0)


@dataclass(slots=True, kw_only=True)
class Result:
    """What a leg showed. Times in seconds of the fast clock; ``lost_s`` is samples times the sample interval."""

    faults: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    wrong_means: int = 0
    means: int = 0
    samples: int = 0
    recoveries_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    not_recovered: int = 0
    healthy_lost: int = 0
    healthy_due: int = 0
    quiet_s: float = 0.0
    quiet_lost: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    alarms: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def note_missing(self, samples: Sequence[PowerSample], meter: str) -> int:
        """Return how many samples lack a meter's value, and note why."""
        missing = [sample for sample in samples if value_of(sample, meter) is None]
        self.reasons.update(reason for sample in missing for reason in sample.refused or ("not asked",))
        return len(missing)

    def add(self, other: Result) -> None:
        """Take in what another leg showed."""
        self.faults += other.faults
        self.wrong += other.wrong
        self.reasons += other.reasons
        for name in ("stale", "wrong_means", "means", "samples", "not_recovered", "quiet_lost", "quiet_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.healthy_lost += other.healthy_lost
        self.healthy_due += other.healthy_due
        self.alarms += other.alarms
        self.details += other.details
        for kind, values in other.recoveries_s.items():
            self.recoveries_s[kind] += values
        for kind, values in other.lost_s.items():
            self.lost_s[kind] += values


def in_volts(sample: PowerSample, meter: str) -> float | None:
    """Return what one meter read for a sample, in the volts at its leads."""
    value = value_of(sample, meter)
    return value * SHUNT_OHM if value is not None and meter == "current" else value


def value_of(sample: PowerSample, meter: str) -> float | None:
    """Return what one meter contributed to a sample."""
    return sample.voltage_v if meter == "voltage" else sample.current_a


def wrong_values(taken: Taken, truths: Mapping[str, Ramp]) -> list[str]:
    """Return what is wrong with a sample: nothing, if each of its values is what was true when it was asked for."""
    sample = taken.sample
    from_mono_s = sample.start_mono_s - HOLD_S
    to_mono_s = min(taken.counted_mono_s, sample.start_mono_s + REPLY_WITHIN_S)
    values = {meter: value for meter in METERS if (value := in_volts(sample, meter)) is not None}
    wrong = [meter for meter, value in values.items() if not truths[meter].had(value, from_mono_s, to_mono_s)]
    if sample.power_kw is not None:
        product_kw = (sample.voltage_v or math.nan) * (sample.current_a or math.nan) / 1000
        if not math.isclose(sample.power_kw, product_kw, rel_tol=1e-9):
            wrong.append("power")
    return wrong


def judge(bench: FastBench, episodes: Sequence[Episode], ended_mono_s: float, seed: int) -> Result:
    """Return what a leg showed."""
    result = Result()
    taken = sorted(bench.taken, key=lambda each: each.sample.start_mono_s)
    result.samples = len(taken)
    for each in taken:
        judge_sample(each, episodes, bench.truths, result, seed)
    for episode, following in itertools.pairwise([*episodes, None]):
        assert episode is not None
        until_mono_s = following.began_mono_s if following else ended_mono_s
        judge_episode(episode, [each.sample for each in taken], bench, until_mono_s, result)
    judge_means(bench, taken, result)
    return result


def judge_sample(
    taken: Taken, episodes: Sequence[Episode], truths: Mapping[str, Ramp], result: Result, seed: int
) -> None:
    """Note what is wrong with a sample, and in which episode."""
    for meter in wrong_values(taken, truths):
        start_mono_s = taken.sample.start_mono_s
        episode = next((e for e in reversed(episodes) if e.began_mono_s <= start_mono_s), None)
        strikes = episode.strikes if episode else ()
        if episode is not None and meter != "power" and _held_and_unknowable(taken, meter, truths[meter], episode):
            result.stale += 1
            continue
        result.wrong["+".join(sorted({strike.kind for strike in strikes})) or "no fault"] += 1
        if result.wrong.total() > _MOST_DETAILS:
            continue
        after_s = start_mono_s - episode.began_mono_s if episode else math.nan
        result.details.append(
            f"seed {seed}, episode {episode.seed if episode else '-'}: wrong {meter} {after_s:.2f} s after its begin: "
            f"{taken.sample}; truth {VOLTS(start_mono_s):.3f} V, {SHUNT_VOLTS(start_mono_s) / SHUNT_OHM:.4f} A; "
            f"{[(s.kind, s.meter, round(s.at_s, 2), round(s.duration_s, 2), s.once) for s in strikes]}"
        )


def _held_and_unknowable(taken: Taken, meter: str, truth: Ramp, episode: Episode) -> bool:
    """Return whether a wrong value is what the meter showed when it was put in hold, not longer ago than it may be."""
    start_mono_s = taken.sample.start_mono_s
    for strike in episode.strikes:
        held_mono_s = episode.began_mono_s + strike.at_s
        since_s = start_mono_s - held_mono_s
        if strike.kind == "hold" and strike.meter == meter and 0 <= since_s <= STALE_AFTER_S + 1.0:
            value = in_volts(taken.sample, meter)
            return value is not None and truth.had(value, held_mono_s - HOLD_S, held_mono_s + _PRESSED_WITHIN_S)
    return False


def judge_episode(
    episode: Episode, samples: Sequence[PowerSample], bench: FastBench, until_mono_s: float, result: Result
) -> None:
    """Note how many samples an episode cost each meter after it was over, how long it took to recover, and the rest."""
    result.faults.update(strike.kind for strike in episode.strikes)
    if math.isinf(episode.well_mono_s):
        result.not_recovered += 1
        result.details.append(f"episode {episode.seed}: not well {GIVEN_UP_S:g} s after {episode.strikes}")
        return
    during = [s for s in samples if episode.began_mono_s <= s.start_mono_s <= episode.well_mono_s]
    for meter in METERS:
        strikes, over_mono_s = episode.of(meter), episode.over_mono_s(meter)
        healthy = during
        if strikes:
            after = [sample for sample in during if sample.start_mono_s > over_mono_s]
            back = _back_from(after, meter)
            recovery_s = after[back].start_mono_s - over_mono_s if back else 0.0
            lost = sum(value_of(sample, meter) is None for sample in after[:back])
            kind = strikes[0].kind if len(strikes) == 1 else TWO
            result.lost_s[kind].append(lost * bench.sample_interval_s)
            result.recoveries_s[kind].append(recovery_s)
            if recovery_s > _SLOW_S:
                result.details.append(f"episode {episode.seed}: {meter} well {recovery_s:.1f} s after {strikes}")
            healthy = after[back:]
        result.healthy_due += len(healthy)
        result.healthy_lost += result.note_missing(healthy, meter)
    quiet = [s for s in samples if episode.well_mono_s < s.start_mono_s < until_mono_s - bench.victims_s]
    result.quiet_s += until_mono_s - episode.well_mono_s
    result.quiet_lost += sum(result.note_missing(quiet, meter) for meter in METERS)
    result.alarms += [
        warned.message
        for warned in bench.warnings
        if episode.well_mono_s < warned.mono_s < until_mono_s and "samples were missed" not in warned.message
    ]


def _back_from(samples: Sequence[PowerSample], meter: str) -> int:
    """Return the number of the first sample from which on a meter gave values again, some in a row."""
    good = [value_of(sample, meter) is not None for sample in samples]
    return next((at for at in range(len(good)) if all(good[at : at + GOOD_IN_A_ROW])), len(good) - 1)


def judge_means(bench: FastBench, taken: Sequence[Taken], result: Result) -> None:
    """Note every reported mean that does not lie among the samples of its interval."""
    offset_s = bench.clock.utc_s() - bench.clock.mono_s()
    kinds = {VOLTAGE_TYPE: "voltage_v", CURRENT_TYPE: "current_a", POWER_TYPE: "power_kw"}
    by_interval: dict[tuple[int, int], list[float]] = defaultdict(list)
    for each in taken:
        number = math.ceil((each.sample.start_mono_s + offset_s) / bench.report_interval_s)
        for kind, name in kinds.items():
            if (value := getattr(each.sample, name)) is not None:
                by_interval[number, kind].append(value)
    for received in bench.cloud.received:
        datum = received.datum
        values = by_interval[math.ceil(datum.timestamp_utc_ms / 1000 / bench.report_interval_s), datum.type]
        slack = 1e-9 * abs(datum.data)
        result.means += 1
        if not values or not min(values) - slack <= datum.data <= max(values) + slack:
            result.wrong_means += 1
            result.details.append(f"a reported mean is none: {datum}, {len(values)} samples")
