"""Who vouches for the clock, and what is done while nobody does."""

from __future__ import annotations

import logging

import pytest

from tests.clocks import ManualClock
from time_keeper import RELEASED_UTC_S, TimeKeeper, end_utc_ms

NOW_UTC_S = RELEASED_UTC_S + 1e6


def keeper(utc_s: float = NOW_UTC_S, *, synchronised: bool = False) -> tuple[TimeKeeper, ManualClock]:
    clock = ManualClock(utc_s=utc_s)
    clock.synchronised = synchronised
    return TimeKeeper(clock, hold_max_s=600.0), clock


def test_the_kernel_s_word_is_enough() -> None:
    keep, clock = keeper(synchronised=True)
    verdict = keep.verdict()
    assert verdict.trusted
    assert verdict.offset_s == clock.utc_s() - clock.mono_s()


@pytest.mark.parametrize("error_s", [0.0, 4.0, -4.0])
def test_a_date_that_agrees_is_enough(error_s: float) -> None:
    keep, clock = keeper()
    assert not keep.verdict().trusted
    keep.heed_answer(clock.utc_s() + error_s)
    verdict = keep.verdict()
    assert verdict.trusted
    assert verdict.offset_s == clock.utc_s() - clock.mono_s()


@pytest.mark.parametrize("error_s", [7.0, -7.0, 21_600.0, -1.6e9])
def test_a_date_that_disagrees_is_gone_by_when_the_kernel_does_not_help_in_time(error_s: float) -> None:
    keep, clock = keeper()
    keep.heed_answer(clock.utc_s() + error_s)
    assert not keep.verdict().trusted
    clock.advance(599.0)
    assert not keep.verdict().trusted
    clock.advance(2.0)
    verdict = keep.verdict()
    assert verdict.trusted
    assert verdict.offset_s == pytest.approx(clock.utc_s() + error_s - clock.mono_s(), abs=1.0)
    assert keep.verdict().trusted  # and stays so


def test_when_the_kernel_sets_the_clock_it_is_gone_by_again() -> None:
    keep, clock = keeper(utc_s=1000.0)
    keep.heed_answer(NOW_UTC_S)
    assert not keep.verdict().trusted
    clock.step_utc(NOW_UTC_S - clock.utc_s())
    clock.advance(2.0)
    clock.synchronised = True
    verdict = keep.verdict()
    assert verdict.trusted
    assert verdict.offset_s == clock.utc_s() - clock.mono_s()


def test_a_step_against_the_date_is_not_followed_unless_the_kernel_says_so() -> None:
    keep, clock = keeper()
    keep.heed_answer(clock.utc_s())
    true_offset_s = keep.verdict().offset_s
    clock.step_utc(-21_600.0)
    assert not keep.verdict().trusted
    clock.advance(601.0)
    verdict = keep.verdict()
    assert verdict.trusted
    assert verdict.offset_s == pytest.approx(true_offset_s, abs=1.0)
    clock.synchronised = True
    clock.advance(2.0)
    assert keep.verdict().offset_s == clock.utc_s() - clock.mono_s()


def test_the_kernel_s_word_is_taken_back_at_once_by_a_step() -> None:
    keep, clock = keeper(synchronised=True)
    keep.heed_answer(clock.utc_s())
    assert keep.verdict().trusted
    clock.step_utc(21_600.0)
    clock.synchronised = False
    assert not keep.verdict().trusted


def test_a_step_back_without_a_date_is_believed_only_if_it_lasts() -> None:
    keep, clock = keeper()
    keep.heed_answer(None)
    first_offset_s = keep.verdict().offset_s
    keep.heed_stored(int(clock.utc_s() * 1000))
    clock.step_utc(-21_600.0)
    verdict = keep.verdict()
    assert (verdict.trusted, verdict.offset_s) == (False, first_offset_s)
    clock.advance(601.0)
    verdict = keep.verdict()
    assert (verdict.trusted, verdict.offset_s) == (True, first_offset_s - 21_600.0)


def test_a_step_back_to_before_the_program_was_written_is_never_believed() -> None:
    keep, clock = keeper()
    keep.heed_answer(None)
    true_offset_s = keep.verdict().offset_s
    keep.heed_stored(int(clock.utc_s() * 1000))
    clock.step_utc(-1e9)
    keep.verdict()
    clock.advance(601.0)
    assert keep.verdict().offset_s == true_offset_s


def test_a_step_back_after_the_kernel_s_word_is_not_believed_without_it() -> None:
    keep, clock = keeper(synchronised=True)
    keep.heed_answer(None)
    true_offset_s = keep.verdict().offset_s
    keep.heed_stored(int(clock.utc_s() * 1000))
    clock.synchronised = False
    clock.step_utc(-21_600.0)
    keep.verdict()
    clock.advance(601.0)
    verdict = keep.verdict()
    assert (verdict.trusted, verdict.offset_s) == (True, true_offset_s)


def test_answers_without_a_date_do_if_the_clock_is_not_in_the_past() -> None:
    keep, _ = keeper()
    keep.heed_answer(None)
    assert keep.verdict().trusted
    keep, _ = keeper(utc_s=RELEASED_UTC_S - 1)
    keep.heed_answer(None)
    assert not keep.verdict().trusted
    keep, _ = keeper()
    keep.heed_stored(int((NOW_UTC_S + 60) * 1000))
    keep.heed_answer(None)
    assert not keep.verdict().trusted


def test_where_nothing_can_vouch_the_bound_ends_the_wait_and_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keep, clock = keeper()
    for _ in range(700):
        keep.verdict()
        clock.advance(1.0)
    assert keep.verdict().trusted
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "held back" in lines[0]
    assert "waited for 600 s" in lines[1]


def test_doubts_of_the_first_seconds_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    keep, clock = keeper()
    keep.verdict()
    clock.advance(1.0)
    keep.heed_answer(clock.utc_s())
    keep.verdict()
    assert not caplog.records


def test_a_clock_whose_word_changes_all_the_time_is_told_now_and_then_and_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    keep, clock = keeper(synchronised=True)
    for minute in range(60):
        clock.synchronised = minute % 2 == 0
        for _ in range(60):
            clock.advance(1.0)
            keep.verdict()
    assert len(caplog.records) == 6
    clock.synchronised = False
    for _ in range(660):
        clock.advance(1.0)
        keep.verdict()
    assert "nothing vouches" in caplog.records[6].getMessage()


def test_an_end_is_as_planned_unless_that_was_not_the_time() -> None:
    assert end_utc_ms(10_000, 5.0, 5.2) == 10_000
    assert end_utc_ms(10_000, 5.0, 5.3) == 10_300
    assert end_utc_ms(10_000, 5.0, 3605.0) == 3_610_000
