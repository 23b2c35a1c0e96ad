"""What the tests of the virtual meter share."""

from __future__ import annotations

import pytest

from tests.simulator.bench import SETTLED_S, Bench


@pytest.fixture
def bench() -> Bench:
    """A noise-free meter with 12.5 mV at its leads, set to 50 mV by hand, past its zeros and its transient."""
    bench = Bench(0.0125)
    bench.send("CONF:VOLT:DC 50E-3")
    bench.wait(SETTLED_S)
    return bench
