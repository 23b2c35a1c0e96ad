"""Readings on loan: which ones the uploader gets, and that each is settled once.

Used by the outbox alone, under its lock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import tables
from quantities import ALL_BITS, COUNTER_BITS
from tables import Lent
from write_behind import WriteBehind


class Loans:
    """Lends what the database has, or where that cannot be used, what only memory has and a kill makes not twice."""

    def __init__(self, disk: WriteBehind) -> None:
        self._disk = disk
        self._pending = disk.pending

    def lend(self, count: int, avoid: Collection[int], *, newest: bool) -> list[Lent]:
        """Return readings of whole intervals: of the newest, or of the oldest until there are ``count``.

        Counters are lent once they are in the database: after a kill they would be less than what was sent.
        ``avoid``: the MACs of devices to leave out. Blocks for the disk.
        """
        if not self._disk.usable:
            self._disk.write()
        if self._disk.usable:
            return self._disk.read(lambda cursor: tables.sendable(cursor, count, avoid, newest=newest)) or []
        lent: list[Lent] = []
        records = [each for each in self._pending.records.values() if each.number not in self._disk.tied]
        for record in reversed(records) if newest else records:
            if len(lent) >= count:
                break
            if record.device.mac not in avoid and (not lent or record.device.mac == lent[0].datum.mac):
                lent += [each for each in record.lent() if each.bit not in COUNTER_BITS]
        return lent

    def still_waiting(self, lent: Sequence[Lent]) -> list[Lent]:
        """Return what has not been settled by another borrower: a reload can leave an uploader behind."""
        waiting = {number: self._waiting_bits(number) for number in {each.interval for each in lent}}
        return [each for each in lent if each.bit & waiting[each.interval]]

    def take_out(self, lent: Sequence[Lent]) -> int:
        """Have what still waits of these wait no longer; return how many they were."""
        pending, settled = self._pending, self.still_waiting(lent)
        for each in settled:
            number = each.interval
            if (record := pending.records.get(number)) is not None:
                pending.records[number] = replace(record, waiting=record.waiting & ~each.bit)
            else:
                pending.settled[number] = pending.settled.get(number, 0) | each.bit
        return len(settled)

    def _waiting_bits(self, number: int) -> int:
        if (record := self._pending.records.get(number)) is not None:
            return record.waiting
        bits = self._disk.read(lambda cursor: tables.waiting_bits(cursor, number))
        if number < self._disk.first_number:
            return 0  # counted as dropped when its file was moved aside
        return (ALL_BITS if bits is None else bits) & ~self._pending.settled.get(number, 0)
