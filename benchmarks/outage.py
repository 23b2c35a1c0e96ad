"""An outage of 30 days at a sample every 5 s and a report every 30 s, in simulated time, and its end.

    python3 -m benchmarks.outage [--days 30] [--million 1000000]

86,400 intervals of V, A and kW go into a real database by the real ``Outbox``, on a clock that jumps from the end of
one interval to the next. Then the real ``AretasUploader`` and ``AretasClient``, in a process of their own, deliver them
to a virtual cloud in this one, by HTTP, with ``upload_pause_ms = 0``. The rate is taken at the cloud, from the first
reading to the last, and memory from ``/proc``: what the process holds after it has delivered one interval and nothing
else waits, against the peak (VmHWM) of the process that delivers the 30 days. Memory is VmRSS, and 1 MB is 10^6 bytes.

Then as many intervals are added as make a million waiting readings, and the start of an outbox on that is timed, in a
new process each time: with the file in the memory of the system and with it dropped from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from aretas_api import AretasClient
from aretas_uploader import AretasUploader
from benchmarks.stand import CLOCK, MAC, PASSWORD, PROJECT, USERNAME, Figure, print_table, say
from clock import Clock
from measurements import Device, Interval, IntervalSummary, Statistic
from outbox import Limits, Outbox
from simulator.cloud import Received, VirtualCloud
from store import NAME, Store
from tables import Record, insert_interval, used_bytes
from time_keeper import TimeKeeper

_DEVICE = Device(mac=MAC, voltage_type=532, current_type=531, power_type=533)
_REPORT_S, _SAMPLES = 30, 6
_PER_INTERVAL = 3
_BYTES_PER_READING, _READINGS_PER_S, _MEMORY_MB, _START_S = 60.0, 5000.0, 10.0, 1.0
_DRAINED_WITHIN_S = 300.0
_STARTS = 5


class SimulatedClock(Clock):
    """Both clocks stand still until they are moved on, together."""

    def __init__(self, utc_s: float) -> None:
        self._now_mono_s, self._offset_s = 1000.0, utc_s - 1000.0

    def mono_s(self) -> float:
        """Return the simulated monotonic clock."""
        return self._now_mono_s

    def utc_s(self) -> float:
        """Return the simulated wall clock."""
        return self._now_mono_s + self._offset_s

    def advance_to(self, mono_s: float) -> None:
        """Let time pass until then."""
        self._now_mono_s = mono_s


def open_outbox(folder: Path, clock: Clock) -> Outbox:
    """Return an outbox on the database of a folder, not recovered yet. No disk confirms what is filled in."""
    return Outbox(Store(folder / NAME, clock), _DEVICE, "benchmark", clock, Limits(sync_interval_s=1e9))


def summary_of(number: int) -> IntervalSummary:
    """Return what an interval of a battery is reported as: any values, all of them different."""
    voltage_v, current_a = 52.0 + number % 9973 / 3e3, -14.0 + number % 8191 / 3e2
    values = (voltage_v, current_a, voltage_v * current_a / 1000)
    voltage, current, power = (
        Statistic(mean=value, minimum=value - 0.1, maximum=value + 0.1, count=_SAMPLES) for value in values
    )
    return IntervalSummary(voltage_v=voltage, current_a=current, power_kw=power, samples_read=2 * _SAMPLES)


def fill(folder: Path, intervals: int, ending_utc_s: float) -> float:
    """Close this many intervals, the last one at ``ending_utc_s``. Return how long one takes, in ms."""
    clock = SimulatedClock(ending_utc_s - intervals * _REPORT_S)
    outbox = open_outbox(folder, clock)
    outbox.recover()
    started_mono_s = CLOCK.mono_s()
    present = interval_after(clock)
    for number in range(intervals):
        clock.advance_to(present.end_mono_s)
        following = interval_after(clock)
        outbox.close_interval(summary_of(number), present, following, clock_trusted=True)
        present = following
    took_s = CLOCK.mono_s() - started_mono_s
    outbox.close()
    return took_s / intervals * 1000


def interval_after(clock: Clock) -> Interval:
    """Return the interval that begins now."""
    end_mono_s = clock.mono_s() + _REPORT_S
    end_utc_ms = round((clock.utc_s() + _REPORT_S) * 1000)
    return Interval(start_mono_s=clock.mono_s(), end_mono_s=end_mono_s, end_utc_ms=end_utc_ms)


def add(folder: Path, intervals: int, begin_utc_s: float) -> None:
    """Write this many further intervals into a database, all at once: they only have to be there."""
    store = Store(folder / NAME, CLOCK)
    with store.transaction() as cursor:
        first = int(cursor.execute("SELECT coalesce(max(id), 0) + 1 FROM interval").fetchone()[0])
        for number in range(first, first + intervals):
            end_utc_ms = round((begin_utc_s + number * _REPORT_S) * 1000)
            record = Record(
                number=number,
                waiting=7,
                end_utc_ms=end_utc_ms,
                planned_end_utc_ms=end_utc_ms,
                boot_id="benchmark",
                end_mono_s=0.0,
                device=_DEVICE,
                summary=summary_of(number),
            )
            insert_interval(cursor, record)
    store.close()


# -- the processes that are measured -------------------------------------------------------------------------------


def memory_mb(name: str) -> float:
    """Return a figure of this process's memory: VmRSS now, or VmHWM, the most of it ever."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def drain(folder: Path, url: str) -> dict[str, float]:
    """Deliver all that waits in a folder, as the daemon does."""
    outbox = open_outbox(folder, CLOCK)
    started_mono_s = CLOCK.mono_s()
    outbox.recover()
    recovered_mono_s = CLOCK.mono_s()
    outbox.open_interval(interval_after(CLOCK), clock_trusted=True)
    keeper = TimeKeeper(CLOCK, 600.0)
    client = AretasClient(url, USERNAME, PASSWORD, on_answer=keeper.heed_answer)
    uploader = AretasUploader(client, outbox, keeper, CLOCK, pause_s=0.0)
    uploader.start(lambda: os._exit(70))
    outbox.wait_until_empty(CLOCK.mono_s() + _DRAINED_WITHIN_S)
    figures = {"recover_s": recovered_mono_s - started_mono_s, "rss": memory_mb("VmRSS"), "peak": memory_mb("VmHWM")}
    uploader.request_stop()
    uploader.join(CLOCK.mono_s() + 5.0)
    outbox.close()
    return figures


