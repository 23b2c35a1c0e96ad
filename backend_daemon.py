#!/usr/bin/env python3
"""PowerMonitorMiddleware: reads a pair of XDM1041 meters and reports V, A and kW of a battery.

The program: arguments, configuration, supervision, exit code. It measures nothing and talks to nobody.

Exit codes: 0 clean, 1 a check failed, 2 usage, 70 internal error (start it again), 78 configuration.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TextIO

try:
    from clock import Clock
    from command_line import VERSION, parse_arguments
    from config_file import ConfigurationError
    from daemon import Daemon
    from events import Event, about
    from exit_codes import EXIT_CHECK_FAILED, EXIT_CLEAN, EXIT_CONFIGURATION, EXIT_INTERNAL
    from instance import HeldByAnother, InstanceLock, look_for_others
    from journal import is_journal
    from log_setup import SecretFilter, set_up_logging
    from service_manager import ServiceManager
    from settings import Settings, load_settings
    from store import StoreTooNew
    from supervisor import Supervisor
except ModuleNotFoundError as exc:
    print(f"{exc.name} is not installed: use 'sh run.sh', which installs it, or pip install -r requirements.txt")
    sys.exit(78)  # starting it again would not mend that

logger = logging.getLogger("backend_daemon")


def run(
    config: Path, settings: Settings, *, level: int, console: TextIO | None, seconds: float | None, reloads: bool
) -> int:
    """Run the daemon until a signal, a crash or ``seconds`` have passed. Return the exit code."""
    secret_filter = set_up_logging(settings.folder, level=level, secrets=settings.secrets(), console=console)
    for warning in settings.warnings:
        logger.warning("%s", warning, extra=about(Event.CONFIGURATION))
    lock, clock = InstanceLock(settings.folder), Clock()
    try:
        lock.acquire(settings.ports())
    except HeldByAnother as exc:
        return refuse_to_start(f"{exc}; this one does not start", EXIT_CHECK_FAILED)
    daemon = Daemon(settings, clock, secret_filter.add, secret_filter.hide)
    reload = partial(reload_configuration, config, daemon, secret_filter)
    manager = ServiceManager(os.environ, clock, secret_filter.hide)
    if (too_short := manager.warning()) is not None:
        logger.warning("%s", too_short, extra=about(Event.CONFIGURATION))
    supervisor = Supervisor(daemon, manager, clock, reload if reloads else None)
    supervisor.obey_signals()
    logger.info("PowerMonitorMiddleware %s starts: %s", VERSION, settings.outline(), extra=about(Event.START))
    gc.collect()
    gc.freeze()  # what the imports left is never garbage: not to be looked through again for years
    try:
        daemon.start(supervisor.on_crash)
    except StoreTooNew as exc:
        return refuse_to_start(f"{exc}: use that version, or move the file away", EXIT_CONFIGURATION)
    supervisor.wait(seconds)
    logger.info("PowerMonitorMiddleware stops")
    daemon.stop()
    lock.release()
    supervisor.close()
    logger.info("PowerMonitorMiddleware has stopped", extra=about(Event.STOP))
    if supervisor.hung:
        os._exit(EXIT_INTERNAL)  # an orderly end might wait for what the hanging thread holds
    logging.shutdown()
    return EXIT_INTERNAL if supervisor.crashed else EXIT_CLEAN


def reload_configuration(config: Path, daemon: Daemon, secret_filter: SecretFilter) -> None:
    """Read the configuration again; if it is good, go on with it, else with the one there is."""
    extra = about(Event.CONFIGURATION)
    logger.info("the configuration is read again", extra=extra)
    try:
        settings = load_settings(config)
        secret_filter.keep(settings.secrets())
        look_for_others(set(settings.ports()) - set(daemon.settings.ports()))
    except (ConfigurationError, HeldByAnother) as exc:
        for line in str(exc).splitlines():
            logger.error("%s", line, extra=extra)
        logger.error("nothing of it is used: everything goes on as before. Correct it and reload again", extra=extra)
        daemon.refuse_reload("the changed configuration is refused, see the log; the old one is used")
        return
    for warning in settings.warnings:
        logger.warning("%s", warning, extra=extra)
    daemon.reload(settings)
    logger.info("the configuration is used: %s", settings.outline(), extra=extra)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for. Return the exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    level = logging.getLevelName(options.log_level)
    config = options.config or Path("config.cfg")
    if options.status or options.find_meters or options.check or options.zero or options.reset_energy:
        import tools  # here, because the daemon does without it

        return tools.run(options, config)
    with ExitStack() as stack:
        if options.demo:
            from simulator.demo import Demo, DemoError

            try:
                demo = stack.enter_context(Demo(Path("demo")))
            except DemoError as exc:
                return refuse_to_start(f"the demo does not start: {exc}", EXIT_CHECK_FAILED)
            config = demo.config
            print(f"Demo: simulated meters, battery and cloud. Log and data are in {config.parent}")
            print(f"The page: {demo.page}", flush=True)
        try:
            settings = load_settings(config, to_run=not options.check_config)
        except ConfigurationError as exc:
            return refuse(exc, config, level)
        if options.check_config:
            for warning in settings.warnings:
                print(f"warning: {warning}")
            print(f"{config}: the configuration is good")
            return EXIT_CLEAN
        console = sys.stdout if options.demo else sys.stderr if _is_terminal(sys.stderr) else None
        at_terminal = _is_terminal(sys.stdin) or _is_terminal(sys.stderr)  # there SIGHUP means that it was closed
        reloads = not (options.demo or at_terminal)
        return run(config, settings, level=level, console=console, seconds=options.seconds, reloads=reloads)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # Python has none where the program was started with it closed


def refuse_to_start(reason: str, code: int) -> int:
    """Tell the operator on stderr why this daemon does not start. Return the exit code."""
    print(reason, file=sys.stderr)
    logging.shutdown()
    return code


def refuse(error: ConfigurationError, config: Path, level: int) -> int:
    """Tell the operator on stderr, and in the log if there is a place for it, what is wrong with the configuration."""
    has_log = config.is_file()
    if not (has_log and is_journal()):  # else the log brings it there
        print(error, file=sys.stderr)
    if has_log:
        set_up_logging(config.absolute().parent, level=level, secrets=(), console=None)
        for line in str(error).splitlines():
            logger.critical("%s", line, extra=about(Event.CONFIGURATION))
        logging.shutdown()
    return EXIT_CONFIGURATION


def guarded_main() -> int:
    """Do as ``main()`` does, and end with exit code 70 where that has an error, so that it is started again."""
    if sys.stderr is not None:
        faulthandler.enable()  # the service manager's watchdog ends a process by a signal that has all stacks printed
    os.environ.setdefault("RES_OPTIONS", "timeout:3 attempts:1")  # a name server that is gone is not waited for long
    try:
        return main()
    except Exception:  # as in Worker: an error of the program must be in the log, and told from every other end
        logger.critical("the daemon ends, to be started afresh", exc_info=True, extra=about(Event.CRASH))
        return EXIT_INTERNAL
    finally:
        let_go_of_terminal()


def let_go_of_terminal() -> None:
    """Give up what could not be written to a terminal that is gone: at its end Python would exit with 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(guarded_main())
