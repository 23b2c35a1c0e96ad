"""The virtual meter against the two recordings of a real one (firmware V4.0.0).

The recordings lie beside the repository, not in it; without them these tests are skipped.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from simulator.meter import POWER_ON_BYTES, Timing
from tests.simulator.bench import Bench

_DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
_SESSION = _DATA / "xdm1041_session_v4.0.0.txt"
_POLLS = _DATA / "xdm1041_polls_103ms.txt"

pytestmark = pytest.mark.skipif(not _DATA.is_dir(), reason="the recordings (../shared/data) are not on this machine")

_REPLY = re.compile(r"|OWON,.*|-?\d+\.\d+mVDC|-?\d\.\d{6}E[+-]\d\d|NONe|(time|date) = .*")
_POWER_ON_MARK = "[00][00][00][01]"
_READING = re.compile(r"-\d.*")


def _exchanges() -> list[tuple[str, list[str]]]:
    """Return the commands of the recorded session, each with the reply lines that followed it."""
    lines = _SESSION.read_text(encoding="latin-1").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("====")) + 1
    exchanges: list[tuple[str, list[str]]] = []
    for line in lines[start:]:
        if _REPLY.fullmatch(line):
            exchanges[-1][1].append(line)
        else:
            exchanges.append((line.removesuffix("<LF>"), []))
    return exchanges


def _form(line: str) -> str:
    """Return a reading with every digit as 0, other replies as they are."""
    return re.sub(r"\d", "0", line) if _READING.fullmatch(line) else line


def test_the_recorded_session_gets_the_recorded_replies_and_silences() -> None:
    bench = Bench(-0.1e-3)
    silent = answered = 0
    for command, recorded in _exchanges():
        if command.startswith(_POWER_ON_MARK):
            bench.meter.power_cycle()
            assert bench.wait(5.0) == POWER_ON_BYTES
        came = bench.send(command.removeprefix(_POWER_ON_MARK)).decode("ascii")
        bench.wait(1.0)
        expected = "".join(f"{_form(line)}\r\n" for line in recorded)
        assert "".join(f"{_form(line)}\r\n" for line in came.split("\r\n")[:-1]) == expected, command
        answered, silent = answered + bool(recorded), silent + (not recorded)
    assert (answered, silent) == (42, 33)


def _polls() -> tuple[list[float], list[float]]:
    """Return the moments (in seconds since the first) and the values of the recorded polls."""
    rows = re.findall(r"Timestamp:(\d+) Raw value:(\S+)", _POLLS.read_text(encoding="latin-1"))
    first_ms = int(rows[0][0])
    return [(int(stamp) - first_ms) / 1000 for stamp, _ in rows], [float(value) for _, value in rows]


def _runs(values: Sequence[object]) -> list[int]:
    return [len(list(run)) for _, run in itertools.groupby(values)]


def _polled(moments_s: Sequence[float]) -> list[float]:
    """Return what a meter on its 50 V range, set up 0.296 s before the first poll, answers at these moments."""
    bench = Bench(0.0, noise_steps=4.3, timing=Timing(reply_latency_s=0.0, busy_windows=False))
    bench.meter.feed(b"CONF:VOLT:DC 50\n")
    # One first conversion explains all recorded changes without jitter: 237.8 ms after the first poll.
    start_s = bench.clock.mono_s() + 0.2 + 0.33346 - 0.2378
    values = []
    for moment_s in moments_s:
        bench.clock.advance(start_s + moment_s - bench.clock.mono_s())
        bench.meter.feed(b"MEAS1?\n")
        values.append(float(bench.meter.take_due()))
    return values


def test_polls_at_the_recorded_moments_repeat_exactly_as_recorded() -> None:
    moments_s, recorded = _polls()
    values = _polled(moments_s)
    assert _runs(values) == _runs(recorded)
    assert values[:3] == recorded[:3] == [0.0, 0.0, 0.0]


def test_the_first_value_is_a_transient_like_the_recorded_one() -> None:
    moments_s, recorded = _polls()
    for values in (_polled(moments_s), recorded):
        distinct = [value for value, _ in itertools.groupby(values)][1:]
        assert abs(distinct[0]) > 2 * max(abs(value) for value in distinct[1:])


def test_polls_every_103_ms_repeat_three_or_four_times_in_about_the_recorded_ratio() -> None:
    _, recorded = _polls()
    runs = _runs(_polled([0.10355 * poll for poll in range(127)]))[:-1]
    assert set(runs) == {3, 4}
    assert runs.count(4) / len(runs) == pytest.approx(_runs(recorded)[:-1].count(4) / 39, abs=0.05)


def test_the_noise_is_as_strong_as_the_recorded_noise() -> None:
    moments_s, recorded = _polls()
    simulated, real = (
        [value for value, _ in itertools.groupby(values)][2:] for values in (_polled(moments_s), recorded)
    )
    assert _spread(simulated) == pytest.approx(_spread(real), rel=0.4)


def _spread(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))
