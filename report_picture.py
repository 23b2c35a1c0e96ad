"""The picture of a report: V, A and kW over time, each with its mean and the band between its extremes, as a PNG.

The only file that needs matplotlib (requirements-report.txt); imported only where a picture is wanted.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from history import Aggregate, Point

Times = np.ndarray[tuple[int], np.dtype[np.datetime64]]

_QUANTITIES = (("Voltage (V)", "tab:blue"), ("Current (A)", "tab:orange"), ("Power (kW)", "tab:green"))


def picture(points: Sequence[Point], step_ms: int, title: str) -> bytes:
    """Return the picture of the points of buckets of ``step_ms``. A line is broken where nothing was measured.

    The time is local, but goes on evenly where summer time begins or ends: UTC with the difference of the first point.
    """
    points = _with_breaks(points, step_ms)
    begin = datetime.fromtimestamp(points[0].end_utc_ms / 1000 if points else 0).astimezone()
    offset_ms = int((begin.utcoffset() or timedelta()).total_seconds() * 1000)
    times = np.array([each.end_utc_ms + offset_ms for each in points], dtype="datetime64[ms]")
    file = io.BytesIO()
    with rc_context({"date.converter": "concise"}):
        figure = Figure(figsize=(12, 9), layout="constrained")
        figure.suptitle(title)
        axes: Sequence[Axes] = figure.subplots(3, 1, sharex=True)
        for number, (axis, (label, colour)) in enumerate(zip(axes, _QUANTITIES, strict=True)):
            _draw(axis, times, [(each.voltage_v, each.current_a, each.power_kw)[number] for each in points], colour)
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
        axes[-1].set_xlabel(f"time, UTC{begin:%z}")
        figure.savefig(file, format="png")
    return file.getvalue()


def _draw(axis: Axes, times: Times, values: Sequence[Aggregate | None], colour: str) -> None:
    means = [math.nan if each is None else each.mean for each in values]
    lowest = [math.nan if each is None else each.minimum for each in values]
    highest = [math.nan if each is None else each.maximum for each in values]
    alone = _alone(means)
    axis.fill_between(times, lowest, highest, color=colour, alpha=0.25, linewidth=0)
    axis.vlines(times[alone], np.array(lowest)[alone], np.array(highest)[alone], color=colour, alpha=0.25)
    axis.plot(times, means, color=colour, linewidth=1, marker=".", markevery=alone)


def _alone(means: Sequence[float]) -> list[int]:
    """Return the numbers of the points without a neighbour: a line would not show them."""
    framed = [math.nan, *means, math.nan]
    return [
        number
        for number, (before, mean, after) in enumerate(zip(framed, framed[1:], framed[2:], strict=False))
        if math.isnan(before) and math.isnan(after) and not math.isnan(mean)
    ]


def _with_breaks(points: Sequence[Point], step_ms: int) -> list[Point]:
    """Put an empty point into each gap that is wider than usual."""
    usual_ms = median([step_ms, *(later.end_utc_ms - each.end_utc_ms for each, later in pairwise(points))])
    broken: list[Point] = []
    for point in points:
        if broken and point.end_utc_ms - broken[-1].end_utc_ms > 2 * max(step_ms, usual_ms):
            broken.append(_nothing_at(broken[-1].end_utc_ms + step_ms))
        broken.append(point)
    return broken


def _nothing_at(end_utc_ms: int) -> Point:
    return Point(
        end_utc_ms=end_utc_ms,
        voltage_v=None,
        current_a=None,
        power_kw=None,
        energy_in_kwh=None,
        energy_out_kwh=None,
        charge_in_ah=None,
        charge_out_ah=None,
        energy_s=None,
        intervals=0,
    )
