"""``--reset-energy``: has the counters of energy and charge begin anew, and says what they stood at.

Runs in the main thread of a process of its own, while the daemon does not: it has the daemon's lock when it writes.
Guarantees: the four counters, their coverage and their uncertainties begin anew together or not at all, also over a
power cut. The history stays, and so do readings that wait for the cloud: they keep the counters of their time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import tables
from clock import Clock
from energy_book import EnergyTotals, begin_anew, read_totals
from energy_status import energy_lines, energy_status
from instance import HeldByAnother, InstanceLock, running_daemon
from status import StatusError, read_status
from store import NAME as DATABASE_NAME
from store import Store, StoreError, StoreUncertain

logger = logging.getLogger(__name__)


class ResetRefused(Exception):
    """The counters are as they were, unless the message says otherwise; it says why and what to do. Then try again.

    Examples: the daemon runs, there is no database, it belongs to another user, the operator did not say yes.
    """


def reset_energy(folder: Path, clock: Clock, say: Callable[[str], None], confirm: Callable[[], bool]) -> None:
    """Set the counters of the database in ``folder`` to 0 if ``confirm()`` returns true.

    ``say`` is told what they stand at before that is asked, and in the end what was done. Blocks for the disk and for
    ``confirm``. Raises ``ResetRefused``: nothing was changed.
    """
    database = folder / DATABASE_NAME
    _check_daemon_is_stopped(running_daemon(folder))
    say(_as_text(database, clock))
    _check_owner(database)
    if not confirm():
        raise ResetRefused("Nothing was changed")
    lock, store = InstanceLock(folder), Store(database, clock)
    try:
        lock.acquire([])
        before = _begin_anew(store)
    except HeldByAnother:
        _check_daemon_is_stopped(running_daemon(folder) or "unknown")
    except StoreUncertain as exc:
        raise ResetRefused(
            f"The disk failed at the last moment ({exc}): look with --status whether the counters are 0 now, and do "
            "this again if they are not"
        ) from exc
    except StoreError as exc:
        raise ResetRefused(f"Nothing was changed, the database {database} cannot be written: {exc}") from exc
    finally:
        store.close()
        lock.release()
    told = "; ".join(" ".join(line.split()) for line in energy_lines(energy_status(before)))
    logger.info("the counters of energy and charge begin anew at 0, as the operator asked for. They were: %s", told)
    say("They begin anew at 0 with the next start of the daemon. What they were is in the log, too.")


def _check_daemon_is_stopped(process: str | None) -> None:
    if process is not None:
        raise ResetRefused(
            f"Nothing was changed: the daemon runs (process {process}) and would go on with its own counters. Stop it, "
            "do this again, and start it again. A service: sudo systemctl stop powermonitormiddleware"
        )


def _check_owner(database: Path) -> None:
    """Refuse as another user: files that this makes beside the database would be closed to the daemon."""
    if os.name == "posix" and (owner := database.stat().st_uid) != os.geteuid():
        raise ResetRefused(
            f"Nothing was changed: {database} belongs to another user (number {owner}), who runs the daemon. Do this "
            "as that one; with a service: sudo -u powermonitor ..."
        )


def _as_text(database: Path, clock: Clock) -> str:
    """Return what the counters stand at. Changes no file, a damaged one neither: that is left to the daemon."""
    try:
        energy = read_status(database, clock.utc_s()).energy
    except StatusError as exc:
        raise ResetRefused(f"{exc}. Nothing was changed") from exc
    if energy is None:
        raise ResetRefused(f"Nothing was changed: nothing has been counted yet in {database}")
    return "\n".join(["The counters of energy and charge are:", *(f"  {line}" for line in energy_lines(energy))])


def _begin_anew(store: Store) -> EnergyTotals:
    """Set the counters to 0 and return what they were."""
    with store.transaction(synced=True) as cursor:
        left = tables.read_open_interval(cursor)
        if left is not None and left.samples:
            raise ResetRefused(
                "Nothing was changed: the daemon was not stopped in an orderly way, and what it had measured last is "
                "not in the counters yet. Start it, stop it, and do this again"
            )
        before = read_totals(cursor)
        begin_anew(cursor)
        tables.delete_open_interval(cursor)  # it began before now: the time until then would count as a gap
    return before or EnergyTotals()
