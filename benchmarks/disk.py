"""How much the daemon writes to its disk in a day, at the README's intervals: a sample every 5 s, a report every 30 s.

    python3 -m benchmarks.disk [--minutes 10] [--loop]

Two daemons run at the same time, one with the default ``store_sync_interval`` and one with 300 s, on the file system
that the temporary folder lies on, which must be a real one. ``write_bytes`` of ``/proc/PID/io`` is what the kernel
charges to the process: whole pages of 4096 bytes, each time one that is clean on the disk is made dirty. It knows
nothing of the file system's own journal. ``--loop`` (for root) gives each daemon an ext4 of its own in a file, mounted
by a loop device, whose counters hold everything: data, journal, inodes, and the requests to flush.

Counting begins 45 s after the start, when the database is made and the first report written. 10 minutes are too short
for SQLite to move the write-ahead log into the database by itself, which it does at 1000 pages; what that writes is
measured at the end, when the stop does it, and added in proportion to the growth of the log.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stand import CLOCK, Figure, print_table, say
from store import NAME
from tests.rig import Rig

_SAMPLE_MS, _REPORT_MS = 5000, 30_000
_SYNC_S = (None, 300)
_WARM_UP_S = 45.0
_DAY_S = 86_400.0
_SECTOR_BYTES = 512
_CHECKPOINT_BYTES = 1000 * 1048  # of the log, a page and its header each
_IN_MEMORY = ("tmpfs", "ramfs", "overlay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What was written so far: by the process, to its loop device (0 without one), and into the write-ahead log."""

    mono_s: float
    process_bytes: int
    device_bytes: int
    device_writes: int
    device_flushes: int
    log_bytes: int


class Subject:
    """One daemon in one folder, and the loop device below it if it has one."""

    def __init__(self, folder: Path, sync_s: int | None, *, loop: bool) -> None:
        self.sync_s = sync_s
        self.device: str | None = None
        self._folder = folder
        self._loop = loop
        self._stack = ExitStack()

    def start(self) -> None:
        """Mount what is to be mounted and start the daemon."""
        if self._loop:
            self._mount()
        self.rig = self._stack.enter_context(Rig(self._folder))
        self.rig.configure({"STORE": {"store_sync_interval": self.sync_s}}, sample_ms=_SAMPLE_MS, report_ms=_REPORT_MS)
        self.rig.start()

    def stop(self) -> int:
        """Stop the daemon and return what the device has taken by then in all: bytes, 0 without a device."""
        self.rig.stop()
        return self._device()[0]

    def close(self) -> None:
        """Unmount."""
        self._stack.close()

    def counters(self) -> Counters:
        """Return what was written so far, with what the kernel still holds back for the device."""
        assert self.rig.process is not None
        text = Path(f"/proc/{self.rig.process.pid}/io").read_text()
        io = {name: int(value) for name, value in (line.split(": ") for line in text.splitlines())}
        device_bytes, writes, flushes = self._device()
        return Counters(
            mono_s=CLOCK.mono_s(),
            process_bytes=io["write_bytes"] - io["cancelled_write_bytes"],
            device_bytes=device_bytes,
            device_writes=writes,
            device_flushes=flushes,
            log_bytes=(self._folder / f"{NAME}-wal").stat().st_size,
        )

    def _mount(self) -> None:
        image = self._folder.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(256 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self._folder], check=True)
        self._stack.callback(lambda: subprocess.run(["umount", self._folder], check=True))
        self.device = mount_of(self._folder)[0].rpartition("/")[2]

    def _device(self) -> tuple[int, int, int]:
        """Return the bytes, the writes and the flushes that the loop device has taken, after a flush of our own."""
        if self.device is None:
            return 0, 0, 0
        subprocess.run(["sync", "-f", self._folder], check=True)
        numbers = [int(each) for each in Path(f"/sys/block/{self.device}/stat").read_text().split()]
        return numbers[6] * _SECTOR_BYTES, numbers[4], numbers[15]


def mount_of(folder: Path) -> tuple[str, str]:
    """Return the device and the type of the file system that a folder lies on."""
    rows = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    device, _, kind = max((row for row in rows if folder.resolve().is_relative_to(row[1])), key=lambda row: len(row[1]))
    return device, kind


def figures(subject: Subject, before: Counters, after: Counters, at_stop_bytes: int) -> list[Figure]:
    """Return the rows of one daemon."""
    name = f"sync every {subject.sync_s or _REPORT_MS // 1000} s"
    to_day = _DAY_S / (after.mono_s - before.mono_s)
    log_day_bytes = (after.log_bytes - before.log_bytes) * to_day

    def per_day(what: str, amount: float, unit: str = "MB", digits: int = 1) -> Figure:
        return Figure(what=f"{name}: {what}", value=amount * to_day, unit=f"{unit}/day", digits=digits)

    rows = [
        per_day("the process, write_bytes", (after.process_bytes - before.process_bytes) / 1e6),
        per_day("growth of the write-ahead log", (after.log_bytes - before.log_bytes) / 1e6),
    ]
    if subject.device is not None:
        checkpoint_bytes = at_stop_bytes - after.device_bytes
        extra_day_bytes = checkpoint_bytes * log_day_bytes / _CHECKPOINT_BYTES
        written_bytes = after.device_bytes - before.device_bytes
        rows += [
            per_day("the device", written_bytes / 1e6),
            Figure(what=f"{name}: the stop, its checkpoint included", value=checkpoint_bytes / 1e6, unit="MB"),
            Figure(
                what=f"{name}: the device, checkpoints included",
                value=(written_bytes * to_day + extra_day_bytes) / 1e6,
                unit="MB/day",
                digits=1,
            ),
            per_day("writes", after.device_writes - before.device_writes, "writes", 0),
            per_day("flushes", after.device_flushes - before.device_flushes, "flushes", 0),
        ]
    return rows


def measure(minutes: float, *, loop: bool) -> list[Figure]:
    """Run both daemons and return the rows of the table."""
    pause = threading.Event()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, ExitStack() as stack:
        device, kind = mount_of(Path(name))
        say(f"on {kind} on {device}")
        if kind in _IN_MEMORY:
            raise SystemExit(f"{name} is on {kind}, which is no disk: set TMPDIR to a folder on a real file system")
        subjects = []
        for number, sync_s in enumerate(_SYNC_S):
            folder = Path(name) / str(number)
            folder.mkdir()
            subjects.append(Subject(folder, sync_s, loop=loop))
            stack.callback(subjects[-1].close)
            subjects[-1].start()
        pause.wait(_WARM_UP_S)
        before = [subject.counters() for subject in subjects]
        pause.wait(minutes * 60)
        after = [subject.counters() for subject in subjects]
        at_stop_bytes = [subject.stop() for subject in subjects]
        return [
            row for columns in zip(subjects, before, after, at_stop_bytes, strict=True) for row in figures(*columns)
        ]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.disk", description="Bytes written to disk per day.")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the run (10)")
    parser.add_argument("--loop", action="store_true", help="with a file system for each daemon; needs root")
    options = parser.parse_args()
    say(f"two daemons for {options.minutes:g} min")
    rows = measure(options.minutes, loop=options.loop)
    return print_table(f"Disk: sample 5 s, report 30 s, {options.minutes:g} min", rows)


if __name__ == "__main__":
    sys.exit(main())
