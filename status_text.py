"""A status in an operator's words: what is wrong first, then the last values, the meters, the cloud, the ledger.

Pure functions. Guarantees: what a server said cannot command the terminal, and takes one line of bounded length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from energy_status import EnergyStatus, energy_lines
from state_log import duration_text
from status import Last, Ledger, MeterState, Status

_REJECTED_IN_TEXT = 10
_MESSAGE_IN_TEXT = 300

_REASONS = {
    "late": "no answer before the interval ended",
    "overflow": "more than could be kept",
    "Overload": "beyond the range of the meter",
    "BrokenExchange": "garbled answer",
    "ReplyTimeout": "no answer in time",
    "ReplyMalformed": "garbled answer",
    "PortLost": "the port failed",
    "PortUnavailable": "the port could not be opened",
    "SettingsDiffer": "the meter was set differently",
    "Unsettled": "the meter had not settled",
    "frozen": "the same digits for too long: the meter was in hold",
    "implausible": "outside the limits of config.cfg",
    "swapped": "millivolts of the battery, but no current: the meters may be swapped",
    "unverified": "the settings of the meter could not be verified in time",
    "WrongInstrument": "not the meter that belongs there",
    "Interrupted": "the daemon was being stopped",
}


def as_text(status: Status) -> str:
    """Return the status in an operator's words: what is wrong first."""
    problems = [*_daemon_problems(status), *_loss_problems(status)]
    lines = ["All is well." if not problems else "What is wrong:", *(f"  - {each}" for each in problems)]
    for heading, part in (
        ("Last values", _last_lines(status.last)),
        (
            _energy_heading(status.energy),
            ["nothing counted yet"] if status.energy is None else energy_lines(status.energy),
        ),
        ("Meters, when the last interval ended", _meter_lines(status.meters)),
        ("Cloud", _cloud_lines(status)),
        ("Set aside, the newest first, and why", _rejected_lines(status)),
        ("Ledger", _ledger_lines(status.ledger)),
        ("Computer", _computer_lines(status)),
    ):
        if part:
            lines += ["", heading, *(f"  {line}" for line in part)]
    return "\n".join(lines)


def _daemon_problems(status: Status) -> Iterator[str]:
    if status.ledger.closes is False:
        yield "The sums of the ledger (below) do not agree: please report this as a fault of the program."
    if status.overdue_s is not None:
        yield (
            f"Nothing has been stored for {duration_text(status.overdue_s)} when it should have been. "
            "The daemon does not run, or cannot write to the disk, or this computer's clock is wrong."
        )
    for name, meter in (status.meters or {}).items():
        if not meter.works:
            yield f"The {_line(name)} does not work: {_line(meter.trouble or 'it has not answered yet')}"
    delivery, error = status.last_delivery, status.last_error
    if error is not None and (delivery is None or error.timestamp > delivery.timestamp):
        yield f"The last attempt to reach the cloud failed {_ago(error.age_s)}: {_line(error.message)}"
    if status.clock is not None and not status.clock.trusted:
        yield f"It is not certain what time it is, so readings are held back: {_line(status.clock.why)}"


def _loss_problems(status: Status) -> Iterator[str]:
    ledger = status.ledger
    if ledger.readings_dropped:
        yield f"Readings that were dropped, as there was no room for them, and are lost: {ledger.readings_dropped:,}"
    if ledger.readings_rejected:
        yield f"Readings that were refused and are set aside (below): {ledger.readings_rejected:,}"
    if status.unknown:
        yield f"Not known, or not yet: {', '.join(name.replace('_', ' ') for name in status.unknown)}."


def _last_lines(last: Last | None) -> list[str]:
    if last is None:
        return ["none yet"]
    quantities = (
        ("Voltage", last.voltage_v, last.voltage_uncertainty_v, 4, "V"),
        ("Current", last.current_a, last.current_uncertainty_a, 4, "A"),
        ("Power", last.power_kw, last.power_uncertainty_kw, 5, "kW"),
    )
    values = [
        f"{name:<7}  {'no value' if value is None else f'{value:.{digits}f} {unit}'}"
        + ("" if value is None or uncertainty is None else f" +/- {uncertainty:.{digits}f}")
        for name, value, uncertainty, digits, unit in quantities
    ]
    uncertain = "" if last.time_known else "; the time is not certain yet"
    return [*values, f"Average until {_ago(last.age_s)} ({_time(last.timestamp)}{uncertain})"]