def start(folder: Path) -> dict[str, float]:
    """Start an outbox."""
    outbox = open_outbox(folder, CLOCK)
    started_mono_s = CLOCK.mono_s()
    outbox.recover()
    figures = {"recover_s": CLOCK.mono_s() - started_mono_s, "waiting": float(outbox.tally().waiting)}
    outbox.close()
    return figures


def in_process(*arguments: str) -> dict[str, float]:
    """Run a part of this module as a process of its own and return its figures."""
    command = [sys.executable, "-m", "benchmarks.outage", *arguments]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, check=True, timeout=_DRAINED_WITHIN_S + 60)
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


# -- the figures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the cloud got, and what the process that sent it says of itself."""

    received: Sequence[Received]
    process: dict[str, float]


def deliver(folder: Path) -> Delivery:
    """Deliver what waits in a folder to a new cloud."""
    with VirtualCloud(username=USERNAME, password=PASSWORD, macs=[MAC]) as cloud:
        process = in_process("--drain", str(folder), cloud.url)
        return Delivery(received=cloud.received, process=process)


def drained(expected: int, normal: Delivery, delivery: Delivery) -> list[Figure]:
    """Return the rows of the delivery."""
    received = delivery.received
    keys = Counter((each.datum.type, each.datum.timestamp_utc_ms) for each in received)
    ends = [each.datum.timestamp_utc_ms for each in received]
    behind = ends[_PER_INTERVAL:]
    newest_first = ends[:_PER_INTERVAL] == [max(ends)] * _PER_INTERVAL
    took_s = received[-1].arrival_mono_s - received[0].arrival_mono_s
    return [
        Figure(what="readings that arrived", value=len(received), digits=0),
        Figure(what="readings missing", value=expected - len(keys), digits=0, at_most=0),
        Figure(what="readings doubled", value=len(received) - len(keys), digits=0, at_most=0),
        Figure(what="readings with another value than was made", value=changed(received), digits=0, at_most=0),
        Figure(what="newest interval not sent first", value=int(not newest_first), digits=0, at_most=0),
        Figure(
            what="readings behind a later one",
            value=sum(later < earlier for earlier, later in itertools.pairwise(behind)),
            digits=0,
            at_most=0,
        ),
        Figure(what="drain", value=len(received) / took_s, unit="readings/s", digits=0),
        Figure(
            what=f"time for {_READINGS_PER_S:g} readings",
            value=_READINGS_PER_S * took_s / len(received),
            unit="s",
            at_most=1.0,
        ),
        Figure(what="memory, one interval delivered, at most", value=normal.process["peak"], unit="MB", digits=1),
        Figure(what="memory, all delivered, at the end", value=delivery.process["rss"], unit="MB", digits=1),
        Figure(what="memory, all delivered, at most", value=delivery.process["peak"], unit="MB", digits=1),
        Figure(
            what="memory above normal, at most",
            value=delivery.process["peak"] - normal.process["rss"],
            unit="MB",
            digits=1,
            at_most=_MEMORY_MB,
        ),
    ]


