"""What 2,000 faults of wire and bench cost: is every sample right or absent, and how soon is a meter back?

    python3 -m benchmarks.meter_faults [--faults 2000] [--speed 20] [--seed 1] [--only "KIND,KIND"]

The whole daemon runs on an accelerated bench (``fast_bench.py`` says how, and how a value is judged). Episode by
episode one fault strikes, or two that overlap, at one meter or one at each; when all are over, both meters must give
values again, and a short rest without a fault follows, in which nothing may be lost and nobody be alarmed. Four legs:
500 ms with the meters' serial numbers configured, without them, and with a range that the daemon may change; 100 ms.
At the end every reported mean must lie among the samples of its interval.

Then, at the day's own speed, faults at the current meter alone, to see what they do to the other one's due times.

Two things nobody could know: a reading in hold is stale without a sign of it until ``xdm_stale_after``, which is
counted apart; and without serial numbers a third meter may stand in the place of the right one, which is left out of
that leg.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.fast_bench import FastBench
from benchmarks.fault_judge import GIVEN_UP_S, GOOD_IN_A_ROW, METERS, TWO, Episode, Result, judge
from benchmarks.stand import Figure, percentile, print_table, say
from benchmarks.timing import fit
from simulator.fault_schedule import FaultSchedule, Strike, random_episodes
from simulator.mishaps import MISHAPS, Mishap

RECOVERY_S, SETTLING_S = 5.0, 3.0
_REST_S = 2.0
_ON_TIME_MS = 5.0
ONLY_BY_SERIAL = frozenset({"a third meter on the port"})


def play(bench: FastBench, strikes: tuple[Strike, ...], seed: int) -> Episode:
    """Play one episode and wait until both meters give values again."""
    schedule = FaultSchedule(bench.pair, strikes, bench.clock)
    schedule.play()
    gone_mono_s = max(bench.clock.mono_s(), schedule.started_mono_s + max(strike.gone_s for strike in strikes))

    def well() -> bool:
        last = [taken.sample for taken in bench.taken[-GOOD_IN_A_ROW:]]
        return all(
            sample.start_mono_s > gone_mono_s and None not in (sample.voltage_v, sample.current_a) for sample in last
        )

    recovered = bench.wait_until(well, GIVEN_UP_S + max(0.0, gone_mono_s - bench.clock.mono_s()))
    return Episode(
        strikes=strikes,
        began_mono_s=schedule.started_mono_s,
        well_mono_s=bench.clock.mono_s() if recovered else math.inf,
        seed=seed,
    )


def run_leg(
    bench: FastBench, *, faults: int, seed: int, mishaps: Mapping[str, Mishap], meters: Sequence[str] = METERS
) -> Result:
    """Play episodes with at least ``faults`` faults and judge all that the daemon counted and reported meanwhile."""
    episodes: list[Episode] = []
    with bench:
        if not bench.wait_until(lambda: any(taken.sample.power_kw for taken in bench.taken), 60.0):
            raise TimeoutError("the bench does not begin to sample")
        bench.let_pass(_REST_S)
        rest = random.Random(seed)
        for number, strikes in enumerate(random_episodes(seed, mishaps, meters)):
            episodes.append(play(bench, strikes, number))
            if math.isinf(episodes[-1].well_mono_s) or bench.crashed:
                break
            bench.let_pass(bench.victims_s + _REST_S * rest.random())
            if sum(len(episode.strikes) for episode in episodes) >= faults:
                break
        ended_mono_s = bench.clock.mono_s()
    result = judge(bench, episodes, ended_mono_s, seed)
    if bench.crashed:
        result.details.append("the daemon crashed")
        result.not_recovered += 1
    return result


def healthy_starts_ms(seconds: float, seed: int) -> list[float]:
    """Return how far off its due times, in ms, the voltage meter was asked while the current meter was in trouble."""
    bench = FastBench(speed=1.0)
    kinds = {name: mishap for name, mishap in MISHAPS.items() if not mishap.both and mishap.lasts_s[1] <= 20.0}
    with bench:
        bench.wait_until(lambda: any(taken.sample.power_kw for taken in bench.taken), 60.0)
        since_mono_s = bench.clock.mono_s()
        for strikes in random_episodes(seed, kinds, ("current",)):
            FaultSchedule(bench.pair, strikes, bench.clock).play()
            bench.let_pass(_REST_S)
            if bench.clock.mono_s() > since_mono_s + seconds:
                break
        meter = bench.pair.places["voltage"].meter
    asked = [each.mono_s for each in meter.received if each.text == "MEAS1?" and each.mono_s > since_mono_s]
    firsts = [after for before, after in itertools.pairwise(asked) if after - before > bench.sample_interval_s / 2]
    grid = fit(firsts, bench.sample_interval_s)
    return [abs(grid.deviation_ms(mono_s)) for mono_s in firsts]


def figures(result: Result, sample_interval_s: float) -> list[Figure]:
    """Return the rows of a leg's table."""
    recoveries_s = list(itertools.chain.from_iterable(result.recoveries_s.values()))
    lost = [lost_s / sample_interval_s for lost_s in itertools.chain.from_iterable(result.lost_s.values())]
    after = "after the fault was over"
    slowest_s = RECOVERY_S + SETTLING_S
    return [
        Figure(what="faults", value=result.faults.total(), digits=0),
        Figure(what="samples judged", value=result.samples, digits=0),
        Figure(what="wrong values reported", value=result.wrong.total(), digits=0, at_most=0),
        Figure(what="reported means checked", value=result.means, digits=0),
        Figure(what="reported means that are none of their samples", value=result.wrong_means, digits=0, at_most=0),
        Figure(what="stale values in hold, before xdm_stale_after", value=result.stale, digits=0),
        Figure(what="meters that never came back", value=result.not_recovered, digits=0, at_most=0),
        Figure(what=f"samples lost {after}, median", value=percentile(lost, 0.5), digits=0),
        Figure(what=f"samples lost {after}, p99", value=percentile(lost, 0.99), digits=0),
        Figure(what=f"recovery {after}, median", value=percentile(recoveries_s, 0.5), unit="s"),
        Figure(what=f"recovery {after}, p99", value=percentile(recoveries_s, 0.99), unit="s", at_most=slowest_s),
        Figure(what=f"recovery {after}, longest", value=max(recoveries_s, default=0.0), unit="s"),
        Figure(what="false alarms", value=len(result.alarms), digits=0, at_most=0),
        Figure(what="time without a fault", value=result.quiet_s, unit="s", digits=0),
        Figure(what="samples lost in it", value=result.quiet_lost, digits=0),
        Figure(what="samples of the healthy meter during the other's fault", value=result.healthy_due, digits=0),
        Figure(what="lost of these", value=result.healthy_lost, digits=0),
    ]


