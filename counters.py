"""The counters of energy in the running daemon: counted with each interval, and written in its transaction.

Used by the outbox alone, under its lock. Guarantees: what an earlier run counted is never forgotten, also where the
database can be used only later, or its file is damaged, as long as anything of it can be read.
"""

from __future__ import annotations

import logging

import energy_book
from energy_book import Book, EnergyTotals
from measurements import Energy, Interval, IntervalSummary
from write_behind import WriteBehind

logger = logging.getLogger(__name__)


class Counters:
    """The book of this run, and from ``join()`` on that of all runs."""

    def __init__(self, disk: WriteBehind) -> None:
        self.book = Book()
        self._disk = disk
        self._joined = False

    @property
    def totals(self) -> EnergyTotals | None:
        """The counters at the end of the last interval; ``None`` while it is not known what is stored."""
        return self.book.totals if self._joined else None

    def join(self, stored: Book) -> None:
        """Go on from what an earlier run has stored, once."""
        if not self._joined:
            self._joined = True
            self._enter(self.book.joined_to(stored))

    def count(
        self, summary: IntervalSummary, ended: Interval, boot_id: str, *, clock_trusted: bool, earlier: bool
    ) -> Energy | None:
        """Count the energy of an interval; return what the counters of its row are, ``None`` if that is not known.

        ``earlier``: it lies before one that was counted already.
        """
        if earlier:
            self._enter(self.book.after_an_earlier(summary, ended))
            return None
        self._enter(self.book.after(summary, ended, boot_id, clock_trusted=clock_trusted))
        return self.book.totals.energy if self._joined else None

    def begin_new_file(self) -> None:
        """Go on in a new file: the old one was damaged, and moved aside."""
        if not self._joined:
            self._joined = True
            self._salvage()
        self._enter(self.book)

    def _salvage(self) -> None:
        """Take the counters over from the damaged file, which was moved aside before anybody had read them."""
        store = self._disk.store
        stored = store.salvage(energy_book.read_book) or store.salvage(energy_book.book_of_newest_interval)
        if stored is not None:
            logger.warning("the counters of energy were read out of the damaged database and go on")
            self.book = self.book.joined_to(stored)
        else:
            logger.critical(
                "the counters of energy could not be read out of the damaged database: they begin at 0 again. Add what "
                "they were at last by hand"
            )

    def _enter(self, book: Book) -> None:
        self.book = book
        self._disk.pending.notes[energy_book.NAME] = book.as_json()
