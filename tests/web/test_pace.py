"""The answers may take so much of the processor and no more."""

from __future__ import annotations

import pytest

from tests.clocks import ManualClock
from web.pace import Pace


class Worked:
    """A thread's processor time, and a pace whose pauses let the clock go on."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self.paused_s = 0.0
        self.clock = ManualClock()
        self.pace = Pace(self.clock, self._pause, lambda: self.used_s)

    def _pause(self, seconds: float) -> None:
        self.paused_s += seconds
        self.clock.advance(seconds)

    def answer(self, cost_s: float, *, pieces: int = 1) -> None:
        self.pace.begin()
        for _ in range(pieces - 1):
            self._work(cost_s / pieces)
            self.pace.breathe()
        self._work(cost_s / pieces)
        self.pace.end()

    def _work(self, cost_s: float) -> None:
        self.used_s += cost_s
        self.clock.advance(cost_s)


def test_what_a_person_asks_is_answered_at_once() -> None:
    worked = Worked()
    for _ in range(4):
        worked.answer(0.3)
    for _ in range(100):
        worked.answer(0.001)
        worked.clock.advance(1.0)
    assert worked.paused_s == 0.0


@pytest.mark.parametrize(("cost_s", "pieces"), [(0.0001, 1), (0.01, 1), (0.5, 1), (5.0, 100)])
def test_whoever_asks_without_end_gets_an_eighth_of_a_processor(cost_s: float, pieces: int) -> None:
    worked = Worked()
    begun_mono_s, requests = worked.clock.mono_s(), 0
    while worked.clock.mono_s() < begun_mono_s + 300:
        worked.answer(cost_s, pieces=pieces)
        requests += 1
    lasted_s = worked.clock.mono_s() - begun_mono_s
    assert worked.used_s <= 0.125 * lasted_s + 2.0 + cost_s
    assert requests <= (0.125 * lasted_s + 2.0) / 0.005 + 1


def test_a_long_answer_leaves_time_between_its_pieces() -> None:
    worked = Worked()
    worked.answer(10.0, pieces=1000)
    assert worked.paused_s > 20.0


def test_who_waited_long_may_ask_for_much_but_not_for_more_than_that() -> None:
    worked = Worked()
    worked.clock.advance(1_000_000)
    worked.answer(2.0)
    worked.answer(1.0)
    assert worked.paused_s == pytest.approx(0.0, abs=0.1)
    worked.answer(1.0)
    assert worked.paused_s > 1.0
