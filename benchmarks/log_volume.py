"""How much does the log grow in a day, and how much more in a day of any single fault?

    python3 -m benchmarks.log_volume [--hours 24] [--only "NAME,NAME"] [--verbose]

Every fault that the simulator knows, one at a time, on the clock that jumps (``virtual_site.py``) at the default
intervals: all the time, and coming and going every few seconds, which is what makes a log grow. Beside them, faults of
the disk (on small file systems of their own, which needs root; without it they are left out, and it says so), of Redis,
of the wall clock, and a computer that is too busy. With fewer ``--hours`` the figures are scaled to a day.

What is counted is what the log file gets at INFO; what a full disk loses of it counts as well.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.site_troubles import CLOCK, CLOUD, Trouble, redis_troubles, set_clock
from benchmarks.soak_table import DAY_S, DayBattery
from benchmarks.stand import Figure, print_table, say
from benchmarks.virtual_clock import VirtualEvent, VirtualThread
from benchmarks.virtual_site import VirtualSite
from simulator.mishaps import MISHAPS, End
from tests.redis_server import RedisServer

AT_MOST_MB = 1.0
_HOUR_S = 3600.0
_QUIET = "nothing wrong"
_METER_S, _CLOUD_S = (7.0, 8.0), (45.0, 50.0)
_SMALL_DISK, _IMAGE_BYTES = "size=1500k", 8_000_000

Play = Callable[[VirtualSite, VirtualEvent], None]


def _steady(begin: Trouble) -> Play:
    """Return a fault that lasts all the time."""

    def play(site: VirtualSite, stop: VirtualEvent) -> None:
        end = begin(site, random.Random(1))
        stop.wait()
        end()

    return play


def _flapping(begin: Trouble, there_s: float, away_s: float) -> Play:
    """Return a fault that comes and goes, for ever."""

    def play(site: VirtualSite, stop: VirtualEvent) -> None:
        chance = random.Random(1)
        while not stop.is_set():
            end = begin(site, chance)
            stop.wait(there_s)
            end()
            stop.wait(away_s)

    return play


def _mishap(kind: str) -> Trouble:
    return lambda site, chance: MISHAPS[kind].begin(site.pair.places["current"], chance)


def _busy(site: VirtualSite, _chance: random.Random) -> End:
    """Have the computer do nothing for us for some seconds."""
    site.clock.suspend(12.0)
    return lambda: None


def _stepped(site: VirtualSite, chance: random.Random) -> End:
    """Set the clock to a wrong time, with the kernel's word that it is right."""
    site.clock.error_s = chance.uniform(-30.0, 30.0)
    return lambda: None


def _swinging(site: VirtualSite, _chance: random.Random) -> End:
    """Have the current swing between what the small range can show and what it cannot."""
    site.battery.surplus_a = 110.0  # type: ignore[attr-defined]
    return lambda: setattr(site.battery, "surplus_a", 0.0)


class SwingingBattery(DayBattery):
    """The battery of the soak, to whose current something can be added."""

    surplus_a = 0.0

    def current_a(self, mono_s: float) -> float:
        return super().current_a(mono_s) + self.surplus_a


def faults(server: RedisServer) -> dict[str, Play]:
    """Return every fault that needs no disk of its own."""
    plays: dict[str, Play] = {}
    for kind in MISHAPS:
        plays[kind] = _steady(_mishap(kind))
        plays[f"{kind}, every {sum(_METER_S):g} s"] = _flapping(_mishap(kind), *_METER_S)
    for names, seconds in ((CLOUD, _CLOUD_S), (redis_troubles(server), (20.0, 25.0)), (CLOCK, (30.0, 30.0))):
        for name, trouble in names.items():
            plays[name] = _steady(trouble)
            plays[f"{name}, every {sum(seconds):g} s"] = _flapping(trouble, *seconds)
    plays["current swings over the end of its range, every 50 s"] = _flapping(_swinging, 25.0, 25.0)
    for kind in ("hold", "silent", "1E+9"):
        plays[f"{kind} for a minute, every 75 s"] = _flapping(_mishap(kind), 60.0, 15.0)
    plays["both meters absent"] = _steady(_both_absent)
    plays["clock stepped by up to 30 s every minute"] = _flapping(_stepped, 60.0, 0.0)
    plays["clock 3 s off, every minute"] = _flapping(lambda site, _chance: set_clock(site, 3.0), 30.0, 30.0)
    plays["computer too busy, 12 s of every minute"] = _flapping(_busy, 24.0, 24.0)
    return plays


def _both_absent(site: VirtualSite, _chance: random.Random) -> End:
    for port in site.ports.values():
        port.unplug()
    return site.pair.restore


