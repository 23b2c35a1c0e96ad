"""How patient the server is with its connections: one that holds what others need is dropped.

waitress gives up a connection on which nothing happens, but not one that sends a byte a second, nor one that asks for
much and does not read it: these would hold a place, or a thread, for ever. Used by the server's own thread, which alone
touches the connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from clock import Clock
from web.headers import NO_STORE, SECURITY, error_body

_REQUEST_WITHIN_S = 10.0
_IDLE_FOR_S = 60.0
_ANSWER_TAKES_S, _ANSWER_TAKES_BYTES = 10.0, 32_768  # whoever reads less than so much in this time does not read


class Refusal(ErrorTask):
    """Says as JSON what is wrong with bytes that are no request."""

    def execute(self) -> None:
        """Answer, and close the connection."""
        request: Any = self.request
        headers: Any = self.response_headers
        error = request.error
        body = error_body(str(error.reason).lower())
        self.status = f"{error.code} {error.reason}"
        headers.extend([("Content-Type", "application/json"), *NO_STORE, *SECURITY])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """A connection that counts what it has sent."""

    error_task_class = Refusal
    sent_bytes = 0

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what the system takes, and count it."""
        sent: int = super().send(data, do_close)
        self.sent_bytes += sent or 0
        return sent


class State(Enum):
    """What a connection is at."""

    NEW = "new"
    ASKING = "asking"
    ANSWERED = "answered"
    IDLE = "idle"


@dataclass(slots=True)
class _Look:
    state: State
    since_mono_s: float
    sent_bytes: int


class Patience:
    """Looks at all connections now and then, and drops those that have had their time. ``most``: how many may stay."""

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._seen: dict[Any, _Look] = {}

    def look(self, channels: list[Any]) -> int:
        """Drop who has had his time; when it is crowded, those that ask for nothing, too. Return how many."""
        now_mono_s = self._clock.mono_s()
        self._seen = {channel: self._seen[channel] for channel in channels if channel in self._seen}
        dropped = [channel for channel in channels if self._is_over(channel, now_mono_s)]
        if len(channels) - len(dropped) >= self._most:
            idle = [each for each in channels if self._seen[each].state is not State.ANSWERED and each not in dropped]
            idle.sort(key=lambda each: self._seen[each].since_mono_s)
            dropped += idle[: max(1, len(idle) // 2)]
        for channel in dropped:
            channel.handle_close()
            del self._seen[channel]
        return len(dropped)

    def _is_over(self, channel: Any, now_mono_s: float) -> bool:
        state = _state_of(channel)
        seen = self._seen.get(channel)
        if seen is None or seen.state is not state:
            self._seen[channel] = _Look(state, now_mono_s, channel.sent_bytes)
            return False
        lasts_s = now_mono_s - seen.since_mono_s
        if state is State.ANSWERED:
            if channel.sent_bytes - seen.sent_bytes >= _ANSWER_TAKES_BYTES or not channel.total_outbufs_len:
                seen.since_mono_s, seen.sent_bytes = now_mono_s, channel.sent_bytes
                return False
            return lasts_s > _ANSWER_TAKES_S
        if state is State.IDLE:
            return lasts_s > _IDLE_FOR_S
        return lasts_s > _REQUEST_WITHIN_S


def _state_of(channel: Any) -> State:
    if channel.requests or channel.total_outbufs_len:
        return State.ANSWERED
    if channel.request is not None:
        return State.ASKING
    return State.IDLE if channel.sent_bytes else State.NEW
