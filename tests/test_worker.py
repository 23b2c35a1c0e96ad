"""The loop, the stop and the crash of a worker."""

from __future__ import annotations

import logging
import threading

import pytest

from clock import Clock
from state_log import StateLog, duration_text
from tests.clocks import ManualClock
from worker import Worker


class _Counting(Worker):
    def __init__(self, fail_at: int = -1) -> None:
        super().__init__("counting", Clock())
        self.steps = 0
        self.finished_in: str | None = None
        self.fail_at = fail_at

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.fail_at:
            raise RuntimeError("a bug")
        self._stop.wait(0.01)

    def finish(self) -> None:
        self.finished_in = threading.current_thread().name


def test_a_worker_steps_until_it_is_stopped_and_finishes_in_its_own_thread() -> None:
    worker = _Counting()
    worker.start(lambda: pytest.fail("it crashed"))
    while worker.steps < 3:
        threading.Event().wait(0.005)
    worker.request_stop()
    assert worker.join(worker.clock.mono_s() + 10)
    assert worker.finished_in == "counting"


def test_a_crash_is_told_and_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    crashed = threading.Event()
    worker = _Counting(fail_at=2)
    with caplog.at_level(logging.CRITICAL):
        worker.start(crashed.set)
        assert crashed.wait(10)
        assert worker.join(worker.clock.mono_s() + 10)
    assert worker.steps == 2
    assert caplog.records[0].exc_info is not None
    assert "counting crashed" in caplog.text


def test_join_gives_up_at_its_deadline() -> None:
    class _Hanging(_Counting):
        def step(self) -> None:
            released.wait()

    released = threading.Event()
    worker = _Hanging()
    worker.start(lambda: None)
    worker.request_stop()
    assert not worker.join(worker.clock.mono_s() + 0.05)
    released.set()
    assert worker.join(worker.clock.mono_s() + 10)


def test_a_state_is_logged_when_it_changes_and_summed_up_in_between(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    state = StateLog(logging.getLogger("test"), "voltage meter", clock)
    with caplog.at_level(logging.INFO):
        state.well("works")
        for _ in range(100):
            state.failed("timeout", "no answer")
            clock.advance(60)
        state.failed("lost", "port gone")
        state.well("works again")
        state.well("works again")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "voltage meter: no answer",
        "voltage meter: still, after 1 h 0 min and 61 failures: no answer",
        "voltage meter: port gone",
        "voltage meter: works again after 1 h 40 min (failures: 101)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (725, "12 min 5 s"), (18180, "5 h 3 min"), (172_800, "2 d 0 h"), (1_051_200, "12 d 4 h")],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