def changed(received: Sequence[Received]) -> int:
    """Return how many readings have not the value that ``fill`` gave the interval of their timestamp."""
    begin_utc_ms = min(each.datum.timestamp_utc_ms for each in received)
    count = 0
    for each in received:
        summary = summary_of(round((each.datum.timestamp_utc_ms - begin_utc_ms) / 1000 / _REPORT_S))
        statistic = dict(zip(_DEVICE.types[:3], (summary.voltage_v, summary.current_a, summary.power_kw), strict=True))
        made = statistic[each.datum.type]
        count += made is None or made.mean != each.datum.data
    return count


def sizes(folder: Path, readings: int) -> list[Figure]:
    """Return the rows of the database's size."""
    store = Store(folder / NAME, CLOCK)
    with closing(store), store.reading() as cursor:
        used = used_bytes(cursor)
    per_reading = (folder / NAME).stat().st_size / readings
    return [
        Figure(what="file, per waiting reading", value=per_reading, unit="bytes", digits=1, at_most=_BYTES_PER_READING),
        Figure(what="in use of it, per waiting reading", value=used / readings, unit="bytes", digits=1),
        Figure(what="intervals of three readings that 500 MB hold", value=5e8 / (3 * per_reading), digits=0),
        Figure(
            what="years of outage that 500 MB hold",
            value=5e8 / (3 * per_reading) * _REPORT_S / (365.25 * 86_400),
            digits=1,
        ),
    ]


def starts(folder: Path) -> list[Figure]:
    """Return the rows of the starts."""
    rows = []
    for what, dropped in (("file in memory", False), ("file on the disk only", True)):
        took = []
        for _ in range(_STARTS):
            if dropped:
                forget(folder / NAME)
            figures = in_process("--start", str(folder))
            took.append(figures["recover_s"])
        rows += [
            Figure(what=f"start, {what}, median", value=statistics.median(took), unit="s", digits=3, at_most=_START_S),
            Figure(what=f"start, {what}, longest", value=max(took), unit="s", digits=3, at_most=_START_S),
        ]
    return [Figure(what="readings waiting at these starts", value=figures["waiting"], digits=0), *rows]


def forget(file: Path) -> None:
    """Have the system drop a file from its memory."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def measure(days: float, million: int) -> list[Figure]:
    """Return the rows of the table."""
    intervals = round(days * 86_400 / _REPORT_S)
    now_utc_s = CLOCK.utc_s() // _REPORT_S * _REPORT_S
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder, small = Path(name) / "outage", Path(name) / "normal"
        folder.mkdir()
        small.mkdir()
        say(f"closing {intervals} intervals")
        close_ms = fill(folder, intervals, now_utc_s)
        fill(small, 1, now_utc_s)
        rows = sizes(folder, intervals * _PER_INTERVAL)
        say("delivering them")
        rows = [*drained(intervals * _PER_INTERVAL, deliver(small), deliver(folder)), *rows]
        say(f"making {million} readings wait")
        # A database of its own: in the other one everything is delivered.
        (folder / NAME).unlink()
        fill(folder, 1, now_utc_s)
        add(folder, -(-million // _PER_INTERVAL) - 1, now_utc_s)
        rows += starts(folder)
    return [*rows, Figure(what="closing an interval, without the disk's word", value=close_ms, unit="ms")]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.outage", description="A long outage and its end.")
    parser.add_argument("--days", type=float, default=30.0, help="length of the outage, simulated (30)")
    parser.add_argument("--million", type=int, default=1_000_000, help="readings waiting at a start (1000000)")
    parser.add_argument("--drain", nargs=2, metavar=("FOLDER", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--start", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drain or options.start:
        figures = drain(Path(options.drain[0]), options.drain[1]) if options.drain else start(Path(options.start))
        print(json.dumps(figures))
        return 0
    rows = measure(options.days, options.million)
    return print_table(f"Outage: {options.days:g} days, sample 5 s, report 30 s", rows)


if __name__ == "__main__":
    sys.exit(main())
