"""How long answers are written: piece by piece, so that they take little memory and no thread waits for one of them.

Used by the threads of the web server. The encoder of JSON lets no other thread run while it works: a piece is small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

from web.answers import CSV_HEADING, columns, csv_line, point

_POINTS_IN_PIECE = 20
_LINES_IN_PIECE = 50
_VALUES_IN_PIECE = 500


def as_json(value: object) -> bytes:
    """Return a value as JSON. The encoder lets no other thread run meanwhile: only for what is small."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


class Paced:
    """The pieces of an answer; ``end`` is called when the last is out or nobody wants more."""

    def __init__(self, answer: Iterable[bytes], end: Callable[[], object]) -> None:
        self._answer = answer
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        """Called by the server at the end, whatever the end was."""
        close = getattr(self._answer, "close", None)
        if close is not None:
            close()
        self._end()


class Table:
    """The lines of the table, some at a time, with ``breathe`` between; ``release`` is called once, at the end."""

    def __init__(self, points: Iterator[Any], breathe: Callable[[], object], release: Callable[[], object]) -> None:
        self._breathe = breathe
        self._pieces = self._lines(points)
        self._release: Callable[[], object] | None = release

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Called by the server at the end, whatever the end was."""
        self._pieces.close()
        if self._release is not None:
            self._release()
            self._release = None

    def _lines(self, points: Iterator[Any]) -> Generator[bytes, None, None]:
        lines = [CSV_HEADING]
        for each in points:
            lines.append(csv_line(each))
            if len(lines) >= _LINES_IN_PIECE:
                yield _text(lines)
                lines.clear()
                self._breathe()
        if lines:
            yield _text(lines)


def _text(lines: list[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n").encode()


def pieces_of_points(head: Mapping[str, object], points: list[Any]) -> Iterator[bytes]:
    """Yield the history as a list of points, behind the fields of ``head``."""
    yield as_json(head)[:-1] + b', "points": ['
    for begin in range(0, len(points), _POINTS_IN_PIECE):
        piece = [point(each) for each in points[begin : begin + _POINTS_IN_PIECE]]
        yield (b", " if begin else b"") + as_json(piece)[1:-1]
    yield b"]}"


def pieces_of_columns(head: Mapping[str, object], points: list[Any]) -> Iterator[bytes]:
    """Yield the history by column, behind the fields of ``head``."""
    yield as_json(head)[:-1]
    for name, values in columns(points):
        yield f', "{name}": '.encode()
        if isinstance(values, list):
            yield from _pieces_of_list(values)
        else:
            for number, (field, each) in enumerate(values.items()):
                yield ("{" if number == 0 else ", ").encode() + f'"{field}": '.encode()
                yield from _pieces_of_list(each)
            yield b"}"
    yield b"}"


def _pieces_of_list(values: list[Any]) -> Iterator[bytes]:
    yield b"["
    for begin in range(0, len(values), _VALUES_IN_PIECE):
        yield (b", " if begin else b"") + as_json(values[begin : begin + _VALUES_IN_PIECE])[1:-1]
    yield b"]"
