"""Faults in time: a list of strikes, written down or drawn at random, and a thread that plays it on two meters.

The same seed draws the same strikes, and a strike played again does the same bytes. Times are seconds of the meters'
clock, which may run faster than the day.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from clock import Clock

from .mishaps import MISHAPS, End, MeterPair, Mishap

_PAIR_CHANCE = 0.35
_ONCE_CHANCE = 0.6
_STRUCK_WITHIN_S = 1.5  # by then it has met a reply, at sample intervals up to 500 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One fault: when it begins (seconds after the schedule's start), at which meter, which it is, how long it lasts.

    With ``once`` a few replies are spoilt, for which it waits as long as it lasts. ``seed`` decides what the kind
    leaves open.
    """

    at_s: float
    meter: str
    kind: str
    duration_s: float
    once: bool = False
    seed: int = 0

    def begin(self, pair: MeterPair) -> End:
        """Bring it about. Return how to end it."""
        mishap, chance = MISHAPS[self.kind], random.Random(self.seed)
        begin = mishap.begin_once if self.once and mishap.begin_once else mishap.begin
        return begin(pair.places[self.meter], chance)

    @property
    def over_s(self) -> float:
        """When it is over and the meter has booted, if that is a part of it: seconds after the schedule's start."""
        return self.at_s + (0.0 if self.once else self.duration_s) + MISHAPS[self.kind].tail_s

    @property
    def gone_s(self) -> float:
        """When nothing of it can come any more: seconds after the schedule's start."""
        mishap = MISHAPS[self.kind]
        return self.at_s + self.duration_s + mishap.tail_s + mishap.echo_s


class FaultSchedule:
    """Plays strikes on a pair of meters: ``start()`` does it in a thread, ``play()`` in the caller's."""

    def __init__(self, pair: MeterPair, strikes: Sequence[Strike], clock: Clock) -> None:
        self.strikes = tuple(sorted(strikes, key=lambda strike: strike.at_s))
        self.started_mono_s = 0.0
        self._pair = pair
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to play, in a thread of its own."""
        self._thread = threading.Thread(target=self.play, name="fault schedule", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End at once what is being played, mend everything, and wait for the thread."""
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait until everything has been played."""
        if self._thread is not None:
            self._thread.join()

    def play(self) -> None:
        """Play all strikes, each from its begin to its end, then mend what is left. Blocks until it is done."""
        self.started_mono_s = self._clock.mono_s()
        begins = [(strike.at_s, number, strike) for number, strike in enumerate(self.strikes)]
        ends: list[tuple[float, int, End]] = []
        while (begins or ends) and not self._stop.is_set():
            next_s = min(row[0] for row in (*begins[:1], *ends[:1]))
            if self._stop.wait(self._clock.timeout_s(self.started_mono_s + next_s)):
                break
            if ends and ends[0][0] <= next_s:
                heapq.heappop(ends)[2]()
                continue
            _, number, strike = begins.pop(0)
            heapq.heappush(ends, (strike.at_s + strike.duration_s, number, strike.begin(self._pair)))
        for _, _, end in sorted(ends, key=lambda row: row[:2]):  # of what stop() has interrupted
            end()
        self._pair.restore()


def random_episodes(
    seed: int, mishaps: Mapping[str, Mishap] = MISHAPS, meters: Sequence[str] = ("voltage", "current")
) -> Iterator[tuple[Strike, ...]]:
    """Yield episodes for ever: one strike, or two that overlap, at one meter or one at each. The first is at 0 s."""
    chance = random.Random(seed)
    while True:
        first = _strike(chance, mishaps, meters)
        if chance.random() >= _PAIR_CHANCE:
            yield (first,)
            continue
        second = _strike(chance, mishaps, meters)
        if _go_together(mishaps, first, second):
            yield first, replace(second, at_s=chance.uniform(0.0, min(first.duration_s, 3.0) + 0.5))


def random_schedule(seed: int, *, count: int, gap_s: float, mishaps: Mapping[str, Mishap] = MISHAPS) -> list[Strike]:
    """Return at least ``count`` strikes, each episode ``gap_s`` seconds after the one before it is over."""
    strikes: list[Strike] = []
    from_s = gap_s
    for episode in random_episodes(seed, mishaps):
        strikes += [replace(strike, at_s=from_s + strike.at_s) for strike in episode]
        from_s = gap_s + max(strike.over_s for strike in strikes)
        if len(strikes) >= count:
            break
    return strikes


def _strike(chance: random.Random, mishaps: Mapping[str, Mishap], meters: Sequence[str]) -> Strike:
    kind = chance.choices(list(mishaps), [mishap.share for mishap in mishaps.values()])[0]
    shortest_s, longest_s = mishaps[kind].lasts_s
    once = mishaps[kind].begin_once is not None and chance.random() < _ONCE_CHANCE
    stretch = (longest_s / shortest_s) ** chance.random() if shortest_s else 1.0
    return Strike(
        at_s=0.0,
        meter=chance.choice(meters),
        kind=kind,
        duration_s=_STRUCK_WITHIN_S if once else shortest_s * stretch,
        once=once,
        seed=chance.randrange(2**32),
    )


def _go_together(mishaps: Mapping[str, Mishap], first: Strike, second: Strike) -> bool:
    """Return whether two strikes can overlap: two that move the same port cannot."""
    one, other = mishaps[first.kind], mishaps[second.kind]
    same_place = first.meter == second.meter or one.both or other.both
    return not (same_place and one.moves_port and other.moves_port)
