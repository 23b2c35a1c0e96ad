"""What an installation costs: seconds, CPU and disk, with each Python that is promised and found here.

    python3 -m benchmarks.install [--times 3]

Each run copies the program into a new folder and calls ``sh run.sh --version`` there, as the README does: it makes the
virtual environment and installs ``requirements.txt`` into it, from wheels alone and with an empty cache of pip's, so
that the network is in the figure. Disk is what the files take in blocks of the file system; medians. MB are 10^6 bytes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stand import Figure, print_table, say
from clock import Clock
from tests.test_install import PYTHONS, copy_program, find_interpreter


@dataclass(frozen=True, slots=True, kw_only=True)
class Install:
    """The costs of one installation."""

    wall_s: float
    cpu_s: float
    environment_mb: float
    packages_mb: float
    program_mb: float


def size_mb(folder: Path) -> float:
    """Return what the files below a folder take on the disk, in MB."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) / 1e6


def packages_mb(environment: Path) -> float:
    """Return what the installed packages take without pip and setuptools, which a new environment has already."""
    (packages,) = environment.glob("lib/python*/site-packages")
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")
    return sum(
        size_mb(each) if each.is_dir() else each.stat().st_blocks * 512 / 1e6
        for each in packages.iterdir()
        if not each.name.startswith(tools)
    )


def install(python: Path) -> Install:
    """Install it once into a new folder. Takes some seconds; raises CalledProcessError if that fails."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        program = copy_program(Path(folder))
        program_mb = size_mb(program)
        environment = {**os.environ, "PYTHON": str(python), "PIP_ONLY_BINARY": ":all:", "PIP_NO_CACHE_DIR": "1"}
        before, started_mono_s = resource.getrusage(resource.RUSAGE_CHILDREN), clock.mono_s()
        subprocess.run(
            ["sh", "run.sh", "--version"], cwd=program, env=environment, check=True, capture_output=True, timeout=600
        )
        after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), clock.mono_s() - started_mono_s
        return Install(
            wall_s=wall_s,
            cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            environment_mb=size_mb(program / ".venv"),
            packages_mb=packages_mb(program / ".venv"),
            program_mb=program_mb,
        )


def figures(version: str, installs: list[Install]) -> list[Figure]:
    """Return the rows of one Python."""

    def row(what: str, unit: str, values: list[float]) -> Figure:
        return Figure(what=f"Python {version}: {what}", value=statistics.median(values), unit=unit, digits=1)

    return [
        row("time", "s", [each.wall_s for each in installs]),
        row("CPU", "s", [each.cpu_s for each in installs]),
        row("disk, the program", "MB", [each.program_mb for each in installs]),
        row("disk, its environment", "MB", [each.environment_mb for each in installs]),
        row("disk, of that the packages", "MB", [each.packages_mb for each in installs]),
    ]


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.install", description="Time and disk of an install.")
    parser.add_argument("--times", type=int, default=3, help="installations with each Python, at least 1 (3)")
    options = parser.parse_args()
    if options.times < 1:
        parser.error("--times must be at least 1")
    rows = []
    for version in PYTHONS:
        python = find_interpreter(version)
        if python is None:
            say(f"there is no Python {version} with venv here: left out")
            continue
        say(f"{options.times} installations with {python}")
        rows += figures(version, [install(python) for _ in range(options.times)])
    return print_table(f"Installation, medians of {options.times}", rows)


if __name__ == "__main__":
    sys.exit(main())
