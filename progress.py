"""Says on a terminal how far long work is, or that it goes on. Nothing is said where nobody watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from clock import Clock
from history import Point

_SILENT_S, _TELL_EVERY_S = 1.0, 0.2
_LOOK_EVERY = 500  # points


class Progress:
    """Watches points go by, from one time to another."""

    def __init__(self, clock: Clock, stream: TextIO | None) -> None:
        self._clock = clock
        self._stream = stream if stream is not None and stream.isatty() else None
        self._told = False

    def over(self, points: Iterable[Point], from_utc_ms: int, to_utc_ms: int) -> Iterator[Point]:
        """Yield the points of a period, oldest first, telling which part of it they have passed."""
        next_mono_s = self._clock.mono_s() + _SILENT_S
        try:
            for number, point in enumerate(points):
                yield point
                if number % _LOOK_EVERY == 0 and self._clock.mono_s() >= next_mono_s:
                    next_mono_s = self._clock.mono_s() + _TELL_EVERY_S
                    self._tell(100 * (point.end_utc_ms - from_utc_ms) / max(1, to_utc_ms - from_utc_ms))
        finally:
            self._clear()

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Say that work is going on, where nobody knows how far it is."""
        if self._stream is not None:
            self._told = True
            print("\rreading the history", end="", file=self._stream, flush=True)
        try:
            yield
        finally:
            self._clear()

    def _tell(self, percent: float) -> None:
        if self._stream is not None:
            self._told = True
            print(f"\rreading the history: {min(100.0, percent):3.0f} %", end="", file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._told and self._stream is not None:
            print(f"\r{'':<28}\r", end="", file=self._stream, flush=True)
