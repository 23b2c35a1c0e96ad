"""What the daemon costs at the README's intervals, a sample every 5 s and a report every 30 s: CPU, memory, start.

    python3 -m benchmarks.footprint [--minutes 10] [--starts 5] [--redis] [--tls]

CPU is counted from one minute after the start to the end, all threads included. Memory is what the kernel counts as
resident (VmRSS; the bound), with two fairer figures beside it: Pss shares out the pages of the C library and the
interpreter among the processes that use them, and private memory leaves them out. The start is timed from the spawning
of the process until the later of the two meters is asked for its first sample, which the daemon does only when both
are set up and have settled; median of several starts. MB are 10^6 bytes.

``--redis --tls`` is the whole of what a real installation does.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from benchmarks.stand import Figure, Stand, Usage, print_table, say

_SAMPLE_MS, _REPORT_MS = 5000, 30000
_CPU_S_PER_MIN, _MEMORY_MB, _GROWTH_MB, _START_S = 0.2, 40.0, 0.5, 5.0


def measure_start(redis: bool, tls: bool) -> float:
    """Return how long one start takes to the first sample of both meters, in seconds."""
    with Stand(tls=tls) as stand:
        stand.start(sample_ms=_SAMPLE_MS, report_ms=_REPORT_MS, redis=redis)
        took_s = stand.run_until_sampling() - stand.spawned_mono_s
        stand.stop()
    return took_s


def measure_usage(minutes: float, redis: bool, tls: bool) -> list[Usage]:
    """Return the daemon's usage after 1 min, halfway and at the end."""
    with Stand(tls=tls) as stand:
        stand.start(sample_ms=_SAMPLE_MS, report_ms=_REPORT_MS, redis=redis)
        usages = []
        for minute in (1.0, (1.0 + minutes) / 2, minutes):
            stand.run_until(stand.spawned_mono_s + 60 * minute)
            usages.append(stand.usage())
        delivered = len(stand.cloud.received)
        stand.stop()
    say(f"{delivered} readings were delivered")
    return usages


def figures(starts_s: list[float], usages: list[Usage]) -> list[Figure]:
    """Return the rows of the table."""
    first, half, last = usages
    per_min = 60 / (last.mono_s - first.mono_s)
    return [
        Figure(
            what="CPU per minute",
            value=(last.cpu_s - first.cpu_s) * per_min,
            unit="s",
            digits=3,
            at_most=_CPU_S_PER_MIN,
        ),
        Figure(what="CPU of the start and the first minute", value=first.cpu_s, unit="s"),
        Figure(what="memory, VmRSS, after 1 min", value=first.rss_mb, unit="MB"),
        Figure(what="memory, VmRSS, halfway", value=half.rss_mb, unit="MB"),
        Figure(what="memory, VmRSS, at the end", value=last.rss_mb, unit="MB", at_most=_MEMORY_MB),
        Figure(what="growth from halfway to the end", value=last.rss_mb - half.rss_mb, unit="MB", at_most=_GROWTH_MB),
        Figure(what="memory, Pss, at the end", value=last.pss_mb, unit="MB"),
        Figure(what="memory, private, at the end", value=last.private_mb, unit="MB"),
        Figure(what="threads at the end", value=last.threads, digits=0),
        Figure(
            what="start to first settled sample, median",
            value=statistics.median(starts_s),
            unit="s",
            at_most=_START_S,
        ),
        Figure(what="start to first settled sample, longest", value=max(starts_s), unit="s"),
    ]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.footprint", description="CPU, memory and start.")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the run, above 1 (10)")
    parser.add_argument("--starts", type=int, default=5, help="how many starts to time, at least 1 (5)")
    parser.add_argument("--redis", action="store_true", help="with a real Redis server")
    parser.add_argument("--tls", action="store_true", help="through https, to a server that keeps no idle connection")
    options = parser.parse_args()
    if options.minutes <= 1 or options.starts < 1:
        parser.error("--minutes must be above 1, --starts at least 1")
    say(f"{options.starts} starts, then {options.minutes:g} min of running")
    starts_s = [measure_start(options.redis, options.tls) for _ in range(options.starts)]
    usages = measure_usage(options.minutes, options.redis, options.tls)
    redis, scheme = "on" if options.redis else "off", "https" if options.tls else "http"
    title = f"Footprint: sample 5 s, report 30 s, {options.minutes:g} min, Redis {redis}, cloud by {scheme}"
    return print_table(title, figures(starts_s, usages))


if __name__ == "__main__":
    sys.exit(main())