# -- the disk ---------------------------------------------------------------------------------------------------------


def _fill(site: VirtualSite, _chance: random.Random) -> End:
    ballast = site.folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            continue
    return ballast.unlink


def _make_read_only(site: VirtualSite, _chance: random.Random) -> End:
    """Have the kernel find an error in the file system, whereupon it allows no more writing."""
    mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    (source,) = [line.split()[0] for line in mounts if f" {site.folder} " in line]
    Path("/sys/fs/ext4", Path(source).name, "trigger_fs_error").write_text("a test", encoding="ascii")
    return lambda: None


DISK: dict[str, Play] = {
    "disk full": _steady(_fill),
    "disk full, every 95 s": _flapping(_fill, *_CLOUD_S),
    "disk read-only": _steady(_make_read_only),
}


@contextmanager
def _disk(folder: Path, *, real: bool) -> Iterator[Path]:
    """Mount a small disk, in memory or an ext4, and yield where. Raises ``OSError`` where that is not to be had."""
    where, image = folder / "disk", folder / "image"
    where.mkdir()
    if real:
        image.write_bytes(bytes(_IMAGE_BYTES))
        _do("mkfs.ext4", "-q", image)
        _do("mount", "-o", "loop,errors=remount-ro", image, where)
    else:
        _do("mount", "-t", "tmpfs", "-o", _SMALL_DISK, "tmpfs", where)
    try:
        yield where
    finally:
        _do("umount", "-l", where)


def _do(*command: object) -> None:
    if shutil.which(str(command[0])) is None:
        raise FileNotFoundError(f"there is no {command[0]}")
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr.strip())


# -- a day ------------------------------------------------------------------------------------------------------------


def log_of_a_day(
    play: Play | None, hours: float, folder: Path, server: RedisServer
) -> tuple[float, list[tuple[str, float]]]:
    """Return what the log gets in a day of a fault, in MB, and which lines the most of it are."""
    sections = {"REDIS": {"redis_enable": True, "redis_host": "127.0.0.1", "redis_port": server.port}}
    with VirtualSite(SwingingBattery(), folder, sections=sections) as site:
        stop = VirtualEvent(site.clock)
        player = VirtualThread(site.clock, target=play, args=(site, stop), daemon=True) if play is not None else None
        site.let_pass(60.0)
        before = site.log.bytes
        if player is not None:
            player.start()
        for hour in range(1, round(hours) + 1):
            site.let_pass(60.0 + hour * _HOUR_S)
            site.take_arrived()
        day_mb = (site.log.bytes - before) / 1e6 * DAY_S / (site.clock.mono_s() - 60.0)
        stop.set()
        if player is not None:
            player.join()
    most = sorted(site.log.bytes_by_text.items(), key=lambda row: -row[1])[:6]
    return day_mb, [(text, size / 1e6 * 24 / hours) for text, size in most]


def _run(name: str, play: Play | None, hours: float) -> tuple[float, list[tuple[str, float]]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="log-")))
        server = stack.enter_context(RedisServer(folder))
        if play is None and name != _QUIET:
            play = faults(server)[name]
        if name in DISK:
            folder = stack.enter_context(_disk(folder, real="read-only" in name))
        return log_of_a_day(play, hours, folder, server)


def main(arguments: Sequence[str] | None = None) -> int:
    """Let every fault have its day and print the table. Return the exit code: 0 if every bound is kept."""
    parser = argparse.ArgumentParser(description="The log of a day, and of a day of each fault.")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--only", default="", help="names of faults, separated by ;")
    parser.add_argument("--verbose", action="store_true", help="tell which lines it is")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="log-") as folder:
        names = [*faults(RedisServer(Path(folder))), *DISK]
    wanted = [name for name in options.only.split(";") if name] or names
    quiet_mb, most = _run(_QUIET, None, options.hours)
    figures = [Figure(what=_QUIET, value=quiet_mb, unit="MB", digits=3, at_most=AT_MOST_MB)]
    for name in wanted:
        try:
            day_mb, most = _run(name, DISK.get(name), options.hours)
        except PermissionError as exc:
            say(f"{name}: left out: {exc}")
            continue
        figure = Figure(what=name, value=max(0.0, day_mb - quiet_mb), unit="MB more", digits=3, at_most=AT_MOST_MB)
        figures.append(figure)
        say(f"{name}: {day_mb - quiet_mb:.3f} MB more{'' if figure.met else ' !!!'}")
        if options.verbose:
            for text, size_mb in most:
                say(f"    {size_mb:.3f} MB: {text}")
    return print_table(f"the log of a day, seen for {options.hours:g} h", figures)


if __name__ == "__main__":
    sys.exit(main())
