"""The fields by which a line of the log can be found in the journal: what happened, and what it is about.

A log call passes them as ``extra=about(...)``; the text of the line is the same with and without them.
"""

from __future__ import annotations

from enum import StrEnum

from measurements import CURRENT, VOLTAGE


class Event(StrEnum):
    """The values of EVENT in the journal, as the README's table has them."""

    START = "start"
    STOP = "stop"
    CONFIGURATION = "configuration"
    METER_READY = "meter_ready"
    RANGE = "range"
    REPORT = "report"
    CLOCK = "clock"
    TROUBLE_BEGINS = "trouble_begins"
    TROUBLE_LASTS = "trouble_lasts"
    TROUBLE_ENDS = "trouble_ends"
    CRASH = "crash"
    HANG = "hang"


def about(event: Event, subject: str = "") -> dict[str, str]:
    """Return the ``extra`` of a log call: the event, what it is about, and which meter if it is one."""
    meter = {VOLTAGE: "voltage", CURRENT: "current"}.get(subject)
    fields = {"event": event.value, "subject": subject, "meter": meter}
    return {name: value for name, value in fields.items() if value}
