"""The command line: what the program can be asked for, and what goes together. Its version."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

VERSION = "1.0.0"

_LEAST_ZERO_S = 5.0
_TOOLS = (
    "check_config",
    "status",
    "find_meters",
    "check",
    "zero",
    "reset_energy",
)  # they do something else than to run the daemon
_WITH_JSON = frozenset({"status", "find_meters", "check"})


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the command line. Ends the process with exit code 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="backend_daemon.py",
        description="Reads voltage and current of a battery from two XDM1041 meters and reports them to the "
        "Aretas cloud and, if enabled, to Redis.",
        epilog="Without arguments it runs with config.cfg of the working directory. "
        "Exit codes: 0 clean, 1 a check failed, 2 usage, 70 internal error, 78 configuration.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="PATH", help="the configuration file; log and data live beside it"
    )
    _add_tools(parser)
    _add_runs(parser)
    parser.add_argument("--version", action="version", version=f"PowerMonitorMiddleware {VERSION}")
    options = parser.parse_args(arguments)
    _check_together(parser, options)
    return options


def _add_tools(parser: argparse.ArgumentParser) -> None:
    def switch(name: str, text: str) -> None:
        parser.add_argument(name, action="store_true", help=text)

    switch("--check-config", "only check the configuration file")
    switch("--status", "show how the daemon of this folder is doing; it need not run")
    switch("--find-meters", "show the serial ports, the meters on them and the lines for config.cfg")
    switch("--check", "check everything: configuration, meters, clock, disk, cloud, Redis")
    switch("--send-test", "with --check: send what was measured to the cloud, too")
    switch("--zero", "measure what the current meter shows while the contactor is open")
    switch("--write", "with --zero: store it in the configuration file")
    switch("--reset-energy", "set the counters of energy and charge to 0; the daemon must be stopped")
    switch("--yes", "with --reset-energy: do not ask")
    switch("--json", "with --status, --find-meters, --check: as JSON, for programs")


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--demo", action="store_true", help="run with simulated meters, battery and cloud; needs nothing"
    )
    parser.add_argument(
        "--seconds",
        type=_positive_seconds,
        metavar="N",
        help="with --demo: end by itself after N seconds; with --zero: measure for N seconds (60)",
    )
    parser.add_argument(
        "--log-level",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        type=str.upper,
        help="default: INFO",
    )


def _check_together(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    tools = [name for name in _TOOLS if getattr(options, name)]
    if options.seconds is not None and not (options.demo or options.zero):
        parser.error("--seconds goes with --demo or --zero")
    if options.zero and options.seconds is not None and options.seconds < _LEAST_ZERO_S:
        parser.error(f"--zero needs at least {_LEAST_ZERO_S:g} seconds")
    if options.write and not options.zero:
        parser.error("--write goes with --zero")
    if options.yes and not options.reset_energy:
        parser.error("--yes goes with --reset-energy")
    if len(tools) > 1:
        parser.error(f"one at a time: {_spelled(tools)}")
    if options.json and _WITH_JSON.isdisjoint(tools):
        parser.error("--json goes with --status, --find-meters or --check")
    if options.send_test and not options.check:
        parser.error("--send-test goes with --check")
    if options.demo and (options.config or tools):
        parser.error(f"--demo makes its own configuration: leave out --config and {_spelled(_TOOLS)}")


def _spelled(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _positive_seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return seconds
