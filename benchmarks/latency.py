"""How long a report takes from the end of its interval to its arrival at a cloud on the same machine.

    python3 -m benchmarks.latency [--seconds 120] [--sample-ms 250]

The arrival is when the virtual cloud has accepted the readings, on the wall clock that also stamped them. The log-in,
which only the first report has to wait for, is a row of its own; the report of the stop is left out, as its interval
ends with the stop. The sampler keeps clear of the ends of intervals where it can. It cannot with a sample interval that
the report interval is no multiple of: then an interval that ends while a query is under way waits for the reply, 80 ms
at most. ``--sample-ms 300`` shows that case.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.stand import Figure, Stand, percentile, print_table, say

_REPORT_MS = 1000
_P99_MS = 250.0


def measure(seconds: float, sample_ms: int) -> list[float]:
    """Return the delay of each report, in ms, in order of their intervals."""
    with Stand() as stand:
        stand.start(sample_ms=sample_ms, report_ms=_REPORT_MS)
        stand.run_until(stand.spawned_mono_s + seconds)
        stand.stop()
        delays_ms: dict[int, float] = {}
        for received in stand.cloud.received:
            timestamp_utc_ms = received.datum.timestamp_utc_ms
            if timestamp_utc_ms % _REPORT_MS == 0:
                delay_ms = received.arrival_utc_s * 1000 - timestamp_utc_ms
                delays_ms[timestamp_utc_ms] = max(delay_ms, delays_ms.get(timestamp_utc_ms, delay_ms))
    return [delay_ms for _, delay_ms in sorted(delays_ms.items())]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.latency", description="From interval end to cloud.")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the run, start included (120)")
    parser.add_argument("--sample-ms", type=int, default=250, help="the sample interval, 50 to 1000 (250)")
    options = parser.parse_args()
    if options.seconds < 10 or not 50 <= options.sample_ms <= _REPORT_MS:
        parser.error("--seconds must be at least 10, --sample-ms 50 to 1000")
    say(f"reporting for {options.seconds:g} s")
    first_ms, *others_ms = measure(options.seconds, options.sample_ms)
    figures = [
        Figure(what="reports", value=1 + len(others_ms), digits=0),
        Figure(what="end of interval to cloud, p50", value=percentile(others_ms, 0.5), unit="ms", digits=1),
        Figure(
            what="end of interval to cloud, p99",
            value=percentile([first_ms, *others_ms], 0.99),
            unit="ms",
            digits=1,
            at_most=_P99_MS,
        ),
        Figure(what="end of interval to cloud, longest", value=max(first_ms, *others_ms), unit="ms", digits=1),
        Figure(what="the first report, with its log-in", value=first_ms, unit="ms", digits=1),
    ]
    return print_table(f"Latency: sample {options.sample_ms} ms, report 1 s, {options.seconds:g} s", figures)


if __name__ == "__main__":
    sys.exit(main())
