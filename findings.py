"""What ``--check`` finds out, one line each: the vocabulary of ``doctor.py`` and its parts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum


class Result(Enum):
    """``WARN``: it works, but look at it. ``FAIL``: numbers are wrong or missing until it is mended."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked, how it came out, and what to do about it. ``message`` is one line."""

    check: str
    result: Result
    message: str

    def as_json(self) -> str:
        """Return it as a JSON object on one line, in ASCII."""
        return json.dumps({"check": self.check, "result": self.result.value, "message": self.message})

    def as_text(self) -> str:
        """Return it as a line for a person to read."""
        return f"{self.result.value:<4}  {self.check}: {self.message}"


def ok(check: str, message: str) -> Finding:
    """Return a finding with nothing to do about it."""
    return Finding(check=check, result=Result.OK, message=message)


def warn(check: str, message: str) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding(check=check, result=Result.WARN, message=message)


def fail(check: str, message: str) -> Finding:
    """Return a finding that has to be mended."""
    return Finding(check=check, result=Result.FAIL, message=message)
