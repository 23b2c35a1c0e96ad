"""What the program can do beside running as the daemon: ``--status``, ``--find-meters``, ``--check``, ``--zero``, ...

Runs in the main thread of a process of its own. Prints on stdout what was asked for, on stderr why there is nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TextIO

from clock import Clock
from exit_codes import EXIT_CHECK_FAILED, EXIT_CLEAN, EXIT_CONFIGURATION, EXIT_USAGE
from store import NAME as DATABASE_NAME


def run(options: argparse.Namespace, config: Path) -> int:
    """Do what the command line asks for. Return the exit code."""
    logging.getLogger().addHandler(logging.NullHandler())  # what is to be said, the tools say themselves
    try:
        if options.status:
            return _status(config.parent / DATABASE_NAME, options.json)
        if options.find_meters:
            return _find_meters(config, options.json)
        if options.zero:
            return _zero(config, options.seconds, options.write)
        if options.reset_energy:
            return _reset_energy(config.absolute().parent, ask=not options.yes)
        return _check(config, options.json, options.send_test)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_CHECK_FAILED


def _status(database: Path, in_json: bool) -> int:
    """Print how the daemon is doing, from its database. Blocks 2 s at most."""
    from status import StatusError, as_json, read_status
    from status_text import as_text

    try:
        status = read_status(database, Clock().utc_s())
    except StatusError as exc:
        print(exc, file=sys.stderr)
        return EXIT_CHECK_FAILED
    _show(as_json(status) if in_json else as_text(status))
    return EXIT_CLEAN


def _find_meters(config: Path, in_json: bool) -> int:
    """Print the serial ports and the meters on them. Blocks 20 s at most."""
    from find_meters import as_json, as_text, find_meters

    found = find_meters(config, Clock())
    _show(as_json(found) if in_json else as_text(found))
    return EXIT_CLEAN


def _check(config: Path, in_json: bool, send_test: bool) -> int:
    """Print each finding of the doctor as it comes. Blocks 30 s at most for each."""
    from doctor import examine
    from findings import Result

    code = EXIT_CLEAN
    for finding in examine(config, Clock(), send_test=send_test):
        _show(finding.as_json() if in_json else finding.as_text())
        if finding.result is Result.FAIL:
            code = EXIT_CHECK_FAILED
    return code


def _zero(config: Path, seconds: float | None, write: bool) -> int:
    """Measure the zero of the current meter, print it, store it if wanted. Blocks 15 s longer than that takes."""
    from config_file import ConfigurationError
    from settings import load_settings
    from zero import SECONDS, ZeroRefused, take_zero

    try:
        take_zero(load_settings(config, to_run=False), config, Clock(), _show, seconds=seconds or SECONDS, write=write)
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)
        return EXIT_CONFIGURATION
    except ZeroRefused as exc:
        print(_shown(str(exc), sys.stderr), file=sys.stderr)
        return EXIT_CHECK_FAILED
    return EXIT_CLEAN


def _reset_energy(folder: Path, *, ask: bool) -> int:
    """Set the counters of energy and charge to 0, after the operator's word. Blocks for that, and for the disk."""
    if ask and not (sys.stdin is not None and sys.stdin.isatty()):
        print(
            "There is no terminal to ask whether it is meant: say so with --yes. Nothing was changed", file=sys.stderr
        )
        return EXIT_USAGE
    from log_setup import set_up_logging
    from reset_energy import ResetRefused, reset_energy

    def confirm() -> bool:
        return not ask or _answer("Set all of them to 0? That cannot be undone. Type yes to do it: ") == "yes"

    set_up_logging(folder, level=logging.INFO, secrets=(), console=None)
    try:
        reset_energy(folder, Clock(), _show, confirm)
    except ResetRefused as exc:
        print(_shown(str(exc), sys.stderr), file=sys.stderr)
        return EXIT_CHECK_FAILED
    finally:
        logging.shutdown()
    return EXIT_CLEAN


def _answer(question: str) -> str:
    try:
        return input(question).strip().lower()
    except EOFError:
        return ""


def _show(text: str) -> None:
    """Print on stdout, whatever characters that can show."""
    print(_shown(text, sys.stdout), flush=True)


def _shown(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
