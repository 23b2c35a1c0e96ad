"""When readings after a change of the settings are believed: the meter's answers at given moments."""

from __future__ import annotations

import pytest

from xdm1041 import Unsettled, XDM1041Rate
from xdm1041.settling import Settling

ZERO = "0.000000E+00"


def over_at(*answers: tuple[float, str], settled: bool = False) -> float | None:
    """Return when settling is over, of answers at moments; ``None`` if it is not."""
    settling = Settling(0.0, XDM1041Rate.SLOW, settled=settled)
    return next((at for at, text in answers if settling.is_over(text, at, zero=text == ZERO)), None)


def test_zeros_then_the_transient_then_two_values() -> None:
    assert over_at((0.1, ZERO), (0.6, "T"), (0.9, "G"), (1.1, "G")) == 1.1
    assert over_at((0.1, ZERO), (0.6, "T"), (1.1, "T"), (1.2, "G")) == 1.2


def test_a_transient_that_comes_late_is_no_settled_value() -> None:
    assert over_at((0.0, ZERO), (2.9, ZERO), (3.1, "T"), (3.2, "T"), (3.5, "G")) == 3.5


def test_a_value_before_the_zeros_counts_for_nothing() -> None:
    assert over_at((0.0, "A"), (0.1, "B"), (0.2, ZERO), (0.8, "T"), (1.1, "T"), (1.2, "G")) == 1.2


def test_a_constant_input_is_settled_after_three_seconds_without_a_zero() -> None:
    assert over_at((0.0, ZERO), (0.5, ZERO), (1.0, "A"), (3.4, "A"), (3.5, "A")) == 3.5


def test_zeros_for_three_seconds_are_told() -> None:
    with pytest.raises(Unsettled, match="exactly zero"):
        over_at((0.0, ZERO), (1.5, "A"), (3.0, ZERO))


def test_of_a_settled_meter_only_a_missed_change_is_ruled_out() -> None:
    assert over_at((0.0, "A"), (0.4, "A"), (0.5, "A"), settled=True) == 0.5
    assert over_at((0.0, "A"), (0.1, ZERO), (0.5, "T"), (0.8, "G"), (1.0, "G"), settled=True) == 1.0
