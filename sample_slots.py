"""The samples that are under way: asked for, and waiting for the meters' answers and for what vouches for them.

Used by the sampler thread alone. Guarantees: a sample is complete when each meter that was asked has answered and every
value in it has been confirmed or refused; a meter's failed check refuses that meter's unconfirmed values only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from measurements import PowerSample

UNVERIFIED, LATE = "unverified", "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one meter said when it was asked for a sample: a value in its SI unit, or ``None`` and the reason.

    ``verified``: the meter's settings were found right after it was read. If not, a ``Check`` will tell.
    """

    meter: str
    begun_mono_s: float
    start_mono_s: float
    value: float | None
    refused: str | None = None
    verified: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The word on all values of a meter so far that are not verified: ``refused`` is why they do not count."""

    meter: str
    refused: str | None = None


@dataclass(slots=True, kw_only=True)
class Slot:
    """One due time: which meters were asked, what they said, and whose value is not verified.

    ``sample`` is what was made of it when all had answered, if something was still to be verified then.
    """

    begun_mono_s: float
    awaited: set[str]
    readings: dict[str, Reading] = field(default_factory=dict)
    unverified: set[str] = field(default_factory=set)
    sample: PowerSample | None = None

    @property
    def is_read(self) -> bool:
        """Whether every meter has answered."""
        return self.readings.keys() == self.awaited

    @property
    def is_complete(self) -> bool:
        """Whether nothing in it can change any more."""
        return self.is_read and not self.unverified

    def value(self, meter: str) -> float | None:
        """Return what a meter measured, ``None`` if there is nothing."""
        reading = self.readings.get(meter)
        return None if reading is None else reading.value

    def refusal(self, meter: str) -> str | None:
        """Return why a meter that was asked has no value."""
        if meter not in self.awaited:
            return None
        reading = self.readings.get(meter)
        return LATE if reading is None else reading.refused

    def settle(self, check: Check) -> None:
        """Confirm or refuse the unverified value of a meter."""
        if check.meter in self.unverified:
            self.unverified.discard(check.meter)
            if check.refused is not None:
                self.readings[check.meter] = replace(
                    self.readings[check.meter], value=None, refused=check.refused, verified=True
                )

    def give_up(self) -> None:
        """Refuse what is not verified."""
        for meter in list(self.unverified):
            self.settle(Check(meter=meter, refused=UNVERIFIED))


class Slots:
    """The slots by the moment they were begun, oldest first."""

    def __init__(self) -> None:
        self._slots: dict[float, Slot] = {}

    def __bool__(self) -> bool:
        return bool(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    def begin(self, slot: Slot) -> None:
        """Add a slot."""
        self._slots[slot.begun_mono_s] = slot

    def take_out(self, slot: Slot) -> None:
        """Remove a slot that has been dealt with."""
        del self._slots[slot.begun_mono_s]

    def add(self, reading: Reading) -> Slot | None:
        """Take in a reading and return its slot, ``None`` if that has been dealt with meanwhile."""
        slot = self._slots.get(reading.begun_mono_s)
        if slot is not None:
            slot.readings[reading.meter] = reading
            if reading.value is not None and not reading.verified:
                slot.unverified.add(reading.meter)
        return slot

    def settle(self, check: Check) -> Iterator[Slot]:
        """Confirm or refuse a meter's unverified values; yield each slot that had one."""
        for slot in self:
            if check.meter in slot.unverified:
                slot.settle(check)
                yield slot

    def unverified_since_mono_s(self, meter: str) -> float:
        """Return when the oldest unverified value of a meter was taken, infinity if there is none."""
        return next((slot.begun_mono_s for slot in self._slots.values() if meter in slot.unverified), math.inf)