def _energy_heading(energy: EnergyStatus | None) -> str:
    return (
        "Energy" if energy is None or energy.counting_since is None else f"Energy since {_time(energy.counting_since)}"
    )


def _meter_lines(meters: Mapping[str, MeterState] | None) -> list[str]:
    return [
        f"{_line(name).capitalize()}: {'works' if meter.works else 'DOES NOT WORK'}, "
        f"serial number {_line(meter.serial_number or 'not known yet')}, on {_line(meter.port)}"
        for name, meter in (meters or {}).items()
    ] or ["not known yet"]


def _cloud_lines(status: Status) -> list[str]:
    waiting, delivery, error = status.ledger.readings_waiting, status.last_delivery, status.last_error
    line = f"Waiting: {_count(waiting)} readings"
    if status.oldest_waiting_s is not None:
        line += f", the oldest for {_lasted(status.oldest_waiting_s)}"
    lines = [line]
    if status.readings_held:
        lines.append(f"Held back until the time is known: {_count(status.readings_held)} of them")
    lines.append(f"Last delivery: {_ago(delivery.age_s) if delivery else 'none yet'}")
    lines.append(f"Last error: {f'{_ago(error.age_s)}: {_line(error.message)}' if error else 'none'}")
    return lines


def _rejected_lines(status: Status) -> list[str]:
    shown = status.rejected[:_REJECTED_IN_TEXT]
    lines = [
        f"{_time(each.timestamp)}, device {each.mac}, sensor type {each.type}, value {_value(each.data)}: "
        f"{_line(each.message)}"
        for each in shown
    ]
    more = (status.rejected_total or 0) - len(shown)
    return [*lines, f"and {more:,} older ones"] if more > 0 else lines


def _ledger_lines(ledger: Ledger) -> list[str]:
    refused = ledger.samples_refused
    refusals = None if refused is None else sum(refused.values())
    return [
        f"Read from the meters: {_count(ledger.samples_read)}",
        f"  = {_count(ledger.samples_averaged)} averaged + {_count(refusals)} refused "
        f"+ {_count(ledger.samples_open)} in the interval that is not over yet",
        *(f"    refused {count:,}: {_line(_REASONS.get(reason, reason))}" for reason, count in (refused or {}).items()),
        f"Made for the cloud: {_count(ledger.readings_made)}",
        f"  = {_count(ledger.readings_delivered)} delivered + {_count(ledger.readings_waiting)} waiting "
        f"+ {_count(ledger.readings_rejected)} set aside + {_count(ledger.readings_dropped)} dropped",
        {True: "The sums agree", False: "THE SUMS DO NOT AGREE", None: "Whether the sums agree is not known"}[
            ledger.closes
        ],
    ]


def _computer_lines(status: Status) -> list[str]:
    clock, megabytes = status.clock, status.database_bytes / 1e6
    trust = "not known yet" if clock is None else f"{'right' if clock.trusted else 'UNCERTAIN'}: {_line(clock.why)}"
    return [f"Clock: {trust}", f"Database: {megabytes:.1f} MB"]


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _value(number: float | None) -> str:
    return "unknown" if number is None else f"{number:.6g}"


def _lasted(age_s: float) -> str:
    """Return an age in words; a negative one comes of a clock that was set back."""
    return duration_text(max(0.0, age_s))


def _ago(age_s: float) -> str:
    if age_s < -1:
        return f"{duration_text(-age_s)} in the future, by this computer's clock"
    return f"{_lasted(age_s)} ago"


def _time(utc_ms: int | None) -> str:
    try:
        return (
            "time unknown" if utc_ms is None else f"{datetime.fromtimestamp(utc_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        )
    except (OverflowError, ValueError, OSError):
        return "time impossible"


def _line(text: str) -> str:
    """Return a text that comes from outside as one line: nothing in it can command a terminal or fill the screen."""
    shown = text if len(text) <= _MESSAGE_IN_TEXT else text[:_MESSAGE_IN_TEXT] + " ..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in shown)