def healthy_figures(seconds: float, seed: int) -> list[Figure]:
    """Return the rows of the run at the day's own speed."""
    late_ms = healthy_starts_ms(seconds, seed)
    return [
        Figure(what="samples of the healthy meter", value=len(late_ms), digits=0),
        Figure(what="start off its due time, p50", value=percentile(late_ms, 0.5), unit="ms"),
        Figure(what="start off its due time, p99", value=percentile(late_ms, 0.99), unit="ms", at_most=_ON_TIME_MS),
    ]


def print_kinds(result: Result) -> None:
    """Print what each kind of fault did, where it struck a meter alone."""
    print(f"\n  {'kind':<28} {'faults':>6} {'wrong':>6} {'lost p50':>9} {'p99':>7} {'recovery p50':>13} {'p99':>7}")
    for kind in [*MISHAPS, TWO]:
        wrong = sum(count for kinds, count in result.wrong.items() if kind in kinds.split("+"))
        times = " ".join(
            f"{f'{percentile(values, share):.2f} s' if values else '':>{width}}"
            for values, share, width in (
                (result.lost_s[kind], 0.5, 9),
                (result.lost_s[kind], 0.99, 7),
                (result.recoveries_s[kind], 0.5, 13),
                (result.recoveries_s[kind], 0.99, 7),
            )
        )
        print(f"  {kind:<28} {result.faults[kind] or '':>6} {wrong:>6} {times}".rstrip())


def legs(options: argparse.Namespace) -> Iterator[tuple[str, FastBench, int, dict[str, Mishap]]]:
    """Yield the legs: name, bench, number of faults, kinds."""
    only = [kind.strip() for kind in options.only.split(",") if kind.strip()]
    kinds = {name: mishap for name, mishap in MISHAPS.items() if name in (only or MISHAPS)}
    unserial = {name: mishap for name, mishap in kinds.items() if name not in ONLY_BY_SERIAL}
    for name, share, sample_ms, serials, steps in (
        ("500 ms", 0.5, 500, True, False),
        ("500 ms, no serial numbers", 0.2, 500, False, False),
        ("500 ms, range not fixed", 0.1, 500, True, True),
        ("100 ms", 0.2, 100, True, False),
    ):
        if options.leg in ("", name):
            bench = FastBench(speed=options.speed, sample_ms=sample_ms, serials=serials, steps=steps)
            number = options.faults if options.leg else math.ceil(options.faults * share)
            yield name, bench, number, kinds if serials else unserial


def main() -> int:
    """Measure and print. Return the exit code: 1 if a value was wrong or another bound is not kept."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.meter_faults", description="What do faults cost?")
    parser.add_argument("--faults", type=int, default=2000, help="how many (2000)")
    parser.add_argument("--speed", type=float, default=20.0, help="how much faster than the day (20)")
    parser.add_argument("--seed", type=int, default=1, help="another number, other faults (1)")
    parser.add_argument("--only", default="", help="kinds of faults, comma-separated (all)")
    parser.add_argument("--leg", default="", help="one leg only, by its name in the tables (all)")
    parser.add_argument("--healthy-seconds", type=float, default=180.0, help="length of the run at 1x; 0: none (180)")
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)  # twelve threads in one process, and 5 ms would look like 100
    total, code = Result(), 0
    for name, bench, faults, kinds in legs(options):
        say(f"{name}: {faults} faults")
        result = run_leg(bench, faults=faults, seed=options.seed, mishaps=kinds)
        for line in [*result.details, *(f"false alarm: {alarm}" for alarm in result.alarms)]:
            say(line)
        if result.reasons:
            say(f"why samples of a meter without a fault were lost: {dict(result.reasons)}")
        title = f"Meter faults, {name}: seed {options.seed}, {options.speed:g} times the day"
        code |= print_table(title, figures(result, bench.sample_interval_s))
        total.add(result)
    print_kinds(total)
    if options.healthy_seconds:
        rows = healthy_figures(options.healthy_seconds, options.seed)
        code |= print_table("\nThe other meter in trouble, at the day's own speed, 500 ms", rows)
    return code


if __name__ == "__main__":
    sys.exit(main())
